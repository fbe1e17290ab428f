//! What every aggregate function does, and which one a call gets.
//!
//! An accumulator has two lives. During the epoch it collects per group number, column by column. At the barrier it is asked
//! group by group to read what the state holds, add the epoch's part, write the sum back and note the old and the new
//! output; `finish` then gives both as columns.

use super::AggregateSpec;
use super::bits::Bits;
use super::bools::Bools;
use super::count::Count;
use super::extreme::{ByteExtreme, NumberExtreme, SetExtreme, holds_numbers};
use super::library::Library;
use super::list::List;
use super::number::NumberShape;
use super::ordered::Ordered;
use super::pairs::Pairs;
use super::regression::Regression;
use super::sum::{FloatSum, WholeSum};
use super::value_set::{Distinct, ValueSetChanges};
use super::variance::Variance;
use crate::OperatorError;
use crate::value_bytes::Reader;
use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::{DataType, Field, i256};
use datafusion::error::DataFusionError;
use tidegate_plan::{AggregateCall, AggregateFunction};
use tidegate_state::Table;
use tidegate_types::SqlState;

pub trait Accumulator: Send {
    /// Makes room for this many groups.
    fn resize(&mut self, groups: usize);

    /// Row i belongs to group `groups[i]` and counts `weights` times.
    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError>;

    /// The value sets hold the changes of the next chunk of groups.
    fn prepare(&mut self, _sets: &[ValueSetChanges]) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Reads the group's old state (none for a new group), appends the new one, and notes both outputs.
    fn merge(
        &mut self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError>;

    /// The old and the new outputs of the groups merged since the last call.
    fn finish(&mut self) -> Result<[Finished; 2], OperatorError>;

    /// Forgets the epoch.
    fn clear(&mut self);
}

/// Where a merge is: one group, and what there is to look at.
pub struct Merge<'a> {
    pub group: usize,
    /// None: there was no such group.
    pub rows_old: Option<i64>,
    pub rows_new: i64,
    pub key: &'a [u8],
    pub sets: &'a [ValueSetChanges],
    pub tables: &'a [Box<dyn Table>],
}

/// How often each row counts.
#[derive(Clone, Copy)]
pub enum Weights<'a> {
    Ones,
    Each(&'a [i64]),
}

impl<'a> Weights<'a> {
    /// The rows' diffs, and zero where the filter is not true or the argument is NULL.
    pub fn of(
        diffs: Option<&'a [i64]>,
        filter: Option<&BooleanArray>,
        nulls: Option<&NullBuffer>,
        buffer: &'a mut Vec<i64>,
    ) -> Self {
        let nulls = nulls.filter(|n| n.null_count() > 0);
        if filter.is_none() && nulls.is_none() {
            return diffs.map_or(Weights::Ones, Weights::Each);
        }
        let rows = filter
            .map(|f| f.len())
            .or(nulls.map(NullBuffer::len))
            .unwrap_or(0);
        buffer.clear();
        match diffs {
            Some(diffs) => buffer.extend_from_slice(diffs),
            None => buffer.resize(rows, 1),
        }
        if let Some(filter) = filter {
            for (row, weight) in buffer.iter_mut().enumerate() {
                *weight *= i64::from(filter.value(row) && filter.is_valid(row));
            }
        }
        if let Some(nulls) = nulls {
            for (row, weight) in buffer.iter_mut().enumerate() {
                *weight *= i64::from(nulls.is_valid(row));
            }
        }
        Weights::Each(buffer)
    }

    pub fn get(&self, row: usize) -> i64 {
        match self {
            Weights::Ones => 1,
            Weights::Each(weights) => weights[row],
        }
    }

    /// Calls `add(group, value, weight)` for every row that counts.
    pub fn each<T: Copy>(&self, groups: &[u32], values: &[T], mut add: impl FnMut(usize, T, i64)) {
        match self {
            Weights::Ones => groups
                .iter()
                .zip(values)
                .for_each(|(g, v)| add(*g as usize, *v, 1)),
            Weights::Each(weights) => {
                for ((group, value), weight) in groups.iter().zip(values).zip(*weights) {
                    if *weight != 0 {
                        add(*group as usize, *value, *weight);
                    }
                }
            }
        }
    }

    /// Adds every row's weight to its group.
    pub fn count(&self, groups: &[u32], counts: &mut [i64]) {
        match self {
            Weights::Ones => groups.iter().for_each(|g| counts[*g as usize] += 1),
            Weights::Each(weights) => groups
                .iter()
                .zip(*weights)
                .for_each(|(g, w)| counts[*g as usize] += w),
        }
    }
}

/// An output that its type cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub index: usize,
    pub state: SqlState,
    pub message: String,
}

/// One column of outputs; where one failed the column has NULL.
pub struct Finished {
    pub values: ArrayRef,
    pub failures: Vec<Failure>,
}

impl Finished {
    pub fn plain(values: ArrayRef) -> Self {
        Self {
            values,
            failures: Vec::new(),
        }
    }

    /// Clears the marks of the rows in which the two columns differ.
    pub fn mark_differences(&self, other: &Self, same: &mut [bool]) -> Result<(), OperatorError> {
        if self.values.data_type().is_nested() {
            for (index, same) in same.iter_mut().enumerate() {
                *same = *same
                    && self.values.slice(index, 1).as_ref()
                        == other.values.slice(index, 1).as_ref();
            }
        } else {
            let equal = not_distinct(&self.values, &other.values)?;
            for (index, same) in same.iter_mut().enumerate() {
                *same &= equal.value(index);
            }
        }
        for failure in self.failures.iter().filter(|f| !other.failures.contains(f)) {
            same[failure.index] = false;
        }
        for failure in other.failures.iter().filter(|f| !self.failures.contains(f)) {
            same[failure.index] = false;
        }
        Ok(())
    }
}

/// Chooses the accumulator of a call. `set` is the value set that the call reads.
pub fn build(
    call: &AggregateCall,
    set: Option<usize>,
    sets: &mut [ValueSetChanges],
    spec: &AggregateSpec<'_>,
    output: &Field,
) -> Result<Box<dyn Accumulator>, OperatorError> {
    use AggregateFunction as F;
    let field = call.arguments.first().map(|a| spec.input.field(*a));
    // Without NULLs, filter and DISTINCT a call sees every row, so that the group's row count is its own.
    let every_row =
        !call.distinct && call.filter.is_none() && field.is_none_or(|f| !f.is_nullable());
    match (call.function, set) {
        (F::StringAgg | F::ArrayAgg, Some(set)) => {
            return Ok(Box::new(List::new(call, set, &mut sets[set], output)?));
        }
        (F::Min | F::Max, Some(set)) => {
            return Ok(Box::new(SetExtreme::new(
                call.function == F::Max,
                set,
                output,
            )?));
        }
        (
            F::FirstValue | F::LastValue | F::PercentileCont | F::PercentileDisc | F::Mode,
            Some(set),
        ) => {
            return Ok(Box::new(Ordered::new(call, set, &mut sets[set], output)?));
        }
        (F::Library, Some(set)) => {
            let library = Library::new(call, set, &mut sets[set], spec.input, output)?;
            return Ok(Box::new(library));
        }
        _ => {}
    }
    let shape = || -> Result<NumberShape, OperatorError> {
        let argument = field.ok_or_else(|| unsupported("an aggregate without an argument"))?;
        NumberShape::new(argument.data_type(), output.data_type())
    };
    let inner: Box<dyn Accumulator> = match call.function {
        F::Count => Box::new(Count::new(every_row, output)?),
        F::Sum | F::Avg if is_float(field) => {
            Box::new(FloatSum::new(call.function, every_row, shape()?))
        }
        F::Sum | F::Avg if is_decimal(field) => {
            Box::new(WholeSum::<i256>::new(call.function, every_row, shape()?))
        }
        F::Sum | F::Avg => Box::new(WholeSum::<i128>::new(call.function, every_row, shape()?)),
        F::Min | F::Max if holds_numbers(output.data_type()) => {
            Box::new(NumberExtreme::new(call.function == F::Max, output))
        }
        F::Min | F::Max => Box::new(ByteExtreme::new(call.function == F::Max, output)?),
        F::BoolAnd | F::BoolOr => Box::new(Bools::new(call.function == F::BoolAnd)),
        F::VarPop | F::VarSamp | F::StddevPop | F::StddevSamp => {
            Box::new(Variance::new(call.function, every_row, shape()?))
        }
        F::BitAnd | F::BitOr | F::BitXor => Box::new(Bits::new(call.function, output)?),
        F::Pair(function) => Box::new(Pairs::new(function, output)?),
        F::LinearRegression => Box::new(Regression::new(output)?),
        _ => return Err(unsupported("an aggregate over an order without its values")),
    };
    Ok(match set {
        Some(set) => Box::new(Distinct::new(set, call, &sets[set], inner)),
        None => inner,
    })
}

fn is_float(field: Option<&Field>) -> bool {
    field.is_some_and(|f| matches!(f.data_type(), DataType::Float32 | DataType::Float64))
}

fn is_decimal(field: Option<&Field>) -> bool {
    field.is_some_and(|f| matches!(f.data_type(), DataType::Decimal128(..)))
}

pub fn unsupported(what: impl std::fmt::Display) -> OperatorError {
    DataFusionError::NotImplemented(format!("{what} is not supported")).into()
}

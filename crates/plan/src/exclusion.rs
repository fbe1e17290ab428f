//! `EXCLUDE` in a window frame, which DataFusion does not know: the function is wrapped in one of ours that leaves the
//! excluded rows out of each frame.
//!
//! The wrapper is a window function that DataFusion runs over whole partitions, which is what ad-hoc reads do. Operators of
//! views look inside ([`Excluding::function`], [`Excluding::exclusion`]) and have evaluators of their own. A `FILTER` is the
//! wrapper's last argument, because DataFusion drops that of window functions that are not aggregates. Aggregates that DataFusion
//! cannot move along with a frame are wrapped too, without an exclusion.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{filter, partition};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{
    AccumulatorArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, LimitEffect, PartitionEvaluator, Signature, Volatility,
    WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use std::ops::Range;
use std::sync::Arc;

/// Which rows a frame leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exclusion {
    CurrentRow,
    /// The current row and its peers.
    Group,
    /// The peers of the current row, not itself.
    Ties,
}

impl Exclusion {
    pub fn name(self) -> &'static str {
        match self {
            Exclusion::CurrentRow => "current row",
            Exclusion::Group => "group",
            Exclusion::Ties => "ties",
        }
    }

    /// What is left of a frame, in order. `peers` are the rows equal to `row` in the order, itself included.
    pub fn pieces(
        self,
        frame: &Range<usize>,
        row: usize,
        peers: &Range<usize>,
    ) -> [Range<usize>; 3] {
        let out = match self {
            Exclusion::CurrentRow => row..row + 1,
            Exclusion::Group | Exclusion::Ties => peers.clone(),
        };
        let inside = |piece: Range<usize>| {
            let (start, end) = (piece.start.max(frame.start), piece.end.min(frame.end));
            start..end.max(start)
        };
        let kept = match self {
            Exclusion::Ties => row..row + 1,
            _ => row..row,
        };
        [
            inside(frame.start..out.start),
            inside(kept),
            inside(out.end..frame.end),
        ]
    }
}

/// A function over frames without their excluded rows.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Excluding {
    pub function: WindowFunctionDefinition,
    /// None: the frame is taken whole, but computed afresh for each row.
    pub exclusion: Option<Exclusion>,
    /// The last argument says which rows count.
    pub filtered: bool,
    name: String,
    signature: Signature,
}

impl Excluding {
    pub fn new(
        function: WindowFunctionDefinition,
        exclusion: Option<Exclusion>,
        filtered: bool,
    ) -> Self {
        let suffix = if filtered { " filtered" } else { "" };
        let name = match exclusion {
            Some(exclusion) => {
                format!("{} excluding {}{suffix}", function.name(), exclusion.name())
            }
            None => format!("{}{suffix}", function.name()),
        };
        Self {
            function,
            exclusion,
            filtered,
            name,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    fn arguments<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        &all[..all.len() - usize::from(self.filtered)]
    }
}

impl WindowUDFImpl for Excluding {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let fields: Vec<FieldRef> = self
            .arguments(types)
            .iter()
            .map(|t| Arc::new(Field::new("argument", t.clone(), true)))
            .collect();
        let coerced = match &self.function {
            WindowFunctionDefinition::AggregateUDF(f) => fields_with_udf(&fields, f.as_ref())?,
            WindowFunctionDefinition::WindowUDF(f) => fields_with_udf(&fields, f.as_ref())?,
        };
        let mut types: Vec<DataType> = coerced.iter().map(|f| f.data_type().clone()).collect();
        types.extend(self.filtered.then_some(DataType::Boolean));
        Ok(types)
    }

    fn field(&self, arguments: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        let fields = self.arguments(arguments.input_fields());
        let field = self.function.return_field(fields, arguments.name())?;
        Ok(Arc::new(field.as_ref().clone().with_name(arguments.name())))
    }

    fn partition_evaluator(
        &self,
        arguments: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        let kept = match &self.function {
            WindowFunctionDefinition::AggregateUDF(f) => Kept::Aggregate {
                function: f.clone(),
                exprs: self.arguments(arguments.input_exprs()).to_vec(),
                fields: self.arguments(arguments.input_fields()).to_vec(),
                ignore_nulls: arguments.ignore_nulls(),
            },
            WindowFunctionDefinition::WindowUDF(f) => {
                Kept::value(f.as_ref(), arguments.ignore_nulls())?
            }
        };
        Ok(Box::new(Evaluator {
            kept,
            exclusion: self.exclusion,
            filtered: self.filtered,
            arguments: arguments.input_exprs().len(),
            row: 0,
            peers: None,
        }))
    }

    fn limit_effect(&self, _arguments: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::Unknown
    }
}

/// What is computed from the rows that are kept.
#[derive(Debug)]
enum Kept {
    Aggregate {
        function: Arc<AggregateUDF>,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        fields: Vec<FieldRef>,
        ignore_nulls: bool,
    },
    First {
        ignore_nulls: bool,
    },
    Last {
        ignore_nulls: bool,
    },
    Nth {
        ignore_nulls: bool,
    },
}

impl Kept {
    fn value(function: &WindowUDF, ignore_nulls: bool) -> Result<Self> {
        match function.name() {
            "first_value" => Ok(Kept::First { ignore_nulls }),
            "last_value" => Ok(Kept::Last { ignore_nulls }),
            "nth_value" => Ok(Kept::Nth { ignore_nulls }),
            other => Err(DataFusionError::Internal(format!(
                "{other} does not look at frames"
            ))),
        }
    }

    fn evaluate(
        &self,
        values: &[ArrayRef],
        mask: Option<&BooleanArray>,
        pieces: &[Range<usize>],
    ) -> Result<ScalarValue> {
        if let Kept::Aggregate {
            function,
            exprs,
            fields,
            ignore_nulls,
        } = self
        {
            let mut accumulator = accumulator(function, exprs, fields, *ignore_nulls)?;
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                let slices = values.iter().map(|v| v.slice(piece.start, piece.len()));
                let slices: Vec<ArrayRef> = match mask {
                    Some(mask) => {
                        let mask = mask.slice(piece.start, piece.len());
                        slices
                            .map(|v| filter(&v, &mask))
                            .collect::<Result<_, _>>()?
                    }
                    None => slices.collect(),
                };
                accumulator.update_batch(&slices)?;
            }
            return accumulator.evaluate();
        }
        let found = |ignore_nulls: bool, row: &usize| {
            let counts = mask.is_none_or(|mask| mask.is_valid(*row) && mask.value(*row));
            counts && !(ignore_nulls && values[0].is_null(*row))
        };
        let mut rows = pieces.iter().cloned().flatten();
        let row = match self {
            Kept::Aggregate { .. } => unreachable!("above"),
            Kept::First { ignore_nulls } => rows.find(|row| found(*ignore_nulls, row)),
            Kept::Last { ignore_nulls } => {
                let mut rows = pieces.iter().rev().flat_map(|piece| piece.clone().rev());
                rows.find(|row| found(*ignore_nulls, row))
            }
            Kept::Nth { ignore_nulls } => match integer_at(&values[1], 0)? {
                n @ 1.. => rows
                    .filter(|row| found(*ignore_nulls, row))
                    .nth(n as usize - 1),
                _ => None,
            },
        };
        match row {
            Some(row) => ScalarValue::try_from_array(&values[0], row),
            None => ScalarValue::try_from(values[0].data_type()),
        }
    }
}

fn integer_at(values: &ArrayRef, row: usize) -> Result<i64> {
    match ScalarValue::try_from_array(values, row)?.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(value) => Ok(value.unwrap_or(0)),
        other => Err(DataFusionError::Internal(format!("{other} is no integer"))),
    }
}

fn accumulator(
    function: &AggregateUDF,
    exprs: &[Arc<dyn PhysicalExpr>],
    fields: &[FieldRef],
    ignore_nulls: bool,
) -> Result<Box<dyn Accumulator>> {
    function.accumulator(AccumulatorArgs {
        return_field: function.return_field(fields)?,
        schema: &Schema::empty(),
        ignore_nulls,
        order_bys: &[],
        is_reversed: false,
        name: function.name(),
        is_distinct: false,
        exprs,
        expr_fields: fields,
    })
}

/// Over one partition, row after row.
#[derive(Debug)]
struct Evaluator {
    kept: Kept,
    exclusion: Option<Exclusion>,
    filtered: bool,
    /// How many of the values are arguments; the columns of the order follow.
    arguments: usize,
    row: usize,
    /// Where each group of peers begins and ends, in order.
    peers: Option<Vec<Range<usize>>>,
}

impl PartitionEvaluator for Evaluator {
    fn uses_window_frame(&self) -> bool {
        true
    }

    fn evaluate(&mut self, values: &[ArrayRef], frame: &Range<usize>) -> Result<ScalarValue> {
        let (arguments, order) = values.split_at(self.arguments);
        if self.peers.is_none() {
            self.peers = Some(match order {
                [] => std::iter::once(0..arguments[0].len()).collect(),
                order => partition(order)?.ranges(),
            });
        }
        let row = self.row;
        self.row += 1;
        let groups = self.peers.as_deref().unwrap_or_default();
        let group = groups.partition_point(|g| g.end <= row);
        let frame = frame.start..frame.end.max(frame.start);
        let pieces = match self.exclusion {
            Some(exclusion) => exclusion.pieces(&frame, row, &groups[group]),
            None => [frame.clone(), frame.end..frame.end, frame.end..frame.end],
        };
        let (mask, arguments) = match self.filtered {
            true => {
                let (mask, arguments) = arguments.split_last().expect("the filter is an argument");
                (Some(mask.as_boolean().clone()), arguments)
            }
            false => (None, arguments),
        };
        self.kept.evaluate(arguments, mask.as_ref(), &pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lose_what_is_excluded() {
        let of = |exclusion: Exclusion, frame: Range<usize>| -> Vec<usize> {
            exclusion
                .pieces(&frame, 4, &(3..6))
                .into_iter()
                .flatten()
                .collect()
        };
        assert_eq!(of(Exclusion::CurrentRow, 2..6), [2, 3, 5]);
        assert_eq!(of(Exclusion::Group, 1..8), [1, 2, 6, 7]);
        assert_eq!(of(Exclusion::Ties, 1..8), [1, 2, 4, 6, 7]);
        assert_eq!(of(Exclusion::Ties, 5..8), [6, 7]);
        assert_eq!(of(Exclusion::Ties, 0..2), [0, 1]);
        assert_eq!(of(Exclusion::Group, 4..5), [0; 0]);
    }
}

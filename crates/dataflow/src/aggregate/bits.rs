//! bit_and, bit_or, bit_xor: from how many values there are and how many have each bit.
//!
//! State: the number of values, then for each bit that some value has its place and how many have it, then 64.

use super::accumulator::{Accumulator, Finished, Merge, Weights, unsupported};
use crate::OperatorError;
use crate::groups::widen;
use crate::value_bytes::{Reader, write_i64};
use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use std::sync::Arc;
use tidegate_plan::AggregateFunction;

const BITS: usize = 64;

#[derive(Clone)]
struct Counts {
    values: i64,
    ones: [i64; BITS],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            values: 0,
            ones: [0; BITS],
        }
    }
}

impl Counts {
    fn read(reader: &mut Reader<'_>) -> Result<Self, OperatorError> {
        let mut counts = Self {
            values: reader.i64()?,
            ..Self::default()
        };
        while let Some(bit) = counts.ones.get_mut(reader.i64()? as usize) {
            *bit = reader.i64()?;
        }
        Ok(counts)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_i64(self.values, out);
        for (bit, ones) in self.ones.iter().enumerate().filter(|(_, ones)| **ones != 0) {
            write_i64(bit as i64, out);
            write_i64(*ones, out);
        }
        write_i64(BITS as i64, out);
    }
}

pub struct Bits {
    function: AggregateFunction,
    output: DataType,
    groups: Vec<Counts>,
    finished: [Vec<Option<i64>>; 2],
}

impl Bits {
    pub fn new(function: AggregateFunction, output: &Field) -> Result<Self, OperatorError> {
        if !output.data_type().is_signed_integer() {
            let output = output.data_type();
            return Err(unsupported(format_args!("{function:?} as {output}")));
        }
        Ok(Self {
            function,
            output: output.data_type().clone(),
            groups: Vec::new(),
            finished: Default::default(),
        })
    }

    fn value(&self, counts: &Counts) -> Option<i64> {
        let set = |ones: i64| match self.function {
            AggregateFunction::BitAnd => ones == counts.values,
            AggregateFunction::BitOr => ones > 0,
            _ => ones % 2 != 0,
        };
        let bits = counts.ones.iter().enumerate();
        let value = bits.fold(0u64, |value, (bit, ones)| {
            value | u64::from(set(*ones)) << bit
        });
        (counts.values > 0).then_some(value as i64)
    }
}

impl Accumulator for Bits {
    fn resize(&mut self, groups: usize) {
        self.groups.resize_with(groups, Counts::default);
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        let values = widen(&arguments[0])
            .ok_or_else(|| unsupported(format_args!("bits of {}", arguments[0].data_type())))?;
        weights.each(groups, &values, |group, value, weight| {
            let counts = &mut self.groups[group];
            counts.values += weight;
            let mut rest = value as u64;
            while rest != 0 {
                counts.ones[rest.trailing_zeros() as usize] += weight;
                rest &= rest - 1;
            }
        });
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let before = match old {
            Some(reader) => Counts::read(reader)?,
            None => Counts::default(),
        };
        let mut after = before.clone();
        let change = &self.groups[at.group];
        after.values += change.values;
        for (ones, more) in after.ones.iter_mut().zip(change.ones) {
            *ones += more;
        }
        after.write(new);
        let values = [self.value(&before), self.value(&after)];
        self.finished
            .iter_mut()
            .zip(values)
            .for_each(|(column, value)| column.push(value));
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let [old, new] = std::mem::take(&mut self.finished);
        let column = |values: Vec<Option<i64>>| -> Result<Finished, OperatorError> {
            let values: ArrayRef = Arc::new(Int64Array::from(values));
            Ok(Finished::plain(cast(&values, &self.output)?))
        };
        Ok([column(old)?, column(new)?])
    }

    fn clear(&mut self) {
        self.groups.clear();
    }
}

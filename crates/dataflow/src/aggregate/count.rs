//! count(*) and count(x).
//!
//! State: nothing when every row counts (the group's row count is the answer), else one varint.

use super::accumulator::{Accumulator, Finished, Merge, Weights, unsupported};
use crate::OperatorError;
use crate::value_bytes::{Reader, write_i64};
use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use std::sync::Arc;

pub struct Count {
    every_row: bool,
    counts: Vec<i64>,
    output: DataType,
    finished: [Vec<i64>; 2],
}

impl Count {
    pub fn new(every_row: bool, output: &Field) -> Result<Self, OperatorError> {
        if !output.data_type().is_integer() {
            return Err(unsupported(format_args!("count as {}", output.data_type())));
        }
        let output = output.data_type().clone();
        Ok(Self {
            every_row,
            counts: Vec::new(),
            output,
            finished: Default::default(),
        })
    }
}

impl Accumulator for Count {
    fn resize(&mut self, groups: usize) {
        if !self.every_row {
            self.counts.resize(groups, 0);
        }
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        _arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        if !self.every_row {
            weights.count(groups, &mut self.counts);
        }
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let (before, after) = if self.every_row {
            (at.rows_old.unwrap_or(0), at.rows_new)
        } else {
            let before = old.map_or(Ok(0), Reader::i64)?;
            let after = before + self.counts[at.group];
            write_i64(after, new);
            (before, after)
        };
        self.finished[0].push(before);
        self.finished[1].push(after);
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let [old, new] = std::mem::take(&mut self.finished);
        let column = |counts: Vec<i64>| -> Result<Finished, OperatorError> {
            let counts: ArrayRef = Arc::new(Int64Array::from(counts));
            Ok(Finished::plain(cast(&counts, &self.output)?))
        };
        Ok([column(old)?, column(new)?])
    }

    fn clear(&mut self) {
        self.counts.clear();
    }
}

//! bool_and and bool_or: counts of true and of false, so that either can be retracted.
//!
//! State: two varints.

use super::accumulator::{Accumulator, Finished, Merge, Weights};
use crate::OperatorError;
use crate::value_bytes::{Reader, write_i64};
use arrow::array::{ArrayRef, AsArray, BooleanArray};
use std::sync::Arc;

pub struct Bools {
    and: bool,
    /// How many are false, how many are true.
    counts: Vec<[i64; 2]>,
    finished: [Vec<Option<bool>>; 2],
}

impl Bools {
    pub fn new(and: bool) -> Self {
        Self {
            and,
            counts: Vec::new(),
            finished: Default::default(),
        }
    }

    fn answer(&self, [falses, trues]: [i64; 2]) -> Option<bool> {
        match (falses > 0, trues > 0) {
            (false, false) => None,
            (some_false, some_true) => Some(if self.and { !some_false } else { some_true }),
        }
    }
}

impl Accumulator for Bools {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, [0; 2]);
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        let values = arguments[0].as_boolean().values();
        for (row, group) in groups.iter().enumerate() {
            self.counts[*group as usize][usize::from(values.value(row))] += weights.get(row);
        }
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let before = match old {
            Some(reader) => [reader.i64()?, reader.i64()?],
            None => [0; 2],
        };
        let delta = self.counts[at.group];
        let after = [before[0] + delta[0], before[1] + delta[1]];
        after.iter().for_each(|count| write_i64(*count, new));
        let answers = [self.answer(before), self.answer(after)];
        self.finished
            .iter_mut()
            .zip(answers)
            .for_each(|(column, answer)| column.push(answer));
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let columns = std::mem::take(&mut self.finished);
        Ok(columns.map(|answers| Finished::plain(Arc::new(BooleanArray::from(answers)))))
    }

    fn clear(&mut self) {
        self.counts.clear();
    }
}

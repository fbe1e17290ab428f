//! What an operator's output is at present, from its state tables alone.
//!
//! When a view's query changes, operators that stay have to tell those that are built anew above them what their output
//! is: [`Operator::replay`](crate::Operator::replay). It goes key by key. The keys are collected first, since writing
//! and visiting a table do not go together, so that a replay takes memory for the keys of the table, not for its rows.

use crate::OperatorError;
use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use tidegate_state::Table;
use tidegate_types::ByteRows;

/// The keys of a state table, each once, and how far a replay has come.
pub struct ReplayKeys {
    pub keys: ByteRows,
    next: usize,
}

impl ReplayKeys {
    pub fn of(table: &dyn Table) -> Result<Self, OperatorError> {
        let mut keys = ByteRows::new();
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        let mut last: Option<Vec<u8>> = None;
        table.scan_all(&mut |_, key, _, _| {
            // Cells of one key mostly come together.
            if last.as_deref() != Some(key) {
                if seen.insert(key.to_vec()) {
                    keys.push(key);
                }
                last = Some(key.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        Ok(Self { keys, next: 0 })
    }

    /// The next keys, at most so many; `None` when all have been given.
    pub fn next(&mut self, limit: usize) -> Option<Range<usize>> {
        let range = self.next..(self.next + limit).min(self.keys.len());
        self.next = range.end;
        (!range.is_empty()).then_some(range)
    }

    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        range.map(|i| self.keys.get(i))
    }
}

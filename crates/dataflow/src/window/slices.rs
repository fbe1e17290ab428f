//! Pieces of partitions, read from state for evaluation: as they were and as they are.

use super::reach::{ChangedRow, Span};
use crate::value_bytes::count_of;
use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};
use tidegate_state::{StateError, Table};
use tidegate_types::ByteRows;

/// Rows of several slices end to end, every copy by itself.
#[derive(Default)]
pub struct SliceRows {
    /// Of each row which key of the chunk it has.
    pub of_key: Vec<u32>,
    pub subs: ByteRows,
}

/// One version of a slice: where its rows are, and which of them feel a change.
#[derive(Debug, Clone, Default)]
pub struct Version {
    pub rows: Range<usize>,
    pub touched: Range<usize>,
}

/// What is to be evaluated together.
#[derive(Default)]
pub struct Slices {
    pub old: SliceRows,
    pub new: SliceRows,
    pub slices: Vec<SlicePair>,
}

pub struct SlicePair {
    pub key: usize,
    pub old: Version,
    pub new: Version,
    /// States of running calls, encoded, if the slice begins at an anchor.
    pub state: Option<Vec<u8>>,
}

/// Notes where in a slice the touched rows begin and end.
struct Filling<'a> {
    rows: &'a mut SliceRows,
    key: usize,
    version: Version,
}

impl<'a> Filling<'a> {
    fn new(rows: &'a mut SliceRows, key: usize) -> Self {
        let at = rows.subs.len();
        let version = Version {
            rows: at..at,
            touched: at..at,
        };
        Self { rows, key, version }
    }

    fn push(&mut self, row: &[u8], count: i64, touched: &Span) {
        for _ in 0..count {
            self.rows.of_key.push(self.key as u32);
            self.rows.subs.push(row);
        }
        let end = self.rows.subs.len();
        self.version.rows.end = end;
        if !touched.first.begins_at(row) {
            self.version.touched = end..end;
        } else if touched.last.reaches(row) {
            self.version.touched.end = end;
        }
    }
}

impl Slices {
    pub fn rows(&self) -> usize {
        self.old.subs.len() + self.new.subs.len()
    }

    /// Reads the rows that are seen from a touched span; `changes` are the partition's.
    pub fn add(
        &mut self,
        (index, key): (usize, &[u8]),
        table: &dyn Table,
        changes: &[ChangedRow<'_>],
        (seen, touched): (&Span, &Span),
        state: Option<Vec<u8>>,
    ) -> Result<(), StateError> {
        let mut old = Filling::new(&mut self.old, index);
        let mut new = Filling::new(&mut self.new, index);
        // Both are in order: changes in front of the span and up to its end come first.
        let first = changes.partition_point(|c| !seen.first.begins_at(c.row));
        let end = changes.partition_point(|c| seen.last.reaches(c.row));
        let mut within = changes[first..end.max(first)].iter().peekable();
        let mut damaged = None;
        let bounds = (seen.first.bound(), seen.last.bound());
        table.scan(key, bounds, false, &mut |row, value| {
            while let Some(gone) = within.next_if(|c| c.row < row) {
                old.push(gone.row, gone.old, touched);
                new.push(gone.row, gone.new, touched);
            }
            let now = match count_of(value) {
                Ok(count) => count.max(0),
                Err(error) => {
                    damaged = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let before = match within.peek().map(|c| c.row.cmp(row)) {
                Some(Ordering::Equal) => within.next().map_or(now, |c| c.old),
                _ => now,
            };
            old.push(row, before, touched);
            new.push(row, now, touched);
            ControlFlow::Continue(())
        })?;
        for gone in within {
            old.push(gone.row, gone.old, touched);
            new.push(gone.row, gone.new, touched);
        }
        let (old, new) = (old.version, new.version);
        self.slices.push(SlicePair {
            key: index,
            old,
            new,
            state,
        });
        damaged.map_or(Ok(()), Err)
    }
}

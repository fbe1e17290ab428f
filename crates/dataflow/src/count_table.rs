//! Map tables whose values are counts: multisets of encoded rows or values under a key.

use crate::value_bytes::{count_of, write_i64};
use std::ops::{Bound, ControlFlow};
use tidegate_state::{Cell, Change, StateError, Table};
use tidegate_types::ByteRows;

/// The count of each cell; zero where there is none.
pub fn read_counts(table: &dyn Table, cells: &[Cell<'_>]) -> Result<Vec<i64>, StateError> {
    let mut counts = vec![0i64; cells.len()];
    let mut damaged = None;
    table.get_many(cells, &mut |index, value| match value.map(count_of) {
        Some(Ok(count)) => counts[index] = count,
        Some(Err(error)) => damaged = Some(error),
        None => {}
    })?;
    damaged.map_or(Ok(counts), Err)
}

/// Writes the new count of every cell whose count changed; zero deletes it.
pub fn write_counts(
    table: &mut dyn Table,
    cells: &[Cell<'_>],
    before_after: &[(i64, i64)],
) -> Result<(), StateError> {
    let mut bytes = ByteRows::with_capacity(cells.len(), cells.len());
    let mut value = Vec::new();
    for (_, after) in before_after {
        value.clear();
        write_i64(*after, &mut value);
        bytes.push(&value);
    }
    let changes: Vec<Change<'_>> = before_after
        .iter()
        .enumerate()
        .filter(|(_, (before, after))| before != after)
        .map(|(index, (_, after))| Change {
            cell: cells[index],
            value: (*after != 0).then(|| bytes.get(index)),
        })
        .collect();
    table.write_many(&changes)
}

/// A sub-key, with what its count was and is.
pub type Recount<'a> = (&'a [u8], i64, i64);

/// Writes the counts of cells of one key.
pub fn write_recounts(
    table: &mut dyn Table,
    key: &[u8],
    recounts: &[Recount<'_>],
) -> Result<(), StateError> {
    let cells: Vec<Cell<'_>> = recounts.iter().map(|(sub, ..)| Cell { key, sub }).collect();
    let counts: Vec<(i64, i64)> = recounts.iter().map(|(_, was, is)| (*was, *is)).collect();
    write_counts(table, &cells, &counts)
}

/// Takes all cells under these keys out of a table: the places of their keys, their sub-keys, their counts.
pub fn take_all(
    table: &mut dyn Table,
    keys: &ByteRows,
) -> Result<(Vec<u32>, ByteRows, Vec<i64>), StateError> {
    let (mut of_key, mut subs, mut counts) = (Vec::new(), ByteRows::new(), Vec::new());
    for (index, key) in keys.iter().enumerate() {
        scan_counts(table, key, false, &mut |sub, count| {
            of_key.push(index as u32);
            subs.push(sub);
            counts.push(count);
            ControlFlow::Continue(())
        })?;
    }
    let cells: Vec<Cell<'_>> = of_key
        .iter()
        .zip(subs.iter())
        .map(|(index, sub)| Cell {
            key: keys.get(*index as usize),
            sub,
        })
        .collect();
    let gone: Vec<(i64, i64)> = counts.iter().map(|count| (*count, 0)).collect();
    write_counts(table, &cells, &gone)?;
    Ok((of_key, subs, counts))
}

/// Visits the sub-keys under a key that are there (with a positive count), in order or the reverse, until `visit` breaks.
pub fn scan_counts(
    table: &dyn Table,
    key: &[u8],
    reverse: bool,
    visit: &mut dyn FnMut(&[u8], i64) -> ControlFlow<()>,
) -> Result<(), StateError> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    scan_counts_within(table, key, all, reverse, visit)
}

/// Those of them that lie within bounds.
pub fn scan_counts_within(
    table: &dyn Table,
    key: &[u8],
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
    reverse: bool,
    visit: &mut dyn FnMut(&[u8], i64) -> ControlFlow<()>,
) -> Result<(), StateError> {
    let mut damaged = None;
    table.scan(
        key,
        bounds,
        reverse,
        &mut |sub, value| match count_of(value) {
            Ok(count) if count <= 0 => ControlFlow::Continue(()),
            Ok(count) => visit(sub, count),
            Err(error) => {
                damaged = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    damaged.map_or(Ok(()), Err)
}

/// Several multisets end to end: values in order with their counts, one group after another.
#[derive(Default)]
pub struct CountLists {
    pub values: ByteRows,
    pub counts: Vec<i64>,
    /// Number of values up to the end of each group.
    pub ends: Vec<usize>,
}

impl CountLists {
    pub fn push(&mut self, value: &[u8], count: i64) {
        self.values.push(value);
        self.counts.push(count);
    }

    pub fn end_group(&mut self) {
        self.ends.push(self.values.len());
    }

    /// Values and counts of a group.
    pub fn group(&self, index: usize) -> impl Iterator<Item = (&[u8], i64)> + Clone {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        (start..self.ends[index]).map(|entry| (self.values.get(entry), self.counts[entry]))
    }
}

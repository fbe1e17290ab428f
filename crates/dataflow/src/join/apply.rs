//! Adding a batch to the tables of its own side.

use super::epoch::{KeyLog, RowLog};
use super::side::Grouped;
use super::store::{Weight, read, write};
use tidegate_state::{Cell, StateError, Table};

/// Adds the rows of a batch to a table of rows. `tally` has what matches each of them, where that is kept; `log` notes what
/// was touched.
pub(super) fn add_rows(
    table: &mut dyn Table,
    counters: usize,
    batch: &Grouped,
    tally: &[Weight],
    log: Option<&mut RowLog>,
) -> Result<(), StateError> {
    let cells: Vec<Cell<'_>> = (0..batch.num_rows())
        .map(|row| Cell {
            key: batch.row_key(row),
            sub: batch.rest(row),
        })
        .collect();
    let before = read(table, &cells)?;
    let after = |row: usize| {
        let count = before[row].count + batch.diffs[row];
        tally
            .get(row)
            .map_or(Weight::count(count), |t| Weight { count, ..*t })
    };
    write(
        table,
        counters,
        cells
            .iter()
            .enumerate()
            .map(|(row, cell)| (*cell, after(row))),
    )?;
    if let Some(log) = log {
        for (row, cell) in cells.iter().enumerate() {
            let hash = batch.key_hashes[batch.key_of[row] as usize];
            log.touch(hash, cell.key, cell.sub, before[row], after(row));
        }
    }
    Ok(())
}

/// Adds the diffs of a batch to a table of counts per key.
pub(super) fn add_counts(
    table: &mut dyn Table,
    batch: &Grouped,
    log: &mut KeyLog,
) -> Result<(), StateError> {
    let diffs = batch.key_diffs();
    let changed: Vec<u32> = (0..diffs.len() as u32)
        .filter(|k| diffs[*k as usize] != 0)
        .collect();
    let cells: Vec<Cell<'_>> = changed.iter().map(|k| Cell::key(batch.key(*k))).collect();
    let before = read(table, &cells)?;
    let after = |index: usize| Weight::count(before[index].count + diffs[changed[index] as usize]);
    write(
        table,
        1,
        cells
            .iter()
            .enumerate()
            .map(|(index, cell)| (*cell, after(index))),
    )?;
    for (index, key) in changed.iter().enumerate() {
        let hash = batch.key_hashes[*key as usize];
        log.touch(
            hash,
            batch.key(*key),
            before[index].count,
            after(index).count,
        );
    }
    Ok(())
}

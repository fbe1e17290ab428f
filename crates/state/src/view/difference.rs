//! What has to change in a view for it to hold what another one holds: both at the same epoch, on the same worker.

use super::layer::{Layer, LayerRows};
use super::{ViewStore, cursor::Cursor};
use crate::StateError;
use arrow::array::Int64Array;
use tidegate_types::{Batch, ByteRows, Diff, Epoch};

const BATCH_ROWS: usize = 8192;

impl ViewStore {
    /// `newer − self`, each row once. Both keep rows in the same form, and neither is append-only.
    pub fn difference(&self, newer: &ViewStore, epoch: Epoch) -> Result<Vec<Batch>, StateError> {
        let (before, after) = (self.snapshot(epoch)?, newer.snapshot(epoch)?);
        let (mut before, mut after) = (before.cursor(&[])?, after.cursor(&[])?);
        let mut batches = Vec::new();
        let (mut rows, mut diffs) = (ByteRows::new(), Vec::new());
        let (mut old, mut new) = (next(&mut before)?, next(&mut after)?);
        loop {
            let (row, diff) = match (old.take(), new.take()) {
                (None, None) => break,
                (Some((row, count)), later) if later.as_ref().is_none_or(|(r, _)| row < *r) => {
                    (old, new) = (next(&mut before)?, later);
                    (row, -count)
                }
                (earlier, Some((row, count))) if earlier.as_ref().is_none_or(|(r, _)| row < *r) => {
                    (old, new) = (earlier, next(&mut after)?);
                    (row, count)
                }
                (Some((row, was)), Some((_, is))) => {
                    (old, new) = (next(&mut before)?, next(&mut after)?);
                    (row, is - was)
                }
                (_, None) | (None, _) => unreachable!("one of the guards above holds"),
            };
            if diff != 0 {
                // The key group comes first.
                rows.push(&row[1..]);
                diffs.push(diff);
            }
            if diffs.len() == BATCH_ROWS {
                batches.push(self.decoded(&rows, std::mem::take(&mut diffs))?);
                rows.clear();
            }
        }
        if !diffs.is_empty() {
            batches.push(self.decoded(&rows, diffs)?);
        }
        Ok(batches)
    }

    /// `newer − self` in the columns of `self`, which are the first of `newer`; each row once. It takes memory for both.
    pub fn difference_in_columns(
        &self,
        newer: &ViewStore,
        epoch: Epoch,
    ) -> Result<Vec<Batch>, StateError> {
        let columns: Vec<usize> = (0..self.spec().schema.fields().len()).collect();
        let mut batches = Vec::new();
        for rows in newer.snapshot(epoch)?.scan(Some(&columns), BATCH_ROWS)? {
            batches.push(Batch::insert(rows?));
        }
        for rows in self.snapshot(epoch)?.scan(None, BATCH_ROWS)? {
            let rows = rows?;
            let retracted = Int64Array::from(vec![-1; rows.num_rows()]);
            batches.push(Batch::new(rows, retracted));
        }
        let rows: LayerRows = self.sorted_rows(batches)?;
        let layer = Layer {
            first: None,
            last: None,
            rows,
        };
        layer.batches(&self.layout)
    }

    fn decoded(&self, rows: &ByteRows, diffs: Vec<Diff>) -> Result<Batch, StateError> {
        let decoded = self.layout.decode(rows.iter(), None)?;
        Ok(Batch::new(decoded, Int64Array::from(diffs)))
    }
}

fn next(cursor: &mut Cursor) -> Result<Option<(Vec<u8>, Diff)>, StateError> {
    let row = cursor.next_row()?;
    Ok(row.map(|(row, diff)| (row.to_vec(), diff)))
}

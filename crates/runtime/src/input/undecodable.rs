//! The records of a source that could not be decoded, kept with their splits and offsets.
//!
//! The newest are kept for reading, all are counted. Both are state of the source, written at the barrier that also keeps
//! its offsets: after a crash a record is set aside once, either restored or decoded again. A key is the JSON of
//! `[state, message, record, split, offset]` with a count of one; the number of all of a split has only the split.

use crate::error_board::{DecodeErrorRow, KEPT_DECODE_ERRORS};
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use tidegate_connectors::SplitId;
use tidegate_state::{Cell, Change, StateError, Table};

#[derive(Default)]
pub(crate) struct Undecodable {
    /// Keys in the table, oldest first.
    kept: VecDeque<Vec<u8>>,
    totals: BTreeMap<String, i64>,
    /// Not written yet.
    fresh: Vec<DecodeErrorRow>,
}

impl Undecodable {
    /// What a checkpoint holds of the splits that this worker owns; the records are for the board.
    pub fn restored(
        table: &dyn Table,
        owns: impl Fn(&SplitId) -> bool,
    ) -> Result<(Self, Vec<DecodeErrorRow>), StateError> {
        let mut restored = Self::default();
        let mut rows = Vec::new();
        table.scan_all(&mut |_, key, _, value| {
            if let Ok([state, message, row, split, offset]) =
                serde_json::from_slice::<[String; 5]>(key)
                && owns(&SplitId::new(split.as_str()))
            {
                if state.is_empty() {
                    let count = value.try_into().map_or(0, i64::from_le_bytes);
                    restored.totals.insert(split, count);
                } else {
                    restored.kept.push_back(key.to_vec());
                    rows.push(DecodeErrorRow {
                        state,
                        message,
                        row,
                        split,
                        offset,
                    });
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok((restored, rows))
    }

    pub fn total(&self) -> u64 {
        self.totals.values().map(|count| count.unsigned_abs()).sum()
    }

    pub fn add(&mut self, row: DecodeErrorRow) {
        *self.totals.entry(row.split.clone()).or_default() += 1;
        self.fresh.push(row);
    }

    /// At the barrier: what came since the last one.
    pub fn write(&mut self, table: &mut dyn Table) -> Result<(), StateError> {
        for row in std::mem::take(&mut self.fresh) {
            let total = [
                String::new(),
                String::new(),
                String::new(),
                row.split.clone(),
                String::new(),
            ];
            let count = self.totals.get(&row.split).copied().unwrap_or_default();
            put(table, &key(&total), Some(count))?;
            let key = key(&[row.state, row.message, row.row, row.split, row.offset]);
            put(table, &key, Some(1))?;
            self.kept.push_back(key);
        }
        while self.kept.len() > KEPT_DECODE_ERRORS
            && let Some(oldest) = self.kept.pop_front()
        {
            put(table, &oldest, None)?;
        }
        Ok(())
    }
}

fn key(parts: &[String; 5]) -> Vec<u8> {
    serde_json::to_vec(parts).expect("strings are plain data")
}

fn put(table: &mut dyn Table, key: &[u8], count: Option<i64>) -> Result<(), StateError> {
    let value = count.map(i64::to_le_bytes);
    table.write_many(&[Change {
        cell: Cell::key(key),
        value: value.as_ref().map(|v| &v[..]),
    }])
}

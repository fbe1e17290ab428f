//! A view's rows in RocksDB: those of completed checkpoints. Newer ones are layers in memory, as for any view.
//!
//! A keyed view's counts are written with a merge operator that adds them, so that writing never reads; a row whose count
//! came to zero disappears when its files are compacted. With the rows goes a marker: the last epoch that is in, and the
//! number of rows. It is what makes reading consistent without a lock: a reader takes the list of layers, then a RocksDB
//! snapshot, and leaves out the layers that the snapshot's marker says are in it.

use super::RocksDb;
use super::database::{BATCH_BYTES, Family};
use super::layout;
use super::owned::{OwnedIterator, OwnedSnapshot};
use crate::StateError;
use crate::run::Run;
use crate::view::cursor::{Cursor, RowSource};
use crate::view::layer::{Layer, LayerRows};
use crate::view::row::RowLayout;
use crate::view::{count, log};
use rocksdb::WriteBatch;
use std::sync::Arc;
use tidegate_types::{CheckpointId, Diff, Epoch, KeyGroup, TableId};

/// What is in RocksDB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marker {
    pub checkpoint: Option<CheckpointId>,
    pub epoch: Option<Epoch>,
    pub rows: Diff,
}

impl Marker {
    /// Numbers are stored plus one; zero stands for none.
    fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.checkpoint.map_or(0, |c| c.0 + 1).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.map_or(0, |e| e.0 + 1).to_be_bytes());
        bytes[16..].copy_from_slice(&self.rows.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let words: &[[u8; 8]] = bytes.as_chunks().0;
        let [checkpoint, epoch, rows] = words else {
            return Err(StateError::Damaged(
                "the marker of a view has a wrong length".into(),
            ));
        };
        Ok(Self {
            checkpoint: u64::from_be_bytes(*checkpoint)
                .checked_sub(1)
                .map(CheckpointId),
            epoch: u64::from_be_bytes(*epoch).checked_sub(1).map(Epoch),
            rows: Diff::from_be_bytes(*rows),
        })
    }
}

pub struct ViewDisk {
    database: Arc<RocksDb>,
    table: TableId,
    family: Family,
}

impl ViewDisk {
    pub fn new(database: Arc<RocksDb>, table: TableId, append_only: bool) -> Self {
        let family = if append_only {
            Family::Log
        } else {
            Family::View
        };
        Self {
            database,
            table,
            family,
        }
    }

    pub fn snapshot(&self) -> Result<DiskSnapshot, StateError> {
        let snapshot = OwnedSnapshot::new(self.database.clone());
        let marker = match snapshot.get(self.family, &layout::table_prefix(self.table))? {
            Some(bytes) => Marker::from_bytes(&bytes)?,
            None => Marker::default(),
        };
        Ok(DiskSnapshot {
            snapshot,
            table: self.table,
            family: self.family,
            marker,
        })
    }

    /// Adds a restored run. Nobody reads the view yet, so the batches need not be whole.
    pub fn restore(&self, run: &Run, mut marker: Marker) -> Result<Marker, StateError> {
        let family = self.database.family(self.family);
        let (mut batch, mut key) = (WriteBatch::default(), Vec::new());
        for entry in run.iter() {
            let Some(value) = entry.value else {
                continue;
            };
            if self.family == Family::View {
                layout::group_and_key(&mut key, self.table, entry.group, entry.key);
                marker.rows += count(value)?;
                batch.merge_cf(&family, &key, value);
            } else {
                let (number, row) = log::numbered_row(entry.key)?;
                layout::group_and_key(&mut key, self.table, entry.group, &number.to_be_bytes());
                marker.rows += 1;
                batch.put_cf(&family, &key, row);
            }
            if batch.size_in_bytes() >= BATCH_BYTES {
                self.database.write(std::mem::take(&mut batch))?;
            }
        }
        batch.put_cf(&family, layout::table_prefix(self.table), marker.to_bytes());
        self.database.write(batch)?;
        Ok(marker)
    }

    /// Adds some layers and the marker, whose rows grow by theirs, in one batch.
    pub fn apply(
        &self,
        layers: &[Arc<Layer>],
        rows_layout: &RowLayout,
        marker: &mut Marker,
    ) -> Result<(), StateError> {
        let family = self.database.family(self.family);
        let (mut batch, mut key) = (WriteBatch::default(), Vec::new());
        match layers.first().map(|l| &l.rows) {
            None => {}
            Some(LayerRows::Sorted(_)) => {
                let mut cursor = Cursor::new(layers, &[], None);
                while let Some((row, diff)) = cursor.next_row()? {
                    layout::table(&mut key, self.table);
                    key.extend_from_slice(row);
                    batch.merge_cf(&family, &key, diff.to_le_bytes());
                }
            }
            Some(LayerRows::Log(_)) => {
                for log in layers.iter().map(|l| l.log()) {
                    let mut number = log.first_number();
                    for rows in log.batches() {
                        for row in rows_layout.encode(rows)?.rows.iter() {
                            layout::group_and_key(
                                &mut key,
                                self.table,
                                log.group(),
                                &number.to_be_bytes(),
                            );
                            batch.put_cf(&family, &key, row.data());
                            number += 1;
                        }
                    }
                }
            }
        }
        marker.rows += layers.iter().map(|l| l.diff_sum()).sum::<Diff>();
        batch.put_cf(&family, layout::table_prefix(self.table), marker.to_bytes());
        self.database.write(batch)
    }

    pub fn approximate_bytes(&self) -> u64 {
        self.database.approximate_bytes(self.family, self.table)
    }
}

/// The rows in RocksDB at one moment.
#[derive(Clone)]
pub struct DiskSnapshot {
    snapshot: Arc<OwnedSnapshot>,
    table: TableId,
    family: Family,
    pub marker: Marker,
}

impl DiskSnapshot {
    /// The rows from this one on (key group and encoding).
    pub fn source(&self, from: &[u8]) -> Result<DiskSource, StateError> {
        self.range(
            from,
            layout::after_prefix(&layout::table_prefix(self.table)),
        )
    }

    /// The rows of key groups `from` up to but not `end`, starting at this number in the first.
    pub fn log_source(
        &self,
        from: KeyGroup,
        number: u64,
        end: Option<KeyGroup>,
    ) -> Result<DiskSource, StateError> {
        let mut start = vec![from];
        start.extend_from_slice(&number.to_be_bytes());
        let mut end_key = layout::table_prefix(self.table);
        match end {
            Some(end) => end_key.push(end),
            None => {
                end_key = layout::after_prefix(&end_key)
                    .unwrap_or_else(|| vec![0xff; layout::TABLE_BYTES + 2])
            }
        }
        self.range(&start, Some(end_key))
    }

    fn range(&self, from: &[u8], end: Option<Vec<u8>>) -> Result<DiskSource, StateError> {
        let mut start = layout::table_prefix(self.table);
        start.extend_from_slice(from);
        let iterator = self.snapshot.iterate(self.family, &start, end);
        iterator.check()?;
        let mut source = DiskSource {
            iterator,
            counts: self.family == Family::View,
            diff: 0,
        };
        // What has nothing after the table's id is the marker.
        if source
            .iterator
            .item()
            .is_some_and(|(key, _)| key.len() == layout::TABLE_BYTES)
        {
            source.iterator.advance()?;
        }
        source.read_diff()?;
        Ok(source)
    }
}

/// Rows in order.
pub struct DiskSource {
    iterator: OwnedIterator,
    counts: bool,
    diff: Diff,
}

impl DiskSource {
    fn read_diff(&mut self) -> Result<(), StateError> {
        self.diff = match self.iterator.item() {
            Some((_, value)) if self.counts => count(value)?,
            _ => 1,
        };
        Ok(())
    }

    /// Key group, number and encoding of the current row of a log.
    pub fn log_row(&self) -> Result<Option<(KeyGroup, u64, &[u8])>, StateError> {
        match self.iterator.item() {
            Some((key, row)) => {
                let key = &key[layout::TABLE_BYTES..];
                Ok(Some((key[0], log::number(&key[1..])?, row)))
            }
            None => Ok(None),
        }
    }
}

impl RowSource for DiskSource {
    fn current(&self) -> Option<(&[u8], Diff)> {
        let (key, _) = self.iterator.item()?;
        Some((&key[layout::TABLE_BYTES..], self.diff))
    }

    fn advance(&mut self) -> Result<(), StateError> {
        self.iterator.advance()?;
        self.read_diff()
    }
}

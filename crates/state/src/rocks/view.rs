//! A view's rows in RocksDB: those for which memory was too short. Newer ones are layers in memory, as for any view.
//!
//! A keyed view's counts are written with a merge operator that adds them, so that writing never reads; a row whose count
//! came to zero disappears when its files are compacted. With the rows goes a marker: how far they reach, and their
//! number. It is what makes reading consistent without a lock: a reader takes the list of layers, then a RocksDB
//! snapshot, and leaves out the layers that the snapshot's marker says are in it.
//!
//! What no completed checkpoint holds is noted beside, in a generation of the family `changes` for each move, and is part
//! of the next run ([`ViewDisk::stored_run`]). Of a log the numbers of its rows say which they are.

use super::RocksDb;
use super::database::Family;
use super::layout;
use super::owned::{OwnedIterator, OwnedSnapshot};
use super::view_run::ViewRun;
use super::writer::SortedWriter;
use crate::StateError;
use crate::run::Run;
use crate::view::cursor::{Cursor, RowSource};
use crate::view::layer::{Layer, LayerRows};
use crate::view::row::RowLayout;
use crate::view::{count, log};
use rocksdb::WriteBatch;
use std::ops::Range;
use std::sync::Arc;
use tidegate_types::{Diff, Epoch, KeyGroup, TableId};

/// What is in RocksDB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marker {
    /// The last epoch that is in; the inner `None`: no more than what was restored.
    pub reach: Option<Option<Epoch>>,
    pub rows: Diff,
}

impl Marker {
    /// Whether a layer that ends with this epoch is in RocksDB.
    pub fn covers(&self, last: Option<Epoch>) -> bool {
        Some(last) <= self.reach
    }

    /// Zero stands for nothing, one for what was restored; epochs are stored plus two.
    fn to_bytes(self) -> [u8; 16] {
        let reach = match self.reach {
            None => 0,
            Some(None) => 1,
            Some(Some(epoch)) => epoch.0 + 2,
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&reach.to_be_bytes());
        bytes[8..].copy_from_slice(&self.rows.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let words: &[[u8; 8]] = bytes.as_chunks().0;
        let [reach, rows] = words else {
            return Err(StateError::Damaged(
                "the marker of a view has a wrong length".into(),
            ));
        };
        Ok(Self {
            reach: match u64::from_be_bytes(*reach) {
                0 => None,
                1 => Some(None),
                epoch => Some(Some(Epoch(epoch - 2))),
            },
            rows: Diff::from_be_bytes(*rows),
        })
    }
}

/// Rows in RocksDB that no completed checkpoint holds, of one move.
#[derive(Debug, Clone)]
pub struct Through {
    pub generation: u64,
    pub last: Epoch,
    /// Of a log: which rows.
    pub numbers: Option<(KeyGroup, Range<u64>)>,
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

    /// Begins a write; the marker comes before all rows.
    fn writer(&self, marker: Marker, bytes: usize) -> Result<SortedWriter<'_>, StateError> {
        let mut writer = SortedWriter::new(&self.database, self.family, bytes);
        writer.put(&layout::table_prefix(self.table), &marker.to_bytes())?;
        Ok(writer)
    }

    /// Adds a restored run.
    pub fn restore(&self, run: &Run, mut marker: Marker) -> Result<Marker, StateError> {
        for value in run.iter().filter_map(|entry| entry.value) {
            marker.rows += count(value)?;
        }
        marker.reach = marker.reach.max(Some(None));
        let mut writer = self.writer(marker, run.memory_bytes())?;
        let mut key = Vec::new();
        for entry in run.iter() {
            let Some(value) = entry.value else {
                continue;
            };
            if self.family == Family::View {
                layout::group_and_key(&mut key, self.table, entry.group, entry.key);
                writer.merge(&key, value)?;
            } else {
                let (number, row) = log::numbered_row(entry.key)?;
                layout::group_and_key(&mut key, self.table, entry.group, &number.to_be_bytes());
                writer.put(&key, row)?;
            }
        }
        writer.finish()?;
        Ok(marker)
    }

    /// Adds some layers and the marker, whose rows grow by theirs, together.
    pub fn apply(
        &self,
        layers: &[Arc<Layer>],
        rows_layout: &RowLayout,
        marker: &mut Marker,
    ) -> Result<(), StateError> {
        marker.rows += layers.iter().map(|l| l.diff_sum()).sum::<Diff>();
        let mut writer = self.writer(*marker, bytes_of(layers))?;
        let mut key = Vec::new();
        match layers.first().map(|l| &l.rows) {
            None => {}
            Some(LayerRows::Sorted(_)) => {
                let mut cursor = Cursor::new(layers, &[], None);
                while let Some((row, diff)) = cursor.next_row()? {
                    layout::table(&mut key, self.table);
                    key.extend_from_slice(row);
                    writer.merge(&key, &diff.to_le_bytes())?;
                }
            }
            Some(LayerRows::Log(_)) => {
                for layer in log::in_order(layers) {
                    let log = layer.log();
                    let mut number = log.first_number();
                    for rows in log.batches() {
                        for row in rows_layout.encode(rows)?.rows.iter() {
                            let group = log.group();
                            layout::group_and_key(
                                &mut key,
                                self.table,
                                group,
                                &number.to_be_bytes(),
                            );
                            writer.put(&key, row.data())?;
                            number += 1;
                        }
                    }
                }
            }
        }
        writer.finish()
    }

    /// Notes that no completed checkpoint holds these neighbouring layers, which are about to be moved.
    pub fn note(&self, generation: u64, layers: &[Arc<Layer>]) -> Result<Through, StateError> {
        let (first, last) = (&layers[0], &layers[layers.len() - 1]);
        let mut through = Through {
            generation,
            last: last.last.expect("what was restored is no change"),
            numbers: None,
        };
        match &first.rows {
            LayerRows::Log(log) => {
                let numbers = log.first_number()..last.log().next_number();
                through.numbers = Some((log.group(), numbers));
            }
            LayerRows::Sorted(_) => {
                let mut writer =
                    SortedWriter::new(&self.database, Family::Changes, bytes_of(layers));
                let prefix = layout::generation_prefix(self.table, generation);
                let (mut cursor, mut key) = (Cursor::new(layers, &[], None), prefix.clone());
                while let Some((row, diff)) = cursor.next_row()? {
                    key.truncate(prefix.len());
                    key.extend_from_slice(row);
                    writer.put(&key, &diff.to_le_bytes())?;
                }
                writer.finish()?;
            }
        }
        Ok(through)
    }

    /// Forgets what was noted.
    pub fn forget(&self, notes: &[Through]) -> Result<(), StateError> {
        let mut batch = WriteBatch::default();
        for note in notes.iter().filter(|n| n.numbers.is_none()) {
            let (from, to) = (
                layout::generation_prefix(self.table, note.generation),
                layout::generation_prefix(self.table, note.generation + 1),
            );
            batch.delete_range_cf(&self.database.family(Family::Changes), from, to);
        }
        self.database.write(batch)
    }

    /// What was noted, and newer layers, as a run. What is noted now is read later.
    pub fn stored_run(
        &self,
        notes: Vec<Through>,
        layers: Vec<Arc<Layer>>,
        layout: Arc<RowLayout>,
    ) -> Run {
        let snapshot = OwnedSnapshot::new(self.database.clone());
        let run = ViewRun::new(self.table, snapshot, notes, layers, layout);
        Run::stored(self.table, false, Arc::new(run))
    }

    pub fn approximate_bytes(&self) -> u64 {
        self.database.approximate_bytes(self.family, self.table)
    }
}

fn bytes_of(layers: &[Arc<Layer>]) -> usize {
    layers.iter().map(|l| l.memory_bytes()).sum()
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

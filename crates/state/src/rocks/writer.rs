//! Writing cells to RocksDB.

use super::RocksDb;
use super::database::{BATCH_BYTES, Family};
use super::layout;
use super::overlay::Overlay;
use crate::run::{Run, RunEntry};
use crate::table::{Cell, StateError};
use rocksdb::WriteBatch;
use tidegate_types::{CheckpointId, TableId};

/// Writes cells in batches of bounded size.
pub struct Writer<'a, O> {
    database: &'a RocksDb,
    table: TableId,
    batch: WriteBatch,
    key: Vec<u8>,
    overlay: std::marker::PhantomData<O>,
}

impl<'a, O: Overlay> Writer<'a, O> {
    pub fn new(database: &'a RocksDb, table: TableId) -> Self {
        Self {
            database,
            table,
            batch: WriteBatch::default(),
            key: Vec::new(),
            overlay: std::marker::PhantomData,
        }
    }

    pub fn write(&mut self, entry: &RunEntry<'_>) -> Result<(), StateError> {
        let family = self.database.family(O::FAMILY);
        let cell = Cell {
            key: entry.key,
            sub: entry.sub,
        };
        O::disk_key(&mut self.key, self.table, entry.group, cell);
        match entry.value {
            Some(value) => self.batch.put_cf(&family, &self.key, value),
            None => self.batch.delete_cf(&family, &self.key),
        }
        self.cut()
    }

    pub fn note_change(&mut self, generation: u64, entry: &RunEntry<'_>) -> Result<(), StateError> {
        layout::change(&mut self.key, self.table, generation, entry);
        self.batch
            .put_cf(&self.database.family(Family::Changes), &self.key, []);
        self.cut()
    }

    fn cut(&mut self) -> Result<(), StateError> {
        if self.batch.size_in_bytes() < BATCH_BYTES {
            return Ok(());
        }
        self.database.write(std::mem::take(&mut self.batch))
    }

    /// Writes the rest, with the number of the checkpoint whose changes are now complete.
    pub fn finish(mut self, checkpoint: Option<CheckpointId>) -> Result<(), StateError> {
        if let Some(checkpoint) = checkpoint {
            let marker = layout::table_prefix(self.table);
            self.batch.put_cf(
                &self.database.family(O::FAMILY),
                marker,
                checkpoint.0.to_be_bytes(),
            );
        }
        self.database.write(self.batch)
    }
}

pub fn write_run<O: Overlay>(
    database: &RocksDb,
    run: &Run,
    checkpoint: Option<CheckpointId>,
) -> Result<(), StateError> {
    let mut writer = Writer::<O>::new(database, run.table);
    for entry in run.iter() {
        writer.write(&entry)?;
    }
    writer.finish(checkpoint)
}

//! Snapshots and iterators that keep their database open.
//!
//! The library's borrow it, which a view's snapshot, kept for as long as a reader likes, cannot. Here each holds the
//! database by `Arc` and is dropped before it; that is all the `unsafe` of this crate.

use super::RocksDb;
use super::database::Family;
use crate::StateError;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};
use std::sync::Arc;
use tidegate_types::ByteRows;

pub struct OwnedSnapshot {
    // Fields are dropped in order: the snapshot before the database it points into.
    snapshot: SnapshotWithThreadMode<'static, DB>,
    database: Arc<RocksDb>,
}

impl OwnedSnapshot {
    pub fn new(database: Arc<RocksDb>) -> Arc<Self> {
        let snapshot = database.db().snapshot();
        // SAFETY: the snapshot borrows the `DB` inside the `Arc`, whose address is fixed and which this struct keeps
        // alive until after the snapshot is dropped. The reference is not handed out with its false lifetime.
        let snapshot = unsafe {
            std::mem::transmute::<SnapshotWithThreadMode<'_, DB>, SnapshotWithThreadMode<'static, DB>>(
                snapshot,
            )
        };
        Arc::new(Self { snapshot, database })
    }

    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.snapshot.get_cf(&self.database.family(family), key)?)
    }

    /// `visit(i, value of keys[i])`; the keys are in order.
    pub fn get_many(
        &self,
        family: Family,
        keys: &ByteRows,
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), StateError> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        let family = self.database.family(family);
        let db = self.database.db();
        let values = db.batched_multi_get_cf_opt(&family, keys.iter(), true, &options);
        for (i, value) in values.into_iter().enumerate() {
            visit(i, value?.as_deref());
        }
        Ok(())
    }

    /// Reads the keys in `[from, end)` in order.
    pub fn iterate(
        self: &Arc<Self>,
        family: Family,
        from: &[u8],
        end: Option<Vec<u8>>,
    ) -> OwnedIterator {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut iterator = self
            .snapshot
            .raw_iterator_cf_opt(&self.database.family(family), options);
        iterator.seek(from);
        // SAFETY: as above; the iterator borrows the database, which the snapshot beside it keeps alive.
        let iterator = unsafe {
            std::mem::transmute::<
                DBRawIteratorWithThreadMode<'_, DB>,
                DBRawIteratorWithThreadMode<'static, DB>,
            >(iterator)
        };
        OwnedIterator {
            iterator,
            _snapshot: self.clone(),
        }
    }
}

pub struct OwnedIterator {
    // Dropped before what it points into.
    iterator: DBRawIteratorWithThreadMode<'static, DB>,
    _snapshot: Arc<OwnedSnapshot>,
}

impl OwnedIterator {
    pub fn item(&self) -> Option<(&[u8], &[u8])> {
        self.iterator.item()
    }

    /// Moves on; an error is told here, and by [`check`](Self::check) for the first seek.
    pub fn advance(&mut self) -> Result<(), StateError> {
        self.iterator.next();
        self.check()
    }

    pub fn check(&self) -> Result<(), StateError> {
        match self.iterator.valid() {
            true => Ok(()),
            false => Ok(self.iterator.status()?),
        }
    }
}

//! The run of a table whose changes did not all fit into the overlay: some were written through to RocksDB.
//!
//! Which cells those are is in the family `changes`; their values are what a snapshot taken at the seal says. The run is
//! read a key group at a time, so that no more of it is in memory at once.

use super::RocksDb;
use super::database::Family;
use super::layout;
use super::overlay::Overlay;
use super::owned::OwnedSnapshot;
use crate::run::{Run, RunBuilder, StoredRun};
use crate::table::{Cell, StateError};
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tidegate_types::{ByteRows, KEY_GROUPS, KeyGroup, TableId};

/// Values are read for so many cells at a time.
const READ_CELLS: usize = 1024;

pub struct ThroughRun<O> {
    table: TableId,
    snapshot: Arc<OwnedSnapshot>,
    generations: RangeInclusive<u64>,
    /// What was in the overlay. It is newer.
    own: Option<Run>,
    overlay: PhantomData<fn() -> O>,
}

impl<O: Overlay + 'static> ThroughRun<O> {
    /// A run of the cells that changed in these generations and of `own`.
    pub fn run(
        database: &Arc<RocksDb>,
        table: TableId,
        generations: RangeInclusive<u64>,
        own: Option<Run>,
    ) -> Run {
        let through = Self {
            table,
            snapshot: OwnedSnapshot::new(database.clone()),
            generations,
            own,
            overlay: PhantomData,
        };
        Run::stored(table, O::FAMILY == Family::Map, Arc::new(through))
    }

    fn piece(&self, group: KeyGroup) -> Result<Option<Run>, StateError> {
        let mut piece = RunBuilder::new(self.table, O::FAMILY == Family::Map, 0);
        for generation in self.generations.clone() {
            let prefix = layout::generation_group(self.table, generation, group);
            let end = layout::after_prefix(&prefix);
            let mut noted = self.snapshot.iterate(Family::Changes, &prefix, end);
            noted.check()?;
            let mut keys = ByteRows::new();
            while let Some((key, _)) = noted.item() {
                keys.push(&key[prefix.len() - 1..]);
                noted.advance()?;
                if keys.len() == READ_CELLS {
                    self.read(&keys, &mut piece)?;
                    keys.clear();
                }
            }
            self.read(&keys, &mut piece)?;
        }
        if let Some(own) = &self.own {
            let (start, end) = (
                own.groups().partition_point(|g| *g < group),
                own.groups().partition_point(|g| *g <= group),
            );
            for e in (start..end).map(|i| own.entry(i)) {
                piece.push_in_group(e.group, e.key, e.sub, e.value);
            }
        }
        Ok(piece.finish())
    }

    /// Adds cells, given as key group, length of key, key and sub-key, with their values.
    fn read(&self, noted: &ByteRows, piece: &mut RunBuilder) -> Result<(), StateError> {
        let (mut keys, mut key) = (ByteRows::new(), Vec::new());
        let mut cells = Vec::with_capacity(noted.len());
        for bytes in noted.iter() {
            let (group, cell_key, sub) = layout::split_map_key(bytes)?;
            let cell = Cell { key: cell_key, sub };
            O::disk_key(&mut key, self.table, group, cell);
            keys.push(&key);
            cells.push((group, cell));
        }
        // Keys of value form have no length in front on disk, so their order there is another one.
        let mut order: Vec<usize> = (0..cells.len()).collect();
        order.sort_unstable_by(|a, b| keys.get(*a).cmp(keys.get(*b)));
        let sorted: ByteRows = order.iter().map(|i| keys.get(*i)).collect();
        self.snapshot.get_many(O::FAMILY, &sorted, &mut |i, value| {
            let (group, cell) = cells[order[i]];
            piece.push_in_group(group, cell.key, cell.sub, value);
        })
    }
}

impl<O: Overlay + 'static> StoredRun for ThroughRun<O> {
    fn pieces(&self) -> Box<dyn Iterator<Item = Result<Run, StateError>> + '_> {
        Box::new((0..KEY_GROUPS).filter_map(|group| self.piece(group as KeyGroup).transpose()))
    }
}

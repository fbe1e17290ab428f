//! State tables over RocksDB.
//!
//! A table of the memory backend is the overlay: it holds what changed and is not yet in RocksDB, and shadows it.
//!
//! 1. A write goes to the overlay.
//! 2. `seal` makes a run of what changed. The table keeps a second handle on it.
//! 3. `completed` hands that run to the background thread, which writes it with the checkpoint's number.
//! 4. Once written, the overlay may let go of those cells. A value table keeps them as a cache as long as there is room,
//!    oldest pages first to go; a map table drops them, since a scan has to read RocksDB anyway.
//!
//! **Overflow.** When the overlays of a worker together exceed their limit and nothing can be let go, the table writes
//! all its changes through, in the order of the runs they belong to, and notes which cells changed in the family
//! `changes`, by generation: one generation per seal. The next seal reads these cells back.

use super::RocksDb;
use super::database::Family;
use super::key_scan::{KeyScan, scan_key};
use super::layout;
use super::overlay::Overlay;
use super::writer::{Writer, write_run};
use crate::maintenance::MaintenanceHandle;
use crate::memory::map::MapTable;
use crate::memory::value::{Known, ValueTable};
use crate::memory::{MemoryAccount, within};
use crate::run::{Run, RunBuilder};
use crate::table::{Cell, Change, StateError, Table, TableSpec, TableStats};
use parking_lot::{Condvar, Mutex};
use rocksdb::{DBRawIterator, ReadOptions, WriteBatch};
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use tidegate_types::{ByteRows, CheckpointId, KeyGroup, TableId, hash_key, key_group};

/// What the background thread has written, and what it failed with.
#[derive(Default)]
struct Written {
    state: Mutex<(Option<CheckpointId>, Option<String>)>,
    changed: Condvar,
}

struct Sealed {
    checkpoint: CheckpointId,
    run: Option<Run>,
    generation: u64,
    /// An overflow has written the run already.
    written: bool,
}

pub struct RocksTable<O> {
    id: TableId,
    database: Arc<RocksDb>,
    maintenance: MaintenanceHandle,
    overlay: O,
    /// Of all overlays of the worker.
    account: MemoryAccount,
    overlay_limit_bytes: usize,
    sealed: VecDeque<Sealed>,
    written: Arc<Written>,
    /// The last checkpoint handed to the background thread.
    handed_over: Option<CheckpointId>,
    /// The last checkpoint of which the overlay knows that it is written.
    settled: Option<CheckpointId>,
    /// The generation of changes that are written through now.
    generation: u64,
    /// Generations from this one on are not part of a sealed run.
    unsealed_from: u64,
    /// Generations before this one belong to completed checkpoints.
    completed_generations: u64,
    written_through: bool,
    /// Nothing of this table has ever been written to RocksDB.
    disk_is_empty: bool,
}

pub struct RocksContext {
    pub database: Arc<RocksDb>,
    pub maintenance: MaintenanceHandle,
    pub account: MemoryAccount,
    pub overlay_limit_bytes: usize,
}

impl RocksTable<ValueTable> {
    pub fn open_value(spec: &TableSpec, context: RocksContext) -> Self {
        let overlay = ValueTable::backed(spec.id, context.account.share());
        Self::open(spec.id, overlay, context)
    }
}

impl RocksTable<MapTable> {
    pub fn open_map(spec: &TableSpec, context: RocksContext) -> Self {
        let overlay = MapTable::backed(spec.id, context.account.share());
        Self::open(spec.id, overlay, context)
    }
}

impl<O: Overlay> RocksTable<O> {
    fn open(id: TableId, overlay: O, context: RocksContext) -> Self {
        Self {
            id,
            database: context.database,
            maintenance: context.maintenance,
            overlay,
            account: context.account,
            overlay_limit_bytes: context.overlay_limit_bytes,
            sealed: VecDeque::new(),
            written: Arc::default(),
            handed_over: None,
            settled: None,
            generation: 0,
            unsealed_from: 0,
            completed_generations: 0,
            written_through: false,
            disk_is_empty: true,
        }
    }

    /// Lets the overlay go of what the background thread has written meanwhile.
    fn settle(&mut self) -> Result<(), StateError> {
        let done = {
            let state = self.written.state.lock();
            if let Some(error) = &state.1 {
                return Err(StateError::Backend(error.clone()));
            }
            state.0
        };
        if let Some(done) = done.filter(|d| self.settled < Some(*d)) {
            self.overlay.completed(done)?;
            self.settled = Some(done);
        }
        Ok(())
    }

    /// Waits until the background thread has written all it was given.
    fn wait_written(&mut self) -> Result<(), StateError> {
        {
            let mut state = self.written.state.lock();
            while state.0 < self.handed_over && state.1.is_none() {
                self.written.changed.wait(&mut state);
            }
        }
        self.settle()
    }

    fn limit_memory(&mut self) -> Result<(), StateError> {
        self.settle()?;
        let used = self.account.bytes_used();
        if used <= self.overlay_limit_bytes {
            return Ok(());
        }
        // Down to three quarters, so that not every write has to make room; but only as far as this table can help.
        let excess = used - self.overlay_limit_bytes / 4 * 3;
        let goal = self.overlay.memory_bytes().saturating_sub(excess);
        self.overlay.shrink(goal)?;
        let own = self.overlay.memory_bytes();
        if self.account.bytes_used() > self.overlay_limit_bytes
            && own > self.overlay_limit_bytes / 8
        {
            self.write_through()?;
            self.overlay.shrink(goal)?;
        }
        Ok(())
    }

    fn write_through(&mut self) -> Result<(), StateError> {
        self.wait_written()?;
        self.database.mark_not_reusable()?;
        for sealed in self.sealed.iter_mut().filter(|s| !s.written) {
            if let Some(run) = &sealed.run {
                write_run::<O>(&self.database, run, None)?;
            }
            sealed.written = true;
            self.overlay.completed(sealed.checkpoint)?;
        }
        let mut writer = Writer::<O>::new(&self.database, self.id);
        let mut result = Ok(());
        let generation = self.generation;
        self.overlay.changed(&mut |entry| {
            if result.is_ok() {
                result = writer
                    .write(&entry)
                    .and_then(|()| writer.note_change(generation, &entry));
            }
        });
        result?;
        writer.finish(None)?;
        self.overlay.forget_changes()?;
        self.written_through = true;
        self.disk_is_empty = false;
        Ok(())
    }

    /// The cells of generations that no run under way holds.
    fn written_through_cells(&self) -> Result<Vec<(KeyGroup, Vec<u8>, Vec<u8>)>, StateError> {
        let mut cells = Vec::new();
        if !self.written_through {
            return Ok(cells);
        }
        for generation in self.unsealed_from..=self.generation {
            let prefix = layout::generation_prefix(self.id, generation);
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound(layout::after_prefix(&prefix).unwrap_or_default());
            let family = self.database.family(Family::Changes);
            let mut iterator = self.database.db().raw_iterator_cf_opt(&family, options);
            iterator.seek(&prefix);
            while let Some(bytes) = iterator.key() {
                let (group, key, sub) = layout::split_map_key(&bytes[prefix.len()..])?;
                cells.push((group, key.to_vec(), sub.to_vec()));
                iterator.next();
            }
            iterator.status()?;
        }
        Ok(cells)
    }

    fn forget_generations(&self, up_to: u64) -> Result<(), StateError> {
        let mut batch = WriteBatch::default();
        let (from, to) = (
            layout::generation_prefix(self.id, 0),
            layout::generation_prefix(self.id, up_to + 1),
        );
        batch.delete_range_cf(&self.database.family(Family::Changes), from, to);
        self.database.write(batch)
    }

    /// Reads cells that the overlay does not know.
    fn read_disk(
        &self,
        cells: &[Cell<'_>],
        missing: &[usize],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), StateError> {
        if self.disk_is_empty {
            missing.iter().for_each(|i| visit(*i, None));
            return Ok(());
        }
        let (mut keys, mut key) = (ByteRows::new(), Vec::new());
        for i in missing {
            O::disk_key(
                &mut key,
                self.id,
                key_group(hash_key(cells[*i].key)),
                cells[*i],
            );
            keys.push(&key);
        }
        // RocksDB wants them sorted: neighbours then share the blocks they lie in.
        let mut order: Vec<usize> = (0..missing.len()).collect();
        order.sort_unstable_by(|a, b| keys.get(*a).cmp(keys.get(*b)));
        let family = self.database.family(O::FAMILY);
        let sorted = order.iter().map(|i| keys.get(*i));
        let values = self
            .database
            .db()
            .batched_multi_get_cf(&family, sorted, true);
        for (place, value) in order.iter().zip(values) {
            visit(missing[*place], value?.as_deref());
        }
        Ok(())
    }

    fn iterator(&self) -> DBRawIterator<'_> {
        self.database
            .db()
            .raw_iterator_cf(&self.database.family(O::FAMILY))
    }
}

impl<O: Overlay> Table for RocksTable<O> {
    fn get_many(
        &self,
        cells: &[Cell<'_>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), StateError> {
        let mut missing = Vec::new();
        self.overlay.known_many(cells, &mut |i, known| match known {
            Known::Value(value) => visit(i, Some(value)),
            Known::Deleted => visit(i, None),
            Known::Nothing => missing.push(i),
        });
        if missing.is_empty() {
            Ok(())
        } else {
            self.read_disk(cells, &missing, visit)
        }
    }

    fn write_many(&mut self, changes: &[Change<'_>]) -> Result<(), StateError> {
        self.overlay.write_many(changes)?;
        self.limit_memory()
    }

    fn scan(
        &self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        if O::FAMILY == Family::Value {
            let in_bounds = within(&[], bounds);
            return self.get_many(&[Cell::key(key)], &mut |_, value| {
                if let Some(value) = value.filter(|_| in_bounds) {
                    let _ = visit(&[], value);
                }
            });
        }
        let overlay = self.overlay.scan_known(key, bounds, reverse);
        if self.disk_is_empty {
            for (sub, value) in overlay {
                if value.is_some_and(|v| visit(sub, v).is_break()) {
                    break;
                }
            }
            return Ok(());
        }
        let mut prefix = Vec::new();
        layout::map_key(&mut prefix, self.id, key_group(hash_key(key)), key);
        scan_key(
            &mut self.iterator(),
            &prefix,
            KeyScan {
                overlay,
                bounds,
                reverse,
            },
            visit,
        )
    }

    fn scan_many(
        &self,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, &[u8], &[u8]),
    ) -> Result<(), StateError> {
        if O::FAMILY == Family::Value {
            let cells: Vec<Cell<'_>> = keys.iter().map(|k| Cell::key(k)).collect();
            return self.get_many(&cells, &mut |i, value| {
                if let Some(value) = value {
                    visit(i, &[], value);
                }
            });
        }
        let bounds = (Bound::Unbounded, Bound::Unbounded);
        let mut prefix = Vec::new();
        let mut iterator = (!self.disk_is_empty).then(|| self.iterator());
        for (i, key) in keys.iter().enumerate() {
            let overlay = self.overlay.scan_known(key, bounds, false);
            let Some(iterator) = &mut iterator else {
                let live = overlay
                    .into_iter()
                    .filter_map(|(sub, value)| Some((sub, value?)));
                live.for_each(|(sub, value)| visit(i, sub, value));
                continue;
            };
            layout::map_key(&mut prefix, self.id, key_group(hash_key(key)), key);
            let scan = KeyScan {
                overlay,
                bounds,
                reverse: false,
            };
            scan_key(iterator, &prefix, scan, &mut |sub, value| {
                visit(i, sub, value);
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }

    fn scan_all(
        &self,
        visit: &mut dyn FnMut(KeyGroup, &[u8], &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let mut flow = ControlFlow::Continue(());
        self.overlay.visit_known(&mut |entry| {
            if let (Some(value), ControlFlow::Continue(())) = (entry.value, flow) {
                flow = visit(entry.group, entry.key, entry.sub, value);
            }
        });
        let prefix = layout::table_prefix(self.id);
        let mut iterator = self.iterator();
        iterator.seek(&prefix);
        while let (Some((key, value)), ControlFlow::Continue(())) = (iterator.item(), flow) {
            let Some(rest) = key.strip_prefix(prefix.as_slice()) else {
                break;
            };
            // What has nothing after the table's id is its marker.
            if !rest.is_empty() {
                let (group, cell) = O::split_disk_key(rest)?;
                let mut shadowed = false;
                self.overlay
                    .known_many(&[cell], &mut |_, known| shadowed = known != Known::Nothing);
                if !shadowed {
                    flow = visit(group, cell.key, cell.sub, value);
                }
            }
            iterator.next();
        }
        Ok(iterator.status()?)
    }

    fn seal(&mut self, checkpoint: CheckpointId) -> Result<Option<Run>, StateError> {
        self.settle()?;
        let earlier = self.written_through_cells()?;
        let own = self.overlay.seal(checkpoint)?;
        let run = if earlier.is_empty() {
            own
        } else {
            let mut builder = RunBuilder::new(self.id, O::FAMILY == Family::Map, earlier.len());
            let cells: Vec<Cell<'_>> = earlier
                .iter()
                .map(|(_, key, sub)| Cell { key, sub })
                .collect();
            let mut values = vec![None; cells.len()];
            self.get_many(&cells, &mut |i, value| {
                values[i] = value.map(<[u8]>::to_vec)
            })?;
            for ((group, key, sub), value) in earlier.iter().zip(&values) {
                builder.push_in_group(*group, key, sub, value.as_deref());
            }
            for entry in own.iter().flat_map(|r| r.iter()) {
                builder.push_in_group(entry.group, entry.key, entry.sub, entry.value);
            }
            builder.finish()
        };
        self.sealed.push_back(Sealed {
            checkpoint,
            run: run.clone(),
            generation: self.generation,
            written: false,
        });
        self.generation += 1;
        self.unsealed_from = self.generation;
        Ok(run)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), StateError> {
        self.settle()?;
        while let Some(sealed) = self.sealed.pop_front_if(|s| s.checkpoint <= checkpoint) {
            if self.written_through {
                self.forget_generations(sealed.generation)?;
            }
            self.completed_generations = sealed.generation + 1;
            let run = sealed.run.filter(|_| !sealed.written);
            self.disk_is_empty &= run.is_none();
            self.handed_over = Some(sealed.checkpoint);
            let (database, written) = (self.database.clone(), self.written.clone());
            let submitted = self.maintenance.submit(move || {
                let result = match &run {
                    Some(run) => write_run::<O>(&database, run, Some(sealed.checkpoint)),
                    None => Ok(()),
                };
                let mut state = written.state.lock();
                match result {
                    Ok(()) => state.0 = Some(sealed.checkpoint),
                    Err(error) => state.1 = Some(error.to_string()),
                }
                written.changed.notify_all();
            });
            if !submitted {
                return Err(StateError::Backend(
                    "the background thread of state has ended".into(),
                ));
            }
        }
        Ok(())
    }

    fn aborted(&mut self, checkpoint: CheckpointId) {
        while let Some(sealed) = self.sealed.pop_back_if(|s| s.checkpoint >= checkpoint) {
            self.unsealed_from = self.generations_start(sealed.generation);
            if let (true, Some(run)) = (sealed.written, &sealed.run) {
                self.note_written_run(run);
            }
        }
        self.overlay.aborted(checkpoint);
    }

    fn restore(&mut self, run: &Run) -> Result<(), StateError> {
        self.disk_is_empty = false;
        write_run::<O>(&self.database, run, None)
    }

    fn stats(&self) -> TableStats {
        let overlay = self.overlay.stats();
        let disk_bytes = self.database.approximate_bytes(O::FAMILY, self.id);
        let cell_bytes = (overlay.bytes / overlay.cells.max(1)).clamp(16, 4096);
        TableStats {
            cells: overlay.cells.max(disk_bytes / cell_bytes),
            bytes: overlay.bytes + disk_bytes,
            changed_bytes: overlay.changed_bytes,
        }
    }
}

impl<O: Overlay> RocksTable<O> {
    /// The first generation of the run that this one ends.
    fn generations_start(&self, generation: u64) -> u64 {
        self.sealed
            .back()
            .map_or(self.completed_generations, |s| s.generation + 1)
            .min(generation)
    }

    /// The cells of an aborted run that was written through are changes still.
    fn note_written_run(&mut self, run: &Run) {
        let mut writer = Writer::<O>::new(&self.database, self.id);
        let noted = run
            .iter()
            .try_for_each(|entry| writer.note_change(self.generation, &entry));
        if let Err(error) = noted.and_then(|()| writer.finish(None)) {
            self.written.state.lock().1 = Some(error.to_string());
        }
        self.written_through = true;
    }
}

//! State tables over RocksDB.
//!
//! A table of the memory backend is the overlay: it holds what RocksDB does not have, and shadows it. As long as there is
//! room RocksDB is not written to at all, and while it is empty it is not asked either: a table that fits is as fast as
//! one in memory.
//!
//! 1. A write goes to the overlay. `seal` makes a run of what changed there, as in memory.
//! 2. When the overlays of the worker come near their limit, a sweep copies cells that completed checkpoints hold, those
//!    not written lately first, and the background thread writes them. Once they are written the overlay lets them go,
//!    but for those that changed meanwhile.
//! 3. At the limit the table waits for that.
//! 4. **Overflow.** When nothing that a completed checkpoint holds is left to be written, the sweep takes other cells too,
//!    and notes which ones in the family `changes`, by generation: one generation per seal. They are part of the next
//!    run, which then is read from RocksDB ([`super::through`]).
//!
//! So RocksDB holds no state as of a checkpoint, but what did not fit; recovery is from the checkpoint's runs.

use super::RocksDb;
use super::database::Family;
use super::key_scan::{KeyScan, key_scan_options, scan_key};
use super::layout;
use super::overlay::Overlay;
use super::through::ThroughRun;
use super::writer::{note_changes, write_cells};
use crate::maintenance::MaintenanceHandle;
use crate::memory::map::MapTable;
use crate::memory::sweep::Swept;
use crate::memory::value::{Known, ValueTable};
use crate::memory::{MemoryAccount, within};
use crate::order::sorted_indices;
use crate::run::Run;
use crate::table::{Cell, Change, StateError, Table, TableSpec, TableStats};
use parking_lot::{Condvar, Mutex};
use rocksdb::{DBRawIterator, ReadOptions, WriteBatch};
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use tidegate_types::{ByteRows, CheckpointId, KeyGroup, TableId, hash_key, key_group};

/// Cells are read from RocksDB so many at a time: the blocks they lie in are in memory together.
const READ_CELLS: usize = 512;
/// A sweep takes at most so much.
const MAX_SWEEP_BYTES: usize = 32 << 20;

/// What the background thread is to write, or has written.
#[derive(Default)]
struct Spill {
    done: Mutex<Option<Result<(), StateError>>>,
    changed: Condvar,
}

struct Sealed {
    checkpoint: CheckpointId,
    /// What was in the overlay.
    run: Option<Run>,
    generation: u64,
    /// An overflow has written some of the run.
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
    /// What is being written in the background.
    spilling: Option<Arc<Spill>>,
    /// Below so much in the account, looking for cells to write is in vain.
    sweep_from_bytes: usize,
    /// The generation of changes that are written through now.
    generation: u64,
    /// Generations from this one on are not part of a sealed run.
    unsealed_from: u64,
    /// Generations before this one belong to completed checkpoints.
    completed_generations: u64,
    /// A generation from `unsealed_from` on has changes.
    unsealed_through: bool,
    /// A generation from `completed_generations` on has changes.
    written_through: bool,
    /// Nothing of this table has ever been written to RocksDB.
    disk_is_empty: bool,
    /// What has gone wrong where nobody could be told.
    failed: Option<String>,
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

impl<O: Overlay + 'static> RocksTable<O> {
    fn open(id: TableId, overlay: O, context: RocksContext) -> Self {
        Self {
            id,
            database: context.database,
            maintenance: context.maintenance,
            overlay,
            account: context.account,
            overlay_limit_bytes: context.overlay_limit_bytes,
            sealed: VecDeque::new(),
            spilling: None,
            sweep_from_bytes: 0,
            generation: 0,
            unsealed_from: 0,
            completed_generations: 0,
            unsealed_through: false,
            written_through: false,
            disk_is_empty: true,
            failed: None,
        }
    }

    /// Lets the overlay go of what the background thread has written meanwhile.
    fn settle(&mut self) -> Result<(), StateError> {
        let Some(spill) = &self.spilling else {
            return Ok(());
        };
        let Some(done) = spill.done.lock().take() else {
            return Ok(());
        };
        self.spilling = None;
        done?;
        self.overlay.spilled()
    }

    /// Waits until the background thread has written what it was given.
    fn wait_spilled(&mut self) -> Result<(), StateError> {
        if let Some(spill) = &self.spilling {
            let mut done = spill.done.lock();
            while done.is_none() {
                spill.changed.wait(&mut done);
            }
        }
        self.settle()
    }

    fn limit_memory(&mut self) -> Result<(), StateError> {
        let limit = self.overlay_limit_bytes;
        let used = self.account.bytes_used();
        if used <= limit / 4 * 3 {
            return self.settle();
        }
        self.settle()?;
        if self.spilling.is_none() && used >= self.sweep_from_bytes {
            self.spill()?;
        }
        // What others hold they let go of when it is their turn.
        while self.account.bytes_used() > limit && self.overlay.memory_bytes() > limit / 32 {
            if self.spilling.is_some() {
                self.wait_spilled()?;
            } else if !self.spill()? && !self.write_through()? {
                break;
            }
        }
        Ok(())
    }

    fn sweep(&mut self, through: bool) -> Result<Swept, StateError> {
        self.disk_is_empty = false;
        self.overlay.begin_below();
        let goal_bytes = (self.overlay_limit_bytes / 8).clamp(1 << 10, MAX_SWEEP_BYTES);
        let map_form = O::FAMILY == Family::Map;
        let mut swept = Swept::new(self.id, map_form, goal_bytes, through);
        self.overlay.sweep(&mut swept)?;
        Ok(swept)
    }

    /// Has the background thread write cells that completed checkpoints hold; answers whether there are any.
    fn spill(&mut self) -> Result<bool, StateError> {
        assert!(self.spilling.is_none(), "one after the other");
        let swept = self.sweep(false)?;
        if !swept.is_full() {
            let used = self.account.bytes_used();
            self.sweep_from_bytes = used + self.overlay_limit_bytes / 16;
        }
        if swept.cells.is_empty() {
            return Ok(false);
        }
        let spill = Arc::new(Spill::default());
        self.spilling = Some(spill.clone());
        let (database, table) = (self.database.clone(), self.id);
        let submitted = self.maintenance.submit(move || {
            let written = write_cells::<O>(&database, table, swept.cells.iter());
            *spill.done.lock() = Some(written);
            spill.changed.notify_all();
        });
        match submitted {
            true => Ok(true),
            false => Err(StateError::Backend(
                "the background thread of state has ended".into(),
            )),
        }
    }

    /// Writes cells that no completed checkpoint holds; answers whether there are any.
    fn write_through(&mut self) -> Result<bool, StateError> {
        self.wait_spilled()?;
        let swept = self.sweep(true)?;
        if swept.cells.is_empty() {
            return Ok(false);
        }
        write_cells::<O>(&self.database, self.id, swept.cells.iter())?;
        // What a checkpoint under way holds becomes a change again if that is aborted, and may be gone from the overlay.
        self.sealed.iter_mut().for_each(|s| s.written = true);
        if !swept.unsealed.is_empty() {
            let cells = swept.unsealed.iter();
            note_changes(&self.database, self.id, self.generation, cells)?;
            self.unsealed_through = true;
            self.written_through = true;
        }
        self.overlay.spilled()?;
        Ok(true)
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
        let order = sorted_indices(
            keys.len(),
            |i| (0, keys.get(i)),
            |a, b| keys.get(a).cmp(keys.get(b)),
        );
        let family = self.database.family(O::FAMILY);
        for order in order.chunks(READ_CELLS) {
            let sorted = order.iter().map(|i| keys.get(*i as usize));
            let db = self.database.db();
            let values = db.batched_multi_get_cf(&family, sorted, true);
            for (place, value) in order.iter().zip(values) {
                visit(missing[*place as usize], value?.as_deref());
            }
        }
        Ok(())
    }

    fn iterator(&self, options: ReadOptions) -> DBRawIterator<'_> {
        let family = self.database.family(O::FAMILY);
        self.database.db().raw_iterator_cf_opt(&family, options)
    }
}

impl<O: Overlay + 'static> Table for RocksTable<O> {
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
            &mut self.iterator(key_scan_options(reverse)),
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
        let mut iterator = (!self.disk_is_empty).then(|| self.iterator(key_scan_options(false)));
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
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        let mut iterator = self.iterator(options);
        iterator.seek(&prefix);
        while let (Some((key, value)), ControlFlow::Continue(())) = (iterator.item(), flow) {
            let Some(rest) = key.strip_prefix(prefix.as_slice()) else {
                break;
            };
            let (group, cell) = O::split_disk_key(rest)?;
            let mut shadowed = false;
            self.overlay
                .known_many(&[cell], &mut |_, known| shadowed = known != Known::Nothing);
            if !shadowed {
                flow = visit(group, cell.key, cell.sub, value);
            }
            iterator.next();
        }
        Ok(iterator.status()?)
    }

    fn seal(&mut self, checkpoint: CheckpointId) -> Result<Option<Run>, StateError> {
        if let Some(error) = &self.failed {
            return Err(StateError::Backend(error.clone()));
        }
        self.settle()?;
        let own = self.overlay.seal(checkpoint)?;
        let run = match std::mem::take(&mut self.unsealed_through) {
            false => own.clone(),
            true => {
                let generations = self.unsealed_from..=self.generation;
                let own = own.clone();
                Some(ThroughRun::<O>::run(
                    &self.database,
                    self.id,
                    generations,
                    own,
                ))
            }
        };
        self.sealed.push_back(Sealed {
            checkpoint,
            run: own,
            generation: self.generation,
            written: false,
        });
        self.generation += 1;
        self.unsealed_from = self.generation;
        Ok(run)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), StateError> {
        while let Some(sealed) = self.sealed.pop_front_if(|s| s.checkpoint <= checkpoint) {
            if self.written_through {
                self.forget_generations(sealed.generation)?;
                self.written_through = self.unsealed_through || !self.sealed.is_empty();
            }
            self.completed_generations = sealed.generation + 1;
        }
        self.overlay.completed(checkpoint)?;
        self.sweep_from_bytes = 0;
        self.limit_memory()
    }

    fn aborted(&mut self, checkpoint: CheckpointId) {
        while let Some(sealed) = self.sealed.pop_back_if(|s| s.checkpoint >= checkpoint) {
            self.unsealed_from = self.generations_start(sealed.generation);
            self.unsealed_through = self.written_through;
            if let (true, Some(run)) = (sealed.written, &sealed.run) {
                self.note_written_run(run);
            }
        }
        self.overlay.aborted(checkpoint);
    }

    /// While there is room the run stays in memory. Once RocksDB has some of the table, all later runs go there too.
    fn restore(&mut self, run: &Run) -> Result<(), StateError> {
        let bytes = run.memory_bytes() * 2;
        if self.disk_is_empty && self.account.bytes_used() + bytes <= self.overlay_limit_bytes / 2 {
            return self.overlay.restore(run);
        }
        self.disk_is_empty = false;
        self.overlay.begin_below();
        self.overlay.forget(run)?;
        write_cells::<O>(&self.database, self.id, run.iter())
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

impl<O: Overlay + 'static> RocksTable<O> {
    /// The first generation of the run that this one ends.
    fn generations_start(&self, generation: u64) -> u64 {
        self.sealed
            .back()
            .map_or(self.completed_generations, |s| s.generation + 1)
            .min(generation)
    }

    /// The cells of an aborted run of which some were written through are changes still.
    fn note_written_run(&mut self, run: &Run) {
        let noted = note_changes(&self.database, self.id, self.generation, run.iter());
        if let Err(error) = noted {
            self.failed = Some(error.to_string());
        }
        self.unsealed_through = true;
        self.written_through = true;
    }
}

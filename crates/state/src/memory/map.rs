//! Map form in memory: a hash table from key to its cells, which lie sorted in blocks.
//!
//! A key with few sub-keys has one [`block`](super::block). When that grows too large it is cut in two, and the key's
//! blocks are listed, in order, beside the arena: a cell is then found by binary search over the blocks' first sub-keys
//! and a walk through one block. Blocks that shrink are merged with a neighbour, so the number of blocks follows the
//! number of cells in both directions.
//!
//! Changes are kept per block (see [`Changes`]) with a flag in each changed cell. Sealing walks the changed blocks: its
//! cost is proportional to what changed, times a constant for the cells beside them.
//!
//! [`edit`] changes cells, [`tracking`] follows checkpoints. Like the value form it can be the overlay of a RocksDB table
//! (`backed`); then [`spill`] takes out what is to go there.

mod edit;
mod spill;
mod tracking;

use super::arena::{Arena, Ref};
use super::block::{self, Block, BlockCell, CHANGED, SEALED, TOMBSTONE, set_mark, write_block};
use super::changes::{Changes, Mark};
use super::sweep::Hand;
use super::value::Known;
use super::{MemoryShare, short_hash, spread};
use crate::run::{Run, RunBuilder};
use crate::table::{Cell, Change, StateError, Table, TableStats};
use hashbrown::HashTable;
use std::ops::{Bound, ControlFlow};
use tidegate_types::{CheckpointId, KeyGroup, TableId, hash_key, key_group};

/// Set in a slot whose key has several blocks; the rest is an index into `lists`.
const LISTED: u32 = 1 << 31;

#[derive(Debug, Clone, Copy)]
struct Slot {
    place: u32,
    hash: u32,
}

/// Where in a key's blocks a sub-key belongs.
#[derive(Debug, Clone, Copy)]
struct Spot {
    record: Ref,
    /// The key's list and the position in it, when it has several blocks.
    listed: Option<(usize, usize)>,
}

pub struct MapTable {
    id: TableId,
    backed: bool,
    index: HashTable<Slot>,
    arena: Arena,
    lists: Vec<Vec<Ref>>,
    vacant_lists: Vec<usize>,
    list_bytes: usize,
    changes: Changes,
    cells: u64,
    changed_bytes: usize,
    memory: MemoryShare,
    scratch: Vec<u8>,
    /// Nothing was ever written below this overlay.
    below_is_empty: bool,
    hand: Hand,
}

impl MapTable {
    pub fn new(id: TableId, memory: MemoryShare) -> Self {
        Self {
            id,
            backed: false,
            index: HashTable::new(),
            arena: Arena::new(31),
            lists: Vec::new(),
            vacant_lists: Vec::new(),
            list_bytes: 0,
            changes: Changes::default(),
            cells: 0,
            changed_bytes: 0,
            memory,
            scratch: Vec::new(),
            below_is_empty: true,
            hand: Hand::default(),
        }
    }

    pub fn backed(id: TableId, memory: MemoryShare) -> Self {
        Self {
            backed: true,
            ..Self::new(id, memory)
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.arena.memory_bytes()
            + self.index.capacity() / 7 * 8 * (size_of::<Slot>() + 1)
            + self.lists.capacity() * size_of::<Vec<Ref>>()
            + self.list_bytes
            + self.changes.memory_bytes()
    }

    pub fn known(&self, cell: Cell<'_>) -> Known<'_> {
        let hash = short_hash(hash_key(cell.key));
        let Some(place) = self.find(hash, cell.key) else {
            return Known::Nothing;
        };
        match self.block(self.spot(place, cell.sub).record).find(cell.sub) {
            Ok(found) => found.value().map_or(Known::Deleted, Known::Value),
            Err(_) => Known::Nothing,
        }
    }

    /// The cells of a key within the bounds, tombstones as `None`.
    pub fn scan_known<'s>(
        &'s self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&'s [u8], Option<&'s [u8]>) -> ControlFlow<()>,
    ) {
        let Some(place) = self.find(short_hash(hash_key(key)), key) else {
            return;
        };
        let single = [place];
        let blocks: &[Ref] = match self.listed(place) {
            Some(list) => &self.lists[list],
            None => &single,
        };
        if reverse {
            let last = match bounds.1 {
                Bound::Included(sub) | Bound::Excluded(sub) => self.block_of(blocks, sub),
                Bound::Unbounded => blocks.len() - 1,
            };
            let mut cells: Vec<BlockCell<'s>> = Vec::new();
            for record in blocks[..=last].iter().rev() {
                cells.clear();
                cells.extend(self.block(*record).cells());
                for cell in cells.iter().rev() {
                    if below(cell.sub, bounds.0) {
                        return;
                    }
                    if super::within(cell.sub, bounds) && visit(cell.sub, cell.value()).is_break() {
                        return;
                    }
                }
            }
            return;
        }
        let first = match bounds.0 {
            Bound::Included(sub) | Bound::Excluded(sub) => self.block_of(blocks, sub),
            Bound::Unbounded => 0,
        };
        for record in &blocks[first..] {
            for cell in self.block(*record).cells() {
                if above(cell.sub, bounds.1) {
                    return;
                }
                if super::within(cell.sub, bounds) && visit(cell.sub, cell.value()).is_break() {
                    return;
                }
            }
        }
    }

    fn write_record(&mut self, key: &[u8], cells: &[u8], mark: Mark) -> Result<Ref, StateError> {
        let record = self.arena.alloc(block::HEADER + key.len() + cells.len())?;
        write_block(self.arena.get_mut(record), key, cells, Some(mark));
        Ok(record)
    }

    fn mark(&mut self, record: Ref) {
        let old = self.block(record).mark();
        let mark = self.changes.mark(old, record);
        if mark != old {
            set_mark(self.arena.get_mut(record), mark);
        }
    }

    fn block(&self, record: Ref) -> Block<'_> {
        Block(self.arena.get(record))
    }

    fn find(&self, hash: u32, key: &[u8]) -> Option<u32> {
        let same = |s: &Slot| s.hash == hash && self.block(self.first_block(s.place)).key() == key;
        self.index.find(spread(hash), same).map(|s| s.place)
    }

    fn listed(&self, place: u32) -> Option<usize> {
        (place & LISTED != 0).then_some((place & !LISTED) as usize)
    }

    fn first_block(&self, place: u32) -> Ref {
        match self.listed(place) {
            Some(list) => self.lists[list][0],
            None => place,
        }
    }

    fn spot(&self, place: u32, sub: &[u8]) -> Spot {
        match self.listed(place) {
            Some(list) => {
                let position = self.block_of(&self.lists[list], sub);
                Spot {
                    record: self.lists[list][position],
                    listed: Some((list, position)),
                }
            }
            None => Spot {
                record: place,
                listed: None,
            },
        }
    }

    /// The last of these blocks that does not start after the sub-key.
    fn block_of(&self, blocks: &[Ref], sub: &[u8]) -> usize {
        blocks
            .partition_point(|b| self.block(*b).first_sub() <= sub)
            .saturating_sub(1)
    }

    fn settle(&mut self) -> Result<(), StateError> {
        while let Some(page) = self.arena.page_to_evacuate() {
            for record in self.arena.records(page) {
                self.relocate(record)?;
            }
        }
        self.memory.set(self.memory_bytes());
        Ok(())
    }

    fn relocate(&mut self, record: Ref) -> Result<(), StateError> {
        let block = self.block(record);
        let (hash, mark) = (short_hash(hash_key(block.key())), block.mark());
        let spot = self.spot_of_block(hash, record);
        let new = self.arena.evacuate(record)?;
        self.redirect(hash, spot, new);
        self.changes.moved(mark, record, new);
        Ok(())
    }

    fn spot_of_block(&self, hash: u32, record: Ref) -> Spot {
        let block = self.block(record);
        let place = self
            .find(hash, block.key())
            .expect("a live block is indexed");
        self.spot(place, block.first_sub())
    }

    /// Visits the cells that changed since the last seal.
    pub fn changed(&self, visit: &mut dyn FnMut(KeyGroup, &[u8], &[u8], Option<&[u8]>)) {
        for record in self.changes.active() {
            let block = self.block(record);
            let group = key_group(hash_key(block.key()));
            for cell in block.cells().filter(|c| c.flags & CHANGED != 0) {
                visit(group, block.key(), cell.sub, cell.value());
            }
        }
    }

    /// Visits every cell that is known, tombstones as `None`.
    pub fn visit_known(
        &self,
        visit: &mut dyn FnMut(KeyGroup, &[u8], &[u8], Option<&[u8]>) -> ControlFlow<()>,
    ) {
        for slot in &self.index {
            let single = [slot.place];
            let blocks: &[Ref] = match self.listed(slot.place) {
                Some(list) => &self.lists[list],
                None => &single,
            };
            let group = key_group(hash_key(self.block(blocks[0]).key()));
            for block in blocks.iter().map(|b| self.block(*b)) {
                for cell in block.cells() {
                    if visit(group, block.key(), cell.sub, cell.value()).is_break() {
                        return;
                    }
                }
            }
        }
    }
}

fn below(sub: &[u8], low: Bound<&[u8]>) -> bool {
    !super::within(sub, (low, Bound::Unbounded))
}

fn above(sub: &[u8], high: Bound<&[u8]>) -> bool {
    !super::within(sub, (Bound::Unbounded, high))
}

impl Table for MapTable {
    fn get_many(
        &self,
        cells: &[Cell<'_>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), StateError> {
        for (i, cell) in cells.iter().enumerate() {
            match self.known(*cell) {
                Known::Value(value) => visit(i, Some(value)),
                Known::Deleted | Known::Nothing => visit(i, None),
            }
        }
        Ok(())
    }

    fn write_many(&mut self, changes: &[Change<'_>]) -> Result<(), StateError> {
        for change in changes {
            self.put(change.cell.key, change.cell.sub, change.value, CHANGED)?;
        }
        self.settle()
    }

    fn scan(
        &self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.scan_known(key, bounds, reverse, &mut |sub, value| match value {
            Some(value) => visit(sub, value),
            None => ControlFlow::Continue(()),
        });
        Ok(())
    }

    fn scan_many(
        &self,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, &[u8], &[u8]),
    ) -> Result<(), StateError> {
        for (i, key) in keys.iter().enumerate() {
            self.scan_known(
                key,
                (Bound::Unbounded, Bound::Unbounded),
                false,
                &mut |sub, value| {
                    if let Some(value) = value {
                        visit(i, sub, value);
                    }
                    ControlFlow::Continue(())
                },
            );
        }
        Ok(())
    }

    fn scan_all(
        &self,
        visit: &mut dyn FnMut(KeyGroup, &[u8], &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.visit_known(&mut |group, key, sub, value| match value {
            Some(value) => visit(group, key, sub, value),
            None => ControlFlow::Continue(()),
        });
        Ok(())
    }

    fn seal(&mut self, checkpoint: CheckpointId) -> Result<Option<Run>, StateError> {
        let mut builder = RunBuilder::new(self.id, true, self.changes.active_len());
        self.changed(&mut |group, key, sub, value| builder.push_in_group(group, key, sub, value));
        let records: Vec<Ref> = self.changes.active().collect();
        // When no other checkpoint is under way, what is still flagged as sealed here belongs to a completed one.
        let kept = if self.changes.any_sealed() { SEALED } else { 0 };
        self.changes.seal(checkpoint)?;
        for record in records {
            self.flag_block(record, |flags| match flags & CHANGED {
                0 => flags & (kept | !SEALED),
                _ => (flags & TOMBSTONE) | SEALED,
            });
        }
        self.changed_bytes = 0;
        self.memory.set(self.memory_bytes());
        Ok(builder.finish_lazily())
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), StateError> {
        let records = self.changes.completed(checkpoint);
        if self.below_is_empty {
            self.filter_tombstones(records)?;
        } else {
            for record in records {
                self.flag_block(record, |flags| flags & !SEALED);
            }
        }
        self.settle()
    }

    fn aborted(&mut self, checkpoint: CheckpointId) {
        let mut records = self.changes.aborted(checkpoint);
        records.extend(self.changes.active());
        for record in records {
            self.flag_block(record, |flags| match flags & SEALED {
                0 => flags,
                _ => (flags & !SEALED) | CHANGED,
            });
            self.mark(record);
        }
    }

    fn restore(&mut self, run: &Run) -> Result<(), StateError> {
        let mut next = 0;
        while next < run.len() {
            next = self.load_key(run, next)?;
        }
        self.settle()
    }

    fn stats(&self) -> TableStats {
        TableStats {
            cells: self.cells,
            bytes: self.memory_bytes() as u64,
            changed_bytes: self.changed_bytes as u64,
        }
    }
}

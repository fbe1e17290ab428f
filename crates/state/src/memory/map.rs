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
//! Like the value form it can be the overlay of a RocksDB table (`backed`).

use super::arena::{Arena, Ref};
use super::block::{
    self, Block, BlockCell, CHANGED, FRESH, MAX_CELLS_BYTES, SEALED, TOMBSTONE, set_cells_bytes,
    set_flags, set_mark, splice, write_block, write_cell,
};
use super::changes::{Changes, Mark, UNMARKED};
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
            changes: Changes::new(),
            cells: 0,
            changed_bytes: 0,
            memory,
            scratch: Vec::new(),
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

    fn put(
        &mut self,
        key: &[u8],
        sub: &[u8],
        value: Option<&[u8]>,
        change: u8,
    ) -> Result<(), StateError> {
        let hash = short_hash(hash_key(key));
        let Some(place) = self.find(hash, key) else {
            return self.put_first(hash, key, sub, value, change);
        };
        let spot = self.spot(place, sub);
        match (self.block(spot.record).find(sub), value) {
            (Ok(cell), Some(value)) => {
                let flags = (cell.flags & (FRESH | SEALED)) | change;
                let (start, end, deleted) = (cell.start, cell.end, cell.flags & TOMBSTONE != 0);
                self.cells += u64::from(deleted);
                self.replace(hash, spot, start..end, Some((flags, sub, value)))
            }
            (Ok(cell), None) => {
                let (start, end, flags) = (cell.start, cell.end, cell.flags);
                if flags & TOMBSTONE != 0 {
                    return Ok(());
                }
                self.cells -= 1;
                if flags & FRESH != 0 || change == 0 {
                    return self.replace(hash, spot, start..end, None);
                }
                let flags = (flags & SEALED) | TOMBSTONE | change;
                self.replace(hash, spot, start..end, Some((flags, sub, &[])))
            }
            (Err(at), Some(value)) => {
                self.cells += 1;
                let flags = if self.backed || change == 0 {
                    change
                } else {
                    change | FRESH
                };
                self.replace(hash, spot, at..at, Some((flags, sub, value)))
            }
            (Err(at), None) if self.backed && change != 0 => {
                self.replace(hash, spot, at..at, Some((TOMBSTONE | change, sub, &[])))
            }
            (Err(_), None) => Ok(()),
        }
    }

    fn put_first(
        &mut self,
        hash: u32,
        key: &[u8],
        sub: &[u8],
        value: Option<&[u8]>,
        change: u8,
    ) -> Result<(), StateError> {
        let flags = match value {
            Some(_) if self.backed || change == 0 => change,
            Some(_) => change | FRESH,
            None if self.backed && change != 0 => change | TOMBSTONE,
            None => return Ok(()),
        };
        self.cells += u64::from(value.is_some());
        let mut cells = std::mem::take(&mut self.scratch);
        cells.clear();
        write_cell(&mut cells, flags, sub, value.unwrap_or(&[]));
        let record = self.write_record(key, &cells, UNMARKED)?;
        self.scratch = cells;
        self.index.insert_unique(
            spread(hash),
            Slot {
                place: record,
                hash,
            },
            |s| spread(s.hash),
        );
        if change != 0 {
            self.mark(record);
            self.changed_bytes += key.len() + sub.len() + value.map_or(0, <[u8]>::len);
        }
        Ok(())
    }

    /// Replaces the bytes of a cell (or of none) by a cell (or by none), moving, cutting or merging the block as needed.
    fn replace(
        &mut self,
        hash: u32,
        spot: Spot,
        range: std::ops::Range<usize>,
        cell: Option<(u8, &[u8], &[u8])>,
    ) -> Result<(), StateError> {
        let mut new = std::mem::take(&mut self.scratch);
        new.clear();
        let mut changed = false;
        if let Some((flags, sub, value)) = cell {
            write_cell(&mut new, flags, sub, value);
            changed = flags & CHANGED != 0;
            if changed {
                self.changed_bytes += sub.len() + value.len();
            }
        }
        let result = self.replace_bytes(hash, spot, range, &new, changed);
        self.scratch = new;
        result
    }

    fn replace_bytes(
        &mut self,
        hash: u32,
        spot: Spot,
        range: std::ops::Range<usize>,
        new: &[u8],
        changed: bool,
    ) -> Result<(), StateError> {
        let block = self.block(spot.record);
        let (old_length, capacity) = (block.cells_bytes(), block.capacity());
        let length = old_length - range.len() + new.len();
        if length == 0 {
            self.remove_block(hash, spot);
            return Ok(());
        }
        if length <= capacity && capacity <= length * 2 + 256 {
            splice(
                self.arena.get_mut(spot.record),
                range.start,
                range.len(),
                new,
            );
            if changed {
                self.mark(spot.record);
            }
            return if new.is_empty() {
                self.merge(hash, spot)
            } else {
                Ok(())
            };
        }
        let mut cells = Vec::with_capacity(length + length / 4);
        let appended = range.start == old_length && range.is_empty();
        cells.extend_from_slice(&block.cell_bytes()[..range.start]);
        cells.extend_from_slice(new);
        cells.extend_from_slice(&block.cell_bytes()[range.end..]);
        if length > MAX_CELLS_BYTES
            && let Some(at) = block::cut(&cells, appended)
        {
            return self.split(hash, spot, &cells, at);
        }
        // Most keys of most joins have one row, so the first record is exact and only a growing one gets room.
        cells.resize(length + length / 4, 0);
        let (key, mark) = (block.key().to_vec(), block.mark());
        let record = self.write_record(&key, &cells, mark)?;
        set_cells_bytes(self.arena.get_mut(record), length);
        self.redirect(hash, spot, record);
        self.changes.moved(mark, spot.record, record);
        self.arena.free(spot.record);
        if changed {
            self.mark(record);
        }
        Ok(())
    }

    fn split(&mut self, hash: u32, spot: Spot, cells: &[u8], at: usize) -> Result<(), StateError> {
        let key = self.block(spot.record).key().to_vec();
        let left = self.write_record(&key, &cells[..at], UNMARKED)?;
        let right = self.write_record(&key, &cells[at..], UNMARKED)?;
        let (list, position) = match spot.listed {
            Some(listed) => listed,
            None => (self.add_list(hash, spot.record), 0),
        };
        self.list_bytes -= self.lists[list].capacity() * size_of::<Ref>();
        self.lists[list][position] = left;
        self.lists[list].insert(position + 1, right);
        self.list_bytes += self.lists[list].capacity() * size_of::<Ref>();
        self.free_block(spot.record);
        self.mark(left);
        self.mark(right);
        Ok(())
    }

    /// Joins a block that has become small with a neighbour.
    fn merge(&mut self, hash: u32, spot: Spot) -> Result<(), StateError> {
        let Some((list, position)) = spot.listed else {
            return Ok(());
        };
        let bytes = self.block(spot.record).cells_bytes();
        if bytes >= MAX_CELLS_BYTES / 8 {
            return Ok(());
        }
        let left = if position + 1 < self.lists[list].len() {
            position
        } else {
            position - 1
        };
        let (a, b) = (self.lists[list][left], self.lists[list][left + 1]);
        let joined = [self.block(a).cell_bytes(), self.block(b).cell_bytes()].concat();
        if joined.len() > MAX_CELLS_BYTES / 2 {
            return Ok(());
        }
        let key = self.block(a).key().to_vec();
        let record = self.write_record(&key, &joined, UNMARKED)?;
        self.lists[list][left] = record;
        self.lists[list].remove(left + 1);
        self.free_block(a);
        self.free_block(b);
        self.mark(record);
        self.unlist_if_single(hash, list);
        Ok(())
    }

    fn remove_block(&mut self, hash: u32, spot: Spot) {
        match spot.listed {
            Some((list, position)) => {
                self.lists[list].remove(position);
                self.unlist_if_single(hash, list);
            }
            None => {
                let found = self
                    .index
                    .find_entry(spread(hash), |s| s.place == spot.record);
                found.expect("an indexed block").remove();
            }
        }
        self.free_block(spot.record);
    }

    fn free_block(&mut self, record: Ref) {
        let mark = self.block(record).mark();
        self.changes.removed(mark, record);
        self.arena.free(record);
    }

    /// The key gets a list of blocks; answers its index.
    fn add_list(&mut self, hash: u32, record: Ref) -> usize {
        let list = self.vacant_lists.pop().unwrap_or_else(|| {
            self.lists.push(Vec::new());
            self.lists.len() - 1
        });
        self.lists[list] = vec![record];
        self.list_bytes += self.lists[list].capacity() * size_of::<Ref>();
        let slot = self.index.find_mut(spread(hash), |s| s.place == record);
        slot.expect("an indexed block").place = LISTED | list as u32;
        list
    }

    fn unlist_if_single(&mut self, hash: u32, list: usize) {
        if self.lists[list].len() == 1 {
            let blocks = std::mem::take(&mut self.lists[list]);
            self.list_bytes -= blocks.capacity() * size_of::<Ref>();
            self.vacant_lists.push(list);
            let slot = self
                .index
                .find_mut(spread(hash), |s| s.place == LISTED | list as u32);
            slot.expect("an indexed list").place = blocks[0];
        }
    }

    /// The spot's block has a new record.
    fn redirect(&mut self, hash: u32, spot: Spot, record: Ref) {
        match spot.listed {
            Some((list, position)) => self.lists[list][position] = record,
            None => {
                let slot = self
                    .index
                    .find_mut(spread(hash), |s| s.place == spot.record);
                slot.expect("an indexed block").place = record;
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

    /// From now on nothing has changed: the caller has written the changed cells elsewhere, and so they may go.
    pub fn forget_changes(&mut self) -> Result<(), StateError> {
        assert!(self.backed, "only an overlay may forget");
        let records: Vec<Ref> = self.changes.active().collect();
        self.changes.clear_active();
        self.changed_bytes = 0;
        self.filter(&records, |flags| match flags & SEALED {
            0 => None,
            _ => Some(flags & !CHANGED),
        })?;
        self.settle()
    }

    /// Gives each cell of these blocks new flags or drops it; then merges what has become small.
    fn filter(
        &mut self,
        records: &[Ref],
        keep: impl Fn(u8) -> Option<u8>,
    ) -> Result<(), StateError> {
        let mut small: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for record in records {
            if self.filter_block(*record, &keep) {
                let block = self.block(*record);
                small.push((block.key().to_vec(), block.first_sub().to_vec()));
            }
        }
        // Merging frees blocks that may be among `records`, so it starts when all of them were visited.
        for (key, sub) in small {
            let hash = short_hash(hash_key(&key));
            if let Some(place) = self.find(hash, &key) {
                let spot = self.spot(place, &sub);
                self.merge(hash, spot)?;
            }
        }
        Ok(())
    }

    /// Answers whether the block is still there and small enough to be merged.
    fn filter_block(&mut self, record: Ref, keep: impl Fn(u8) -> Option<u8>) -> bool {
        let block = self.block(record);
        let mut kept = Vec::new();
        let mut flags = Vec::new();
        let mut dropped_cells = 0;
        for cell in block.cells() {
            match keep(cell.flags) {
                Some(new) => {
                    flags.push((kept.len(), new));
                    kept.extend_from_slice(&block.cell_bytes()[cell.start..cell.end]);
                }
                None => dropped_cells += u64::from(cell.flags & TOMBSTONE == 0),
            }
        }
        let hash = short_hash(hash_key(block.key()));
        let shrunk = kept.len() < block.cells_bytes();
        self.cells -= dropped_cells;
        if kept.is_empty() {
            let spot = self.spot_of_block(hash, record);
            self.remove_block(hash, spot);
            return false;
        }
        for (at, flags) in flags {
            kept[at] = flags;
        }
        let bytes = self.arena.get_mut(record);
        let length = Block(bytes).cells_bytes();
        splice(bytes, 0, length, &kept);
        shrunk && kept.len() < MAX_CELLS_BYTES / 8
    }

    /// Drops tombstones that a completed checkpoint has recorded; most blocks have none and are not rewritten.
    fn filter_tombstones(&mut self, records: Vec<Ref>) -> Result<(), StateError> {
        let mut with_tombstones = Vec::new();
        for record in records {
            let unchanged_tombstone =
                |c: BlockCell<'_>| c.flags & (TOMBSTONE | CHANGED) == TOMBSTONE;
            if self.block(record).cells().any(unchanged_tombstone) {
                with_tombstones.push(record);
            } else {
                self.flag_block(record, |flags| flags & !SEALED);
            }
        }
        self.filter(&with_tombstones, |flags| {
            match flags & (TOMBSTONE | CHANGED) {
                TOMBSTONE => None,
                _ => Some(flags & !SEALED),
            }
        })
    }

    fn flag_block(&mut self, record: Ref, change: impl Fn(u8) -> u8) {
        let bytes = self.arena.get_mut(record);
        let mut changed = Vec::new();
        for cell in Block(bytes).cells() {
            let flags = change(cell.flags);
            if flags != cell.flags {
                changed.push((cell.start, flags));
            }
        }
        for (start, flags) in changed {
            set_flags(bytes, start, flags);
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
        Ok(builder.finish())
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), StateError> {
        let records = self.changes.completed(checkpoint);
        if self.backed {
            self.filter(&records, |flags| match flags & CHANGED {
                0 => None,
                _ => Some(flags & !SEALED),
            })?;
        } else {
            self.filter_tombstones(records)?;
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
        for entry in run.iter() {
            self.put(entry.key, entry.sub, entry.value, 0)?;
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

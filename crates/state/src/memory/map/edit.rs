//! Changing a key's cells: within its block, or by moving, cutting and merging blocks.

use super::{LISTED, MapTable, Slot, Spot};
use crate::memory::arena::Ref;
use crate::memory::block::{
    self, CHANGED, FRESH, MAX_CELLS_BYTES, SEALED, TOMBSTONE, set_cells_bytes, splice, write_cell,
};
use crate::memory::changes::UNMARKED;
use crate::memory::{short_hash, spread};
use crate::run::{Run, RunEntry};
use crate::table::StateError;
use tidegate_types::hash_key;

impl MapTable {
    /// Sets or forgets a cell that the store below (or a restored checkpoint) has, so that it is no change.
    pub fn load(&mut self, key: &[u8], sub: &[u8], value: Option<&[u8]>) -> Result<(), StateError> {
        self.put(key, sub, value, 0)
    }

    /// Loads a run's cells of one key, from this one on, and answers where the next key begins. Cells behind all that the key
    /// has are laid into blocks as they come, which is what a restore mostly does; others are put one by one.
    pub(super) fn load_key(&mut self, run: &Run, first: usize) -> Result<usize, StateError> {
        let start = run.entry(first);
        let hash = short_hash(hash_key(start.key));
        let rest = (first..run.len()).map(|i| run.entry(i));
        let count = rest.clone().take_while(|e| e.key == start.key).count();
        let mut cells = rest.take(count);
        match self.find(hash, start.key) {
            Some(place) if !self.is_behind(place, start.sub) => {
                cells.try_for_each(|e| self.load(e.key, e.sub, e.value))?;
            }
            place => self.append(hash, place, start.key, cells)?,
        }
        Ok(first + count)
    }

    /// Whether the sub-key comes after all of these blocks.
    fn is_behind(&self, place: u32, sub: &[u8]) -> bool {
        let last = self.block(self.last_block(place));
        last.cells().last().is_some_and(|cell| cell.sub < sub)
    }

    fn last_block(&self, place: u32) -> Ref {
        let blocks = self.listed(place).map(|list| &self.lists[list]);
        blocks.map_or(place, |blocks| *blocks.last().expect("a list has blocks"))
    }

    /// Adds cells in order behind those that the key has, if it has any. They are no changes.
    fn append<'a>(
        &mut self,
        hash: u32,
        place: Option<u32>,
        key: &[u8],
        loaded: impl Iterator<Item = RunEntry<'a>>,
    ) -> Result<(), StateError> {
        let last = place.map(|place| self.last_block(place));
        let mut cells = std::mem::take(&mut self.scratch);
        cells.clear();
        if let Some(last) = last {
            cells.extend_from_slice(self.block(last).cell_bytes());
        }
        let mut blocks = Vec::new();
        for (sub, value) in loaded.filter_map(|e| Some((e.sub, e.value?))) {
            let before = cells.len();
            write_cell(&mut cells, 0, sub, value);
            self.cells += 1;
            if cells.len() > MAX_CELLS_BYTES && before > 0 {
                blocks.push(self.write_record(key, &cells[..before], UNMARKED)?);
                cells.drain(..before);
            }
        }
        if !cells.is_empty() {
            blocks.push(self.write_record(key, &cells, UNMARKED)?);
        }
        self.scratch = cells;
        let Some(&first) = blocks.first() else {
            return Ok(());
        };
        match (place, last) {
            (Some(place), Some(last)) => {
                let listed = self
                    .listed(place)
                    .map(|list| (list, self.lists[list].len() - 1));
                let spot = Spot {
                    record: last,
                    listed,
                };
                self.redirect(hash, spot, first);
                self.free_block(last);
            }
            _ => {
                let slot = Slot { place: first, hash };
                self.index
                    .insert_unique(spread(hash), slot, |s| spread(s.hash));
            }
        }
        if blocks.len() > 1 {
            let list = match place.and_then(|place| self.listed(place)) {
                Some(list) => list,
                None => self.add_list(hash, first),
            };
            self.list_bytes -= self.lists[list].capacity() * size_of::<Ref>();
            self.lists[list].extend_from_slice(&blocks[1..]);
            self.list_bytes += self.lists[list].capacity() * size_of::<Ref>();
        }
        Ok(())
    }

    pub(super) fn put(
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
            (Err(at), None) if !self.below_is_empty && change != 0 => {
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
            None if !self.below_is_empty && change != 0 => change | TOMBSTONE,
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
    pub(super) fn replace(
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
    pub(super) fn merge(&mut self, hash: u32, spot: Spot) -> Result<(), StateError> {
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

    pub(super) fn remove_block(&mut self, hash: u32, spot: Spot) {
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
    pub(super) fn redirect(&mut self, hash: u32, spot: Spot, record: Ref) {
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
}

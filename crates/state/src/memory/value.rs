//! Value form in memory: a hash table of 32-bit addresses over records that hold key and value side by side.
//!
//! A record is `key length, value length and flags, mark, key, value`. A new value of the same size (rounded up to eight
//! bytes) is written over the old one. A deleted cell that a checkpoint may know stays as a tombstone until the
//! checkpoint that says so is completed; one that no checkpoint has seen leaves at once.
//!
//! Memory for a key of 9 bytes and a value of 20: a record of 48 bytes and 9 bytes in a hash table that is between half
//! and seven eighths full.
//!
//! The same structure is the overlay of a RocksDB table (`backed`): absent then means "look below", so that deleting an
//! unknown key leaves a tombstone. What it holds is never below it; a sweep takes out what is to go there.

use super::arena::{Arena, Ref};
use super::changes::{Changes, Listed, Mark, UNMARKED};
use super::sweep::{Hand, Swept};
use super::{MemoryShare, short_hash, spread};
use crate::run::{Run, RunBuilder};
use crate::table::{Cell, Change, StateError, Table, TableStats};
use hashbrown::HashTable;
use std::ops::{Bound, ControlFlow};
use tidegate_types::{CheckpointId, KeyGroup, TableId, hash_key, key_group};

const HEADER: usize = 12;
const TOMBSTONE: u32 = 1 << 31;
/// No checkpoint has seen the cell.
const FRESH: u32 = 1 << 30;
/// Written again since a sweep came by. Only in an overlay.
const HOT: u32 = 1 << 29;
const LENGTH: u32 = HOT - 1;
/// How many lookups are in flight at once, so that their cache misses overlap.
const LOOKAHEAD: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Slot {
    record: Ref,
    hash: u32,
}

/// What a value table knows of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known<'a> {
    Value(&'a [u8]),
    Deleted,
    Nothing,
}

impl<'a> Known<'a> {
    pub fn value(self) -> Option<&'a [u8]> {
        match self {
            Self::Value(value) => Some(value),
            Self::Deleted | Self::Nothing => None,
        }
    }
}

pub struct ValueTable {
    id: TableId,
    backed: bool,
    index: HashTable<Slot>,
    arena: Arena,
    changes: Changes,
    /// Cells that have a value.
    cells: u64,
    tombstones: u64,
    changed_bytes: usize,
    memory: MemoryShare,
    /// Nothing was ever written below this overlay.
    below_is_empty: bool,
    hand: Hand,
}

impl ValueTable {
    pub fn new(id: TableId, memory: MemoryShare) -> Self {
        Self {
            id,
            backed: false,
            index: HashTable::new(),
            arena: Arena::new(32),
            changes: Changes::default(),
            cells: 0,
            tombstones: 0,
            changed_bytes: 0,
            memory,
            below_is_empty: true,
            hand: Hand::default(),
        }
    }

    /// An overlay over a store that will know cells which this table does not.
    pub fn backed(id: TableId, memory: MemoryShare) -> Self {
        Self {
            backed: true,
            ..Self::new(id, memory)
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.arena.memory_bytes()
            + self.index.capacity() / 7 * 8 * (size_of::<Slot>() + 1)
            + self.changes.memory_bytes()
    }

    pub fn known(&self, key: &[u8]) -> Known<'_> {
        match self.find(short_hash(hash_key(key)), key) {
            Some(record) => self.known_at(record),
            None => Known::Nothing,
        }
    }

    /// `visit(i, what is known of cells[i])`, in order.
    pub fn known_many<'s>(&'s self, cells: &[Cell<'_>], visit: &mut dyn FnMut(usize, Known<'s>)) {
        for (chunk, cells) in cells.chunks(LOOKAHEAD).enumerate() {
            let mut hashes = [0u32; LOOKAHEAD];
            let mut guesses = [None; LOOKAHEAD];
            for (i, cell) in cells.iter().enumerate() {
                hashes[i] = short_hash(hash_key(cell.key));
            }
            // The full short hash nearly always decides; comparing keys would wait for a cache miss each.
            for i in 0..cells.len() {
                let hash = hashes[i];
                guesses[i] = self
                    .index
                    .find(spread(hash), |s| s.hash == hash)
                    .map(|s| s.record);
            }
            // Independent loads, before anything depends on one of them.
            for guess in guesses.iter().flatten() {
                std::hint::black_box(self.arena.get(*guess).first());
            }
            for (i, cell) in cells.iter().enumerate() {
                let record = match guesses[i] {
                    Some(guess) if self.key(guess) == cell.key => Some(guess),
                    Some(_) => self.find(hashes[i], cell.key),
                    None => None,
                };
                visit(
                    chunk * LOOKAHEAD + i,
                    record.map_or(Known::Nothing, |r| self.known_at(r)),
                );
            }
        }
    }

    /// Loads what writing these cells will look at, so that the cache misses overlap. Answers the keys' hashes.
    fn warm(&self, changes: &[Change<'_>]) -> [u32; LOOKAHEAD] {
        let mut hashes = [0u32; LOOKAHEAD];
        let mut guesses = [None; LOOKAHEAD];
        for (i, change) in changes.iter().enumerate() {
            let hash = short_hash(hash_key(change.cell.key));
            hashes[i] = hash;
            let slot = self.index.find(spread(hash), |s| s.hash == hash);
            guesses[i] = slot.map(|s| s.record);
        }
        for guess in guesses.iter().flatten() {
            std::hint::black_box(self.arena.get(*guess).first());
        }
        for guess in guesses.iter().flatten() {
            self.changes.warm(self.header(*guess).mark);
        }
        hashes
    }

    /// Sets or deletes one cell; the caller settles the table after the batch.
    fn put(&mut self, hash: u32, key: &[u8], value: Option<&[u8]>) -> Result<(), StateError> {
        match (self.find(hash, key), value) {
            (Some(record), Some(value)) => self.overwrite(record, hash, key, value),
            (Some(record), None) => {
                let header = self.header(record);
                if header.flags & TOMBSTONE != 0 {
                    return Ok(());
                }
                self.cells -= 1;
                if header.flags & FRESH != 0 {
                    self.remove(record, hash);
                    return Ok(());
                }
                self.tombstones += 1;
                self.set_value_word(record, TOMBSTONE);
                self.mark(record);
                Ok(())
            }
            (None, Some(value)) => {
                let fresh = if self.backed { 0 } else { FRESH };
                let record = self.insert(hash, key, value, fresh)?;
                self.cells += 1;
                self.mark(record);
                Ok(())
            }
            (None, None) if !self.below_is_empty => {
                let record = self.insert(hash, key, &[], TOMBSTONE)?;
                self.tombstones += 1;
                self.mark(record);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    fn overwrite(
        &mut self,
        record: Ref,
        hash: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StateError> {
        let header = self.header(record);
        if header.flags & TOMBSTONE != 0 {
            self.tombstones -= 1;
            self.cells += 1;
        }
        let hot = if self.backed { HOT } else { 0 };
        let flags = header.flags & FRESH | hot;
        let needed = HEADER + key.len() + value.len();
        let room = self.arena.get(record).len();
        if needed <= room && room <= needed * 2 + 64 {
            let start = HEADER + key.len();
            self.arena.get_mut(record)[start..start + value.len()].copy_from_slice(value);
            self.set_value_word(record, value.len() as u32 | flags);
            self.mark(record);
            return Ok(());
        }
        let new = self.write_record(key, value, flags, header.mark)?;
        let slot = self.index.find_mut(spread(hash), |s| s.record == record);
        slot.expect("an indexed record").record = new;
        self.changes.moved(header.mark, record, new);
        self.arena.free(record);
        self.mark(new);
        Ok(())
    }

    fn insert(
        &mut self,
        hash: u32,
        key: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<Ref, StateError> {
        let record = self.write_record(key, value, flags, UNMARKED)?;
        self.index
            .insert_unique(spread(hash), Slot { record, hash }, |s| spread(s.hash));
        Ok(record)
    }

    fn write_record(
        &mut self,
        key: &[u8],
        value: &[u8],
        flags: u32,
        mark: Mark,
    ) -> Result<Ref, StateError> {
        if value.len() > LENGTH as usize || key.len() > LENGTH as usize {
            return Err(StateError::OutOfMemory(format!(
                "a value of {} bytes is too large",
                value.len()
            )));
        }
        let record = self.arena.alloc(HEADER + key.len() + value.len())?;
        let bytes = self.arena.get_mut(record);
        bytes[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&(value.len() as u32 | flags).to_le_bytes());
        bytes[8..12].copy_from_slice(&mark.to_le_bytes());
        bytes[HEADER..HEADER + key.len()].copy_from_slice(key);
        bytes[HEADER + key.len()..HEADER + key.len() + value.len()].copy_from_slice(value);
        Ok(record)
    }

    fn remove(&mut self, record: Ref, hash: u32) {
        let found = self.index.find_entry(spread(hash), |s| s.record == record);
        found.expect("an indexed record").remove();
        self.changes.removed(self.header(record).mark, record);
        self.arena.free(record);
    }

    fn mark(&mut self, record: Ref) {
        let header = self.header(record);
        let mark = self.changes.mark(header.mark, record);
        if mark != header.mark {
            self.changed_bytes += header.key_length + header.value_length;
            self.arena.get_mut(record)[8..12].copy_from_slice(&mark.to_le_bytes());
        }
    }

    fn find(&self, hash: u32, key: &[u8]) -> Option<Ref> {
        let slot = self.index.find(spread(hash), |s| {
            s.hash == hash && self.key(s.record) == key
        });
        slot.map(|s| s.record)
    }

    fn key(&self, record: Ref) -> &[u8] {
        let bytes = self.arena.get(record);
        &bytes[HEADER..HEADER + word(bytes, 0) as usize]
    }

    fn known_at(&self, record: Ref) -> Known<'_> {
        let bytes = self.arena.get(record);
        let (start, value) = (HEADER + word(bytes, 0) as usize, word(bytes, 4));
        if value & TOMBSTONE != 0 {
            Known::Deleted
        } else {
            Known::Value(&bytes[start..start + (value & LENGTH) as usize])
        }
    }

    fn header(&self, record: Ref) -> Header {
        let bytes = self.arena.get(record);
        let value = word(bytes, 4);
        Header {
            key_length: word(bytes, 0) as usize,
            value_length: (value & LENGTH) as usize,
            flags: value & !LENGTH,
            mark: word(bytes, 8),
        }
    }

    fn set_value_word(&mut self, record: Ref, value: u32) {
        self.arena.get_mut(record)[4..8].copy_from_slice(&value.to_le_bytes());
    }

    /// Moves records out of pages that are mostly garbage and reports the memory in use.
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
        let hash = short_hash(hash_key(self.key(record)));
        let mark = self.header(record).mark;
        let new = self.arena.evacuate(record)?;
        let slot = self.index.find_mut(spread(hash), |s| s.record == record);
        slot.expect("an indexed record").record = new;
        self.changes.moved(mark, record, new);
        Ok(())
    }

    /// From now on the store below may know cells which this table does not.
    pub fn begin_below(&mut self) {
        self.below_is_empty = false;
    }

    /// Takes cells that completed checkpoints hold, and others where it is told to, those not written lately first. They
    /// stay until [`ValueTable::spilled`].
    pub fn sweep(&mut self, swept: &mut Swept) -> Result<(), StateError> {
        self.hand.start();
        while !swept.is_full() {
            let arena = &self.arena;
            let Some(page) = self.hand.next(|last| arena.next_full_page(last)) else {
                break;
            };
            for record in self.arena.records(page) {
                self.sweep_record(record, swept)?;
            }
        }
        Ok(())
    }

    fn sweep_record(&mut self, record: Ref, swept: &mut Swept) -> Result<(), StateError> {
        let header = self.header(record);
        let listed = self.changes.listed(header.mark, record);
        if listed == Some(Listed::Spilling) || (listed.is_some() && !swept.through) {
            return Ok(());
        }
        if header.flags & HOT != 0 {
            let word = word(self.arena.get(record), 4);
            self.set_value_word(record, word & !HOT);
            return Ok(());
        }
        let key = self.key(record);
        let (group, value) = (key_group(hash_key(key)), self.known_at(record).value());
        swept.cells.push_in_group(group, key, &[], value);
        if listed == Some(Listed::Active) {
            swept.unsealed.push_in_group(group, key, &[], None);
        }
        swept.bytes += self.arena.get(record).len() + size_of::<Slot>() + 1;
        let mark = self.changes.mark_spilling(header.mark, record)?;
        self.arena.get_mut(record)[8..12].copy_from_slice(&mark.to_le_bytes());
        Ok(())
    }

    /// What the last sweep took is in the store below: it goes from here, unless it has changed since.
    pub fn spilled(&mut self) -> Result<(), StateError> {
        for record in self.changes.spilled() {
            self.forget(record);
        }
        if self.index.len() * 4 < self.index.capacity() {
            let capacity = self.index.len() * 2;
            self.index.shrink_to(capacity, |s| spread(s.hash));
        }
        self.settle()
    }

    fn forget(&mut self, record: Ref) {
        match self.header(record).flags & TOMBSTONE {
            0 => self.cells -= 1,
            _ => self.tombstones -= 1,
        }
        let hash = short_hash(hash_key(self.key(record)));
        self.remove(record, hash);
    }

    /// Visits every cell that is known, tombstones as `None`.
    pub fn visit_known(
        &self,
        visit: &mut dyn FnMut(KeyGroup, &[u8], Option<&[u8]>) -> ControlFlow<()>,
    ) {
        for slot in &self.index {
            let key = self.key(slot.record);
            let value = self.known_at(slot.record).value();
            if visit(key_group(hash_key(key)), key, value).is_break() {
                return;
            }
        }
    }

    /// Adds a cell that the store below (or a restored checkpoint) has, so that it is no change.
    pub fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StateError> {
        let hash = short_hash(hash_key(key));
        if let Some(record) = self.find(hash, key) {
            self.forget(record);
        }
        if let Some(value) = value {
            self.insert(hash, key, value, 0)?;
            self.cells += 1;
        }
        Ok(())
    }
}

struct Header {
    key_length: usize,
    value_length: usize,
    flags: u32,
    mark: Mark,
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

impl Table for ValueTable {
    fn get_many(
        &self,
        cells: &[Cell<'_>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), StateError> {
        self.known_many(cells, &mut |i, known| match known {
            Known::Value(value) => visit(i, Some(value)),
            Known::Deleted | Known::Nothing => visit(i, None),
        });
        Ok(())
    }

    fn write_many(&mut self, changes: &[Change<'_>]) -> Result<(), StateError> {
        for changes in changes.chunks(LOOKAHEAD) {
            let hashes = self.warm(changes);
            for (change, hash) in changes.iter().zip(hashes) {
                debug_assert!(change.cell.sub.is_empty(), "a value table has no sub-keys");
                self.put(hash, change.cell.key, change.value)?;
            }
        }
        self.settle()
    }

    fn scan(
        &self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        _reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        if let (true, Known::Value(value)) = (super::within(&[], bounds), self.known(key)) {
            let _ = visit(&[], value);
        }
        Ok(())
    }

    fn scan_many(
        &self,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, &[u8], &[u8]),
    ) -> Result<(), StateError> {
        for (i, key) in keys.iter().enumerate() {
            if let Known::Value(value) = self.known(key) {
                visit(i, &[], value);
            }
        }
        Ok(())
    }

    fn scan_all(
        &self,
        visit: &mut dyn FnMut(KeyGroup, &[u8], &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.visit_known(&mut |group, key, value| match value {
            Some(value) => visit(group, key, &[], value),
            None => ControlFlow::Continue(()),
        });
        Ok(())
    }

    fn seal(&mut self, checkpoint: CheckpointId) -> Result<Option<Run>, StateError> {
        let records: Vec<Ref> = self.changes.active().collect();
        let mut builder = RunBuilder::new(self.id, false, records.len());
        for records in records.chunks(LOOKAHEAD) {
            // They lie all over memory: the loads of a few records overlap.
            for record in records {
                std::hint::black_box(self.arena.get(*record).first());
            }
            for record in records {
                let key = self.key(*record);
                let value = self.known_at(*record).value();
                builder.push_in_group(key_group(hash_key(key)), key, &[], value);
                let value = word(self.arena.get(*record), 4);
                if value & FRESH != 0 {
                    self.set_value_word(*record, value & !FRESH);
                }
            }
        }
        self.changes.seal(checkpoint)?;
        self.changed_bytes = 0;
        self.memory.set(self.memory_bytes());
        Ok(builder.finish_lazily())
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), StateError> {
        let records = self.changes.completed(checkpoint);
        if self.tombstones > 0 && self.below_is_empty {
            for record in records {
                if self.header(record).flags & TOMBSTONE != 0 {
                    self.forget(record);
                }
            }
        }
        self.settle()
    }

    fn aborted(&mut self, checkpoint: CheckpointId) {
        for record in self.changes.aborted(checkpoint) {
            self.mark(record);
        }
    }

    fn restore(&mut self, run: &Run) -> Result<(), StateError> {
        self.index.reserve(run.len(), |s| spread(s.hash));
        for entry in run.iter() {
            self.load(entry.key, entry.value)?;
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

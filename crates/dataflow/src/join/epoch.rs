//! What an epoch changed: for each row and each key that it touched, the counters before and after.
//!
//! The state tables hold the newest counters; what a barrier has to retract follows from those at the epoch's start,
//! which are kept here from the first touch on. Nothing of this outlives the barrier.

use super::side::hash_row;
use super::store::Weight;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tidegate_types::ByteRows;

/// The touched rows of a preserved side.
#[derive(Default)]
pub(super) struct RowLog {
    table: HashTable<u32>,
    hashes: Vec<u64>,
    keys: ByteRows,
    rests: ByteRows,
    /// Before the epoch, and now.
    weights: Vec<(Weight, Weight)>,
}

impl RowLog {
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    pub fn key(&self, index: usize) -> &[u8] {
        self.keys.get(index)
    }

    pub fn rest(&self, index: usize) -> &[u8] {
        self.rests.get(index)
    }

    pub fn weights(&self, index: usize) -> (Weight, Weight) {
        self.weights[index]
    }

    pub fn touch(&mut self, key_hash: u64, key: &[u8], rest: &[u8], before: Weight, after: Weight) {
        let hash = hash_row(key_hash, rest);
        let Self {
            table,
            hashes,
            keys,
            rests,
            weights,
        } = self;
        let same = |other: &u32| {
            let other = *other as usize;
            hashes[other] == hash && keys.get(other) == key && rests.get(other) == rest
        };
        match table.entry(hash, same, |other| hashes[*other as usize]) {
            Entry::Occupied(entry) => weights[*entry.get() as usize].1 = after,
            Entry::Vacant(entry) => {
                entry.insert(weights.len() as u32);
                hashes.push(hash);
                keys.push(key);
                rests.push(rest);
                weights.push((before, after));
            }
        }
    }

    /// The weights of a row before and now, if it was touched.
    pub fn find(&self, key_hash: u64, key: &[u8], rest: &[u8]) -> Option<(Weight, Weight)> {
        let hash = hash_row(key_hash, rest);
        let same = |other: &u32| {
            let other = *other as usize;
            self.hashes[other] == hash
                && self.keys.get(other) == key
                && self.rests.get(other) == rest
        };
        self.table
            .find(hash, same)
            .map(|index| self.weights[*index as usize])
    }
}

/// The touched keys of a side, with the number of rows that each had before the epoch and has now.
#[derive(Default)]
pub(super) struct KeyLog {
    table: HashTable<u32>,
    hashes: Vec<u64>,
    keys: ByteRows,
    counts: Vec<(i64, i64)>,
}

impl KeyLog {
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub fn key(&self, index: usize) -> &[u8] {
        self.keys.get(index)
    }

    pub fn key_hash(&self, index: usize) -> u64 {
        self.hashes[index]
    }

    pub fn counts(&self, index: usize) -> (i64, i64) {
        self.counts[index]
    }

    pub fn touch(&mut self, hash: u64, key: &[u8], before: i64, after: i64) {
        let Self {
            table,
            hashes,
            keys,
            counts,
        } = self;
        let same =
            |other: &u32| hashes[*other as usize] == hash && keys.get(*other as usize) == key;
        match table.entry(hash, same, |other| hashes[*other as usize]) {
            Entry::Occupied(entry) => counts[*entry.get() as usize].1 = after,
            Entry::Vacant(entry) => {
                entry.insert(counts.len() as u32);
                hashes.push(hash);
                keys.push(key);
                counts.push((before, after));
            }
        }
    }

    pub fn find(&self, hash: u64, key: &[u8]) -> Option<(i64, i64)> {
        let same = |other: &u32| {
            self.hashes[*other as usize] == hash && self.keys.get(*other as usize) == key
        };
        self.table
            .find(hash, same)
            .map(|index| self.counts[*index as usize])
    }
}

//! A run: an immutable, sorted piece of a state table.
//!
//! Entries are ordered by (group, key, sub-key), each at most once. In a [`Merge::Replace`](crate::Merge) table a
//! missing value is a tombstone; in a [`Merge::Sum`](crate::Merge) table every value is a count.
//!
//! A run that a seal answers may be put in order only when it is first read, by whoever encodes it: the worker, which has
//! to go on, then only collects what changed. One whose entries are not in memory is read in pieces of bounded size
//! ([`Run::pieces`]); asked for its entries it brings them all to memory.

use crate::order::sorted_indices;
use crate::table::StateError;
use parking_lot::Mutex;
use std::fmt;
use std::sync::{Arc, OnceLock};
use tidegate_types::{ByteRows, KEY_GROUPS, KeyGroup, TableId, hash_key, key_group};

/// From so many entries on a run is sorted key group by key group.
const PARTED_FROM: usize = if cfg!(test) { 1 << 10 } else { 1 << 16 };

/// Cloning a run shares its entries.
#[derive(Clone)]
pub struct Run {
    pub table: TableId,
    entries: Arc<Lazy>,
    stored: Option<Arc<dyn StoredRun>>,
}

/// A run whose entries are on disk.
pub trait StoredRun: Send + Sync {
    /// Runs in memory that follow each other in order.
    fn pieces(&self) -> Box<dyn Iterator<Item = Result<Run, StateError>> + '_>;
}

/// Entries, or what makes them.
struct Lazy {
    make: Mutex<Option<Box<dyn FnOnce() -> Entries + Send>>>,
    made: OnceLock<Entries>,
    /// How many entries there are, when that is known before they are made.
    len: Option<usize>,
}

#[derive(Debug)]
struct Entries {
    /// Of each entry, in order.
    groups: Vec<KeyGroup>,
    /// Where each entry stands in the columns below, when not in order: bytes are not moved to sort them.
    places: Option<Vec<u32>>,
    keys: ByteRows,
    /// Empty when the table is of value form.
    subs: Option<ByteRows>,
    values: ByteRows,
    /// One per entry: whether it has a value (else it is a tombstone). `None`: all have.
    present: Option<Vec<bool>>,
}

impl Entries {
    fn with_capacity(map_form: bool, capacity: usize) -> Self {
        Self {
            groups: Vec::with_capacity(capacity),
            places: None,
            keys: ByteRows::with_capacity(capacity, 0),
            subs: map_form.then(|| ByteRows::with_capacity(capacity, 0)),
            values: ByteRows::with_capacity(capacity, 0),
            present: None,
        }
    }

    fn len(&self) -> usize {
        self.groups.len()
    }

    /// Puts entries in order behind these, which are in order and before them. Their bytes stay where they are.
    fn append(&mut self, other: Self) {
        let before = self.keys.len();
        let shifted = |place: u32| before as u32 + place;
        let ordered = self.len() as u32;
        let places = self.places.get_or_insert_with(|| (0..ordered).collect());
        match &other.places {
            Some(others) => places.extend(others.iter().copied().map(shifted)),
            None => places.extend((0..other.keys.len() as u32).map(shifted)),
        }
        if self.present.is_some() || other.present.is_some() {
            let present = self.present.get_or_insert_with(|| vec![true; before]);
            match other.present {
                Some(others) => present.extend(others),
                None => present.resize(before + other.keys.len(), true),
            }
        }
        self.groups.extend(other.groups);
        self.keys.append(other.keys);
        if let (Some(subs), Some(others)) = (&mut self.subs, other.subs) {
            subs.append(others);
        }
        self.values.append(other.values);
    }

    fn entry(&self, index: usize) -> RunEntry<'_> {
        let place = self.places.as_ref().map_or(index, |p| p[index] as usize);
        let present = self.present.as_ref().is_none_or(|p| p[place]);
        RunEntry {
            group: self.groups[index],
            key: self.keys.get(place),
            sub: self.subs.as_ref().map_or(&[], |s| s.get(place)),
            value: present.then(|| self.values.get(place)),
        }
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.subs.is_some() == other.subs.is_some()
            && (0..self.len()).all(|i| self.entry(i) == other.entry(i))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunEntry<'a> {
    pub group: KeyGroup,
    pub key: &'a [u8],
    pub sub: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table && self.entries() == other.entries()
    }
}

impl Eq for Run {}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut run = f.debug_struct("Run");
        run.field("table", &self.table)
            .field("entries", &self.entries.made.get());
        run.finish()
    }
}

impl Run {
    /// A run whose entries are collected and sorted when it is first read. It may turn out to be empty.
    pub fn lazily(table: TableId, collect: impl FnOnce() -> RunBuilder + Send + 'static) -> Self {
        Self::make_later(table, None, move || collect().into_sorted())
    }

    /// A run that is fetched when it is first read. A failure then is the failure of who reads it: a panic, that stops a
    /// worker, which starts anew.
    pub fn later(
        table: TableId,
        fetch: impl FnOnce() -> Result<Option<Self>, String> + Send + 'static,
    ) -> Self {
        Self::make_later(table, None, move || {
            let fetched = fetch().unwrap_or_else(|e| std::panic::panic_any(e));
            fetched.map_or_else(|| Entries::with_capacity(false, 0), Self::into_entries)
        })
    }

    /// Its entries, which are copied only where somebody else has them too.
    fn into_entries(self) -> Entries {
        // Whoever fetched it may have left it to be put in order.
        self.entries();
        let (table, map_form) = (self.table, self.has_sub_keys());
        match Arc::try_unwrap(self.entries).map(|lazy| lazy.made.into_inner()) {
            Ok(Some(entries)) => entries,
            Ok(None) => Entries::with_capacity(map_form, 0),
            Err(shared) => {
                let entries = shared.made.get().expect("they were just made");
                let mut all = RunBuilder::new(table, map_form, entries.len());
                for e in (0..entries.len()).map(|i| entries.entry(i)) {
                    all.push_in_group(e.group, e.key, e.sub, e.value);
                }
                all.entries
            }
        }
    }

    fn make_later(
        table: TableId,
        len: Option<usize>,
        make: impl FnOnce() -> Entries + Send + 'static,
    ) -> Self {
        let entries = Lazy {
            make: Mutex::new(Some(Box::new(make))),
            made: OnceLock::new(),
            len,
        };
        Self {
            table,
            entries: Arc::new(entries),
            stored: None,
        }
    }

    /// A run whose entries are on disk. It may turn out to be empty.
    pub fn stored(table: TableId, map_form: bool, stored: Arc<dyn StoredRun>) -> Self {
        let source = stored.clone();
        let collect = move || {
            let mut all = RunBuilder::new(table, map_form, 0);
            for piece in source.pieces() {
                let piece = piece.expect("a state table's files can be read");
                for e in piece.iter() {
                    all.push_in_group(e.group, e.key, e.sub, e.value);
                }
            }
            all
        };
        Self {
            stored: Some(stored),
            ..Self::lazily(table, collect)
        }
    }

    /// The run piece by piece, in order. Those of a run in memory are one: itself.
    pub fn pieces(&self) -> Box<dyn Iterator<Item = Result<Self, StateError>> + '_> {
        match &self.stored {
            Some(stored) => stored.pieces(),
            None => Box::new(std::iter::once(Ok(self.clone()))),
        }
    }

    fn of_entries(table: TableId, entries: Entries) -> Self {
        let len = Some(entries.len());
        let entries = Lazy {
            make: Mutex::new(None),
            made: OnceLock::from(entries),
            len,
        };
        Self {
            table,
            entries: Arc::new(entries),
            stored: None,
        }
    }

    fn entries(&self) -> &Entries {
        self.entries.made.get_or_init(|| {
            let make = self.entries.make.lock().take();
            make.expect("a run is made once, unless that panicked")()
        })
    }

    /// Of a run that is collected lazily this collects it.
    pub fn len(&self) -> usize {
        self.entries.len.unwrap_or_else(|| self.entries().len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn entry(&self, index: usize) -> RunEntry<'_> {
        self.entries().entry(index)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = RunEntry<'_>> + Clone {
        (0..self.len()).map(|i| self.entry(i))
    }

    pub fn groups(&self) -> &[KeyGroup] {
        &self.entries().groups
    }

    pub fn has_sub_keys(&self) -> bool {
        self.entries().subs.is_some()
    }

    pub fn memory_bytes(&self) -> usize {
        let entries = self.entries();
        entries.groups.capacity()
            + entries.places.as_ref().map_or(0, Vec::capacity) * size_of::<u32>()
            + entries.keys.memory_bytes()
            + entries.subs.as_ref().map_or(0, ByteRows::memory_bytes)
            + entries.values.memory_bytes()
            + entries.present.as_ref().map_or(0, Vec::capacity)
    }
}

/// Collects entries in any order and sorts them once. A later entry of the same cell wins.
pub struct RunBuilder {
    table: TableId,
    entries: Entries,
    map_form: bool,
}

impl RunBuilder {
    pub fn new(table: TableId, map_form: bool, capacity: usize) -> Self {
        Self {
            table,
            entries: Entries::with_capacity(map_form, capacity),
            map_form,
        }
    }

    pub fn push(&mut self, key: &[u8], sub: &[u8], value: Option<&[u8]>) {
        self.push_in_group(key_group(hash_key(key)), key, sub, value);
    }

    /// As `push`, for a caller that knows the group already.
    pub fn push_in_group(&mut self, group: KeyGroup, key: &[u8], sub: &[u8], value: Option<&[u8]>) {
        let run = &mut self.entries;
        assert!(
            self.map_form || sub.is_empty(),
            "sub-keys need a table of map form"
        );
        run.groups.push(group);
        run.keys.push(key);
        if let Some(subs) = &mut run.subs {
            subs.push(sub);
        }
        run.values.push(value.unwrap_or(&[]));
        match (&mut run.present, value) {
            (Some(present), value) => present.push(value.is_some()),
            (None, Some(_)) => {}
            (None, None) => {
                let mut present = vec![true; run.groups.len() - 1];
                present.push(false);
                run.present = Some(present);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.entries.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.groups.is_empty()
    }

    /// The entries in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = RunEntry<'_>> + Clone {
        (0..self.len()).map(|i| self.entries.entry(i))
    }

    /// The run, sorted, each cell once; `None` when there is no entry.
    pub fn finish(self) -> Option<Run> {
        let table = self.table;
        (!self.is_empty()).then(|| Run::of_entries(table, self.into_sorted()))
    }

    /// As `finish`, but sorted when it is first read. Each cell must have been pushed once.
    pub fn finish_lazily(self) -> Option<Run> {
        let (table, len) = (self.table, self.len());
        (len > 0).then(|| Run::make_later(table, Some(len), move || self.into_sorted_cells(true)))
    }

    fn into_sorted(self) -> Entries {
        self.into_sorted_cells(false)
    }

    /// `once`: no cell was pushed twice, so that none has to be looked for.
    fn into_sorted_cells(self, once: bool) -> Entries {
        if (1..self.len()).all(|i| self.cell(i - 1) < self.cell(i)) {
            self.entries
        } else if self.len() < PARTED_FROM {
            self.into_places(once)
        } else {
            self.into_parts(once)
        }
    }

    fn cell(&self, index: usize) -> (KeyGroup, &[u8], &[u8]) {
        let e = self.entries.entry(index);
        (e.group, e.key, e.sub)
    }

    /// Sorts where the entries are, and leaves them there.
    fn into_places(self, once: bool) -> Entries {
        let entries = &self.entries;
        let leading = |i: usize| (entries.groups[i], entries.keys.get(i));
        let mut places =
            sorted_indices(self.len(), leading, |a, b| self.cell(a).cmp(&self.cell(b)));
        if !once {
            keep_last(&mut places, |i| self.cell(i));
        }
        let groups = places.iter().map(|p| entries.groups[*p as usize]).collect();
        Entries {
            groups,
            places: Some(places),
            ..self.entries
        }
    }

    /// Brings each key group together, and sorts one after the other: what a group has fits into a cache, where all entries
    /// do not, and following a sorted order through memory waits for every one.
    fn into_parts(self, once: bool) -> Entries {
        let mut counts = [0; KEY_GROUPS];
        self.entries
            .groups
            .iter()
            .for_each(|g| counts[*g as usize] += 1);
        let mut parts: Vec<Self> = counts
            .iter()
            .map(|count| Self::new(self.table, self.map_form, *count))
            .collect();
        for e in self.iter() {
            parts[e.group as usize].push_in_group(e.group, e.key, e.sub, e.value);
        }
        let mut sorted = Entries::with_capacity(self.map_form, self.len());
        drop(self);
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            sorted.append(part.into_places(once));
        }
        sorted
    }
}

/// Leaves of equal cells the last: where each is followed by another cell.
fn keep_last<C: PartialEq>(places: &mut Vec<u32>, cell: impl Fn(usize) -> C) {
    let mut kept = 0;
    for n in 0..places.len() {
        let next = places.get(n + 1);
        if next.is_none_or(|next| cell(*next as usize) != cell(places[n] as usize)) {
            places[kept] = places[n];
            kept += 1;
        }
    }
    places.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whichever way they are sorted, with and without cells that were pushed twice.
    #[test]
    fn many_entries_are_sorted_like_few() {
        for (count, distinct) in [(500u64, 500u64), (500, 70), (5_000, 5_000), (5_000, 700)] {
            let mut builder = RunBuilder::new(TableId(1), true, 0);
            let mut expected = std::collections::BTreeMap::new();
            for i in 0..count {
                let key = hash_key(&(i % distinct).to_le_bytes()).to_be_bytes();
                let (group, sub) = (key[7] % 5, [key[3] % 3]);
                let value = (i % 7 != 0).then(|| i.to_le_bytes().to_vec());
                builder.push_in_group(group, &key[..4], &sub, value.as_deref());
                expected.insert((group, key[..4].to_vec(), sub.to_vec()), value);
            }
            let run = if distinct == count {
                builder.finish_lazily()
            } else {
                builder.finish()
            };
            let run = run.expect("not empty");
            let found = run.iter().map(|e| {
                let value = e.value.map(<[u8]>::to_vec);
                ((e.group, e.key.to_vec(), e.sub.to_vec()), value)
            });
            assert!(found.eq(expected), "{count} entries, {distinct} cells");
        }
    }

    #[test]
    fn entries_are_sorted_and_the_last_of_a_cell_wins() {
        let mut builder = RunBuilder::new(TableId(1), true, 4);
        builder.push_in_group(2, b"k", b"b", Some(b"1"));
        builder.push_in_group(1, b"z", b"", Some(b"2"));
        builder.push_in_group(2, b"k", b"a", Some(b"3"));
        builder.push_in_group(2, b"k", b"b", None);
        let run = builder.finish().expect("not empty");
        let seen: Vec<_> = run
            .iter()
            .map(|e| (e.group, e.key, e.sub, e.value))
            .collect();
        let expected: Vec<(u8, &[u8], &[u8], Option<&[u8]>)> = vec![
            (1, b"z", b"", Some(b"2")),
            (2, b"k", b"a", Some(b"3")),
            (2, b"k", b"b", None),
        ];
        assert_eq!(seen, expected);
    }
}

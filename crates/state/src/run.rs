//! A run: an immutable, sorted piece of a state table.
//!
//! Entries are ordered by (key group, key, sub-key), each at most once. In a [`Merge::Replace`](crate::Merge) table a
//! missing value is a tombstone; in a [`Merge::Sum`](crate::Merge) table every value is a count.

use crate::order::sorted_indices;
use std::sync::Arc;
use tidegate_types::{ByteRows, KeyGroup, TableId, hash_key, key_group};

/// Cloning a run shares its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub table: TableId,
    entries: Arc<Entries>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entries {
    groups: Vec<KeyGroup>,
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
            keys: ByteRows::with_capacity(capacity, 0),
            subs: map_form.then(|| ByteRows::with_capacity(capacity, 0)),
            values: ByteRows::with_capacity(capacity, 0),
            present: None,
        }
    }

    fn entry(&self, index: usize) -> RunEntry<'_> {
        let present = self.present.as_ref().is_none_or(|p| p[index]);
        RunEntry {
            group: self.groups[index],
            key: self.keys.get(index),
            sub: self.subs.as_ref().map_or(&[], |s| s.get(index)),
            value: present.then(|| self.values.get(index)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunEntry<'a> {
    pub group: KeyGroup,
    pub key: &'a [u8],
    pub sub: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl Run {
    pub fn len(&self) -> usize {
        self.entries.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.groups.is_empty()
    }

    pub fn entry(&self, index: usize) -> RunEntry<'_> {
        self.entries.entry(index)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = RunEntry<'_>> {
        (0..self.len()).map(|i| self.entry(i))
    }

    pub fn groups(&self) -> &[KeyGroup] {
        &self.entries.groups
    }

    pub fn has_sub_keys(&self) -> bool {
        self.entries.subs.is_some()
    }

    pub fn memory_bytes(&self) -> usize {
        let entries = &self.entries;
        entries.groups.capacity()
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

    /// The run, sorted, each cell once; `None` when there is no entry.
    pub fn finish(self) -> Option<Run> {
        if self.is_empty() {
            return None;
        }
        let entries = &self.entries;
        let cell = |i: usize| {
            let e = entries.entry(i);
            (e.group, e.key, e.sub)
        };
        if (1..self.len()).all(|i| cell(i - 1) < cell(i)) {
            return Some(Run {
                table: self.table,
                entries: Arc::new(self.entries),
            });
        }
        let leading = |i: usize| (entries.groups[i], entries.keys.get(i));
        let indices = sorted_indices(self.len(), leading, |a, b| cell(a).cmp(&cell(b)));
        let mut sorted = RunBuilder::new(self.table, self.map_form, self.len());
        for (n, index) in indices.iter().enumerate() {
            let index = *index as usize;
            let last_of_cell = indices
                .get(n + 1)
                .is_none_or(|next| cell(*next as usize) != cell(index));
            if last_of_cell {
                let e = entries.entry(index);
                sorted.push_in_group(e.group, e.key, e.sub, e.value);
            }
        }
        Some(Run {
            table: self.table,
            entries: Arc::new(sorted.entries),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! A run: an immutable, sorted piece of a state table.
//!
//! Entries are ordered by (key group, key, sub-key), each at most once. In a [`Merge::Replace`](crate::Merge) table a
//! missing value is a tombstone; in a [`Merge::Sum`](crate::Merge) table every value is a count.

use tidegate_types::{ByteRows, KeyGroup, TableId, hash_key, key_group};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub table: TableId,
    groups: Vec<KeyGroup>,
    keys: ByteRows,
    /// Empty when the table is of value form.
    subs: Option<ByteRows>,
    values: ByteRows,
    /// One per entry: whether it has a value (else it is a tombstone). `None`: all have.
    present: Option<Vec<bool>>,
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
        self.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn entry(&self, index: usize) -> RunEntry<'_> {
        let present = self.present.as_ref().is_none_or(|p| p[index]);
        RunEntry {
            group: self.groups[index],
            key: self.keys.get(index),
            sub: self.subs.as_ref().map_or(&[], |s| s.get(index)),
            value: present.then(|| self.values.get(index)),
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = RunEntry<'_>> {
        (0..self.len()).map(|i| self.entry(i))
    }

    pub fn groups(&self) -> &[KeyGroup] {
        &self.groups
    }

    pub fn has_sub_keys(&self) -> bool {
        self.subs.is_some()
    }

    pub fn memory_bytes(&self) -> usize {
        self.groups.capacity()
            + self.keys.memory_bytes()
            + self.subs.as_ref().map_or(0, ByteRows::memory_bytes)
            + self.values.memory_bytes()
            + self.present.as_ref().map_or(0, Vec::capacity)
    }
}

/// Collects entries in any order and sorts them once. A later entry of the same cell wins.
pub struct RunBuilder {
    run: Run,
    map_form: bool,
}

impl RunBuilder {
    pub fn new(table: TableId, map_form: bool, capacity: usize) -> Self {
        Self {
            run: Run {
                table,
                groups: Vec::with_capacity(capacity),
                keys: ByteRows::with_capacity(capacity, 0),
                subs: map_form.then(|| ByteRows::with_capacity(capacity, 0)),
                values: ByteRows::with_capacity(capacity, 0),
                present: None,
            },
            map_form,
        }
    }

    pub fn push(&mut self, key: &[u8], sub: &[u8], value: Option<&[u8]>) {
        self.push_in_group(key_group(hash_key(key)), key, sub, value);
    }

    /// As `push`, for a caller that knows the group already.
    pub fn push_in_group(&mut self, group: KeyGroup, key: &[u8], sub: &[u8], value: Option<&[u8]>) {
        let run = &mut self.run;
        assert!(self.map_form || sub.is_empty(), "sub-keys need a table of map form");
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
        self.run.len()
    }

    pub fn is_empty(&self) -> bool {
        self.run.is_empty()
    }

    /// The run, sorted, each cell once; `None` when there is no entry.
    pub fn finish(self) -> Option<Run> {
        let run = self.run;
        if run.is_empty() {
            return None;
        }
        let order = |i: usize| {
            let e = run.entry(i);
            (e.group, e.key, e.sub)
        };
        let sorted = (1..run.len()).all(|i| order(i - 1) < order(i));
        if sorted {
            return Some(run);
        }
        let mut indices: Vec<u32> = (0..run.len() as u32).collect();
        indices.sort_by(|a, b| order(*a as usize).cmp(&order(*b as usize)));
        let mut builder = RunBuilder::new(run.table, self.map_form, run.len());
        for (n, index) in indices.iter().enumerate() {
            let last_of_cell = indices
                .get(n + 1)
                .is_none_or(|next| order(*next as usize) != order(*index as usize));
            if last_of_cell {
                let e = run.entry(*index as usize);
                builder.push_in_group(e.group, e.key, e.sub, e.value);
            }
        }
        Some(builder.run)
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
        let seen: Vec<_> = run.iter().map(|e| (e.group, e.key, e.sub, e.value)).collect();
        let expected: Vec<(u8, &[u8], &[u8], Option<&[u8]>)> =
            vec![(1, b"z", b"", Some(b"2")), (2, b"k", b"a", Some(b"3")), (2, b"k", b"b", None)];
        assert_eq!(seen, expected);
    }
}

//! An epoch's changes to multisets: (group, bytes) → diff, consolidated as they arrive.
//!
//! Groups are dense numbers that the operator gives its keys for the epoch; bytes are encoded rows or values. The entries of
//! a group can be read in the order of their bytes once [`KeyCounts::sort`] has run.

use hashbrown::HashTable;
use std::ops::Range;
use tidegate_types::{ByteRows, Diff, hash_key};

#[derive(Default)]
pub struct KeyCounts {
    /// Rows are expected to differ: equal ones are found when they are sorted rather than looked for as they arrive.
    mostly_distinct: bool,
    table: HashTable<(u64, u32)>,
    groups: Vec<u32>,
    bytes: ByteRows,
    diffs: Vec<Diff>,
    /// Entries by (group, bytes), and where each group's begin; filled by `sort`.
    order: Vec<u32>,
    starts: Vec<u32>,
}

impl KeyCounts {
    /// For entries of which few are equal, such as whole rows.
    pub fn mostly_distinct() -> Self {
        Self {
            mostly_distinct: true,
            ..Self::default()
        }
    }

    pub fn add(&mut self, group: u32, bytes: &[u8], diff: Diff) {
        if self.mostly_distinct {
            self.push(group, bytes, diff);
            return;
        }
        let hash = hash_key(bytes) ^ u64::from(group).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (groups, rows) = (&self.groups, &self.bytes);
        let same = |&(h, i): &(u64, u32)| {
            h == hash && groups[i as usize] == group && rows.get(i as usize) == bytes
        };
        if let Some(&(_, index)) = self.table.find(hash, same) {
            self.diffs[index as usize] += diff;
            return;
        }
        let index = self.push(group, bytes, diff);
        self.table.insert_unique(hash, (hash, index), |&(h, _)| h);
    }

    fn push(&mut self, group: u32, bytes: &[u8], diff: Diff) -> u32 {
        let index = u32::try_from(self.diffs.len()).expect("an epoch has fewer than 2^32 changes");
        self.groups.push(group);
        self.bytes.push(bytes);
        self.diffs.push(diff);
        index
    }

    /// Sorts the entries; `groups` is how many groups there are. Nothing may be added before the next `clear`.
    pub fn sort(&mut self, groups: usize) {
        let mut starts = vec![0u32; groups + 1];
        for group in &self.groups {
            starts[*group as usize + 1] += 1;
        }
        for index in 0..groups {
            starts[index + 1] += starts[index];
        }
        let mut next = starts.clone();
        let mut order = vec![0u32; self.groups.len()];
        for (entry, group) in self.groups.iter().enumerate() {
            let slot = &mut next[*group as usize];
            order[*slot as usize] = entry as u32;
            *slot += 1;
        }
        for window in starts.windows(2) {
            let of_group = &mut order[window[0] as usize..window[1] as usize];
            if of_group.len() > 1 {
                of_group.sort_unstable_by(|a, b| {
                    self.bytes.get(*a as usize).cmp(self.bytes.get(*b as usize))
                });
            }
        }
        (self.order, self.starts) = (order, starts);
        if self.mostly_distinct {
            self.consolidate();
        }
    }

    /// Adds up neighbours that are equal.
    fn consolidate(&mut self) {
        let mut kept = 0;
        for group in 0..self.starts.len() - 1 {
            let span = self.starts[group] as usize..self.starts[group + 1] as usize;
            self.starts[group] = kept as u32;
            let first = kept;
            for position in span {
                let entry = self.order[position] as usize;
                if kept > first {
                    let last = self.order[kept - 1] as usize;
                    if self.bytes.get(last) == self.bytes.get(entry) {
                        self.diffs[last] += self.diffs[entry];
                        continue;
                    }
                }
                self.order[kept] = entry as u32;
                kept += 1;
            }
        }
        let groups = self.starts.len() - 1;
        self.starts[groups] = kept as u32;
        self.order.truncate(kept);
    }

    /// Positions in sorted order of the entries of these groups.
    pub fn span(&self, groups: Range<usize>) -> Range<usize> {
        self.starts[groups.start] as usize..self.starts[groups.end] as usize
    }

    /// The entry at a position in sorted order.
    pub fn entry(&self, position: usize) -> (u32, &[u8], Diff) {
        let index = self.order[position] as usize;
        (self.groups[index], self.bytes.get(index), self.diffs[index])
    }

    pub fn clear(&mut self) {
        self.table.clear();
        self.groups.clear();
        self.bytes.clear();
        self.diffs.clear();
        self.order.clear();
        self.starts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_are_found_when_sorted() {
        let mut counts = KeyCounts::mostly_distinct();
        for (group, bytes, diff) in [
            (2, b"b", 1),
            (0, b"z", 1),
            (2, b"a", 2),
            (2, b"b", -1),
            (0, b"z", 4),
        ] {
            counts.add(group, bytes, diff);
        }
        counts.sort(3);
        let all: Vec<_> = counts.span(0..3).map(|p| counts.entry(p)).collect();
        assert_eq!(
            all,
            [(0, &b"z"[..], 5), (2, &b"a"[..], 2), (2, &b"b"[..], 0)]
        );
        assert_eq!(counts.span(2..3), 1..3);
        assert!(counts.span(1..2).is_empty());
    }

    #[test]
    fn entries_are_consolidated_and_sorted_within_their_group() {
        let mut counts = KeyCounts::default();
        for (group, bytes, diff) in [(1, b"b", 1), (0, b"z", 1), (1, b"a", 2), (1, b"b", -3)] {
            counts.add(group, bytes, diff);
        }
        counts.sort(3);
        let all: Vec<_> = counts.span(0..3).map(|p| counts.entry(p)).collect();
        assert_eq!(
            all,
            [(0, &b"z"[..], 1), (1, &b"a"[..], 2), (1, &b"b"[..], -2)]
        );
        assert_eq!(counts.span(1..2), 1..3);
        assert!(counts.span(2..3).is_empty());
    }
}

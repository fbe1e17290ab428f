//! Sorted encoded rows with diffs, immutable: what a keyed view's layer holds.
//!
//! A row is stored as its key group followed by its encoding, so that the order of bytes is the order of
//! (key group, row). Rows lie in chunks of bounded size: no allocation grows with the view, and offsets take four bytes.
//! Chunks are shared, so that what has not been merged yet of large rows can go on without what has.

use crate::order::sorted_indices;
use crate::view::row::EncodedRows;
use std::sync::Arc;
use tidegate_types::{Diff, KeyGroup};

const CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug, Default)]
struct Chunk {
    ends: Vec<u32>,
    data: Vec<u8>,
    /// `None`: every diff is one.
    diffs: Option<Vec<Diff>>,
}

impl Chunk {
    fn row(&self, index: usize) -> &[u8] {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] as usize
        };
        &self.data[start..self.ends[index] as usize]
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn diff(&self, row: usize) -> Diff {
        self.diffs.as_ref().map_or(1, |d| d[row])
    }

    fn memory_bytes(&self) -> usize {
        self.data.len() + self.ends.len() * 4 + self.diffs.as_ref().map_or(0, |d| d.len() * 8)
    }
}

#[derive(Debug, Clone, Default)]
pub struct SortedRows {
    chunks: Vec<Arc<Chunk>>,
    /// Rows at the start of the first chunk that are not part of it.
    skipped: u32,
    len: usize,
    diff_sum: Diff,
    bytes: usize,
}

/// A place in [`SortedRows`], possibly behind the last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    chunk: u32,
    row: u32,
}

impl SortedRows {
    /// Sorts and sums the rows of some batches.
    pub fn build(batches: &[(EncodedRows, Option<Vec<Diff>>)]) -> Self {
        let count: usize = batches.iter().map(|(rows, _)| rows.groups.len()).sum();
        let mut places: Vec<(u32, u32)> = Vec::with_capacity(count);
        for (b, (rows, _)) in batches.iter().enumerate() {
            places.extend((0..rows.groups.len()).map(|r| (b as u32, r as u32)));
        }
        let leading = |i: usize| {
            let (b, r) = places[i];
            let rows = &batches[b as usize].0;
            (rows.groups[r as usize], rows.rows.row(r as usize).data())
        };
        let order = sorted_indices(count, leading, |a, b| leading(a).cmp(&leading(b)));
        let mut builder = SortedRowsBuilder::default();
        let mut next = 0;
        while next < count {
            let first = order[next] as usize;
            let mut sum = 0;
            while next < count && leading(order[next] as usize) == leading(first) {
                let (b, r) = places[order[next] as usize];
                sum += batches[b as usize].1.as_ref().map_or(1, |d| d[r as usize]);
                next += 1;
            }
            let (group, row) = leading(first);
            builder.push(&[&[group], row], sum);
        }
        builder.finish()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Distinct rows, with whatever sign.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn diff_sum(&self) -> Diff {
        self.diff_sum
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    pub fn start(&self) -> Position {
        Position {
            chunk: 0,
            row: self.skipped,
        }
    }

    /// The first row that is not less than these bytes (key group and row).
    pub fn seek(&self, target: &[u8]) -> Position {
        let chunk = self.chunks.partition_point(|c| c.row(c.len() - 1) < target);
        let row = match self.chunks.get(chunk) {
            Some(c) => partition_point(c.len(), |i| c.row(i) < target),
            None => 0,
        };
        Position {
            chunk: chunk as u32,
            row: if chunk == 0 {
                self.skipped.max(row as u32)
            } else {
                row as u32
            },
        }
    }

    /// The rows of key groups from this one on, sharing their chunks.
    pub fn from_group(&self, group: KeyGroup) -> Self {
        let at = self.seek(&[group]);
        let chunks = self.chunks[at.chunk as usize..].to_vec();
        let (mut len, mut diff_sum, mut bytes) = (0, 0, 0);
        for (i, chunk) in chunks.iter().enumerate() {
            let first = if i == 0 { at.row as usize } else { 0 };
            len += chunk.len() - first;
            diff_sum += (first..chunk.len())
                .map(|row| chunk.diff(row))
                .sum::<Diff>();
            bytes += chunk.memory_bytes();
        }
        Self {
            chunks,
            skipped: at.row,
            len,
            diff_sum,
            bytes,
        }
    }

    /// The row at a position: key group and encoding, and its diff.
    pub fn get(&self, at: Position) -> Option<(&[u8], Diff)> {
        let chunk = self.chunks.get(at.chunk as usize)?;
        let row = at.row as usize;
        Some((chunk.row(row), chunk.diff(row)))
    }

    pub fn after(&self, at: Position) -> Position {
        let rows = self.chunks[at.chunk as usize].len() as u32;
        if at.row + 1 < rows {
            Position {
                chunk: at.chunk,
                row: at.row + 1,
            }
        } else {
            Position {
                chunk: at.chunk + 1,
                row: 0,
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Diff)> {
        self.chunks.iter().enumerate().flat_map(|(i, c)| {
            let first = if i == 0 { self.skipped as usize } else { 0 };
            (first..c.len()).map(move |row| (c.row(row), c.diff(row)))
        })
    }
}

fn partition_point(length: usize, less: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, length);
    while low < high {
        let middle = low.midpoint(high);
        if less(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Takes rows in order.
#[derive(Debug, Default)]
pub struct SortedRowsBuilder {
    rows: SortedRows,
    open: Chunk,
}

impl SortedRowsBuilder {
    /// A row given in parts, the first of which starts with the key group. A diff of zero is nothing.
    pub fn push(&mut self, parts: &[&[u8]], diff: Diff) {
        if diff == 0 {
            return;
        }
        let length: usize = parts.iter().map(|p| p.len()).sum();
        if self.open.data.len() + length > CHUNK_BYTES && !self.open.ends.is_empty() {
            self.close();
        }
        assert!(
            self.open.data.len() + length <= u32::MAX as usize,
            "a row of a view is smaller than 4 GiB"
        );
        let open = &mut self.open;
        match &mut open.diffs {
            Some(diffs) => diffs.push(diff),
            None if diff == 1 => {}
            None => {
                let mut diffs = vec![1; open.ends.len()];
                diffs.push(diff);
                open.diffs = Some(diffs);
            }
        }
        for part in parts {
            open.data.extend_from_slice(part);
        }
        open.ends.push(open.data.len() as u32);
        self.rows.len += 1;
        self.rows.diff_sum += diff;
    }

    fn close(&mut self) {
        let mut chunk = std::mem::take(&mut self.open);
        chunk.ends.shrink_to_fit();
        chunk.data.shrink_to_fit();
        if let Some(diffs) = &mut chunk.diffs {
            diffs.shrink_to_fit();
        }
        self.rows.bytes += chunk.memory_bytes();
        self.rows.chunks.push(Arc::new(chunk));
    }

    /// The rows so far; more may follow.
    pub fn so_far(&mut self) -> SortedRows {
        if !self.open.ends.is_empty() {
            self.close();
        }
        self.rows.clone()
    }

    pub fn finish(mut self) -> SortedRows {
        if !self.open.ends.is_empty() {
            self.close();
        }
        self.rows
    }
}

/// The bytes of a row as they are stored.
pub fn group_and_row(group: KeyGroup, row: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + row.len());
    bytes.push(group);
    bytes.extend_from_slice(row);
    bytes
}

//! A block: some neighbouring cells of one key of a map table, sorted by sub-key, in one arena record.
//!
//! A record is `key length, bytes of cells, mark, key, cells`; a cell is `flags, length of sub-key, length of value,
//! sub-key, value`, the lengths as variable-length integers. Cells are found by walking the block, which is at most a few
//! dozen of them. What lies behind the cells is room to grow.

use super::changes::{Mark, UNMARKED};
use std::cmp::Ordering;

pub const HEADER: usize = 12;
/// A block with more bytes of cells than this is split.
pub const MAX_CELLS_BYTES: usize = 1536;

/// The cell has no value.
pub const TOMBSTONE: u8 = 1;
/// No checkpoint has seen the cell.
pub const FRESH: u8 = 2;
/// Changed since the last seal.
pub const CHANGED: u8 = 4;
/// Sealed for a checkpoint that has not completed, or has since this block was last looked at.
pub const SEALED: u8 = 8;

#[derive(Debug, Clone, Copy)]
pub struct Block<'a>(pub &'a [u8]);

/// A cell and where it lies among the bytes of cells.
#[derive(Debug, Clone, Copy)]
pub struct BlockCell<'a> {
    pub start: usize,
    pub end: usize,
    pub flags: u8,
    pub sub: &'a [u8],
    pub value: &'a [u8],
}

impl<'a> BlockCell<'a> {
    pub fn value(&self) -> Option<&'a [u8]> {
        (self.flags & TOMBSTONE == 0).then_some(self.value)
    }
}

impl<'a> Block<'a> {
    pub fn key_length(&self) -> usize {
        word(self.0, 0) as usize
    }

    pub fn key(&self) -> &'a [u8] {
        &self.0[HEADER..HEADER + self.key_length()]
    }

    pub fn mark(&self) -> Mark {
        word(self.0, 8)
    }

    pub fn cells_bytes(&self) -> usize {
        word(self.0, 4) as usize
    }

    /// Bytes of cells that the record could hold.
    pub fn capacity(&self) -> usize {
        self.0.len() - HEADER - self.key_length()
    }

    pub fn cell_bytes(&self) -> &'a [u8] {
        let start = HEADER + self.key_length();
        &self.0[start..start + self.cells_bytes()]
    }

    pub fn cells(&self) -> Cells<'a> {
        Cells::new(self.cell_bytes())
    }

    pub fn first_sub(&self) -> &'a [u8] {
        self.cells().next().expect("a block has a cell").sub
    }

    /// The cell with this sub-key, or where it would have to be.
    pub fn find(&self, sub: &[u8]) -> Result<BlockCell<'a>, usize> {
        for cell in self.cells() {
            match cell.sub.cmp(sub) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(cell),
                Ordering::Greater => return Err(cell.start),
            }
        }
        Err(self.cells_bytes())
    }
}

/// Walks encoded cells.
pub struct Cells<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cells<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = BlockCell<'a>;

    fn next(&mut self) -> Option<BlockCell<'a>> {
        let start = self.at;
        if start >= self.bytes.len() {
            return None;
        }
        let flags = self.bytes[start];
        let mut at = start + 1;
        let sub_length = read_length(self.bytes, &mut at);
        let value_length = read_length(self.bytes, &mut at);
        let sub = &self.bytes[at..at + sub_length];
        let value = &self.bytes[at + sub_length..at + sub_length + value_length];
        self.at = at + sub_length + value_length;
        Some(BlockCell {
            start,
            end: self.at,
            flags,
            sub,
            value,
        })
    }
}

/// Appends one encoded cell.
pub fn write_cell(out: &mut Vec<u8>, flags: u8, sub: &[u8], value: &[u8]) {
    out.push(flags);
    write_length(out, sub.len());
    write_length(out, value.len());
    out.extend_from_slice(sub);
    out.extend_from_slice(value);
}

/// Fills a new record.
pub fn write_block(record: &mut [u8], key: &[u8], cells: &[u8], mark: Option<Mark>) {
    record[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
    record[8..12].copy_from_slice(&mark.unwrap_or(UNMARKED).to_le_bytes());
    record[HEADER..HEADER + key.len()].copy_from_slice(key);
    record[HEADER + key.len()..HEADER + key.len() + cells.len()].copy_from_slice(cells);
    set_cells_bytes(record, cells.len());
}

pub fn set_cells_bytes(record: &mut [u8], bytes: usize) {
    record[4..8].copy_from_slice(&(bytes as u32).to_le_bytes());
}

pub fn set_mark(record: &mut [u8], mark: Mark) {
    record[8..12].copy_from_slice(&mark.to_le_bytes());
}

/// Replaces the flags of the cell that starts at `start`.
pub fn set_flags(record: &mut [u8], start: usize, flags: u8) {
    let cells = HEADER + word(record, 0) as usize;
    record[cells + start] = flags;
}

/// Replaces a part of the cells; the caller has seen that there is room.
pub fn splice(record: &mut [u8], start: usize, old: usize, new: &[u8]) {
    let cells = HEADER + word(record, 0) as usize;
    let length = word(record, 4) as usize;
    record.copy_within(
        cells + start + old..cells + length,
        cells + start + new.len(),
    );
    record[cells + start..cells + start + new.len()].copy_from_slice(new);
    set_cells_bytes(record, length - old + new.len());
}

/// Bytes where a block of cells that is too large is best cut: the start of the cell nearest to the middle, and of the
/// last one when it was just appended, so that ascending sub-keys leave full blocks behind.
pub fn cut(cells: &[u8], appended: bool) -> Option<usize> {
    let starts: Vec<usize> = Cells::new(cells).skip(1).map(|c| c.start).collect();
    if appended {
        return starts.last().copied();
    }
    starts
        .into_iter()
        .min_by_key(|s| s.abs_diff(cells.len() / 2))
}

fn read_length(bytes: &[u8], at: &mut usize) -> usize {
    let mut length = 0usize;
    let mut shift = 0;
    loop {
        let byte = bytes[*at];
        *at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return length;
        }
        shift += 7;
    }
}

fn write_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

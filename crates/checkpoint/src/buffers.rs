//! How large the pieces are in which checkpoints are encoded, merged, written and read.
//!
//! Everything here works piece by piece: what it holds at once is a number of blocks or parts, never a run. So the size of
//! these decides how much memory checkpoints take beside the state itself. A merge of [`MAX_LEVELS`] levels is what holds
//! most: of each level one block decoded and one fetched ahead.
//!
//! [`MAX_LEVELS`]: crate::merge_policy::MAX_LEVELS

use crate::run_file::BLOCK_BYTES;

/// Merging, with everything that goes on beside it, holds about so many blocks.
const BLOCKS_AT_ONCE: usize = 96;
const SMALLEST_BLOCK_BYTES: usize = 64 << 10;
const PART_BYTES: usize = 8 << 20;
const SMALLEST_PART_BYTES: usize = 256 << 10;
/// Buckets take no smaller parts.
const SMALLEST_BUCKET_PART_BYTES: usize = 5 << 20;
const KEPT_BYTES: usize = 16 << 20;

/// Sizes that are chosen together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// A block of a run ends at about so many bytes before compression.
    pub block_bytes: usize,
    /// Objects larger than this are sent in parts of this size.
    part_bytes: usize,
    /// Small objects that are kept for the next table that is read from them.
    pub kept_bytes: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            block_bytes: BLOCK_BYTES,
            part_bytes: PART_BYTES,
            kept_bytes: KEPT_BYTES,
        }
    }
}

impl Buffers {
    /// What keeps to about so many bytes. Never more than by default; below some megabytes less is not possible.
    pub fn within(limit_bytes: usize) -> Self {
        Self {
            block_bytes: (limit_bytes / BLOCKS_AT_ONCE).clamp(SMALLEST_BLOCK_BYTES, BLOCK_BYTES),
            part_bytes: (limit_bytes / 16).clamp(SMALLEST_PART_BYTES, PART_BYTES),
            kept_bytes: (limit_bytes / 8).min(KEPT_BYTES),
        }
    }

    pub(crate) fn part_bytes(&self, is_bucket: bool) -> usize {
        match is_bucket {
            true => self.part_bytes.max(SMALLEST_BUCKET_PART_BYTES),
            false => self.part_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_the_limit_between_their_bounds() {
        assert_eq!(Buffers::within(4 << 30), Buffers::default());
        let small = Buffers::within(16 << 20);
        assert!(small.block_bytes * BLOCKS_AT_ONCE <= 16 << 20);
        assert_eq!(small.part_bytes(false), 1 << 20);
        assert_eq!(small.part_bytes(true), SMALLEST_BUCKET_PART_BYTES);
        assert_eq!(Buffers::within(0).block_bytes, SMALLEST_BLOCK_BYTES);
    }
}

//! Which runs to merge: size-tiered, per table.
//!
//! Runs of one checkpoint by several workers hold different key groups: together they are one *level*, since a reader of
//! a key meets one of them. A merge takes neighbouring levels. Three rules, first one wins:
//!
//! 1. All levels, once what lies above the oldest is as large as it: then restoring reads at most about twice what is
//!    alive, and deletions disappear.
//! 2. At least [`MIN_LEVELS`] neighbours of similar size, the newest such.
//! 3. The newest ones, once there are more than [`MAX_LEVELS`].
//!
//! So the number of levels is bounded and each row is rewritten about as often as the logarithm of the table's size.

use crate::run_file::RunRef;
use std::ops::Range;

pub(crate) const MIN_LEVELS: usize = 8;
pub(crate) const MAX_LEVELS: usize = 24;
/// A level is similar to newer ones when it is at most so many times as large as all of them together.
const SIMILAR: u64 = 2;
/// Below this size levels count as similar: the cost is in the number of objects.
const SMALL_BYTES: u64 = 64 << 10;

/// The levels of a table, oldest first, as ranges of its runs.
pub(crate) fn levels(runs: &[RunRef]) -> Vec<Range<usize>> {
    let mut levels: Vec<Range<usize>> = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        match levels.last_mut() {
            Some(level) if beside(&runs[level.end - 1], run) => level.end = i + 1,
            _ => levels.push(i..i + 1),
        }
    }
    levels
}

/// Whether the second continues the first in the order of key groups.
fn beside(first: &RunRef, second: &RunRef) -> bool {
    let (Some(last), Some(next)) = (first.blocks.last(), second.blocks.first()) else {
        return false;
    };
    first.checkpoint == second.checkpoint && last.last_group < next.first_group
}

/// The levels to merge, if any.
pub(crate) fn pick(runs: &[RunRef], levels: &[Range<usize>]) -> Option<Range<usize>> {
    if levels.len() < MIN_LEVELS {
        return None;
    }
    let bytes: Vec<u64> = levels
        .iter()
        .map(|l| runs[l.clone()].iter().map(|r| r.bytes).sum())
        .collect();
    if bytes[1..].iter().sum::<u64>() >= bytes[0] {
        return Some(0..levels.len());
    }
    for end in (MIN_LEVELS..=levels.len()).rev() {
        let mut start = end - 1;
        let mut sum = bytes[start];
        while start > 0 && bytes[start - 1] <= SIMILAR * sum.max(SMALL_BYTES) {
            start -= 1;
            sum += bytes[start];
        }
        if end - start >= MIN_LEVELS {
            return Some(start..end);
        }
    }
    (levels.len() > MAX_LEVELS).then_some(MAX_LEVELS / 2..levels.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_file::BlockRef;
    use tidegate_types::CheckpointId;

    fn level(checkpoint: u64, bytes: u64, groups: Range<u8>) -> RunRef {
        let block = BlockRef {
            offset: 0,
            bytes,
            rows: 1,
            first_group: groups.start,
            last_group: groups.end - 1,
            crc32c: 0,
        };
        RunRef {
            object: format!("{checkpoint}").into(),
            index: groups.start.into(),
            rows: 1,
            tombstones: 0,
            bytes,
            checkpoint: CheckpointId(checkpoint),
            blocks: vec![block],
        }
    }

    #[test]
    fn runs_of_several_workers_are_one_level() {
        let runs: Vec<RunRef> = [
            (1, 0..128),
            (1, 128..200),
            (2, 0..128),
            (3, 128..200),
            (3, 0..128),
        ]
        .into_iter()
        .map(|(c, groups)| level(c, 10, groups))
        .collect();
        assert_eq!(levels(&runs), [0..2, 2..3, 3..4, 4..5]);
    }

    /// Simulates a table of constant size: checkpoints come, merges follow at once.
    #[test]
    fn levels_and_rewriting_stay_bounded() {
        const LIVE: u64 = 100_000_000;
        let mut runs = vec![level(0, LIVE, 0..200)];
        let (mut written, mut rewritten, mut most_bytes) = (0, 0, 0);
        for checkpoint in 1..5_000 {
            let bytes = 200_000 + checkpoint * 7_919 % 400_000;
            runs.push(level(checkpoint, bytes, 0..200));
            written += bytes;
            while let Some(window) = pick(&runs, &levels(&runs)) {
                let sum: u64 = runs[window.clone()].iter().map(|r| r.bytes).sum();
                let bytes = if window.start == 0 { LIVE } else { sum };
                rewritten += bytes;
                runs.splice(window, [level(checkpoint, bytes, 0..200)]);
            }
            assert!(levels(&runs).len() <= MAX_LEVELS);
            most_bytes = most_bytes.max(runs.iter().map(|r| r.bytes).sum::<u64>());
        }
        assert!(most_bytes <= 2 * LIVE + LIVE / 10, "{most_bytes}");
        assert!(rewritten <= 6 * written, "{rewritten} of {written}");
    }
}

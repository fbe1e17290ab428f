//! Time cut into bins of one size, in microseconds: what `TUMBLE`, `HOP` and `CUMULATE` compute, and how far a watermark on a
//! time lets one go on a bin of it.
//!
//! Bins begin at 1970-01-01 plus an offset. A bin holds its beginning and not its end.

use serde::Serialize;

/// A time has this many bins at most: what one row may become.
pub const MAX_BINS: i64 = 10_000;

/// Bins `[k · slide + offset, k · slide + offset + size)` for every integer k.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct TimeBins {
    pub slide_us: i64,
    pub size_us: i64,
    pub offset_us: i64,
}

/// The greatest `k · step + offset` that is not after the time. `None`: before what can be told.
pub fn floor(time_us: i64, step_us: i64, offset_us: i64) -> Option<i64> {
    let into = (i128::from(time_us) - i128::from(offset_us)).rem_euclid(i128::from(step_us));
    time_us.checked_sub(i64::try_from(into).ok()?)
}

impl TimeBins {
    /// Beginnings of the bins that hold a time, ascending.
    pub fn starts(self, time_us: i64) -> Option<impl Iterator<Item = i64>> {
        let last = floor(time_us, self.slide_us, self.offset_us)?;
        // How many more slides fit between the beginning and the time before it is no longer in the bin.
        let room = self.size_us - 1 - (time_us - last);
        let before = if room < 0 { -1 } else { room / self.slide_us };
        last.checked_sub(before.max(0) * self.slide_us)?;
        Some((0..=before).rev().map(move |k| last - k * self.slide_us))
    }
}

/// Ends of the growing bins of a time: from `step` after the beginning of the bin of this size, step by step, those that are
/// after the time.
pub fn cumulated_ends(
    time_us: i64,
    step_us: i64,
    size_us: i64,
    offset_us: i64,
) -> Option<impl Iterator<Item = i64>> {
    let start = floor(time_us, size_us, offset_us)?;
    let first = (time_us - start) / step_us + 1;
    start.checked_add(size_us)?;
    Some((first..=size_us / step_us).map(move |k| start + k * step_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bin_that_holds_a_time_is_found() {
        for (slide_us, size_us, offset_us) in [(5, 5, 0), (3, 10, 1), (2, 6, -5), (7, 3, 0)] {
            let bins = TimeBins {
                slide_us,
                size_us,
                offset_us,
            };
            for time in -50..50 {
                let found: Vec<i64> = bins.starts(time).expect("near 1970").collect();
                let held: Vec<i64> = (-200..200)
                    .map(|k| k * slide_us + offset_us)
                    .filter(|start| *start <= time && time < start + size_us)
                    .collect();
                assert_eq!(found, held, "{time} in {bins:?}");
            }
        }
    }

    #[test]
    fn growing_bins_end_after_the_time() {
        let ends = |time| {
            cumulated_ends(time, 2, 6, 1)
                .expect("near 1970")
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(1), [3, 5, 7]);
        assert_eq!(ends(2), [3, 5, 7]);
        assert_eq!(ends(3), [5, 7]);
        assert_eq!(ends(6), [7]);
        assert_eq!(ends(7), [9, 11, 13]);
        assert_eq!(ends(-1), [1]);
    }

    #[test]
    fn times_at_the_edge_are_told() {
        assert_eq!(floor(i64::MIN, 7, 3), None);
        assert_eq!(floor(i64::MAX, 1, 0), Some(i64::MAX));
    }
}

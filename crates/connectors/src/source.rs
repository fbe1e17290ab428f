//! Sources: what `CREATE SOURCE` names, its splits and their readers.

use crate::{ConnectorError, DecodeError, Offset, SplitId};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use std::time::{Duration, Instant};

pub mod datagen;
pub mod file;
pub mod nexmark;

/// What `CREATE SOURCE` names, with its options checked. Shared by all workers; opening a split makes a reader that
/// belongs to one of them.
pub trait Source: Send + Sync {
    /// All columns, in the order that projections refer to.
    fn schema(&self) -> SchemaRef;

    /// The splits as of now, sorted. Ids are stable; new ones may appear later (new files), none disappears.
    fn splits(&self) -> Result<Vec<SplitId>, ConnectorError>;

    /// A reader that continues behind `resume`, or starts at the beginning. With a projection its batches hold those
    /// columns only, in that order, and the others are not even decoded.
    fn open(
        &self,
        split: &SplitId,
        resume: Option<&Offset>,
        projection: Option<&[usize]>,
    ) -> Result<Box<dyn SplitReader>, ConnectorError>;

    /// Every split ends: a view over this source can be complete.
    fn bounded(&self) -> bool;

    /// `next()` is pure computation and runs on a worker. Otherwise it does I/O and runs on a pump thread.
    fn runs_on_worker(&self) -> bool;

    /// A record may fail to be decoded, which shows only when all of its columns are.
    fn may_be_undecodable(&self) -> bool {
        true
    }

    /// Rows are only ever added.
    fn append_only(&self) -> bool {
        true
    }
}

/// Reads one split in order.
///
/// The rows between two offsets are the same whoever reads them, however often and in whatever portions.
pub trait SplitReader: Send {
    /// Up to `max_rows` rows (rows set aside as errors count), never any behind `until`, where another reader of the split
    /// has been: what is behind it is idle, what is in front of it is not held back by a rate limit.
    fn next(&mut self, max_rows: usize, until: Option<&Offset>) -> Result<Next, ConnectorError>;

    /// Where to resume to get everything that `next` has not returned yet. It moves only when `next` returns a chunk, which
    /// may be empty.
    fn offset(&self) -> Offset;
}

/// What a reader has to give.
#[derive(Debug)]
pub enum Next {
    Chunk(Chunk),
    /// Nothing now: at `until`, or at the end of something that grows. Ask again after a short wait.
    Idle,
    /// A rate limit: nothing before this instant.
    WaitUntil(Instant),
    /// Nothing ever again.
    Finished,
}

/// Rows and, beside them, what could not become a row.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub batch: RecordBatch,
    pub errors: Vec<DecodeError>,
}

impl Chunk {
    pub fn of(batch: RecordBatch) -> Self {
        Self {
            batch,
            errors: Vec::new(),
        }
    }
}

/// Holds a generator back to so many positions a second. Time that nobody asked in is not caught up on beyond a second.
#[derive(Debug)]
pub(crate) struct Throttle {
    per_second: Option<f64>,
    credit: f64,
    last: Option<Instant>,
}

pub(crate) enum Allowed {
    Positions(u64),
    NotBefore(Instant),
}

impl Throttle {
    pub(crate) fn new(per_second: Option<f64>) -> Self {
        Self {
            per_second,
            credit: 0.0,
            last: None,
        }
    }

    pub(crate) fn allowed(&mut self, now: Instant) -> Allowed {
        let Some(rate) = self.per_second else {
            return Allowed::Positions(u64::MAX);
        };
        let elapsed = self.last.map_or(Duration::ZERO, |last| now - last);
        self.last = Some(now);
        self.credit = (self.credit + elapsed.as_secs_f64() * rate).min(rate.max(1.0));
        // Waiting for a hundredth of a second's worth keeps the number of wake-ups low at high rates.
        let portion = (rate / 100.0).max(1.0);
        if self.credit >= portion {
            return Allowed::Positions(self.credit as u64);
        }
        let wait = Duration::from_secs_f64((portion - self.credit) / rate);
        Allowed::NotBefore(now + wait.max(Duration::from_micros(50)))
    }

    pub(crate) fn spend(&mut self, positions: u64) {
        if self.per_second.is_some() {
            self.credit -= positions as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_keeps_its_rate() {
        let mut throttle = Throttle::new(Some(1000.0));
        let start = Instant::now();
        let (mut now, mut taken) = (start, 0);
        while now < start + Duration::from_secs(5) {
            match throttle.allowed(now) {
                Allowed::Positions(n) => {
                    taken += n;
                    throttle.spend(n);
                }
                Allowed::NotBefore(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        assert!((4950..=5000).contains(&taken), "{taken}");
    }
}

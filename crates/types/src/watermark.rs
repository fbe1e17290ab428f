//! How far event time has come, as a barrier carries it.
//!
//! A source (or an append-only table) with a watermark tells at each barrier how far the times of its rows have come. From that
//! the coordinator makes two statements, which a barrier takes to everybody:
//!
//! - a **floor**: what readers hold to from this barrier on. A row that is earlier is late, and dropped.
//! - what is **reached**: the floor of an earlier barrier that everybody has passed. Since readers have held to it since, and all
//!   rows from before are processed, no change behind this barrier is about a row that is earlier. Operators act upon it alone.
//!
//! The two differ because rows of the epochs in between may still be on their way, also behind a barrier that overtakes them.

use crate::RelationId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the watermark of a source is when it has ended: no row will come.
pub const END_OF_TIME: i64 = i64::MAX;

/// Event times by source, in microseconds since 1970.
pub type EventTimes = Arc<BTreeMap<RelationId, i64>>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watermarks {
    pub reached: EventTimes,
    pub floors: EventTimes,
    /// Relations that still read history, in which times are of any age: no watermark holds for them.
    pub catching_up: Arc<BTreeSet<RelationId>>,
}

impl Watermarks {
    /// No row of this source that is earlier will come.
    pub fn reached(&self, source: RelationId) -> Option<i64> {
        self.reached.get(&source).copied()
    }
}

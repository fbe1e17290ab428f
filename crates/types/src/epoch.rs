//! Epochs, and the barriers that close them.

use crate::watermark::Watermarks;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A number that every batch belongs to; totally ordered, reserved durably, never used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a checkpoint; grows by one with each that is started, completed or not.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct CheckpointId(pub u64);

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far into the command log: the sequence number of the last entry that is included.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct LogPosition(pub u64);

/// Closes an epoch. Every operator sees every barrier, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    /// The epoch that this barrier closes.
    pub epoch: Epoch,
    /// What `now()` means in the epoch, in milliseconds since 1970. Never goes back.
    pub time_ms: i64,
    /// State is sealed at this barrier, as part of this checkpoint.
    pub checkpoint: Option<CheckpointId>,
    /// Table changes up to and including this position of the command log belong to the epoch or an earlier one.
    pub log_position: LogPosition,
    /// How far event time has come.
    pub watermarks: Watermarks,
}

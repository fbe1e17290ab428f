//! How long recovery takes: measured whenever workers start on a checkpoint, as the basis for saying how long it would.
//!
//! Two phases end in the moment that readers are let in: *restoring* reads the checkpoint and builds state from it, and
//! *replaying* takes in what the command log holds behind the checkpoint. Sources are read again after that, while the
//! database answers, so that they are no part of it.

use crate::runtime::Shared;
use std::time::{Duration, Instant, SystemTime};
use tidegate_checkpoint::Manifest;

/// What one start of the workers took.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryMeasure {
    pub at: SystemTime,
    pub workers: usize,
    /// Of the checkpoint.
    pub bytes: u64,
    pub rows: u64,
    pub restoring: Duration,
    pub log_rows: u64,
    pub replaying: Duration,
}

/// What a recovery would have to do now beside reading the newest checkpoint, and the measurements there are.
#[derive(Debug, Clone, Default)]
pub struct RecoveryStatus {
    pub log_rows: u64,
    pub source_rows: u64,
    /// The newest of the measurements with the most bytes; `None`: no checkpoint has been restored by this process.
    pub restored: Option<RecoveryMeasure>,
    /// Likewise with the most rows of the log.
    pub replayed: Option<RecoveryMeasure>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Measures {
    restored: Option<RecoveryMeasure>,
    replayed: Option<RecoveryMeasure>,
}

impl Measures {
    /// A measurement of little says less about much than one of much does, even if it is newer.
    pub fn add(&mut self, measure: RecoveryMeasure) {
        let (bytes, rows) = (measure.bytes, measure.log_rows);
        if bytes > 0 && self.restored.is_none_or(|m| m.bytes / 2 <= bytes) {
            self.restored = Some(measure);
        }
        if rows > 0 && self.replayed.is_none_or(|m| m.log_rows / 2 <= rows) {
            self.replayed = Some(measure);
        }
    }
}

/// The clock of one start.
pub(crate) struct Watch {
    began: Instant,
    workers: usize,
    bytes: u64,
    rows: u64,
    pub log_rows: u64,
}

impl Watch {
    pub fn start(manifest: Option<&Manifest>, workers: usize) -> Self {
        Self {
            began: Instant::now(),
            workers,
            bytes: manifest.map_or(0, |m| m.bytes()),
            rows: manifest.map_or(0, |m| m.rows()),
            log_rows: 0,
        }
    }

    /// Readers are let in now.
    pub fn finish(&self, shared: &Shared, built_at: Instant) {
        let measure = RecoveryMeasure {
            at: SystemTime::now(),
            workers: self.workers,
            bytes: self.bytes,
            rows: self.rows,
            restoring: built_at.duration_since(self.began),
            log_rows: self.log_rows,
            replaying: built_at.elapsed(),
        };
        shared.measures.lock().add(measure);
    }
}

impl Shared {
    pub fn recovery(&self) -> RecoveryStatus {
        let current = self.current.lock().clone();
        let (log_rows, source_rows) = current.map_or((0, 0), |c| c.rows_since_checkpoint());
        let measures = self.measures.lock().clone();
        RecoveryStatus {
            log_rows,
            source_rows,
            restored: measures.restored,
            replayed: measures.replayed,
        }
    }
}

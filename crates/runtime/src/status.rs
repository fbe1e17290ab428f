//! What the runtime tells about itself.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tidegate_types::{CheckpointId, Epoch, LogPosition, RelationId};

/// How far one relation's dataflow is, shared by its workers and whoever asks.
#[derive(Debug, Default)]
pub struct RelationStatus {
    /// Imports that have rows to read from before the relation was created, over all workers.
    backfilling: AtomicUsize,
    backfilled_rows: AtomicU64,
    /// Rows that there are to backfill as far as is known, over all workers.
    rows_to_backfill: AtomicU64,
    /// How far replays of sources are, in positions of their splits, and where they have to get.
    positions_read: AtomicU64,
    positions_in_all: AtomicU64,
    /// An import cannot tell how many rows it will read: a source's history.
    total_unknown: AtomicBool,
    /// The first epoch in which the relation holds all that it should.
    complete_from: AtomicU64,
}

impl RelationStatus {
    pub(crate) fn backfill_started(&self) {
        self.backfilling.fetch_add(1, Ordering::SeqCst);
    }

    /// The import has sent everything with this epoch.
    pub(crate) fn backfill_finished(&self, epoch: u64) {
        self.complete_from.fetch_max(epoch, Ordering::SeqCst);
        self.backfilling.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn starts_at(&self, epoch: Epoch) {
        self.complete_from.fetch_max(epoch.0, Ordering::SeqCst);
    }

    /// Whether readers at this epoch see all that the relation should hold.
    pub(crate) fn is_complete_at(&self, epoch: Epoch) -> bool {
        !self.is_backfilling() && epoch.0 >= self.complete_from.load(Ordering::SeqCst)
    }

    pub(crate) fn backfilled(&self, rows: usize) {
        self.backfilled_rows
            .fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Rows that an import has to read in all, those before a crash included.
    pub(crate) fn expects(&self, rows: Option<usize>) {
        match rows {
            Some(rows) => {
                self.rows_to_backfill
                    .fetch_add(rows as u64, Ordering::Relaxed);
            }
            None => self.total_unknown.store(true, Ordering::Relaxed),
        }
    }

    /// Never less than was read: rows that came while reading are read too.
    pub fn rows_to_backfill(&self) -> Option<u64> {
        let total = self.rows_to_backfill.load(Ordering::Relaxed);
        (!self.total_unknown.load(Ordering::Relaxed)).then(|| total.max(self.backfilled_rows()))
    }

    /// A replay has moved by so much, and its end by so much.
    pub(crate) fn replayed(&self, positions: u64, end: u64) {
        self.positions_read.fetch_add(positions, Ordering::Relaxed);
        self.positions_in_all.fetch_add(end, Ordering::Relaxed);
    }

    /// The part of the backfill that is done, from 0 to 1. Of a replay of a source only positions are known, not rows.
    pub fn fraction(&self) -> Option<f64> {
        let (done, all) = match self.rows_to_backfill() {
            Some(all) => (self.backfilled_rows(), all),
            None => (
                self.positions_read.load(Ordering::Relaxed),
                self.positions_in_all.load(Ordering::Relaxed),
            ),
        };
        (all > 0).then(|| (done as f64 / all as f64).min(1.0))
    }

    pub fn is_backfilling(&self) -> bool {
        self.backfilling.load(Ordering::SeqCst) > 0
    }

    pub fn backfilled_rows(&self) -> u64 {
        self.backfilled_rows.load(Ordering::Relaxed)
    }
}

/// A view that is reading what was there before it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStatus {
    pub relation: RelationId,
    /// It goes on as it was meanwhile: what is being built is its new query.
    pub is_alteration: bool,
    pub rows_read: u64,
    /// Rows that there are to read, where that is known.
    pub rows_total: Option<u64>,
    /// How much of it is done, from 0 to 1.
    pub fraction: Option<f64>,
}

/// A checkpoint that was durable when this was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    pub id: CheckpointId,
    pub epoch: Epoch,
    pub log_position: LogPosition,
    pub bytes_written: u64,
    pub duration_ms: u64,
    pub sync_micros: u64,
    /// Its barrier overtook nothing: it ends an epoch.
    pub aligned: bool,
}

/// One error of a view or source, as `tidegate.errors` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorRow {
    pub relation: RelationId,
    /// The operator that could not process the row; `None` for a row that a source could not decode.
    pub operator: Option<String>,
    pub state: String,
    pub message: String,
    pub row: String,
    pub split: Option<String>,
    pub offset: Option<String>,
    /// How often the error stands.
    pub count: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorStatus {
    pub relation: RelationId,
    pub worker: usize,
    pub state_cells: u64,
    pub state_bytes: u64,
}

#[derive(Debug, Clone, Default)]
pub struct RuntimeStatus {
    pub workers: usize,
    /// The newest epoch that readers see.
    pub epoch: Epoch,
    /// What `now()` means in that epoch, in milliseconds since 1970; 0 before the first.
    pub time_ms: i64,
    pub barriers_in_flight: usize,
    pub restarts: u64,
    pub jobs: Vec<JobStatus>,
    /// Sources that are read and have come to their end.
    pub finished_sources: Vec<RelationId>,
    /// Rows read from sources and the log since the server started.
    pub rows_in: u64,
}

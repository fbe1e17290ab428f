//! What a recovery would have to do again: rows that have come since the newest durable checkpoint. And when the workers
//! had built what they began with, which is where restoring ends and replaying begins.

use super::Coordinator;
use std::collections::VecDeque;
use std::time::Instant;
use tidegate_types::CheckpointId;

/// Rows since the beginning of the incarnation.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    from_log: u64,
    from_sources: u64,
}

#[derive(Debug, Default)]
pub(super) struct Arrivals {
    now: Counts,
    /// What had come when the barriers of checkpoints under way were cut, and of the newest durable one.
    at_barrier: VecDeque<(CheckpointId, Counts)>,
    durable: Counts,
    /// Workers that have built what the incarnation began with, and when the last of them had.
    built: usize,
    all_built_at: Option<Instant>,
}

impl Arrivals {
    pub fn appended(&mut self, rows: usize) {
        self.now.from_log += rows as u64;
    }

    /// The barrier of a checkpoint is cut; so many rows have come in all.
    pub fn checkpoint_begun(&mut self, checkpoint: CheckpointId, rows_in: u64) {
        self.now.from_sources = rows_in.saturating_sub(self.now.from_log);
        self.at_barrier.push_back((checkpoint, self.now));
    }

    pub fn checkpoint_completed(&mut self, checkpoint: CheckpointId) {
        let is_in = |(c, _): &mut (CheckpointId, Counts)| *c <= checkpoint;
        while let Some((_, counts)) = self.at_barrier.pop_front_if(is_in) {
            self.durable = counts;
        }
    }

    /// This one, and those behind it.
    pub fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        self.at_barrier.retain(|(c, _)| *c < checkpoint);
    }
}

impl Coordinator {
    /// Rows of the log, and of sources, that no durable checkpoint of this incarnation holds.
    pub fn rows_since_checkpoint(&self) -> (u64, u64) {
        let arrivals = &self.state.lock().arrivals;
        let from_sources = self.rows_in().saturating_sub(arrivals.now.from_log);
        (
            arrivals.now.from_log - arrivals.durable.from_log,
            from_sources.saturating_sub(arrivals.durable.from_sources),
        )
    }

    /// A worker has built the relations that it was told of.
    pub fn built(&self) {
        let mut state = self.state.lock();
        state.arrivals.built += 1;
        if state.arrivals.built == state.inboxes.len() {
            state.arrivals.all_built_at = Some(Instant::now());
        }
    }

    /// When all workers had built what the incarnation began with.
    pub fn all_built_at(&self) -> Option<Instant> {
        self.state.lock().arrivals.all_built_at
    }
}

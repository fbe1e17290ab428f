//! What happens between checkpoints: removing, merging, and keeping the history, as one background task.

use crate::error::CheckpointError;
use crate::store::CheckpointStore;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The history is written at most so often.
const HISTORY_INTERVAL: Duration = Duration::from_secs(10);

/// Ends the background task when dropped.
#[derive(Debug)]
pub struct Maintenance {
    task: JoinHandle<()>,
}

impl Maintenance {
    /// Ends the task and waits until it holds nothing any more.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CheckpointStore {
    /// Starts the background task: it cleans up now and after each commit, and merges. It does nothing when nothing
    /// was committed.
    pub fn start_maintenance(self: &Arc<Self>) -> Maintenance {
        let store = self.clone();
        Maintenance {
            task: self.handle.spawn(async move { store.maintain().await }),
        }
    }

    async fn maintain(&self) {
        if let Err(error) = self.clean_up_generations().await {
            tracing::warn!(%error, "old generations were not removed");
        }
        let mut damaged = BTreeSet::new();
        let mut flushed = Instant::now();
        loop {
            if let Err(error) = self.clean_up().await {
                if matches!(error, CheckpointError::TakenOver { .. }) {
                    return;
                }
                tracing::warn!(%error, "expired checkpoints were not removed");
            }
            self.merge_all(&mut damaged).await;
            if flushed.elapsed() >= HISTORY_INTERVAL {
                flushed = Instant::now();
                if let Err(error) = self.flush_history().await {
                    tracing::warn!(%error, "history of checkpoints was not written");
                }
            }
            let woken = self.committed.notified();
            match self.has_unwritten_history() {
                // Nothing may be committed for long, and what failed last is what somebody will want to read.
                true => {
                    let due = flushed + HISTORY_INTERVAL;
                    let _ = tokio::time::timeout_at(due, woken).await;
                }
                false => woken.await,
            }
        }
    }

    async fn merge_all(&self, damaged: &mut BTreeSet<tidegate_types::TableId>) {
        loop {
            match self.merge_once(damaged).await {
                Ok(None) => return,
                Ok(Some(report)) => tracing::debug!(?report, "merged runs"),
                Err(CheckpointError::Damaged(damage)) => {
                    tracing::error!(%damage, "a run of the newest checkpoint is damaged; its tables are not merged");
                    let tables = self.tables_with(&damage.object);
                    if tables.is_subset(damaged) {
                        return;
                    }
                    damaged.extend(tables);
                }
                Err(error) => {
                    tracing::warn!(%error, "merging runs failed");
                    return;
                }
            }
        }
    }

    /// The tables with a run in this object.
    fn tables_with(&self, object: &Arc<str>) -> BTreeSet<tidegate_types::TableId> {
        let base = self.base();
        let tables = base.iter().flat_map(|b| b.tables.iter());
        tables
            .filter(|(_, t)| t.runs.iter().any(|r| r.object == *object))
            .map(|(id, _)| *id)
            .collect()
    }
}

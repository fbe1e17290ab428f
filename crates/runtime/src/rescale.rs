//! Another number of workers while the database runs.
//!
//! The incarnation ends with a checkpoint that holds all that anybody has been shown ([`Coordinator::conclude`]); the next
//! one begins from it with the new number, each worker with its ranges of key groups. Between the two statements wait and
//! sessions stay; subscriptions go on ([`crate::following`]). If the checkpoint is not to be, nothing happens. If workers do
//! not start with the new number, they start with the old one, from the same checkpoint.
//!
//! [`Coordinator::conclude`]: crate::coordinator::Coordinator::conclude

use crate::incarnation::Incarnation;
use crate::runtime::{Runtime, Shared, shut_down};
use crate::spec::RelationSpec;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tidegate_types::{CheckpointId, KEY_GROUPS, SqlError, SqlState};
use tokio::sync::{mpsc, oneshot};

/// What the supervisor is told.
pub(crate) enum Order {
    Stop,
    Rescale(Rescale),
}

pub(crate) struct Rescale {
    pub workers: usize,
    told: oneshot::Sender<Result<Duration, SqlError>>,
}

impl Rescale {
    /// Tells who asked; one who does not wait any more need not know.
    pub fn tell(self, result: Result<Duration, SqlError>) {
        let _ = self.told.send(result);
    }

    pub fn refuse(self, cause: &str) {
        let error = not_rescaled(self.workers, cause);
        self.tell(Err(error));
    }
}

fn not_rescaled(workers: usize, cause: &str) -> SqlError {
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the number of workers could not be changed to {workers}"),
    )
    .with_detail(cause)
    .with_hint(
        "The database goes on with the number that it had; the statement can be tried again.",
    )
}

/// Waits for the order to stop. Others cannot be followed while workers are down.
pub(crate) async fn stop_ordered(orders: &mut mpsc::Receiver<Order>) {
    while let Some(Order::Rescale(rescale)) = orders.recv().await {
        rescale.refuse("The workers have failed and are being started again.");
    }
}

impl Runtime {
    /// Goes on with so many workers; answers for how long nothing could be read.
    pub async fn rescale(&self, workers: usize) -> Result<Duration, SqlError> {
        assert!((1..=KEY_GROUPS).contains(&workers), "checked by the engine");
        if workers == self.workers() {
            return Ok(Duration::ZERO);
        }
        // So that there is little to write while everybody waits.
        self.checkpoint().await?;
        let (told, answer) = oneshot::channel();
        let order = Order::Rescale(Rescale { workers, told });
        self.orders.send(order).await.map_err(|_| shut_down())?;
        answer.await.map_err(|_| shut_down())?
    }
}

/// Starts workers on the checkpoint with which those before have ended: as many as asked for, or else as many as before.
/// An error when neither is possible.
pub(crate) async fn start_rescaled(
    shared: &Arc<Shared>,
    relations: &[RelationSpec],
    concluded: CheckpointId,
    rescale: Rescale,
) -> Result<Incarnation, SqlError> {
    let stopped_at = Instant::now();
    let before = shared.workers.swap(rescale.workers, Ordering::SeqCst);
    let failure = match Incarnation::resume(shared, relations.to_vec(), Some(concluded)).await {
        Ok(mut next) => match next.early_failure.take() {
            None => {
                let pause = stopped_at.elapsed();
                tracing::info!(
                    from = before,
                    to = rescale.workers,
                    pause_ms = pause.as_millis() as u64,
                    "rescaled"
                );
                rescale.tell(Ok(pause));
                return Ok(next);
            }
            Some(failure) => {
                next.end().await;
                failure.message
            }
        },
        Err(error) => error.to_string(),
    };
    tracing::error!(
        workers = rescale.workers,
        "workers could not be started: {failure}"
    );
    shared.workers.store(before, Ordering::SeqCst);
    // What the attempt has published was shown, and is not in the checkpoint.
    let nothing_shown = shared.published.borrow().nothing_yet;
    let concluded = Some(concluded).filter(|_| nothing_shown);
    let resumed = Incarnation::resume(shared, relations.to_vec(), concluded).await;
    rescale.refuse(&failure);
    resumed
}

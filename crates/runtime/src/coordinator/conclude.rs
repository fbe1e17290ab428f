//! The planned end of an incarnation: with a checkpoint of all that readers have been shown, and nothing after it.
//!
//! The checkpoint is a synchronous one, whatever the policy: inputs hold back what comes behind its barrier, no other
//! barrier is cut, and its epoch is published when its manifest exists. In that moment the workers stop. So the epoch in
//! the manifest is the newest that anybody has seen, and who goes on from it takes nothing back and leaves nothing out.
//! If the checkpoint is not to be, everything goes on as before.

use super::{Coordinator, State};
use crate::driver::WorkerFailure;
use crate::policy::{CheckpointExecution, CheckpointPolicy};
use std::ops::RangeInclusive;
use std::sync::Arc;
use tidegate_types::CheckpointId;
use tokio::sync::oneshot;

/// The checkpoint that it ended with, or why it goes on. Neither is told if it failed meanwhile.
pub(crate) type Concluded = Result<CheckpointId, String>;

pub(super) struct Conclusion {
    /// Known once its barrier is cut.
    checkpoint: Option<CheckpointId>,
    told: oneshot::Sender<Concluded>,
}

impl Coordinator {
    /// Ends the incarnation with its next checkpoint.
    pub fn conclude(&self) -> oneshot::Receiver<Concluded> {
        let (told, concluded) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.stopped {
            state.concluding = Some(Conclusion {
                checkpoint: None,
                told,
            });
            state.checkpoints.want(true);
            state.wanted = true;
            self.cut_if_due(&mut state);
        }
        concluded
    }

    /// This checkpoint and those before it are durable.
    pub(super) fn end_if_concluded(&self, state: &mut State, durable: CheckpointId) {
        let is_last = |c: &mut Conclusion| c.checkpoint.is_some_and(|last| last <= durable);
        if let Some(conclusion) = state.concluding.take_if(is_last) {
            self.stop_workers(state);
            // Who asked may have gone; then the supervisor has too.
            let _ = conclusion.told.send(Ok(durable));
        }
    }
}

impl State {
    /// How the checkpoint that is about to begin is taken.
    pub(super) fn policy_of_next(&self, policy: Arc<CheckpointPolicy>) -> Arc<CheckpointPolicy> {
        match &self.concluding {
            Some(_) => Arc::new(CheckpointPolicy {
                execution: CheckpointExecution::Sync,
                ..policy.as_ref().clone()
            }),
            None => policy,
        }
    }

    pub(super) fn checkpoint_begun(&mut self, checkpoint: CheckpointId) {
        if let Some(conclusion) = &mut self.concluding {
            conclusion.checkpoint.get_or_insert(checkpoint);
        }
    }

    /// These will never be.
    pub(super) fn not_concluded(&mut self, aborted: &RangeInclusive<CheckpointId>, cause: &str) {
        let is_last = |c: &mut Conclusion| c.checkpoint.is_some_and(|last| aborted.contains(&last));
        if let Some(conclusion) = self.concluding.take_if(is_last) {
            let _ = conclusion.told.send(Err(cause.to_owned()));
        }
    }

    /// Why nothing can be installed any more.
    pub(super) fn end_of_workers(&self) -> Option<WorkerFailure> {
        let stopped = || WorkerFailure {
            relation: None,
            message: "the workers are being stopped".to_owned(),
        };
        let failure = self.failure.clone();
        failure.or_else(|| self.stopped.then(stopped))
    }
}

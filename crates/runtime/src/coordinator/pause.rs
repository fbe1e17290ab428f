//! Everything stands still at a barrier, so that a dataflow can be put in the place of another.
//!
//! A pause is asked for, its barrier is cut when no other is under way, and inputs give nothing behind it. Once every
//! worker has passed it there is no row under way anywhere: what a relation holds is what its tables hold. Then whoever
//! asked has its way, and everything goes on. The barrier after that is an ordinary one, which nothing overtakes: what a
//! new dataflow adds to its first epoch is whole or not there.

use super::{Coordinator, State, Way};
use crate::command::{Command, Install};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tidegate_types::{Barrier, Epoch, RelationId};
use tokio::sync::oneshot;

#[derive(Default)]
pub(super) enum Pause {
    #[default]
    None,
    /// Barriers under way pass first, and no others are cut.
    Wanted(oneshot::Sender<()>),
    /// Its barrier is under way.
    Passing(Epoch, oneshot::Sender<()>),
    Reached,
    /// The first barrier after it is under way.
    Leaving(Epoch),
}

/// Everything stands still as long as this lives, unless the workers fail.
pub(crate) struct Paused {
    coordinator: Arc<Coordinator>,
}

/// Takes the pause back when whoever waits for it goes away.
struct Guard<'a>(Option<&'a Coordinator>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(coordinator) = self.0 {
            coordinator.go_on(&mut coordinator.state.lock());
        }
    }
}

impl Coordinator {
    /// Waits until everything stands still; `None` when the workers have stopped before that. One at a time.
    pub async fn pause(self: &Arc<Self>) -> Option<Paused> {
        let (sender, reached) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.stopped {
                return None;
            }
            assert!(
                matches!(state.pause, Pause::None | Pause::Leaving(_)),
                "callers take turns"
            );
            if matches!(state.pause, Pause::None) {
                state.pause = Pause::Wanted(sender);
            } else {
                state.next_pause = Some(sender);
            }
            self.cut_if_due(&mut state);
        }
        let mut guard = Guard(Some(self));
        reached.await.ok()?;
        guard.0 = None;
        Some(Paused {
            coordinator: self.clone(),
        })
    }

    /// Whether no barrier but that of a pause may be cut. Cuts that one when it is time.
    pub(super) fn pauses(&self, state: &mut State) -> bool {
        match std::mem::take(&mut state.pause) {
            Pause::None => false,
            Pause::Wanted(sender) if self.may_pause(state) => {
                state.pause = Pause::Passing(Epoch(state.next_epoch), sender);
                self.cut_as(state, Instant::now(), None, Way::Pausing);
                true
            }
            other => {
                state.pause = other;
                true
            }
        }
    }

    /// Nothing is under way, and there are reserved epochs for its barrier and the one after it.
    fn may_pause(&self, state: &State) -> bool {
        let limit = self.epoch_limit.load(Ordering::Relaxed);
        state.in_flight.is_empty() && state.held.is_none() && state.next_epoch < limit
    }

    /// A barrier was published.
    pub(super) fn pause_reached(&self, state: &mut State, barrier: &Barrier) {
        match std::mem::take(&mut state.pause) {
            Pause::Passing(epoch, sender) if epoch == barrier.epoch => {
                state.pause = Pause::Reached;
                if sender.send(()).is_err() {
                    self.go_on(state);
                }
            }
            Pause::Leaving(epoch) if epoch == barrier.epoch => {
                if let Some(sender) = state.next_pause.take() {
                    state.pause = Pause::Wanted(sender);
                }
            }
            other => state.pause = other,
        }
    }

    fn go_on(&self, state: &mut State) {
        state.next_pause = None;
        if matches!(state.pause, Pause::Leaving(_)) {
            return;
        }
        state.pause = Pause::None;
        if !state.stopped {
            self.broadcast(state, &Command::GoOn);
            self.cut_if_due(state);
        }
    }
}

impl Paused {
    /// What runs of a relation.
    pub fn installed(&self, relation: RelationId) -> Option<Arc<Install>> {
        self.coordinator.installed(relation)
    }

    /// Puts a dataflow in the place of the one that its relation has, from the next epoch on, and goes on. It may read
    /// relations that were made after its own.
    pub fn replace(self, make: impl FnOnce(Epoch) -> Arc<Install>) {
        let coordinator = self.coordinator.clone();
        let mut state = coordinator.state.lock();
        if state.stopped {
            return;
        }
        let install = make(Epoch(state.next_epoch));
        let relation = install.spec.relation();
        install.status.starts_at(install.start);
        if let Some(arriving) = &install.arriving {
            arriving.status.starts_at(install.start);
        }
        state.installs.insert(relation, install.clone());
        to_the_end(&mut state, relation);
        coordinator.broadcast(&state, &Command::Replace(install));
        coordinator.broadcast(&state, &Command::GoOn);
        state.pause = Pause::Leaving(Epoch(state.next_epoch));
        coordinator.cut_as(&mut state, Instant::now(), None, Way::Passing);
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let mut state = self.coordinator.state.lock();
        if matches!(state.pause, Pause::Reached) {
            self.coordinator.go_on(&mut state);
        }
    }
}

/// Moves a relation, and all that read it, behind the others: whatever it reads now is in front of it.
fn to_the_end(state: &mut State, relation: RelationId) {
    let mut moved = vec![relation];
    for other in &state.order {
        let reads = state.installs[other].spec.dataflow.reads();
        if *other != relation && reads.iter().any(|r| r != other && moved.contains(r)) {
            moved.push(*other);
        }
    }
    state.order.retain(|r| !moved.contains(r));
    state.order.extend(moved);
}

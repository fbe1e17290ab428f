//! Subscriptions: what a view holds at an epoch, and every change after it, also over a change of workers.
//!
//! A subscription gets its changes from the view's stores, one per worker, which go with their incarnation. An incarnation
//! that [ends as planned](crate::coordinator::Coordinator::conclude) ends with the newest epoch that anybody has been shown; the stores
//! of the next then send to the same subscriptions from that epoch on. After any other end something that was shown may
//! be lost, and the subscription says so.

use crate::coordinator::Published;
use crate::runtime::{Snapshot, shut_down};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tidegate_state::{StateError, ViewDelta, ViewStore};
use tidegate_types::{Epoch, RelationId, SqlError, SqlState};
use tokio::sync::watch;

/// Epochs that a subscriber may fall behind.
const CAPACITY: usize = 4096;

/// A view's rows at an epoch, and every change after it.
pub struct Subscription {
    pub snapshot: Snapshot,
    pub changes: Arc<Changes>,
    /// Tells up to which epoch all changes have been sent.
    pub published: PublishedEpochs,
}

/// Changes on their way to one subscriber.
#[derive(Default)]
pub struct Changes {
    parts: Mutex<Vec<Part>>,
}

struct Part {
    incarnation: u64,
    receiver: tidegate_state::Subscription,
}

impl Changes {
    /// Lets a store of this incarnation send everything after an epoch.
    pub(crate) fn follow(
        &self,
        store: &ViewStore,
        incarnation: u64,
        after: Epoch,
    ) -> Result<(), StateError> {
        let receiver = store.subscribe(after, CAPACITY)?;
        self.parts.lock().push(Part {
            incarnation,
            receiver,
        });
        Ok(())
    }

    /// All that has been sent since. An error when the subscriber did not keep up.
    pub fn take(&self) -> Result<Vec<ViewDelta>, StateError> {
        let mut parts = self.parts.lock();
        let mut deltas = Vec::new();
        for part in parts.iter_mut() {
            while let Some(delta) = part.receiver.try_next() {
                deltas.push(delta?);
            }
        }
        // A store is followed when the incarnation before has ended, so that nothing more comes from its stores.
        let newest = parts.iter().map(|p| p.incarnation).max();
        parts.retain(|p| Some(p.incarnation) == newest);
        Ok(deltas)
    }
}

/// The subscriptions that are open, by relation.
#[derive(Default)]
pub(crate) struct Followers {
    open: Mutex<HashMap<RelationId, Vec<Weak<Changes>>>>,
}

impl Followers {
    pub fn add(&self, relation: RelationId, changes: &Arc<Changes>) {
        let mut open = self.open.lock();
        let of_relation = open.entry(relation).or_default();
        of_relation.retain(|c| c.strong_count() > 0);
        of_relation.push(Arc::downgrade(changes));
    }

    pub fn of(&self, relation: RelationId) -> Vec<Weak<Changes>> {
        self.open.lock().get(&relation).cloned().unwrap_or_default()
    }

    /// Something that was shown may be lost: nobody who has seen it is told of changes any more.
    pub fn forget_all(&self) {
        self.open.lock().clear();
    }
}

/// Follows what readers may see.
#[derive(Clone)]
pub struct PublishedEpochs {
    receiver: watch::Receiver<Published>,
    unbroken: u64,
}

impl PublishedEpochs {
    pub(crate) fn new(receiver: watch::Receiver<Published>, unbroken: u64) -> Self {
        Self { receiver, unbroken }
    }

    pub fn current(&self) -> Epoch {
        self.receiver.borrow().epoch
    }

    /// Waits for an epoch after this one. An error when the workers were restarted and what was shown may be lost.
    pub async fn after(&mut self, epoch: Epoch) -> Result<Epoch, SqlError> {
        let unbroken = self.unbroken;
        let reached = self
            .receiver
            .wait_for(|p| p.unbroken != unbroken || p.given_up || p.epoch > epoch)
            .await
            .map(|p| *p)
            .map_err(|_| shut_down())?;
        if reached.unbroken != unbroken || reached.given_up {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the subscription ends because workers were restarted",
            )
            .with_hint("Subscribe again."));
        }
        Ok(reached.epoch)
    }
}

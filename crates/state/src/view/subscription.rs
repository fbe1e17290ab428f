//! Following a view's changes epoch by epoch.
//!
//! A layer is sent as it is, shared; who receives it decodes it, not the worker.

use super::layer::Layer;
use super::row::RowLayout;
use crate::StateError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_types::{Batch, Epoch};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What one epoch changed.
#[derive(Clone)]
pub struct ViewDelta {
    pub epoch: Epoch,
    layer: Arc<Layer>,
    layout: Arc<RowLayout>,
}

impl ViewDelta {
    /// The changes, each distinct row once (an append-only view: the rows as they came).
    pub fn batches(&self) -> Result<Vec<Batch>, StateError> {
        self.layer.batches(&self.layout)
    }
}

/// The receiving end.
pub struct Subscription {
    receiver: Receiver<ViewDelta>,
    lagged: Arc<AtomicBool>,
    replaced: Arc<AtomicBool>,
}

impl Subscription {
    /// The next change; `None` when the view is gone; an error when this subscriber did not keep up.
    pub async fn next(&mut self) -> Option<Result<ViewDelta, StateError>> {
        let delta = self.receiver.recv().await;
        self.answer(delta)
    }

    /// As `next`, for a thread that may wait.
    pub fn blocking_next(&mut self) -> Option<Result<ViewDelta, StateError>> {
        let delta = self.receiver.blocking_recv();
        self.answer(delta)
    }

    /// A change that has come already.
    pub fn try_next(&mut self) -> Option<Result<ViewDelta, StateError>> {
        match self.receiver.try_recv() {
            Ok(delta) => Some(Ok(delta)),
            Err(tokio::sync::mpsc::error::TryRecvError::Empty) => None,
            Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => self.answer(None),
        }
    }

    fn answer(&self, delta: Option<ViewDelta>) -> Option<Result<ViewDelta, StateError>> {
        match delta {
            Some(delta) => Some(Ok(delta)),
            None if self.lagged.swap(false, Ordering::AcqRel) => {
                let message = "a subscriber to a view fell behind and lost its place";
                Some(Err(StateError::OutOfMemory(message.into())))
            }
            None if self.replaced.load(Ordering::Acquire) => Some(Err(StateError::Replaced)),
            None => None,
        }
    }
}

/// The sending end.
pub(super) struct Subscriber {
    sender: Sender<ViewDelta>,
    lagged: Arc<AtomicBool>,
    replaced: Arc<AtomicBool>,
    sent: Epoch,
}

impl Subscriber {
    pub(super) fn new(from: Epoch, capacity: usize) -> (Self, Subscription) {
        let (sender, receiver) = channel(capacity.max(1));
        let (lagged, replaced): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let subscriber = Self {
            sender,
            lagged: lagged.clone(),
            replaced: replaced.clone(),
            sent: from,
        };
        let subscription = Subscription {
            receiver,
            lagged,
            replaced,
        };
        (subscriber, subscription)
    }

    /// There will be no more, because the view has other contents.
    pub(super) fn end(self) {
        self.replaced.store(true, Ordering::Release);
    }

    /// Sends what was published since; answers whether the subscriber is still there.
    pub(super) fn send(
        &mut self,
        layers: &[Arc<Layer>],
        published: Epoch,
        layout: &Arc<RowLayout>,
    ) -> bool {
        let start = layers.partition_point(|l| l.last <= Some(self.sent));
        for layer in &layers[start..] {
            let Some(epoch) = layer.last.filter(|e| *e <= published) else {
                break;
            };
            let delta = ViewDelta {
                epoch,
                layer: layer.clone(),
                layout: layout.clone(),
            };
            if let Err(error) = self.sender.try_send(delta) {
                let lagged = matches!(error, tokio::sync::mpsc::error::TrySendError::Full(_));
                self.lagged.store(lagged, Ordering::Release);
                return false;
            }
            self.sent = epoch;
        }
        !self.sender.is_closed()
    }
}

//! What the coordinator tells workers: one stream of commands, the same order for all.

use crate::spec::RelationSpec;
use crate::status::RelationStatus;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::Thread;
use tidegate_state::{Run, ViewStore};
use tidegate_types::{Barrier, Batch, CheckpointId, Epoch, RelationId, TableId};

/// A relation to be built on every worker, from this epoch on.
pub(crate) struct Install {
    pub spec: RelationSpec,
    pub start: Epoch,
    /// Saved state, by worker; each worker takes its own.
    pub restored: Vec<Mutex<RestoredState>>,
    /// Whether the relation was part of the checkpoint that is restored: what it had then is all it needs.
    pub is_restored: bool,
    pub status: Arc<RelationStatus>,
    /// The view store of each worker, there as soon as the worker has built the relation.
    pub stores: Mutex<Vec<Option<Arc<ViewStore>>>>,
}

/// Runs by table, older ones first.
pub(crate) type RestoredState = HashMap<TableId, Vec<Run>>;

#[derive(Clone)]
pub(crate) enum Command {
    /// Relations to build together, so that none starts before those that read it are there.
    Install(Arc<Vec<Arc<Install>>>),
    Drop(Arc<Vec<RelationId>>),
    /// Changes of tables, for the worker that reads the log.
    Append(Arc<Vec<(RelationId, Batch)>>),
    Barrier(Barrier),
    Completed(CheckpointId),
    Aborted(CheckpointId),
    Stop,
}

/// Commands on their way to one worker.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<VecDeque<Command>>,
    thread: Mutex<Option<Thread>>,
}

impl Inbox {
    /// The worker's own thread says where to wake it.
    pub fn attach(&self) {
        *self.thread.lock() = Some(std::thread::current());
    }

    pub fn send(&self, command: Command) {
        self.queue.lock().push_back(command);
        self.wake();
    }

    pub fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }

    pub fn take(&self) -> Option<Command> {
        self.queue.lock().pop_front()
    }
}

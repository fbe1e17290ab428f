//! What the coordinator tells workers: one stream of commands, the same order for all.

use crate::following::Changes;
use crate::lag::Busy;
use crate::spec::RelationSpec;
use crate::status::RelationStatus;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::thread::Thread;
use tidegate_state::{Run, ViewStore};
use tidegate_types::{Barrier, Batch, CheckpointId, Epoch, RelationId, TableId};
use tokio::sync::mpsc;

/// A relation to be built on every worker, from this epoch on.
pub(crate) struct Install {
    pub spec: RelationSpec,
    pub start: Epoch,
    /// Saved state, by worker; each worker takes its own.
    pub restored: Vec<Mutex<RestoredState>>,
    /// Whether the relation was part of the checkpoint that is restored: what it had then is all it needs.
    pub is_restored: bool,
    /// Its state is that of a savepoint: see [`crate::seed`].
    pub is_seeded: bool,
    /// Could be read before workers were restarted, as far as is known: readers wait for it now instead of being refused.
    pub is_awaited: bool,
    /// It and all that it reads were complete once, and stay so.
    pub is_settled: AtomicBool,
    /// A checkpoint of this process holds it. Until then what older ones hold of it may be of an earlier life.
    pub is_checkpointed: AtomicBool,
    pub status: Arc<RelationStatus>,
    /// Subscriptions from the incarnation before, and the epoch up to which they have all changes.
    pub followers: Followed,
    /// The view store of each worker, there as soon as the worker has built the relation.
    pub stores: Mutex<Vec<Option<Arc<ViewStore>>>>,
}

/// Who has seen a view up to an epoch, and goes on from there.
#[derive(Default)]
pub(crate) struct Followed {
    pub by: Vec<Weak<Changes>>,
    pub incarnation: u64,
    pub up_to: Epoch,
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
    Barrier(Barrier, Way),
    /// Whoever has not passed the barrier of this epoch yet lets it overtake what waits in front of it.
    Overtake(Epoch),
    Completed(CheckpointId),
    /// These will never complete; barriers of theirs that are still under way are ordinary ones.
    Aborted(RangeInclusive<CheckpointId>),
    /// Asks each worker what it spends its time on.
    WhoIsBusy(mpsc::UnboundedSender<Busy>),
    Stop,
}

/// How a barrier moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Passing,
    /// As with [`Command::Overtake`], from the start.
    Overtaking,
    /// Inputs give nothing of later epochs until its checkpoint has completed or was aborted.
    Holding,
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

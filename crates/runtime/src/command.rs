//! What the coordinator tells workers: one stream of commands, the same order for all.

use crate::following::Changes;
use crate::lag::Busy;
use crate::spec::RelationSpec;
use crate::status::RelationStatus;
use crate::work::WorkDone;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::thread::Thread;
use tidegate_plan::Dataflow;
use tidegate_state::{Run, TableStats, ViewStore};
use tidegate_types::{
    Barrier, Batch, CheckpointId, Epoch, OperatorId, RelationId, TableId, WorkerId,
};
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
    /// A checkpoint of this process holds it. Until then what older ones hold of it may be of an earlier life. Shared with
    /// those in whose place it was installed.
    pub is_checkpointed: Arc<AtomicBool>,
    pub status: Arc<RelationStatus>,
    /// Subscriptions from the incarnation before, and the epoch up to which they have all changes.
    pub followers: Followed,
    /// Its definition is another one by now, and nobody may read it until that one has taken over.
    pub is_superseded: bool,
    /// The plan that is being built beside the one that runs.
    pub arriving: Option<Arc<Arriving>>,
    /// It is a plan that was being built so, and takes over from another.
    pub takes_over: Option<TakesOver>,
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

/// A plan that is to take over from the one that runs. Where it keeps operators of that one, both share them.
pub(crate) struct Arriving {
    pub spec: RelationSpec,
    pub status: Arc<RelationStatus>,
    /// Where each worker collects the new contents.
    pub stores: Mutex<Vec<Option<Arc<ViewStore>>>>,
}

impl Arriving {
    pub fn new(spec: RelationSpec, workers: usize) -> Self {
        Self {
            spec,
            status: Arc::default(),
            stores: Mutex::new(vec![None; workers]),
        }
    }
}

impl Install {
    /// Whatever may not go as long as this runs.
    pub fn all_reads(&self) -> Vec<RelationId> {
        let mut reads = self.spec.dataflow.reads();
        if let Some(arriving) = &self.arriving {
            reads.extend(arriving.spec.dataflow.reads());
        }
        reads
    }
}

/// What a plan that takes over has collected, and from which plan it does.
pub(crate) struct TakesOver {
    pub arriving: Arc<Arriving>,
    pub from: Dataflow,
}

/// Runs by table, older ones first.
pub(crate) type RestoredState = HashMap<TableId, Vec<Run>>;

#[derive(Clone)]
pub(crate) enum Command {
    /// Relations to build together, so that none starts before those that read it are there.
    Install(Arc<Vec<Arc<Install>>>),
    Drop(Arc<Vec<RelationId>>),
    /// Builds a relation anew in its place, with the state tables that it has. Everything stands still at a barrier.
    Replace(Arc<Install>),
    /// What stood still goes on.
    GoOn,
    /// Changes of tables, for the worker that reads the log.
    Append(Arc<Vec<(RelationId, Batch)>>),
    Barrier(Barrier, Way),
    /// Whoever has not passed the barrier of this epoch yet lets it overtake what waits in front of it.
    Overtake(Epoch),
    Completed(CheckpointId),
    /// These will never complete; barriers of theirs that are still under way are ordinary ones.
    Aborted(RangeInclusive<CheckpointId>),
    /// Asks each worker what the operators of a relation hold and have done.
    Inspect(RelationId, mpsc::UnboundedSender<Inspection>),
    /// Asks each worker what it spends its time on.
    WhoIsBusy(mpsc::UnboundedSender<Busy>),
    Stop,
}

/// What the operators of a relation hold and have done on one worker.
#[derive(Default)]
pub(crate) struct Inspection {
    pub worker: WorkerId,
    pub tables: HashMap<TableId, TableStats>,
    pub work: HashMap<OperatorId, WorkDone>,
}

/// How a barrier moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Passing,
    /// As with [`Command::Overtake`], from the start.
    Overtaking,
    /// Inputs give nothing of later epochs until its checkpoint has completed or was aborted.
    Holding,
    /// Inputs give nothing of later epochs until they are told to go on.
    Pausing,
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

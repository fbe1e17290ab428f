//! What the dataflows of one worker share: barriers, exports between dataflows, and everybody's state tables.

use crate::board::Board;
use crate::command::{Inspection, Way};
use crate::coordinator::Coordinator;
use crate::credits::{Credits, RelationCredits};
use crate::error_board::ErrorBoard;
use crate::input::shared_source::SharedSource;
use crate::work::Work;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use tidegate_state::{Backends, StateError, Table, ViewStore};
use tidegate_types::{
    Barrier, Batch, CheckpointId, Epoch, KeyGroupRange, OperatorId, RelationId, TableId, WorkerId,
};
use timely::scheduling::Activator;

/// The state tables of one driver. The driver uses them while it runs; the worker tells them of checkpoints.
pub(crate) type Tables = Rc<RefCell<Vec<Box<dyn Table>>>>;
/// The state tables of one operator, with their ids.
type TablesOfOperator = (Vec<TableId>, Tables);

/// What one dataflow says to another that reads it, on the same worker.
pub(crate) enum Exported {
    Rows(Epoch, Batch),
    /// Everything of this barrier's epoch has been exported.
    Passed(Barrier),
}

/// The queue between an exporting dataflow and one that imports it.
#[derive(Default)]
pub(crate) struct ImportQueue {
    pub items: VecDeque<Exported>,
}

pub(crate) struct Subscriber {
    pub importer: RelationId,
    pub queue: Rc<RefCell<ImportQueue>>,
    pub activator: Activator,
    pub credits: Rc<RelationCredits>,
}

/// A relation that other dataflows of this worker may import.
#[derive(Default)]
pub(crate) struct Exporter {
    pub subscribers: Vec<Subscriber>,
    /// The store to backfill from; sources have none.
    pub store: Option<Arc<ViewStore>>,
    /// The newest barrier that it has passed on this worker.
    pub passed: u64,
    pub source: Option<Rc<RefCell<SharedSource>>>,
}

impl Exporter {
    pub fn export(&self, item: impl Fn() -> Exported) {
        for subscriber in &self.subscribers {
            let item = item();
            if let Exported::Rows(_, batch) = &item {
                subscriber.credits.sent(batch.num_rows());
            }
            subscriber.queue.borrow_mut().items.push_back(item);
            subscriber.activator.activate();
        }
    }
}

/// Table changes waiting on the worker that reads the log, with the barriers among them.
pub(crate) enum TableItem {
    Rows(Batch),
    Barrier(Barrier),
}

pub(crate) struct TableQueue {
    pub items: VecDeque<TableItem>,
    pub activator: Activator,
}

/// More than there can be barriers under way.
const REMEMBERED_ABORTS: usize = 16;

pub(crate) struct Hub {
    pub worker: WorkerId,
    pub workers: usize,
    pub groups: KeyGroupRange,
    pub backends: Backends,
    pub credits: Arc<Credits>,
    pub coordinator: Arc<Coordinator>,
    pub errors: Arc<ErrorBoard>,
    pub board: RefCell<Board>,
    /// Barriers that some driver may not have passed yet.
    barriers: RefCell<BTreeMap<Epoch, Barrier>>,
    /// The newest epoch whose barrier overtakes.
    overtaking: Cell<Option<u64>>,
    /// Inputs give nothing of epochs behind this one before its checkpoint has ended.
    held: Cell<Option<(u64, CheckpointId)>>,
    /// Likewise, until they are told to go on.
    paused: Cell<Option<u64>>,
    /// Checkpoints that were aborted while their barriers may have been under way, newest last.
    aborted: RefCell<VecDeque<RangeInclusive<CheckpointId>>>,
    /// Operators that no input wakes at a barrier.
    barrier_listeners: RefCell<Vec<(RelationId, Activator)>>,
    pub exporters: RefCell<HashMap<RelationId, Rc<RefCell<Exporter>>>>,
    pub table_queues: RefCell<HashMap<RelationId, Rc<RefCell<TableQueue>>>>,
    relation_credits: RefCell<HashMap<RelationId, Rc<RelationCredits>>>,
    work: RefCell<HashMap<RelationId, HashMap<OperatorId, Rc<Work>>>>,
    tables: RefCell<HashMap<RelationId, Vec<TablesOfOperator>>>,
    views: RefCell<HashMap<RelationId, Arc<ViewStore>>>,
}

impl Hub {
    pub fn new(
        worker: WorkerId,
        workers: usize,
        backends: Backends,
        credits: Arc<Credits>,
        coordinator: Arc<Coordinator>,
        errors: Arc<ErrorBoard>,
    ) -> Self {
        Self {
            worker,
            workers,
            groups: KeyGroupRange::of_worker(worker, workers),
            backends,
            credits,
            coordinator,
            errors,
            board: RefCell::default(),
            barriers: RefCell::default(),
            overtaking: Cell::default(),
            held: Cell::default(),
            paused: Cell::default(),
            aborted: RefCell::default(),
            barrier_listeners: RefCell::default(),
            exporters: RefCell::default(),
            table_queues: RefCell::default(),
            relation_credits: RefCell::default(),
            work: RefCell::default(),
            tables: RefCell::default(),
            views: RefCell::default(),
        }
    }

    pub fn barrier(&self, epoch: u64) -> Option<Barrier> {
        self.barriers.borrow().get(&Epoch(epoch)).cloned()
    }

    /// A barrier has arrived: everybody who is not woken by an input is woken here.
    pub fn announce(&self, barrier: Barrier, way: Way) {
        match (way, barrier.checkpoint) {
            (Way::Overtaking, _) => self.overtaking.set(Some(barrier.epoch.0)),
            (Way::Holding, Some(checkpoint)) => self.held.set(Some((barrier.epoch.0, checkpoint))),
            (Way::Pausing, _) => self.paused.set(Some(barrier.epoch.0)),
            _ => {}
        }
        self.board.borrow_mut().expect(barrier.epoch);
        let epoch = barrier.epoch;
        self.barriers.borrow_mut().insert(epoch, barrier.clone());
        for queue in self.table_queues.borrow().values() {
            let mut queue = queue.borrow_mut();
            queue.items.push_back(TableItem::Barrier(barrier.clone()));
            queue.activator.activate();
        }
        for (_, activator) in self.barrier_listeners.borrow().iter() {
            activator.activate();
        }
    }

    /// Whoever has not passed this barrier yet lets it overtake.
    pub fn overtake(&self, epoch: Epoch) {
        self.overtaking.set(Some(epoch.0));
        for (_, activator) in self.barrier_listeners.borrow().iter() {
            activator.activate();
        }
    }

    /// The newest barrier that overtakes rows of this epoch, if one does.
    pub fn overtaking(&self, epoch: u64) -> Option<u64> {
        self.overtaking.get().filter(|last| epoch <= *last)
    }

    /// Whether inputs hold rows of this epoch back: for a synchronous checkpoint, or because all stand still.
    pub fn holds(&self, epoch: u64) -> bool {
        self.held.get().is_some_and(|(last, _)| epoch > last)
            || self.paused.get().is_some_and(|last| epoch > last)
    }

    /// Inputs go on behind the barrier at which all stood still.
    pub fn go_on(&self) {
        if self.paused.take().is_some() {
            self.wake_inputs();
        }
    }

    /// The checkpoint that state is sealed for at a barrier. A barrier whose checkpoint was aborted is an ordinary one:
    /// what was sealed for it now, nobody would ever take back.
    pub fn checkpoint_of(&self, barrier: &Barrier) -> Option<CheckpointId> {
        let aborted = self.aborted.borrow();
        barrier
            .checkpoint
            .filter(|c| aborted.iter().all(|range| !range.contains(c)))
    }

    /// Nobody on this worker asks for barriers up to this one again.
    pub fn forget_barriers(&self, passed: Epoch) {
        let mut barriers = self.barriers.borrow_mut();
        *barriers = barriers.split_off(&passed.next());
        if self.overtaking.get().is_some_and(|last| last <= passed.0) {
            self.overtaking.set(None);
        }
    }

    pub fn listen(&self, relation: RelationId, activator: Activator) {
        self.barrier_listeners
            .borrow_mut()
            .push((relation, activator));
    }

    pub fn exporter(&self, relation: RelationId) -> Rc<RefCell<Exporter>> {
        self.exporters
            .borrow_mut()
            .entry(relation)
            .or_default()
            .clone()
    }

    /// The newest barrier that a relation has passed on this worker.
    pub fn passed_by(&self, relation: RelationId) -> u64 {
        self.exporters
            .borrow()
            .get(&relation)
            .map_or(0, |e| e.borrow().passed)
    }

    /// What counts the rows on their way within a relation's dataflow.
    pub fn credits_of(&self, relation: RelationId) -> Rc<RelationCredits> {
        let mut credits = self.relation_credits.borrow_mut();
        credits
            .entry(relation)
            .or_insert_with(|| Rc::new(RelationCredits::new(self.credits.clone())))
            .clone()
    }

    /// The ids are those of the tables, in order.
    pub fn register_tables(&self, relation: RelationId, ids: Vec<TableId>, tables: &Tables) {
        self.tables
            .borrow_mut()
            .entry(relation)
            .or_default()
            .push((ids, tables.clone()));
    }

    /// Where an operator counts what it does.
    pub fn work_of(&self, relation: RelationId, operator: OperatorId) -> Rc<Work> {
        let mut work = self.work.borrow_mut();
        let of_relation = work.entry(relation).or_default();
        of_relation.entry(operator).or_default().clone()
    }

    pub fn inspect(&self, relation: RelationId) -> Inspection {
        let mut inspection = Inspection {
            worker: self.worker,
            ..Inspection::default()
        };
        for (ids, tables) in self.tables.borrow().get(&relation).into_iter().flatten() {
            for (id, table) in ids.iter().zip(tables.borrow().iter()) {
                inspection.tables.insert(*id, table.stats());
            }
        }
        for (operator, work) in self.work.borrow().get(&relation).into_iter().flatten() {
            inspection.work.insert(*operator, work.done());
        }
        inspection
    }

    /// Takes its state tables out of a relation whose dataflow is gone, for the one that comes in its place. Who reads
    /// the relation notices nothing: its exporter stays, and its contents.
    pub fn hand_over(&self, relation: RelationId) -> HashMap<TableId, Box<dyn Table>> {
        let tables = self.tables.borrow_mut().remove(&relation);
        let mut handed = HashMap::new();
        for (ids, tables) in tables.into_iter().flatten() {
            handed.extend(ids.into_iter().zip(tables.borrow_mut().drain(..)));
        }
        self.sign_out(relation);
        handed
    }

    /// The contents of a view, once there are some.
    pub fn view(&self, relation: RelationId) -> Option<Arc<ViewStore>> {
        self.views.borrow().get(&relation).cloned()
    }

    pub fn register_view(&self, relation: RelationId, view: &Arc<ViewStore>) {
        self.views.borrow_mut().insert(relation, view.clone());
    }

    pub fn checkpoint_completed(&self, checkpoint: CheckpointId) -> Result<(), StateError> {
        self.let_go(checkpoint);
        for (_, tables) in self.tables.borrow().values().flatten() {
            for table in tables.borrow_mut().iter_mut() {
                table.completed(checkpoint)?;
            }
        }
        for view in self.views.borrow().values() {
            view.completed(checkpoint)?;
        }
        Ok(())
    }

    /// Inputs go on behind a synchronous checkpoint.
    fn let_go(&self, ended: CheckpointId) {
        if self.held.get().is_none_or(|(_, held)| held > ended) {
            return;
        }
        self.held.set(None);
        self.wake_inputs();
    }

    fn wake_inputs(&self) {
        for queue in self.table_queues.borrow().values() {
            queue.borrow().activator.activate();
        }
        for (_, activator) in self.barrier_listeners.borrow().iter() {
            activator.activate();
        }
    }

    pub fn checkpoints_aborted(&self, checkpoints: RangeInclusive<CheckpointId>) {
        let checkpoint = *checkpoints.start();
        self.let_go(*checkpoints.end());
        // Who has not passed yet need not overtake: the barrier is an ordinary one now.
        let is_theirs = |b: &Barrier| b.checkpoint.is_some_and(|c| checkpoints.contains(&c));
        if let Some(last) = self.overtaking.get()
            && self.barrier(last).as_ref().is_some_and(is_theirs)
        {
            self.overtaking.set(None);
        }
        {
            let mut aborted = self.aborted.borrow_mut();
            aborted.push_back(checkpoints);
            if aborted.len() > REMEMBERED_ABORTS {
                aborted.pop_front();
            }
        }
        for (_, tables) in self.tables.borrow().values().flatten() {
            for table in tables.borrow_mut().iter_mut() {
                table.aborted(checkpoint);
            }
        }
        for view in self.views.borrow().values() {
            view.aborted(checkpoint);
        }
    }

    /// Forgets everything of a relation that was dropped.
    pub fn forget(&self, relation: RelationId) {
        self.sign_out(relation);
        self.exporters.borrow_mut().remove(&relation);
        self.tables.borrow_mut().remove(&relation);
        self.work.borrow_mut().remove(&relation);
        self.views.borrow_mut().remove(&relation);
        self.errors.forget(relation, self.worker);
    }

    /// Forgets what a relation's drivers have asked for.
    fn sign_out(&self, relation: RelationId) {
        self.board.borrow_mut().forget(relation);
        self.barrier_listeners
            .borrow_mut()
            .retain(|(r, _)| *r != relation);
        for exporter in self.exporters.borrow().values() {
            exporter
                .borrow_mut()
                .subscribers
                .retain(|s| s.importer != relation);
        }
        self.table_queues.borrow_mut().remove(&relation);
        self.relation_credits.borrow_mut().remove(&relation);
    }
}

//! The driver of one operator on one worker: everything around the algebra.
//!
//! It keeps batches of later epochs in a stash until their turn, hands the operator its batches and barriers, sends what
//! it emits, counts credits, keeps the error Z-set, seals state at checkpoints, and yields after bounded work.
//!
//! What happens to rows around a barrier is decided here and nowhere else:
//!
//! - *Exactly-once*: rows of a later epoch wait in the stash until the barrier has come from everywhere.
//! - *At-least-once*: they are processed at once, where nothing is ever retracted from the inputs. A checkpoint then holds
//!   their effect although its offsets lie before them.
//! - *Unaligned*: a barrier that [overtakes](Hub::overtaking) waits only until all rows in front of it have arrived here,
//!   which is what the input frontier says, and not until they are processed. The operator settles what it has processed
//!   and sends what comes of it; the rest of the stash is stored with the checkpoint and becomes part of the next epoch.
//!   Since what is sent goes out at the old epoch, whoever is downstream has it when the frontier lets the barrier pass
//!   there, so that it is processed or in their stash: nothing is left in a channel.

use crate::board::Settled;
use crate::credits::RelationCredits;
use crate::error_board::ErrorKey;
use crate::hub::{Hub, Tables};
use crate::in_flight;
use crate::packet::Packet;
use crate::policy::RelationChoices;
use crate::work::Work;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_dataflow::{Cx, Operator, OperatorError, Port, Progress, RowError};
use tidegate_state::{Cell, Change, Run, Table};
use tidegate_types::{Barrier, Batch, CheckpointId, Epoch, OperatorId, RelationId, Watermarks};
use timely::dataflow::channels::pushers::Output;
use timely::dataflow::operators::Capability;
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::Activator;

/// Rows that an operator may emit before the driver lets others run.
const OUTPUT_BUDGET_ROWS: usize = 65_536;
/// Batches that a driver processes in one activation.
const BATCHES_PER_ACTIVATION: usize = 16;
/// After so long it lets others run even if it has processed fewer: a barrier has to get past slow operators.
const LONGEST_ACTIVATION: Duration = Duration::from_millis(5);

/// Where a driver sends what its operator emits.
pub(crate) struct Outlet {
    output: Output<u64, Packet>,
    consumers: usize,
    credits: Rc<RelationCredits>,
    work: Rc<Work>,
}

impl Outlet {
    pub fn new(
        output: Output<u64, Packet>,
        consumers: usize,
        credits: Rc<RelationCredits>,
        work: Rc<Work>,
    ) -> Self {
        Self {
            output,
            consumers,
            credits,
            work,
        }
    }

    pub fn send(&mut self, capability: &Capability<u64>, batches: &mut Vec<Batch>) {
        if batches.is_empty() {
            return;
        }
        let mut session = self.output.activate();
        for batch in batches.drain(..) {
            self.work.gave(batch.num_rows());
            if self.consumers > 0 && !batch.is_empty() {
                self.credits.sent(batch.num_rows() * self.consumers);
                session.give(capability, &mut Packet(Some(batch)));
            }
        }
    }
}

/// Pulls everything that has arrived through one input.
pub(crate) type Inlet = Box<dyn FnMut(&mut dyn FnMut(u64, Batch))>;

/// The smallest epoch that may still arrive; `u64::MAX` without inputs.
pub(crate) fn lowest(frontiers: &[MutableAntichain<u64>]) -> u64 {
    frontiers
        .iter()
        .map(|f| f.frontier().first().copied().unwrap_or(u64::MAX))
        .min()
        .unwrap_or(u64::MAX)
}

/// Batches that have arrived and are not processed yet, by epoch.
#[derive(Default)]
pub(crate) struct Stash {
    epochs: BTreeMap<u64, VecDeque<(Port, Batch)>>,
}

impl Stash {
    pub fn fill(&mut self, inlets: &mut [Inlet]) {
        for (port, inlet) in inlets.iter_mut().enumerate() {
            inlet(&mut |epoch, batch| {
                self.epochs
                    .entry(epoch)
                    .or_default()
                    .push_back((port, batch))
            });
        }
    }

    /// The next batch of this epoch, or with `early` of whichever comes first.
    pub fn pop(&mut self, epoch: u64, early: bool) -> Option<(Port, Batch)> {
        let epoch = match early {
            true => *self.epochs.keys().next()?,
            false => epoch,
        };
        let queue = self.epochs.get_mut(&epoch)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.epochs.remove(&epoch);
        }
        item
    }
}

impl Stash {
    pub fn has(&self, epoch: u64) -> bool {
        self.epochs.contains_key(&epoch)
    }

    /// Makes all that waits up to and including the epoch `last` part of the next, in front of what that has already: it
    /// came through the same channels before. Answers it.
    pub fn overtake(&mut self, last: u64) -> Vec<(Port, Batch)> {
        let later = self.epochs.split_off(&(last + 1));
        let overtaken = std::mem::replace(&mut self.epochs, later);
        let overtaken: VecDeque<_> = overtaken.into_values().flatten().collect();
        let answer = overtaken.iter().cloned().collect();
        if !overtaken.is_empty() {
            let next = self.epochs.entry(last + 1).or_default();
            let came_later = std::mem::replace(next, overtaken);
            next.extend(came_later);
        }
        answer
    }

    /// Rows that were in flight when the checkpoint was taken from which everything goes on.
    pub fn restore(&mut self, epoch: u64, batches: Vec<(Port, Batch)>) {
        if !batches.is_empty() {
            self.epochs.entry(epoch).or_default().extend(batches);
        }
    }
}

/// What every driver is made from.
pub(crate) struct NodeContext {
    pub hub: Rc<Hub>,
    pub credits: Rc<RelationCredits>,
    pub work: Rc<Work>,
    pub relation: RelationId,
    pub relation_name: String,
    pub operator: OperatorId,
    pub activator: Activator,
    pub start: u64,
    /// The relation's choices, if nothing is ever retracted from the node's inputs: then it may process early epochs.
    pub may_be_early: Option<Arc<RelationChoices>>,
    /// Checkpoints hold its state. They do not while its plan is only being built beside the one that runs.
    pub is_durable: bool,
    /// Rows that were in flight in front of the node when its state was saved.
    pub in_flight: Vec<(Port, Batch)>,
}

impl NodeContext {
    /// Whether batches of later epochs are processed as they come.
    pub fn is_early(&self) -> bool {
        let policy = self.hub.coordinator.policy();
        let choices = self.may_be_early.as_ref();
        choices.is_some_and(|choices| choices.is_at_least_once(policy))
    }

    /// The checkpoint that its state is sealed for at a barrier.
    pub fn checkpoint_of(&self, barrier: &Barrier) -> Option<CheckpointId> {
        self.hub.checkpoint_of(barrier).filter(|_| self.is_durable)
    }

    /// The barrier for an operator: no watermark holds for a relation that still reads history.
    fn own_barrier<'a>(&self, barrier: &'a Barrier) -> Cow<'a, Barrier> {
        if !barrier.watermarks.catching_up.contains(&self.relation) {
            return Cow::Borrowed(barrier);
        }
        Cow::Owned(Barrier {
            watermarks: Watermarks::default(),
            ..barrier.clone()
        })
    }

    /// A stash with what was in flight when the node's state was saved.
    pub fn restored_stash(&mut self) -> Stash {
        let in_flight = std::mem::take(&mut self.in_flight);
        self.credits
            .sent(in_flight.iter().map(|(_, b)| b.num_rows()).sum());
        let mut stash = Stash::default();
        stash.restore(self.start, in_flight);
        stash
    }

    /// The run in which a checkpoint keeps what its barrier has overtaken here.
    pub fn overtaken_run(
        &self,
        checkpoint: CheckpointId,
        batches: Vec<(Port, Batch)>,
    ) -> Option<Run> {
        let table = in_flight::table(self.relation, self.operator, checkpoint);
        in_flight::pack(table, self.hub.worker, batches)
    }

    /// Stops the worker: state can be trusted no longer, and the last checkpoint is where to go on from.
    pub fn fail(&self, error: impl std::fmt::Display) -> ! {
        std::panic::panic_any(WorkerFailure {
            relation: Some(self.relation),
            message: format!(
                "operator {} of \"{}\": {error}",
                self.operator, self.relation_name
            ),
        })
    }
}

/// Why a worker stopped; what its panic carries.
#[derive(Debug, Clone)]
pub(crate) struct WorkerFailure {
    pub relation: Option<RelationId>,
    pub message: String,
}

#[derive(PartialEq)]
enum Stage {
    /// The operator tells its present output, for operators that are built anew above it.
    Replay,
    Batches,
    /// The operator answered `More` to a batch.
    ResumeBatch,
    /// The operator answered `More` to the barrier of the current epoch.
    ResumeBarrier,
}

pub(crate) struct OperatorDriver {
    cx: NodeContext,
    operator: Box<dyn Operator>,
    tables: Tables,
    /// The table behind the error Z-set; the last of `tables`.
    has_error_table: bool,
    inlets: Vec<Inlet>,
    stash: Stash,
    outlet: Outlet,
    capability: Capability<u64>,
    epoch: u64,
    /// The epoch whose barrier is being processed: `epoch`, or a later one that overtakes.
    closing: u64,
    stage: Stage,
    emitted: Vec<Batch>,
    errors: Vec<RowError>,
    /// Where the present output goes, until all of it has been told.
    replay: Option<(Outlet, Capability<u64>)>,
}

impl OperatorDriver {
    pub fn new(
        mut cx: NodeContext,
        operator: Box<dyn Operator>,
        tables: Tables,
        has_error_table: bool,
        inlets: Vec<Inlet>,
        outlet: Outlet,
        mut capability: Capability<u64>,
    ) -> Self {
        capability.downgrade(&cx.start);
        cx.hub.board.borrow_mut().sign_in(cx.relation);
        if inlets.is_empty() {
            cx.hub.listen(cx.relation, cx.activator.clone());
        }
        let epoch = cx.start;
        let stash = cx.restored_stash();
        cx.activator.activate();
        Self {
            cx,
            operator,
            tables,
            has_error_table,
            inlets,
            stash,
            outlet,
            capability,
            epoch,
            closing: epoch,
            stage: Stage::Batches,
            emitted: Vec::new(),
            errors: Vec::new(),
            replay: None,
        }
    }

    /// Has the operator tell its present output first, through an outlet of its own.
    pub fn with_replay(mut self, outlet: Outlet, mut capability: Capability<u64>) -> Self {
        capability.downgrade(&self.epoch);
        self.replay = Some((outlet, capability));
        self.stage = Stage::Replay;
        self
    }

    /// One activation.
    pub fn run(&mut self, frontiers: &[MutableAntichain<u64>]) {
        self.stash.fill(&mut self.inlets);
        let arriving = lowest(frontiers);
        let started = Instant::now();
        for _ in 0..BATCHES_PER_ACTIVATION {
            if !self.step(arriving) {
                return;
            }
            self.outlet.send(&self.capability, &mut self.emitted);
            // Frontiers move between activations only, and a barrier that overtakes waits for nothing else.
            if self.cx.hub.overtaking(self.epoch).is_some()
                || started.elapsed() >= LONGEST_ACTIVATION
            {
                break;
            }
        }
        self.cx.activator.activate();
    }

    /// Does one piece of work; `false` when there is none to do now.
    fn step(&mut self, arriving: u64) -> bool {
        if self.stage == Stage::Replay {
            self.tell();
            return true;
        }
        if self.stage != Stage::Batches {
            let progress = self.call(|operator, cx| operator.resume(cx));
            if progress == Progress::Done {
                match std::mem::replace(&mut self.stage, Stage::Batches) {
                    Stage::ResumeBarrier => self.close_epoch(),
                    Stage::ResumeBatch | Stage::Batches | Stage::Replay => {}
                }
            }
            return true;
        }
        let overtaking = self.cx.hub.overtaking(self.epoch);
        if let Some(last) = overtaking.filter(|last| arriving > *last && self.stash.has(self.epoch))
            && let Some(barrier) = self.cx.hub.barrier(last)
        {
            self.begin_barrier(&barrier);
            return true;
        }
        // A barrier that has come from everywhere goes first.
        let early = arriving <= self.epoch && self.cx.is_early();
        if let Some((port, batch)) = self.stash.pop(self.epoch, early) {
            #[cfg(debug_assertions)]
            crate::failpoint::operator_batch(&self.cx.relation_name, self.cx.hub.worker);
            let rows = batch.num_rows();
            self.cx.work.took(rows);
            if self.call(|operator, cx| operator.on_batch(port, batch, cx)) == Progress::More {
                self.stage = Stage::ResumeBatch;
            }
            self.cx.credits.processed(rows);
            return true;
        }
        if arriving <= self.epoch {
            return false;
        }
        let Some(barrier) = self.cx.hub.barrier(self.epoch) else {
            return false;
        };
        self.begin_barrier(&barrier);
        true
    }

    /// Tells a piece of the present output. It comes before all changes of the first epoch, of which it is a part.
    fn tell(&mut self) {
        let progress = self.call(|operator, cx| operator.replay(cx));
        // They stand already.
        self.errors.clear();
        let (outlet, capability) = self
            .replay
            .as_mut()
            .expect("this stage lasts until everything has been told");
        outlet.send(capability, &mut self.emitted);
        if progress == Progress::Done {
            self.replay = None;
            self.stage = Stage::Batches;
        }
    }

    /// Gives the operator the barrier of the current epoch, or of a later one that overtakes.
    fn begin_barrier(&mut self, barrier: &Barrier) {
        self.closing = barrier.epoch.0;
        #[cfg(debug_assertions)]
        crate::failpoint::operator_barrier(
            &self.cx.relation_name,
            self.cx.hub.worker,
            self.epoch == self.cx.start,
        );
        let own = self.cx.own_barrier(barrier);
        match self.call(|operator, cx| operator.on_barrier(&own, cx)) {
            Progress::Done => self.close_epoch(),
            Progress::More => self.stage = Stage::ResumeBarrier,
        }
    }

    fn call(
        &mut self,
        work: impl FnOnce(&mut dyn Operator, &mut Cx<'_>) -> Result<Progress, OperatorError>,
    ) -> Progress {
        let mut tables = self.tables.borrow_mut();
        let own = tables.len() - usize::from(self.has_error_table);
        let mut cx = Cx::new(
            &mut tables[..own],
            &mut self.emitted,
            &mut self.errors,
            OUTPUT_BUDGET_ROWS,
        );
        let progress = work(self.operator.as_mut(), &mut cx);
        if let Some(time_ms) = cx.wanted_at() {
            self.cx.hub.coordinator.act_at(time_ms);
        }
        match progress {
            Ok(progress) => progress,
            Err(error) => self.cx.fail(error),
        }
    }

    /// Passes the barrier that the operator has settled, and all before it that it overtakes.
    fn close_epoch(&mut self) {
        let barrier = self
            .cx
            .hub
            .barrier(self.closing)
            .expect("the barrier was there when the epoch began to close");
        self.outlet.send(&self.capability, &mut self.emitted);
        self.settle_errors();
        let started = Instant::now();
        let checkpoint = self.cx.checkpoint_of(&barrier);
        let mut runs = match seal(&self.tables, checkpoint) {
            Ok(runs) => runs,
            Err(error) => self.cx.fail(error),
        };
        let overtaken = self.stash.overtake(self.closing);
        let is_overtaken = self.closing > self.epoch || !overtaken.is_empty();
        if let Some(checkpoint) = checkpoint {
            runs.extend(self.cx.overtaken_run(checkpoint, overtaken));
        }
        let micros = started.elapsed().as_micros() as u64;
        let mut board = self.cx.hub.board.borrow_mut();
        for epoch in (self.epoch..=self.closing).map(Epoch) {
            if is_overtaken {
                board.overtaken(epoch);
            }
            if epoch < barrier.epoch {
                board.pass(self.cx.relation, epoch, Settled::nothing(self.cx.operator));
            }
        }
        let operator = self.cx.operator;
        let settled = Settled {
            operator,
            runs,
            micros,
        };
        board.pass(self.cx.relation, barrier.epoch, settled);
        drop(board);
        self.epoch = self.closing + 1;
        self.capability.downgrade(&self.epoch);
    }

    /// Adds the epoch's failed rows to the error table, once per distinct error.
    fn settle_errors(&mut self) {
        if self.errors.is_empty() {
            return;
        }
        let mut changes: HashMap<ErrorKey, i64> = HashMap::new();
        for error in self.errors.drain(..) {
            let key = ErrorKey {
                operator: self.cx.operator,
                state: error.state.code().to_owned(),
                message: error.message,
                row: error.row,
            };
            *changes.entry(key).or_default() += error.diff;
        }
        let mut tables = self.tables.borrow_mut();
        let table = tables
            .last_mut()
            .expect("operators that can fail rows have an error table");
        let (hub, relation) = (&self.cx.hub, self.cx.relation);
        let writer = format!("{}.{}", self.cx.start, hub.worker);
        for (key, diff) in changes {
            if let Err(error) = add_to_error(table.as_mut(), &key, &writer, diff) {
                self.cx.fail(error);
            }
            if self.cx.is_durable {
                hub.errors.add(relation, hub.worker, key, diff);
            }
        }
    }
}

/// What changed in these tables, for a checkpoint.
pub(crate) fn seal(
    tables: &Tables,
    checkpoint: Option<CheckpointId>,
) -> Result<Vec<Run>, tidegate_state::StateError> {
    let Some(checkpoint) = checkpoint else {
        return Ok(Vec::new());
    };
    let mut runs = Vec::new();
    for table in tables.borrow_mut().iter_mut() {
        runs.extend(table.seal(checkpoint)?);
    }
    Ok(runs)
}

/// Who writes is part of the key: an error is restored on the worker of its key group, the row that failed may be another's,
/// and counts of two writers add up only if neither replaces the other's.
fn add_to_error(
    table: &mut dyn Table,
    key: &ErrorKey,
    writer: &str,
    diff: i64,
) -> Result<(), tidegate_state::StateError> {
    let bytes = serde_json::to_vec(&(&key.state, &key.message, &key.row, writer))
        .expect("strings are plain data");
    let mut count = diff;
    table.get_many(&[Cell::key(&bytes)], &mut |_, value| {
        if let Some(value) = value {
            count += decode_count(value);
        }
    })?;
    let value = count.to_le_bytes();
    let change = Change {
        cell: Cell::key(&bytes),
        value: (count != 0).then_some(&value[..]),
    };
    table.write_many(&[change])
}

fn decode_count(value: &[u8]) -> i64 {
    i64::from_le_bytes(value.try_into().expect("error counts are eight bytes"))
}

/// Puts restored errors back on the board.
pub(crate) fn show_restored_errors(
    hub: &Hub,
    relation: RelationId,
    operator: OperatorId,
    table: &dyn Table,
) -> Result<(), tidegate_state::StateError> {
    table.scan_all(&mut |_, key, _, value| {
        if let Ok([state, message, row, _writer]) = serde_json::from_slice::<[String; 4]>(key) {
            let key = ErrorKey {
                operator,
                state,
                message,
                row,
            };
            hub.errors
                .add(relation, hub.worker, key, decode_count(value));
        }
        std::ops::ControlFlow::Continue(())
    })
}

//! The driver of one operator on one worker: everything around the algebra.
//!
//! It keeps batches of later epochs in a stash until their turn, hands the operator its batches and barriers, sends what
//! it emits, counts credits, keeps the error Z-set, seals state at checkpoints, and yields after bounded work.
//!
//! This is exactly-once: an early epoch waits. The stash is the only place where that is decided.

use crate::credits::RelationCredits;
use crate::error_board::ErrorKey;
use crate::hub::{Hub, Tables};
use crate::packet::Packet;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;
use tidegate_dataflow::{Cx, Operator, OperatorError, Port, Progress, RowError};
use tidegate_state::{Cell, Change, Run, Table};
use tidegate_types::{Barrier, Batch, OperatorId, RelationId};
use timely::dataflow::channels::pushers::Output;
use timely::dataflow::operators::Capability;
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::Activator;

/// Rows that an operator may emit before the driver lets others run.
const OUTPUT_BUDGET_ROWS: usize = 65_536;
/// Batches that a driver processes in one activation.
const BATCHES_PER_ACTIVATION: usize = 16;

/// Where a driver sends what its operator emits.
pub(crate) struct Outlet {
    output: Output<u64, Packet>,
    consumers: usize,
    credits: Rc<RelationCredits>,
}

impl Outlet {
    pub fn new(
        output: Output<u64, Packet>,
        consumers: usize,
        credits: Rc<RelationCredits>,
    ) -> Self {
        Self {
            output,
            consumers,
            credits,
        }
    }

    pub fn send(&mut self, capability: &Capability<u64>, batches: &mut Vec<Batch>) {
        if batches.is_empty() {
            return;
        }
        let mut session = self.output.activate();
        for batch in batches.drain(..) {
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

    pub fn pop(&mut self, epoch: u64) -> Option<(Port, Batch)> {
        let queue = self.epochs.get_mut(&epoch)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.epochs.remove(&epoch);
        }
        item
    }
}

/// What every driver is made from.
pub(crate) struct NodeContext {
    pub hub: Rc<Hub>,
    pub credits: Rc<RelationCredits>,
    pub relation: RelationId,
    pub relation_name: String,
    pub operator: OperatorId,
    pub activator: Activator,
    pub start: u64,
}

impl NodeContext {
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
    stage: Stage,
    emitted: Vec<Batch>,
    errors: Vec<RowError>,
}

impl OperatorDriver {
    pub fn new(
        cx: NodeContext,
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
        Self {
            cx,
            operator,
            tables,
            has_error_table,
            inlets,
            stash: Stash::default(),
            outlet,
            capability,
            epoch,
            stage: Stage::Batches,
            emitted: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// One activation.
    pub fn run(&mut self, frontiers: &[MutableAntichain<u64>]) {
        self.stash.fill(&mut self.inlets);
        let arriving = lowest(frontiers);
        for _ in 0..BATCHES_PER_ACTIVATION {
            if !self.step(arriving) {
                return;
            }
            self.outlet.send(&self.capability, &mut self.emitted);
        }
        self.cx.activator.activate();
    }

    /// Does one piece of work; `false` when there is none to do now.
    fn step(&mut self, arriving: u64) -> bool {
        if self.stage != Stage::Batches {
            let progress = self.call(|operator, cx| operator.resume(cx));
            if progress == Progress::Done {
                match std::mem::replace(&mut self.stage, Stage::Batches) {
                    Stage::ResumeBarrier => self.close_epoch(),
                    Stage::ResumeBatch | Stage::Batches => {}
                }
            }
            return true;
        }
        if let Some((port, batch)) = self.stash.pop(self.epoch) {
            let rows = batch.num_rows();
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
        #[cfg(debug_assertions)]
        crate::failpoint::operator_barrier(&self.cx.relation_name);
        match self.call(|operator, cx| operator.on_barrier(&barrier, cx)) {
            Progress::Done => self.close_epoch(),
            Progress::More => self.stage = Stage::ResumeBarrier,
        }
        true
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
        match work(self.operator.as_mut(), &mut cx) {
            Ok(progress) => progress,
            Err(error) => self.cx.fail(error),
        }
    }

    fn close_epoch(&mut self) {
        let barrier = self
            .cx
            .hub
            .barrier(self.epoch)
            .expect("the barrier was there when the epoch began to close");
        self.outlet.send(&self.capability, &mut self.emitted);
        self.settle_errors();
        let started = Instant::now();
        let runs = match seal(&self.tables, &barrier) {
            Ok(runs) => runs,
            Err(error) => self.cx.fail(error),
        };
        let micros = started.elapsed().as_micros() as u64;
        self.cx
            .hub
            .board
            .borrow_mut()
            .pass(self.cx.relation, barrier.epoch, runs, micros);
        self.epoch += 1;
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
        for (key, diff) in changes {
            match add_to_error(table.as_mut(), &key, diff) {
                Ok(count) => {
                    self.cx
                        .hub
                        .errors
                        .set(self.cx.relation, self.cx.hub.worker, key, count)
                }
                Err(error) => self.cx.fail(error),
            }
        }
    }
}

/// What changed in these tables, when the barrier is a checkpoint's.
pub(crate) fn seal(
    tables: &Tables,
    barrier: &Barrier,
) -> Result<Vec<Run>, tidegate_state::StateError> {
    let Some(checkpoint) = barrier.checkpoint else {
        return Ok(Vec::new());
    };
    let mut runs = Vec::new();
    for table in tables.borrow_mut().iter_mut() {
        runs.extend(table.seal(checkpoint)?);
    }
    Ok(runs)
}

fn add_to_error(
    table: &mut dyn Table,
    key: &ErrorKey,
    diff: i64,
) -> Result<i64, tidegate_state::StateError> {
    let bytes =
        serde_json::to_vec(&(&key.state, &key.message, &key.row)).expect("strings are plain data");
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
    table.write_many(&[change])?;
    Ok(count)
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
        if let Ok((state, message, row)) = serde_json::from_slice(key) {
            let key = ErrorKey {
                operator,
                state,
                message,
                row,
            };
            hub.errors
                .set(relation, hub.worker, key, decode_count(value));
        }
        std::ops::ControlFlow::Continue(())
    })
}

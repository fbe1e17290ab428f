//! Where a dataflow ends: in a view store, or in a sink.
//!
//! Both collect an epoch's batches and act at its barrier, so that nothing of an epoch is seen before all of it is. When a
//! barrier overtakes, what was collected may be part of an epoch: it is stored with the checkpoint and becomes part of the
//! next. So a view's store, whoever reads or imports the view, and a sink's output only ever have whole epochs.

use crate::board::Settled;
use crate::driver::{Inlet, NodeContext, Stash, lowest};
use crate::hub::{Exported, Exporter};
use crate::taking_over::First;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tidegate_connectors::SinkWriter;
use tidegate_state::{Run, ViewStore};
use tidegate_types::{Barrier, Batch, Epoch};
use timely::progress::frontier::MutableAntichain;

/// What happens with an epoch's rows at its barrier.
trait Ending {
    fn close(&mut self, cx: &NodeContext, barrier: &Barrier, batches: Vec<Batch>);

    /// The barrier has overtaken its epoch, of which `in_flight` was stored if it is a checkpoint's.
    fn overtaken(&mut self, cx: &NodeContext, barrier: &Barrier, in_flight: Option<Run>);
}

/// The driver of a root on one worker.
pub(crate) struct RootDriver {
    cx: NodeContext,
    inlets: Vec<Inlet>,
    stash: Stash,
    epoch: u64,
    batches: Vec<Batch>,
    ending: Box<dyn Ending>,
}

impl RootDriver {
    pub fn materialize(
        cx: NodeContext,
        inlet: Inlet,
        store: Arc<ViewStore>,
        exporter: Rc<RefCell<Exporter>>,
        first: First,
    ) -> Self {
        exporter.borrow_mut().passed = cx.start - 1;
        let ending = Materialize {
            store,
            exporter,
            exported: first.exported,
        };
        let mut driver = Self::new(cx, inlet, Box::new(ending));
        driver.batches = first.changes;
        driver
    }

    /// The root of a plan that is built beside another: its rows are collected, and nobody sees them yet.
    pub fn collect(cx: NodeContext, inlet: Inlet, store: Arc<ViewStore>) -> Self {
        Self::new(cx, inlet, Box::new(Collect { store }))
    }

    pub fn sink(cx: NodeContext, inlet: Inlet, writer: Box<dyn SinkWriter>) -> Self {
        Self::new(cx, inlet, Box::new(SinkRoot { writer }))
    }

    fn new(mut cx: NodeContext, inlet: Inlet, ending: Box<dyn Ending>) -> Self {
        cx.hub.board.borrow_mut().sign_in(cx.relation);
        let epoch = cx.start;
        let stash = cx.restored_stash();
        cx.activator.activate();
        Self {
            cx,
            inlets: vec![inlet],
            stash,
            epoch,
            batches: Vec::new(),
            ending,
        }
    }

    pub fn run(&mut self, frontiers: &[MutableAntichain<u64>]) {
        self.stash.fill(&mut self.inlets);
        let arriving = lowest(frontiers);
        loop {
            let early = arriving <= self.epoch && self.cx.is_early();
            while let Some((_, batch)) = self.stash.pop(self.epoch, early) {
                self.cx.credits.processed(batch.num_rows());
                self.cx.work.took(batch.num_rows());
                self.batches.push(batch);
            }
            if arriving <= self.epoch {
                return;
            }
            if let Some(last) = self.cx.hub.overtaking(self.epoch)
                && !self.batches.is_empty()
            {
                // Whether the epoch is whole can only be known upstream.
                if arriving <= last || self.cx.hub.barrier(last).is_none() {
                    return;
                }
                self.overtake(last);
                continue;
            }
            let Some(barrier) = self.cx.hub.barrier(self.epoch) else {
                return;
            };
            self.ending
                .close(&self.cx, &barrier, std::mem::take(&mut self.batches));
            self.epoch += 1;
        }
    }
}

impl RootDriver {
    /// All that has come up to and including this epoch becomes part of the next.
    fn overtake(&mut self, last: u64) {
        let waiting = self.stash.overtake(last);
        let collected = self.batches.iter().cloned().map(|batch| (0, batch));
        let mut in_flight: Vec<_> = collected.chain(waiting).collect();
        for epoch in self.epoch..=last {
            let barrier = self.cx.hub.barrier(epoch);
            let barrier = barrier.expect("a barrier stays until every driver has passed it");
            self.cx.hub.board.borrow_mut().overtaken(barrier.epoch);
            let run = match self.cx.checkpoint_of(&barrier) {
                Some(checkpoint) => {
                    let in_flight = std::mem::take(&mut in_flight);
                    self.cx.overtaken_run(checkpoint, in_flight)
                }
                None => None,
            };
            self.ending.overtaken(&self.cx, &barrier, run);
        }
        self.epoch = last + 1;
    }
}

struct Materialize {
    store: Arc<ViewStore>,
    exporter: Rc<RefCell<Exporter>>,
    /// Changes that are in the store already, for those who read the view, with the first epoch.
    exported: Vec<Batch>,
}

impl Ending for Materialize {
    fn close(&mut self, cx: &NodeContext, barrier: &Barrier, batches: Vec<Batch>) {
        let epoch: Epoch = barrier.epoch;
        for batch in std::mem::take(&mut self.exported).iter().chain(&batches) {
            self.exporter
                .borrow()
                .export(|| Exported::Rows(epoch, batch.clone()));
        }
        if let Err(error) = self.store.append(epoch, batches) {
            cx.fail(error);
        }
        self.pass(cx, barrier, None);
    }

    fn overtaken(&mut self, cx: &NodeContext, barrier: &Barrier, in_flight: Option<Run>) {
        self.pass(cx, barrier, in_flight);
    }
}

impl Materialize {
    fn pass(&mut self, cx: &NodeContext, barrier: &Barrier, in_flight: Option<Run>) {
        let started = Instant::now();
        let run = match cx
            .hub
            .checkpoint_of(barrier)
            .map(|checkpoint| self.store.seal(checkpoint, barrier.epoch))
        {
            None => None,
            Some(Ok(run)) => run,
            Some(Err(error)) => cx.fail(error),
        };
        let micros = started.elapsed().as_micros() as u64;
        let runs = run.into_iter().chain(in_flight).collect();
        let settled = Settled {
            operator: cx.operator,
            runs,
            micros,
        };
        let mut board = cx.hub.board.borrow_mut();
        board.pass(cx.relation, barrier.epoch, settled);
        drop(board);
        self.exporter.borrow_mut().passed = barrier.epoch.0;
        self.exporter
            .borrow()
            .export(|| Exported::Passed(barrier.clone()));
    }
}

struct Collect {
    store: Arc<ViewStore>,
}

impl Ending for Collect {
    fn close(&mut self, cx: &NodeContext, barrier: &Barrier, batches: Vec<Batch>) {
        if let Err(error) = self.store.append(barrier.epoch, batches) {
            cx.fail(error);
        }
        self.overtaken(cx, barrier, None);
    }

    fn overtaken(&mut self, cx: &NodeContext, barrier: &Barrier, _in_flight: Option<Run>) {
        cx.hub
            .board
            .borrow_mut()
            .pass(cx.relation, barrier.epoch, Settled::nothing(cx.operator));
    }
}

struct SinkRoot {
    writer: Box<dyn SinkWriter>,
}

impl Ending for SinkRoot {
    fn close(&mut self, cx: &NodeContext, barrier: &Barrier, batches: Vec<Batch>) {
        for batch in &batches {
            if let Err(error) = self.writer.write(barrier.epoch, batch) {
                cx.fail(error);
            }
        }
        self.pass(cx, barrier, None);
    }

    fn overtaken(&mut self, cx: &NodeContext, barrier: &Barrier, in_flight: Option<Run>) {
        self.pass(cx, barrier, in_flight);
    }
}

impl SinkRoot {
    fn pass(&mut self, cx: &NodeContext, barrier: &Barrier, in_flight: Option<Run>) {
        if let Some(checkpoint) = cx.hub.checkpoint_of(barrier) {
            match self.writer.prepare(checkpoint) {
                Ok(None) => {}
                Ok(Some(token)) => cx
                    .hub
                    .coordinator
                    .sink_prepared(cx.relation, checkpoint, token),
                Err(error) => cx.fail(error),
            }
        }
        let settled = Settled {
            runs: in_flight.into_iter().collect(),
            ..Settled::nothing(cx.operator)
        };
        let mut board = cx.hub.board.borrow_mut();
        board.pass(cx.relation, barrier.epoch, settled);
    }
}

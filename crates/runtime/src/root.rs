//! Where a dataflow ends: in a view store, or in a sink.
//!
//! Both collect an epoch's batches and act at its barrier, so that nothing of an epoch is seen before all of it is.

use crate::driver::{Inlet, NodeContext, Stash, lowest};
use crate::hub::{Exported, Exporter};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tidegate_connectors::SinkWriter;
use tidegate_state::ViewStore;
use tidegate_types::{Barrier, Batch, Epoch};
use timely::progress::frontier::MutableAntichain;

/// What happens with an epoch's rows at its barrier.
trait Ending {
    fn close(&mut self, cx: &NodeContext, barrier: &Barrier, batches: Vec<Batch>);
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
    ) -> Self {
        exporter.borrow_mut().passed = cx.start - 1;
        Self::new(cx, inlet, Box::new(Materialize { store, exporter }))
    }

    pub fn sink(cx: NodeContext, inlet: Inlet, writer: Box<dyn SinkWriter>) -> Self {
        Self::new(cx, inlet, Box::new(SinkRoot { writer }))
    }

    fn new(cx: NodeContext, inlet: Inlet, ending: Box<dyn Ending>) -> Self {
        cx.hub.board.borrow_mut().sign_in(cx.relation);
        let epoch = cx.start;
        Self {
            cx,
            inlets: vec![inlet],
            stash: Stash::default(),
            epoch,
            batches: Vec::new(),
            ending,
        }
    }

    pub fn run(&mut self, frontiers: &[MutableAntichain<u64>]) {
        self.stash.fill(&mut self.inlets);
        let arriving = lowest(frontiers);
        loop {
            while let Some((_, batch)) = self.stash.pop(self.epoch) {
                self.cx.credits.processed(batch.num_rows());
                self.batches.push(batch);
            }
            if arriving <= self.epoch {
                return;
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

struct Materialize {
    store: Arc<ViewStore>,
    exporter: Rc<RefCell<Exporter>>,
}

impl Ending for Materialize {
    fn close(&mut self, cx: &NodeContext, barrier: &Barrier, batches: Vec<Batch>) {
        let epoch: Epoch = barrier.epoch;
        for batch in &batches {
            self.exporter
                .borrow()
                .export(|| Exported::Rows(epoch, batch.clone()));
        }
        if let Err(error) = self.store.append(epoch, batches) {
            cx.fail(error);
        }
        let started = Instant::now();
        let run = match barrier
            .checkpoint
            .map(|checkpoint| self.store.seal(checkpoint, epoch))
        {
            None => None,
            Some(Ok(run)) => run,
            Some(Err(error)) => cx.fail(error),
        };
        let micros = started.elapsed().as_micros() as u64;
        cx.hub
            .board
            .borrow_mut()
            .pass(cx.relation, epoch, run.into_iter().collect(), micros);
        self.exporter.borrow_mut().passed = epoch.0;
        self.exporter.borrow().export(|| Exported::Passed(*barrier));
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
        if let Some(checkpoint) = barrier.checkpoint {
            match self.writer.prepare(checkpoint) {
                Ok(None) => {}
                Ok(Some(token)) => cx
                    .hub
                    .coordinator
                    .sink_prepared(cx.relation, checkpoint, token),
                Err(error) => cx.fail(error),
            }
        }
        cx.hub
            .board
            .borrow_mut()
            .pass(cx.relation, barrier.epoch, Vec::new(), 0);
    }
}

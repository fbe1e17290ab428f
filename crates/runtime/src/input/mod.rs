//! Where rows enter a dataflow: the command log, a source's connector, or another dataflow of the same worker.
//!
//! - [`difference`]: between the rows of a view now and in a savepoint.
//! - [`table`]: changes of a table, on the worker that reads the log.
//! - [`reader`]: the splits of a source that belong to this worker, read inline or by a pump thread.
//! - [`shared_source`]: the one reader that all views over a source share.
//! - [`source_import`]: a view's end of it, with a private replay of history until it has caught up.
//! - [`event_time`]: which rows are late, and how far the others have come.
//! - [`undecodable`]: what a source could not read, as its state.
//! - [`view_import`]: the changes of a table or view, with a backfill of what was there before.

mod difference;
pub(crate) mod event_time;
pub(crate) mod reader;
pub(crate) mod shared_source;
pub(crate) mod source_import;
pub(crate) mod table;
pub(crate) mod undecodable;
pub(crate) mod view_import;

use self::event_time::{Discovery, EventTime, EventTimes};
use crate::board::Settled;
use crate::driver::{NodeContext, Outlet, seal};
use crate::hub::Tables;
use std::time::Instant;
use tidegate_types::{Barrier, Batch};
use timely::dataflow::operators::Capability;

/// What all inputs have in common: an epoch, a capability to send at it, and state to seal when it closes.
pub(crate) struct InputPort {
    pub cx: NodeContext,
    pub tables: Tables,
    pub epoch: u64,
    outlet: Outlet,
    capability: Capability<u64>,
}

impl InputPort {
    pub fn new(
        cx: NodeContext,
        tables: Tables,
        outlet: Outlet,
        mut capability: Capability<u64>,
    ) -> Self {
        capability.downgrade(&cx.start);
        cx.hub.board.borrow_mut().sign_in(cx.relation);
        let epoch = cx.start;
        Self {
            cx,
            tables,
            epoch,
            outlet,
            capability,
        }
    }

    pub fn emit(&mut self, batch: Batch) {
        self.outlet.send(&self.capability, &mut vec![batch]);
    }

    /// The times of a relation with a watermark, as they were saved in the last of its tables.
    pub fn event_times(&self, spec: EventTime, owns: impl Fn(&str) -> bool) -> EventTimes {
        let hub = &self.cx.hub;
        let tables = self.tables.borrow();
        let table = tables.last().expect("the table of times is the last");
        let idle_after = hub.coordinator.idle_after();
        let restored = EventTimes::restored(spec, idle_after, hub.worker, table.as_ref(), owns);
        match restored {
            Ok(times) => times,
            Err(error) => self.cx.fail(error),
        }
    }

    /// Tells how far the rows have come at a barrier, and holds to what the barrier says.
    pub fn close_times(&self, times: &mut EventTimes, barrier: &Barrier, discovery: Discovery) {
        let (hub, relation) = (&self.cx.hub, self.cx.relation);
        let now = Instant::now();
        times.hold_to(barrier.watermarks.floors.get(&relation).copied());
        hub.errors
            .late_rows(relation, hub.worker, times.late_rows());
        hub.coordinator
            .event_time(relation, hub.worker, times.told(now, discovery));
        if let Some(pause) = times.next_idle(now) {
            hub.coordinator
                .look_again(relation, hub.worker, now + pause);
        }
    }

    /// The barrier that closes the current epoch, once it has been cut.
    pub fn barrier(&self) -> Option<Barrier> {
        self.cx.hub.barrier(self.epoch)
    }

    /// Whether the barrier of the current epoch, or a later one, overtakes.
    pub fn is_overtaken(&self) -> bool {
        self.cx.hub.overtaking(self.epoch).is_some()
    }

    /// Whether rows of the current epoch have to wait for the end of a synchronous checkpoint.
    pub fn is_held(&self) -> bool {
        self.cx.hub.holds(self.epoch)
    }

    pub fn close_epoch(&mut self, barrier: &Barrier) {
        assert_eq!(barrier.epoch.0, self.epoch, "barriers are passed in order");
        let started = Instant::now();
        let runs = match seal(&self.tables, self.cx.checkpoint_of(barrier)) {
            Ok(runs) => runs,
            Err(error) => self.cx.fail(error),
        };
        let micros = started.elapsed().as_micros() as u64;
        let settled = Settled {
            operator: self.cx.operator,
            runs,
            micros,
        };
        let mut board = self.cx.hub.board.borrow_mut();
        board.pass(self.cx.relation, barrier.epoch, settled);
        drop(board);
        self.epoch += 1;
        self.capability.downgrade(&self.epoch);
    }
}

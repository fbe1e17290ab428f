//! Changes of a table, in the order of the command log.
//!
//! The worker that reads the log finds them in a queue, with the barriers in between: what stands before a barrier
//! belongs to its epoch. On other workers the queue holds barriers alone. Of a table with a watermark late rows end here.

use super::InputPort;
use super::event_time::{Discovery, EventTime, EventTimes};
use super::shared_source::last_mut;
use crate::hub::{TableItem, TableQueue};
use std::cell::RefCell;
use std::rc::Rc;
use tidegate_types::{Barrier, Batch};

/// Rows that are sent in one piece.
const SLICE_ROWS: usize = 8192;
/// What the one split of a table is called.
const LOG: &str = "log";

pub(crate) struct TableInput {
    port: InputPort,
    queue: Rc<RefCell<TableQueue>>,
    times: Option<EventTimes>,
}

impl TableInput {
    pub fn new(port: InputPort, event_time: Option<EventTime>) -> Self {
        let queue = Rc::new(RefCell::new(TableQueue {
            items: Default::default(),
            activator: port.cx.activator.clone(),
        }));
        port.cx
            .hub
            .table_queues
            .borrow_mut()
            .insert(port.cx.relation, queue.clone());
        let is_first = port.cx.hub.worker == 0;
        let mut times = event_time.map(|spec| port.event_times(spec, |_| is_first));
        // The log is on the first worker.
        if let Some(times) = times.as_mut().filter(|_| is_first) {
            times.knows(LOG);
        }
        Self { port, queue, times }
    }

    pub fn run(&mut self) {
        while !self.port.is_held() {
            let Some(item) = self.queue.borrow_mut().items.pop_front() else {
                return;
            };
            match item {
                TableItem::Rows(batch) => {
                    let batch = self.on_time(batch);
                    for start in (0..batch.num_rows()).step_by(SLICE_ROWS) {
                        let length = SLICE_ROWS.min(batch.num_rows() - start);
                        self.port.emit(batch.slice(start, length));
                    }
                }
                // A barrier of an epoch before this dataflow's first is none of its business.
                TableItem::Barrier(barrier) if barrier.epoch.0 < self.port.epoch => {}
                TableItem::Barrier(barrier) => self.close_epoch(&barrier),
            }
        }
    }

    fn on_time(&mut self, batch: Batch) -> Batch {
        // Only rows that come have to be in time, and nothing else happens to the rows of such a table.
        let Some(times) = self.times.as_mut().filter(|_| batch.diffs().is_none()) else {
            return batch;
        };
        match times.sort(LOG, batch.rows().clone()) {
            Ok(sorted) => Batch::insert(sorted.on_time),
            Err(error) => self.port.cx.fail(error),
        }
    }

    fn close_epoch(&mut self, barrier: &Barrier) {
        if let Some(times) = &mut self.times {
            self.port.close_times(times, barrier, Discovery::Complete);
            if let Err(error) = times.write(last_mut(&self.port.tables).as_mut()) {
                self.port.cx.fail(error);
            }
        }
        self.port.close_epoch(barrier);
    }
}

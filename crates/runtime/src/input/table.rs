//! Changes of a table, in the order of the command log.
//!
//! The worker that reads the log finds them in a queue, with the barriers in between: what stands before a barrier
//! belongs to its epoch. On other workers the queue holds barriers alone.

use super::InputPort;
use crate::hub::{TableItem, TableQueue};
use std::cell::RefCell;
use std::rc::Rc;

/// Rows that are sent in one piece.
const SLICE_ROWS: usize = 8192;

pub(crate) struct TableInput {
    port: InputPort,
    queue: Rc<RefCell<TableQueue>>,
}

impl TableInput {
    pub fn new(port: InputPort) -> Self {
        let queue = Rc::new(RefCell::new(TableQueue {
            items: Default::default(),
            activator: port.cx.activator.clone(),
        }));
        port.cx
            .hub
            .table_queues
            .borrow_mut()
            .insert(port.cx.relation, queue.clone());
        Self { port, queue }
    }

    pub fn run(&mut self) {
        while !self.port.is_held() {
            let Some(item) = self.queue.borrow_mut().items.pop_front() else {
                return;
            };
            match item {
                TableItem::Rows(batch) => {
                    for start in (0..batch.num_rows()).step_by(SLICE_ROWS) {
                        let length = SLICE_ROWS.min(batch.num_rows() - start);
                        self.port.emit(batch.slice(start, length));
                    }
                }
                // A barrier of an epoch before this dataflow's first is none of its business.
                TableItem::Barrier(barrier) if barrier.epoch.0 < self.port.epoch => {}
                TableItem::Barrier(barrier) => self.port.close_epoch(&barrier),
            }
        }
    }
}

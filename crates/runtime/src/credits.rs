//! How many rows are on their way, so that sources know when to hold back.
//!
//! A row counts from the moment it is sent until its receiver has processed it, wherever it waits: in a channel, in the
//! stash of an early epoch, or in the queue between two dataflows. Only sources look at the count. They never wait for
//! it to reach a barrier, and barriers carry no rows, so a full count always drains.

use crate::memory::StateMemory;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

#[derive(Debug)]
pub(crate) struct Credits {
    in_flight_rows: AtomicI64,
    limit_rows: i64,
    memory: Arc<StateMemory>,
}

impl Credits {
    pub fn new(limit_rows: usize, memory: Arc<StateMemory>) -> Self {
        Self {
            in_flight_rows: AtomicI64::new(0),
            limit_rows: limit_rows as i64,
            memory,
        }
    }

    pub fn sent(&self, rows: usize) {
        self.in_flight_rows
            .fetch_add(rows as i64, Ordering::Relaxed);
    }

    pub fn processed(&self, rows: usize) {
        self.in_flight_rows
            .fetch_sub(rows as i64, Ordering::Relaxed);
    }

    /// Whether sources are to hold back, also for want of memory.
    pub fn exhausted(&self) -> bool {
        self.in_flight_rows.load(Ordering::Relaxed) >= self.limit_rows || self.memory.is_short()
    }
}

/// One worker's part in the rows of one relation's dataflow. When the dataflow is dropped, rows that were still on their
/// way in it are nobody's any more: what this worker sent and did not see processed is taken off the count, and since
/// every row is sent and processed somewhere, over all workers nothing of the relation remains.
#[derive(Debug)]
pub(crate) struct RelationCredits {
    all: Arc<Credits>,
    outstanding_rows: Cell<i64>,
}

impl RelationCredits {
    pub fn new(all: Arc<Credits>) -> Self {
        Self {
            all,
            outstanding_rows: Cell::new(0),
        }
    }

    pub fn sent(&self, rows: usize) {
        self.outstanding_rows
            .set(self.outstanding_rows.get() + rows as i64);
        self.all.sent(rows);
    }

    pub fn processed(&self, rows: usize) {
        self.outstanding_rows
            .set(self.outstanding_rows.get() - rows as i64);
        self.all.processed(rows);
    }
}

impl Drop for RelationCredits {
    fn drop(&mut self) {
        self.all
            .in_flight_rows
            .fetch_sub(self.outstanding_rows.get(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_relation_leaves_nothing_in_flight() {
        let all = Arc::new(Credits::new(10, Arc::new(StateMemory::new(1 << 20))));
        let (sender, receiver) = (
            RelationCredits::new(all.clone()),
            RelationCredits::new(all.clone()),
        );
        sender.sent(15);
        receiver.processed(4);
        assert!(all.exhausted());
        drop(sender);
        drop(receiver);
        assert_eq!(all.in_flight_rows.load(Ordering::Relaxed), 0);
    }
}

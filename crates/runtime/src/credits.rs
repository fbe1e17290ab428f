//! How many rows are on their way, so that sources know when to hold back.
//!
//! A row counts from the moment it is sent until its receiver has processed it, wherever it waits: in a channel, in the
//! stash of an early epoch, or in the queue between two dataflows. Only sources look at the count. They never wait for
//! it to reach a barrier, and barriers carry no rows, so a full count always drains.

use std::sync::atomic::{AtomicI64, Ordering};

#[derive(Debug)]
pub(crate) struct Credits {
    in_flight_rows: AtomicI64,
    limit_rows: i64,
}

impl Credits {
    pub fn new(limit_rows: usize) -> Self {
        Self {
            in_flight_rows: AtomicI64::new(0),
            limit_rows: limit_rows as i64,
        }
    }

    pub fn sent(&self, rows: usize) {
        self.in_flight_rows.fetch_add(rows as i64, Ordering::Relaxed);
    }

    pub fn processed(&self, rows: usize) {
        self.in_flight_rows.fetch_sub(rows as i64, Ordering::Relaxed);
    }

    pub fn exhausted(&self) -> bool {
        self.in_flight_rows.load(Ordering::Relaxed) >= self.limit_rows
    }
}

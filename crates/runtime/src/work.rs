//! What operators have done on a worker since they were built there: counted where rows pass, told when somebody asks.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// One operator's, on its worker.
#[derive(Debug, Default)]
pub(crate) struct Work {
    rows_in: Cell<u64>,
    rows_out: Cell<u64>,
    busy: Cell<Duration>,
}

/// As it is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkDone {
    /// Changes of rows that it was given, and that it gave.
    pub rows_in: u64,
    pub rows_out: u64,
    /// How long it ran, sending and sealing included.
    pub busy: Duration,
}

impl Work {
    pub fn took(&self, rows: usize) {
        self.rows_in.set(self.rows_in.get() + rows as u64);
    }

    pub fn gave(&self, rows: usize) {
        self.rows_out.set(self.rows_out.get() + rows as u64);
    }

    /// Runs it, and counts how long that takes.
    pub fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.busy.set(self.busy.get() + started.elapsed());
        result
    }

    pub fn done(&self) -> WorkDone {
        WorkDone {
            rows_in: self.rows_in.get(),
            rows_out: self.rows_out.get(),
            busy: self.busy.get(),
        }
    }
}

impl std::ops::AddAssign for WorkDone {
    fn add_assign(&mut self, other: Self) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.busy += other.busy;
    }
}

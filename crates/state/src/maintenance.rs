//! The background thread of one worker's state: merges view layers, writes completed changes into RocksDB.
//!
//! Jobs run one after another, in the order in which they were asked for. A job holds what it works on weakly where that
//! may go away. The thread ends with its [`Maintenance`], after the job at hand.

use crate::StateError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tidegate_types::WorkerId;

type Job = Box<dyn FnOnce() + Send>;

pub struct Maintenance {
    handle: MaintenanceHandle,
    thread: Option<JoinHandle<()>>,
}

/// Asks for work in the background.
#[derive(Clone)]
pub struct MaintenanceHandle(Sender<Option<Job>>);

impl Maintenance {
    pub fn start(worker: WorkerId) -> Result<Self, StateError> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("state-{worker}"))
            .spawn(move || run(&receiver))
            .map_err(|e| {
                StateError::Backend(format!("cannot start the background thread of state: {e}"))
            })?;
        Ok(Self {
            handle: MaintenanceHandle(sender),
            thread: Some(thread),
        })
    }

    pub fn handle(&self) -> MaintenanceHandle {
        self.handle.clone()
    }
}

impl MaintenanceHandle {
    /// Answers whether the thread is there to do it.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.0.send(Some(Box::new(job))).is_ok()
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        let _ = self.handle.0.send(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(jobs: &Receiver<Option<Job>>) {
    while let Ok(Some(job)) = jobs.recv() {
        // A panic is a bug of one job. The others, and the tables that wait for them, go on.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a background job of the state backend panicked");
        }
    }
}

//! Sinks: where the changes of a view go, visible only with the checkpoint that covers them.
//!
//! The protocol, per incarnation of the runtime:
//!
//! 1. [`Sink::recover`] with the tokens that the restored manifest holds (none for a new sink), before anything else.
//! 2. [`Sink::open`] once per worker, then [`SinkWriter::write`] for each batch, epochs in order.
//! 3. At a checkpoint [`SinkWriter::prepare`]: everything written so far is durable but not visible. The token goes into
//!    the manifest.
//! 4. Once the manifest exists, [`Sink::commit`] with each of its tokens. A token of a checkpoint that failed while the
//!    dataflow went on stands for rows that will not come again: it belongs into the next manifest. Only where the
//!    dataflow goes back to an older checkpoint is it given to [`Sink::abort`], or left to the next `recover`.

use crate::ConnectorError;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_types::{Batch, CheckpointId, Epoch};

pub mod blackhole;
pub mod file;

/// What a sink needs to make one prepared piece of output visible, in any process. Text, so that manifests can hold it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token(pub String);

/// What `CREATE SINK` names, with its options checked.
pub trait Sink: Send + Sync {
    /// Makes the prepared pieces of `committed` visible, and removes every other that was left by dead writers. No writer
    /// of this sink may be open.
    fn recover(&self, committed: &[Token]) -> Result<(), ConnectorError>;

    /// The writer of one worker.
    fn open(&self, worker: usize) -> Result<Box<dyn SinkWriter>, ConnectorError>;

    /// Makes a prepared piece visible. Doing it again changes nothing.
    fn commit(&self, token: &Token) -> Result<(), ConnectorError>;

    /// Removes a prepared piece that was not committed.
    fn abort(&self, token: &Token) -> Result<(), ConnectorError>;

    /// Every change is in the output exactly once, whatever crashes.
    fn exactly_once(&self) -> bool;

    /// `write` and `prepare` are pure computation and run on a worker. Otherwise they do I/O and run on another thread.
    fn runs_on_worker(&self) -> bool;

    fn counters(&self) -> &SinkCounters;
}

pub trait SinkWriter: Send {
    fn write(&mut self, epoch: Epoch, batch: &Batch) -> Result<(), ConnectorError>;

    /// Makes all that was written durable. `None`: nothing was written since the last time.
    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Option<Token>, ConnectorError>;
}

/// What all writers of a sink have received since the sink was made.
#[derive(Debug, Default)]
pub struct SinkCounters {
    inserted: AtomicU64,
    retracted: AtomicU64,
    batches: AtomicU64,
}

impl SinkCounters {
    pub(crate) fn count(&self, batch: &Batch) {
        let (inserted, retracted) = match batch.diffs() {
            None => (batch.num_rows() as u64, 0),
            Some(diffs) => diffs
                .values()
                .iter()
                .fold((0, 0), |(plus, minus), diff| match diff {
                    1.. => (plus + diff.unsigned_abs(), minus),
                    _ => (plus, minus + diff.unsigned_abs()),
                }),
        };
        self.inserted.fetch_add(inserted, Ordering::Relaxed);
        self.retracted.fetch_add(retracted, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Rows added, with their multiplicity.
    pub fn inserted(&self) -> u64 {
        self.inserted.load(Ordering::Relaxed)
    }

    /// Rows removed, with their multiplicity.
    pub fn retracted(&self) -> u64 {
        self.retracted.load(Ordering::Relaxed)
    }

    /// Both together.
    pub fn rows(&self) -> u64 {
        self.inserted() + self.retracted()
    }

    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }
}

//! The command log: one fsynced, group-committed file sequence that orders DDL and resolved row changes.
//!
//! An entry has a position, one more than the entry before. [`CommandLog::append`] gives the position at once, in the
//! order of the calls, and a receiver that answers when the entry is durable. A writer thread writes whatever has queued
//! up and syncs it with one fsync; after that, and in order, the observer is told and the receivers answer.
//!
//! Guarantees: an entry that was acknowledged is read again after any crash. Entries are told to the observer in order,
//! each once. When a write fails, everything queued fails with it, the file is cut back to the last durable entry, and
//! the positions are given out again.
//! Non-guarantees: what was not acknowledged may be read again all the same, if the crash came between sync and answer.

mod entry;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

pub use entry::LogEntry;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use segment::Segments;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_runtime::ChangeLog;
use tidegate_types::{Batch, LogPosition, RelationId, SqlError, SqlState};
use tokio::sync::oneshot;

/// Told of each entry once it is durable, in order, on the writer's thread. Must not wait.
pub trait LogObserver: Send + Sync {
    fn durable(&self, position: LogPosition, entry: LogEntry);
}

/// Told of each sync, so that a test can prove that they come before any acknowledgement.
pub trait SyncProbe: Send + Sync {
    fn file_synced(&self, path: &Path);
    fn directory_synced(&self, path: &Path);
}

/// When an entry is durable, or why it never will be.
pub type Durable = oneshot::Receiver<Result<LogPosition, SqlError>>;

pub(crate) struct Queued {
    position: LogPosition,
    bytes: Vec<u8>,
    entry: LogEntry,
    answer: oneshot::Sender<Result<LogPosition, SqlError>>,
}

struct Queue {
    next: u64,
    sender: Option<Sender<Queued>>,
}

pub struct CommandLog {
    queue: Arc<Mutex<Queue>>,
    segments: Arc<Mutex<Segments>>,
    durable: Arc<AtomicU64>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// The log before anything may be appended: it can be replayed, and then be opened for writing.
pub struct ClosedLog {
    segments: Segments,
}

impl ClosedLog {
    /// Reads the segments of this directory. A torn entry at the very end, which nobody can have been told of, is cut
    /// off; damage anywhere else is an error that names file and offset.
    pub fn open(directory: &Path, probe: Option<Arc<dyn SyncProbe>>) -> Result<Self, SqlError> {
        Ok(Self {
            segments: Segments::open(directory, probe)?,
        })
    }

    pub fn last_position(&self) -> LogPosition {
        self.segments.last_position()
    }

    /// The first position that can still be read; one behind the last when the log is empty.
    pub fn first_position(&self) -> LogPosition {
        self.segments.first_position()
    }

    /// Continues behind this position even when the log ends before it: what a restore without the log begins with.
    pub fn skip_to(&mut self, position: LogPosition) -> Result<(), SqlError> {
        self.segments.skip_to(position)
    }

    pub fn read(
        &self,
        after: LogPosition,
        visit: &mut dyn FnMut(LogPosition, LogEntry) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        self.segments.read(after, visit)
    }

    /// Opens for writing. The observer hears of entries appended from now on.
    pub fn start(self, observer: Arc<dyn LogObserver>) -> Result<CommandLog, SqlError> {
        let last = self.segments.last_position();
        let segments = Arc::new(Mutex::new(self.segments));
        let durable = Arc::new(AtomicU64::new(last.0));
        let (sender, receiver) = crossbeam_channel::unbounded();
        let queue = Arc::new(Mutex::new(Queue {
            next: last.0 + 1,
            sender: Some(sender),
        }));
        let writer = writer::Writer {
            queue: queue.clone(),
            segments: segments.clone(),
            durable: durable.clone(),
            receiver,
            observer,
        };
        let thread = std::thread::Builder::new()
            .name("command-log".into())
            .spawn(move || writer.run())
            .map_err(|e| {
                SqlError::internal(format!("the log's thread could not be started: {e}"))
            })?;
        Ok(CommandLog {
            queue,
            segments,
            durable,
            writer: Mutex::new(Some(thread)),
        })
    }
}

impl CommandLog {
    /// Queues an entry. Its position is final unless the write fails, and then nothing of it remains.
    pub fn append(&self, entry: LogEntry) -> Result<(LogPosition, Durable), SqlError> {
        let body = entry.encode()?;
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        let position = LogPosition(queue.next);
        let bytes = entry::frame(position, &body)?;
        let closed = || SqlError::new(SqlState::ADMIN_SHUTDOWN, "the database is shutting down");
        let sender = queue.sender.as_ref().ok_or_else(closed)?;
        sender
            .send(Queued {
                position,
                bytes,
                entry,
                answer,
            })
            .map_err(|_| closed())?;
        queue.next += 1;
        Ok((position, receiver))
    }

    /// The last durable entry.
    pub fn durable_position(&self) -> LogPosition {
        LogPosition(self.durable.load(Ordering::SeqCst))
    }

    pub fn read(
        &self,
        after: LogPosition,
        visit: &mut dyn FnMut(LogPosition, LogEntry) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        let reader = self.segments.lock().reader();
        reader.read(after, self.durable_position(), visit)
    }

    /// Waits until everything queued is written, and takes no more.
    pub fn close(&self) {
        self.queue.lock().sender.take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
    }
}

impl Drop for CommandLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl ChangeLog for CommandLog {
    fn replay(
        &self,
        after: LogPosition,
        visit: &mut dyn FnMut(LogPosition, RelationId, Batch) -> Result<(), SqlError>,
    ) -> Result<LogPosition, SqlError> {
        let last = self.durable_position();
        self.read(after, &mut |position, entry| {
            if let LogEntry::Transaction { changes } = entry {
                for (relation, batch) in changes {
                    visit(position, relation, batch)?;
                }
            }
            Ok(())
        })?;
        Ok(last)
    }

    fn truncate_to(&self, oldest_retained: LogPosition) {
        if let Err(error) = self.segments.lock().remove_before(oldest_retained) {
            tracing::warn!("old segments of the log could not be removed: {error}");
        }
    }
}

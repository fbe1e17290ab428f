//! The thread that writes: whatever has queued up becomes one write and one sync.

use super::segment::Segments;
use super::{LogObserver, Queue, Queued};
use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_types::SqlError;

/// Bytes after which a group is written without looking for more.
const GROUP_BYTES: usize = 8 << 20;

pub(super) struct Writer {
    pub queue: Arc<Mutex<Queue>>,
    pub segments: Arc<Mutex<Segments>>,
    pub durable: Arc<AtomicU64>,
    pub receiver: Receiver<Queued>,
    pub observer: Arc<dyn LogObserver>,
}

impl Writer {
    /// Ends when no sender is left and everything is written.
    pub fn run(self) {
        while let Ok(first) = self.receiver.recv() {
            let mut bytes = first.bytes.len();
            let mut group = vec![first];
            while bytes < GROUP_BYTES
                && let Ok(next) = self.receiver.try_recv()
            {
                bytes += next.bytes.len();
                group.push(next);
            }
            let last = group.last().expect("a group has an entry").position;
            let frames: Vec<&[u8]> = group.iter().map(|q| q.bytes.as_slice()).collect();
            let written = self.segments.lock().write(&frames, last);
            match written {
                Ok(()) => {
                    self.durable.store(last.0, Ordering::SeqCst);
                    for queued in group {
                        self.observer.durable(queued.position, queued.entry);
                        // Nobody has to wait for the answer.
                        let _ = queued.answer.send(Ok(queued.position));
                    }
                }
                Err(error) => self.fail(group, &error),
            }
        }
    }

    /// Entries behind a failed one may rest on it, so all that are queued fail with it.
    fn fail(&self, group: Vec<Queued>, error: &SqlError) {
        tracing::error!("the log could not be written: {error}");
        let mut queue = self.queue.lock();
        let mut failed = group;
        while let Ok(next) = self.receiver.try_recv() {
            failed.push(next);
        }
        queue.next = self.durable.load(Ordering::SeqCst) + 1;
        drop(queue);
        for queued in failed {
            let _ = queued.answer.send(Err(error.clone()));
        }
    }
}

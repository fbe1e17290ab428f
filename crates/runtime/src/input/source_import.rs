//! A view's end of a shared source.
//!
//! A view that is created together with the reader takes its rows from the first. A later one reads history privately:
//!
//! - *Replay*: own readers go through each split, never behind where the shared reader stood at its newest barrier; what
//!   the shared reader sends meanwhile is thrown away, because the replay will come to it.
//! - *Closing*: little is missing. An epoch is chosen that the shared reader has not finished; what it sends for later
//!   epochs is kept from now on, and at that epoch's barrier the replay reads exactly up to the shared offsets.
//! - *Live*: from the next epoch on the shared rows are the view's rows.
//!
//! The offsets as of each barrier are state, in every mode. After a crash a view whose offsets equal those of the shared
//! reader is live, on however many workers; any other goes on with its replay.

use super::InputPort;
use super::event_time::{EventTime, EventTimes};
use super::reader::{Polled, SplitSet, Waker};
use super::shared_source::{
    Offsets, SharedSource, first, first_mut, last_mut, restored_offsets, save_offsets,
};
use crate::hub::{Exported, ImportQueue, Subscriber};
use crate::status::RelationStatus;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidegate_connectors::{ConnectorError, Offset, Source, SplitId};
use tidegate_types::{Barrier, Batch, RelationId};

const ITEMS_PER_ACTIVATION: usize = 16;
/// A replay reads at least so many chunks in an epoch, so that it gains on a source that is always busy.
const REPLAY_CHUNKS_PER_EPOCH: usize = 64;
const BACK_PRESSURE_PAUSE: Duration = Duration::from_micros(200);

/// With which offsets a view begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    AtTheStart,
    /// Those of the checkpoint that all of the database was restored from.
    Restored,
    /// Those of a savepoint. The shared reader need not have come as far.
    Seeded,
}

enum Mode {
    Live,
    Replay {
        splits: SplitSet,
        chunks_in_epoch: usize,
    },
    Closing {
        splits: SplitSet,
        last_epoch: u64,
    },
}

/// What a view reads of a source.
pub(crate) struct ImportOf {
    pub relation: RelationId,
    pub columns: Vec<usize>,
    pub source: Arc<dyn Source>,
    pub event_time: Option<EventTime>,
}

pub(crate) struct SourceImport {
    port: InputPort,
    columns: Vec<usize>,
    /// The replay reads no other columns.
    is_narrow: bool,
    queue: Rc<RefCell<ImportQueue>>,
    shared: Rc<RefCell<SharedSource>>,
    mode: Mode,
    beginning: Beginning,
    saved: Offsets,
    /// Shared rows and barriers that are kept.
    kept: VecDeque<Exported>,
    /// Of the replay: what the shared reader sends is in time.
    times: Option<EventTimes>,
    status: Arc<RelationStatus>,
    /// Where the replay and its end were, in positions of all splits, when it was last told.
    told: (u64, u64),
}

impl SourceImport {
    pub fn new(
        port: InputPort,
        of: ImportOf,
        beginning: Beginning,
        waker: Waker,
        status: Arc<RelationStatus>,
    ) -> Result<Self, ConnectorError> {
        let ImportOf {
            relation: from,
            columns,
            source,
            event_time,
        } = of;
        let hub = port.cx.hub.clone();
        let queue = Rc::new(RefCell::new(ImportQueue::default()));
        let exporter = hub.exporter(from);
        exporter.borrow_mut().subscribers.push(Subscriber {
            importer: port.cx.relation,
            queue: queue.clone(),
            activator: port.cx.activator.clone(),
            credits: port.cx.credits.clone(),
        });
        let shared = exporter
            .borrow()
            .source
            .clone()
            .expect("a source is installed before the views over it");
        let saved = match restored_offsets(first(&port.tables).as_ref()) {
            Ok(offsets) => offsets,
            Err(error) => port.cx.fail(error),
        };
        let is_restored = beginning != Beginning::AtTheStart;
        let live = match shared.borrow().newest_offsets() {
            // The shared reader is as new as this view.
            None => !is_restored && shared.borrow().epoch == port.epoch,
            Some(target) => {
                is_restored
                    && target
                        .iter()
                        .all(|(split, at)| saved.get(split) == Some(at))
            }
        };
        // The same records have to fail, and to be late, for every view, whichever columns it reads.
        let is_narrow = !source.may_be_undecodable() && event_time.is_none();
        let times = event_time
            .filter(|_| !live)
            .map(|spec| port.event_times(spec, |_| true));
        let mode = if live {
            Mode::Live
        } else {
            status.backfill_started();
            status.expects(None);
            let splits = SplitSet::open(
                source,
                saved.clone(),
                is_narrow.then(|| columns.clone()),
                hub.worker,
                hub.workers,
                waker,
            )?;
            Mode::Replay {
                splits,
                chunks_in_epoch: 0,
            }
        };
        hub.listen(port.cx.relation, port.cx.activator.clone());
        port.cx.activator.activate();
        Ok(Self {
            port,
            columns,
            is_narrow,
            queue,
            shared,
            mode,
            beginning,
            saved,
            kept: VecDeque::new(),
            times,
            status,
            told: (0, 0),
        })
    }

    pub fn run(&mut self) {
        self.drain_queue();
        if self.port.is_held() && !matches!(self.mode, Mode::Live) {
            return;
        }
        for done in 0.. {
            // What lies in front of a barrier that overtakes is handed on at once: it is overtaken further down.
            if done >= ITEMS_PER_ACTIVATION && !self.port.is_overtaken() {
                break;
            }
            let goes_on = match &self.mode {
                Mode::Live => self.step_live(),
                Mode::Replay { .. } => self.step_replay(),
                Mode::Closing { .. } => self.step_closing(),
            };
            if !goes_on {
                return;
            }
        }
        self.port.cx.activator.activate();
    }

    /// Takes what the shared reader has sent: keeps it or throws it away, as the mode says.
    fn drain_queue(&mut self) {
        let keep_after = match &self.mode {
            Mode::Live => 0,
            Mode::Replay { .. } => u64::MAX,
            Mode::Closing { last_epoch, .. } => *last_epoch,
        };
        for item in self.queue.borrow_mut().items.drain(..) {
            let epoch = match &item {
                Exported::Rows(epoch, _) => epoch.0,
                Exported::Passed(barrier) => barrier.epoch.0,
            };
            if epoch > keep_after || (keep_after == 0 && epoch >= self.port.epoch) {
                self.kept.push_back(item);
            } else if let Exported::Rows(_, batch) = item {
                self.port.cx.credits.processed(batch.num_rows());
            }
        }
    }

    fn step_live(&mut self) -> bool {
        match self.kept.pop_front() {
            Some(Exported::Rows(_, batch)) => {
                let rows = batch.num_rows();
                match batch.project(&self.columns) {
                    Ok(batch) => self.port.emit(batch),
                    Err(error) => self.port.cx.fail(error),
                }
                self.port.cx.credits.processed(rows);
                true
            }
            Some(Exported::Passed(barrier)) => {
                let now = self.shared.borrow().offsets_at(barrier.epoch.0).cloned();
                self.close_epoch(&barrier, &now.unwrap_or_default());
                true
            }
            None => false,
        }
    }

    fn step_replay(&mut self) -> bool {
        let shared = self.shared.borrow();
        let Mode::Replay {
            splits,
            chunks_in_epoch,
        } = &mut self.mode
        else {
            return false;
        };
        let target = shared.newest_offsets().cloned().unwrap_or_default();
        let shared_epoch = shared.epoch;
        drop(shared);
        if self.beginning == Beginning::Seeded && is_ahead(splits, &self.saved, &target) {
            // What the shared reader gives is known here already, until it has come this far.
            let barrier = self.port.barrier();
            let Some(barrier) = barrier.filter(|_| shared_epoch > self.port.epoch) else {
                return false;
            };
            self.close_replay_epoch(&barrier);
            return true;
        }
        if reached(splits, &target) {
            let Mode::Replay { splits, .. } = std::mem::replace(&mut self.mode, Mode::Live) else {
                return false;
            };
            let last_epoch = shared_epoch.max(self.port.epoch);
            self.mode = Mode::Closing { splits, last_epoch };
            return true;
        }
        let barrier = self
            .port
            .barrier()
            .filter(|_| shared_epoch > self.port.epoch);
        let read_enough = *chunks_in_epoch >= REPLAY_CHUNKS_PER_EPOCH || self.port.is_overtaken();
        if let Some(barrier) = barrier
            && read_enough
        {
            *chunks_in_epoch = 0;
            self.close_replay_epoch(&barrier);
            return true;
        }
        if read_enough {
            self.port.cx.hub.coordinator.source_idle(true);
            return false;
        }
        *chunks_in_epoch += 1;
        self.read(&target)
    }

    fn step_closing(&mut self) -> bool {
        let Mode::Closing { splits, last_epoch } = &self.mode else {
            return false;
        };
        let last_epoch = *last_epoch;
        if self.port.epoch < last_epoch {
            let Some(barrier) = self.port.barrier() else {
                return false;
            };
            self.close_replay_epoch(&barrier);
            return true;
        }
        let target = match self.shared.borrow().offsets_at(last_epoch) {
            Some(offsets) => offsets.clone(),
            None => {
                // Only a barrier tells where to stop.
                self.port.cx.hub.coordinator.source_idle(true);
                return false;
            }
        };
        if self.beginning == Beginning::Seeded && is_ahead(splits, &self.saved, &target) {
            let Some(barrier) = self.port.barrier() else {
                return false;
            };
            self.replay_again(&barrier);
            return true;
        }
        if !reached(splits, &target) {
            if self.port.is_overtaken()
                && let Some(barrier) = self.port.barrier()
            {
                self.replay_again(&barrier);
                return true;
            }
            return self.read(&target);
        }
        let Some(barrier) = self.port.barrier() else {
            return false;
        };
        self.close_replay_epoch(&barrier);
        self.mode = Mode::Live;
        self.status.backfill_finished(barrier.epoch.0);
        self.drain_queue();
        true
    }

    /// A barrier overtakes and cannot wait for the end of the replay: that is looked for again in a later epoch.
    fn replay_again(&mut self, barrier: &Barrier) {
        self.close_replay_epoch(barrier);
        if let Mode::Closing { splits, .. } = std::mem::replace(&mut self.mode, Mode::Live) {
            self.mode = Mode::Replay {
                splits,
                chunks_in_epoch: 0,
            };
        }
        for item in self.kept.drain(..) {
            if let Exported::Rows(_, batch) = item {
                self.port.cx.credits.processed(batch.num_rows());
            }
        }
    }

    /// Reads one chunk, never behind the target. `false`: there is nothing to do until woken.
    fn read(&mut self, target: &Offsets) -> bool {
        let cx = &self.port.cx;
        if cx.hub.credits.exhausted() {
            cx.activator.activate_after(BACK_PRESSURE_PAUSE);
            return false;
        }
        let (Mode::Replay { splits, .. } | Mode::Closing { splits, .. }) = &mut self.mode else {
            return false;
        };
        let limit = |split: &SplitId| target.get(split).map(|offset: &Offset| Some(*offset));
        match splits.poll(&limit) {
            Ok(Polled::Chunk { split, mut chunk }) => {
                let rows = chunk.batch.num_rows();
                cx.hub.coordinator.rows_arrived(rows.max(1));
                self.status.backfilled(rows);
                let at = |split: &SplitId| splits.offset(split).map_or(0, |o| o.position());
                let read: u64 = target.keys().map(at).sum();
                let end: u64 = target.values().map(Offset::position).sum();
                let (told_read, told_end) = self.told;
                self.told = (read.max(told_read), end.max(told_end));
                self.status
                    .replayed(self.told.0 - told_read, self.told.1 - told_end);
                if let Some(times) = &mut self.times {
                    match times.sort(split.as_str(), chunk.batch) {
                        Ok(sorted) => chunk.batch = sorted.on_time,
                        Err(error) => cx.fail(error),
                    }
                }
                if chunk.batch.num_rows() > 0 {
                    let batch = Batch::insert(chunk.batch);
                    let narrow = match self.is_narrow {
                        true => Ok(batch),
                        false => batch.project(&self.columns),
                    };
                    match narrow {
                        Ok(batch) => self.port.emit(batch),
                        Err(error) => cx.fail(error),
                    }
                }
                true
            }
            // A split that was opened just now may be at its end already, and nobody would wake this again.
            Ok(Polled::Wait(_) | Polled::Done) if reached(splits, target) => true,
            Ok(Polled::Wait(pause)) => {
                if let Some(pause) = pause {
                    cx.activator.activate_after(pause);
                }
                false
            }
            Ok(Polled::Done) => false,
            Err(error) => cx.fail(error),
        }
    }

    fn close_replay_epoch(&mut self, barrier: &Barrier) {
        let (Mode::Replay { splits, .. } | Mode::Closing { splits, .. }) = &self.mode else {
            return;
        };
        let now: Offsets = splits
            .offsets()
            .map(|(split, offset)| (split.clone(), offset))
            .collect();
        self.close_epoch(barrier, &now);
    }

    fn close_epoch(&mut self, barrier: &Barrier, offsets: &Offsets) {
        if let Err(error) = save_offsets(
            first_mut(&self.port.tables).as_mut(),
            &mut self.saved,
            offsets,
        ) {
            self.port.cx.fail(error);
        }
        if let Some(times) = &mut self.times
            && let Err(error) = times.write(last_mut(&self.port.tables).as_mut())
        {
            self.port.cx.fail(error);
        }
        self.port.close_epoch(barrier);
    }
}

/// Whether a split stands behind where it is in `target`, or was begun and is not there at all.
fn is_ahead(splits: &SplitSet, saved: &Offsets, target: &Offsets) -> bool {
    let beyond = |(split, at): (&SplitId, &Offset)| {
        let own = splits.offset(split);
        own.is_some_and(|own| own > *at)
    };
    let unknown = |(split, at): (&SplitId, &Offset)| {
        splits.owns(split) && at.position() > 0 && !target.contains_key(split)
    };
    target.iter().any(beyond) || saved.iter().any(unknown)
}

/// Whether the splits stand at these offsets, or behind them.
fn reached(splits: &SplitSet, target: &Offsets) -> bool {
    target
        .iter()
        .all(|(split, at)| splits.offset(split).is_some_and(|own| own >= *at))
}

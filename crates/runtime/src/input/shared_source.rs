//! The one reader of a source on a worker, shared by all views over it.
//!
//! It is the root of the source's own dataflow. Its rows go to whoever has subscribed; the offset of each split is a row
//! of its state table, written at the barrier. Importing views look here for the offsets that belong to each barrier, to
//! know where a private replay has to end.

use super::InputPort;
use super::event_time::{EventTime, EventTimes};
use super::reader::{Polled, SplitSet, Waker};
use super::undecodable::Undecodable;
use crate::error_board::DecodeErrorRow;
use crate::hub::{Exported, Exporter, Tables};
use arrow::array::RecordBatch;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidegate_connectors::{ConnectorError, Offset, Source, SplitId};
use tidegate_dataflow::row_failure::row_text;
use tidegate_state::{Cell, Change, StateError, Table};
use tidegate_types::{Barrier, Batch, SqlState};

/// How many closed epochs are remembered for views that replay.
const REMEMBERED_EPOCHS: usize = 64;
/// Chunks that are read in one activation.
const CHUNKS_PER_ACTIVATION: usize = 4;
/// How long a source waits when too many rows are in flight.
const BACK_PRESSURE_PAUSE: Duration = Duration::from_micros(200);

/// Where the splits of this worker stood when an epoch closed.
pub(crate) type Offsets = BTreeMap<SplitId, Offset>;

/// What importing views may know of the shared reader.
#[derive(Default)]
pub(crate) struct SharedSource {
    /// The epoch that rows read now belong to.
    pub epoch: u64,
    at_barrier: BTreeMap<u64, Offsets>,
}

impl SharedSource {
    /// The offsets as of the barrier of this epoch, once passed.
    pub fn offsets_at(&self, epoch: u64) -> Option<&Offsets> {
        self.at_barrier.get(&epoch)
    }

    /// The offsets as of the newest barrier passed.
    pub fn newest_offsets(&self) -> Option<&Offsets> {
        self.at_barrier.values().next_back()
    }

    fn close(&mut self, epoch: u64, offsets: Offsets) {
        self.at_barrier.insert(epoch, offsets);
        while self.at_barrier.len() > REMEMBERED_EPOCHS {
            self.at_barrier.pop_first();
        }
        self.epoch = epoch + 1;
    }
}

/// Reads saved offsets back.
pub(crate) fn restored_offsets(table: &dyn Table) -> Result<Offsets, StateError> {
    let mut offsets = Offsets::new();
    let mut damaged = false;
    table.scan_all(&mut |_, key, _, value| {
        match (std::str::from_utf8(key), Offset::decode(value)) {
            (Ok(split), Some(offset)) => {
                offsets.insert(SplitId::new(split), offset);
            }
            _ => damaged = true,
        }
        ControlFlow::Continue(())
    })?;
    if damaged {
        return Err(StateError::Damaged(
            "the saved offset of a split cannot be read".into(),
        ));
    }
    Ok(offsets)
}

/// Writes the offsets that differ from what was saved last.
pub(crate) fn save_offsets(
    table: &mut dyn Table,
    saved: &mut Offsets,
    now: &Offsets,
) -> Result<(), StateError> {
    for (split, offset) in now {
        if saved.get(split) == Some(offset) {
            continue;
        }
        let value = offset.encode();
        let cell = Cell::key(split.as_str().as_bytes());
        table.write_many(&[Change {
            cell,
            value: Some(&value),
        }])?;
        saved.insert(split.clone(), *offset);
    }
    Ok(())
}

pub(crate) struct SourceReader {
    port: InputPort,
    splits: SplitSet,
    exporter: Rc<RefCell<Exporter>>,
    shared: Rc<RefCell<SharedSource>>,
    saved: Offsets,
    undecodable: Undecodable,
    times: Option<EventTimes>,
    rows_since_barrier: usize,
}

impl SourceReader {
    pub fn new(
        port: InputPort,
        source: Arc<dyn Source>,
        event_time: Option<EventTime>,
        waker: Waker,
    ) -> Result<Self, ConnectorError> {
        let hub = port.cx.hub.clone();
        let saved = match restored_offsets(first(&port.tables).as_ref()) {
            Ok(offsets) => offsets,
            Err(error) => port.cx.fail(error),
        };
        let splits = SplitSet::open(source, saved.clone(), None, hub.worker, hub.workers, waker)?;
        let shared = Rc::new(RefCell::new(SharedSource {
            epoch: port.epoch,
            at_barrier: BTreeMap::new(),
        }));
        if !saved.is_empty() {
            // What was saved is what the barrier before the first epoch left behind.
            let own = saved
                .iter()
                .filter(|(s, _)| splits.owns(s))
                .map(|(s, o)| (s.clone(), *o))
                .collect();
            shared.borrow_mut().at_barrier.insert(port.epoch - 1, own);
        }
        let restored =
            Undecodable::restored(errors(&port.tables).as_ref(), |split| splits.owns(split));
        let undecodable = match restored {
            Ok((undecodable, rows)) => {
                let total = undecodable.total();
                hub.errors
                    .restore_source(port.cx.relation, hub.worker, total, rows);
                undecodable
            }
            Err(error) => port.cx.fail(error),
        };
        let times = event_time
            .map(|spec| port.event_times(spec, |split| splits.owns(&SplitId::new(split))));
        let exporter = hub.exporter(port.cx.relation);
        exporter.borrow_mut().source = Some(shared.clone());
        hub.listen(port.cx.relation, port.cx.activator.clone());
        port.cx.activator.activate();
        Ok(Self {
            port,
            splits,
            exporter,
            shared,
            saved,
            undecodable,
            times,
            rows_since_barrier: 0,
        })
    }

    pub fn run(&mut self) {
        for _ in 0..CHUNKS_PER_ACTIVATION {
            while let Some(barrier) = self.port.barrier() {
                self.close_epoch(&barrier);
            }
            if self.exporter.borrow().subscribers.is_empty() || self.port.is_held() {
                return;
            }
            if self.port.cx.hub.credits.exhausted() {
                self.port.cx.activator.activate_after(BACK_PRESSURE_PAUSE);
                return;
            }
            match self.splits.poll(&|_| Some(None)) {
                Ok(Polled::Chunk { split, chunk }) => self.take(&split, chunk),
                Ok(Polled::Wait(pause)) => {
                    self.port
                        .cx
                        .hub
                        .coordinator
                        .source_idle(self.rows_since_barrier > 0);
                    if let Some(pause) = pause {
                        self.port.cx.activator.activate_after(pause);
                    }
                    return;
                }
                Ok(Polled::Done) => {
                    let hub = &self.port.cx.hub;
                    hub.coordinator
                        .source_finished(self.port.cx.relation, hub.worker);
                    hub.coordinator.source_idle(self.rows_since_barrier > 0);
                    return;
                }
                Err(error) => self.port.cx.fail(error),
            }
        }
        self.port.cx.activator.activate();
    }

    fn take(&mut self, split: &SplitId, chunk: tidegate_connectors::Chunk) {
        let hub = &self.port.cx.hub;
        for error in &chunk.errors {
            let row = DecodeErrorRow {
                state: error.state.code().to_owned(),
                message: error.message.clone(),
                row: String::from_utf8_lossy(&error.raw).into_owned(),
                split: split.to_string(),
                offset: error.offset.to_string(),
            };
            self.undecodable.add(row.clone());
            hub.errors
                .decode_failed(self.port.cx.relation, hub.worker, row);
        }
        let rows = chunk.batch.num_rows();
        self.rows_since_barrier += rows.max(1);
        let batch = match self.times.is_some() {
            true => self.on_time(split, chunk.batch),
            false => chunk.batch,
        };
        let hub = &self.port.cx.hub;
        if batch.num_rows() > 0 {
            let batch = Batch::insert(batch);
            let epoch = tidegate_types::Epoch(self.port.epoch);
            self.exporter
                .borrow()
                .export(|| Exported::Rows(epoch, batch.clone()));
        }
        hub.coordinator.rows_arrived(rows.max(1));
    }

    /// Drops the late ones among these rows; on request they are put with the errors.
    fn on_time(&mut self, split: &SplitId, rows: RecordBatch) -> RecordBatch {
        let times = self.times.as_mut().expect("called with a watermark");
        let sorted = match times.sort(split.as_str(), rows) {
            Ok(sorted) => sorted,
            Err(error) => self.port.cx.fail(error),
        };
        if let Some(late) = sorted.late.filter(|_| times.keeps_late()) {
            let (hub, relation) = (&self.port.cx.hub, self.port.cx.relation);
            for row in 0..late.num_rows() {
                let row = DecodeErrorRow {
                    state: SqlState::DATA_EXCEPTION.code().to_owned(),
                    message: "the row is late: its time is before the watermark".to_owned(),
                    row: row_text(&late, row),
                    split: split.to_string(),
                    offset: String::new(),
                };
                self.undecodable.add(row.clone());
                hub.errors.decode_failed(relation, hub.worker, row);
            }
        }
        sorted.on_time
    }

    fn close_times(&mut self, barrier: &Barrier) {
        let Some(times) = &mut self.times else { return };
        for split in self.splits.finished() {
            times.ended(split.as_str());
        }
        for (split, _) in self.splits.offsets() {
            times.knows(split.as_str());
        }
        let discovery = self.splits.discovery();
        self.port.close_times(times, barrier, discovery);
        if let Err(error) = times.write(last_mut(&self.port.tables).as_mut()) {
            self.port.cx.fail(error);
        }
    }

    fn close_epoch(&mut self, barrier: &Barrier) {
        self.close_times(barrier);
        let offsets: Offsets = self
            .splits
            .offsets()
            .map(|(split, offset)| (split.clone(), offset))
            .collect();
        if let Err(error) = save_offsets(
            first_mut(&self.port.tables).as_mut(),
            &mut self.saved,
            &offsets,
        ) {
            self.port.cx.fail(error);
        }
        let written = self
            .undecodable
            .write(errors_mut(&self.port.tables).as_mut());
        if let Err(error) = written {
            self.port.cx.fail(error);
        }
        self.shared.borrow_mut().close(self.port.epoch, offsets);
        self.rows_since_barrier = 0;
        self.port.close_epoch(barrier);
        self.exporter
            .borrow()
            .export(|| Exported::Passed(barrier.clone()));
    }
}

/// The second state table of a source's own reader.
fn errors(tables: &Tables) -> std::cell::Ref<'_, Box<dyn Table>> {
    std::cell::Ref::map(tables.borrow(), |t| {
        t.get(1).expect("a source keeps what it could not decode")
    })
}

fn errors_mut(tables: &Tables) -> std::cell::RefMut<'_, Box<dyn Table>> {
    std::cell::RefMut::map(tables.borrow_mut(), |t| {
        t.get_mut(1)
            .expect("a source keeps what it could not decode")
    })
}

/// The state table in which an input keeps where it stands.
pub(crate) fn first(tables: &Tables) -> std::cell::Ref<'_, Box<dyn Table>> {
    std::cell::Ref::map(tables.borrow(), |t| {
        t.first().expect("an input has one state table")
    })
}

pub(crate) fn first_mut(tables: &Tables) -> std::cell::RefMut<'_, Box<dyn Table>> {
    std::cell::RefMut::map(tables.borrow_mut(), |t| {
        t.first_mut().expect("an input has one state table")
    })
}

/// The last state table of an input: its event time, where it has one.
pub(crate) fn last_mut(tables: &Tables) -> std::cell::RefMut<'_, Box<dyn Table>> {
    std::cell::RefMut::map(tables.borrow_mut(), |t| {
        t.last_mut()
            .expect("an input with a watermark has a table for it")
    })
}

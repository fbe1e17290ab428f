//! The changes of a table or view, for a view on top of it, on the same worker and key groups.
//!
//! What was there before is read in bounded slices, one per epoch, in (key group, row) order, as of the barrier before.
//! A change at or below the position that the slices have reached passes; one above is dropped, because a later slice
//! will hold it. The position of each key group is state, so that a backfill goes on after a crash and on other workers.
//! A view that begins with the state of a savepoint is sent the difference instead, in its first epoch.

use super::InputPort;
use super::difference::{Unlike, difference};
use super::shared_source::{first, first_mut};
use crate::hub::{Exported, Exporter, ImportQueue, Subscriber};
use crate::status::RelationStatus;
use arrow::array::BooleanArray;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use tidegate_state::{
    BackendKind, Backends, Cell, Change, Run, SlicePosition, StateError, Table, ViewStore,
};
use tidegate_types::{
    Barrier, Batch, Epoch, KEY_GROUPS, KeyGroup, KeyGroupRange, RelationId, RowCodec, hash_key,
    key_group,
};

/// Rows that one worker backfills in one epoch.
const SLICE_ROWS: usize = 65_536;
const ITEMS_PER_ACTIVATION: usize = 16;

/// How much of a key group has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reached {
    Nothing,
    Row(Vec<u8>),
    All,
}

struct Backfill {
    groups: Vec<Reached>,
    /// Rows read so far, under the group in which each slice began: only their sum says anything.
    read: Vec<u64>,
    /// How many rows there are has been told.
    counted: bool,
    /// The slice of the current epoch has been read.
    sliced: bool,
}

pub(crate) struct ViewImport {
    port: InputPort,
    columns: Vec<usize>,
    queue: Rc<RefCell<ImportQueue>>,
    exporter: Rc<RefCell<Exporter>>,
    /// To read from until everything has been read.
    store: Option<Arc<ViewStore>>,
    positions: Positions,
    waiting: VecDeque<Exported>,
    /// `None` once everything has been read.
    backfill: Option<Backfill>,
    /// The rows of a savepoint from which the view has to catch up; its operators know them already.
    saved: Option<Arc<ViewStore>>,
    /// The newest barrier that the imported view has passed on this worker.
    passed: u64,
    status: Arc<RelationStatus>,
}

impl ViewImport {
    pub fn new(
        port: InputPort,
        from: RelationId,
        columns: Vec<usize>,
        exporter_passed: u64,
        status: Arc<RelationStatus>,
        saved: Option<Vec<Run>>,
    ) -> Self {
        let hub = port.cx.hub.clone();
        let queue = Rc::new(RefCell::new(ImportQueue::default()));
        let exporter = hub.exporter(from);
        exporter.borrow_mut().subscribers.push(Subscriber {
            importer: port.cx.relation,
            queue: queue.clone(),
            activator: port.cx.activator.clone(),
            credits: port.cx.credits.clone(),
        });
        let store = exporter
            .borrow()
            .store
            .clone()
            .expect("a view is installed before the views over it");
        let positions = match Positions::new(&store, hub.groups) {
            Ok(positions) => positions,
            Err(error) => port.cx.fail(error),
        };
        let (groups, read) = match restored_groups(first(&port.tables).as_ref()) {
            Ok(restored) => restored,
            Err(error) => port.cx.fail(error),
        };
        let complete = hub
            .groups
            .iter()
            .all(|g| groups[g as usize] == Reached::All);
        let backfill = (!complete).then_some(Backfill {
            groups,
            read,
            counted: false,
            sliced: false,
        });
        if let Some(backfill) = &backfill {
            status.backfill_started();
            let before: u64 = hub.groups.iter().map(|g| backfill.read[g as usize]).sum();
            status.backfilled(before as usize);
            hub.coordinator.barrier_wanted();
        }
        let saved = match saved
            .map(|runs| stored(&hub.backends, &store, &runs))
            .transpose()
        {
            Ok(saved) => saved,
            Err(error) => port.cx.fail(error),
        };
        port.cx.activator.activate();
        Self {
            port,
            columns,
            queue,
            exporter,
            store: (backfill.is_some() || saved.is_some()).then_some(store),
            saved,
            positions,
            waiting: VecDeque::new(),
            backfill,
            passed: exporter_passed,
            status,
        }
    }

    pub fn run(&mut self) {
        self.waiting.extend(self.queue.borrow_mut().items.drain(..));
        for done in 0.. {
            // What lies in front of a barrier that overtakes is handed on at once: it is overtaken further down.
            if done >= ITEMS_PER_ACTIVATION && !self.port.is_overtaken() {
                break;
            }
            if !self.step() {
                return;
            }
        }
        self.port.cx.activator.activate();
    }

    fn step(&mut self) -> bool {
        if self.saved.is_some() {
            if self.passed + 1 < self.port.epoch {
                return self.step_before_start();
            }
            self.catch_up();
            return true;
        }
        if self.backfill.as_ref().is_some_and(|b| !b.sliced) {
            // The slice is as of the barrier before this epoch, which the view below must have passed.
            if self.passed + 1 < self.port.epoch {
                return self.step_before_start();
            }
            self.read_slice();
            return true;
        }
        match self.waiting.pop_front() {
            Some(Exported::Rows(epoch, batch)) => {
                self.take_changes(epoch, batch);
                true
            }
            Some(Exported::Passed(barrier)) => {
                self.passed = barrier.epoch.0;
                if barrier.epoch.0 >= self.port.epoch {
                    self.close_epoch(&barrier);
                }
                true
            }
            None => false,
        }
    }

    /// Changes of epochs before the first of this view are in the slices.
    fn step_before_start(&mut self) -> bool {
        match self.waiting.pop_front() {
            Some(Exported::Rows(_, batch)) => {
                self.port.cx.credits.processed(batch.num_rows());
                true
            }
            Some(Exported::Passed(barrier)) => {
                self.passed = barrier.epoch.0;
                true
            }
            None => false,
        }
    }

    /// Sends what has changed since the savepoint, as of the barrier before the first epoch.
    fn catch_up(&mut self) {
        let as_of = Epoch(self.port.epoch - 1);
        let (Some(saved), Some(store)) = (self.saved.take(), self.store.clone()) else {
            return;
        };
        let mut sent = 0;
        let caught_up = store.snapshot(as_of).map_err(Unlike::from).and_then(|now| {
            let then = saved.snapshot(as_of)?;
            difference(&now, &then, store.spec(), &mut |batch| {
                sent += batch.num_rows();
                self.send(batch);
            })
        });
        match caught_up {
            Ok(()) => {
                self.status.backfilled(sent);
                self.store = self.store.take().filter(|_| self.backfill.is_some());
            }
            Err(error) => self.port.cx.fail(error),
        }
    }

    fn read_slice(&mut self) {
        let as_of = Epoch(self.port.epoch - 1);
        let slices = match self.slices(as_of) {
            Ok(slices) => slices,
            Err(error) => self.port.cx.fail(error),
        };
        for batch in slices {
            self.status.backfilled(batch.num_rows());
            self.send(batch);
        }
        let backfill = self
            .backfill
            .as_mut()
            .expect("only a backfilling import reads slices");
        backfill.sliced = true;
        self.port.cx.hub.coordinator.barrier_wanted();
    }

    /// Reads on from the first group that is not complete until the slice is full.
    fn slices(&mut self, as_of: Epoch) -> Result<Vec<Batch>, StateError> {
        let rows = self.slice_rows();
        let store = self.store.as_ref();
        let store = store.expect("only a backfilling import reads slices");
        let snapshot = store.snapshot(as_of)?;
        let backfill = self
            .backfill
            .as_mut()
            .expect("only a backfilling import reads slices");
        if !std::mem::replace(&mut backfill.counted, true) {
            self.status.expects(Some(snapshot.num_rows()));
        }
        let own = self.port.cx.hub.groups;
        let Some(group) = own
            .iter()
            .find(|g| backfill.groups[*g as usize] != Reached::All)
        else {
            return Ok(Vec::new());
        };
        // After a change of the number of workers some of the groups behind may have been read already, in part or whole:
        // a slice ends in front of them.
        let end = (group as usize + 1..own.end)
            .find(|g| backfill.groups[*g] != Reached::Nothing)
            .unwrap_or(own.end);
        let after = SlicePosition {
            group,
            row: backfill.groups[group as usize].row(),
        };
        let (batch, next) = snapshot.slice(Some(&after), end, rows)?;
        let complete_before = next.as_ref().map_or(end, |p| p.group as usize);
        backfill.groups[group as usize..complete_before].fill(Reached::All);
        if let Some(position) = next {
            backfill.groups[position.group as usize] = Reached::Row(position.row);
        }
        backfill.read[group as usize] += batch.num_rows() as u64;
        let changed = group as usize..own.end.min(complete_before + 1);
        save_groups(first_mut(&self.port.tables).as_mut(), backfill, changed)?;
        Ok(vec![batch])
    }

    #[cfg(debug_assertions)]
    fn slice_rows(&self) -> usize {
        crate::failpoint::slice_rows(
            &self.port.cx.relation_name,
            self.port.cx.hub.worker,
            SLICE_ROWS,
        )
    }

    #[cfg(not(debug_assertions))]
    fn slice_rows(&self) -> usize {
        SLICE_ROWS
    }

    fn take_changes(&mut self, epoch: Epoch, batch: Batch) {
        let rows = batch.num_rows();
        // Changes from before this view's first epoch are in the slices, or came with the restored state.
        if epoch.0 >= self.port.epoch {
            let batch = match &self.backfill {
                None => batch,
                Some(backfill) => match self
                    .positions
                    .filter(&batch, |g, row| backfill.groups[g as usize].includes(row))
                {
                    Ok(batch) => batch,
                    Err(error) => self.port.cx.fail(error),
                },
            };
            self.send(batch);
        }
        self.port.cx.credits.processed(rows);
    }

    fn send(&mut self, batch: Batch) {
        match batch.project(&self.columns) {
            Ok(batch) => self.port.emit(batch),
            Err(error) => self.port.cx.fail(error),
        }
    }

    fn close_epoch(&mut self, barrier: &Barrier) {
        self.port.close_epoch(barrier);
        let Some(backfill) = &mut self.backfill else {
            return;
        };
        if self
            .port
            .cx
            .hub
            .groups
            .iter()
            .all(|g| backfill.groups[g as usize] == Reached::All)
        {
            self.backfill = None;
            self.store = None;
            self.status.backfill_finished(barrier.epoch.0);
        } else {
            backfill.sliced = false;
            self.port.cx.hub.coordinator.barrier_wanted();
        }
    }
}

/// The rows of a savepoint, to be compared with those of the view that it was taken of.
fn stored(
    backends: &Backends,
    view: &ViewStore,
    runs: &[Run],
) -> Result<Arc<ViewStore>, StateError> {
    let store = backends.open_view(BackendKind::Memory, view.spec().clone())?;
    for run in runs {
        store.restore(run)?;
    }
    Ok(store)
}

impl Drop for ViewImport {
    fn drop(&mut self) {
        let relation = self.port.cx.relation;
        if let Ok(mut exporter) = self.exporter.try_borrow_mut() {
            exporter
                .subscribers
                .retain(|s| s.importer != relation || !Rc::ptr_eq(&s.queue, &self.queue));
        }
    }
}

impl Reached {
    fn includes(&self, row: &[u8]) -> bool {
        match self {
            Reached::Nothing => false,
            Reached::Row(reached) => row <= reached.as_slice(),
            Reached::All => true,
        }
    }

    fn row(&self) -> Vec<u8> {
        match self {
            Reached::Row(row) => row.clone(),
            Reached::Nothing | Reached::All => Vec::new(),
        }
    }
}

/// Where rows stand in the order of slices.
struct Positions {
    /// The view's columns, those of its key first.
    order: Vec<usize>,
    key_columns: usize,
    row_codec: RowCodec,
    key_codec: Option<RowCodec>,
    /// Rows of an append-only view have no place of their own: new ones follow all others, in this group.
    appends_to: Option<KeyGroup>,
}

impl Positions {
    fn new(store: &ViewStore, own: KeyGroupRange) -> Result<Self, arrow::error::ArrowError> {
        let spec = store.spec();
        let rest = (0..spec.schema.fields().len()).filter(|c| !spec.key.contains(c));
        let order: Vec<usize> = spec.key.iter().copied().chain(rest).collect();
        let types: Vec<_> = order
            .iter()
            .map(|c| spec.schema.field(*c).data_type().clone())
            .collect();
        let key_columns = spec.key.len();
        let key_codec = (key_columns > 0)
            .then(|| RowCodec::new(&types[..key_columns]))
            .transpose()?;
        let appends_to = spec.append_only.then_some(own.start as KeyGroup);
        Ok(Self {
            row_codec: RowCodec::new(&types)?,
            order,
            key_columns,
            key_codec,
            appends_to,
        })
    }

    fn filter(
        &self,
        batch: &Batch,
        keep: impl Fn(KeyGroup, &[u8]) -> bool,
    ) -> Result<Batch, StateError> {
        if let Some(group) = self.appends_to {
            return Ok(if keep(group, &[0xff; 8]) {
                batch.clone()
            } else {
                Batch::empty(batch.schema())
            });
        }
        let columns: Vec<_> = self
            .order
            .iter()
            .map(|c| batch.column(*c).clone())
            .collect();
        let rows = self.row_codec.encode(&columns)?;
        let keys = self
            .key_codec
            .as_ref()
            .map(|codec| codec.encode(&columns[..self.key_columns]))
            .transpose()?;
        let keep: BooleanArray = (0..batch.num_rows())
            .map(|i| {
                let row = rows.row(i);
                let hash = keys
                    .as_ref()
                    .map_or_else(|| hash_key(row.data()), |k| hash_key(k.row(i).data()));
                Some(keep(key_group(hash), row.data()))
            })
            .collect();
        Ok(batch.filter(&keep)?)
    }
}

/// One row per key group: how many rows were read under it, and behind that nothing if all of it has been read, else a one
/// and the row that was reached.
fn save_groups(
    table: &mut dyn Table,
    backfill: &Backfill,
    changed: std::ops::Range<usize>,
) -> Result<(), StateError> {
    for group in changed {
        let read = backfill.read[group].to_be_bytes();
        let value = match &backfill.groups[group] {
            Reached::Nothing => continue,
            Reached::All => read.to_vec(),
            Reached::Row(row) => [&read, &[1u8][..], row.as_slice()].concat(),
        };
        table.write_many(&[Change {
            cell: Cell::key(&[group as KeyGroup]),
            value: Some(&value),
        }])?;
    }
    Ok(())
}

fn restored_groups(table: &dyn Table) -> Result<(Vec<Reached>, Vec<u64>), StateError> {
    let mut groups = vec![Reached::Nothing; KEY_GROUPS];
    let mut read = vec![0; KEY_GROUPS];
    table.scan_all(&mut |_, key, _, value| {
        if let ([group], Some((count, rest))) = (key, value.split_first_chunk()) {
            read[*group as usize] = u64::from_be_bytes(*count);
            groups[*group as usize] = match rest {
                [] => Reached::All,
                [_, row @ ..] => Reached::Row(row.to_vec()),
            };
        }
        ControlFlow::Continue(())
    })?;
    Ok((groups, read))
}

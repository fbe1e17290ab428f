//! The contents of a view on one worker: written by the dataflow, read at an epoch by everybody else.
//!
//! What an epoch changed is one immutable layer. Layers join a list; in the background neighbouring ones are merged, so
//! that readers merge a few. A snapshot is the list as it was, by `Arc`: it stays valid however long it is kept.
//!
//! - A keyed view is a Z-set of encoded rows ([`sorted`]): equal rows are summed, writing never reads.
//! - An append-only view is a log of Arrow batches ([`log`]): nothing is encoded or sorted before a checkpoint.
//!
//! With RocksDB behind it, layers for which memory is too short go there ([`spill`]).
//!
//! Guarantees: a snapshot at a published epoch shows all changes up to that epoch and none after it. Layers newer than
//! the published epoch are never merged with older ones, nor are those on either side of a checkpoint that is not
//! completed, so that sealing costs what changed. A few epochs before the published one stay readable for those who
//! chose an epoch and are about to take its snapshots; an older one answers [`StateError::EpochGone`].

pub mod cursor;
mod difference;
pub mod layer;
pub mod log;
pub mod row;
pub mod snapshot;
pub mod sorted;
mod spill;
pub mod subscription;

use crate::maintenance::MaintenanceHandle;
use crate::memory::MemoryShare;
use crate::rocks::view::{Marker, Through, ViewDisk};
use crate::run::Run;
use crate::table::{StateError, TableStats};
use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use cursor::Cursor;
use layer::{Layer, LayerRows};
use log::LogRows;
use parking_lot::{Condvar, Mutex};
use row::RowLayout;
use sorted::{SortedRows, SortedRowsBuilder};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use subscription::Subscriber;
use tidegate_types::{
    Batch, CheckpointId, Diff, Epoch, KEY_GROUPS, KeyGroup, KeyGroupRange, TableId,
};

pub use snapshot::{SlicePosition, ViewScan, ViewSnapshot};
pub use subscription::{Subscription, ViewDelta};

/// How many published epochs stay readable one by one.
const READABLE_EPOCHS: usize = 8;
/// The same while memory is short.
const FEW_EPOCHS: usize = 2;
/// Layers that are larger together are merged some key groups at a time. Tests have small views.
const WHOLE_MERGE_BYTES: usize = if cfg!(test) { 1 << 10 } else { 32 << 20 };
const MERGE_GROUPS: usize = 16;
/// A merge takes at least so many layers.
const MERGE_LAYERS: usize = 4;

#[derive(Debug, Clone)]
pub struct ViewSpec {
    /// The id under which the view's rows appear in checkpoints.
    pub table: TableId,
    pub schema: SchemaRef,
    /// Rows are encoded with these columns first, then the rest in order, and distributed by them (by the whole row
    /// when there are none).
    pub key: Vec<usize>,
    /// Rows are never retracted; their key plays no role in how they are kept.
    pub append_only: bool,
}

/// One view's rows on one worker. Shared by the worker, which writes, and readers.
pub struct ViewStore {
    spec: ViewSpec,
    layout: Arc<RowLayout>,
    groups: KeyGroupRange,
    inner: Mutex<Inner>,
    maintenance: MaintenanceHandle,
    /// Where layers go for which there is no room.
    disk: Option<ViewDisk>,
    /// What the layers of all views of this worker that share an account may take, when there is a disk.
    limit_bytes: usize,
    /// Something was moved to disk.
    moved: Condvar,
    /// Rows that were found with a count below zero: each is a bug upstream.
    negative_rows: Arc<AtomicU64>,
    this: Weak<ViewStore>,
}

struct Inner {
    /// Oldest first. Restored layers come before all others.
    layers: Vec<Arc<Layer>>,
    /// The newest published epochs, newest last.
    published: VecDeque<Epoch>,
    /// Checkpoints under way, each with the last epoch in it.
    sealed: VecDeque<(CheckpointId, Epoch)>,
    /// The last epoch that a completed checkpoint holds.
    completed: Option<Epoch>,
    merging: bool,
    subscribers: Vec<Subscriber>,
    memory: MemoryShare,
    /// The number of the next row of an append-only view.
    next_number: u64,
    /// What is in RocksDB, and why the background thread could not put more there.
    on_disk: Marker,
    disk_error: Option<String>,
    /// What of it no completed checkpoint holds, oldest first.
    through: Vec<Through>,
    next_generation: u64,
    moving: bool,
}

impl ViewStore {
    /// In memory alone when there is no `disk`; it comes with the bytes that layers may take before they go there.
    pub fn open(
        spec: ViewSpec,
        groups: KeyGroupRange,
        memory: MemoryShare,
        maintenance: MaintenanceHandle,
        disk: Option<(ViewDisk, usize)>,
    ) -> Result<Arc<Self>, StateError> {
        let (disk, limit_bytes) = disk.unzip();
        let layout = Arc::new(RowLayout::new(spec.schema.clone(), &spec.key)?);
        Ok(Arc::new_cyclic(|this| Self {
            spec,
            layout,
            groups,
            inner: Mutex::new(Inner {
                layers: Vec::new(),
                published: VecDeque::new(),
                sealed: VecDeque::new(),
                completed: None,
                merging: false,
                subscribers: Vec::new(),
                memory,
                next_number: 0,
                on_disk: Marker::default(),
                disk_error: None,
                through: Vec::new(),
                next_generation: 0,
                moving: false,
            }),
            maintenance,
            disk,
            limit_bytes: limit_bytes.unwrap_or(usize::MAX),
            moved: Condvar::new(),
            negative_rows: Arc::default(),
            this: this.clone(),
        }))
    }

    pub fn spec(&self) -> &ViewSpec {
        &self.spec
    }

    /// The changes of one epoch. Epochs come in order; one without changes need not come.
    pub fn append(&self, epoch: Epoch, batches: Vec<Batch>) -> Result<(), StateError> {
        let rows = match self.spec.append_only {
            true => self.log_rows(batches)?,
            false => self.sorted_rows(batches)?,
        };
        let layer = Layer {
            first: Some(epoch),
            last: Some(epoch),
            rows,
        };
        if layer.is_empty() {
            return Ok(());
        }
        {
            let mut inner = self.inner.lock();
            let newest = inner.layers.last().and_then(|l| l.last);
            assert!(newest <= Some(epoch), "epochs of a view come in order");
            inner.layers.push(Arc::new(layer));
            inner.account();
        }
        self.wait_for_room()
    }

    fn sorted_rows(&self, batches: Vec<Batch>) -> Result<LayerRows, StateError> {
        let mut encoded = Vec::with_capacity(batches.len());
        for batch in batches.iter().filter(|b| !b.is_empty()) {
            let diffs = batch.diffs().map(|d| d.values().to_vec());
            encoded.push((self.layout.encode(batch.rows())?, diffs));
        }
        Ok(LayerRows::Sorted(SortedRows::build(&encoded)))
    }

    fn log_rows(&self, batches: Vec<Batch>) -> Result<LayerRows, StateError> {
        let rows: Result<Vec<_>, _> = batches.into_iter().map(log::repeated).collect();
        let mut rows = rows?;
        rows.retain(|b| b.num_rows() > 0);
        let mut inner = self.inner.lock();
        let log = LogRows::new(self.first_group(), inner.next_number, rows);
        inner.next_number = log.next_number();
        Ok(LayerRows::Log(log))
    }

    fn first_group(&self) -> KeyGroup {
        self.groups.start as KeyGroup
    }

    /// Everything appended in epochs up to this one that no completed checkpoint, nor one under way, holds.
    /// Values are counts to be added ([`crate::Merge::Sum`]). The run is put together when it is first read, and may then
    /// turn out to be empty, when changes cancelled out.
    pub fn seal(&self, checkpoint: CheckpointId, epoch: Epoch) -> Result<Option<Run>, StateError> {
        let mut inner = self.inner.lock();
        let after = inner
            .sealed
            .back()
            .map_or(inner.completed, |(_, e)| Some(*e));
        inner.sealed.push_back((checkpoint, epoch));
        let unsealed = inner
            .layers
            .iter()
            .filter(|l| l.last > after && l.last <= Some(epoch));
        let layers = unsealed.cloned().collect::<Vec<_>>();
        let moved = inner
            .through
            .iter()
            .filter(|t| Some(t.last) > after && t.last <= epoch);
        let moved: Vec<Through> = moved.cloned().collect();
        match &self.disk {
            // Under the lock: what is moved from now on is among the layers.
            Some(disk) if !moved.is_empty() => {
                Ok(Some(disk.stored_run(moved, layers, self.layout.clone())))
            }
            _ => Ok(Layer::run(self.spec.table, layers, self.layout.clone())),
        }
    }

    /// This checkpoint and all earlier ones are durable.
    pub fn completed(&self, checkpoint: CheckpointId) -> Result<(), StateError> {
        let mut inner = self.inner.lock();
        while let Some((_, epoch)) = inner.sealed.pop_front_if(|(c, _)| *c <= checkpoint) {
            inner.completed = Some(epoch);
        }
        let completed = inner.completed;
        let held = inner
            .through
            .extract_if(.., |t| Some(t.last) <= completed)
            .collect();
        self.forget_notes(held);
        self.schedule_move(&mut inner);
        self.schedule_merge(&mut inner);
        Ok(())
    }

    /// This checkpoint will never complete, nor will later ones that are under way. What they hold joins the next seal.
    pub fn aborted(&self, checkpoint: CheckpointId) {
        self.inner.lock().sealed.retain(|(c, _)| *c < checkpoint);
    }

    /// Loads rows that no checkpoint of this view holds, as what an epoch changed: one before any that is appended.
    pub fn seed(&self, epoch: Epoch, run: &Run) -> Result<(), StateError> {
        let rows: Vec<LayerRows> = match self.spec.append_only {
            true => LogRows::read_run(run, &self.layout)?
                .into_iter()
                .map(LayerRows::Log)
                .collect(),
            false => vec![LayerRows::Sorted(sorted_from_run(run)?)],
        };
        {
            let mut inner = self.inner.lock();
            for rows in rows {
                if let LayerRows::Log(log) = &rows
                    && log.group() == self.first_group()
                {
                    inner.next_number = inner.next_number.max(log.next_number());
                }
                inner.layers.push(Arc::new(Layer {
                    first: Some(epoch),
                    last: Some(epoch),
                    rows,
                }));
            }
            inner.account();
        }
        self.wait_for_room()
    }

    /// Loads a restored run, older runs first, before anything is appended. While there is room it stays in memory.
    pub fn restore(&self, run: &Run) -> Result<(), StateError> {
        if let Some(disk) = &self.disk {
            let mut inner = self.inner.lock();
            let bytes = inner.memory.account_bytes() + run.memory_bytes() * 2;
            if inner.on_disk.reach.is_some() || bytes > self.limit_bytes / 2 {
                return self.restore_to_disk(disk, run, &mut inner);
            }
        }
        let rows: Vec<LayerRows> = match self.spec.append_only {
            true => LogRows::read_run(run, &self.layout)?
                .into_iter()
                .map(LayerRows::Log)
                .collect(),
            false => vec![LayerRows::Sorted(sorted_from_run(run)?)],
        };
        let mut inner = self.inner.lock();
        assert!(
            inner.layers.iter().all(|l| l.last.is_none()),
            "a view is restored before it is written"
        );
        for rows in rows {
            if let LayerRows::Log(log) = &rows
                && log.group() == self.first_group()
            {
                inner.next_number = inner.next_number.max(log.next_number());
            }
            inner.layers.push(Arc::new(Layer {
                first: None,
                last: None,
                rows,
            }));
        }
        inner.account();
        self.schedule_merge(&mut inner);
        Ok(())
    }

    /// All of what is restored lies on disk, or none of it: so the rows of a log stay in order.
    fn restore_to_disk(
        &self,
        disk: &ViewDisk,
        run: &Run,
        inner: &mut Inner,
    ) -> Result<(), StateError> {
        assert!(
            inner.published.is_empty(),
            "a view is restored before it is read"
        );
        let layers = std::mem::take(&mut inner.layers);
        if !layers.is_empty() {
            inner.on_disk.reach = Some(None);
            disk.apply(&layers, &self.layout, &mut inner.on_disk)?;
            inner.account();
        }
        inner.on_disk = disk.restore(run, inner.on_disk)?;
        if self.spec.append_only {
            for entry in run.iter().filter(|e| e.group == self.first_group()) {
                inner.next_number = inner.next_number.max(log::numbered_row(entry.key)?.0 + 1);
            }
        }
        Ok(())
    }

    /// All workers have reached this epoch: readers may ask for it, and earlier ones may be merged.
    pub fn publish(&self, epoch: Epoch) {
        let mut inner = self.inner.lock();
        if inner
            .published
            .back()
            .is_some_and(|newest| *newest >= epoch)
        {
            return;
        }
        inner.published.push_back(epoch);
        let crowded = inner.memory.account_bytes() > self.limit_bytes;
        let readable = if crowded { FEW_EPOCHS } else { READABLE_EPOCHS };
        while inner.published.len() > readable {
            inner.published.pop_front();
        }
        let Inner {
            layers,
            subscribers,
            ..
        } = &mut *inner;
        subscribers.retain_mut(|s| s.send(layers, epoch, &self.layout));
        self.schedule_move(&mut inner);
        self.schedule_merge(&mut inner);
    }

    pub fn published(&self) -> Option<Epoch> {
        self.inner.lock().published.back().copied()
    }

    /// The rows as of the end of an epoch: the newest published one, or one of the few before it.
    pub fn snapshot(&self, epoch: Epoch) -> Result<ViewSnapshot, StateError> {
        // The layers first: what leaves their list afterwards is in the snapshot of the disk, whose marker says so.
        let mut layers = self.layers_up_to(epoch)?;
        let disk = match &self.disk {
            Some(disk) => Some(disk.snapshot()?),
            None => None,
        };
        if let Some(disk) = &disk {
            if disk.marker.reach > Some(Some(epoch)) {
                return Err(StateError::EpochGone(epoch));
            }
            layers.retain(|l| !disk.marker.covers(l.last));
        }
        let (spec, layout, negative_rows) = (
            self.spec.clone(),
            self.layout.clone(),
            self.negative_rows.clone(),
        );
        Ok(ViewSnapshot::new(
            spec,
            layout,
            layers,
            disk,
            self.first_group(),
            negative_rows,
        ))
    }

    fn layers_up_to(&self, epoch: Epoch) -> Result<Vec<Arc<Layer>>, StateError> {
        let inner = self.inner.lock();
        if inner.on_disk.reach > Some(Some(epoch)) {
            return Err(StateError::EpochGone(epoch));
        }
        let count = inner.layers.partition_point(|l| l.last <= Some(epoch));
        if inner
            .layers
            .get(count)
            .is_some_and(|l| l.first <= Some(epoch))
        {
            return Err(StateError::EpochGone(epoch));
        }
        Ok(inner.layers[..count].to_vec())
    }

    /// The changes of epochs after this one, each when it is published. A subscriber that falls `capacity` changes
    /// behind is told so and gets no more.
    pub fn subscribe(&self, from: Epoch, capacity: usize) -> Result<Subscription, StateError> {
        let mut inner = self.inner.lock();
        let straddled = |l: &Arc<Layer>| l.last > Some(from) && l.first <= Some(from);
        if inner.on_disk.reach > Some(Some(from)) || inner.layers.iter().any(straddled) {
            return Err(StateError::EpochGone(from));
        }
        let (mut subscriber, subscription) = Subscriber::new(from, capacity);
        let published = inner.published.back().copied();
        if let Some(published) = published {
            subscriber.send(&inner.layers, published, &self.layout);
        }
        inner.subscribers.push(subscriber);
        Ok(subscription)
    }

    /// Others take the place of these contents: whoever follows them is told so and gets no more.
    pub fn end_subscriptions(&self) {
        for subscriber in self.inner.lock().subscribers.drain(..) {
            subscriber.end();
        }
    }

    /// The bytes of keys given as columns in the order of the view's key, as [`ViewSnapshot::lookup`] takes them.
    pub fn encode_keys(&self, columns: &[ArrayRef]) -> Result<Rows, StateError> {
        self.layout.encode_keys(columns)
    }

    /// The rows of a later change that a backfill at this position has to see: those at or before it. The others will be
    /// in a later slice.
    pub fn at_or_before(
        &self,
        position: &SlicePosition,
        batch: &Batch,
    ) -> Result<Batch, StateError> {
        if self.spec.append_only {
            // New rows follow all rows of the worker's first group.
            return Ok(match self.first_group() < position.group {
                true => batch.clone(),
                false => Batch::empty(batch.schema()),
            });
        }
        let encoded = self.layout.encode(batch.rows())?;
        let reached = (position.group, position.row.as_slice());
        let rows = encoded.rows.iter().zip(&encoded.groups);
        let keep: Vec<bool> = rows
            .map(|(row, group)| (*group, row.data()) <= reached)
            .collect();
        Ok(batch.filter(&keep.into())?)
    }

    pub fn stats(&self) -> TableStats {
        let inner = self.inner.lock();
        let sealed = inner
            .sealed
            .back()
            .map_or(inner.completed, |(_, e)| Some(*e));
        let changed = inner.layers.iter().filter(|l| l.last > sealed);
        let in_layers: Diff = inner.layers.iter().map(|l| l.diff_sum()).sum();
        let in_memory: u64 = inner.layers.iter().map(|l| l.memory_bytes() as u64).sum();
        TableStats {
            cells: (inner.on_disk.rows + in_layers).max(0) as u64,
            bytes: in_memory + self.disk.as_ref().map_or(0, ViewDisk::approximate_bytes),
            changed_bytes: changed.map(|l| l.memory_bytes() as u64).sum(),
        }
    }

    /// How often a row was found with a count below zero, which only a bug can cause.
    pub fn negative_rows(&self) -> u64 {
        self.negative_rows.load(Ordering::Relaxed)
    }

    /// How many layers a reader has to merge.
    pub fn layer_count(&self) -> usize {
        self.inner.lock().layers.len()
    }

    fn schedule_merge(&self, inner: &mut Inner) {
        if inner.merging || inner.window().is_none() {
            return;
        }
        inner.merging = true;
        let this = self.this.clone();
        self.maintenance.submit(move || {
            if let Some(view) = this.upgrade() {
                view.merge();
            }
        });
    }

    /// Merges until there is nothing worth merging. Runs on the background thread.
    fn merge(&self) {
        loop {
            let layers = {
                let mut inner = self.inner.lock();
                match inner.window() {
                    Some(window) => inner.layers[window].to_vec(),
                    None => {
                        inner.merging = false;
                        return;
                    }
                }
            };
            if let Err(error) = self.merge_layers(layers) {
                tracing::error!(table = %self.spec.table, %error, "merging the layers of a view failed");
                // Left as it is, the view stays readable; it will not be merged again.
                return;
            }
        }
    }

    fn merge_layers(&self, layers: Vec<Arc<Layer>>) -> Result<(), StateError> {
        let bytes: usize = layers.iter().map(|l| l.memory_bytes()).sum();
        if self.spec.append_only || bytes < WHOLE_MERGE_BYTES {
            let merged = Layer::merge(&layers)?;
            self.replace(&layers, vec![Arc::new(merged)]);
            return Ok(());
        }
        // Some key groups at a time: what is merged of the old layers goes before the rest is begun, so that merging
        // takes little memory beside the view itself.
        let (first, last) = (layers[0].first, layers[layers.len() - 1].last);
        let (mut listed, mut sources) = (layers.clone(), layers);
        let mut merged = SortedRowsBuilder::default();
        for end in (MERGE_GROUPS..=KEY_GROUPS).step_by(MERGE_GROUPS) {
            let mut cursor = Cursor::new(&sources, &[(end - MERGE_GROUPS) as KeyGroup], None);
            while let Some((row, diff)) = cursor.next_row()? {
                if usize::from(row[0]) >= end {
                    break;
                }
                merged.push(&[row], diff);
            }
            drop(cursor);
            sources = match KeyGroup::try_from(end) {
                Ok(end) => sources
                    .iter()
                    .map(|l| Arc::new(l.from_group(end)))
                    .filter(|l| !l.is_empty())
                    .collect(),
                Err(_) => Vec::new(),
            };
            let rows = LayerRows::Sorted(merged.so_far());
            let mut replacement = sources.clone();
            replacement.push(Arc::new(Layer { first, last, rows }));
            listed = self.replace(&listed, replacement);
        }
        Ok(())
    }

    /// Puts layers in the place of neighbouring ones, without those that are empty; answers which are there now.
    fn replace(&self, old: &[Arc<Layer>], mut new: Vec<Arc<Layer>>) -> Vec<Arc<Layer>> {
        new.retain(|l| !l.is_empty());
        let mut inner = self.inner.lock();
        if let Some(oldest) = old.first() {
            let start = inner.layers.iter().position(|l| Arc::ptr_eq(l, oldest));
            let start = start.expect("only this thread removes layers");
            inner
                .layers
                .splice(start..start + old.len(), new.iter().cloned());
            inner.account();
        }
        new
    }
}

impl Inner {
    fn account(&mut self) {
        let bytes = self.layers.iter().map(|l| l.memory_bytes()).sum();
        self.memory.set(bytes);
    }

    /// The layers to merge next, if some are worth it: newest first, as long as each is at most twice as large as all
    /// newer ones together, so that a row takes part in a number of merges logarithmic in the size of the view.
    fn window(&self) -> Option<Range<usize>> {
        let limit = *self.published.front()?;
        let mut limits: Vec<Option<Epoch>> = vec![self.completed];
        limits.extend(self.sealed.iter().map(|(_, e)| Some(*e)));
        let mut start = 0;
        let mut windows = Vec::new();
        for limit in limits.into_iter().chain([Some(limit)]) {
            let limit = limit.min(Some(*self.published.front()?));
            let end = self.layers.partition_point(|l| l.last <= limit);
            if end > start {
                windows.extend(self.window_within(start..end));
                start = end;
            }
        }
        windows.into_iter().min_by_key(|w| {
            self.layers[w.clone()]
                .iter()
                .map(|l| l.len())
                .sum::<usize>()
        })
    }

    fn window_within(&self, range: Range<usize>) -> Option<Range<usize>> {
        let mut start = range.end - 1;
        let mut newer = self.layers[start].len();
        while start > range.start
            && self.mergeable(start - 1)
            && self.layers[start - 1].len() <= 2 * newer
        {
            start -= 1;
            newer += self.layers[start].len();
        }
        (range.end - start >= MERGE_LAYERS).then_some(start..range.end)
    }

    /// Whether a layer can become one with the next.
    fn mergeable(&self, index: usize) -> bool {
        match (&self.layers[index].rows, &self.layers[index + 1].rows) {
            (LayerRows::Log(a), LayerRows::Log(b)) => a.continues_in(b),
            _ => true,
        }
    }
}

fn sorted_from_run(run: &Run) -> Result<SortedRows, StateError> {
    let mut builder = SortedRowsBuilder::default();
    for entry in run.iter() {
        // A tombstone in a table of counts says nothing.
        if let Some(value) = entry.value {
            builder.push(&[&[entry.group], entry.key], count(value)?);
        }
    }
    Ok(builder.finish())
}

/// A count as it is stored.
pub fn count(value: &[u8]) -> Result<Diff, StateError> {
    let bytes = value
        .try_into()
        .map_err(|_| StateError::Damaged("the count of a row is not eight bytes".into()))?;
    Ok(Diff::from_le_bytes(bytes))
}

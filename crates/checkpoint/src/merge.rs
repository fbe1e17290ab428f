//! Merging runs in the background, so that restoring reads a bounded multiple of what is alive.
//!
//! [`CheckpointStore::merge_once`] picks windows of neighbouring runs (see [`crate::merge_policy`]) of one or several
//! tables, merges each into one run, and writes them as one object. The result waits until the next checkpoint's
//! manifest puts it in the place of its inputs; if that never happens it is deleted. Neither workers nor readers notice.
//!
//! An object that holds runs of many tables stays as long as one of them is needed. When little of a large object is
//! needed, what is left is copied elsewhere, block by block.
//!
//! - Replace: the newest entry of a cell wins; a deletion goes away when nothing older is below it.
//! - Sum: counts add up; zero goes away.

use crate::error::{CheckpointError, Damage, Result};
use crate::layout;
use crate::manifest::{TableDescriptor, TableEntry};
use crate::merge_policy::{levels, pick};
use crate::restore::Restorer;
use crate::run_file::{Block, BlockRef, ObjectEncoder, RunRef, empty_reference, verify_block};
use crate::storage::ObjectWriter;
use crate::store::{CheckpointStore, Purpose};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tidegate_state::run::RunEntry;
use tidegate_state::{Form, Merge};
use tidegate_types::{CheckpointId, KeyGroupRange, TableId};
use tokio::task::JoinHandle;

/// Small tables are merged together up to so many input bytes.
const JOB_BYTES: u64 = 64 << 20;
/// Objects below this size are not worth copying.
const COPY_BYTES: u64 = 256 << 10;
/// An object is copied when less than one in so many of its bytes is needed.
const COPY_FRACTION: u64 = 4;

/// A merge that is done and waits for the next manifest.
#[derive(Debug, Clone)]
pub(crate) struct FinishedMerge {
    pub id: u64,
    pub table: TableId,
    /// Neighbours in the table's list of runs.
    pub inputs: Vec<(Arc<str>, u32)>,
    /// `None` when nothing was left.
    pub output: Option<RunRef>,
}

impl FinishedMerge {
    /// Puts the output in place of the inputs. False when the table has changed too much for that.
    pub fn apply(&self, tables: &mut BTreeMap<TableId, Arc<TableEntry>>) -> bool {
        let Some(entry) = tables.get_mut(&self.table) else {
            return false;
        };
        let same = |run: &RunRef, input: &(Arc<str>, u32)| run.identity() == (&*input.0, input.1);
        let Some(first) = entry.runs.iter().position(|r| same(r, &self.inputs[0])) else {
            return false;
        };
        let window = first..first + self.inputs.len();
        let all = entry
            .runs
            .get(window.clone())
            .is_some_and(|w| w.iter().zip(&self.inputs).all(|(r, i)| same(r, i)));
        if all {
            Arc::make_mut(entry)
                .runs
                .splice(window, self.output.clone());
        }
        all
    }
}

/// What a merge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeReport {
    pub tables: usize,
    pub runs: usize,
    pub rows_read: u64,
    pub rows_written: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

/// One table's part of a merge.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub descriptor: TableDescriptor,
    pub runs: Vec<RunRef>,
    /// Nothing older is below the runs.
    pub bottom: bool,
    /// One run that only moves.
    pub copy: bool,
}

impl CheckpointStore {
    /// Merges once, if any table needs it. Call again until it returns `None`.
    ///
    /// Tables in `except` are left alone: those whose runs were found damaged.
    pub async fn merge_once(&self, except: &BTreeSet<TableId>) -> Result<Option<MergeReport>> {
        let _merging = self.merging.lock().await;
        let (tasks, object, pinned) = {
            let mut state = self.state.lock();
            let Some(base) = state.base.clone() else {
                return Ok(None);
            };
            let mut tables = base.tables.clone();
            state.merges.iter().for_each(|m| {
                m.apply(&mut tables);
            });
            let mut tasks = merge_tasks(&tables, except);
            if tasks.is_empty() {
                tasks = copy_tasks(&tables, &state.run_objects, except);
            }
            if tasks.is_empty() {
                return Ok(None);
            }
            let serial = state.serial();
            let object = layout::merged_run(self.generation(), serial, tasks[0].descriptor.table);
            let inputs = tasks
                .iter()
                .flat_map(|t| t.runs.iter().map(|r| r.object.clone()));
            let pin = state.pin(Purpose::Merge, inputs.chain([object.clone()]).collect());
            state.run_objects.insert(object.clone(), 0);
            (tasks, object, Pinned { store: self, pin })
        };
        let job = Job {
            restorer: self.restorer(),
            writer: self.storage.writer(&object),
            object,
            tasks,
        };
        let handle = self.handle.clone();
        let done = self.handle.spawn_blocking(move || job.run(&handle)).await;
        let done =
            done.map_err(|e| CheckpointError::OutOfOrder(format!("merging was cut short: {e}")))?;
        let (writer, outputs, mut report) = done?;
        if outputs.iter().any(|(_, output)| output.is_some()) {
            report.bytes_written = outputs
                .iter()
                .filter_map(|(_, o)| o.as_ref())
                .map(|r| r.bytes)
                .sum();
            writer.finish().await?;
        }
        let mut state = self.state.lock();
        if let Some(object) = outputs
            .iter()
            .find_map(|(_, o)| o.as_ref())
            .map(|r| r.object.clone())
        {
            state.run_objects.insert(object, report.bytes_written);
        }
        for (task, output) in outputs {
            let id = state.serial();
            let inputs = task
                .runs
                .iter()
                .map(|r| (r.object.clone(), r.index))
                .collect();
            state.merges.push(FinishedMerge {
                id,
                table: task.descriptor.table,
                inputs,
                output,
            });
        }
        drop(state);
        drop(pinned);
        Ok(Some(report))
    }
}

/// Keeps objects from being deleted while it lives.
struct Pinned<'a> {
    store: &'a CheckpointStore,
    pin: u64,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.store.state.lock().pins.remove(&self.pin);
    }
}

/// Tables that need merging: one large, or several small ones.
fn merge_tasks(
    tables: &BTreeMap<TableId, Arc<TableEntry>>,
    except: &BTreeSet<TableId>,
) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut bytes = 0;
    for (id, entry) in tables {
        if except.contains(id) {
            continue;
        }
        let levels = levels(&entry.runs);
        let Some(picked) = pick(&entry.runs, &levels) else {
            continue;
        };
        let window = levels[picked.start].start..levels[picked.end - 1].end;
        let runs = entry.runs[window.clone()].to_vec();
        let size = runs.iter().map(|r| r.bytes).sum::<u64>();
        if !tasks.is_empty() && bytes + size > JOB_BYTES {
            continue;
        }
        bytes += size;
        tasks.push(Task {
            descriptor: entry.descriptor.clone(),
            runs,
            bottom: window.start == 0,
            copy: false,
        });
        if bytes > JOB_BYTES {
            break;
        }
    }
    tasks
}

/// What is left of the object of which the least is needed, if that is little.
fn copy_tasks(
    tables: &BTreeMap<TableId, Arc<TableEntry>>,
    objects: &BTreeMap<Arc<str>, u64>,
    except: &BTreeSet<TableId>,
) -> Vec<Task> {
    let mut needed: HashMap<&Arc<str>, u64> = HashMap::new();
    for run in tables.values().flat_map(|t| &t.runs) {
        *needed.entry(&run.object).or_default() += run.bytes;
    }
    let waste = |object: &Arc<str>, needed: u64| {
        let size = objects.get(object).copied().unwrap_or(0);
        (size >= COPY_BYTES && needed * COPY_FRACTION < size).then(|| size - needed)
    };
    let worst = needed
        .iter()
        .filter_map(|(object, needed)| Some((waste(object, *needed)?, *object)))
        .max();
    let Some((_, object)) = worst else {
        return Vec::new();
    };
    let mut tasks = Vec::new();
    for entry in tables
        .values()
        .filter(|t| !except.contains(&t.descriptor.table))
    {
        for run in entry.runs.iter().filter(|r| r.object == *object) {
            let descriptor = entry.descriptor.clone();
            tasks.push(Task {
                descriptor,
                runs: vec![run.clone()],
                bottom: false,
                copy: true,
            });
        }
    }
    tasks
}

/// Everything that one merge needs on its blocking thread.
pub(crate) struct Job {
    pub restorer: Arc<Restorer>,
    pub writer: ObjectWriter,
    pub object: Arc<str>,
    pub tasks: Vec<Task>,
}

pub(crate) type Outputs = Vec<(Task, Option<RunRef>)>;

impl Job {
    pub(crate) fn run(
        mut self,
        handle: &tokio::runtime::Handle,
    ) -> Result<(ObjectWriter, Outputs, MergeReport)> {
        let mut encoder = ObjectEncoder::new(self.restorer.buffers().block_bytes);
        let mut report = MergeReport::default();
        let mut outputs = Vec::with_capacity(self.tasks.len());
        for task in std::mem::take(&mut self.tasks) {
            let index = outputs
                .iter()
                .filter(|(_, o): &&(Task, Option<RunRef>)| o.is_some())
                .count() as u32;
            let newest = task
                .runs
                .iter()
                .map(|r| r.checkpoint)
                .max()
                .unwrap_or(CheckpointId(0));
            let mut output = empty_reference(&self.object, index, newest);
            report.tables += 1;
            report.runs += task.runs.len();
            report.rows_read += task.runs.iter().map(|r| r.rows).sum::<u64>();
            report.bytes_read += task.runs.iter().map(|r| r.bytes).sum::<u64>();
            if task.copy {
                self.copy(&task.runs[0], &mut encoder, &mut output, handle)?;
            } else {
                self.merge(&task, &mut encoder, &mut output, handle)?;
            }
            report.rows_written += output.rows;
            outputs.push((task, (output.rows > 0).then_some(output)));
        }
        let rest = encoder.finish();
        handle.block_on(self.writer.write(rest.into()))?;
        Ok((self.writer, outputs, report))
    }

    fn write_out(
        &mut self,
        encoder: &mut ObjectEncoder,
        handle: &tokio::runtime::Handle,
    ) -> Result<()> {
        if encoder.pending() >= self.restorer.buffers().block_bytes {
            handle.block_on(self.writer.write(encoder.take().into()))?;
        }
        Ok(())
    }

    fn copy(
        &mut self,
        run: &RunRef,
        encoder: &mut ObjectEncoder,
        output: &mut RunRef,
        handle: &tokio::runtime::Handle,
    ) -> Result<()> {
        output.tombstones = run.tombstones;
        for block in &run.blocks {
            let bytes = handle.block_on(self.restorer.fetch(&run.object, block))?;
            verify_block(&run.object, block, &bytes)?;
            encoder.copy_block(block, &bytes, output);
            self.write_out(encoder, handle)?;
        }
        Ok(())
    }

    fn merge(
        &mut self,
        task: &Task,
        encoder: &mut ObjectEncoder,
        output: &mut RunRef,
        handle: &tokio::runtime::Handle,
    ) -> Result<()> {
        let cursors = levels(&task.runs).into_iter().map(|level| {
            let blocks = task.runs[level]
                .iter()
                .flat_map(|r| r.blocks.iter().map(|b| (r.object.clone(), *b)));
            Cursor::new(
                &task.descriptor,
                blocks.collect(),
                self.restorer.clone(),
                handle.clone(),
            )
        });
        let mut cursors: Vec<Cursor> = cursors.collect::<Result<_>>()?;
        let map_form = task.descriptor.form == Form::Map;
        let keeps_tombstones = !task.bottom && task.descriptor.merge == Merge::Replace;
        let mut block = encoder.new_block(map_form);
        let mut least = Vec::with_capacity(cursors.len());
        loop {
            find_least(&cursors, &mut least);
            let Some(newest) = least.last() else {
                break;
            };
            let e = cursors[*newest].entry();
            let sum;
            let value = match task.descriptor.merge {
                Merge::Replace => e.value,
                Merge::Sum => {
                    sum = sum_of(&cursors, &least)?.to_le_bytes();
                    (sum != [0; 8]).then_some(sum.as_slice())
                }
            };
            if value.is_some() || keeps_tombstones {
                block.push(RunEntry { value, ..e });
            }
            for cursor in &least {
                cursors[*cursor].advance()?;
            }
            if block.is_full() {
                let full = std::mem::replace(&mut block, encoder.new_block(map_form));
                encoder.write(full, output);
                self.write_out(encoder, handle)?;
            }
        }
        encoder.write(block, output);
        self.write_out(encoder, handle)
    }
}

/// The cursors at the smallest cell, in order of age.
fn find_least(cursors: &[Cursor], least: &mut Vec<usize>) {
    least.clear();
    for (index, cursor) in cursors.iter().enumerate() {
        if cursor.block.is_none() {
            continue;
        }
        let order = least.first().map(|l| cursor.compare(&cursors[*l]));
        match order {
            Some(Ordering::Greater) => {}
            Some(Ordering::Equal) => least.push(index),
            Some(Ordering::Less) | None => {
                least.clear();
                least.push(index);
            }
        }
    }
}

fn sum_of(cursors: &[Cursor], at_cell: &[usize]) -> Result<i64> {
    let mut sum = 0i64;
    for cursor in at_cell.iter().map(|c| &cursors[*c]) {
        let count = cursor
            .entry()
            .value
            .and_then(|v| v.try_into().ok())
            .map(i64::from_le_bytes);
        sum += count.ok_or_else(|| cursor.damage("a count in it is not 8 bytes long"))?;
    }
    Ok(sum)
}

/// Goes through one level, block by block, with the next block on its way.
struct Cursor {
    descriptor: TableDescriptor,
    restorer: Arc<Restorer>,
    handle: tokio::runtime::Handle,
    blocks: VecDeque<(Arc<str>, BlockRef)>,
    next: Option<JoinHandle<Result<Bytes>>>,
    /// The block being read, `None` at the end.
    block: Option<Block>,
    place: (Arc<str>, u64),
    position: usize,
    /// The entry's key group and the first bytes of its key: they decide most comparisons.
    head: u128,
}

impl Cursor {
    fn new(
        descriptor: &TableDescriptor,
        blocks: VecDeque<(Arc<str>, BlockRef)>,
        restorer: Arc<Restorer>,
        handle: tokio::runtime::Handle,
    ) -> Result<Self> {
        let place = ("".into(), 0);
        let descriptor = descriptor.clone();
        let mut cursor = Self {
            descriptor,
            restorer,
            handle,
            blocks,
            next: None,
            block: None,
            place,
            position: 0,
            head: 0,
        };
        cursor.fetch_ahead();
        cursor.next_block()?;
        Ok(cursor)
    }

    fn fetch_ahead(&mut self) {
        if let Some((object, block)) = self.blocks.front().cloned() {
            let restorer = self.restorer.clone();
            self.next = Some(
                self.handle
                    .spawn(async move { restorer.fetch(&object, &block).await }),
            );
        }
    }

    fn next_block(&mut self) -> Result<()> {
        self.block = None;
        self.position = 0;
        while self.block.is_none() {
            let (Some(next), Some((object, block))) = (self.next.take(), self.blocks.pop_front())
            else {
                return Ok(());
            };
            let bytes = self.handle.block_on(next);
            self.fetch_ahead();
            let bytes = bytes.map_err(|e| {
                CheckpointError::OutOfOrder(format!("reading a run was cut short: {e}"))
            })??;
            let opened = Block::open(
                self.descriptor.form,
                &object,
                &block,
                &bytes,
                KeyGroupRange::ALL,
            )?;
            self.block = Some(opened).filter(|opened| opened.len() > 0);
            self.place = (object, block.offset);
        }
        self.head = head(self.entry());
        Ok(())
    }

    fn advance(&mut self) -> Result<()> {
        self.position += 1;
        if self.block.as_ref().is_some_and(|b| self.position < b.len()) {
            self.head = head(self.entry());
            Ok(())
        } else {
            self.next_block()
        }
    }

    fn entry(&self) -> RunEntry<'_> {
        self.block
            .as_ref()
            .expect("only cursors that are not at their end are looked at")
            .entry(self.position)
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| {
            let (own, other) = (self.entry(), other.entry());
            let keys = match own.key.len().max(other.key.len()) <= HEAD_KEY {
                // What the heads leave open is whether one goes on with zeros.
                true => own.key.len().cmp(&other.key.len()),
                false => own.key.cmp(other.key),
            };
            keys.then_with(|| own.sub.cmp(other.sub))
        })
    }

    fn damage(&self, what: &str) -> Damage {
        Damage {
            object: self.place.0.clone(),
            offset: Some(self.place.1),
            what: what.to_owned(),
        }
    }
}

/// So many bytes of a key are in a head.
const HEAD_KEY: usize = 15;

/// Its order is that of key groups and keys, as far as it goes.
fn head(e: RunEntry<'_>) -> u128 {
    let mut bytes = [0; 16];
    bytes[0] = e.group;
    let length = e.key.len().min(HEAD_KEY);
    bytes[1..=length].copy_from_slice(&e.key[..length]);
    u128::from_be_bytes(bytes)
}

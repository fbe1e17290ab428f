//! GROUP BY: for each key the aggregates of its rows, and DISTINCT, which is the same without aggregates.
//!
//! `Δout = Σ over keys k touched in the epoch of (−row(k, old) + row(k, new))`, nothing where the two are equal.
//!
//! State: `groups`, value form: key → row count ‖ what each call keeps ([`accumulator`]); and per multiset that calls need
//! (DISTINCT, what depends on the order, retractable extremes) one `values`, map form: key → value → count ([`value_set`]).
//!
//! Cost: a batch is pre-aggregated into the epoch's table of groups without touching state. The barrier reads and writes
//! `groups` once per key of the epoch; `values` once per changed (key, value).
//!
//! Invariants: a group without rows has no state and no output row. Only the group of an aggregate without keys is always
//! there, from the first barrier on, on the worker that owns the empty key. An output that its type cannot hold is a row
//! error in place of the output row, and is retracted like one.

mod accumulator;
mod bits;
mod bools;
mod count;
pub(crate) mod exact;
mod extreme;
mod library;
mod list;
mod number;
mod ordered;
mod pairs;
mod regression;
pub(crate) mod sum;
#[cfg(test)]
mod tests;
mod value_set;
mod variance;

use crate::groups::{Groups, KeyChunk};
use crate::replay::ReplayKeys;
use crate::row_failure::row_text;
use crate::value_bytes::{Reader, write_i64};
use crate::{Cx, Operator, OperatorError, Port, Progress, RowError};
use accumulator::{Accumulator, Finished, Merge, Weights};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat, filter};
use arrow::datatypes::{Schema, SchemaRef};
use std::ops::Range;
use tidegate_plan::{AggregateCall, AggregateState};
use tidegate_state::{Cell, Change};
use tidegate_types::{Barrier, Batch};
use value_set::ValueSetChanges;

/// Groups that are merged with state at a time.
const CHUNK_GROUPS: usize = 4096;

/// The same where the whole contents of each group are needed.
const CHUNK_LISTS: usize = 128;

struct Call {
    /// Input columns that the accumulator is given; none when it reads a value set.
    arguments: Vec<usize>,
    filter: Option<usize>,
    skip_nulls: bool,
    accumulator: Box<dyn Accumulator>,
}

pub struct Aggregate {
    schema: SchemaRef,
    /// Key columns of the output.
    key_schema: SchemaRef,
    /// No keys, and this worker has the one group.
    owns_single: bool,
    /// Rows are never retracted, so that DISTINCT need not count them.
    append_only: bool,
    /// The one group was looked for since this operator was built.
    started: bool,
    calls: Vec<Call>,
    sets: Vec<ValueSetChanges>,
    groups: Groups,
    row_diffs: Vec<i64>,
    numbers: Vec<u32>,
    weights: Vec<i64>,
    /// The next group to merge while a barrier's work is going on.
    next: usize,
    /// Under way while the present output is being told: groups are touched without being changed, and what they have is
    /// told as if there had been nothing.
    replay: Option<ReplayKeys>,
}

/// What one aggregate is built from.
pub struct AggregateSpec<'a> {
    pub keys: &'a [usize],
    pub calls: &'a [AggregateCall],
    pub input: &'a Schema,
    pub input_append_only: bool,
    pub schema: SchemaRef,
    /// This worker owns the empty key.
    pub owner: bool,
}

impl Aggregate {
    pub fn new(spec: &AggregateSpec<'_>) -> Result<Self, OperatorError> {
        let state = AggregateState::of(spec.calls, spec.input_append_only);
        let mut sets = state
            .sets
            .iter()
            .map(|s| ValueSetChanges::new(s.clone(), spec.input))
            .collect::<Result<Vec<_>, _>>()?;
        let mut calls = Vec::new();
        for (index, call) in spec.calls.iter().enumerate() {
            let output = spec.schema.field(spec.keys.len() + index);
            let set = state.set_of_call[index];
            calls.push(Call {
                arguments: if set.is_some() {
                    Vec::new()
                } else {
                    call.arguments.clone()
                },
                filter: call.filter,
                skip_nulls: !call.arguments.is_empty(),
                accumulator: accumulator::build(call, set, &mut sets, spec, output)?,
            });
        }
        Ok(Self {
            schema: spec.schema.clone(),
            key_schema: std::sync::Arc::new(
                spec.schema
                    .project(&(0..spec.keys.len()).collect::<Vec<_>>())?,
            ),
            owns_single: spec.keys.is_empty() && spec.owner,
            append_only: spec.input_append_only,
            started: false,
            calls,
            sets,
            groups: Groups::new(spec.keys, spec.input)?,
            row_diffs: Vec::new(),
            numbers: Vec::new(),
            weights: Vec::new(),
            next: 0,
            replay: None,
        })
    }

    /// Merges chunk after chunk with state until all groups are done or the budget is used up.
    fn merge(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        let groups = self.groups.len();
        let lists = self.sets.iter().any(|set| set.keeps_contents);
        let chunk_groups = if lists { CHUNK_LISTS } else { CHUNK_GROUPS };
        while self.next < groups {
            if cx.exhausted() {
                return Ok(Progress::More);
            }
            let range = self.next..(self.next + chunk_groups).min(groups);
            self.next = range.end;
            self.merge_chunk(range, cx)?;
        }
        self.next = 0;
        self.clear();
        Ok(Progress::Done)
    }

    /// Makes room for what the epoch's groups have.
    fn settle(&mut self) {
        let groups = self.groups.len();
        self.row_diffs.resize(groups, 0);
        self.calls
            .iter_mut()
            .for_each(|c| c.accumulator.resize(groups));
        self.sets.iter_mut().for_each(|s| s.sort(groups));
    }

    fn clear(&mut self) {
        self.groups.clear();
        self.row_diffs.clear();
        self.sets.iter_mut().for_each(ValueSetChanges::clear);
        self.calls.iter_mut().for_each(|c| c.accumulator.clear());
    }

    fn merge_chunk(&mut self, range: Range<usize>, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let chunk = self.groups.chunk(range.clone())?;
        for (index, set) in self.sets.iter_mut().enumerate() {
            set.apply(range.clone(), &chunk.keys, cx.tables[1 + index].as_mut())?;
        }
        for call in &mut self.calls {
            call.accumulator.prepare(&self.sets)?;
        }
        let old = OldValues::read(&chunk, cx)?;
        let mut merged = Merged::with_capacity(range.len());
        for (index, group) in range.enumerate() {
            self.merge_group(index, group, &chunk, old.get(index), &mut merged, cx)?;
        }
        let changes: Vec<Change<'_>> = merged.writes(&chunk, &old).collect();
        cx.tables[0].write_many(&changes)?;
        self.emit(&chunk, &merged, cx)
    }

    fn merge_group(
        &mut self,
        index: usize,
        group: usize,
        chunk: &KeyChunk,
        old: Option<&[u8]>,
        merged: &mut Merged,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        let mut reader = old.map(Reader::new);
        let rows_old = match &mut reader {
            Some(reader) => Some(reader.i64()?),
            None => None,
        };
        let mut rows_new = rows_old.unwrap_or(0) + self.row_diffs.get(group).copied().unwrap_or(0);
        if self.append_only && self.calls.is_empty() {
            rows_new = rows_new.min(1);
        }
        let start = merged.bytes.len();
        write_i64(rows_new, &mut merged.bytes);
        let at = Merge {
            group,
            rows_old,
            rows_new,
            key: chunk.keys.get(index),
            sets: &self.sets,
            tables: cx.tables,
        };
        for call in &mut self.calls {
            call.accumulator
                .merge(&at, reader.as_mut(), &mut merged.bytes)?;
        }
        merged.spans.push(start..merged.bytes.len());
        merged
            .existed
            .push(rows_old.is_some_and(|rows| rows > 0 || self.owns_single));
        // A negative count means that rows were retracted that never came: there is nothing to show, but the debt is kept.
        merged.exists.push(rows_new > 0 || self.owns_single);
        merged.kept.push(rows_new != 0 || self.owns_single);
        Ok(())
    }

    /// Retracts and inserts what differs between the old and the new rows of a chunk.
    fn emit(
        &mut self,
        chunk: &KeyChunk,
        merged: &Merged,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        let mut olds = Vec::with_capacity(self.calls.len());
        let mut news = Vec::with_capacity(self.calls.len());
        for call in &mut self.calls {
            let [old, new] = call.accumulator.finish()?;
            olds.push(old);
            news.push(new);
        }
        let mut retract = match self.replay {
            None => merged.existed.clone(),
            Some(_) => vec![false; merged.existed.len()],
        };
        let mut insert = merged.exists.clone();
        if retract.iter().zip(&insert).any(|(was, is)| *was && *is) {
            drop_unchanged(&olds, &news, &mut retract, &mut insert)?;
        }
        self.report_failures(chunk, &olds, &mut retract, -1, cx)?;
        self.report_failures(chunk, &news, &mut insert, 1, cx)?;
        let (retracted, inserted) = (BooleanArray::from(retract), BooleanArray::from(insert));
        let (minus, plus) = (retracted.true_count(), inserted.true_count());
        if minus + plus == 0 {
            return Ok(());
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for key in &chunk.columns {
            columns.push(join_halves(key, &retracted, key, &inserted)?);
        }
        for (old, new) in olds.iter().zip(&news) {
            columns.push(join_halves(
                &old.values,
                &retracted,
                &new.values,
                &inserted,
            )?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(minus + plus));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let mut diffs = vec![-1i64; minus];
        diffs.resize(minus + plus, 1);
        cx.emit(Batch::new(rows, Int64Array::from(diffs)));
        Ok(())
    }

    /// Rows with an output that failed are errors instead of rows.
    fn report_failures(
        &self,
        chunk: &KeyChunk,
        finished: &[Finished],
        visible: &mut [bool],
        diff: i64,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        if finished.iter().all(|f| f.failures.is_empty()) {
            return Ok(());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(visible.len()));
        let keys = RecordBatch::try_new_with_options(
            self.key_schema.clone(),
            chunk.columns.clone(),
            &options,
        )?;
        for output in finished {
            for failure in &output.failures {
                if std::mem::replace(&mut visible[failure.index], false) {
                    cx.fail_row(RowError {
                        state: failure.state.clone(),
                        message: failure.message.clone(),
                        row: row_text(&keys, failure.index),
                        diff,
                    });
                }
            }
        }
        Ok(())
    }
}

impl Operator for Aggregate {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        _cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.groups.assign(&batch, &mut self.numbers)?;
        let groups = self.groups.len();
        self.row_diffs.resize(groups, 0);
        match batch.diffs() {
            None => self
                .numbers
                .iter()
                .for_each(|g| self.row_diffs[*g as usize] += 1),
            Some(diffs) => {
                self.numbers
                    .iter()
                    .zip(diffs.values())
                    .for_each(|(g, d)| self.row_diffs[*g as usize] += d);
            }
        }
        for set in &mut self.sets {
            set.collect(&self.numbers, &batch)?;
        }
        for call in &mut self.calls {
            call.accumulator.resize(groups);
            if call.arguments.is_empty() && call.skip_nulls {
                continue;
            }
            let arguments: Vec<ArrayRef> = call
                .arguments
                .iter()
                .map(|a| batch.column(*a).clone())
                .collect();
            let filter = call.filter.map(|f| batch.column(f).as_boolean());
            let nulls = if call.skip_nulls {
                arguments[0].nulls()
            } else {
                None
            };
            let weights = Weights::of(
                batch.diffs().map(|d| d.values().as_ref()),
                filter,
                nulls,
                &mut self.weights,
            );
            call.accumulator
                .update(&self.numbers, weights, &arguments)?;
        }
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        _barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        if self.owns_single && !self.started {
            self.started = true;
            self.groups.add_single();
        }
        self.settle();
        self.next = 0;
        self.merge(cx)
    }

    fn replay(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        let mut replay = match self.replay.take() {
            Some(replay) => replay,
            None => ReplayKeys::of(cx.tables[0].as_ref())?,
        };
        let lists = self.sets.iter().any(|set| set.keeps_contents);
        while !cx.exhausted() {
            let Some(range) = replay.next(if lists { CHUNK_LISTS } else { CHUNK_GROUPS }) else {
                return Ok(Progress::Done);
            };
            self.groups.add_keys(replay.range(range.clone()))?;
            self.settle();
            self.replay = Some(replay);
            self.merge_chunk(0..range.len(), cx)?;
            self.clear();
            replay = self
                .replay
                .take()
                .expect("it was put there before the chunk");
        }
        self.replay = Some(replay);
        Ok(Progress::More)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        self.merge(cx)
    }
}

/// The values that a chunk's keys had, copied out of the table.
struct OldValues {
    bytes: Vec<u8>,
    spans: Vec<Option<Range<usize>>>,
}

impl OldValues {
    fn read(chunk: &KeyChunk, cx: &Cx<'_>) -> Result<Self, OperatorError> {
        let cells: Vec<Cell<'_>> = chunk.keys.iter().map(Cell::key).collect();
        let mut bytes = Vec::with_capacity(cells.len() * 16);
        let mut spans = vec![None; cells.len()];
        cx.tables[0].get_many(&cells, &mut |index, value| {
            if let Some(value) = value {
                let start = bytes.len();
                bytes.extend_from_slice(value);
                spans[index] = Some(start..bytes.len());
            }
        })?;
        Ok(Self { bytes, spans })
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans[index].clone().map(|span| &self.bytes[span])
    }
}

/// The new values of a chunk's groups, and which groups there were and are.
#[derive(Default)]
struct Merged {
    bytes: Vec<u8>,
    spans: Vec<Range<usize>>,
    existed: Vec<bool>,
    exists: Vec<bool>,
    kept: Vec<bool>,
}

impl Merged {
    fn with_capacity(groups: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(groups * 16),
            ..Self::default()
        }
    }

    fn writes<'a>(
        &'a self,
        chunk: &'a KeyChunk,
        old: &'a OldValues,
    ) -> impl Iterator<Item = Change<'a>> {
        self.spans
            .iter()
            .enumerate()
            .filter_map(move |(index, span)| {
                let value = self.kept[index].then(|| &self.bytes[span.clone()]);
                (value != old.get(index)).then(|| Change {
                    cell: Cell::key(chunk.keys.get(index)),
                    value,
                })
            })
    }
}

/// A row that is the same before and after is neither retracted nor inserted.
fn drop_unchanged(
    olds: &[Finished],
    news: &[Finished],
    retract: &mut [bool],
    insert: &mut [bool],
) -> Result<(), OperatorError> {
    let mut same = vec![true; retract.len()];
    for (old, new) in olds.iter().zip(news) {
        old.mark_differences(new, &mut same)?;
    }
    for (index, same) in same.into_iter().enumerate() {
        if same && retract[index] && insert[index] {
            (retract[index], insert[index]) = (false, false);
        }
    }
    Ok(())
}

/// The selected values of the first array, then those of the second.
fn join_halves(
    first: &ArrayRef,
    of_first: &BooleanArray,
    second: &ArrayRef,
    of_second: &BooleanArray,
) -> Result<ArrayRef, OperatorError> {
    let select = |values: &ArrayRef, keep: &BooleanArray| -> Result<ArrayRef, OperatorError> {
        if keep.true_count() == keep.len() {
            Ok(values.clone())
        } else {
            Ok(filter(values, keep)?)
        }
    };
    if of_first.true_count() == 0 {
        return select(second, of_second);
    }
    if of_second.true_count() == 0 {
        return select(first, of_first);
    }
    let (first, second) = (select(first, of_first)?, select(second, of_second)?);
    Ok(concat(&[first.as_ref(), second.as_ref()])?)
}

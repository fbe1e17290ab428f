//! The first few rows of each partition, over rows that are never retracted: `Δout = −window(kept) + window(first(kept ∪ new))`.
//!
//! State: `rows`, value form: partition → for each kept row in order: count, length, order columns ‖ other columns. Rows
//! behind the last wanted number can never be wanted again and are not kept.
//!
//! Batches stay as they arrive until the barrier. Of each row only the order columns are encoded at first, and compared with
//! the best of its partition in this epoch; whole rows are encoded for those alone that are still among the first at the
//! barrier (ties included, which the other columns decide). State is touched once per partition and epoch. New rows go out
//! as the columns they came in; only rows that leave, or whose number changes, are decoded.

use crate::expression::with_schema;
use crate::groups::{Groups, KeyChunk};
use crate::numbering::{Numbered, Place};
use crate::ordered_rows::{CHUNK_GROUPS, sort_columns};
use crate::top_n::{Window, with_numbers};
use crate::value_bytes::{Reader, write_bytes, write_i64};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{interleave_record_batch, take, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::Rows;
use std::ops::Range;
use tidegate_plan::SortKey;
use tidegate_plan::state_tables::top_n_columns;
use tidegate_state::{Cell, Change, Table};
use tidegate_types::{Barrier, Batch, ByteRows, RowCodec};

pub struct AppendTopN {
    schema: SchemaRef,
    /// Of rows without their number.
    row_schema: SchemaRef,
    partition: Vec<usize>,
    sub: Vec<SortKey>,
    /// None where there are no such columns.
    order_codec: Option<RowCodec>,
    codec: Option<RowCodec>,
    order_width: usize,
    window: Numbered,
    numbered: bool,
    groups: Groups,
    numbers: Vec<u32>,
    epoch: Epoch,
    /// The next partition to bring up to date, and how many there are in the epoch.
    next: usize,
    total: usize,
}

/// A row of the epoch: of which batch, and where in it.
#[derive(Debug, Clone, Copy, Default)]
struct RowPlace {
    batch: u32,
    row: u32,
}

/// What has arrived in the epoch.
#[derive(Default)]
struct Epoch {
    batches: Vec<Batch>,
    /// Encoded order columns of each batch.
    orders: Vec<Option<Rows>>,
    /// For each partition its first rows by the order columns, as many as are wanted.
    best: Vec<RowPlace>,
    filled: Vec<u8>,
    /// Rows that were among the first when they came.
    candidates: Vec<(u32, RowPlace)>,
    /// Rows that are among the first of all, by partition, and where each partition's begin.
    survivors: Vec<RowPlace>,
    starts: Vec<u32>,
}

impl Epoch {
    fn order(&self, place: RowPlace) -> &[u8] {
        match &self.orders[place.batch as usize] {
            Some(rows) => rows.row(place.row as usize).data(),
            None => &[],
        }
    }

    /// Notes a row of a partition if it can be among the first `wanted`.
    fn offer(&mut self, group: u32, place: RowPlace, wanted: usize) {
        let start = group as usize * wanted;
        let filled = usize::from(self.filled[group as usize]);
        let order = self.order(place);
        let mut slot = filled;
        if filled == wanted {
            match order.cmp(self.order(self.best[start + wanted - 1])) {
                std::cmp::Ordering::Greater => return,
                // Which of them is first the other columns decide.
                std::cmp::Ordering::Equal => {
                    self.candidates.push((group, place));
                    return;
                }
                std::cmp::Ordering::Less => slot = wanted - 1,
            }
        } else {
            self.filled[group as usize] += 1;
        }
        self.candidates.push((group, place));
        while slot > 0 && self.order(self.best[start + slot - 1]) > self.order(place) {
            self.best[start + slot] = self.best[start + slot - 1];
            slot -= 1;
        }
        self.best[start + slot] = place;
    }

    /// All batches are in: brings what survives into the order of partitions.
    fn settle(&mut self, groups: usize, wanted: usize) {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.retain(|(group, place)| {
            let group = *group as usize;
            usize::from(self.filled[group]) < wanted
                || self.order(*place) <= self.order(self.best[(group + 1) * wanted - 1])
        });
        let mut starts = vec![0u32; groups + 1];
        for (group, _) in &candidates {
            starts[*group as usize + 1] += 1;
        }
        for group in 0..groups {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        self.survivors.resize(candidates.len(), RowPlace::default());
        for (group, place) in &candidates {
            let slot = &mut next[*group as usize];
            self.survivors[*slot as usize] = *place;
            *slot += 1;
        }
        self.starts = starts;
        candidates.clear();
        self.candidates = candidates;
    }

    fn clear(&mut self) {
        const KEEP: usize = 1 << 20;
        if self.candidates.capacity() > KEEP {
            *self = Self::default();
        }
        self.batches.clear();
        self.orders.clear();
        self.best.clear();
        self.filled.clear();
        self.survivors.clear();
        self.starts.clear();
    }
}

/// The surviving rows of a chunk of partitions, with their encodings.
struct NewRows {
    rows: RecordBatch,
    diffs: Vec<i64>,
    encoded: Option<Rows>,
}

impl NewRows {
    fn bytes(&self, row: usize) -> &[u8] {
        self.encoded
            .as_ref()
            .map_or(&[], |rows| rows.row(row).data())
    }
}

/// A row of a partition: its bytes, its copies, and which new row it is if it is one.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    bytes: &'a [u8],
    count: i64,
    new: Option<u32>,
}

/// The chunk's changes to the output: those of new rows by their position, those of others by their bytes.
#[derive(Default)]
struct Output {
    new_rows: Vec<u32>,
    new_diffs: Vec<i64>,
    new_numbers: Vec<i64>,
    of_key: Vec<u32>,
    subs: ByteRows,
    old_diffs: Vec<i64>,
    old_numbers: Vec<i64>,
}

impl Output {
    fn push(&mut self, key: usize, entry: &Entry<'_>, number: u64, diff: i64) {
        match entry.new {
            Some(row) => {
                self.new_rows.push(row);
                self.new_diffs.push(diff);
                self.new_numbers.push(number as i64);
            }
            None => {
                self.of_key.push(key as u32);
                self.subs.push(entry.bytes);
                self.old_diffs.push(diff);
                self.old_numbers.push(number as i64);
            }
        }
    }
}

impl AppendTopN {
    pub fn new(
        window: &Window<'_>,
        input: &Schema,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let width = input.fields().len();
        let sub = top_n_columns(window.partition, window.order, width);
        let order_width = sub
            .iter()
            .take_while(|key| window.order.iter().any(|k| k.column == key.column))
            .count();
        let codec = |sub: &[SortKey]| match sub.is_empty() {
            true => Ok(None),
            false => RowCodec::with_order(sort_columns(sub, input)).map(Some),
        };
        let stored: Vec<usize> = (0..width).collect();
        Ok(Self {
            row_schema: std::sync::Arc::new(schema.project(&stored)?),
            schema,
            partition: window.partition.to_vec(),
            order_codec: codec(&sub[..order_width])?,
            codec: codec(&sub)?,
            sub,
            order_width,
            window: window.numbers(input)?,
            numbered: window.numbered,
            groups: Groups::new(window.partition, input)?,
            numbers: Vec::new(),
            epoch: Epoch::default(),
            next: 0,
            total: 0,
        })
    }

    fn wanted(&self) -> usize {
        self.window.last as usize
    }

    fn columns(rows: &RecordBatch, keys: &[SortKey]) -> Vec<ArrayRef> {
        keys.iter().map(|k| rows.column(k.column).clone()).collect()
    }

    fn collect(&mut self, batch: Batch) -> Result<(), OperatorError> {
        let wanted = self.wanted();
        if wanted == 0 {
            return Ok(());
        }
        self.groups.assign(&batch, &mut self.numbers)?;
        let order = match &self.order_codec {
            Some(codec) => {
                let columns = Self::columns(batch.rows(), &self.sub[..self.order_width]);
                Some(codec.encode(&columns)?)
            }
            None => None,
        };
        let epoch = &mut self.epoch;
        let number = epoch.batches.len() as u32;
        epoch.orders.push(order);
        epoch
            .best
            .resize(self.groups.len() * wanted, RowPlace::default());
        epoch.filled.resize(self.groups.len(), 0);
        for (row, group) in self.numbers.iter().enumerate() {
            if batch.diff(row) <= 0 {
                assert_eq!(batch.diff(row), 0, "these rows are never retracted");
                continue;
            }
            let place = RowPlace {
                batch: number,
                row: row as u32,
            };
            epoch.offer(*group, place, wanted);
        }
        epoch.batches.push(batch);
        Ok(())
    }

    fn merge(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        while self.next < self.total {
            if cx.exhausted() {
                return Ok(Progress::More);
            }
            let range = self.next..(self.next + CHUNK_GROUPS).min(self.total);
            self.next = range.end;
            self.apply(range, cx)?;
        }
        self.epoch.clear();
        self.groups.clear();
        (self.next, self.total) = (0, 0);
        Ok(Progress::Done)
    }

    /// Brings the table up to date for these partitions, and sends what changed.
    fn apply(&self, range: Range<usize>, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let new = self.gather(&range)?;
        let keys = self.groups.chunk(range.clone())?;
        let mut output = Output::default();
        self.update(&range, &keys, &new, cx.tables[0].as_mut(), &mut output)?;
        self.emit(&keys, &new.rows, output, cx)
    }

    /// The surviving rows of these partitions as one batch.
    fn gather(&self, range: &Range<usize>) -> Result<NewRows, OperatorError> {
        let epoch = &self.epoch;
        let span = epoch.starts[range.start] as usize..epoch.starts[range.end] as usize;
        let survivors = &epoch.survivors[span];
        let batches: Vec<&RecordBatch> = epoch.batches.iter().map(Batch::rows).collect();
        let places: Vec<(usize, usize)> = survivors
            .iter()
            .map(|p| (p.batch as usize, p.row as usize))
            .collect();
        let rows = interleave_record_batch(&batches, &places)?;
        let encoded = match &self.codec {
            Some(codec) => Some(codec.encode(&Self::columns(&rows, &self.sub))?),
            None => None,
        };
        let diffs = survivors
            .iter()
            .map(|p| epoch.batches[p.batch as usize].diff(p.row as usize));
        Ok(NewRows {
            rows,
            diffs: diffs.collect(),
            encoded,
        })
    }

    fn update(
        &self,
        range: &Range<usize>,
        keys: &KeyChunk,
        new: &NewRows,
        table: &mut dyn Table,
        output: &mut Output,
    ) -> Result<(), OperatorError> {
        let cells: Vec<Cell<'_>> = keys.keys.iter().map(Cell::key).collect();
        let mut lists = Vec::new();
        let mut spans = vec![0..0; cells.len()];
        table.get_many(&cells, &mut |index, value| {
            let start = lists.len();
            lists.extend_from_slice(value.unwrap_or(&[]));
            spans[index] = start..lists.len();
        })?;
        let first = self.epoch.starts[range.start];
        let (mut old, mut added, mut merged) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = (Vec::new(), Vec::new());
        let (mut values, mut changed) = (Vec::new(), Vec::new());
        for (index, group) in range.clone().enumerate() {
            read(&lists[spans[index].clone()], &mut old)?;
            let of_group = self.epoch.starts[group]..self.epoch.starts[group + 1];
            sorted(
                new,
                of_group.start - first..of_group.end - first,
                &mut added,
            );
            if !self.first_of(&old, &added, &mut merged) {
                continue;
            }
            let start = values.len();
            for entry in &merged {
                write_i64(entry.count, &mut values);
                write_bytes(entry.bytes, &mut values);
            }
            changed.push((index, start..values.len()));
            self.differences(index, (&old, &merged), &mut places, output);
        }
        let changes: Vec<Change<'_>> = changed
            .iter()
            .map(|(index, span)| Change {
                cell: cells[*index],
                value: Some(&values[span.clone()]),
            })
            .collect();
        Ok(table.write_many(&changes)?)
    }

    /// The first wanted rows of both lists, in order; whether any of them is new.
    fn first_of<'a>(
        &self,
        old: &[Entry<'a>],
        added: &[Entry<'a>],
        merged: &mut Vec<Entry<'a>>,
    ) -> bool {
        merged.clear();
        let (mut rows, mut any, mut next) = (0, false, 0);
        let mut rest = added.iter().peekable();
        while rows < self.window.last {
            let entry = match (old.get(next), rest.peek()) {
                (Some(kept), Some(new)) if kept.bytes == new.bytes => {
                    any = true;
                    next += 1;
                    let count = kept.count + new.count;
                    rest.next();
                    Entry { count, ..*kept }
                }
                (Some(kept), Some(new)) if kept.bytes < new.bytes => {
                    next += 1;
                    *kept
                }
                (_, Some(new)) => {
                    any = true;
                    let new = **new;
                    rest.next();
                    new
                }
                (Some(kept), None) => {
                    next += 1;
                    *kept
                }
                (None, None) => break,
            };
            rows += entry.count as u64;
            merged.push(entry);
        }
        any
    }

    /// What changes between the windows over two lists of rows.
    fn differences(
        &self,
        key: usize,
        (old, merged): (&[Entry<'_>], &[Entry<'_>]),
        (before, after): &mut (Vec<Place>, Vec<Place>),
        output: &mut Output,
    ) {
        before.clear();
        after.clear();
        let rows = |entries: &[Entry<'_>], places: &mut Vec<Place>| {
            let rows = entries.iter().map(|e| (e.bytes, e.count));
            self.window.places(rows, self.numbered, places);
        };
        rows(old, before);
        rows(merged, after);
        let mut before = before.iter().peekable();
        for place in after.iter() {
            let entry = &merged[place.entry];
            let at = (entry.bytes, place.number);
            let mut count = place.count;
            while let Some(gone) = before.next_if(|b| (old[b.entry].bytes, b.number) <= at) {
                if (old[gone.entry].bytes, gone.number) == at {
                    count -= gone.count;
                } else {
                    output.push(key, &old[gone.entry], gone.number, -gone.count);
                }
            }
            if count != 0 {
                output.push(key, entry, place.number, count);
            }
        }
        for gone in before {
            output.push(key, &old[gone.entry], gone.number, -gone.count);
        }
    }

    fn emit(
        &self,
        keys: &KeyChunk,
        new: &RecordBatch,
        output: Output,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        if !output.new_rows.is_empty() {
            let all = output.new_rows.iter().copied().eq(0..new.num_rows() as u32);
            let rows = match all {
                true => new.clone(),
                false => take_record_batch(new, &UInt32Array::from(output.new_rows))?,
            };
            let batch = Batch::new(rows, Int64Array::from(output.new_diffs));
            // The input's columns may have other names.
            let batch = with_schema(&batch, &self.row_schema)?;
            cx.emit(self.numbered(batch, output.new_numbers)?);
        }
        if output.old_diffs.is_empty() {
            return Ok(());
        }
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.row_schema.fields().len()];
        let of_key = UInt32Array::from(output.of_key);
        for (position, column) in self.partition.iter().zip(&keys.columns) {
            columns[*position] = Some(take(column, &of_key, None)?);
        }
        if let Some(codec) = &self.codec {
            let decoded = codec.decode(output.subs.iter())?;
            for (key, column) in self.sub.iter().zip(decoded) {
                columns[key.column] = Some(column);
            }
        }
        let columns = columns
            .into_iter()
            .map(|c| c.expect("each column is of the partition or of the rest"))
            .collect();
        let rows = RecordBatch::try_new(self.row_schema.clone(), columns)?;
        let batch = Batch::new(rows, Int64Array::from(output.old_diffs));
        cx.emit(self.numbered(batch, output.old_numbers)?);
        Ok(())
    }

    fn numbered(&self, batch: Batch, numbers: Vec<i64>) -> Result<Batch, OperatorError> {
        match self.numbered {
            true => with_numbers(&batch, numbers, &self.schema),
            false => Ok(batch),
        }
    }
}

/// The kept rows of a partition.
fn read<'a>(value: &'a [u8], rows: &mut Vec<Entry<'a>>) -> Result<(), OperatorError> {
    rows.clear();
    let mut reader = Reader::new(value);
    while !reader.is_empty() {
        rows.push(Entry {
            count: reader.i64()?,
            bytes: reader.bytes()?,
            new: None,
        });
    }
    Ok(())
}

/// The new rows of a partition in order, equal ones together.
fn sorted<'a>(new: &'a NewRows, rows: Range<u32>, entries: &mut Vec<Entry<'a>>) {
    entries.clear();
    entries.extend(rows.map(|row| Entry {
        bytes: new.bytes(row as usize),
        count: new.diffs[row as usize],
        new: Some(row),
    }));
    if entries.len() > 1 {
        entries.sort_unstable_by(|a, b| a.bytes.cmp(b.bytes).then(a.new.cmp(&b.new)));
        entries.dedup_by(|next, kept| {
            let same = next.bytes == kept.bytes;
            if same {
                kept.count += next.count;
            }
            same
        });
    }
}

impl Operator for AppendTopN {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        _cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        if !batch.is_empty() {
            self.collect(batch)?;
        }
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        _barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.total = self.groups.len();
        let wanted = self.wanted();
        self.epoch.settle(self.total, wanted);
        self.merge(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        self.merge(cx)
    }
}

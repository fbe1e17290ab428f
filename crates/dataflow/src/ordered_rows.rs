//! Rows kept in order under a key: what [`crate::top_n`] and [`crate::at_most_one`] have in common.
//!
//! State: map form, key columns → order columns ‖ the other columns → count. The first rows of each touched key are given as
//! they were and as they are; how many is the caller's to say. Where rows are never retracted, rows behind those are not
//! kept at all.

use crate::count_table::{CountLists, Recount, read_counts, scan_counts, write_counts};
use crate::groups::{Groups, KeyChunk};
use crate::key_counts::KeyCounts;
use crate::numbering::{Numbered, Numbering};
use crate::{Cx, OperatorError};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use tidegate_plan::{SortKey, state_tables::top_n_columns};
use tidegate_state::{Cell, Table};
use tidegate_types::{Batch, ByteRows, RowCodec};

/// Groups that are brought up to date at a time.
pub const CHUNK_GROUPS: usize = 1024;

pub struct OrderedRows {
    schema: SchemaRef,
    keys: Vec<usize>,
    sub: Vec<SortKey>,
    /// None when the key has all columns.
    codec: Option<RowCodec>,
    groups: Groups,
    changes: KeyCounts,
    numbers: Vec<u32>,
    /// Which rows from the front anyone asks for.
    wanted: Numbered,
    kept: Kept,
}

/// What is kept of a key's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All, one cell each.
    All,
    /// The wanted ones: rows are never retracted.
    First,
}

/// The first rows of a chunk of keys, before and after the epoch.
pub struct FirstRows {
    pub keys: KeyChunk,
    pub before: CountLists,
    pub after: CountLists,
}

impl OrderedRows {
    pub fn new(
        keys: &[usize],
        order: &[SortKey],
        input: &Schema,
        schema: SchemaRef,
        wanted: Numbered,
        kept: Kept,
    ) -> Result<Self, OperatorError> {
        let sub = top_n_columns(keys, order, input.fields().len());
        let codec = if sub.is_empty() {
            None
        } else {
            Some(RowCodec::with_order(sort_columns(&sub, input))?)
        };
        Ok(Self {
            schema,
            keys: keys.to_vec(),
            codec,
            groups: Groups::new(keys, input)?,
            changes: KeyCounts::mostly_distinct(),
            numbers: Vec::new(),
            wanted,
            kept,
            sub,
        })
    }

    pub fn collect(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        self.groups.assign(batch, &mut self.numbers)?;
        let Some(codec) = &self.codec else {
            for (row, group) in self.numbers.iter().enumerate() {
                self.changes.add(*group, &[], batch.diff(row));
            }
            return Ok(());
        };
        let columns: Vec<ArrayRef> = self
            .sub
            .iter()
            .map(|key| batch.column(key.column).clone())
            .collect();
        let rows = codec.encode(&columns)?;
        for (row, group) in self.numbers.iter().enumerate() {
            self.changes
                .add(*group, rows.row(row).data(), batch.diff(row));
        }
        Ok(())
    }

    /// All batches of the epoch are in: puts the changes in order and says how many keys they touch.
    pub fn sort(&mut self) -> usize {
        let groups = self.groups.len();
        self.changes.sort(groups);
        groups
    }

    /// Touches these keys, which are distinct, without changing any; nothing else has been collected.
    pub fn touch<'a>(
        &mut self,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<usize, OperatorError> {
        self.groups.add_keys(keys)?;
        Ok(self.sort())
    }

    pub fn clear(&mut self) {
        self.groups.clear();
        self.changes.clear();
    }

    /// Brings the table up to date for these keys of the epoch.
    pub fn apply(
        &mut self,
        range: Range<usize>,
        cx: &mut Cx<'_>,
    ) -> Result<FirstRows, OperatorError> {
        let keys = self.groups.chunk(range.clone())?;
        let table = cx.tables[0].as_mut();
        let (before, after) = match self.kept {
            Kept::All => self.apply_all(range, &keys.keys, table)?,
            Kept::First => self.apply_first(range, &keys.keys, table)?,
        };
        Ok(FirstRows {
            keys,
            before,
            after,
        })
    }

    /// The keys of these groups of the epoch.
    pub fn keys(&self, range: Range<usize>) -> Result<KeyChunk, OperatorError> {
        self.groups.chunk(range)
    }

    /// The epoch's changes of a key: encoded columns in order, with what their counts were and are. Writes nothing.
    pub fn counts<'a>(
        &'a self,
        group: usize,
        key: &[u8],
        table: &dyn Table,
    ) -> Result<Vec<Recount<'a>>, OperatorError> {
        let changes: Vec<(&[u8], i64)> = self
            .changes
            .span(group..group + 1)
            .map(|position| self.changes.entry(position))
            .map(|(_, sub, diff)| (sub, diff))
            .filter(|(_, diff)| *diff != 0)
            .collect();
        let cells: Vec<Cell<'_>> = changes.iter().map(|(sub, _)| Cell { key, sub }).collect();
        let old = read_counts(table, &cells)?;
        let counts = changes.iter().zip(old);
        Ok(counts
            .map(|((sub, diff), old)| (*sub, old, old + diff))
            .collect())
    }

    /// Every row is kept.
    fn apply_all(
        &self,
        range: Range<usize>,
        keys: &ByteRows,
        table: &mut dyn Table,
    ) -> Result<(CountLists, CountLists), OperatorError> {
        let mut before = CountLists::default();
        for key in keys.iter() {
            self.scan_first(table, key, &mut before)?;
        }
        let span = self.changes.span(range.clone());
        let before_after = self.write_counts_of(&range, keys, table)?;
        let mut after = CountLists::default();
        for (index, group) in range.enumerate() {
            let of_group = self.changes.span(group..group + 1);
            let counts = &before_after[of_group.start - span.start..of_group.end - span.start];
            // Without a retraction the first rows follow from the old ones and the new.
            if counts.iter().all(|(old, new)| *old >= 0 && new >= old) {
                self.merge_first(group, before.group(index), &mut after);
            } else {
                self.scan_first(table, keys.get(index), &mut after)?;
            }
        }
        Ok((before, after))
    }

    /// Brings the table up to date for these keys of the epoch and says how often each changed row was there and is there.
    pub fn write(
        &self,
        range: Range<usize>,
        table: &mut dyn Table,
    ) -> Result<(KeyChunk, Vec<(i64, i64)>), OperatorError> {
        let keys = self.groups.chunk(range.clone())?;
        let counts = self.write_counts_of(&range, &keys.keys, table)?;
        Ok((keys, counts))
    }

    /// The changed rows of one of the keys that were written, in order, with their counts before and after.
    pub fn changed<'a>(
        &'a self,
        range: &Range<usize>,
        index: usize,
        counts: &'a [(i64, i64)],
    ) -> impl Iterator<Item = (&'a [u8], i64, i64)> {
        let first = self.changes.span(range.clone()).start;
        let group = range.start + index;
        self.changes.span(group..group + 1).map(move |position| {
            let (old, new) = counts[position - first];
            (self.changes.entry(position).1, old, new)
        })
    }

    fn write_counts_of(
        &self,
        range: &Range<usize>,
        keys: &ByteRows,
        table: &mut dyn Table,
    ) -> Result<Vec<(i64, i64)>, OperatorError> {
        let span = self.changes.span(range.clone());
        let cells: Vec<Cell<'_>> = span
            .clone()
            .map(|position| {
                let (group, sub, _) = self.changes.entry(position);
                Cell {
                    key: keys.get(group as usize - range.start),
                    sub,
                }
            })
            .collect();
        let old = read_counts(table, &cells)?;
        let before_after: Vec<(i64, i64)> = span
            .zip(&old)
            .map(|(p, old)| (*old, old + self.changes.entry(p).2))
            .collect();
        write_counts(table, &cells, &before_after)?;
        Ok(before_after)
    }

    /// Rows only come, and those behind the wanted ones can never become wanted again.
    fn apply_first(
        &self,
        range: Range<usize>,
        keys: &ByteRows,
        table: &mut dyn Table,
    ) -> Result<(CountLists, CountLists), OperatorError> {
        let all: Vec<&[u8]> = keys.iter().collect();
        let mut found: Vec<CountLists> = Vec::new();
        found.resize_with(all.len(), CountLists::default);
        let mut damaged = None;
        table.scan_many(
            &all,
            &mut |index, sub, value| match crate::value_bytes::count_of(value) {
                Ok(count) => found[index].push(sub, count),
                Err(error) => damaged = Some(error),
            },
        )?;
        if let Some(error) = damaged {
            return Err(error.into());
        }
        let (mut before, mut after) = (CountLists::default(), CountLists::default());
        for (index, group) in range.enumerate() {
            for (entry, count) in found[index].counts.iter().enumerate() {
                before.push(found[index].values.get(entry), *count);
            }
            before.end_group();
            self.merge_first(group, before.group(index), &mut after);
        }
        let mut cells = Vec::new();
        let mut before_after = Vec::new();
        for (index, key) in all.iter().enumerate() {
            differences(
                before.group(index),
                after.group(index),
                &mut |sub, old, new| {
                    cells.push(Cell { key, sub });
                    before_after.push((old, new));
                },
            );
        }
        write_counts(table, &cells, &before_after)?;
        Ok((before, after))
    }

    /// The old first rows and the inserted ones in order, as many as are wanted.
    fn merge_first<'a>(
        &self,
        group: usize,
        old: impl Iterator<Item = (&'a [u8], i64)>,
        merged: &mut CountLists,
    ) {
        let mut numbering = Numbering::default();
        let mut push = |value: &[u8], count: i64| {
            if count > 0 && numbering.next(&self.wanted, value, count) <= self.wanted.last {
                merged.push(value, count);
            }
        };
        let mut added = self
            .changes
            .span(group..group + 1)
            .map(|p| self.changes.entry(p))
            .peekable();
        for (value, count) in old {
            while let Some((_, new, diff)) = added.next_if(|(_, new, _)| *new < value) {
                push(new, diff);
            }
            let diff = added
                .next_if(|(_, new, _)| *new == value)
                .map_or(0, |(_, _, diff)| diff);
            push(value, count + diff);
        }
        added.for_each(|(_, new, diff)| push(new, diff));
        merged.end_group();
    }

    /// Rows from the keys of a chunk (by their place in it) and encoded sub-keys.
    pub fn rows(
        &self,
        keys: &KeyChunk,
        of_key: Vec<u32>,
        subs: &ByteRows,
        diffs: Vec<i64>,
    ) -> Result<Batch, OperatorError> {
        let count = of_key.len();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        let of_key = UInt32Array::from(of_key);
        for (position, column) in self.keys.iter().zip(&keys.columns) {
            columns[*position] = Some(take(column, &of_key, None)?);
        }
        if let Some(codec) = &self.codec {
            for (key, column) in self.sub.iter().zip(codec.decode(subs.iter())?) {
                columns[key.column] = Some(column);
            }
        }
        let columns = columns
            .into_iter()
            .map(|c| c.expect("each column is of the key or of the rest"))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Batch::new(rows, Int64Array::from(diffs)))
    }

    /// The first wanted rows of a key as the table has them.
    fn scan_first(
        &self,
        table: &dyn Table,
        key: &[u8],
        list: &mut CountLists,
    ) -> Result<(), OperatorError> {
        let mut numbering = Numbering::default();
        scan_counts(table, key, false, &mut |sub, count| {
            if numbering.next(&self.wanted, sub, count) > self.wanted.last {
                return ControlFlow::Break(());
            }
            list.push(sub, count);
            ControlFlow::Continue(())
        })?;
        list.end_group();
        Ok(())
    }

    /// Columns of the key alone, for the text of an error.
    pub fn key_rows(&self, keys: &KeyChunk) -> Result<RecordBatch, OperatorError> {
        let options = RecordBatchOptions::new().with_row_count(Some(keys.keys.len()));
        let schema = Arc::new(self.schema.project(&self.keys)?);
        Ok(RecordBatch::try_new_with_options(
            schema,
            keys.columns.clone(),
            &options,
        )?)
    }
}

/// Types and directions of the columns that a sub-key consists of.
pub fn sort_columns(sub: &[SortKey], input: &Schema) -> Vec<(DataType, SortOptions)> {
    sub.iter()
        .map(|key| {
            let options = SortOptions {
                descending: key.descending,
                nulls_first: key.nulls_first,
            };
            (input.field(key.column).data_type().clone(), options)
        })
        .collect()
}

/// Calls `visit(value, old count, new count)` for each value whose count differs; both lists are in order.
pub fn differences<V: Ord + Copy>(
    old: impl Iterator<Item = (V, i64)>,
    new: impl Iterator<Item = (V, i64)>,
    visit: &mut dyn FnMut(V, i64, i64),
) {
    let mut new = new.peekable();
    for (value, before) in old {
        while let Some((added, after)) = new.next_if(|(added, _)| *added < value) {
            visit(added, 0, after);
        }
        let after = new
            .next_if(|(kept, _)| *kept == value)
            .map_or(0, |(_, after)| after);
        if before != after {
            visit(value, before, after);
        }
    }
    new.for_each(|(added, after)| visit(added, 0, after));
}

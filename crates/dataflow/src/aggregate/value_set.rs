//! The multisets that DISTINCT, lists and retractable extremes are computed from.
//!
//! State: map form, group key → encoded value → count. Calls with the same argument, order and filter share one. At the
//! barrier [`ValueSetChanges::apply`] brings the table up to date for a chunk of groups and remembers, for each changed
//! value, how often it was there before and is there now.

use super::accumulator::{Accumulator, Finished, Merge, Weights};
use crate::OperatorError;
use crate::count_table::{read_counts, scan_counts, write_counts};
use crate::key_counts::KeyCounts;
use crate::value_bytes::{Reader, count_of};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::SortOptions;
use arrow::datatypes::Schema;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use tidegate_plan::{AggregateCall, ValueSet};
use tidegate_state::{Cell, StateError, Table};
use tidegate_types::{Batch, ByteRows, RowCodec};

/// Values that are read, written or decoded at a time: a single group may have millions.
const PIECE_VALUES: usize = 16_384;

/// An epoch's changes to one value set.
pub struct ValueSetChanges {
    plan: ValueSet,
    codec: Arc<RowCodec>,
    counts: KeyCounts,
    weights: Vec<i64>,
    /// Some call needs the whole contents as they were: they are read before the table is written.
    pub keeps_contents: bool,
    chunk: Range<usize>,
    /// Position in `counts` of the chunk's first entry, and the counts before and after of each.
    first: usize,
    before_after: Vec<(i64, i64)>,
    contents: Vec<Contents>,
}

/// What a group had before: values in order, with their counts.
#[derive(Default)]
pub struct Contents {
    pub values: ByteRows,
    pub counts: Vec<i64>,
}

impl ValueSetChanges {
    pub fn new(plan: ValueSet, input: &Schema) -> Result<Self, OperatorError> {
        let columns = plan.columns.iter().map(|key| {
            let options = SortOptions {
                descending: key.descending,
                nulls_first: key.nulls_first,
            };
            (input.field(key.column).data_type().clone(), options)
        });
        let codec = Arc::new(RowCodec::with_order(columns.collect())?);
        Ok(Self {
            plan,
            codec,
            counts: KeyCounts::default(),
            weights: Vec::new(),
            keeps_contents: false,
            chunk: 0..0,
            first: 0,
            before_after: Vec::new(),
            contents: Vec::new(),
        })
    }

    /// Where among the encoded columns an input column is.
    pub fn position_of(&self, column: usize) -> usize {
        self.plan
            .columns
            .iter()
            .position(|key| key.column == column)
            .expect("a set encodes its calls' arguments")
    }

    pub fn codec(&self) -> &Arc<RowCodec> {
        &self.codec
    }

    pub fn collect(&mut self, groups: &[u32], batch: &Batch) -> Result<(), OperatorError> {
        let filter = self.plan.filter.map(|f| batch.column(f).as_boolean());
        let nulls = self
            .plan
            .skip_nulls_in
            .and_then(|c| batch.column(c).nulls());
        let weights = Weights::of(
            batch.diffs().map(|d| d.values().as_ref()),
            filter,
            nulls,
            &mut self.weights,
        );
        let columns: Vec<ArrayRef> = self
            .plan
            .columns
            .iter()
            .map(|key| batch.column(key.column).clone())
            .collect();
        let rows = self.codec.encode(&columns)?;
        for (row, group) in groups.iter().enumerate() {
            let weight = weights.get(row);
            if weight != 0 {
                self.counts.add(*group, rows.row(row).data(), weight);
            }
        }
        Ok(())
    }

    pub fn sort(&mut self, groups: usize) {
        self.counts.sort(groups);
    }

    pub fn clear(&mut self) {
        self.counts.clear();
        self.before_after.clear();
        self.contents.clear();
    }

    /// Brings the table up to date for the groups of a chunk, whose encoded keys are given.
    pub fn apply(
        &mut self,
        chunk: Range<usize>,
        keys: &ByteRows,
        table: &mut dyn Table,
    ) -> Result<(), OperatorError> {
        self.read_contents(&chunk, keys, table)?;
        let span = self.counts.span(chunk.clone());
        self.before_after.clear();
        let mut start = span.start;
        while start < span.end {
            let piece = start..(start + PIECE_VALUES).min(span.end);
            start = piece.end;
            self.apply_piece(piece, chunk.start, keys, table)?;
        }
        (self.first, self.chunk) = (span.start, chunk);
        Ok(())
    }

    fn apply_piece(
        &mut self,
        piece: Range<usize>,
        first_group: usize,
        keys: &ByteRows,
        table: &mut dyn Table,
    ) -> Result<(), OperatorError> {
        let cells: Vec<Cell<'_>> = piece
            .clone()
            .map(|position| {
                let (group, sub, _) = self.counts.entry(position);
                Cell {
                    key: keys.get(group as usize - first_group),
                    sub,
                }
            })
            .collect();
        let before = read_counts(table, &cells)?;
        let noted = self.before_after.len();
        self.before_after.extend(
            piece
                .zip(&before)
                .map(|(p, before)| (*before, before + self.counts.entry(p).2)),
        );
        write_counts(table, &cells, &self.before_after[noted..])?;
        Ok(())
    }

    fn read_contents(
        &mut self,
        chunk: &Range<usize>,
        keys: &ByteRows,
        table: &dyn Table,
    ) -> Result<(), OperatorError> {
        self.contents.clear();
        if !self.keeps_contents {
            return Ok(());
        }
        self.contents.resize_with(chunk.len(), Contents::default);
        let keys: Vec<&[u8]> = keys.iter().collect();
        let (contents, mut damaged) = (&mut self.contents, None);
        table.scan_many(&keys, &mut |index, sub, value| match count_of(value) {
            Ok(count) => {
                contents[index].values.push(sub);
                contents[index].counts.push(count);
            }
            Err(error) => damaged = Some(error),
        })?;
        damaged.map_or(Ok(()), |error: StateError| Err(error.into()))
    }

    pub fn contents(&self, group: usize) -> &Contents {
        &self.contents[group - self.chunk.start]
    }

    /// The changed values of a group of the chunk, in order, with their counts before and after.
    pub fn changes(&self, group: usize) -> impl Iterator<Item = (&[u8], i64, i64)> {
        self.changes_of(group..group + 1)
            .map(|(_, value, before, after)| (value, before, after))
    }

    /// Every value that a group had or has, in order, with its counts before and after. The set keeps its contents.
    pub fn each(&self, group: usize, visit: &mut dyn FnMut(&[u8], i64, i64)) {
        let contents = self.contents(group);
        let mut changes = self.changes(group).peekable();
        for (index, count) in contents.counts.iter().enumerate() {
            let value = contents.values.get(index);
            while let Some((changed, before, after)) = changes.next_if(|(v, ..)| *v < value) {
                visit(changed, before, after);
            }
            match changes.next_if(|(changed, ..)| *changed == value) {
                Some((_, before, after)) => visit(value, before, after),
                None => visit(value, *count, *count),
            }
        }
        changes.for_each(|(changed, before, after)| visit(changed, before, after));
    }

    fn changes_of(&self, groups: Range<usize>) -> impl Iterator<Item = (u32, &[u8], i64, i64)> {
        self.counts.span(groups).map(|position| {
            let (group, value, _) = self.counts.entry(position);
            let (before, after) = self.before_after[position - self.first];
            (group, value, before, after)
        })
    }
}

/// The smallest or greatest value that is there.
pub fn scan_extreme(
    table: &dyn Table,
    key: &[u8],
    greatest: bool,
) -> Result<Option<Vec<u8>>, StateError> {
    let mut found = None;
    scan_counts(table, key, greatest, &mut |sub, _| {
        found = Some(sub.to_vec());
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// An aggregate over the distinct values: feeds the inner accumulator when a value appears or is gone.
pub struct Distinct {
    set: usize,
    /// Where the call's arguments are among the set's columns.
    positions: Vec<usize>,
    inner: Box<dyn Accumulator>,
}

impl Distinct {
    pub fn new(
        set: usize,
        call: &AggregateCall,
        changes: &ValueSetChanges,
        inner: Box<dyn Accumulator>,
    ) -> Self {
        let positions = call
            .arguments
            .iter()
            .map(|a| changes.position_of(*a))
            .collect();
        Self {
            set,
            positions,
            inner,
        }
    }
}

impl Accumulator for Distinct {
    fn resize(&mut self, groups: usize) {
        self.inner.resize(groups);
    }

    fn update(&mut self, _: &[u32], _: Weights<'_>, _: &[ArrayRef]) -> Result<(), OperatorError> {
        Ok(())
    }

    fn prepare(&mut self, sets: &[ValueSetChanges]) -> Result<(), OperatorError> {
        let set = &sets[self.set];
        let (mut groups, mut weights, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut changes = set.changes_of(set.chunk.clone()).peekable();
        while let Some((group, value, before, after)) = changes.next() {
            let weight = i64::from(after > 0) - i64::from(before > 0);
            if weight != 0 {
                groups.push(group);
                weights.push(weight);
                values.push(value);
            }
            if groups.len() == PIECE_VALUES || changes.peek().is_none() && !groups.is_empty() {
                let columns = set.codec.decode(values.drain(..))?;
                let arguments: Vec<ArrayRef> =
                    self.positions.iter().map(|p| columns[*p].clone()).collect();
                self.inner
                    .update(&groups, Weights::Each(&weights), &arguments)?;
                groups.clear();
                weights.clear();
            }
        }
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        self.inner.merge(at, old, new)
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        self.inner.finish()
    }

    fn clear(&mut self) {
        self.inner.clear();
    }
}

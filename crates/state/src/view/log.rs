//! An append-only view's rows: Arrow batches as they arrived, numbered.
//!
//! Each row has a hidden id: (key group, number), the number growing by one with each row of the group. A worker gives
//! all its new rows to the first key group it owns, so that its log is in order of arrival; after a change of the number
//! of workers a worker may hold the logs of several groups, of which it continues the first. In a run the key is the
//! number (eight bytes, big endian) followed by the encoded row, and the value a count of one: so the runs of every view
//! merge alike.

use super::layer::Layer;
use super::row::RowLayout;
use crate::StateError;
use crate::run::{Run, RunBuilder};
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use std::sync::Arc;
use tidegate_types::{Batch, KeyGroup};

/// Batches smaller than this are joined with their neighbours when layers merge.
const SMALL_BATCH_ROWS: usize = 4096;
const JOINED_BATCH_ROWS: usize = 16384;

#[derive(Debug)]
pub struct LogRows {
    group: KeyGroup,
    first_number: u64,
    batches: Vec<RecordBatch>,
    /// For each batch, how many rows there are up to its end.
    ends: Vec<usize>,
    bytes: usize,
}

impl LogRows {
    pub fn new(group: KeyGroup, first_number: u64, batches: Vec<RecordBatch>) -> Self {
        let mut rows = 0;
        let ends = batches.iter().map(|b| {
            rows += b.num_rows();
            rows
        });
        let ends = ends.collect();
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        Self {
            group,
            first_number,
            batches,
            ends,
            bytes,
        }
    }

    pub fn group(&self) -> KeyGroup {
        self.group
    }

    pub fn first_number(&self) -> u64 {
        self.first_number
    }

    pub fn next_number(&self) -> u64 {
        self.first_number + self.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the rows of `next` follow directly on these.
    pub fn continues_in(&self, next: &Self) -> bool {
        self.group == next.group && self.next_number() == next.first_number
    }

    pub fn merge<'a>(parts: impl Iterator<Item = &'a LogRows>) -> Result<Self, StateError> {
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut small: Vec<RecordBatch> = Vec::new();
        let mut small_rows = 0;
        let mut start = None;
        for part in parts {
            start.get_or_insert((part.group, part.first_number));
            for batch in &part.batches {
                let joined = batch.num_rows() < SMALL_BATCH_ROWS;
                if !joined || small_rows + batch.num_rows() > JOINED_BATCH_ROWS {
                    join(&mut small, &mut batches)?;
                    small_rows = 0;
                }
                if joined {
                    small_rows += batch.num_rows();
                    small.push(batch.clone());
                } else {
                    batches.push(batch.clone());
                }
            }
        }
        join(&mut small, &mut batches)?;
        let (group, first_number) = start.expect("something to merge");
        Ok(Self::new(group, first_number, batches))
    }

    /// The rows from this one on, at most so many, as slices.
    pub fn slices(&self, from: usize, rows: usize) -> Vec<RecordBatch> {
        let mut slices = Vec::new();
        let (mut at, end) = (from, (from + rows).min(self.len()));
        let mut batch = self.ends.partition_point(|e| *e <= from);
        while at < end {
            let start = if batch == 0 { 0 } else { self.ends[batch - 1] };
            let length = self.ends[batch].min(end) - at;
            slices.push(self.batches[batch].slice(at - start, length));
            at += length;
            batch += 1;
        }
        slices
    }

    pub fn write_run(&self, layout: &RowLayout, run: &mut RunBuilder) -> Result<(), StateError> {
        let one = 1i64.to_le_bytes();
        let (mut number, mut key) = (self.first_number, Vec::new());
        for batch in &self.batches {
            for row in layout.encode(batch)?.rows.iter() {
                key.clear();
                key.extend_from_slice(&number.to_be_bytes());
                key.extend_from_slice(row.data());
                run.push_in_group(self.group, &key, &[], Some(&one));
                number += 1;
            }
        }
        Ok(())
    }

    /// The logs in a run: one for each stretch of numbers without a gap.
    pub fn read_run(run: &Run, layout: &RowLayout) -> Result<Vec<Self>, StateError> {
        let mut logs = Vec::new();
        let mut start = 0;
        while start < run.len() {
            let group = run.entry(start).group;
            let first = numbered_row(run.entry(start).key)?.0;
            let mut end = start + 1;
            while end < run.len()
                && run.entry(end).group == group
                && numbered_row(run.entry(end).key)?.0 == first + (end - start) as u64
            {
                end += 1;
            }
            let mut batches = Vec::new();
            let mut at = start;
            while at < end {
                let to = end.min(at + JOINED_BATCH_ROWS);
                let rows: Result<Vec<&[u8]>, StateError> = (at..to)
                    .map(|i| Ok(numbered_row(run.entry(i).key)?.1))
                    .collect();
                batches.push(layout.decode(rows?.into_iter(), None)?);
                at = to;
            }
            logs.push(Self::new(group, first, batches));
            start = end;
        }
        Ok(logs)
    }
}

fn join(small: &mut Vec<RecordBatch>, batches: &mut Vec<RecordBatch>) -> Result<(), StateError> {
    match small.len() {
        0 => {}
        1 => batches.append(small),
        _ => {
            batches.push(concat_batches(&small[0].schema(), small.iter())?);
            small.clear();
        }
    }
    Ok(())
}

/// The number and the encoded row in a run's key.
pub fn numbered_row(key: &[u8]) -> Result<(u64, &[u8]), StateError> {
    let (number, row) = key
        .split_at_checked(8)
        .ok_or_else(|| StateError::Damaged("a row of a view has no number".into()))?;
    Ok((self::number(number)?, row))
}

pub fn number(key: &[u8]) -> Result<u64, StateError> {
    let bytes = key
        .try_into()
        .map_err(|_| StateError::Damaged("a row number of a view is not eight bytes".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

/// The rows of a batch, each as often as its diff says. An append-only view is never retracted from.
pub fn repeated(batch: Batch) -> Result<RecordBatch, StateError> {
    let (rows, diffs) = batch.into_parts();
    let Some(diffs) = diffs else {
        return Ok(rows);
    };
    let mut indices = Vec::with_capacity(rows.num_rows());
    for (i, diff) in diffs.values().iter().enumerate() {
        if *diff < 0 {
            return Err(StateError::Backend(
                "a row was retracted from an append-only view".into(),
            ));
        }
        indices.extend(std::iter::repeat_n(i as u32, *diff as usize));
    }
    Ok(take_record_batch(&rows, &UInt32Array::from(indices))?)
}

/// Log layers in the order of (key group, number).
pub fn in_order(layers: &[Arc<Layer>]) -> Vec<Arc<Layer>> {
    let mut ordered = layers.to_vec();
    ordered.sort_by_key(|l| (l.log().group, l.log().first_number));
    ordered
}

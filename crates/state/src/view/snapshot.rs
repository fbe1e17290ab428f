//! A view's rows as of one epoch.

use super::cursor::{Cursor, RowSource};
use super::layer::Layer;
use super::row::RowLayout;
use super::sorted::group_and_row;
use super::{ViewSpec, log};
use crate::StateError;
use arrow::array::{BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_types::{Batch, ByteRows, Diff, KEY_GROUPS, KeyGroup, hash_key, key_group};

/// Immutable; cheap to clone; valid as long as it is kept.
#[derive(Clone)]
pub struct ViewSnapshot {
    spec: ViewSpec,
    layout: Arc<RowLayout>,
    layers: Vec<Arc<Layer>>,
    negative_rows: Arc<AtomicU64>,
}

/// How far a backfill has read: everything up to and including this row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct SlicePosition {
    pub group: KeyGroup,
    /// The encoded row; of an append-only view the row's number.
    pub row: Vec<u8>,
}

impl ViewSnapshot {
    pub(super) fn new(
        spec: ViewSpec,
        layout: Arc<RowLayout>,
        layers: Vec<Arc<Layer>>,
        negative_rows: Arc<AtomicU64>,
    ) -> Self {
        let layers = if spec.append_only {
            log::in_order(&layers)
        } else {
            layers
        };
        Self {
            spec,
            layout,
            layers,
            negative_rows,
        }
    }

    pub fn schema(&self) -> &SchemaRef {
        self.layout.schema()
    }

    /// How many rows there are, copies counted. Costs nothing.
    pub fn num_rows(&self) -> usize {
        self.layers
            .iter()
            .map(|l| l.diff_sum())
            .sum::<Diff>()
            .max(0) as usize
    }

    /// All rows; one that is there n times comes n times. `columns`: which ones, in which order; all when `None`.
    pub fn scan(
        &self,
        columns: Option<&[usize]>,
        batch_rows: usize,
    ) -> Result<ViewScan, StateError> {
        let rows = match self.spec.append_only {
            true => self.log_scan(columns, batch_rows, None)?,
            false => Rows::Sorted(vec![self.range(Vec::new())]),
        };
        ViewScan::new(self, columns, batch_rows, rows)
    }

    /// The rows with this key: the encoded bytes of all key columns (of the whole row when the view has no key).
    pub fn lookup(
        &self,
        key: &[u8],
        columns: Option<&[usize]>,
        batch_rows: usize,
    ) -> Result<ViewScan, StateError> {
        let rows = match self.spec.append_only {
            true => self.log_scan(columns, batch_rows, Some(key))?,
            false => Rows::Sorted(vec![
                self.range(group_and_row(key_group(hash_key(key)), key)),
            ]),
        };
        ViewScan::new(self, columns, batch_rows, rows)
    }

    /// The rows whose encoding starts with these bytes: some of the key columns, from the first. A search in each key group.
    pub fn lookup_prefix(
        &self,
        prefix: &[u8],
        columns: Option<&[usize]>,
        batch_rows: usize,
    ) -> Result<ViewScan, StateError> {
        let rows = match self.spec.append_only {
            true => self.log_scan(columns, batch_rows, Some(prefix))?,
            false => Rows::Sorted(
                (0..KEY_GROUPS)
                    .map(|g| self.range(group_and_row(g as KeyGroup, prefix)))
                    .collect(),
            ),
        };
        ViewScan::new(self, columns, batch_rows, rows)
    }

    fn range(&self, prefix: Vec<u8>) -> SortedRange {
        SortedRange {
            prefix,
            cursor: None,
            left: 0,
        }
    }

    fn cursor(&self, from: &[u8]) -> Cursor {
        let more: Option<Box<dyn RowSource>> = None;
        Cursor::new(&self.layers, from, more)
    }

    fn log_scan(
        &self,
        columns: Option<&[usize]>,
        batch_rows: usize,
        prefix: Option<&[u8]>,
    ) -> Result<Rows, StateError> {
        let mut batches = VecDeque::new();
        for batch in self.layers.iter().flat_map(|l| l.log().batches()) {
            let batch = match prefix {
                Some(prefix) => {
                    let encoded = self.layout.encode(batch)?;
                    let keep: BooleanArray = encoded
                        .rows
                        .iter()
                        .map(|r| Some(r.data().starts_with(prefix)))
                        .collect();
                    filter_record_batch(batch, &keep)?
                }
                None => batch.clone(),
            };
            let batch = match columns {
                Some(columns) => batch.project(columns)?,
                None => batch,
            };
            let mut at = 0;
            while at < batch.num_rows() {
                let length = batch_rows.min(batch.num_rows() - at);
                batches.push_back(batch.slice(at, length));
                at += length;
            }
        }
        Ok(Rows::Log(batches))
    }

    /// The next rows after a position, at most so many distinct ones, in the order of (key group, row), with their
    /// counts; and the position they reach, `None` when nothing comes after them.
    pub fn slice(
        &self,
        after: Option<&SlicePosition>,
        max_rows: usize,
    ) -> Result<(Batch, Option<SlicePosition>), StateError> {
        if self.spec.append_only {
            return self.log_slice(after, max_rows);
        }
        let after = after.map(|p| group_and_row(p.group, &p.row));
        let mut cursor = self.cursor(after.as_deref().unwrap_or(&[]));
        let (mut rows, mut counts) = (ByteRows::new(), Vec::new());
        while counts.len() < max_rows {
            let Some((row, count)) = cursor.next()? else {
                break;
            };
            if Some(row) == after.as_deref() {
                continue;
            }
            if self.positive(count) {
                rows.push(row);
                counts.push(count);
            }
        }
        let decoded = self.layout.decode(rows.iter().map(|r| &r[1..]), None)?;
        let batch = Batch::new(decoded, Int64Array::from(counts));
        if batch.num_rows() < max_rows {
            return Ok((batch, None));
        }
        let last = rows.get(rows.len() - 1);
        Ok((
            batch,
            Some(SlicePosition {
                group: last[0],
                row: last[1..].to_vec(),
            }),
        ))
    }

    fn log_slice(
        &self,
        after: Option<&SlicePosition>,
        max_rows: usize,
    ) -> Result<(Batch, Option<SlicePosition>), StateError> {
        let next = match after {
            Some(position) => (position.group, log::number(&position.row)? + 1),
            None => (0, 0),
        };
        let mut found: Vec<RecordBatch> = Vec::new();
        let (mut left, mut reached) = (max_rows, None);
        for rows in self.layers.iter().map(|l| l.log()) {
            if left == 0 {
                break;
            }
            let from = match rows.group().cmp(&next.0) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal => next.1.saturating_sub(rows.first_number()) as usize,
                std::cmp::Ordering::Greater => 0,
            };
            if from >= rows.len() {
                continue;
            }
            let count = left.min(rows.len() - from);
            found.extend(rows.slices(from, count));
            left -= count;
            let last = rows.first_number() + (from + count) as u64 - 1;
            reached = Some(SlicePosition {
                group: rows.group(),
                row: last.to_be_bytes().to_vec(),
            });
        }
        let rows = arrow::compute::concat_batches(self.layout.schema(), found.iter())?;
        Ok((Batch::insert(rows), reached.filter(|_| left == 0)))
    }

    /// Whether a row with this count is to be shown.
    fn positive(&self, count: Diff) -> bool {
        if count < 0 {
            self.negative_rows.fetch_add(1, Ordering::Relaxed);
            debug_assert!(count >= 0, "a row of a view has a count below zero");
        }
        count > 0
    }
}

enum Rows {
    Log(VecDeque<RecordBatch>),
    /// One after the other.
    Sorted(Vec<SortedRange>),
}

/// The rows (key group and encoding) that start with a prefix.
struct SortedRange {
    prefix: Vec<u8>,
    cursor: Option<Cursor>,
    /// How many copies of the cursor's last row are still to be given.
    left: usize,
}

/// The batches of a scan or lookup.
pub struct ViewScan {
    snapshot: ViewSnapshot,
    schema: SchemaRef,
    columns: Option<Vec<usize>>,
    batch_rows: usize,
    rows: Rows,
    range: usize,
    last: Vec<u8>,
}

impl ViewScan {
    fn new(
        snapshot: &ViewSnapshot,
        columns: Option<&[usize]>,
        batch_rows: usize,
        rows: Rows,
    ) -> Result<Self, StateError> {
        assert!(batch_rows > 0, "a batch has rows");
        Ok(Self {
            snapshot: snapshot.clone(),
            schema: snapshot.layout.projected(columns)?,
            columns: columns.map(<[usize]>::to_vec),
            batch_rows,
            rows,
            range: 0,
            last: Vec::new(),
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, StateError> {
        let ranges = match &mut self.rows {
            Rows::Log(batches) => return Ok(batches.pop_front()),
            Rows::Sorted(ranges) => ranges,
        };
        let needs_rows = !self.schema.fields().is_empty();
        let (mut rows, mut count) = (ByteRows::new(), 0);
        while count < self.batch_rows && self.range < ranges.len() {
            let range = &mut ranges[self.range];
            if range.left == 0 {
                let prefix = &range.prefix;
                let cursor = range
                    .cursor
                    .get_or_insert_with(|| self.snapshot.cursor(prefix));
                match cursor.next()? {
                    Some((row, diff)) if row.starts_with(prefix) => {
                        if self.snapshot.positive(diff) {
                            range.left = diff as usize;
                            self.last.clear();
                            self.last.extend_from_slice(&row[1..]);
                        }
                    }
                    _ => {
                        range.cursor = None;
                        self.range += 1;
                    }
                }
                continue;
            }
            let copies = range.left.min(self.batch_rows - count);
            range.left -= copies;
            count += copies;
            for _ in 0..if needs_rows { copies } else { 0 } {
                rows.push(&self.last);
            }
        }
        if count == 0 {
            return Ok(None);
        }
        if !needs_rows {
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            return Ok(Some(RecordBatch::try_new_with_options(
                self.schema.clone(),
                vec![],
                &options,
            )?));
        }
        Ok(Some(
            self.snapshot
                .layout
                .decode(rows.iter(), self.columns.as_deref())?,
        ))
    }
}

impl Iterator for ViewScan {
    type Item = Result<RecordBatch, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

//! A view's rows as of one epoch.

use super::cursor::{Cursor, RowSource};
use super::layer::Layer;
use super::row::RowLayout;
use super::sorted::group_and_row;
use super::{ViewSpec, log};
use crate::StateError;
use crate::rocks::view::{DiskSnapshot, DiskSource};
use arrow::array::{BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter_record_batch};
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
    /// The rows that are older than all layers.
    disk: Option<DiskSnapshot>,
    /// Where new rows of an append-only view go.
    first_group: KeyGroup,
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
        disk: Option<DiskSnapshot>,
        first_group: KeyGroup,
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
            disk,
            first_group,
            negative_rows,
        }
    }

    pub fn schema(&self) -> &SchemaRef {
        self.layout.schema()
    }

    /// The columns whose values [`ViewSnapshot::lookup`] takes; none where a lookup would read everything.
    pub fn lookup_key(&self) -> &[usize] {
        if self.spec.append_only {
            &[]
        } else {
            &self.spec.key
        }
    }

    /// How many rows there are, copies counted. Costs nothing.
    pub fn num_rows(&self) -> usize {
        let on_disk = self.disk.as_ref().map_or(0, |d| d.marker.rows);
        let in_layers: Diff = self.layers.iter().map(|l| l.diff_sum()).sum();
        (on_disk + in_layers).max(0) as usize
    }

    /// All rows; one that is there n times comes n times. `columns`: which ones, in which order; all when `None`.
    pub fn scan(
        &self,
        columns: Option<&[usize]>,
        batch_rows: usize,
    ) -> Result<ViewScan, StateError> {
        let rows = match self.spec.append_only {
            true => self.log_scan(None)?,
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
            true => self.log_scan(Some(key))?,
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
            true => self.log_scan(Some(prefix))?,
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

    pub(super) fn cursor(&self, from: &[u8]) -> Result<Cursor, StateError> {
        let more: Option<Box<dyn RowSource>> = match &self.disk {
            Some(disk) => Some(Box::new(disk.source(from)?)),
            None => None,
        };
        Ok(Cursor::new(&self.layers, from, more))
    }

    fn log_scan(&self, prefix: Option<&[u8]>) -> Result<Rows, StateError> {
        let disk = match &self.disk {
            Some(disk) => Some(disk.log_source(0, 0, None)?),
            None => None,
        };
        let batches = self
            .layers
            .iter()
            .flat_map(|l| l.log().batches())
            .cloned()
            .collect();
        Ok(Rows::Log {
            disk,
            batches,
            prefix: prefix.map(<[u8]>::to_vec),
        })
    }

    /// The next rows after a position, at most so many distinct ones, in the order of (key group, row), with their
    /// counts; and the position they reach, `None` when nothing comes after them. Key groups from `groups_end` on are left
    /// alone. A position without a row is in front of its group.
    pub fn slice(
        &self,
        after: Option<&SlicePosition>,
        groups_end: usize,
        max_rows: usize,
    ) -> Result<(Batch, Option<SlicePosition>), StateError> {
        if self.spec.append_only {
            return self.log_slice(after, groups_end, max_rows);
        }
        let after = after.map(|p| group_and_row(p.group, &p.row));
        let mut cursor = self.cursor(after.as_deref().unwrap_or(&[]))?;
        let (mut rows, mut counts) = (ByteRows::new(), Vec::new());
        while counts.len() < max_rows {
            let Some((row, count)) = cursor.next_row()? else {
                break;
            };
            if usize::from(row[0]) >= groups_end {
                break;
            }
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
        groups_end: usize,
        max_rows: usize,
    ) -> Result<(Batch, Option<SlicePosition>), StateError> {
        let (group, number) = match after {
            Some(position) if position.row.is_empty() => (position.group, 0),
            Some(position) => (position.group, log::number(&position.row)? + 1),
            None => (0, 0),
        };
        let mut slice = LogSlice {
            group,
            number,
            groups_end,
            left: max_rows,
            found: Vec::new(),
            reached: None,
        };
        // On disk, the rows of the group that still grows are older than those in layers; other groups follow it.
        let split = self.first_group.checked_add(1);
        if let Some(disk) = self.disk.as_ref().filter(|_| group <= self.first_group) {
            slice.take_disk(disk.log_source(group, number, split)?, &self.layout)?;
        }
        slice.take_layers(&self.layers);
        if let (Some(disk), Some(split)) = (&self.disk, split) {
            let (group, number) = if group >= split {
                (group, number)
            } else {
                (split, 0)
            };
            slice.take_disk(disk.log_source(group, number, None)?, &self.layout)?;
        }
        let rows = concat_batches(self.layout.schema(), slice.found.iter())?;
        let reached = slice.reached.filter(|_| slice.left == 0);
        let position = reached.map(|(group, number)| SlicePosition {
            group,
            row: number.to_be_bytes().to_vec(),
        });
        Ok((Batch::insert(rows), position))
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

/// Collects a slice of a log.
struct LogSlice {
    group: KeyGroup,
    number: u64,
    groups_end: usize,
    left: usize,
    found: Vec<RecordBatch>,
    reached: Option<(KeyGroup, u64)>,
}

impl LogSlice {
    fn take_layers(&mut self, layers: &[Arc<Layer>]) {
        for rows in layers.iter().map(|l| l.log()) {
            let from = match rows.group().cmp(&self.group) {
                std::cmp::Ordering::Less => continue,
                _ if usize::from(rows.group()) >= self.groups_end => continue,
                std::cmp::Ordering::Equal => {
                    self.number.saturating_sub(rows.first_number()) as usize
                }
                std::cmp::Ordering::Greater => 0,
            };
            let count = self.left.min(rows.len().saturating_sub(from));
            if count > 0 {
                self.found.extend(rows.slices(from, count));
                self.left -= count;
                self.reached = Some((
                    rows.group(),
                    rows.first_number() + (from + count) as u64 - 1,
                ));
            }
        }
    }

    fn take_disk(&mut self, mut source: DiskSource, layout: &RowLayout) -> Result<(), StateError> {
        let mut rows = ByteRows::new();
        while self.left > 0
            && let Some((group, number, row)) = source.log_row()?
            && usize::from(group) < self.groups_end
        {
            rows.push(row);
            self.left -= 1;
            self.reached = Some((group, number));
            source.advance()?;
        }
        if !rows.is_empty() {
            self.found.push(layout.decode(rows.iter(), None)?);
        }
        Ok(())
    }
}

enum Rows {
    Log {
        /// What is older than the batches.
        disk: Option<DiskSource>,
        batches: VecDeque<RecordBatch>,
        /// Only rows whose encoding starts so.
        prefix: Option<Vec<u8>>,
    },
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
        let Rows::Sorted(ranges) = &mut self.rows else {
            return self.next_log_batch();
        };
        let needs_rows = !self.schema.fields().is_empty();
        let (mut rows, mut count) = (ByteRows::new(), 0);
        while count < self.batch_rows && self.range < ranges.len() {
            let range = &mut ranges[self.range];
            if range.left == 0 {
                let prefix = &range.prefix;
                let cursor = match &mut range.cursor {
                    Some(cursor) => cursor,
                    None => range.cursor.insert(self.snapshot.cursor(prefix)?),
                };
                match cursor.next_row()? {
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

impl ViewScan {
    fn next_log_batch(&mut self) -> Result<Option<RecordBatch>, StateError> {
        let Rows::Log {
            disk,
            batches,
            prefix,
        } = &mut self.rows
        else {
            return Ok(None);
        };
        let layout = &self.snapshot.layout;
        loop {
            if let Some(source) = disk {
                let mut rows = ByteRows::new();
                while rows.len() < self.batch_rows
                    && let Some((_, _, row)) = source.log_row()?
                {
                    if prefix.as_ref().is_none_or(|p| row.starts_with(p)) {
                        rows.push(row);
                    }
                    source.advance()?;
                }
                if !rows.is_empty() {
                    return Ok(Some(layout.decode(rows.iter(), self.columns.as_deref())?));
                }
                *disk = None;
            }
            let Some(mut batch) = batches.pop_front() else {
                return Ok(None);
            };
            if batch.num_rows() > self.batch_rows {
                batches
                    .push_front(batch.slice(self.batch_rows, batch.num_rows() - self.batch_rows));
                batch = batch.slice(0, self.batch_rows);
            }
            if let Some(prefix) = prefix {
                let encoded = layout.encode(&batch)?;
                let keep: BooleanArray = encoded
                    .rows
                    .iter()
                    .map(|r| Some(r.data().starts_with(prefix)))
                    .collect();
                batch = filter_record_batch(&batch, &keep)?;
            }
            if batch.num_rows() > 0 {
                return Ok(Some(match &self.columns {
                    Some(columns) => batch.project(columns)?,
                    None => batch,
                }));
            }
        }
    }
}

impl Iterator for ViewScan {
    type Item = Result<RecordBatch, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

//! The times of a source's rows: which rows are late, and how far the source has come.
//!
//! A row is late when it is earlier than the greatest time that its split had before it, less the delay of the watermark; and
//! when it is earlier than the floor of the last barrier ([`tidegate_types::watermark`]). The first follows from the order of
//! the split's rows alone, so that a replay finds the same rows late; the second matters for splits that were idle. Late rows
//! are dropped here, for every view. A row without a time is never late.
//!
//! State, in a table of the input: per split the greatest time and how many rows were late; per worker the floor it holds to.

use super::reader::owner;
use crate::event_clock::Told;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_connectors::SplitId;
use tidegate_dataflow::value_bytes::{Reader, write_i64};
use tidegate_state::{Cell, Change, StateError, Table};
use tidegate_types::{RowCodec, WorkerId};

/// `WATERMARK FOR column AS column - delay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTime {
    /// Among all stored columns.
    pub column: usize,
    pub delay_us: i64,
    /// Late rows are put with the errors of the source.
    pub keeps_late: bool,
}

#[derive(Debug, Clone)]
struct Split {
    greatest: Option<i64>,
    late: u64,
    last_row: Instant,
    ended: bool,
    is_saved: bool,
}

/// What a batch has fallen into.
pub(crate) struct Sorted {
    pub on_time: RecordBatch,
    /// Rows that are not, where there are any.
    pub late: Option<RecordBatch>,
}

/// Whether a worker knows its splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// They have not been looked for yet.
    Pending,
    /// Those that there are; more may come.
    Open,
    /// All that there will ever be.
    Complete,
}

pub(crate) struct EventTimes {
    spec: EventTime,
    idle_after: Duration,
    worker: WorkerId,
    splits: BTreeMap<String, Split>,
    floor: Option<i64>,
    saved_floor: Option<i64>,
}

/// Keys of floors begin with it; no split is called so.
const FLOOR: &str = "\u{1}floor ";

impl EventTimes {
    pub fn restored(
        spec: EventTime,
        idle_after: Duration,
        worker: WorkerId,
        table: &dyn Table,
        owns: impl Fn(&str) -> bool,
    ) -> Result<Self, StateError> {
        let mut times = Self {
            spec,
            idle_after,
            worker,
            splits: BTreeMap::new(),
            floor: None,
            saved_floor: None,
        };
        for (name, greatest, late) in read(table)? {
            if name.starts_with(FLOOR) {
                times.floor = times.floor.max(greatest);
            } else if owns(&name) {
                let split = Split {
                    greatest,
                    late,
                    is_saved: true,
                    ..Split::new()
                };
                times.splits.insert(name, split);
            }
        }
        Ok(times)
    }

    fn split(&mut self, split: &str) -> &mut Split {
        if !self.splits.contains_key(split) {
            self.splits.insert(split.to_owned(), Split::new());
        }
        self.splits.get_mut(split).expect("it was just put there")
    }

    /// A split is there, though it may have given nothing yet.
    pub fn knows(&mut self, split: &str) {
        self.split(split);
    }

    /// Parts the rows of a split, in their order, into those on time and the late ones.
    pub fn sort(
        &mut self,
        name: &str,
        rows: RecordBatch,
    ) -> Result<Sorted, arrow::error::ArrowError> {
        let (spec, floor) = (self.spec, self.floor.unwrap_or(i64::MIN));
        let split = self.split(name);
        let times = rows
            .column(spec.column)
            .as_primitive::<TimestampMicrosecondType>();
        let mut on_time = vec![true; rows.num_rows()];
        let (before, mut late) = (split.greatest, 0);
        let mut greatest = split.greatest.unwrap_or(i64::MIN);
        for (row, on_time) in on_time.iter_mut().enumerate() {
            if times.is_null(row) {
                continue;
            }
            let time = times.value(row);
            let lowest = floor.max(greatest.saturating_sub(spec.delay_us));
            if time < lowest {
                *on_time = false;
                late += 1;
            } else {
                greatest = greatest.max(time);
            }
        }
        if greatest > i64::MIN {
            split.greatest = Some(greatest);
        }
        split.last_row = Instant::now();
        split.late += late;
        split.is_saved &= late == 0 && split.greatest == before;
        if late == 0 {
            return Ok(Sorted {
                on_time: rows,
                late: None,
            });
        }
        let mask = BooleanArray::from(on_time);
        Ok(Sorted {
            late: Some(filter_record_batch(&rows, &arrow::compute::not(&mask)?)?),
            on_time: filter_record_batch(&rows, &mask)?,
        })
    }

    pub fn ended(&mut self, split: &str) {
        self.split(split).ended = true;
    }

    pub fn late_rows(&self) -> u64 {
        self.splits.values().map(|split| split.late).sum()
    }

    pub fn keeps_late(&self) -> bool {
        self.spec.keeps_late
    }

    /// From now on nothing earlier is taken.
    pub fn hold_to(&mut self, floor: Option<i64>) {
        self.floor = self.floor.max(floor);
    }

    /// How far the splits of this worker have come.
    pub fn told(&self, now: Instant, whether: Discovery) -> Told {
        if whether == Discovery::Pending {
            return Told::Active(None);
        }
        let come_to = |split: &Split| split.greatest.map(|t| t.saturating_sub(self.spec.delay_us));
        let idle = |split: &&Split| now.duration_since(split.last_row) >= self.idle_after;
        let open: Vec<&Split> = self.splits.values().filter(|s| !s.ended).collect();
        if open.is_empty() {
            // A worker may have no splits.
            return match self.splits.is_empty() && whether != Discovery::Complete {
                true => Told::Idle(None),
                false => Told::Ended,
            };
        }
        let active = open.iter().copied().filter(|split| !idle(split));
        match active.map(come_to).min() {
            Some(lowest) => Told::Active(lowest),
            None => Told::Idle(open.into_iter().filter_map(come_to).max()),
        }
    }

    /// When a split that is waited for will be idle, if nothing comes.
    pub fn next_idle(&self, now: Instant) -> Option<Duration> {
        let open = self.splits.values().filter(|split| !split.ended);
        let idle_at = open.map(|split| split.last_row + self.idle_after);
        idle_at.filter(|at| *at > now).map(|at| at - now).min()
    }

    /// At the barrier: what is different from what was saved last.
    pub fn write(&mut self, table: &mut dyn Table) -> Result<(), StateError> {
        for (name, split) in &mut self.splits {
            if !split.is_saved {
                put(table, name, split.greatest, split.late)?;
                split.is_saved = true;
            }
        }
        if self.floor != self.saved_floor {
            put(table, &format!("{FLOOR}{}", self.worker), self.floor, 0)?;
            self.saved_floor = self.floor;
        }
        Ok(())
    }
}

impl Split {
    fn new() -> Self {
        Self {
            greatest: None,
            late: 0,
            last_row: Instant::now(),
            ended: false,
            is_saved: false,
        }
    }
}

/// Whether a row of the table is this worker's, where a savepoint of another number of workers gives a dataflow its first.
pub(crate) fn owns(key: &[u8], worker: usize, workers: usize) -> bool {
    let Ok(columns) = codec().and_then(|codec| codec.decode([key]).map_err(StateError::from))
    else {
        return false;
    };
    let name = columns[0].as_string::<i32>().value(0);
    match name.strip_prefix(FLOOR) {
        // Any floor will do, and the one of the worker itself is at least as good as a stranger's.
        Some(of) => of.parse::<usize>().is_ok_and(|of| of % workers == worker),
        None => owner(&SplitId::new(name), workers) == worker,
    }
}

fn codec() -> Result<RowCodec, StateError> {
    Ok(RowCodec::new(&[DataType::Utf8])?)
}

fn put(
    table: &mut dyn Table,
    name: &str,
    greatest: Option<i64>,
    late: u64,
) -> Result<(), StateError> {
    let name: ArrayRef = Arc::new(StringArray::from(vec![name]));
    let key = codec()?.encode(&[name])?;
    let mut value = Vec::new();
    write_i64(greatest.unwrap_or(i64::MIN), &mut value);
    write_i64(late as i64, &mut value);
    table.write_many(&[Change {
        cell: Cell::key(key.row(0).data()),
        value: Some(&value),
    }])
}

/// What a table has: name, greatest time, number of late rows.
fn read(table: &dyn Table) -> Result<Vec<(String, Option<i64>, u64)>, StateError> {
    let codec = codec()?;
    let mut entries = Vec::new();
    let mut failed = None;
    table.scan_all(&mut |_, key, _, value| {
        let entry = codec.decode([key]).map_err(StateError::from);
        let entry = entry.and_then(|columns| {
            let name = columns[0].as_string::<i32>().value(0).to_owned();
            let mut value = Reader::new(value);
            let greatest = value.i64()?;
            Ok((
                name,
                (greatest != i64::MIN).then_some(greatest),
                value.i64()? as u64,
            ))
        });
        match entry {
            Ok(entry) => entries.push(entry),
            Err(error) => failed = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(entries), Err)
}

//! Sessions: `Δout = −sessions(old rows) + sessions(new rows)` over the stretches of time that a change touches.
//!
//! State: `rows`, map form: partition → time ‖ other columns → count ([`crate::ordered_rows`]).
//!
//! A changed row can touch one session of the old and new rows taken together: those have every row of either, so their
//! sessions are unions of the old ones and of the new ones, and nothing outside is within reach. That stretch is read from the
//! table around each changed row, once before and once behind, and cut into sessions as it was and as it is. A row whose time is
//! NULL is in no session; it passes with NULLs, and is not kept.
//!
//! Where the time has a watermark, the rows of a session that ended before it are freed: no row can come that would extend it,
//! and none of its own will go. When the sessions of a partition end is a cache, as in [`crate::closing`].
//!
//! Cost: the size of the sessions that change, per epoch.

use crate::count_table::{Recount, scan_counts_within, write_recounts};
use crate::groups::KeyChunk;
use crate::numbering::Numbered;
use crate::ordered_rows::{CHUNK_GROUPS, Kept, OrderedRows};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{is_not_null, is_null};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::collections::{BTreeMap, HashSet};
use std::ops::{Bound, ControlFlow, Range};
use std::sync::Arc;
use tidegate_plan::{SortKey, Watermark};
use tidegate_state::{Cell, Change, Table};
use tidegate_types::{Barrier, Batch, ByteRows};

/// Bytes of an encoded time: whether it is NULL, then the number so that bytes compare like it.
const TIME_BYTES: usize = 9;

pub struct Session {
    rows: OrderedRows,
    time: usize,
    gap_us: i64,
    schema: SchemaRef,
    time_type: DataType,
    next: usize,
    groups: usize,
    ending: Option<Ending>,
    /// The barrier whose work is going on.
    barrier: Option<Barrier>,
}

/// When sessions end, where a watermark tells when that is final.
struct Ending {
    watermark: Watermark,
    open: BTreeMap<i64, HashSet<Box<[u8]>>>,
    is_filled: bool,
}

impl Ending {
    fn touch(&mut self, end: i64, key: &[u8]) {
        let keys = self.open.entry(end).or_default();
        if !keys.contains(key) {
            keys.insert(key.into());
        }
    }

    /// Sessions from before a restart.
    fn fill(&mut self, table: &dyn Table, gap_us: i64) -> Result<(), OperatorError> {
        let mut times: BTreeMap<Box<[u8]>, Vec<i64>> = BTreeMap::new();
        table.scan_all(&mut |_, key, sub, _| {
            times.entry(key.into()).or_default().push(time_of(sub));
            ControlFlow::Continue(())
        })?;
        for (key, mut times) in times {
            times.sort_unstable();
            for session in times.chunk_by(|a, b| b.saturating_sub(*a) <= gap_us) {
                self.touch(session[session.len() - 1].saturating_add(gap_us), &key);
            }
        }
        self.is_filled = true;
        Ok(())
    }

    /// Frees the rows of sessions that are over.
    fn free(
        &mut self,
        barrier: &Barrier,
        table: &mut dyn Table,
        gap_us: i64,
    ) -> Result<(), OperatorError> {
        let Some(watermark) = self.watermark.at(&barrier.watermarks) else {
            return Ok(());
        };
        if !self.is_filled {
            self.fill(table, gap_us)?;
        }
        while let Some(entry) = self.open.first_entry().filter(|e| *e.key() < watermark) {
            for key in entry.remove() {
                let mut over = Vec::new();
                let mut session: Vec<Box<[u8]>> = Vec::new();
                let mut end = i64::MIN;
                let all = (Bound::Unbounded, Bound::Unbounded);
                table.scan(&key, all, false, &mut |sub, _| {
                    let time = time_of(sub);
                    if time > end {
                        over.append(&mut session);
                    }
                    end = time.saturating_add(gap_us);
                    // What is not over yet will look again when it is.
                    if end >= watermark {
                        session.clear();
                        return ControlFlow::Break(());
                    }
                    session.push(sub.into());
                    ControlFlow::Continue(())
                })?;
                over.append(&mut session);
                let gone: Vec<Change<'_>> = over
                    .iter()
                    .map(|sub| Change {
                        cell: Cell { key: &key, sub },
                        value: None,
                    })
                    .collect();
                table.write_many(&gone)?;
            }
        }
        Ok(())
    }
}

/// Rows that come out, to be made into a batch.
#[derive(Default)]
struct Emitted {
    of_key: Vec<u32>,
    subs: ByteRows,
    diffs: Vec<i64>,
    starts: Vec<i64>,
    ends: Vec<i64>,
}

/// Counts of a row before and after the epoch.
type Counts = (i64, i64);
/// Rows of one key in the order of time, by their encoded columns.
type Stretch = BTreeMap<Vec<u8>, Counts>;

impl Session {
    pub fn new(
        partition: &[usize],
        time: usize,
        gap_us: i64,
        input: &Schema,
        watermark: Option<&Watermark>,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let stored: Vec<usize> = (0..input.fields().len()).collect();
        let order = [SortKey {
            column: time,
            descending: false,
            nulls_first: true,
        }];
        let rows = OrderedRows::new(
            partition,
            &order,
            input,
            Arc::new(schema.project(&stored)?),
            Numbered::first(u64::MAX),
            Kept::All,
        )?;
        Ok(Self {
            rows,
            time,
            gap_us,
            time_type: schema.field(stored.len()).data_type().clone(),
            schema,
            next: 0,
            groups: 0,
            ending: watermark.map(|watermark| Ending {
                watermark: watermark.clone(),
                open: BTreeMap::new(),
                is_filled: false,
            }),
            barrier: None,
        })
    }

    fn merge(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        while self.next < self.groups {
            if cx.exhausted() {
                return Ok(Progress::More);
            }
            let range = self.next..(self.next + CHUNK_GROUPS).min(self.groups);
            self.next = range.end;
            let keys = self.rows.keys(range.clone())?;
            let mut emitted = Emitted::default();
            let mut ending = self.ending.take();
            for (index, group) in range.enumerate() {
                let key = keys.keys.get(index);
                let table = cx.tables[0].as_mut();
                self.partition((group, index as u32), key, table, &mut emitted, &mut ending)?;
            }
            self.ending = ending;
            self.emit(&keys, emitted, cx)?;
        }
        self.rows.clear();
        (self.next, self.groups) = (0, 0);
        if let (Some(ending), Some(barrier)) = (&mut self.ending, self.barrier.take()) {
            ending.free(&barrier, cx.tables[0].as_mut(), self.gap_us)?;
        }
        Ok(Progress::Done)
    }

    /// Brings one partition up to date.
    fn partition(
        &self,
        (group, index): (usize, u32),
        key: &[u8],
        table: &mut dyn Table,
        emitted: &mut Emitted,
        ending: &mut Option<Ending>,
    ) -> Result<(), OperatorError> {
        let changes = self.rows.counts(group, key, table)?;
        let mut next = 0;
        while next < changes.len() {
            let (stretch, taken) = self.stretch(key, &changes, next, table)?;
            next = taken.end;
            let before = sessions(&stretch, |counts| counts.0, self.gap_us);
            let after = sessions(&stretch, |counts| counts.1, self.gap_us);
            for ((sub, (old, new)), (was, is)) in stretch.iter().zip(before.iter().zip(&after)) {
                let (old, new) = ((*old).max(0), (*new).max(0));
                if was == is {
                    emitted.push(index, sub, new - old, *is);
                } else {
                    emitted.push(index, sub, -old, *was);
                    emitted.push(index, sub, new, *is);
                }
            }
            if let Some(ending) = ending {
                let mut ends: Vec<i64> = after.iter().flatten().map(|(_, end)| *end).collect();
                ends.dedup();
                ends.iter().for_each(|end| ending.touch(*end, key));
            }
        }
        write_recounts(table, key, &changes)?;
        Ok(())
    }

    /// All rows, old and new, of the one session of both that the change `first` is in, and which changes those are.
    fn stretch(
        &self,
        key: &[u8],
        changes: &[Recount<'_>],
        first: usize,
        table: &dyn Table,
    ) -> Result<(Stretch, Range<usize>), OperatorError> {
        let mut stretch = BTreeMap::new();
        let begin = &changes[first].0[..TIME_BYTES];
        let mut low = time_of(begin);
        let before = (Bound::Unbounded, Bound::Excluded(begin));
        scan_counts_within(table, key, before, true, &mut |sub, count| {
            let time = time_of(sub);
            if low.saturating_sub(time) > self.gap_us {
                return ControlFlow::Break(());
            }
            low = time;
            stretch.insert(sub.to_vec(), (count, count));
            ControlFlow::Continue(())
        })?;
        let (mut high, mut next) = (time_of(begin), first);
        // Changes up to a time that are within reach.
        let mut reach = |high: &mut i64, until: i64, stretch: &mut BTreeMap<Vec<u8>, Counts>| {
            while let Some((sub, old, new)) = changes.get(next) {
                let time = time_of(sub);
                if time > until || time.saturating_sub(*high) > self.gap_us {
                    break;
                }
                *high = time;
                stretch.insert(sub.to_vec(), (*old, *new));
                next += 1;
            }
        };
        let behind = (Bound::Included(begin), Bound::Unbounded);
        scan_counts_within(table, key, behind, false, &mut |sub, count| {
            let time = time_of(sub);
            reach(&mut high, time, &mut stretch);
            if time.saturating_sub(high) > self.gap_us {
                return ControlFlow::Break(());
            }
            high = time;
            stretch.entry(sub.to_vec()).or_insert((count, count));
            ControlFlow::Continue(())
        })?;
        reach(&mut high, i64::MAX, &mut stretch);
        Ok((stretch, first..next))
    }

    fn emit(
        &self,
        keys: &KeyChunk,
        emitted: Emitted,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        if emitted.diffs.is_empty() {
            return Ok(());
        }
        let Emitted {
            of_key,
            subs,
            diffs,
            starts,
            ends,
        } = emitted;
        let rows = self.rows.rows(keys, of_key, &subs, diffs)?;
        let diffs = rows.diffs().cloned();
        let mut columns = rows.columns().to_vec();
        for times in [starts, ends] {
            columns.push(self.times(TimestampMicrosecondArray::from(times)));
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        cx.emit(match diffs {
            Some(diffs) => Batch::new(rows, diffs),
            None => Batch::insert(rows),
        });
        Ok(())
    }

    fn times(&self, times: TimestampMicrosecondArray) -> ArrayRef {
        Arc::new(times.with_data_type(self.time_type.clone()))
    }

    /// Rows without a time, in no session.
    fn timeless(&self, batch: &Batch) -> Result<Batch, OperatorError> {
        let count = batch.num_rows();
        let mut columns = batch.columns().to_vec();
        for _ in 0..2 {
            columns.push(self.times(TimestampMicrosecondArray::new_null(count)));
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        Ok(match batch.diffs() {
            Some(diffs) => Batch::new(rows, diffs.clone()),
            None => Batch::insert(rows),
        })
    }
}

impl Emitted {
    fn push(&mut self, index: u32, sub: &[u8], diff: i64, session: Option<(i64, i64)>) {
        if let Some((start, end)) = session.filter(|_| diff != 0) {
            self.of_key.push(index);
            self.subs.push(sub);
            self.diffs.push(diff);
            self.starts.push(start);
            self.ends.push(end);
        }
    }
}

/// The time in front of an encoded row.
fn time_of(sub: &[u8]) -> i64 {
    let bytes: [u8; 8] = sub[1..TIME_BYTES]
        .try_into()
        .expect("a time has eight bytes behind its first");
    i64::from_be_bytes(bytes) ^ i64::MIN
}

/// For each row of a stretch the beginning and end of its session among those that are there.
fn sessions(
    stretch: &BTreeMap<Vec<u8>, Counts>,
    count: impl Fn(&Counts) -> i64,
    gap_us: i64,
) -> Vec<Option<(i64, i64)>> {
    let mut found = vec![None; stretch.len()];
    let there: Vec<(usize, i64)> = stretch
        .iter()
        .enumerate()
        .filter(|(_, (_, counts))| count(counts) > 0)
        .map(|(place, (sub, _))| (place, time_of(sub)))
        .collect();
    for session in there.chunk_by(|(_, a), (_, b)| b.saturating_sub(*a) <= gap_us) {
        let last = session[session.len() - 1].1;
        let bounds = (session[0].1, last.saturating_add(gap_us));
        session
            .iter()
            .for_each(|(place, _)| found[*place] = Some(bounds));
    }
    found
}

impl Operator for Session {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        let times = batch.column(self.time);
        if times.null_count() == 0 {
            self.rows.collect(&batch)?;
            return Ok(Progress::Done);
        }
        let places = |mask: &arrow::array::BooleanArray| -> UInt32Array {
            let set = mask.values().set_indices();
            set.map(|row| row as u32).collect::<Vec<u32>>().into()
        };
        let (timed, timeless) = (places(&is_not_null(times)?), places(&is_null(times)?));
        self.rows.collect(&batch.take(&timed)?)?;
        cx.emit(self.timeless(&batch.take(&timeless)?)?);
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.barrier = Some(barrier.clone());
        self.groups = self.rows.sort();
        self.merge(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        self.merge(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::time_of;
    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::{DataType, TimeUnit};
    use expect_test::expect;
    use std::sync::Arc;
    use tidegate_plan::Op;
    use tidegate_testkit::check::columns;
    use tidegate_testkit::{Check, check};
    use tidegate_types::{RowCodec, SqlType};

    #[test]
    fn times_are_read_from_encoded_rows() {
        let times = vec![i64::MIN, -1, 0, 1, 1_700_000_000_000_000, i64::MAX];
        let codec = RowCodec::new(&[DataType::Timestamp(TimeUnit::Microsecond, None)])
            .expect("times are encoded");
        let column = Arc::new(TimestampMicrosecondArray::from(times.clone()));
        let rows = codec.encode(&[column]).expect("times are encoded");
        let read: Vec<i64> = rows.iter().map(|row| time_of(row.data())).collect();
        assert_eq!(read, times);
    }

    /// Sessions with a gap of ten seconds: one row bridges two of them, and its retraction parts them again.
    #[test]
    fn rows_join_and_part_sessions() {
        let time = SqlType::Timestamp;
        let operator = Check {
            op: Op::Session {
                partition: vec![0],
                time: 1,
                gap_us: 10_000_000,
            },
            inputs: vec![columns(&[SqlType::Integer, time.clone()])],
            output: columns(&[SqlType::Integer, time.clone(), time.clone(), time]),
            append_only: false,
        };
        check(
            operator,
            "+1 (1,2024-01-01 00:00:00)
             +1 (1,2024-01-01 00:00:20)
             +1 (2,2024-01-01 00:00:05)
             +1 (1,)
             --
             +1 (1,2024-01-01 00:00:10)
             --
             -1 (1,2024-01-01 00:00:10)
             -1 (2,2024-01-01 00:00:05)
             --",
            expect![[r#"
                +1 (1,,,)
                +1 (1,2024-01-01 00:00:00,2024-01-01 00:00:00,2024-01-01 00:00:10)
                +1 (1,2024-01-01 00:00:20,2024-01-01 00:00:20,2024-01-01 00:00:30)
                +1 (2,2024-01-01 00:00:05,2024-01-01 00:00:05,2024-01-01 00:00:15)
                --
                +1 (1,2024-01-01 00:00:00,2024-01-01 00:00:00,2024-01-01 00:00:30)
                +1 (1,2024-01-01 00:00:10,2024-01-01 00:00:00,2024-01-01 00:00:30)
                +1 (1,2024-01-01 00:00:20,2024-01-01 00:00:00,2024-01-01 00:00:30)
                -1 (1,2024-01-01 00:00:00,2024-01-01 00:00:00,2024-01-01 00:00:10)
                -1 (1,2024-01-01 00:00:20,2024-01-01 00:00:20,2024-01-01 00:00:30)
                --
                +1 (1,2024-01-01 00:00:00,2024-01-01 00:00:00,2024-01-01 00:00:10)
                +1 (1,2024-01-01 00:00:20,2024-01-01 00:00:20,2024-01-01 00:00:30)
                -1 (1,2024-01-01 00:00:00,2024-01-01 00:00:00,2024-01-01 00:00:30)
                -1 (1,2024-01-01 00:00:10,2024-01-01 00:00:00,2024-01-01 00:00:30)
                -1 (1,2024-01-01 00:00:20,2024-01-01 00:00:00,2024-01-01 00:00:30)
                -1 (2,2024-01-01 00:00:05,2024-01-01 00:00:05,2024-01-01 00:00:15)
                --
            "#]],
        );
    }
}

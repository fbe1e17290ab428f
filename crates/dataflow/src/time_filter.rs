//! `now()` in a filter: rows that are there from a time of their own on, or until one.
//!
//! `out(t) = { r : from(r) ≤ t < until(r) }`, where t is the time of the barrier.
//!
//! State: `waiting` and `present`, map form: bounds → other columns → count. A row waits until its time has come; while it is
//! there it is kept if it has to leave. A row that came too late, or that will not leave any more, is not kept. A bound that is
//! NULL is never true.
//!
//! When rows enter and leave is a cache over both tables, filled from them after a restart; at each barrier the operator asks
//! for one at the next of these times.
//!
//! Cost: one cell per changed row and epoch, and one for each row that enters or leaves.

use crate::count_table::{take_all, write_counts, write_recounts};
use crate::groups::{KeyChunk, widen};
use crate::numbering::Numbered;
use crate::ordered_rows::{CHUNK_GROUPS, Kept, OrderedRows};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::Array;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use tidegate_plan::{TimeBound, bound_columns};
use tidegate_state::{Cell, Table};
use tidegate_types::{Barrier, Batch, ByteRows, RowCodec};

const WAITING: usize = 0;
const PRESENT: usize = 1;

/// Keys by the time at which something happens to their rows.
#[derive(Default)]
struct Agenda(BTreeMap<i64, HashSet<Box<[u8]>>>);

impl Agenda {
    fn add(&mut self, time_us: i64, key: &[u8]) {
        let keys = self.0.entry(time_us).or_default();
        if !keys.contains(key) {
            keys.insert(key.into());
        }
    }

    /// What is due at a time, in an order that repeats.
    fn take_due(&mut self, now_us: i64) -> Vec<Box<[u8]>> {
        let mut due = Vec::new();
        while let Some(entry) = self.0.first_entry().filter(|e| *e.key() <= now_us) {
            let mut keys: Vec<Box<[u8]>> = entry.remove().into_iter().collect();
            keys.sort_unstable();
            due.append(&mut keys);
        }
        due
    }

    fn next(&self) -> Option<i64> {
        self.0.keys().next().copied()
    }
}

/// When the rows of a key are there, in microseconds. `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stay {
    from_us: i64,
    until_us: i64,
}

pub struct TimeFilter {
    rows: OrderedRows,
    from: Option<TimeBound>,
    until: Option<TimeBound>,
    /// Columns of the bounds, each once: the key.
    key: Vec<usize>,
    codec: RowCodec,
    entering: Agenda,
    leaving: Agenda,
    is_filled: bool,
    now_us: i64,
    next: usize,
    groups: usize,
}

impl TimeFilter {
    pub fn new(
        from: Option<&TimeBound>,
        until: Option<&TimeBound>,
        input: &Schema,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let key = bound_columns(from, until);
        let types: Vec<DataType> = key
            .iter()
            .map(|c| input.field(*c).data_type().clone())
            .collect();
        let all = Numbered::first(u64::MAX);
        Ok(Self {
            rows: OrderedRows::new(&key, &[], input, schema, all, Kept::All)?,
            from: from.copied(),
            until: until.copied(),
            codec: RowCodec::new(&types)?,
            key,
            entering: Agenda::default(),
            leaving: Agenda::default(),
            is_filled: false,
            now_us: 0,
            next: 0,
            groups: 0,
        })
    }

    /// When the rows of a key are there; `None`: never.
    fn stay(&self, keys: &KeyChunk, index: usize) -> Option<Stay> {
        let time = |bound: &TimeBound| {
            let place = self.key.iter().position(|c| *c == bound.column);
            let column = &keys.columns[place.expect("a bound is of the key")];
            let values = widen(column).expect("a time is a number");
            (!column.is_null(index)).then(|| values[index].saturating_add(bound.shift_us))
        };
        let from_us = self.from.as_ref().map_or(Some(i64::MIN), time)?;
        let until_us = self.until.as_ref().map_or(Some(i64::MAX), time)?;
        (from_us < until_us).then_some(Stay { from_us, until_us })
    }

    fn keys(&self, keys: ByteRows) -> Result<KeyChunk, OperatorError> {
        let columns = self.codec.decode(keys.iter())?;
        Ok(KeyChunk { keys, columns })
    }

    /// Keys from before a restart.
    fn fill(&mut self, tables: &[Box<dyn Table>]) -> Result<(), OperatorError> {
        for (index, table) in tables.iter().enumerate() {
            let mut found = ByteRows::new();
            table.scan_all(&mut |_, key, _, _| {
                if found.is_empty() || found.get(found.len() - 1) != key {
                    found.push(key);
                }
                ControlFlow::Continue(())
            })?;
            let keys = self.keys(found)?;
            for row in 0..keys.keys.len() {
                if let Some(stay) = self.stay(&keys, row) {
                    match index {
                        WAITING => self.entering.add(stay.from_us, keys.keys.get(row)),
                        _ => self.leaving.add(stay.until_us, keys.keys.get(row)),
                    }
                }
            }
        }
        self.is_filled = true;
        Ok(())
    }

    /// Rows whose time has come, and rows whose time is over.
    fn turn(&mut self, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let due = self.entering.take_due(self.now_us);
        let entering = self.keys(due.iter().map(|key| &**key).collect())?;
        let (mut of_key, mut subs, counts) = take_all(cx.tables[WAITING].as_mut(), &entering.keys)?;
        let (mut cells, mut before_after) = (Vec::new(), Vec::new());
        let mut diffs: Vec<i64> = Vec::new();
        for (place, count) in counts.iter().enumerate() {
            let index = of_key[place] as usize;
            let stay = self
                .stay(&entering, index)
                .filter(|s| s.until_us > self.now_us);
            // It may have come and gone between two barriers.
            diffs.push(stay.map_or(0, |_| *count));
            if let Some(stay) = stay.filter(|s| s.until_us < i64::MAX) {
                let key = entering.keys.get(index);
                cells.push((key, subs.get(place).to_vec()));
                before_after.push((0, *count));
                self.leaving.add(stay.until_us, key);
            }
        }
        let cells: Vec<Cell<'_>> = cells.iter().map(|(key, sub)| Cell { key, sub }).collect();
        write_counts(cx.tables[PRESENT].as_mut(), &cells, &before_after)?;
        if diffs.iter().any(|diff| *diff != 0) {
            let kept: Vec<usize> = (0..diffs.len()).filter(|i| diffs[*i] != 0).collect();
            of_key = kept.iter().map(|i| of_key[*i]).collect();
            subs = kept.iter().map(|i| subs.get(*i)).collect();
            diffs = kept.iter().map(|i| diffs[*i]).collect();
            cx.emit(self.rows.rows(&entering, of_key, &subs, diffs)?);
        }
        let due = self.leaving.take_due(self.now_us);
        let leaving = self.keys(due.iter().map(|key| &**key).collect())?;
        let (of_key, subs, counts) = take_all(cx.tables[PRESENT].as_mut(), &leaving.keys)?;
        if !counts.is_empty() {
            let diffs = counts.iter().map(|count| -count).collect();
            cx.emit(self.rows.rows(&leaving, of_key, &subs, diffs)?);
        }
        Ok(())
    }

    /// The epoch's own changes, by what the time says of their rows.
    fn merge(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        while self.next < self.groups {
            if cx.exhausted() {
                return Ok(Progress::More);
            }
            let range = self.next..(self.next + CHUNK_GROUPS).min(self.groups);
            self.next = range.end;
            let keys = self.rows.keys(range.clone())?;
            let (mut of_key, mut subs, mut diffs) = (Vec::new(), ByteRows::new(), Vec::new());
            for (index, group) in range.enumerate() {
                let key = keys.keys.get(index);
                let Some(stay) = self.stay(&keys, index).filter(|s| s.until_us > self.now_us)
                else {
                    continue;
                };
                let waits = stay.from_us > self.now_us;
                let table = cx.tables[if waits { WAITING } else { PRESENT }].as_mut();
                let changes = self.rows.counts(group, key, table)?;
                if !waits {
                    for (sub, old, new) in &changes {
                        of_key.push(index as u32);
                        subs.push(sub);
                        diffs.push(new - old);
                    }
                }
                if !waits && stay.until_us == i64::MAX {
                    continue;
                }
                write_recounts(table, key, &changes)?;
                match waits {
                    true => self.entering.add(stay.from_us, key),
                    false => self.leaving.add(stay.until_us, key),
                }
            }
            if !diffs.is_empty() {
                cx.emit(self.rows.rows(&keys, of_key, &subs, diffs)?);
            }
        }
        self.rows.clear();
        (self.next, self.groups) = (0, 0);
        let next = [self.entering.next(), self.leaving.next()];
        if let Some(next_us) = next.into_iter().flatten().min() {
            cx.want_barrier_at(next_us.div_euclid(1000) + i64::from(next_us.rem_euclid(1000) > 0));
        }
        Ok(Progress::Done)
    }
}

impl Operator for TimeFilter {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        _cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.rows.collect(&batch)?;
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.now_us = barrier.time_ms.saturating_mul(1000);
        if !self.is_filled {
            self.fill(cx.tables)?;
        }
        self.turn(cx)?;
        self.groups = self.rows.sort();
        self.merge(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        self.merge(cx)
    }
}

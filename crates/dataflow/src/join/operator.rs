//! The join operator: what it is built from, and what a batch does to its own side.

use super::epoch::{KeyLog, RowLog};
use super::predicate::Predicate;
use super::probe::Probe;
use super::settle::Settle;
use super::side::{Grouped, Side, absent, marks};
use super::store::{Weight, read, write};
use super::verdict::{Verdict, by_key, emits_pairs, verdict};
use super::{LIMITS, Limits};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;
use tidegate_plan::join_state::{JoinLayout, JoinRows, join_partition_keys};
use tidegate_plan::{JoinKind, ScalarExpr};
use tidegate_state::Cell;
use tidegate_types::{Barrier, Batch};

/// See the module.
pub struct Join {
    pub(super) kind: JoinKind,
    pub(super) sides: [Side; 2],
    /// What is kept of each side.
    pub(super) rows: [JoinRows; 2],
    /// The table with the number of rows per key of each side, where there is one.
    pub(super) counts: [Option<usize>; 2],
    /// Sides whose rows appear in the output by themselves.
    pub(super) preserved: [bool; 2],
    pub(super) predicate: Option<Predicate>,
    pub(super) schemas: [SchemaRef; 2],
    /// Left columns followed by right columns, for the text of failing pairs.
    pub(super) pair: SchemaRef,
    output: SchemaRef,
    pub(super) row_logs: [RowLog; 2],
    pub(super) key_logs: [KeyLog; 2],
    pub(super) limits: Limits,
    job: Job,
}

/// What is under way.
#[derive(Default)]
enum Job {
    #[default]
    Idle,
    Probe(Box<Probe>),
    Settle(Box<Settle>),
}

impl Join {
    /// The fields of [`tidegate_plan::Op::Join`], the schemas of both inputs and of the output, and whether the inputs
    /// only grow.
    #[expect(clippy::too_many_arguments, reason = "the fields of one operator of the plan, taken apart once")]
    pub fn new(
        kind: JoinKind,
        left_keys: &[usize],
        right_keys: &[usize],
        null_equals_null: bool,
        null_aware: bool,
        residual: Option<&ScalarExpr>,
        left: SchemaRef,
        right: SchemaRef,
        output: SchemaRef,
        _left_append_only: bool,
        _right_append_only: bool,
    ) -> Result<Self, OperatorError> {
        assert_eq!(left_keys.len(), right_keys.len(), "keys come in pairs");
        for (l, r) in left_keys.iter().zip(right_keys) {
            let (l, r) = (left.field(*l).data_type(), right.field(*r).data_type());
            assert_eq!(l, r, "the planner casts the keys of a join to one type");
        }
        let layout = JoinLayout::new(kind, left_keys.len(), null_aware, residual.is_some());
        let fields = left.fields().iter().chain(right.fields()).map(|f| f.as_ref().clone().with_nullable(true));
        let pair = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        let compared = layout.compares.then(|| (left_keys[0], left.fields().len() + right_keys[0]));
        let aware = layout.left == JoinRows::MatchedOrUnknown;
        let left_keys = join_partition_keys(kind, null_aware, left_keys);
        let right_keys = join_partition_keys(kind, null_aware, right_keys);
        Ok(Self {
            kind,
            sides: [
                Side::new(&left, left_keys, layout.left, null_equals_null)?,
                Side::new(&right, right_keys, layout.right, null_equals_null)?,
            ],
            rows: [layout.left, layout.right],
            counts: [
                layout.left_counts,
                layout.right_counts.or((layout.right == JoinRows::KeyCounts).then_some(1)),
            ],
            preserved: [
                !matches!(kind, JoinKind::Inner | JoinKind::Right),
                matches!(kind, JoinKind::Right | JoinKind::Full),
            ],
            predicate: Predicate::new(compared, residual, aware, &pair)?,
            schemas: [left, right],
            pair,
            output,
            row_logs: Default::default(),
            key_logs: Default::default(),
            limits: LIMITS,
            job: Job::Idle,
        })
    }

    /// Whether the number of matches of this side's rows is kept with the rows.
    pub(super) fn tallies(&self, side: usize) -> bool {
        self.rows[side].counters() > 1
    }

    /// Adds a batch to its own side's tables, and to what the epoch has touched.
    pub(super) fn apply(&mut self, from: usize, batch: &Grouped, tally: &[Weight], cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        if self.rows[from] != JoinRows::KeyCounts {
            self.apply_rows(from, batch, tally, cx)?;
        }
        let Some(table) = self.counts[from] else { return Ok(()) };
        let diffs = batch.key_diffs();
        let changed: Vec<u32> = (0..diffs.len() as u32).filter(|k| diffs[*k as usize] != 0).collect();
        let cells: Vec<Cell<'_>> = changed.iter().map(|k| Cell::key(batch.key(*k))).collect();
        let before = read(cx.tables[table].as_ref(), &cells)?;
        let after = |index: usize| Weight::count(before[index].count + diffs[changed[index] as usize]);
        let changes = cells.iter().enumerate().map(|(i, cell)| (*cell, after(i)));
        write(cx.tables[table].as_mut(), 1, changes)?;
        for (index, key) in changed.iter().enumerate() {
            let hash = batch.key_hashes[*key as usize];
            self.key_logs[from].touch(hash, batch.key(*key), before[index].count, after(index).count);
        }
        Ok(())
    }

    fn apply_rows(&mut self, from: usize, batch: &Grouped, tally: &[Weight], cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let rows = batch.num_rows();
        let cells: Vec<Cell<'_>> =
            (0..rows).map(|row| Cell { key: batch.row_key(row), sub: batch.rest(row) }).collect();
        let before = read(cx.tables[from].as_ref(), &cells)?;
        let after = |row: usize| {
            let count = before[row].count + batch.diffs[row];
            tally.get(row).map_or(Weight::count(count), |t| Weight { count, ..*t })
        };
        let changes = cells.iter().enumerate().map(|(row, cell)| (*cell, after(row)));
        write(cx.tables[from].as_mut(), self.rows[from].counters(), changes)?;
        if self.preserved[from] {
            for (row, cell) in cells.iter().enumerate() {
                let hash = batch.key_hashes[batch.key_of[row] as usize];
                self.row_logs[from].touch(hash, cell.key, cell.sub, before[row], after(row));
            }
        }
        Ok(())
    }

    pub(super) fn emit(&self, columns: Vec<ArrayRef>, diffs: Vec<i64>, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let options = RecordBatchOptions::new().with_row_count(Some(diffs.len()));
        let rows = RecordBatch::try_new_with_options(self.output.clone(), columns, &options)?;
        cx.emit(Batch::new(rows, Int64Array::from(diffs)));
        Ok(())
    }

    /// Output columns for rows of one side by themselves. `mark` has the marks, if the output has them.
    pub(super) fn alone(&self, side: usize, mut columns: Vec<ArrayRef>, mark: &[Option<bool>]) -> Vec<ArrayRef> {
        match self.kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti => columns,
            JoinKind::LeftMark => {
                columns.push(Arc::new(marks(mark)));
                columns
            }
            _ if side == 0 => {
                columns.extend(absent(&self.schemas[1], mark.len()));
                columns
            }
            _ => {
                let mut all = absent(&self.schemas[0], mark.len());
                all.extend(columns);
                all
            }
        }
    }

    /// Rows that can match nothing pass through, if a row without matches is in the output.
    fn pass_unmatched(&self, side: usize, batch: &Batch, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let mark = match verdict(self.kind, by_key(0)) {
            Verdict::Shown => None,
            Verdict::Marked(mark) => mark,
            Verdict::Hidden => return Ok(()),
        };
        if self.preserved[side] && !batch.is_empty() {
            let columns = self.alone(side, batch.columns().to_vec(), &vec![mark; batch.num_rows()]);
            self.emit(columns, batch.diff_values(), cx)?;
        }
        Ok(())
    }
}

impl Operator for Join {
    fn on_batch(&mut self, port: Port, batch: Batch, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        assert!(matches!(self.job, Job::Idle), "the driver resumes what is under way first");
        let (batch, unmatched) = self.sides[port].split_nulls(batch)?;
        if let Some(unmatched) = unmatched {
            self.pass_unmatched(port, &unmatched, cx)?;
        }
        let batch = self.sides[port].group(batch)?;
        if batch.num_rows() == 0 {
            return Ok(Progress::Done);
        }
        if emits_pairs(self.kind) || self.predicate.is_some() {
            let probe = self.start_probe(port, batch, cx)?;
            self.job = Job::Probe(Box::new(probe));
            return self.resume(cx);
        }
        self.apply(port, &batch, &[], cx)?;
        Ok(Progress::Done)
    }

    fn on_barrier(&mut self, _barrier: &Barrier, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        assert!(matches!(self.job, Job::Idle), "the driver resumes what is under way first");
        if self.preserved == [false, false] {
            return Ok(Progress::Done);
        }
        self.job = Job::Settle(Box::default());
        self.resume(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        let mut job = std::mem::take(&mut self.job);
        let progress = match &mut job {
            Job::Idle => Progress::Done,
            Job::Probe(probe) => self.go_on_probing(probe, cx)?,
            Job::Settle(settle) => self.go_on_settling(settle, cx)?,
        };
        if progress == Progress::More {
            self.job = job;
        }
        Ok(progress)
    }
}

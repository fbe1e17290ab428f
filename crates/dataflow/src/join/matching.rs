//! Joins that look for matches, and what a batch does to its own side's state.

use super::apply::{add_counts, add_rows};
use super::epoch::{KeyLog, RowLog};
use super::operator::JoinSpec;
use super::output::Output;
use super::predicate::Predicate;
use super::probe::Probe;
use super::replay::Replay;
use super::settle::Settle;
use super::side::{Grouped, Side};
use super::store::Weight;
use super::verdict::emits_pairs;
use super::{LIMITS, Limits};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;
use tidegate_plan::JoinKind;
use tidegate_plan::join_state::{JoinLayout, JoinRows, join_partition_keys};
use tidegate_types::{Barrier, Batch};

/// Every join except a `NOT IN` whose answer follows from the values that are compared.
pub(super) struct Matching {
    pub(super) sides: [Side; 2],
    /// What is kept of each side.
    pub(super) rows: [JoinRows; 2],
    /// The table with the number of rows per key of each side, where there is one.
    pub(super) counts: [Option<usize>; 2],
    /// Sides whose rows appear in the output by themselves.
    pub(super) preserved: [bool; 2],
    pub(super) predicate: Option<Predicate>,
    /// Left columns followed by right columns, for the text of failing pairs.
    pub(super) pair: SchemaRef,
    pub(super) output: Output,
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
    Replay(Box<Replay>),
}

impl Matching {
    pub fn new(
        spec: &JoinSpec<'_>,
        layout: JoinLayout,
        output: Output,
    ) -> Result<Self, OperatorError> {
        let [left, right] = &output.schemas;
        let fields = left
            .fields()
            .iter()
            .chain(right.fields())
            .map(|f| f.as_ref().clone().with_nullable(true));
        let pair = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        let compared = layout
            .compares
            .then(|| (spec.left_keys[0], left.fields().len() + spec.right_keys[0]));
        let aware = layout.left == JoinRows::MatchedOrUnknown;
        let keys = [spec.left_keys, spec.right_keys]
            .map(|k| join_partition_keys(output.kind, spec.null_aware, k));
        Ok(Self {
            sides: [
                Side::new(left, keys[0], layout.left, None, spec.null_equals_null)?,
                Side::new(right, keys[1], layout.right, None, spec.null_equals_null)?,
            ],
            rows: [layout.left, layout.right],
            counts: [
                layout.left_counts,
                layout
                    .right_counts
                    .or((layout.right == JoinRows::KeyCounts).then_some(1)),
            ],
            preserved: [
                !matches!(output.kind, JoinKind::Inner | JoinKind::Right),
                matches!(output.kind, JoinKind::Right | JoinKind::Full),
            ],
            predicate: Predicate::new(compared, spec.residual, aware, &pair)?,
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
    pub(super) fn apply(
        &mut self,
        from: usize,
        batch: &Grouped,
        tally: &[Weight],
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        if self.rows[from] != JoinRows::KeyCounts {
            let log = self.preserved[from].then_some(&mut self.row_logs[from]);
            add_rows(
                cx.tables[from].as_mut(),
                self.rows[from].counters(),
                batch,
                tally,
                log,
            )?;
        }
        if let Some(table) = self.counts[from] {
            add_counts(cx.tables[table].as_mut(), batch, &mut self.key_logs[from])?;
        }
        Ok(())
    }
}

impl Operator for Matching {
    fn on_batch(
        &mut self,
        port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        assert!(
            matches!(self.job, Job::Idle),
            "the driver resumes what is under way first"
        );
        let (batch, unmatched) = self.sides[port].split_nulls(batch)?;
        if let Some(unmatched) = unmatched.filter(|_| self.preserved[port]) {
            self.output.pass_unmatched(port, &unmatched, cx)?;
        }
        let batch = self.sides[port].group(batch)?;
        if batch.num_rows() == 0 {
            return Ok(Progress::Done);
        }
        if emits_pairs(self.output.kind) || self.predicate.is_some() {
            let probe = self.start_probe(port, batch, cx)?;
            self.job = Job::Probe(Box::new(probe));
            return self.resume(cx);
        }
        self.apply(port, &batch, &[], cx)?;
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        _barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        assert!(
            matches!(self.job, Job::Idle),
            "the driver resumes what is under way first"
        );
        let touched = self.row_logs.iter().any(|l| !l.is_empty())
            || self.key_logs.iter().any(|l| !l.is_empty());
        if !touched {
            return Ok(Progress::Done);
        }
        self.job = Job::Settle(Box::default());
        self.resume(cx)
    }

    fn replay(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        if matches!(self.job, Job::Idle) {
            self.job = Job::Replay(Box::new(Replay::new(cx)?));
        }
        self.resume(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        let mut job = std::mem::take(&mut self.job);
        let progress = match &mut job {
            Job::Idle => Progress::Done,
            Job::Probe(probe) => self.go_on_probing(probe, cx)?,
            Job::Settle(settle) => self.go_on_settling(settle, cx)?,
            Job::Replay(replay) => self.go_on_replaying(replay, cx)?,
        };
        if progress == Progress::More {
            self.job = job;
        }
        Ok(progress)
    }
}

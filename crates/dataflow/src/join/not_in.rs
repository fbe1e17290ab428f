//! `NOT IN` without a residual, and the mark of such an `IN`: answered from counts alone.
//!
//! A left row with the compared value `k` in partition `p` (the other key columns; everything is in one partition without
//! them) has `m = R(p, k)` matches and `u = R(p, NULL)` right rows for which the answer is unknown; when `k` is NULL, `m = 0`
//! and `u = |R(p)|`. Its verdict follows from whether these are zero:
//!
//! ```text
//! Δout = Σ L₁(l)·v₁(l) − L₀(l)·v₀(l)   over l in ΔL, and over all l of a (p, k) whose verdict changes
//! ```
//!
//! Tables: `left` p → k, rest → count; `right` p → k → count; `right_counts` p → count. Rows are looked at only at the
//! barrier: those that were touched, those of a touched `k` whose verdict changes, and all of a partition when its
//! first NULL comes or its last one goes.

use super::apply::{add_counts, add_rows};
use super::epoch::{KeyLog, RowLog};
use super::operator::JoinSpec;
use super::output::{Lone, Output};
use super::side::Side;
use super::store::{Page, Stretch, Weight, read};
use super::verdict::{Verdict, verdict};
use super::{LIMITS, Limits};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::new_null_array;
use arrow::row::Rows;
use std::collections::VecDeque;
use std::ops::Bound;
use tidegate_plan::join_state::{JoinLayout, join_partition_keys};
use tidegate_state::Cell;
use tidegate_types::{Barrier, Batch, RowCodec, hash_key};

const LEFT: usize = 0;
const RIGHT: usize = 1;
const RIGHT_COUNTS: usize = 2;

pub(super) struct NotIn {
    sides: [Side; 2],
    compared: RowCodec,
    /// A compared value that is NULL.
    null: Vec<u8>,
    output: Output,
    /// Touched left rows; touched compared values of the right; touched partitions of the right.
    rows: RowLog,
    values: RowLog,
    totals: KeyLog,
    pub limits: Limits,
    job: Option<Box<Settle>>,
}

/// Where the work of a barrier stands.
struct Settle {
    /// The next row of the log.
    row: usize,
    /// The next touched value, and the next touched partition, that may lead to a stretch.
    value: usize,
    total: usize,
    stretches: VecDeque<Stretch>,
    output: Lone,
}

impl NotIn {
    pub fn new(
        spec: &JoinSpec<'_>,
        layout: JoinLayout,
        output: Output,
    ) -> Result<Self, OperatorError> {
        let [left, right] = &output.schemas;
        let keys = [spec.left_keys, spec.right_keys]
            .map(|k| join_partition_keys(output.kind, spec.null_aware, k));
        let (left_first, right_first) = (spec.left_keys[0], spec.right_keys[0]);
        let compared_type = left.field(left_first).data_type().clone();
        let compared = RowCodec::new(std::slice::from_ref(&compared_type))?;
        let null = compared
            .encode(&[new_null_array(&compared_type, 1)])?
            .row(0)
            .data()
            .to_vec();
        Ok(Self {
            sides: [
                Side::new(
                    left,
                    keys[0],
                    layout.left,
                    Some(left_first),
                    spec.null_equals_null,
                )?,
                Side::new(
                    right,
                    keys[1],
                    layout.right,
                    Some(right_first),
                    spec.null_equals_null,
                )?,
            ],
            compared,
            null,
            output,
            rows: RowLog::default(),
            values: RowLog::default(),
            totals: KeyLog::default(),
            limits: LIMITS,
            job: None,
        })
    }

    /// The encoded compared values of left rows.
    fn compared_values<'a>(
        &self,
        rests: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Rows, OperatorError> {
        let columns = self.sides[LEFT].decode_rests(rests)?;
        Ok(self.compared.encode(&columns[..1])?)
    }

    /// The verdicts before and after on left rows with these partitions and compared values.
    fn verdicts(
        &self,
        of: &[(&[u8], &[u8])],
        cx: &Cx<'_>,
    ) -> Result<Vec<(Verdict, Verdict)>, OperatorError> {
        let mut weights = vec![(Weight::default(), Weight::default()); of.len()];
        let (mut cells, mut missing) = (Vec::new(), Vec::new());
        // Neighbours mostly share their partition.
        let mut last: Option<(&[u8], bool, (i64, i64))> = None;
        for (index, (partition, value)) in of.iter().enumerate() {
            let is_null = *value == self.null.as_slice();
            let hash = hash_key(partition);
            let unknowns = match last {
                Some((p, n, unknowns)) if p == *partition && n == is_null => unknowns,
                _ => self.unknowns(hash, partition, is_null, cx)?,
            };
            last = Some((partition, is_null, unknowns));
            (weights[index].0.unknowns, weights[index].1.unknowns) = unknowns;
            if is_null {
                continue;
            }
            match self.values.find(hash, partition, value) {
                Some((before, after)) => {
                    (weights[index].0.matches, weights[index].1.matches) =
                        (before.count, after.count);
                }
                None => {
                    cells.push(Cell {
                        key: partition,
                        sub: value,
                    });
                    missing.push(index);
                }
            }
        }
        let found = read(cx.tables[RIGHT].as_ref(), &cells)?;
        for (index, weight) in missing.into_iter().zip(found) {
            (weights[index].0.matches, weights[index].1.matches) = (weight.count, weight.count);
        }
        let decide = |weight| verdict(self.output.kind, weight);
        Ok(weights
            .into_iter()
            .map(|(before, after)| (decide(before), decide(after)))
            .collect())
    }

    /// How many right rows leave the answer open, before and now: all of them for a NULL, those with NULL for others.
    fn unknowns(
        &self,
        hash: u64,
        partition: &[u8],
        is_null: bool,
        cx: &Cx<'_>,
    ) -> Result<(i64, i64), OperatorError> {
        let touched = match is_null {
            true => self.totals.find(hash, partition),
            false => self
                .values
                .find(hash, partition, &self.null)
                .map(|(b, a)| (b.count, a.count)),
        };
        if let Some(counts) = touched {
            return Ok(counts);
        }
        let cell = if is_null {
            Cell::key(partition)
        } else {
            Cell {
                key: partition,
                sub: &self.null,
            }
        };
        let table = if is_null { RIGHT_COUNTS } else { RIGHT };
        let count = read(cx.tables[table].as_ref(), &[cell])?[0].count;
        Ok((count, count))
    }

    fn settle(&self, settle: &mut Settle, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        while settle.row < self.rows.len() {
            let rows = settle.row..self.rows.len().min(settle.row + self.limits.keys_per_step);
            settle.row = rows.end;
            let values = self.compared_values(rows.clone().map(|r| self.rows.rest(r)))?;
            let of: Vec<_> = rows
                .clone()
                .zip(&values)
                .map(|(r, v)| (self.rows.key(r), v.data()))
                .collect();
            for (row, (old, new)) in rows.zip(self.verdicts(&of, cx)?) {
                let (before, after) = self.rows.weights(row);
                let (key, rest) = (self.rows.key(row), self.rows.rest(row));
                settle
                    .output
                    .change(key, rest, (old, before.count), (new, after.count));
            }
            if self.flush_full(settle, cx)? {
                return Ok(Progress::More);
            }
        }
        while self.next_stretches(settle, cx)? {
            while let Some(stretch) = settle.stretches.pop_front() {
                self.settle_stretch(stretch, settle, cx)?;
                if self.flush_full(settle, cx)? {
                    return Ok(Progress::More);
                }
            }
        }
        self.output
            .flush(LEFT, &self.sides[LEFT], &mut settle.output, cx)?;
        Ok(Progress::Done)
    }

    /// The untouched rows of a stretch.
    fn settle_stretch(
        &self,
        stretch: Stretch,
        settle: &mut Settle,
        cx: &Cx<'_>,
    ) -> Result<(), OperatorError> {
        let partition = stretch.key.clone();
        let (page, more) =
            Page::load_stretch(cx.tables[LEFT].as_ref(), stretch, self.limits.keys_per_step)?;
        if let Some(more) = more {
            settle.stretches.push_front(more);
        }
        if page.len() == 0 {
            return Ok(());
        }
        let hash = hash_key(&partition);
        let values = self.compared_values(page.rests.iter())?;
        let of: Vec<_> = values
            .iter()
            .map(|v| (partition.as_slice(), v.data()))
            .collect();
        for (row, (old, new)) in self.verdicts(&of, cx)?.into_iter().enumerate() {
            let (rest, count) = (page.rests.get(row), page.weights[row].count);
            if old != new && self.rows.find(hash, &partition, rest).is_none() {
                settle
                    .output
                    .change(&partition, rest, (old, count), (new, count));
            }
        }
        Ok(())
    }

    /// Looks for stretches of left rows whose verdict changes; false when there are none left.
    fn next_stretches(&self, settle: &mut Settle, cx: &Cx<'_>) -> Result<bool, OperatorError> {
        while settle.stretches.is_empty() && settle.value < self.values.len() {
            let touched = settle.value
                ..self
                    .values
                    .len()
                    .min(settle.value + self.limits.keys_per_step);
            settle.value = touched.end;
            let of: Vec<_> = touched
                .clone()
                .map(|v| (self.values.key(v), self.values.rest(v)))
                .collect();
            for (value, (old, new)) in touched.zip(self.verdicts(&of, cx)?) {
                let (partition, k) = (self.values.key(value), self.values.rest(value));
                if k == self.null.as_slice() {
                    // Rows with other values: all of the partition, if its first NULL came or its last one went.
                    let (before, after) = self.values.weights(value);
                    if (before.count > 0) != (after.count > 0) {
                        settle.stretches.push_back(whole(partition));
                    }
                } else if old != new && !self.nulls_flip(partition) {
                    settle.stretches.push_back(starting_with(partition, k));
                }
            }
        }
        while settle.stretches.is_empty() && settle.total < self.totals.len() {
            let (partition, (before, after)) = (
                self.totals.key(settle.total),
                self.totals.counts(settle.total),
            );
            settle.total += 1;
            if (before > 0) != (after > 0) && !self.nulls_flip(partition) {
                settle
                    .stretches
                    .push_back(starting_with(partition, &self.null));
            }
        }
        Ok(!settle.stretches.is_empty())
    }

    /// Whether all of the partition is visited anyway.
    fn nulls_flip(&self, partition: &[u8]) -> bool {
        let nulls = self.values.find(hash_key(partition), partition, &self.null);
        nulls.is_some_and(|(before, after)| (before.count > 0) != (after.count > 0))
    }

    fn flush_full(&self, settle: &mut Settle, cx: &mut Cx<'_>) -> Result<bool, OperatorError> {
        if settle.output.len() < self.limits.full_rows() {
            return Ok(false);
        }
        self.output
            .flush(LEFT, &self.sides[LEFT], &mut settle.output, cx)?;
        Ok(cx.exhausted())
    }
}

fn whole(partition: &[u8]) -> Stretch {
    Stretch {
        key: partition.to_vec(),
        low: Bound::Unbounded,
        high: None,
    }
}

/// The rows whose sub-key starts with this value. Encodings are prefix-free, so no other value's rows are among them.
fn starting_with(partition: &[u8], value: &[u8]) -> Stretch {
    let last = value.iter().rposition(|byte| *byte < u8::MAX);
    let high = last.map(|last| {
        let mut next = value[..=last].to_vec();
        next[last] += 1;
        next
    });
    Stretch {
        key: partition.to_vec(),
        low: Bound::Included(value.to_vec()),
        high,
    }
}

impl Operator for NotIn {
    fn on_batch(
        &mut self,
        port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        let (batch, unmatched) = self.sides[port].split_nulls(batch)?;
        if let Some(unmatched) = unmatched.filter(|_| port == LEFT) {
            self.output.pass_unmatched(port, &unmatched, cx)?;
        }
        let batch = self.sides[port].group(batch)?;
        if batch.num_rows() == 0 {
            return Ok(Progress::Done);
        }
        if port == LEFT {
            add_rows(
                cx.tables[LEFT].as_mut(),
                1,
                &batch,
                &[],
                Some(&mut self.rows),
            )?;
        } else {
            add_rows(
                cx.tables[RIGHT].as_mut(),
                1,
                &batch,
                &[],
                Some(&mut self.values),
            )?;
            add_counts(cx.tables[RIGHT_COUNTS].as_mut(), &batch, &mut self.totals)?;
        }
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        _barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        if self.rows.is_empty() && self.values.is_empty() {
            return Ok(Progress::Done);
        }
        let (stretches, output) = (VecDeque::new(), Lone::default());
        self.job = Some(Box::new(Settle {
            row: 0,
            value: 0,
            total: 0,
            stretches,
            output,
        }));
        self.resume(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        let Some(mut settle) = self.job.take() else {
            return Ok(Progress::Done);
        };
        let progress = self.settle(&mut settle, cx)?;
        if progress == Progress::More {
            self.job = Some(settle);
        } else {
            self.rows = RowLog::default();
            self.values = RowLog::default();
            self.totals = KeyLog::default();
        }
        Ok(progress)
    }
}

//! Window functions: `Δout = −calls(old partition) + calls(new partition)` over the touched partitions.
//!
//! State: `rows`, map form: partition → order columns ‖ other columns → count ([`crate::ordered_rows`]).
//!
//! A touched partition is evaluated as it was and as it is, by DataFusion's own evaluators over its rows in order, and what is
//! the same in both does not come out. Nothing of the results is kept. Ties follow the encoding of the remaining columns, so
//! that results repeat. A partition for which a call fails (a sum that does not fit) is an error in place of its rows.
//!
//! Cost: the size of each touched partition, per epoch.

use crate::count_table::CountLists;
use crate::groups::KeyChunk;
use crate::numbering::Numbered;
use crate::ordered_rows::{FirstRows, Kept, OrderedRows};
use crate::row_failure::{is_data_error, row_error};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::Rows;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_planner::create_window_expr;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use tidegate_plan::{ScalarExpr, SortKey};
use tidegate_types::{Barrier, Batch, ByteRows, Diff, RowCodec};

/// Partitions that are brought up to date at a time. They may be large.
const CHUNK_PARTITIONS: usize = 128;

pub struct WindowFunctions {
    rows: OrderedRows,
    schema: SchemaRef,
    calls: Vec<Arc<dyn WindowExpr>>,
    /// Of results.
    codec: RowCodec,
    /// The next partition to bring up to date, and how many there are in the epoch.
    next: usize,
    groups: usize,
}

/// Partitions end to end, every copy of a row by itself, with the results.
struct Evaluated {
    rows: RecordBatch,
    subs: ByteRows,
    results: Rows,
    /// Where each partition's rows are. None: a call failed.
    spans: Vec<Range<usize>>,
}

impl WindowFunctions {
    pub fn new(
        (partition, order, calls): (&[usize], &[SortKey], &[ScalarExpr]),
        input: &Schema,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let width = input.fields().len();
        let positional = ScalarExpr::positional_schema(input);
        let context = PhysicalPlanningContext::default();
        let compiled = calls
            .iter()
            .map(|call| {
                create_window_expr(call.expr(), &positional, &ExecutionProps::new(), &context)
            })
            .collect::<Result<Vec<_>, DataFusionError>>()?;
        let results: Vec<_> = schema.fields()[width..]
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        let stored: Vec<usize> = (0..width).collect();
        Ok(Self {
            rows: OrderedRows::new(
                partition,
                order,
                input,
                Arc::new(schema.project(&stored)?),
                Numbered::first(u64::MAX),
                Kept::All,
            )?,
            schema,
            calls: compiled,
            codec: RowCodec::new(&results)?,
            next: 0,
            groups: 0,
        })
    }

    fn merge(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        while self.next < self.groups {
            if cx.exhausted() {
                return Ok(Progress::More);
            }
            let range = self.next..(self.next + CHUNK_PARTITIONS).min(self.groups);
            self.next = range.end;
            let FirstRows {
                keys,
                before,
                after,
            } = self.rows.apply(range, cx)?;
            let old = self.evaluate(&keys, &before, -1, cx)?;
            let new = self.evaluate(&keys, &after, 1, cx)?;
            self.emit(&old, &new, cx)?;
        }
        self.rows.clear();
        (self.next, self.groups) = (0, 0);
        Ok(Progress::Done)
    }

    /// The rows of these partitions with their results. A partition that fails gives an error with this diff, and no rows.
    fn evaluate(
        &self,
        keys: &KeyChunk,
        lists: &CountLists,
        diff: Diff,
        cx: &mut Cx<'_>,
    ) -> Result<Evaluated, OperatorError> {
        let (mut of_key, mut subs, mut spans) = (Vec::new(), ByteRows::new(), Vec::new());
        for index in 0..keys.keys.len() {
            let start = of_key.len();
            for (sub, count) in lists.group(index) {
                for _ in 0..count {
                    of_key.push(index as u32);
                    subs.push(sub);
                }
            }
            spans.push(start..of_key.len());
        }
        let ones = vec![1; of_key.len()];
        let input = self.rows.rows(keys, of_key, &subs, ones)?;
        let width = input.columns().len();
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.calls.len()];
        let mut place = 0;
        let mut kept: Vec<u32> = Vec::new();
        for span in &mut spans {
            let partition = input.rows().slice(span.start, span.len());
            match self.results(&partition, width) {
                Ok(results) => {
                    pieces
                        .iter_mut()
                        .zip(results)
                        .for_each(|(piece, result)| piece.push(result));
                    kept.extend(span.start as u32..span.end as u32);
                    *span = place..place + span.len();
                }
                Err(error) if is_data_error(&error) => {
                    cx.fail_row(row_error(&error, &partition, 0, diff));
                    *span = place..place;
                }
                Err(error) => return Err(error.into()),
            }
            place = span.end;
        }
        let (mut input, mut subs) = (input, subs);
        if kept.len() < subs.len() {
            subs = kept.iter().map(|row| subs.get(*row as usize)).collect();
            input = input.take(&UInt32Array::from(kept))?;
        }
        let mut columns = input.columns().to_vec();
        for (piece, field) in pieces.iter().zip(&self.schema.fields()[width..]) {
            let arrays: Vec<&dyn arrow::array::Array> = piece.iter().map(|a| a.as_ref()).collect();
            columns.push(match arrays.is_empty() {
                true => arrow::array::new_empty_array(field.data_type()),
                false => concat(&arrays)?,
            });
        }
        let results = self.codec.encode(&columns[width..])?;
        Ok(Evaluated {
            rows: RecordBatch::try_new(self.schema.clone(), columns)?,
            subs,
            results,
            spans,
        })
    }

    /// The results of all calls over one partition.
    fn results(
        &self,
        partition: &RecordBatch,
        width: usize,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let types = self.schema.fields()[width..].iter().map(|f| f.data_type());
        if partition.num_rows() == 0 {
            return Ok(types.map(arrow::array::new_empty_array).collect());
        }
        self.calls
            .iter()
            .zip(types)
            .map(|(call, wanted)| {
                let result = call.evaluate(partition)?;
                match result.data_type() == wanted {
                    true => Ok(result),
                    false => Ok(cast(&result, wanted)?),
                }
            })
            .collect()
    }

    fn emit(&self, old: &Evaluated, new: &Evaluated, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let (mut gone, mut come): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for (before, after) in old.spans.iter().zip(&new.spans) {
            let (before, after) = (old.ordered(before.clone()), new.ordered(after.clone()));
            let (mut left, mut right) = (before.iter().peekable(), after.iter().peekable());
            loop {
                let order = match (left.peek(), right.peek()) {
                    (Some(l), Some(r)) => old.row(**l).cmp(&new.row(**r)),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (None, None) => break,
                };
                if order.is_le() {
                    gone.extend(left.next().filter(|_| order.is_lt()));
                }
                if order.is_ge() {
                    come.extend(right.next().filter(|_| order.is_gt()));
                }
            }
        }
        cx.emit(
            Batch::insert(old.rows.clone())
                .take(&UInt32Array::from(gone))?
                .negated(),
        );
        cx.emit(Batch::insert(new.rows.clone()).take(&UInt32Array::from(come))?);
        Ok(())
    }
}

impl Evaluated {
    fn row(&self, index: u32) -> (&[u8], &[u8]) {
        let index = index as usize;
        (self.subs.get(index), self.results.row(index).data())
    }

    /// The rows of a partition by their bytes and then their results: copies of a row may differ in these.
    fn ordered(&self, span: Range<usize>) -> Vec<u32> {
        let mut rows: Vec<u32> = (span.start as u32..span.end as u32).collect();
        rows.sort_by(|a, b| self.row(*a).cmp(&self.row(*b)));
        rows
    }
}

impl Operator for WindowFunctions {
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
        _barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.groups = self.rows.sort();
        self.merge(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        self.merge(cx)
    }
}

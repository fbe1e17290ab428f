//! Window functions: `Δout = −calls(old rows) + calls(new rows)` over the rows that feel a change.
//!
//! State: `rows`, map form: partition → order columns ‖ other columns → count ([`crate::ordered_rows`]); and `anchors`, from
//! which calls whose frames begin with the partition go on ([`anchors`]). Of results nothing is kept: the touched rows are
//! evaluated as they were and as they are, and what is the same in both does not come out.
//!
//! What is read and computed for a change follows from the frames ([`reach`]):
//!
//! | frame | rows computed | rows read |
//! |---|---|---|
//! | a rows (groups, values) back to b ahead | those within b before and a behind the change | as far again on both sides |
//! | `lag`, `lead` by n | n on one side | 2 n |
//! | from the beginning to the current row or some way ahead: `count`, `sum`, `avg`, `min`, `max`, `bool_*`, `bit_*`, `first_value`, `last_value`, `nth_value`, `row_number`, `rank`, `dense_rank` | all behind the change | these, and back to the last anchor in front of it |
//! | the same of other aggregates, with `EXCLUDE`, or to a row before the current one; `lag` with `IGNORE NULLS` | all behind the change | the partition |
//! | from some row to the end; `lead` with `IGNORE NULLS` | all in front of the change | the partition |
//! | the whole partition; `ntile`, `percent_rank`, `cume_dist` | the partition | the partition |
//!
//! The calls of a node share what is read, so the furthest decides. Per row computed a frame costs nothing where an aggregate
//! can take values back exactly (`count`, `sum`, `avg`; `min` and `max` as they slide), and its length where not ([`call`]).
//!
//! Ties follow the encoding of the remaining columns, so that results repeat. A row for which a call fails (a sum that does
//! not fit) is an error in place of the row.

mod anchors;
mod call;
mod evaluate;
mod frame;
mod reach;
mod running;
mod slices;

use crate::groups::KeyChunk;
use crate::numbering::Numbered;
use crate::ordered_rows::{Kept, OrderedRows, sort_columns};
use crate::row_failure::row_error;
use crate::{Cx, Operator, OperatorError, Port, Progress};
use anchors::Anchors;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, cast, concat};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::Rows;
use call::Call;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use evaluate::{Results, Slice};
use frame::Peers;
use reach::{ChangedRow, Edge, Extent, Order, Reach, Walker};
use slices::{SlicePair, SliceRows, Slices, Version};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use tidegate_plan::state_tables::top_n_columns;
use tidegate_plan::{Ranking, ScalarExpr, SortKey};
use tidegate_state::{Cell, Change};
use tidegate_types::{Barrier, Batch, ByteRows, Diff, RowCodec};

/// Partitions that are brought up to date at a time.
const CHUNK_PARTITIONS: usize = 1024;

/// Rows that are evaluated together, unless one slice has more.
const CHUNK_ROWS: usize = 1 << 16;

pub struct WindowFunctions {
    rows: OrderedRows,
    schema: SchemaRef,
    calls: Vec<Call>,
    order: Order,
    /// The first column of the order.
    order_column: Option<usize>,
    anchors: Option<Anchors>,
    /// Of results.
    codec: RowCodec,
    /// The next partition to bring up to date, and how many there are in the epoch.
    next: usize,
    groups: usize,
}

/// The touched rows of slices end to end, with their results.
struct Evaluated {
    rows: RecordBatch,
    subs: ByteRows,
    results: Rows,
    /// Where each slice's touched rows are; without those that failed.
    spans: Vec<Range<usize>>,
    /// Of each slice the anchors: place of the row among all rows of the slices, and states.
    anchors: Vec<Vec<(usize, Vec<u8>)>>,
}

impl WindowFunctions {
    pub fn new(
        (partition, order, calls): (&[usize], &[SortKey], &[ScalarExpr]),
        input: &Schema,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        Self::with_calls((partition, order), input, schema, |written, results| {
            let calls = calls.iter().zip(results);
            calls
                .map(|(call, output)| Call::new(call, input, written, output.clone()))
                .collect()
        })
    }

    /// The numbers of all rows as a last column: a top-n of all rows.
    pub fn ranking(
        (partition, order, ranking): (&[usize], &[SortKey], Ranking),
        input: &Schema,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        Self::with_calls((partition, order), input, schema, |_, results| {
            Ok(vec![Call::ranking(ranking, results[0].clone())?])
        })
    }

    fn with_calls(
        (partition, order): (&[usize], &[SortKey]),
        input: &Schema,
        schema: SchemaRef,
        calls: impl FnOnce(&[SortOptions], &[DataType]) -> Result<Vec<Call>, OperatorError>,
    ) -> Result<Self, OperatorError> {
        let width = input.fields().len();
        let sub = top_n_columns(partition, order, width);
        let ordered: Vec<SortKey> = sub
            .iter()
            .take_while(|key| order.iter().any(|k| k.column == key.column))
            .copied()
            .collect();
        let columns = sort_columns(&ordered, input);
        // A frame of values looks at the order as it is written, even where it is the same in the whole partition.
        let written: Vec<_> = sort_columns(order, input).iter().map(|(_, o)| *o).collect();
        let results: Vec<DataType> = schema.fields()[width..]
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        let calls = calls(&written, &results)?;
        let positional = ScalarExpr::positional_schema(input);
        let arguments = calls
            .iter()
            .map(|call| match call.arguments.first() {
                Some(argument) => Ok(Some(argument.data_type(positional.as_arrow())?)),
                None => Ok(None),
            })
            .collect::<Result<Vec<_>, DataFusionError>>()?;
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
            anchors: Anchors::new(&calls, &arguments)?,
            schema,
            calls,
            order: Order::new(&columns)?,
            order_column: order.first().map(|key| key.column),
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
            self.merge_chunk(range, cx)?;
        }
        self.rows.clear();
        (self.next, self.groups) = (0, 0);
        Ok(Progress::Done)
    }

    fn merge_chunk(&mut self, range: Range<usize>, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let (keys, counts) = self.rows.write(range.clone(), cx.tables[0].as_mut())?;
        let mut slices = Slices::default();
        for index in 0..range.len() {
            let changes: Vec<ChangedRow<'_>> = self
                .rows
                .changed(&range, index, &counts)
                .map(|(row, old, new)| ChangedRow {
                    row,
                    old: old.max(0),
                    new: new.max(0),
                })
                .filter(|change| change.old != change.new)
                .collect();
            if changes.is_empty() {
                continue;
            }
            self.read(&mut slices, (index, keys.keys.get(index)), &changes, cx)?;
            if slices.rows() >= CHUNK_ROWS {
                self.flush(&keys, &std::mem::take(&mut slices), cx)?;
            }
        }
        self.flush(&keys, &slices, cx)
    }

    /// Reads what has to be looked at for the changes of one partition.
    fn read(
        &self,
        slices: &mut Slices,
        (index, key): (usize, &[u8]),
        changes: &[ChangedRow<'_>],
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        let (rows, rest) = cx.tables.split_at_mut(1);
        let (rows, anchor_table) = (rows[0].as_ref(), rest[0].as_mut());
        let walker = Walker {
            order: &self.order,
            table: rows,
            key,
            changes,
        };
        let reaches: Vec<&Reach> = self.calls.iter().map(|c| &c.reach).collect();
        // Running calls see what is in front of an anchor by its states.
        let anchored = self.anchors.is_some();
        let back: Vec<&Extent> = self
            .calls
            .iter()
            .filter(|call| !(anchored && call.is_running()))
            .map(|call| &call.reach.back)
            .collect();
        let ahead: Vec<&Extent> = reaches.iter().map(|r| &r.ahead).collect();
        for touched in walker.touched(&reaches)? {
            let mut seen = walker.seen(&touched, &back, &ahead)?;
            let mut state = None;
            if let Some(anchors) = &self.anchors {
                let found = anchors.find(anchor_table, key, &seen)?;
                let (first, states) = found.unzip();
                seen.first = first.map_or(Edge::Open, Edge::Row);
                state = states;
            }
            slices.add((index, key), rows, changes, (&seen, &touched), state)?;
        }
        if let Some(anchors) = &self.anchors {
            anchors.remove_behind(anchor_table, key, changes[0].row)?;
        }
        Ok(())
    }

    fn flush(
        &self,
        keys: &KeyChunk,
        slices: &Slices,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        if slices.slices.is_empty() {
            return Ok(());
        }
        let old = self.evaluate(keys, slices, &slices.old, -1, cx)?;
        let new = self.evaluate(keys, slices, &slices.new, 1, cx)?;
        for (slice, anchors) in slices.slices.iter().zip(&new.anchors) {
            let key = keys.keys.get(slice.key);
            let changes: Vec<Change<'_>> = anchors
                .iter()
                .map(|(row, states)| Change {
                    cell: Cell {
                        key,
                        sub: slices.new.subs.get(*row),
                    },
                    value: Some(states),
                })
                .collect();
            cx.tables[1].write_many(&changes)?;
        }
        emit(&old, &new, cx)
    }

    /// The touched rows of slices with their results. A row that fails gives an error with this diff instead.
    fn evaluate(
        &self,
        keys: &KeyChunk,
        slices: &Slices,
        rows: &SliceRows,
        diff: Diff,
        cx: &mut Cx<'_>,
    ) -> Result<Evaluated, OperatorError> {
        let ones = vec![1; rows.subs.len()];
        let input = self
            .rows
            .rows(keys, rows.of_key.clone(), &rows.subs, ones)?;
        let input = input.rows();
        let columns = CallColumns::new(&self.calls, input)?;
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.calls.len()];
        let (mut kept, mut spans, mut anchors) = (Vec::new(), Vec::new(), Vec::new());
        // Places among the touched rows of all slices, for what is kept of the results.
        let (mut touched_rows, mut kept_results): (usize, Vec<u32>) = (0, Vec::new());
        for slice in &slices.slices {
            let version = if diff < 0 { &slice.old } else { &slice.new };
            let outcome = self.slice_results(slice, version, rows, input, &columns, diff > 0)?;
            let mut failed: Vec<Option<&DataFusionError>> = vec![None; version.touched.len()];
            for (place, error) in outcome.results.iter().flat_map(|r| &r.failures) {
                failed[*place].get_or_insert(error);
            }
            let start = kept.len();
            for (place, row) in version.touched.clone().enumerate() {
                match failed[place] {
                    Some(error) => cx.fail_row(row_error(error, input, row, diff)),
                    None => {
                        kept.push(row as u32);
                        kept_results.push((touched_rows + place) as u32);
                    }
                }
            }
            spans.push(start..kept.len());
            touched_rows += version.touched.len();
            for (piece, result) in pieces.iter_mut().zip(outcome.results) {
                piece.push(result.values);
            }
            anchors.push(outcome.anchors);
        }
        let subs = kept.iter().map(|r| rows.subs.get(*r as usize)).collect();
        let input = arrow::compute::take_record_batch(input, &UInt32Array::from(kept))?;
        let mut columns = input.columns().to_vec();
        let kept_results = UInt32Array::from(kept_results);
        for piece in &pieces {
            let arrays: Vec<&dyn Array> = piece.iter().map(|a| a.as_ref()).collect();
            let all = concat(&arrays)?;
            columns.push(match kept_results.len() == all.len() {
                true => all,
                false => arrow::compute::take(&all, &kept_results, None)?,
            });
        }
        let results = self.codec.encode(&columns[input.num_columns()..])?;
        Ok(Evaluated {
            rows: RecordBatch::try_new(self.schema.clone(), columns)?,
            subs,
            results,
            spans,
            anchors,
        })
    }

    /// The results of all calls over one slice, and the anchors in it if they are wanted.
    fn slice_results(
        &self,
        slice: &SlicePair,
        version: &Version,
        rows: &SliceRows,
        input: &RecordBatch,
        columns: &CallColumns,
        wants_anchors: bool,
    ) -> Result<SliceOutcome, OperatorError> {
        let span = version.rows.clone();
        let subs = span.clone().map(|row| rows.subs.get(row));
        let peers = Peers::of(subs, &self.order.prefix);
        let wanted = match &self.anchors {
            Some(anchors) if wants_anchors => anchors.rows(&peers),
            _ => Vec::new(),
        };
        let states = match (&self.anchors, &slice.state) {
            (Some(anchors), Some(states)) => Some(anchors.decode(states)?),
            _ => None,
        };
        let part = |column: &ArrayRef| column.slice(span.start, span.len());
        let mut results: Vec<Results> = Vec::with_capacity(self.calls.len());
        for (index, call) in self.calls.iter().enumerate() {
            let by_value = call.frame.by_value();
            let order = self.order_column.filter(|_| by_value);
            let slice = Slice {
                peers: &peers,
                touched: version.touched.start - span.start..version.touched.end - span.start,
                order: order.map(|column| part(input.column(column))),
                arguments: columns.arguments[index].iter().map(part).collect(),
                filter: columns.filters[index]
                    .as_ref()
                    .map(|f| part(f).as_boolean().clone()),
                state: states.as_ref().map(|states| states[index].clone()),
                anchors: if call.is_running() { &wanted } else { &[] },
            };
            let result = match span.is_empty() {
                true => Results::none(&call.output),
                false => evaluate::evaluate(call, &slice)?,
            };
            results.push(result);
        }
        let mut found = Vec::new();
        if let Some(anchors) = &self.anchors {
            for (place, row) in wanted.iter().enumerate() {
                let states: Vec<Option<Vec<ScalarValue>>> = results
                    .iter_mut()
                    .map(|r| r.states.get_mut(place).and_then(Option::take))
                    .collect();
                let encoded = anchors.encode(&states)?;
                found.extend(encoded.map(|states| (span.start + row, states)));
            }
        }
        Ok(SliceOutcome {
            results,
            anchors: found,
        })
    }
}

struct SliceOutcome {
    results: Vec<Results>,
    anchors: Vec<(usize, Vec<u8>)>,
}

/// What the calls look at, for all rows that are read.
struct CallColumns {
    arguments: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<ArrayRef>>,
}

impl CallColumns {
    fn new(calls: &[Call], rows: &RecordBatch) -> Result<Self, OperatorError> {
        let (mut arguments, mut filters) = (Vec::new(), Vec::new());
        for call in calls {
            let columns = call.arguments.iter();
            let columns = columns.map(|e| e.evaluate(rows)?.into_array(rows.num_rows()));
            arguments.push(columns.collect::<Result<Vec<_>, DataFusionError>>()?);
            filters.push(match &call.filter {
                None => None,
                Some(filter) => {
                    let filter = filter.evaluate(rows)?.into_array(rows.num_rows())?;
                    Some(cast(&filter, &DataType::Boolean)?)
                }
            });
        }
        Ok(Self { arguments, filters })
    }
}

fn emit(old: &Evaluated, new: &Evaluated, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
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

impl Evaluated {
    fn row(&self, index: u32) -> (&[u8], &[u8]) {
        let index = index as usize;
        (self.subs.get(index), self.results.row(index).data())
    }

    /// The rows of a slice by their bytes and then their results: copies of a row may differ in these.
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

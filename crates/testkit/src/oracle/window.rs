//! Window functions, computed for each row by looking at its whole partition.

use super::Expected;
use super::aggregate::compare;
use super::rows::partitions;
use crate::value::{Value, ZSet, add};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::{count, min_max, sum};
use datafusion::functions_window::{lead_lag, nth_value};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{
    Expr, WindowFrame, WindowFrameBound as Bound, WindowFrameUnits as Units,
    WindowFunctionDefinition as Definition, lit,
};
use tidegate_plan::{ScalarExpr, SortKey};

/// Calls that are enough to see each kind of frame.
#[derive(Debug, Clone, Copy)]
pub enum WindowCall {
    /// `count(*)` up to the last row that is equal in the order: what a frame is by default.
    CountToPeers,
    /// `sum(c6)` from so many rows before to so many rows after.
    SumOfRows(u64, u64),
    /// `lag(column, rows)`.
    Lag(usize, usize),
    /// `first_value(column)` over everything.
    FirstOfPartition(usize),
    /// `max(column)` of the rows so far.
    MaxSoFar(usize),
}

impl WindowCall {
    /// The column whose type the result has.
    pub fn column(self) -> Option<usize> {
        match self {
            WindowCall::CountToPeers | WindowCall::SumOfRows(..) => None,
            WindowCall::Lag(column, _)
            | WindowCall::FirstOfPartition(column)
            | WindowCall::MaxSoFar(column) => Some(column),
        }
    }

    pub fn expression(self, partition: &[usize], order: &[SortKey]) -> ScalarExpr {
        let c = |column: usize| ScalarExpr::column(column).expr().clone();
        let rows = |rows: u64| ScalarValue::UInt64(Some(rows));
        let from_start = Bound::Preceding(ScalarValue::UInt64(None));
        let to_end = Bound::Following(ScalarValue::UInt64(None));
        let (function, arguments, frame) = match self {
            WindowCall::CountToPeers => (
                Definition::AggregateUDF(count::count_udaf()),
                vec![lit(1i64)],
                WindowFrame::new((!order.is_empty()).then_some(false)),
            ),
            WindowCall::SumOfRows(before, after) => (
                Definition::AggregateUDF(sum::sum_udaf()),
                vec![c(6)],
                WindowFrame::new_bounds(
                    Units::Rows,
                    Bound::Preceding(rows(before)),
                    Bound::Following(rows(after)),
                ),
            ),
            WindowCall::Lag(column, rows) => (
                Definition::WindowUDF(lead_lag::lag_udwf()),
                vec![c(column), lit(rows as i64)],
                WindowFrame::new(None),
            ),
            WindowCall::FirstOfPartition(column) => (
                Definition::WindowUDF(nth_value::first_value_udwf()),
                vec![c(column)],
                WindowFrame::new_bounds(Units::Rows, from_start, to_end),
            ),
            WindowCall::MaxSoFar(column) => (
                Definition::AggregateUDF(min_max::max_udaf()),
                vec![c(column)],
                WindowFrame::new_bounds(Units::Rows, from_start, Bound::CurrentRow),
            ),
        };
        let mut call = WindowFunction::new(function, arguments);
        call.params.partition_by = partition.iter().map(|p| c(*p)).collect();
        call.params.order_by = order
            .iter()
            .map(|key| Sort::new(c(key.column), !key.descending, key.nulls_first))
            .collect();
        call.params.window_frame = frame;
        ScalarExpr::new(Expr::WindowFunction(Box::new(call)))
    }
}

pub fn window(
    partition: &[usize],
    order: &[SortKey],
    calls: &[WindowCall],
    input: &ZSet,
) -> Expected {
    let mut expected = Expected::default();
    for mut rows in partitions(partition, input).into_values() {
        rows.sort_by(|a, b| compare(order, a, b).then_with(|| a.cmp(b)));
        for (index, row) in rows.iter().enumerate() {
            let mut result = row.clone();
            for call in calls {
                let int = |value: &Value| match value {
                    Value::Int(value) => *value,
                    other => panic!("{other:?} is no integer"),
                };
                result.push(match *call {
                    WindowCall::CountToPeers => {
                        let before = |r: &&Vec<Value>| compare(order, r, row).is_le();
                        Value::Int(rows.iter().filter(before).count() as i64)
                    }
                    WindowCall::SumOfRows(before, after) => {
                        let first = index.saturating_sub(before as usize);
                        let last = (index + after as usize).min(rows.len() - 1);
                        Value::Int(rows[first..=last].iter().map(|r| int(&r[6])).sum())
                    }
                    WindowCall::Lag(column, distance) => index
                        .checked_sub(distance)
                        .map_or(Value::Null, |at| rows[at][column].clone()),
                    WindowCall::FirstOfPartition(column) => rows[0][column].clone(),
                    WindowCall::MaxSoFar(column) => rows[..=index]
                        .iter()
                        .map(|r| r[column].clone())
                        .max()
                        .unwrap_or(Value::Null),
                });
            }
            add(&mut expected.rows, result, 1);
        }
    }
    expected
}

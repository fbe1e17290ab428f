//! Window functions, computed for each row by asking of every row of its partition whether it is in the frame.

use super::Expected;
use super::aggregate::compare;
use super::rows::partitions;
use crate::value::{Row, Value, ZSet, add};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::{array_agg, count, min_max, sum};
use datafusion::functions_window::{cume_dist, lead_lag, nth_value, ntile, rank, row_number};
use datafusion::logical_expr::expr::{NullTreatment, Sort, WindowFunction};
use datafusion::logical_expr::{
    Expr, WindowFrame, WindowFrameBound as Bound, WindowFrameUnits as Units,
    WindowFunctionDefinition as Definition, WindowUDF, lit,
};
use rand::prelude::*;
use rand::rngs::StdRng;
use std::sync::Arc;
use tidegate_plan::{Excluding, Exclusion, ScalarExpr, SortKey};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    /// `count(*)`
    Count,
    Sum(usize),
    Max(usize),
    ArrayAgg(usize),
    First(usize),
    Last(usize),
    Nth(usize, i64),
    /// So many rows back, or ahead.
    Shift(usize, i64),
    Ntile(i64),
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
}

/// Where a frame begins or ends: so many rows, groups or values from the row, or None at the partition's edge.
type Offset = Option<i64>;

/// A random call.
#[derive(Debug, Clone)]
pub struct WindowCall {
    function: Function,
    units: Units,
    start: Offset,
    end: Offset,
    exclusion: Option<Exclusion>,
    /// A boolean column.
    filter: Option<usize>,
    ignore_nulls: bool,
}

impl WindowCall {
    /// Over columns of [`crate::cases::input_schema`]. Frames of values need `order` to be one small integer.
    pub fn random(random: &mut StdRng, order: &[SortKey]) -> Self {
        use Function as F;
        let column = [0, 6, 7][random.random_range(0..3)];
        let distance = random.random_range(-2..4);
        let function = match random.random_range(0..20) {
            0..2 => F::Count,
            2..5 => F::Sum([3, 6][random.random_range(0..2)]),
            5..7 => F::Max([0, 6, 7, 3][random.random_range(0..4)]),
            7..10 => F::ArrayAgg(6),
            10 => F::First(column),
            11 => F::Last(column),
            12 => F::Nth(column, random.random_range(1..4)),
            13..15 => F::Shift(column, distance),
            15 => F::Ntile(random.random_range(1..5)),
            16 => [F::RowNumber, F::Rank, F::DenseRank][random.random_range(0..3)],
            17 => F::PercentRank,
            18 => F::CumeDist,
            _ => F::Sum(6),
        };
        let by_value = matches!(order, [SortKey { column: 0 | 6, .. }]);
        let units = match random.random_range(0..3) {
            0 => Units::Rows,
            1 => Units::Range,
            _ if order.is_empty() => Units::Rows,
            _ => Units::Groups,
        };
        let (mut start, mut end) = (random.random_range(-2..3), random.random_range(-2..3));
        if start > end {
            (start, end) = (end, start);
        }
        let (mut start, mut end) = (Some(start), Some(end));
        if units == Units::Range && !by_value {
            (start, end) = (Some(0), Some(0));
        }
        // Frames from the beginning are the most common ones.
        match random.random_range(0..5) {
            0 | 1 => start = None,
            2 => end = None,
            3 if random.random() => (start, end) = (None, None),
            _ => {}
        }
        let framed = !matches!(
            function,
            F::Shift(..)
                | F::Ntile(_)
                | F::RowNumber
                | F::Rank
                | F::DenseRank
                | F::PercentRank
                | F::CumeDist
        );
        let aggregate = matches!(function, F::Count | F::Sum(_) | F::Max(_) | F::ArrayAgg(_));
        let exclusions = [Exclusion::CurrentRow, Exclusion::Group, Exclusion::Ties];
        let exclusion = exclusions[random.random_range(0..3)];
        Self {
            function,
            units,
            start,
            end,
            exclusion: (framed && random.random_range(0..4) == 0).then_some(exclusion),
            filter: (aggregate && random.random_range(0..4) == 0).then_some(5),
            ignore_nulls: !aggregate
                && (framed || matches!(function, F::Shift(..)))
                && random.random_range(0..3) == 0,
        }
    }

    pub fn output(&self, schema: &Schema) -> DataType {
        use Function as F;
        match self.function {
            F::Count | F::RowNumber | F::Rank | F::DenseRank | F::Ntile(_) => DataType::Int64,
            F::Sum(3) | F::PercentRank | F::CumeDist => DataType::Float64,
            F::Sum(_) => DataType::Int64,
            F::ArrayAgg(column) => {
                let element = schema.field(column).data_type().clone();
                DataType::List(Arc::new(Field::new("item", element, true)))
            }
            F::Max(c) | F::First(c) | F::Last(c) | F::Nth(c, _) | F::Shift(c, _) => {
                schema.field(c).data_type().clone()
            }
        }
    }

    pub fn expression(
        &self,
        partition: &[usize],
        order: &[SortKey],
        schema: &Schema,
    ) -> ScalarExpr {
        use Function as F;
        let c = |column: usize| ScalarExpr::column(column).expr().clone();
        let (function, mut arguments): (Definition, Vec<Expr>) = match self.function {
            F::Count => (count::count_udaf().into(), vec![lit(1i64)]),
            F::Sum(column) => (sum::sum_udaf().into(), vec![c(column)]),
            F::Max(column) => (min_max::max_udaf().into(), vec![c(column)]),
            F::ArrayAgg(column) => (array_agg::array_agg_udaf().into(), vec![c(column)]),
            F::First(column) => (nth_value::first_value_udwf().into(), vec![c(column)]),
            F::Last(column) => (nth_value::last_value_udwf().into(), vec![c(column)]),
            F::Nth(column, n) => (nth_value::nth_value_udwf().into(), vec![c(column), lit(n)]),
            F::Shift(column, rows @ 0..) => {
                (lead_lag::lag_udwf().into(), vec![c(column), lit(rows)])
            }
            F::Shift(column, rows) => (lead_lag::lead_udwf().into(), vec![c(column), lit(-rows)]),
            F::Ntile(buckets) => (ntile::ntile_udwf().into(), vec![lit(buckets)]),
            F::RowNumber => (row_number::row_number_udwf().into(), vec![]),
            F::Rank => (rank::rank_udwf().into(), vec![]),
            F::DenseRank => (rank::dense_rank_udwf().into(), vec![]),
            F::PercentRank => (rank::percent_rank_udwf().into(), vec![]),
            F::CumeDist => (cume_dist::cume_dist_udwf().into(), vec![]),
        };
        let mut filter = self.filter.map(c);
        let function = match self.exclusion {
            None => function,
            Some(exclusion) => {
                let wrapper = Excluding::new(function, Some(exclusion), filter.is_some());
                arguments.extend(filter.take());
                Definition::WindowUDF(Arc::new(WindowUDF::new_from_impl(wrapper)))
            }
        };
        let mut call = WindowFunction::new(function, arguments);
        call.params.partition_by = partition.iter().map(|p| c(*p)).collect();
        call.params.order_by = order
            .iter()
            .map(|key| Sort::new(c(key.column), !key.descending, key.nulls_first))
            .collect();
        call.params.filter = filter.map(Box::new);
        call.params.null_treatment = self.ignore_nulls.then_some(NullTreatment::IgnoreNulls);
        call.params.window_frame = self.frame(order, schema);
        ScalarExpr::new(Expr::WindowFunction(Box::new(call)))
    }

    fn frame(&self, order: &[SortKey], schema: &Schema) -> WindowFrame {
        let number = |distance: i64| match (self.units, order) {
            (Units::Range, [key]) => match schema.field(key.column).data_type() {
                DataType::Int32 => ScalarValue::Int32(Some(distance as i32)),
                _ => ScalarValue::Int64(Some(distance)),
            },
            _ => ScalarValue::UInt64(Some(distance as u64)),
        };
        let bound = |offset: i64| match offset {
            0 => Bound::CurrentRow,
            1.. => Bound::Following(number(offset)),
            _ => Bound::Preceding(number(-offset)),
        };
        let unbounded = ScalarValue::UInt64(None);
        WindowFrame::new_bounds(
            self.units,
            self.start
                .map_or(Bound::Preceding(unbounded.clone()), bound),
            self.end.map_or(Bound::Following(unbounded), bound),
        )
    }

    /// The rows of the frame of one row, in order.
    fn rows_of(&self, rows: &[Row], index: usize, order: &[SortKey]) -> Vec<usize> {
        let groups = |row: usize| {
            let before = rows[..row].chunk_by(|a, b| compare(order, a, b).is_eq());
            let same = row > 0 && compare(order, &rows[row - 1], &rows[row]).is_eq();
            before.count() as i64 - i64::from(same)
        };
        let has_offset = |offset: Offset| offset.is_some_and(|offset| offset != 0);
        let by_value = self.units == Units::Range
            && matches!(order, [_])
            && (has_offset(self.start) || has_offset(self.end));
        // How far a row is ahead, in the frame's units. None: not comparable but for the edges.
        let distance = |other: usize| match (self.units, order) {
            (Units::Rows, _) => Some(other as i64 - index as i64),
            (Units::Range, [key]) if by_value => {
                match (&rows[index][key.column], &rows[other][key.column]) {
                    (Value::Int(own), Value::Int(value)) if key.descending => Some(own - value),
                    (Value::Int(own), Value::Int(value)) => Some(value - own),
                    (a, b) => (a == b).then_some(0),
                }
            }
            _ => Some(groups(other) - groups(index)),
        };
        // What has no distance (NULL from a value) is beyond a bound on its side, whatever that says.
        let inside = |other: &usize| {
            let ahead = *other > index;
            let start = self.start.is_none_or(|offset| match distance(*other) {
                Some(distance) => distance >= offset,
                None => ahead,
            });
            let end = self.end.is_none_or(|offset| match distance(*other) {
                Some(distance) => distance <= offset,
                None => !ahead,
            });
            start && end
        };
        // Rows without a value see each other alone where a bound is a distance.
        let alone = by_value && matches!(order, [key] if rows[index][key.column].is_null());
        let inside = |other: &usize| match (alone, distance(*other)) {
            (true, Some(_)) => true,
            _ => inside(other),
        };
        let peer = |other: &usize| compare(order, &rows[*other], &rows[index]).is_eq();
        (0..rows.len())
            .filter(inside)
            .filter(|other| match self.exclusion {
                None => true,
                Some(Exclusion::CurrentRow) => *other != index,
                Some(Exclusion::Group) => !peer(other),
                Some(Exclusion::Ties) => !peer(other) || *other == index,
            })
            .filter(|other| {
                let counts = |f: usize| rows[*other][f] == Value::Bool(true);
                self.filter.is_none_or(counts)
            })
            .collect()
    }

    fn value(&self, rows: &[Row], index: usize, order: &[SortKey]) -> Value {
        use Function as F;
        let frame: Vec<&Row> = self
            .rows_of(rows, index, order)
            .into_iter()
            .map(|row| &rows[row])
            .collect();
        let counts = |column: usize| {
            let counted = move |row: &&&Row| !(self.ignore_nulls && row[column].is_null());
            frame
                .iter()
                .filter(counted)
                .map(move |row| row[column].clone())
        };
        let before = rows[..index]
            .iter()
            .filter(|r| compare(order, r, &rows[index]).is_lt());
        let value = |found: Option<Value>| found.unwrap_or(Value::Null);
        match self.function {
            F::Count => Value::Int(frame.len() as i64),
            F::Sum(column) => total(frame.iter().map(|row| &row[column])),
            F::Max(column) => value(
                frame
                    .iter()
                    .map(|row| row[column].clone())
                    .filter(|v| !v.is_null())
                    .max(),
            ),
            F::ArrayAgg(_) if frame.is_empty() => Value::Null,
            F::ArrayAgg(column) => {
                Value::List(frame.iter().map(|row| row[column].clone()).collect())
            }
            F::First(column) => value(counts(column).next()),
            F::Last(column) => value(counts(column).next_back()),
            F::Nth(column, n) => value(counts(column).nth(n as usize - 1)),
            F::Shift(column, rows_back) => {
                let far = rows_back.unsigned_abs() as usize;
                let counted = |row: &&Row| !(self.ignore_nulls && row[column].is_null());
                let found = match rows_back {
                    0 => Some(&rows[index]),
                    1.. => rows[..index].iter().rev().filter(counted).nth(far - 1),
                    _ => rows[index + 1..].iter().filter(counted).nth(far - 1),
                };
                value(found.map(|row| row[column].clone()))
            }
            F::Ntile(buckets) => {
                let sizes = (0..buckets).map(|bucket| {
                    let (rows, buckets) = (rows.len() as i64, buckets);
                    rows / buckets + i64::from(bucket < rows % buckets)
                });
                let mut end = 0;
                let ends: Vec<i64> = sizes
                    .map(|size| {
                        end += size;
                        end
                    })
                    .collect();
                let bucket = ends.iter().position(|end| (index as i64) < *end);
                Value::Int(bucket.expect("every row is in one") as i64 + 1)
            }
            F::RowNumber => Value::Int(index as i64 + 1),
            F::Rank => Value::Int(before.count() as i64 + 1),
            F::DenseRank => {
                let before: Vec<&Row> = before.collect();
                let groups = before.chunk_by(|a, b| compare(order, a, b).is_eq());
                Value::Int(groups.count() as i64 + 1)
            }
            F::PercentRank if rows.len() == 1 => Value::Float(0.0),
            F::PercentRank => Value::Float(before.count() as f64 / (rows.len() - 1) as f64),
            F::CumeDist => {
                let upto = rows
                    .iter()
                    .filter(|r| compare(order, r, &rows[index]).is_le());
                Value::Float(upto.count() as f64 / rows.len() as f64)
            }
        }
    }
}

fn total<'a>(values: impl Iterator<Item = &'a Value>) -> Value {
    values.fold(Value::Null, |sum, value| match (sum, value) {
        (sum, Value::Null) => sum,
        (Value::Null, value) => value.clone(),
        (Value::Int(a), Value::Int(b)) => Value::Int(a + b),
        (Value::Float(a), Value::Float(b)) => Value::Float(a + b),
        (a, b) => panic!("{a:?} + {b:?}"),
    })
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
        for index in 0..rows.len() {
            let mut result = rows[index].clone();
            result.extend(calls.iter().map(|call| call.value(&rows, index, order)));
            add(&mut expected.rows, result, 1);
        }
    }
    expected
}

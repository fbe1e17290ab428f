//! Watermarks of columns, derived from those of sources through the plan.
//!
//! A column keeps one where a change of the input makes no change of the output with a smaller value in it:
//!
//! - through a monotone expression ([`through`]): another column of its window, a shift by an interval, a truncation;
//! - a union has the lowest of its inputs;
//! - groups, partitions and keys: a change of a key is about that key alone. A join has the lower one of two columns that are
//!   compared for equality.
//! - the end of a session, since a row that extends it is not later than it ends. Not its beginning.
//!
//! In doubt a column has none: state is freed upon it.

use crate::functions::time_windows::{interval_us, literal_interval};
use crate::query::literal;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::ScalarFunction;
use tidegate_plan::watermark::of_column;
use tidegate_plan::{ColumnWatermarks, JoinKind, Op, TimeStep, Watermark};

use crate::properties::Properties;

const DAY_US: i64 = 86_400_000_000;

pub(crate) fn derive(rel: &Rel, inputs: &[Properties]) -> ColumnWatermarks {
    let kept = |columns: &[usize]| -> ColumnWatermarks {
        let all = inputs[0].watermarks.iter();
        all.filter(|(c, _)| columns.contains(c)).cloned().collect()
    };
    match &rel.op {
        Op::Import { .. } | Op::Source { .. } | Op::TableInput { .. } => {
            rel.origin.watermarks.clone()
        }
        Op::Filter { .. } | Op::Unnest { .. } | Op::Materialize { .. } | Op::Sink { .. } => {
            inputs[0].watermarks.clone()
        }
        Op::OnClose { .. } => inputs[0].watermarks.clone(),
        Op::Project { expressions } => expressions
            .iter()
            .enumerate()
            .filter_map(|(place, expression)| {
                let watermark = through(
                    expression.expr(),
                    &rel.inputs[0].schema,
                    &inputs[0].watermarks,
                )?;
                Some((place, watermark))
            })
            .collect(),
        Op::Aggregate { keys, .. } => keys
            .iter()
            .enumerate()
            .filter_map(|(place, key)| {
                Some((place, of_column(&inputs[0].watermarks, *key)?.clone()))
            })
            .collect(),
        Op::TopN { partition, .. } | Op::Window { partition, .. } => kept(partition),
        Op::Session {
            partition, time, ..
        } => {
            let mut found = kept(partition);
            found.retain(|(column, _)| column != time);
            if let Some(watermark) = of_column(&inputs[0].watermarks, *time) {
                found.push((rel.width() - 1, watermark.clone()));
            }
            found
        }
        Op::Union => union(inputs),
        Op::Join {
            kind,
            left_keys,
            right_keys,
            ..
        } => join(*kind, (left_keys, right_keys), rel, inputs),
        // What leaves may be of any age.
        Op::TimeFilter { .. } | Op::Values { .. } | Op::AtMostOne { .. } => Vec::new(),
    }
}

fn union(inputs: &[Properties]) -> ColumnWatermarks {
    let Some((first, rest)) = inputs.split_first() else {
        return Vec::new();
    };
    let lowest = |(column, watermark): &(usize, Watermark)| {
        let mut lowest = watermark.clone();
        for input in rest {
            lowest = lowest.lowest(of_column(&input.watermarks, *column)?.clone());
        }
        Some((*column, lowest))
    };
    first.watermarks.iter().filter_map(lowest).collect()
}

fn join(
    kind: JoinKind,
    (left_keys, right_keys): (&[usize], &[usize]),
    rel: &Rel,
    inputs: &[Properties],
) -> ColumnWatermarks {
    let offset = rel.inputs[0].width();
    let mut found = Vec::new();
    for (left, right) in left_keys.iter().zip(right_keys) {
        let both = (
            of_column(&inputs[0].watermarks, *left),
            of_column(&inputs[1].watermarks, *right),
        );
        let (Some(l), Some(r)) = both else {
            continue;
        };
        let lower = l.clone().lowest(r.clone());
        if matches!(
            kind,
            JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full
        ) {
            found.push((offset + right, lower.clone()));
        }
        found.push((*left, lower));
    }
    found.sort_by_key(|(column, _)| *column);
    found.dedup_by_key(|(column, _)| *column);
    found
}

/// The watermark of an expression over columns with these.
pub(crate) fn through(
    expr: &Expr,
    input: &Schema,
    watermarks: &ColumnWatermarks,
) -> Option<Watermark> {
    match expr {
        Expr::Column(column) => {
            let position: usize = column.name.parse().ok()?;
            of_column(watermarks, position).cloned()
        }
        Expr::Alias(alias) => through(&alias.expr, input, watermarks),
        // With and without a zone a timestamp is the same number, in UTC.
        Expr::Cast(cast) if is_micros(cast.field.data_type()) => match cast.expr.as_ref() {
            Expr::Column(column) => {
                let position: usize = column.name.parse().ok()?;
                let from = input.field(position).data_type();
                is_micros(from)
                    .then(|| of_column(watermarks, position).cloned())
                    .flatten()
            }
            _ => None,
        },
        Expr::ScalarFunction(function) => {
            let (time, steps) = steps(function)?;
            let watermark = through(time, input, watermarks)?;
            Some(steps.into_iter().fold(watermark, Watermark::then))
        }
        _ => None,
    }
}

fn is_micros(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _))
}

/// The time that a function is of, and what it does to it, where that is monotone.
fn steps(function: &ScalarFunction) -> Option<(&Expr, Vec<TimeStep>)> {
    let args = &function.args;
    let us = |index: usize| interval_us(literal_interval(args.get(index)?)?);
    let shift = |by_us: i64| TimeStep::Shift { by_us };
    let floor = |step_us: i64, offset_us: i64| TimeStep::Floor { step_us, offset_us };
    Some(match function.name() {
        "timestamp_plus_interval" => (&args[0], vec![shift(us(1)?)]),
        "timestamp_minus_interval" => (&args[0], vec![shift(us(1)?.checked_neg()?)]),
        "tumble_start" => (&args[0], vec![floor(us(1)?, us(2)?)]),
        "tumble_end" => (&args[0], vec![floor(us(1)?, us(2)?), shift(us(1)?)]),
        // The first window that is not over yet begins behind a size ago.
        "hop_starts" | "hop_ends" => {
            let (slide, size, offset) = (us(1)?, us(2)?, us(3)?);
            let mut steps = vec![
                shift(size.checked_neg()?),
                floor(slide, offset),
                shift(slide),
            ];
            if function.name() == "hop_ends" {
                steps.push(shift(size));
            }
            (&args[0], steps)
        }
        "cumulate_ends" => (&args[0], vec![floor(us(1)?, us(3)?), shift(us(1)?)]),
        "date_trunc" => (args.get(1)?, vec![truncation(literal(args.first()?)?)?]),
        _ => return None,
    })
}

fn truncation(unit: &ScalarValue) -> Option<TimeStep> {
    let (ScalarValue::Utf8(Some(unit)) | ScalarValue::Utf8View(Some(unit))) = unit else {
        return None;
    };
    let (step_us, offset_us) = match unit.to_lowercase().as_str() {
        "second" => (1_000_000, 0),
        "minute" => (60_000_000, 0),
        "hour" => (3_600_000_000, 0),
        "day" => (DAY_US, 0),
        // Weeks begin on Mondays, and the first one of 1970 was the fifth of January.
        "week" => (7 * DAY_US, 4 * DAY_US),
        _ => return None,
    };
    Some(TimeStep::Floor { step_us, offset_us })
}

/// By how much `WATERMARK FOR column AS expr` stays behind the greatest value of the column: the expression has to be the
/// column, or the column less an interval.
pub fn delay_us(expr: &Expr, column: &str) -> Option<i64> {
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(c) if c.name == column);
    match expr {
        Expr::Alias(alias) => delay_us(&alias.expr, column),
        column if is_column(column) => Some(0),
        Expr::ScalarFunction(function)
            if function.name() == "timestamp_minus_interval" && is_column(&function.args[0]) =>
        {
            interval_us(literal_interval(&function.args[1])?).filter(|delay| *delay >= 0)
        }
        _ => None,
    }
}

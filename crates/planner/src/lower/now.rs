//! Conditions on `now()`: a time of the row from which on, or until which, it is there.
//!
//! In a view `now()` is the time of the barrier ([`crate::now`]). `at > now() - interval '1 hour'` holds until an hour after
//! `at`; other conditions are turned the same way. What cannot be is refused.

use super::Lowered;
use super::project::{Computed, compute};
use crate::errors;
use crate::functions::time_windows::{interval_us, literal_interval};
use crate::now::{is_now, mentions_now};
use crate::refuse::in_view;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, Operator};
use tidegate_plan::{Op, TimeBound};
use tidegate_types::SqlError;

/// A row is there from this time on, or until it.
struct Bound {
    is_from: bool,
    time: Expr,
    shift_us: i64,
}

/// The predicate without what it says of `now()`, and the filters that say that, over the input.
pub(super) fn take(
    input: Lowered,
    predicate: Expr,
    schema: &DFSchema,
) -> Result<(Lowered, Option<Expr>), SqlError> {
    if !mentions_now(&predicate) {
        return Ok((input, Some(predicate)));
    }
    let (timed, plain): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(predicate)
        .into_iter()
        .partition(mentions_now);
    let mut bounds = Vec::new();
    for condition in &timed {
        bounds.extend(bounds_of(condition, schema)?);
    }
    let times: Vec<&Expr> = bounds.iter().map(|bound| &bound.time).collect();
    let Computed { input, positions } = compute(input, schema, &times)?;
    let mut found: (Vec<TimeBound>, Vec<TimeBound>) = Default::default();
    for (bound, column) in bounds.iter().zip(positions) {
        let of = if bound.is_from {
            &mut found.0
        } else {
            &mut found.1
        };
        of.push(TimeBound {
            column,
            shift_us: bound.shift_us,
        });
    }
    let (mut from, mut until) = (found.0.into_iter(), found.1.into_iter());
    let Lowered { mut rel, columns } = input;
    loop {
        let op = match (from.next(), until.next()) {
            (None, None) => break,
            (from, until) => Op::TimeFilter { from, until },
        };
        let schema = rel.schema.clone();
        rel = Rel::new(op, vec![rel], schema);
    }
    Ok((Lowered { rel, columns }, conjunction(plain)))
}

fn refused() -> SqlError {
    in_view("this condition on now()").with_hint(
        "Compare now(), or now() and an interval, with a time of the row: at > now() - INTERVAL '1 hour'.",
    )
}

fn bounds_of(condition: &Expr, schema: &DFSchema) -> Result<Vec<Bound>, SqlError> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            Ok(vec![comparison(left, *op, right, schema)?])
        }
        Expr::Between(Between {
            expr,
            negated: false,
            low,
            high,
        }) => Ok(vec![
            comparison(expr, Operator::GtEq, low, schema)?,
            comparison(expr, Operator::LtEq, high, schema)?,
        ]),
        _ => Err(refused()),
    }
}

fn comparison(
    left: &Expr,
    op: Operator,
    right: &Expr,
    schema: &DFSchema,
) -> Result<Bound, SqlError> {
    let (time, op, now) = match (mentions_now(left), mentions_now(right)) {
        (false, true) => (left, op, right),
        (true, false) => (right, op.swap().ok_or_else(refused)?, left),
        _ => return Err(refused()),
    };
    let offset = offset_us(now)?;
    // `time op now + offset`, with now on the left: `time - offset` is when it begins or ends to hold.
    let (is_from, more) = match op {
        Operator::Gt => (false, 0),
        Operator::GtEq => (false, 1),
        Operator::Lt => (true, 1),
        Operator::LtEq => (true, 0),
        _ => return Err(refused()),
    };
    Ok(Bound {
        is_from,
        time: micros(time, schema)?,
        shift_us: more - offset,
    })
}

/// How much later than `now()` an expression over it is.
fn offset_us(expr: &Expr) -> Result<i64, SqlError> {
    match expr {
        expr if is_now(expr) => Ok(0),
        Expr::Cast(cast) if is_timestamp(cast.field.data_type()) => offset_us(&cast.expr),
        Expr::Alias(alias) => offset_us(&alias.expr),
        Expr::ScalarFunction(function) => {
            let sign = match function.name() {
                "timestamp_plus_interval" => 1,
                "timestamp_minus_interval" => -1,
                _ => return Err(refused()),
            };
            let interval = literal_interval(&function.args[1]).ok_or_else(refused)?;
            let by = interval_us(interval).ok_or_else(|| {
                in_view("now() and an interval of months")
                    .with_hint("Months differ in length: give it in days, hours or minutes.")
            })?;
            let inner = offset_us(&function.args[0])?;
            inner.checked_add(sign * by).ok_or_else(refused)
        }
        _ => Err(refused()),
    }
}

fn is_timestamp(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..))
}

/// The time in microseconds, without the casts that brought it to the type of `now()`.
fn micros(expr: &Expr, schema: &DFSchema) -> Result<Expr, SqlError> {
    let typed = |expr: &Expr| expr.get_type(schema).map_err(|e| errors::sql_error(&e, ""));
    let mut inner = expr;
    while let Expr::Cast(cast) = inner
        && is_timestamp(cast.field.data_type())
        && (is_timestamp(&typed(&cast.expr)?) || typed(&cast.expr)? == DataType::Date32)
    {
        inner = &cast.expr;
    }
    match typed(inner)? {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(inner.clone()),
        DataType::Timestamp(..) | DataType::Date32 => {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
            Ok(Expr::Cast(Cast::new(Box::new(inner.clone()), micros)))
        }
        _ => Err(refused()),
    }
}

//! `interval * number`, `number * interval` and `interval / number`, as Postgres computes them: what is left of a month goes on
//! as days of which a month has 30, what is left of a day as time. `justify_days`, `justify_hours` and `justify_interval` go
//! the other way.

use super::rowwise::{Row, Rowwise};
use datafusion::arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use sqlparser::ast::BinaryOperator;
use std::sync::{Arc, OnceLock};
use tidegate_types::text::{IntervalValue, Value};
use tidegate_types::{SqlError, SqlState, SqlType};

const DAYS_OF_MONTH: f64 = 30.0;
const DAY_MICROS: f64 = 86_400e6;
const DAY_NANOS: i64 = 86_400_000_000_000;

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        times().clone(),
        divided().clone(),
        justified("justify_hours", hours_to_days),
        justified("justify_days", days_to_months),
        justified("justify_interval", all_up),
    ]
}

fn times() -> &'static Arc<ScalarUDF> {
    static TIMES: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    TIMES.get_or_init(|| {
        function("interval_mul", |row| {
            let factor = row.primitive::<Float64Type>(1);
            scaled(interval(row), |part| part * factor)
        })
    })
}

fn divided() -> &'static Arc<ScalarUDF> {
    static DIVIDED: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    DIVIDED.get_or_init(|| {
        function("interval_div", |row| {
            let divisor = row.primitive::<Float64Type>(1);
            if divisor == 0.0 {
                return Err(SqlError::new(
                    SqlState::DIVISION_BY_ZERO,
                    "division by zero",
                ));
            }
            scaled(interval(row), |part| part / divisor)
        })
    })
}

fn function(
    name: &'static str,
    body: fn(&Row<'_>) -> std::result::Result<Value, SqlError>,
) -> Arc<ScalarUDF> {
    let function = Rowwise {
        name,
        strict: true,
        coerce: |arguments| {
            let wanted = vec![
                DataType::Interval(IntervalUnit::MonthDayNano),
                DataType::Float64,
            ];
            let fits = arguments.len() == 2
                && (arguments[0] == wanted[0] || arguments[0].is_null())
                && (arguments[1].is_numeric() || arguments[1].is_null());
            fits.then_some(wanted)
        },
        returns: |_| SqlType::Interval,
        body,
    };
    function.udf()
}

fn justified(
    name: &'static str,
    body: fn(&Row<'_>) -> std::result::Result<Value, SqlError>,
) -> Arc<ScalarUDF> {
    let function = Rowwise {
        name,
        strict: true,
        coerce: |arguments| {
            let wanted = vec![DataType::Interval(IntervalUnit::MonthDayNano)];
            (arguments.len() == 1 && (arguments == wanted || arguments[0].is_null()))
                .then_some(wanted)
        },
        returns: |_| SqlType::Interval,
        body,
    };
    function.udf()
}

fn hours_to_days(row: &Row<'_>) -> std::result::Result<Value, SqlError> {
    let mut it = interval(row);
    carry_hours(&mut it)?;
    same_sign_of_time(&mut it);
    Ok(Value::Interval(it))
}

fn days_to_months(row: &Row<'_>) -> std::result::Result<Value, SqlError> {
    let mut it = interval(row);
    carry_days(&mut it)?;
    same_sign_of_days(&mut it, 0);
    Ok(Value::Interval(it))
}

fn all_up(row: &Row<'_>) -> std::result::Result<Value, SqlError> {
    let mut it = interval(row);
    carry_hours(&mut it)?;
    carry_days(&mut it)?;
    let time = it.nanos.signum() as i32;
    same_sign_of_days(&mut it, time);
    same_sign_of_time(&mut it);
    Ok(Value::Interval(it))
}

fn carry_hours(it: &mut IntervalValue) -> std::result::Result<(), SqlError> {
    let days = (it.nanos / DAY_NANOS) as i32;
    it.nanos %= DAY_NANOS;
    it.days = it.days.checked_add(days).ok_or_else(out_of_range)?;
    Ok(())
}

fn carry_days(it: &mut IntervalValue) -> std::result::Result<(), SqlError> {
    let months = it.days / 30;
    it.days %= 30;
    it.months = it.months.checked_add(months).ok_or_else(out_of_range)?;
    Ok(())
}

/// Days have the sign of the months. `time` is the sign of what comes after them.
fn same_sign_of_days(it: &mut IntervalValue, time: i32) {
    let sign = if it.days == 0 { time } else { it.days.signum() };
    if sign != 0 && it.months != 0 && it.months.signum() != sign {
        it.days += 30 * it.months.signum();
        it.months -= it.months.signum();
    }
}

/// The time has the sign of the days.
fn same_sign_of_time(it: &mut IntervalValue) {
    if it.nanos != 0 && it.days != 0 && i64::from(it.days.signum()) != it.nanos.signum() {
        it.nanos += DAY_NANOS * i64::from(it.days.signum());
        it.days -= it.days.signum();
    }
}

fn out_of_range() -> SqlError {
    SqlError::new(SqlState::DATETIME_OVERFLOW, "interval out of range")
}

fn interval(row: &Row<'_>) -> IntervalValue {
    let interval = row.primitive::<IntervalMonthDayNanoType>(0);
    IntervalValue {
        months: interval.months,
        days: interval.days,
        nanos: interval.nanoseconds,
    }
}

/// Every part scaled, and what is not whole handed down to the next smaller part.
fn scaled(
    interval: IntervalValue,
    scale: impl Fn(f64) -> f64,
) -> std::result::Result<Value, SqlError> {
    let whole = |part: f64| match part.abs() < f64::from(i32::MAX) {
        true => Ok(part.trunc() as i32),
        false => Err(out_of_range()),
    };
    let months = scale(f64::from(interval.months));
    let days = scale(f64::from(interval.days));
    // To six digits: a third of a month is ten days, and not a little less.
    let days_of_months = ((months.fract() * DAYS_OF_MONTH) * 1e6).round_ties_even() / 1e6;
    let rest = ((days.fract() + days_of_months.fract()) * DAY_MICROS).round_ties_even();
    let days_of_rest = (rest / DAY_MICROS).trunc();
    let all_days = days.trunc() + days_of_months.trunc() + days_of_rest;
    let rest = rest - days_of_rest * DAY_MICROS;
    let micros = (scale(interval.nanos as f64 / 1000.0) + rest).round_ties_even();
    if micros.abs() >= i64::MAX as f64 / 1000.0 {
        return Err(out_of_range());
    }
    Ok(Value::Interval(IntervalValue {
        months: whole(months)?,
        days: whole(all_days)?,
        nanos: micros as i64 * 1000,
    }))
}

#[derive(Debug)]
pub(super) struct IntervalPlanner;

impl ExprPlanner for IntervalPlanner {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let is_product = matches!(expr.op, BinaryOperator::Multiply);
        if !is_product && !matches!(expr.op, BinaryOperator::Divide) {
            return Ok(PlannerResult::Original(expr));
        }
        let type_of = |e: &Expr| e.get_type(schema).ok();
        let is_interval = |t: &Option<DataType>| matches!(t, Some(DataType::Interval(_)));
        let is_number = |t: &Option<DataType>| t.as_ref().is_some_and(DataType::is_numeric);
        let (left, right) = (type_of(&expr.left), type_of(&expr.right));
        let args = if is_interval(&left) && is_number(&right) {
            vec![expr.left, expr.right]
        } else if is_product && is_number(&left) && is_interval(&right) {
            vec![expr.right, expr.left]
        } else {
            return Ok(PlannerResult::Original(expr));
        };
        let func = if is_product { times() } else { divided() }.clone();
        Ok(PlannerResult::Planned(Expr::ScalarFunction(
            ScalarFunction { func, args },
        )))
    }
}

//! Arithmetic on dates and timestamps with Postgres' result types.
//!
//! | expression | type | DataFusion's |
//! |---|---|---|
//! | `date < timestamp` | compared in microseconds | in nanoseconds |
//! | `date ± interval` | `timestamp` | `date` |
//! | `timestamp ± interval` | `timestamp` of microseconds | of nanoseconds, which end in the year 2262 |
//! | `date - date` | `integer`, in days | interval |
//! | `date ± integer` | `date` | none |
//! | `timestamp - timestamp` | `interval` of days and time | duration |

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, IntervalMonthDayNanoBuilder, PrimitiveArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use std::sync::{Arc, OnceLock};
use tidegate_types::text::{civil_from_days, days_from_civil};
use tidegate_types::{SqlError, SqlState};

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        difference().clone(),
        shift(false).clone(),
        shift(true).clone(),
    ]
}

fn shift(back: bool) -> &'static Arc<ScalarUDF> {
    static FUNCTIONS: OnceLock<[Arc<ScalarUDF>; 2]> = OnceLock::new();
    let made = FUNCTIONS.get_or_init(|| {
        [false, true].map(|back| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(ScalarUDF::new_from_impl(Shift { back, signature }))
        })
    });
    &made[usize::from(back)]
}

fn difference() -> &'static Arc<ScalarUDF> {
    static FUNCTION: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    FUNCTION.get_or_init(|| {
        let signature = Signature::exact(vec![MICROS, MICROS], Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Difference { signature }))
    })
}

pub(super) fn rewrite(binary: &BinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
    use DataType::{Date32, Interval, Timestamp};
    if binary.op.supports_propagation() && !matches!(binary.op, Operator::Plus | Operator::Minus) {
        return compared(binary, schema);
    }
    if !matches!(binary.op, Operator::Plus | Operator::Minus) {
        return Ok(None);
    }
    let (left, right) = (
        binary.left.get_type(schema)?,
        binary.right.get_type(schema)?,
    );
    let (l, r) = (binary.left.as_ref().clone(), binary.right.as_ref().clone());
    let again =
        |l: Expr, r: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(l), binary.op, Box::new(r)));
    Ok(match (&left, binary.op, &right) {
        (Date32, _, Interval(_)) => Some(shifted(to(l, MICROS), binary.op, r)),
        (Interval(_), Operator::Plus, Date32) => Some(shifted(to(r, MICROS), binary.op, l)),
        (Timestamp(..), _, Interval(_)) => Some(shifted(l, binary.op, r)),
        (Interval(_), Operator::Plus, Timestamp(..)) => Some(shifted(r, binary.op, l)),
        (Date32, Operator::Minus, Date32) => {
            Some(again(to(l, DataType::Int32), to(r, DataType::Int32)))
        }
        (Date32, _, days) if days.is_integer() => Some(to(
            again(to(l, DataType::Int32), to(r, DataType::Int32)),
            Date32,
        )),
        (days, Operator::Plus, Date32) if days.is_integer() => Some(to(
            again(to(l, DataType::Int32), to(r, DataType::Int32)),
            Date32,
        )),
        (Timestamp(..) | Date32, Operator::Minus, Timestamp(..))
        | (Timestamp(..), Operator::Minus, Date32) => {
            let args = vec![to(l, MICROS), to(r, MICROS)];
            Some(Expr::ScalarFunction(ScalarFunction {
                func: difference().clone(),
                args,
            }))
        }
        _ => None,
    })
}

/// A date that is compared with a timestamp is its midnight.
fn compared(binary: &BinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
    use DataType::{Date32, Timestamp};
    let (mut left, mut right) = (binary.left.clone(), binary.right.clone());
    let midnight = |zone: &Option<Arc<str>>| Timestamp(TimeUnit::Microsecond, zone.clone());
    match (left.get_type(schema)?, right.get_type(schema)?) {
        (Date32, Timestamp(_, zone)) => left = Box::new(to(*left, midnight(&zone))),
        (Timestamp(_, zone), Date32) => right = Box::new(to(*right, midnight(&zone))),
        _ => return Ok(None),
    }
    Ok(Some(Expr::BinaryExpr(BinaryExpr::new(
        left, binary.op, right,
    ))))
}

fn to(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), data_type))
}

fn shifted(time: Expr, op: Operator, interval: Expr) -> Expr {
    let func = shift(op == Operator::Minus).clone();
    Expr::ScalarFunction(ScalarFunction {
        func,
        args: vec![time, interval],
    })
}

/// `timestamp ± interval`: months first, to the last day of a month that is too short, then days, then time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shift {
    back: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Shift {
    fn name(&self) -> &str {
        if self.back {
            "timestamp_minus_interval"
        } else {
            "timestamp_plus_interval"
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let time = match &arguments[0] {
            DataType::Timestamp(_, zone) => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            _ => MICROS,
        };
        Ok(vec![time, DataType::Interval(IntervalUnit::MonthDayNano)])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalars { 1 } else { args.number_rows };
        let sign = if self.back { -1 } else { 1 };
        let mut arrays = Vec::new();
        for argument in args.args {
            arrays.push(argument.into_array(rows)?);
        }
        let times = arrays[0].as_primitive::<TimestampMicrosecondType>();
        let intervals = arrays[1].as_primitive::<IntervalMonthDayNanoType>();
        let shifted: TimestampMicrosecondArray =
            binary(times, intervals, |time, by| moved(time, by, sign))?;
        let result: ArrayRef = Arc::new(shifted.with_data_type(times.data_type().clone()));
        match scalars {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &result, 0,
            )?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

/// `f` of the rows in which neither side is NULL.
fn binary(
    times: &TimestampMicrosecondArray,
    intervals: &PrimitiveArray<IntervalMonthDayNanoType>,
    f: impl Fn(i64, IntervalMonthDayNano) -> Option<i64>,
) -> Result<TimestampMicrosecondArray> {
    times
        .iter()
        .zip(intervals.iter())
        .map(|(time, interval)| match (time, interval) {
            (Some(time), Some(interval)) => f(time, interval).map(Some).ok_or_else(|| {
                let error = SqlError::new(SqlState::DATETIME_OVERFLOW, "timestamp out of range");
                crate::errors::external(error)
            }),
            _ => Ok(None),
        })
        .collect()
}

fn moved(time: i64, by: IntervalMonthDayNano, sign: i64) -> Option<i64> {
    const DAY: i64 = 86_400_000_000;
    let (mut days, rest) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    if by.months != 0 {
        let (year, month, day) = civil_from_days(days);
        let months = year * 12 + i64::from(month) - 1 + sign * i64::from(by.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
        days = days_from_civil(year, month, day.min(last_day(year, month)));
    }
    days = days.checked_add(sign * i64::from(by.days))?;
    days.checked_mul(DAY)?
        .checked_add(rest)?
        .checked_add(sign * (by.nanoseconds / 1000))
}

fn last_day(year: i64, month: u32) -> u32 {
    let (next_year, next) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    (days_from_civil(next_year, next, 1) - days_from_civil(year, month, 1)) as u32
}

/// `timestamp - timestamp`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Difference {
    signature: Signature,
}

impl ScalarUDFImpl for Difference {
    fn name(&self) -> &str {
        "timestamp_difference"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalars { 1 } else { args.number_rows };
        let mut arrays = Vec::new();
        for argument in args.args {
            arrays.push(cast(&argument.into_array(rows)?, &MICROS)?);
        }
        let result = differences(&arrays[0], &arrays[1]);
        match scalars {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &result, 0,
            )?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

fn differences(left: &ArrayRef, right: &ArrayRef) -> ArrayRef {
    const DAY: i64 = 86_400_000_000;
    let (left, right) = (
        left.as_primitive::<TimestampMicrosecondType>(),
        right.as_primitive::<TimestampMicrosecondType>(),
    );
    let mut builder = IntervalMonthDayNanoBuilder::with_capacity(left.len());
    for row in 0..left.len() {
        if left.is_null(row) || right.is_null(row) {
            builder.append_null();
            continue;
        }
        // Kept timestamps lie within half of what 64 bits hold, and days fit 32 bits.
        let micros = left.value(row).saturating_sub(right.value(row));
        let days = i32::try_from(micros / DAY).expect("fewer than 2^31 days fit 2^63 microseconds");
        builder.append_value(IntervalMonthDayNano::new(0, days, micros % DAY * 1000));
    }
    Arc::new(builder.finish())
}

//! Arithmetic on dates and timestamps with Postgres' result types.
//!
//! | expression | type | DataFusion's |
//! |---|---|---|
//! | `date ± interval` | `timestamp` | `date` |
//! | `date - date` | `integer`, in days | interval |
//! | `date ± integer` | `date` | none |
//! | `timestamp - timestamp` | `interval` of days and time | duration |

use datafusion::arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use std::sync::{Arc, OnceLock};

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![difference().clone()]
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
    if !matches!(binary.op, Operator::Plus | Operator::Minus) {
        return Ok(None);
    }
    let (left, right) = (binary.left.get_type(schema)?, binary.right.get_type(schema)?);
    let (l, r) = (binary.left.as_ref().clone(), binary.right.as_ref().clone());
    let again = |l: Expr, r: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(l), binary.op, Box::new(r)));
    Ok(match (&left, binary.op, &right) {
        (Date32, _, Interval(_)) => Some(again(to(l, MICROS), r)),
        (Interval(_), Operator::Plus, Date32) => Some(again(l, to(r, MICROS))),
        (Date32, Operator::Minus, Date32) => Some(again(to(l, DataType::Int32), to(r, DataType::Int32))),
        (Date32, _, days) if days.is_integer() => {
            Some(to(again(to(l, DataType::Int32), to(r, DataType::Int32)), Date32))
        }
        (days, Operator::Plus, Date32) if days.is_integer() => {
            Some(to(again(to(l, DataType::Int32), to(r, DataType::Int32)), Date32))
        }
        (Timestamp(..) | Date32, Operator::Minus, Timestamp(..)) | (Timestamp(..), Operator::Minus, Date32) => {
            let args = vec![to(l, MICROS), to(r, MICROS)];
            Some(Expr::ScalarFunction(ScalarFunction { func: difference().clone(), args }))
        }
        _ => None,
    })
}

fn to(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), data_type))
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
        let scalars = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalars { 1 } else { args.number_rows };
        let mut arrays = Vec::new();
        for argument in args.args {
            arrays.push(cast(&argument.into_array(rows)?, &MICROS)?);
        }
        let result = differences(&arrays[0], &arrays[1]);
        match scalars {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

fn differences(left: &ArrayRef, right: &ArrayRef) -> ArrayRef {
    const DAY: i64 = 86_400_000_000;
    let (left, right) =
        (left.as_primitive::<TimestampMicrosecondType>(), right.as_primitive::<TimestampMicrosecondType>());
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

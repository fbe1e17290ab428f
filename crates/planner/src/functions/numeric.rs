//! `numeric` arithmetic where DataFusion's differs from Postgres'.
//!
//! Arrow's decimal division keeps four more decimals than its dividend and truncates; ours keeps at least sixteen and rounds.
//! Casts to whole numbers round (`numeric` half away from zero, floats half to even), where Arrow's cut off.
//! Arrow's product of two long decimals has no digits left in front of the point; ours stops at [`LONG_SCALE`] decimals.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Builder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, i256};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::error::DataFusionError::ArrowError as Arrow;
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use std::sync::{Arc, OnceLock};
use tidegate_types::{SqlError, SqlState};

/// Decimals that a quotient has at least.
const QUOTIENT_SCALE: i8 = 16;
/// Decimals beyond which products are rounded, so that at least 18 digits remain in front of the point.
const LONG_SCALE: i8 = 20;
const MAX_PRECISION: u8 = 38;

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        udf(Kind::Divide).clone(),
        udf(Kind::Multiply).clone(),
        rint().clone(),
    ]
}

/// The cast of a number with decimals to a whole one.
pub(super) fn rewrite_cast(cast: &Cast, schema: &DFSchema) -> Result<Option<Expr>> {
    if !cast.field.data_type().is_integer() {
        return Ok(None);
    }
    let whole = match cast.expr.get_type(schema)? {
        DataType::Decimal128(_, scale) if scale > 0 => {
            let round = super::registry()
                .scalar
                .get("round")
                .expect("the library has it")
                .clone();
            let args = vec![
                cast.expr.as_ref().clone(),
                datafusion::logical_expr::lit(0i32),
            ];
            Expr::ScalarFunction(ScalarFunction { func: round, args })
        }
        float if float.is_floating() => {
            let done = matches!(cast.expr.as_ref(), Expr::ScalarFunction(f) if f.name() == "rint");
            if done {
                return Ok(None);
            }
            round_ties_even(cast.expr.as_ref().clone())
        }
        _ => return Ok(None),
    };
    Ok(Some(Expr::Cast(Cast {
        expr: Box::new(whole),
        field: cast.field.clone(),
    })))
}

/// The nearest whole number to a float, as a float.
pub(super) fn round_ties_even(float: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction {
        func: rint().clone(),
        args: vec![float],
    })
}

fn rint() -> &'static Arc<ScalarUDF> {
    static FUNCTION: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    FUNCTION.get_or_init(|| {
        let signature = Signature::uniform(
            1,
            vec![DataType::Float32, DataType::Float64],
            Volatility::Immutable,
        );
        Arc::new(ScalarUDF::new_from_impl(Rint { signature }))
    })
}

/// The nearest whole number as a float, the even one of two.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Rint {
    signature: Signature,
}

impl ScalarUDFImpl for Rint {
    fn name(&self) -> &str {
        "rint"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rounded = |array: &ArrayRef| -> ArrayRef {
            match array.data_type() {
                DataType::Float32 => Arc::new(
                    array
                        .as_primitive::<Float32Type>()
                        .unary::<_, Float32Type>(f32::round_ties_even),
                ),
                _ => Arc::new(
                    array
                        .as_primitive::<Float64Type>()
                        .unary::<_, Float64Type>(f64::round_ties_even),
                ),
            }
        };
        Ok(match &args.args[0] {
            ColumnarValue::Array(array) => ColumnarValue::Array(rounded(array)),
            ColumnarValue::Scalar(scalar) => {
                let value = datafusion::common::ScalarValue::try_from_array(
                    &rounded(&scalar.to_array()?),
                    0,
                )?;
                ColumnarValue::Scalar(value)
            }
        })
    }
}

fn udf(kind: Kind) -> &'static Arc<ScalarUDF> {
    static FUNCTIONS: OnceLock<[Arc<ScalarUDF>; 2]> = OnceLock::new();
    let made = FUNCTIONS.get_or_init(|| {
        [Kind::Divide, Kind::Multiply].map(|kind| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(ScalarUDF::new_from_impl(Numeric { kind, signature }))
        })
    });
    match kind {
        Kind::Divide => &made[0],
        Kind::Multiply => &made[1],
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Divide,
    Multiply,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Numeric {
    kind: Kind,
    signature: Signature,
}

/// The operator's replacement where both operands are exact and one is a decimal.
pub(super) fn rewrite(binary: &BinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
    let kind = match binary.op {
        Operator::Divide => Kind::Divide,
        Operator::Multiply => Kind::Multiply,
        _ => return Ok(None),
    };
    let (left, right) = (
        binary.left.get_type(schema)?,
        binary.right.get_type(schema)?,
    );
    let exact = |t: &DataType| t.is_integer() || matches!(t, DataType::Decimal128(..));
    let decimal = |t: &DataType| matches!(t, DataType::Decimal128(..));
    if !exact(&left) || !exact(&right) || !(decimal(&left) || decimal(&right)) {
        return Ok(None);
    }
    if kind == Kind::Multiply && scale_of(&left) + scale_of(&right) <= LONG_SCALE {
        return Ok(None);
    }
    let args = vec![*binary.left.clone(), *binary.right.clone()];
    Ok(Some(Expr::ScalarFunction(ScalarFunction {
        func: udf(kind).clone(),
        args,
    })))
}

fn scale_of(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

impl ScalarUDFImpl for Numeric {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Divide => "numeric_div",
            Kind::Multiply => "numeric_mul",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        arguments
            .iter()
            .map(|argument| match argument {
                DataType::Decimal128(..) => Ok(argument.clone()),
                DataType::UInt64 => Ok(DataType::Decimal128(20, 0)),
                integer if integer.is_integer() => Ok(DataType::Decimal128(19, 0)),
                DataType::Null => Ok(DataType::Decimal128(1, 0)),
                other => Err(DataFusionError::Plan(format!(
                    "function '{}' does not support {other}",
                    self.name()
                ))),
            })
            .collect()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let (left, right) = (scale_of(&arguments[0]), scale_of(&arguments[1]));
        let scale = match self.kind {
            Kind::Divide => QUOTIENT_SCALE.max(left).max(right),
            Kind::Multiply => (left + right).min(LONG_SCALE.max(left).max(right)),
        };
        Ok(DataType::Decimal128(MAX_PRECISION, scale))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalars { 1 } else { args.number_rows };
        let mut arrays = args
            .args
            .into_iter()
            .map(|a| decimals(a, rows))
            .collect::<Result<Vec<_>>>()?
            .into_iter();
        let mut next = || arrays.next().expect("two arguments");
        let (left, right) = (next(), next());
        let output = args.return_field.data_type();
        let array = apply(self.kind, &left, &right, scale_of(output))?;
        if scalars {
            return Ok(ColumnarValue::Scalar(
                datafusion::common::ScalarValue::try_from_array(&array, 0)?,
            ));
        }
        Ok(ColumnarValue::Array(array))
    }
}

fn decimals(value: ColumnarValue, rows: usize) -> Result<ArrayRef> {
    let array = value.into_array(rows)?;
    match array.data_type() {
        DataType::Decimal128(..) => Ok(array),
        _ => Ok(cast(&array, &DataType::Decimal128(MAX_PRECISION, 0))?),
    }
}

fn apply(kind: Kind, left: &ArrayRef, right: &ArrayRef, scale: i8) -> Result<ArrayRef> {
    let (left_scale, right_scale) = (scale_of(left.data_type()), scale_of(right.data_type()));
    let (left, right) = (
        left.as_primitive::<Decimal128Type>(),
        right.as_primitive::<Decimal128Type>(),
    );
    let mut builder = Decimal128Builder::with_capacity(left.len())
        .with_data_type(DataType::Decimal128(MAX_PRECISION, scale));
    for row in 0..left.len() {
        if left.is_null(row) || right.is_null(row) {
            builder.append_null();
            continue;
        }
        let (a, b) = (
            i256::from_i128(left.value(row)),
            i256::from_i128(right.value(row)),
        );
        let result = match kind {
            Kind::Divide if b == i256::ZERO => {
                return Err(Arrow(
                    Box::new(datafusion::arrow::error::ArrowError::DivideByZero),
                    None,
                ));
            }
            Kind::Divide => rescale(a, left_scale - right_scale, b, scale),
            Kind::Multiply => a
                .checked_mul(b)
                .and_then(|p| rescale(p, left_scale + right_scale, i256::ONE, scale)),
        };
        match result
            .and_then(i256::to_i128)
            .filter(|v| fits(*v, MAX_PRECISION))
        {
            Some(value) => builder.append_value(value),
            None => return Err(out_of_range("numeric")),
        }
    }
    Ok(Arc::new(builder.finish()))
}

pub(super) fn fits(value: i128, precision: u8) -> bool {
    value.unsigned_abs() < 10u128.pow(u32::from(precision))
}

pub(super) fn out_of_range(name: &str) -> DataFusionError {
    crate::errors::external(SqlError::new(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("{name} out of range"),
    ))
}

/// `value / divisor` moved from scale `from` to scale `to`, rounded half away from zero.
pub(super) fn rescale(value: i256, from: i8, divisor: i256, to: i8) -> Option<i256> {
    let shift = i32::from(to) - i32::from(from);
    let power = i256::from_i128(10).checked_pow(shift.unsigned_abs())?;
    let (numerator, denominator) = match shift {
        0.. => (value.checked_mul(power)?, divisor),
        _ => (value, divisor.checked_mul(power)?),
    };
    let quotient = numerator.checked_div(denominator)?;
    let remainder = numerator.checked_rem(denominator)?;
    if remainder.wrapping_abs().checked_mul(i256::from_i128(2))? < denominator.wrapping_abs() {
        return Some(quotient);
    }
    let away = if (numerator < i256::ZERO) == (denominator < i256::ZERO) {
        i256::ONE
    } else {
        i256::MINUS_ONE
    };
    quotient.checked_add(away)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(a: i128, b: i128, to: i8) -> Option<i128> {
        rescale(i256::from_i128(a), 0, i256::from_i128(b), to).and_then(i256::to_i128)
    }

    // Postgres: select round(a::numeric / b, s).
    #[test]
    fn quotients_round_half_away_from_zero() {
        assert_eq!(divided(5, 3, 2), Some(167));
        assert_eq!(divided(-5, 3, 2), Some(-167));
        assert_eq!(divided(1, 2, 0), Some(1));
        assert_eq!(divided(-1, 2, 0), Some(-1));
        assert_eq!(divided(1, 3, 4), Some(3333));
    }
}

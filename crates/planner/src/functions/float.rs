//! Division of floats by zero is an error, as in Postgres; IEEE has infinity and NaN for it.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use std::sync::{Arc, OnceLock};
use tidegate_types::{SqlError, SqlState};

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![divide().clone()]
}

fn divide() -> &'static Arc<ScalarUDF> {
    static FUNCTION: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    FUNCTION.get_or_init(|| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Divide { signature }))
    })
}

/// The operator's replacement where an operand is a float and the other a number.
pub(super) fn rewrite(binary: &BinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
    if binary.op != Operator::Divide {
        return Ok(None);
    }
    let (left, right) = (
        binary.left.get_type(schema)?,
        binary.right.get_type(schema)?,
    );
    if !(left.is_numeric() && right.is_numeric() && (left.is_floating() || right.is_floating())) {
        return Ok(None);
    }
    Ok(Some(Expr::ScalarFunction(ScalarFunction {
        func: divide().clone(),
        args: vec![*binary.left.clone(), *binary.right.clone()],
    })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Divide {
    signature: Signature,
}

impl ScalarUDFImpl for Divide {
    fn name(&self) -> &str {
        "float_div"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let single = arguments.iter().all(|t| *t == DataType::Float32);
        let both = if single {
            DataType::Float32
        } else {
            DataType::Float64
        };
        Ok(vec![both.clone(), both])
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
        let mut arrays = Vec::new();
        for argument in args.args {
            arrays.push(argument.into_array(rows)?);
        }
        let result = match arrays[0].data_type() {
            DataType::Float32 => {
                quotients::<Float32Type>(&arrays, |a, b| a / b, |b| b == 0.0, f32::is_nan)?
            }
            _ => quotients::<Float64Type>(&arrays, |a, b| a / b, |b| b == 0.0, f64::is_nan)?,
        };
        Ok(match scalars {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

fn quotients<T: ArrowPrimitiveType>(
    arrays: &[ArrayRef],
    quotient: impl Fn(T::Native, T::Native) -> T::Native,
    is_zero: impl Fn(T::Native) -> bool,
    is_nan: impl Fn(T::Native) -> bool,
) -> Result<ArrayRef> {
    let (left, right) = (arrays[0].as_primitive::<T>(), arrays[1].as_primitive::<T>());
    let zero = (0..left.len()).any(|row| {
        left.is_valid(row)
            && right.is_valid(row)
            && is_zero(right.value(row))
            && !is_nan(left.value(row))
    });
    if zero {
        let error = SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero");
        return Err(crate::errors::external(error));
    }
    let divided: PrimitiveArray<T> = datafusion::arrow::compute::binary(left, right, quotient)?;
    Ok(Arc::new(divided))
}

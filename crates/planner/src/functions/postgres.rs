//! Functions that Postgres has and DataFusion has under another name or not at all.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr_fn::binary_expr;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use std::sync::Arc;
use tidegate_types::SqlType;

/// Postgres' name and DataFusion's.
pub(super) const SCALAR_ALIASES: &[(&str, &str)] = &[
    ("ceiling", "ceil"),
    ("sign", "signum"),
    ("gen_random_uuid", "uuid"),
];

pub(super) const AGGREGATE_ALIASES: &[(&str, &str)] = &[("every", "bool_and"), ("variance", "var")];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::new_from_impl(Mod::new())),
        Arc::new(ScalarUDF::new_from_impl(TypeOf::new())),
    ]
}

/// `mod(a, b)` is `a % b`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Mod {
    signature: Signature,
}

impl Mod {
    fn new() -> Self {
        Self {
            signature: Signature::one_of(vec![TypeSignature::Numeric(2)], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Mod {
    fn name(&self) -> &str {
        "mod"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn simplify(&self, mut args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match (args.pop(), args.pop()) {
            (Some(right), Some(left)) => Ok(ExprSimplifyResult::Simplified(binary_expr(
                left,
                Operator::Modulo,
                right,
            ))),
            _ => Err(DataFusionError::Plan(
                "function 'mod' expects two arguments".to_owned(),
            )),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut arrays = ColumnarValue::values_to_arrays(&args.args)?.into_iter();
        match (arrays.next(), arrays.next()) {
            (Some(left), Some(right)) => Ok(ColumnarValue::Array(
                datafusion::arrow::compute::kernels::numeric::rem(&left, &right)?,
            )),
            _ => Err(DataFusionError::Plan(
                "function 'mod' expects two arguments".to_owned(),
            )),
        }
    }
}

/// `pg_typeof(x)`: the name of an expression's type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeOf {
    signature: Signature,
}

impl TypeOf {
    fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for TypeOf {
    fn name(&self) -> &str {
        "pg_typeof"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let field = &args.arg_fields[0];
        let name = match field.data_type() {
            DataType::Null => "unknown".to_owned(),
            // A type modifier is not part of what pg_typeof shows.
            _ => match SqlType::from_field(field) {
                SqlType::Numeric { .. } => "numeric".to_owned(),
                SqlType::Varchar { .. } => "character varying".to_owned(),
                SqlType::Char { .. } => "character".to_owned(),
                other => other.to_string(),
            },
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))))
    }
}

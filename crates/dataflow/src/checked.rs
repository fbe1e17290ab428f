//! Arithmetic as Postgres does it, over DataFusion's physical expressions.
//!
//! DataFusion wraps integers on overflow, negates the smallest integer to itself and divides floats by zero to infinity.
//! Here each of these is an error of the row: `+ - *` use the checked kernels, `-x` of an integer becomes `0 - x`, and
//! arithmetic on floats and decimals is looked over afterwards for results that Postgres would refuse.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The same expression with every arithmetic step checked.
pub fn checked(expression: Arc<dyn PhysicalExpr>, input: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let rewritten = expression.transform_up(|node| {
        if let Some(negative) = (node.as_ref() as &dyn std::any::Any).downcast_ref::<NegativeExpr>()
        {
            let data_type = negative.arg().data_type(input)?;
            if data_type.is_signed_integer() {
                let zero: Arc<dyn PhysicalExpr> =
                    Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
                let minus = BinaryExpr::new(zero, Operator::Minus, negative.arg().clone())
                    .with_fail_on_overflow(true);
                return Ok(Transformed::yes(Arc::new(minus) as Arc<dyn PhysicalExpr>));
            }
        }
        match (node.as_ref() as &dyn std::any::Any).downcast_ref::<BinaryExpr>() {
            Some(binary) if is_arithmetic(*binary.op()) => {
                let exact =
                    BinaryExpr::new(binary.left().clone(), *binary.op(), binary.right().clone())
                        .with_fail_on_overflow(true);
                let result = exact.data_type(input)?;
                let exact: Arc<dyn PhysicalExpr> = Arc::new(exact);
                Ok(Transformed::yes(match result {
                    DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => {
                        Arc::new(InRange(exact)) as _
                    }
                    _ => exact,
                }))
            }
            _ => Ok(Transformed::no(node)),
        }
    })?;
    Ok(rewritten.data)
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(
        op,
        Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo
    )
}

/// A binary arithmetic expression whose result must be a value that Postgres would have given: a finite float from finite
/// operands, a decimal within its precision.
#[derive(Debug)]
struct InRange(Arc<dyn PhysicalExpr>);

impl InRange {
    fn binary(&self) -> &BinaryExpr {
        (self.0.as_ref() as &dyn std::any::Any)
            .downcast_ref::<BinaryExpr>()
            .expect("made around one")
    }

    /// Only called when some result is not finite, which is rare.
    fn explain_float(&self, rows: &RecordBatch, result: &ArrayRef) -> Result<()> {
        let left = self
            .binary()
            .left()
            .evaluate(rows)?
            .into_array(rows.num_rows())?;
        let right = self
            .binary()
            .right()
            .evaluate(rows)?
            .into_array(rows.num_rows())?;
        let (left, right, result) = (floats(&left)?, floats(&right)?, floats(result)?);
        let divides = matches!(self.binary().op(), Operator::Divide | Operator::Modulo);
        for ((left, right), result) in left.iter().zip(&right).zip(&result) {
            let (Some(left), Some(right), Some(result)) = (left, right, result) else {
                continue;
            };
            if divides && *right == 0.0 && !left.is_nan() {
                return Err(ArrowError::DivideByZero.into());
            }
            if result.is_infinite() && left.is_finite() && right.is_finite() {
                return Err(ArrowError::ArithmeticOverflow("overflow".into()).into());
            }
        }
        Ok(())
    }
}

fn floats(array: &ArrayRef) -> Result<Vec<Option<f64>>> {
    Ok(match array.data_type() {
        DataType::Float32 => array
            .as_primitive::<Float32Type>()
            .iter()
            .map(|v| v.map(f64::from))
            .collect(),
        DataType::Float64 => array.as_primitive::<Float64Type>().iter().collect(),
        other => return Err(DataFusionError::Internal(format!("not a float: {other}"))),
    })
}

fn all_finite(array: &ArrayRef) -> bool {
    match array.data_type() {
        DataType::Float32 => array
            .as_primitive::<Float32Type>()
            .values()
            .iter()
            .all(|v| v.is_finite()),
        DataType::Float64 => array
            .as_primitive::<Float64Type>()
            .values()
            .iter()
            .all(|v| v.is_finite()),
        _ => true,
    }
}

impl PhysicalExpr for InRange {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.0.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.0.nullable(input)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        let value = self.0.evaluate(rows)?;
        let array = value.to_array(rows.num_rows())?;
        match array.data_type() {
            DataType::Decimal128(precision, _) => {
                array
                    .as_primitive::<Decimal128Type>()
                    .validate_decimal_precision(*precision)?;
            }
            _ if all_finite(&array) => {}
            _ => self.explain_float(rows, &array)?,
        }
        Ok(value)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.0.children()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(InRange(
            self.0.clone().with_new_children(children)?,
        )))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

impl fmt::Display for InRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for InRange {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Eq for InRange {}

impl Hash for InRange {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

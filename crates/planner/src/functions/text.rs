//! Casts from and to text, by Postgres' input and output functions.
//!
//! Arrow's own casts write `2024-01-01T00:00:00` and know neither `uuid` nor `jsonb`. A cast between `text` and another type
//! becomes a call of one of these functions when the query is analyzed. A string literal that is compared with a value
//! of another type takes that type, as Postgres' untyped literals do.

use datafusion::arrow::array::{ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::{Arc, OnceLock};
use tidegate_types::SqlType;
use tidegate_types::text::{ValueAppender, from_text, parse_text, to_text};

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![write().clone()]
}

fn write() -> &'static Arc<ScalarUDF> {
    static WRITE: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    WRITE.get_or_init(|| {
        Arc::new(ScalarUDF::new_from_impl(ToText {
            signature: Signature::any(1, Volatility::Immutable),
        }))
    })
}

/// The type of an expression, with what its metadata says.
fn sql_type(expr: &Expr, schema: &DFSchema) -> Result<SqlType> {
    Ok(SqlType::from_field(expr.to_field(schema)?.1.as_ref()))
}

fn is_text(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Text | SqlType::Varchar { .. } | SqlType::Char { .. } | SqlType::Other(_)
    )
}

/// The call that a cast becomes, if text is involved.
pub(super) fn rewrite_cast(from: &Cast, schema: &DFSchema) -> Result<Option<Expr>> {
    let source_field = from.expr.to_field(schema)?.1;
    let target = SqlType::from_field(&from.field);
    let source = SqlType::from_field(&source_field);
    if source_field.data_type() == &DataType::Null {
        return Ok(None);
    }
    // Text to varchar(n) cuts to length; the fitted value is read by the type's own rules.
    let fitted = matches!(target, SqlType::Varchar { .. } | SqlType::Char { .. });
    if is_text(&source) && (!is_text(&target) || fitted) && source != target {
        return Ok(Some(read(*from.expr.clone(), target)?));
    }
    if is_text(&target) && !is_text(&source) && known(&source_field) {
        let text = Expr::ScalarFunction(ScalarFunction {
            func: write().clone(),
            args: vec![*from.expr.clone()],
        });
        return Ok(Some(if fitted { read(text, target)? } else { text }));
    }
    Ok(None)
}

/// Types that the text forms exist for. Others (unions of the JSON functions) keep their own casts.
fn known(field: &Field) -> bool {
    !matches!(
        field.data_type(),
        DataType::Union(..) | DataType::Map(..) | DataType::Dictionary(..)
    )
}

/// A comparison with a string literal on one side.
pub(super) fn rewrite_comparison(binary: &BinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    if !matches!(
        binary.op,
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
    ) {
        return Ok(None);
    }
    let (left, right) = (&binary.left, &binary.right);
    let typed = |text: &Expr, other: &Expr| -> Result<Option<Expr>> {
        if !is_string_literal(text) || is_string_literal(other) {
            return Ok(None);
        }
        let wanted = sql_type(other, schema)?;
        if is_text(&wanted) {
            Ok(None)
        } else {
            read(text.clone(), wanted).map(Some)
        }
    };
    let rebuilt = |left: Expr, right: Expr| {
        Expr::BinaryExpr(BinaryExpr::new(Box::new(left), binary.op, Box::new(right)))
    };
    if let Some(left) = typed(left, right)? {
        return Ok(Some(rebuilt(left, *right.clone())));
    }
    Ok(typed(right, left)?.map(|right| rebuilt(*left.clone(), right)))
}

/// A literal of a list or range, in the type of what it is compared with.
pub(super) fn typed_literal(
    literal: &Expr,
    with: &Expr,
    schema: &DFSchema,
) -> Result<Option<Expr>> {
    if !is_string_literal(literal) || is_string_literal(with) {
        return Ok(None);
    }
    let wanted = sql_type(with, schema)?;
    if is_text(&wanted) {
        Ok(None)
    } else {
        read(literal.clone(), wanted).map(Some)
    }
}

fn is_string_literal(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Literal(
            ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)),
            _
        )
    )
}

/// The text read as a type. A literal is read now, so that a bad one is an error of the statement.
fn read(text: Expr, target: SqlType) -> Result<Expr> {
    if let Expr::Literal(
        ScalarValue::Utf8(Some(literal)) | ScalarValue::Utf8View(Some(literal)),
        _,
    ) = &text
    {
        let value = parse_text(cut(literal, &target), &target).map_err(crate::errors::external)?;
        let mut appender = ValueAppender::new(&target, 1);
        appender.append(&value);
        let scalar = ScalarValue::try_from_array(&appender.finish(), 0)?;
        let metadata = FieldMetadata::from(&target.field("", false));
        return Ok(Expr::Literal(
            scalar,
            (!metadata.is_empty()).then_some(metadata),
        ));
    }
    let func = reader_of(target);
    Ok(Expr::ScalarFunction(ScalarFunction {
        func,
        args: vec![text],
    }))
}

/// The function that reads values of a type from text.
pub(super) fn reader_of(target: SqlType) -> Arc<ScalarUDF> {
    let name = format!("cast_text_to_{}", target.to_string().replace(' ', "_"));
    let signature = Signature::string(1, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(FromText {
        name,
        target,
        signature,
    }))
}

/// An explicit cast to `varchar(n)` or `char(n)` cuts what is too long; only writing to a column refuses it.
fn cut<'a>(text: &'a str, target: &SqlType) -> &'a str {
    match target {
        SqlType::Varchar { length } | SqlType::Char { length } => text
            .char_indices()
            .nth(*length as usize)
            .map_or(text, |(end, _)| &text[..end]),
        _ => text,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FromText {
    name: String,
    target: SqlType,
    signature: Signature,
}

impl ScalarUDFImpl for FromText {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.target.arrow())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(
            self.target
                .field(&self.name, args.arg_fields[0].is_nullable()),
        ))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        map(&args.args[0], |array| {
            let text = cast(array, &DataType::Utf8)?;
            let text = text.as_string::<i32>();
            let fitted;
            let text = match self.target {
                SqlType::Varchar { .. } | SqlType::Char { .. } => {
                    fitted = text
                        .iter()
                        .map(|t| t.map(|t| cut(t, &self.target)))
                        .collect::<StringArray>();
                    &fitted
                }
                _ => text,
            };
            from_text(text, &self.target).map_err(|(_, error)| crate::errors::external(error))
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToText {
    signature: Signature,
}

impl ScalarUDFImpl for ToText {
    fn name(&self) -> &str {
        "cast_to_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let source = SqlType::from_field(&args.arg_fields[0]);
        map(&args.args[0], |array| {
            let kept = source.arrow();
            let array = if *array.data_type() == kept {
                array.clone()
            } else {
                cast(array, &kept)?
            };
            Ok(Arc::new(to_text(&array, &source)))
        })
    }
}

/// A function over arrays applied to an array or, as one row, to a scalar.
fn map(value: &ColumnarValue, f: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<ColumnarValue> {
    Ok(match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(f(array)?),
        ColumnarValue::Scalar(scalar) => {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&f(&scalar.to_array()?)?, 0)?)
        }
    })
}

//! What picks one of several values keeps the SQL type that the values have.
//!
//! `uuid` and `jsonb` are known by the metadata of a field, which DataFusion drops where an expression chooses: `CASE`,
//! `coalesce`, `nullif`, `greatest`, elements of arrays, arrays of values. Such an expression becomes the argument of a
//! function that changes nothing and says the type. Likewise a scalar sub-query that may have no row is said to be nullable.

use datafusion::arrow::array::{ArrayRef, make_array};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;
use tidegate_types::SqlType;

/// Our forms of functions of the library.
pub(super) fn functions(library: &[Arc<ScalarUDF>]) -> Vec<Arc<ScalarUDF>> {
    let alternatives = ["coalesce", "greatest", "least"];
    let library = library.iter().filter(|f| alternatives.contains(&f.name()));
    library
        .map(|inner| {
            Arc::new(ScalarUDF::new_from_impl(Alternatives {
                inner: inner.clone(),
                signature: Signature::user_defined(Volatility::Immutable),
            }))
        })
        .collect()
}

/// The expression with its type said, where that would be lost.
pub(super) fn rewrite(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    if let Expr::ScalarFunction(outer) = expr
        && outer.name().starts_with(PREFIX)
    {
        // Analyzed twice: said once is enough.
        return Ok(match &outer.args[0] {
            Expr::ScalarFunction(inner) if inner.name() == outer.name() => {
                Some(outer.args[0].clone())
            }
            _ => None,
        });
    }
    if let Expr::ScalarSubquery(subquery) = expr {
        return optional(expr, &subquery.subquery);
    }
    let Some(target) = target(expr, schema)? else {
        return Ok(None);
    };
    if sql_type(expr, schema)? == target {
        return Ok(None);
    }
    let func = typed(target, false);
    Ok(Some(Expr::ScalarFunction(ScalarFunction {
        func,
        args: vec![expr.clone()],
    })))
}

const PREFIX: &str = "typed_as_";

/// The function that says this type, and whether a value may be missing where none is NULL.
pub(super) fn typed(target: SqlType, may_be_missing: bool) -> Arc<ScalarUDF> {
    let optional = if may_be_missing { "optional_" } else { "" };
    let name = target.to_string().replace("[]", "_array");
    Arc::new(ScalarUDF::new_from_impl(Typed {
        name: format!("{PREFIX}{optional}{name}"),
        target,
        may_be_missing,
        signature: Signature::any(1, Volatility::Immutable),
    }))
}

/// A sub-query without a row is NULL, even where its column never is.
fn optional(expr: &Expr, subquery: &LogicalPlan) -> Result<Option<Expr>> {
    let field = subquery.schema().field(0);
    if field.is_nullable() || has_one_row(subquery) {
        return Ok(None);
    }
    let target = SqlType::from_field(field);
    let func = typed(target, true);
    Ok(Some(Expr::ScalarFunction(ScalarFunction {
        func,
        args: vec![expr.clone()],
    })))
}

fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(one) => one.produce_one_row,
        _ => false,
    }
}

fn sql_type(expr: &Expr, schema: &DFSchema) -> Result<SqlType> {
    Ok(SqlType::from_field(expr.to_field(schema)?.1.as_ref()))
}

fn is_in_metadata(sql_type: &SqlType) -> bool {
    match sql_type {
        SqlType::Uuid | SqlType::Jsonb => true,
        SqlType::Array(element) => is_in_metadata(element),
        _ => false,
    }
}

/// The type that all values to choose from have, if metadata tells it.
fn target(expr: &Expr, schema: &DFSchema) -> Result<Option<SqlType>> {
    let chosen = match expr {
        Expr::Case(case) => {
            let thens = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
            common(thens.chain(case.else_expr.as_deref()), schema)?
        }
        Expr::ScalarFunction(function) => {
            let args = function.args.iter();
            match function.name() {
                "coalesce" | "greatest" | "least" => common(args, schema)?,
                "nullif" | "array_append" | "array_concat" | "array_remove" | "array_slice"
                | "array_distinct" | "array_reverse" => common(args.take(1), schema)?,
                "make_array" => common(args, schema)?.map(|t| SqlType::Array(Box::new(t))),
                "array_element" => match common(args.take(1), schema)? {
                    Some(SqlType::Array(element)) => Some(*element),
                    _ => None,
                },
                _ => None,
            }
        }
        _ => None,
    };
    Ok(chosen.filter(is_in_metadata))
}

/// The one type of these expressions, NULLs aside.
fn common<'a>(
    expressions: impl Iterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Result<Option<SqlType>> {
    let mut found = None;
    for expr in expressions {
        let field = expr.to_field(schema)?.1;
        if field.data_type() == &DataType::Null {
            continue;
        }
        let this = SqlType::from_field(&field);
        if found.as_ref().is_some_and(|found| *found != this) {
            return Ok(None);
        }
        found = Some(this);
    }
    Ok(found)
}

/// Its argument, which is of this type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Typed {
    name: String,
    target: SqlType,
    may_be_missing: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Typed {
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
        let is_nullable = self.may_be_missing || args.arg_fields[0].is_nullable();
        Ok(Arc::new(self.target.field(&self.name, is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // Only the fields inside of lists tell such types apart from what they are kept as.
        let typed = |array: &ArrayRef| -> Result<ArrayRef> {
            let wanted = self.target.arrow();
            if *array.data_type() == wanted {
                return Ok(array.clone());
            }
            let data = array.to_data().into_builder().data_type(wanted).build()?;
            Ok(make_array(data))
        };
        Ok(match &args.args[0] {
            ColumnarValue::Array(array) => ColumnarValue::Array(typed(array)?),
            ColumnarValue::Scalar(scalar) => {
                let array = typed(&scalar.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
            }
        })
    }
}

/// A function of the library over values of one type, any of which may be an untyped NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Alternatives {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for Alternatives {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let mut typed = arguments.iter().filter(|t| **t != DataType::Null);
        match typed.next() {
            Some(first) if typed.all(|other| other == first) => {
                Ok(vec![first.clone(); arguments.len()])
            }
            _ => self.inner.coerce_types(arguments),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}

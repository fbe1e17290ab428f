//! The JSON operators, and `&&` of arrays. `->` gives JSON as text rather than a union of types, which no column can hold.

use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion_functions_json::udfs;
use sqlparser::ast::BinaryOperator as Op;
use tidegate_types::SqlType;

/// Goes in front of the library's planner, which maps `->` to a union.
#[derive(Debug)]
pub(super) struct JsonAsText;

impl ExprPlanner for JsonAsText {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let func = match expr.op {
            Op::Arrow => udfs::json_get_json_udf(),
            Op::LongArrow => udfs::json_as_text_udf(),
            _ => return operator(expr, schema),
        };
        // Paths grow: `x -> 'a' -> 'b'` is one call.
        let mut args = match expr.left {
            Expr::ScalarFunction(ScalarFunction { func, args })
                if func.name() == "json_get_json" =>
            {
                args
            }
            other => vec![other],
        };
        args.push(expr.right);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(
            ScalarFunction { func, args },
        )))
    }
}

/// The operators that are calls of our functions.
fn operator(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    let type_of = |e: &Expr| {
        e.to_field(schema)
            .ok()
            .map(|(_, f)| SqlType::from_field(&f))
    };
    let (left, right) = (type_of(&expr.left), type_of(&expr.right));
    let is_json = |t: &Option<SqlType>| matches!(t, Some(SqlType::Jsonb));
    let is_list = |t: &Option<SqlType>| matches!(t, Some(SqlType::Array(_)));
    let either = is_json(&left) || is_json(&right);
    let name = match expr.op {
        Op::HashArrow => "jsonb_at_path",
        Op::HashLongArrow => "jsonb_at_path_text",
        Op::HashMinus => "jsonb_delete_path",
        Op::Question => "jsonb_exists",
        Op::QuestionPipe => "jsonb_exists_any",
        Op::QuestionAnd => "jsonb_exists_all",
        Op::AtArrow | Op::ArrowAt if either => "jsonb_contains",
        Op::StringConcat
            if is_json(&left)
                && !is_list(&right)
                && (is_json(&right) || is_text_literal(&expr.right)) =>
        {
            "jsonb_concat"
        }
        Op::Minus if is_json(&left) => "jsonb_delete",
        Op::PGOverlap if is_list(&left) && is_list(&right) => "array_overlap",
        _ => return Ok(PlannerResult::Original(expr)),
    };
    let func = super::registry()
        .scalar
        .get(name)
        .expect("it is registered with the others")
        .clone();
    let args = match expr.op {
        Op::ArrowAt => vec![expr.right, expr.left],
        _ => vec![expr.left, expr.right],
    };
    Ok(PlannerResult::Planned(Expr::ScalarFunction(
        ScalarFunction { func, args },
    )))
}

fn is_text_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.data_type().is_string())
}

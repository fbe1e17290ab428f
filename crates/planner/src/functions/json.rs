//! The JSON operators. `->` gives JSON as text rather than a union of types, which no column can hold.

use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_functions_json::udfs;
use sqlparser::ast::BinaryOperator;

/// Goes in front of the library's planner, which maps `->` to a union.
#[derive(Debug)]
pub(super) struct JsonAsText;

impl ExprPlanner for JsonAsText {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let func = match expr.op {
            BinaryOperator::Arrow => udfs::json_get_json_udf(),
            BinaryOperator::LongArrow => udfs::json_as_text_udf(),
            _ => return Ok(PlannerResult::Original(expr)),
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

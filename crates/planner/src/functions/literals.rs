//! Integer literals that fit are `integer`, as in Postgres; DataFusion makes all of them `bigint`.
//!
//! Only literals that are operands of operators, branches, list items, cells of VALUES, whole results or arguments of functions
//! that return one of their arguments are narrowed: other functions are written for 64 bits, and coerce.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Operator, Values};

/// Functions whose result has the type of their arguments.
const TRANSPARENT: [&str; 10] = [
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "abs",
    "mod",
    "make_array",
    "pg_typeof",
    // The number of decimals decides their type, and is seen only where nothing has to be cast.
    "round",
    "trunc",
];
/// Aggregates of a literal whose result type depends on it. `count` is told apart by its 64-bit literal.
const AGGREGATES: [&str; 4] = ["sum", "avg", "min", "max"];

/// The expression with its literals narrowed.
pub(super) fn narrow(expr: Expr) -> Result<Transformed<Expr>> {
    let top = narrowed(&expr);
    match top {
        Some(expr) => Ok(Transformed::yes(expr)),
        None => expr.transform_up(operands),
    }
}

/// `VALUES` takes its column types from its cells.
pub(super) fn narrow_values(values: Values) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    let rows: Vec<Vec<Expr>> = values
        .values
        .iter()
        .map(|row| {
            row.iter()
                .map(|cell| {
                    let cell = super::rewrite::rewrite(
                        cell.clone(),
                        &datafusion::common::DFSchema::empty(),
                    )?;
                    Ok(cell)
                })
                .collect::<Result<Vec<Expr>>>()
        })
        .collect::<Result<_>>()?;
    changed |= rows != values.values;
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Values(values)));
    }
    Ok(Transformed::yes(LogicalPlanBuilder::values(rows)?.build()?))
}

fn operands(mut expr: Expr) -> Result<Transformed<Expr>> {
    let mut changed = false;
    let mut each = |operand: &mut Expr| {
        if let Some(narrow) = narrowed(operand) {
            *operand = narrow;
            changed = true;
        }
    };
    match &mut expr {
        Expr::BinaryExpr(binary) if !is_json(binary.op) => {
            each(&mut binary.left);
            each(&mut binary.right);
        }
        Expr::Alias(alias) => each(&mut alias.expr),
        Expr::Between(between) => {
            each(&mut between.expr);
            each(&mut between.low);
            each(&mut between.high);
        }
        Expr::InList(list) => {
            each(&mut list.expr);
            list.list.iter_mut().for_each(each);
        }
        Expr::Case(case) => {
            case.expr.iter_mut().for_each(|e| each(e));
            for (when, then) in &mut case.when_then_expr {
                each(when);
                each(then);
            }
            case.else_expr.iter_mut().for_each(|e| each(e));
        }
        Expr::Cast(cast) => each(&mut cast.expr),
        Expr::Negative(inner) => each(inner),
        Expr::ScalarFunction(function) if TRANSPARENT.contains(&function.name()) => {
            function.args.iter_mut().for_each(each);
        }
        Expr::AggregateFunction(call) if AGGREGATES.contains(&call.func.name()) => {
            call.params.args.iter_mut().for_each(each);
        }
        _ => {}
    }
    Ok(if changed {
        Transformed::yes(expr)
    } else {
        Transformed::no(expr)
    })
}

fn is_json(op: Operator) -> bool {
    matches!(
        op,
        Operator::Arrow | Operator::LongArrow | Operator::HashArrow | Operator::HashLongArrow
    )
}

fn narrowed(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), None) => {
            let value = i32::try_from(*value).ok()?;
            Some(Expr::Literal(ScalarValue::Int32(Some(value)), None))
        }
        _ => None,
    }
}

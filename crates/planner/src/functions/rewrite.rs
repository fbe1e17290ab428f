//! The rewrites that make DataFusion's expressions mean what Postgres means, applied before types are coerced.
//!
//! A rule of the analyzer rather than DataFusion's function rewrites, because those see the types that an input had before
//! it was rewritten itself.

use super::{checked, datetime, float, literals, numeric, outer, same_type, text};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;

#[derive(Debug)]
pub(super) struct PostgresSemantics;

impl AnalyzerRule for PostgresSemantics {
    fn name(&self) -> &str {
        "postgres_semantics"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(node)?.data)
    }
}

fn node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let plan = match plan {
        LogicalPlan::Limit(_) => return Ok(Transformed::no(plan)),
        LogicalPlan::Values(values) => return literals::narrow_values(values),
        plan => plan,
    };
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let plan = outer::refresh_lateral(plan)?;
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = literals::narrow(outer::refresh(expr, &schema)?)?;
        let expr = expr.transform_data(|e| e.transform_up(|inner| expression(inner, &schema)))?;
        Ok(expr.update_data(|expr| name.restore(expr)))
    })?;
    // An input whose types changed changes the types of this node even if no expression here did.
    Ok(Transformed::yes(rewritten.data.recompute_schema()?))
}

/// One expression over a schema.
pub(super) fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(literals::narrow(expr)?
        .data
        .transform_up(|inner| expression(inner, schema))?
        .data)
}

fn expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let rewritten = match &expr {
        Expr::Cast(cast) => match text::rewrite_cast(cast, schema)? {
            Some(expr) => Some(expr),
            None => numeric::rewrite_cast(cast, schema)?,
        },
        Expr::BinaryExpr(binary) => self::binary(binary, schema)?,
        Expr::Between(between) => self::between(between, schema)?,
        Expr::InList(list) => in_list(list, schema)?,
        Expr::ScalarFunction(function) => scalar(function, schema)?,
        Expr::Case(case) => {
            let mut typed = case.clone();
            let thens = typed
                .when_then_expr
                .iter_mut()
                .map(|(_, then)| then.as_mut());
            let branches = thens
                .chain(typed.else_expr.iter_mut().map(|e| e.as_mut()))
                .collect();
            alternatives(branches, schema)?.then_some(Expr::Case(typed))
        }
        _ => None,
    };
    let (expr, changed) = match rewritten {
        Some(rewritten) => (rewritten, true),
        None => (expr, false),
    };
    Ok(match same_type::rewrite(&expr, schema)? {
        Some(typed) => Transformed::yes(typed),
        None if changed => Transformed::yes(expr),
        None => Transformed::no(expr),
    })
}

fn binary(binary: &BinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
    if let Some(expr) = checked::constant(binary)? {
        return Ok(Some(expr));
    }
    if let Some(expr) = numeric::rewrite(binary, schema)? {
        return Ok(Some(expr));
    }
    if let Some(expr) = float::rewrite(binary, schema)? {
        return Ok(Some(expr));
    }
    if let Some(expr) = datetime::rewrite(binary, schema)? {
        return Ok(Some(expr));
    }
    text::rewrite_comparison(binary, schema)
}

fn between(between: &Between, schema: &DFSchema) -> Result<Option<Expr>> {
    let low = text::typed_literal(&between.low, &between.expr, schema)?;
    let high = text::typed_literal(&between.high, &between.expr, schema)?;
    if low.is_none() && high.is_none() {
        return Ok(None);
    }
    let mut typed = between.clone();
    typed.low = low.map_or(typed.low, Box::new);
    typed.high = high.map_or(typed.high, Box::new);
    Ok(Some(Expr::Between(typed)))
}

fn in_list(list: &InList, schema: &DFSchema) -> Result<Option<Expr>> {
    let mut typed = list.clone();
    let mut changed = false;
    for item in &mut typed.list {
        if let Some(literal) = text::typed_literal(item, &list.expr, schema)? {
            *item = literal;
            changed = true;
        }
    }
    Ok(changed.then_some(Expr::InList(typed)))
}

/// String literals among the branches of a CASE take the type of the others. Says whether any did. (Functions such as
/// `coalesce` check their arguments while the plan is made, so that a literal there needs a cast.)
fn alternatives(mut branches: Vec<&mut Expr>, schema: &DFSchema) -> Result<bool> {
    let typed = branches
        .iter()
        .find(|e| !matches!(e, Expr::Literal(..)))
        .map(|e| (**e).clone());
    let Some(typed) = typed else { return Ok(false) };
    let mut changed = false;
    for branch in &mut branches {
        if let Some(literal) = text::typed_literal(branch, &typed, schema)? {
            **branch = literal;
            changed = true;
        }
    }
    Ok(changed)
}

/// Whole numbers of `numeric` have no decimals: `round(2.5)` is `3`, not `3.0`. Floats round to the even one of two.
fn scalar(function: &ScalarFunction, schema: &DFSchema) -> Result<Option<Expr>> {
    if !matches!(function.name(), "round" | "ceil" | "floor" | "trunc") || function.args.len() != 1
    {
        return Ok(None);
    }
    if function.name() == "round" && function.args[0].get_type(schema)?.is_floating() {
        return Ok(Some(numeric::round_ties_even(function.args[0].clone())));
    }
    let DataType::Decimal128(_, scale) = function.args[0].get_type(schema)? else {
        return Ok(None);
    };
    if scale <= 0 {
        return Ok(None);
    }
    let round = super::registry()
        .scalar
        .get("round")
        .expect("the library has it")
        .clone();
    let inner = match function.name() {
        "round" => function.args[0].clone(),
        _ => Expr::ScalarFunction(function.clone()),
    };
    Ok(Some(Expr::ScalarFunction(ScalarFunction {
        func: round,
        args: vec![inner, lit(0i32)],
    })))
}

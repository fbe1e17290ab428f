//! `NOT IN (sub-query)` below OR, or correlated.
//!
//! DataFusion computes an `IN` inside a larger condition as a mark that is true or false. `x NOT IN (S)` is *unknown*, not
//! true, when `x` or a value of `S` is NULL, and below OR that makes a difference. Where the condition decides whether a row
//! is kept only truth counts, and `x NOT IN (S)` is true exactly when
//!
//! ```text
//! NOT EXISTS (S where s = x)  AND  NOT EXISTS (S where s IS NULL)  AND  (x IS NOT NULL OR NOT EXISTS (S))
//! ```
//!
//! An uncorrelated `NOT IN` that is a condition of its own needs none of this: it becomes a null-aware anti join.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, Result};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, not,
    not_exists,
};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct EmbeddedNotIn;

impl AnalyzerRule for EmbeddedNotIn {
    fn name(&self) -> &str {
        "embedded_not_in"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Filter(filter) => self::filter(filter),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(rewritten.data)
    }
}

fn filter(filter: Filter) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    let conditions = split_conjunction_owned(filter.predicate.clone())
        .into_iter()
        .map(|condition| match stands_alone(&condition) {
            true => Ok(condition),
            false => embedded(condition, true, filter.input.schema(), &mut changed),
        })
        .collect::<Result<Vec<Expr>>>()?;
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let predicate = conjunction(conditions).expect("a filter has a condition");
    Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(
        predicate,
        filter.input,
    )?)))
}

/// Whether the condition becomes a null-aware anti join. With a constant before `NOT IN` it would not stay one: the equality
/// then speaks of the sub-query alone, is pushed into it and takes the NULLs away. A correlated sub-query would bring a second
/// equality, or other conditions, into the join, which DataFusion's null-aware one refuses or takes no notice of.
fn stands_alone(condition: &Expr) -> bool {
    let joins = |found: &InSubquery| {
        !found.expr.column_refs().is_empty() && found.subquery.outer_ref_columns.is_empty()
    };
    match condition {
        Expr::InSubquery(found) => joins(found),
        Expr::Not(inner) => matches!(inner.as_ref(), Expr::InSubquery(found) if joins(found)),
        _ => false,
    }
}

/// `positive`: the condition holds when this expression is true; otherwise when it is false.
fn embedded(expr: Expr, positive: bool, schema: &DFSchema, changed: &mut bool) -> Result<Expr> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::And | Operator::Or),
            right,
        }) => {
            let left = embedded(*left, positive, schema, changed)?;
            let right = embedded(*right, positive, schema, changed)?;
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
        Expr::Not(inner) => not(embedded(*inner, !positive, schema, changed)?),
        Expr::InSubquery(found) if found.negated == positive => {
            let Some(truth) = not_in(&found, schema)? else {
                return Ok(Expr::InSubquery(found));
            };
            *changed = true;
            if positive { truth } else { not(truth) }
        }
        other => other,
    })
}

/// The condition under which `NOT IN` is true; `None` when nothing has to be said: it is uncorrelated and
/// nothing in it can be NULL.
fn not_in(found: &InSubquery, schema: &DFSchema) -> Result<Option<Expr>> {
    let plan = found.subquery.subquery.as_ref();
    let (qualifier, field) = plan.schema().qualified_field(0);
    let is_known = !field.is_nullable() && !found.expr.nullable(schema)?;
    if is_known && found.subquery.outer_ref_columns.is_empty() {
        return Ok(None);
    }
    let value = Expr::Column(Column::new(qualifier.cloned(), field.name()));
    let outside = outer(found.expr.as_ref().clone(), schema)?;
    let with = |condition: Expr| -> Result<Expr> {
        Ok(not_exists(Arc::new(
            LogicalPlanBuilder::from(plan.clone())
                .filter(condition)?
                .build()?,
        )))
    };
    let no_match = with(value.clone().eq(outside))?;
    if is_known {
        return Ok(Some(no_match));
    }
    let no_null = with(value.is_null())?;
    let known = found
        .expr
        .as_ref()
        .clone()
        .is_not_null()
        .or(not_exists(Arc::new(plan.clone())));
    Ok(Some(no_match.and(no_null).and(known)))
}

/// The expression as the sub-query sees it.
fn outer(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let moved = expr.transform_up(|e| match e {
        Expr::Column(column) => {
            let field = schema.field_from_column(&column)?.clone();
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(moved.data)
}

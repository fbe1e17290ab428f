//! References of correlated sub-queries to the query around them carry a copy of the column's type. Where a rewrite changed
//! the column's type, the copies follow.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ExprSchema, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Subquery};
use std::sync::Arc;

/// The expression with its sub-queries' references to columns of `schema` typed as they are there.
pub(super) fn refresh(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let refreshed = expr.transform_up(|e| {
        Ok(match e {
            Expr::ScalarSubquery(subquery) => {
                Transformed::yes(Expr::ScalarSubquery(self::subquery(subquery, schema)?))
            }
            Expr::Exists(Exists { subquery, negated }) => Transformed::yes(Expr::Exists(Exists {
                subquery: self::subquery(subquery, schema)?,
                negated,
            })),
            Expr::InSubquery(InSubquery {
                expr,
                subquery,
                negated,
            }) => {
                let subquery = self::subquery(subquery, schema)?;
                Transformed::yes(Expr::InSubquery(InSubquery {
                    expr,
                    subquery,
                    negated,
                }))
            }
            Expr::SetComparison(mut comparison) => {
                comparison.subquery = self::subquery(comparison.subquery, schema)?;
                Transformed::yes(Expr::SetComparison(comparison))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(refreshed.data)
}

/// A lateral join's right side refers to its left side.
pub(super) fn refresh_lateral(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Join(join) = plan else {
        return Ok(plan);
    };
    let left = join.left.schema().clone();
    let right = join
        .right
        .as_ref()
        .clone()
        .transform_down(|node| match node {
            LogicalPlan::Subquery(found) => Ok(Transformed::yes(LogicalPlan::Subquery(subquery(
                found, &left,
            )?))),
            other => Ok(Transformed::no(other)),
        })?;
    if !right.transformed {
        return Ok(LogicalPlan::Join(join));
    }
    Ok(LogicalPlan::Join(Join {
        right: Arc::new(right.data),
        ..join
    }))
}

fn subquery(subquery: Subquery, schema: &DFSchema) -> Result<Subquery> {
    let stale = |e: &Expr| match e {
        Expr::OuterReferenceColumn(field, column) => schema
            .field_from_column(column)
            .is_ok_and(|found| found.data_type() != field.data_type()),
        _ => false,
    };
    if !subquery.outer_ref_columns.iter().any(stale) {
        return Ok(subquery);
    }
    let fresh = |e: Expr| match e {
        Expr::OuterReferenceColumn(field, column) => match schema.field_from_column(&column) {
            Ok(found) => Ok(Transformed::yes(Expr::OuterReferenceColumn(
                found.clone(),
                column,
            ))),
            Err(_) => Ok(Transformed::no(Expr::OuterReferenceColumn(field, column))),
        },
        other => Ok(Transformed::no(other)),
    };
    let plan = subquery
        .subquery
        .as_ref()
        .clone()
        .transform_up_with_subqueries(|node| {
            let node = node.map_expressions(|e| e.transform_up(fresh))?;
            match node.transformed {
                true => Ok(Transformed::yes(node.data.recompute_schema()?)),
                false => Ok(node),
            }
        })?;
    let outer_ref_columns = subquery
        .outer_ref_columns
        .into_iter()
        .map(|e| Ok(e.transform_up(fresh)?.data))
        .collect::<Result<Vec<Expr>>>()?;
    Ok(Subquery {
        subquery: Arc::new(plan.data),
        outer_ref_columns,
        spans: subquery.spans,
    })
}

//! `FROM t, unnest(t.list)`: lists of the rows beside them, which DataFusion plans as a join with a sub-query that it can
//! neither decorrelate nor run. They are an unnest over those rows.
//!
//! The sub-query is projections and names over an unnest over one row of expressions. Each of these nodes is put over the
//! left side instead, with the left side's columns in front of its own.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, TableReference};
use datafusion::logical_expr::{
    Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, Unnest,
};
use std::sync::Arc;

pub(crate) fn resolve(plan: LogicalPlan) -> Result<LogicalPlan> {
    let resolved = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match unnested(&join)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(resolved.data)
}

fn unnested(join: &Join) -> Result<Option<LogicalPlan>> {
    if join.join_type != JoinType::Inner || !join.on.is_empty() || !reads_outside(&join.right)? {
        return Ok(None);
    }
    let left: Vec<Expr> = join
        .left
        .schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect();
    let Some(plan) = over(&join.right, &join.left, &left)? else {
        return Ok(None);
    };
    let plan = LogicalPlanBuilder::from(plan);
    let plan = match &join.filter {
        Some(filter) => plan.filter(filter.clone())?,
        None => plan,
    };
    Ok(Some(plan.build()?))
}

fn reads_outside(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::Subquery(subquery) => reads_outside(&subquery.subquery),
        LogicalPlan::SubqueryAlias(alias) => reads_outside(&alias.input),
        LogicalPlan::Unnest(unnest) => reads_outside(&unnest.input),
        LogicalPlan::Projection(projection) => {
            Ok(projection.expr.iter().any(Expr::contains_outer)
                || reads_outside(&projection.input)?)
        }
        _ => Ok(false),
    }
}

/// Qualifies columns of the sub-query that are called like one of the left side.
const OWN: &str = "\u{1}lateral";

fn is_taken(columns: &[Expr], name: &str) -> bool {
    columns
        .iter()
        .any(|c| matches!(c, Expr::Column(column) if column.name == name))
}

/// The plan over each row of the left side, after the columns of that; None where it has another form.
fn over(
    plan: &LogicalPlan,
    left: &Arc<LogicalPlan>,
    columns: &[Expr],
) -> Result<Option<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Subquery(subquery) => over(&subquery.subquery, left, columns)?,
        LogicalPlan::SubqueryAlias(alias) => match over(&alias.input, left, columns)? {
            Some(input) => Some(renamed(input, columns, &alias.alias)?),
            None => None,
        },
        LogicalPlan::Unnest(unnest) => match over(&unnest.input, left, columns)? {
            Some(input) => Some(LogicalPlan::Unnest(Unnest::try_new(
                Arc::new(input),
                unnest.exec_columns.clone(),
                unnest.options.clone(),
            )?)),
            None => None,
        },
        LogicalPlan::Projection(projection) => match over(&projection.input, left, columns)? {
            Some(input) => {
                let mut all = columns.to_vec();
                for expr in &projection.expr {
                    let name = expr.schema_name().to_string();
                    let expr = inside(expr.clone(), columns)?;
                    all.push(match is_taken(columns, &name) {
                        true => expr.unalias().alias_qualified(Some(OWN), name),
                        false => expr,
                    });
                }
                Some(LogicalPlan::Projection(Projection::try_new(
                    all,
                    Arc::new(input),
                )?))
            }
            None => None,
        },
        LogicalPlan::EmptyRelation(one) if one.produce_one_row => Some(left.as_ref().clone()),
        _ => None,
    })
}

/// What was taken from outside is a column now, and what is called like one of those says which it is.
fn inside(expr: Expr, left: &[Expr]) -> Result<Expr> {
    let moved = expr.transform_up(|e| match e {
        Expr::Column(column) if is_taken(left, &column.name) => Ok(Transformed::yes(Expr::Column(
            Column::new(Some(OWN), column.name),
        ))),
        other => Ok(Transformed::no(other)),
    })?;
    // Afterwards, so that these are not taken for the sub-query's own.
    let moved = moved.data.transform_up(|e| match e {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(moved.data)
}

/// The columns behind those of the left side under the name of a table.
fn renamed(plan: LogicalPlan, left: &[Expr], table: &TableReference) -> Result<LogicalPlan> {
    let mut all = left.to_vec();
    for (qualifier, field) in plan.schema().iter().skip(left.len()) {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        all.push(column.alias_qualified(Some(table.clone()), field.name()));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(
        all,
        Arc::new(plan),
    )?))
}

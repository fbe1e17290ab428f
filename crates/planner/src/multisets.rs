//! `INTERSECT ALL` and `EXCEPT ALL`, which DataFusion reads and computes as if copies did not count.
//!
//! Copies are told apart by a number: the k-th copy of a row on the left has a partner if the right has k copies too. So they
//! are a semi and an anti join over the columns and the number of the copy. DataFusion's SQL planner leaves no trace of the
//! `ALL`, so the right side gets a name before ([`mark`]) by which the join is known after ([`resolve`]).

use crate::functions::registry;
use crate::query::{derived_table, template};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, NullEquality, Result};
use datafusion::logical_expr::{Expr, ExprFunctionExt, JoinType, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{Query, SetExpr, SetOperator, SetQuantifier, VisitMut, VisitorMut};
use std::ops::ControlFlow;

/// The name of a marked right side. No identifier that a person types contains the control character.
const MARK: &str = "\u{1}all";

pub(crate) fn mark(query: &mut Query) {
    let _: ControlFlow<()> = query.visit(&mut Marker);
}

struct Marker;

impl VisitorMut for Marker {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        mark_body(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn mark_body(body: &mut SetExpr) {
    let SetExpr::SetOperation {
        op,
        set_quantifier,
        left,
        right,
    } = body
    else {
        return;
    };
    mark_body(left);
    if *op == SetOperator::Union || *set_quantifier != SetQuantifier::All {
        mark_body(right);
        return;
    }
    // The visitor comes to the query inside the template by itself.
    let mut wrapped = template(&format!("SELECT * FROM (SELECT 1) AS \"{MARK}\""));
    std::mem::swap(derived_table(&mut wrapped).body.as_mut(), right);
    **right = *wrapped.body;
}

pub(crate) fn resolve(plan: LogicalPlan) -> Result<LogicalPlan> {
    let resolved = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Join(join) = node else {
            return Ok(Transformed::no(node));
        };
        let kind = join.join_type;
        if !matches!(kind, JoinType::LeftSemi | JoinType::LeftAnti) || !is_marked(&join.right) {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        }
        let columns: Vec<Expr> = join
            .left
            .schema()
            .columns()
            .into_iter()
            .map(Expr::Column)
            .collect();
        let (left, mut left_keys) = numbered(join.left.as_ref().clone(), "copy\u{1}left")?;
        let (right, mut right_keys) = numbered(join.right.as_ref().clone(), "copy\u{1}right")?;
        left_keys.rotate_right(1);
        right_keys.rotate_right(1);
        let joined = LogicalPlanBuilder::from(left)
            .join_detailed(
                right,
                kind,
                (left_keys, right_keys),
                None,
                NullEquality::NullEqualsNull,
            )?
            .project(columns)?
            .build()?;
        Ok(Transformed::yes(joined))
    })?;
    Ok(resolved.data)
}

fn is_marked(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => alias.alias.table() == MARK || is_marked(&alias.input),
        LogicalPlan::Projection(projection) => is_marked(&projection.input),
        _ => false,
    }
}

/// The plan with the number of each row among its copies as a last column of this name; and all its columns.
fn numbered(plan: LogicalPlan, name: &str) -> Result<(LogicalPlan, Vec<Column>)> {
    let columns: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect();
    let number = registry().window["row_number"]
        .call(Vec::new())
        .partition_by(columns.clone())
        .build()?;
    let number_column = Column::from_name(number.schema_name().to_string());
    let mut shown = columns;
    shown.push(Expr::Column(number_column).alias(name));
    let plan = LogicalPlanBuilder::from(plan)
        .window([number])?
        .project(shown)?
        .build()?;
    let columns = plan.schema().columns();
    Ok((plan, columns))
}

//! `LATERAL (… WHERE s.k = t.k ORDER BY … LIMIT n)`: the first rows for each row beside it, which DataFusion would take to be
//! the first rows of all.
//!
//! Where everything that the sub-query takes from outside is compared with `=`, rows beside it with equal values have equal
//! results. So the rows are numbered for each of these values, the numbers bounded, and the sides joined over the values:
//!
//! ```text
//! t ⋈ LATERAL (σ[s.k = t.k] s ORDER BY o LIMIT n)  =  t ⋈[t.k = s.k] σ[number ≤ n] (row_number by s.k order by o) s
//! ```
//!
//! A limit below anything else that reads from outside is refused.

use crate::errors::external;
use crate::functions::registry;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, NullEquality, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprFunctionExt, FetchType, Join, JoinType, Limit, LogicalPlan,
    LogicalPlanBuilder, Operator, SkipType, Subquery, lit,
};
use tidegate_types::SqlError;

pub(crate) fn resolve(plan: LogicalPlan) -> Result<LogicalPlan> {
    let resolved = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match subquery(&join.right) {
            Some(inner) if limits_outside(&inner.subquery)? => match joined(&join)? {
                Some(plan) => Ok(Transformed::yes(plan)),
                None => {
                    let form =
                        "LATERAL with LIMIT over anything from outside but comparisons with =";
                    Err(external(SqlError::not_supported(form)))
                }
            },
            _ => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(resolved.data)
}

fn subquery(plan: &LogicalPlan) -> Option<&Subquery> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(alias) => subquery(&alias.input),
        _ => None,
    }
}

/// Whether there is a limit over something that reads from outside.
fn limits_outside(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        if let LogicalPlan::Limit(limit) = node {
            found |= reads_outside(&limit.input)?;
        }
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

fn reads_outside(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= node.expressions().iter().any(Expr::contains_outer);
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// A plan that reads nothing from outside any more.
struct Pulled {
    plan: LogicalPlan,
    /// The columns that are compared with what is outside, after those that the plan had; and what that is.
    keys: Vec<(Column, Column)>,
}

impl Pulled {
    /// The columns that the plan had before.
    fn own(&self) -> Vec<Expr> {
        let columns = self.plan.schema().columns();
        let own = columns.len() - self.keys.len();
        columns.into_iter().take(own).map(Expr::Column).collect()
    }

    fn key_columns(&self) -> impl Iterator<Item = Expr> + '_ {
        self.keys.iter().map(|(key, _)| Expr::Column(key.clone()))
    }

    fn project(self, own: Vec<Expr>) -> Result<Self> {
        let all: Vec<Expr> = own.into_iter().chain(self.key_columns()).collect();
        Ok(Self {
            plan: LogicalPlanBuilder::from(self.plan).project(all)?.build()?,
            keys: self.keys,
        })
    }
}

fn joined(join: &Join) -> Result<Option<LogicalPlan>> {
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) || !join.on.is_empty() {
        return Ok(None);
    }
    let mut named = 0;
    let Some(right) = pull(&join.right, &mut named)? else {
        return Ok(None);
    };
    let outside = join.left.schema();
    if !right
        .keys
        .iter()
        .all(|(_, outer)| outside.has_column(outer))
    {
        return Ok(None);
    }
    let mut shown: Vec<Expr> = outside.columns().into_iter().map(Expr::Column).collect();
    shown.extend(right.own());
    let (inner, outer): (Vec<Column>, Vec<Column>) = right.keys.into_iter().unzip();
    let plan = LogicalPlanBuilder::from(join.left.as_ref().clone())
        .join_detailed(
            right.plan,
            join.join_type,
            (outer, inner),
            join.filter.clone(),
            NullEquality::NullEqualsNothing,
        )?
        .project(shown)?
        .build()?;
    Ok(Some(plan))
}

/// Takes comparisons with what is outside out of a plan; None where that is not all it reads from there.
fn pull(plan: &LogicalPlan, named: &mut usize) -> Result<Option<Pulled>> {
    if !reads_outside(plan)? {
        let plan = plan.clone();
        let keys = Vec::new();
        return Ok(Some(Pulled { plan, keys }));
    }
    match plan {
        LogicalPlan::Subquery(subquery) => pull(&subquery.subquery, named),
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(pulled) = pull(&alias.input, named)? else {
                return Ok(None);
            };
            let own = pulled.own().into_iter();
            let renamed = own.map(|column| {
                let name = match &column {
                    Expr::Column(column) => column.name.clone(),
                    other => other.schema_name().to_string(),
                };
                column.alias_qualified(Some(alias.alias.clone()), name)
            });
            let renamed = renamed.collect();
            Ok(Some(pulled.project(renamed)?))
        }
        LogicalPlan::Projection(projection) => {
            if projection.expr.iter().any(Expr::contains_outer) {
                return Ok(None);
            }
            let Some(pulled) = pull(&projection.input, named)? else {
                return Ok(None);
            };
            Ok(Some(pulled.project(projection.expr.clone())?))
        }
        // Without a limit an order means nothing.
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => pull(&sort.input, named),
        LogicalPlan::Limit(limit) => limited(limit, named),
        LogicalPlan::Filter(filter) => {
            let Some(pulled) = pull(&filter.input, named)? else {
                return Ok(None);
            };
            filtered(pulled, &filter.predicate, named)
        }
        _ => Ok(None),
    }
}

fn filtered(mut pulled: Pulled, predicate: &Expr, named: &mut usize) -> Result<Option<Pulled>> {
    let (mut kept, mut compared) = (Vec::new(), Vec::new());
    for conjunct in split_conjunction_owned(predicate.clone()) {
        if !conjunct.contains_outer() {
            kept.push(conjunct);
            continue;
        }
        let Some(pair) = comparison(conjunct) else {
            return Ok(None);
        };
        compared.push(pair);
    }
    if let Some(kept) = conjunction(kept) {
        pulled.plan = LogicalPlanBuilder::from(pulled.plan)
            .filter(kept)?
            .build()?;
    }
    let mut all = pulled.own();
    all.extend(pulled.key_columns());
    for (inner, outer) in compared {
        // No identifier that a person types contains the control character.
        let name = format!("key\u{1}{named}");
        *named += 1;
        all.push(inner.alias(&name));
        pulled.keys.push((Column::from_name(name), outer));
    }
    pulled.plan = LogicalPlanBuilder::from(pulled.plan)
        .project(all)?
        .build()?;
    Ok(Some(pulled))
}

/// What is compared inside with which column outside.
fn comparison(conjunct: Expr) -> Option<(Expr, Column)> {
    let Expr::BinaryExpr(BinaryExpr {
        left,
        op: Operator::Eq,
        right,
    }) = conjunct
    else {
        return None;
    };
    match (*left, *right) {
        (inner, Expr::OuterReferenceColumn(_, outer))
        | (Expr::OuterReferenceColumn(_, outer), inner)
            if !inner.contains_outer() =>
        {
            Some((inner, outer))
        }
        _ => None,
    }
}

/// The first rows for each value of the keys.
fn limited(limit: &Limit, named: &mut usize) -> Result<Option<Pulled>> {
    match (limit.get_skip_type(), limit.get_fetch_type()) {
        (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) => {
            first(&limit.input, (skip, fetch), named)
        }
        _ => Ok(None),
    }
}

fn first(
    plan: &LogicalPlan,
    (skip, fetch): (usize, Option<usize>),
    named: &mut usize,
) -> Result<Option<Pulled>> {
    let (order, input) = match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
            if sort.expr.iter().any(|s| s.expr.contains_outer()) {
                return Ok(None);
            }
            (sort.expr.clone(), sort.input.as_ref())
        }
        // The order is that of a sort below, which the projection may hide.
        LogicalPlan::Projection(projection) if is_sorted(&projection.input) => {
            if projection.expr.iter().any(Expr::contains_outer) {
                return Ok(None);
            }
            let pulled = first(&projection.input, (skip, fetch), named)?;
            let shown = |pulled: Pulled| pulled.project(projection.expr.clone());
            return pulled.map(shown).transpose();
        }
        other => (Vec::new(), other),
    };
    let Some(pulled) = pull(input, named)? else {
        return Ok(None);
    };
    let own = pulled.own();
    let number = registry().window["row_number"]
        .call(Vec::new())
        .partition_by(pulled.key_columns().collect());
    let number = match order.is_empty() {
        true => number.build()?,
        false => number.order_by(order).build()?,
    };
    let name = format!("number\u{1}{named}");
    *named += 1;
    let mut all = own.clone();
    all.push(Expr::Column(Column::from_name(number.schema_name().to_string())).alias(&name));
    let number_column = || Expr::Column(Column::from_name(&name));
    let mut bounds = number_column().gt(lit(skip as i64));
    if let Some(fetch) = fetch {
        bounds = bounds.and(number_column().lt_eq(lit(skip.saturating_add(fetch) as i64)));
    }
    let windowed = Pulled {
        plan: LogicalPlanBuilder::from(pulled.plan)
            .window([number])?
            .build()?,
        keys: pulled.keys,
    };
    let mut numbered = windowed.project(all)?;
    numbered.plan = LogicalPlanBuilder::from(numbered.plan)
        .filter(bounds)?
        .build()?;
    Ok(Some(numbered.project(own)?))
}

fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        _ => false,
    }
}

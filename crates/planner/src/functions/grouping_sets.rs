//! `GROUPING SETS`, `ROLLUP` and `CUBE` over computed values.
//!
//! What else refers to a computed value that is grouped by does so by its name, and coercion changes the name of what it
//! changes inside a grouping set. So such values are computed below the aggregate, under the name that they have now, and
//! the sets are of columns alone.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct ComputedGroupingSets;

impl AnalyzerRule for ComputedGroupingSets {
    fn name(&self) -> &str {
        "computed_grouping_sets"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(aggregate) => below(aggregate),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(rewritten.data)
    }
}

fn below(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let mut computed: Vec<Expr> = Vec::new();
    for expr in sets.distinct_expr() {
        if !matches!(expr, Expr::Column(_)) && !computed.contains(expr) {
            computed.push(expr.clone());
        }
    }
    if computed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let name = |expr: &Expr| expr.schema_name().to_string();
    let input = aggregate.input.schema().columns();
    let columns = input.into_iter().map(Expr::Column);
    let values = computed.iter().map(|e| e.clone().alias(name(e)));
    let projected = LogicalPlanBuilder::from(aggregate.input.clone())
        .project(columns.chain(values).collect::<Vec<_>>())?
        .build()?;
    let column = |expr: Expr| match computed.contains(&expr) {
        true => Expr::Column(Column::new_unqualified(name(&expr))),
        false => expr,
    };
    let all = |exprs: &[Expr]| exprs.iter().cloned().map(column).collect::<Vec<_>>();
    let sets = match sets {
        GroupingSet::Rollup(exprs) => GroupingSet::Rollup(all(exprs)),
        GroupingSet::Cube(exprs) => GroupingSet::Cube(all(exprs)),
        GroupingSet::GroupingSets(sets) => {
            GroupingSet::GroupingSets(sets.iter().map(|set| all(set)).collect())
        }
    };
    let aggregates = aggregate.aggr_expr.into_iter().map(|expr| {
        let named = name(&expr);
        let replaced = expr.transform_up(|e| {
            Ok(match e {
                // `grouping(value)` asks for one of the values that are grouped by.
                Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
                    call.params.args = all(&call.params.args);
                    Transformed::yes(Expr::AggregateFunction(call))
                }
                other => Transformed::no(other),
            })
        })?;
        Ok(
            match replaced.transformed && replaced.data.schema_name().to_string() != named {
                true => replaced.data.alias(named),
                false => replaced.data,
            },
        )
    });
    let aggregates = aggregates.collect::<Result<Vec<_>>>()?;
    let group = vec![Expr::GroupingSet(sets)];
    let aggregate = Aggregate::try_new(Arc::new(projected), group, aggregates)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

//! The DataFusion optimizer rules that hold when inputs change, and the checks on a logical plan around them.
//!
//! Left out on purpose: `push_down_limit` and `eliminate_limit` (a limit is a top-n node, and its order must stay above it),
//! `single_distinct_aggregation_to_group_by` (the aggregate keeps distinct values itself), `unions_to_filter`, and the rules
//! that move parts of expressions towards files.

use crate::refuse::in_view;
use crate::{errors, functions};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, Extension, FetchType, LogicalPlan, LogicalPlanBuilder,
    Subquery, UserDefinedLogicalNodeCore, Volatility, lit,
};
use datafusion::optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use tidegate_types::SqlError;

/// The rows of its input, of which there may be no more than one: what a scalar sub-query must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AtMostOne {
    pub input: LogicalPlan,
}

impl PartialOrd for AtMostOne {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for AtMostOne {
    fn name(&self) -> &str {
        "AtMostOne"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtMostOne")
    }

    fn with_exprs_and_inputs(
        &self,
        _exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        Ok(Self {
            input: inputs.swap_remove(0),
        })
    }

    // Projections may pass, filters may not: they would change how many rows there are.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}

/// The analyzed plan of a view's query, ready to be lowered.
pub(crate) fn optimize(plan: LogicalPlan) -> Result<LogicalPlan> {
    refuse_volatile(&plan)?;
    let plan = crate::now::bind(plan)?;
    let plan = first_of_each(plan)?;
    let plan = guard_scalar_subqueries(plan)?;
    let mut options = functions::registry().options.clone();
    options
        .optimizer
        .enable_physical_uncorrelated_scalar_subquery = false;
    options.optimizer.skip_failed_rules = false;
    options.optimizer.filter_null_join_keys = true;
    let config = OptimizerContext::new_with_config_options(Arc::new(options))
        .without_query_execution_start_time();
    Optimizer::with_rules(rules()).optimize(plan, &config, |_, _| {})
}

fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    use datafusion::optimizer as o;
    vec![
        Arc::new(o::rewrite_set_comparison::RewriteSetComparison::new()),
        Arc::new(o::optimize_unions::OptimizeUnions::new()),
        Arc::new(o::simplify_expressions::SimplifyExpressions::new()),
        Arc::new(o::replace_distinct_aggregate::ReplaceDistinctWithAggregate::new()),
        Arc::new(o::eliminate_join::EliminateJoin::new()),
        Arc::new(o::decorrelate_predicate_subquery::DecorrelatePredicateSubquery::new()),
        Arc::new(o::scalar_subquery_to_join::ScalarSubqueryToJoin::new()),
        Arc::new(o::decorrelate_lateral_join::DecorrelateLateralJoin::new()),
        Arc::new(o::extract_equijoin_predicate::ExtractEquijoinPredicate::new()),
        Arc::new(o::eliminate_duplicated_expr::EliminateDuplicatedExpr::new()),
        Arc::new(o::eliminate_filter::EliminateFilter::new()),
        Arc::new(o::eliminate_cross_join::EliminateCrossJoin::new()),
        Arc::new(o::propagate_empty_relation::PropagateEmptyRelation::new()),
        Arc::new(o::filter_null_join_keys::FilterNullJoinKeys::default()),
        Arc::new(o::eliminate_outer_join::EliminateOuterJoin::new()),
        Arc::new(o::push_down_filter::PushDownFilter::new()),
        Arc::new(o::eliminate_group_by_constant::EliminateGroupByConstant::new()),
        Arc::new(o::common_subexpr_eliminate::CommonSubexprEliminate::new()),
        Arc::new(o::optimize_projections::OptimizeProjections::new()),
    ]
}

/// A view is a function of its inputs, so what depends on the moment or on chance has no place in it; but for `now()`, which
/// barriers tell.
fn refuse_volatile(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| match inner {
                Expr::ScalarFunction(function) if depends_on_moment(function) => {
                    Err(errors::external(in_view(format!("{}()", function.name()))))
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    Ok(())
}

fn depends_on_moment(function: &ScalarFunction) -> bool {
    const CLOCK: [&str; 3] = ["current_date", "current_time", "today"];
    function.func.signature().volatility == Volatility::Volatile || CLOCK.contains(&function.name())
}

/// `DISTINCT ON (k) … ORDER BY k, o` is the first row of each k, which a filter over row numbers says as well.
fn first_of_each(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Distinct(Distinct::On(distinct)) = node else {
            return Ok(Transformed::no(node));
        };
        let number = &functions::registry().window["row_number"];
        let number = number
            .call(Vec::new())
            .partition_by(distinct.on_expr)
            .order_by(distinct.sort_expr.unwrap_or_default())
            .build()?;
        let numbered = Column::from_name(number.schema_name().to_string());
        let first = LogicalPlanBuilder::from(distinct.input)
            .window([number])?
            .filter(Expr::Column(numbered).eq(lit(1i64)))?
            .project(distinct.select_expr)?;
        Ok(Transformed::yes(first.build()?))
    })?;
    Ok(rewritten.data)
}

/// Puts an [`AtMostOne`] over every uncorrelated scalar sub-query that may have more rows. Correlated ones are aggregates,
/// which DataFusion itself demands.
fn guard_scalar_subqueries(plan: LogicalPlan) -> Result<LogicalPlan> {
    let guarded = plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform_up(|inner| match inner {
                Expr::ScalarSubquery(subquery)
                    if subquery.outer_ref_columns.is_empty()
                        && !has_at_most_one_row(&subquery.subquery) =>
                {
                    let input = subquery.subquery.as_ref().clone();
                    let columns: Vec<Expr> = input
                        .schema()
                        .columns()
                        .into_iter()
                        .map(Expr::Column)
                        .collect();
                    let guard = LogicalPlan::Extension(Extension {
                        node: Arc::new(AtMostOne { input }),
                    });
                    // DataFusion looks for the sub-query's expression in a projection.
                    let guard = LogicalPlanBuilder::from(guard).project(columns)?.build()?;
                    Ok(Transformed::yes(Expr::ScalarSubquery(Subquery {
                        subquery: Arc::new(guard),
                        ..subquery
                    })))
                }
                other => Ok(Transformed::no(other)),
            })
        })
    })?;
    Ok(guarded.data)
}

/// Whether the plan's form alone says that it has no second row.
fn has_at_most_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1))))
                || has_at_most_one_row(&limit.input)
        }
        LogicalPlan::Projection(projection) => has_at_most_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_at_most_one_row(&alias.input),
        LogicalPlan::Filter(filter) => has_at_most_one_row(&filter.input),
        LogicalPlan::Sort(sort) => has_at_most_one_row(&sort.input),
        LogicalPlan::Extension(extension) => extension.node.as_any().is::<AtMostOne>(),
        _ => false,
    }
}

/// The part of an optimizer failure that a person can act on.
pub(crate) fn failure(error: &DataFusionError, text: &str) -> SqlError {
    errors::sql_error(error, text)
}

//! `WITH RECURSIVE`: both of its terms give the types that its first one had when the query was read.
//!
//! What the second term reads has these types, and the rewrites that follow, which narrow constants to `integer`, know nothing of
//! one term from the other.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, RecursiveQuery, cast};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct RecursiveTypes;

impl AnalyzerRule for RecursiveTypes {
    fn name(&self) -> &str {
        "recursive_types"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::RecursiveQuery(query) => typed(query).map(Transformed::yes),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(rewritten.data)
    }
}

fn typed(query: RecursiveQuery) -> Result<LogicalPlan> {
    let schema = query.static_term.schema().clone();
    let with_types = |term: &Arc<LogicalPlan>| -> Result<Arc<LogicalPlan>> {
        let columns = term.schema().columns().into_iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| {
            cast(Expr::Column(column), field.data_type().clone()).alias(field.name())
        });
        let term = LogicalPlanBuilder::from(term.clone()).project(columns.collect::<Vec<_>>())?;
        Ok(Arc::new(term.build()?))
    };
    Ok(LogicalPlan::RecursiveQuery(RecursiveQuery {
        static_term: with_types(&query.static_term)?,
        recursive_term: with_types(&query.recursive_term)?,
        ..query
    }))
}

//! Logical plan to a tree of plan operators.
//!
//! Each node becomes a [`Lowered`]: a tree and where the logical node's columns are in its output. That map is what lets
//! nodes that only rename, reorder or hide columns cost nothing; operators get an exact layout where they need one
//! ([`Lowered::exact`]). A file per family: [`scan`], [`project`], [`aggregate`], [`grouping`], [`join`], [`set`], [`limit`],
//! [`unnest`], [`window`], [`session`].

mod aggregate;
mod expression;
mod grouping;
mod join;
mod limit;
mod now;
mod project;
mod scan;
mod session;
mod set;
mod unnest;
mod window;

use crate::optimize::AtMostOne;
use crate::refuse::in_view;
use crate::rel::Rel;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Distinct, LogicalPlan};
use tidegate_plan::Op;
use tidegate_types::SqlError;

pub(crate) use expression::Scope;

/// A lowered plan.
pub(crate) struct Lowered {
    pub rel: Rel,
    /// For each column of the logical plan its position in `rel`'s output.
    pub columns: Vec<usize>,
}

impl Lowered {
    /// The tree's output is the plan's.
    pub fn plain(rel: Rel) -> Self {
        let columns = (0..rel.width()).collect();
        Self { rel, columns }
    }

    /// A tree whose output is exactly the plan's columns.
    pub fn exact(self) -> Rel {
        self.rel.select(&self.columns)
    }

    pub fn scope<'a>(&'a self, schema: &'a DFSchema) -> Scope<'a> {
        Scope {
            schema,
            columns: &self.columns,
        }
    }
}

/// Lowers an optimized plan.
pub(crate) fn lower(plan: &LogicalPlan) -> Result<Lowered, SqlError> {
    match plan {
        LogicalPlan::TableScan(scan) => scan::table(scan),
        LogicalPlan::Projection(projection) => project::projection(projection),
        LogicalPlan::Filter(filter) => project::filter(filter),
        LogicalPlan::SubqueryAlias(alias) => lower(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate::aggregate(aggregate),
        LogicalPlan::Join(join) => join::join(join),
        LogicalPlan::Union(union) => set::union(union),
        LogicalPlan::Distinct(Distinct::All(input)) => set::distinct(lower(input)?),
        LogicalPlan::Distinct(Distinct::On(_)) => Err(in_view("DISTINCT ON")),
        LogicalPlan::Values(values) => set::values(values),
        LogicalPlan::EmptyRelation(empty) => set::empty(empty),
        // A view has no order; only a limit makes one matter.
        LogicalPlan::Sort(sort) => match sort.fetch {
            None => lower(&sort.input),
            Some(fetch) => limit::top_n(&sort.expr, &sort.input, 0, Some(fetch as u64)),
        },
        LogicalPlan::Limit(limit) => limit::limit(limit),
        LogicalPlan::Extension(extension) if extension.node.as_any().is::<AtMostOne>() => {
            let Lowered { rel, columns } = lower(extension.node.inputs()[0])?;
            let schema = rel.schema.clone();
            Ok(Lowered {
                rel: Rel::new(Op::AtMostOne { keys: Vec::new() }, vec![rel], schema),
                columns,
            })
        }
        LogicalPlan::Window(window) => window::window(window),
        LogicalPlan::RecursiveQuery(_) => Err(in_view("WITH RECURSIVE")),
        LogicalPlan::Unnest(unnest) => unnest::unnest(unnest),
        LogicalPlan::Subquery(_) => Err(in_view("a LATERAL sub-query of this form")),
        other => Err(in_view(format!("the plan node {}", other.display()))),
    }
}

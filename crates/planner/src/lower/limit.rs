//! `ORDER BY … LIMIT … OFFSET` as a top-n over one partition.

use super::project::{self, Computed, compute};
use super::{Lowered, lower};
use crate::refuse::in_view;
use crate::rel::Rel;
use datafusion::logical_expr::{Expr, FetchType, Limit, LogicalPlan, SkipType, SortExpr};
use tidegate_plan::{Op, Ranking, SortKey};
use tidegate_types::SqlError;

pub(super) fn limit(limit: &Limit) -> Result<Lowered, SqlError> {
    let offset = match limit.get_skip_type() {
        Ok(SkipType::Literal(rows)) => rows as u64,
        _ => return Err(in_view("an OFFSET that is not a constant")),
    };
    let fetch = match limit.get_fetch_type() {
        Ok(FetchType::Literal(rows)) => rows.map(|rows| rows as u64),
        _ => return Err(in_view("a LIMIT that is not a constant")),
    };
    if offset == 0 && fetch.is_none() {
        return lower(&limit.input);
    }
    limited(&limit.input, offset, fetch)
}

/// The order that a limit is taken in is that of a sort below it, with nothing but names and expressions between.
fn limited(plan: &LogicalPlan, offset: u64, fetch: Option<u64>) -> Result<Lowered, SqlError> {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
            top_n(&sort.expr, &sort.input, offset, fetch)
        }
        LogicalPlan::SubqueryAlias(alias) if is_sorted(&alias.input) => {
            limited(&alias.input, offset, fetch)
        }
        LogicalPlan::Projection(projection) if is_sorted(&projection.input) => {
            project::over(projection, limited(&projection.input, offset, fetch)?)
        }
        other => top_n(&[], other, offset, fetch),
    }
}

fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        LogicalPlan::SubqueryAlias(alias) => is_sorted(&alias.input),
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        _ => false,
    }
}

pub(super) fn top_n(
    order: &[SortExpr],
    input: &LogicalPlan,
    offset: u64,
    limit: Option<u64>,
) -> Result<Lowered, SqlError> {
    let expressions: Vec<&Expr> = order.iter().map(|s| &s.expr).collect();
    let Computed { input, positions } = compute(lower(input)?, input.schema(), &expressions)?;
    let keys = order.iter().zip(positions).map(|(sort, column)| SortKey {
        column,
        descending: !sort.asc,
        nulls_first: sort.nulls_first,
    });
    let op = Op::TopN {
        partition: Vec::new(),
        order: keys.collect(),
        ranking: Ranking::RowNumber,
        offset,
        limit,
        numbered: false,
    };
    let schema = input.rel.schema.clone();
    Ok(Lowered {
        rel: Rel::new(op, vec![input.rel], schema),
        columns: input.columns,
    })
}

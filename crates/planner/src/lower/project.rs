//! Projections and filters.

use super::{Lowered, lower, now};
use crate::rel::Rel;
use datafusion::logical_expr::{Expr, Filter, Projection};
use tidegate_plan::{Op, ScalarExpr};
use tidegate_types::SqlError;

pub(super) fn projection(projection: &Projection) -> Result<Lowered, SqlError> {
    over(projection, lower(&projection.input)?)
}

/// The projection over its input, lowered.
pub(super) fn over(projection: &Projection, input: Lowered) -> Result<Lowered, SqlError> {
    if projection.expr.is_empty() {
        return Ok(Lowered {
            rel: input.rel,
            columns: Vec::new(),
        });
    }
    let scope = input.scope(projection.input.schema());
    let expressions: Vec<ScalarExpr> = projection
        .expr
        .iter()
        .map(|e| scope.positional(e))
        .collect::<Result<_, _>>()?;
    let fields = projection
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    Ok(Lowered::plain(input.rel.project(expressions, fields)))
}

pub(super) fn filter(filter: &Filter) -> Result<Lowered, SqlError> {
    let schema = filter.input.schema();
    let input = lower(&filter.input)?;
    let (input, predicate) = now::take(input, filter.predicate.clone(), schema)?;
    let Some(predicate) = predicate else {
        return Ok(input);
    };
    let predicate = input.scope(schema).positional(&predicate)?;
    Ok(filtered(input, predicate))
}

pub(super) fn filtered(input: Lowered, predicate: ScalarExpr) -> Lowered {
    let schema = input.rel.schema.clone();
    Lowered {
        rel: Rel::new(Op::Filter { predicate }, vec![input.rel], schema),
        columns: input.columns,
    }
}

/// Expressions over a plan as positions in its tree. Those that are not columns already are computed in one projection in
/// front, behind the columns that are there.
pub(super) struct Computed {
    pub input: Lowered,
    pub positions: Vec<usize>,
}

pub(super) fn compute(
    input: Lowered,
    schema: &datafusion::common::DFSchema,
    expressions: &[&Expr],
) -> Result<Computed, SqlError> {
    let width = input.rel.width();
    let mut added: Vec<ScalarExpr> = Vec::new();
    let mut fields = Vec::new();
    let mut positions = Vec::new();
    for expr in expressions {
        let scope = input.scope(schema);
        let positional = scope.positional(expr)?;
        if let Some(column) = positional.as_column() {
            positions.push(column);
            continue;
        }
        let index = match added.iter().position(|a| *a == positional) {
            Some(index) => index,
            None => {
                fields.push(scope.field(expr, &expr.schema_name().to_string())?);
                added.push(positional);
                added.len() - 1
            }
        };
        positions.push(width + index);
    }
    if added.is_empty() {
        return Ok(Computed { input, positions });
    }
    let mut all: Vec<ScalarExpr> = (0..width).map(ScalarExpr::column).collect();
    all.extend(added);
    let mut all_fields: Vec<_> = input
        .rel
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    all_fields.extend(fields);
    let columns = input.columns;
    Ok(Computed {
        input: Lowered {
            rel: input.rel.project(all, all_fields),
            columns,
        },
        positions,
    })
}

//! Joins of every kind. Right-sided semi, anti and mark joins are turned around, so that operators know one side of each.

use super::expression::Scope;
use super::project::{Computed, compute};
use super::{Lowered, lower};
use crate::errors;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::{DFSchema, NullEquality};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, JoinType, LogicalPlan};
use std::sync::Arc;
use tidegate_plan::{JoinKind, Op, ScalarExpr};
use tidegate_types::SqlError;

pub(super) fn join(join: &Join) -> Result<Lowered, SqlError> {
    let (kind, swapped) = kind_of(join.join_type);
    let on = coerced(join)?;
    let (mut first, mut second): (Vec<&Expr>, Vec<&Expr>) = on.iter().map(|(l, r)| (l, r)).unzip();
    let (mut left, mut right): (&LogicalPlan, &LogicalPlan) = (&join.left, &join.right);
    if swapped {
        std::mem::swap(&mut first, &mut second);
        std::mem::swap(&mut left, &mut right);
    }
    let left_side = compute(lower(left)?, left.schema(), &first)?;
    let right_side = compute(lower(right)?, right.schema(), &second)?;
    let residual = match &join.filter {
        Some(filter) => Some(residual(filter, (left, &left_side), (right, &right_side))?),
        None => None,
    };
    let op = Op::Join {
        kind,
        left_keys: left_side.positions.clone(),
        right_keys: right_side.positions.clone(),
        null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
        null_aware: join.null_aware,
        residual,
    };
    Ok(assemble(join, kind, op, left_side.input, right_side.input))
}

/// Our kind, and whether the sides change places for it.
fn kind_of(join_type: JoinType) -> (JoinKind, bool) {
    match join_type {
        JoinType::Inner => (JoinKind::Inner, false),
        JoinType::Left => (JoinKind::Left, false),
        JoinType::Right => (JoinKind::Right, false),
        JoinType::Full => (JoinKind::Full, false),
        JoinType::LeftSemi => (JoinKind::LeftSemi, false),
        JoinType::LeftAnti => (JoinKind::LeftAnti, false),
        JoinType::LeftMark => (JoinKind::LeftMark, false),
        JoinType::RightSemi => (JoinKind::LeftSemi, true),
        JoinType::RightAnti => (JoinKind::LeftAnti, true),
        JoinType::RightMark => (JoinKind::LeftMark, true),
    }
}

/// The equalities with both sides of one type, since keys are compared by their bytes.
fn coerced(join: &Join) -> Result<Vec<(Expr, Expr)>, SqlError> {
    let internal = |e| errors::sql_error(&e, "");
    join.on
        .iter()
        .map(|(l, r)| {
            let left = l.get_type(join.left.schema()).map_err(internal)?;
            let right = r.get_type(join.right.schema()).map_err(internal)?;
            if left == right {
                return Ok((l.clone(), r.clone()));
            }
            let Some(common) = comparison_coercion(&left, &right) else {
                return Err(SqlError::internal(format!(
                    "join keys of types {left} and {right}"
                )));
            };
            let cast = |e: &Expr, have| match have == common {
                true => e.clone(),
                false => Expr::Cast(Cast::new(Box::new(e.clone()), common.clone())),
            };
            Ok((cast(l, left), cast(r, right)))
        })
        .collect()
}

/// The condition over the left tree's columns followed by the right one's.
fn residual(
    filter: &Expr,
    (left, left_side): (&LogicalPlan, &Computed),
    (right, right_side): (&LogicalPlan, &Computed),
) -> Result<ScalarExpr, SqlError> {
    let schema: DFSchema = left
        .schema()
        .join(right.schema())
        .map_err(|e| errors::sql_error(&e, ""))?;
    let offset = left_side.input.rel.width();
    let mut columns = left_side.input.columns.clone();
    columns.extend(right_side.input.columns.iter().map(|c| offset + c));
    Scope {
        schema: &schema,
        columns: &columns,
    }
    .positional(filter)
}

/// The node, with the fields that DataFusion gives its columns (outer joins make them nullable).
fn assemble(join: &Join, kind: JoinKind, op: Op, left: Lowered, right: Lowered) -> Lowered {
    let offset = left.rel.width();
    let shown = join.schema.fields();
    let mut columns = left.columns;
    let mut fields: Vec<Field> = left
        .rel
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    match kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => {}
        JoinKind::LeftMark => {
            fields.push(
                shown
                    .last()
                    .expect("a mark join shows its mark")
                    .as_ref()
                    .clone()
                    // Without `NOT IN` a match exists or does not.
                    .with_nullable(join.null_aware),
            );
            columns.push(offset);
        }
        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {
            fields.extend(right.rel.schema.fields().iter().map(|f| f.as_ref().clone()));
            columns.extend(right.columns.iter().map(|c| offset + c));
        }
    }
    let padded_left = matches!(kind, JoinKind::Right | JoinKind::Full);
    let padded_right = matches!(kind, JoinKind::Left | JoinKind::Full);
    for (index, field) in fields.iter_mut().enumerate() {
        if (index < offset && padded_left) || (index >= offset && padded_right) {
            *field = field.clone().with_nullable(true);
        }
    }
    let rel = Rel::new(op, vec![left.rel, right.rel], Arc::new(Schema::new(fields)));
    Lowered { rel, columns }
}

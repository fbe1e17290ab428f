//! GROUPING SETS, CUBE and ROLLUP: a union of one aggregate for each set.
//!
//! The result has the keys, then a number whose bits say which keys a row is not grouped by (the first key is the highest
//! bit, as `GROUPING()` has it), then the calls.

use super::{Lowered, lower};
use crate::errors;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan};
use std::sync::Arc;
use tidegate_plan::{Op, ScalarExpr};
use tidegate_types::{SqlError, SqlState};

/// More sets than this are a mistake, as in Postgres.
const MAX_SETS: usize = 4096;

pub(super) fn sets(aggregate: &Aggregate, sets: &GroupingSet) -> Result<Lowered, SqlError> {
    let keys = sets.distinct_expr();
    let fields: Vec<Field> = aggregate
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    let inputs = expanded(sets)?
        .iter()
        .map(|set| one(aggregate, &keys, set, &fields))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Lowered::plain(Rel::new(
        Op::Union,
        inputs,
        Arc::new(Schema::new(fields)),
    )))
}

/// The sets, each as its expressions.
fn expanded(sets: &GroupingSet) -> Result<Vec<Vec<&Expr>>, SqlError> {
    let count = match sets {
        GroupingSet::Rollup(keys) => Some(keys.len() + 1),
        GroupingSet::Cube(keys) => 1usize.checked_shl(keys.len() as u32),
        GroupingSet::GroupingSets(sets) => Some(sets.len()),
    };
    if count.is_none_or(|count| count > MAX_SETS) {
        let message = format!("too many grouping sets present (maximum {MAX_SETS})");
        return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
    }
    Ok(match sets {
        GroupingSet::Rollup(keys) => (0..=keys.len())
            .rev()
            .map(|length| keys[..length].iter().collect())
            .collect(),
        GroupingSet::Cube(keys) => (0..1usize << keys.len())
            .map(|mask| {
                let chosen = |(index, _): &(usize, &Expr)| mask & (1 << index) == 0;
                let pairs = keys.iter().enumerate().filter(chosen);
                pairs.map(|(_, key)| key).collect()
            })
            .collect(),
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| set.iter().collect()).collect(),
    })
}

/// The aggregate over one set, with all columns of the result.
fn one(
    aggregate: &Aggregate,
    keys: &[&Expr],
    set: &[&Expr],
    fields: &[Field],
) -> Result<Rel, SqlError> {
    let internal = |e| errors::sql_error(&e, "");
    let mut own: Vec<&Expr> = Vec::new();
    for key in set {
        if !own.contains(key) {
            own.push(key);
        }
    }
    let absent = |key: &Expr| !own.contains(&key);
    let number = keys
        .iter()
        .fold(0u64, |bits, key| bits << 1 | u64::from(absent(key)));
    let literal = |value: ScalarValue| ScalarExpr::new(Expr::Literal(value, None));
    let null = |data_type: &DataType| ScalarValue::try_from(data_type).map(literal);
    let number = ScalarValue::from(number)
        .cast_to(fields[keys.len()].data_type())
        .map(literal)
        .map_err(internal)?;
    if own.is_empty() && aggregate.aggr_expr.is_empty() {
        // The group of all rows is there even if there are none.
        let mut row = fields[..keys.len()]
            .iter()
            .map(|field| null(field.data_type()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(internal)?;
        row.push(number);
        let schema = Arc::new(Schema::new(fields.to_vec()));
        return Ok(Rel::new(Op::Values { rows: vec![row] }, Vec::new(), schema));
    }
    let group = own.iter().map(|key| (*key).clone()).collect();
    let one = Aggregate::try_new(aggregate.input.clone(), group, aggregate.aggr_expr.clone())
        .map_err(internal)?;
    let rel = lower(&LogicalPlan::Aggregate(one))?.exact();
    let mut expressions = Vec::with_capacity(fields.len());
    for (key, field) in keys.iter().zip(fields) {
        expressions.push(match own.iter().position(|o| o == key) {
            Some(column) => ScalarExpr::column(column),
            None => null(field.data_type()).map_err(internal)?,
        });
    }
    expressions.push(number);
    expressions.extend((own.len()..rel.width()).map(ScalarExpr::column));
    Ok(rel.project(expressions, fields.to_vec()))
}

//! Unions, DISTINCT, and rows that are written in the query.

use super::expression::Scope;
use super::{Lowered, lower};
use crate::rel::Rel;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{EmptyRelation, Expr, Union, Values};
use std::sync::Arc;
use tidegate_plan::{Op, ScalarExpr};
use tidegate_types::SqlError;

/// By position, each input cast to the types of the result.
pub(super) fn union(union: &Union) -> Result<Lowered, SqlError> {
    let fields: Vec<Field> = union
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    if fields.is_empty() {
        return rows_only(union);
    }
    let inputs = union
        .inputs
        .iter()
        .map(|input| Ok(cast_to(lower(input)?.exact(), &fields)))
        .collect::<Result<Vec<_>, SqlError>>()?;
    Ok(Lowered::plain(Rel::new(
        Op::Union,
        inputs,
        Arc::new(Schema::new(fields)),
    )))
}

/// A union of which only the number of rows is asked. A row needs a column to flow, and nobody sees this one.
fn rows_only(union: &Union) -> Result<Lowered, SqlError> {
    let field = Field::new(
        "row",
        datafusion::arrow::datatypes::DataType::Boolean,
        false,
    );
    let row = ScalarExpr::new(datafusion::logical_expr::lit(true));
    let inputs = union
        .inputs
        .iter()
        .map(|input| {
            Ok(lower(input)?
                .rel
                .project(vec![row.clone()], vec![field.clone()]))
        })
        .collect::<Result<Vec<_>, SqlError>>()?;
    let rel = Rel::new(
        Op::Union,
        inputs,
        Arc::new(Schema::new(vec![field.clone()])),
    );
    Ok(Lowered {
        rel,
        columns: Vec::new(),
    })
}

fn cast_to(rel: Rel, fields: &[Field]) -> Rel {
    let same = rel
        .schema
        .fields()
        .iter()
        .zip(fields)
        .all(|(have, want)| have.data_type() == want.data_type());
    if same {
        return rel;
    }
    let expressions = fields
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let column = ScalarExpr::column(index);
            match rel.schema.field(index).data_type() == field.data_type() {
                true => column,
                false => {
                    let cast =
                        Cast::new(Box::new(column.expr().clone()), field.data_type().clone());
                    ScalarExpr::new(Expr::Cast(cast))
                }
            }
        })
        .collect();
    rel.project(expressions, fields.to_vec())
}

/// Distinct rows are groups without calls.
pub(super) fn distinct(input: Lowered) -> Result<Lowered, SqlError> {
    let rel = input.exact();
    let keys = (0..rel.width()).collect();
    let schema = rel.schema.clone();
    Ok(Lowered::plain(Rel::new(
        Op::Aggregate {
            keys,
            calls: Vec::new(),
        },
        vec![rel],
        schema,
    )))
}

pub(super) fn values(values: &Values) -> Result<Lowered, SqlError> {
    let scope = Scope {
        schema: &datafusion::common::DFSchema::empty(),
        columns: &[],
    };
    let rows = values
        .values
        .iter()
        .map(|row| {
            row.iter()
                .map(|cell| scope.positional(cell))
                .collect::<Result<Vec<_>, _>>()
        })
        .collect::<Result<Vec<_>, SqlError>>()?;
    let fields: Vec<Field> = values
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    Ok(Lowered::plain(Rel::new(
        Op::Values { rows },
        Vec::new(),
        Arc::new(Schema::new(fields)),
    )))
}

pub(super) fn empty(empty: &EmptyRelation) -> Result<Lowered, SqlError> {
    let fields: Vec<Field> = empty
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    let rows = match empty.produce_one_row {
        true => vec![vec![
            ScalarExpr::new(datafusion::logical_expr::lit(true));
            fields.len().max(1)
        ]],
        false => Vec::new(),
    };
    if !fields.is_empty() {
        assert!(!empty.produce_one_row, "the placeholder row has no columns");
        return Ok(Lowered::plain(Rel::new(
            Op::Values { rows },
            Vec::new(),
            Arc::new(Schema::new(fields)),
        )));
    }
    // A row needs a column to flow; nobody sees this one.
    let schema = Schema::new(vec![Field::new(
        "row",
        datafusion::arrow::datatypes::DataType::Boolean,
        false,
    )]);
    let rel = Rel::new(Op::Values { rows }, Vec::new(), Arc::new(schema));
    Ok(Lowered {
        rel,
        columns: Vec::new(),
    })
}

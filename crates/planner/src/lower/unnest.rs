//! Lists to rows.

use super::{Lowered, lower};
use crate::refuse::in_view;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::Unnest;
use std::sync::Arc;
use tidegate_plan::Op;
use tidegate_types::SqlError;

pub(super) fn unnest(unnest: &Unnest) -> Result<Lowered, SqlError> {
    if !unnest.struct_type_columns.is_empty() {
        return Err(in_view("unnest of a row"));
    }
    if unnest.list_type_columns.iter().any(|(_, l)| l.depth != 1) {
        return Err(in_view("unnest of lists of lists"));
    }
    if unnest.options.preserve_nulls() {
        return Err(in_view("unnest that keeps NULLs"));
    }
    let input = lower(&unnest.input)?;
    let is_list = |column: usize| unnest.list_type_columns.iter().any(|(l, _)| *l == column);
    let lists = (0..unnest.dependency_indices.len())
        .filter(|output| is_list(unnest.dependency_indices[*output]))
        .collect();
    let columns: Vec<usize> = unnest
        .dependency_indices
        .iter()
        .map(|column| input.columns[*column])
        .collect();
    let fields: Vec<Field> = unnest
        .schema
        .fields()
        .iter()
        .zip(&unnest.dependency_indices)
        .map(|(field, column)| {
            let nullable = field.is_nullable() || is_list(*column);
            field.as_ref().clone().with_nullable(nullable)
        })
        .collect();
    Ok(Lowered::plain(Rel::new(
        Op::Unnest { lists },
        vec![input.rel.select(&columns)],
        Arc::new(Schema::new(fields)),
    )))
}

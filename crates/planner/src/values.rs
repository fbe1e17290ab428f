//! Rows of `VALUES` agree on `uuid` and `jsonb`, which DataFusion tells by metadata that a NULL or a string does not have.
//!
//! Where one row casts a column to such a type, the untyped constants of the others are cast to it too.

use sqlparser::ast::{DataType, Expr, Query, SetExpr, Value, Values, VisitMut, VisitorMut};
use std::ops::ControlFlow;

pub(crate) fn unify(query: &mut Query) {
    let _: ControlFlow<()> = query.visit(&mut Unifier);
}

struct Unifier;

impl VisitorMut for Unifier {
    type Break = ();

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        body(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn body(set: &mut SetExpr) {
    match set {
        SetExpr::Values(values) => columns(values),
        SetExpr::SetOperation { left, right, .. } => {
            body(left);
            body(right);
        }
        _ => {}
    }
}

fn columns(values: &mut Values) {
    let width = values.rows.iter().map(|row| row.len()).min().unwrap_or(0);
    for column in 0..width {
        let cells = || values.rows.iter().map(|row| &row[column]);
        let Some(cast) = cells().find(|cell| is_cast_by_metadata(cell)).cloned() else {
            continue;
        };
        for row in &mut values.rows {
            let cell = &mut row[column];
            if is_untyped(cell)
                && let Expr::Cast {
                    mut expr,
                    kind,
                    data_type,
                    array,
                    format,
                } = cast.clone()
            {
                std::mem::swap(expr.as_mut(), cell);
                *cell = Expr::Cast {
                    expr,
                    kind,
                    data_type,
                    array,
                    format,
                };
            }
        }
    }
}

fn is_cast_by_metadata(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { data_type, .. } => matches!(data_type, DataType::Uuid | DataType::JSONB),
        _ => false,
    }
}

fn is_untyped(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => {
            matches!(value.value, Value::Null | Value::SingleQuotedString(_))
        }
        _ => false,
    }
}

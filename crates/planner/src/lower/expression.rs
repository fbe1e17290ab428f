//! Expressions over names to expressions over positions.

use crate::errors;
use crate::refuse::in_view;
use datafusion::arrow::datatypes::Field;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;
use tidegate_plan::ScalarExpr;
use tidegate_types::SqlError;

/// The names that an expression may use and where their columns are.
pub(crate) struct Scope<'a> {
    pub schema: &'a DFSchema,
    pub columns: &'a [usize],
}

impl Scope<'_> {
    /// The expression over positions.
    pub fn positional(&self, expr: &Expr) -> Result<ScalarExpr, SqlError> {
        let moved = expr
            .clone()
            .unalias_nested()
            .data
            .unalias()
            .transform_up(|e| match e {
                Expr::Column(column) => {
                    let index = self.schema.index_of_column(&column)?;
                    Ok(Transformed::yes(
                        ScalarExpr::column(self.columns[index]).expr().clone(),
                    ))
                }
                e if crate::now::is_now(&e) => Err(errors::external(in_view(
                    "now() elsewhere than in a condition of WHERE or HAVING",
                ))),
                Expr::OuterReferenceColumn(..) => Err(errors::external(in_view(
                    "a correlated sub-query of this form",
                ))),
                Expr::ScalarSubquery(_) => Err(errors::external(in_view(
                    "a scalar sub-query in this place",
                ))),
                Expr::Exists(_) => Err(errors::external(in_view("EXISTS in this place"))),
                Expr::InSubquery(_) => {
                    Err(errors::external(in_view("IN (sub-query) in this place")))
                }
                Expr::SetComparison(_) => Err(errors::external(in_view(
                    "a comparison with ANY or ALL of a sub-query",
                ))),
                Expr::WindowFunction(_) => Err(errors::external(in_view("a window function"))),
                Expr::Unnest(_) => Err(errors::external(in_view("unnest"))),
                Expr::Placeholder(placeholder) => Err(errors::external(SqlError::new(
                    tidegate_types::SqlState::UNDEFINED_PARAMETER,
                    format!("there is no parameter {}", placeholder.id),
                ))),
                other => Ok(Transformed::no(other)),
            });
        Ok(ScalarExpr::new(
            moved.map_err(|e| errors::sql_error(&e, ""))?.data,
        ))
    }

    /// The field of the expression's result.
    pub fn field(&self, expr: &Expr, name: &str) -> Result<Field, SqlError> {
        crate::query::field_of(expr, self.schema, name).map_err(|e| errors::sql_error(&e, ""))
    }
}

//! Expressions over rows at hand: `RETURNING`, `DEFAULT`, and what `ON CONFLICT DO UPDATE` computes.

use super::target::Target;
use crate::api::{Response, RowsTag};
use crate::session::{Session, rows};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::create_physical_expr;
use std::sync::Arc;
use tidegate_parser::sqlparser::ast;
use tidegate_planner::Planner;
use tidegate_planner::errors::sql_error;
use tidegate_types::SqlError;

/// An expression over rows of a schema, ready to be evaluated.
pub(super) struct Computed {
    expr: Expr,
    schema: DFSchema,
}

impl Computed {
    pub fn field(&self, name: &str) -> Result<Field, SqlError> {
        let (_, field) = self
            .expr
            .to_field(&self.schema)
            .map_err(|e| sql_error(&e, ""))?;
        Ok(field.as_ref().clone().with_name(name))
    }

    /// One value per row.
    pub fn evaluate(
        &self,
        rows: &RecordBatch,
        parameters: &[ScalarValue],
        text: &str,
    ) -> Result<ArrayRef, SqlError> {
        let located = |e| sql_error(&e, text);
        let expr = bind_parameters(self.expr.clone(), parameters).map_err(located)?;
        // `now()` has a value only after simplification, the time at which the statement began.
        let simplify = SimplifyContext::builder()
            .with_schema(Arc::new(self.schema.clone()))
            .with_current_time()
            .build();
        let expr = ExprSimplifier::new(simplify)
            .simplify(expr)
            .map_err(located)?;
        let props = ExecutionProps::new();
        let context = PhysicalPlanningContext::default();
        let physical =
            create_physical_expr(&expr, &self.schema, &props, &context).map_err(located)?;
        let value = physical.evaluate(rows).map_err(located)?;
        value.into_array(rows.num_rows()).map_err(located)
    }
}

fn bind_parameters(
    expr: Expr,
    parameters: &[ScalarValue],
) -> Result<Expr, datafusion::error::DataFusionError> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    if parameters.is_empty() {
        return Ok(expr);
    }
    let bound = expr.transform(|node| match &node {
        Expr::Placeholder(placeholder) => {
            let number = placeholder
                .id
                .trim_start_matches('$')
                .parse::<usize>()
                .unwrap_or(0);
            match number.checked_sub(1).and_then(|i| parameters.get(i)) {
                Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
                None => Ok(Transformed::no(node)),
            }
        }
        _ => Ok(Transformed::no(node)),
    })?;
    Ok(bound.data)
}

impl Session {
    pub(super) fn computed(
        &self,
        expr: ast::Expr,
        schema: DFSchema,
        text: &str,
    ) -> Result<Computed, SqlError> {
        let names = self.names();
        let expr = Planner::new(&names, text).expression(expr, &schema)?;
        Ok(Computed { expr, schema })
    }

    /// The output columns of a RETURNING list.
    fn returned(
        &self,
        target: &Target,
        items: &[ast::SelectItem],
        text: &str,
    ) -> Result<Vec<(Field, Computed)>, SqlError> {
        let schema = table_schema(&target.relation.name, &target.schema)?;
        let mut outputs = Vec::new();
        for item in items {
            match item {
                ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..) => {
                    for (_, column) in target.relation.visible_columns() {
                        let ident =
                            ast::Expr::Identifier(ast::Ident::with_quote('"', &column.name));
                        let computed = self.computed(ident, schema.clone(), text)?;
                        outputs.push((column.sql_type.field(&column.name, true), computed));
                    }
                }
                ast::SelectItem::UnnamedExpr(expr) => {
                    let name = match expr {
                        ast::Expr::Identifier(ident) => tidegate_parser::fold(ident),
                        ast::Expr::CompoundIdentifier(parts) => {
                            parts.last().map(tidegate_parser::fold).unwrap_or_default()
                        }
                        ast::Expr::Function(function) => {
                            tidegate_parser::name_parts(&function.name)
                                .pop()
                                .unwrap_or_default()
                        }
                        _ => "?column?".to_owned(),
                    };
                    let computed = self.computed(expr.clone(), schema.clone(), text)?;
                    outputs.push((computed.field(&name)?, computed));
                }
                ast::SelectItem::ExprWithAlias { expr, alias } => {
                    let computed = self.computed(expr.clone(), schema.clone(), text)?;
                    outputs.push((computed.field(&tidegate_parser::fold(alias))?, computed));
                }
                other => return Err(SqlError::not_supported(format!("RETURNING {other}"))),
            }
        }
        Ok(outputs)
    }

    pub(super) fn returning_schema(
        &self,
        target: &Target,
        items: &[ast::SelectItem],
        text: &str,
    ) -> Result<SchemaRef, SqlError> {
        let outputs = self.returned(target, items, text)?;
        Ok(Arc::new(Schema::new(
            outputs
                .into_iter()
                .map(|(f, _)| f.with_nullable(true))
                .collect::<Vec<_>>(),
        )))
    }

    pub(super) fn returning(
        &self,
        target: &Target,
        items: &[ast::SelectItem],
        changed: &[RecordBatch],
        tag: RowsTag,
        text: &str,
    ) -> Result<Response, SqlError> {
        let outputs = self.returned(target, items, text)?;
        let schema: SchemaRef = Arc::new(Schema::new(
            outputs
                .iter()
                .map(|(f, _)| f.clone().with_nullable(true))
                .collect::<Vec<_>>(),
        ));
        let mut batches = Vec::new();
        for batch in changed {
            let columns: Vec<ArrayRef> = outputs
                .iter()
                .map(|(_, c)| c.evaluate(batch, &[], text))
                .collect::<Result<_, _>>()?;
            batches
                .push(RecordBatch::try_new(schema.clone(), columns).map_err(SqlError::internal)?);
        }
        Ok(rows(schema, batches, tag))
    }
}

/// A table's columns under its name.
pub(crate) fn table_schema(name: &str, schema: &Schema) -> Result<DFSchema, SqlError> {
    DFSchema::try_from_qualified_schema(name, schema).map_err(|e| sql_error(&e, ""))
}

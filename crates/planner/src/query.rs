//! Syntax tree to logical plan: the same way for a view and for a read.

use crate::context::{Context, RelationSource, Relations, Resolved};
use crate::{
    errors, lateral, lateral_limit, multisets, names, quantified, refuse, set_returning, spellings,
    time_windows, values, windows,
};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, TableSource};
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use sqlparser::ast;
use std::sync::Arc;
use tidegate_types::{RelationId, SqlError, SqlType};

/// What a plan is for: some things can be read and not maintained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read,
    View,
}

/// Plans one statement.
pub struct Planner<'a> {
    pub(crate) relations: &'a dyn Relations,
    /// The text that the statement's spans refer to.
    pub(crate) text: &'a str,
    /// Whether a view gives its rows when they are final.
    pub(crate) emit_on_close: bool,
}

/// A query, ready to be run once over data.
#[derive(Debug, Clone)]
pub struct PlannedQuery {
    /// Analyzed, not optimized. Scans refer to [`RelationSource`]s: give them data with [`bind`].
    pub plan: LogicalPlan,
    /// The result's columns with the names a client sees (which may repeat) and types in their one Arrow form.
    pub schema: SchemaRef,
    /// Relations that the query names itself, plain views included.
    pub direct: Vec<RelationId>,
}

impl PlannedQuery {
    /// Types of `$1`, `$2`, … where they could be told.
    pub fn parameters(&self) -> Result<Vec<Option<SqlType>>, SqlError> {
        let found = self
            .plan
            .get_parameter_fields()
            .map_err(|e| errors::sql_error(&e, ""))?;
        let number = |name: &String| name.trim_start_matches('$').parse::<usize>().unwrap_or(0);
        let count = found.keys().map(number).max().unwrap_or(0);
        let mut parameters = vec![None; count];
        for (name, field) in &found {
            if let Some(slot) = number(name).checked_sub(1) {
                parameters[slot] = field.as_ref().map(|f| SqlType::from_field(f));
            }
        }
        Ok(parameters)
    }
}

impl<'a> Planner<'a> {
    /// `text` is what the statement was parsed from, for the positions of errors.
    pub fn new(relations: &'a dyn Relations, text: &'a str) -> Self {
        Self {
            relations,
            text,
            emit_on_close: false,
        }
    }

    /// With `EMIT ON WINDOW CLOSE`.
    pub fn emitting_on_close(mut self, emit_on_close: bool) -> Self {
        self.emit_on_close = emit_on_close;
        self
    }

    /// Plans a query that is to be read once. `parameters` are the types of `$1`, … as far as the client declared them.
    pub fn query(
        &self,
        query: ast::Query,
        parameters: &[Option<SqlType>],
    ) -> Result<PlannedQuery, SqlError> {
        let context = Context::new(self.relations, Purpose::Read);
        let fields = parameters
            .iter()
            .map(|p| p.as_ref().map(|t| Arc::new(t.field("", true))))
            .collect();
        let plan = plan(
            &context,
            query,
            self.text,
            PlannerContext::new().with_prepare_param_data_types(fields),
        )?;
        let plan = analyze(plan)
            .and_then(canonical)
            .map_err(|e| errors::sql_error(&e, self.text))?;
        Ok(PlannedQuery {
            schema: visible_schema(&plan),
            plan,
            direct: context.direct(),
        })
    }

    /// Plans an expression over the columns of a schema: `DEFAULT`, `SET c = …`, `RETURNING`, `CHECK`. It is coerced and
    /// rewritten as it would be in a query, and has no sub-queries.
    pub fn expression(&self, expr: ast::Expr, schema: &DFSchema) -> Result<Expr, SqlError> {
        let context = Context::new(self.relations, Purpose::Read);
        let located = |e: DataFusionError| errors::sql_error(&e, self.text);
        let planner = SqlToRel::new_with_options(&context, parser_options());
        let expr = planner
            .sql_to_expr(expr, schema, &mut PlannerContext::new())
            .map_err(located)?;
        let expr = crate::functions::rewrite(expr, schema).map_err(located)?;
        let simplify = datafusion::logical_expr::simplify::SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .build();
        datafusion::optimizer::simplify_expressions::ExprSimplifier::new(simplify)
            .coerce(expr, schema)
            .map_err(located)
    }

    /// Plans a query inside another statement's planning: a plain view's.
    pub(crate) fn plan_in(
        context: &Context<'_>,
        query: ast::Query,
        text: &str,
    ) -> Result<LogicalPlan, SqlError> {
        plan(context, query, text, PlannerContext::new())
    }
}

/// The plan as DataFusion's SQL planner makes it.
pub(crate) fn plan(
    context: &Context<'_>,
    mut query: ast::Query,
    text: &str,
    mut planner_context: PlannerContext,
) -> Result<LogicalPlan, SqlError> {
    // Before anything is refused: a rewritten construct is no longer there to be.
    time_windows::rewrite(&mut query, text)?;
    set_returning::rewrite(&mut query, context.purpose);
    refuse::check(&query, context.purpose, text)?;
    windows::spell_out(&mut query)?;
    quantified::rewrite(&mut query);
    multisets::mark(&mut query);
    names::name_columns(&mut query);
    spellings::rewrite(&mut query);
    values::unify(&mut query);
    let statement = ast::Statement::Query(Box::new(query));
    SqlToRel::new_with_options(context, parser_options())
        .sql_statement_to_plan_with_context(statement, &mut planner_context)
        .and_then(multisets::resolve)
        .and_then(lateral::resolve)
        .and_then(lateral_limit::resolve)
        .and_then(windows::resolve)
        .map_err(|e| errors::sql_error(&e, text))
}

/// A query of ours to put parts of a person's into.
pub(crate) fn template(sql: &str) -> ast::Query {
    let parsed = sqlparser::parser::Parser::new(&sqlparser::dialect::PostgreSqlDialect {})
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_query());
    *parsed.expect("our own text is a query")
}

/// The query inside the first derived table of a template.
pub(crate) fn derived_table(template: &mut ast::Query) -> &mut ast::Query {
    if let ast::SetExpr::Select(select) = template.body.as_mut()
        && let ast::TableFactor::Derived { subquery, .. } = &mut select.from[0].relation
    {
        return subquery;
    }
    unreachable!("a template selects from a derived table")
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
pub(crate) fn fetch_to_limit(query: &mut ast::Query) {
    let Some(fetch) = query.fetch.take() else {
        return;
    };
    let one = || ast::Expr::Value(ast::Value::Number("1".to_owned(), false).into());
    let quantity = fetch.quantity.unwrap_or_else(one);
    let offset = match query.limit_clause.take() {
        Some(ast::LimitClause::LimitOffset { offset, .. }) => offset,
        _ => None,
    };
    query.limit_clause = Some(ast::LimitClause::LimitOffset {
        limit: Some(quantity),
        offset,
        limit_by: Vec::new(),
    });
}

fn parser_options() -> ParserOptions {
    ParserOptions::from(&crate::functions::registry().options.sql_parser)
}

/// Rewrites to our functions and coerces types.
pub(crate) fn analyze(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    crate::functions::analyzer().execute_and_check(
        plan,
        &crate::functions::registry().options,
        |_, _| {},
    )
}

/// The plan with result columns in the one Arrow type that their SQL type is kept as.
pub(crate) fn canonical(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let wanted: Vec<Field> = plan
        .schema()
        .fields()
        .iter()
        .map(|f| canonical_field(f))
        .collect();
    let changed = plan
        .schema()
        .fields()
        .iter()
        .zip(&wanted)
        .any(|(have, want)| have.data_type() != want.data_type());
    if !changed {
        return Ok(plan);
    }
    let expressions: Vec<Expr> = plan
        .schema()
        .iter()
        .zip(&wanted)
        .map(|((qualifier, have), want)| {
            let column = Expr::Column(Column::new(qualifier.cloned(), have.name()));
            if have.data_type() == want.data_type() {
                return column;
            }
            let cast = Expr::Cast(Cast::new(Box::new(column), want.data_type().clone()));
            cast.alias_qualified(qualifier.cloned(), have.name())
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(expressions)?.build()
}

fn canonical_field(field: &Field) -> Field {
    SqlType::from_field(field).field(field.name(), field.is_nullable())
}

/// Result columns as a client sees them.
pub(crate) fn visible_schema(plan: &LogicalPlan) -> SchemaRef {
    let fields: Vec<Field> = plan
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_name(names::visible(f.name())))
        .collect();
    Arc::new(Schema::new(fields))
}

/// The plan with its columns under these names.
pub(crate) fn rename(plan: LogicalPlan, names: &[&str]) -> Result<LogicalPlan, DataFusionError> {
    if names.len() != plan.schema().fields().len() {
        let found = plan.schema().fields().len();
        return Err(DataFusionError::Plan(format!(
            "the view has {} columns, its query {found}",
            names.len()
        )));
    }
    let expressions: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .zip(names)
        .map(|(column, name)| Expr::Column(column).alias(*name))
        .collect();
    LogicalPlanBuilder::from(plan).project(expressions)?.build()
}

/// What DataFusion can scan for a relation.
pub type Provide<'a> = &'a mut dyn FnMut(&Resolved) -> Result<Arc<dyn TableSource>, SqlError>;

/// Gives the scans of a plan their data: `provide` maps a relation to what DataFusion can scan. Sub-queries included.
pub fn bind(plan: LogicalPlan, provide: Provide<'_>) -> Result<LogicalPlan, SqlError> {
    let bound = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(mut scan) => match scan.source.downcast_ref::<RelationSource>() {
            Some(source) => {
                let data = provide(&source.relation).map_err(errors::external)?;
                scan.source = data;
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        other => Ok(Transformed::no(other)),
    });
    bound.map(|t| t.data).map_err(|e| errors::sql_error(&e, ""))
}

/// A literal's value, where an expression is nothing else.
pub(crate) fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// The Arrow field of an expression over a schema.
pub(crate) fn field_of(
    expr: &Expr,
    schema: &DFSchema,
    name: &str,
) -> Result<Field, DataFusionError> {
    let (_, field) = expr.to_field(schema)?;
    Ok(field.as_ref().clone().with_name(name))
}

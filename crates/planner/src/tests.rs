//! Golden plans and errors, and the TPC-H queries.

#![allow(clippy::unwrap_used)]

mod errors;
mod plans;
mod reads;
mod rules;
mod succession;
mod tpch;
mod verify;
mod windows;

use crate::context::{RelationKind, Relations, Resolved, ViewQuery};
use crate::functions::types::sql_type_of;
use crate::{Planner, explain};
use datafusion::arrow::datatypes::Schema;
use datafusion::common::TableReference;
use sqlparser::ast::{self, ColumnOption, TableConstraint};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_parser::Statement;
use tidegate_types::{RelationId, SqlError, SqlState};

/// Relations made by statements, as an engine would keep them.
#[derive(Default)]
pub(crate) struct Fixture {
    relations: BTreeMap<String, Resolved>,
}

impl Relations for Fixture {
    fn relation(&self, name: &TableReference) -> Result<Resolved, SqlError> {
        self.relations.get(name.table()).cloned().ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_TABLE,
                format!("relation \"{}\" does not exist", name.table()),
            )
        })
    }
}

impl Fixture {
    /// Runs `CREATE TABLE`, `CREATE SOURCE`, `CREATE VIEW` and `CREATE MATERIALIZED VIEW` statements.
    pub(crate) fn new(sql: &str) -> Self {
        let mut fixture = Self::default();
        for parsed in tidegate_parser::parse(sql).unwrap() {
            fixture.create(parsed.statement, sql);
        }
        fixture
    }

    fn create(&mut self, statement: Statement, text: &str) {
        let id = RelationId(self.relations.len() as u64 + 1);
        let resolved = match statement {
            Statement::CreateTable(table) => {
                let mut resolved = columns(
                    id,
                    RelationKind::Table,
                    &table.name,
                    &table.columns,
                    &table.constraints,
                );
                resolved.append_only = table.append_only;
                resolved
            }
            Statement::CreateSource(source) => {
                let mut resolved =
                    columns(id, RelationKind::Source, &source.name, &source.columns, &[]);
                resolved.append_only = true;
                resolved
            }
            Statement::CreateMaterializedView(view) => {
                let names: Vec<String> = view.columns.iter().map(|c| c.value.clone()).collect();
                let planned = Planner::new(self, text)
                    .plan_materialized_view(*view.query.query, &names, id, &view.name.to_string())
                    .unwrap();
                Resolved {
                    id,
                    name: view.name.to_string(),
                    kind: RelationKind::MaterializedView,
                    columns: (0..planned.schema.fields().len()).collect(),
                    unique_key: planned.unique.then_some(planned.key),
                    schema: planned.schema,
                    append_only: planned.append_only,
                    watermarks: planned.watermarks,
                    view: None,
                    source: None,
                }
            }
            Statement::Sql(statement) => match *statement {
                ast::Statement::CreateView(view) => self.view(id, view, text),
                other => panic!("not a definition: {other}"),
            },
            other => panic!("not a definition: {other:?}"),
        };
        self.relations.insert(resolved.name.clone(), resolved);
    }

    fn view(&self, id: RelationId, view: ast::CreateView, text: &str) -> Resolved {
        let names: Vec<String> = view.columns.iter().map(|c| c.name.value.clone()).collect();
        let (schema, _) = Planner::new(self, text)
            .plan_view((*view.query).clone(), &names)
            .unwrap();
        Resolved {
            id,
            name: view.name.to_string(),
            kind: RelationKind::View,
            columns: (0..schema.fields().len()).collect(),
            schema,
            unique_key: None,
            append_only: false,
            watermarks: Vec::new(),
            view: Some(ViewQuery {
                query: Arc::from(view.query),
                text: text.to_owned(),
            }),
            source: None,
        }
    }

    /// The plan of a materialized view with this query, or the error, as text.
    pub(crate) fn explain(&self, sql: &str) -> String {
        match self.plan(sql) {
            Ok(dataflow) => explain(&dataflow, false, &|id| self.name(id)),
            Err(error) => described(&error),
        }
    }

    pub(crate) fn plan(&self, sql: &str) -> Result<tidegate_plan::Dataflow, SqlError> {
        let planner = Planner::new(self, sql);
        let dataflow = planner
            .plan_materialized_view(query(sql), &[], RelationId(99), "v")?
            .dataflow;
        verify::check(&dataflow);
        succession::is_stored(&dataflow);
        Ok(dataflow)
    }

    fn name(&self, id: RelationId) -> Option<String> {
        self.relations
            .values()
            .find(|r| r.id == id)
            .map(|r| r.name.clone())
    }
}

pub(crate) fn query(sql: &str) -> ast::Query {
    match tidegate_parser::parse(sql).unwrap().remove(0).statement {
        Statement::Sql(statement) => match *statement {
            ast::Statement::Query(query) => *query,
            other => panic!("not a query: {other}"),
        },
        other => panic!("not a query: {other:?}"),
    }
}

pub(crate) fn described(error: &SqlError) -> String {
    let mut text = format!("ERROR {}: {}\n", error.state, error.message);
    if let Some(detail) = &error.detail {
        text.push_str(&format!("DETAIL: {detail}\n"));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("HINT: {hint}\n"));
    }
    if let Some(position) = error.position {
        text.push_str(&format!("POSITION: {position}\n"));
    }
    text
}

fn columns(
    id: RelationId,
    kind: RelationKind,
    name: &ast::ObjectName,
    columns: &[ast::ColumnDef],
    constraints: &[TableConstraint],
) -> Resolved {
    let mut key: Vec<String> = Vec::new();
    for constraint in constraints {
        if let TableConstraint::PrimaryKey(primary) = constraint {
            key.extend(primary.columns.iter().map(|c| c.column.expr.to_string()));
        }
    }
    let mut fields = Vec::new();
    for column in columns {
        let primary = column
            .options
            .iter()
            .any(|o| matches!(o.option, ColumnOption::PrimaryKey(_)));
        if primary {
            key.push(column.name.value.clone());
        }
        let not_null = column
            .options
            .iter()
            .any(|o| matches!(o.option, ColumnOption::NotNull));
        let nullable = !(not_null || primary || key.contains(&column.name.value));
        fields.push(
            sql_type_of(&column.data_type)
                .unwrap()
                .field(&column.name.value, nullable),
        );
    }
    let positions = key
        .iter()
        .map(|k| columns.iter().position(|c| c.name.value == *k).unwrap())
        .collect();
    Resolved {
        id,
        name: name.to_string(),
        kind,
        columns: (0..fields.len()).collect(),
        schema: Arc::new(Schema::new(fields)),
        unique_key: (!key.is_empty()).then_some(positions),
        append_only: false,
        watermarks: Vec::new(),
        view: None,
        source: None,
    }
}

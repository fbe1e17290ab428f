//! `CREATE TABLE … AS query`: the rows are computed first, so that a query that fails leaves no table.
//!
//! The table and its rows are two entries of the log. A crash between them leaves an empty table, of which nobody was told.

use super::command;
use super::create::{Ddl, columns_of};
use super::definition::definition;
use crate::api::Response;
use std::collections::BTreeMap;
use tidegate_catalog::{Column, RelationKind, TableDef};
use tidegate_parser::{CreateTable, QueryText};
use tidegate_planner::Planner;
use tidegate_types::{SqlError, SqlState, SqlType};

impl Ddl<'_> {
    pub(super) async fn create_table_as(
        &mut self,
        create: &CreateTable,
        query: &QueryText,
        name: (String, String),
        options: BTreeMap<String, String>,
    ) -> Result<Response, SqlError> {
        if !create.constraints.is_empty() {
            return Err(SqlError::not_supported("constraints in CREATE TABLE AS"));
        }
        let names = self.session.names();
        let mut parsed = crate::relations::parse_query(&query.text)?;
        crate::system::rewrite::rewrite(&mut parsed);
        let planned = Planner::new(&names, &query.text)
            .query(parsed, &[])
            .map_err(|mut error| {
                error.position = None;
                error
            })?;
        let given: Vec<String> = create
            .columns
            .iter()
            .map(|c| tidegate_parser::fold(&c.name))
            .collect();
        let columns = stored_columns(columns_of(&planned.schema), &given)?;
        let batches = match create.no_data {
            true => Vec::new(),
            false => {
                let relations = super::relations_of(&planned.plan);
                let reading = self.session.reading(&relations).await?;
                self.session
                    .collect(planned, Vec::new(), &reading, &query.text)
                    .await?
            }
        };
        let kind = RelationKind::Table(TableDef {
            append_only: create.append_only,
            options,
            ..TableDef::default()
        });
        let id = self.database.catalog.get().next_id();
        let mut relation = self.relation(id, name, kind, columns, "", Vec::new());
        relation.definition = definition(&relation);
        self.install(relation.clone()).await?;
        if create.no_data {
            return Ok(command("CREATE TABLE AS"));
        }
        match self.session.fill(relation.into(), &batches).await {
            Ok(count) => Ok(command(format!("SELECT {count}"))),
            Err(error) => {
                self.uninstall(id).await?;
                Err(error)
            }
        }
    }
}

/// The query's columns under the names given for the first of them, as a table keeps them.
fn stored_columns(mut columns: Vec<Column>, given: &[String]) -> Result<Vec<Column>, SqlError> {
    if given.len() > columns.len() {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "too many column names were specified",
        ));
    }
    for (column, name) in columns.iter_mut().zip(given) {
        column.name.clone_from(name);
    }
    for (index, column) in columns.iter_mut().enumerate() {
        column.nullable = true;
        if matches!(column.sql_type, SqlType::Other(_)) {
            column.sql_type = SqlType::Text;
        }
        if let SqlType::Record(_) = column.sql_type {
            return Err(SqlError::not_supported(format!(
                "column {} of a composite type",
                index + 1
            )));
        }
    }
    super::create::no_duplicate_columns(&columns)?;
    Ok(columns)
}

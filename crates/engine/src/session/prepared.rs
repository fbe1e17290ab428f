//! `PREPARE`, `EXECUTE`, `DEALLOCATE`: prepared statements by name, in SQL.
//!
//! Statements that a client prepared through the protocol are the frontend's. It tells their names
//! ([`crate::api::SessionApi::protocol_statement`]), so that `DEALLOCATE` knows them, and asks which to forget.

use super::{Session, command};
use crate::api::{Prepared, Response};
use datafusion::common::ScalarValue;
use std::sync::Arc;
use tidegate_parser::sqlparser::ast;
use tidegate_parser::{ParsedStatement, Statement};
use tidegate_planner::functions::types::sql_type_of;
use tidegate_types::{SqlError, SqlState};

fn undefined(name: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_STATEMENT_NAME,
        format!("prepared statement \"{name}\" does not exist"),
    )
}

impl Session {
    pub(super) fn prepare_named(
        &mut self,
        name: &ast::Ident,
        types: &[ast::DataType],
        statement: &ast::Statement,
    ) -> Result<Response, SqlError> {
        let name = tidegate_parser::fold(name);
        if self.prepared.contains_key(&name) || self.protocol_statements.contains(&name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let declared = types
            .iter()
            .map(|t| sql_type_of(t).map(Some))
            .collect::<Result<Vec<_>, _>>()?;
        let parsed = ParsedStatement {
            text: statement.to_string(),
            statement: Statement::Sql(Box::new(statement.clone())),
            offset: 0,
        };
        let prepared =
            self.prepare_statement(Arc::new(parsed), declared)
                .map_err(|mut error| {
                    error.position = None;
                    error
                })?;
        self.prepared.insert(name, prepared);
        Ok(command("PREPARE"))
    }

    pub(super) fn prepared_named(&self, name: &ast::ObjectName) -> Result<&Prepared, SqlError> {
        let name = tidegate_parser::name_parts(name).join(".");
        self.prepared.get(&name).ok_or_else(|| undefined(&name))
    }

    /// The statement that `EXECUTE` runs, and its parameters.
    pub(super) fn executed(
        &self,
        name: &ast::ObjectName,
        arguments: &[ast::Expr],
    ) -> Result<(Prepared, Vec<ScalarValue>), SqlError> {
        let prepared = self.prepared_named(name)?.clone();
        let expected = prepared.parameters.len();
        if arguments.len() != expected {
            let name = tidegate_parser::name_parts(name).join(".");
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("wrong number of parameters for prepared statement \"{name}\""),
            )
            .with_detail(format!(
                "Expected {expected} parameters but got {}.",
                arguments.len()
            )));
        }
        let values = arguments
            .iter()
            .zip(&prepared.parameters)
            .map(|(expr, sql_type)| self.constant(expr, sql_type))
            .collect::<Result<_, _>>()?;
        Ok((prepared, values))
    }

    pub(super) fn deallocate(&mut self, name: &ast::Ident) -> Result<Response, SqlError> {
        if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all") {
            self.deallocate_all();
            return Ok(command("DEALLOCATE ALL"));
        }
        let name = tidegate_parser::fold(name);
        if self.prepared.remove(&name).is_none() {
            if !self.protocol_statements.remove(&name) {
                return Err(undefined(&name));
            }
            self.deallocated.push(name);
        }
        Ok(command("DEALLOCATE"))
    }

    pub(super) fn deallocate_all(&mut self) {
        self.prepared.clear();
        self.deallocated.extend(self.protocol_statements.drain());
    }
}

//! `Query`: a text of any number of statements, run one after the other, all results as text.
//!
//! Several statements are one transaction, unless they say otherwise themselves. The first error ends the text.

use super::connection::{Connection, watched};
use super::respond::Limit;
use super::rows::columns_of;
use super::{ConnectionError, Failure};
use tidegate_engine::api::{ParsedStatement, Response};
use tidegate_types::{SqlError, SqlState};

impl Connection<'_> {
    pub(super) async fn simple_query(&mut self, sql: &str) -> Result<(), ConnectionError> {
        self.extended.forget_unnamed();
        self.token.reset();
        match self.run_text(sql).await {
            Ok(()) => {}
            Err(Failure::Statement(error)) => self.statement_failed(&error).await?,
            Err(Failure::Connection(error)) => return Err(error),
        }
        self.end_of_cycle().await
    }

    async fn run_text(&mut self, sql: &str) -> Result<(), Failure> {
        let statements = self.session.parse(sql)?;
        if statements.is_empty() {
            self.outbox.empty_query();
            return Ok(());
        }
        let together = statements.len() > 1;
        if together {
            self.session.begin_implicit().await?;
        }
        for statement in statements {
            self.metrics.statement();
            let result = self.run_statement(statement).await;
            if let Err(failure) = result {
                if together {
                    self.roll_back_implicit().await;
                }
                return Err(failure);
            }
        }
        if together {
            watched(
                &mut self.inbox,
                &self.token,
                self.session.end_implicit(true),
            )
            .await?;
        }
        Ok(())
    }

    /// The error that made it necessary is what the client hears of.
    pub(super) async fn roll_back_implicit(&mut self) {
        if let Err(error) = self.session.end_implicit(false).await {
            tracing::warn!(%error, "cannot roll back");
        }
    }

    async fn run_statement(&mut self, statement: ParsedStatement) -> Result<(), Failure> {
        let prepared = watched(
            &mut self.inbox,
            &self.token,
            self.session.prepare(statement, vec![]),
        )
        .await?;
        if !prepared.parameters.is_empty() {
            return Err(Failure::Statement(SqlError::new(
                SqlState::UNDEFINED_PARAMETER,
                "there is no parameter $1",
            )));
        }
        let work = self.session.execute(&prepared, vec![]);
        let response = watched(&mut self.inbox, &self.token, work).await?;
        let columns = match &response {
            Response::Rows { schema, .. } => columns_of(schema, &[])?,
            _ => vec![],
        };
        if matches!(response, Response::Rows { .. }) {
            self.outbox.row_description(&columns);
        }
        self.respond(response, &columns, Limit::ALL).await?;
        Ok(())
    }
}

//! Cursors: results that are fetched in parts.
//!
//! A cursor reads the snapshot that it was declared over, however long it stays open, so that `WITH HOLD` costs nothing
//! more. One over a subscription never ends; `FETCH` takes what is there, and waits only as long as its timeout says.

use super::{Session, command};
use crate::api::{Prepared, Response, RowStream, RowsTag};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{FutureExt, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tidegate_parser::sqlparser::ast::{self, CloseCursor, FetchDirection, Ident};
use tidegate_parser::{ParsedStatement, Statement, Subscribe};
use tidegate_types::{SqlError, SqlState};
use tokio::time::Instant;

pub(super) type Cursors = parking_lot::Mutex<HashMap<String, Cursor>>;

pub(super) struct Cursor {
    schema: SchemaRef,
    rows: RowStream,
    /// What is left of a batch.
    rest: Option<RecordBatch>,
    /// Rows come when they come.
    is_subscription: bool,
    /// It outlives the transaction.
    pub hold: bool,
    /// Its number among all of the session's.
    pub number: u64,
}

impl Session {
    /// `DECLARE name CURSOR FOR query`.
    pub(super) async fn declare(&mut self, declare: &ast::Declare) -> Result<Response, SqlError> {
        let (Some(name), Some(query)) = (declare.names.first(), &declare.for_query) else {
            return Err(SqlError::not_supported("DECLARE of anything but a cursor"));
        };
        if declare.binary == Some(true) {
            return Err(SqlError::not_supported("BINARY cursor"));
        }
        if declare.scroll == Some(true) {
            return Err(SqlError::not_supported("SCROLL cursor"));
        }
        let hold = declare.hold == Some(true);
        let name = self.new_cursor(name, hold)?;
        let text = query.to_string();
        let statement = ParsedStatement {
            statement: Statement::Sql(Box::new(ast::Statement::Query(query.clone()))),
            text: text.clone(),
            offset: 0,
        };
        let prepared = self.prepare_statement(Arc::new(statement), Vec::new())?;
        let response = self.query(&prepared, query, &text, Vec::new()).await?;
        if let Response::Rows { schema, stream, .. } = response {
            self.open_cursor(name, schema, stream, false, hold);
        }
        Ok(command("DECLARE CURSOR"))
    }

    /// `DECLARE name CURSOR FOR SUBSCRIBE …`.
    pub(super) async fn declare_subscription(
        &mut self,
        name: &Ident,
        hold: bool,
        subscribe: &Subscribe,
    ) -> Result<Response, SqlError> {
        let name = self.new_cursor(name, hold)?;
        let (schema, stream) = self.subscription(subscribe).await?;
        self.open_cursor(name, schema, stream, true, hold);
        Ok(command("DECLARE CURSOR"))
    }

    fn new_cursor(&mut self, name: &Ident, hold: bool) -> Result<String, SqlError> {
        if !hold && self.transaction.is_none() {
            return Err(SqlError::new(
                SqlState::NO_ACTIVE_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            )
            .with_hint("Begin a transaction, or declare the cursor WITH HOLD."));
        }
        let name = tidegate_parser::fold(name);
        if self.cursors.get_mut().contains_key(&name) {
            return Err(SqlError::new(
                SqlState::from_code("42P03"),
                format!("cursor \"{name}\" already exists"),
            ));
        }
        Ok(name)
    }

    fn open_cursor(
        &mut self,
        name: String,
        schema: SchemaRef,
        rows: RowStream,
        is_subscription: bool,
        hold: bool,
    ) {
        let cursor = Cursor {
            schema,
            rows,
            rest: None,
            is_subscription,
            hold,
            number: self.next_cursor,
        };
        self.next_cursor += 1;
        self.cursors.get_mut().insert(name, cursor);
    }

    /// Those from a number on; a transaction's own end with it.
    pub(super) fn close_cursors_of_transaction(&mut self, from: u64) {
        self.cursors
            .get_mut()
            .retain(|_, cursor| cursor.hold || cursor.number < from);
    }

    pub(super) fn close(&mut self, which: &CloseCursor) -> Result<Response, SqlError> {
        match which {
            CloseCursor::All => self.cursors.get_mut().clear(),
            CloseCursor::Specific { name } => {
                let name = tidegate_parser::fold(name);
                if self.cursors.get_mut().remove(&name).is_none() {
                    return Err(no_cursor(&name));
                }
            }
        }
        Ok(command("CLOSE CURSOR"))
    }

    /// The columns of what a `FETCH` would return.
    pub(super) fn cursor_schema(&self, name: &str) -> Result<SchemaRef, SqlError> {
        let cursors = self.cursors.lock();
        cursors
            .get(name)
            .map(|c| c.schema.clone())
            .ok_or_else(|| no_cursor(name))
    }

    pub(super) async fn fetch(
        &mut self,
        fetch: &ast::Statement,
        timeout: Option<Duration>,
    ) -> Result<Response, SqlError> {
        let ast::Statement::Fetch {
            name,
            direction,
            into,
            ..
        } = fetch
        else {
            return Err(SqlError::internal("not a FETCH"));
        };
        if into.is_some() {
            return Err(SqlError::not_supported("FETCH INTO"));
        }
        let name = tidegate_parser::fold(name);
        let limit = limit_of(direction)?;
        let cursor = self
            .cursors
            .get_mut()
            .get_mut(&name)
            .ok_or_else(|| no_cursor(&name))?;
        let schema = cursor.schema.clone();
        let batches = cursor.take(limit, timeout).await?;
        Ok(super::rows(schema, batches, RowsTag::Fetch))
    }

    /// `FETCH … WITH (timeout = '1s')`.
    pub(super) async fn fetch_within(
        &mut self,
        fetch: &ast::Statement,
        timeout: &str,
        position: usize,
    ) -> Result<Response, SqlError> {
        let timeout = crate::settings::parse_duration(timeout).ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid timeout: \"{timeout}\""),
            )
            .with_hint("Durations are written as 500ms, 1s or 5min.")
            .with_position(position)
        })?;
        self.fetch(fetch, Some(timeout)).await
    }

    /// What `EXECUTE`, `FETCH` and `DECLARE` return, as far as it is known before they run.
    pub(super) fn columns_of_indirect(
        &self,
        statement: &ast::Statement,
    ) -> Result<Option<SchemaRef>, SqlError> {
        match statement {
            ast::Statement::Fetch { name, .. } => {
                self.cursor_schema(&tidegate_parser::fold(name)).map(Some)
            }
            ast::Statement::Execute {
                name: Some(name), ..
            } => {
                let prepared: &Prepared = self.prepared_named(name)?;
                Ok(prepared.columns.clone())
            }
            _ => Ok(None),
        }
    }
}

fn no_cursor(name: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_CURSOR_NAME,
        format!("cursor \"{name}\" does not exist"),
    )
}

/// How many rows a direction asks for; cursors only go forward.
fn limit_of(direction: &FetchDirection) -> Result<usize, SqlError> {
    use FetchDirection as D;
    let count = |limit: &ast::ValueWithSpan| {
        let text = limit.to_string();
        text.parse::<usize>().map_err(|_| {
            if text.starts_with('-') {
                backward()
            } else {
                SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("invalid number of rows: {text}"),
                )
            }
        })
    };
    match direction {
        D::Next | D::Forward { limit: None } => Ok(1),
        D::Count { limit } | D::Forward { limit: Some(limit) } => count(limit),
        D::Relative { limit } if limit.to_string() == "1" => Ok(1),
        D::All | D::ForwardAll => Ok(usize::MAX),
        _ => Err(backward()),
    }
}

fn backward() -> SqlError {
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "cursor can only scan forward",
    )
    .with_hint("Declare it again to read from the beginning.")
}

impl Cursor {
    /// The next rows, at most so many. Of a subscription, those that are there; if there are none, those that come first
    /// within the timeout.
    async fn take(
        &mut self,
        limit: usize,
        timeout: Option<Duration>,
    ) -> Result<Vec<RecordBatch>, SqlError> {
        let deadline = Instant::now() + timeout.unwrap_or_default();
        let mut taken = Vec::new();
        let mut left = limit;
        while left > 0 {
            let batch = match self.rest.take() {
                Some(batch) => batch,
                None => match self.next(taken.is_empty(), deadline).await.transpose()? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            let rows = batch.num_rows().min(left);
            if rows < batch.num_rows() {
                self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
            }
            left -= rows;
            if rows > 0 {
                taken.push(batch.slice(0, rows));
            }
        }
        Ok(taken)
    }

    async fn next(
        &mut self,
        wait: bool,
        deadline: Instant,
    ) -> Option<Result<RecordBatch, SqlError>> {
        if !self.is_subscription {
            return self.rows.next().await;
        }
        // What is there is taken without waiting for a timer.
        if let Some(ready) = self.rows.next().now_or_never() {
            return ready;
        }
        if !wait {
            return None;
        }
        tokio::time::timeout_at(deadline, self.rows.next())
            .await
            .ok()
            .flatten()
    }
}

//! The extended protocol: `Parse` a statement, `Bind` parameters to it as a portal, `Describe` either, `Execute` a portal
//! whole or in parts, `Close` either, and `Sync`.
//!
//! After an error everything is skipped up to `Sync`. What lies between two `Sync`s is one transaction. So that a single
//! statement needs no transaction around it, an `Execute` looks at the message behind it first: when that is `Sync` (a
//! client must send it, or `Flush`, before it can wait), the statement stands alone.

use super::binary::decode_binary;
use super::connection::{Connection, watched};
use super::message::{Bind, Format, Message, Parse, Target, utf8, violation};
use super::respond::{Limit, Rows, Sent};
use super::rows::columns_of;
use super::types::{Column, declared_type, oid_of};
use super::{ConnectionError, Failure};
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_engine::api::{Prepared, Response, ScalarValue, TransactionStatus};
use tidegate_types::text::{Value, ValueAppender, parse_text};
use tidegate_types::{SqlError, SqlState, SqlType};

/// What a session has prepared and bound. The unnamed ones have the empty name.
#[derive(Default)]
pub(super) struct Extended {
    statements: HashMap<String, Arc<Statement>>,
    portals: HashMap<String, Portal>,
    /// An error was told; everything is skipped until `Sync`.
    skipping: bool,
    /// The statements since the last `Sync` are in a transaction of their own.
    implicit: bool,
}

struct Statement {
    /// `None` is the empty text.
    prepared: Option<Prepared>,
    /// The parameters' types as the client knows them.
    parameter_oids: Vec<u32>,
}

struct Portal {
    statement: Arc<Statement>,
    columns: Vec<Column>,
    state: PortalState,
}

enum PortalState {
    Bound(Vec<ScalarValue>),
    Suspended(Box<Rows>),
    /// A query's rows are all sent; asked again, it has no more.
    Exhausted(tidegate_engine::api::RowsTag),
    Finished,
}

impl Extended {
    pub(super) fn forget_unnamed(&mut self) {
        self.statements.remove("");
        self.portals.remove("");
    }

    /// `DEALLOCATE`.
    pub(super) fn forget(&mut self, name: &str) {
        self.statements.remove(name);
    }

    fn statement(&self, name: &str) -> Result<Arc<Statement>, SqlError> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let which = match name {
                "" => "unnamed prepared statement".to_owned(),
                name => format!("prepared statement \"{name}\""),
            };
            SqlError::new(
                SqlState::INVALID_STATEMENT_NAME,
                format!("{which} does not exist"),
            )
        })
    }
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_CURSOR_NAME,
        format!("portal \"{name}\" does not exist"),
    )
}

impl Connection<'_> {
    pub(super) async fn extended_message(
        &mut self,
        message: Message,
    ) -> Result<(), ConnectionError> {
        if let Message::Sync = message {
            return self.sync().await;
        }
        if self.extended.skipping {
            return Ok(());
        }
        let result = match message {
            Message::Parse(parse) => self.parse(parse).await,
            Message::Bind(bind) => self.bind(bind).map_err(Failure::Statement),
            Message::Describe(target) => self.describe(target).map_err(Failure::Statement),
            Message::Execute { portal, max_rows } => self.execute(&portal, Limit(max_rows)).await,
            Message::Close(Target::Statement(name)) => {
                self.extended.statements.remove(&name);
                self.session.protocol_statement(&name, false);
                self.outbox.close_complete();
                Ok(())
            }
            Message::Close(Target::Portal(name)) => {
                self.extended.portals.remove(&name);
                self.outbox.close_complete();
                Ok(())
            }
            Message::Flush => self.outbox.flush().await.map_err(Failure::Connection),
            Message::Malformed { error, .. } => Err(Failure::Statement(error)),
            other => Err(Failure::Statement(SqlError::internal(format!(
                "{other:?} is not of the extended protocol"
            )))),
        };
        match result {
            Ok(()) => Ok(()),
            Err(Failure::Connection(error)) => Err(error),
            Err(Failure::Statement(error)) => {
                self.extended.skipping = true;
                if std::mem::take(&mut self.extended.implicit) {
                    self.roll_back_implicit().await;
                }
                self.statement_failed(&error).await
            }
        }
    }

    async fn sync(&mut self) -> Result<(), ConnectionError> {
        self.extended.skipping = false;
        if std::mem::take(&mut self.extended.implicit) {
            match watched(
                &mut self.inbox,
                &self.token,
                self.session.end_implicit(true),
            )
            .await
            {
                Ok(()) => {}
                Err(Failure::Statement(error)) => self.statement_failed(&error).await?,
                Err(Failure::Connection(error)) => return Err(error),
            }
        }
        // Portals live as long as their transaction.
        if self.session.transaction_status() == TransactionStatus::Idle {
            self.extended.portals.clear();
        }
        self.end_of_cycle().await
    }

    async fn parse(&mut self, parse: Parse) -> Result<(), Failure> {
        if !parse.name.is_empty() && self.extended.statements.contains_key(&parse.name) {
            return Err(Failure::Statement(SqlError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{}\" already exists", parse.name),
            )));
        }
        self.extended.statements.remove(&parse.name);
        self.token.reset();
        let mut statements = self.session.parse(&parse.sql)?;
        if statements.len() > 1 {
            return Err(Failure::Statement(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )));
        }
        let declared = parse
            .parameter_oids
            .iter()
            .map(|oid| declared_type(*oid))
            .collect::<Result<Vec<_>, _>>()?;
        let prepared = match statements.pop() {
            Some(statement) => {
                let work = self.session.prepare(statement, declared);
                Some(watched(&mut self.inbox, &self.token, work).await?)
            }
            None => None,
        };
        let parameters = prepared.as_ref().map_or(&[][..], |p| &p.parameters);
        let parameter_oids = parameters
            .iter()
            .enumerate()
            .map(|(index, inferred)| match parse.parameter_oids.get(index) {
                // The client's own word for it, such as `varchar` for what is text here.
                Some(oid) if declared_type(*oid).is_ok_and(|t| t.is_some()) => *oid,
                _ => oid_of(inferred),
            })
            .collect();
        if !parse.name.is_empty() {
            self.session.protocol_statement(&parse.name, true);
        }
        self.extended.statements.insert(
            parse.name,
            Arc::new(Statement {
                prepared,
                parameter_oids,
            }),
        );
        self.outbox.parse_complete();
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> Result<(), SqlError> {
        let statement = self.extended.statement(&bind.statement)?;
        if !bind.portal.is_empty() && self.extended.portals.contains_key(&bind.portal) {
            return Err(SqlError::new(
                SqlState::from_code("42P03"),
                format!("cursor \"{}\" already exists", bind.portal),
            ));
        }
        let (types, columns) = match &statement.prepared {
            Some(prepared) => {
                let columns = match &prepared.columns {
                    Some(schema) => columns_of(schema, &bind.result_formats)?,
                    None => vec![],
                };
                (prepared.parameters.as_slice(), columns)
            }
            None => (&[][..], vec![]),
        };
        let parameters = parameters(&bind, types)?;
        let portal = Portal {
            statement,
            columns,
            state: PortalState::Bound(parameters),
        };
        self.extended.portals.insert(bind.portal, portal);
        self.outbox.bind_complete();
        Ok(())
    }

    fn describe(&mut self, target: Target) -> Result<(), SqlError> {
        match target {
            Target::Statement(name) => {
                let statement = self.extended.statement(&name)?;
                let columns = match statement.prepared.as_ref().and_then(|p| p.columns.as_ref()) {
                    Some(schema) => Some(columns_of(schema, &[])?),
                    None => None,
                };
                self.outbox.parameter_description(&statement.parameter_oids);
                match columns {
                    Some(columns) => self.outbox.row_description(&columns),
                    None => self.outbox.no_data(),
                }
            }
            Target::Portal(name) => {
                let Some(portal) = self.extended.portals.get(&name) else {
                    // A cursor that SQL declared is a portal too.
                    let schema = self.session.cursor_columns(&name);
                    let schema = schema.ok_or_else(|| no_portal(&name))?;
                    self.outbox.row_description(&columns_of(&schema, &[])?);
                    return Ok(());
                };
                match portal
                    .statement
                    .prepared
                    .as_ref()
                    .is_some_and(|p| p.columns.is_some())
                {
                    true => self.outbox.row_description(&portal.columns),
                    false => self.outbox.no_data(),
                }
            }
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, limit: Limit) -> Result<(), Failure> {
        self.token.reset();
        let mut portal = self
            .extended
            .portals
            .remove(name)
            .ok_or_else(|| no_portal(name))?;
        let state = std::mem::replace(&mut portal.state, PortalState::Finished);
        let (tag, sent) = match state {
            PortalState::Finished => {
                let error = SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("portal \"{name}\" cannot be run"),
                );
                self.extended.portals.insert(name.to_owned(), portal);
                return Err(Failure::Statement(error));
            }
            PortalState::Exhausted(tag) => {
                self.outbox.command_complete(&tag.complete(0));
                (Some(tag), Sent::Complete)
            }
            PortalState::Suspended(rows) => {
                let tag = rows.tag.clone();
                (
                    Some(tag),
                    self.send_rows(*rows, &portal.columns, limit).await?,
                )
            }
            PortalState::Bound(parameters) => match &portal.statement.prepared {
                None => {
                    self.outbox.empty_query();
                    (None, Sent::Complete)
                }
                Some(prepared) => {
                    let response = self.start(prepared, parameters).await?;
                    let tag = match &response {
                        Response::Rows { tag, schema, .. } => {
                            same_columns(&portal.columns, &columns_of(schema, &[])?)?;
                            Some(tag.clone())
                        }
                        _ => None,
                    };
                    (tag, self.respond(response, &portal.columns, limit).await?)
                }
            },
        };
        portal.state = match (sent, tag) {
            (Sent::Suspended(rows), _) => PortalState::Suspended(Box::new(rows)),
            (Sent::Complete, Some(tag)) => PortalState::Exhausted(tag),
            (Sent::Complete, None) => PortalState::Finished,
        };
        self.extended.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    /// Begins a statement, in a transaction with its neighbours if it has any.
    async fn start(
        &mut self,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, Failure> {
        self.metrics.statement();
        if !self.extended.implicit && self.session.transaction_status() == TransactionStatus::Idle {
            let alone = matches!(self.inbox.peek().await?, Message::Sync);
            if !alone {
                self.session.begin_implicit().await?;
                self.extended.implicit = true;
            }
        }
        let work = self.session.execute(prepared, parameters);
        watched(&mut self.inbox, &self.token, work).await
    }
}

/// The rows must be what was described when the statement was prepared.
fn same_columns(described: &[Column], actual: &[Column]) -> Result<(), SqlError> {
    let same = described.len() == actual.len()
        && described.iter().zip(actual).all(|(a, b)| a.oid == b.oid);
    if same {
        Ok(())
    } else {
        Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "cached plan must not change result type",
        ))
    }
}

fn parameters(bind: &Bind, types: &[SqlType]) -> Result<Vec<ScalarValue>, SqlError> {
    if bind.parameters.len() != types.len() {
        return Err(violation(format!(
            "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
            bind.parameters.len(),
            bind.statement,
            types.len()
        )));
    }
    let formats = &bind.parameter_formats;
    if formats.len() > 1 && formats.len() != types.len() {
        return Err(violation(format!(
            "bind message has {} parameter formats but {} parameters",
            formats.len(),
            types.len()
        )));
    }
    let mut values = Vec::with_capacity(types.len());
    for (index, (bytes, sql_type)) in bind.parameters.iter().zip(types).enumerate() {
        let format = formats
            .get(index)
            .or(formats.first().filter(|_| formats.len() == 1));
        let value = match (bytes, format) {
            (None, _) => Value::Null,
            (Some(bytes), Some(Format::Binary)) => {
                decode_binary(bytes, sql_type, &format!("bind parameter {}", index + 1))?
            }
            (Some(bytes), _) => parse_text(utf8(bytes)?, sql_type)?,
        };
        values.push(scalar(&value, sql_type)?);
    }
    Ok(values)
}

fn scalar(value: &Value, sql_type: &SqlType) -> Result<ScalarValue, SqlError> {
    let mut appender = ValueAppender::new(sql_type, 1);
    appender.append(value);
    ScalarValue::try_from_array(&appender.finish(), 0).map_err(SqlError::internal)
}

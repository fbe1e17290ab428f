//! One client's session: its settings, its transaction, and the way of each statement to whoever executes it.

mod alter;
mod alter_query;
mod check;
mod checkpoint;
mod create;
mod cursor;
mod definition;
mod dependents;
mod drop;
mod explain;
mod explain_alter;
mod lists;
mod prepared;
mod query;
mod rename;
mod rollback;
mod savepoint;
mod seed;
mod set;
mod show;
mod shutdown;
mod subscribe;
mod suspend;
mod table_as;
mod transaction;
mod transient;
mod verify;
mod view;
mod watermark;

#[cfg(test)]
mod tests;

pub(crate) use query::query_state;
pub(crate) use query::{Reading, relations_of};
pub(crate) use transaction::Transaction;
pub(crate) use transient::Transients;

use crate::api::{
    CancelToken, CopyIn, DatabaseApi, Notice, Prepared, Response, RowStream, RowsTag, SessionApi,
    SessionOptions, TransactionStatus,
};
use crate::database::Database;
use crate::relations::{Names, parse_error};
use crate::settings::Settings;
use crate::system::SystemTables;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use futures::StreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tidegate_catalog::SearchPath;
use tidegate_parser::sqlparser::ast;
use tidegate_parser::{AlterOperation, ObjectKind, ParsedStatement, Statement};
use tidegate_types::{LogPosition, SqlError, SqlState, SqlType};

/// Settings whose changes clients are told of.
const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "datestyle",
    "intervalstyle",
    "timezone",
    "standard_conforming_strings",
];
const REPORTED_NAMES: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
];

pub struct Session {
    pub(crate) database: Arc<Database>,
    pub(crate) options: SessionOptions,
    pub(crate) settings: Settings,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) cancel: CancelToken,
    pub(crate) notices: Vec<Notice>,
    /// The last write of this session: its reads wait until it is visible.
    pub(crate) last_write: LogPosition,
    cursors: cursor::Cursors,
    /// The number of the cursor that is opened next.
    next_cursor: u64,
    /// Statements of `PREPARE`.
    prepared: HashMap<String, Prepared>,
    /// Names of statements that the frontend keeps.
    protocol_statements: HashSet<String>,
    /// Those of them that it has to forget.
    deallocated: Vec<String>,
    reported: Vec<String>,
    /// The statement that was executed last stops the server, once its answer is on its way.
    stops_server: bool,
}

impl DatabaseApi for Database {
    fn open_session(
        self: Arc<Self>,
        options: SessionOptions,
    ) -> Result<Box<dyn SessionApi>, SqlError> {
        Ok(Box::new(Session::new(self, options)?))
    }

    fn metrics(&self) -> String {
        crate::system::metrics::text(self)
    }

    fn health(&self) -> Result<(), SqlError> {
        self.runtime()?.health()
    }

    fn ready(&self) -> Result<(), SqlError> {
        self.runtime()?.health()
    }
}

impl Database {
    pub fn session(self: &Arc<Self>, options: SessionOptions) -> Result<Session, SqlError> {
        Session::new(self.clone(), options)
    }
}

impl Session {
    pub(crate) fn new(database: Arc<Database>, options: SessionOptions) -> Result<Self, SqlError> {
        let mut settings = database.config.settings.clone();
        for (name, value) in &options.params {
            settings.set(name, value)?;
        }
        if !options.application_name.is_empty() {
            settings.set("application_name", &options.application_name)?;
        }
        Ok(Self {
            database,
            options,
            settings,
            transaction: None,
            cancel: CancelToken::new(),
            notices: Vec::new(),
            last_write: LogPosition(0),
            cursors: cursor::Cursors::default(),
            next_cursor: 0,
            prepared: HashMap::new(),
            protocol_statements: HashSet::new(),
            deallocated: Vec::new(),
            reported: Vec::new(),
            stops_server: false,
        })
    }

    pub(crate) fn path(&self) -> SearchPath {
        let user = &self.options.user;
        let names = self
            .settings
            .text("search_path")
            .split(',')
            .map(|s| s.trim().trim_matches('"'));
        SearchPath(
            names
                .map(|s| {
                    if s == "$user" {
                        user.clone()
                    } else {
                        s.to_owned()
                    }
                })
                .collect(),
        )
    }

    /// Names as a statement of this session sees them now.
    pub(crate) fn names(&self) -> Names {
        Names {
            catalog: self.database.catalog.get(),
            path: self.path(),
            system: Some(SystemTables::new(
                self.database.clone(),
                &self.options,
                &self.settings,
            )),
        }
    }

    pub(crate) fn notice(&mut self, message: impl Into<String>) {
        self.notices.push(Notice::notice(message));
    }

    async fn dispatch(
        &mut self,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, SqlError> {
        let parsed = prepared.statement.clone();
        let text = parsed.text.as_str();
        match &parsed.statement {
            Statement::Sql(statement) => {
                self.dispatch_sql(prepared, statement, text, parameters)
                    .await
            }
            Statement::CreateTable(create) => self.ddl().await?.create_table(create, text).await,
            Statement::CreateSource(create) => self.ddl().await?.create_source(create, text).await,
            Statement::CreateMaterializedView(create) => {
                self.ddl()
                    .await?
                    .create_materialized_view(create, text)
                    .await
            }
            Statement::CreateSink(create) => self.ddl().await?.create_sink(create, text).await,
            Statement::Drop(drop) => self.ddl().await?.drop(drop).await,
            Statement::Suspend { kind, name } => self.ddl().await?.suspend(*kind, name).await,
            Statement::Resume { kind, name } => self.ddl().await?.resume(*kind, name).await,
            Statement::AlterMaterializedView(alter)
                if matches!(alter.operation, AlterOperation::Query(_)) =>
            {
                self.ddl().await?.alter_query(alter, text).await
            }
            Statement::AlterMaterializedView(alter)
                if matches!(alter.operation, AlterOperation::Set(_)) =>
            {
                self.ddl().await?.alter_materialized_view(alter).await
            }
            Statement::AlterMaterializedView(alter) => {
                let what = rename::Altered {
                    kind: ObjectKind::MaterializedView,
                    if_exists: alter.if_exists,
                    name: &alter.name,
                };
                self.ddl()
                    .await?
                    .alter_relation(what, &alter.operation)
                    .await
            }
            Statement::AlterRelation {
                kind,
                if_exists,
                name,
                operation,
            } => {
                let what = rename::Altered {
                    kind: *kind,
                    if_exists: *if_exists,
                    name,
                };
                self.ddl().await?.alter_relation(what, operation).await
            }
            Statement::AlterSystem(alter) => self.alter_system(alter).await,
            Statement::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Statement::DeclareSubscription {
                name,
                hold,
                subscribe,
            } => self.declare_subscription(name, *hold, subscribe).await,
            Statement::FetchWithin {
                fetch,
                timeout,
                position,
            } => self.fetch_within(fetch, timeout, *position).await,
            Statement::CopySubscription { subscribe, copy } => {
                let options = crate::dml::copy_out_options(copy)?;
                self.copy_subscription(subscribe, options).await
            }
            Statement::Flush | Statement::Wait => {
                self.outside_transaction(parsed.statement.tag())?;
                self.database.runtime()?.flush().await?;
                Ok(command(parsed.statement.tag()))
            }
            Statement::Checkpoint => self.checkpoint().await,
            Statement::Shutdown { savepoint, drain } => {
                self.shutdown(savepoint.as_ref(), *drain).await
            }
            Statement::Savepoint(savepoint) if self.in_block() => self.mark(savepoint),
            Statement::RollbackToSavepoint { name, options } if self.in_block() => {
                self.roll_back_to_mark(name, options)
            }
            Statement::ReleaseSavepoint { name } if self.in_block() => self.release_mark(name),
            Statement::Savepoint(savepoint) => self.savepoint(savepoint).await,
            Statement::RollbackToSavepoint { name, options } => {
                self.rollback_to(name, options).await
            }
            Statement::ReleaseSavepoint { name } => self.release(name).await,
            Statement::DescribeSavepoint { name } => self.describe_savepoint(name),
            Statement::VerifySavepoint { name } => self.verify_savepoint(name).await,
            Statement::VerifyMaterializedView { name } => self.verify_view(name).await,
            Statement::Show(show) => self.show(show).await,
            Statement::Describe { name } => self.describe(name),
            Statement::Explain(explain) => self.explain(explain).await,
            Statement::ExplainView(explain) => self.explain_view(explain).await,
            Statement::NotBuilt { feature } => Err(SqlError::not_supported(feature)),
            other => Err(SqlError::not_supported(other.tag())),
        }
    }

    async fn dispatch_sql(
        &mut self,
        prepared: &Prepared,
        statement: &ast::Statement,
        text: &str,
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, SqlError> {
        use ast::Statement as S;
        match statement {
            S::Query(query) => self.query(prepared, query, text, parameters).await,
            S::Insert(insert) => {
                self.insert(insert, text, &prepared.parameters, parameters)
                    .await
            }
            S::Update(update) => {
                self.update(update, text, &prepared.parameters, parameters)
                    .await
            }
            S::Delete(delete) => {
                self.delete(delete, text, &prepared.parameters, parameters)
                    .await
            }
            S::Truncate(truncate) => self.truncate(truncate).await,
            S::Copy { .. } => self.copy(statement).await,
            S::CreateView(create) => self.ddl().await?.create_view(create, text).await,
            S::AlterTable(alter) => self.ddl().await?.alter_table(alter).await,
            S::Comment {
                object_type,
                object_name,
                comment,
                ..
            } => {
                self.ddl()
                    .await?
                    .comment(object_type, object_name, comment.as_deref())
                    .await
            }
            S::CreateSchema {
                schema_name,
                if_not_exists,
                ..
            } => {
                self.ddl()
                    .await?
                    .create_schema(schema_name, *if_not_exists)
                    .await
            }
            S::StartTransaction { modes, begin, .. } => self.begin(modes, *begin),
            S::Commit { .. } => self.commit().await,
            S::Rollback {
                chain: false,
                savepoint: None,
            } => self.rollback(),
            S::Set(set) => self.set(set),
            S::Reset(reset) => self.reset(reset),
            S::Discard { object_type } => self.discard(object_type),
            S::Declare { stmts } if stmts.len() == 1 => self.declare(&stmts[0]).await,
            S::Fetch { .. } => self.fetch(statement, None).await,
            S::Close { cursor } => self.close(cursor),
            S::Prepare {
                name,
                data_types,
                statement,
            } => self.prepare_named(name, data_types, statement),
            S::Execute {
                name: Some(name),
                parameters: arguments,
                ..
            } => {
                let (prepared, values) = self.executed(name, arguments)?;
                Box::pin(self.dispatch(&prepared, values)).await
            }
            S::Deallocate { name, .. } => self.deallocate(name),
            S::CreateIndex(_) => Err(SqlError::not_supported("CREATE INDEX")
                .with_hint("A materialized view keyed by other columns answers the same lookups.")),
            other => Err(not_supported(other)),
        }
    }

    fn discard(&mut self, what: &ast::DiscardObject) -> Result<Response, SqlError> {
        match what {
            ast::DiscardObject::ALL => {
                self.outside_transaction("DISCARD ALL")?;
                self.settings = self.database.config.settings.clone();
                self.deallocate_all();
                self.cursors.get_mut().clear();
            }
            ast::DiscardObject::PLANS | ast::DiscardObject::SEQUENCES => {}
            // There are no temporary tables to drop.
            ast::DiscardObject::TEMP => {}
        }
        Ok(command(format!("DISCARD {what}")))
    }

    /// A statement that cannot be part of a transaction block.
    pub(crate) fn outside_transaction(&self, what: &str) -> Result<(), SqlError> {
        match &self.transaction {
            Some(transaction) if transaction.explicit => Err(SqlError::new(
                SqlState::ACTIVE_TRANSACTION,
                format!("{what} cannot run inside a transaction block"),
            )),
            _ => Ok(()),
        }
    }
}

fn not_supported(statement: &ast::Statement) -> SqlError {
    let text = statement.to_string();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    SqlError::not_supported(words.join(" "))
}

pub(crate) fn command(tag: impl Into<String>) -> Response {
    Response::Command { tag: tag.into() }
}

/// A result that is computed already.
pub(crate) fn rows(schema: SchemaRef, batches: Vec<RecordBatch>, tag: RowsTag) -> Response {
    Response::Rows {
        schema,
        stream: futures::stream::iter(batches.into_iter().map(Ok)).boxed(),
        tag,
    }
}

/// Text columns by name, for lists.
pub(crate) fn text_schema(columns: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(
        columns
            .iter()
            .map(|c| Field::new(*c, DataType::Utf8, true))
            .collect::<Vec<_>>(),
    ))
}

pub(crate) fn text_rows(
    columns: &[&str],
    lines: Vec<Vec<Option<String>>>,
    tag: RowsTag,
) -> Response {
    let schema = text_schema(columns);
    let arrays: Vec<ArrayRef> = (0..columns.len())
        .map(|c| {
            Arc::new(
                lines
                    .iter()
                    .map(|l| l[c].as_deref())
                    .collect::<StringArray>(),
            ) as ArrayRef
        })
        .collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays).expect("every line has every column");
    rows(schema, vec![batch], tag)
}

#[async_trait]
impl SessionApi for Session {
    fn parse(&self, sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
        tidegate_parser::parse(sql).map_err(parse_error)
    }

    async fn prepare(
        &mut self,
        statement: ParsedStatement,
        parameter_types: Vec<Option<SqlType>>,
    ) -> Result<Prepared, SqlError> {
        self.check_transaction(&statement.statement)?;
        let prepared = self.prepare_statement(Arc::new(statement), parameter_types);
        if prepared.is_err() {
            self.fail_transaction();
        }
        prepared
    }

    async fn execute(
        &mut self,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, SqlError> {
        self.check_transaction(&prepared.statement.statement)?;
        let cancel = self.cancel.clone();
        let timeout = self
            .settings
            .duration("statement_timeout")
            .filter(|t| !t.is_zero());
        let work = self.dispatch(prepared, parameters);
        let result = tokio::select! {
            result = work => result,
            reason = cancel.cancelled() => Err(reason.error()),
            () = sleep_or_never(timeout) => Err(crate::api::CancelReason::StatementTimeout.error()),
        };
        if result.is_err() {
            self.fail_transaction();
        } else if std::mem::take(&mut self.stops_server) {
            self.database.request_stop();
        }
        result
    }

    async fn copy_in(&mut self, copy: CopyIn, rows: RowStream) -> Result<u64, SqlError> {
        let result = self.copy_rows(copy, rows).await;
        if result.is_err() {
            self.fail_transaction();
        }
        result
    }

    async fn begin_implicit(&mut self) -> Result<(), SqlError> {
        if self.transaction.is_none() {
            self.transaction = Some(Transaction::new(false));
        }
        Ok(())
    }

    async fn end_implicit(&mut self, commit: bool) -> Result<(), SqlError> {
        if self.transaction.as_ref().is_some_and(|t| !t.explicit) {
            let transaction = self.transaction.take().expect("it is there");
            if commit && !transaction.failed {
                self.commit_changes(transaction).await?;
            }
        }
        Ok(())
    }

    fn fail_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
        }
    }

    fn transaction_status(&self) -> TransactionStatus {
        match &self.transaction {
            Some(transaction) if transaction.explicit && transaction.failed => {
                TransactionStatus::Failed
            }
            Some(transaction) if transaction.explicit => TransactionStatus::InTransaction,
            _ => TransactionStatus::Idle,
        }
    }

    fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    fn cursor_columns(&self, name: &str) -> Option<SchemaRef> {
        self.cursor_schema(name).ok()
    }

    fn protocol_statement(&mut self, name: &str, exists: bool) {
        if exists {
            self.protocol_statements.insert(name.to_owned());
        } else {
            self.protocol_statements.remove(name);
        }
    }

    fn take_deallocated(&mut self) -> Vec<String> {
        std::mem::take(&mut self.deallocated)
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        let now: Vec<String> = REPORTED
            .iter()
            .map(|n| self.settings.text(n).to_owned())
            .collect();
        let mut changes: Vec<(String, String)> = Vec::new();
        if self.reported.is_empty() {
            changes.extend(
                crate::settings::PRESETS
                    .iter()
                    .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
            );
        }
        for (index, value) in now.iter().enumerate() {
            if self.reported.get(index) != Some(value) {
                changes.push((REPORTED_NAMES[index].to_owned(), value.clone()));
            }
        }
        self.reported = now;
        changes
    }
}

async fn sleep_or_never(timeout: Option<std::time::Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

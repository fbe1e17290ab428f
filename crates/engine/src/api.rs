//! What a session takes and gives: the boundary between the engine and whoever speaks to clients.
//!
//! Data and handles only; no statement is run here. [`DatabaseApi`] and [`SessionApi`] are what the wire protocol and the
//! HTTP server are written against, so that both can be tested without a database. `Database` and `Session` implement
//! them.
//!
//! The life of one statement: [`SessionApi::parse`] → [`SessionApi::prepare`] → [`SessionApi::execute`] → a [`Response`],
//! whose rows stream. The session does the work of a stream when the stream is polled, never ahead of the reader by more
//! than a bounded number of batches.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_types::{SqlError, SqlState, SqlType};
use tokio::sync::watch;

pub use datafusion::common::ScalarValue;
pub use tidegate_parser::ParsedStatement;

/// Batches of rows, or the error that ends them. Dropping it ends the statement.
pub type RowStream = BoxStream<'static, Result<RecordBatch, SqlError>>;

/// What executing a statement leads to.
pub enum Response {
    /// Rows for the client. The statement is complete when the stream has ended.
    Rows {
        schema: SchemaRef,
        stream: RowStream,
        tag: RowsTag,
    },
    /// Done, without rows. `tag` is Postgres's command tag: `CREATE TABLE`, `INSERT 0 3`.
    Command { tag: String },
    /// `COPY … FROM STDIN`: the client is asked for rows, which go to [`SessionApi::copy_in`].
    CopyIn(CopyIn),
    /// `COPY … TO STDOUT`.
    CopyOut {
        schema: SchemaRef,
        stream: RowStream,
        options: CopyOptions,
    },
    /// The statement was empty.
    Empty,
}

/// The command tag of a statement that returns rows; the number of rows sent completes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowsTag {
    Select,
    Insert,
    Update,
    Delete,
    Fetch,
    /// Any other command with its count, as in `SUBSCRIBE 7`.
    Counted(&'static str),
    /// A command whose tag has no count: `SHOW`, `EXPLAIN`.
    Plain(&'static str),
}

impl RowsTag {
    pub fn complete(&self, rows: u64) -> String {
        match self {
            RowsTag::Select => format!("SELECT {rows}"),
            RowsTag::Insert => format!("INSERT 0 {rows}"),
            RowsTag::Update => format!("UPDATE {rows}"),
            RowsTag::Delete => format!("DELETE {rows}"),
            RowsTag::Fetch => format!("FETCH {rows}"),
            RowsTag::Counted(word) => format!("{word} {rows}"),
            RowsTag::Plain(word) => (*word).to_owned(),
        }
    }
}

/// A `COPY … FROM STDIN` that waits for its rows.
pub struct CopyIn {
    /// The columns that the data has, in its order: the target's names and types.
    pub schema: SchemaRef,
    pub options: CopyOptions,
    /// What the session needs to find its target again; opaque to others.
    pub target: Arc<dyn Any + Send + Sync>,
}

/// How the bytes of a `COPY` are laid out. [`CopyOptions::of`] gives Postgres's defaults of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    pub format: CopyFormat,
    pub delimiter: u8,
    /// What a NULL looks like.
    pub null: String,
    /// The first line holds column names.
    pub header: bool,
    /// CSV only.
    pub quote: u8,
    /// CSV only: what stands before a quote inside quotes.
    pub escape: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    Text,
    Csv,
}

impl CopyOptions {
    pub fn of(format: CopyFormat) -> Self {
        let (delimiter, null) = match format {
            CopyFormat::Text => (b'\t', "\\N"),
            CopyFormat::Csv => (b',', ""),
        };
        Self {
            format,
            delimiter,
            null: null.to_owned(),
            header: false,
            quote: b'"',
            escape: b'"',
        }
    }
}

/// A statement with the types of its parameters and of its result.
#[derive(Clone)]
pub struct Prepared {
    pub statement: Arc<ParsedStatement>,
    /// The type of `$1`, `$2`, … as declared by the client or inferred.
    pub parameters: Vec<SqlType>,
    /// `None` when the statement returns no rows.
    pub columns: Option<SchemaRef>,
    /// What the session keeps to execute it without planning again; opaque to others.
    pub plan: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("text", &self.statement.text)
            .field("parameters", &self.parameters)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

/// Where a session stands between statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionStatus {
    #[default]
    Idle,
    /// Inside `BEGIN … COMMIT`.
    InTransaction,
    /// Inside a block that failed: everything but its end is refused with 25P02.
    Failed,
}

/// Something to tell the client that is not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub severity: NoticeSeverity,
    /// Its state, message, detail and hint.
    pub content: SqlError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeSeverity {
    Debug,
    Info,
    Notice,
    Warning,
}

impl Notice {
    /// A `NOTICE` (00000), as for `DROP … IF EXISTS` of what does not exist.
    #[expect(
        clippy::self_named_constructors,
        reason = "it is of the severity NOTICE"
    )]
    pub fn notice(message: impl Into<String>) -> Self {
        Self {
            severity: NoticeSeverity::Notice,
            content: SqlError::new(SqlState::SUCCESS, message),
        }
    }

    /// A `WARNING` (01000 unless `state` says otherwise).
    pub fn warning(state: SqlState, message: impl Into<String>) -> Self {
        Self {
            severity: NoticeSeverity::Warning,
            content: SqlError::new(state, message),
        }
    }
}

/// Why a statement was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    UserRequest,
    StatementTimeout,
    ConnectionLost,
    Shutdown,
}

impl CancelReason {
    pub fn error(self) -> SqlError {
        let (state, message) = match self {
            CancelReason::UserRequest => (
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            ),
            CancelReason::StatementTimeout => (
                SqlState::QUERY_CANCELED,
                "canceling statement due to statement timeout",
            ),
            CancelReason::ConnectionLost => {
                (SqlState::CONNECTION_FAILURE, "connection to client lost")
            }
            CancelReason::Shutdown => (
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            ),
        };
        SqlError::new(state, message)
    }
}

/// Cancels the statement that a session is running. Clones are the same token; any thread may use one.
///
/// The frontend calls [`CancelToken::reset`] before each statement, so a cancel request between statements is lost, as in
/// Postgres. `execute` and the streams it returns must look at the token while they work.
#[derive(Debug, Clone)]
pub struct CancelToken {
    reason: Arc<watch::Sender<Option<CancelReason>>>,
}

impl Default for CancelToken {
    fn default() -> Self {
        Self {
            reason: Arc::new(watch::channel(None).0),
        }
    }
}

impl CancelToken {
    pub fn new() -> Self {
        Self::default()
    }

    /// The first reason stays until [`CancelToken::reset`].
    pub fn cancel(&self, reason: CancelReason) {
        self.reason.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(reason);
            first
        });
    }

    pub fn reset(&self) {
        self.reason.send_replace(None);
    }

    pub fn reason(&self) -> Option<CancelReason> {
        *self.reason.borrow()
    }

    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// An error once cancelled; for loops that do not wait.
    pub fn check(&self) -> Result<(), SqlError> {
        match self.reason() {
            Some(reason) => Err(reason.error()),
            None => Ok(()),
        }
    }

    /// Waits until cancelled, and says why.
    pub async fn cancelled(&self) -> CancelReason {
        let mut receiver = self.reason.subscribe();
        let reason = receiver
            .wait_for(Option::is_some)
            .await
            .expect("the token holds its own sender");
        reason.expect("just waited for it")
    }
}

/// Who opens a session, and with which settings.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    pub user: String,
    pub database: String,
    pub application_name: String,
    /// Settings from the startup message (`options=-c …` included), in order; unknown ones are refused.
    pub params: Vec<(String, String)>,
    /// Where the client is; `None` in the embedded database.
    pub peer: Option<SocketAddr>,
    /// What the client was told as its process; 0 in the embedded database.
    pub backend_pid: i32,
}

/// A database as the frontend sees it.
pub trait DatabaseApi: Send + Sync + 'static {
    /// Fails with 22023 or 42704 for a setting that is refused, 57P03 while starting or stopping.
    fn open_session(
        self: Arc<Self>,
        options: SessionOptions,
    ) -> Result<Box<dyn SessionApi>, SqlError>;

    /// Prometheus text of everything the engine counts.
    fn metrics(&self) -> String;

    /// The process works: no worker is lost for good, the data directory can be written.
    fn health(&self) -> Result<(), SqlError>;

    /// Statements are served: recovery is over.
    fn ready(&self) -> Result<(), SqlError>;
}

/// A session as the frontend sees it. Dropping one rolls its open transaction back.
#[async_trait]
pub trait SessionApi: Send {
    /// Reads all statements of a text. Positions of errors refer to this text.
    fn parse(&self, sql: &str) -> Result<Vec<ParsedStatement>, SqlError>;

    /// Finds the types of a statement. `parameter_types[i]` is what the client declared for `$i+1`, if anything.
    async fn prepare(
        &mut self,
        statement: ParsedStatement,
        parameter_types: Vec<Option<SqlType>>,
    ) -> Result<Prepared, SqlError>;

    /// Runs a statement. `parameters` has a value of the stated type for each of `prepared.parameters`.
    ///
    /// A prepared statement whose relations changed since is planned again; if its columns then differ it fails with
    /// 0A000 `cached plan must not change result type`.
    async fn execute(
        &mut self,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, SqlError>;

    /// Takes the rows of a `COPY … FROM STDIN` and returns how many there were. An error in `rows` undoes the statement.
    async fn copy_in(&mut self, copy: CopyIn, rows: RowStream) -> Result<u64, SqlError>;

    /// The statements that follow are one transaction until [`SessionApi::end_implicit`], unless one of them begins an
    /// explicit block, which then takes over (and includes what came before, as in Postgres). Does nothing inside a block.
    async fn begin_implicit(&mut self) -> Result<(), SqlError>;

    /// Commits, or rolls back, what [`SessionApi::begin_implicit`] began. Does nothing when an explicit block took over.
    async fn end_implicit(&mut self, commit: bool) -> Result<(), SqlError>;

    /// An error was met outside `execute` (a parameter that cannot be read, a stream that broke): an open block is now
    /// [`TransactionStatus::Failed`].
    fn fail_transaction(&mut self);

    fn transaction_status(&self) -> TransactionStatus;

    /// The columns of a cursor that SQL declared, for clients that describe it as a portal.
    fn cursor_columns(&self, _name: &str) -> Option<SchemaRef> {
        None
    }

    /// The frontend keeps a statement under this name, or no longer.
    fn protocol_statement(&mut self, _name: &str, _exists: bool) {}

    /// Statements that the frontend keeps and `DEALLOCATE` asked to forget, since the last call.
    fn take_deallocated(&mut self) -> Vec<String> {
        Vec::new()
    }

    fn cancel_token(&self) -> CancelToken;

    /// Notices since the last call, oldest first.
    fn take_notices(&mut self) -> Vec<Notice>;

    /// Settings that clients are told of (`client_encoding`, `DateStyle`, `TimeZone`, `application_name`, …) with their
    /// values: all of them at the first call, then those changed since the last call.
    fn take_parameter_changes(&mut self) -> Vec<(String, String)>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_to_cancel_stays_until_reset() {
        let token = CancelToken::new();
        token.check().expect("not cancelled");
        token.cancel(CancelReason::UserRequest);
        token.clone().cancel(CancelReason::Shutdown);
        let error = token.check().expect_err("cancelled");
        assert_eq!(error.state, SqlState::QUERY_CANCELED);
        token.reset();
        token.check().expect("reset");
    }

    #[test]
    fn tags_are_those_of_postgres() {
        assert_eq!(RowsTag::Insert.complete(3), "INSERT 0 3");
        assert_eq!(RowsTag::Select.complete(0), "SELECT 0");
        assert_eq!(RowsTag::Plain("SHOW").complete(1), "SHOW");
    }
}

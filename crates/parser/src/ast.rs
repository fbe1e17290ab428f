//! The statements, as data. What `sqlparser` reads stays its own tree in [`Statement::Sql`].

use std::fmt;

use sqlparser::ast;
use sqlparser::ast::{ColumnDef, Expr, Ident, ObjectName, Query, TableConstraint};

/// A statement and where it stood in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedStatement {
    pub statement: Statement,
    /// The slice of the text from the statement's first token to its last, without the semicolon.
    pub text: String,
    /// Where `text` begins, in bytes of the text that was parsed.
    pub offset: usize,
}

/// Everything a client can ask for.
///
/// `CREATE TABLE`, `DROP` of our own objects, `SHOW`, `DESCRIBE`, `EXPLAIN` and the `SAVEPOINT` family never arrive as
/// [`Statement::Sql`].
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// Read by `sqlparser`: queries, `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `CREATE VIEW`, `CREATE INDEX`,
    /// `CREATE SCHEMA`, `ALTER TABLE`, `SET`, `RESET`, transactions, `COPY`, `PREPARE`, cursors, `GRANT`, `COMMENT ON`, …
    Sql(Box<ast::Statement>),
    CreateTable(Box<CreateTable>),
    CreateSource(Box<CreateSource>),
    CreateMaterializedView(Box<CreateMaterializedView>),
    CreateSink(Box<CreateSink>),
    Drop(Drop),
    AlterMaterializedView(Box<AlterMaterializedView>),
    /// `RENAME TO` and `SET SCHEMA` of anything but a materialized view.
    AlterRelation {
        kind: ObjectKind,
        if_exists: bool,
        name: ObjectName,
        operation: AlterOperation,
    },
    AlterSystem(AlterSystem),
    Subscribe(Box<Subscribe>),
    /// `DECLARE name CURSOR FOR SUBSCRIBE …`; a cursor over a query is [`Statement::Sql`].
    DeclareSubscription {
        name: Ident,
        hold: bool,
        subscribe: Box<Subscribe>,
    },
    /// `FETCH … WITH (timeout = '…')`; one without options is [`Statement::Sql`].
    FetchWithin {
        fetch: Box<ast::Statement>,
        timeout: String,
        /// Of the timeout.
        position: usize,
    },
    /// `COPY (SUBSCRIBE …) TO …`, with the statement as it would be for a query.
    CopySubscription {
        subscribe: Box<Subscribe>,
        copy: Box<ast::Statement>,
    },
    Flush,
    Wait,
    Checkpoint,
    /// Of the whole database, or of a transaction: the engine knows whether a transaction block is open.
    Savepoint(Savepoint),
    RollbackToSavepoint {
        name: Ident,
        options: Vec<WithOption>,
    },
    ReleaseSavepoint {
        name: Ident,
    },
    DescribeSavepoint {
        name: Ident,
    },
    VerifySavepoint {
        name: Ident,
    },
    VerifyMaterializedView {
        name: ObjectName,
    },
    Show(Show),
    Describe {
        name: ObjectName,
    },
    Explain(Explain),
    ExplainView(ExplainView),
    Suspend {
        kind: ObjectKind,
        name: ObjectName,
    },
    Resume {
        kind: ObjectKind,
        name: ObjectName,
    },
    CancelJob {
        ids: Vec<u64>,
    },
    Recover,
    Shutdown {
        savepoint: Option<Savepoint>,
        /// What bounded sources have is processed first.
        drain: bool,
    },
    /// Recognised, not built: to be refused with 0A000 naming `feature`, for example `CREATE FUNCTION`.
    NotBuilt {
        feature: String,
    },
}

/// `CREATE TABLE`. Clauses of Postgres that are not built (`LIKE`, `INHERITS`, `PARTITION BY`, …) are refused in parsing.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    pub if_not_exists: bool,
    pub name: ObjectName,
    /// In `CREATE TABLE t (a, b) AS …` the types are `DataType::Unspecified`.
    pub columns: Vec<ColumnDef>,
    pub constraints: Vec<TableConstraint>,
    pub watermark: Option<Watermark>,
    pub append_only: bool,
    pub on_conflict: Option<TableOnConflict>,
    /// The column of `ON CONFLICT … WITH VERSION COLUMN (c)`.
    pub version_column: Option<Ident>,
    pub include: Vec<IncludeColumn>,
    pub options: Vec<WithOption>,
    pub format: Option<FormatEncode>,
    /// `AS query`.
    pub query: Option<QueryText>,
    /// `WITH NO DATA`: only the columns of the query are wanted.
    pub no_data: bool,
}

/// `CREATE SOURCE`. Columns may be absent where the connector knows them.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSource {
    pub if_not_exists: bool,
    pub name: ObjectName,
    pub columns: Vec<ColumnDef>,
    pub constraints: Vec<TableConstraint>,
    pub watermark: Option<Watermark>,
    pub include: Vec<IncludeColumn>,
    pub options: Vec<WithOption>,
    pub format: Option<FormatEncode>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateMaterializedView {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: ObjectName,
    /// Names given to the columns; empty when the query names them.
    pub columns: Vec<Ident>,
    pub options: Vec<WithOption>,
    pub query: QueryText,
    pub emit_on_window_close: bool,
    pub from_savepoint: Option<Ident>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CreateSink {
    pub if_not_exists: bool,
    pub name: ObjectName,
    pub input: SinkInput,
    pub options: Vec<WithOption>,
    pub format: Option<FormatEncode>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SinkInput {
    Relation(ObjectName),
    Query(QueryText),
}

/// A query and the text it was read from, which is what definitions keep.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryText {
    pub query: Box<Query>,
    pub text: String,
}

/// `WATERMARK FOR column AS expr`.
#[derive(Debug, Clone, PartialEq)]
pub struct Watermark {
    pub column: Ident,
    pub expr: Expr,
    /// Of the word `WATERMARK`.
    pub position: usize,
}

/// What a table does with a row whose primary key it already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableOnConflict {
    /// `OVERWRITE`, `DO UPDATE FULL`.
    Overwrite,
    /// `IGNORE`, `DO NOTHING`.
    Ignore,
    /// `DO UPDATE IF NOT NULL`.
    UpdateIfNotNull,
}

/// `INCLUDE kind ['field'] [type] [AS alias]`: a column filled from what surrounds a message.
#[derive(Debug, Clone, PartialEq)]
pub struct IncludeColumn {
    /// Lower case: `key`, `partition`, `offset`, `timestamp`, `header`, … The connector knows which exist.
    pub kind: String,
    /// The header's name in `INCLUDE header 'name'`.
    pub field: Option<String>,
    pub data_type: Option<ast::DataType>,
    pub alias: Option<Ident>,
    pub position: usize,
}

/// One `name = value` of a `WITH (…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithOption {
    /// Unquoted parts in lower case, joined with dots.
    pub name: String,
    /// The literal's content: text without quotes, a number as written, `true` or `false`, a word in lower case.
    pub value: String,
    /// Of the name.
    pub position: usize,
    /// Of the value; of the name where an option is given without one.
    pub value_position: usize,
}

/// `FORMAT f ENCODE e (…) [KEY ENCODE k]`, all words in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatEncode {
    pub format: String,
    pub encode: String,
    pub options: Vec<WithOption>,
    pub key_encode: Option<String>,
    /// Of the word behind `FORMAT`.
    pub position: usize,
    /// Of the word behind `ENCODE`.
    pub encode_position: usize,
}

/// The kinds of things that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Table,
    Source,
    View,
    MaterializedView,
    Sink,
    Index,
    Schema,
}

impl ObjectKind {
    /// As written in SQL, in capitals.
    pub fn sql(self) -> &'static str {
        match self {
            ObjectKind::Table => "TABLE",
            ObjectKind::Source => "SOURCE",
            ObjectKind::View => "VIEW",
            ObjectKind::MaterializedView => "MATERIALIZED VIEW",
            ObjectKind::Sink => "SINK",
            ObjectKind::Index => "INDEX",
            ObjectKind::Schema => "SCHEMA",
        }
    }
}

impl fmt::Display for ObjectKind {
    /// As in error messages, in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Table => "table",
            ObjectKind::Source => "source",
            ObjectKind::View => "view",
            ObjectKind::MaterializedView => "materialized view",
            ObjectKind::Sink => "sink",
            ObjectKind::Index => "index",
            ObjectKind::Schema => "schema",
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Drop {
    pub kind: ObjectKind,
    pub if_exists: bool,
    pub names: Vec<ObjectName>,
    /// `false` is `RESTRICT`, written or not.
    pub cascade: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AlterMaterializedView {
    pub if_exists: bool,
    pub name: ObjectName,
    pub operation: AlterOperation,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AlterOperation {
    RenameTo(Ident),
    SetSchema(Ident),
    /// `SET (name = value, …)` or `SET name = value`.
    Set(Vec<WithOption>),
    /// `AS query`: another query over kept state.
    Query(QueryText),
}

#[derive(Debug, Clone, PartialEq)]
pub enum AlterSystem {
    /// `SET name = value`; the value `None` is `DEFAULT`.
    Set {
        name: String,
        value: Option<String>,
        position: usize,
    },
    Reset {
        name: String,
        position: usize,
    },
    ResetAll,
}

/// `SUBSCRIBE [TO] target [WITH (…)] [AS OF …] [UP TO … | UNTIL …] [LIMIT n]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    pub target: SubscribeTarget,
    /// Whether the contents come before the changes; they do unless `SNAPSHOT = false`.
    pub snapshot: bool,
    /// Whether epochs without changes are reported.
    pub progress: bool,
    pub as_of: Option<Expr>,
    /// The epoch or time at which the subscription ends by itself.
    pub up_to: Option<Expr>,
    /// The number of rows after which it ends by itself.
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SubscribeTarget {
    Relation(ObjectName),
    Query(QueryText),
}

/// `SAVEPOINT name [FOR MATERIALIZED VIEW v, …] [TO 'url'] [WITH (…)]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Savepoint {
    pub name: Ident,
    /// Empty: everything.
    pub views: Vec<ObjectName>,
    pub to: Option<String>,
    pub options: Vec<WithOption>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Show {
    pub what: ShowWhat,
    /// `FROM name`: a schema for lists of relations, a relation for `COLUMNS` and `INDEXES`.
    pub from: Option<ObjectName>,
    pub like: Option<LikePattern>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ShowWhat {
    Tables,
    Views,
    MaterializedViews,
    Sources,
    Sinks,
    Indexes,
    Schemas,
    Databases,
    Columns,
    Jobs,
    Checkpoints,
    Savepoints,
    Recovery,
    /// Every setting.
    All,
    /// One setting by its name in lower case, dotted where written so.
    Setting {
        name: String,
        position: usize,
    },
    Create {
        kind: ObjectKind,
        name: ObjectName,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LikePattern {
    pub pattern: String,
    pub case_insensitive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExplainFormat {
    #[default]
    Text,
    Json,
    Dot,
}

/// `EXPLAIN [ANALYZE] [VERBOSE] statement`, also with options in parentheses.
#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    pub analyze: bool,
    pub verbose: bool,
    pub format: ExplainFormat,
    pub statement: Box<Statement>,
    /// The source of the statement that is explained.
    pub text: String,
}

/// `EXPLAIN [ANALYZE] [VERBOSE] MATERIALIZED VIEW name`: the plan that runs, not the one a query would get now.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainView {
    pub analyze: bool,
    pub verbose: bool,
    pub format: ExplainFormat,
    pub name: ObjectName,
}

impl Statement {
    /// The command tag without counts, as Postgres sends it at completion: `CREATE MATERIALIZED VIEW`, `INSERT`, …
    pub fn tag(&self) -> &'static str {
        match self {
            Statement::Sql(statement) => sql_tag(statement),
            Statement::CreateTable(_) => "CREATE TABLE",
            Statement::CreateSource(_) => "CREATE SOURCE",
            Statement::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW",
            Statement::CreateSink(_) => "CREATE SINK",
            Statement::Drop(drop) => match drop.kind {
                ObjectKind::Table => "DROP TABLE",
                ObjectKind::Source => "DROP SOURCE",
                ObjectKind::View => "DROP VIEW",
                ObjectKind::MaterializedView => "DROP MATERIALIZED VIEW",
                ObjectKind::Sink => "DROP SINK",
                ObjectKind::Index => "DROP INDEX",
                ObjectKind::Schema => "DROP SCHEMA",
            },
            Statement::AlterMaterializedView(_) => "ALTER MATERIALIZED VIEW",
            Statement::AlterRelation { kind, .. } => match kind {
                ObjectKind::Table => "ALTER TABLE",
                ObjectKind::Source => "ALTER SOURCE",
                ObjectKind::View => "ALTER VIEW",
                ObjectKind::MaterializedView => "ALTER MATERIALIZED VIEW",
                ObjectKind::Sink => "ALTER SINK",
                ObjectKind::Index => "ALTER INDEX",
                ObjectKind::Schema => "ALTER SCHEMA",
            },
            Statement::AlterSystem(_) => "ALTER SYSTEM",
            Statement::Subscribe(_) => "SUBSCRIBE",
            Statement::DeclareSubscription { .. } => "DECLARE CURSOR",
            Statement::FetchWithin { .. } => "FETCH",
            Statement::CopySubscription { .. } => "COPY",
            Statement::Flush => "FLUSH",
            Statement::Wait => "WAIT",
            Statement::Checkpoint => "CHECKPOINT",
            Statement::Savepoint(_) => "SAVEPOINT",
            Statement::RollbackToSavepoint { .. } => "ROLLBACK",
            Statement::ReleaseSavepoint { .. } => "RELEASE",
            Statement::DescribeSavepoint { .. } | Statement::Describe { .. } => "DESCRIBE",
            Statement::VerifySavepoint { .. } | Statement::VerifyMaterializedView { .. } => {
                "VERIFY"
            }
            Statement::Show(_) => "SHOW",
            Statement::Explain(_) | Statement::ExplainView(_) => "EXPLAIN",
            Statement::Suspend { .. } => "SUSPEND",
            Statement::Resume { .. } => "RESUME",
            Statement::CancelJob { .. } => "CANCEL JOB",
            Statement::Recover => "RECOVER",
            Statement::Shutdown { .. } => "SHUTDOWN",
            Statement::NotBuilt { .. } => "UNSUPPORTED",
        }
    }
}

fn sql_tag(statement: &ast::Statement) -> &'static str {
    use ast::Statement as S;
    match statement {
        S::Query(_) => "SELECT",
        S::Insert(_) => "INSERT",
        S::Update(_) => "UPDATE",
        S::Delete(_) => "DELETE",
        S::Merge(_) => "MERGE",
        S::Truncate(_) => "TRUNCATE TABLE",
        S::Copy { .. } => "COPY",
        S::CreateView(_) => "CREATE VIEW",
        S::CreateIndex(_) => "CREATE INDEX",
        S::CreateSchema { .. } => "CREATE SCHEMA",
        S::AlterTable(_) => "ALTER TABLE",
        S::AlterView { .. } => "ALTER VIEW",
        S::AlterIndex { .. } => "ALTER INDEX",
        S::AlterSchema(_) => "ALTER SCHEMA",
        S::Comment { .. } => "COMMENT",
        S::Grant(_) => "GRANT",
        S::Revoke(_) => "REVOKE",
        S::Set(_) => "SET",
        S::Reset(_) => "RESET",
        S::StartTransaction { begin: true, .. } => "BEGIN",
        S::StartTransaction { .. } => "START TRANSACTION",
        S::Commit { .. } => "COMMIT",
        S::Rollback { .. } => "ROLLBACK",
        S::Prepare { .. } => "PREPARE",
        S::Execute { .. } => "EXECUTE",
        S::Deallocate { .. } => "DEALLOCATE",
        S::Declare { .. } => "DECLARE CURSOR",
        S::Fetch { .. } => "FETCH",
        S::Close { .. } => "CLOSE CURSOR",
        S::Discard { .. } => "DISCARD",
        S::LISTEN { .. } => "LISTEN",
        S::UNLISTEN { .. } => "UNLISTEN",
        S::NOTIFY { .. } => "NOTIFY",
        S::Vacuum(_) => "VACUUM",
        S::Analyze(_) => "ANALYZE",
        _ => "UNSUPPORTED",
    }
}

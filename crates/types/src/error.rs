//! Errors that a person sees: SQLSTATE, message, and detail, hint and position where they help.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// A five-character SQLSTATE.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SqlState(Cow<'static, str>);

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl SqlState { $($(#[$doc])* pub const $name: SqlState = SqlState(Cow::Borrowed($code));)* }
    };
}

states! {
    SUCCESS = "00000";
    WARNING = "01000";
    FEATURE_NOT_SUPPORTED = "0A000";
    CONNECTION_FAILURE = "08006";
    PROTOCOL_VIOLATION = "08P01";
    CARDINALITY_VIOLATION = "21000";
    DATA_EXCEPTION = "22000";
    STRING_TOO_LONG = "22001";
    NUMERIC_OUT_OF_RANGE = "22003";
    INVALID_DATETIME = "22007";
    DATETIME_OVERFLOW = "22008";
    DIVISION_BY_ZERO = "22012";
    INVALID_PARAMETER_VALUE = "22023";
    INVALID_REGULAR_EXPRESSION = "2201B";
    INVALID_TEXT_REPRESENTATION = "22P02";
    INVALID_BINARY_REPRESENTATION = "22P03";
    BAD_COPY_FORMAT = "22P04";
    INVALID_JSON = "22032";
    NOT_NULL_VIOLATION = "23502";
    UNIQUE_VIOLATION = "23505";
    CHECK_VIOLATION = "23514";
    INVALID_CURSOR_STATE = "24000";
    INVALID_TRANSACTION_STATE = "25000";
    ACTIVE_TRANSACTION = "25001";
    READ_ONLY_TRANSACTION = "25006";
    NO_ACTIVE_TRANSACTION = "25P01";
    IN_FAILED_TRANSACTION = "25P02";
    INVALID_STATEMENT_NAME = "26000";
    DEPENDENT_OBJECTS = "2BP01";
    INVALID_CURSOR_NAME = "34000";
    INVALID_SAVEPOINT = "3B001";
    INVALID_CATALOG_NAME = "3D000";
    INVALID_SCHEMA_NAME = "3F000";
    SERIALIZATION_FAILURE = "40001";
    SYNTAX_ERROR = "42601";
    INSUFFICIENT_PRIVILEGE = "42501";
    CANNOT_COERCE = "42846";
    GROUPING_ERROR = "42803";
    WRONG_OBJECT_TYPE = "42809";
    DATATYPE_MISMATCH = "42804";
    UNDEFINED_COLUMN = "42703";
    UNDEFINED_FUNCTION = "42883";
    UNDEFINED_TABLE = "42P01";
    UNDEFINED_PARAMETER = "42P02";
    UNDEFINED_OBJECT = "42704";
    ARRAY_SUBSCRIPT_ERROR = "2202E";
    WINDOWING_ERROR = "42P20";
    DUPLICATE_COLUMN = "42701";
    DUPLICATE_DATABASE = "42P04";
    DUPLICATE_PREPARED_STATEMENT = "42P05";
    DUPLICATE_SCHEMA = "42P06";
    DUPLICATE_TABLE = "42P07";
    DUPLICATE_OBJECT = "42710";
    AMBIGUOUS_COLUMN = "42702";
    INVALID_COLUMN_REFERENCE = "42P10";
    INVALID_TABLE_DEFINITION = "42P16";
    DISK_FULL = "53100";
    OUT_OF_MEMORY = "53200";
    TOO_MANY_CONNECTIONS = "53300";
    PROGRAM_LIMIT_EXCEEDED = "54000";
    OBJECT_NOT_IN_PREREQUISITE_STATE = "55000";
    OBJECT_IN_USE = "55006";
    CANT_CHANGE_RUNTIME_PARAM = "55P02";
    QUERY_CANCELED = "57014";
    ADMIN_SHUTDOWN = "57P01";
    CANNOT_CONNECT_NOW = "57P03";
    IO_ERROR = "58030";
    INTERNAL_ERROR = "XX000";
    DATA_CORRUPTED = "XX001";
}

impl SqlState {
    pub fn code(&self) -> &str {
        &self.0
    }

    /// A state from its five characters, as stored or as a library reports it.
    pub fn from_code(code: &str) -> Self {
        Self(Cow::Owned(code.to_owned()))
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a statement, or a row, fails with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    pub state: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// One-based, in characters of the statement's text.
    pub position: Option<usize>,
}

impl SqlError {
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self {
            state,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    /// `0A000` for something that is not built.
    pub fn not_supported(feature: impl fmt::Display) -> Self {
        Self::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("{feature} is not supported"),
        )
    }

    /// A bug of ours, reported instead of a crash where a statement can fail alone.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(
            SqlState::INTERNAL_ERROR,
            format!("internal error: {message}"),
        )
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_position(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }
}

//! What a connector fails with, by what the caller does about it.

use std::io;
use std::path::Path;
use tidegate_types::{SqlError, SqlState};

/// One variant per decision of the caller. Rows that cannot be decoded are not errors: see
/// [`DecodeError`](crate::DecodeError).
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectorError {
    /// The statement asks for something wrong: refuse it.
    #[error(transparent)]
    Statement(SqlError),
    /// A file or device failed: restart from the manifest, it may pass.
    #[error(transparent)]
    Io(SqlError),
    /// The source no longer holds what an offset names: suspend, trying again does not help.
    #[error(transparent)]
    Lost(SqlError),
}

impl ConnectorError {
    /// A value that an option does not take, or options that contradict each other.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Statement(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            message.into(),
        ))
    }

    pub fn not_supported(feature: impl std::fmt::Display) -> Self {
        Self::Statement(SqlError::not_supported(feature))
    }

    /// A failed operation on a file; a full disk and a missing file keep the codes that Postgres gives them.
    pub fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        let state = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SqlState::DISK_FULL,
            io::ErrorKind::NotFound => SqlState::from_code("58P01"),
            io::ErrorKind::PermissionDenied => SqlState::INSUFFICIENT_PRIVILEGE,
            _ => SqlState::IO_ERROR,
        };
        Self::Io(SqlError::new(
            state,
            format!("could not {what} \"{}\": {error}", path.display()),
        ))
    }

    pub fn lost(message: impl Into<String>) -> Self {
        Self::Lost(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            message.into(),
        ))
    }

    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Statement(e) => Self::Statement(e.with_hint(hint)),
            Self::Io(e) => Self::Io(e.with_hint(hint)),
            Self::Lost(e) => Self::Lost(e.with_hint(hint)),
        }
    }

    pub fn sql(&self) -> &SqlError {
        match self {
            Self::Statement(e) | Self::Io(e) | Self::Lost(e) => e,
        }
    }
}

impl From<ConnectorError> for SqlError {
    fn from(error: ConnectorError) -> Self {
        match error {
            ConnectorError::Statement(e) | ConnectorError::Io(e) | ConnectorError::Lost(e) => e,
        }
    }
}

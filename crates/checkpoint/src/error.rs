//! What can go wrong with durable state, by what the caller does about it.
//!
//! Infrastructure errors ([`StorageError`]) fail one checkpoint; the next may succeed. [`CheckpointError::TakenOver`]
//! ends the server. [`CheckpointError::Uncertain`] means that only storage knows whether a commit happened: the caller
//! recovers from storage as after a crash. [`Damage`] makes recovery fall back to an older checkpoint.

use std::sync::Arc;
use tidegate_types::{CheckpointId, SqlError, SqlState};

/// What an object store answered, after retries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    #[error("no space left to write \"{object}\": {cause}")]
    DiskFull { object: String, cause: String },
    #[error("object \"{object}\" does not exist")]
    NotFound { object: String },
    #[error("not permitted to access \"{object}\": {cause}")]
    Permission { object: String, cause: String },
    /// Conditional creation found an object that somebody else made.
    #[error("object \"{object}\" exists already")]
    Conflict { object: String },
    /// Network, throttling, a server's fault; retried before it is reported.
    #[error("storage is unavailable for \"{object}\": {cause}")]
    Unavailable { object: String, cause: String },
    /// A conditional creation failed and it cannot be told whether it took effect.
    #[error("it is unknown whether \"{object}\" was written: {cause}")]
    Uncertain { object: String, cause: String },
    #[error("storage failed for \"{object}\": {cause}")]
    Io { object: String, cause: String },
    #[error("invalid storage location \"{url}\": {cause}")]
    Location { url: String, cause: String },
}

impl StorageError {
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    pub(crate) fn sql_state(&self) -> SqlState {
        match self {
            Self::DiskFull { .. } => SqlState::DISK_FULL,
            Self::Permission { .. } => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::Conflict { .. } => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::Unavailable { .. } | Self::Uncertain { .. } => SqlState::CONNECTION_FAILURE,
            Self::NotFound { .. } | Self::Io { .. } => SqlState::IO_ERROR,
            Self::Location { .. } => SqlState::INVALID_PARAMETER_VALUE,
        }
    }
}

/// A stored object that is missing, cut short or altered. Never repaired, never skipped silently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Damage {
    pub object: Arc<str>,
    /// Where in the object, in bytes.
    pub offset: Option<u64>,
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "object \"{}\" is damaged", self.object)?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error(
        "another server has taken over this storage: it claimed generation {by}, this one is generation {generation}"
    )]
    TakenOver { generation: u64, by: u64 },
    #[error("another server is using \"{location}\"")]
    InUse { location: String },
    #[error("it is unknown whether checkpoint {checkpoint} became durable: {cause}")]
    Uncertain {
        checkpoint: CheckpointId,
        cause: String,
    },
    #[error("savepoint \"{0}\" already exists")]
    SavepointExists(String),
    #[error("savepoint \"{0}\" does not exist")]
    SavepointUnknown(String),
    #[error("invalid savepoint name \"{name}\": {cause}")]
    SavepointName { name: String, cause: &'static str },
    #[error("object \"{object}\" has {what} {found}; this server reads up to {supported}")]
    Unsupported {
        object: String,
        what: &'static str,
        found: u64,
        supported: u64,
    },
    /// The caller asked for something out of order.
    #[error("{0}")]
    OutOfOrder(String),
}

impl CheckpointError {
    /// Whether a later attempt of the same kind may succeed with this store.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::TakenOver { .. } | Self::Uncertain { .. })
    }

    /// Whether an older checkpoint may be readable where this one is not. What is unavailable is not damaged.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

impl From<CheckpointError> for SqlError {
    fn from(error: CheckpointError) -> Self {
        let message = error.to_string();
        match error {
            CheckpointError::Storage(e) => SqlError::new(e.sql_state(), message),
            CheckpointError::Damaged(_) => SqlError::new(SqlState::DATA_CORRUPTED, message),
            CheckpointError::TakenOver { .. } => {
                SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                    .with_hint("stop this server, or give it a checkpoint_storage of its own")
            }
            CheckpointError::InUse { .. } => SqlError::new(SqlState::OBJECT_IN_USE, message)
                .with_hint("stop the other server, or choose another directory"),
            CheckpointError::Uncertain { .. } => {
                SqlError::new(SqlState::CONNECTION_FAILURE, message)
            }
            CheckpointError::SavepointExists(_) => {
                SqlError::new(SqlState::DUPLICATE_OBJECT, message)
            }
            CheckpointError::SavepointUnknown(_) => {
                SqlError::new(SqlState::INVALID_SAVEPOINT, message)
                    .with_hint("SHOW SAVEPOINTS lists the savepoints there are")
            }
            CheckpointError::SavepointName { .. } => {
                SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
            }
            CheckpointError::Unsupported { .. } => {
                SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message)
                    .with_hint("the storage was written by a newer version of tidegate")
            }
            CheckpointError::OutOfOrder(_) => {
                SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            }
        }
    }
}

pub type Result<T, E = CheckpointError> = std::result::Result<T, E>;

//! Why a name cannot be found, made or dropped; worded and coded as Postgres does.

use tidegate_types::{SqlError, SqlState};

use crate::relation::RelationClass;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    #[error("relation \"{name}\" does not exist")]
    UndefinedRelation { name: String, hint: Option<String> },
    #[error("{class} \"{name}\" does not exist")]
    UndefinedOfClass {
        class: RelationClass,
        name: String,
        hint: Option<String>,
    },
    #[error("schema \"{name}\" does not exist")]
    UndefinedSchema { name: String, hint: Option<String> },
    /// No schema of the search path exists.
    #[error("no schema has been selected to create in")]
    NoSchemaSelected,
    #[error("relation \"{name}\" already exists")]
    DuplicateRelation { name: String },
    #[error("schema \"{name}\" already exists")]
    DuplicateSchema { name: String },
    #[error("column \"{name}\" specified more than once")]
    DuplicateColumn { name: String },
    #[error("\"{name}\" is not a {expected}")]
    WrongKind {
        name: String,
        expected: RelationClass,
        found: RelationClass,
    },
    #[error("{message}")]
    Dependents {
        message: String,
        /// `view v depends on table t`, in the order in which they were found.
        detail: Vec<String>,
        hint: String,
    },
    #[error("permission denied to create \"{name}\"")]
    SystemSchema { name: String },
    #[error("unacceptable schema name \"{name}\"")]
    ReservedSchemaName { name: String },
    #[error("cannot drop schema {name} because it is required by the database system")]
    RequiredSchema { name: String },
    #[error("cross-database references are not implemented: \"{name}\"")]
    CrossDatabase { name: String },
    #[error("improper qualified name (too many dotted names): {name}")]
    TooManyDots { name: String },
    /// A change that cannot follow this catalog: a damaged log or manifest, or a bug.
    #[error("catalog change does not apply: {0}")]
    Inconsistent(String),
    /// A durable form that this version cannot read.
    #[error("cannot read the catalog: {0}")]
    Unreadable(String),
}

impl CatalogError {
    pub fn state(&self) -> SqlState {
        match self {
            CatalogError::UndefinedRelation { .. } | CatalogError::UndefinedOfClass { .. } => {
                SqlState::UNDEFINED_TABLE
            }
            CatalogError::UndefinedSchema { .. } | CatalogError::NoSchemaSelected => {
                SqlState::INVALID_SCHEMA_NAME
            }
            CatalogError::DuplicateRelation { .. } => SqlState::DUPLICATE_TABLE,
            CatalogError::DuplicateSchema { .. } => SqlState::DUPLICATE_SCHEMA,
            CatalogError::DuplicateColumn { .. } => SqlState::DUPLICATE_COLUMN,
            CatalogError::WrongKind { .. } => SqlState::WRONG_OBJECT_TYPE,
            CatalogError::Dependents { .. } | CatalogError::RequiredSchema { .. } => {
                SqlState::DEPENDENT_OBJECTS
            }
            CatalogError::SystemSchema { .. } => SqlState::INSUFFICIENT_PRIVILEGE,
            CatalogError::ReservedSchemaName { .. } => SqlState::from_code("42939"),
            CatalogError::CrossDatabase { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            CatalogError::TooManyDots { .. } => SqlState::SYNTAX_ERROR,
            CatalogError::Inconsistent(_) => SqlState::INTERNAL_ERROR,
            CatalogError::Unreadable(_) => SqlState::DATA_CORRUPTED,
        }
    }

    pub fn detail(&self) -> Option<String> {
        match self {
            CatalogError::Dependents { detail, .. } => Some(detail.join("\n")),
            CatalogError::SystemSchema { .. } => {
                Some("System catalog modifications are currently disallowed.".to_string())
            }
            CatalogError::ReservedSchemaName { name } if name.starts_with("pg_") => {
                Some("The prefix \"pg_\" is reserved for system schemas.".to_string())
            }
            CatalogError::ReservedSchemaName { .. } => {
                Some("The name is reserved for a system schema.".to_string())
            }
            _ => None,
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            CatalogError::UndefinedRelation { hint, .. }
            | CatalogError::UndefinedOfClass { hint, .. }
            | CatalogError::UndefinedSchema { hint, .. } => hint.clone(),
            CatalogError::WrongKind { found, .. } => {
                Some(format!("Use DROP {} to remove a {found}.", found.sql()))
            }
            CatalogError::Dependents { hint, .. } => Some(hint.clone()),
            _ => None,
        }
    }

    /// Whether `IF EXISTS` turns it into a notice, which reads like the error with ", skipping" behind it.
    pub fn is_undefined(&self) -> bool {
        matches!(
            self,
            CatalogError::UndefinedRelation { .. }
                | CatalogError::UndefinedOfClass { .. }
                | CatalogError::UndefinedSchema { .. }
        )
    }
}

impl From<CatalogError> for SqlError {
    fn from(error: CatalogError) -> Self {
        SqlError {
            state: error.state(),
            message: error.to_string(),
            detail: error.detail(),
            hint: error.hint(),
            position: None,
        }
    }
}

//! Relations and functions that are computed when read: `pg_catalog`, `information_schema` and `tidegate`.
//!
//! - [`relation`]: what a system relation is; [`row`]: how its rows become Arrow.
//! - [`pg_catalog`], [`pg_absent`], [`information_schema`], [`tidegate`]: the relations, a file per schema.
//! - [`functions`]: what clients call to have the catalog explained.
//! - [`rewrite`]: Postgres spellings that DataFusion does not know, taken out of a query before it is planned.
//! - [`oids`], [`types`], [`scope`]: numbers, types, and the session that asks.
//!
//! Rows are computed when a query runs, also a prepared one, from the catalog and the runtime as they are then. As in
//! Postgres, `pg_catalog` is searched first for unqualified names. Views cannot read any of it.
//!
//! **Kinds.** Sources and sinks are shown as foreign tables (`relkind` `f`): rows that live elsewhere, reached through a
//! connector, which is shown as their server. The access method of what is stored is its state backend.

mod checkpoints;
mod functions;
mod information_schema;
pub(crate) mod metrics;
mod oids;
mod pg_absent;
mod pg_catalog;
mod relation;
pub(crate) mod rewrite;
mod row;
mod scope;
mod tidegate;
mod types;

#[cfg(test)]
mod tests;

use crate::api::SessionOptions;
use crate::database::Database;
use crate::settings::Settings;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::logical_expr::ScalarUDF;
use scope::Scope;
use std::sync::Arc;
use tidegate_catalog::SearchPath;
use tidegate_types::SqlError;

/// A relation's rows under its name.
pub(crate) type Named = (String, Arc<dyn TableProvider>);

/// System relations as one session sees them.
pub(crate) struct SystemTables {
    scope: Arc<Scope>,
}

impl SystemTables {
    pub fn new(database: Arc<Database>, options: &SessionOptions, settings: &Settings) -> Self {
        Self {
            scope: Arc::new(Scope::new(database, options, settings)),
        }
    }

    /// The system relation of a name, if it is one.
    pub fn find(
        &self,
        name: &TableReference,
        path: &SearchPath,
    ) -> Option<Result<Named, SqlError>> {
        if let Some(past) = crate::past::find(&self.scope.database, name, path) {
            return Some(past);
        }
        let found = match name.schema() {
            Some(schema) => relation::find(schema, name.table()),
            None => relation::find("pg_catalog", name.table()).or_else(|| {
                path.0
                    .iter()
                    .find_map(|schema| relation::find(schema, name.table()))
            }),
        }?;
        Some(Ok((
            found.name.to_owned(),
            Arc::new(relation::SystemTable::new(found, self.scope.clone())),
        )))
    }

    /// The system function of a name, if it is one.
    pub fn function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        functions::udf(name, &self.scope)
    }
}

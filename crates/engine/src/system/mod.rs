//! Relations that are computed when read: `pg_catalog`, `information_schema` and `tidegate`.

pub(crate) mod metrics;

use crate::api::SessionOptions;
use crate::database::Database;
use crate::settings::Settings;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use std::sync::Arc;
use tidegate_catalog::SearchPath;
use tidegate_types::SqlError;

/// System relations as one session sees them.
pub(crate) struct SystemTables {
    #[expect(dead_code, reason = "the tables are built from it")]
    database: Arc<Database>,
}

impl SystemTables {
    pub fn new(database: Arc<Database>, _options: &SessionOptions, _settings: &Settings) -> Self {
        Self { database }
    }

    pub fn find(
        &self,
        _name: &TableReference,
        _path: &SearchPath,
    ) -> Option<Result<(String, Arc<dyn TableProvider>), SqlError>> {
        None
    }
}

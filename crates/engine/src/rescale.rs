//! `ALTER SYSTEM SET workers`: the one setting whose change takes the workers down and brings others up.
//!
//! The value is written for the next start first and taken back if the change fails, so that what a client was told holds
//! after a crash at any moment. No other DDL runs meanwhile; everything else waits in the runtime, which does the work
//! ([`tidegate_runtime::Runtime::rescale`]).

use crate::config;
use crate::database::Database;
use crate::settings::setting;
use std::sync::Arc;
use std::time::Duration;
use tidegate_types::SqlError;

pub(crate) const SETTING: &str = "workers";

/// What a change of the number of workers came to.
pub(crate) struct Rescaled {
    pub workers: usize,
    /// For how long nothing could be read.
    pub pause: Duration,
}

impl Database {
    /// How many workers there are.
    pub(crate) fn workers(&self) -> Result<usize, SqlError> {
        Ok(self.runtime()?.workers())
    }

    /// Changes the number of workers, now and for the next start. `None`: back to the default. Goes through with it also
    /// when nobody waits any more.
    pub(crate) async fn set_workers(
        self: &Arc<Self>,
        value: Option<&str>,
    ) -> Result<Rescaled, SqlError> {
        let known = setting(SETTING).expect("it is in the list");
        let value = value.map(|v| known.check(v)).transpose()?;
        let database = self.clone();
        let changed = tokio::spawn(async move { database.change_workers(value).await });
        changed.await.map_err(SqlError::internal)?
    }

    async fn change_workers(&self, value: Option<String>) -> Result<Rescaled, SqlError> {
        let _turn = self.ddl.lock().await;
        let mut next = self.live.read().clone();
        match &value {
            Some(value) => next.set(SETTING, value)?,
            None => next.reset(SETTING)?,
        }
        let workers = next.workers();
        let data_dir = &self.config.data_dir;
        let before = config::persisted_value(data_dir, SETTING)?;
        config::persist(data_dir, SETTING, value.as_deref())?;
        let rescaled = match self.runtime() {
            Ok(runtime) => runtime.rescale(workers).await,
            Err(error) => Err(error),
        };
        match rescaled {
            Ok(pause) => {
                // Others may have changed other settings meanwhile.
                let mut live = self.live.write();
                match &value {
                    Some(value) => live.set(SETTING, value)?,
                    None => live.reset(SETTING)?,
                }
                Ok(Rescaled { workers, pause })
            }
            Err(error) => {
                if let Err(again) = config::persist(data_dir, SETTING, before.as_deref()) {
                    tracing::error!(
                        "the number of workers for the next start could not be taken back: {again}"
                    );
                }
                Err(error)
            }
        }
    }
}

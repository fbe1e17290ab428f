//! `CHECKPOINT` and the `SAVEPOINT` family, at the level of the database.

use super::{Session, command};
use crate::api::Response;
use crate::log::LogEntry;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_parser::sqlparser::ast::Ident;
use tidegate_parser::{Savepoint, WithOption};
use tidegate_types::{SqlError, SqlState};

impl Session {
    pub(super) async fn checkpoint(&mut self) -> Result<Response, SqlError> {
        self.outside_transaction("CHECKPOINT")?;
        let info = self.database.runtime()?.checkpoint_by_policy().await?;
        self.notice(format!(
            "checkpoint {} of epoch {} is durable: {} bytes written",
            info.id, info.epoch, info.bytes_written
        ));
        Ok(command("CHECKPOINT"))
    }

    pub(super) async fn savepoint(&mut self, savepoint: &Savepoint) -> Result<Response, SqlError> {
        if self.transaction.as_ref().is_some_and(|t| t.explicit) {
            return Err(SqlError::not_supported(
                "SAVEPOINT inside a transaction block",
            ));
        }
        self.savepoint_with(savepoint).await?;
        Ok(command("SAVEPOINT"))
    }

    async fn take_savepoint(&mut self, name: &str) -> Result<(), SqlError> {
        let database = self.database.clone();
        database.store.check_savepoint_name(name)?;
        let runtime = database.runtime()?;
        let info = runtime.checkpoint().await?;
        // A newer one may have overtaken rows, and would end no epoch.
        let retained = database.store.retained();
        let manifest = retained
            .into_iter()
            .find(|m| m.checkpoint == info.id)
            .ok_or_else(|| {
                SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the checkpoint for the savepoint has gone",
                )
            })?;
        database.store.savepoint(name, &manifest).await?;
        self.notice(format!(
            "savepoint \"{name}\" of epoch {} holds {} rows",
            manifest.epoch,
            manifest.rows()
        ));
        Ok(())
    }

    pub(super) async fn rollback_to(
        &mut self,
        name: &Ident,
        options: &[WithOption],
    ) -> Result<Response, SqlError> {
        if self.transaction.as_ref().is_some_and(|t| t.explicit) {
            return Err(SqlError::not_supported(
                "ROLLBACK TO SAVEPOINT inside a transaction block",
            ));
        }
        if let Some(option) = options.first() {
            return Err(SqlError::not_supported(format!(
                "option \"{}\" of ROLLBACK TO SAVEPOINT",
                option.name
            )));
        }
        let name = tidegate_parser::fold(name);
        let database = self.database.clone();
        let _ddl = database.ddl.lock().await;
        let manifest = database.store.describe_savepoint(&name)?;
        if !manifest.details.views.is_empty() || manifest.details.place.is_some() {
            return Err(SqlError::not_supported(format!(
                "ROLLBACK TO SAVEPOINT \"{name}\", which does not hold the whole database here"
            ))
            .with_hint("Only savepoints of everything, without FOR and TO, can be gone back to."));
        }
        let has_sinks = database
            .catalog
            .get()
            .relations_of(tidegate_catalog::RelationClass::Sink)
            .next()
            .is_some();
        if has_sinks {
            return Err(
                SqlError::not_supported("ROLLBACK TO SAVEPOINT while there are sinks").with_hint(
                    "What a sink has written cannot be taken back; drop the sinks first.",
                ),
            );
        }
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis());
        let present = format!("before_rollback_{clock}");
        self.take_savepoint(&present).await?;
        // Nobody writes between the end of the old timeline and the beginning of the new one.
        let turn = database.sequencer.turn().await;
        let (_, durable) = database.log.append(LogEntry::Timeline {
            savepoint: name.clone(),
        })?;
        self.last_write = durable
            .await
            .map_err(|_| SqlError::internal("the log ended"))??;
        database.restart_from(manifest).await?;
        drop(turn);
        database.runtime()?.checkpoint().await?;
        self.notice(format!("the database is as it was at savepoint \"{name}\"; how it was before is savepoint \"{present}\""));
        Ok(command("ROLLBACK"))
    }

    pub(super) async fn release(&mut self, name: &Ident) -> Result<Response, SqlError> {
        if self.transaction.as_ref().is_some_and(|t| t.explicit) {
            return Err(SqlError::not_supported(
                "RELEASE SAVEPOINT inside a transaction block",
            ));
        }
        self.database
            .store
            .release(&tidegate_parser::fold(name))
            .await?;
        Ok(command("RELEASE"))
    }
}

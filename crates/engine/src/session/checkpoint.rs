//! `CHECKPOINT` and the `SAVEPOINT` family, at the level of the database.

use super::{Session, command};
use crate::api::Response;
use tidegate_parser::Savepoint;
use tidegate_parser::sqlparser::ast::Ident;
use tidegate_types::SqlError;

impl Session {
    pub(super) async fn checkpoint(&mut self) -> Result<Response, SqlError> {
        self.outside_transaction("CHECKPOINT")?;
        self.database.check_open()?;
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
        self.database.check_open()?;
        self.savepoint_with(savepoint).await?;
        Ok(command("SAVEPOINT"))
    }

    pub(super) async fn release(&mut self, name: &Ident) -> Result<Response, SqlError> {
        if self.transaction.as_ref().is_some_and(|t| t.explicit) {
            return Err(SqlError::not_supported(
                "RELEASE SAVEPOINT inside a transaction block",
            ));
        }
        let database = self.database.clone();
        // Not while the database goes back to it, or a view begins with it.
        let _ddl = database.ddl.lock().await;
        database.store.release(&tidegate_parser::fold(name)).await?;
        Ok(command("RELEASE"))
    }
}

//! Transactions: one snapshot to read, changes kept in the session, one log entry at the end.

use super::{Session, command};
use crate::api::{Notice, Response};
use crate::dml::RowKey;
use crate::log::LogEntry;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tidegate_parser::Statement;
use tidegate_parser::sqlparser::ast;
use tidegate_runtime::runtime::Snapshot;
use tidegate_types::{Batch, RelationId, SqlError, SqlState};

pub(crate) struct Transaction {
    /// Begun by `BEGIN`; otherwise by several statements in one message.
    pub explicit: bool,
    pub failed: bool,
    /// What it reads, taken with its first statement.
    pub base: Option<Arc<Snapshot>>,
    pub writes: BTreeMap<RelationId, Vec<Batch>>,
    /// The rows that it changed, by key: two transactions that changed the same row conflict.
    pub keys: HashSet<RowKey>,
}

impl Transaction {
    pub fn new(explicit: bool) -> Self {
        Self {
            explicit,
            failed: false,
            base: None,
            writes: BTreeMap::new(),
            keys: HashSet::new(),
        }
    }
}

impl Session {
    /// In a failed transaction only its end is let through.
    pub(super) fn check_transaction(&self, statement: &Statement) -> Result<(), SqlError> {
        let ends = matches!(statement, Statement::Sql(s) if matches!(
            s.as_ref(),
            ast::Statement::Commit { .. } | ast::Statement::Rollback { .. }
        ));
        match &self.transaction {
            Some(transaction) if transaction.failed && !ends => Err(SqlError::new(
                SqlState::IN_FAILED_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn begin(
        &mut self,
        _modes: &[ast::TransactionMode],
        begin: bool,
    ) -> Result<Response, SqlError> {
        match &mut self.transaction {
            Some(transaction) if transaction.explicit => {
                let message = "there is already a transaction in progress";
                self.notices
                    .push(Notice::warning(SqlState::ACTIVE_TRANSACTION, message));
            }
            Some(transaction) => transaction.explicit = true,
            None => self.transaction = Some(Transaction::new(true)),
        }
        Ok(command(if begin { "BEGIN" } else { "START TRANSACTION" }))
    }

    pub(super) async fn commit(&mut self) -> Result<Response, SqlError> {
        match self.transaction.take() {
            Some(transaction) if transaction.failed => {
                self.end(&transaction);
                Ok(command("ROLLBACK"))
            }
            Some(transaction) => {
                self.commit_changes(transaction).await?;
                Ok(command("COMMIT"))
            }
            None => {
                let message = "there is no transaction in progress";
                self.notices
                    .push(Notice::warning(SqlState::NO_ACTIVE_TRANSACTION, message));
                Ok(command("COMMIT"))
            }
        }
    }

    pub(super) fn rollback(&mut self) -> Result<Response, SqlError> {
        match self.transaction.take() {
            Some(transaction) => self.end(&transaction),
            None => {
                let message = "there is no transaction in progress";
                self.notices
                    .push(Notice::warning(SqlState::NO_ACTIVE_TRANSACTION, message));
            }
        }
        Ok(command("ROLLBACK"))
    }

    fn end(&self, transaction: &Transaction) {
        if let Some(base) = &transaction.base {
            self.database.sequencer.end(base.log_position);
        }
    }

    /// Appends everything the transaction changed as one entry; a row that somebody else changed since it began is a
    /// conflict.
    pub(super) async fn commit_changes(
        &mut self,
        transaction: Transaction,
    ) -> Result<(), SqlError> {
        self.end(&transaction);
        if transaction.writes.is_empty() {
            return Ok(());
        }
        let base = transaction
            .base
            .as_ref()
            .map(|b| b.log_position)
            .unwrap_or_default();
        let changes: Vec<(RelationId, Batch)> = transaction
            .writes
            .into_iter()
            .flat_map(|(relation, batches)| batches.into_iter().map(move |b| (relation, b)))
            .collect();
        let database = self.database.clone();
        let turn = database.sequencer.turn().await;
        database
            .sequencer
            .check_conflicts(base, &transaction.keys)?;
        let (position, durable) = self.database.log.append(LogEntry::Transaction {
            changes: changes.clone(),
        })?;
        self.database
            .sequencer
            .appended(&turn, position, changes, transaction.keys);
        drop(turn);
        self.wait_durable(position, durable).await
    }

    pub(crate) async fn wait_durable(
        &mut self,
        position: tidegate_types::LogPosition,
        durable: crate::log::Durable,
    ) -> Result<(), SqlError> {
        match durable
            .await
            .unwrap_or_else(|_| Err(SqlError::internal("the log ended")))
        {
            Ok(position) => {
                self.last_write = position;
                Ok(())
            }
            Err(error) => {
                self.database.sequencer.failed_from(position);
                Err(error)
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.end(&transaction);
        }
    }
}

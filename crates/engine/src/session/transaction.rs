//! Transactions: one snapshot to read, changes kept in the session, one log entry at the end.

use super::{Session, command};
use crate::api::{Notice, Response};
use crate::dml::RowKey;
use crate::log::LogEntry;
use crate::settings::Settings;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tidegate_parser::sqlparser::ast;
use tidegate_parser::{Savepoint, Statement, WithOption};
use tidegate_runtime::runtime::Snapshot;
use tidegate_types::{Batch, RelationId, SqlError, SqlState};

pub(crate) struct Transaction {
    /// Begun by `BEGIN`; otherwise by several statements in one message.
    pub explicit: bool,
    pub failed: bool,
    pub began: chrono::DateTime<chrono::Utc>,
    /// What it reads, taken with its first statement.
    pub base: Option<Arc<Snapshot>>,
    pub writes: BTreeMap<RelationId, Vec<Batch>>,
    /// The rows that it changed, by key: two transactions that changed the same row conflict.
    pub keys: Vec<RowKey>,
    /// Its savepoints, oldest first.
    marks: Vec<Mark>,
    /// The client was told about DDL in it.
    had_ddl: bool,
    /// Settings as they were before the first `SET` in it.
    settings: Option<Settings>,
    /// What `SET LOCAL` changed, with the values to go back to.
    local: Vec<(String, String)>,
}

/// A savepoint of a transaction: how much had been changed by then.
struct Mark {
    name: String,
    writes: BTreeMap<RelationId, usize>,
    keys: usize,
    /// Cursors opened from this number on are closed by going back.
    cursors: u64,
    settings: Settings,
}

impl Transaction {
    pub fn new(explicit: bool) -> Self {
        Self {
            explicit,
            failed: false,
            began: chrono::Utc::now(),
            base: None,
            writes: BTreeMap::new(),
            keys: Vec::new(),
            marks: Vec::new(),
            had_ddl: false,
            settings: None,
            local: Vec::new(),
        }
    }
}

impl Session {
    /// In a failed transaction only its end is let through.
    pub(super) fn check_transaction(&self, statement: &Statement) -> Result<(), SqlError> {
        let ends = matches!(statement, Statement::RollbackToSavepoint { .. })
            || matches!(statement, Statement::Sql(s) if matches!(
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
                self.roll_back(transaction);
                Ok(command("ROLLBACK"))
            }
            Some(mut transaction) => {
                self.close_cursors_of_transaction(0);
                for (name, value) in transaction.local.drain(..) {
                    self.settings.set(&name, &value)?;
                }
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
            Some(transaction) => self.roll_back(transaction),
            None => {
                let message = "there is no transaction in progress";
                self.notices
                    .push(Notice::warning(SqlState::NO_ACTIVE_TRANSACTION, message));
            }
        }
        Ok(command("ROLLBACK"))
    }

    fn roll_back(&mut self, mut transaction: Transaction) {
        self.close_cursors_of_transaction(0);
        if let Some(settings) = transaction.settings.take() {
            self.settings = settings;
        }
        self.end(&transaction);
    }

    /// Whether a transaction block is open.
    pub(super) fn in_block(&self) -> bool {
        self.transaction.as_ref().is_some_and(|t| t.explicit)
    }

    /// Settings that change in a block go back with it; those changed for it alone also when it commits.
    pub(super) fn remember_settings(&mut self, local: Option<&str>) -> bool {
        let value = local.and_then(|name| self.settings.get(name).map(str::to_owned));
        let Some(transaction) = self.transaction.as_mut().filter(|t| t.explicit) else {
            return local.is_none();
        };
        transaction
            .settings
            .get_or_insert_with(|| self.settings.clone());
        if let (Some(name), Some(value)) = (local, value)
            && !transaction.local.iter().any(|(n, _)| n == name)
        {
            transaction.local.push((name.to_owned(), value));
        }
        true
    }

    /// DDL takes effect at once, also inside a block. One that has changed rows cannot have it, because they would be seen
    /// after it and not before; one that has only read reads anew from here.
    pub(super) fn ddl_in_block(&mut self) -> Result<(), SqlError> {
        let Some(transaction) = &mut self.transaction else {
            return Ok(());
        };
        if !transaction.writes.is_empty() {
            return Err(SqlError::new(
                SqlState::ACTIVE_TRANSACTION,
                "DDL cannot follow changes of rows inside a transaction block",
            )
            .with_hint("COMMIT first. DDL takes effect at once and ROLLBACK does not undo it."));
        }
        if !std::mem::replace(&mut transaction.had_ddl, true) {
            self.notices.push(Notice::warning(
                SqlState::from_code("01000"),
                "DDL inside a transaction block takes effect at once and is not undone by ROLLBACK",
            ));
        }
        let base = self.transaction.as_mut().and_then(|t| t.base.take());
        if let Some(base) = base {
            self.database.sequencer.end(base.log_position);
        }
        Ok(())
    }

    /// `SAVEPOINT` inside a transaction block.
    pub(super) fn mark(&mut self, savepoint: &Savepoint) -> Result<Response, SqlError> {
        if !savepoint.views.is_empty() || savepoint.to.is_some() || !savepoint.options.is_empty() {
            return Err(SqlError::new(
                SqlState::ACTIVE_TRANSACTION,
                "a savepoint of the database cannot be taken inside a transaction block",
            )
            .with_hint(
                "FOR, TO and WITH are about savepoints of the database; COMMIT the transaction first.",
            ));
        }
        let cursors = self.next_cursor;
        let settings = self.settings.clone();
        if let Some(transaction) = &mut self.transaction {
            let writes = transaction.writes.iter();
            transaction.marks.push(Mark {
                name: tidegate_parser::fold(&savepoint.name),
                writes: writes.map(|(relation, w)| (*relation, w.len())).collect(),
                keys: transaction.keys.len(),
                cursors,
                settings,
            });
        }
        Ok(command("SAVEPOINT"))
    }

    /// `ROLLBACK TO` inside a transaction block: changes since are undone, an error is forgiven, the savepoint stays.
    pub(super) fn roll_back_to_mark(
        &mut self,
        name: &ast::Ident,
        options: &[WithOption],
    ) -> Result<Response, SqlError> {
        if let Some(option) = options.first() {
            return Err(SqlError::new(
                SqlState::ACTIVE_TRANSACTION,
                format!(
                    "option \"{}\" is about savepoints of the database",
                    option.name
                ),
            ));
        }
        let at = self.mark_of(name)?;
        let transaction = self.transaction.as_mut().expect("a mark was found in it");
        transaction.marks.truncate(at + 1);
        let mark = &transaction.marks[at];
        let (kept, cursors, settings) = (&mark.writes, mark.cursors, mark.settings.clone());
        transaction.writes.retain(|relation, writes| {
            writes.truncate(kept.get(relation).copied().unwrap_or(0));
            !writes.is_empty()
        });
        transaction.keys.truncate(mark.keys);
        transaction.failed = false;
        self.settings = settings;
        self.close_cursors_of_transaction(cursors);
        Ok(command("ROLLBACK"))
    }

    /// `RELEASE` inside a transaction block.
    pub(super) fn release_mark(&mut self, name: &ast::Ident) -> Result<Response, SqlError> {
        let at = self.mark_of(name)?;
        if let Some(transaction) = &mut self.transaction {
            transaction.marks.truncate(at);
        }
        Ok(command("RELEASE"))
    }

    /// The newest savepoint of a name.
    fn mark_of(&self, name: &ast::Ident) -> Result<usize, SqlError> {
        let name = tidegate_parser::fold(name);
        let marks = self.transaction.iter().flat_map(|t| &t.marks);
        let found = marks
            .enumerate()
            .filter(|(_, mark)| mark.name == name)
            .last();
        found.map(|(at, _)| at).ok_or_else(|| {
            SqlError::new(
                SqlState::from_code("3B001"),
                format!("savepoint \"{name}\" does not exist"),
            )
        })
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
        let keys: HashSet<RowKey> = transaction.keys.into_iter().collect();
        database.sequencer.check_conflicts(base, &keys)?;
        let (position, durable) = self.database.log.append(LogEntry::Transaction {
            changes: changes.clone(),
        })?;
        self.database
            .sequencer
            .appended(&turn, position, changes, keys);
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
                self.database.acknowledge(position);
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

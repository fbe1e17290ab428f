//! Changes to tables: the sequencer, and what `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE` and `COPY` have in common.
//!
//! A statement finds the rows it removes and adds, checks them, and becomes one log entry of resolved changes: full rows
//! with diffs, never expressions. Whoever holds the sequencer's turn reads the newest committed rows: the newest epoch,
//! and on top what is in the log and in no epoch yet. So constraints are decided before the append, one statement after
//! the other, while waiting for the disk is shared.

mod check;
mod copy;
mod insert;
mod returning;
mod rows;
mod sequencer;
mod target;
mod update;

pub(crate) use copy::copy_out_options;
pub(crate) use returning::table_schema;
pub(crate) use sequencer::{RowKey, Sequencer};

use crate::api::{Response, RowsTag};
use crate::log::LogEntry;
use crate::session::{Reading, Session, command};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use sequencer::Turn;
use std::sync::Arc;
use target::Target;
use tidegate_parser::sqlparser::ast;
use tidegate_types::{Batch, SqlError, SqlType};

/// What a statement does to one table.
pub(crate) struct Effect {
    pub batches: Vec<Batch>,
    /// The rows as they are now (inserted, updated) or were (deleted): what is counted, and what RETURNING sees.
    pub rows: Vec<RecordBatch>,
}

impl Session {
    /// Rows as a writing statement sees them: of its transaction, or the newest committed.
    async fn reading_for_write(
        &mut self,
        target: &Target,
        turn: Option<&Turn<'_>>,
    ) -> Result<Reading, SqlError> {
        self.reading_for_write_of(&[target.relation.id], turn).await
    }

    async fn reading_for_write_of(
        &mut self,
        relations: &[tidegate_types::RelationId],
        turn: Option<&Turn<'_>>,
    ) -> Result<Reading, SqlError> {
        match turn {
            None => self.reading(relations).await,
            Some(turn) => {
                let snapshot = self.database.runtime()?.snapshot(relations).await?;
                let changes = self
                    .database
                    .sequencer
                    .pending_after(turn, snapshot.log_position);
                Ok(Reading {
                    snapshot: Arc::new(snapshot),
                    changes,
                })
            }
        }
    }

    /// Makes an effect part of the open transaction, or durable at once.
    async fn apply(
        &mut self,
        target: &Target,
        effect: &Effect,
        turn: Option<Turn<'_>>,
    ) -> Result<(), SqlError> {
        let keys = target.row_keys(&effect.batches)?;
        let batches: Vec<Batch> = effect
            .batches
            .iter()
            .filter(|b| !b.is_empty())
            .cloned()
            .collect();
        if batches.is_empty() {
            return Ok(());
        }
        if batches.iter().flat_map(Batch::diff_values).sum::<i64>() > 0 {
            self.database.runtime()?.check_memory()?;
        }
        match turn {
            None => {
                let transaction = self
                    .transaction
                    .as_mut()
                    .expect("without a turn there is a transaction");
                transaction
                    .writes
                    .entry(target.relation.id)
                    .or_default()
                    .extend(batches);
                transaction.keys.extend(keys);
                Ok(())
            }
            Some(turn) => {
                let changes: Vec<_> = batches
                    .into_iter()
                    .map(|b| (target.relation.id, b))
                    .collect();
                let (position, durable) = self.database.log.append(LogEntry::Transaction {
                    changes: changes.clone(),
                })?;
                self.database
                    .sequencer
                    .appended(&turn, position, changes, keys);
                drop(turn);
                self.wait_durable(position, durable).await
            }
        }
    }

    /// The types of a writing statement's parameters and the columns of its RETURNING.
    pub(crate) fn describe_dml(
        &self,
        statement: &ast::Statement,
        text: &str,
        declared: &[Option<SqlType>],
    ) -> Result<(Vec<Option<SqlType>>, Option<SchemaRef>), SqlError> {
        match statement {
            ast::Statement::Insert(insert) => self.describe_insert(insert, text, declared),
            ast::Statement::Update(update) => self.describe_update(update, text, declared),
            ast::Statement::Delete(delete) => self.describe_delete(delete, text, declared),
            _ => Ok((Vec::new(), None)),
        }
    }

    fn respond(
        &self,
        target: &Target,
        returning: Option<&[ast::SelectItem]>,
        effect: &Effect,
        verb: &str,
        tag: RowsTag,
        text: &str,
    ) -> Result<Response, SqlError> {
        let count: usize = effect.rows.iter().map(RecordBatch::num_rows).sum();
        match returning {
            None if verb == "INSERT" => Ok(command(format!("INSERT 0 {count}"))),
            None => Ok(command(format!("{verb} {count}"))),
            Some(items) => self.returning(target, items, &effect.rows, tag, text),
        }
    }
}

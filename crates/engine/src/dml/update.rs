//! `UPDATE`, `DELETE` and `TRUNCATE`: a query finds the rows, their retractions and replacements are the effect.

use super::insert::{assigned, merged};
use super::rows::{retraction, together};
use super::target::Target;
use super::{Effect, Turn};
use crate::api::{Response, RowsTag};
use crate::session::{Session, command};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use hashbrown::HashSet;
use tidegate_parser::quote_ident;
use tidegate_parser::sqlparser::ast;
use tidegate_planner::Planner;
use tidegate_types::{Batch, SqlError, SqlState, SqlType};

/// The query whose first columns are the stored columns of the table's rows.
struct Search {
    text: String,
    /// The columns that further outputs are assigned to, in order.
    assigned: Vec<usize>,
}

impl Session {
    pub(crate) async fn update(
        &mut self,
        update: &ast::Update,
        text: &str,
        types: &[SqlType],
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, SqlError> {
        let target = self.update_target(update)?;
        target.expect_mutable("update")?;
        let search = update_search(update, &target)?;
        let database = self.database.clone();
        let turn = match self.transaction {
            Some(_) => None,
            None => Some(database.sequencer.turn().await),
        };
        let found = self
            .found_rows(&search.text, types, parameters, turn.as_ref())
            .await?;
        let effect = self
            .replacements(&target, &search, &found, turn.as_ref())
            .await?;
        self.apply(&target, &effect, turn).await?;
        self.respond(
            &target,
            update.returning.as_deref(),
            &effect,
            "UPDATE",
            RowsTag::Update,
            text,
        )
    }

    fn update_target(&self, update: &ast::Update) -> Result<Target, SqlError> {
        match &update.table.relation {
            ast::TableFactor::Table { name, .. } if update.table.joins.is_empty() => {
                self.target(name)
            }
            other => Err(SqlError::not_supported(format!("UPDATE {other}"))),
        }
    }

    async fn replacements(
        &mut self,
        target: &Target,
        search: &Search,
        found: &[RecordBatch],
        turn: Option<&Turn<'_>>,
    ) -> Result<Effect, SqlError> {
        let width = target.relation.columns.len();
        let (mut old_rows, mut new_rows) = (Vec::new(), Vec::new());
        for batch in found {
            let old: Vec<ArrayRef> = batch.columns()[..width].to_vec();
            let mut new = old.clone();
            for (position, column) in search.assigned.iter().enumerate() {
                new[*column] = target.convert(batch.column(width + position), *column)?;
            }
            new_rows.push(self.checked_rows(target, new)?);
            old_rows.push(
                RecordBatch::try_new(target.schema.clone(), old).map_err(SqlError::internal)?,
            );
        }
        let (old, new) = (together(target, &old_rows)?, together(target, &new_rows)?);
        let (old, new) = if target.def.primary_key.is_empty() {
            (old, new)
        } else {
            once(target, old, new)?
        };
        self.check_moved(target, &old, &new, turn).await?;
        Ok(Effect {
            batches: vec![retraction(old), Batch::insert(new.clone())],
            rows: vec![new],
        })
    }

    /// Rows that got another key must not meet one that stays.
    async fn check_moved(
        &mut self,
        target: &Target,
        old: &RecordBatch,
        new: &RecordBatch,
        turn: Option<&Turn<'_>>,
    ) -> Result<(), SqlError> {
        if target.def.primary_key.is_empty() {
            return Ok(());
        }
        let (before, after) = (target.keys(old)?, target.keys(new)?);
        let left: HashSet<&[u8]> = before.iter().map(|k| k.data()).collect();
        let mut seen: HashSet<&[u8]> = HashSet::new();
        for (index, key) in after.iter().enumerate() {
            if !seen.insert(key.data()) {
                return Err(target.duplicate(new, index));
            }
        }
        let moved: Vec<&[u8]> = seen.iter().copied().filter(|k| !left.contains(k)).collect();
        if moved.is_empty() {
            return Ok(());
        }
        let reading = self.reading_for_write(target, turn).await?;
        let present = target.present(&reading, &moved)?;
        match (0..new.num_rows()).find(|i| present.rows.contains_key(after.row(*i).data())) {
            Some(row) => Err(target.duplicate(new, row)),
            None => Ok(()),
        }
    }

    pub(crate) async fn delete(
        &mut self,
        delete: &ast::Delete,
        text: &str,
        types: &[SqlType],
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, SqlError> {
        let target = self.delete_target(delete)?;
        target.expect_mutable("delete from")?;
        let search = delete_search(delete, &target)?;
        let database = self.database.clone();
        let turn = match self.transaction {
            Some(_) => None,
            None => Some(database.sequencer.turn().await),
        };
        let found = self
            .found_rows(&search.text, types, parameters, turn.as_ref())
            .await?;
        let old = together(&target, &found)?;
        let old = if target.def.primary_key.is_empty() {
            old
        } else {
            once(&target, old.clone(), old)?.0
        };
        let effect = Effect {
            batches: vec![retraction(old.clone())],
            rows: vec![old],
        };
        self.apply(&target, &effect, turn).await?;
        self.respond(
            &target,
            delete.returning.as_deref(),
            &effect,
            "DELETE",
            RowsTag::Delete,
            text,
        )
    }

    fn delete_target(&self, delete: &ast::Delete) -> Result<Target, SqlError> {
        let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) =
            &delete.from;
        match from.as_slice() {
            [
                ast::TableWithJoins {
                    relation: ast::TableFactor::Table { name, .. },
                    joins,
                },
            ] if joins.is_empty() => self.target(name),
            _ => Err(SqlError::not_supported("DELETE from more than one table")),
        }
    }

    pub(crate) async fn truncate(
        &mut self,
        truncate: &ast::Truncate,
    ) -> Result<Response, SqlError> {
        for table in &truncate.table_names {
            let target = self.target(&table.name)?;
            target.expect_mutable("truncate")?;
            let database = self.database.clone();
            let turn = match self.transaction {
                Some(_) => None,
                None => Some(database.sequencer.turn().await),
            };
            let text = format!(
                "SELECT {} FROM {}",
                stored_columns(&target, None),
                qualified(&target)
            );
            let found = self
                .found_rows(&text, &[], Vec::new(), turn.as_ref())
                .await?;
            let old = together(&target, &found)?;
            let effect = Effect {
                batches: vec![retraction(old)],
                rows: Vec::new(),
            };
            self.apply(&target, &effect, turn).await?;
        }
        Ok(command("TRUNCATE TABLE"))
    }

    pub(super) fn describe_update(
        &self,
        update: &ast::Update,
        text: &str,
        declared: &[Option<SqlType>],
    ) -> Result<(Vec<Option<SqlType>>, Option<SchemaRef>), SqlError> {
        let target = self.update_target(update)?;
        let search = update_search(update, &target)?;
        let mut known = declared.to_vec();
        for assignment in &update.assignments {
            let (column, value) = assigned(&target, assignment)?;
            if let Some(number) = value.as_ref().and_then(super::insert::placeholder) {
                known.resize(known.len().max(number), None);
                known[number - 1].get_or_insert(target.relation.columns[column].sql_type.clone());
            }
        }
        let returning = update
            .returning
            .as_ref()
            .map(|items| self.returning_schema(&target, items, text));
        Ok((
            self.search_parameters(&search, &known)?,
            returning.transpose()?,
        ))
    }

    pub(super) fn describe_delete(
        &self,
        delete: &ast::Delete,
        text: &str,
        declared: &[Option<SqlType>],
    ) -> Result<(Vec<Option<SqlType>>, Option<SchemaRef>), SqlError> {
        let target = self.delete_target(delete)?;
        let search = delete_search(delete, &target)?;
        let returning = delete
            .returning
            .as_ref()
            .map(|items| self.returning_schema(&target, items, text));
        Ok((
            self.search_parameters(&search, declared)?,
            returning.transpose()?,
        ))
    }

    fn search_parameters(
        &self,
        search: &Search,
        known: &[Option<SqlType>],
    ) -> Result<Vec<Option<SqlType>>, SqlError> {
        let names = self.names();
        let planned = Planner::new(&names, &search.text)
            .query(crate::relations::parse_query(&search.text)?, known)?;
        Ok(merged(&planned.parameters()?, known))
    }
}

/// A row that a join finds several times is changed once.
fn once(
    target: &Target,
    old: RecordBatch,
    new: RecordBatch,
) -> Result<(RecordBatch, RecordBatch), SqlError> {
    let keys = target.keys(&old)?;
    let mut seen: HashSet<&[u8]> = HashSet::new();
    let mask: Vec<bool> = keys.iter().map(|k| seen.insert(k.data())).collect();
    if mask.iter().all(|m| *m) {
        return Ok((old, new));
    }
    Ok((
        super::target::keep(&old, mask.clone())?,
        super::target::keep(&new, mask)?,
    ))
}

fn qualified(target: &Target) -> String {
    format!(
        "{}.{}",
        quote_ident(&target.relation.schema),
        quote_ident(&target.relation.name)
    )
}

/// All stored columns of the table under this alias.
fn stored_columns(target: &Target, alias: Option<&str>) -> String {
    let prefix = alias.map_or_else(|| quote_ident(&target.relation.name), quote_ident);
    let columns: Vec<String> = target
        .relation
        .columns
        .iter()
        .map(|c| format!("{prefix}.{}", quote_ident(&c.name)))
        .collect();
    columns.join(", ")
}

fn alias_of(factor: &ast::TableFactor) -> Option<String> {
    match factor {
        ast::TableFactor::Table {
            alias: Some(alias), ..
        } => Some(tidegate_parser::fold(&alias.name)),
        _ => None,
    }
}

fn update_search(update: &ast::Update, target: &Target) -> Result<Search, SqlError> {
    let alias = alias_of(&update.table.relation);
    let mut outputs = vec![stored_columns(target, alias.as_deref())];
    let mut columns = Vec::new();
    for assignment in &update.assignments {
        let (column, value) = assigned(target, assignment)?;
        if columns.contains(&column) {
            let name = &target.relation.columns[column].name;
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("multiple assignments to same column \"{name}\""),
            ));
        }
        let value = match value {
            Some(value) => value.to_string(),
            None => target.relation.columns[column]
                .default
                .clone()
                .unwrap_or_else(|| "NULL".to_owned()),
        };
        outputs.push(format!("({value}) AS \"__assigned_{column}\""));
        columns.push(column);
    }
    let mut from = vec![update.table.relation.to_string()];
    match &update.from {
        None => {}
        Some(
            ast::UpdateTableFromKind::AfterSet(tables)
            | ast::UpdateTableFromKind::BeforeSet(tables),
        ) => {
            from.extend(tables.iter().map(ToString::to_string));
        }
    }
    let text = with_condition(
        format!("SELECT {} FROM {}", outputs.join(", "), from.join(", ")),
        update.selection.as_ref(),
    );
    Ok(Search {
        text,
        assigned: columns,
    })
}

fn delete_search(delete: &ast::Delete, target: &Target) -> Result<Search, SqlError> {
    let (ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables)) =
        &delete.from;
    let factor = &tables[0].relation;
    let outputs = stored_columns(target, alias_of(factor).as_deref());
    let mut from = vec![factor.to_string()];
    from.extend(delete.using.iter().flatten().map(ToString::to_string));
    let text = with_condition(
        format!("SELECT {outputs} FROM {}", from.join(", ")),
        delete.selection.as_ref(),
    );
    Ok(Search {
        text,
        assigned: Vec::new(),
    })
}

fn with_condition(query: String, condition: Option<&ast::Expr>) -> String {
    match condition {
        Some(condition) => format!("{query} WHERE {condition}"),
        None => query,
    }
}

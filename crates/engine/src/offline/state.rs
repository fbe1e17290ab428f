//! State tables as rows, for tools.

use super::report::aligned;
use super::{Origin, Section, Tools, qualified};
use crate::database::catalog_of;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::sync::Arc;
use tidegate_catalog::Catalog;
use tidegate_checkpoint::{Manifest, TableEntry, TableRows};
use tidegate_types::text::to_text;
use tidegate_types::{KeyGroupRange, SqlError, SqlState, SqlType};

/// The rows of one state table.
pub struct StateRows {
    pub columns: Vec<String>,
    types: Vec<SqlType>,
    batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
}

impl StateRows {
    /// Some rows more, each value as text.
    pub async fn next(&mut self) -> Result<Option<Vec<Vec<Option<String>>>>, SqlError> {
        let Some(batch) = self.batches.try_next().await? else {
            return Ok(None);
        };
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .zip(&self.types)
            .map(|(column, sql_type)| to_text(column, sql_type))
            .collect();
        use arrow::array::Array;
        let cell = |c: &arrow::array::StringArray, row: usize| {
            c.is_valid(row).then(|| c.value(row).to_owned())
        };
        let rows = (0..batch.num_rows()).map(|row| columns.iter().map(|c| cell(c, row)).collect());
        Ok(Some(rows.collect()))
    }

    /// Rows under each other, below the names of the columns when they are the first.
    pub fn aligned(&self, rows: &[Vec<Option<String>>], with_names: bool) -> String {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|r| r.iter().map(|v| v.clone().unwrap_or_default()).collect())
            .collect();
        let right: Vec<bool> = (0..self.columns.len()).map(|c| self.is_bare(c)).collect();
        let mut out = String::new();
        aligned(&self.columns, &rows, &right, &mut out);
        match with_names {
            true => out,
            false => out.split_inclusive('\n').skip(2).collect(),
        }
    }

    /// Whether values of a column are written into JSON without quotes.
    pub fn is_bare(&self, column: usize) -> bool {
        matches!(
            self.types[column],
            SqlType::SmallInt | SqlType::Integer | SqlType::BigInt
        )
    }
}

impl Tools {
    pub fn list_state(&self, origin: &Origin) -> Result<super::Report, SqlError> {
        let manifest = self.manifest(origin)?;
        let catalog = catalog_of(Some(&manifest)).map(|(c, _)| c).ok();
        Ok(super::Report::of(vec![tables(&manifest, catalog.as_ref())]))
    }

    /// The rows of a state table: named by its id, as `relation.table`, or by the relation alone for a view's rows.
    pub fn state_rows(&self, origin: &Origin, table: &str) -> Result<StateRows, SqlError> {
        let manifest = self.manifest(origin)?;
        let catalog = catalog_of(Some(&manifest)).map(|(c, _)| c).ok();
        let entry = find(&manifest, catalog.as_ref(), table)?;
        let rows = TableRows::new(entry.clone())?;
        let schema = rows.schema().clone();
        let columns = column_names(&schema, &entry, catalog.as_ref(), rows.is_view());
        let types = schema.fields().iter().map(|f| SqlType::from_field(f));
        let restorer = self.offline.restorer(&manifest)?;
        let batches = rows.stream(&restorer, KeyGroupRange::ALL);
        Ok(StateRows {
            columns,
            types: types.collect(),
            batches: batches.map_err(SqlError::from).boxed(),
        })
    }
}

/// A view's columns are called what its definition calls them.
fn column_names(
    schema: &SchemaRef,
    entry: &TableEntry,
    catalog: Option<&Catalog>,
    is_view: bool,
) -> Vec<String> {
    let relation = catalog
        .filter(|_| is_view)
        .and_then(|c| c.relation(entry.descriptor.relation));
    let name = |(index, field): (usize, &Arc<arrow::datatypes::Field>)| {
        let column = relation.and_then(|r| r.columns.get(index));
        column.map_or_else(|| field.name().clone(), |c| c.name.clone())
    };
    schema.fields().iter().enumerate().map(name).collect()
}

fn relation_name(entry: &TableEntry, catalog: Option<&Catalog>) -> String {
    let id = entry.descriptor.relation;
    catalog
        .and_then(|c| c.relation(id))
        .map_or_else(|| id.to_string(), qualified)
}

pub(super) fn tables(manifest: &Manifest, catalog: Option<&Catalog>) -> Section {
    let mut section = Section::list(
        "state_tables",
        &[
            "relation", "name", "id", "operator", "form", "runs", "rows", "bytes",
        ],
    );
    for entry in manifest.tables.values() {
        let d = &entry.descriptor;
        section.rows.push(vec![
            json!(relation_name(entry, catalog)),
            json!(d.name),
            json!(d.table.to_string()),
            json!(d.operator.to_string()),
            json!(format!("{:?}", d.form).to_lowercase()),
            json!(entry.runs.len()),
            json!(entry.rows()),
            json!(entry.bytes()),
        ]);
    }
    let key = |row: &Vec<Value>| -> (String, String, String) {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        (text(&row[0]), text(&row[1]), text(&row[2]))
    };
    section.rows.sort_by_key(key);
    section
}

fn find(
    manifest: &Manifest,
    catalog: Option<&Catalog>,
    wanted: &str,
) -> Result<Arc<TableEntry>, SqlError> {
    let matches = |entry: &&Arc<TableEntry>| {
        let d = &entry.descriptor;
        let relation = relation_name(entry, catalog);
        d.table.to_string() == wanted
            || (relation == wanted && is_contents(entry))
            || format!("{relation}.{}", d.name) == wanted
    };
    let found: Vec<&Arc<TableEntry>> = manifest.tables.values().filter(matches).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("there is no state table \"{wanted}\""),
        )
        .with_hint("tidegate state list shows the tables there are, with their ids.")),
        several => {
            let ids: Vec<String> = several
                .iter()
                .map(|e| e.descriptor.table.to_string())
                .collect();
            Err(SqlError::new(
                SqlState::AMBIGUOUS_COLUMN,
                format!(
                    "there are several state tables \"{wanted}\": {}",
                    ids.join(", ")
                ),
            )
            .with_hint("Name one by its id."))
        }
    }
}

/// Whether this is the table of a relation's own rows: the only ones that are counts to be added up.
pub(crate) fn is_contents(entry: &TableEntry) -> bool {
    entry.descriptor.merge == tidegate_state::Merge::Sum
}

//! A manifest's state as Parquet files that need no Tidegate: what a savepoint of format `parquet` has beside its runs.
//!
//! ```text
//! portable/<savepoint>-<copy>/contents.json                      what there is: files, columns, rows
//!                             views/<schema>.<name>.parquet      tables and materialized views, row for row
//!                             state/<schema>.<name>/<n>-<table>-<id>.parquet   operators, sources, failed rows
//! ```
//!
//! Columns keep their types, except where Parquet has none that readers agree upon: `interval` and `uuid` are written as
//! Postgres prints them. A table whose columns the manifest does not describe fails the whole: a copy is complete or not
//! there.

use crate::error::{CheckpointError, Damage, Result, StorageError};
use crate::layout;
use crate::manifest::{Manifest, TableEntry};
use crate::restore::Restorer;
use crate::rows::TableRows;
use crate::storage::{ObjectWriter, Storage};
use crate::store::unique;
use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_types::text::to_text;
use tidegate_types::{KeyGroupRange, RelationId, SqlType};

const ROW_GROUP_BYTES: usize = 32 << 20;

/// How far writing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortableProgress {
    pub tables: usize,
    pub tables_total: usize,
    pub rows: u64,
    /// What has just been written.
    pub file: String,
}

/// What a relation is called, and what its columns are called, in the catalog of the manifest.
#[derive(Debug, Clone)]
pub struct Named {
    /// `schema.name`.
    pub name: String,
    /// Of its visible columns: where each is stored, and its name.
    pub columns: Vec<(usize, String)>,
}

/// One file, as `contents.json` lists it.
#[derive(Debug, Clone, Serialize)]
struct File {
    file: String,
    relation: String,
    table: String,
    table_id: String,
    operator: String,
    rows: u64,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Serialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    sql_type: String,
}

/// Writes everything; answers the folder. What was written in vain is removed again.
pub async fn write_portable(
    from: &Arc<Restorer>,
    manifest: &Manifest,
    names: &HashMap<RelationId, Named>,
    to: &Storage,
    progress: &mut (dyn FnMut(PortableProgress) + Send),
) -> Result<String> {
    let name = manifest.savepoint.as_deref().unwrap_or("checkpoint");
    let invalid = |cause| CheckpointError::SavepointName {
        name: name.to_owned(),
        cause,
    };
    let folder = layout::portable(name, unique() as u64).map_err(invalid)?;
    let written = write_all(from, manifest, names, to, &folder, progress).await;
    if written.is_err() {
        match to.list(&folder).await {
            Ok(listed) => {
                let objects: Vec<String> = listed.into_iter().map(|l| l.object).collect();
                if let Err(error) = to.delete(&objects).await {
                    tracing::warn!(%error, "a portable copy written in vain could not be removed");
                }
            }
            Err(error) => tracing::warn!(%error, "a portable copy written in vain stays"),
        }
    }
    written.map(|()| folder)
}

async fn write_all(
    from: &Arc<Restorer>,
    manifest: &Manifest,
    names: &HashMap<RelationId, Named>,
    to: &Storage,
    folder: &str,
    progress: &mut (dyn FnMut(PortableProgress) + Send),
) -> Result<()> {
    let mut files = Vec::new();
    let mut told = PortableProgress {
        tables_total: manifest.tables.len(),
        ..PortableProgress::default()
    };
    for entry in manifest.tables.values() {
        // What is not described and has no rows belongs to checkpoints that are not savepoints.
        if entry.runs.is_empty() && entry.descriptor.schemas.is_none() {
            told.tables_total -= 1;
            continue;
        }
        let table = TableRows::new(entry.clone())?;
        let file = file_name(entry, &table, names, files.len());
        let writer = to.writer(&format!("{folder}/{file}"));
        let written = Writing::new(entry, &table, names);
        let rows = written.write(from, &table, writer).await?;
        told.tables += 1;
        told.rows += rows;
        told.file.clone_from(&file);
        progress(told.clone());
        files.push(File {
            file,
            relation: relation_name(entry.descriptor.relation, names),
            table: entry.descriptor.name.clone(),
            table_id: entry.descriptor.table.to_string(),
            operator: entry.descriptor.operator.to_string(),
            rows,
            columns: written.described(),
        });
    }
    let contents = serde_json::json!({
        "savepoint": manifest.savepoint,
        "epoch": manifest.epoch.0,
        "time_ms": manifest.time_ms,
        "files": files,
    });
    let text = serde_json::to_vec_pretty(&contents).expect("plain data");
    // Last: a folder without it is not complete.
    to.put(&format!("{folder}/contents.json"), &[text.into()])
        .await?;
    Ok(())
}

/// Looks whether every file that a portable copy lists is there, and answers how many there are.
pub async fn verify(storage: &Storage, folder: &str) -> Result<usize> {
    let object = format!("{folder}/contents.json");
    let damage = |object: String, what: String| Damage {
        object: object.into(),
        offset: None,
        what,
    };
    let bytes = storage.get(&object).await?;
    let contents: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|e| damage(object.clone(), format!("it does not parse: {e}")))?;
    let files = contents["files"].as_array().cloned().unwrap_or_default();
    let listed = storage.list(folder).await?;
    for file in &files {
        let name = format!("{folder}/{}", file["file"].as_str().unwrap_or_default());
        if !listed.iter().any(|l| l.object == name && l.bytes > 0) {
            return Err(damage(name, "it is missing".to_owned()).into());
        }
    }
    Ok(files.len())
}

fn relation_name(relation: RelationId, names: &HashMap<RelationId, Named>) -> String {
    names
        .get(&relation)
        .map_or_else(|| format!("relation-{relation}"), |n| n.name.clone())
}

fn file_name(
    entry: &TableEntry,
    table: &TableRows,
    names: &HashMap<RelationId, Named>,
    number: usize,
) -> String {
    let d = &entry.descriptor;
    let plain = |name: String| -> String {
        let kept = |c: char| c.is_alphanumeric() || "._-".contains(c);
        name.chars()
            .map(|c| if kept(c) { c } else { '_' })
            .collect()
    };
    let relation = plain(relation_name(d.relation, names));
    match table.is_view() {
        true => format!("views/{relation}.parquet"),
        false => {
            let name = plain(d.name.clone());
            format!("state/{relation}/{number:03}-{name}-{}.parquet", d.table)
        }
    }
}

/// Which columns of a table are written, and how.
struct Writing {
    columns: Vec<usize>,
    types: Vec<SqlType>,
    schema: SchemaRef,
}

impl Writing {
    fn new(entry: &TableEntry, table: &TableRows, names: &HashMap<RelationId, Named>) -> Self {
        let all = table.schema();
        let named = names.get(&entry.descriptor.relation);
        let columns: Vec<(usize, String)> = match named.filter(|_| table.is_view()) {
            Some(named) => named.columns.clone(),
            None => {
                let fields = all.fields().iter().map(|f| f.name().clone());
                fields.enumerate().collect()
            }
        };
        let columns: Vec<(usize, String)> = columns
            .into_iter()
            .filter(|(i, _)| *i < all.fields().len())
            .collect();
        let types = columns
            .iter()
            .map(|(i, _)| SqlType::from_field(all.field(*i)));
        let fields = columns.iter().map(|(i, name)| {
            let field = all.field(*i);
            let data_type = written_type(field);
            Field::new(name, data_type, field.is_nullable())
        });
        Self {
            types: types.collect(),
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            columns: columns.iter().map(|(i, _)| *i).collect(),
        }
    }

    fn described(&self) -> Vec<Column> {
        let fields = self.schema.fields().iter().zip(&self.types);
        fields
            .map(|(field, sql_type)| Column {
                name: field.name().clone(),
                sql_type: sql_type.to_string(),
            })
            .collect()
    }

    async fn write(
        &self,
        from: &Arc<Restorer>,
        table: &TableRows,
        writer: ObjectWriter,
    ) -> Result<u64> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let failed = |e: ParquetError| parquet_error(e);
        let mut writer =
            AsyncArrowWriter::try_new(Parts(Some(writer)), self.schema.clone(), Some(properties))
                .map_err(failed)?;
        let mut stream = table.stream(from, KeyGroupRange::ALL);
        let mut rows = 0;
        while let Some(batch) = stream.try_next().await? {
            rows += batch.num_rows() as u64;
            let batch = self.converted(&batch).map_err(|e| failed(e.into()))?;
            writer.write(&batch).await.map_err(failed)?;
            if writer.in_progress_size() >= ROW_GROUP_BYTES {
                writer.flush().await.map_err(failed)?;
            }
        }
        writer.close().await.map_err(failed)?;
        Ok(rows)
    }

    fn converted(&self, batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
        let columns = self.columns.iter().zip(&self.types);
        let columns = columns
            .map(|(i, t)| written_array(batch.column(*i), t))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}

fn is_text(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Interval | SqlType::Uuid)
}

fn written_type(field: &Field) -> DataType {
    match SqlType::from_field(field) {
        t if is_text(&t) => DataType::Utf8,
        SqlType::Array(element) if is_text(&element) => {
            DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)))
        }
        // Metadata of ours means nothing to others.
        SqlType::Array(_) => match field.data_type() {
            DataType::List(element) => DataType::List(Arc::new(Field::new(
                "element",
                element.data_type().clone(),
                true,
            ))),
            other => other.clone(),
        },
        _ => field.data_type().clone(),
    }
}

fn written_array(array: &ArrayRef, sql_type: &SqlType) -> ArrayRef {
    match sql_type {
        t if is_text(t) => Arc::new(to_text(array, t)),
        SqlType::Array(element) if matches!(array.data_type(), DataType::List(_)) => {
            let list = array.as_list::<i32>();
            let values: ArrayRef = match is_text(element) {
                true => Arc::new(to_text(list.values(), element)),
                false => list.values().clone(),
            };
            let field = Field::new("element", values.data_type().clone(), true);
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Arc::new(ListArray::new(Arc::new(field), offsets, values, nulls))
        }
        _ => array.clone(),
    }
}

/// Parquet's end of an object that is being written.
struct Parts(Option<ObjectWriter>);

impl AsyncFileWriter for Parts {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        Box::pin(async move {
            let writer = self.0.as_mut().expect("nothing is written after the end");
            writer.write(bytes).await.map_err(external)
        })
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        Box::pin(async move {
            let writer = self.0.take().expect("a file ends once");
            writer.finish().await.map_err(external)
        })
    }
}

fn external(error: StorageError) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// A full disk has to be recognised as such.
fn parquet_error(error: ParquetError) -> CheckpointError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<StorageError>() {
            Ok(storage) => (*storage).into(),
            Err(inner) => CheckpointError::OutOfOrder(format!("writing Parquet failed: {inner}")),
        },
        other => CheckpointError::OutOfOrder(format!("writing Parquet failed: {other}")),
    }
}

//! The rows that a statement needs to look at: those with certain keys, or those that a query finds.

use super::target::Target;
use crate::session::{Reading, Session};
use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, take_record_batch};
use datafusion::common::ScalarValue;
use hashbrown::HashMap;
use tidegate_planner::Planner;
use tidegate_types::{Batch, Diff, SqlError, SqlType};

/// Rows of a table by primary key, as far as they were asked for.
pub(super) struct KeyedRows {
    pub rows: HashMap<Vec<u8>, RecordBatch>,
}

impl Target {
    /// The present rows under these keys: from the snapshot, and what changed on top of it.
    pub fn present(&self, reading: &Reading, keys: &[&[u8]]) -> Result<KeyedRows, SqlError> {
        let mut found: HashMap<Vec<u8>, Vec<(RecordBatch, Diff)>> = HashMap::new();
        // A key that is asked for twice has its row once.
        let wanted: hashbrown::HashSet<&[u8]> = keys.iter().copied().collect();
        if let Some(view) = reading.snapshot.views.get(&self.relation.id) {
            for key in &wanted {
                for part in &view.parts {
                    for batch in part.lookup(key, None, 8).map_err(SqlError::internal)? {
                        let batch = batch.map_err(SqlError::internal)?;
                        for row in 0..batch.num_rows() {
                            found
                                .entry(key.to_vec())
                                .or_default()
                                .push((batch.slice(row, 1), 1));
                        }
                    }
                }
            }
        }
        for batch in reading.changes.get(&self.relation.id).into_iter().flatten() {
            let encoded = self.keys(batch.rows())?;
            for (index, key) in encoded.iter().enumerate() {
                if wanted.contains(key.data()) {
                    let row = batch.rows().slice(index, 1);
                    found
                        .entry(key.data().to_vec())
                        .or_default()
                        .push((row, batch.diff(index)));
                }
            }
        }
        let mut rows = HashMap::new();
        for (key, versions) in found {
            if let Some(row) = surviving(versions) {
                rows.insert(key, row);
            }
        }
        Ok(KeyedRows { rows })
    }
}

/// Of versions of one key's row, the one whose diffs add up to more than nothing.
fn surviving(versions: Vec<(RecordBatch, Diff)>) -> Option<RecordBatch> {
    let mut counts: Vec<(RecordBatch, Diff)> = Vec::new();
    for (row, diff) in versions {
        match counts
            .iter_mut()
            .find(|(r, _)| r.columns() == row.columns())
        {
            Some((_, count)) => *count += diff,
            None => counts.push((row, diff)),
        }
    }
    counts
        .into_iter()
        .find(|(_, count)| *count > 0)
        .map(|(row, _)| row)
}

impl Session {
    /// Runs a query whose first columns are a table's stored columns; answers them and the rest.
    pub(super) async fn found_rows(
        &mut self,
        query_text: &str,
        parameter_types: &[SqlType],
        parameters: Vec<ScalarValue>,
        turn: Option<&super::Turn<'_>>,
    ) -> Result<Vec<RecordBatch>, SqlError> {
        let query = crate::relations::parse_query(query_text)?;
        let names = self.names();
        let declared: Vec<_> = parameter_types.iter().cloned().map(Some).collect();
        let planned = Planner::new(&names, query_text)
            .query(query, &declared)
            .map_err(|mut e| {
                // Positions would be those of a text that nobody wrote.
                e.position = None;
                e
            })?;
        let relations = crate::session::relations_of(&planned.plan);
        let reading = self.reading_for_write_of(&relations, turn).await?;
        self.collect(planned, parameters, &reading, query_text)
            .await
    }
}

/// A batch that removes these rows.
pub(super) fn retraction(rows: RecordBatch) -> Batch {
    let count = rows.num_rows();
    Batch::new(rows, Int64Array::from(vec![-1; count]))
}

/// These rows (given as one-row batches or more) as one batch of the table.
pub(super) fn together(target: &Target, rows: &[RecordBatch]) -> Result<RecordBatch, SqlError> {
    let conformed: Vec<RecordBatch> = rows
        .iter()
        .map(|batch| RecordBatch::try_new(target.schema.clone(), batch.columns().to_vec()))
        .collect::<Result<_, _>>()
        .map_err(SqlError::internal)?;
    concat_batches(&target.schema, &conformed).map_err(SqlError::internal)
}

pub(super) fn pick(rows: &RecordBatch, indices: Vec<u32>) -> Result<RecordBatch, SqlError> {
    take_record_batch(rows, &arrow::array::UInt32Array::from(indices)).map_err(SqlError::internal)
}

/// A row of NULLs.
pub(super) fn one_row_of(schema: &arrow::datatypes::Schema) -> RecordBatch {
    RecordBatch::try_new(
        std::sync::Arc::new(schema.clone()),
        schema
            .fields()
            .iter()
            .map(|f| arrow::array::new_null_array(f.data_type(), 1))
            .collect(),
    )
    .expect("every column may be NULL")
}

/// Whether a boolean column is true in this row.
pub(super) fn is_true(column: &dyn Array, row: usize) -> bool {
    let booleans = column.as_any().downcast_ref::<arrow::array::BooleanArray>();
    booleans.is_some_and(|b| b.is_valid(row) && b.value(row))
}

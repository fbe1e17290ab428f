//! A batch: Arrow columns and one signed `diff` per row, that is, a piece of a Z-set.
//!
//! `+1` inserts a row, `-1` retracts one. A batch whose diffs are all one carries no diff column, which is the common
//! case of append-only data and costs nothing. Diffs of zero are allowed on the way but mean nothing.

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter, filter_record_batch, take, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

/// How many copies of a row are added (positive) or removed (negative).
pub type Diff = i64;

/// Arrow columns with one signed count per row.
#[derive(Debug, Clone)]
pub struct Batch {
    rows: RecordBatch,
    diffs: Option<Int64Array>,
}

impl Batch {
    /// Rows that are all inserted once.
    pub fn insert(rows: RecordBatch) -> Self {
        Self { rows, diffs: None }
    }

    /// Rows with their diffs; diffs that are all one are dropped.
    ///
    /// # Panics
    /// When the lengths differ or a diff is NULL: both are bugs of the caller.
    pub fn new(rows: RecordBatch, diffs: Int64Array) -> Self {
        assert_eq!(rows.num_rows(), diffs.len(), "one diff per row");
        assert_eq!(diffs.null_count(), 0, "diffs are never NULL");
        let ones = diffs.values().iter().all(|d| *d == 1);
        Self {
            rows,
            diffs: (!ones).then_some(diffs),
        }
    }

    pub fn from_parts(rows: RecordBatch, diffs: Option<Int64Array>) -> Self {
        match diffs {
            Some(diffs) => Self::new(rows, diffs),
            None => Self::insert(rows),
        }
    }

    pub fn empty(schema: SchemaRef) -> Self {
        Self::insert(RecordBatch::new_empty(schema))
    }

    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    pub fn columns(&self) -> &[ArrayRef] {
        self.rows.columns()
    }

    pub fn column(&self, index: usize) -> &ArrayRef {
        self.rows.column(index)
    }

    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.num_rows() == 0
    }

    /// `None` means that every diff is one.
    pub fn diffs(&self) -> Option<&Int64Array> {
        self.diffs.as_ref()
    }

    pub fn diff(&self, row: usize) -> Diff {
        self.diffs.as_ref().map_or(1, |d| d.value(row))
    }

    pub fn diff_values(&self) -> Vec<Diff> {
        match &self.diffs {
            Some(diffs) => diffs.values().to_vec(),
            None => vec![1; self.num_rows()],
        }
    }

    pub fn into_parts(self) -> (RecordBatch, Option<Int64Array>) {
        (self.rows, self.diffs)
    }

    /// The same diffs over other columns of the same length.
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        Self::from_parts(rows, self.diffs.clone())
    }

    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self::from_parts(
            self.rows.slice(offset, length),
            self.diffs.as_ref().map(|d| d.slice(offset, length)),
        )
    }

    pub fn take(&self, indices: &UInt32Array) -> Result<Self, ArrowError> {
        let rows = take_record_batch(&self.rows, indices)?;
        let diffs = match &self.diffs {
            Some(d) => Some(int64(take(d, indices, None)?)),
            None => None,
        };
        Ok(Self::from_parts(rows, diffs))
    }

    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, ArrowError> {
        let rows = filter_record_batch(&self.rows, keep)?;
        let diffs = match &self.diffs {
            Some(d) => Some(int64(filter(d, keep)?)),
            None => None,
        };
        Ok(Self::from_parts(rows, diffs))
    }

    pub fn project(&self, columns: &[usize]) -> Result<Self, ArrowError> {
        Ok(self.with_rows(self.rows.project(columns)?))
    }

    /// The same rows with every diff negated.
    pub fn negated(&self) -> Self {
        let diffs = self
            .diff_values()
            .into_iter()
            .map(|d| -d)
            .collect::<Vec<_>>();
        Self::new(self.rows.clone(), Int64Array::from(diffs))
    }

    /// One batch with the rows of all, in order. All must have this schema.
    pub fn concat(schema: &SchemaRef, batches: &[Batch]) -> Result<Self, ArrowError> {
        let rows = concat_batches(schema, batches.iter().map(|b| &b.rows))?;
        if batches.iter().all(|b| b.diffs.is_none()) {
            return Ok(Self::insert(rows));
        }
        let mut diffs = Vec::with_capacity(rows.num_rows());
        for batch in batches {
            match &batch.diffs {
                Some(d) => diffs.extend_from_slice(d.values()),
                None => diffs.resize(diffs.len() + batch.num_rows(), 1),
            }
        }
        Ok(Self::new(rows, Int64Array::from(diffs)))
    }

    /// Bytes of the buffers that this batch refers to, for accounting.
    pub fn memory_bytes(&self) -> usize {
        self.rows.get_array_memory_size()
            + self.diffs.as_ref().map_or(0, |d| d.get_array_memory_size())
    }
}

fn int64(array: ArrayRef) -> Int64Array {
    array
        .as_any()
        .downcast_ref::<Int64Array>()
        .expect("kernels keep the type of their input")
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn numbers(values: &[i64], diffs: &[i64]) -> Batch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let rows = RecordBatch::try_new(schema, vec![column]).expect("one column");
        Batch::new(rows, Int64Array::from(diffs.to_vec()))
    }

    #[test]
    fn all_ones_carry_no_column() {
        assert!(numbers(&[1, 2], &[1, 1]).diffs().is_none());
        assert_eq!(numbers(&[1, 2], &[1, -1]).diff_values(), vec![1, -1]);
    }

    #[test]
    fn concat_mixes_both_forms() {
        let a = numbers(&[1, 2], &[1, 1]);
        let b = numbers(&[3], &[-1]);
        let both = Batch::concat(&a.schema(), &[a.clone(), b]).expect("same schema");
        assert_eq!(both.diff_values(), vec![1, 1, -1]);
        assert_eq!(both.negated().diff_values(), vec![-1, -1, 1]);
    }

    #[test]
    fn taking_and_filtering_keep_rows_and_diffs_together() {
        let batch = numbers(&[1, 2, 3], &[1, -1, 2]);
        let taken = batch
            .take(&UInt32Array::from(vec![2, 1]))
            .expect("in range");
        assert_eq!(taken.diff_values(), vec![2, -1]);
        let kept = batch
            .filter(&BooleanArray::from(vec![true, false, true]))
            .expect("same length");
        assert_eq!(kept.diff_values(), vec![1, 2]);
    }
}

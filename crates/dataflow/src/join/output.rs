//! The output of a join: pairs, and rows of one side by themselves.

use super::side::Side;
use super::store::Weight;
use super::verdict::{Verdict, verdict};
use crate::{Cx, OperatorError};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use tidegate_plan::JoinKind;
use tidegate_types::key::canonical_floats;
use tidegate_types::{Batch, ByteRows};

pub(super) struct Output {
    pub kind: JoinKind,
    /// Of the inputs.
    pub schemas: [SchemaRef; 2],
    pub schema: SchemaRef,
}

impl Output {
    pub fn emit(
        &self,
        columns: Vec<ArrayRef>,
        diffs: Vec<i64>,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        let options = RecordBatchOptions::new().with_row_count(Some(diffs.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        cx.emit(Batch::new(rows, Int64Array::from(diffs)));
        Ok(())
    }

    /// Output columns for rows of one side by themselves, with their marks if the output has them.
    pub fn alone(
        &self,
        side: usize,
        mut columns: Vec<ArrayRef>,
        mark: &[Option<bool>],
    ) -> Vec<ArrayRef> {
        match self.kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti => columns,
            JoinKind::LeftMark => {
                columns.push(Arc::new(marks(mark)));
                columns
            }
            _ if side == 0 => {
                columns.extend(absent(&self.schemas[1], mark.len()));
                columns
            }
            _ => {
                let mut all = absent(&self.schemas[0], mark.len());
                all.extend(columns);
                all
            }
        }
    }

    /// Emits what was collected of one side.
    pub fn flush(
        &self,
        side: usize,
        codec: &Side,
        lone: &mut Lone,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        if lone.len() > 0 {
            let columns = codec.decode(lone.keys.iter(), lone.rests.iter())?;
            let columns = self.alone(side, columns, &lone.marks);
            self.emit(columns, std::mem::take(&mut lone.diffs), cx)?;
            lone.clear();
        }
        Ok(())
    }

    /// Rows of a preserved side that can match nothing pass through, if a row without matches is in the output.
    pub fn pass_unmatched(
        &self,
        side: usize,
        batch: &Batch,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        let mark = match verdict(self.kind, Weight::default()) {
            Verdict::Shown => None,
            Verdict::Marked(mark) => mark,
            Verdict::Hidden => return Ok(()),
        };
        if !batch.is_empty() {
            // In the one form that state would have given them, since what is retracted may come from state.
            let columns = batch.columns().iter().map(canonical_floats).collect();
            let columns = self.alone(side, columns, &vec![mark; batch.num_rows()]);
            self.emit(columns, batch.diff_values(), cx)?;
        }
        Ok(())
    }
}

/// NULLs where a side is absent.
fn absent(schema: &SchemaRef, rows: usize) -> Vec<ArrayRef> {
    schema
        .fields()
        .iter()
        .map(|f| arrow::array::new_null_array(f.data_type(), rows))
        .collect()
}

/// The column of marks of a mark join.
fn marks(values: &[Option<bool>]) -> BooleanArray {
    let nulls: NullBuffer = values.iter().map(Option::is_some).collect();
    let bits: BooleanBuffer = values.iter().map(|v| v.unwrap_or(false)).collect();
    BooleanArray::new(bits, (nulls.null_count() > 0).then_some(nulls))
}

/// Rows of one side on their way to the output.
#[derive(Default)]
pub(super) struct Lone {
    pub keys: ByteRows,
    pub rests: ByteRows,
    pub diffs: Vec<i64>,
    pub marks: Vec<Option<bool>>,
}

impl Lone {
    pub fn len(&self) -> usize {
        self.diffs.len()
    }

    pub fn push(&mut self, key: &[u8], rest: &[u8], verdict: Verdict, diff: i64) {
        let mark = match verdict {
            Verdict::Hidden => return,
            Verdict::Shown => None,
            Verdict::Marked(mark) => mark,
        };
        if diff != 0 {
            self.keys.push(key);
            self.rests.push(rest);
            self.diffs.push(diff);
            self.marks.push(mark);
        }
    }

    /// A row that was there `before.1` times under `before.0` and is there `after.1` times under `after.0`.
    pub fn change(
        &mut self,
        key: &[u8],
        rest: &[u8],
        before: (Verdict, i64),
        after: (Verdict, i64),
    ) {
        if before.0 == after.0 {
            self.push(key, rest, after.0, after.1 - before.1);
        } else {
            self.push(key, rest, before.0, -before.1);
            self.push(key, rest, after.0, after.1);
        }
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.rests.clear();
        self.diffs.clear();
        self.marks.clear();
    }
}

//! Constant rows: `Δout` is all of them in the first epoch ever, and nothing afterwards.
//!
//! State: `emitted`, one row under the empty key once the rows are out, so that a rebuilt operator stays silent. Only the
//! worker that owns the empty key's group has the rows.

use crate::expression::evaluate_constant;
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, concat};
use arrow::datatypes::SchemaRef;
use tidegate_plan::ScalarExpr;
use tidegate_state::{Cell, Change};
use tidegate_types::{Barrier, Batch};

pub struct Values {
    /// Taken at the first barrier; none on workers that do not own the empty key.
    rows: Option<RecordBatch>,
}

impl Values {
    pub fn new(
        rows: &[Vec<ScalarExpr>],
        schema: SchemaRef,
        owner: bool,
    ) -> Result<Self, OperatorError> {
        if !owner {
            return Ok(Self { rows: None });
        }
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            let cells = rows
                .iter()
                .map(|row| Ok(cast(&evaluate_constant(&row[index])?, field.data_type())?))
                .collect::<Result<Vec<ArrayRef>, OperatorError>>()?;
            columns.push(match cells.is_empty() {
                true => arrow::array::new_empty_array(field.data_type()),
                false => concat(&cells.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(Self {
            rows: Some(RecordBatch::try_new_with_options(
                schema, columns, &options,
            )?),
        })
    }
}

impl Operator for Values {
    fn on_batch(
        &mut self,
        _port: Port,
        _batch: Batch,
        _cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        unreachable!("constant rows have no input")
    }

    fn on_barrier(
        &mut self,
        _barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        let Some(rows) = self.rows.take() else {
            return Ok(Progress::Done);
        };
        let mut emitted = false;
        cx.tables[0].get_many(&[Cell::key(&[])], &mut |_, value| emitted = value.is_some())?;
        if !emitted {
            cx.tables[0].write_many(&[Change {
                cell: Cell::key(&[]),
                value: Some(&[1]),
            }])?;
            cx.emit(Batch::insert(rows));
        }
        Ok(Progress::Done)
    }
}

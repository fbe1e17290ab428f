//! Scalar expressions, compiled once and evaluated on whole batches.
//!
//! A batch in which some row fails is halved until the failing rows are alone: they are set aside with their error and
//! the rest goes on. Integer arithmetic is checked, as in Postgres; DataFusion's own default is to wrap.

use crate::checked::checked;
use crate::row_failure::{is_data_error, row_error};
use crate::{OperatorError, RowError};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tidegate_plan::ScalarExpr;
use tidegate_types::Batch;

/// A list of expressions over one input, with the schema of their results.
pub struct Expressions {
    compiled: Vec<Arc<dyn PhysicalExpr>>,
    output: SchemaRef,
}

impl Expressions {
    pub fn compile(
        expressions: &[ScalarExpr],
        input: &Schema,
        output: SchemaRef,
    ) -> Result<Self, OperatorError> {
        assert_eq!(
            expressions.len(),
            output.fields().len(),
            "one field per expression"
        );
        let positional = ScalarExpr::positional_schema(input);
        let compiled = expressions
            .iter()
            .map(|e| compile(e, &positional))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { compiled, output })
    }

    /// The results for all rows that do not fail; `fail` gets the others.
    pub fn evaluate(
        &self,
        batch: &Batch,
        fail: &mut dyn FnMut(RowError),
    ) -> Result<Batch, OperatorError> {
        match self.evaluate_rows(batch.rows()) {
            Ok(rows) => Ok(batch.with_rows(rows)),
            Err(error) if is_data_error(&error) => self.bisect(batch, error, fail),
            Err(error) => Err(error.into()),
        }
    }

    /// A panic inside a kernel is the error of the rows it was given: a date beyond what a library can hold must not take
    /// the view down with each attempt.
    fn evaluate_rows(&self, rows: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        // Expressions have no state that a panic could leave half changed.
        let attempt = AssertUnwindSafe(|| self.evaluate_columns(rows));
        let columns = catch_unwind(attempt).unwrap_or_else(|panic| {
            Err(DataFusionError::Internal(format!(
                "an expression panicked: {}",
                panic_text(panic.as_ref())
            )))
        })?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            self.output.clone(),
            columns,
            &options,
        )?)
    }

    fn evaluate_columns(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, DataFusionError> {
        let outputs = self.compiled.iter().zip(self.output.fields());
        outputs
            .map(|(expression, field)| {
                let array = expression.evaluate(rows)?.into_array(rows.num_rows())?;
                if array.data_type() == field.data_type() {
                    Ok(array)
                } else {
                    Ok(cast(&array, field.data_type())?)
                }
            })
            .collect()
    }

    /// Halves the batch until the failing rows are alone. An explicit stack: batches may be large.
    fn bisect(
        &self,
        batch: &Batch,
        error: DataFusionError,
        fail: &mut dyn FnMut(RowError),
    ) -> Result<Batch, OperatorError> {
        let mut good: Vec<Batch> = Vec::new();
        let mut todo = vec![(0, batch.num_rows(), Some(error))];
        while let Some((start, length, known)) = todo.pop() {
            let piece = batch.slice(start, length);
            let outcome = match known {
                Some(error) => Err(error),
                None => self.evaluate_rows(piece.rows()),
            };
            match outcome {
                Ok(rows) => good.push(piece.with_rows(rows)),
                Err(error) if !is_data_error(&error) => return Err(error.into()),
                Err(error) if length <= 1 => {
                    fail(row_error(&error, piece.rows(), 0, piece.diff(0)))
                }
                Err(_) => {
                    let half = length / 2;
                    todo.push((start + half, length - half, None));
                    todo.push((start, half, None));
                }
            }
        }
        if good.is_empty() {
            return Ok(Batch::empty(self.output.clone()));
        }
        // Zero columns cannot be concatenated by Arrow with their counts lost, so that case is kept by hand.
        if self.output.fields().is_empty() {
            return Ok(concat_without_columns(&self.output, &good));
        }
        Ok(Batch::concat(&self.output, &good)?)
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

fn concat_without_columns(schema: &SchemaRef, batches: &[Batch]) -> Batch {
    let diffs: Vec<i64> = batches.iter().flat_map(Batch::diff_values).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(diffs.len()));
    let rows = RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options)
        .expect("no columns to disagree");
    Batch::new(rows, diffs.into())
}

/// One physical expression with Postgres's arithmetic.
pub fn compile(
    expression: &ScalarExpr,
    input: &DFSchema,
) -> Result<Arc<dyn PhysicalExpr>, OperatorError> {
    let context = PhysicalPlanningContext::default();
    let physical =
        create_physical_expr(expression.expr(), input, &ExecutionProps::new(), &context)?;
    Ok(checked(physical, input.as_arrow())?)
}

/// The value of an expression that reads no column, as a row of one.
pub fn evaluate_constant(expression: &ScalarExpr) -> Result<ArrayRef, OperatorError> {
    let schema = Arc::new(Schema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let one = RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options)?;
    let physical = compile(expression, &ScalarExpr::positional_schema(&schema))?;
    Ok(physical.evaluate(&one)?.into_array(1)?)
}

/// The rows under another schema of the same types.
pub fn with_schema(batch: &Batch, schema: &SchemaRef) -> Result<Batch, OperatorError> {
    if batch.rows().schema_ref() == schema {
        return Ok(batch.clone());
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(c, f)| {
            if c.data_type() == f.data_type() {
                Ok(c.clone())
            } else {
                cast(c, f.data_type())
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(batch.with_rows(RecordBatch::try_new_with_options(
        schema.clone(),
        columns,
        &options,
    )?))
}

//! Aggregates of DataFusion that have no accumulator here: computed from all rows of a group, whenever one of them changes.
//!
//! All state is the value set: the arguments in the order of the call, and by their bytes where that leaves it open, so that
//! results repeat. Cost: the size of each changed group.

use super::accumulator::{Accumulator, Failure, Finished, Merge, Weights, unsupported};
use super::value_set::ValueSetChanges;
use crate::OperatorError;
use crate::row_failure::{classify, is_data_error};
use crate::value_bytes::Reader;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use std::sync::Arc;
use tidegate_plan::{AggregateCall, ScalarExpr};
use tidegate_types::{ByteRows, RowCodec};

pub struct Library {
    set: usize,
    distinct: bool,
    codec: Arc<RowCodec>,
    /// Where the arguments are among the set's columns, and their schema.
    positions: Vec<usize>,
    schema: SchemaRef,
    function: AggregateFunctionExpr,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    output: DataType,
    finished: [Lists; 2],
}

/// The contents of several groups, end to end.
#[derive(Default)]
struct Lists {
    values: ByteRows,
    /// How often each value counts.
    repeats: Vec<i64>,
    /// Number of entries of `values` up to the end of each group.
    ends: Vec<usize>,
}

impl Library {
    pub fn new(
        call: &AggregateCall,
        set: usize,
        changes: &mut ValueSetChanges,
        input: &Schema,
        output: &Field,
    ) -> Result<Self, OperatorError> {
        changes.keeps_contents = true;
        let Some(Expr::AggregateFunction(function)) = call.parameter.as_ref().map(ScalarExpr::expr)
        else {
            return Err(unsupported("an aggregate without its function"));
        };
        let schema = Arc::new(input.project(&call.arguments)?);
        let positional = ScalarExpr::positional_schema(&schema);
        let context = PhysicalPlanningContext::default();
        let exprs = function
            .params
            .args
            .iter()
            .map(|e| create_physical_expr(e, &positional, &ExecutionProps::new(), &context))
            .collect::<Result<Vec<_>, _>>()?;
        let ignore_nulls = function.params.null_treatment == Some(NullTreatment::IgnoreNulls);
        let built = AggregateExprBuilder::new(function.func.clone(), exprs.clone())
            .schema(positional.inner().clone())
            .alias(function.func.name())
            .with_ignore_nulls(ignore_nulls)
            .build()?;
        Ok(Self {
            set,
            distinct: call.distinct,
            codec: changes.codec().clone(),
            positions: call
                .arguments
                .iter()
                .map(|a| changes.position_of(*a))
                .collect(),
            schema: positional.inner().clone(),
            function: built,
            exprs,
            output: output.data_type().clone(),
            finished: Default::default(),
        })
    }

    fn column(&self, lists: &Lists) -> Result<Finished, OperatorError> {
        let columns = match lists.values.is_empty() {
            true => Vec::new(),
            false => self.codec.decode(lists.values.iter())?,
        };
        let (mut values, mut failures) = (Vec::new(), Vec::new());
        let mut start = 0;
        for (index, end) in lists.ends.iter().enumerate() {
            let value = self.value(lists, &columns, start..*end);
            start = *end;
            values.push(match value {
                Ok(value) => value,
                Err(error) if is_data_error(&error) => {
                    let (state, message) = classify(&error);
                    failures.push(Failure {
                        index,
                        state,
                        message,
                    });
                    ScalarValue::try_from(&self.output)?
                }
                Err(error) => return Err(error.into()),
            });
        }
        let typed = values
            .into_iter()
            .map(|value| match value.data_type() == self.output {
                true => Ok(value),
                false => value.cast_to(&self.output),
            });
        let typed = typed.collect::<Result<Vec<_>, DataFusionError>>()?;
        let values = match typed.is_empty() {
            true => arrow::array::new_empty_array(&self.output),
            false => ScalarValue::iter_to_array(typed)?,
        };
        Ok(Finished { values, failures })
    }

    /// The aggregate of one group.
    fn value(
        &self,
        lists: &Lists,
        columns: &[ArrayRef],
        entries: std::ops::Range<usize>,
    ) -> Result<ScalarValue, DataFusionError> {
        let mut accumulator = self.function.create_accumulator()?;
        if entries.is_empty() {
            return accumulator.evaluate();
        }
        let rows: UInt32Array = entries
            .flat_map(|entry| std::iter::repeat_n(entry as u32, lists.repeats[entry] as usize))
            .collect();
        let arguments = self
            .positions
            .iter()
            .map(|position| Ok(take(&columns[*position], &rows, None)?))
            .collect::<Result<Vec<_>, DataFusionError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arguments, &options)?;
        let arguments = self
            .exprs
            .iter()
            .map(|e| e.evaluate(&batch)?.into_array(batch.num_rows()))
            .collect::<Result<Vec<_>, DataFusionError>>()?;
        accumulator.update_batch(&arguments)?;
        accumulator.evaluate()
    }
}

impl Accumulator for Library {
    fn resize(&mut self, _groups: usize) {}

    fn update(&mut self, _: &[u32], _: Weights<'_>, _: &[ArrayRef]) -> Result<(), OperatorError> {
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        _old: Option<&mut Reader<'_>>,
        _new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let (finished, distinct) = (&mut self.finished, self.distinct);
        at.sets[self.set].each(at.group, &mut |value, before, after| {
            for (list, count) in finished.iter_mut().zip([before, after]) {
                if count > 0 {
                    list.values.push(value);
                    list.repeats.push(if distinct { 1 } else { count });
                }
            }
        });
        for list in finished {
            list.ends.push(list.values.len());
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let [old, new] = std::mem::take(&mut self.finished);
        Ok([self.column(&old)?, self.column(&new)?])
    }

    fn clear(&mut self) {}
}

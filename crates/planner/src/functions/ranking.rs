//! The ranking functions with Postgres' types: `row_number`, `rank` and `dense_rank` are bigints, `ntile` an integer, where
//! DataFusion has unsigned numbers, whose differences wrap around.

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::{SortOptions, cast};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::{
    Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF,
    WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use std::ops::Range;
use std::sync::Arc;

/// The function with its Postgres type, where it has another one.
pub(super) fn typed(function: Arc<WindowUDF>) -> Arc<WindowUDF> {
    let result = match function.name() {
        "row_number" | "rank" | "dense_rank" => DataType::Int64,
        "ntile" => DataType::Int32,
        _ => return function,
    };
    Arc::new(WindowUDF::new_from_impl(Typed { function, result }))
}

/// A window function whose results are cast.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Typed {
    function: Arc<WindowUDF>,
    result: DataType,
}

impl WindowUDFImpl for Typed {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn expressions(&self, arguments: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.function.expressions(arguments)
    }

    fn partition_evaluator(
        &self,
        arguments: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(TypedEvaluator {
            evaluator: self.function.partition_evaluator_factory(arguments)?,
            result: self.result.clone(),
        }))
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        let field = self.function.field(arguments)?;
        Ok(Arc::new(
            field.as_ref().clone().with_data_type(self.result.clone()),
        ))
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.function.sort_options()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        ReversedUDWF::NotSupported
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }

    fn limit_effect(&self, arguments: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.function.inner().limit_effect(arguments)
    }
}

#[derive(Debug)]
struct TypedEvaluator {
    evaluator: Box<dyn PartitionEvaluator>,
    result: DataType,
}

impl PartitionEvaluator for TypedEvaluator {
    fn get_range(&self, row: usize, rows: usize) -> Result<Range<usize>> {
        self.evaluator.get_range(row, rows)
    }

    fn is_causal(&self) -> bool {
        self.evaluator.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        Ok(cast(
            &self.evaluator.evaluate_all(values, rows)?,
            &self.result,
        )?)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.evaluator
            .evaluate(values, range)?
            .cast_to(&self.result)
    }

    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef> {
        Ok(cast(
            &self.evaluator.evaluate_all_with_rank(rows, ranks)?,
            &self.result,
        )?)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.evaluator.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.evaluator.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.evaluator.include_rank()
    }
}

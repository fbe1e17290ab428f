//! Keeps the rows for which a predicate is true: `Δout = σ(Δin)`.
//!
//! No state. NULL is not true. A row for which the predicate fails is set aside and not kept.

use crate::expression::{Expressions, with_schema};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;
use tidegate_plan::ScalarExpr;
use tidegate_types::{Barrier, Batch};

pub struct Filter {
    predicate: Expressions,
    schema: SchemaRef,
}

impl Filter {
    pub fn new(
        predicate: &ScalarExpr,
        input: &Schema,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let truth = Arc::new(Schema::new(vec![Field::new(
            "predicate",
            DataType::Boolean,
            true,
        )]));
        let predicate = Expressions::compile(std::slice::from_ref(predicate), input, truth)?;
        Ok(Self { predicate, schema })
    }

    /// The truth of every row. Rows that fail are false: only then is the predicate evaluated row by row again.
    fn truth(
        &self,
        batch: &Batch,
        cx: &mut Cx<'_>,
    ) -> Result<(Batch, BooleanArray), OperatorError> {
        let mut failures = Vec::new();
        let truth = self
            .predicate
            .evaluate(batch, &mut |error| failures.push(error))?;
        if failures.is_empty() {
            return Ok((batch.clone(), truth.column(0).as_boolean().clone()));
        }
        let mut good = Vec::new();
        let mut truths = Vec::new();
        for row in 0..batch.num_rows() {
            let piece = batch.slice(row, 1);
            let mut failed = false;
            let truth = self.predicate.evaluate(&piece, &mut |_| failed = true)?;
            if !failed {
                let truth = truth.column(0).as_boolean();
                truths.push(truth.is_valid(0) && truth.value(0));
                good.push(row as u32);
            }
        }
        for failure in failures {
            cx.fail_row(failure);
        }
        Ok((batch.take(&good.into())?, BooleanArray::from(truths)))
    }
}

impl Operator for Filter {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        let (batch, truth) = self.truth(&batch, cx)?;
        let truth = if truth.null_count() > 0 {
            prep_null_mask_filter(&truth)
        } else {
            truth
        };
        let kept = if truth.true_count() == batch.num_rows() {
            batch
        } else {
            batch.filter(&truth)?
        };
        cx.emit(with_schema(&kept, &self.schema)?);
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        _barrier: &Barrier,
        _cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};
    use expect_test::expect;
    use tidegate_plan::{Op, ScalarExpr};
    use tidegate_testkit::check::columns;
    use tidegate_testkit::{Check, check};
    use tidegate_types::SqlType;

    #[test]
    fn null_is_not_true_and_a_failing_row_is_not_kept() {
        let schema = columns(&[SqlType::BigInt, SqlType::Text]);
        let predicate = (lit(12i64) / col("0")).gt(lit(2i64));
        let operator = Check {
            op: Op::Filter {
                predicate: ScalarExpr::new(predicate),
            },
            inputs: vec![schema.clone()],
            output: schema,
            append_only: false,
        };
        check(
            operator,
            r#"+1 (3,a)
             +1 (0,b)
             +1 (,c)
             +1 (6,d)
             -1 (4,"")
             --
             -1 (0,b)
             --"#,
            expect![[r#"
                ! +1 22012 (0,b) division by zero
                +1 (3,a)
                -1 (4,"")
                --
                ! -1 22012 (0,b) division by zero
                --
            "#]],
        );
    }
}

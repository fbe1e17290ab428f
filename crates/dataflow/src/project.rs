//! Computes columns: `Δout = π(Δin)`, row by row, diffs unchanged.
//!
//! No state. A row for which an expression fails is set aside and gives no output; since expressions are deterministic its
//! retraction fails alike, and so retracts the error.

use crate::expression::Expressions;
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::datatypes::{Schema, SchemaRef};
use tidegate_plan::ScalarExpr;
use tidegate_types::{Barrier, Batch};

pub struct Project {
    expressions: Expressions,
}

impl Project {
    pub fn new(expressions: &[ScalarExpr], input: &Schema, schema: SchemaRef) -> Result<Self, OperatorError> {
        Ok(Self { expressions: Expressions::compile(expressions, input, schema)? })
    }
}

impl Operator for Project {
    fn on_batch(&mut self, _port: Port, batch: Batch, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        let projected = self.expressions.evaluate(&batch, &mut |error| cx.fail_row(error))?;
        cx.emit(projected);
        Ok(Progress::Done)
    }

    fn on_barrier(&mut self, _barrier: &Barrier, _cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }
}

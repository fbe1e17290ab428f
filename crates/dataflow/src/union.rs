//! All rows of all inputs: `Δout = Δ₁ + Δ₂ + …` (UNION ALL; UNION puts a DISTINCT on top).
//!
//! No state; batches stream through under the output's schema.

use crate::expression::with_schema;
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::datatypes::SchemaRef;
use tidegate_types::{Barrier, Batch};

pub struct Union {
    schema: SchemaRef,
}

impl Union {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }
}

impl Operator for Union {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        cx.emit(with_schema(&batch, &self.schema)?);
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

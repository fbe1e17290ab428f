//! The join operator: which way a join is done.

use super::matching::Matching;
use super::not_in::NotIn;
use super::output::Output;
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use tidegate_plan::join_state::JoinLayout;
use tidegate_plan::{JoinKind, ScalarExpr};
use tidegate_types::{Barrier, Batch};

/// See the module.
pub struct Join(Way);

enum Way {
    Matching(Box<Matching>),
    NotIn(Box<NotIn>),
}

/// The condition of a join.
pub(super) struct JoinSpec<'a> {
    pub left_keys: &'a [usize],
    pub right_keys: &'a [usize],
    pub null_equals_null: bool,
    pub null_aware: bool,
    pub residual: Option<&'a ScalarExpr>,
}

impl Join {
    /// The fields of [`tidegate_plan::Op::Join`], the schemas of both inputs and of the output, and whether the inputs
    /// only grow.
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one operator of the plan, taken apart once"
    )]
    pub fn new(
        kind: JoinKind,
        left_keys: &[usize],
        right_keys: &[usize],
        null_equals_null: bool,
        null_aware: bool,
        residual: Option<&ScalarExpr>,
        left: SchemaRef,
        right: SchemaRef,
        output: SchemaRef,
        _left_append_only: bool,
        _right_append_only: bool,
    ) -> Result<Self, OperatorError> {
        assert_eq!(left_keys.len(), right_keys.len(), "keys come in pairs");
        for (l, r) in left_keys.iter().zip(right_keys) {
            let (l, r) = (left.field(*l).data_type(), right.field(*r).data_type());
            if l != r {
                let message = format!("a join's keys have one type, not {l} and {r}");
                return Err(DataFusionError::Internal(message).into());
            }
        }
        let layout = JoinLayout::new(kind, left_keys.len(), null_aware, residual.is_some());
        let output = Output {
            kind,
            schemas: [left, right],
            schema: output,
        };
        let spec = JoinSpec {
            left_keys,
            right_keys,
            null_equals_null,
            null_aware,
            residual,
        };
        Ok(Self(match layout.first_compared() {
            true => Way::NotIn(Box::new(NotIn::new(&spec, layout, output)?)),
            false => Way::Matching(Box::new(Matching::new(&spec, layout, output)?)),
        }))
    }

    #[cfg(test)]
    pub(super) fn set_limits(&mut self, limits: super::Limits) {
        match &mut self.0 {
            Way::Matching(join) => join.limits = limits,
            Way::NotIn(join) => join.limits = limits,
        }
    }

    fn way(&mut self) -> &mut dyn Operator {
        match &mut self.0 {
            Way::Matching(join) => join.as_mut(),
            Way::NotIn(join) => join.as_mut(),
        }
    }
}

impl Operator for Join {
    fn on_batch(
        &mut self,
        port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.way().on_batch(port, batch, cx)
    }

    fn on_barrier(
        &mut self,
        barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.way().on_barrier(barrier, cx)
    }

    fn replay(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        self.way().replay(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        self.way().resume(cx)
    }
}

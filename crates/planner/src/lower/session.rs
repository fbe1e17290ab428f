//! `session_start(time, gap) OVER (PARTITION BY k ORDER BY time)` and `session_end`: a node of their own, which looks at the
//! sessions that change and not at whole partitions.

use crate::functions::time_windows::{SESSION_END, SESSION_START, literal_interval, size_us};
use crate::refuse::in_view;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::expr::WindowFunction;
use std::sync::Arc;
use tidegate_plan::Op;
use tidegate_types::SqlError;

pub(super) fn is_session(function: &WindowFunction) -> bool {
    function.fun.name() == SESSION_START || is_end(function)
}

pub(super) fn is_end(function: &WindowFunction) -> bool {
    function.fun.name() == SESSION_END
}

/// Whether both are about the same sessions.
pub(super) fn is_same(one: &WindowFunction, other: &WindowFunction) -> bool {
    is_session(other)
        && one.params.args == other.params.args
        && one.params.partition_by == other.params.partition_by
        && one.params.order_by == other.params.order_by
}

/// The gap in microseconds, if the call is about sessions.
pub(super) fn gap(function: &WindowFunction) -> Result<Option<i64>, SqlError> {
    if !is_session(function) {
        return Ok(None);
    }
    let params = &function.params;
    let by_time =
        matches!(params.order_by.as_slice(), [only] if only.asc && only.expr == params.args[0]);
    if !by_time {
        let feature = format!(
            "{} in another order than that of its time",
            function.fun.name()
        );
        return Err(in_view(feature));
    }
    match literal_interval(&params.args[1]) {
        Some(gap) => Ok(Some(size_us(gap, "session gap")?)),
        None => Err(in_view("a session gap that is not constant")),
    }
}

/// The node over its input.
pub(super) fn over(input: Rel, partition: Vec<usize>, time: usize, gap_us: i64) -> Rel {
    let mut fields: Vec<Field> = input
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    let of_time = input.schema.field(time).data_type().clone();
    for name in [SESSION_START, SESSION_END] {
        fields.push(Field::new(name, of_time.clone(), true));
    }
    let op = Op::Session {
        partition,
        time,
        gap_us,
    };
    Rel::new(op, vec![input], Arc::new(Schema::new(fields)))
}

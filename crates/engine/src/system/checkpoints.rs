//! What became of checkpoints, and what each worker and each operator had to do with them.

use super::relation::Rows;
use super::row::{Cell, Row};
use super::scope::Scope;
use super::tidegate::{each_dataflow, of_relation};
use std::collections::HashMap;
use tidegate_types::{OperatorId, RelationId};

/// Of checkpoints whose record was lost in a crash, not all is known.
fn known(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn checkpoints(scope: &Scope) -> Rows {
    let row = |record: tidegate_checkpoint::CheckpointRecord| {
        Row::new()
            .with("id", record.checkpoint.0)
            .with("epoch", record.epoch.0)
            .with("status", format!("{:?}", record.status).to_lowercase())
            .with("savepoint", record.savepoint)
            .with("cause", record.cause)
            .with("triggered_at", Cell::from_millis(record.triggered_ms))
            .with("duration_ms", record.duration_ms)
            .with("alignment_ms", record.alignment_ms)
            .with("sync_ms", record.sync_ms)
            .with("async_ms", record.async_ms)
            .with("bytes_written", record.bytes_written)
            .with("bytes_total", record.bytes_total)
            .with("in_flight_bytes", record.in_flight_bytes)
            .with("mode", known(record.mode))
            .with("execution", known(record.execution))
            .with("alignment", known(record.alignment))
            .with("guarantee", known(record.guarantee))
    };
    Ok(scope
        .database
        .store
        .checkpoints()
        .into_iter()
        .map(row)
        .collect())
}

pub(super) fn workers(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for record in scope.database.store.checkpoints() {
        rows.extend(record.workers.iter().map(|worker| {
            Row::new()
                .with("checkpoint_id", record.checkpoint.0)
                .with("worker", worker.worker)
                .with("sync_ms", worker.sync_ms)
                .with("encode_ms", worker.encode_ms)
                .with("write_ms", worker.write_ms)
                .with("rows", worker.rows)
                .with("bytes", worker.bytes)
        }));
    }
    Ok(rows)
}

pub(super) fn operators(scope: &Scope) -> Rows {
    let mut types: HashMap<(RelationId, OperatorId), String> = HashMap::new();
    each_dataflow(scope, &mut |relation, dataflow| {
        for node in &dataflow.nodes {
            let description = node.op.to_string();
            let name = description.split(' ').next().unwrap_or_default();
            types.insert((relation.id, node.id), name.to_owned());
        }
    })?;
    let mut rows = Vec::new();
    for record in scope.database.store.checkpoints() {
        rows.extend(record.operators.iter().map(|operator| {
            of_relation(scope, operator.relation)
                .with("checkpoint_id", record.checkpoint.0)
                .with("operator", operator.operator.to_string())
                .with(
                    "type",
                    types.get(&(operator.relation, operator.operator)).cloned(),
                )
                .with("worker", operator.worker)
                .with("sync_ms", operator.sync_ms)
                .with("rows", operator.rows)
                .with("bytes", operator.bytes)
                .with("in_flight_bytes", operator.in_flight_bytes)
        }));
    }
    Ok(rows)
}

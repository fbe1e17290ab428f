//! What each worker, and each operator on each worker, had to do with a checkpoint, for the history.

use crate::board::SealTime;
use crate::checkpointing::{Sealed, millis};
use std::collections::HashMap;
use tidegate_checkpoint::{
    IN_FLIGHT, OPERATORS_KEPT, OperatorRecord, TableDescriptor, UploadedRuns, WorkerRecord,
};
use tidegate_types::{OperatorId, RelationId, TableId, WorkerId};

pub(crate) fn of_workers(sealed: &[Sealed], uploads: &[UploadedRuns]) -> Vec<WorkerRecord> {
    let of_worker = |uploaded: &UploadedRuns| {
        let sealed = sealed.iter().find(|s| s.worker == uploaded.worker);
        WorkerRecord {
            worker: uploaded.worker,
            sync_ms: sealed.map_or(0.0, |s| s.micros as f64 / 1000.0),
            encode_ms: millis(uploaded.encoding),
            write_ms: millis(uploaded.writing),
            rows: uploaded.runs.iter().map(|(_, run)| run.rows).sum(),
            bytes: uploaded.bytes,
        }
    };
    let mut workers: Vec<WorkerRecord> = uploads.iter().map(of_worker).collect();
    workers.sort_by_key(|w| w.worker);
    workers
}

/// Those that wrote something, the largest first and no more than the history keeps.
pub(crate) fn of_operators(
    sealed: &[Sealed],
    uploads: &[UploadedRuns],
    tables: &[TableDescriptor],
) -> Vec<OperatorRecord> {
    let described: HashMap<TableId, &TableDescriptor> =
        tables.iter().map(|t| (t.table, t)).collect();
    let mut records: HashMap<(RelationId, OperatorId, WorkerId), OperatorRecord> = HashMap::new();
    for uploaded in uploads {
        for (table, run) in &uploaded.runs {
            let Some(table) = described.get(table) else {
                continue;
            };
            let worker = uploaded.worker;
            let record = records
                .entry((table.relation, table.operator, worker))
                .or_insert(OperatorRecord {
                    relation: table.relation,
                    operator: table.operator,
                    worker,
                    rows: 0,
                    bytes: 0,
                    in_flight_bytes: 0,
                    sync_ms: 0.0,
                });
            if table.name == IN_FLIGHT {
                record.in_flight_bytes += run.bytes;
            } else {
                record.rows += run.rows;
                record.bytes += run.bytes;
            }
        }
    }
    let times = sealed
        .iter()
        .flat_map(|s| s.times.iter().map(|time| (s.worker, time)));
    for (worker, (relation, operator, micros)) in times {
        let (relation, operator, micros): SealTime = (*relation, *operator, *micros);
        if let Some(record) = records.get_mut(&(relation, operator, worker)) {
            record.sync_ms += micros as f64 / 1000.0;
        }
    }
    let mut records: Vec<OperatorRecord> = records.into_values().collect();
    records.sort_by_key(|r| {
        let bytes = std::cmp::Reverse(r.bytes + r.in_flight_bytes);
        (bytes, r.relation, r.operator, r.worker)
    });
    records.truncate(OPERATORS_KEPT);
    records
}

//! From what workers sealed to a manifest that exists, off the workers.
//!
//! One task per incarnation takes the sealed barriers one after the other: runs are encoded and uploaded, a manifest is
//! created, sinks make visible what they had prepared, and everybody is told. A failure aborts that checkpoint only; what
//! it would have held is part of the next.

use crate::build;
use crate::command::Install;
use crate::coordinator::Coordinator;
use crate::runtime::Shared;
use crate::spec::RelationSpec;
use crate::status::CheckpointInfo;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_checkpoint::{
    CheckpointError, CheckpointRecord, CheckpointStatus, Commit, TableDescriptor, WorkerRecord,
};
use tidegate_connectors::sink::Token;
use tidegate_plan::Op;
use tidegate_state::{Form, Merge, Run};
use tidegate_types::{Barrier, CheckpointId, OperatorId, RelationId, SqlError, TableId};
use tokio::sync::mpsc;

/// What one worker sealed at a barrier.
pub(crate) struct Sealed {
    pub worker: usize,
    pub runs: Vec<(RelationId, Run)>,
    /// The longest that any of its operators took.
    pub micros: u64,
}

/// A checkpoint whose barrier has passed everywhere.
pub(crate) struct CheckpointWork {
    pub barrier: Barrier,
    pub triggered_at: Instant,
    pub aligned_at: Instant,
    pub sealed: Vec<Sealed>,
    pub tokens: Vec<(RelationId, Token)>,
    pub relations: Vec<Arc<Install>>,
}

/// How the newest checkpoint ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckpointOutcome {
    pub result: Option<Result<CheckpointInfo, SqlError>>,
}

/// Serves until the incarnation is over and its last checkpoint is done.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    coordinator: Arc<Coordinator>,
    mut works: mpsc::UnboundedReceiver<CheckpointWork>,
) {
    while let Some(work) = works.recv().await {
        let tokens = work.tokens.clone();
        let relations = work.relations.clone();
        let mut record = record_of(&work);
        enter("sealed", record.checkpoint);
        let triggered_at = work.triggered_at;
        let result = complete(&shared, work, &mut record).await;
        record.duration_ms = millis(triggered_at.elapsed());
        match &result {
            Ok(_) => {
                coordinator.checkpoint_completed(record.checkpoint, shared.store.reserved_epoch());
                commit_sinks(&relations, tokens).await;
            }
            Err(error) => {
                tracing::warn!(
                    checkpoint = record.checkpoint.0,
                    "checkpoint failed: {error}"
                );
                record.status = CheckpointStatus::Failed;
                record.cause = Some(error.to_string());
                coordinator.checkpoint_aborted(record.checkpoint, tokens);
                if error.is_fatal() {
                    coordinator.lost_storage(error.to_string());
                }
            }
        }
        shared.store.record(record);
        let result = result.map_err(SqlError::from);
        shared.outcomes.send_replace(CheckpointOutcome {
            result: Some(result),
        });
        // Expired checkpoints and merges are the store's own business; the log ends where the oldest of them begins.
        if let Some(oldest) = shared.store.oldest_log_position() {
            shared.log.truncate_to(oldest);
        }
    }
}

fn record_of(work: &CheckpointWork) -> CheckpointRecord {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let since_trigger = work.triggered_at.elapsed();
    CheckpointRecord {
        checkpoint: work
            .barrier
            .checkpoint
            .expect("only a checkpoint's barrier leads here"),
        epoch: work.barrier.epoch,
        status: CheckpointStatus::Completed,
        savepoint: None,
        cause: None,
        triggered_ms: clock.saturating_sub(since_trigger).as_millis() as i64,
        duration_ms: 0.0,
        sync_ms: work.sealed.iter().map(|s| s.micros).max().unwrap_or(0) as f64 / 1000.0,
        async_ms: 0.0,
        alignment_ms: millis(work.aligned_at - work.triggered_at),
        bytes_written: 0,
        bytes_total: 0,
        in_flight_bytes: 0,
        workers: Vec::new(),
    }
}

/// Where a checkpoint is, for whoever reads the log after a crash. From `sealing` (its barrier is on its way) to
/// `committed` a crash loses the checkpoint; after that, only the clean-up and what sinks make visible are left to do.
pub(crate) fn enter(phase: &'static str, checkpoint: CheckpointId) {
    tracing::debug!(%phase, id = checkpoint.0, "checkpoint");
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

async fn complete(
    shared: &Arc<Shared>,
    work: CheckpointWork,
    record: &mut CheckpointRecord,
) -> Result<CheckpointInfo, CheckpointError> {
    let barrier = work.barrier;
    let pending = shared.store.begin(record.checkpoint, barrier.epoch)?;
    let mut uploads = Vec::new();
    enter("uploading", record.checkpoint);
    // A relation that was dropped since a worker sealed it is no part of the checkpoint.
    let listed: HashSet<RelationId> = work.relations.iter().map(|i| i.spec.relation()).collect();
    for sealed in work.sealed {
        let runs = sealed
            .runs
            .into_iter()
            .filter(|(relation, _)| listed.contains(relation));
        let runs: Vec<Run> = runs.map(|(_, run)| run).collect();
        let uploaded = match shared.store.upload(&pending, sealed.worker, runs).await {
            Ok(uploaded) => uploaded,
            Err(error) => {
                shared.store.abort(pending);
                return Err(error);
            }
        };
        record.workers.push(WorkerRecord {
            worker: sealed.worker,
            sync_ms: sealed.micros as f64 / 1000.0,
            encode_ms: millis(uploaded.encoding),
            write_ms: millis(uploaded.writing),
            rows: uploaded.runs.iter().map(|(_, run)| run.rows).sum(),
            bytes: uploaded.bytes,
        });
        uploads.push(uploaded);
    }
    let commit = Commit {
        time_ms: barrier.time_ms,
        log_position: barrier.log_position,
        catalog: Arc::new(shared.catalog.snapshot()),
        tables: work
            .relations
            .iter()
            .flat_map(|i| descriptors(&i.spec))
            .collect(),
        sink_tokens: encode_tokens(&work.tokens),
        uploads,
    };
    enter("committing", record.checkpoint);
    let manifest = shared.store.commit(pending, commit).await?;
    enter("committed", record.checkpoint);
    record.bytes_written = manifest.bytes_written;
    record.bytes_total = manifest.bytes();
    record.async_ms = millis(work.aligned_at.elapsed());
    Ok(CheckpointInfo {
        id: record.checkpoint,
        epoch: barrier.epoch,
        log_position: barrier.log_position,
        bytes_written: manifest.bytes_written,
        duration_ms: work.triggered_at.elapsed().as_millis() as u64,
        sync_micros: (record.sync_ms * 1000.0) as u64,
    })
}

/// Makes visible what sinks had prepared for a manifest that now exists. Doing it again changes nothing, so whatever
/// fails here is done at the next start.
async fn commit_sinks(relations: &[Arc<Install>], tokens: Vec<(RelationId, Token)>) {
    let sinks: BTreeMap<RelationId, _> = relations
        .iter()
        .filter_map(|i| Some((i.spec.relation(), i.spec.sink.clone()?)))
        .collect();
    let committed = tokio::task::spawn_blocking(move || {
        for (relation, token) in tokens {
            if let Some(sink) = sinks.get(&relation)
                && let Err(error) = sink.commit(&token)
            {
                tracing::error!(
                    relation = relation.0,
                    "a sink's output could not be made visible: {error}"
                );
            }
        }
    });
    if committed.await.is_err() {
        tracing::error!("a sink panicked while its output was made visible");
    }
}

fn encode_tokens(tokens: &[(RelationId, Token)]) -> BTreeMap<RelationId, Vec<u8>> {
    let mut by_relation: BTreeMap<RelationId, Vec<&Token>> = BTreeMap::new();
    for (relation, token) in tokens {
        by_relation.entry(*relation).or_default().push(token);
    }
    let encode = |tokens: Vec<&Token>| serde_json::to_vec(&tokens).expect("tokens are text");
    by_relation
        .into_iter()
        .map(|(relation, tokens)| (relation, encode(tokens)))
        .collect()
}

/// The tokens of one sink, as a manifest holds them.
pub(crate) fn decode_tokens(bytes: &[u8]) -> Result<Vec<Token>, SqlError> {
    serde_json::from_slice(bytes).map_err(|e| {
        SqlError::new(
            tidegate_types::SqlState::DATA_CORRUPTED,
            format!("the tokens of a sink in the manifest cannot be read: {e}"),
        )
    })
}

/// All state tables of a relation's dataflow.
pub(crate) fn descriptors(spec: &RelationSpec) -> Vec<TableDescriptor> {
    let relation = spec.relation();
    let describe = |table: TableId, operator: OperatorId, name: &str, form: Form, merge: Merge| {
        TableDescriptor {
            table,
            relation,
            operator,
            name: name.to_owned(),
            form,
            merge,
            schemas: None,
        }
    };
    let mut tables = Vec::new();
    for node in &spec.dataflow.nodes {
        match &node.op {
            Op::Materialize { .. } => {
                tables.push(describe(
                    build::view_table(relation),
                    node.id,
                    "rows",
                    Form::Value,
                    Merge::Sum,
                ));
            }
            Op::Source { .. } | Op::Import { .. } => {
                let table = build::position_table(relation, node);
                tables.push(describe(
                    table,
                    node.id,
                    "position",
                    Form::Value,
                    Merge::Replace,
                ));
            }
            Op::TableInput { .. } | Op::Sink { .. } => {}
            _ => {
                for (index, table) in node.state.iter().enumerate() {
                    let form = if table.map { Form::Map } else { Form::Value };
                    let id = TableId::of(relation, node.id, index);
                    tables.push(describe(id, node.id, table.name, form, Merge::Replace));
                }
                let id = build::error_table(relation, node);
                tables.push(describe(id, node.id, "errors", Form::Value, Merge::Replace));
            }
        }
    }
    crate::schemas::describe(&spec.dataflow, &mut tables);
    tables
}

/// A number that no checkpoint of this storage has had.
pub(crate) fn next_checkpoint(shared: &Shared) -> CheckpointId {
    shared.store.next_checkpoint()
}

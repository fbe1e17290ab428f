//! From what workers sealed to a manifest that exists, off the workers.
//!
//! One task per incarnation takes the sealed barriers: their runs are encoded and uploaded side by side; then, one after the
//! other, a manifest is created, sinks make visible what they had prepared, and everybody is told. A failure, or the end
//! of `checkpoint_timeout`, aborts that checkpoint and those behind it, which build upon it; what they would have held is
//! part of the next. A manifest that is being created is not given up any more: it may exist.

use crate::board::SealTime;
use crate::build;
use crate::checkpoint_parts as parts;
use crate::command::Install;
use crate::coordinator::Coordinator;
use crate::in_flight;
use crate::policy::CheckpointPolicy;
use crate::runtime::Shared;
use crate::schedule::shown;
use crate::spec::RelationSpec;
use crate::status::CheckpointInfo;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_checkpoint::{
    CheckpointError, CheckpointRecord, CheckpointStatus, Commit, IN_FLIGHT, PendingCheckpoint,
    TableDescriptor, UploadedRuns,
};
use tidegate_connectors::sink::Token;
use tidegate_plan::{Dataflow, Op};
use tidegate_state::{Form, Merge, Run};
use tidegate_types::{Barrier, CheckpointId, OperatorId, RelationId, SqlError, SqlState, TableId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What one worker sealed at a barrier.
pub(crate) struct Sealed {
    pub worker: usize,
    pub runs: Vec<(RelationId, Run)>,
    /// How long its operators took together.
    pub micros: u64,
    /// How long each took that had something to seal.
    pub times: Vec<SealTime>,
}

/// A token that a sink prepared, and for which checkpoint.
pub(crate) type Prepared = (CheckpointId, RelationId, Token);

/// A checkpoint whose barrier has passed everywhere, or that was given up before.
pub(crate) struct CheckpointWork {
    pub barrier: Barrier,
    pub policy: Arc<CheckpointPolicy>,
    pub triggered_at: Instant,
    pub aligned_at: Instant,
    pub sealed: Vec<Sealed>,
    pub tokens: Vec<Prepared>,
    pub relations: Vec<Arc<Install>>,
    /// The barrier has overtaken rows.
    pub overtaken: bool,
    /// Why there is nothing to do but to say so.
    pub given_up: Option<String>,
}

impl CheckpointWork {
    pub fn new(barrier: &Barrier, triggered_at: Instant, policy: Arc<CheckpointPolicy>) -> Self {
        Self {
            barrier: barrier.clone(),
            policy,
            triggered_at,
            aligned_at: Instant::now(),
            sealed: Vec::new(),
            tokens: Vec::new(),
            relations: Vec::new(),
            overtaken: false,
            given_up: None,
        }
    }

    fn checkpoint(&self) -> CheckpointId {
        let checkpoint = self.barrier.checkpoint;
        checkpoint.expect("only a checkpoint's barrier leads here")
    }
}

/// How the newest checkpoint ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckpointOutcome {
    pub result: Option<Result<CheckpointInfo, SqlError>>,
}

/// Why a checkpoint will not be.
enum Ended {
    Failed(CheckpointError),
    Aborted(String),
}

impl Ended {
    fn timed_out(policy: &CheckpointPolicy) -> Self {
        let timeout = shown(policy.timeout);
        Self::Aborted(format!(
            "it was not durable within checkpoint_timeout, {timeout}"
        ))
    }

    fn cause(&self) -> String {
        match self {
            Self::Failed(error) => error.to_string(),
            Self::Aborted(cause) => cause.clone(),
        }
    }

    fn into_error(self) -> SqlError {
        match self {
            Self::Failed(error) => error.into(),
            Self::Aborted(cause) => aborted_error(&cause),
        }
    }
}

fn aborted_error(cause: &str) -> SqlError {
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the checkpoint was aborted: {cause}"),
    )
}

/// A checkpoint whose runs are being uploaded.
struct Running {
    work: CheckpointWork,
    record: CheckpointRecord,
    deadline: tokio::time::Instant,
    pending: Option<PendingCheckpoint>,
    upload: JoinHandle<Result<Vec<UploadedRuns>, CheckpointError>>,
    uploaded: Option<Result<Vec<UploadedRuns>, Ended>>,
}

impl Running {
    fn begin(shared: &Arc<Shared>, mut work: CheckpointWork) -> Self {
        let record = record_of(&work);
        enter("sealed", record.checkpoint);
        let begun = shared.store.begin(record.checkpoint, work.barrier.epoch);
        let pending = begun.as_ref().ok().copied();
        // A relation that was dropped since a worker sealed it is no part of the checkpoint.
        let listed: HashSet<RelationId> =
            work.relations.iter().map(|i| i.spec.relation()).collect();
        for sealed in &mut work.sealed {
            sealed
                .runs
                .retain(|(relation, _)| listed.contains(relation));
        }
        let runs: Vec<(usize, Vec<Run>)> = work
            .sealed
            .iter()
            .map(|s| {
                (
                    s.worker,
                    s.runs.iter().map(|(_, run)| run.clone()).collect(),
                )
            })
            .collect();
        enter("uploading", record.checkpoint);
        let store = shared.store.clone();
        let upload = tokio::spawn(async move {
            let pending = begun?;
            let mut uploads = Vec::new();
            for (worker, runs) in runs {
                uploads.push(store.upload(&pending, worker, runs).await?);
            }
            Ok(uploads)
        });
        let timeout = work.policy.timeout;
        let deadline = work.triggered_at + timeout;
        Self {
            record,
            deadline: deadline.into(),
            pending,
            upload,
            uploaded: None,
            work,
        }
    }

    /// Waits for the end of the upload; may be called again.
    async fn uploaded(&mut self) {
        if self.uploaded.is_some() {
            return;
        }
        let joined = tokio::time::timeout_at(self.deadline, &mut self.upload).await;
        self.uploaded = Some(match joined {
            Ok(Ok(result)) => result.map_err(Ended::Failed),
            Ok(Err(error)) => Err(Ended::Aborted(format!("writing it was cut short: {error}"))),
            Err(_) => Err(Ended::timed_out(&self.work.policy)),
        });
    }

    /// Stops writing it and tells.
    fn end(mut self, shared: &Shared, ended: Ended) {
        self.upload.abort();
        if let Some(pending) = self.pending {
            shared.store.abort(pending);
        }
        let cause = ended.cause();
        tracing::warn!(
            checkpoint = self.record.checkpoint.0,
            "checkpoint failed: {cause}"
        );
        self.record.status = match ended {
            Ended::Failed(_) => CheckpointStatus::Failed,
            Ended::Aborted(_) => CheckpointStatus::Aborted,
        };
        self.record.cause = Some(cause);
        tell(
            shared,
            self.work.triggered_at,
            self.record,
            Err(ended.into_error()),
        );
    }
}

/// Serves until the incarnation is over and its last checkpoint is done.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    coordinator: Arc<Coordinator>,
    mut works: mpsc::UnboundedReceiver<CheckpointWork>,
) {
    let mut running: VecDeque<Running> = VecDeque::new();
    let mut is_open = true;
    while is_open || !running.is_empty() {
        tokio::select! {
            biased;
            work = works.recv(), if is_open => match work {
                None => is_open = false,
                Some(work) => match &work.given_up {
                    None => running.push_back(Running::begin(&shared, work)),
                    Some(cause) => {
                        let mut record = record_of(&work);
                        record.status = CheckpointStatus::Aborted;
                        record.cause = Some(cause.clone());
                        let error = aborted_error(cause);
                        tell(&shared, work.triggered_at, record, Err(error));
                    }
                },
            },
            () = uploaded(running.front_mut()) => {
                let next = running.pop_front().expect("the front has been uploaded");
                finish(&shared, &coordinator, next, &mut running).await;
            }
        }
    }
}

async fn uploaded(front: Option<&mut Running>) {
    match front {
        Some(front) => front.uploaded().await,
        None => std::future::pending().await,
    }
}

/// Commits a checkpoint, or ends it and those behind it.
async fn finish(
    shared: &Arc<Shared>,
    coordinator: &Arc<Coordinator>,
    mut next: Running,
    behind: &mut VecDeque<Running>,
) {
    let checkpoint = next.record.checkpoint;
    let uploaded = next.uploaded.take().expect("it was waited for");
    let result = match uploaded {
        Ok(uploads) => commit(shared, &mut next, uploads).await,
        Err(ended) => Err(ended),
    };
    let error = match result {
        Ok(info) => {
            coordinator.checkpoint_completed(checkpoint, shared.store.reserved_epoch());
            commit_sinks(&next.work.relations, std::mem::take(&mut next.work.tokens)).await;
            tell(shared, next.work.triggered_at, next.record, Ok(info));
            // Expired checkpoints and merges are the store's own business; the log ends where the oldest of them begins.
            if let Some(oldest) = shared.store.oldest_log_position() {
                shared.log.truncate_to(oldest);
            }
            return;
        }
        Err(error) => error,
    };
    let mut tokens = std::mem::take(&mut next.work.tokens);
    for running in behind.iter_mut() {
        tokens.append(&mut running.work.tokens);
    }
    let is_fatal = matches!(&error, Ended::Failed(error) if error.is_fatal());
    let cause = error.cause();
    coordinator.checkpoint_aborted(checkpoint, tokens, &cause);
    next.end(shared, error);
    for running in behind.drain(..) {
        let cause = format!("it builds upon checkpoint {checkpoint}, which failed");
        running.end(shared, Ended::Aborted(cause));
    }
    if is_fatal {
        shared.give_up("checkpoint storage is lost", &cause);
        coordinator.stop();
    }
}

/// Keeps what became of a checkpoint, and tells whoever waits.
fn tell(
    shared: &Shared,
    triggered_at: Instant,
    mut record: CheckpointRecord,
    result: Result<CheckpointInfo, SqlError>,
) {
    record.duration_ms = millis(triggered_at.elapsed());
    shared.store.record(record);
    shared.outcomes.send_replace(CheckpointOutcome {
        result: Some(result),
    });
}

fn record_of(work: &CheckpointWork) -> CheckpointRecord {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let since_trigger = work.triggered_at.elapsed();
    CheckpointRecord {
        checkpoint: work.checkpoint(),
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
        mode: work.policy.mode.name().to_owned(),
        execution: work.policy.execution.name().to_owned(),
        alignment: if work.overtaken {
            "unaligned"
        } else {
            "aligned"
        }
        .to_owned(),
        guarantee: work.policy.guarantee.name().to_owned(),
        workers: Vec::new(),
        operators: Vec::new(),
    }
}

/// Where a checkpoint is, for whoever reads the log after a crash. From `sealing` (its barrier is on its way) to
/// `committed` a crash loses the checkpoint; after that, only the clean-up and what sinks make visible are left to do.
pub(crate) fn enter(phase: &'static str, checkpoint: CheckpointId) {
    tracing::debug!(%phase, id = checkpoint.0, "checkpoint");
}

/// With three digits, which come back the same from where the history is kept.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

async fn commit(
    shared: &Arc<Shared>,
    running: &mut Running,
    mut uploads: Vec<UploadedRuns>,
) -> Result<CheckpointInfo, Ended> {
    let Running {
        work,
        record,
        deadline,
        pending,
        ..
    } = running;
    let barrier = work.barrier.clone();
    let pending = pending.expect("what was uploaded was begun");
    record.workers = parts::of_workers(&work.sealed, &uploads);
    let in_flight = in_flight_descriptors(work, record.checkpoint);
    let in_flight_runs = uploads.iter().flat_map(|u| &u.runs);
    record.in_flight_bytes = in_flight_runs
        .filter(|(table, _)| in_flight.contains_key(table))
        .map(|(_, run)| run.bytes)
        .sum();
    let listed = work.relations.iter().flat_map(|i| descriptors(&i.spec));
    let tables: Vec<TableDescriptor> = listed.chain(in_flight.into_values()).collect();
    record.operators = parts::of_operators(&work.sealed, &uploads, &tables);
    let new = |i: &&Arc<Install>| !i.is_checkpointed.load(Ordering::Relaxed);
    let replaced: BTreeSet<RelationId> = work
        .relations
        .iter()
        .filter(new)
        .map(|i| i.spec.relation())
        .collect();
    let full: Vec<TableDescriptor> = work
        .relations
        .iter()
        .filter(|i| i.spec.choices.is_full(&work.policy))
        .flat_map(|i| descriptors(&i.spec))
        .collect();
    let rewrite = shared
        .store
        .rewrite(&pending, &full, &replaced, &mut uploads);
    let rewritten = match tokio::time::timeout_at(*deadline, rewrite).await {
        Ok(rewritten) => rewritten.map_err(Ended::Failed)?,
        Err(_) => return Err(Ended::timed_out(&work.policy)),
    };
    if tokio::time::Instant::now() >= *deadline {
        return Err(Ended::timed_out(&work.policy));
    }
    let running: Vec<&Dataflow> = work.relations.iter().map(|i| &i.spec.dataflow).collect();
    let commit = Commit {
        time_ms: barrier.time_ms,
        log_position: barrier.log_position,
        catalog: Arc::new(shared.catalog.snapshot(&running)),
        tables,
        sink_tokens: encode_tokens(&work.tokens),
        uploads,
        replaced,
        rewritten,
    };
    enter("committing", record.checkpoint);
    let committed = shared.store.commit(pending, commit).await;
    let manifest = committed.map_err(Ended::Failed)?;
    enter("committed", record.checkpoint);
    for install in &work.relations {
        install.is_checkpointed.store(true, Ordering::Relaxed);
    }
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
        aligned: !work.overtaken,
    })
}

/// Makes visible what sinks had prepared for a manifest that now exists. Doing it again changes nothing, so whatever
/// fails here is done at the next start.
async fn commit_sinks(relations: &[Arc<Install>], tokens: Vec<Prepared>) {
    let sinks: BTreeMap<RelationId, _> = relations
        .iter()
        .filter_map(|i| Some((i.spec.relation(), i.spec.sink.clone()?)))
        .collect();
    let committed = tokio::task::spawn_blocking(move || {
        for (_, relation, token) in tokens {
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

fn encode_tokens(tokens: &[Prepared]) -> BTreeMap<RelationId, Vec<u8>> {
    let mut by_relation: BTreeMap<RelationId, Vec<&Token>> = BTreeMap::new();
    for (_, relation, token) in tokens {
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

/// The tables with rows that the barrier has overtaken. They are listed by this checkpoint alone.
fn in_flight_descriptors(
    work: &CheckpointWork,
    checkpoint: CheckpointId,
) -> HashMap<TableId, TableDescriptor> {
    if !work.overtaken {
        return HashMap::new();
    }
    let sealed = work.sealed.iter().flat_map(|s| &s.runs);
    let stored: HashSet<TableId> = sealed.map(|(_, run)| run.table).collect();
    let specs = work.relations.iter().map(|i| &i.spec);
    specs
        .flat_map(|spec| in_flight_tables(spec, checkpoint))
        .filter(|t| stored.contains(&t.table))
        .map(|t| (t.table, t))
        .collect()
}

/// Where a checkpoint that overtook rows keeps those of a relation.
pub(crate) fn in_flight_tables(
    spec: &RelationSpec,
    checkpoint: CheckpointId,
) -> Vec<TableDescriptor> {
    let relation = spec.relation();
    let nodes = spec.dataflow.nodes.iter().filter(|n| !n.inputs.is_empty());
    nodes
        .map(|node| TableDescriptor {
            table: in_flight::table(relation, node.id, checkpoint),
            relation,
            operator: node.id,
            name: IN_FLIGHT.to_owned(),
            form: Form::Value,
            merge: Merge::Replace,
            schemas: None,
        })
        .collect()
}

/// All state tables of a relation.
pub(crate) fn descriptors(spec: &RelationSpec) -> Vec<TableDescriptor> {
    descriptors_of(&spec.dataflow)
}

/// All state tables of a dataflow, in the order of its nodes.
pub(crate) fn descriptors_of(dataflow: &Dataflow) -> Vec<TableDescriptor> {
    let relation = dataflow.relation;
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
    for node in &dataflow.nodes {
        match &node.op {
            Op::Materialize { .. } => {
                tables.push(describe(
                    build::view_table(dataflow),
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
                if build::is_reader(relation, node) {
                    let id = build::error_table(relation, node);
                    tables.push(describe(id, node.id, "errors", Form::Value, Merge::Replace));
                }
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
    for node in dataflow.nodes.iter().filter(|n| build::has_event_time(n)) {
        let id = build::event_time_table(relation, node);
        tables.push(describe(
            id,
            node.id,
            "event time",
            Form::Value,
            Merge::Replace,
        ));
    }
    crate::schemas::describe(dataflow, &mut tables);
    tables
}

/// A number that no checkpoint of this storage has had.
pub(crate) fn next_checkpoint(shared: &Shared) -> CheckpointId {
    shared.store.next_checkpoint()
}

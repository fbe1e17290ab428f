//! One life of the workers, from a manifest to a failure or the end.
//!
//! When a worker fails, all of them are stopped, their dataflows are dropped, and a new incarnation is built from the
//! newest checkpoint and the log, in the same process. Sessions wait; nobody is disconnected. When and how often is what
//! the [restart strategy](crate::restart) says; a view that it gives no further attempt is suspended and the others go on.

use crate::alteration;
use crate::checkpointing::{self, CheckpointWork, decode_tokens};
use crate::command::{Followed, Inbox, Install, RestoredState};
use crate::coordinator::{Beginning, Coordinator};
use crate::credits::Credits;
use crate::driver::WorkerFailure;
use crate::lag;
use crate::memory;
use crate::recovery::Watch;
use crate::rescale::{Order, Rescale, start_rescaled, stop_ordered};
use crate::restart::{Restarts, Verdict};
use crate::restore::restore;
use crate::runtime::Shared;
use crate::spec::RelationSpec;
use crate::suspension::take_out;
use crate::worker::{self, WorkerShared};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidegate_checkpoint::Manifest;
use tidegate_connectors::{Sink, Token};
use tidegate_plan::{Node, Op};
use tidegate_types::{CheckpointId, Epoch, LogPosition, SqlError, SqlState};
use timely::communication::WorkerGuards;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Why an incarnation is over.
enum End {
    Stopped,
    Failed(WorkerFailure),
    /// With this checkpoint, so that another number of workers may go on.
    Concluded(CheckpointId, Rescale),
}

/// Tells workers to stop when an incarnation is dropped, since dropping it waits for their threads.
struct StopOnDrop(Arc<Coordinator>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

pub(crate) struct Incarnation {
    coordinator: Arc<Coordinator>,
    /// Before the workers: fields are dropped in order.
    _stop: StopOnDrop,
    workers: WorkerGuards<()>,
    checkpointing: JoinHandle<()>,
    failures: mpsc::UnboundedReceiver<WorkerFailure>,
    /// A failure that came before the first barrier had passed.
    pub early_failure: Option<WorkerFailure>,
    /// Readers were let in.
    is_open: bool,
    /// What is to take over from older plans, of which the checkpoint holds the state.
    successors: Vec<RelationSpec>,
}

impl Install {
    /// In the place of this one, from this epoch on, with what its workers hand over.
    pub fn in_its_place(&self, spec: RelationSpec, start: Epoch) -> Self {
        Self {
            is_checkpointed: self.is_checkpointed.clone(),
            is_superseded: self.is_superseded,
            ..Self::restored(
                spec,
                start,
                self.restored.iter().map(|_| RestoredState::new()).collect(),
                false,
                true,
            )
        }
    }

    /// A relation that begins with nothing.
    pub fn fresh(spec: RelationSpec, start: Epoch, workers: usize) -> Self {
        let restored = (0..workers).map(|_| RestoredState::new()).collect();
        Self::restored(spec, start, restored, false, false)
    }

    /// A relation that begins with saved state.
    pub fn seeded(spec: RelationSpec, start: Epoch, states: Vec<RestoredState>) -> Self {
        Self {
            is_seeded: true,
            ..Self::restored(spec, start, states, false, false)
        }
    }

    pub fn restored(
        spec: RelationSpec,
        start: Epoch,
        restored: Vec<RestoredState>,
        is_restored: bool,
        is_awaited: bool,
    ) -> Self {
        let workers = restored.len();
        Self {
            spec,
            start,
            restored: restored.into_iter().map(Mutex::new).collect(),
            is_restored,
            is_seeded: false,
            is_awaited,
            is_settled: AtomicBool::new(false),
            is_checkpointed: Arc::new(AtomicBool::new(is_restored)),
            status: Arc::default(),
            followers: Followed::default(),
            is_superseded: false,
            arriving: None,
            takes_over: None,
            stores: Mutex::new(vec![None; workers]),
        }
    }
}

impl Incarnation {
    /// Goes on from the newest checkpoint. `concluded`: as for [`Incarnation::start`].
    pub async fn resume(
        shared: &Arc<Shared>,
        relations: Vec<RelationSpec>,
        concluded: Option<CheckpointId>,
    ) -> Result<Self, SqlError> {
        Self::start(shared, origin(shared)?, relations, concluded).await
    }

    /// Restores, starts workers, builds all relations and replays the log. `concluded`: the checkpoint that holds
    /// everything that anybody has been shown; whoever follows a view may follow on, if this is what is restored.
    pub async fn start(
        shared: &Arc<Shared>,
        manifest: Option<Arc<Manifest>>,
        relations: Vec<RelationSpec>,
        concluded: Option<CheckpointId>,
    ) -> Result<Self, SqlError> {
        let (config, workers) = (&shared.config, shared.workers());
        let mut watch = Watch::start(manifest.as_deref(), workers);
        recover_sinks(manifest.as_deref(), &relations).await?;
        let previous = *shared.published.borrow();
        let beginning = Beginning {
            epoch: shared
                .store
                .start_epoch()
                .max(previous.epoch.next())
                .max(Epoch(shared.last_epoch() + 1)),
            // What was shown to somebody counts too, though its epoch may be lost.
            time_ms: manifest
                .as_ref()
                .map_or(0, |m| m.time_ms)
                .max(previous.time_ms),
            log_position: manifest
                .as_ref()
                .map_or(LogPosition::default(), |m| m.log_position),
            checkpoint: checkpointing::next_checkpoint(shared),
        };
        shared
            .store
            .reserve_epochs(beginning.epoch)
            .await
            .map_err(SqlError::from)?;
        let (relations, successors) = as_saved(shared, manifest.as_deref(), relations)?;
        let mut restored = restore(
            shared,
            manifest.as_ref(),
            needed(relations),
            beginning.epoch,
        )
        .await?;
        let is_unbroken = concluded.is_some() && concluded == manifest.map(|m| m.checkpoint);
        if is_unbroken {
            for install in &mut restored {
                install.followers = Followed {
                    by: shared.followers.of(install.spec.relation()),
                    incarnation: previous.incarnation + 1,
                    up_to: previous.epoch,
                };
            }
        } else {
            shared.followers.forget_all();
        }
        shared.errors.forget_workers_from(workers);
        tidegate_state::remove_working_state(&config.working_directory, workers);
        for install in &mut restored {
            let relation = install.spec.relation();
            install.is_superseded = successors.iter().any(|s| s.relation() == relation);
        }
        let (work_sender, works) = mpsc::unbounded_channel::<CheckpointWork>();
        let (failure_sender, failures) = mpsc::unbounded_channel();
        let inboxes: Vec<Arc<Inbox>> = (0..workers).map(|_| Arc::default()).collect();
        let coordinator = Arc::new(Coordinator::new(
            config.pace(shared.policy.clone()),
            inboxes.clone(),
            &beginning,
            shared.published.clone(),
            shared.store.clone(),
            work_sender,
            failure_sender,
        ));
        // Before the first barrier can pass, or what it publishes would be taken back.
        shared.published.send_modify(|p| {
            p.epoch = Epoch(beginning.epoch.0 - 1);
            p.log_position = beginning.log_position;
            p.incarnation += 1;
            p.nothing_yet = true;
            if !is_unbroken {
                p.unbroken = p.incarnation;
            }
        });
        let workers = start_workers(shared, &coordinator, inboxes)?;
        let checkpointing = tokio::spawn(checkpointing::serve(
            shared.clone(),
            coordinator.clone(),
            works,
        ));
        tokio::spawn(coordinator.clone().keep_time());
        if let Some(limit) = config.max_barrier_lag {
            let watched = Arc::downgrade(&coordinator);
            tokio::spawn(lag::watch(Arc::downgrade(shared), watched, limit));
        }
        let installed = coordinator.install(|_| restored.into_iter().map(Arc::new).collect());
        if let Err(failure) = installed {
            return Err(SqlError::internal(failure.message));
        }
        let mut incarnation = Self {
            _stop: StopOnDrop(coordinator.clone()),
            coordinator,
            workers,
            checkpointing,
            failures,
            early_failure: None,
            is_open: false,
            successors,
        };
        watch.log_rows = incarnation.replay(shared, beginning.log_position)?;
        incarnation
            .first_barrier(shared, beginning.epoch, &watch)
            .await;
        incarnation.let_successors_in(shared);
        Ok(incarnation)
    }

    /// Appends what the log holds behind the checkpoint, and takes over from the incarnation before. Appends of others
    /// wait meanwhile: what they bring is either in the log already or comes after. Answers how many rows it was.
    fn replay(&self, shared: &Arc<Shared>, after: LogPosition) -> Result<u64, SqlError> {
        let mut current = shared.current.lock();
        let mut entry: Option<(LogPosition, Vec<_>)> = None;
        let mut rows = 0;
        let last = shared.log.replay(after, &mut |position, relation, batch| {
            rows += batch.num_rows();
            match &mut entry {
                Some((at, changes)) if *at == position => changes.push((relation, batch)),
                _ => {
                    if let Some((at, changes)) = entry.replace((position, vec![(relation, batch)]))
                    {
                        self.coordinator.append(at, changes);
                    }
                }
            }
            Ok(())
        })?;
        if let Some((at, changes)) = entry {
            self.coordinator.append(at, changes);
        }
        tracing::info!(
            from = after.0,
            to = last.0,
            rows,
            "replayed the command log"
        );
        // Entries without row changes count too: readers wait for the position of the last one.
        self.coordinator.append(last, Vec::new());
        shared.seen_position.fetch_max(last.0, Ordering::SeqCst);
        *current = Some(self.coordinator.clone());
        Ok(rows as u64)
    }

    /// Goes on with alterations that the checkpoint does not hold yet.
    fn let_successors_in(&mut self, shared: &Arc<Shared>) {
        for successor in std::mem::take(&mut self.successors) {
            let (shared, coordinator) = (Arc::downgrade(shared), Arc::downgrade(&self.coordinator));
            tokio::spawn(alteration::finish(shared, coordinator, successor));
        }
    }

    /// Readers are let in once everything has passed a barrier: before that no view of this incarnation can be read. A
    /// failure on the way is left to the supervisor.
    async fn first_barrier(&mut self, shared: &Shared, first: Epoch, watch: &Watch) {
        let mut published = shared.published.subscribe();
        // The value that is waited for is locked while it is looked at, so nothing of it is kept.
        let passed = async { published.wait_for(|p| p.epoch >= first).await.is_ok() };
        tokio::select! {
            passed = passed => {
                if passed {
                    self.is_open = true;
                    self.coordinator.open_for_readers();
                    if let Some(built_at) = self.coordinator.all_built_at() {
                        watch.finish(shared, built_at);
                    }
                }
            }
            failure = self.failures.recv() => self.early_failure = failure,
        }
    }

    /// Waits for the end or a failure, and after a failure goes on with the next incarnation.
    pub async fn supervise(self, shared: Arc<Shared>, mut orders: mpsc::Receiver<Order>) {
        let mut incarnation = self;
        let mut restarts = Restarts::new(shared.config.restart_strategy);
        loop {
            let end = incarnation.ended(&mut orders).await;
            let relations = incarnation.coordinator.all_installed();
            if incarnation.is_open {
                *shared.building.lock() = incarnation.coordinator.building();
            }
            incarnation.end().await;
            let mut relations: Vec<_> = relations.iter().map(|i| shared.newest_plan(i)).collect();
            for spec in shared.behind.take_all() {
                shared.suspensions.remove(spec.relation());
                relations.push(spec);
            }
            let failure = match end {
                End::Stopped => return,
                End::Failed(failure) => failure,
                End::Concluded(checkpoint, rescale) => {
                    match start_rescaled(&shared, &relations, checkpoint, rescale).await {
                        Ok(next) => {
                            incarnation = next;
                            continue;
                        }
                        Err(error) => WorkerFailure {
                            relation: None,
                            message: error.to_string(),
                        },
                    }
                }
            };
            shared.restarts.fetch_add(1, Ordering::Relaxed);
            let relations = without_failed_creation(&shared, &failure, relations);
            let Some((relations, delay)) = judge(&shared, &mut restarts, &failure, relations)
            else {
                return;
            };
            match restart(&shared, relations, delay, &mut restarts, &mut orders).await {
                Some(next) => incarnation = next,
                None => return,
            }
        }
    }

    /// Waits until it is over, or has to be.
    async fn ended(&mut self, orders: &mut mpsc::Receiver<Order>) -> End {
        if let Some(failure) = self.early_failure.take() {
            return End::Failed(failure);
        }
        loop {
            let rescale = tokio::select! {
                order = orders.recv() => match order {
                    None | Some(Order::Stop) => return End::Stopped,
                    Some(Order::Rescale(rescale)) => rescale,
                },
                failure = self.failures.recv() => match failure {
                    Some(failure) => return End::Failed(failure),
                    None => return End::Stopped,
                },
            };
            match self.coordinator.conclude().await {
                Ok(Ok(checkpoint)) => return End::Concluded(checkpoint, rescale),
                Ok(Err(cause)) => rescale.refuse(&format!("Its checkpoint was aborted: {cause}")),
                Err(_) => rescale.refuse("The workers have failed or were stopped meanwhile."),
            }
        }
    }

    /// Stops the workers and waits for them and for the checkpoint under way.
    pub async fn end(self) {
        self.coordinator.stop();
        let workers = self.workers;
        let joined = tokio::task::spawn_blocking(move || drop(workers));
        if joined.await.is_err() {
            tracing::error!("a worker thread panicked while it was stopping");
        }
        // Workers held the last handles through which a checkpoint could still be sent.
        self.coordinator.close();
        if self.checkpointing.await.is_err() {
            tracing::error!("the checkpoint task panicked");
        }
    }
}

const NO_FURTHER_ATTEMPT: &str = "the restart strategy gives no further attempt";

/// Relations with the plans of which the manifest holds the state, and those that are to take over from them.
fn as_saved(
    shared: &Shared,
    manifest: Option<&Manifest>,
    mut relations: Vec<RelationSpec>,
) -> Result<(Vec<RelationSpec>, Vec<RelationSpec>), SqlError> {
    // What was decided since these were listed.
    for spec in &mut relations {
        if let Some(successor) = shared.successors.lock().get(&spec.relation()) {
            *spec = successor.clone();
        }
    }
    let Some(manifest) = manifest else {
        for spec in &relations {
            shared.successors.lock().remove(&spec.relation());
        }
        return Ok((relations, Vec::new()));
    };
    let mut successors = Vec::new();
    let saved = shared.catalog.saved(&manifest.catalog, &relations)?;
    for (spec, saved) in relations.iter_mut().zip(saved) {
        if let Some(saved) = saved {
            let successor = std::mem::replace(spec, saved);
            tracing::warn!(
                relation = successor.relation().0,
                view = successor.dataflow.name,
                "the checkpoint is from before the view was altered; it is altered again"
            );
            successors.push(successor);
        } else {
            shared.successors.lock().remove(&spec.relation());
        }
    }
    Ok((relations, successors))
}

/// A failure of a relation whose creation nobody has been told of takes that relation away.
fn without_failed_creation(
    shared: &Shared,
    failure: &WorkerFailure,
    mut relations: Vec<RelationSpec>,
) -> Vec<RelationSpec> {
    if let Some(relation) = failure.relation
        && let Some(outcome) = shared.creating.lock().get_mut(&relation)
    {
        *outcome = Some(failure.message.clone());
        relations.retain(|spec| spec.relation() != relation);
    }
    relations
}

/// What to start again with and when; `None`: never again.
fn judge(
    shared: &Shared,
    restarts: &mut Restarts,
    failure: &WorkerFailure,
    relations: Vec<RelationSpec>,
) -> Option<(Vec<RelationSpec>, Duration)> {
    // A table is fed from the log and has no code of its own that could be left out.
    let can_be_left_out = |spec: &&RelationSpec| {
        let is_table = |node: &Node| matches!(node.op, Op::TableInput { .. });
        Some(spec.relation()) == failure.relation && !spec.dataflow.nodes.iter().any(is_table)
    };
    let culprit = relations.iter().find(can_be_left_out).map(|s| s.relation());
    match (restarts.failed(culprit, Instant::now()), culprit) {
        (Verdict::RestartAfter(delay), _) => Some((relations, delay)),
        (Verdict::GiveUp, Some(culprit)) => {
            restarts.forgive(culprit);
            let (suspensions, left) = take_out(culprit, &failure.message, relations);
            shared.suspensions.impose(suspensions);
            Some((left, Duration::ZERO))
        }
        (Verdict::GiveUp, None) => {
            shared.give_up(NO_FURTHER_ATTEMPT, &failure.message);
            None
        }
    }
}

async fn restart(
    shared: &Arc<Shared>,
    relations: Vec<RelationSpec>,
    mut delay: Duration,
    restarts: &mut Restarts,
    orders: &mut mpsc::Receiver<Order>,
) -> Option<Incarnation> {
    loop {
        tokio::select! {
            () = stop_ordered(orders) => return None,
            () = tokio::time::sleep(delay) => {}
        }
        let error = match Incarnation::resume(shared, relations.clone(), None).await {
            Ok(incarnation) => {
                tracing::info!("workers restarted from the newest checkpoint");
                return Some(incarnation);
            }
            Err(error) => error,
        };
        tracing::error!("workers could not be restarted: {error}");
        match restarts.failed(None, Instant::now()) {
            Verdict::RestartAfter(next) => delay = next,
            Verdict::GiveUp => {
                shared.give_up(NO_FURTHER_ATTEMPT, &error.to_string());
                return None;
            }
        }
    }
}

/// What to restore after a failure: the newest checkpoint of this timeline. After a return to a savepoint that is the
/// savepoint, until there is a checkpoint of what came after it: those from before end before the timeline begins.
fn origin(shared: &Shared) -> Result<Option<Arc<Manifest>>, SqlError> {
    let newest = shared.store.newest()?.manifest;
    let Some(began) = shared.began.as_ref().filter(|m| m.savepoint.is_some()) else {
        return Ok(newest);
    };
    let is_ours = |m: &Arc<Manifest>| m.log_position >= began.log_position;
    if newest.as_ref().is_some_and(is_ours) {
        return Ok(newest);
    }
    shared.store.rebase(began);
    Ok(Some(began.clone()))
}

/// Readers of sources only where somebody reads them, in front of whoever does.
fn needed(relations: Vec<RelationSpec>) -> Vec<RelationSpec> {
    let mut ordered: Vec<RelationSpec> = Vec::new();
    let mut known = HashSet::new();
    for spec in relations.into_iter().filter(|s| !s.is_reader()) {
        for reader in &spec.readers {
            if known.insert(reader.relation()) {
                ordered.push(reader.clone());
            }
        }
        if known.insert(spec.relation()) {
            ordered.push(spec);
        }
    }
    ordered
}

fn start_workers(
    shared: &Arc<Shared>,
    coordinator: &Arc<Coordinator>,
    inboxes: Vec<Arc<Inbox>>,
) -> Result<WorkerGuards<()>, SqlError> {
    let config = &shared.config;
    let workers = inboxes.len();
    let worker_shared = Arc::new(WorkerShared {
        inboxes,
        coordinator: coordinator.clone(),
        working_directory: config.working_directory.clone(),
        memory_per_worker: config.memory_limit_bytes / workers,
        memory: shared.memory.clone(),
        credits: Arc::new(Credits::new(
            memory::limit_rows(config.rows_in_flight, config.memory_limit_bytes),
            shared.memory.clone(),
        )),
        errors: shared.errors.clone(),
        pin: config.pin,
    });
    timely::execute(timely::Config::process(workers), move |w| {
        worker::run(w, &worker_shared)
    })
    .map_err(SqlError::internal)
}

/// Sinks make visible what the manifest says was committed, and remove what was not.
async fn recover_sinks(
    manifest: Option<&Manifest>,
    relations: &[RelationSpec],
) -> Result<(), SqlError> {
    let mut work = Vec::new();
    for spec in relations {
        if let Some(sink) = &spec.sink {
            let bytes = manifest.and_then(|m| m.sink_tokens.get(&spec.relation()));
            let tokens = bytes
                .map(|b| decode_tokens(b))
                .transpose()?
                .unwrap_or_default();
            work.push((sink.clone(), tokens));
        }
    }
    prepare_sinks(work).await
}

/// What a sink does before its first row: also one that is new, with nothing committed.
pub(crate) async fn prepare_sinks(work: Vec<(Arc<dyn Sink>, Vec<Token>)>) -> Result<(), SqlError> {
    let recovered = tokio::task::spawn_blocking(move || {
        work.iter()
            .try_for_each(|(sink, tokens)| sink.recover(tokens).map_err(SqlError::from))
    });
    recovered.await.unwrap_or_else(|_| {
        Err(SqlError::new(
            SqlState::INTERNAL_ERROR,
            "a sink panicked in recovery",
        ))
    })
}

//! One life of the workers, from a manifest to a failure or the end.
//!
//! When a worker fails, all of them are stopped, their dataflows are dropped, and a new incarnation is built from the
//! newest checkpoint and the log, in the same process. Sessions wait; nobody is disconnected. Restarts that come in quick
//! succession wait longer and longer.

use crate::build;
use crate::checkpointing::{self, CheckpointWork, decode_tokens};
use crate::command::{Inbox, Install, RestoredState};
use crate::coordinator::{Beginning, Coordinator};
use crate::credits::Credits;
use crate::driver::WorkerFailure;
use crate::runtime::Shared;
use crate::spec::RelationSpec;
use crate::worker::{self, WorkerShared};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tidegate_checkpoint::{CheckpointError, Manifest};
use tidegate_types::{Epoch, KeyGroupRange, LogPosition, SqlError, SqlState};
use timely::communication::WorkerGuards;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const FIRST_RESTART_DELAY: Duration = Duration::from_millis(50);
const LONGEST_RESTART_DELAY: Duration = Duration::from_secs(30);
/// After running so long an incarnation counts as healthy, and the next restart is quick again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

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
    early_failure: Option<WorkerFailure>,
    started_at: Instant,
}

impl Install {
    /// A relation that begins with nothing.
    pub fn fresh(spec: RelationSpec, start: Epoch, workers: usize) -> Self {
        let restored = (0..workers).map(|_| RestoredState::new()).collect();
        Self::restored(spec, start, restored, false)
    }

    fn restored(
        spec: RelationSpec,
        start: Epoch,
        restored: Vec<RestoredState>,
        is_restored: bool,
    ) -> Self {
        let workers = restored.len();
        Self {
            spec,
            start,
            restored: restored.into_iter().map(Mutex::new).collect(),
            is_restored,
            status: Arc::default(),
            stores: Mutex::new(vec![None; workers]),
        }
    }
}

impl Incarnation {
    /// Restores, starts workers, builds all relations and replays the log.
    pub async fn start(
        shared: &Arc<Shared>,
        manifest: Option<Arc<Manifest>>,
        relations: Vec<RelationSpec>,
    ) -> Result<Self, SqlError> {
        let config = &shared.config;
        recover_sinks(manifest.as_deref(), &relations).await?;
        let previous = *shared.published.borrow();
        let beginning = Beginning {
            epoch: shared
                .store
                .start_epoch()
                .max(previous.epoch.next())
                .max(Epoch(shared.last_epoch() + 1)),
            time_ms: manifest.as_ref().map_or(0, |m| m.time_ms),
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
        let restored = restore(
            shared,
            manifest.as_ref(),
            needed(relations),
            beginning.epoch,
        )
        .await?;
        let (work_sender, works) = mpsc::unbounded_channel::<CheckpointWork>();
        let (failure_sender, failures) = mpsc::unbounded_channel();
        let inboxes: Vec<Arc<Inbox>> = (0..config.workers).map(|_| Arc::default()).collect();
        let coordinator = Arc::new(Coordinator::new(
            config.pace(),
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
        });
        let workers = start_workers(shared, &coordinator, inboxes)?;
        let checkpointing = tokio::spawn(checkpointing::serve(
            shared.clone(),
            coordinator.clone(),
            works,
        ));
        tokio::spawn(coordinator.clone().keep_time());
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
            started_at: Instant::now(),
        };
        incarnation.replay(shared, beginning.log_position)?;
        incarnation.first_barrier(shared, beginning.epoch).await;
        Ok(incarnation)
    }

    /// Appends what the log holds behind the checkpoint, and takes over from the incarnation before. Appends of others
    /// wait meanwhile: what they bring is either in the log already or comes after.
    fn replay(&self, shared: &Arc<Shared>, after: LogPosition) -> Result<(), SqlError> {
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
        Ok(())
    }

    /// Readers are let in once everything has passed a barrier: before that no view of this incarnation can be read. A
    /// failure on the way is left to the supervisor.
    async fn first_barrier(&mut self, shared: &Shared, first: Epoch) {
        let mut published = shared.published.subscribe();
        // The value that is waited for is locked while it is looked at, so nothing of it is kept.
        let passed = async { published.wait_for(|p| p.epoch >= first).await.is_ok() };
        tokio::select! {
            passed = passed => {
                if passed {
                    self.coordinator.open_for_readers();
                }
            }
            failure = self.failures.recv() => self.early_failure = failure,
        }
    }

    /// Waits for the end or a failure, and after a failure goes on with the next incarnation.
    pub async fn supervise(self, shared: Arc<Shared>, mut stopped: mpsc::Receiver<()>) {
        let mut incarnation = self;
        let mut delay = FIRST_RESTART_DELAY;
        loop {
            let failure = match incarnation.early_failure.take() {
                Some(failure) => Some(failure),
                None => tokio::select! {
                    _ = stopped.recv() => None,
                    failure = incarnation.failures.recv() => failure,
                },
            };
            let healthy = incarnation.started_at.elapsed() >= HEALTHY_AFTER;
            let relations = incarnation.coordinator.all_installed();
            incarnation.end().await;
            let Some(failure) = failure else { return };
            shared.restarts.fetch_add(1, Ordering::Relaxed);
            let relations = relations.iter().map(|i| i.spec.clone()).collect();
            let relations = without_failed_creation(&shared, &failure, relations);
            delay = if healthy {
                FIRST_RESTART_DELAY
            } else {
                (delay * 2).min(LONGEST_RESTART_DELAY)
            };
            match restart(&shared, relations, &mut delay, &mut stopped).await {
                Some(next) => incarnation = next,
                None => return,
            }
        }
    }

    /// Stops the workers and waits for them and for the checkpoint under way.
    async fn end(self) {
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

async fn restart(
    shared: &Arc<Shared>,
    relations: Vec<RelationSpec>,
    delay: &mut Duration,
    stopped: &mut mpsc::Receiver<()>,
) -> Option<Incarnation> {
    loop {
        tokio::select! {
            _ = stopped.recv() => return None,
            () = tokio::time::sleep(*delay) => {}
        }
        let recovery = shared.store.newest().map_err(SqlError::from);
        let result = match recovery {
            Ok(recovery) => Incarnation::start(shared, recovery.manifest, relations.clone()).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(incarnation) => {
                tracing::info!("workers restarted from the newest checkpoint");
                return Some(incarnation);
            }
            Err(error) => tracing::error!("workers could not be restarted: {error}"),
        }
        *delay = (*delay * 2).min(LONGEST_RESTART_DELAY);
    }
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
    let worker_shared = Arc::new(WorkerShared {
        inboxes,
        coordinator: coordinator.clone(),
        working_directory: config.working_directory.clone(),
        memory_per_worker: config.memory_limit_bytes / config.workers,
        credits: Arc::new(Credits::new(config.rows_in_flight)),
        errors: shared.errors.clone(),
        pin: config.pin,
    });
    timely::execute(timely::Config::process(config.workers), move |w| {
        worker::run(w, &worker_shared)
    })
    .map_err(SqlError::internal)
}

/// Everything a checkpoint holds of these relations, by worker.
async fn restore(
    shared: &Arc<Shared>,
    manifest: Option<&Arc<Manifest>>,
    relations: Vec<RelationSpec>,
    start: Epoch,
) -> Result<Vec<Install>, SqlError> {
    let workers = shared.config.workers;
    let Some(manifest) = manifest else {
        return Ok(relations
            .into_iter()
            .map(|spec| Install::fresh(spec, start, workers))
            .collect());
    };
    let known: HashSet<_> = manifest
        .tables
        .values()
        .map(|t| t.descriptor.relation)
        .collect();
    let restorer = shared.store.restorer();
    let mut installs = Vec::new();
    for spec in relations {
        let whole: HashSet<_> = build::position_tables(&spec.dataflow).into_iter().collect();
        let mut states: Vec<RestoredState> = (0..workers).map(|_| RestoredState::new()).collect();
        for descriptor in checkpointing::descriptors(&spec) {
            let Some(entry) = manifest.table(descriptor.table) else {
                continue;
            };
            for (worker, state) in states.iter_mut().enumerate() {
                let groups = if whole.contains(&descriptor.table) {
                    KeyGroupRange::ALL
                } else {
                    KeyGroupRange::of_worker(worker, workers)
                };
                let runs = restorer.table_runs(entry, groups).await;
                let runs = runs.map_err(|e| damaged(shared, manifest, e))?;
                if !runs.is_empty() {
                    state.insert(descriptor.table, runs);
                }
            }
        }
        let is_restored = known.contains(&spec.relation());
        installs.push(Install::restored(spec, start, states, is_restored));
    }
    Ok(installs)
}

/// Damage is remembered, so that the next attempt begins with an older checkpoint.
fn damaged(shared: &Shared, manifest: &Manifest, error: CheckpointError) -> SqlError {
    let told = SqlError::from(error.clone());
    if error.is_damage() {
        tracing::error!(
            checkpoint = manifest.checkpoint.0,
            "checkpoint is damaged: {error}"
        );
        shared.store.reject(manifest, error);
    }
    told
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

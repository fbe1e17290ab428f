//! The running database below SQL: relations come and go, changes flow in, readers take consistent epochs.
//!
//! Guarantees: an appended change is visible to every view at one epoch, and in the order of the log. A snapshot holds
//! all its views at one epoch. After a failure of a worker everything goes on from the newest checkpoint and the log;
//! callers wait meanwhile, they are not refused.

use crate::checkpointing::CheckpointOutcome;
use crate::command::Install;
use crate::coordinator::{Coordinator, Pace, Published, unfinished};
use crate::error_board::ErrorBoard;
use crate::following::{Changes, Followers, PublishedEpochs, Subscription};
use crate::incarnation::{Incarnation, prepare_sinks};
use crate::lag::Behind;
use crate::memory::{self, StateMemory};
use crate::policy::{CheckpointPolicy, LivePolicy, RelationChoices};
use crate::recovery::{Measures, RecoveryStatus};
use crate::rescale::Order;
use crate::restart::RestartStrategy;
use crate::seed::Seed;
use crate::spec::{CatalogSnapshot, ChangeLog, RelationSpec};
use crate::status::{
    CheckpointInfo, ErrorRow, JobStatus, OperatorStatus, RelationStatus, RuntimeStatus,
};
use crate::suspension::{Reason, Suspension, Suspensions};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidegate_checkpoint::{CheckpointStore, Manifest};
use tidegate_state::{ViewSnapshot, ViewStore};
use tidegate_types::{Batch, Epoch, LogPosition, RelationId, SqlError, SqlState};
use tokio::sync::{mpsc, watch};

#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// How many there are until [`Runtime::rescale`].
    pub workers: usize,
    /// Each worker keeps to a core of its own.
    pub pin: bool,
    pub barrier_interval: Duration,
    pub rows_per_epoch: usize,
    /// How checkpoints are taken until [`Runtime::set_policy`] says otherwise.
    pub checkpoints: CheckpointPolicy,
    /// Rows on their way at which sources hold back.
    pub rows_in_flight: usize,
    /// For working state of the RocksDB backend; wiped at every start.
    pub working_directory: PathBuf,
    pub memory_limit_bytes: usize,
    pub restart_strategy: RestartStrategy,
    /// A view for which a barrier waits longer is left out; `None`: everybody waits for it.
    pub max_barrier_lag: Option<Duration>,
    /// A split of a source that has given nothing for so long does not hold a watermark back.
    pub watermark_idle_timeout: Duration,
}

/// What runs, by relation.
type Installs = BTreeMap<RelationId, Arc<Install>>;

/// One view at one epoch, over all workers.
pub struct ViewReader {
    pub parts: Vec<ViewSnapshot>,
}

/// Several views at one epoch.
pub struct Snapshot {
    pub epoch: Epoch,
    /// How much of the log the epoch holds.
    pub log_position: LogPosition,
    pub views: HashMap<RelationId, ViewReader>,
}

pub(crate) struct Shared {
    pub config: RuntimeConfig,
    /// Of the incarnation that runs or is about to.
    pub workers: AtomicUsize,
    pub followers: Followers,
    pub measures: Mutex<Measures>,
    pub policy: Arc<LivePolicy>,
    pub store: Arc<CheckpointStore>,
    pub log: Arc<dyn ChangeLog>,
    pub catalog: Arc<dyn CatalogSnapshot>,
    pub errors: Arc<ErrorBoard>,
    pub memory: Arc<StateMemory>,
    pub published: Arc<watch::Sender<Published>>,
    /// What the runtime was started with.
    pub began: Option<Arc<Manifest>>,
    pub suspensions: Suspensions,
    pub behind: Behind,
    /// Views that could not be read yet when workers failed last.
    pub building: Mutex<HashSet<RelationId>>,
    /// Why nothing will run again.
    pub given_up: OnceLock<String>,
    /// The incarnation that takes commands. Held while one is replaced, so that no append falls between two.
    pub current: Mutex<Option<Arc<Coordinator>>>,
    /// Relations whose creation nobody has been told of yet: a failure of theirs takes them away again.
    pub creating: Mutex<HashMap<RelationId, Option<String>>>,
    /// Plans that are to take over, whatever becomes of the workers meanwhile.
    pub successors: Mutex<BTreeMap<RelationId, RelationSpec>>,
    /// Who makes everything stand still takes turns.
    pub pausing: tokio::sync::Mutex<()>,
    /// Readers never see less of the log than this.
    pub seen_position: AtomicU64,
    pub restarts: AtomicU64,
    pub outcomes: watch::Sender<CheckpointOutcome>,
}

pub struct Runtime {
    pub(crate) shared: Arc<Shared>,
    supervisor: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// Removes expired checkpoints and merges runs.
    maintenance: Mutex<Option<tidegate_checkpoint::Maintenance>>,
    pub(crate) orders: mpsc::Sender<Order>,
}

impl Runtime {
    /// Whether a statement may add to state; an error that says why not.
    pub fn check_memory(&self) -> Result<(), SqlError> {
        self.shared.memory.check()
    }

    /// Starts workers on what the manifest holds (or on nothing), builds the relations, and replays the log.
    pub async fn start(
        config: RuntimeConfig,
        store: Arc<CheckpointStore>,
        manifest: Option<Arc<Manifest>>,
        relations: Vec<RelationSpec>,
        log: Arc<dyn ChangeLog>,
        catalog: Arc<dyn CatalogSnapshot>,
    ) -> Result<Self, SqlError> {
        let shared = Arc::new(Shared {
            policy: Arc::new(LivePolicy::new(config.checkpoints.clone())),
            memory: Arc::new(StateMemory::new(config.memory_limit_bytes)),
            workers: AtomicUsize::new(config.workers),
            followers: Followers::default(),
            measures: Mutex::default(),
            config,
            store,
            log,
            catalog,
            errors: Arc::default(),
            published: Arc::new(watch::channel(Published::default()).0),
            began: manifest.clone(),
            suspensions: Suspensions::default(),
            behind: Behind::default(),
            building: Mutex::default(),
            given_up: OnceLock::new(),
            current: Mutex::new(None),
            creating: Mutex::default(),
            successors: Mutex::default(),
            pausing: tokio::sync::Mutex::default(),
            seen_position: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            outcomes: watch::channel(CheckpointOutcome::default()).0,
        });
        // Of the process before, perhaps with more workers or another backend.
        tidegate_state::remove_working_state(&shared.config.working_directory, 0);
        let incarnation = Incarnation::start(&shared, manifest, relations, None).await?;
        let (orders, ordered) = mpsc::channel(1);
        let supervisor = tokio::spawn(incarnation.supervise(shared.clone(), ordered));
        let maintenance = Mutex::new(Some(shared.store.start_maintenance()));
        Ok(Self {
            shared,
            supervisor: Mutex::new(Some(supervisor)),
            maintenance,
            orders,
        })
    }

    /// Builds a relation; returns when all workers have, not when a backfill is over.
    pub async fn create(&self, spec: RelationSpec) -> Result<(), SqlError> {
        self.create_from(spec, None).await
    }

    /// As [`Self::create`], with saved state to begin with.
    pub async fn create_from(
        &self,
        spec: RelationSpec,
        seed: Option<Seed>,
    ) -> Result<(), SqlError> {
        tidegate_dataflow::check(&spec.dataflow)?;
        if let Some(sink) = &spec.sink {
            prepare_sinks(vec![(sink.clone(), Vec::new())]).await?;
        }
        let relation = spec.relation();
        self.shared.creating.lock().insert(relation, None);
        let result = self.create_and_wait(spec, seed).await;
        let failed = self.shared.creating.lock().remove(&relation).flatten();
        match failed {
            Some(message) => Err(SqlError::internal(message)),
            None => result,
        }
    }

    async fn create_and_wait(
        &self,
        spec: RelationSpec,
        seed: Option<Seed>,
    ) -> Result<(), SqlError> {
        // A source is read when somebody wants its rows: its reader starts with the first relation over it.
        if spec.is_reader() {
            return Ok(());
        }
        let relation = spec.relation();
        let coordinator = self.coordinator().await?;
        self.shared.suspensions.remove(relation);
        for read in spec.dataflow.reads() {
            if let Some(suspension) = self.shared.suspensions.get(read) {
                return Err(suspension.error());
            }
        }
        let mut specs = missing_readers(&coordinator, &spec);
        specs.push(spec);
        let workers = coordinator.workers();
        let mut states = Vec::with_capacity(specs.len());
        for spec in &specs {
            states.push(match &seed {
                Some(seed) => seed.states(spec, workers).await?,
                None => None,
            });
        }
        let mut start = Epoch::default();
        let installed = coordinator.install(|epoch| {
            start = epoch;
            let install = |(spec, states)| match states {
                Some(states) => Arc::new(Install::seeded(spec, epoch, states)),
                None => Arc::new(Install::fresh(spec, epoch, workers)),
            };
            specs.into_iter().zip(states).map(install).collect()
        });
        if let Err(failure) = installed {
            return Err(SqlError::internal(failure.message));
        }
        self.until(|p| p.epoch >= start || self.has_failed(relation))
            .await?;
        Ok(())
    }

    fn has_failed(&self, relation: RelationId) -> bool {
        self.shared
            .creating
            .lock()
            .get(&relation)
            .is_some_and(Option::is_some)
    }

    /// Waits until a relation holds everything that was there before it.
    pub async fn wait_complete(&self, relation: RelationId) -> Result<(), SqlError> {
        let mut published = self.shared.published.subscribe();
        loop {
            let seen = *published.borrow_and_update();
            self.shared.check(&seen)?;
            let coordinator = self.shared.current.lock().clone();
            let is_complete = coordinator.filter(|_| seen.running).map(|coordinator| {
                coordinator.at_published(|published, installs| {
                    unfinished(installs, relation, published.epoch).is_none()
                })
            });
            match self.shared.suspensions.get(relation) {
                Some(suspension) if suspension.reason == Reason::Suspended => {
                    return Err(suspension.error());
                }
                None if is_complete == Some(true) => return Ok(()),
                _ => {}
            }
            published.changed().await.map_err(|_| shut_down())?;
        }
    }

    /// Stops relations, those that depend on others first. Readers of sources that nobody reads any more stop too.
    pub async fn drop_relations(&self, relations: &[RelationId]) -> Result<(), SqlError> {
        self.shared.behind.forget(relations);
        let coordinator = self.coordinator().await?;
        let mut dropped = relations.to_vec();
        let left: Vec<_> = coordinator
            .all_installed()
            .into_iter()
            .filter(|i| !relations.contains(&i.spec.relation()))
            .collect();
        let read: HashSet<RelationId> = left
            .iter()
            .filter(|i| !i.spec.is_reader())
            .flat_map(|i| i.all_reads())
            .collect();
        for install in &left {
            let relation = install.spec.relation();
            if install.spec.is_reader() && !read.contains(&relation) {
                dropped.push(relation);
            }
        }
        coordinator.drop_relations(&dropped);
        Ok(())
    }

    /// Stops these relations until they are created again; they lose their contents. Whoever reads one of them is among
    /// them.
    pub async fn suspend(&self, suspensions: Vec<Suspension>) -> Result<(), SqlError> {
        let relations: Vec<RelationId> = suspensions.iter().map(|s| s.relation).collect();
        // Or they would come back by themselves.
        self.shared.behind.forget(&relations);
        self.shared.suspensions.insert(suspensions);
        self.drop_relations(&relations).await
    }

    /// These were suspended when the database was started, and are not among its relations.
    pub fn remain_suspended(&self, suspensions: Vec<Suspension>) {
        self.shared.suspensions.insert(suspensions);
    }

    pub fn suspensions(&self) -> Vec<Suspension> {
        self.shared.suspensions.all()
    }

    /// Tells of relations that were suspended because they kept failing. Only the first caller is told.
    pub fn imposed_suspensions(&self) -> Option<mpsc::UnboundedReceiver<Vec<Suspension>>> {
        self.shared.suspensions.listen()
    }

    /// Forgets that a relation was suspended, because it was dropped.
    pub fn forget_suspension(&self, relation: RelationId) {
        self.shared.suspensions.remove(relation);
    }

    /// An error once the workers have failed for good.
    pub fn health(&self) -> Result<(), SqlError> {
        let published = *self.shared.published.borrow();
        self.shared.check(&published)
    }

    /// Hands over table changes that are durable in the log. Never waits.
    pub fn append(&self, position: LogPosition, changes: Vec<(RelationId, Batch)>) {
        let current = self.shared.current.lock();
        if let Some(coordinator) = current.as_ref() {
            coordinator.append(position, changes);
        }
    }

    /// Waits until readers see the log up to this position.
    pub async fn wait_visible(&self, position: LogPosition) -> Result<Epoch, SqlError> {
        Ok(self.until(|p| p.log_position >= position).await?.epoch)
    }

    /// Waits until everything received so far is visible.
    pub async fn flush(&self) -> Result<Epoch, SqlError> {
        let coordinator = self.coordinator().await?;
        let epoch = coordinator.flush();
        Ok(self.until(|p| p.epoch >= epoch).await?.epoch)
    }

    /// Bounded sources that are being read and are not at their end.
    pub async fn unfinished_sources(&self) -> Result<Vec<RelationId>, SqlError> {
        let coordinator = self.coordinator().await?;
        let finished = coordinator.finished_sources();
        let installs = coordinator.all_installed();
        let bounded = installs.iter().filter(|i| {
            let source = i.spec.source.as_ref();
            source.is_some_and(|s| s.bounded()) && !finished.contains(&i.spec.relation())
        });
        Ok(bounded.map(|i| i.spec.relation()).collect())
    }

    pub fn read_epoch(&self) -> Epoch {
        self.shared.published.borrow().epoch
    }

    /// These views at the newest epoch. Waits while workers restart, and until what they had before is there again.
    pub async fn snapshot(&self, relations: &[RelationId]) -> Result<Snapshot, SqlError> {
        self.reading(relations, |published, _, views| {
            self.shared
                .seen_position
                .fetch_max(published.log_position.0, Ordering::SeqCst);
            Ok(Snapshot {
                epoch: published.epoch,
                log_position: published.log_position,
                views,
            })
        })
        .await
    }

    /// Hands these views to `take` at the newest epoch that holds them all.
    async fn reading<T>(
        &self,
        relations: &[RelationId],
        take: impl Fn(Published, &Installs, HashMap<RelationId, ViewReader>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        loop {
            let floor = LogPosition(self.shared.seen_position.load(Ordering::SeqCst));
            self.until(|p| p.log_position >= floor).await?;
            let coordinator = self.coordinator().await?;
            let mut seen = Published::default();
            let taken = coordinator.at_published(|published, installs| {
                seen = published;
                if !published.running {
                    return Ok(None);
                }
                let views = self.take_all(relations, published.epoch, installs)?;
                views.map(|v| take(published, installs, v)).transpose()
            })?;
            match taken {
                Some(taken) => return Ok(taken),
                None if !seen.running => {}
                None => {
                    self.until(|p| p.epoch > seen.epoch).await?;
                }
            }
        }
    }

    /// `None`: some of them are being brought back after a restart.
    fn take_all(
        &self,
        relations: &[RelationId],
        epoch: Epoch,
        installs: &Installs,
    ) -> Result<Option<HashMap<RelationId, ViewReader>>, SqlError> {
        let mut views = HashMap::new();
        for relation in relations {
            let Some(install) = installs.get(relation) else {
                return Err(match self.shared.suspensions.get(*relation) {
                    Some(suspension) => suspension.error(),
                    None => not_running(*relation),
                });
            };
            match unfinished(installs, *relation, epoch) {
                None => views.insert(*relation, take(install, epoch)?),
                Some(unfinished) if install.is_awaited || unfinished.is_awaited => return Ok(None),
                Some(unfinished) => return Err(still_being_built(install, &unfinished)),
            };
        }
        Ok(Some(views))
    }

    /// As many of these relations as are complete, at the newest epoch, and those that are not.
    pub async fn snapshot_of_complete(
        &self,
        relations: &[RelationId],
    ) -> Result<(Snapshot, Vec<RelationId>), SqlError> {
        // While workers start, the published epoch is not theirs yet and recovered relations would seem incomplete.
        self.snapshot(&[]).await?;
        let coordinator = self.coordinator().await?;
        let (complete, missing): (Vec<_>, Vec<_>) =
            coordinator.at_published(|published, installs| {
                relations.iter().copied().partition(|r| {
                    installs.contains_key(r) && unfinished(installs, *r, published.epoch).is_none()
                })
            });
        Ok((self.snapshot(&complete).await?, missing))
    }

    /// A view as of now and all its changes from then on.
    pub async fn subscribe(&self, relation: RelationId) -> Result<Subscription, SqlError> {
        self.reading(&[relation], |published, installs, views| {
            let changes = Arc::new(Changes::default());
            for store in stores(&installs[&relation])? {
                changes
                    .follow(&store, published.incarnation, published.epoch)
                    .map_err(SqlError::internal)?;
            }
            self.shared.followers.add(relation, &changes);
            Ok(Subscription {
                snapshot: Snapshot {
                    epoch: published.epoch,
                    log_position: published.log_position,
                    views,
                },
                changes,
                published: PublishedEpochs::new(
                    self.shared.published.subscribe(),
                    published.unbroken,
                ),
            })
        })
        .await
    }

    /// Takes a checkpoint of everything received so far; returns when it is durable.
    ///
    /// Its barrier overtakes nothing, whatever the policy: what is taken ends an epoch.
    pub async fn checkpoint(&self) -> Result<CheckpointInfo, SqlError> {
        self.take_checkpoint(true).await
    }

    /// As [`Self::checkpoint`], but a barrier may overtake if that is the policy.
    pub async fn checkpoint_by_policy(&self) -> Result<CheckpointInfo, SqlError> {
        self.take_checkpoint(false).await
    }

    /// From now on checkpoints are taken so; those under way end as they began.
    pub fn set_policy(&self, policy: CheckpointPolicy) -> Result<(), SqlError> {
        policy.check()?;
        self.shared.policy.set(policy);
        if let Some(coordinator) = self.shared.current.lock().as_ref() {
            coordinator.policy_changed();
        }
        Ok(())
    }

    /// Changes what a relation that runs chooses for itself.
    pub fn with_choices(&self, relation: RelationId, change: impl FnOnce(&RelationChoices)) {
        let current = self.shared.current.lock().clone();
        if let Some(install) = current.and_then(|c| c.installed(relation)) {
            change(&install.spec.choices);
        }
    }

    async fn take_checkpoint(&self, aligned: bool) -> Result<CheckpointInfo, SqlError> {
        let mut outcomes = self.shared.outcomes.subscribe();
        'incarnation: loop {
            let coordinator = self.coordinator().await?;
            let mut published = self.shared.published.subscribe();
            let incarnation = published.borrow_and_update().incarnation;
            // The next barrier may be on its way without one, so ask until a later checkpoint has an outcome.
            let wanted = coordinator.flush();
            coordinator.checkpoint_wanted(aligned);
            loop {
                // What was asked of an incarnation that fails is asked of the next.
                let over = published.wait_for(|p| p.incarnation != incarnation || p.given_up);
                tokio::select! {
                    over = over => {
                        over.map_err(|_| shut_down())?;
                        continue 'incarnation;
                    }
                    changed = outcomes.changed() => changed.map_err(|_| shut_down())?,
                }
                let outcome = outcomes.borrow_and_update().clone();
                match outcome.result {
                    Some(Ok(info)) if info.epoch >= wanted && (info.aligned || !aligned) => {
                        return Ok(info);
                    }
                    Some(Ok(_)) => coordinator.checkpoint_wanted(aligned),
                    Some(Err(error)) => return Err(error),
                    None => {}
                }
            }
        }
    }

    /// How many there are.
    pub fn workers(&self) -> usize {
        self.shared.workers()
    }

    /// What a recovery would have to do now, and what earlier ones took.
    pub fn recovery(&self) -> RecoveryStatus {
        self.shared.recovery()
    }

    pub fn status(&self) -> RuntimeStatus {
        let published = *self.shared.published.borrow();
        let current = self.shared.current.lock().clone();
        let mut status = RuntimeStatus {
            workers: self.workers(),
            epoch: published.epoch,
            time_ms: published.time_ms,
            restarts: self.shared.restarts.load(Ordering::Relaxed),
            ..RuntimeStatus::default()
        };
        let Some(coordinator) = current else {
            return status;
        };
        status.barriers_in_flight = coordinator.barriers_in_flight();
        status.rows_in = coordinator.rows_in();
        status.finished_sources = coordinator.finished_sources();
        // While workers start nothing can be read, and that is no job.
        let building = published.running.then(|| coordinator.building());
        for install in coordinator.all_installed() {
            let is_job = match &building {
                Some(building) => building.contains(&install.spec.relation()),
                None => install.status.is_backfilling(),
            };
            if is_job && !install.spec.is_reader() {
                status.jobs.push(job(&install, &install.status, false));
            }
            if let Some(arriving) = &install.arriving {
                status.jobs.push(job(&install, &arriving.status, true));
            }
        }
        status
    }

    /// Rows and bytes of the state of each relation's view, per worker.
    pub fn view_sizes(&self) -> Vec<OperatorStatus> {
        let Some(coordinator) = self.shared.current.lock().clone() else {
            return Vec::new();
        };
        let mut sizes = Vec::new();
        for install in coordinator.all_installed() {
            for (worker, store) in install.stores.lock().iter().enumerate() {
                let stats = store.as_ref().map(|s| s.stats()).unwrap_or_default();
                sizes.push(OperatorStatus {
                    relation: install.spec.relation(),
                    worker,
                    state_cells: stats.cells,
                    state_bytes: stats.bytes,
                });
            }
        }
        sizes
    }

    pub fn errors(&self) -> Vec<ErrorRow> {
        let mut rows = Vec::new();
        self.shared.errors.visit_rows(&mut |relation, key, count| {
            rows.push(ErrorRow {
                relation,
                operator: Some(key.operator.to_string()),
                state: key.state.clone(),
                message: key.message.clone(),
                row: key.row.clone(),
                split: None,
                offset: None,
                count,
            });
        });
        self.shared
            .errors
            .visit_decode_errors(&mut |relation, error| {
                rows.push(ErrorRow {
                    relation,
                    operator: None,
                    state: error.state.clone(),
                    message: error.message.clone(),
                    row: error.row.clone(),
                    split: Some(error.split.clone()),
                    offset: Some(error.offset.clone()),
                    count: 1,
                });
            });
        rows
    }

    /// How many errors a relation has: failed rows that stand, plus rows it could not decode.
    pub fn error_count(&self, relation: RelationId) -> u64 {
        self.shared.errors.count(relation)
    }

    /// For each source and table with a watermark: what it has reached, in microseconds since 1970, and how many rows were late.
    pub fn watermarks(&self) -> Vec<(RelationId, Option<i64>, u64)> {
        let Some(coordinator) = self.shared.current.lock().clone() else {
            return Vec::new();
        };
        let (reached, _) = coordinator.watermarks();
        let installed = coordinator.all_installed();
        let timed = installed.iter().filter(|i| i.spec.event_time.is_some());
        timed
            .map(|install| {
                let relation = install.spec.relation();
                let late = self.shared.errors.all_late_rows(relation);
                (relation, reached.get(&relation).copied(), late)
            })
            .collect()
    }

    /// Stops the workers, after a last checkpoint when asked for one.
    pub async fn stop(&self, final_checkpoint: bool) -> Result<(), SqlError> {
        let result = if final_checkpoint {
            self.checkpoint().await.map(|_| ())
        } else {
            Ok(())
        };
        let _ = self.orders.send(Order::Stop).await;
        let supervisor = self.supervisor.lock().take();
        if let Some(supervisor) = supervisor {
            let _ = supervisor.await;
        }
        let maintenance = self.maintenance.lock().take();
        if let Some(maintenance) = maintenance {
            maintenance.stop().await;
        }
        result
    }

    async fn until(&self, reached: impl Fn(&Published) -> bool) -> Result<Published, SqlError> {
        let mut published = self.shared.published.subscribe();
        let seen = published
            .wait_for(|p| p.given_up || (p.running && reached(p)))
            .await
            .map(|p| *p)
            .map_err(|_| shut_down())?;
        self.shared.check(&seen)?;
        Ok(seen)
    }

    /// The incarnation that runs, once one does.
    pub(crate) async fn coordinator(&self) -> Result<Arc<Coordinator>, SqlError> {
        self.until(|_| true).await?;
        self.shared.current.lock().clone().ok_or_else(shut_down)
    }
}

fn job(install: &Install, status: &RelationStatus, is_alteration: bool) -> JobStatus {
    JobStatus {
        relation: install.spec.relation(),
        is_alteration,
        rows_read: status.backfilled_rows(),
        rows_total: status.rows_to_backfill(),
        fraction: status.fraction(),
    }
}

/// The readers of sources that this relation needs and that do not run yet.
pub(crate) fn missing_readers(coordinator: &Coordinator, spec: &RelationSpec) -> Vec<RelationSpec> {
    let mut missing = Vec::new();
    for reader in &spec.readers {
        let relation = reader.relation();
        if coordinator.installed(relation).is_none() {
            missing.push(reader.clone());
        }
    }
    missing
}

fn stores(install: &Install) -> Result<Vec<Arc<ViewStore>>, SqlError> {
    let stores: Vec<_> = install.stores.lock().iter().flatten().cloned().collect();
    if stores.len() < install.stores.lock().len() {
        return Err(not_running(install.spec.relation()));
    }
    Ok(stores)
}

fn still_being_built(install: &Install, unfinished: &Install) -> SqlError {
    let (name, waits_for) = (&install.spec.dataflow.name, &unfinished.spec.dataflow.name);
    let error = SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("materialized view \"{name}\" is still being built"),
    )
    .with_hint("SHOW JOBS tells how far it is.");
    if name == waits_for {
        error
    } else {
        error.with_detail(format!(
            "It reads \"{waits_for}\", which is still being built."
        ))
    }
}

fn take(install: &Install, epoch: Epoch) -> Result<ViewReader, SqlError> {
    let snapshot = |store: &Arc<ViewStore>| store.snapshot(epoch).map_err(SqlError::internal);
    let parts = stores(install)?
        .iter()
        .map(snapshot)
        .collect::<Result<_, _>>()?;
    Ok(ViewReader { parts })
}

fn not_running(relation: RelationId) -> SqlError {
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("relation {relation} is not running"),
    )
}

pub(crate) fn shut_down() -> SqlError {
    SqlError::new(SqlState::ADMIN_SHUTDOWN, "the database is shutting down")
}

impl Shared {
    pub fn workers(&self) -> usize {
        self.workers.load(Ordering::SeqCst)
    }

    /// Nothing will run again in this process: its workers are not started again, or storage is another server's, or
    /// nobody knows, so that nothing it computes can be durable. Whoever waits is told.
    pub fn give_up(&self, why: &str, cause: &str) {
        tracing::error!("{why}: {cause}");
        self.given_up.get_or_init(|| format!("{why}: {cause}"));
        self.published.send_modify(|p| {
            p.running = false;
            p.given_up = true;
        });
    }

    pub fn check(&self, published: &Published) -> Result<(), SqlError> {
        if !published.given_up {
            return Ok(());
        }
        let cause = self.given_up.get().cloned().unwrap_or_default();
        Err(SqlError::new(
            SqlState::CANNOT_CONNECT_NOW,
            "the workers have failed and are not started again",
        )
        .with_detail(cause)
        .with_hint(
            "After a restart of the server the database goes on from its newest checkpoint and the log. restart_strategy says \
             how often workers are started again.",
        ))
    }

    /// The plan of a relation that is to run after the next start of the workers.
    pub fn newest_plan(&self, install: &Install) -> RelationSpec {
        let successors = self.successors.lock();
        let successor = successors.get(&install.spec.relation());
        successor.unwrap_or(&install.spec).clone()
    }

    /// The newest epoch that any incarnation of this process can have used.
    pub fn last_epoch(&self) -> u64 {
        self.current.lock().as_ref().map_or(0, |c| c.last_cut().0)
    }
}

impl RuntimeConfig {
    pub(crate) fn pace(&self, policy: Arc<LivePolicy>) -> Pace {
        Pace {
            barrier_interval: self.barrier_interval,
            rows_per_epoch: memory::limit_rows(self.rows_per_epoch, self.memory_limit_bytes),
            policy,
            watermark_idle_timeout: self.watermark_idle_timeout,
        }
    }
}

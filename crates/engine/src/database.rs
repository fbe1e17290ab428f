//! A database: its catalog, its log, its runtime, opened from a data directory.
//!
//! Opening: lock the directory → claim the checkpoint storage → newest complete manifest → catalog from the manifest and
//! the DDL that the log holds behind it → plans → workers restore and replay the log. From then on DDL is one statement
//! at a time: decided, logged, told to the runtime.

use crate::config::Config;
use crate::dml::Sequencer;
use crate::log::{ClosedLog, CommandLog, LogEntry, LogObserver};
use crate::relations::{Specs, unusable};
use crate::session::{Transients, query_state};
use crate::settings::Settings;
use crate::timeline::{as_of_position, begins_at, on_timeline};
use datafusion::execution::SessionState;
use fs4::FileExt;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tidegate_catalog::{Catalog, CatalogChange, Relation, RelationKind};
use tidegate_checkpoint::{Buffers, CheckpointStore, Manifest, Storage, StoreOptions};
use tidegate_connectors::Source;
use tidegate_plan::durable::ids_of;
use tidegate_plan::{Dataflow, Op};
use tidegate_planner::stored_functions;
use tidegate_runtime::{CatalogSnapshot, RelationSpec, Runtime, RuntimeConfig, RuntimeStatus};
use tidegate_state::BackendKind;
use tidegate_types::{LogPosition, OperatorId, RelationId, SqlError, SqlState};
use tokio::sync::watch;

/// The owner of everything until there are users.
/// `watermark_idle_timeout = off`.
const NEVER_IDLE: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 86_400);
pub(crate) const OWNER: &str = "tidegate";
/// The pieces in which checkpoints are written, merged and read have one byte of `memory_limit` in so many.
const CHECKPOINTS_PART: usize = 16;

pub struct Database {
    pub(crate) config: Config,
    /// The server's settings as they are in force: `config`, and what `ALTER SYSTEM` has changed since.
    pub(crate) live: RwLock<Settings>,
    pub(crate) catalog: Arc<SharedCatalog>,
    pub(crate) log: Arc<CommandLog>,
    pub(crate) store: Arc<CheckpointStore>,
    pub(crate) sequencer: Sequencer,
    appender: Arc<Appender>,
    /// Held by whoever changes the catalog.
    pub(crate) ddl: tokio::sync::Mutex<()>,
    connectors: Arc<Connectors>,
    /// Relations that may not go or change, because a view is being altered: with the view.
    pub(crate) altering: Mutex<HashMap<RelationId, Vec<RelationId>>>,
    /// The newest position of the log of which a client was told that it is done.
    acknowledged: AtomicU64,
    /// Tells this database from others that write to the same places.
    identity: String,
    /// Relations that live as long as somebody's subscription.
    pub(crate) transients: Transients,
    /// Set once somebody has asked for the end of the server.
    stop: watch::Sender<bool>,
    /// Held while workers are stopped or started again.
    starting: Arc<tokio::sync::Mutex<()>>,
    /// A savepoint was the last that was to be: there is no checkpoint after it.
    has_ended: AtomicBool,
    pub(crate) query_state: SessionState,
    _lock: File,
}

/// The catalog, with the position of the log up to which DDL is in it.
pub(crate) struct SharedCatalog {
    current: RwLock<(Catalog, LogPosition)>,
    /// What is durable, where statements do not see it yet.
    decided: RwLock<Option<(Catalog, LogPosition)>>,
    connectors: Arc<Connectors>,
    default_backend: BackendKind,
    identity: String,
    /// Of each stored plan, by the hash of its text, the ids.
    plans: Mutex<HashMap<RelationId, (u64, PlanIds)>>,
}

/// The connectors of sources that were made already.
pub(crate) type Connectors = Mutex<HashMap<RelationId, Arc<dyn Source>>>;

type PlanIds = (Vec<OperatorId>, OperatorId);

/// What a manifest holds of the catalog.
#[derive(Serialize, Deserialize)]
struct DurableCatalog {
    position: LogPosition,
    catalog: serde_json::Value,
    /// Plans that the state is of, where the catalog has others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    plans: Vec<(RelationId, String)>,
}

impl SharedCatalog {
    pub fn get(&self) -> Catalog {
        self.current.read().0.clone()
    }

    fn set(&self, catalog: Catalog, position: LogPosition) {
        *self.current.write() = (catalog, position);
        *self.decided.write() = None;
    }

    /// The stored plan of a relation that has one.
    fn stored_plan(relation: &Relation) -> Option<&str> {
        match &relation.kind {
            RelationKind::MaterializedView(def) => Some(&def.plan_json),
            RelationKind::Sink(def) => Some(&def.plan_json),
            _ => None,
        }
    }

    /// Whether the catalog has this plan for its relation.
    fn has_plan(&self, catalog: &Catalog, running: &Dataflow) -> bool {
        let relation = catalog.relation(running.relation);
        let Some(text) = relation.and_then(|r| Self::stored_plan(r)) else {
            return true;
        };
        let hash = tidegate_types::hash_key(text.as_bytes());
        let mut plans = self.plans.lock();
        let known = plans.get(&running.relation).filter(|(h, _)| *h == hash);
        if known.is_none() {
            let Ok(ids) = ids_of(text) else { return true };
            plans.insert(running.relation, (hash, ids));
        }
        is_plan(running, &plans[&running.relation].1)
    }

    /// The plan in a saved catalog as something to run, with what it reads.
    fn saved_spec(
        &self,
        saved: &Catalog,
        relation: &Relation,
        text: &str,
    ) -> Result<Option<RelationSpec>, SqlError> {
        let mut relation = relation.clone();
        match &mut relation.kind {
            RelationKind::MaterializedView(def) => def.plan_json = text.to_owned(),
            RelationKind::Sink(def) => def.plan_json = text.to_owned(),
            _ => return Ok(None),
        }
        Specs {
            catalog: saved,
            default_backend: self.default_backend,
            identity: &self.identity,
            connectors: &mut self.connectors.lock(),
        }
        .of(&relation)
    }
}

fn is_plan(dataflow: &Dataflow, (nodes, contents): &PlanIds) -> bool {
    dataflow.contents == *contents
        && dataflow
            .nodes
            .iter()
            .map(|n| n.id)
            .eq(nodes.iter().copied())
}

impl CatalogSnapshot for SharedCatalog {
    fn snapshot(&self, running: &[&Dataflow]) -> serde_json::Value {
        let decided = self.decided.read().clone();
        let (current, position) = decided.unwrap_or_else(|| self.current.read().clone());
        let catalog = serde_json::from_str(&current.to_json()).expect("a catalog's JSON is JSON");
        let others = running.iter().filter(|d| !self.has_plan(&current, d));
        let plans = others.map(|d| (d.relation, d.to_stored(stored_functions())));
        serde_json::to_value(DurableCatalog {
            position,
            catalog,
            plans: plans.collect(),
        })
        .expect("plain data")
    }

    fn saved(
        &self,
        catalog: &serde_json::Value,
        relations: &[RelationSpec],
    ) -> Result<Vec<Option<RelationSpec>>, SqlError> {
        let durable: DurableCatalog =
            serde_json::from_value(catalog.clone()).map_err(SqlError::internal)?;
        let saved = Catalog::from_json(&durable.catalog.to_string())?;
        let mut found = Vec::new();
        for spec in relations {
            let relation = saved.relation(spec.relation());
            let Some(relation) = relation.filter(|r| Self::stored_plan(r).is_some()) else {
                found.push(None);
                continue;
            };
            let other = durable.plans.iter().find(|(id, _)| *id == relation.id);
            let text = other.map(|(_, text)| text.as_str());
            let text = text
                .or_else(|| Self::stored_plan(relation))
                .unwrap_or_default();
            let ids = ids_of(text).map_err(|e| unusable(&relation.name, &e))?;
            found.push(match is_plan(&spec.dataflow, &ids) {
                true => None,
                false => {
                    let old = self.saved_spec(&saved, relation, text)?;
                    old.map(|old| runnable(old, relations)).transpose()?
                }
            });
        }
        Ok(found)
    }
}

/// A plan from before an alteration needs what it reads, and has to have what is read of it.
fn runnable(old: RelationSpec, relations: &[RelationSpec]) -> Result<RelationSpec, SqlError> {
    let name = &old.dataflow.name;
    let refuse = |why: String| {
        SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "the checkpoint is from before materialized view \"{name}\" was altered, and {why}"
            ),
        )
        .with_hint("Return to a savepoint, or bring the newer checkpoints back.")
    };
    let is_there = |id: &RelationId| {
        relations.iter().any(|s| s.relation() == *id)
            || old.readers.iter().any(|s| s.relation() == *id)
    };
    if let Some(gone) = old.dataflow.reads().iter().find(|r| !is_there(r)) {
        return Err(refuse(format!(
            "relation {gone}, which it read then, is gone"
        )));
    }
    let width = old.dataflow.root().schema.fields().len();
    for reader in relations {
        for node in &reader.dataflow.nodes {
            if let Op::Import { relation, columns } = &node.op
                && *relation == old.relation()
                && columns.iter().any(|c| *c >= width)
            {
                let reader = &reader.dataflow.name;
                return Err(refuse(format!(
                    "\"{reader}\" reads columns that it got then"
                )));
            }
        }
    }
    Ok(old)
}

/// A catalog as manifests hold it, with the position of the log up to which DDL is in it.
pub(crate) fn durable_catalog(catalog: &Catalog, position: LogPosition) -> serde_json::Value {
    let catalog = serde_json::from_str(&catalog.to_json()).expect("a catalog's JSON is JSON");
    serde_json::to_value(DurableCatalog {
        position,
        catalog,
        plans: Vec::new(),
    })
    .expect("plain data")
}

/// Hands durable entries to the runtime, in order.
#[derive(Default)]
struct Appender {
    runtime: RwLock<Option<Arc<Runtime>>>,
}

impl LogObserver for Appender {
    fn durable(&self, position: LogPosition, entry: LogEntry) {
        if let Some(runtime) = &*self.runtime.read() {
            match entry {
                LogEntry::Transaction { changes } => runtime.append(position, changes),
                LogEntry::Catalog { .. } => runtime.append(position, Vec::new()),
                // It ends the timeline of the runtime that still runs: no checkpoint of that one may claim to hold it.
                LogEntry::Timeline { .. } => {}
            }
        }
    }
}

impl Database {
    pub async fn open(config: Config) -> Result<Arc<Self>, SqlError> {
        std::fs::create_dir_all(&config.data_dir).map_err(|e| cannot_use(&config.data_dir, &e))?;
        let lock = lock_directory(&config.data_dir)?;
        let config = config.with_persisted()?;
        config.settings.checkpoint_policy()?;
        let buffers = config.settings.bytes("memory_limit") / CHECKPOINTS_PART;
        let storage = Storage::open(&config.checkpoint_storage())
            .map_err(tidegate_checkpoint::CheckpointError::from)?
            .with_buffers(Buffers::within(buffers));
        if config.from_savepoint.is_some() {
            crate::begin::refuse_used(&config, &storage).await?;
        }
        #[cfg(debug_assertions)]
        let storage = tidegate_checkpoint::faults::from_environment(storage)
            .map_err(|e| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, e))?;
        let options = StoreOptions {
            retained: config.settings.integer("checkpoint_retained") as usize,
            history: config.settings.duration("history_retention"),
            ..StoreOptions::default()
        };
        let store =
            CheckpointStore::open(storage, options, tokio::runtime::Handle::current()).await?;
        store.clean_up_generations().await?;
        if let Some(from) = &config.from_savepoint {
            let identity = identity(&config.data_dir)?;
            crate::begin::begin(&config, from, &store, &identity).await?;
        }
        loop {
            let newest = store.newest()?.manifest.map(|m| m.number);
            let held = lock
                .try_clone()
                .map_err(|e| cannot_use(&config.data_dir, &e))?;
            match Self::open_newest(config.clone(), store.clone(), held).await {
                // A run was found to be damaged while it was restored, and its checkpoint rejected.
                Err(error) if store.newest()?.manifest.map(|m| m.number) != newest => {
                    tracing::warn!("going back to an older checkpoint: {error}");
                }
                opened => return opened,
            }
        }
    }

    /// Opens the newest checkpoint that was not rejected.
    async fn open_newest(
        config: Config,
        store: Arc<CheckpointStore>,
        lock: File,
    ) -> Result<Arc<Self>, SqlError> {
        let mut log = ClosedLog::open(&config.data_dir.join("log"), None)?;
        let recovery = store.newest()?;
        for skipped in &recovery.skipped {
            tracing::warn!(
                manifest = skipped.number,
                "checkpoint passed over: {}",
                skipped.cause
            );
        }
        check_log(&config, &mut log, recovery.manifest.as_deref())?;
        let manifest = on_timeline(&store, recovery.manifest, &log).await?;
        let (catalog, position) = restore_catalog(manifest.as_deref(), &log)?;
        let connectors: Arc<Connectors> = Arc::default();
        let identity = identity(&config.data_dir)?;
        let catalog = Arc::new(SharedCatalog {
            current: RwLock::new((catalog, position)),
            decided: RwLock::default(),
            connectors: connectors.clone(),
            default_backend: config.default_backend(),
            identity: identity.clone(),
            plans: Mutex::default(),
        });
        let appender = Arc::new(Appender::default());
        let log = Arc::new(log.start(appender.clone())?);
        let database = Arc::new(Self {
            catalog,
            log,
            store,
            sequencer: Sequencer::default(),
            appender,
            ddl: tokio::sync::Mutex::new(()),
            connectors,
            altering: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            identity,
            transients: Transients::default(),
            stop: watch::channel(false).0,
            starting: Arc::default(),
            has_ended: AtomicBool::new(false),
            query_state: query_state(&config)?,
            _lock: lock,
            live: RwLock::new(config.settings.clone()),
            config,
        });
        database.start_runtime(manifest).await?;
        Ok(database)
    }

    async fn start_runtime(
        self: &Arc<Self>,
        manifest: Option<Arc<Manifest>>,
    ) -> Result<(), SqlError> {
        let catalog = self.catalog.get();
        let mut specs = Vec::new();
        for relation in catalog.in_dependency_order() {
            let spec = self.spec(&catalog, relation).map_err(|e| {
                let hint =
                    "The statement that made it is planned again at each start; see the log.";
                tracing::error!(relation = %relation.name, "definition cannot be planned: {e}");
                e.with_hint(hint)
            })?;
            specs.extend(spec);
        }
        let runtime = Runtime::start(
            self.runtime_config(),
            self.store.clone(),
            manifest,
            specs,
            self.log.clone(),
            self.catalog.clone(),
        )
        .await?;
        runtime.remain_suspended(self.suspended());
        self.keep_suspensions(&runtime);
        *self.appender.runtime.write() = Some(Arc::new(runtime));
        Ok(())
    }

    fn runtime_config(&self) -> RuntimeConfig {
        let settings = &self.config.settings;
        RuntimeConfig {
            workers: self.live.read().workers(),
            pin: settings.boolean("pin_workers"),
            barrier_interval: settings.duration("barrier_interval").unwrap_or_default(),
            rows_per_epoch: settings.integer("rows_per_epoch") as usize,
            checkpoints: self
                .live
                .read()
                .checkpoint_policy()
                .expect("it was checked when it was set"),
            rows_in_flight: settings.integer("rows_in_flight") as usize,
            working_directory: self.config.data_dir.join("working"),
            memory_limit_bytes: settings.bytes("memory_limit"),
            restart_strategy: settings.restart_strategy(),
            max_barrier_lag: settings.duration("max_barrier_lag"),
            watermark_idle_timeout: settings
                .duration("watermark_idle_timeout")
                .unwrap_or(NEVER_IDLE),
        }
    }

    pub(crate) fn default_backend(&self) -> BackendKind {
        self.config.default_backend()
    }

    /// What to run for a relation of this catalog.
    pub(crate) fn spec(
        &self,
        catalog: &Catalog,
        relation: &Relation,
    ) -> Result<Option<RelationSpec>, SqlError> {
        let mut connectors = self.connectors.lock();
        Specs {
            catalog,
            default_backend: self.default_backend(),
            identity: &self.identity,
            connectors: &mut connectors,
        }
        .of(relation)
    }

    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn with_connectors<T>(
        &self,
        f: impl FnOnce(&mut HashMap<RelationId, Arc<dyn Source>>) -> T,
    ) -> T {
        f(&mut self.connectors.lock())
    }

    pub(crate) fn runtime(&self) -> Result<Arc<Runtime>, SqlError> {
        self.appender.runtime.read().clone().ok_or_else(|| {
            SqlError::new(SqlState::CANNOT_CONNECT_NOW, "the database is not running")
        })
    }

    /// Makes a catalog change durable. The caller holds `ddl` and has applied it to a copy of the current catalog.
    pub(crate) async fn log_catalog(
        &self,
        next: Catalog,
        changes: Vec<CatalogChange>,
    ) -> Result<LogPosition, SqlError> {
        let position = self.decide(next.clone(), changes).await?;
        self.adopt(next, position);
        Ok(position)
    }

    /// Makes a catalog change durable that statements are not to see yet: [`Self::adopt`] shows it to them.
    pub(crate) async fn decide(
        &self,
        next: Catalog,
        changes: Vec<CatalogChange>,
    ) -> Result<LogPosition, SqlError> {
        let (_, durable) = self.log.append(LogEntry::Catalog { changes })?;
        let position = durable
            .await
            .map_err(|_| SqlError::internal("the log ended"))??;
        *self.catalog.decided.write() = Some((next, position));
        Ok(position)
    }

    pub(crate) fn adopt(&self, next: Catalog, position: LogPosition) {
        self.catalog.set(next, position);
        self.acknowledge(position);
    }

    /// What a view that is being altered reads has to stay as it is, and so has the view.
    pub(crate) fn expect_not_altering(&self, ids: &[RelationId]) -> Result<(), SqlError> {
        let altering = self.altering.lock();
        let Some((view, _)) = altering
            .iter()
            .find(|(view, reads)| ids.contains(view) || reads.iter().any(|r| ids.contains(r)))
        else {
            return Ok(());
        };
        let catalog = self.catalog.get();
        let name = catalog.relation(*view).map_or("", |r| r.name.as_str());
        Err(SqlError::new(
            SqlState::OBJECT_IN_USE,
            format!("materialized view \"{name}\" is being altered and needs it"),
        )
        .with_hint("SHOW JOBS tells how far that is; cancelling that statement ends it."))
    }

    /// A client is about to be told that everything up to here is done: reads that begin later see it.
    pub(crate) fn acknowledge(&self, position: LogPosition) {
        self.acknowledged.fetch_max(position.0, Ordering::SeqCst);
    }

    /// Everything up to here was acknowledged to somebody.
    pub(crate) fn acknowledged(&self) -> LogPosition {
        LogPosition(self.acknowledged.load(Ordering::SeqCst))
    }

    pub(crate) fn forget_connector(&self, relation: RelationId) {
        self.connectors.lock().remove(&relation);
    }

    /// Goes back to a manifest: the catalog and all state are as they were, and the log goes on behind its end.
    pub(crate) async fn restart_from(
        self: &Arc<Self>,
        manifest: Arc<Manifest>,
    ) -> Result<(), SqlError> {
        let runtime = self.appender.runtime.write().take();
        if let Some(runtime) = runtime {
            runtime.stop(false).await?;
        }
        let position = self.log.durable_position();
        let (catalog, _) = catalog_of(Some(&manifest))?;
        self.catalog.set(catalog, position);
        self.connectors.lock().clear();
        self.store.rebase(&manifest);
        self.start_runtime(Some(as_of_position(&manifest, position)))
            .await
    }

    /// What the runtime tells about itself.
    pub fn status(&self) -> Result<RuntimeStatus, SqlError> {
        Ok(self.runtime()?.status())
    }

    /// Checkpoints, newest first.
    pub fn checkpoints(&self) -> Vec<tidegate_checkpoint::CheckpointRecord> {
        self.store.checkpoints()
    }

    /// Stops the workers with a last checkpoint, and answers it.
    pub(crate) async fn stop_workers(self: &Arc<Self>) -> Result<Arc<Manifest>, SqlError> {
        let runtime = self.runtime()?;
        // As long as none can be taken, the workers go on.
        runtime.checkpoint().await?;
        let turn = self.starting.clone().lock_owned().await;
        let database = self.clone();
        // A statement may be given up; what was begun here has an end before anything is started again.
        let stopping = tokio::spawn(async move {
            let _turn = turn;
            database.appender.runtime.write().take();
            runtime.stop(true).await
        });
        let stopped = stopping.await;
        stopped.map_err(|_| SqlError::internal("stopping the workers panicked"))??;
        let newest = self.store.retained().into_iter().next();
        newest.ok_or_else(|| SqlError::internal("the last checkpoint has gone"))
    }

    /// Starts workers from the newest checkpoint and the log, when they were stopped.
    pub(crate) async fn start_again(self: &Arc<Self>) -> Result<(), SqlError> {
        let _turn = self.starting.lock().await;
        if self.appender.runtime.read().is_some() {
            return Ok(());
        }
        let newest = self.store.newest()?.manifest;
        if let Some(newest) = &newest {
            // Epochs of the workers before are not used again.
            self.store.rebase(newest);
        }
        self.start_runtime(newest).await
    }

    /// Nothing is written and no checkpoint is taken from now on: what was saved last is how the database ends.
    pub(crate) fn end_here(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.log.close();
    }

    /// An error once nothing of what comes may be saved any more.
    pub(crate) fn check_open(&self) -> Result<(), SqlError> {
        match self.has_ended.load(Ordering::SeqCst) {
            true => Err(crate::api::CancelReason::Shutdown.error()),
            false => Ok(()),
        }
    }

    pub(crate) fn request_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until `SHUTDOWN` asks for the end of the server.
    pub async fn stop_requested(&self) {
        // The sender is here as long as the database is.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Stops with a last checkpoint. Statements that come later are refused.
    pub async fn shutdown(&self) -> Result<(), SqlError> {
        let runtime = self.appender.runtime.write().take();
        let has_ended = self.has_ended.load(Ordering::SeqCst);
        let result = match runtime {
            Some(runtime) => runtime.stop(!has_ended).await,
            None => Ok(()),
        };
        let newest = self.store.retained().first().map(|m| m.checkpoint);
        if let Some(newest) = newest.filter(|_| result.is_ok() && !has_ended)
            && self.live.read().text("checkpoint_on_drop") == "retain"
        {
            let savepoint = self.keep_as_savepoint("stopped", newest).await?;
            tracing::info!(savepoint, "the last state stays as a savepoint");
        }
        // What became of checkpoints is worth no failure of a stop.
        if let Err(error) = self.store.flush_history().await {
            tracing::warn!("the history of checkpoints was not written: {error}");
        }
        self.log.close();
        result
    }
}

fn cannot_use(path: &Path, error: &std::io::Error) -> SqlError {
    SqlError::new(
        SqlState::IO_ERROR,
        format!(
            "the data directory \"{}\" cannot be used: {error}",
            path.display()
        ),
    )
}

/// Made up when the data directory is first used. Names of files that sinks write begin with it, so that two databases can
/// write to one directory.
fn identity(data_dir: &Path) -> Result<String, SqlError> {
    let path = data_dir.join("identity");
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot_use(data_dir, &error)),
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |d| d.as_nanos());
    let seed = format!("{nanos}.{}.{}", std::process::id(), data_dir.display());
    let identity = format!("{:08x}", tidegate_types::hash_key(seed.as_bytes()) as u32);
    let temporary = path.with_extension("new");
    let written = std::fs::write(&temporary, &identity)
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, &path))
        .and_then(|()| File::open(data_dir)?.sync_all());
    written.map_err(|e| cannot_use(data_dir, &e))?;
    Ok(identity)
}

/// One server at a time.
fn lock_directory(data_dir: &Path) -> Result<File, SqlError> {
    let path = data_dir.join("lock");
    let file = File::create(&path).map_err(|e| cannot_use(data_dir, &e))?;
    match FileExt::try_lock(&file) {
        Ok(()) => Ok(file),
        Err(_) => Err(SqlError::new(
            SqlState::OBJECT_IN_USE,
            format!(
                "the data directory \"{}\" is in use by another server",
                data_dir.display()
            ),
        )
        .with_hint("Stop the other server, or choose another directory with --data-dir.")),
    }
}

/// The log has to reach as far as the checkpoint, or something acknowledged is lost.
fn check_log(
    config: &Config,
    log: &mut ClosedLog,
    manifest: Option<&Manifest>,
) -> Result<(), SqlError> {
    let position = manifest.map_or(LogPosition(0), |m| m.log_position);
    let gap_before = log.first_position().0 > position.0 + 1;
    if log.last_position() >= position && !gap_before {
        return Ok(());
    }
    let found = log.last_position().0;
    if !config.settings.boolean("restore_without_log") {
        return Err(SqlError::new(
            SqlState::DATA_CORRUPTED,
            format!("the command log ends at entry {found}, the newest checkpoint was taken at entry {}", position.0),
        )
        .with_hint("Bring the log back, or start with --set restore_without_log=on to go on with the checkpoint alone."));
    }
    tracing::warn!(
        "restoring without the log: writes acknowledged after log entry {} may be lost",
        position.0
    );
    log.skip_to(position)
}

pub(crate) fn catalog_of(manifest: Option<&Manifest>) -> Result<(Catalog, LogPosition), SqlError> {
    let Some(manifest) = manifest else {
        return Ok((Catalog::new(OWNER), LogPosition(0)));
    };
    let damaged = |e: &dyn std::fmt::Display| {
        SqlError::new(
            SqlState::DATA_CORRUPTED,
            format!("the catalog in the newest checkpoint cannot be read: {e}"),
        )
    };
    let durable: DurableCatalog =
        serde_json::from_value((*manifest.catalog).clone()).map_err(|e| damaged(&e))?;
    let catalog = Catalog::from_json(&durable.catalog.to_string())?;
    Ok((catalog, durable.position))
}

fn restore_catalog(
    manifest: Option<&Manifest>,
    log: &ClosedLog,
) -> Result<(Catalog, LogPosition), SqlError> {
    let (mut catalog, in_manifest) = catalog_of(manifest)?;
    // At the beginning of a timeline the DDL between the savepoint and the return to it has no meaning any more.
    let began = manifest.map_or(LogPosition(0), |m| m.log_position);
    let newer_ddl = |m: &Manifest| begins_at(log, m.log_position);
    let mut position = match manifest {
        Some(manifest) if newer_ddl(manifest)? => began,
        _ => in_manifest,
    };
    log.read(position, &mut |at, entry| {
        match entry {
            LogEntry::Catalog { changes } => {
                for change in &changes {
                    catalog.apply(change)?;
                }
                position = at;
            }
            LogEntry::Timeline { .. } => position = at,
            LogEntry::Transaction { .. } => {}
        }
        Ok(())
    })?;
    Ok((catalog, position))
}

//! The checkpoint store: everything durable about a database's state, owned by one server at a time.
//!
//! - **Ownership.** Opening claims the next generation by conditional creation, then puts a fence into the sequence of
//!   manifest files. An older server's next commit finds its number taken and ends with
//!   [`CheckpointError::TakenOver`]; a newer generation is also looked for after each commit, before it is acknowledged.
//! - **Epochs** are reserved durably in blocks; [`CheckpointStore::start_epoch`] is above every epoch ever used.
//! - **Recovery.** [`CheckpointStore::newest`] returns the newest checkpoint not known to be damaged and says what was
//!   passed over; damage found while restoring is reported by [`CheckpointStore::reject`], and then asked again.
//! - **Deletion** ([`CheckpointStore::clean_up`]) removes what no retained checkpoint, savepoint, merge or upload needs.
//!
//! Non-guarantees: it does not restart anything, does not know workers, and does not decide when to take a checkpoint.

use crate::error::{CheckpointError, Result, StorageError};
use crate::inventory::{self, EPOCH_BLOCK, Inventory, Known, Skipped};
use crate::layout;
use crate::manifest::{Content, Manifest, ManifestFile};
use crate::merge::FinishedMerge;
use crate::storage::{LockOutcome, Storage};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_types::key::CODEC_VERSION;
use tidegate_types::{CheckpointId, Epoch, KEY_GROUPS, LogPosition};
use tokio::runtime::Handle;

const OPENING_ATTEMPTS: u32 = 20;
/// Between two attempts, growing by as much each time. A listing may lag behind what was written last.
const OPENING_DELAY: Duration = Duration::from_millis(25);

#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How many completed checkpoints stay (`checkpoint_retained`); at least one.
    pub retained: usize,
    /// For how long state as of a time can be read: so long ago the newest checkpoint from before stays, and all after it.
    pub history: Option<Duration>,
    /// How long a commit tries to find out what became of it while storage does not answer.
    pub resolve_within: Duration,
    /// For how long a listing may not know of what was written. Manifest files stay so long: while all newer ones are
    /// hidden, an opening has to find one from which the numbers that are taken follow on.
    pub listing_lag: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            retained: 3,
            history: None,
            resolve_within: Duration::from_secs(60),
            listing_lag: Duration::from_secs(10),
        }
    }
}

/// What recovery starts from.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// `None`: the storage has never held a checkpoint.
    pub manifest: Option<Arc<Manifest>>,
    /// Newer checkpoints that cannot be used, newest first.
    pub skipped: Vec<Skipped>,
}

#[derive(Debug)]
pub struct CheckpointStore {
    pub(crate) storage: Storage,
    pub(crate) handle: Handle,
    generation: u64,
    start_epoch: Epoch,
    pub(crate) options: Mutex<StoreOptions>,
    /// Held while a manifest file is created: they are created one after the other.
    pub(crate) writing: tokio::sync::Mutex<()>,
    pub(crate) state: Mutex<State>,
    /// Held by the one merge that runs at a time.
    pub(crate) merging: tokio::sync::Mutex<()>,
    pub(crate) history: crate::history::History,
    /// Woken by each commit, for background work.
    pub(crate) committed: tokio::sync::Notify,
    _lock: Option<File>,
}

/// Objects that something in progress needs.
#[derive(Debug)]
pub(crate) struct Pin {
    pub purpose: Purpose,
    pub objects: BTreeSet<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Upload,
    Merge,
    Import,
    Held,
}

#[derive(Debug)]
pub(crate) struct State {
    pub next_number: u64,
    pub reserved: Epoch,
    /// The last epoch that may have been used before `rebase`.
    pub left_behind: Option<Epoch>,
    /// What the next checkpoint builds upon; set by `newest` and `rebase`.
    pub base: Option<Arc<Manifest>>,
    /// Length of the base's catalog as JSON.
    pub catalog_bytes: usize,
    /// Retained, oldest first.
    pub checkpoints: Vec<Known>,
    pub skipped: Vec<Skipped>,
    pub savepoints: BTreeMap<String, Arc<Manifest>>,
    pub broken_savepoints: BTreeMap<String, CheckpointError>,
    pub manifest_files: BTreeSet<u64>,
    /// When the newest of them were written; all others were there when the storage was opened.
    pub written: VecDeque<(u64, Instant)>,
    pub opened: Instant,
    /// Every run object that exists, as far as this server knows.
    pub run_objects: BTreeMap<Arc<str>, u64>,
    /// Something could not be read at opening: objects from before are not deleted, it may need them.
    pub keep_older_objects: bool,
    pub pins: BTreeMap<u64, Pin>,
    pub merges: Vec<FinishedMerge>,
    pub taken_over_by: Option<u64>,
    pub next_serial: u64,
    pub last_checkpoint: CheckpointId,
    pub last_committed: CheckpointId,
}

/// Keeps the runs of a manifest while it lives.
#[derive(Debug)]
pub struct Held {
    store: Arc<CheckpointStore>,
    pin: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.state.lock().pins.remove(&self.pin);
    }
}

impl CheckpointStore {
    /// Keeps the runs of a manifest that is retained now, whatever becomes of it.
    pub fn hold(self: &Arc<Self>, manifest: &Manifest) -> Held {
        let pin = self.state.lock().pin(Purpose::Held, manifest.objects());
        Held {
            store: self.clone(),
            pin,
        }
    }

    /// Claims the storage. Whoever had it before cannot commit from then on.
    pub async fn open(
        storage: Storage,
        options: StoreOptions,
        handle: Handle,
    ) -> Result<Arc<Self>> {
        let lock = match storage.try_lock()? {
            LockOutcome::Locked(file) => Some(file),
            LockOutcome::NotLockable => None,
            LockOutcome::HeldByAnother => {
                return Err(CheckpointError::InUse {
                    location: storage.location().to_owned(),
                });
            }
        };
        // Read first: a server that cannot read the storage must not stop the one that can.
        let mut inventory = Inventory::read(&storage).await?;
        let generation = claim(&storage).await?;
        let mut start_epoch = None;
        for attempt in 1..=OPENING_ATTEMPTS {
            if inventory::last_number(&storage).await? != inventory.last_number {
                inventory = Inventory::read(&storage).await?;
            }
            match place_fence(&storage, generation, &mut inventory).await {
                Ok(first) => {
                    start_epoch = Some(first);
                    break;
                }
                Err(StorageError::Conflict { .. }) => {
                    check_generation(&storage, generation).await?;
                    tokio::time::sleep(OPENING_DELAY * attempt).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
        let Some(start_epoch) = start_epoch else {
            return Err(CheckpointError::InUse {
                location: storage.location().to_owned(),
            });
        };
        check_generation(&storage, generation).await?;
        tracing::info!(
            location = storage.location(),
            generation,
            epoch = start_epoch.0,
            "claimed checkpoint storage"
        );
        let history = crate::history::History::load(&storage, generation).await?;
        let state = State::new(inventory, history.newest());
        Ok(Arc::new(Self {
            storage,
            handle,
            generation,
            start_epoch,
            options: Mutex::new(options),
            writing: tokio::sync::Mutex::new(()),
            state: Mutex::new(state),
            merging: tokio::sync::Mutex::new(()),
            history,
            committed: tokio::sync::Notify::new(),
            _lock: lock,
        }))
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The first epoch that no server has used on this storage, nor this one before it went back to a savepoint.
    pub fn start_epoch(&self) -> Epoch {
        let state = self.state.lock();
        self.start_epoch
            .max(state.left_behind.map_or(Epoch::default(), Epoch::next))
    }

    /// The last epoch that may be used now. See [`Self::reserve_epochs`].
    pub fn reserved_epoch(&self) -> Epoch {
        self.state.lock().reserved
    }

    /// Makes sure that `epoch` may be used. Commits move the reservation along, so that this seldom writes anything.
    pub async fn reserve_epochs(&self, epoch: Epoch) -> Result<()> {
        let _writing = self.writing.lock().await;
        while self.state.lock().reserved < epoch {
            let reserved = Epoch(self.state.lock().reserved.0 + EPOCH_BLOCK);
            let retained = self.state.lock().restorable();
            self.append(|number| {
                file(
                    number,
                    self.generation,
                    reserved,
                    retained,
                    Content::Fence {},
                )
            })
            .await?;
        }
        Ok(())
    }

    pub fn set_retained(&self, retained: usize) {
        self.options.lock().retained = retained.max(1);
    }

    pub fn set_history(&self, history: Option<Duration>) {
        self.options.lock().history = history;
    }

    /// A number for the next checkpoint: above all that are known of.
    pub fn next_checkpoint(&self) -> CheckpointId {
        CheckpointId(self.state.lock().last_checkpoint.0 + 1)
    }

    /// The newest usable checkpoint, which also becomes what the next one builds upon. Whatever was begun is aborted.
    ///
    /// Fails when there are checkpoints but none is usable: starting empty would not be recovery.
    pub fn newest(&self) -> Result<Recovery> {
        let mut state = self.state.lock();
        state.pins.retain(|_, pin| pin.purpose != Purpose::Upload);
        let newest = state.checkpoints.last().map(|k| k.manifest.clone());
        if newest.is_none()
            && let Some(skipped) = state.skipped.first()
        {
            return Err(skipped.cause.clone());
        }
        state.set_base(newest.clone());
        Ok(Recovery {
            manifest: newest,
            skipped: state.skipped.clone(),
        })
    }

    /// Reports that a checkpoint cannot be restored. `newest` then returns an older one.
    pub fn reject(&self, manifest: &Manifest, cause: CheckpointError) {
        let mut state = self.state.lock();
        state
            .checkpoints
            .retain(|k| k.manifest.number != manifest.number);
        state.skipped.push(Skipped {
            number: manifest.number,
            checkpoint: Some(manifest.checkpoint),
            epoch: Some(manifest.epoch),
            cause,
        });
        state.skipped.sort_by_key(|s| std::cmp::Reverse(s.number));
    }

    /// Makes another manifest what the next checkpoint builds upon: rolling back to a savepoint.
    pub fn rebase(&self, manifest: &Arc<Manifest>) {
        let mut state = self.state.lock();
        // Epochs of what is left behind are not used again.
        state.left_behind = Some(state.reserved);
        state.set_base(Some(manifest.clone()));
    }

    /// What the next checkpoint builds upon.
    pub fn base(&self) -> Option<Arc<Manifest>> {
        self.state.lock().base.clone()
    }

    /// Retained checkpoints, newest first.
    pub fn retained(&self) -> Vec<Arc<Manifest>> {
        self.state
            .lock()
            .checkpoints
            .iter()
            .rev()
            .map(|k| k.manifest.clone())
            .collect()
    }

    /// The command log is needed from here on: what the oldest retained checkpoint does not include.
    pub fn oldest_log_position(&self) -> Option<LogPosition> {
        self.state
            .lock()
            .checkpoints
            .iter()
            .map(|k| k.manifest.log_position)
            .min()
    }

    /// Ends with `TakenOver` when another server has claimed the storage since.
    pub async fn check_ownership(&self) -> Result<()> {
        if let Some(by) = self.state.lock().taken_over_by {
            return Err(CheckpointError::TakenOver {
                generation: self.generation,
                by,
            });
        }
        let checked = check_generation(&self.storage, self.generation).await;
        if let Err(CheckpointError::TakenOver { by, .. }) = &checked {
            self.state.lock().taken_over_by = Some(*by);
        }
        checked
    }

    /// Appends a file to the sequence of manifests. The caller holds `writing`.
    ///
    /// Storage that does not answer is asked again for a while, since afterwards nobody but storage knows the outcome.
    pub(crate) async fn append(&self, make: impl FnOnce(u64) -> ManifestFile) -> Result<u64> {
        let (number, taken_over) = {
            let state = self.state.lock();
            (state.next_number, state.taken_over_by)
        };
        if let Some(by) = taken_over {
            return Err(CheckpointError::TakenOver {
                generation: self.generation,
                by,
            });
        }
        let file = make(number);
        let (object, bytes) = (layout::manifest(number), file.to_bytes());
        let deadline = tokio::time::Instant::now() + self.options.lock().resolve_within;
        loop {
            match self.storage.create(&object, bytes.clone()).await {
                Ok(()) => break,
                Err(StorageError::Conflict { .. }) => {
                    return Err(self.lost_number(number, &file).await);
                }
                Err(e @ StorageError::Uncertain { .. })
                    if tokio::time::Instant::now() >= deadline =>
                {
                    return Err(uncertain(&file, e.to_string()));
                }
                Err(StorageError::Uncertain { .. }) => {
                    tokio::time::sleep(Duration::from_millis(500)).await
                }
                Err(e) => return Err(self.given_up(number, &file, e).await),
            }
        }
        {
            let mut state = self.state.lock();
            state.next_number = number + 1;
            state.reserved = file.reserved_epoch;
            state.manifest_files.insert(number);
            state.written.push_back((number, Instant::now()));
        }
        match self.check_ownership().await {
            Ok(()) => Ok(number),
            Err(CheckpointError::Storage(e)) => Err(uncertain(&file, e.to_string())),
            Err(e) => Err(e),
        }
    }

    /// Somebody else has written the number: a newer server, or this one, late, after it had given up.
    async fn lost_number(&self, number: u64, file: &ManifestFile) -> CheckpointError {
        if let Err(e) = self.check_ownership().await {
            return e;
        }
        uncertain(
            file,
            format!("manifest {number} was written by an earlier attempt of this server"),
        )
    }

    /// A transient failure may still take effect later. Taking the number with a fence rules that out.
    async fn given_up(
        &self,
        number: u64,
        file: &ManifestFile,
        error: StorageError,
    ) -> CheckpointError {
        if !error.is_transient() || matches!(file.content, Content::Fence {}) {
            return error.into();
        }
        let fence = ManifestFile {
            content: Content::Fence {},
            ..file.clone()
        };
        match self
            .storage
            .create(&layout::manifest(number), fence.to_bytes())
            .await
        {
            Ok(()) => {
                let mut state = self.state.lock();
                state.next_number = number + 1;
                state.reserved = fence.reserved_epoch;
                state.manifest_files.insert(number);
                state.written.push_back((number, Instant::now()));
                error.into()
            }
            Err(StorageError::Conflict { .. }) => self.lost_number(number, file).await,
            Err(_) => error.into(),
        }
    }

    pub(crate) fn serial(&self) -> u64 {
        self.state.lock().serial()
    }
}

impl State {
    fn new(inventory: Inventory, newest_in_history: CheckpointId) -> Self {
        let known = inventory.checkpoints.iter().map(|k| k.manifest.checkpoint);
        let skipped = inventory.skipped.iter().filter_map(|s| s.checkpoint);
        let saved = inventory.savepoints.values().map(|s| s.checkpoint);
        let last = known
            .chain(skipped)
            .chain(saved)
            .max()
            .unwrap_or_default()
            .max(newest_in_history);
        Self {
            next_number: inventory.last_number + 1,
            reserved: inventory.reserved,
            left_behind: None,
            base: None,
            catalog_bytes: 0,
            keep_older_objects: !inventory.skipped.is_empty()
                || !inventory.broken_savepoints.is_empty(),
            checkpoints: inventory.checkpoints,
            skipped: inventory.skipped,
            savepoints: inventory.savepoints,
            broken_savepoints: inventory.broken_savepoints,
            manifest_files: inventory.manifest_files,
            written: VecDeque::new(),
            opened: Instant::now(),
            run_objects: inventory.run_objects,
            pins: BTreeMap::new(),
            merges: Vec::new(),
            taken_over_by: None,
            next_serial: 0,
            last_checkpoint: last,
            last_committed: last,
        }
    }

    pub fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    pub fn pin(&mut self, purpose: Purpose, objects: BTreeSet<Arc<str>>) -> u64 {
        let id = self.serial();
        self.pins.insert(id, Pin { purpose, objects });
        id
    }

    /// The checkpoints that have not expired, damaged ones too: a fence makes nothing expire.
    pub fn restorable(&self) -> Vec<u64> {
        let checkpoints = self.checkpoints.iter().map(|k| k.manifest.number);
        checkpoints
            .chain(self.skipped.iter().map(|s| s.number))
            .collect()
    }

    pub fn set_base(&mut self, base: Option<Arc<Manifest>>) {
        self.catalog_bytes = base.as_ref().map_or(0, |b| json_bytes(&b.catalog));
        self.base = base;
    }
}

pub(crate) fn json_bytes(value: &serde_json::Value) -> usize {
    serde_json::to_vec(value).map_or(0, |v| v.len())
}

pub(crate) fn file(
    number: u64,
    generation: u64,
    reserved: Epoch,
    retained: Vec<u64>,
    content: Content,
) -> ManifestFile {
    ManifestFile {
        number,
        generation,
        key_groups: KEY_GROUPS,
        codec: CODEC_VERSION,
        created_ms: wall_clock_ms(),
        reserved_epoch: reserved,
        retained,
        content,
    }
}

pub(crate) fn wall_clock_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}

fn uncertain(file: &ManifestFile, cause: String) -> CheckpointError {
    let checkpoint = match &file.content {
        Content::Checkpoint(snapshot) | Content::Savepoint { snapshot, .. } => snapshot.checkpoint,
        Content::Fence {} => CheckpointId::default(),
    };
    CheckpointError::Uncertain { checkpoint, cause }
}

/// Takes the next free generation.
async fn claim(storage: &Storage) -> Result<u64> {
    for attempt in 1..=OPENING_ATTEMPTS {
        let generation = inventory::newest_generation(storage).await? + 1;
        let claim = serde_json::json!({
            "generation": generation,
            "claimed_ms": wall_clock_ms(),
            "process": std::process::id(),
            // Two claims must differ in their bytes, or the loser would take the winner's for its own.
            "claim": format!("{:032x}", unique()),
        });
        match storage
            .create(&layout::generation(generation), claim.to_string().into())
            .await
        {
            Ok(()) => return Ok(generation),
            Err(StorageError::Conflict { .. }) => {
                tokio::time::sleep(OPENING_DELAY * attempt).await;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Err(CheckpointError::InUse {
        location: storage.location().to_owned(),
    })
}

/// Differs between processes and between calls.
pub(crate) fn unique() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let random = || u128::from(RandomState::new().hash_one(SystemTime::now()));
    (random() << 64) | random()
}

/// From here on an older server's commits fail, and the epochs of this one are reserved. Returns the first of them.
async fn place_fence(
    storage: &Storage,
    generation: u64,
    inventory: &mut Inventory,
) -> Result<Epoch, StorageError> {
    let number = inventory.last_number + 1;
    let reserved = Epoch(inventory.reserved.0 + EPOCH_BLOCK);
    let checkpoints = inventory.checkpoints.iter().map(|k| k.manifest.number);
    let retained = checkpoints
        .chain(inventory.skipped.iter().map(|s| s.number))
        .collect();
    let fence = file(number, generation, reserved, retained, Content::Fence {});
    storage
        .create(&layout::manifest(number), fence.to_bytes())
        .await?;
    let first = inventory.reserved.next();
    inventory.last_number = number;
    inventory.manifest_files.insert(number);
    inventory.reserved = reserved;
    Ok(first)
}

async fn check_generation(storage: &Storage, generation: u64) -> Result<()> {
    let by = inventory::newest_generation(storage).await?;
    if by > generation {
        Err(CheckpointError::TakenOver { generation, by })
    } else {
        Ok(())
    }
}

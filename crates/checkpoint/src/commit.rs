//! Taking a checkpoint: begin, upload each worker's runs, commit or abort.
//!
//! 1. [`CheckpointStore::begin`] gives out a token; what is uploaded under it is not deleted.
//! 2. [`CheckpointStore::upload`] encodes and stores the runs that one worker sealed, away from the worker.
//! 3. [`CheckpointStore::commit`] creates the manifest: the commit point. When it returns the checkpoint is durable, and
//!    no other server had taken over. When it fails the checkpoint does not exist, except for
//!    [`CheckpointError::Uncertain`], after which the caller starts again from storage.
//! 4. [`CheckpointStore::clean_up`](crate::CheckpointStore::clean_up) removes what has expired.
//!
//! Checkpoints commit in the order of their numbers; one that was overtaken can only be aborted.

use crate::delta::{self, CHAIN_LENGTH, COMPLETE_BYTES};
use crate::error::{CheckpointError, Result};
use crate::inventory::{EPOCH_BLOCK, Known};
use crate::layout;
use crate::manifest::{
    Content, Manifest, ManifestFile, SavepointDetails, TableDescriptor, TableEntry,
};
use crate::run_file::{ObjectEncoder, RunRef, write_runs};
use crate::store::{
    CheckpointStore, Purpose, State, StoreOptions, file, json_bytes, wall_clock_ms,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_state::Run;
use tidegate_types::{CheckpointId, Epoch, LogPosition, RelationId, TableId, WorkerId};

/// A checkpoint that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingCheckpoint {
    pub checkpoint: CheckpointId,
    pub epoch: Epoch,
    pub(crate) pin: u64,
}

/// What a worker's part of a checkpoint became.
#[derive(Debug, Clone)]
pub struct UploadedRuns {
    pub worker: WorkerId,
    /// `None`: nothing had changed.
    pub object: Option<Arc<str>>,
    pub runs: Vec<(TableId, RunRef)>,
    pub bytes: u64,
    pub encoding: Duration,
    pub writing: Duration,
}

/// What a checkpoint consists of besides the runs of earlier ones.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The barrier's time.
    pub time_ms: i64,
    pub log_position: LogPosition,
    pub catalog: Arc<serde_json::Value>,
    /// Every state table there is. What is not listed is no longer part of the database.
    pub tables: Vec<TableDescriptor>,
    /// Of all workers.
    pub uploads: Vec<UploadedRuns>,
    pub sink_tokens: BTreeMap<RelationId, Vec<u8>>,
    /// Relations that began anew: what earlier checkpoints hold of them is of no use to this one.
    pub replaced: BTreeSet<RelationId>,
    /// Tables that [`CheckpointStore::rewrite`] has written anew: runs of earlier checkpoints are not referred to.
    pub rewritten: BTreeSet<TableId>,
}

impl CheckpointStore {
    /// Begins a checkpoint with a number above every earlier one, at a reserved epoch.
    pub fn begin(&self, checkpoint: CheckpointId, epoch: Epoch) -> Result<PendingCheckpoint> {
        let mut state = self.state.lock();
        if checkpoint <= state.last_checkpoint {
            let last = state.last_checkpoint;
            return Err(CheckpointError::OutOfOrder(format!(
                "checkpoint {checkpoint} begins after {last}"
            )));
        }
        if epoch > state.reserved {
            let reserved = state.reserved;
            return Err(CheckpointError::OutOfOrder(format!(
                "epoch {epoch} is above the reserved {reserved}"
            )));
        }
        state.last_checkpoint = checkpoint;
        let pin = state.pin(Purpose::Upload, BTreeSet::new());
        Ok(PendingCheckpoint {
            checkpoint,
            epoch,
            pin,
        })
    }

    /// Stores the runs that a worker sealed for this checkpoint, as one object.
    pub async fn upload(
        &self,
        pending: &PendingCheckpoint,
        worker: WorkerId,
        runs: Vec<Run>,
    ) -> Result<UploadedRuns> {
        if runs.is_empty() {
            let none = Duration::ZERO;
            return Ok(UploadedRuns {
                worker,
                object: None,
                runs: vec![],
                bytes: 0,
                encoding: none,
                writing: none,
            });
        }
        let checkpoint = pending.checkpoint;
        let object = layout::checkpoint_run(self.generation(), self.serial(), checkpoint, worker);
        {
            // Known and pinned before it exists, so that it can neither be deleted too early nor forgotten.
            let mut state = self.state.lock();
            state
                .pins
                .get_mut(&pending.pin)
                .ok_or_else(|| gone(checkpoint))?
                .objects
                .insert(object.clone());
            state.run_objects.insert(object.clone(), 0);
        }
        let started = Instant::now();
        let (name, handle) = (object.clone(), self.handle.clone());
        let mut writer = self.storage.writer(&object);
        let encoder = ObjectEncoder::new(self.storage.buffers().block_bytes);
        // What is encoded is written as it comes: neither the runs nor their encoding need be in memory whole.
        let written = self.handle.spawn_blocking(move || {
            let mut writing = Duration::ZERO;
            let (bytes, runs) = write_runs(encoder, &name, checkpoint, runs, &mut |chunk| {
                let started = Instant::now();
                handle.block_on(writer.write(chunk))?;
                writing += started.elapsed();
                Ok(())
            })?;
            let started = Instant::now();
            handle.block_on(writer.finish())?;
            Ok::<_, CheckpointError>((bytes, runs, writing + started.elapsed()))
        });
        let written = written.await.map_err(|e| {
            CheckpointError::OutOfOrder(format!("encoding runs was cut short: {e}"))
        })?;
        let (bytes, runs, writing) = written?;
        self.state.lock().run_objects.insert(object.clone(), bytes);
        Ok(UploadedRuns {
            worker,
            object: Some(object),
            runs,
            bytes,
            encoding: started.elapsed().saturating_sub(writing),
            writing,
        })
    }

    /// Makes the checkpoint exist. See the module for what each outcome means.
    pub async fn commit(
        &self,
        pending: PendingCheckpoint,
        commit: Commit,
    ) -> Result<Arc<Manifest>> {
        let _writing = self.writing.lock().await;
        let plan = self.plan_commit(&pending, commit)?;
        let Plan {
            mut manifest,
            base,
            considered,
            catalog_bytes,
        } = plan;
        let (relative, retained) = {
            let state = self.state.lock();
            let relative =
                state.relative_base(base.as_ref(), estimated_bytes(&manifest) + catalog_bytes);
            let options = self.options.lock();
            let retained = state.retained_with(relative.as_ref(), &options, manifest.time_ms);
            (relative, retained)
        };
        let snapshot = delta::snapshot(&manifest, relative.as_ref().map(|k| &*k.manifest));
        let (generation, reserved, created_ms) = (
            manifest.generation,
            manifest.reserved_epoch,
            manifest.created_ms,
        );
        let content = Content::Checkpoint(Box::new(snapshot));
        let stays = retained.clone();
        let make = |number| ManifestFile {
            created_ms,
            ..file(number, generation, reserved, stays, content)
        };
        let number = self.append(make).await?;
        manifest.number = number;
        let manifest = Arc::new(manifest);
        let mut chain = relative.map(|k| k.chain).unwrap_or_default();
        chain.push(number);
        let mut state = self.state.lock();
        if state.pins.remove(&pending.pin).is_none() {
            // Recovery began meanwhile, from an older checkpoint: this one expires unused.
            return Err(gone(pending.checkpoint));
        }
        state
            .checkpoints
            .retain(|k| retained.contains(&k.manifest.number));
        state.checkpoints.push(Known {
            manifest: manifest.clone(),
            chain,
        });
        state.skipped.clear();
        state.keep_older_objects = !state.broken_savepoints.is_empty();
        // Those that did not fit will not fit later either: their inputs are gone.
        state.merges.retain(|m| !considered.contains(&m.id));
        state.last_committed = manifest.checkpoint;
        state.catalog_bytes = catalog_bytes;
        state.base = Some(manifest.clone());
        drop(state);
        self.committed.notify_one();
        Ok(manifest)
    }

    /// Gives the checkpoint up; what was uploaded for it goes with the next `clean_up`.
    pub fn abort(&self, pending: PendingCheckpoint) {
        self.state.lock().pins.remove(&pending.pin);
    }

    /// The manifest that the commit would write, from the base, the uploads and finished merges.
    fn plan_commit(&self, pending: &PendingCheckpoint, commit: Commit) -> Result<Plan> {
        let state = self.state.lock();
        let checkpoint = pending.checkpoint;
        if !state.pins.contains_key(&pending.pin) {
            return Err(gone(checkpoint));
        }
        if checkpoint <= state.last_committed {
            let last = state.last_committed;
            return Err(CheckpointError::OutOfOrder(format!(
                "checkpoint {checkpoint} cannot follow {last}"
            )));
        }
        let base = state.base.clone();
        let bytes_written = commit.uploads.iter().map(|u| u.bytes).sum();
        let mut uploaded = uploaded_runs(commit.uploads);
        let mut tables = BTreeMap::new();
        for descriptor in commit.tables {
            let id = descriptor.table;
            let is_replaced =
                commit.replaced.contains(&descriptor.relation) || commit.rewritten.contains(&id);
            let old = base
                .as_ref()
                .filter(|_| !is_replaced)
                .and_then(|b| b.tables.get(&id));
            let new = uploaded.remove(&id);
            let entry = match (old, new) {
                (Some(old), None) if old.descriptor == descriptor => old.clone(),
                (old, new) => {
                    let mut runs = old.map(|o| o.runs.clone()).unwrap_or_default();
                    runs.extend(new.unwrap_or_default());
                    Arc::new(TableEntry { descriptor, runs })
                }
            };
            tables.insert(id, entry);
        }
        if let Some(id) = uploaded.keys().next() {
            return Err(CheckpointError::OutOfOrder(format!(
                "runs of table {id} were uploaded, which is not listed"
            )));
        }
        let considered = state.merges.iter().map(|m| m.id).collect();
        state.merges.iter().for_each(|merge| {
            merge.apply(&mut tables);
        });
        let same_catalog = base.as_ref().is_some_and(|b| b.catalog == commit.catalog);
        let catalog_bytes = if same_catalog {
            state.catalog_bytes
        } else {
            json_bytes(&commit.catalog)
        };
        let manifest = Manifest {
            number: 0,
            generation: self.generation(),
            savepoint: None,
            checkpoint,
            epoch: pending.epoch,
            time_ms: commit.time_ms,
            created_ms: wall_clock_ms(),
            log_position: commit.log_position,
            reserved_epoch: state.reserved.max(Epoch(pending.epoch.0 + EPOCH_BLOCK)),
            catalog: commit.catalog,
            tables,
            sink_tokens: commit.sink_tokens,
            bytes_written,
            details: SavepointDetails::default(),
        };
        Ok(Plan {
            manifest,
            base,
            considered,
            catalog_bytes,
        })
    }
}

struct Plan {
    manifest: Manifest,
    base: Option<Arc<Manifest>>,
    /// Ids of the merges that were applied, or could not be.
    considered: BTreeSet<u64>,
    catalog_bytes: usize,
}

fn gone(checkpoint: CheckpointId) -> CheckpointError {
    CheckpointError::OutOfOrder(format!("checkpoint {checkpoint} was aborted"))
}

/// Per table in the order of workers, so that equal checkpoints have equal manifests.
fn uploaded_runs(mut uploads: Vec<UploadedRuns>) -> HashMap<TableId, Vec<RunRef>> {
    uploads.sort_by_key(|u| u.worker);
    let mut tables: HashMap<TableId, Vec<RunRef>> = HashMap::new();
    for (table, run) in uploads.into_iter().flat_map(|u| u.runs) {
        tables.entry(table).or_default().push(run);
    }
    tables
}

/// Roughly the size of the manifest as a complete file, without its catalog.
fn estimated_bytes(manifest: &Manifest) -> usize {
    let run = |r: &RunRef| 160 + 40 * r.blocks.len();
    manifest
        .tables
        .values()
        .map(|t| 250 + t.runs.iter().map(run).sum::<usize>())
        .sum()
}

impl State {
    /// What the next file should be relative to; `None`: it is to be complete.
    fn relative_base(&self, base: Option<&Arc<Manifest>>, complete_bytes: usize) -> Option<Known> {
        if complete_bytes <= COMPLETE_BYTES {
            return None;
        }
        let base = base?;
        let known = self
            .checkpoints
            .iter()
            .find(|k| k.manifest.number == base.number && base.savepoint.is_none())?;
        (known.chain.len() < CHAIN_LENGTH).then(|| known.clone())
    }

    /// Which of the present checkpoints stay beside a new one.
    ///
    /// While all that would stay rest on one complete file, the newest that rests on another one stays too: damage to
    /// a single object must not cost all checkpoints.
    fn retained_with(
        &self,
        relative: Option<&Known>,
        options: &StoreOptions,
        now_ms: i64,
    ) -> Vec<u64> {
        let by_number = options.retained.saturating_sub(1);
        let by_age = options.history.map_or(0, |history| {
            let begin = now_ms.saturating_sub(history.as_millis() as i64);
            let old = |k: &&Known| k.manifest.time_ms <= begin;
            let newest_old = self.checkpoints.iter().rposition(|k| old(&k));
            self.checkpoints.len() - newest_old.unwrap_or(0)
        });
        let stay = by_number.max(by_age).min(self.checkpoints.len());
        let (expiring, staying) = self.checkpoints.split_at(self.checkpoints.len() - stay);
        let mut numbers: Vec<u64> = staying.iter().map(|k| k.manifest.number).collect();
        if let Some(relative) = relative {
            let root = relative.chain[0];
            if staying.iter().all(|k| k.chain[0] == root)
                && let Some(other) = expiring.iter().rev().find(|k| k.chain[0] != root)
            {
                numbers.insert(0, other.manifest.number);
            }
        }
        numbers
    }
}

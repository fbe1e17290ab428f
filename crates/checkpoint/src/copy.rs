//! Copying a manifest's runs to another storage, block by block, each verified on the way.
//!
//! Only what the manifest refers to is copied, into new objects: neither what else was in the old ones nor anything that
//! was altered since it was written comes along. A savepoint that was copied is complete in its new place, where no server
//! owns it. [`CheckpointStore::import`] is the way back: into a storage that a server owns.

use crate::delta;
use crate::error::{CheckpointError, Result, StorageError};
use crate::inventory::{EPOCH_BLOCK, Known};
use crate::layout;
use crate::manifest::{Content, Manifest, ManifestFile, SavepointDetails, TableEntry};
use crate::restore::Restorer;
use crate::run_file::{ObjectEncoder, RunRef, empty_reference, verify_block};
use crate::storage::{ObjectWriter, Storage};
use crate::store::{CheckpointStore, Purpose, file, unique, wall_clock_ms};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_types::{Epoch, LogPosition, TableId};

/// Objects end at a run's end once they have grown to so much.
const OBJECT_BYTES: u64 = 256 << 20;
/// What is copied goes out in pieces of about this size.
const WRITE_BYTES: usize = 4 << 20;

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyProgress {
    pub bytes: u64,
    pub bytes_total: u64,
    pub tables: usize,
    pub tables_total: usize,
}

/// Told now and then how far a copy is.
pub type OnProgress<'a> = &'a mut (dyn FnMut(CopyProgress) + Send);

/// Makes a savepoint of this name at another storage, complete and independent of where it came from. A portable form that
/// the manifest names has to be there already.
pub async fn copy_savepoint(
    from: &Arc<Restorer>,
    manifest: &Manifest,
    to: &Storage,
    name: &str,
    progress: OnProgress<'_>,
) -> Result<Arc<Manifest>> {
    let invalid = |cause| CheckpointError::SavepointName {
        name: name.to_owned(),
        cause,
    };
    let object = layout::savepoint(name).map_err(invalid)?;
    if to.exists(&object).await? {
        return Err(CheckpointError::SavepointExists(name.to_owned()));
    }
    let folder = layout::copied_runs(name, unique() as u64).map_err(invalid)?;
    let mut written = Vec::new();
    let next = |written: &mut Vec<String>| {
        let object = format!("{folder}/{:06}.run", written.len());
        written.push(object.clone());
        object.into()
    };
    let copied = async {
        let tables = copy_tables(from, manifest, to, progress, &mut || next(&mut written)).await?;
        let copy = Manifest {
            savepoint: Some(name.to_owned()),
            tables,
            details: SavepointDetails {
                place: None,
                ..manifest.details.clone()
            },
            ..manifest.clone()
        };
        to.create(&object, savepoint_file(&copy, name).to_bytes())
            .await?;
        Ok(Arc::new(copy))
    };
    let copied: Result<Arc<Manifest>> = copied.await;
    match copied {
        Err(CheckpointError::Storage(StorageError::Conflict { .. })) => {
            to.delete(&written).await?;
            Err(CheckpointError::SavepointExists(name.to_owned()))
        }
        // Whether the savepoint is there nobody knows: then its runs have to stay.
        Err(error @ CheckpointError::Storage(StorageError::Uncertain { .. })) => Err(error),
        Err(error) => {
            if let Err(error) = to.delete(&written).await {
                tracing::warn!(%error, "what was copied in vain could not be removed");
            }
            Err(error)
        }
        copied => copied,
    }
}

/// The file of a complete savepoint.
pub(crate) fn savepoint_file(manifest: &Manifest, name: &str) -> ManifestFile {
    let content = Content::Savepoint {
        name: name.to_owned(),
        snapshot: Box::new(delta::snapshot(manifest, None)),
        details: manifest.details.clone(),
    };
    ManifestFile {
        created_ms: manifest.created_ms,
        ..file(
            manifest.number,
            manifest.generation,
            manifest.reserved_epoch,
            Vec::new(),
            content,
        )
    }
}

/// Copies all runs into objects that `next_object` names.
async fn copy_tables(
    from: &Arc<Restorer>,
    manifest: &Manifest,
    to: &Storage,
    progress: OnProgress<'_>,
    next_object: &mut (dyn FnMut() -> Arc<str> + Send),
) -> Result<BTreeMap<TableId, Arc<TableEntry>>> {
    let mut copier = Copier {
        from,
        to,
        open: None,
        progress: CopyProgress {
            bytes_total: manifest.bytes(),
            tables_total: manifest.tables.len(),
            ..CopyProgress::default()
        },
    };
    let mut tables = BTreeMap::new();
    for (id, entry) in &manifest.tables {
        let mut runs = Vec::with_capacity(entry.runs.len());
        for run in &entry.runs {
            runs.push(copier.copy(run, next_object, progress).await?);
        }
        copier.progress.tables += 1;
        let descriptor = entry.descriptor.clone();
        tables.insert(*id, Arc::new(TableEntry { descriptor, runs }));
    }
    copier.finish().await?;
    progress(copier.progress);
    Ok(tables)
}

struct Copier<'a> {
    from: &'a Arc<Restorer>,
    to: &'a Storage,
    open: Option<Open>,
    progress: CopyProgress,
}

/// The object that is being written.
struct Open {
    object: Arc<str>,
    runs: u32,
    bytes: u64,
    encoder: ObjectEncoder,
    writer: ObjectWriter,
}

impl Copier<'_> {
    async fn copy(
        &mut self,
        run: &RunRef,
        next_object: &mut (dyn FnMut() -> Arc<str> + Send),
        progress: OnProgress<'_>,
    ) -> Result<RunRef> {
        if self.open.as_ref().is_some_and(|o| o.bytes >= OBJECT_BYTES) {
            self.finish().await?;
        }
        let open = self.open.get_or_insert_with(|| {
            let object = next_object();
            Open {
                runs: 0,
                bytes: 0,
                encoder: ObjectEncoder::new(self.to.buffers().block_bytes),
                writer: self.to.writer(&object),
                object,
            }
        });
        let mut reference = empty_reference(&open.object, open.runs, run.checkpoint);
        reference.tombstones = run.tombstones;
        open.runs += 1;
        for block in &run.blocks {
            let bytes = self.from.fetch(&run.object, block).await?;
            verify_block(&run.object, block, &bytes)?;
            open.encoder.copy_block(block, &bytes, &mut reference);
            open.bytes += block.bytes;
            self.progress.bytes += block.bytes;
            if open.encoder.pending() >= WRITE_BYTES {
                open.writer.write(open.encoder.take().into()).await?;
                progress(self.progress);
            }
        }
        Ok(reference)
    }

    async fn finish(&mut self) -> Result<()> {
        if let Some(mut open) = self.open.take() {
            open.writer.write(open.encoder.finish().into()).await?;
            open.writer.finish().await?;
        }
        Ok(())
    }
}

/// Removes a savepoint that was copied to this storage: first what makes it exist, then what it consists of.
pub async fn remove_copy(at: &Storage, name: &str, manifest: Option<&Manifest>) -> Result<()> {
    let object = layout::savepoint(name).map_err(|cause| CheckpointError::SavepointName {
        name: name.to_owned(),
        cause,
    })?;
    at.delete(&[object]).await?;
    let Some(manifest) = manifest else {
        return Ok(());
    };
    // What a server's own generations wrote is that server's to delete.
    let copied = |o: &Arc<str>| layout::generation_of_run(o).is_none();
    let mut objects: Vec<String> = manifest
        .objects()
        .into_iter()
        .filter(copied)
        .map(|o| o.to_string())
        .collect();
    if let Some(portable) = &manifest.details.portable {
        objects.extend(at.list(portable).await?.into_iter().map(|l| l.object));
    }
    Ok(at.delete(&objects).await?)
}

impl CheckpointStore {
    /// Copies what a manifest of another storage refers to into this one. The manifest that comes back can be restored
    /// and built upon here; until it is the base of a checkpoint, or one itself ([`CheckpointStore::adopt`]), its runs
    /// are held by the pin that comes with it.
    pub async fn import(
        &self,
        from: &Arc<Restorer>,
        manifest: &Manifest,
        progress: OnProgress<'_>,
    ) -> Result<Arc<Manifest>> {
        self.check_ownership().await?;
        let pin = self.state.lock().pin(Purpose::Import, BTreeSet::new());
        let mut next = || {
            let mut state = self.state.lock();
            let serial = state.serial();
            let object = layout::imported_run(self.generation(), serial);
            state.run_objects.insert(object.clone(), 0);
            if let Some(pin) = state.pins.get_mut(&pin) {
                pin.objects.insert(object.clone());
            }
            object
        };
        let copied = copy_tables(from, manifest, &self.storage, progress, &mut next).await;
        let tables = match copied {
            Ok(tables) => tables,
            Err(error) => {
                self.state.lock().pins.remove(&pin);
                return Err(error);
            }
        };
        let mut state = self.state.lock();
        for run in tables.values().flat_map(|t| &t.runs) {
            let end = run.blocks.last().map_or(0, |b| b.offset + b.bytes);
            let size = state.run_objects.entry(run.object.clone()).or_default();
            *size = (*size).max(end);
        }
        // One import at a time is enough: what an earlier one brought is in use by now, or given up.
        state
            .pins
            .retain(|id, p| *id == pin || p.purpose != Purpose::Import);
        Ok(Arc::new(Manifest {
            generation: self.generation(),
            reserved_epoch: state.reserved,
            tables,
            details: SavepointDetails::default(),
            ..manifest.clone()
        }))
    }

    /// Makes an imported manifest the newest checkpoint, as of this position of the command log. Durable when it returns.
    pub async fn adopt(&self, manifest: &Manifest, position: LogPosition) -> Result<Arc<Manifest>> {
        let _writing = self.writing.lock().await;
        let (checkpoint, reserved, retained) = {
            let mut state = self.state.lock();
            // Its own number where that is free: rows that its barrier had overtaken are found by it.
            let next = tidegate_types::CheckpointId(state.last_checkpoint.0 + 1);
            let checkpoint = next.max(manifest.checkpoint);
            state.last_checkpoint = checkpoint;
            // Epochs go on behind those that the savepoint has seen.
            let above = Epoch(manifest.epoch.0 + EPOCH_BLOCK);
            (checkpoint, state.reserved.max(above), state.restorable())
        };
        let mut adopted = Manifest {
            savepoint: None,
            checkpoint,
            created_ms: wall_clock_ms(),
            log_position: position,
            reserved_epoch: reserved,
            bytes_written: manifest.bytes(),
            generation: self.generation(),
            details: SavepointDetails::default(),
            ..manifest.clone()
        };
        let content = Content::Checkpoint(Box::new(delta::snapshot(&adopted, None)));
        let (generation, created_ms) = (self.generation(), adopted.created_ms);
        let make = |number| ManifestFile {
            created_ms,
            ..file(number, generation, reserved, retained, content)
        };
        let number = self.append(make).await?;
        adopted.number = number;
        let adopted = Arc::new(adopted);
        let mut state = self.state.lock();
        state.checkpoints.push(Known {
            manifest: adopted.clone(),
            chain: vec![number],
        });
        state.last_committed = checkpoint;
        // Epochs that the savepoint has seen are not used again.
        state.left_behind = state.left_behind.max(Some(adopted.epoch));
        state.set_base(Some(adopted.clone()));
        Ok(adopted)
    }
}

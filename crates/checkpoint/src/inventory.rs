//! What is in storage: read once at opening, kept up to date by the store afterwards.
//!
//! Reading never alters anything. A file that cannot be read is reported with its reason, and never makes another one
//! look complete; storage that is unavailable, and files of a newer version, fail the whole reading.

use crate::delta;
use crate::error::{CheckpointError, Damage, Result, StorageError};
use crate::layout;
use crate::manifest::{Content, Manifest, ManifestFile};
use crate::storage::{Listed, Storage};
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tidegate_types::{CheckpointId, Epoch};

const PARALLEL_READS: usize = 16;

/// A server reserves so many epochs beyond the newest it knows of, and no manifest file moves the reservation further.
pub(crate) const EPOCH_BLOCK: u64 = 1 << 20;

/// A checkpoint that can be restored as far as is known.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub manifest: Arc<Manifest>,
    /// The manifest files that it is read from, the complete one first, its own last.
    pub chain: Vec<u64>,
}

/// A checkpoint that was passed over, and why.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// The number of its manifest file.
    pub number: u64,
    /// `None` when not even the manifest can be read.
    pub checkpoint: Option<CheckpointId>,
    pub epoch: Option<Epoch>,
    pub cause: CheckpointError,
}

#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub last_number: u64,
    pub reserved: Epoch,
    /// Oldest first.
    pub checkpoints: Vec<Known>,
    /// Newest first.
    pub skipped: Vec<Skipped>,
    pub savepoints: BTreeMap<String, Arc<Manifest>>,
    pub broken_savepoints: BTreeMap<String, CheckpointError>,
    pub manifest_files: BTreeSet<u64>,
    pub run_objects: BTreeMap<Arc<str>, u64>,
}

/// The newest generation that was claimed; 0: none.
pub(crate) async fn newest_generation(storage: &Storage) -> Result<u64, StorageError> {
    let listed = storage.list(layout::GENERATIONS).await?;
    Ok(listed
        .iter()
        .filter_map(|l| layout::number_of(&l.object))
        .max()
        .unwrap_or(0))
}

pub(crate) async fn last_number(storage: &Storage) -> Result<u64, StorageError> {
    let listed = storage.list(layout::MANIFESTS).await?;
    Ok(listed
        .iter()
        .filter_map(|l| layout::number_of(&l.object))
        .max()
        .unwrap_or(0))
}

impl Inventory {
    pub async fn read(storage: &Storage) -> Result<Self> {
        let manifests = storage.list(layout::MANIFESTS).await?;
        let mut files = read_files(storage, &manifests).await?;
        let run_objects: BTreeMap<Arc<str>, u64> = storage
            .list(layout::RUNS)
            .await?
            .into_iter()
            .map(|l| (l.object.into(), l.bytes))
            .collect();
        let copies = |object: &Arc<str>| layout::generation_of_run(object).is_none();
        let has_runs = !run_objects.keys().all(copies);
        if files.is_empty() && has_runs {
            // Another server may have begun since, with a manifest first.
            let manifests = storage.list(layout::MANIFESTS).await?;
            files = read_files(storage, &manifests).await?;
        }
        let numbers: BTreeSet<u64> = files.keys().copied().collect();
        if numbers.is_empty() && has_runs {
            let what = "there are run objects but no manifest".to_owned();
            return Err(Damage {
                object: layout::MANIFESTS.into(),
                offset: None,
                what,
            }
            .into());
        }
        let mut inventory = Self {
            last_number: numbers.last().copied().unwrap_or(0),
            manifest_files: numbers,
            run_objects,
            ..Self::default()
        };
        inventory.read_savepoints(storage).await?;
        inventory.reserved = inventory.reserved_epoch(&files);
        let candidates = candidates(&files);
        let mut resolved = HashMap::new();
        let numbers: Vec<u64> = files.keys().copied().collect();
        for number in numbers {
            let known = match files.remove(&number).expect("the key was just listed") {
                Ok(file) if matches!(file.content, Content::Fence {}) => continue,
                Ok(file) => resolve(number, &file, &resolved),
                Err(cause) => Err(cause),
            };
            resolved.insert(number, known);
        }
        for number in candidates {
            if let Some(known) = resolved.remove(&number) {
                inventory.place(storage, number, known).await?;
            }
        }
        inventory.skipped.reverse();
        Ok(inventory)
    }

    /// Each file extends the reservation by at most one block, so that unreadable ones can be allowed for.
    fn reserved_epoch(&self, files: &BTreeMap<u64, Result<ManifestFile>>) -> Epoch {
        let unreadable = files.values().rev().take_while(|f| f.is_err()).count() as u64;
        let readable = files
            .values()
            .rev()
            .find_map(|f| f.as_ref().ok())
            .map(|f| f.reserved_epoch);
        let pinned = self.savepoints.values().map(|s| s.reserved_epoch).max();
        Epoch(readable.max(pinned).unwrap_or_default().0 + unreadable * EPOCH_BLOCK)
    }

    /// Sorts a candidate into complete and skipped.
    async fn place(&mut self, storage: &Storage, number: u64, known: Result<Known>) -> Result<()> {
        let known = match known {
            Ok(known) => known,
            Err(cause) => {
                self.skipped.push(Skipped {
                    number,
                    checkpoint: None,
                    epoch: None,
                    cause,
                });
                return Ok(());
            }
        };
        match missing_run(storage, &known.manifest, &self.run_objects).await? {
            None => self.checkpoints.push(known),
            Some(damage) => self.skipped.push(Skipped {
                number,
                checkpoint: Some(known.manifest.checkpoint),
                epoch: Some(known.manifest.epoch),
                cause: damage.into(),
            }),
        }
        Ok(())
    }

    async fn read_savepoints(&mut self, storage: &Storage) -> Result<()> {
        let listed = storage.list(layout::SAVEPOINTS).await?;
        for Listed { object, .. } in listed {
            let bytes = match storage.get(&object).await {
                Ok(bytes) => bytes,
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e.into()),
            };
            let name = layout::savepoint_name(&object).unwrap_or_else(|| object.clone());
            let manifest = match ManifestFile::parse(&object, &bytes) {
                Ok(file) => delta::resolve(&object, &file, None).map_err(CheckpointError::from),
                Err(e) if e.is_damage() => Err(e),
                Err(e) => return Err(e),
            };
            let missing = match &manifest {
                // What lies elsewhere is looked for when it is needed.
                Ok(manifest) if manifest.details.place.is_some() => None,
                Ok(manifest) => missing_run(storage, manifest, &self.run_objects).await?,
                Err(_) => None,
            };
            match (manifest, missing) {
                (Ok(manifest), None) => {
                    self.savepoints.insert(name, Arc::new(manifest));
                }
                (Ok(manifest), Some(damage)) => {
                    // It still pins what is left of it.
                    self.savepoints.insert(name.clone(), Arc::new(manifest));
                    self.broken_savepoints.insert(name, damage.into());
                }
                (Err(cause), _) => {
                    self.broken_savepoints.insert(name, cause);
                }
            }
        }
        Ok(())
    }
}

/// Every manifest file, parsed or with the damage that was found. A file that went away meanwhile is left out.
async fn read_files(
    storage: &Storage,
    listed: &[Listed],
) -> Result<BTreeMap<u64, Result<ManifestFile>>> {
    let numbered: Vec<(u64, String)> = listed
        .iter()
        .filter_map(|l| layout::number_of(&l.object).map(|n| (n, l.object.clone())))
        .collect();
    let reads = futures::stream::iter(numbered.into_iter().map(|(number, object)| async move {
        match storage.get(&object).await {
            Ok(bytes) => match ManifestFile::parse(&object, &bytes) {
                Err(e) if !e.is_damage() => Err(e),
                parsed => Ok(Some((number, parsed))),
            },
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }));
    reads
        .buffered(PARALLEL_READS)
        .try_filter_map(|file| async { Ok(file) })
        .try_collect()
        .await
}

/// What may be restored, oldest first: what the newest readable file says is retained, itself, and what is after it.
fn candidates(files: &BTreeMap<u64, Result<ManifestFile>>) -> Vec<u64> {
    let newest = files
        .iter()
        .rev()
        .find_map(|(number, file)| Some((*number, file.as_ref().ok()?)));
    let Some((newest, file)) = newest else {
        return files.keys().copied().collect();
    };
    let retained: BTreeSet<u64> = file.retained.iter().copied().collect();
    files
        .keys()
        .copied()
        .filter(|n| *n >= newest || retained.contains(n))
        .collect()
}

fn resolve(
    number: u64,
    file: &ManifestFile,
    resolved: &HashMap<u64, Result<Known>>,
) -> Result<Known> {
    let object = layout::manifest(number);
    let relative_to = match &file.content {
        Content::Checkpoint(snapshot) => snapshot.relative_to,
        Content::Savepoint { .. } | Content::Fence {} => None,
    };
    let base = match relative_to {
        None => None,
        Some(base) => match resolved.get(&base) {
            Some(Ok(known)) => Some(known),
            Some(Err(cause)) => {
                let what = format!("it is relative to manifest {base}, and {cause}");
                return Err(Damage {
                    object: object.into(),
                    offset: None,
                    what,
                }
                .into());
            }
            None => {
                let what = format!("it is relative to manifest {base}, which is missing");
                return Err(Damage {
                    object: object.into(),
                    offset: None,
                    what,
                }
                .into());
            }
        },
    };
    let manifest = Arc::new(delta::resolve(&object, file, base.map(|k| &*k.manifest))?);
    let mut chain = base.map(|k| k.chain.clone()).unwrap_or_default();
    chain.push(number);
    Ok(Known { manifest, chain })
}

/// The first run object that is not there or too short. Checksums are verified when runs are read.
async fn missing_run(
    storage: &Storage,
    manifest: &Manifest,
    listed: &BTreeMap<Arc<str>, u64>,
) -> Result<Option<Damage>, StorageError> {
    for entry in manifest.tables.values() {
        for run in &entry.runs {
            let end = run.blocks.last().map_or(0, |b| b.offset + b.bytes);
            let what = match listed.get(&run.object) {
                Some(bytes) if *bytes >= end => continue,
                Some(bytes) => format!("it has {bytes} bytes, and a run in it ends at {end}"),
                // A listing may lag behind.
                None if storage.exists(&run.object).await? => continue,
                None => "it is missing".to_owned(),
            };
            return Ok(Some(Damage {
                object: run.object.clone(),
                offset: None,
                what,
            }));
        }
    }
    Ok(None)
}

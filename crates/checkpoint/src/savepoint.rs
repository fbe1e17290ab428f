//! Savepoints: manifests with a name, which never expire.
//!
//! A savepoint is a complete manifest in a folder of its own. It pins the runs it refers to, whatever becomes of the
//! checkpoint it was made from; only [`CheckpointStore::release`] ends that. One that was copied elsewhere is listed here
//! too, with its place.

use crate::copy::{remove_copy, savepoint_file};
use crate::error::{CheckpointError, Result, StorageError};
use crate::layout;
use crate::manifest::Manifest;
use crate::storage::Storage;
use crate::store::{CheckpointStore, wall_clock_ms};
use std::sync::Arc;

/// A savepoint as listed.
#[derive(Debug, Clone)]
pub struct SavepointInfo {
    pub name: String,
    /// Where it lies, for people.
    pub location: String,
    /// `None` when it cannot be read.
    pub manifest: Option<Arc<Manifest>>,
    /// Why it cannot be restored.
    pub damage: Option<CheckpointError>,
}

impl CheckpointStore {
    /// Fails if the name cannot be used, before anything is done for it.
    pub fn check_savepoint_name(&self, name: &str) -> Result<()> {
        savepoint_object(name)?;
        let state = self.state.lock();
        if state.savepoints.contains_key(name) || state.broken_savepoints.contains_key(name) {
            return Err(CheckpointError::SavepointExists(name.to_owned()));
        }
        Ok(())
    }

    /// Gives a retained checkpoint a name. Durable when it returns.
    pub async fn savepoint(&self, name: &str, checkpoint: &Arc<Manifest>) -> Result<Arc<Manifest>> {
        self.save(name, (**checkpoint).clone()).await
    }

    /// Gives a manifest a name: one of this storage, or of another that its details say. Durable when it returns.
    pub async fn save(&self, name: &str, manifest: Manifest) -> Result<Arc<Manifest>> {
        let object = savepoint_object(name)?;
        self.check_savepoint_name(name)?;
        let saved = Arc::new(Manifest {
            savepoint: Some(name.to_owned()),
            created_ms: wall_clock_ms(),
            ..manifest
        });
        self.pin_savepoint(name, &saved)?;
        let body = savepoint_file(&saved, name);
        let created = self.storage.create(&object, body.to_bytes()).await;
        let outcome = match created {
            Ok(()) => self.check_ownership().await,
            Err(StorageError::Conflict { .. }) => {
                Err(CheckpointError::SavepointExists(name.to_owned()))
            }
            Err(e) => Err(e.into()),
        };
        if let Err(error) = outcome {
            // Unless it is known not to be there, its runs stay: the next opening will find out.
            let absent = !matches!(
                error,
                CheckpointError::Storage(StorageError::Uncertain { .. })
            );
            if absent {
                if matches!(error, CheckpointError::TakenOver { .. }) {
                    self.storage.delete(std::slice::from_ref(&object)).await?;
                }
                self.state.lock().savepoints.remove(name);
            }
            return Err(error);
        }
        Ok(saved)
    }

    /// From here on the savepoint keeps its runs, before it exists and whether or not that succeeds.
    fn pin_savepoint(&self, name: &str, saved: &Arc<Manifest>) -> Result<()> {
        let mut state = self.state.lock();
        let lost = saved
            .objects()
            .into_iter()
            .find(|o| !state.run_objects.contains_key(o))
            .filter(|_| saved.details.place.is_none());
        if let Some(lost) = lost {
            let what = format!(
                "checkpoint {} has expired: \"{lost}\" is gone",
                saved.checkpoint
            );
            return Err(CheckpointError::OutOfOrder(what));
        }
        state.savepoints.insert(name.to_owned(), saved.clone());
        Ok(())
    }

    pub fn savepoints(&self) -> Vec<SavepointInfo> {
        let state = self.state.lock();
        let names: std::collections::BTreeSet<&String> = state
            .savepoints
            .keys()
            .chain(state.broken_savepoints.keys())
            .collect();
        names
            .into_iter()
            .map(|name| SavepointInfo {
                name: name.clone(),
                location: location_of(
                    self.storage.location(),
                    name,
                    state.savepoints.get(name).map(|m| &**m),
                ),
                manifest: state.savepoints.get(name).cloned(),
                damage: state.broken_savepoints.get(name).cloned(),
            })
            .collect()
    }

    /// A savepoint that can be restored.
    pub fn describe_savepoint(&self, name: &str) -> Result<Arc<Manifest>> {
        let state = self.state.lock();
        if let Some(damage) = state.broken_savepoints.get(name) {
            return Err(damage.clone());
        }
        state
            .savepoints
            .get(name)
            .cloned()
            .ok_or_else(|| CheckpointError::SavepointUnknown(name.to_owned()))
    }

    /// Removes a savepoint, wherever it lies. What it shares with checkpoints goes with the next `clean_up` once nothing
    /// needs it.
    pub async fn release(&self, name: &str) -> Result<()> {
        let object = savepoint_object(name)?;
        let (known, manifest) = {
            let state = self.state.lock();
            let manifest = state.savepoints.get(name).cloned();
            let known = manifest.is_some() || state.broken_savepoints.contains_key(name);
            (known, manifest)
        };
        if !known {
            return Err(CheckpointError::SavepointUnknown(name.to_owned()));
        }
        self.check_ownership().await?;
        match manifest.as_ref().and_then(|m| m.details.place.as_deref()) {
            Some(place) => {
                let place = Storage::attach_or_create(place)?;
                remove_copy(&place, name, manifest.as_deref()).await?;
                self.storage.delete(&[object]).await?;
            }
            None => remove_copy(&self.storage, name, manifest.as_deref()).await?,
        }
        let mut state = self.state.lock();
        state.savepoints.remove(name);
        state.broken_savepoints.remove(name);
        Ok(())
    }
}

/// Where a savepoint lies, for people.
pub(crate) fn location_of(storage: &str, name: &str, manifest: Option<&Manifest>) -> String {
    let place = manifest.and_then(|m| m.details.place.as_deref());
    // Options of a location may be secrets.
    let place = place.map_or(storage, |p| p.split('?').next().unwrap_or(p));
    let object = layout::savepoint(name).unwrap_or_default();
    format!("{}/{object}", place.trim_end_matches('/'))
}

fn savepoint_object(name: &str) -> Result<String> {
    layout::savepoint(name).map_err(|cause| CheckpointError::SavepointName {
        name: name.to_owned(),
        cause,
    })
}

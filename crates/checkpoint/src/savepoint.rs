//! Savepoints: manifests with a name, which never expire.
//!
//! A savepoint is a complete manifest in a folder of its own. It pins the runs it refers to, whatever becomes of the
//! checkpoint it was made from; only [`CheckpointStore::release`] ends that.

use crate::delta;
use crate::error::{CheckpointError, Result, StorageError};
use crate::layout;
use crate::manifest::{Content, Manifest, ManifestFile};
use crate::store::{CheckpointStore, file, wall_clock_ms};
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
        let object = savepoint_object(name)?;
        self.check_savepoint_name(name)?;
        let saved = Arc::new(Manifest {
            savepoint: Some(name.to_owned()),
            created_ms: wall_clock_ms(),
            ..(**checkpoint).clone()
        });
        {
            let mut state = self.state.lock();
            if let Some(lost) = saved
                .objects()
                .iter()
                .find(|o| !state.run_objects.contains_key(*o))
            {
                let what = format!(
                    "checkpoint {} has expired: \"{lost}\" is gone",
                    checkpoint.checkpoint
                );
                return Err(CheckpointError::OutOfOrder(what));
            }
            // From here on it keeps its runs, before it exists and whether or not that succeeds.
            state.savepoints.insert(name.to_owned(), saved.clone());
        }
        let snapshot = Box::new(delta::snapshot(&saved, None));
        let content = Content::Savepoint {
            name: name.to_owned(),
            snapshot,
        };
        let body = ManifestFile {
            created_ms: saved.created_ms,
            ..file(
                saved.number,
                saved.generation,
                saved.reserved_epoch,
                Vec::new(),
                content,
            )
        };
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
                location: format!(
                    "{}/{}",
                    self.storage.location(),
                    layout::savepoint(name).unwrap_or_default()
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

    /// Removes a savepoint; its runs go with the next `clean_up` if nothing else needs them.
    pub async fn release(&self, name: &str) -> Result<()> {
        let object = savepoint_object(name)?;
        let known = {
            let state = self.state.lock();
            state.savepoints.contains_key(name) || state.broken_savepoints.contains_key(name)
        };
        if !known {
            return Err(CheckpointError::SavepointUnknown(name.to_owned()));
        }
        self.check_ownership().await?;
        self.storage.delete(&[object]).await?;
        let mut state = self.state.lock();
        state.savepoints.remove(name);
        state.broken_savepoints.remove(name);
        Ok(())
    }
}

fn savepoint_object(name: &str) -> Result<String> {
    layout::savepoint(name).map_err(|cause| CheckpointError::SavepointName {
        name: name.to_owned(),
        cause,
    })
}

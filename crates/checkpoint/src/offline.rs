//! Storage as tools see it: read beside whoever may be using it, without claiming anything.
//!
//! Reading alters nothing, so it is safe at any time; what a running server removes meanwhile is told apart from damage.
//! Whoever wants to delete has to own the storage first ([`CheckpointStore::open`]), which a running server on the same
//! directory refuses, and which ends a server on the same bucket.

use crate::copy::{OnProgress, copy_savepoint, remove_copy};
use crate::error::{CheckpointError, Result};
use crate::inventory::{Inventory, Skipped};
use crate::manifest::Manifest;
use crate::restore::Restorer;
use crate::savepoint::{SavepointInfo, location_of};
use crate::storage::{LockOutcome, Storage};
use crate::store::{CheckpointStore, StoreOptions};
use std::sync::Arc;
use std::time::Duration;
use tidegate_types::CheckpointId;
use tokio::runtime::Handle;

/// What was in a storage when it was read.
#[derive(Debug)]
pub struct Offline {
    storage: Storage,
    inventory: Inventory,
}

/// Whether a server may be using a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUse {
    Yes,
    No,
    /// Buckets have no locks.
    Unknown,
}

impl Offline {
    pub async fn open(storage: Storage) -> Result<Self> {
        let inventory = Inventory::read(&storage).await?;
        Ok(Self { storage, inventory })
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Whether there is anything: neither checkpoints nor savepoints were ever taken here.
    pub fn is_empty(&self) -> bool {
        let i = &self.inventory;
        i.manifest_files.is_empty() && i.savepoints.is_empty() && i.broken_savepoints.is_empty()
    }

    /// Whether a server ever owned this storage; if none did, savepoints were copied here.
    pub fn is_owned(&self) -> bool {
        !self.inventory.manifest_files.is_empty()
    }

    /// Retained checkpoints, newest first.
    pub fn checkpoints(&self) -> Vec<Arc<Manifest>> {
        let known = self.inventory.checkpoints.iter().rev();
        known.map(|k| k.manifest.clone()).collect()
    }

    /// Checkpoints that cannot be restored, newest first.
    pub fn damaged(&self) -> &[Skipped] {
        &self.inventory.skipped
    }

    /// The newest, or the one with this number.
    pub fn checkpoint(&self, id: Option<CheckpointId>) -> Result<Arc<Manifest>> {
        let found = match id {
            None => self.checkpoints().into_iter().next(),
            Some(id) => self.checkpoints().into_iter().find(|m| m.checkpoint == id),
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let damaged = |s: &&Skipped| id.is_none() || s.checkpoint == id;
        if let Some(damaged) = self.inventory.skipped.iter().find(damaged) {
            return Err(damaged.cause.clone());
        }
        Err(CheckpointError::OutOfOrder(match id {
            Some(id) => format!(
                "there is no checkpoint {id} in \"{}\"",
                self.storage.location()
            ),
            None => format!("there is no checkpoint in \"{}\"", self.storage.location()),
        }))
    }

    pub fn savepoints(&self) -> Vec<SavepointInfo> {
        let (whole, broken) = (
            &self.inventory.savepoints,
            &self.inventory.broken_savepoints,
        );
        let mut names: Vec<&String> = whole.keys().chain(broken.keys()).collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|name| SavepointInfo {
                name: name.clone(),
                location: location_of(self.storage.location(), name, whole.get(name).map(|m| &**m)),
                manifest: whole.get(name).cloned(),
                damage: broken.get(name).cloned(),
            })
            .collect()
    }

    /// The savepoint of this name, or the only one.
    pub fn savepoint(&self, name: Option<&str>) -> Result<Arc<Manifest>> {
        let savepoints = self.savepoints();
        let location = self.storage.location();
        let info = match name {
            Some(name) => savepoints.into_iter().find(|s| s.name == name),
            None if savepoints.len() > 1 => {
                let names: Vec<String> = savepoints.into_iter().map(|s| s.name).collect();
                return Err(CheckpointError::OutOfOrder(format!(
                    "there are several savepoints in \"{location}\": {}",
                    names.join(", ")
                )));
            }
            None => savepoints.into_iter().next(),
        };
        match info {
            Some(SavepointInfo {
                damage: Some(damage),
                ..
            }) => Err(damage),
            Some(SavepointInfo {
                manifest: Some(manifest),
                ..
            }) => Ok(manifest),
            _ => Err(match name {
                Some(name) => CheckpointError::SavepointUnknown(name.to_owned()),
                None => {
                    CheckpointError::OutOfOrder(format!("there is no savepoint in \"{location}\""))
                }
            }),
        }
    }

    /// Reads what a manifest refers to, wherever it lies.
    pub fn restorer(&self, manifest: &Manifest) -> Result<Arc<Restorer>> {
        restorer_of(&self.storage, manifest)
    }

    /// Reads and verifies all that a checkpoint or savepoint refers to. What has expired meanwhile is said to have.
    pub async fn verify(&self, manifest: &Manifest) -> Result<()> {
        let verified = self.restorer(manifest)?.verify(manifest).await;
        if let Err(CheckpointError::Damaged(_)) = &verified
            && manifest.savepoint.is_none()
        {
            let now = Inventory::read(&self.storage).await?;
            let number = manifest.number;
            if !now.checkpoints.iter().any(|k| k.manifest.number == number)
                && !now.skipped.iter().any(|s| s.number == number)
            {
                return Err(CheckpointError::OutOfOrder(format!(
                    "checkpoint {} has expired while it was read",
                    manifest.checkpoint
                )));
            }
        }
        verified
    }

    /// Makes a savepoint of a checkpoint or savepoint at another storage.
    pub async fn copy(
        &self,
        manifest: &Manifest,
        to: &Storage,
        name: &str,
        progress: OnProgress<'_>,
    ) -> Result<Arc<Manifest>> {
        let restorer = self.restorer(manifest)?;
        let mut manifest = manifest.clone();
        // Its portable form stays where it is.
        manifest.details.portable = None;
        copy_savepoint(&restorer, &manifest, to, name, progress).await
    }

    /// Whether a server has the storage locked. Told at this moment; it may change at the next.
    pub fn in_use(&self) -> Result<InUse> {
        if !self.is_owned() {
            return Ok(InUse::No);
        }
        Ok(match self.storage.try_lock()? {
            LockOutcome::Locked(_) => InUse::No,
            LockOutcome::HeldByAnother => InUse::Yes,
            LockOutcome::NotLockable => InUse::Unknown,
        })
    }

    /// Removes a savepoint: as the owner of the storage, or from where it was copied to.
    pub async fn delete_savepoint(self, name: &str) -> Result<()> {
        if self.is_owned() {
            let store = self.claim().await?;
            store.release(name).await?;
            store.clean_up().await?;
            return Ok(());
        }
        match self.savepoints().into_iter().find(|s| s.name == name) {
            Some(info) => remove_copy(&self.storage, name, info.manifest.as_deref()).await,
            None => Err(CheckpointError::SavepointUnknown(name.to_owned())),
        }
    }

    /// Removes a checkpoint, as the owner of the storage.
    pub async fn delete_checkpoint(self, id: CheckpointId) -> Result<()> {
        let store = self.claim().await?;
        store.expire(id).await?;
        store.clean_up().await?;
        Ok(())
    }

    async fn claim(self) -> Result<Arc<CheckpointStore>> {
        // Who deletes by hand wants it gone at once.
        let options = StoreOptions {
            listing_lag: Duration::ZERO,
            ..StoreOptions::default()
        };
        CheckpointStore::open(self.storage, options, Handle::current()).await
    }
}

/// Reads what a manifest of this storage refers to, wherever it lies.
pub fn restorer_of(storage: &Storage, manifest: &Manifest) -> Result<Arc<Restorer>> {
    let storage = match &manifest.details.place {
        Some(place) => Storage::attach(place)?,
        None => storage.clone(),
    };
    Ok(Restorer::of(&storage, manifest))
}

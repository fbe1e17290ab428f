//! Deleting what is no longer needed.
//!
//! Needed are: run objects of retained checkpoints, savepoints, the base of the next checkpoint, pending uploads and
//! merges; the manifest files that retained checkpoints are read from; the newest manifest file, which carries the
//! reservation of epochs, and those that a listing may not know of yet. Manifest files go before the runs they refer to, so that a crash in between leaves orphans
//! (which the next opening knows of, and removes), never a checkpoint without its runs. Objects that another generation
//! may still write are not known here and therefore never deleted.

use crate::error::{CheckpointError, Result};
use crate::layout;
use crate::manifest::Content;
use crate::store::{CheckpointStore, State, file};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidegate_types::CheckpointId;

/// How many generation files stay: an old server looks for newer ones, which must not all be gone.
const GENERATIONS_KEPT: u64 = 16;

/// What a clean-up removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub manifests: usize,
    pub run_objects: usize,
    pub bytes: u64,
}

impl CheckpointStore {
    /// Removes expired manifests, and the run objects that nothing needs. May be called, and may fail, at any time.
    pub async fn clean_up(&self) -> Result<Removed> {
        let (manifests, runs) = {
            let mut state = self.state.lock();
            if let Some(by) = state.taken_over_by {
                return Err(CheckpointError::TakenOver {
                    generation: self.generation(),
                    by,
                });
            }
            (
                state.expired_manifests(self.options.lock().listing_lag),
                state.take_unneeded_runs(self.generation()),
            )
        };
        let files: Vec<String> = manifests.iter().map(|n| layout::manifest(*n)).collect();
        let objects: Vec<String> = runs.iter().map(|(object, _)| object.to_string()).collect();
        let outcome = async {
            self.storage.delete(&files).await?;
            self.state
                .lock()
                .manifest_files
                .retain(|n| !manifests.contains(n));
            self.storage.delete(&objects).await
        };
        let outcome = outcome.await;
        if let Err(error) = outcome {
            // Some may be gone and some not: all are tried again next time.
            self.state.lock().run_objects.extend(runs);
            return Err(error.into());
        }
        let bytes = runs.iter().map(|(_, bytes)| bytes).sum();
        Ok(Removed {
            manifests: manifests.len(),
            run_objects: runs.len(),
            bytes,
        })
    }

    /// Takes a checkpoint out of those that are retained, before its time. Durable when it returns; what it alone needed
    /// goes with the next `clean_up`.
    pub async fn expire(&self, checkpoint: CheckpointId) -> Result<()> {
        let _writing = self.writing.lock().await;
        let (retained, reserved) = {
            let state = self.state.lock();
            let numbers = state.numbers_of(checkpoint);
            if numbers.is_empty() {
                return Err(CheckpointError::OutOfOrder(format!(
                    "there is no checkpoint {checkpoint}"
                )));
            }
            let mut retained = state.restorable();
            retained.retain(|n| !numbers.contains(n));
            (retained, state.reserved)
        };
        let generation = self.generation();
        self.append(|number| file(number, generation, reserved, retained, Content::Fence {}))
            .await?;
        let mut state = self.state.lock();
        let numbers = state.numbers_of(checkpoint);
        state
            .checkpoints
            .retain(|k| !numbers.contains(&k.manifest.number));
        state.skipped.retain(|s| !numbers.contains(&s.number));
        let newest = state.checkpoints.last().map(|k| k.manifest.clone());
        state.set_base(newest);
        Ok(())
    }

    /// Removes generation files that no living server can still look for. Called once after opening.
    pub async fn clean_up_generations(&self) -> Result<()> {
        let listed = self.storage.list(layout::GENERATIONS).await?;
        let oldest = self.generation().saturating_sub(GENERATIONS_KEPT);
        let old = |object: &str| layout::number_of(object).is_some_and(|n| n < oldest);
        let files: Vec<String> = listed
            .into_iter()
            .map(|l| l.object)
            .filter(|o| old(o))
            .collect();
        self.storage.delete(&files).await?;
        Ok(())
    }
}

impl State {
    /// The files of a checkpoint, damaged or not.
    fn numbers_of(&self, checkpoint: CheckpointId) -> Vec<u64> {
        let known = self.checkpoints.iter().map(|k| &k.manifest);
        let known = known
            .filter(|m| m.checkpoint == checkpoint)
            .map(|m| m.number);
        let skipped = self.skipped.iter();
        let skipped = skipped.filter(|s| s.checkpoint == Some(checkpoint));
        known.chain(skipped.map(|s| s.number)).collect()
    }

    fn expired_manifests(&mut self, listing_lag: Duration) -> Vec<u64> {
        if self.keep_older_objects || self.opened.elapsed() < listing_lag {
            return Vec::new();
        }
        let written = &mut self.written;
        while written
            .pop_front_if(|(_, at)| at.elapsed() >= listing_lag)
            .is_some()
        {}
        let first_young = written.front().map_or(u64::MAX, |(number, _)| *number);
        let needed: BTreeSet<u64> = self
            .checkpoints
            .iter()
            .flat_map(|k| k.chain.iter().copied())
            .collect();
        let newest = self.next_number - 1;
        let skipped = |n: &u64| self.skipped.iter().any(|s| s.number == *n);
        self.manifest_files
            .iter()
            .copied()
            .filter(|n| *n < newest.min(first_young) && !needed.contains(n) && !skipped(n))
            .collect()
    }

    /// The objects that nothing needs. They are no longer known from here on, so that nothing can come to need them.
    fn take_unneeded_runs(&mut self, generation: u64) -> Vec<(Arc<str>, u64)> {
        let mut needed: BTreeSet<&Arc<str>> = self.pins.values().flat_map(|p| &p.objects).collect();
        let saved = self.savepoints.values().chain(&self.base);
        for manifest in self.checkpoints.iter().map(|k| &k.manifest).chain(saved) {
            needed.extend(
                manifest
                    .tables
                    .values()
                    .flat_map(|t| t.runs.iter().map(|r| &r.object)),
            );
        }
        needed.extend(
            self.merges
                .iter()
                .filter_map(|m| m.output.as_ref())
                .map(|r| &r.object),
        );
        let keep_older = self.keep_older_objects;
        let ours = |object: &Arc<str>| match layout::generation_of_run(object) {
            Some(g) if g == generation => true,
            Some(g) => g < generation && !keep_older,
            None => false,
        };
        let unneeded: Vec<(Arc<str>, u64)> = self
            .run_objects
            .iter()
            .filter(|(object, _)| ours(object) && !needed.contains(object))
            .map(|(object, bytes)| (object.clone(), *bytes))
            .collect();
        for (object, _) in &unneeded {
            self.run_objects.remove(object);
        }
        unneeded
    }
}

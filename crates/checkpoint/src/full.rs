//! Full checkpoints: those that refer to nothing that an earlier one wrote.
//!
//! What a worker seals is what changed, whatever the mode: sealing never copies live state. A full checkpoint then merges
//! the runs of the checkpoint before it with the new ones, off the workers, and refers to the result alone. It reads and
//! writes as much as there is state, verifies all of it, and needs memory for a few blocks.

use crate::commit::{PendingCheckpoint, UploadedRuns};
use crate::error::{CheckpointError, Result};
use crate::layout;
use crate::manifest::TableDescriptor;
use crate::merge::{Job, Task};
use crate::run_file::RunRef;
use crate::store::CheckpointStore;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tidegate_types::{RelationId, TableId};

impl CheckpointStore {
    /// Merges all runs of these tables, those of the base and those just uploaded, into one object of this checkpoint, and
    /// puts it in the place of what was uploaded for them. Answers the tables of which nothing older is needed: they are to
    /// be named in [`Commit::rewritten`](crate::Commit). Relations in `replaced` have nothing in the base.
    pub async fn rewrite(
        &self,
        pending: &PendingCheckpoint,
        tables: &[TableDescriptor],
        replaced: &BTreeSet<RelationId>,
        uploads: &mut Vec<UploadedRuns>,
    ) -> Result<BTreeSet<TableId>> {
        let started = Instant::now();
        let tasks = self.tasks(tables, replaced, uploads);
        let rewritten: BTreeSet<TableId> = tasks.iter().map(|t| t.descriptor.table).collect();
        if tasks.is_empty() {
            return Ok(rewritten);
        }
        // Behind those of all workers.
        let worker = uploads.iter().map(|u| u.worker + 1).max().unwrap_or(0);
        let serial = self.serial();
        let object = layout::checkpoint_run(self.generation(), serial, pending.checkpoint, worker);
        self.pin_object(pending, &object)?;
        let job = Job {
            restorer: self.restorer(),
            writer: self.storage.writer(&object),
            object: object.clone(),
            tasks,
        };
        let handle = self.handle.clone();
        let done = self.handle.spawn_blocking(move || job.run(&handle)).await;
        let done = done.map_err(|e| {
            CheckpointError::OutOfOrder(format!("writing a full checkpoint was cut short: {e}"))
        })?;
        let (writer, outputs, _) = done?;
        let runs: Vec<(TableId, RunRef)> = outputs
            .into_iter()
            .filter_map(|(task, output)| Some((task.descriptor.table, output?)))
            .collect();
        let bytes = runs.iter().map(|(_, run)| run.bytes).sum();
        if !runs.is_empty() {
            writer.finish().await?;
            self.state.lock().run_objects.insert(object.clone(), bytes);
        }
        for upload in uploads.iter_mut() {
            upload.runs.retain(|(table, _)| !rewritten.contains(table));
        }
        uploads.push(UploadedRuns {
            worker,
            object: (!runs.is_empty()).then_some(object),
            runs,
            bytes,
            encoding: std::time::Duration::ZERO,
            writing: started.elapsed(),
        });
        Ok(rewritten)
    }

    /// One for each table with something in an earlier checkpoint.
    fn tasks(
        &self,
        tables: &[TableDescriptor],
        replaced: &BTreeSet<RelationId>,
        uploads: &[UploadedRuns],
    ) -> Vec<Task> {
        let Some(base) = self.base() else {
            return Vec::new();
        };
        let mut by_worker: Vec<&UploadedRuns> = uploads.iter().collect();
        by_worker.sort_by_key(|u| u.worker);
        let mut uploaded: BTreeMap<TableId, Vec<RunRef>> = BTreeMap::new();
        for (table, run) in by_worker.iter().flat_map(|u| &u.runs) {
            uploaded.entry(*table).or_default().push(run.clone());
        }
        let task = |descriptor: &TableDescriptor| {
            let old = base.tables.get(&descriptor.table)?;
            if replaced.contains(&descriptor.relation) || old.runs.is_empty() {
                return None;
            }
            let new = uploaded.remove(&descriptor.table).unwrap_or_default();
            Some(Task {
                descriptor: descriptor.clone(),
                runs: old.runs.iter().cloned().chain(new).collect(),
                bottom: true,
                copy: false,
            })
        };
        tables.iter().filter_map(task).collect()
    }

    /// Known and pinned before it exists, so that it can neither be deleted too early nor forgotten.
    fn pin_object(&self, pending: &PendingCheckpoint, object: &Arc<str>) -> Result<()> {
        let mut state = self.state.lock();
        let pin = state.pins.get_mut(&pending.pin).ok_or_else(|| {
            CheckpointError::OutOfOrder(format!("checkpoint {} was aborted", pending.checkpoint))
        })?;
        pin.objects.insert(object.clone());
        state.run_objects.insert(object.clone(), 0);
        Ok(())
    }
}

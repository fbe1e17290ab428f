//! Moving a view's layers to RocksDB when memory is short.
//!
//! Layers of completed checkpoints go first, once the views of a worker come near their limit. At the limit the others
//! follow, as far as no reader may still ask for an epoch in their midst; they are noted beside, for the next seal. Who
//! appends then waits while something is being moved.

use super::layer::Layer;
use super::{Inner, ViewStore};
use crate::StateError;
use crate::rocks::view::{Marker, Through, ViewDisk};
use std::sync::Arc;
use tidegate_types::Epoch;

/// Layers that are to be moved together.
struct Move {
    layers: Vec<Arc<Layer>>,
    /// Some of them, in parts that belong to different checkpoints, each with the generation to note it in.
    notes: Vec<(u64, Vec<Arc<Layer>>)>,
    marker: Marker,
}

impl ViewStore {
    pub(super) fn schedule_move(&self, inner: &mut Inner) {
        if self.disk.is_none() || inner.moving || inner.movable(self.limit_bytes) == 0 {
            return;
        }
        inner.moving = true;
        let this = self.this.clone();
        self.maintenance.submit(move || {
            if let Some(view) = this.upgrade() {
                view.move_to_disk();
            }
        });
    }

    /// Waits until enough is moved, or nothing is left to be moved now.
    pub(super) fn wait_for_room(&self) -> Result<(), StateError> {
        let mut inner = self.inner.lock();
        self.schedule_move(&mut inner);
        while inner.moving && inner.memory.account_bytes() > self.limit_bytes {
            self.moved.wait(&mut inner);
        }
        match &inner.disk_error {
            Some(error) => Err(StateError::Backend(error.clone())),
            None => Ok(()),
        }
    }

    /// Runs on the background thread.
    fn move_to_disk(&self) {
        let Some(disk) = &self.disk else {
            return;
        };
        let planned = self.inner.lock().plan_move(self.limit_bytes);
        let moved = planned.map(|plan| (plan.layers.len(), self.carry_out(disk, plan)));
        let mut inner = self.inner.lock();
        inner.moving = false;
        match moved {
            None => {}
            Some((count, Ok((marker, through)))) => {
                inner.on_disk = marker;
                // A checkpoint that was completed meanwhile holds what was noted for it.
                let completed = inner.completed;
                let (done, left) = through
                    .into_iter()
                    .partition(|t: &Through| Some(t.last) <= completed);
                inner.through.extend::<Vec<_>>(left);
                // Only this thread removes layers, and new ones come behind these.
                inner.layers.drain(..count);
                inner.account();
                self.forget_notes(done);
                self.schedule_move(&mut inner);
            }
            Some((_, Err(error))) => {
                inner.disk_error = Some(format!("writing a view failed: {error}"));
            }
        }
        self.moved.notify_all();
    }

    fn carry_out(&self, disk: &ViewDisk, plan: Move) -> Result<(Marker, Vec<Through>), StateError> {
        let mut through = Vec::new();
        for (generation, layers) in &plan.notes {
            through.push(disk.note(*generation, layers)?);
        }
        let mut marker = plan.marker;
        disk.apply(&plan.layers, &self.layout, &mut marker)?;
        Ok((marker, through))
    }

    /// Forgets notes that a completed checkpoint holds.
    pub(super) fn forget_notes(&self, notes: Vec<Through>) {
        if notes.is_empty() {
            return;
        }
        let this = self.this.clone();
        self.maintenance.submit(move || {
            let Some(view) = this.upgrade() else {
                return;
            };
            let forgotten = view.disk.as_ref().map_or(Ok(()), |d| d.forget(&notes));
            if let Err(error) = forgotten {
                tracing::error!(table = %view.spec.table, %error, "forgetting the changes of a view failed");
            }
        });
    }
}

impl Inner {
    /// How many layers should go to disk now.
    fn movable(&self, limit_bytes: usize) -> usize {
        let used = self.memory.account_bytes();
        let Some(oldest_readable) = self.published.front() else {
            return 0;
        };
        let up_to = |epoch: Option<Epoch>| self.layers.partition_point(|l| l.last <= epoch);
        if used <= limit_bytes / 4 * 3 || self.disk_error.is_some() {
            return 0;
        }
        let completed = up_to(self.completed.min(Some(*oldest_readable)));
        if completed > 0 || used <= limit_bytes {
            return completed;
        }
        up_to(Some(*oldest_readable))
    }

    fn plan_move(&mut self, limit_bytes: usize) -> Option<Move> {
        let layers = self.layers[..self.movable(limit_bytes)].to_vec();
        let last = layers.last()?.last;
        let mut notes = Vec::new();
        let mut from = layers.partition_point(|l| l.last <= self.completed);
        let boundaries = self.sealed.iter().map(|(_, e)| Some(*e)).chain([last]);
        for boundary in boundaries {
            let to = layers.partition_point(|l| l.last <= boundary);
            if to > from {
                notes.push((self.next_generation, layers[from..to].to_vec()));
                self.next_generation += 1;
                from = to;
            }
        }
        let marker = Marker {
            reach: Some(last),
            ..self.on_disk
        };
        Some(Move {
            layers,
            notes,
            marker,
        })
    }
}

//! Saved state that a new relation begins with, instead of reading what was there before it.
//!
//! The state of its operators is as of the savepoint's epoch, so each input catches up from there, in the relation's first
//! epoch: an input that is a table or view gives the difference between the rows it had in the savepoint and those it has
//! now, a source is read on from the saved offsets. What the relation begins with counts as changed, so that its first
//! checkpoint holds all of it and the savepoint is not needed any longer. A crash before that checkpoint makes the relation
//! begin as any new one does.

use crate::build;
use crate::checkpointing::descriptors_of;
use crate::command::RestoredState;
use crate::input::reader::owner;
use crate::spec::RelationSpec;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_checkpoint::{CheckpointError, Restorer, TableEntry};
use tidegate_connectors::SplitId;
use tidegate_plan::Op;
use tidegate_state::{Cell, Change, Run, StateError, Table};
use tidegate_types::{KEY_GROUPS, KeyGroupRange, RelationId, SqlError, SqlState, TableId};

/// What a manifest holds for a relation that does not run yet, and for readers of sources that it needs.
pub struct Seed {
    pub restorer: Arc<Restorer>,
    /// By the tables of the relation, and of the sources it reads.
    pub tables: HashMap<TableId, Arc<TableEntry>>,
    /// The rows of its inputs, by the ids that these have now.
    pub inputs: HashMap<RelationId, Arc<TableEntry>>,
}

impl Seed {
    /// What each worker needs of it for this relation; nothing where it holds nothing of the relation.
    pub(crate) async fn states(
        &self,
        spec: &RelationSpec,
        workers: usize,
    ) -> Result<Option<Vec<RestoredState>>, SqlError> {
        let mut states: Vec<RestoredState> = (0..workers).map(|_| RestoredState::new()).collect();
        let whole = build::position_tables(&spec.dataflow);
        let mut found = false;
        for descriptor in descriptors_of(&spec.dataflow) {
            let Some(entry) = self.tables.get(&descriptor.table) else {
                continue;
            };
            found = true;
            let whole = whole.contains(&descriptor.table);
            self.read(entry, descriptor.table, whole, &mut states)
                .await?;
        }
        if !found {
            return Ok(None);
        }
        for node in &spec.dataflow.nodes {
            let Op::Import { relation, .. } = &node.op else {
                continue;
            };
            let position = build::position_table(spec.relation(), node);
            is_complete(states.iter().filter_map(|s| s.get(&position)).flatten())?;
            if let Some(entry) = self.inputs.get(relation) {
                let id = build::saved_input(*relation);
                self.read(entry, id, false, &mut states).await?;
            }
        }
        Ok(Some(states))
    }

    async fn read(
        &self,
        entry: &TableEntry,
        as_table: TableId,
        whole: bool,
        states: &mut [RestoredState],
    ) -> Result<(), SqlError> {
        let workers = states.len();
        for (worker, state) in states.iter_mut().enumerate() {
            let groups = match whole {
                true => KeyGroupRange::ALL,
                false => KeyGroupRange::of_worker(worker, workers),
            };
            let runs = self.restorer.table_runs_later(entry, groups).await;
            let runs: Vec<Run> = runs.map_err(|e: CheckpointError| SqlError::from(e))?;
            if !runs.is_empty() {
                state.insert(as_table, runs);
            }
        }
        Ok(())
    }
}

/// A view that was being built has seen a part of its input only, and which part its operators cannot tell.
fn is_complete<'a>(positions: impl Iterator<Item = &'a Run>) -> Result<(), SqlError> {
    let mut complete = [false; KEY_GROUPS];
    for entry in positions.flat_map(|run| run.iter()) {
        if let [group] = entry.key {
            let rest = entry.value.and_then(|v| v.split_first_chunk::<8>());
            complete[*group as usize] = rest.is_some_and(|(_, rest)| rest.is_empty());
        }
    }
    match complete.iter().all(|c| *c) {
        true => Ok(()),
        false => Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the materialized view was still being built when the savepoint was taken",
        )),
    }
}

/// Cells that are written at a time.
const CELLS_AT_A_TIME: usize = 4096;

/// Puts a run into a table as changes that no checkpoint holds yet, as far as the keys are this worker's.
pub(crate) fn write(
    table: &mut dyn Table,
    run: &Run,
    owns: impl Fn(&[u8]) -> bool,
) -> Result<(), StateError> {
    let mut changes = Vec::with_capacity(CELLS_AT_A_TIME);
    for entry in run.iter().filter(|e| owns(e.key)) {
        let (key, sub) = (entry.key, entry.sub);
        changes.push(Change {
            cell: Cell { key, sub },
            value: entry.value,
        });
        if changes.len() == CELLS_AT_A_TIME {
            table.write_many(&changes)?;
            changes.clear();
        }
    }
    table.write_many(&changes)
}

/// Whether a row of an input's position, or of what a source could not decode, is this worker's. All workers are given
/// these tables whole, and two that wrote the same row would overwrite each other's later ones.
pub(crate) fn owns_position(
    op: &Op,
    key: &[u8],
    groups: KeyGroupRange,
    worker: usize,
    workers: usize,
) -> bool {
    match op {
        Op::Import { .. } => matches!(key, [group] if groups.contains(*group)),
        _ => {
            let undecodable = serde_json::from_slice::<[String; 5]>(key);
            let split = match &undecodable {
                Ok([_, _, _, split, _]) => split.as_str(),
                Err(_) => std::str::from_utf8(key).unwrap_or_default(),
            };
            owner(&SplitId::new(split), workers) == worker
        }
    }
}

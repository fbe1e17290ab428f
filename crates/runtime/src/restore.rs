//! A checkpoint's state on its way back to workers, as many as there are now.
//!
//! Each worker gets its ranges of key groups of every state table. The parts are read side by side, whichever relation and
//! worker they are for: a small part is decoded at once; of a large one every block is verified, and the worker that owns
//! it decodes block after block when it builds the table. Where inputs stand, and rows that a barrier had overtaken, are
//! read once and given to all workers, each of which keeps to its own.

use crate::build;
use crate::checkpointing;
use crate::command::{Install, RestoredState};
use crate::in_flight;
use crate::runtime::Shared;
use crate::spec::RelationSpec;
use futures::StreamExt;
use std::collections::HashSet;
use std::sync::Arc;
use tidegate_checkpoint::{CheckpointError, Manifest, Restorer};
use tidegate_state::Run;
use tidegate_types::{Epoch, KeyGroupRange, SqlError, TableId};

/// Parts that are read at the same time.
const AT_ONCE: usize = 16;

/// A piece of one table of a relation.
#[derive(Clone, Copy)]
struct Part {
    /// Its place among the relations.
    relation: usize,
    table: TableId,
    /// Under which id the builder looks for it.
    restored_as: TableId,
    groups: KeyGroupRange,
    /// `None`: all of them get it.
    worker: Option<usize>,
}

/// Everything that the checkpoint holds of these relations, by worker.
pub(crate) async fn restore(
    shared: &Arc<Shared>,
    manifest: Option<&Arc<Manifest>>,
    relations: Vec<RelationSpec>,
    start: Epoch,
) -> Result<Vec<Install>, SqlError> {
    let workers = shared.workers();
    let known: HashSet<_> = manifest
        .iter()
        .flat_map(|m| m.tables.values())
        .map(|t| t.descriptor.relation)
        .collect();
    let building = shared.building.lock().clone();
    let empty = |_: &RelationSpec| (0..workers).map(|_| RestoredState::new()).collect();
    let mut states: Vec<Vec<RestoredState>> = relations.iter().map(empty).collect();
    if let Some(manifest) = manifest {
        let mut parts = Vec::new();
        for (relation, spec) in relations.iter().enumerate() {
            parts.extend(parts_of(manifest, relation, spec, workers));
        }
        let read = read(shared.store.restorer(), manifest, parts, &mut states).await;
        read.map_err(|e| damaged(shared, manifest, e))?;
    }
    let installs = relations.into_iter().zip(states).map(|(spec, states)| {
        let is_restored = known.contains(&spec.relation());
        let is_awaited = !building.contains(&spec.relation());
        Install::restored(spec, start, states, is_restored, is_awaited)
    });
    Ok(installs.collect())
}

/// What the manifest has of a relation, cut up for so many workers.
fn parts_of(
    manifest: &Manifest,
    relation: usize,
    spec: &RelationSpec,
    workers: usize,
) -> Vec<Part> {
    let for_all: HashSet<_> = build::position_tables(&spec.dataflow).into_iter().collect();
    let mut parts = Vec::new();
    for descriptor in checkpointing::descriptors(spec) {
        let table = descriptor.table;
        let part = |worker: Option<usize>| Part {
            relation,
            table,
            restored_as: table,
            groups: worker.map_or(KeyGroupRange::ALL, |worker| {
                KeyGroupRange::of_worker(worker, workers)
            }),
            worker,
        };
        match for_all.contains(&table) {
            true => parts.push(part(None)),
            false => parts.extend((0..workers).map(|worker| part(Some(worker)))),
        }
    }
    let in_flight = checkpointing::in_flight_tables(spec, manifest.checkpoint).into_iter();
    parts.extend(in_flight.map(|descriptor| Part {
        relation,
        table: descriptor.table,
        restored_as: in_flight::restored_table(spec.relation(), descriptor.operator),
        groups: KeyGroupRange::ALL,
        worker: None,
    }));
    parts.retain(|part| manifest.table(part.table).is_some());
    parts
}

/// Reads the parts and hands each to whom it is for.
async fn read(
    restorer: Arc<Restorer>,
    manifest: &Arc<Manifest>,
    parts: Vec<Part>,
    states: &mut [Vec<RestoredState>],
) -> Result<(), CheckpointError> {
    let begin = |part: Part| {
        let (restorer, manifest) = (restorer.clone(), manifest.clone());
        // Tasks of their own: decoding and checksums take a processor, and there are several.
        tokio::spawn(async move { (part, read_part(&restorer, &manifest, part).await) })
    };
    let mut reading = futures::stream::iter(parts)
        .map(begin)
        .buffer_unordered(AT_ONCE);
    while let Some(joined) = reading.next().await {
        let (part, runs) = joined.map_err(|e| {
            CheckpointError::OutOfOrder(format!("reading a state table was cut short: {e}"))
        })?;
        let runs = runs?;
        if runs.is_empty() {
            continue;
        }
        let of_relation = &mut states[part.relation];
        match part.worker {
            Some(worker) => drop(of_relation[worker].insert(part.restored_as, runs)),
            None => of_relation.iter_mut().for_each(|state| {
                state.insert(part.restored_as, runs.clone());
            }),
        }
    }
    Ok(())
}

async fn read_part(
    restorer: &Arc<Restorer>,
    manifest: &Manifest,
    part: Part,
) -> Result<Vec<Run>, CheckpointError> {
    match manifest.table(part.table) {
        Some(entry) if part.table == part.restored_as => {
            restorer.table_runs_later(entry, part.groups).await
        }
        Some(entry) => restorer.table_runs(entry, part.groups).await,
        None => Ok(Vec::new()),
    }
}

/// Damage is remembered, so that the next attempt begins with an older checkpoint.
fn damaged(shared: &Shared, manifest: &Manifest, error: CheckpointError) -> SqlError {
    let told = SqlError::from(error.clone());
    if error.is_damage() {
        tracing::error!(
            checkpoint = manifest.checkpoint.0,
            "checkpoint is damaged: {error}"
        );
        shared.store.reject(manifest, error);
    }
    told
}

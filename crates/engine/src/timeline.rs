//! Timelines: what the log means after the database went back to a savepoint.
//!
//! An entry of the log says that the database is from there on as it was at a savepoint; entries before it have no meaning
//! any more. Until a checkpoint of the new timeline exists, every start begins with that savepoint again.

use crate::log::{ClosedLog, LogEntry};
use std::sync::Arc;
use tidegate_catalog::{Catalog, RelationClass};
use tidegate_checkpoint::offline::restorer_of;
use tidegate_checkpoint::{CheckpointStore, Manifest};
use tidegate_types::{LogPosition, SqlError};

/// A savepoint as the beginning of a timeline: its runs are in this storage, and sinks that are to write everything again
/// have no state.
pub(crate) async fn beginning_of(
    store: &CheckpointStore,
    savepoint: &Arc<Manifest>,
    catalog: &Catalog,
    replays_sinks: bool,
) -> Result<Arc<Manifest>, SqlError> {
    let mut manifest = savepoint.clone();
    if savepoint.details.place.is_some() {
        let restorer = restorer_of(store.storage(), savepoint)?;
        manifest = store.import(&restorer, savepoint, &mut |_| {}).await?;
    }
    if replays_sinks {
        let mut without = (*manifest).clone();
        let is_sink = |id| {
            let relation = catalog.relation(id);
            relation.is_some_and(|r| r.class() == RelationClass::Sink)
        };
        without
            .tables
            .retain(|_, t| !is_sink(t.descriptor.relation));
        without.sink_tokens.clear();
        manifest = Arc::new(without);
    }
    Ok(manifest)
}

/// The manifest's state as the beginning of a timeline that starts at this position of the log.
pub(crate) fn as_of_position(manifest: &Manifest, position: LogPosition) -> Arc<Manifest> {
    Arc::new(Manifest {
        log_position: position,
        ..manifest.clone()
    })
}

/// Where to begin: the newest checkpoint, unless the log says that the database went back to a savepoint after it.
pub(crate) async fn on_timeline(
    store: &CheckpointStore,
    newest: Option<Arc<Manifest>>,
    log: &ClosedLog,
) -> Result<Option<Arc<Manifest>>, SqlError> {
    let after = newest.as_ref().map_or(LogPosition(0), |m| m.log_position);
    let mut last = None;
    log.read(after, &mut |position, entry| {
        if let LogEntry::Timeline {
            savepoint,
            replays_sinks,
        } = entry
        {
            last = Some((position, savepoint, replays_sinks));
        }
        Ok(())
    })?;
    let Some((position, savepoint, replays_sinks)) = last else {
        return Ok(newest);
    };
    tracing::info!(savepoint, "the newest timeline begins at a savepoint");
    let manifest = store.describe_savepoint(&savepoint)?;
    let (catalog, _) = crate::database::catalog_of(Some(&manifest))?;
    let manifest = beginning_of(store, &manifest, &catalog, replays_sinks).await?;
    store.rebase(&manifest);
    Ok(Some(as_of_position(&manifest, position)))
}

/// Whether the log's entry at this position begins a timeline.
pub(crate) fn begins_at(log: &ClosedLog, position: LogPosition) -> Result<bool, SqlError> {
    let mut begins = false;
    let before = LogPosition(position.0.saturating_sub(1));
    log.read(before, &mut |at, entry| {
        begins |= at == position && matches!(entry, LogEntry::Timeline { .. });
        Ok(())
    })?;
    Ok(begins)
}

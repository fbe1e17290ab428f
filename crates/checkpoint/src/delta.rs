//! Manifests as differences: what is written per checkpoint follows what changed, not how many tables there are.
//!
//! A file is complete while the manifest is small, since complete files do not depend on each other; otherwise it is
//! relative to the checkpoint before it, with a complete one every [`CHAIN_LENGTH`]. Reading applies a chain from its
//! complete file on.

use crate::error::Damage;
use crate::manifest::{
    Content, Manifest, ManifestFile, SavepointDetails, Snapshot, TableDescriptor, TableEntry, hex,
};
use crate::run_file::RunRef;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tidegate_types::TableId;

/// A complete manifest up to this size is written as such.
pub(crate) const COMPLETE_BYTES: usize = 64 << 10;
/// At most so many files depend on one complete file.
pub(crate) const CHAIN_LENGTH: usize = 16;

/// How the list of a table's runs changed: first removals, then insertions in order of their final place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunChanges {
    #[serde(with = "hex::table")]
    pub table: TableId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<(Arc<str>, u32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inserted: Vec<(u32, RunRef)>,
}

impl RunChanges {
    fn between(table: TableId, old: &[RunRef], new: &[RunRef]) -> Option<Self> {
        let in_new: HashSet<_> = new.iter().map(RunRef::identity).collect();
        let in_old: HashSet<_> = old.iter().map(RunRef::identity).collect();
        let removed: Vec<_> = old
            .iter()
            .filter(|r| !in_new.contains(&r.identity()))
            .map(|r| (r.object.clone(), r.index))
            .collect();
        let inserted: Vec<_> = new
            .iter()
            .enumerate()
            .filter(|(_, r)| !in_old.contains(&r.identity()))
            .map(|(place, r)| (place as u32, r.clone()))
            .collect();
        (!removed.is_empty() || !inserted.is_empty()).then_some(Self {
            table,
            removed,
            inserted,
        })
    }

    fn apply(&self, runs: &mut Vec<RunRef>) -> Result<(), String> {
        let before = runs.len();
        let removed: HashSet<_> = self
            .removed
            .iter()
            .map(|(object, index)| (&**object, *index))
            .collect();
        runs.retain(|r| !removed.contains(&r.identity()));
        if before - runs.len() != removed.len() {
            return Err(format!(
                "it removes runs that table {} does not have",
                self.table
            ));
        }
        for (place, run) in &self.inserted {
            if *place as usize > runs.len() {
                return Err(format!(
                    "it inserts a run of table {} beyond the end",
                    self.table
                ));
            }
            runs.insert(*place as usize, run.clone());
        }
        Ok(())
    }
}

/// The manifest's content, relative to `base` if there is one.
pub(crate) fn snapshot(manifest: &Manifest, base: Option<&Manifest>) -> Snapshot {
    let none = BTreeMap::new();
    let old_tables = base.map_or(&none, |b| &b.tables);
    let mut tables: Vec<TableDescriptor> = Vec::new();
    let mut runs = Vec::new();
    for (id, entry) in &manifest.tables {
        let old = old_tables.get(id);
        if old.is_some_and(|o| Arc::ptr_eq(o, entry)) {
            continue;
        }
        if old.is_none_or(|o| o.descriptor != entry.descriptor) {
            tables.push(entry.descriptor.clone());
        }
        runs.extend(RunChanges::between(
            *id,
            old.map_or(&[], |o| &o.runs),
            &entry.runs,
        ));
    }
    let same_catalog = base.is_some_and(|b| b.catalog == manifest.catalog);
    Snapshot {
        checkpoint: manifest.checkpoint,
        epoch: manifest.epoch,
        time_ms: manifest.time_ms,
        log_position: manifest.log_position,
        bytes_written: manifest.bytes_written,
        relative_to: base.map(|b| b.number),
        catalog: (!same_catalog).then(|| manifest.catalog.clone()),
        sink_tokens: manifest.sink_tokens.clone(),
        tables,
        dropped: old_tables
            .keys()
            .filter(|id| !manifest.tables.contains_key(id))
            .copied()
            .collect(),
        runs,
    }
}

/// The manifest that a file describes. `base` is the one that it is relative to, which the caller has read already.
pub(crate) fn resolve(
    object: &str,
    file: &ManifestFile,
    base: Option<&Manifest>,
) -> Result<Manifest, Damage> {
    let damage = |what: String| Damage {
        object: object.into(),
        offset: None,
        what,
    };
    let (snapshot, savepoint, details) = match &file.content {
        Content::Checkpoint(snapshot) => (snapshot, None, SavepointDetails::default()),
        Content::Savepoint {
            name,
            snapshot,
            details,
        } => (snapshot, Some(name.clone()), details.clone()),
        Content::Fence {} => return Err(damage("it holds no state".to_owned())),
    };
    if snapshot.relative_to != base.map(|b| b.number) {
        return Err(damage(format!(
            "it is relative to manifest {:?}",
            snapshot.relative_to
        )));
    }
    let mut tables = base.map(|b| b.tables.clone()).unwrap_or_default();
    for id in &snapshot.dropped {
        tables.remove(id);
    }
    for descriptor in &snapshot.tables {
        let runs = tables
            .get(&descriptor.table)
            .map(|t| t.runs.clone())
            .unwrap_or_default();
        tables.insert(
            descriptor.table,
            Arc::new(TableEntry {
                descriptor: descriptor.clone(),
                runs,
            }),
        );
    }
    for changes in &snapshot.runs {
        let entry = tables
            .get_mut(&changes.table)
            .ok_or_else(|| damage(format!("table {} is unknown", changes.table)))?;
        changes
            .apply(&mut Arc::make_mut(entry).runs)
            .map_err(damage)?;
    }
    let catalog = match (&snapshot.catalog, base) {
        (Some(catalog), _) => catalog.clone(),
        (None, Some(base)) => base.catalog.clone(),
        (None, None) => return Err(damage("the catalog is missing".to_owned())),
    };
    Ok(Manifest {
        number: file.number,
        generation: file.generation,
        savepoint,
        checkpoint: snapshot.checkpoint,
        epoch: snapshot.epoch,
        time_ms: snapshot.time_ms,
        created_ms: file.created_ms,
        log_position: snapshot.log_position,
        reserved_epoch: file.reserved_epoch,
        catalog,
        tables,
        sink_tokens: snapshot.sink_tokens.clone(),
        bytes_written: snapshot.bytes_written,
        details,
    })
}

//! Checkpoints, savepoints and state for tools, when the server is down or beside it.
//!
//! Everything here reads the storage without claiming it, except for deleting: that takes ownership as a server would, is
//! refused while a server holds the same directory, and asks for the caller's word where a bucket cannot tell.

mod report;
mod state;

pub use report::{Report, Section};
pub use state::StateRows;
pub use tidegate_checkpoint::CopyProgress as Progress;

use crate::database::catalog_of;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_catalog::Catalog;
use tidegate_checkpoint::{
    CheckpointError, InUse, Manifest, Offline, SavepointInfo, Storage, TableEntry,
};
use tidegate_types::{CheckpointId, RelationId, SqlError, SqlState};

/// An opened storage.
pub struct Tools {
    offline: Offline,
}

/// Which state is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The newest checkpoint, or this one.
    Checkpoint(Option<u64>),
    /// The only savepoint, or this one.
    Savepoint(Option<String>),
}

impl Tools {
    /// Reads what is in a storage: a directory or a URL.
    pub async fn open(location: &str) -> Result<Self, SqlError> {
        let storage = Storage::attach(location).map_err(CheckpointError::from)?;
        let offline = Offline::open(storage).await?;
        if offline.is_empty() {
            return Err(SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("there are no checkpoints or savepoints in \"{}\"", redacted(location)),
            )
            .with_hint("Name the data directory with --data-dir, or where savepoints were copied to with --storage."));
        }
        Ok(Self { offline })
    }

    pub fn manifest(&self, origin: &Origin) -> Result<Arc<Manifest>, SqlError> {
        Ok(match origin {
            Origin::Checkpoint(id) => self.offline.checkpoint(id.map(CheckpointId))?,
            Origin::Savepoint(name) => self.offline.savepoint(name.as_deref())?,
        })
    }

    pub fn list_checkpoints(&self) -> Report {
        let mut list = Section::list(
            "checkpoints",
            &[
                "id",
                "epoch",
                "taken_at",
                "tables",
                "rows",
                "bytes",
                "bytes_written",
                "damage",
            ],
        );
        for manifest in self.offline.checkpoints() {
            list.rows.push(vec![
                json!(manifest.checkpoint.0),
                json!(manifest.epoch.0),
                json!(timestamp(manifest.created_ms)),
                json!(manifest.tables.len()),
                json!(manifest.rows()),
                json!(manifest.bytes()),
                json!(manifest.bytes_written),
                Value::Null,
            ]);
        }
        for skipped in self.offline.damaged() {
            let mut row = vec![Value::Null; list.columns.len()];
            row[0] = skipped.checkpoint.map_or(Value::Null, |c| json!(c.0));
            row[1] = skipped.epoch.map_or(Value::Null, |e| json!(e.0));
            row[7] = json!(skipped.cause.to_string());
            list.rows.push(row);
        }
        Report::of(vec![list])
    }

    pub fn list_savepoints(&self) -> Report {
        let mut list = Section::list(
            "savepoints",
            &[
                "name", "epoch", "taken_at", "format", "views", "rows", "bytes", "location",
                "damage",
            ],
        );
        for info in self.offline.savepoints() {
            let manifest = info.manifest.as_ref();
            let told =
                |tell: &dyn Fn(&Manifest) -> Value| manifest.map_or(Value::Null, |m| tell(m));
            list.rows.push(vec![
                json!(info.name),
                told(&|m| json!(m.epoch.0)),
                told(&|m| json!(timestamp(m.created_ms))),
                told(&|m| json!(format_of(m))),
                told(&|m| json!(views_of(m))),
                told(&|m| json!(m.rows())),
                told(&|m| json!(m.bytes())),
                json!(info.location),
                info.damage
                    .as_ref()
                    .map_or(Value::Null, |d| json!(d.to_string())),
            ]);
        }
        Report::of(vec![list])
    }

    pub fn describe(&self, origin: &Origin) -> Result<Report, SqlError> {
        let manifest = self.manifest(origin)?;
        Ok(describe(&manifest))
    }

    /// Every manifest that was asked for, verified. The second answer: whether all are whole.
    pub async fn verify(&self, origins: &[Origin]) -> Result<(Report, bool), SqlError> {
        let mut list = Section::list("verified", &["kind", "name", "rows", "bytes", "result"]);
        let mut whole = true;
        for origin in origins {
            let (kind, name) = named(origin);
            let found = self.manifest(origin);
            let outcome = match &found {
                Ok(manifest) => self.verify_one(manifest).await,
                Err(error) => Err(error.clone()),
            };
            let manifest = found.ok();
            whole &= outcome.is_ok();
            list.rows.push(vec![
                json!(kind),
                json!(name.or_else(|| Some(manifest.as_ref()?.checkpoint.to_string()))),
                manifest.as_ref().map_or(Value::Null, |m| json!(m.rows())),
                manifest.as_ref().map_or(Value::Null, |m| json!(m.bytes())),
                json!(outcome.unwrap_or_else(|e| e.message)),
            ]);
        }
        Ok((Report::of(vec![list]), whole))
    }

    /// Its runs, and its rows as Parquet where it has them. Answers what was found whole.
    async fn verify_one(&self, manifest: &Manifest) -> Result<String, SqlError> {
        self.offline.verify(manifest).await?;
        let Some(folder) = &manifest.details.portable else {
            return Ok("whole".to_owned());
        };
        let storage = match &manifest.details.place {
            Some(place) => Storage::attach(place).map_err(CheckpointError::from)?,
            None => self.offline.storage().clone(),
        };
        let files = tidegate_checkpoint::portable::verify(&storage, folder).await?;
        Ok(format!("whole, and {files} Parquet files"))
    }

    /// All there are, damaged ones included.
    pub fn all_checkpoints(&self) -> Vec<Origin> {
        let damaged = self.offline.damaged().iter().filter_map(|s| s.checkpoint);
        let known = self.offline.checkpoints().into_iter().map(|m| m.checkpoint);
        known
            .chain(damaged)
            .map(|c| Origin::Checkpoint(Some(c.0)))
            .collect()
    }

    pub fn all_savepoints(&self) -> Vec<Origin> {
        let names = self
            .offline
            .savepoints()
            .into_iter()
            .map(|s: SavepointInfo| s.name);
        names.map(|n| Origin::Savepoint(Some(n))).collect()
    }

    /// Makes a savepoint elsewhere. It is named like the savepoint, or after the checkpoint, unless a name is given.
    pub async fn copy(
        &self,
        origin: &Origin,
        to: &str,
        name: Option<&str>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Report, SqlError> {
        let manifest = self.manifest(origin)?;
        let own = manifest.savepoint.clone();
        let name = match name {
            Some(name) => name.to_owned(),
            None => own.unwrap_or_else(|| format!("checkpoint_{}", manifest.checkpoint)),
        };
        let target = Storage::attach_or_create(to).map_err(CheckpointError::from)?;
        let copy = self
            .offline
            .copy(&manifest, &target, &name, progress)
            .await?;
        Ok(Report::of(vec![Section::single(
            "savepoint",
            vec![
                ("name", json!(name)),
                ("location", json!(redacted(to))),
                ("epoch", json!(copy.epoch.0)),
                ("tables", json!(copy.tables.len())),
                ("rows", json!(copy.rows())),
                ("bytes", json!(copy.bytes())),
            ],
        )]))
    }

    /// Deletes a checkpoint. The newest one, from which the server would start, only by force.
    pub async fn delete_checkpoint(
        self,
        id: u64,
        force: bool,
        take_over: bool,
    ) -> Result<(), SqlError> {
        self.may_delete(take_over)?;
        let newest = self.offline.checkpoints().first().map(|m| m.checkpoint.0);
        if newest == Some(id) && !force {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("checkpoint {id} is the newest: the server starts from it"),
            )
            .with_hint("With --force it is deleted all the same: the server then starts from the one before it, replays the log, and what sinks have made visible since may come again."));
        }
        Ok(self.offline.delete_checkpoint(CheckpointId(id)).await?)
    }

    pub async fn delete_savepoint(self, name: &str, take_over: bool) -> Result<(), SqlError> {
        self.may_delete(take_over)?;
        Ok(self.offline.delete_savepoint(name).await?)
    }

    fn may_delete(&self, take_over: bool) -> Result<(), SqlError> {
        let location = self.offline.storage().location();
        match self.offline.in_use()? {
            InUse::No => Ok(()),
            InUse::Unknown if take_over => Ok(()),
            InUse::Yes => Err(SqlError::new(
                SqlState::OBJECT_IN_USE,
                format!("a running server is using \"{location}\""),
            )
            .with_hint("Stop it first, or ask it: RELEASE SAVEPOINT removes a savepoint while it runs.")),
            InUse::Unknown => Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("nobody can tell whether a server is using \"{location}\", and only its owner may delete"),
            )
            .with_hint("With --take-over this tool becomes the owner: a server that is running on this storage stops.")),
        }
    }
}

fn named(origin: &Origin) -> (&'static str, Option<String>) {
    match origin {
        Origin::Checkpoint(id) => ("checkpoint", id.map(|id| id.to_string())),
        Origin::Savepoint(name) => ("savepoint", name.clone()),
    }
}

/// A location without its options, which may be secrets.
pub(crate) fn redacted(location: &str) -> &str {
    location.split('?').next().unwrap_or(location)
}

pub(crate) fn timestamp(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms)
        .map(|t| t.format("%Y-%m-%d %H:%M:%S%.3f+00").to_string())
        .unwrap_or_default()
}

pub(crate) fn format_of(manifest: &Manifest) -> &'static str {
    match manifest.details.portable {
        Some(_) => "parquet",
        None => "native",
    }
}

/// The views of a savepoint: those that it was taken for, or all.
pub(crate) fn views_of(manifest: &Manifest) -> Vec<String> {
    if !manifest.details.views.is_empty() {
        return manifest.details.views.clone();
    }
    let Ok((catalog, _)) = catalog_of(Some(manifest)) else {
        return Vec::new();
    };
    let views = catalog.relations_of(tidegate_catalog::RelationClass::MaterializedView);
    let mut names: Vec<String> = views.map(qualified).collect();
    names.sort();
    names
}

/// As people name it: without the schema when that is `public`.
pub(crate) fn qualified(relation: &Arc<tidegate_catalog::Relation>) -> String {
    match relation.schema.as_str() {
        "public" => relation.name.clone(),
        schema => format!("{schema}.{}", relation.name),
    }
}

/// What a manifest holds, by relation and by state table.
pub(crate) fn describe(manifest: &Manifest) -> Report {
    let catalog = catalog_of(Some(manifest)).map(|(catalog, _)| catalog).ok();
    let mut head = vec![
        ("checkpoint", json!(manifest.checkpoint.0)),
        ("epoch", json!(manifest.epoch.0)),
        ("taken_at", json!(timestamp(manifest.created_ms))),
        ("barrier_time", json!(timestamp(manifest.time_ms))),
        ("log_position", json!(manifest.log_position.0)),
        ("tables", json!(manifest.tables.len())),
        ("rows", json!(manifest.rows())),
        ("bytes", json!(manifest.bytes())),
        ("objects", json!(manifest.objects().len())),
    ];
    let mut name = "checkpoint";
    if let Some(savepoint) = &manifest.savepoint {
        name = "savepoint";
        head.insert(0, ("name", json!(savepoint)));
        head.push(("format", json!(format_of(manifest))));
        let portable = manifest.details.portable.as_ref();
        head.push(("portable", portable.map_or(Value::Null, |p| json!(p))));
        let place = manifest.details.place.as_deref();
        head.push(("place", place.map_or(Value::Null, |p| json!(redacted(p)))));
        head.push(("views", json!(views_of(manifest))));
    }
    Report::of(vec![
        Section::single(name, head),
        relations(manifest, catalog.as_ref()),
        state::tables(manifest, catalog.as_ref()),
    ])
}

fn relations(manifest: &Manifest, catalog: Option<&Catalog>) -> Section {
    let mut by_relation: BTreeMap<RelationId, Vec<&Arc<TableEntry>>> = BTreeMap::new();
    for entry in manifest.tables.values() {
        by_relation
            .entry(entry.descriptor.relation)
            .or_default()
            .push(entry);
    }
    let mut section = Section::list(
        "relations",
        &["id", "name", "kind", "state_tables", "rows", "bytes"],
    );
    for (id, entries) in by_relation {
        let relation = catalog.and_then(|c| c.relation(id));
        section.rows.push(vec![
            json!(id.0),
            json!(relation.map(qualified)),
            json!(relation.map(|r| r.class().to_string())),
            json!(entries.len()),
            json!(entries.iter().map(|e| e.rows()).sum::<u64>()),
            json!(entries.iter().map(|e| e.bytes()).sum::<u64>()),
        ]);
    }
    section
}

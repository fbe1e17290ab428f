//! `SAVEPOINT` at the level of the database: taken, described, verified.
//!
//! A savepoint is an aligned checkpoint with a name. With `FOR` it holds the state of some views and of all that they read;
//! with `TO` it is copied elsewhere, where it is complete, and listed here with its place; with `format = 'parquet'` its
//! rows are written as Parquet too, before it exists. Whatever fails on the way leaves nothing behind.

use super::{Session, command, text_rows};
use crate::api::{Response, RowsTag};
use crate::database::catalog_of;
use crate::offline::{format_of, qualified, redacted, timestamp, views_of};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tidegate_catalog::{Catalog, RelationClass};
use tidegate_checkpoint::copy::copy_savepoint;
use tidegate_checkpoint::offline::restorer_of;
use tidegate_checkpoint::portable::{Named, write_portable};
use tidegate_checkpoint::{CheckpointError, Manifest, SavepointDetails, Storage};
use tidegate_parser::sqlparser::ast::{Ident, ObjectName};
use tidegate_parser::{Savepoint, WithOption};
use tidegate_types::{RelationId, SqlError, SqlState};

pub(super) const DESCRIBED: &[&str] = &["Property", "Value"];

/// Tables and bytes between two notices of a copy.
const NOTICE_EVERY: u64 = 256 << 20;

/// What a `SAVEPOINT` statement asks for.
pub(super) struct Wanted {
    name: String,
    views: Vec<(RelationId, String)>,
    place: Option<(String, Storage)>,
    parquet: bool,
}

impl Session {
    pub(super) async fn savepoint_with(&mut self, statement: &Savepoint) -> Result<(), SqlError> {
        let wanted = self.wanted(statement)?;
        let database = self.database.clone();
        let info = database.runtime()?.checkpoint().await?;
        self.notice(format!(
            "checkpoint {} of epoch {} is durable",
            info.id, info.epoch
        ));
        let retained = database.store.retained();
        let manifest = retained.into_iter().find(|m| m.checkpoint == info.id);
        let manifest = manifest.ok_or_else(|| {
            SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the checkpoint for the savepoint has gone",
            )
        })?;
        self.save(&wanted, &manifest).await
    }

    /// What the statement asks for. Whatever is wrong with it shows before anything is done.
    pub(super) fn wanted(&self, statement: &Savepoint) -> Result<Wanted, SqlError> {
        let wanted = Wanted {
            name: tidegate_parser::fold(&statement.name),
            views: self.saved_views(&statement.views)?,
            place: place_of(statement)?,
            parquet: wants_parquet(&statement.options)?,
        };
        self.database.store.check_savepoint_name(&wanted.name)?;
        Ok(wanted)
    }

    /// Makes a savepoint of a checkpoint.
    pub(super) async fn save(
        &mut self,
        wanted: &Wanted,
        manifest: &Manifest,
    ) -> Result<(), SqlError> {
        let database = self.database.clone();
        // What is copied and written is not removed meanwhile.
        let _held = database.store.hold(manifest);
        let manifest = part_of(manifest, wanted)?;
        let saved = match &wanted.place {
            None => self.save_here(wanted, manifest).await?,
            Some((url, storage)) => self.save_there(wanted, manifest, url, storage).await?,
        };
        self.notice(format!(
            "savepoint \"{}\" of epoch {} holds {} rows",
            wanted.name,
            saved.epoch,
            saved.rows()
        ));
        Ok(())
    }

    fn saved_views(&self, names: &[ObjectName]) -> Result<Vec<(RelationId, String)>, SqlError> {
        let catalog = self.database.catalog.get();
        let mut views = Vec::new();
        for name in names {
            let parts = tidegate_parser::name_parts(name);
            let view =
                catalog.resolve_class(&parts, &self.path(), RelationClass::MaterializedView)?;
            if !views.iter().any(|(id, _)| *id == view.id) {
                views.push((view.id, qualified(view)));
            }
        }
        Ok(views)
    }

    async fn save_here(
        &mut self,
        wanted: &Wanted,
        mut manifest: Manifest,
    ) -> Result<Arc<Manifest>, SqlError> {
        let database = self.database.clone();
        if wanted.parquet {
            let storage = database.store.storage();
            manifest.details.portable = Some(self.write_parquet(&manifest, storage).await?);
        }
        let folder = manifest.details.portable.clone();
        let saved = database.store.save(&wanted.name, manifest).await;
        if let (Err(_), Some(folder)) = (&saved, folder) {
            remove_folder(database.store.storage(), &folder).await;
        }
        Ok(saved?)
    }

    async fn save_there(
        &mut self,
        wanted: &Wanted,
        mut manifest: Manifest,
        url: &str,
        storage: &Storage,
    ) -> Result<Arc<Manifest>, SqlError> {
        let database = self.database.clone();
        if wanted.parquet {
            manifest.details.portable = Some(self.write_parquet(&manifest, storage).await?);
        }
        let restorer = database.store.restorer();
        let mut notices = Vec::new();
        let mut told = 0;
        let mut progress = |p: tidegate_checkpoint::CopyProgress| {
            if p.bytes >= told + NOTICE_EVERY || p.bytes == p.bytes_total {
                told = p.bytes;
                notices.push(format!("{} of {} bytes copied", p.bytes, p.bytes_total));
            }
        };
        let copied =
            copy_savepoint(&restorer, &manifest, storage, &wanted.name, &mut progress).await;
        notices.dedup();
        for notice in notices {
            self.notice(notice);
        }
        let copied = match (copied, &manifest.details.portable) {
            (Err(error), Some(folder)) => {
                remove_folder(storage, folder).await;
                return Err(error.into());
            }
            (copied, _) => copied?,
        };
        let listed = Manifest {
            details: SavepointDetails {
                place: Some(tidegate_checkpoint::storage::without_secrets(url)),
                ..copied.details.clone()
            },
            ..(*copied).clone()
        };
        let saved = database.store.save(&wanted.name, listed).await;
        if saved.is_err() {
            tidegate_checkpoint::copy::remove_copy(storage, &wanted.name, Some(&copied)).await?;
        }
        Ok(saved?)
    }

    async fn write_parquet(
        &mut self,
        manifest: &Manifest,
        to: &Storage,
    ) -> Result<String, SqlError> {
        let (catalog, _) = catalog_of(Some(manifest))?;
        let mut told = Vec::new();
        let restorer = self.database.store.restorer();
        let names = names_of(&catalog);
        let folder = write_portable(&restorer, manifest, &names, to, &mut |p| {
            if p.file.starts_with("views/") || p.tables == p.tables_total {
                told.push(format!(
                    "{} of {} tables written as Parquet, {} rows",
                    p.tables, p.tables_total, p.rows
                ));
            }
        })
        .await?;
        for notice in told {
            self.notice(notice);
        }
        Ok(folder)
    }

    pub(super) fn describe_savepoint(&mut self, name: &Ident) -> Result<Response, SqlError> {
        let name = tidegate_parser::fold(name);
        let manifest = self.database.store.describe_savepoint(&name)?;
        let location = self.database.store.savepoints();
        let location = location.into_iter().find(|s| s.name == name);
        let mut lines: Vec<(String, String)> = vec![
            ("Name".into(), name),
            ("Taken at".into(), timestamp(manifest.created_ms)),
            ("Epoch".into(), manifest.epoch.to_string()),
            ("Barrier time".into(), timestamp(manifest.time_ms)),
            ("Format".into(), format_of(&manifest).into()),
            (
                "Location".into(),
                location.map_or(String::new(), |s| s.location),
            ),
        ];
        if let Some(folder) = &manifest.details.portable {
            let place = manifest.details.place.as_deref();
            let place = place.unwrap_or(self.database.store.storage().location());
            let place = redacted(place).trim_end_matches('/');
            lines.push(("Parquet".into(), format!("{place}/{folder}")));
        }
        lines.push(("Views".into(), views_of(&manifest).join(", ")));
        lines.push(("Rows".into(), manifest.rows().to_string()));
        lines.push(("Bytes".into(), manifest.bytes().to_string()));
        let (catalog, _) = catalog_of(Some(&manifest))?;
        for relation in catalog.relations() {
            let of_it =
                |t: &&Arc<tidegate_checkpoint::TableEntry>| t.descriptor.relation == relation.id;
            let tables: Vec<_> = manifest.tables.values().filter(of_it).collect();
            if !tables.is_empty() {
                let rows: u64 = tables.iter().map(|t| t.rows()).sum();
                let bytes: u64 = tables.iter().map(|t| t.bytes()).sum();
                let count = tables.len();
                lines.push((
                    format!("{} {}", relation.class(), qualified(relation)),
                    format!("{rows} rows, {bytes} bytes in {count} state tables"),
                ));
            }
        }
        let lines = lines.into_iter().map(|(p, v)| vec![Some(p), Some(v)]);
        Ok(text_rows(
            DESCRIBED,
            lines.collect(),
            RowsTag::Plain("DESCRIBE"),
        ))
    }

    pub(super) async fn verify_savepoint(&mut self, name: &Ident) -> Result<Response, SqlError> {
        let name = tidegate_parser::fold(name);
        let store = self.database.store.clone();
        let manifest = store.describe_savepoint(&name)?;
        restorer_of(store.storage(), &manifest)?
            .verify(&manifest)
            .await?;
        let files = match &manifest.details.portable {
            Some(folder) => {
                let storage = match &manifest.details.place {
                    Some(place) => Storage::attach(place).map_err(CheckpointError::from)?,
                    None => store.storage().clone(),
                };
                let files = tidegate_checkpoint::portable::verify(&storage, folder).await?;
                format!(", and {files} Parquet files")
            }
            None => String::new(),
        };
        self.notice(format!(
            "savepoint \"{name}\" is whole: {} rows, {} bytes in {} objects{files}",
            manifest.rows(),
            manifest.bytes(),
            manifest.objects().len()
        ));
        Ok(command("VERIFY"))
    }
}

fn wants_parquet(options: &[WithOption]) -> Result<bool, SqlError> {
    let mut parquet = false;
    for option in options {
        let wrong = |state: SqlState, message: String, hint: &str| {
            let mut error = SqlError::new(state, message).with_hint(hint);
            error.position = Some(option.position);
            error
        };
        match (option.name.as_str(), option.value.to_lowercase().as_str()) {
            ("format", "parquet" | "portable") => parquet = true,
            ("format", "native") => parquet = false,
            ("format", other) => {
                return Err(wrong(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unknown format \"{other}\" of a savepoint"),
                    "Known are native and parquet.",
                ));
            }
            (other, _) => {
                return Err(wrong(
                    SqlState::SYNTAX_ERROR,
                    format!("unknown option \"{other}\" of a savepoint"),
                    "Known is format.",
                ));
            }
        }
    }
    Ok(parquet)
}

/// Opened at once, so that a wrong location fails before there is anything to take back.
fn place_of(statement: &Savepoint) -> Result<Option<(String, Storage)>, SqlError> {
    let Some(url) = &statement.to else {
        return Ok(None);
    };
    let storage = Storage::attach_or_create(url).map_err(CheckpointError::from)?;
    Ok(Some((url.clone(), storage)))
}

/// The manifest, or what of it some views need: their state, and that of all that they read.
fn part_of(manifest: &Manifest, wanted: &Wanted) -> Result<Manifest, SqlError> {
    let mut part = Manifest {
        savepoint: Some(wanted.name.clone()),
        ..manifest.clone()
    };
    if wanted.views.is_empty() {
        return Ok(part);
    }
    let (catalog, _) = catalog_of(Some(manifest))?;
    let mut needed: BTreeSet<RelationId> = BTreeSet::new();
    let mut open: Vec<RelationId> = wanted.views.iter().map(|(id, _)| *id).collect();
    while let Some(id) = open.pop() {
        if needed.insert(id)
            && let Some(relation) = catalog.relation(id)
        {
            open.extend(relation.depends_on.iter().copied());
        }
    }
    part.tables
        .retain(|_, t| needed.contains(&t.descriptor.relation));
    part.sink_tokens.clear();
    part.details.views = wanted.views.iter().map(|(_, name)| name.clone()).collect();
    Ok(part)
}

/// What files and columns of a portable copy are called.
fn names_of(catalog: &Catalog) -> HashMap<RelationId, Named> {
    let named = |relation: &Arc<tidegate_catalog::Relation>| {
        let columns = relation.visible_columns();
        let named = Named {
            name: format!("{}.{}", relation.schema, relation.name),
            columns: columns.map(|(i, c)| (i, c.name.clone())).collect(),
        };
        (relation.id, named)
    };
    catalog.relations().map(named).collect()
}

async fn remove_folder(storage: &Storage, folder: &str) {
    let removed = async {
        let listed = storage.list(folder).await?;
        let objects: Vec<String> = listed.into_iter().map(|l| l.object).collect();
        storage.delete(&objects).await
    };
    if let Err(error) = removed.await {
        tracing::warn!(folder, %error, "what was written in vain could not be removed");
    }
}

//! `--from-savepoint`: a new, empty data directory that begins with a savepoint, of whatever server.
//!
//! The savepoint is copied into this server's storage, each block verified on the way, and becomes its first checkpoint;
//! from there on everything is as after any restart, with this server's workers and backend. The log begins empty. What
//! went wrong on the way leaves a directory that is still empty, so that the same command can be given again.
//!
//! A savepoint `FOR MATERIALIZED VIEW` begins a database that has those views and what they read, and nothing else.

use crate::config::Config;
use crate::database::{catalog_of, durable_catalog};
use crate::fit::{Unfit, refusal, specs_of, unfit};
use crate::log::ClosedLog;
use crate::offline::{qualified, redacted};
use crate::suspension::{with_readers, with_suspension};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tidegate_catalog::{Catalog, CatalogChange, RelationClass};
use tidegate_checkpoint::{CheckpointError, CheckpointStore, Manifest, Offline, Storage};
use tidegate_runtime::{Reason, Suspension};
use tidegate_types::{LogPosition, RelationId, SqlError, SqlState};

/// What a database is to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromSavepoint {
    /// A storage, or the data directory of a server with its checkpoints in it.
    pub location: String,
    /// `None`: the only savepoint there is.
    pub name: Option<String>,
    /// State that belongs to nothing in the plans of this version is let go.
    pub allow_non_restored_state: bool,
}

impl FromSavepoint {
    /// `URL` or `URL#NAME`, where the URL is a directory, `s3://…`, `gs://…`, `az://…`.
    pub fn parse(text: &str, allow_non_restored_state: bool) -> Result<Self, SqlError> {
        let (location, name) = match text.rsplit_once('#') {
            Some((location, name)) => (location, Some(name.to_owned())),
            None => (text, None),
        };
        if location.is_empty() || name.as_deref() == Some("") {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("\"{}\" does not name a savepoint", redacted(text)),
            )
            .with_hint(
                "It is given as URL or URL#NAME, as in ./place, s3://bucket/place#monday.",
            ));
        }
        Ok(Self {
            location: location.to_owned(),
            name,
            allow_non_restored_state,
        })
    }

    /// People name the data directory of a server as readily as the storage in it.
    fn storage(&self) -> Result<Storage, SqlError> {
        let inside = Path::new(&self.location).join("checkpoints");
        let location = match inside.join("savepoints").is_dir() {
            true => inside.display().to_string(),
            false => self.location.clone(),
        };
        Ok(Storage::attach(&location).map_err(CheckpointError::from)?)
    }
}

/// Fails unless nothing was ever kept in this data directory, nor in the storage that belongs to it.
pub(crate) async fn refuse_used(config: &Config, storage: &Storage) -> Result<(), SqlError> {
    let used = |what: &str| {
        SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "--from-savepoint needs a data directory that is empty, and there is {what} in \"{}\"",
                config.data_dir.display()
            ),
        )
        .with_hint("Choose another --data-dir; or leave --from-savepoint out, and the server goes on with what is there.")
    };
    let log = config.data_dir.join("log");
    if log.is_dir() && ClosedLog::open(&log, None)?.last_position() > LogPosition(0) {
        return Err(used("a command log"));
    }
    let held = Offline::open(storage.clone()).await?;
    if !held.checkpoints().is_empty() || !held.damaged().is_empty() {
        return Err(used("a checkpoint"));
    }
    if !held.savepoints().is_empty() {
        return Err(used("a savepoint"));
    }
    Ok(())
}

/// Makes the savepoint the first checkpoint of this storage.
pub(crate) async fn begin(
    config: &Config,
    from: &FromSavepoint,
    store: &Arc<CheckpointStore>,
    identity: &str,
) -> Result<(), SqlError> {
    let offline = Offline::open(from.storage()?).await?;
    let saved = offline.savepoint(from.name.as_deref());
    let saved = saved.map_err(|e| match (&from.name, SqlError::from(e)) {
        (None, e) if e.state != SqlState::DATA_CORRUPTED => {
            e.with_hint("Name one as URL#NAME; tidegate savepoint list --storage URL lists them.")
        }
        (_, e) => e,
    })?;
    let name = saved.savepoint.clone().unwrap_or_default();
    let (catalog, _) = catalog_of(Some(&saved))?;
    let mut part = Part {
        name: &name,
        catalog,
        manifest: (*saved).clone(),
    };
    part.keep_saved_views()?;
    let specs = specs_of(&part.catalog, config.default_backend(), identity)?;
    let unfit = unfit(&part.catalog, &specs, &part.manifest);
    if !unfit.is_empty() {
        part.let_go(&unfit, from.allow_non_restored_state)?;
    }
    let restorer = offline.restorer(&saved)?;
    let tables = part.manifest.tables.clone();
    let stored = |table| tables.get(&table).cloned();
    crate::sources::check_positions(&name, &specs, &restorer, stored).await?;
    tracing::info!(
        savepoint = name,
        bytes = part.manifest.bytes(),
        "copying the savepoint"
    );
    let imported = store.import(&restorer, &part.manifest, &mut |_| {}).await?;
    let first = Manifest {
        catalog: Arc::new(durable_catalog(&part.catalog, LogPosition(0))),
        ..(*imported).clone()
    };
    let adopted = store.adopt(&first, LogPosition(0)).await?;
    tracing::info!(
        savepoint = name,
        epoch = saved.epoch.0,
        rows = adopted.rows(),
        "the database begins with a savepoint"
    );
    Ok(())
}

/// What of a savepoint is restored.
struct Part<'a> {
    name: &'a str,
    catalog: Catalog,
    manifest: Manifest,
}

impl Part<'_> {
    /// Of a savepoint of some views, those and all that they read.
    fn keep_saved_views(&mut self) -> Result<(), SqlError> {
        let views = self.manifest.details.views.clone();
        if views.is_empty() {
            return Ok(());
        }
        let mut needed: BTreeSet<RelationId> = BTreeSet::new();
        let mut open: Vec<RelationId> = self
            .catalog
            .relations_of(RelationClass::MaterializedView)
            .filter(|r| views.contains(&qualified(r)))
            .map(|r| r.id)
            .collect();
        while let Some(id) = open.pop() {
            if needed.insert(id)
                && let Some(relation) = self.catalog.relation(id)
            {
                open.extend(relation.depends_on.iter().copied());
            }
        }
        let others: Vec<RelationId> = self
            .catalog
            .relations()
            .map(|r| r.id)
            .filter(|id| !needed.contains(id))
            .collect();
        tracing::info!(
            savepoint = self.name,
            views = views.join(", "),
            left_out = others.len(),
            "the savepoint is of some views: the database has those and what they read"
        );
        self.catalog.apply(&CatalogChange::DropRelations(others))?;
        Ok(())
    }

    /// What does not fit is built anew from its inputs, and so is what reads it. Tables and sources have no inputs.
    fn let_go(&mut self, unfit: &[Unfit], allowed: bool) -> Result<(), SqlError> {
        let error = refusal(self.name, unfit);
        let cannot_be_built = unfit
            .iter()
            .find(|u| u.relation.class() != RelationClass::MaterializedView);
        if let Some(kept) = cannot_be_built {
            return Err(error.with_hint(format!(
                "{} \"{}\" cannot be built anew: begin with the savepoint under the version that took it.",
                kept.relation.class(),
                kept.relation.name
            )));
        }
        if !allowed {
            return Err(error.with_hint("With --allow-non-restored-state that state is let go, and these views, with all that read them, are built anew from their inputs."));
        }
        let mut gone: BTreeSet<RelationId> = BTreeSet::new();
        for unfit in unfit {
            tracing::warn!(
                savepoint = self.name,
                "state is not restored: {}",
                unfit.told()
            );
            for (reader, _) in with_readers(&self.catalog, unfit.relation.id) {
                if gone.insert(reader.id) {
                    self.build_anew(&reader, &unfit.relation.name)?;
                }
            }
        }
        self.manifest
            .tables
            .retain(|_, t| !gone.contains(&t.descriptor.relation));
        self.manifest.sink_tokens.retain(|id, _| !gone.contains(id));
        Ok(())
    }

    /// A sink would write again what it wrote before, so it waits for somebody to decide.
    fn build_anew(
        &mut self,
        relation: &tidegate_catalog::Relation,
        because: &str,
    ) -> Result<(), SqlError> {
        if relation.class() != RelationClass::Sink {
            tracing::warn!(
                view = relation.name,
                "the view is built anew from its inputs"
            );
            return Ok(());
        }
        tracing::warn!(
            sink = relation.name,
            "the sink is suspended: \"{because}\" is built anew, and it would write everything again; drop and create it"
        );
        let suspended = with_suspension(
            relation,
            Some(&Suspension {
                relation: relation.id,
                name: relation.name.clone(),
                reason: Reason::Suspended,
                cause: format!(
                    "\"{because}\" was built anew when the database began with a savepoint"
                ),
                with: None,
            }),
        );
        let change = CatalogChange::ReplaceRelation(Box::new(suspended));
        self.catalog.apply(&change)?;
        Ok(())
    }
}

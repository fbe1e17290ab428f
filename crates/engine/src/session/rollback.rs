//! `ROLLBACK TO SAVEPOINT name`, at the level of the database.
//!
//! Everything that can stand in the way is looked for first: damage, sources that no longer hold their positions, definitions
//! that are planned differently now. Then the present is saved, so that the way back is open; only after that the log says
//! that a new timeline begins, and the workers start again from the savepoint.

use super::{Session, command};
use crate::api::Response;
use crate::database::{Database, catalog_of};
use crate::fit;
use crate::log::LogEntry;
use crate::timeline::beginning_of;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_catalog::{Catalog, RelationClass};
use tidegate_checkpoint::Manifest;
use tidegate_checkpoint::offline::restorer_of;
use tidegate_parser::WithOption;
use tidegate_parser::sqlparser::ast::Ident;
use tidegate_types::{SqlError, SqlState};

/// What sinks do about changes that they wrote and that never were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sinks {
    /// They go on with the changes that come after the savepoint.
    Skip,
    /// They write all that their query holds at the savepoint, as new ones do, and go on from there.
    Replay,
}

impl Session {
    pub(super) async fn rollback_to(
        &mut self,
        name: &Ident,
        options: &[WithOption],
    ) -> Result<Response, SqlError> {
        self.database.check_open()?;
        let sinks = sinks_of(options)?;
        let name = tidegate_parser::fold(name);
        let database = self.database.clone();
        let _ddl = database.ddl.lock().await;
        let saved = database.store.describe_savepoint(&name)?;
        let (catalog, _) = catalog_of(Some(&saved))?;
        refuse_part(&name, &saved)?;
        refuse_undecided(&name, &database, &catalog, sinks)?;
        check(&database, &name, &saved, &catalog).await?;
        let replays_sinks = sinks == Some(Sinks::Replay);
        let manifest = beginning_of(&database.store, &saved, &catalog, replays_sinks).await?;
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis());
        let present = format!("before_rollback_{clock}");
        self.take_savepoint(&present).await?;
        // Nobody writes between the end of the old timeline and the beginning of the new one.
        let turn = database.sequencer.turn().await;
        let (_, durable) = database.log.append(LogEntry::Timeline {
            savepoint: name.clone(),
            replays_sinks,
        })?;
        self.last_write = durable
            .await
            .map_err(|_| SqlError::internal("the log ended"))??;
        database.restart_from(manifest).await?;
        drop(turn);
        database.runtime()?.checkpoint().await?;
        self.notice(format!("the database is as it was at savepoint \"{name}\"; how it was before is savepoint \"{present}\""));
        Ok(command("ROLLBACK"))
    }

    async fn take_savepoint(&mut self, name: &str) -> Result<(), SqlError> {
        let database = self.database.clone();
        database.store.check_savepoint_name(name)?;
        let runtime = database.runtime()?;
        let info = runtime.checkpoint().await?;
        // A newer one may have overtaken rows, and would end no epoch.
        let retained = database.store.retained();
        let manifest = retained
            .into_iter()
            .find(|m| m.checkpoint == info.id)
            .ok_or_else(|| {
                SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the checkpoint for the savepoint has gone",
                )
            })?;
        database.store.savepoint(name, &manifest).await?;
        self.notice(format!(
            "savepoint \"{name}\" of epoch {} holds {} rows",
            manifest.epoch,
            manifest.rows()
        ));
        Ok(())
    }
}

fn sinks_of(options: &[WithOption]) -> Result<Option<Sinks>, SqlError> {
    let mut sinks = None;
    for option in options {
        let wrong = |state, message: String, hint: &str| {
            let mut error = SqlError::new(state, message).with_hint(hint);
            error.position = Some(option.position);
            error
        };
        sinks = match (option.name.as_str(), option.value.to_lowercase().as_str()) {
            ("sinks", "skip") => Some(Sinks::Skip),
            ("sinks", "replay") => Some(Sinks::Replay),
            ("sinks", other) => {
                return Err(wrong(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unknown value \"{other}\" of option \"sinks\""),
                    "Known are skip and replay.",
                ));
            }
            (other, _) => {
                return Err(wrong(
                    SqlState::SYNTAX_ERROR,
                    format!("unknown option \"{other}\" of ROLLBACK TO SAVEPOINT"),
                    "Known is sinks.",
                ));
            }
        };
    }
    Ok(sinks)
}

/// The other relations would stay as they are, over tables and sources that went back under them.
fn refuse_part(name: &str, saved: &Manifest) -> Result<(), SqlError> {
    if saved.details.views.is_empty() {
        return Ok(());
    }
    Err(SqlError::not_supported(format!(
        "ROLLBACK TO SAVEPOINT \"{name}\", which holds only {} and what they read",
        saved.details.views.join(", ")
    ))
    .with_detail("What is not in it would stay as it is, and no longer be what its query gives over tables and sources that went back.")
    .with_hint(format!(
        "Read it with FOR SYSTEM_TIME AS OF SAVEPOINT \"{name}\", let a view begin with it by CREATE MATERIALIZED VIEW … FROM SAVEPOINT \"{name}\", or start a server of its own with --from-savepoint."
    )))
}

/// Whoever reads a sink's output cannot be told that some of it never was, so a person has to decide.
fn refuse_undecided(
    name: &str,
    database: &Database,
    then: &Catalog,
    sinks: Option<Sinks>,
) -> Result<(), SqlError> {
    let now = database.catalog.get();
    let names: BTreeSet<String> = [&now, then]
        .into_iter()
        .flat_map(|c| c.relations_of(RelationClass::Sink))
        .map(|r| format!("\"{}\"", r.name))
        .collect();
    if names.is_empty() || sinks.is_some() {
        return Ok(());
    }
    let names: Vec<String> = names.into_iter().collect();
    Err(SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "ROLLBACK TO SAVEPOINT \"{name}\" has to be told what becomes of sinks: {}",
            names.join(", ")
        ),
    )
    .with_detail("What they wrote since the savepoint cannot be taken back.")
    .with_hint("WITH (sinks = 'skip'): they go on with what changes after the savepoint. WITH (sinks = 'replay'): they write all that they hold at the savepoint again, and go on from there."))
}

/// What would keep the database from starting with the savepoint. All of it is read once.
async fn check(
    database: &Arc<Database>,
    name: &str,
    saved: &Arc<Manifest>,
    catalog: &Catalog,
) -> Result<(), SqlError> {
    let restorer = restorer_of(database.store.storage(), saved)?;
    restorer.verify(saved).await?;
    let specs = fit::specs_of(catalog, database.default_backend(), database.identity())?;
    let unfit = fit::unfit(catalog, &specs, saved);
    if !unfit.is_empty() {
        return Err(fit::refusal(name, &unfit).with_hint(
            "A server that begins with it and --allow-non-restored-state builds these anew.",
        ));
    }
    let stored = |table| saved.tables.get(&table).cloned();
    crate::sources::check_positions(name, &specs, &restorer, stored).await
}

//! The choices of checkpoints: settings of the server, which can be changed while it runs, and options of a view.
//!
//! Every change is checked as a whole before anything of it takes effect: a combination that cannot hold is refused, and
//! so is at-least-once for a view over something that is retracted from.

use crate::config;
use crate::database::Database;
use crate::rescale;
use crate::settings::{Settings, setting};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_catalog::{Relation, RelationClass, RelationKind};
use tidegate_plan::{Dataflow, Op};
use tidegate_runtime::{
    CheckpointAlignment, CheckpointExecution, CheckpointGuarantee, CheckpointMode,
    CheckpointPolicy, RelationChoices, RelationSpec,
};
use tidegate_types::{SqlError, SqlState};

/// Settings whose change takes effect at once.
pub(crate) const LIVE: &[&str] = &[
    "aligned_checkpoint_timeout",
    "checkpoint_alignment",
    "checkpoint_execution",
    "checkpoint_guarantee",
    "checkpoint_interval",
    "checkpoint_min_pause",
    "checkpoint_mode",
    "checkpoint_on_drop",
    "checkpoint_retained",
    "checkpoint_timeout",
    "history_retention",
    "max_concurrent_checkpoints",
    "tolerable_failed_checkpoints",
];

/// Those that a view may choose for itself; they can be changed while it runs.
pub(crate) const OF_VIEWS: &[&str] = &[
    "checkpoint_mode",
    "checkpoint_guarantee",
    "checkpoint_on_drop",
];

impl Settings {
    pub(crate) fn checkpoint_policy(&self) -> Result<CheckpointPolicy, SqlError> {
        let unaligned = self.text("checkpoint_alignment") == "unaligned";
        let alignment = match (unaligned, self.duration("aligned_checkpoint_timeout")) {
            (true, Some(_)) => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "checkpoint_alignment = unaligned and aligned_checkpoint_timeout cannot be combined",
                )
                .with_detail("An unaligned barrier overtakes from the start and waits for no timeout.")
                .with_hint("Set one of them back first: aligned_checkpoint_timeout to off, or checkpoint_alignment to aligned."));
            }
            (true, None) => CheckpointAlignment::Unaligned,
            (false, Some(after)) => CheckpointAlignment::AlignedFor(after),
            (false, None) => CheckpointAlignment::Aligned,
        };
        let policy = CheckpointPolicy {
            interval: self.duration("checkpoint_interval"),
            min_pause: self.duration("checkpoint_min_pause").unwrap_or_default(),
            timeout: self.duration("checkpoint_timeout").unwrap_or_default(),
            max_concurrent: self.integer("max_concurrent_checkpoints") as usize,
            tolerable_failed: self.text("tolerable_failed_checkpoints").parse().ok(),
            mode: mode(self.text("checkpoint_mode")),
            execution: match self.text("checkpoint_execution") {
                "sync" => CheckpointExecution::Sync,
                _ => CheckpointExecution::Async,
            },
            alignment,
            guarantee: guarantee(self.text("checkpoint_guarantee")),
        };
        policy.check()?;
        Ok(policy)
    }
}

fn mode(text: &str) -> CheckpointMode {
    match text {
        "full" => CheckpointMode::Full,
        _ => CheckpointMode::Incremental,
    }
}

fn guarantee(text: &str) -> CheckpointGuarantee {
    match text {
        "at_least_once" => CheckpointGuarantee::AtLeastOnce,
        _ => CheckpointGuarantee::ExactlyOnce,
    }
}

/// Options of `WITH` and `ALTER … SET` that are about checkpoints, checked.
pub(crate) fn check_options(options: &BTreeMap<String, String>) -> Result<(), SqlError> {
    for (name, value) in options {
        if OF_VIEWS.contains(&name.as_str()) {
            setting(name).expect("each is a setting too").check(value)?;
        }
    }
    Ok(())
}

/// An option that only a server can choose, with the reason.
pub(crate) fn refuse_server_options<'a>(
    names: impl Iterator<Item = &'a str>,
) -> Result<(), SqlError> {
    for name in names {
        if LIVE.contains(&name) && !OF_VIEWS.contains(&name) {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("\"{name}\" cannot be chosen for one view"),
            )
            .with_detail("One barrier goes through all views and one manifest holds them, so that they can be read and restored together.")
            .with_hint(format!("ALTER SYSTEM SET {name} changes it for all. Views choose {}.", OF_VIEWS.join(", "))));
        }
    }
    Ok(())
}

/// What a relation chooses. Only views have a choice: tables hold what was acknowledged and sinks what others rely on, each
/// exactly once.
pub(crate) fn choices(relation: &Relation) -> Arc<RelationChoices> {
    let choices = RelationChoices::default();
    match &relation.kind {
        RelationKind::MaterializedView(def) => set_choices(&choices, &def.options),
        _ => choices.set_guarantee(Some(CheckpointGuarantee::ExactlyOnce)),
    }
    Arc::new(choices)
}

pub(crate) fn set_choices(choices: &RelationChoices, options: &BTreeMap<String, String>) {
    choices.set_mode(options.get("checkpoint_mode").map(|m| mode(m)));
    choices.set_guarantee(options.get("checkpoint_guarantee").map(|g| guarantee(g)));
}

/// Whether at-least-once is in force for a view.
pub(crate) fn is_at_least_once(options: &BTreeMap<String, String>, server: &Settings) -> bool {
    let chosen = options.get("checkpoint_guarantee").map(String::as_str);
    chosen.unwrap_or_else(|| server.text("checkpoint_guarantee")) == "at_least_once"
}

/// Fails for a dataflow that reads something which is retracted from.
pub(crate) fn check_at_least_once(dataflow: &Dataflow) -> Result<(), SqlError> {
    let is_input = |op: &Op| matches!(op, Op::Import { .. } | Op::Source { .. });
    let retracts = |n: &&tidegate_plan::Node| is_input(&n.op) && !n.append_only;
    if dataflow.nodes.iter().any(|n| retracts(&n)) {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!(
                "materialized view \"{}\" cannot be at_least_once: it reads a relation whose rows are updated or deleted",
                dataflow.name
            ),
        )
        .with_detail("After a crash some changes are processed again. A row that is inserted twice is a duplicate; a row that is retracted twice would corrupt what is counted and joined.")
        .with_hint("Choose it for views over sources and other relations that only grow, or WITH (checkpoint_guarantee = 'exactly_once')."));
    }
    Ok(())
}

impl Database {
    /// The value of a setting as it is in force for the server.
    pub(crate) fn live_setting(&self, name: &str) -> Option<String> {
        if name == rescale::SETTING {
            return self.workers().ok().map(|workers| workers.to_string());
        }
        LIVE.contains(&name)
            .then(|| self.live.read().get(name).map(str::to_owned))
            .flatten()
    }

    /// Changes settings of the server, now where they can be and for the next start. `None`: back to the default. Answers
    /// whether all of it is in force now.
    pub(crate) fn change_settings(
        &self,
        changes: &[(String, Option<String>)],
    ) -> Result<bool, SqlError> {
        let mut live = self.live.read().clone();
        let is_live = |name: &str| LIVE.contains(&name.to_ascii_lowercase().as_str());
        for (name, value) in changes.iter().filter(|(name, _)| is_live(name)) {
            match value {
                Some(value) => live.set(name, value)?,
                None => live.reset(name)?,
            }
        }
        let policy = live.checkpoint_policy()?;
        if policy.guarantee == CheckpointGuarantee::AtLeastOnce {
            self.check_views(&live)?;
        }
        for (name, value) in changes {
            config::persist(&self.config.data_dir, name, value.as_deref())?;
        }
        if changes.iter().any(|(name, _)| is_live(name)) {
            self.runtime()?.set_policy(policy)?;
            self.store
                .set_retained(live.integer("checkpoint_retained") as usize);
            self.store.set_history(live.duration("history_retention"));
            *self.live.write() = live;
        }
        Ok(changes.iter().all(|(name, _)| is_live(name)))
    }

    /// Fails if a view that follows the server cannot be at-least-once.
    fn check_views(&self, server: &Settings) -> Result<(), SqlError> {
        let catalog = self.catalog.get();
        for relation in catalog.relations_of(RelationClass::MaterializedView) {
            if let RelationKind::MaterializedView(def) = &relation.kind
                && is_at_least_once(&def.options, server)
                && let Some(spec) = self.spec(&catalog, relation)?
            {
                check_at_least_once(&spec.dataflow)?;
            }
        }
        Ok(())
    }

    /// Checks what a new view chooses, and answers what its owner has to know.
    pub(crate) fn check_choices(
        &self,
        relation: &Relation,
        spec: &RelationSpec,
    ) -> Result<Option<String>, SqlError> {
        let RelationKind::MaterializedView(def) = &relation.kind else {
            return Ok(None);
        };
        let live = self.live.read();
        if is_at_least_once(&def.options, &live) {
            check_at_least_once(&spec.dataflow)?;
            return Ok(Some(format!(
                "materialized view \"{}\" is at_least_once: after a crash it, and what reads it, may hold rows twice",
                relation.name
            )));
        }
        let catalog = self.catalog.get();
        let doubled = spec.dataflow.reads().into_iter().find_map(|id| {
            let read = catalog.relation(id)?;
            match &read.kind {
                RelationKind::MaterializedView(def) => {
                    is_at_least_once(&def.options, &live).then(|| read.name.clone())
                }
                _ => None,
            }
        });
        Ok(doubled.map(|name| {
            format!("materialized view \"{name}\" is at_least_once: after a crash this view may hold its rows twice too")
        }))
    }

    /// Keeps the newest state as a savepoint that nothing but `RELEASE SAVEPOINT` removes.
    pub(crate) async fn keep_checkpoint(&self, prefix: &str) -> Result<String, SqlError> {
        let info = self.runtime()?.checkpoint().await?;
        self.keep_as_savepoint(prefix, info.id).await
    }

    pub(crate) async fn keep_as_savepoint(
        &self,
        prefix: &str,
        checkpoint: tidegate_types::CheckpointId,
    ) -> Result<String, SqlError> {
        let retained = self.store.retained();
        let manifest = retained.iter().find(|m| m.checkpoint == checkpoint);
        let manifest = manifest.ok_or_else(|| {
            SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the checkpoint that was to be kept has expired",
            )
            .with_hint("Raise checkpoint_retained.")
        })?;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let prefix: String = prefix.chars().map(plain).collect();
        let name = format!("{prefix}_{}", manifest.epoch);
        self.store.savepoint(&name, manifest).await?;
        Ok(name)
    }

    /// Whether a dropped view leaves a checkpoint behind.
    pub(crate) fn is_kept_on_drop(&self, relation: &Relation) -> bool {
        let RelationKind::MaterializedView(def) = &relation.kind else {
            return false;
        };
        let chosen = def.options.get("checkpoint_on_drop").cloned();
        let chosen =
            chosen.unwrap_or_else(|| self.live.read().text("checkpoint_on_drop").to_owned());
        chosen == "retain"
    }
}

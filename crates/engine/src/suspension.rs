//! Suspended views and sinks in the catalog: as an option of their definition, so that the log and every checkpoint hold it.
//!
//! A suspended relation is planned and run by nobody. The runtime suspends what keeps failing by itself and goes on at
//! once; the task here makes that durable when the catalog is free. A crash in between is harmless: whoever failed fails
//! again. By hand it is the other way round, as with all DDL: logged first, then told to the runtime.

use crate::database::Database;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_catalog::{Catalog, CatalogChange, Relation, RelationKind};
use tidegate_runtime::{Reason, Runtime, Suspension};
use tidegate_types::{RelationId, SqlError};

/// Why it is suspended.
const CAUSE_OPTION: &str = "tidegate.suspended";
/// The id of the relation that it was suspended with.
const WITH_OPTION: &str = "tidegate.suspended_with";

/// How a relation is suspended; `None`: it is not.
pub(crate) fn suspension(relation: &Relation) -> Option<Suspension> {
    let options = match &relation.kind {
        RelationKind::MaterializedView(def) => &def.options,
        RelationKind::Sink(def) => &def.options,
        _ => return None,
    };
    Some(Suspension {
        relation: relation.id,
        name: relation.name.clone(),
        reason: Reason::Suspended,
        cause: options.get(CAUSE_OPTION)?.clone(),
        with: options
            .get(WITH_OPTION)
            .and_then(|id| id.parse().ok())
            .map(RelationId),
    })
}

/// As lists show it.
pub(crate) fn status(suspension: &Suspension) -> &'static str {
    match suspension.reason {
        Reason::Suspended => "suspended",
        Reason::Behind => "behind",
    }
}

/// The same relation, suspended like this or not at all. Tables, sources and views without contents never are.
pub(crate) fn with_suspension(relation: &Relation, how: Option<&Suspension>) -> Relation {
    let mut relation = relation.clone();
    let options: &mut BTreeMap<String, String> = match &mut relation.kind {
        RelationKind::MaterializedView(def) => &mut def.options,
        RelationKind::Sink(def) => &mut def.options,
        _ => return relation,
    };
    options.remove(CAUSE_OPTION);
    options.remove(WITH_OPTION);
    if let Some(how) = how {
        options.insert(CAUSE_OPTION.to_owned(), how.cause.clone());
        if let Some(with) = how.with {
            options.insert(WITH_OPTION.to_owned(), with.0.to_string());
        }
    }
    relation
}

/// A relation and all that read it, directly or not, plain views too.
pub(crate) fn all_readers(catalog: &Catalog, id: RelationId) -> Vec<RelationId> {
    let mut found = vec![id];
    let mut next = 0;
    while let Some(id) = found.get(next).copied() {
        next += 1;
        for reader in catalog.readers(id) {
            if !found.contains(&reader.id) {
                found.push(reader.id);
            }
        }
    }
    found
}

/// A relation and all that read it, directly or not, and run themselves: in order of dependency, each with whom it reads.
pub(crate) fn with_readers(
    catalog: &Catalog,
    id: RelationId,
) -> Vec<(Arc<Relation>, Option<RelationId>)> {
    let mut found: BTreeMap<RelationId, Option<RelationId>> = BTreeMap::from([(id, None)]);
    let mut relations = Vec::new();
    for relation in catalog.in_dependency_order() {
        let runs = matches!(
            relation.kind,
            RelationKind::MaterializedView(_) | RelationKind::Sink(_)
        );
        let below = relation.depends_on.iter().find(|r| found.contains_key(r));
        if relation.id != id && !(runs && below.is_some()) {
            continue;
        }
        let with = below.copied().filter(|_| relation.id != id);
        found.insert(relation.id, with);
        relations.push((relation.clone(), with));
    }
    relations
}

impl Database {
    /// What the runtime was not told to run.
    pub(crate) fn suspended(&self) -> Vec<Suspension> {
        self.catalog
            .get()
            .relations()
            .filter_map(|r| suspension(r))
            .collect()
    }

    /// Makes durable what the runtime suspends, for as long as it lives.
    pub(crate) fn keep_suspensions(self: &Arc<Self>, runtime: &Runtime) {
        let Some(mut imposed) = runtime.imposed_suspensions() else {
            return;
        };
        let database = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(suspensions) = imposed.recv().await {
                let Some(database) = database.upgrade() else {
                    return;
                };
                if let Err(error) = database.keep(suspensions).await {
                    tracing::error!("suspensions could not be made durable: {error}");
                }
            }
        });
    }

    async fn keep(&self, suspensions: Vec<Suspension>) -> Result<(), SqlError> {
        let ids: Vec<RelationId> = suspensions.iter().map(|s| s.relation).collect();
        self.transients.end_readers(&ids);
        let _turn = self.ddl.lock().await;
        // Meanwhile somebody may have resumed or dropped it.
        let held = self.runtime()?.suspensions();
        let still = suspensions.iter().filter(|s| held.contains(s));
        self.mark_suspended(still).await
    }

    /// The caller holds `ddl`.
    pub(crate) async fn mark_suspended(
        &self,
        suspensions: impl Iterator<Item = &Suspension>,
    ) -> Result<(), SqlError> {
        let mut next = self.catalog.get();
        let mut changes = Vec::new();
        for how in suspensions.filter(|s| s.reason == Reason::Suspended) {
            let Some(relation) = next.relation(how.relation) else {
                continue;
            };
            if suspension(relation).is_some() {
                continue;
            }
            let change = with_suspension(relation, Some(how));
            changes.push(CatalogChange::ReplaceRelation(Box::new(change)));
            next.apply(changes.last().expect("just pushed"))?;
        }
        if !changes.is_empty() {
            let relations = changes.len();
            self.log_catalog(next, changes).await?;
            tracing::info!(relations, "suspensions are durable");
        }
        Ok(())
    }
}

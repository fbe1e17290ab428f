//! `SUSPEND` and `RESUME MATERIALIZED VIEW`.
//!
//! A view is suspended with all views that read it. It keeps its definition and loses its contents: to go on later from
//! where it stopped would take every change of its inputs since, and nobody keeps those. So resuming builds it anew from
//! what its inputs hold by then, with the views that were suspended with it, and reading it meanwhile is an error rather
//! than an answer from an epoch that nothing else in the query is at.

use super::command;
use super::create::Ddl;
use crate::api::Response;
use crate::suspension::{suspension, with_readers, with_suspension};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_catalog::{Catalog, CatalogChange, Relation, RelationClass};
use tidegate_parser::ObjectKind;
use tidegate_parser::sqlparser::ast::ObjectName;
use tidegate_runtime::{Reason, Suspension};
use tidegate_types::{RelationId, SqlError, SqlState};

const BY_HAND: &str = "suspended by SUSPEND MATERIALIZED VIEW";

impl Ddl<'_> {
    pub async fn suspend(
        &mut self,
        kind: ObjectKind,
        name: &ObjectName,
    ) -> Result<Response, SqlError> {
        let tag = "SUSPEND MATERIALIZED VIEW";
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        let view = self.suspendable(kind, name, "SUSPEND")?;
        if suspension(&view).is_some() {
            self.session.notice(format!(
                "materialized view \"{}\" is suspended already, skipping",
                view.name
            ));
            return Ok(command(tag));
        }
        database.expect_not_altering(&[view.id])?;
        let catalog = database.catalog.get();
        let mut suspensions: Vec<Suspension> = Vec::new();
        for (relation, with) in with_readers(&catalog, view.id) {
            if suspension(&relation).is_some() {
                continue;
            }
            if relation.class() == RelationClass::Sink {
                return Err(sink_in_the_way(&view, &relation));
            }
            let read = with.and_then(|id| catalog.relation(id));
            let cause = match read {
                Some(read) => format!("it reads \"{}\", which is suspended", read.name),
                None => BY_HAND.to_owned(),
            };
            suspensions.push(Suspension {
                relation: relation.id,
                name: relation.name.clone(),
                reason: Reason::Suspended,
                cause,
                with,
            });
        }
        database.mark_suspended(suspensions.iter()).await?;
        let ids: Vec<RelationId> = suspensions.iter().map(|s| s.relation).collect();
        let others: Vec<String> = suspensions[1..].iter().map(|s| quoted(&s.name)).collect();
        let ended = database.transients.end_readers(&ids);
        let runtime = database.runtime()?;
        runtime.drop_relations(&ended).await?;
        runtime.suspend(suspensions).await?;
        if !others.is_empty() {
            self.session.notice(format!(
                "suspended with it, because they read it: {}",
                others.join(", ")
            ));
        }
        Ok(command(tag))
    }

    pub async fn resume(
        &mut self,
        kind: ObjectKind,
        name: &ObjectName,
    ) -> Result<Response, SqlError> {
        let tag = "RESUME MATERIALIZED VIEW";
        let database = self.database.clone();
        let resumed = {
            let _turn = database.ddl.lock().await;
            let view = self.suspendable(kind, name, "RESUME")?;
            // What keeps failing is suspended by the runtime first and in the catalog a little later.
            let runtime = database.runtime()?;
            database
                .mark_suspended(runtime.suspensions().iter())
                .await?;
            let catalog = database.catalog.get();
            let is_suspended = catalog
                .relation(view.id)
                .is_some_and(|r| suspension(r).is_some());
            if !is_suspended {
                self.session.notice(format!(
                    "materialized view \"{}\" is not suspended, skipping",
                    view.name
                ));
                return Ok(command(tag));
            }
            let resumed = self.views_to_resume(&catalog, &view)?;
            self.run_again(&resumed).await?;
            resumed
        };
        if !self.session.settings.boolean("background_ddl") {
            for relation in &resumed {
                self.wait_for_backfill(relation.id).await?;
            }
        }
        Ok(command(tag))
    }

    fn suspendable(
        &self,
        kind: ObjectKind,
        name: &ObjectName,
        verb: &str,
    ) -> Result<Arc<Relation>, SqlError> {
        let class = match kind {
            ObjectKind::MaterializedView => RelationClass::MaterializedView,
            other => return Err(SqlError::not_supported(format!("{verb} {}", other.sql()))),
        };
        let catalog = self.database.catalog.get();
        let parts = tidegate_parser::name_parts(name);
        let relation = catalog.resolve_class(&parts, &self.session.path(), class)?;
        let id = relation.id;
        Ok(catalog.relation(id).expect("it was just resolved").clone())
    }

    /// The view and those that were suspended with it and can run again, in order of dependency.
    fn views_to_resume(
        &mut self,
        catalog: &Catalog,
        view: &Relation,
    ) -> Result<Vec<Arc<Relation>>, SqlError> {
        let mut ids = BTreeSet::new();
        let mut relations = Vec::new();
        let mut sinks = Vec::new();
        for (relation, _) in with_readers(catalog, view.id) {
            let Some(how) = suspension(&relation) else {
                continue;
            };
            let is_view = relation.id == view.id;
            if !is_view && !how.with.is_some_and(|with| ids.contains(&with)) {
                continue;
            }
            let missing = relation.depends_on.iter().find_map(|read| {
                let read = catalog.relation(*read)?;
                (!ids.contains(&read.id))
                    .then(|| suspension(read))
                    .flatten()
            });
            match missing {
                Some(missing) if is_view => {
                    return Err(SqlError::new(
                        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                        format!(
                            "materialized view \"{}\" cannot be resumed because it reads \"{}\", which is suspended",
                            view.name, missing.name
                        ),
                    )
                    .with_hint(format!(
                        "RESUME MATERIALIZED VIEW \"{}\" resumes both.",
                        missing.name
                    )));
                }
                Some(_) => continue,
                None if relation.class() == RelationClass::Sink => {
                    sinks.push(quoted(&relation.name));
                }
                None => {
                    ids.insert(relation.id);
                    relations.push(relation);
                }
            }
        }
        if !sinks.is_empty() {
            self.session.notice(format!(
                "sinks stay suspended, because they would write again what they wrote before: {}; drop and create them",
                sinks.join(", ")
            ));
        }
        Ok(relations)
    }

    /// Durable first, then built; what cannot be built is suspended again, and with it what comes after.
    async fn run_again(&mut self, relations: &[Arc<Relation>]) -> Result<(), SqlError> {
        let database = self.database.clone();
        let before: Vec<Suspension> = relations.iter().filter_map(|r| suspension(r)).collect();
        let mut next = database.catalog.get();
        let mut changes = Vec::new();
        let mut specs = Vec::new();
        for relation in relations {
            let running = with_suspension(relation, None);
            let change = CatalogChange::ReplaceRelation(Box::new(running.clone()));
            next.apply(&change)?;
            changes.push(change);
            specs.extend(database.spec(&next, &running)?);
        }
        self.session.last_write = database.log_catalog(next, changes).await?;
        let runtime = database.runtime()?;
        for (index, spec) in specs.into_iter().enumerate() {
            if let Err(error) = runtime.create(spec).await {
                let mut again = before[index..].to_vec();
                again[0].cause = error.to_string();
                database.mark_suspended(again.iter()).await?;
                runtime.suspend(again).await?;
                return Err(error);
            }
        }
        Ok(())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn sink_in_the_way(view: &Relation, sink: &Relation) -> SqlError {
    SqlError::new(
        SqlState::DEPENDENT_OBJECTS,
        format!(
            "cannot suspend materialized view \"{}\" because sink \"{}\" depends on it",
            view.name, sink.name
        ),
    )
    .with_detail(
        "When it is resumed the view is built anew, and the sink would write every row again.",
    )
    .with_hint(format!("DROP SINK \"{}\" first.", sink.name))
}

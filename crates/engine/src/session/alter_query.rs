//! `ALTER MATERIALIZED VIEW … AS` and `CREATE OR REPLACE MATERIALIZED VIEW`: another query for a view that goes on.
//!
//! Planned and compared with the plan that runs; refused if something that reads the view could not go on; built beside
//! the old plan; then the new definition is logged, and the new plan takes over. Until it is logged the statement can be
//! cancelled, and a crash leaves the old view; from then on the new one is what there is, whatever happens. It returns
//! when a checkpoint holds the new state, so that a restart need not carry the alteration out again.

use super::create::{Ddl, VIEW_OPTIONS, columns_of, known_options, moved, remember_watermarks};
use super::definition::definition;
use super::{Session, command};
use crate::api::{CancelReason, Response};
use crate::checkpoint_settings::{check_options, refuse_server_options};
use crate::database::Database;
use crate::relations::{APPEND_ONLY_OPTION, Names, SEARCH_PATH_OPTION, UNIQUE_OPTION};
use crate::suspension::suspension;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_catalog::{
    Catalog, CatalogChange, CatalogError, Relation, RelationClass, RelationKind, SearchPath,
};
use tidegate_parser::sqlparser::ast::ObjectName;
use tidegate_parser::{
    AlterMaterializedView, AlterOperation, CreateMaterializedView, QueryText, WithOption,
};
use tidegate_plan::{Dataflow, Fate};
use tidegate_planner::{Planner, stored_functions};
use tidegate_runtime::{Alteration, RelationSpec};
use tidegate_types::{LogPosition, RelationId, SqlError, SqlState};

/// A view with another query, decided but not carried out.
pub(super) struct NewQuery {
    pub old: Arc<Relation>,
    pub relation: Relation,
    pub old_plan: Dataflow,
    pub plan: Dataflow,
    /// Of each operator of the new plan.
    pub fates: Vec<Fate>,
    pub notices: Vec<String>,
}

/// Takes a view off the list of those that are being altered.
struct Altering(Arc<Database>, RelationId);

impl Drop for Altering {
    fn drop(&mut self) {
        self.0.altering.lock().remove(&self.1);
    }
}

impl Session {
    /// The materialized view of this name.
    pub(super) fn altered_view(&self, name: &ObjectName) -> Result<Arc<Relation>, CatalogError> {
        let catalog = self.database.catalog.get();
        let parts = tidegate_parser::name_parts(name);
        let class = RelationClass::MaterializedView;
        let found = catalog.resolve_class(&parts, &self.path(), class);
        found.cloned()
    }

    /// What a view would be with this query. Changes nothing.
    pub(super) fn with_query(
        &self,
        old: &Arc<Relation>,
        given: &[String],
        query: &QueryText,
        text: &str,
    ) -> Result<NewQuery, SqlError> {
        let catalog = self.database.catalog.get();
        if let Some(suspension) = suspension(old) {
            return Err(suspension.error());
        }
        let running = self.database.spec(&catalog, old)?;
        let old_plan = running
            .ok_or_else(|| SqlError::internal("a view that is not suspended has a plan"))?
            .dataflow;
        let names = Names {
            catalog: catalog.clone(),
            path: self.path(),
            system: None,
        };
        let parsed = crate::relations::parse_query(&query.text)?;
        let offset = text.find(&query.text).unwrap_or(0);
        let planned = Planner::new(&names, &query.text)
            .emitting_on_close(is_emitted_on_close(old))
            .plan_materialized_view(parsed, given, old.id, &old.name)
            .map_err(|e| moved(e, text, offset))?;
        let mut depends_on = planned.direct;
        depends_on.extend(planned.reads);
        depends_on.sort_unstable();
        depends_on.dedup();
        expect_no_circle(&catalog, old, &depends_on)?;
        let mut plan = planned.dataflow;
        plan.conform(&old_plan);
        let fates = plan.succeed(&old_plan, salt());
        let mut relation = Relation::clone(old);
        relation.columns = columns_of(&plan.root().schema);
        relation.depends_on = depends_on;
        relation.comments.retain(|column, _| {
            column.is_empty() || relation.columns.iter().any(|c| c.name == *column)
        });
        let RelationKind::MaterializedView(def) = &mut relation.kind else {
            unreachable!("it was looked for among materialized views");
        };
        def.query.clone_from(&query.text);
        def.plan_json = plan.to_stored(stored_functions());
        if let tidegate_plan::Op::Materialize { key, .. } = &plan.root().op {
            def.key.clone_from(key);
        }
        mark(&mut def.options, UNIQUE_OPTION, plan.is_unique());
        mark(
            &mut def.options,
            APPEND_ONLY_OPTION,
            plan.root().append_only,
        );
        remember_watermarks(&mut def.options, &planned.watermarks)?;
        def.options.remove(SEARCH_PATH_OPTION);
        if self.path() != SearchPath::default() {
            let path = self.path().0.join(",");
            def.options.insert(SEARCH_PATH_OPTION.to_owned(), path);
        }
        relation.definition = definition(&relation);
        let new = NewQuery {
            old: old.clone(),
            relation,
            old_plan,
            plan,
            fates,
            notices: planned.notices,
        };
        if !new.is_same() {
            super::dependents::expect_dependents_go_on(&self.database, &catalog, &new)?;
        }
        Ok(new)
    }
}

impl NewQuery {
    /// Nothing that runs has to change.
    pub fn is_same(&self) -> bool {
        self.fates.iter().all(|fate| *fate == Fate::Kept)
    }
}

fn mark(options: &mut BTreeMap<String, String>, name: &str, holds: bool) {
    match holds {
        true => options.insert(name.to_owned(), "true".to_owned()),
        false => options.remove(name),
    };
}

/// Different for every alteration: ids of operators that are built anew are made from it.
fn salt() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(0, |d| d.as_nanos());
    tidegate_types::hash_key(format!("{nanos} {}", std::process::id()).as_bytes())
}

fn expect_no_circle(
    catalog: &Catalog,
    view: &Relation,
    reads: &[RelationId],
) -> Result<(), SqlError> {
    let through = crate::suspension::all_readers(catalog, view.id);
    let Some(found) = reads.iter().find(|r| through.contains(r)) else {
        return Ok(());
    };
    let error = SqlError::new(
        SqlState::from_code("42P17"),
        format!("materialized view \"{}\" would read itself", view.name),
    );
    Err(match catalog.relation(*found).filter(|r| r.id != view.id) {
        Some(other) => error.with_detail(format!("\"{}\" reads it.", other.name)),
        None => error,
    })
}

impl Ddl<'_> {
    /// Whether the name is that of a materialized view, which another one is to replace.
    pub(super) fn replaces(&self, name: &ObjectName) -> Result<bool, SqlError> {
        let catalog = self.database.catalog.get();
        let parts = tidegate_parser::name_parts(name);
        match catalog.resolve(&parts, &self.session.path()) {
            Ok(relation) if relation.class() == RelationClass::MaterializedView => Ok(true),
            Ok(other) => Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a materialized view", other.name),
            )),
            Err(_) => Ok(false),
        }
    }

    pub(super) async fn replace_materialized_view(
        &mut self,
        create: &CreateMaterializedView,
        text: &str,
    ) -> Result<Response, SqlError> {
        let old = self.session.altered_view(&create.name)?;
        let refused = [
            (
                create.emit_on_window_close != is_emitted_on_close(&old),
                "CREATE OR REPLACE MATERIALIZED VIEW that adds or removes EMIT ON WINDOW CLOSE",
            ),
            (
                create.from_savepoint.is_some(),
                "CREATE OR REPLACE MATERIALIZED VIEW FROM SAVEPOINT",
            ),
        ];
        if let Some((_, feature)) = refused.iter().find(|(asked, _)| *asked) {
            return Err(SqlError::not_supported(feature));
        }
        let given: Vec<String> = create.columns.iter().map(tidegate_parser::fold).collect();
        let query = (given.as_slice(), &create.query);
        self.change_query(&old, query, &create.options, text)
            .await?;
        Ok(command("CREATE MATERIALIZED VIEW"))
    }

    pub async fn alter_query(
        &mut self,
        alter: &AlterMaterializedView,
        text: &str,
    ) -> Result<Response, SqlError> {
        let tag = "ALTER MATERIALIZED VIEW";
        let AlterOperation::Query(query) = &alter.operation else {
            return Err(SqlError::not_supported(tag));
        };
        let old = match self.session.altered_view(&alter.name) {
            Ok(relation) => relation,
            Err(CatalogError::UndefinedOfClass { class, name, .. }) if alter.if_exists => {
                self.session
                    .notice(format!("{class} \"{name}\" does not exist, skipping"));
                return Ok(command(tag));
            }
            Err(error) => return Err(error.into()),
        };
        self.change_query(&old, (&[], query), &[], text).await?;
        Ok(command(tag))
    }

    async fn change_query(
        &mut self,
        old: &Arc<Relation>,
        (given, query): (&[String], &QueryText),
        options: &[WithOption],
        text: &str,
    ) -> Result<(), SqlError> {
        let database = self.database.clone();
        let runtime = database.runtime()?;
        runtime.check_memory()?;
        let (new, spec, altering) = {
            let _turn = database.ddl.lock().await;
            let mut new = self.session.with_query(old, given, query, text)?;
            set_options(&mut new, options)?;
            for notice in &new.notices {
                self.session.notice(notice.clone());
            }
            database.expect_not_altering(&[old.id])?;
            if new.is_same() {
                return self.adopt_definition(&new).await;
            }
            let spec = database.spec(&database.catalog.get(), &new.relation)?;
            let spec = spec.ok_or_else(|| SqlError::internal("a view has a plan"))?;
            database.check_choices(&new.relation, &spec)?;
            let reads = new.relation.depends_on.clone();
            database.altering.lock().insert(old.id, reads);
            (new, spec, Altering(database.clone(), old.id))
        };
        // What it reads has to stay until nothing reads it any more, also when this is given up.
        let alteration = runtime
            .alter(spec.clone())
            .await?
            .holding(Box::new(altering));
        self.or_cancelled(alteration.caught_up()).await?;
        // A client that goes away now leaves nothing half done.
        let work = tokio::spawn(carry_out(database, new, spec, alteration));
        let (position, notice) = work.await.map_err(SqlError::internal)??;
        self.session.last_write = position;
        if let Some(notice) = notice {
            self.session.notice(notice);
        }
        Ok(())
    }

    /// The same plan under another definition, which no dataflow notices.
    async fn adopt_definition(&mut self, new: &NewQuery) -> Result<(), SqlError> {
        let mut next = self.database.catalog.get();
        let change = CatalogChange::ReplaceRelation(Box::new(new.relation.clone()));
        next.apply(&change)?;
        self.session.last_write = self.database.log_catalog(next, vec![change]).await?;
        Ok(())
    }

    /// A person who loses patience keeps the view as it was.
    async fn or_cancelled(
        &mut self,
        work: impl Future<Output = Result<(), SqlError>>,
    ) -> Result<(), SqlError> {
        let cancel = self.session.cancel.clone();
        tokio::select! {
            result = work => result,
            reason = cancel.cancelled() => {
                if reason == CancelReason::UserRequest {
                    cancel.reset();
                }
                Err(reason.error().with_detail("The view is as it was."))
            }
        }
    }
}

/// From the moment at which the new definition is durable there is no way back. Answers its position in the log, and what
/// the client should know.
async fn carry_out(
    database: Arc<Database>,
    new: NewQuery,
    spec: RelationSpec,
    alteration: Alteration,
) -> Result<(LogPosition, Option<String>), SqlError> {
    let runtime = database.runtime()?;
    let _turn = database.ddl.lock().await;
    expect_unchanged(&database, &new)?;
    let mut next = database.catalog.get();
    let change = CatalogChange::ReplaceRelation(Box::new(new.relation.clone()));
    next.apply(&change)?;
    let position = database.decide(next.clone(), vec![change]).await?;
    runtime.decided(spec);
    let mut carried_out = alteration.take_over().await;
    if let Err(error) = &carried_out {
        let view = new.relation.name.as_str();
        tracing::warn!(view, "is altered again after a failure: {error}");
        carried_out = runtime.carried_out(new.relation.id).await;
    }
    database.adopt(next, position);
    carried_out?;
    // Readers of sources that nobody reads any more stop.
    runtime.drop_relations(&[]).await?;
    let notice = runtime
        .checkpoint()
        .await
        .err()
        .map(|error| format!("the view is altered, but no checkpoint holds that yet: {error}"));
    Ok((position, notice))
}

/// What came about while the new plan was being built may speak against it.
fn expect_unchanged(database: &Database, new: &NewQuery) -> Result<(), SqlError> {
    let catalog = database.catalog.get();
    if catalog.relation(new.old.id) != Some(&new.old) {
        return Err(SqlError::new(
            SqlState::OBJECT_IN_USE,
            format!(
                "materialized view \"{}\" was changed by another statement meanwhile",
                new.old.name
            ),
        ));
    }
    super::dependents::expect_dependents_go_on(database, &catalog, new)
}

fn is_emitted_on_close(view: &Relation) -> bool {
    matches!(&view.kind, RelationKind::MaterializedView(def) if def.emit_on_window_close)
}

/// Choices of `CREATE OR REPLACE … WITH (…)`. State stays in its backend.
fn set_options(new: &mut NewQuery, options: &[WithOption]) -> Result<(), SqlError> {
    refuse_server_options(options.iter().map(|o| o.name.as_str()))?;
    let chosen = known_options(options, VIEW_OPTIONS, "materialized view")?;
    check_options(&chosen)?;
    let RelationKind::MaterializedView(def) = &mut new.relation.kind else {
        return Ok(());
    };
    if let Some(backend) = chosen.get("state_backend")
        && def.options.get("state_backend") != Some(backend)
    {
        return Err(
            SqlError::not_supported("another state_backend for an existing view")
                .with_hint("Drop the view and create it again with the other backend."),
        );
    }
    def.options.extend(chosen);
    Ok(())
}

//! `DROP …`.

use super::command;
use super::create::Ddl;
use crate::api::{Notice, NoticeSeverity, Response};
use tidegate_catalog::{CatalogChange, CatalogError, DropPlan, RelationClass};
use tidegate_parser::{Drop, ObjectKind, Statement};
use tidegate_types::{RelationId, SqlError, SqlState};

impl Ddl<'_> {
    pub async fn drop(&mut self, drop: &Drop) -> Result<Response, SqlError> {
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        let tag = Statement::Drop(drop.clone()).tag();
        if drop.kind == ObjectKind::Schema {
            self.drop_schemas(drop).await?;
            return Ok(command(tag));
        }
        let class = match drop.kind {
            ObjectKind::Table => RelationClass::Table,
            ObjectKind::Source => RelationClass::Source,
            ObjectKind::View => RelationClass::View,
            ObjectKind::MaterializedView => RelationClass::MaterializedView,
            ObjectKind::Sink => RelationClass::Sink,
            ObjectKind::Index | ObjectKind::Schema => return Err(SqlError::not_supported(tag)),
        };
        let catalog = database.catalog.get();
        let path = self.session.path();
        let mut ids: Vec<RelationId> = Vec::new();
        for name in &drop.names {
            match catalog.resolve_class(&tidegate_parser::name_parts(name), &path, class) {
                Ok(relation) => ids.push(relation.id),
                Err(CatalogError::UndefinedOfClass { class, name, .. }) if drop.if_exists => {
                    self.session
                        .notice(format!("{class} \"{name}\" does not exist, skipping"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !ids.is_empty() {
            let plan = catalog.drop_plan(&ids, drop.cascade, &path)?;
            self.carry_out(&plan, Vec::new()).await?;
        }
        Ok(command(tag))
    }

    async fn drop_schemas(&mut self, drop: &Drop) -> Result<(), SqlError> {
        for name in &drop.names {
            let catalog = self.database.catalog.get();
            let name = tidegate_parser::name_parts(name).pop().unwrap_or_default();
            if drop.if_exists && catalog.schema(&name).is_none() {
                self.session
                    .notice(format!("schema \"{name}\" does not exist, skipping"));
                continue;
            }
            let plan = catalog.drop_schema_plan(&name, drop.cascade, &self.session.path())?;
            self.carry_out(&plan, vec![CatalogChange::DropSchema { name }])
                .await?;
        }
        Ok(())
    }

    /// Views that are to leave their last state behind do so before they go.
    async fn keep_dropped(&mut self, plan: &DropPlan) -> Result<(), SqlError> {
        let catalog = self.database.catalog.get();
        let dropped = plan.ids.iter().filter_map(|id| catalog.relation(*id));
        let kept: Vec<&str> = dropped
            .filter(|r| self.database.is_kept_on_drop(r))
            .map(|r| r.name.as_str())
            .collect();
        if let Some(first) = kept.first() {
            let prefix = format!("dropped_{first}");
            let savepoint = self.database.keep_checkpoint(&prefix).await?;
            self.session.notice(format!(
                "what is dropped stays in savepoint \"{savepoint}\" until that is released"
            ));
        }
        Ok(())
    }

    async fn carry_out(
        &mut self,
        plan: &DropPlan,
        after: Vec<CatalogChange>,
    ) -> Result<(), SqlError> {
        if let Some((message, detail)) = plan.notice() {
            let mut content = SqlError::new(SqlState::SUCCESS, message);
            content.detail = detail;
            self.session.notices.push(Notice {
                severity: NoticeSeverity::Notice,
                content,
            });
        }
        self.database.expect_not_altering(&plan.ids)?;
        self.keep_dropped(plan).await?;
        let mut next = self.database.catalog.get();
        let mut changes = Vec::new();
        if !plan.ids.is_empty() {
            changes.push(CatalogChange::DropRelations(plan.ids.clone()));
        }
        changes.extend(after);
        for change in &changes {
            next.apply(change)?;
        }
        self.session.last_write = self.database.log_catalog(next, changes).await?;
        let mut dropped = self.database.transients.end_readers(&plan.ids);
        dropped.extend(&plan.ids);
        self.database.runtime()?.drop_relations(&dropped).await?;
        for id in &plan.ids {
            self.database.runtime()?.forget_suspension(*id);
            self.database.forget_connector(*id);
        }
        Ok(())
    }
}

//! `ALTER MATERIALIZED VIEW … SET`: choices of a view that take effect while it runs.

use super::command;
use super::create::{Ddl, option_map};
use crate::api::Response;
use crate::checkpoint_settings::{
    OF_VIEWS, check_at_least_once, check_options, is_at_least_once, refuse_server_options,
    set_choices,
};
use tidegate_catalog::{CatalogChange, CatalogError, RelationClass, RelationKind};
use tidegate_parser::{AlterMaterializedView, AlterOperation, WithOption};
use tidegate_types::{SqlError, SqlState};

const TAG: &str = "ALTER MATERIALIZED VIEW";

impl Ddl<'_> {
    pub async fn alter_materialized_view(
        &mut self,
        alter: &AlterMaterializedView,
    ) -> Result<Response, SqlError> {
        let AlterOperation::Set(options) = &alter.operation else {
            return Err(SqlError::not_supported(match &alter.operation {
                AlterOperation::RenameTo(_) => "ALTER MATERIALIZED VIEW … RENAME",
                AlterOperation::SetSchema(_) => "ALTER MATERIALIZED VIEW … SET SCHEMA",
                AlterOperation::Query(_) => "ALTER MATERIALIZED VIEW … AS",
                AlterOperation::Set(_) => TAG,
            }));
        };
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        let mut next = database.catalog.get();
        let name = tidegate_parser::name_parts(&alter.name);
        let found =
            next.resolve_class(&name, &self.session.path(), RelationClass::MaterializedView);
        let mut relation = match found {
            Ok(relation) => tidegate_catalog::Relation::clone(relation),
            Err(CatalogError::UndefinedOfClass { class, name, .. }) if alter.if_exists => {
                self.session
                    .notice(format!("{class} \"{name}\" does not exist, skipping"));
                return Ok(command(TAG));
            }
            Err(error) => return Err(error.into()),
        };
        database.expect_not_altering(&[relation.id])?;
        let RelationKind::MaterializedView(def) = &mut relation.kind else {
            unreachable!("it was looked for among materialized views");
        };
        apply(&mut def.options, options)?;
        let chosen = def.options.clone();
        let at_least_once = is_at_least_once(&chosen, &database.live.read());
        if at_least_once && let Some(spec) = database.spec(&next, &relation)? {
            check_at_least_once(&spec.dataflow)?;
            self.session.notice(format!(
                "materialized view \"{}\" is at_least_once: after a crash it, and what reads it, may hold rows twice",
                relation.name
            ));
        }
        let id = relation.id;
        let change = CatalogChange::ReplaceRelation(Box::new(relation));
        next.apply(&change)?;
        self.session.last_write = database.log_catalog(next, vec![change]).await?;
        database
            .runtime()?
            .with_choices(id, |choices| set_choices(choices, &chosen));
        Ok(command(TAG))
    }
}

/// `default` takes a choice back: the view follows the server again.
fn apply(
    chosen: &mut std::collections::BTreeMap<String, String>,
    options: &[WithOption],
) -> Result<(), SqlError> {
    refuse_server_options(options.iter().map(|o| o.name.as_str()))?;
    if let Some(option) = options.iter().find(|o| o.name == "state_backend") {
        return Err(
            SqlError::not_supported("another state_backend for an existing view")
                .with_hint("Drop the view and create it again with the other backend.")
                .with_position(option.position),
        );
    }
    if let Some(option) = options
        .iter()
        .find(|o| !OF_VIEWS.contains(&o.name.as_str()))
    {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("unknown option \"{}\" of a materialized view", option.name),
        )
        .with_hint(format!("Known options: {}.", OF_VIEWS.join(", ")))
        .with_position(option.position));
    }
    for (name, value) in option_map(options)? {
        match value.eq_ignore_ascii_case("default") {
            true => chosen.remove(&name),
            false => chosen.insert(name, value.to_ascii_lowercase()),
        };
    }
    check_options(chosen)
}

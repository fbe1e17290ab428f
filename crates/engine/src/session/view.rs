//! `CREATE OR REPLACE VIEW`: another query under the same name and columns.

use super::create::Ddl;
use std::sync::Arc;
use tidegate_catalog::{CatalogChange, Relation, RelationClass, SearchPath};
use tidegate_parser::sqlparser::ast;
use tidegate_types::{RelationId, SqlError, SqlState};

fn invalid(message: String) -> SqlError {
    SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message)
}

/// A view keeps its columns when it is replaced; it may get more behind them.
pub(super) fn expect_compatible(old: &Relation, new: &Relation) -> Result<(), SqlError> {
    if new.columns.len() < old.columns.len() {
        return Err(invalid("cannot drop columns from view".to_owned()));
    }
    for (before, after) in old.columns.iter().zip(&new.columns) {
        if before.name != after.name {
            return Err(invalid(format!(
                "cannot change name of view column \"{}\" to \"{}\"",
                before.name, after.name
            ))
            .with_hint("Drop the view and create it again to change the names of its columns."));
        }
        if before.sql_type != after.sql_type {
            return Err(invalid(format!(
                "cannot change data type of view column \"{}\" from {} to {}",
                before.name, before.sql_type, after.sql_type
            )));
        }
    }
    Ok(())
}

impl Ddl<'_> {
    /// The view that a name has, if there is one to replace. What is computed from its query all the time stands in the way.
    pub(super) fn replaced_view(
        &self,
        name: &ast::ObjectName,
    ) -> Result<Option<Arc<Relation>>, SqlError> {
        let catalog = self.database.catalog.get();
        let name = tidegate_parser::name_parts(name);
        let Ok(old) = catalog.resolve(&name, &self.session.path()) else {
            return Ok(None);
        };
        if old.class() != RelationClass::View {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a view", old.name),
            ));
        }
        let path = SearchPath(vec![old.schema.clone()]);
        let mut open: Vec<RelationId> = vec![old.id];
        while let Some(id) = open.pop() {
            for reader in catalog.readers(id) {
                if reader.class() != RelationClass::View {
                    return Err(SqlError::new(
                        SqlState::from_code("2BP01"),
                        format!(
                            "cannot replace view {} because other objects are computed from it",
                            old.name
                        ),
                    )
                    .with_detail(format!(
                        "{} depends on view {}",
                        catalog.describe(reader, &path),
                        old.name
                    ))
                    .with_hint("Drop them first, and create them again over the new view."));
                }
                open.push(reader.id);
            }
        }
        Ok(Some(old.clone()))
    }

    /// Puts a plain view in the place of the one with its id.
    pub(super) async fn replace(&mut self, relation: Relation) -> Result<(), SqlError> {
        let mut next = self.database.catalog.get();
        let change = CatalogChange::ReplaceRelation(Box::new(relation));
        next.apply(&change)?;
        self.session.last_write = self.database.log_catalog(next, vec![change]).await?;
        Ok(())
    }
}

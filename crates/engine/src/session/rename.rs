//! `ALTER … RENAME`, `ALTER TABLE … RENAME COLUMN`, `SET`/`DROP DEFAULT`, and `COMMENT ON`: changes of the catalog alone,
//! which no dataflow notices.
//!
//! Definitions are kept as text that holds the names of what they read. So a relation that others depend on keeps its name
//! and the names of its columns.

use super::command;
use super::create::Ddl;
use super::definition::definition;
use crate::api::Response;
use std::sync::Arc;
use tidegate_catalog::{
    CatalogChange, CatalogError, Relation, RelationClass, RelationKind, SearchPath,
};
use tidegate_parser::sqlparser::ast::{
    self, AlterColumnOperation, AlterTableOperation as Op, CommentObject,
};
use tidegate_parser::{AlterOperation, ObjectKind};
use tidegate_types::{SqlError, SqlState};

/// What an `ALTER` names.
pub(super) struct Altered<'a> {
    pub kind: ObjectKind,
    pub if_exists: bool,
    pub name: &'a ast::ObjectName,
}

fn class_of(kind: ObjectKind) -> Result<RelationClass, SqlError> {
    Ok(match kind {
        ObjectKind::Table => RelationClass::Table,
        ObjectKind::Source => RelationClass::Source,
        ObjectKind::View => RelationClass::View,
        ObjectKind::MaterializedView => RelationClass::MaterializedView,
        ObjectKind::Sink => RelationClass::Sink,
        ObjectKind::Index | ObjectKind::Schema => {
            return Err(SqlError::not_supported(format!("ALTER {}", kind.sql())));
        }
    })
}

impl Ddl<'_> {
    /// The relation, or a notice that there is none.
    fn altered(&mut self, what: &Altered<'_>) -> Result<Option<Arc<Relation>>, SqlError> {
        let catalog = self.database.catalog.get();
        let name = tidegate_parser::name_parts(what.name);
        let found = catalog.resolve_class(&name, &self.session.path(), class_of(what.kind)?);
        match found {
            Ok(relation) => Ok(Some(relation.clone())),
            Err(CatalogError::UndefinedOfClass { name, .. }) if what.if_exists => {
                self.session
                    .notice(format!("relation \"{name}\" does not exist, skipping"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn change(&mut self, change: CatalogChange) -> Result<(), SqlError> {
        let mut next = self.database.catalog.get();
        next.apply(&change)?;
        self.session.last_write = self.database.log_catalog(next, vec![change]).await?;
        Ok(())
    }

    pub async fn alter_relation(
        &mut self,
        what: Altered<'_>,
        operation: &AlterOperation,
    ) -> Result<Response, SqlError> {
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        let tag = format!("ALTER {}", what.kind.sql());
        let Some(relation) = self.altered(&what)? else {
            return Ok(command(tag));
        };
        database.expect_not_altering(&[relation.id])?;
        let mut next = Relation::clone(&relation);
        let change = match operation {
            AlterOperation::RenameTo(name) => {
                next.name = tidegate_parser::fold(name);
                CatalogChange::RenameRelation {
                    id: relation.id,
                    name: next.name.clone(),
                    definition: definition(&next),
                }
            }
            AlterOperation::SetSchema(schema) => {
                next.schema = tidegate_parser::fold(schema);
                if next.schema == relation.schema {
                    return Ok(command(tag));
                }
                CatalogChange::MoveRelation {
                    id: relation.id,
                    schema: next.schema,
                    definition: relation.definition.clone(),
                }
            }
            AlterOperation::Set(options) => {
                let names: Vec<&str> = options.iter().map(|o| o.name.as_str()).collect();
                return Err(
                    SqlError::not_supported(format!("{tag} … SET {}", names.join(", ")))
                        .with_hint("Drop it and create it again with the option."),
                );
            }
            AlterOperation::Query(_) => {
                return Err(SqlError::not_supported(format!("{tag} … AS"))
                    .with_hint("CREATE OR REPLACE VIEW gives a view another query."));
            }
        };
        self.change(change).await?;
        Ok(command(tag))
    }

    pub async fn alter_table(&mut self, alter: &ast::AlterTable) -> Result<Response, SqlError> {
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        let what = Altered {
            kind: ObjectKind::Table,
            if_exists: alter.if_exists,
            name: &alter.name,
        };
        let Some(relation) = self.altered(&what)? else {
            return Ok(command("ALTER TABLE"));
        };
        database.expect_not_altering(&[relation.id])?;
        let mut next = Relation::clone(&relation);
        for operation in &alter.operations {
            match operation {
                Op::RenameColumn {
                    old_column_name,
                    new_column_name,
                } => self.rename_column(&mut next, old_column_name, new_column_name)?,
                Op::AlterColumn { column_name, op } => {
                    self.alter_column(&mut next, column_name, op)?;
                }
                other => return Err(not_built(other)),
            }
        }
        next.definition = definition(&next);
        self.change(CatalogChange::ReplaceRelation(Box::new(next)))
            .await?;
        Ok(command("ALTER TABLE"))
    }

    fn rename_column(
        &self,
        relation: &mut Relation,
        old: &ast::Ident,
        new: &ast::Ident,
    ) -> Result<(), SqlError> {
        let (old, new) = (tidegate_parser::fold(old), tidegate_parser::fold(new));
        let index = column_of(relation, &old)?;
        if relation.column(&new).is_some() {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!(
                    "column \"{new}\" of relation \"{}\" already exists",
                    relation.name
                ),
            ));
        }
        self.expect_unread(relation)?;
        if let RelationKind::Table(def) = &relation.kind
            && let Some(check) = def.checks.first()
        {
            return Err(SqlError::not_supported(
                "renaming a column of a table with CHECK constraints",
            )
            .with_detail(format!(
                "Constraint \"{}\" is kept as it was written.",
                check.name
            )));
        }
        relation.columns[index].name.clone_from(&new);
        if let Some(comment) = relation.comments.remove(&old) {
            relation.comments.insert(new, comment);
        }
        Ok(())
    }

    fn alter_column(
        &self,
        relation: &mut Relation,
        name: &ast::Ident,
        operation: &AlterColumnOperation,
    ) -> Result<(), SqlError> {
        let index = column_of(relation, &tidegate_parser::fold(name))?;
        match operation {
            AlterColumnOperation::SetDefault { value } => {
                let default = value.to_string();
                self.session
                    .check_default(&default, &relation.columns[index])?;
                relation.columns[index].default = Some(default);
            }
            AlterColumnOperation::DropDefault => relation.columns[index].default = None,
            other => {
                return Err(SqlError::not_supported(format!(
                    "ALTER COLUMN … {}",
                    first_words(&other.to_string(), 3)
                ))
                .with_hint("Create a new table and copy the rows."));
            }
        }
        Ok(())
    }

    /// Definitions of others hold the names of a relation's columns.
    fn expect_unread(&self, relation: &Relation) -> Result<(), SqlError> {
        let catalog = self.database.catalog.get();
        let path = SearchPath(vec![relation.schema.clone()]);
        let object = catalog.describe(relation, &path);
        let readers: Vec<String> = catalog
            .readers(relation.id)
            .map(|r| format!("{} depends on {object}", catalog.describe(r, &path)))
            .collect();
        if readers.is_empty() {
            return Ok(());
        }
        Err(SqlError::new(
            SqlState::from_code("2BP01"),
            format!("cannot rename columns of {object} because other objects depend on it"),
        )
        .with_detail(readers.join("\n"))
        .with_hint("Drop the dependent objects, rename, and create them again."))
    }

    pub async fn comment(
        &mut self,
        object: &CommentObject,
        name: &ast::ObjectName,
        comment: Option<&str>,
    ) -> Result<Response, SqlError> {
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        let catalog = database.catalog.get();
        let path = self.session.path();
        let mut parts = tidegate_parser::name_parts(name);
        let class = match object {
            CommentObject::Table => Some(RelationClass::Table),
            CommentObject::View => Some(RelationClass::View),
            CommentObject::MaterializedView => Some(RelationClass::MaterializedView),
            CommentObject::Column => None,
            other => return Err(SqlError::not_supported(format!("COMMENT ON {other}"))),
        };
        let (found, about) = match class {
            Some(class) => (
                catalog.resolve_class(&parts, &path, class)?.clone(),
                String::new(),
            ),
            None => {
                let column = parts.pop().unwrap_or_default();
                if parts.is_empty() {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "column name must be qualified",
                    ));
                }
                let relation = catalog.resolve(&parts, &path)?.clone();
                column_of(&relation, &column)?;
                (relation, column)
            }
        };
        let mut next = Relation::clone(&found);
        match comment.filter(|c| !c.is_empty()) {
            Some(comment) => next.comments.insert(about, comment.to_owned()),
            None => next.comments.remove(&about),
        };
        self.change(CatalogChange::ReplaceRelation(Box::new(next)))
            .await?;
        Ok(command("COMMENT"))
    }
}

fn column_of(relation: &Relation, name: &str) -> Result<usize, SqlError> {
    let found = relation.column(name).map(|(index, _)| index);
    found.ok_or_else(|| {
        SqlError::new(
            SqlState::UNDEFINED_COLUMN,
            format!(
                "column \"{name}\" of relation \"{}\" does not exist",
                relation.name
            ),
        )
    })
}

fn not_built(operation: &Op) -> SqlError {
    let what = match operation {
        Op::AddColumn { .. } => "ADD COLUMN".to_owned(),
        Op::DropColumn { .. } => "DROP COLUMN".to_owned(),
        Op::AddConstraint { .. } => "ADD CONSTRAINT".to_owned(),
        Op::DropConstraint { .. } => "DROP CONSTRAINT".to_owned(),
        Op::OwnerTo { .. } => "OWNER TO".to_owned(),
        other => first_words(&other.to_string(), 2),
    };
    let error = SqlError::not_supported(format!("ALTER TABLE … {what}"));
    match operation {
        Op::OwnerTo { .. } => error,
        _ => error.with_hint("Create a new table and copy the rows: CREATE TABLE … AS SELECT …."),
    }
}

fn first_words(text: &str, count: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().take(count).collect();
    words.join(" ")
}

//! Changes as data, and what must hold for one to apply.
//!
//! A change is decided once, by the statement that makes it, and is then only repeated: after a restart, or on another
//! process. Applying it therefore checks everything again and changes nothing when a check fails, so that a log that does
//! not fit this catalog is found out instead of followed.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_types::RelationId;

use crate::catalog::{Catalog, Schema};
use crate::error::CatalogError;
use crate::relation::{Relation, RelationKind};

/// One step from a catalog to its next version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogChange {
    CreateSchema(Schema),
    /// The schema must be empty by now.
    DropSchema {
        name: String,
    },
    /// Its id is the catalog's [`Catalog::next_id`].
    CreateRelation(Box<Relation>),
    /// In any order; nothing that stays may depend on one of them.
    DropRelations(Vec<RelationId>),
    /// `definition` is the statement under the new name. Nothing may depend on the relation, since definitions of others
    /// are text that holds the old name.
    RenameRelation {
        id: RelationId,
        name: String,
        definition: String,
    },
    /// Under the same restriction.
    MoveRelation {
        id: RelationId,
        schema: String,
        definition: String,
    },
    /// The same id, schema, name and kind with another definition: options, plan, query, columns.
    ReplaceRelation(Box<Relation>),
}

impl Catalog {
    /// Makes the next version, or fails and changes nothing.
    pub fn apply(&mut self, change: &CatalogChange) -> Result<(), CatalogError> {
        match change {
            CatalogChange::CreateSchema(schema) => self.create_schema(schema)?,
            CatalogChange::DropSchema { name } => self.drop_schema(name)?,
            CatalogChange::CreateRelation(relation) => self.create_relation(relation)?,
            CatalogChange::DropRelations(ids) => self.drop_relations(ids)?,
            CatalogChange::RenameRelation {
                id,
                name,
                definition,
            } => {
                let mut relation = self.unread(*id, "rename")?;
                relation.name.clone_from(name);
                relation.definition.clone_from(definition);
                self.move_relation(relation)?;
            }
            CatalogChange::MoveRelation {
                id,
                schema,
                definition,
            } => {
                let mut relation = self.unread(*id, "move")?;
                relation.schema.clone_from(schema);
                relation.definition.clone_from(definition);
                self.move_relation(relation)?;
            }
            CatalogChange::ReplaceRelation(relation) => self.replace_relation(relation)?,
        }
        self.version += 1;
        Ok(())
    }

    fn create_schema(&mut self, schema: &Schema) -> Result<(), CatalogError> {
        self.expect_new_schema(&schema.name)?;
        Arc::make_mut(&mut self.schemas).insert(schema.name.clone(), schema.clone());
        Ok(())
    }

    /// Fails if a schema of this name cannot be created.
    pub fn expect_new_schema(&self, name: &str) -> Result<(), CatalogError> {
        let name = name.to_string();
        if self.schemas.contains_key(&name) {
            Err(CatalogError::DuplicateSchema { name })
        } else if Self::is_reserved_schema(&name) || name.starts_with("pg_") {
            Err(CatalogError::ReservedSchemaName { name })
        } else {
            Ok(())
        }
    }

    fn drop_schema(&mut self, name: &str) -> Result<(), CatalogError> {
        if Self::is_reserved_schema(name) {
            return Err(CatalogError::RequiredSchema {
                name: name.to_string(),
            });
        }
        self.expect_schema(name)?;
        if self.relations_in(name).next().is_some() {
            return inconsistent(format!("schema \"{name}\" is not empty"));
        }
        Arc::make_mut(&mut self.schemas).remove(name);
        Ok(())
    }

    fn create_relation(&mut self, relation: &Relation) -> Result<(), CatalogError> {
        self.expect_free(&relation.schema, &relation.name)?;
        if relation.id.0 < self.next_id {
            return inconsistent(format!(
                "id {} of relation \"{}\" was given out before",
                relation.id, relation.name
            ));
        }
        self.expect_sound(relation)?;
        self.next_id = relation.id.0 + 1;
        self.insert(Arc::new(relation.clone()));
        Ok(())
    }

    fn drop_relations(&mut self, ids: &[RelationId]) -> Result<(), CatalogError> {
        let dropped: BTreeSet<RelationId> = ids.iter().copied().collect();
        for id in &dropped {
            if self.relation(*id).is_none() {
                return inconsistent(format!("relation {id} does not exist"));
            }
            if let Some(reader) = self.readers(*id).find(|r| !dropped.contains(&r.id)) {
                return inconsistent(format!(
                    "relation \"{}\" still reads relation {id}",
                    reader.name
                ));
            }
        }
        for id in dropped {
            self.remove(id);
        }
        Ok(())
    }

    /// A copy of a relation that nothing depends on.
    fn unread(&self, id: RelationId, what: &str) -> Result<Relation, CatalogError> {
        let Some(relation) = self.relation(id) else {
            return inconsistent(format!("relation {id} does not exist"));
        };
        let path = crate::catalog::SearchPath(vec![relation.schema.clone()]);
        let object = self.describe(relation, &path);
        let detail: Vec<String> = self
            .readers(id)
            .map(|reader| format!("{} depends on {object}", self.describe(reader, &path)))
            .collect();
        if detail.is_empty() {
            return Ok(Relation::clone(relation));
        }
        Err(CatalogError::Dependents {
            message: format!("cannot {what} {object} because other objects depend on it"),
            detail,
            hint: format!("Drop the dependent objects, {what} it, and create them again."),
        })
    }

    fn move_relation(&mut self, relation: Relation) -> Result<(), CatalogError> {
        self.expect_free(&relation.schema, &relation.name)?;
        self.remove(relation.id);
        self.insert(Arc::new(relation));
        Ok(())
    }

    fn replace_relation(&mut self, relation: &Relation) -> Result<(), CatalogError> {
        let Some(old) = self.relation(relation.id) else {
            return inconsistent(format!("relation {} does not exist", relation.id));
        };
        let same = (&old.schema, &old.name, old.class())
            == (&relation.schema, &relation.name, relation.class());
        if !same {
            return inconsistent(format!(
                "relation {} changes its name or kind while being replaced",
                relation.id
            ));
        }
        self.expect_sound(relation)?;
        if self.reads(&relation.depends_on, relation.id) {
            return inconsistent(format!("relation \"{}\" would read itself", relation.name));
        }
        self.remove_reads(relation.id);
        self.insert(Arc::new(relation.clone()));
        Ok(())
    }

    /// What holds for every relation by itself, given that its dependencies are in the catalog.
    pub(crate) fn expect_sound(&self, relation: &Relation) -> Result<(), CatalogError> {
        let mut names = BTreeSet::new();
        if let Some(twice) = relation.columns.iter().find(|c| !names.insert(&c.name)) {
            return Err(CatalogError::DuplicateColumn {
                name: twice.name.clone(),
            });
        }
        let key = match &relation.kind {
            RelationKind::Table(table) => &table.primary_key[..],
            RelationKind::MaterializedView(view) => &view.key,
            _ => &[],
        };
        if let Some(column) = key.iter().find(|column| **column >= relation.columns.len()) {
            return inconsistent(format!(
                "key column {column} of relation \"{}\" is not one of its {} columns",
                relation.name,
                relation.columns.len()
            ));
        }
        if !relation.depends_on.is_sorted_by(|a, b| a < b) {
            return inconsistent(format!(
                "dependencies of relation \"{}\" are not in order",
                relation.name
            ));
        }
        match relation
            .depends_on
            .iter()
            .find(|id| self.relation(**id).is_none())
        {
            Some(id) => inconsistent(format!(
                "relation \"{}\" depends on relation {id}, which does not exist",
                relation.name
            )),
            None => Ok(()),
        }
    }

    /// Whether one of `from` is, or reads at any depth, `target`.
    fn reads(&self, from: &[RelationId], target: RelationId) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = from.to_vec();
        while let Some(id) = open.pop() {
            if id == target {
                return true;
            }
            if seen.insert(id)
                && let Some(relation) = self.relation(id)
            {
                open.extend(&relation.depends_on);
            }
        }
        false
    }

    pub(crate) fn insert(&mut self, relation: Arc<Relation>) {
        Arc::make_mut(&mut self.names)
            .entry(relation.schema.clone())
            .or_default()
            .insert(relation.name.clone(), relation.id);
        let readers = Arc::make_mut(&mut self.readers);
        for read in &relation.depends_on {
            readers.entry(*read).or_default().insert(relation.id);
        }
        Arc::make_mut(&mut self.relations).insert(relation.id, relation);
    }

    /// Takes a relation out. Entries of its readers stay, for relations that are put back under another name.
    fn remove(&mut self, id: RelationId) {
        self.remove_reads(id);
        let Some(relation) = Arc::make_mut(&mut self.relations).remove(&id) else {
            return;
        };
        let names = Arc::make_mut(&mut self.names);
        if let Some(schema) = names.get_mut(&relation.schema) {
            schema.remove(&relation.name);
            if schema.is_empty() {
                names.remove(&relation.schema);
            }
        }
    }

    fn remove_reads(&mut self, id: RelationId) {
        let Some(relation) = self.relations.get(&id) else {
            return;
        };
        let readers = Arc::make_mut(&mut self.readers);
        for read in &relation.depends_on {
            if let Some(of) = readers.get_mut(read) {
                of.remove(&id);
                if of.is_empty() {
                    readers.remove(read);
                }
            }
        }
    }
}

fn inconsistent<T>(why: String) -> Result<T, CatalogError> {
    Err(CatalogError::Inconsistent(why))
}

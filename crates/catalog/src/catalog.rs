//! The catalog as a value, and how names are found in it.
//!
//! Lookup follows Postgres: an unqualified name is searched in the schemas of the search path in order, schemas that do
//! not exist are passed over, and new things go into the first that does. Reserved schemas hold system relations, which are
//! not kept here: the engine looks there before it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_types::RelationId;

use crate::durable::Durable;
use crate::error::CatalogError;
use crate::relation::{Relation, RelationClass};
use crate::suggest::nearest;

/// Where unqualified names are searched, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPath(pub Vec<String>);

impl Default for SearchPath {
    fn default() -> Self {
        Self(vec![Catalog::PUBLIC.to_string()])
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    pub name: String,
    pub owner: String,
}

/// Everything that exists, at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Durable", try_from = "Durable")]
pub struct Catalog {
    pub(crate) version: u64,
    pub(crate) next_id: u64,
    pub(crate) schemas: Arc<BTreeMap<String, Schema>>,
    pub(crate) relations: Arc<BTreeMap<RelationId, Arc<Relation>>>,
    /// By schema, then name.
    pub(crate) names: Arc<BTreeMap<String, BTreeMap<String, RelationId>>>,
    /// Who reads a relation directly.
    pub(crate) readers: Arc<BTreeMap<RelationId, BTreeSet<RelationId>>>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new("tidegate")
    }
}

impl Catalog {
    /// The schema that a new database has.
    pub const PUBLIC: &'static str = "public";
    /// Schemas of system relations: nothing can be created in them, nor they dropped.
    pub const RESERVED_SCHEMAS: [&'static str; 3] =
        ["tidegate", "pg_catalog", "information_schema"];

    /// An empty database whose public schema belongs to `owner`.
    pub fn new(owner: &str) -> Self {
        let public = Schema {
            name: Self::PUBLIC.to_string(),
            owner: owner.to_string(),
        };
        Self {
            version: 0,
            next_id: 1,
            schemas: Arc::new(BTreeMap::from([(Self::PUBLIC.to_string(), public)])),
            relations: Arc::default(),
            names: Arc::default(),
            readers: Arc::default(),
        }
    }

    /// Grows by one with each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The id that the next relation must have. Ids of dropped relations do not come back.
    pub fn next_id(&self) -> RelationId {
        RelationId(self.next_id)
    }

    pub fn is_reserved_schema(name: &str) -> bool {
        Self::RESERVED_SCHEMAS.contains(&name)
    }

    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.get(name)
    }

    /// In order of names, without the reserved ones.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.schemas.values()
    }

    pub fn relation(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.relations.get(&id)
    }

    /// In order of ids, which is the order of creation.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.relations.values()
    }

    /// Of one kind, in order of schema and name, as lists are shown.
    pub fn relations_of(&self, class: RelationClass) -> impl Iterator<Item = &Arc<Relation>> {
        self.names
            .values()
            .flat_map(BTreeMap::values)
            .map(|id| &self.relations[id])
            .filter(move |relation| relation.class() == class)
    }

    /// Of one schema, in order of names.
    pub fn relations_in(&self, schema: &str) -> impl Iterator<Item = &Arc<Relation>> {
        self.names
            .get(schema)
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|id| &self.relations[id])
    }

    pub fn get(&self, schema: &str, name: &str) -> Option<&Arc<Relation>> {
        let id = self.names.get(schema)?.get(name)?;
        self.relations.get(id)
    }

    /// Who reads a relation directly, in order of ids.
    pub fn readers(&self, id: RelationId) -> impl Iterator<Item = &Arc<Relation>> {
        self.readers
            .get(&id)
            .into_iter()
            .flatten()
            .map(|id| &self.relations[id])
    }

    /// All relations, each behind what it depends on; among equals in order of ids.
    pub fn in_dependency_order(&self) -> Vec<&Arc<Relation>> {
        let mut ready: BTreeSet<RelationId> = BTreeSet::new();
        let mut missing: BTreeMap<RelationId, usize> = BTreeMap::new();
        for (id, relation) in self.relations.iter() {
            match relation.depends_on.len() {
                0 => {
                    ready.insert(*id);
                }
                n => {
                    missing.insert(*id, n);
                }
            }
        }
        let mut order = Vec::with_capacity(self.relations.len());
        while let Some(id) = ready.pop_first() {
            order.push(&self.relations[&id]);
            for reader in self.readers.get(&id).into_iter().flatten() {
                if let Some(count) = missing.get_mut(reader) {
                    *count -= 1;
                    if *count == 0 {
                        missing.remove(reader);
                        ready.insert(*reader);
                    }
                }
            }
        }
        order
    }

    /// The relation that a dotted, folded name means. An unknown schema is, as in Postgres' queries, an unknown relation.
    pub fn resolve(
        &self,
        name: &[String],
        path: &SearchPath,
    ) -> Result<&Arc<Relation>, CatalogError> {
        let found = match split(name)? {
            (Some(schema), name) => self.get(schema, name),
            (None, name) => path.0.iter().find_map(|schema| self.get(schema, name)),
        };
        found.ok_or_else(|| CatalogError::UndefinedRelation {
            name: name.join("."),
            hint: self.suggestion(name, path, None),
        })
    }

    /// The relation of one kind that a name means, as `DROP`, `ALTER` and `SHOW CREATE` ask.
    pub fn resolve_class(
        &self,
        name: &[String],
        path: &SearchPath,
        class: RelationClass,
    ) -> Result<&Arc<Relation>, CatalogError> {
        let (schema, last) = split(name)?;
        if let Some(schema) = schema {
            self.expect_schema(schema)?;
        }
        match self.resolve(name, path) {
            Ok(relation) if relation.class() == class => Ok(relation),
            Ok(relation) => Err(CatalogError::WrongKind {
                name: last.to_string(),
                expected: class,
                found: relation.class(),
            }),
            Err(CatalogError::UndefinedRelation { name: text, .. }) => {
                Err(CatalogError::UndefinedOfClass {
                    class,
                    name: text,
                    hint: self.suggestion(name, path, Some(class)),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The schema and name under which `CREATE` would make a relation; an error if that name is taken or cannot be used.
    /// For `IF NOT EXISTS`, [`CatalogError::DuplicateRelation`] becomes the notice.
    pub fn name_for_new(
        &self,
        name: &[String],
        path: &SearchPath,
    ) -> Result<(String, String), CatalogError> {
        let (schema, last) = split(name)?;
        let schema = match schema {
            Some(schema) => schema,
            None => path
                .0
                .iter()
                .find(|schema| self.schemas.contains_key(*schema))
                .ok_or(CatalogError::NoSchemaSelected)?,
        };
        self.expect_free(schema, last)?;
        Ok((schema.to_string(), last.to_string()))
    }

    pub(crate) fn expect_free(&self, schema: &str, name: &str) -> Result<(), CatalogError> {
        if Self::is_reserved_schema(schema) {
            return Err(CatalogError::SystemSchema {
                name: format!("{schema}.{name}"),
            });
        }
        self.expect_schema(schema)?;
        match self.get(schema, name) {
            Some(_) => Err(CatalogError::DuplicateRelation {
                name: name.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// Fails unless a schema exists; reserved ones do.
    pub fn expect_schema(&self, name: &str) -> Result<(), CatalogError> {
        if self.schemas.contains_key(name) || Self::is_reserved_schema(name) {
            return Ok(());
        }
        let known = self.schemas.keys().map(String::as_str);
        let known = known.chain(Self::RESERVED_SCHEMAS);
        Err(CatalogError::UndefinedSchema {
            name: name.to_string(),
            hint: nearest(name, known)
                .map(|known| format!("Perhaps you meant the schema \"{known}\".")),
        })
    }

    /// Whether an unqualified name finds this relation, so that messages need not qualify it.
    pub fn is_visible(&self, relation: &Relation, path: &SearchPath) -> bool {
        path.0
            .iter()
            .find_map(|schema| self.get(schema, &relation.name))
            .is_some_and(|found| found.id == relation.id)
    }

    /// As Postgres describes an object in messages: `view v`, or `view s.v` where `v` alone would not find it.
    pub fn describe(&self, relation: &Relation, path: &SearchPath) -> String {
        let class = relation.class();
        if self.is_visible(relation, path) {
            format!("{class} {}", relation.name)
        } else {
            format!("{class} {}.{}", relation.schema, relation.name)
        }
    }

    /// The same name in another schema, else the nearest name where the name was looked for.
    fn suggestion(
        &self,
        name: &[String],
        path: &SearchPath,
        class: Option<RelationClass>,
    ) -> Option<String> {
        let (schema, last) = split(name).ok()?;
        let fits = |relation: &&Arc<Relation>| class.is_none_or(|class| relation.class() == class);
        let elsewhere = self
            .schemas
            .keys()
            .filter_map(|schema| self.get(schema, last))
            .find(fits);
        if let Some(relation) = elsewhere {
            return Some(format!(
                "Perhaps you meant \"{}.{}\".",
                relation.schema, relation.name
            ));
        }
        let schemas: Vec<&str> = match schema {
            Some(schema) => vec![schema],
            None => path.0.iter().map(String::as_str).collect(),
        };
        let known = schemas
            .iter()
            .flat_map(|schema| self.relations_in(schema))
            .filter(fits)
            .map(|relation| relation.name.as_str());
        let known = nearest(last, known)?;
        let qualifier = schema.map_or(String::new(), |schema| format!("{schema}."));
        Some(format!("Perhaps you meant \"{qualifier}{known}\"."))
    }
}

/// Schema and name. As there is one database, a third part can only be another one.
fn split(name: &[String]) -> Result<(Option<&str>, &str), CatalogError> {
    match name {
        [name] => Ok((None, name)),
        [schema, name] => Ok((Some(schema), name)),
        [_, _, _] => Err(CatalogError::CrossDatabase {
            name: name.join("."),
        }),
        _ => Err(CatalogError::TooManyDots {
            name: name.join("."),
        }),
    }
}

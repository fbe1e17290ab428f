//! What a `DROP` takes with it.
//!
//! With `CASCADE` that is everything that reads, at any depth, something dropped; with `RESTRICT` a reader that is not
//! itself named is an error. Messages list objects in the order in which Postgres finds them: depth first from each named
//! object, readers in order of creation, each once.

use std::collections::BTreeSet;

use tidegate_types::RelationId;

use crate::catalog::{Catalog, SearchPath};
use crate::error::CatalogError;

/// What is dropped, in an order in which it can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropPlan {
    /// Readers before what they read.
    pub ids: Vec<RelationId>,
    /// What goes although it was not named, as messages describe it: `view s.v`.
    pub cascaded: Vec<String>,
}

impl DropPlan {
    /// The notice that tells of a cascade, as Postgres words it: message and detail.
    pub fn notice(&self) -> Option<(String, Option<String>)> {
        match &self.cascaded[..] {
            [] => None,
            [one] => Some((format!("drop cascades to {one}"), None)),
            many => {
                let lines: Vec<String> = many
                    .iter()
                    .map(|o| format!("drop cascades to {o}"))
                    .collect();
                Some((
                    format!("drop cascades to {} other objects", many.len()),
                    Some(lines.join("\n")),
                ))
            }
        }
    }
}

/// A dependency that stands in the way: who, and on what.
type Found = (RelationId, String);

impl Catalog {
    /// Plans `DROP` of relations.
    pub fn drop_plan(
        &self,
        ids: &[RelationId],
        cascade: bool,
        path: &SearchPath,
    ) -> Result<DropPlan, CatalogError> {
        let mut seen: BTreeSet<RelationId> = ids.iter().copied().collect();
        let mut found = Vec::new();
        for id in ids {
            self.find_readers(*id, path, &mut seen, &mut found);
        }
        if !cascade && !found.is_empty() {
            let message = match ids {
                [id] => format!(
                    "cannot drop {} because other objects depend on it",
                    self.describe_id(*id, path)
                ),
                _ => {
                    "cannot drop desired object(s) because other objects depend on them".to_string()
                }
            };
            return Err(self.dependents(message, &found, path));
        }
        Ok(self.plan(&seen, &found, path))
    }

    /// Plans `DROP SCHEMA`: with all it holds and, across schemas, what reads that.
    pub fn drop_schema_plan(
        &self,
        schema: &str,
        cascade: bool,
        path: &SearchPath,
    ) -> Result<DropPlan, CatalogError> {
        if Self::is_reserved_schema(schema) {
            return Err(CatalogError::RequiredSchema {
                name: schema.to_string(),
            });
        }
        self.expect_schema(schema)?;
        let mut members: Vec<RelationId> = self.relations_in(schema).map(|r| r.id).collect();
        members.sort_unstable();
        let mut seen: BTreeSet<RelationId> = members.iter().copied().collect();
        let mut found = Vec::new();
        for id in members {
            found.push((id, format!("schema {schema}")));
            self.find_readers(id, path, &mut seen, &mut found);
        }
        if !cascade && !found.is_empty() {
            let message = format!("cannot drop schema {schema} because other objects depend on it");
            return Err(self.dependents(message, &found, path));
        }
        Ok(self.plan(&seen, &found, path))
    }

    fn find_readers(
        &self,
        id: RelationId,
        path: &SearchPath,
        seen: &mut BTreeSet<RelationId>,
        found: &mut Vec<Found>,
    ) {
        // An own stack: chains of views can be longer than a thread's stack is deep.
        let mut open: Vec<Found> = self.readers_of(id, path);
        while let Some((reader, on)) = open.pop() {
            if seen.insert(reader) {
                found.push((reader, on));
                open.extend(self.readers_of(reader, path));
            }
        }
    }

    /// Last first, for a stack.
    fn readers_of(&self, id: RelationId, path: &SearchPath) -> Vec<Found> {
        let on = self.describe_id(id, path);
        let mut readers: Vec<Found> = self.readers(id).map(|r| (r.id, on.clone())).collect();
        readers.reverse();
        readers
    }

    fn plan(&self, dropped: &BTreeSet<RelationId>, found: &[Found], path: &SearchPath) -> DropPlan {
        let ids = self
            .in_dependency_order()
            .into_iter()
            .rev()
            .map(|relation| relation.id)
            .filter(|id| dropped.contains(id))
            .collect();
        let cascaded = found
            .iter()
            .map(|(id, _)| self.describe_id(*id, path))
            .collect();
        DropPlan { ids, cascaded }
    }

    fn dependents(&self, message: String, found: &[Found], path: &SearchPath) -> CatalogError {
        CatalogError::Dependents {
            message,
            detail: found
                .iter()
                .map(|(id, on)| format!("{} depends on {on}", self.describe_id(*id, path)))
                .collect(),
            hint: "Use DROP ... CASCADE to drop the dependent objects too.".to_string(),
        }
    }

    fn describe_id(&self, id: RelationId, path: &SearchPath) -> String {
        match self.relation(id) {
            Some(relation) => self.describe(relation, path),
            None => format!("relation {id}"),
        }
    }
}

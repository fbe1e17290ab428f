//! The durable form: JSON with a format number, holding what cannot be derived.
//!
//! Fields may be added with a default under the same number; anything else needs the next one. A number that this version
//! does not know is refused rather than read half.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_types::RelationId;

use crate::catalog::{Catalog, Schema};
use crate::error::CatalogError;
use crate::relation::Relation;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
pub(crate) struct Durable {
    format: u32,
    version: u64,
    next_id: u64,
    schemas: Vec<Schema>,
    relations: Vec<Arc<Relation>>,
}

/// Read before the rest, which another format may not have.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

impl From<Catalog> for Durable {
    fn from(catalog: Catalog) -> Self {
        Self {
            format: FORMAT,
            version: catalog.version,
            next_id: catalog.next_id,
            schemas: catalog.schemas.values().cloned().collect(),
            relations: catalog.relations.values().cloned().collect(),
        }
    }
}

impl TryFrom<Durable> for Catalog {
    type Error = CatalogError;

    fn try_from(durable: Durable) -> Result<Self, CatalogError> {
        expect_format(durable.format)?;
        let mut catalog = Catalog {
            version: durable.version,
            next_id: durable.next_id,
            schemas: Arc::new(
                durable
                    .schemas
                    .into_iter()
                    .map(|schema| (schema.name.clone(), schema))
                    .collect::<BTreeMap<_, _>>(),
            ),
            relations: Arc::default(),
            names: Arc::default(),
            readers: Arc::default(),
        };
        let ids: Vec<RelationId> = durable.relations.iter().map(|r| r.id).collect();
        for relation in durable.relations {
            if relation.id.0 >= catalog.next_id || catalog.relation(relation.id).is_some() {
                return Err(unreadable(format!(
                    "id {} is not one given out once",
                    relation.id
                )));
            }
            catalog
                .expect_free(&relation.schema, &relation.name)
                .map_err(unreadable)?;
            catalog.insert(relation);
        }
        for id in &ids {
            catalog
                .expect_sound(&catalog.relations[id])
                .map_err(unreadable)?;
        }
        if catalog.in_dependency_order().len() < ids.len() {
            return Err(unreadable("relations depend on each other in a circle"));
        }
        Ok(catalog)
    }
}

impl Catalog {
    /// What manifests keep.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a catalog has only string keys and finite numbers")
    }

    pub fn from_json(json: &str) -> Result<Self, CatalogError> {
        let header: Header = serde_json::from_str(json).map_err(unreadable)?;
        expect_format(header.format)?;
        serde_json::from_str(json).map_err(unreadable)
    }
}

fn expect_format(format: u32) -> Result<(), CatalogError> {
    if format == FORMAT {
        Ok(())
    } else {
        Err(unreadable(format!(
            "it has format {format}, this version reads format {FORMAT}"
        )))
    }
}

fn unreadable(why: impl ToString) -> CatalogError {
    CatalogError::Unreadable(why.to_string())
}

//! What exists: names, ids, definitions and what depends on what.
//!
//! A [`Catalog`] is a value. Cloning it is cheap and a clone never changes, so a session plans against one version while
//! another statement makes the next. It changes only by applying a [`CatalogChange`], which is data: the command log orders
//! changes, and replaying them gives the same catalog with the same ids.
//!
//! - [`relation`]: what a table, source, view, materialized view or sink is.
//! - [`catalog`]: finding things by name and id, as Postgres does along a search path, with its errors.
//! - [`change`]: the changes, and what must hold for one to apply.
//! - [`drop_plan`]: what a `DROP` takes with it, or why it may not.
//! - [`durable`]: the JSON kept in manifests.
//!
//! **Invariants.** Ids grow and are never reused, not even after a drop. A relation's dependencies exist as long as it does.
//! No dependency cycle exists. Names are unique within a schema across all kinds, as in Postgres. The compiled plan of a
//! view is opaque here: the catalog keeps it and never looks inside.

pub mod catalog;
pub mod change;
pub mod drop_plan;
pub mod durable;
pub mod error;
pub mod relation;
mod suggest;

#[cfg(test)]
mod tests;

pub use catalog::{Catalog, Schema, SearchPath};
pub use change::CatalogChange;
pub use drop_plan::DropPlan;
pub use error::CatalogError;
pub use relation::{
    Check, Column, MaterializedViewDef, Relation, RelationClass, RelationKind, SinkDef, SourceDef,
    TableDef, ViewDef, WatermarkDef,
};

//! Whether saved state fits what this version plans for the relations of a saved catalog.
//!
//! Definitions are planned again wherever state is restored. As long as the planner answers with the same operators they
//! find their state; where it does not, an operator would begin with nothing in the middle of its input, and what it
//! computes from then on would be wrong. So that is found out before anything is restored.

use crate::relations::Specs;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use tidegate_catalog::{Catalog, Relation};
use tidegate_checkpoint::Manifest;
use tidegate_runtime::{RelationSpec, StateMatch, match_state};
use tidegate_state::BackendKind;
use tidegate_types::{SqlError, SqlState};

/// What to run for every relation of a catalog that is not this database's present one. Its connectors are its own.
pub(crate) fn specs_of(
    catalog: &Catalog,
    default_backend: BackendKind,
    identity: &str,
) -> Result<Vec<RelationSpec>, SqlError> {
    let mut connectors = HashMap::new();
    let mut specs = Specs {
        catalog,
        default_backend,
        identity,
        connectors: &mut connectors,
    };
    let mut found = Vec::new();
    for relation in catalog.in_dependency_order() {
        found.extend(specs.of(relation)?);
    }
    Ok(found)
}

/// A relation of which a manifest holds other state than its plan declares.
pub(crate) struct Unfit {
    pub relation: Arc<Relation>,
    found: StateMatch,
}

/// Relations that were not running when the manifest was written have no state in it, and need none.
pub(crate) fn unfit(catalog: &Catalog, specs: &[RelationSpec], manifest: &Manifest) -> Vec<Unfit> {
    let mut unfit = Vec::new();
    for spec in specs {
        let id = spec.relation();
        let has_state = manifest
            .tables
            .values()
            .any(|t| t.descriptor.relation == id);
        let Some(relation) = catalog.relation(id).filter(|_| has_state) else {
            continue;
        };
        let found = match_state(&spec.dataflow, manifest, |id| id);
        if !found.is_whole() || !found.unused.is_empty() {
            unfit.push(Unfit {
                relation: relation.clone(),
                found,
            });
        }
    }
    unfit
}

impl Unfit {
    /// The operators in question, for people.
    pub fn told(&self) -> String {
        let mut text = format!("{} \"{}\":", self.relation.class(), self.relation.name);
        for table in &self.found.unused {
            let d = &table.descriptor;
            let _ = write!(
                text,
                " table \"{}\" of operator {} ({} rows, {} bytes) belongs to nothing;",
                d.name,
                d.operator,
                table.rows(),
                table.bytes()
            );
        }
        for operator in self.found.missing() {
            let _ = write!(text, " {} finds no state;", operator.shown);
        }
        text.pop();
        text
    }
}

/// The refusal, of a savepoint.
pub(crate) fn refusal(savepoint: &str, unfit: &[Unfit]) -> SqlError {
    let told: Vec<String> = unfit.iter().map(Unfit::told).collect();
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "savepoint \"{savepoint}\" holds state that does not belong to what this version plans for {}",
            names(unfit)
        ),
    )
    .with_detail(told.join("\n"))
}

fn names(unfit: &[Unfit]) -> String {
    let names: Vec<String> = unfit
        .iter()
        .map(|u| format!("{} \"{}\"", u.relation.class(), u.relation.name))
        .collect();
    names.join(", ")
}

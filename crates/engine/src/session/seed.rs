//! `CREATE MATERIALIZED VIEW … FROM SAVEPOINT name`.
//!
//! The new view's operators begin with the state that the same operators of a view had in the savepoint: one of the same
//! name, or any other whose query is the same. Relations are found in the savepoint by their names, since the ones that are
//! read now may have been made anew. What of the inputs has changed since is worked out by the runtime; see
//! `tidegate_runtime::seed`.

use super::Session;
use super::create::Ddl;
use crate::database::{Database, catalog_of};
use crate::offline::qualified;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_catalog::{Catalog, Relation, RelationClass};
use tidegate_checkpoint::offline::restorer_of;
use tidegate_checkpoint::{Held, Manifest, TableEntry};
use tidegate_parser::sqlparser::ast::Ident;
use tidegate_plan::Op;
use tidegate_runtime::{RelationSpec, Seed, StateMatch, match_state, rows_of, same_form};
use tidegate_types::{OperatorId, RelationId, SqlError, SqlState, TableId};

/// State to begin with; the savepoint's runs stay while this lives.
pub(super) struct Beginning {
    pub seed: Seed,
    pub held: Held,
}

/// What the view is to begin with, and under which ids the savepoint knows what it reads.
struct Search<'a> {
    database: &'a Arc<Database>,
    savepoint: &'a str,
    manifest: &'a Manifest,
    /// As of now, and as of the savepoint.
    now: &'a Catalog,
    then: Catalog,
    renamed: HashMap<RelationId, RelationId>,
}

impl Ddl<'_> {
    /// Finds the state that a view may begin with, or says why there is none.
    pub(super) async fn beginning(
        &self,
        catalog: &Catalog,
        relation: &Relation,
        spec: &RelationSpec,
        savepoint: &Ident,
    ) -> Result<Beginning, SqlError> {
        let name = tidegate_parser::fold(savepoint);
        let store = self.database.store.clone();
        let manifest = store.describe_savepoint(&name)?;
        let held = store.hold(&manifest);
        let restorer = restorer_of(store.storage(), &manifest)?;
        let mut search = Search {
            database: &self.database,
            savepoint: &name,
            manifest: &manifest,
            now: catalog,
            then: catalog_of(Some(&manifest))?.0,
            renamed: HashMap::new(),
        };
        let inputs = search.inputs(spec)?;
        let (view, found) = search.view(relation, spec)?;
        search.renamed.insert(relation.id, view.id);
        let mut tables: HashMap<TableId, Arc<TableEntry>> = HashMap::new();
        let mut take = |found: StateMatch| {
            let matched = found.operators.into_iter().flat_map(|o| o.tables);
            tables.extend(matched.filter_map(|t| Some((t.declared.table, t.stored?))));
        };
        take(found);
        for reader in &spec.readers {
            take(match_state(&reader.dataflow, &manifest, |id| {
                search.stored_as(id)
            }));
        }
        let mut specs = spec.readers.clone();
        specs.push(spec.clone());
        crate::sources::check_positions(&name, &specs, &restorer, |table| {
            tables.get(&table).cloned()
        })
        .await?;
        Ok(Beginning {
            seed: Seed {
                restorer,
                tables,
                inputs,
            },
            held,
        })
    }
}

impl Search<'_> {
    fn stored_as(&self, id: RelationId) -> RelationId {
        self.renamed.get(&id).copied().unwrap_or(id)
    }

    fn refused(&self, message: String) -> SqlError {
        SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .with_hint("Without FROM SAVEPOINT the view is built from what its inputs hold now.")
    }

    /// The rows that each table or view which is read had in the savepoint.
    fn inputs(
        &mut self,
        spec: &RelationSpec,
    ) -> Result<HashMap<RelationId, Arc<TableEntry>>, SqlError> {
        let mut inputs = HashMap::new();
        for id in spec.dataflow.reads() {
            let Some(now) = self.now.relation(id) else {
                return Err(SqlError::internal(
                    "a view reads what is not in the catalog",
                ));
            };
            let then = self.then.relations().find(|r| is_same(r, now));
            let then = then.or_else(|| {
                let moved = self.then.relation(id);
                moved.filter(|r| r.class() == now.class())
            });
            let Some(then) = then else {
                return Err(self.refused(format!(
                    "savepoint \"{}\" does not know {} \"{}\", which the view reads",
                    self.savepoint,
                    now.class(),
                    qualified(now)
                )));
            };
            self.renamed.insert(id, then.id);
            if now.class() == RelationClass::Source {
                continue;
            }
            let spec = self.database.spec(self.now, now)?;
            let rows = spec.as_ref().and_then(|s| rows_of(&s.dataflow));
            let stored = self.manifest.tables.get(&rows_table(then.id));
            match (rows, stored) {
                (Some(rows), Some(stored)) if same_form(&rows, &stored.descriptor) => {
                    inputs.insert(id, stored.clone());
                }
                (_, None) => {
                    return Err(self.refused(format!(
                        "savepoint \"{}\" does not hold the rows of \"{}\", which the view reads",
                        self.savepoint,
                        qualified(now)
                    )));
                }
                (_, Some(_)) => {
                    return Err(self.refused(format!(
                        "\"{}\" has other columns or another key than in savepoint \"{}\"",
                        qualified(now),
                        self.savepoint
                    )));
                }
            }
        }
        Ok(inputs)
    }

    /// The view of the savepoint whose operators are those of the new one.
    fn view(
        &self,
        relation: &Relation,
        spec: &RelationSpec,
    ) -> Result<(Arc<Relation>, StateMatch), SqlError> {
        let mut views: Vec<&Arc<Relation>> = self
            .then
            .relations_of(RelationClass::MaterializedView)
            .filter(|v| self.manifest.tables.contains_key(&rows_table(v.id)))
            .collect();
        views.sort_by_key(|v| !is_same(v, relation));
        let mut best: Option<(&Arc<Relation>, StateMatch)> = None;
        for view in views {
            let found = match_state(&spec.dataflow, self.manifest, |id| {
                match id == relation.id {
                    true => view.id,
                    false => self.stored_as(id),
                }
            });
            if found.is_whole() {
                return Ok((view.clone(), found));
            }
            let fits = |m: &StateMatch| m.operators.len() - m.missing().count();
            // Of views that fit alike the first is told: the one of the same name.
            if best.as_ref().is_none_or(|(_, b)| fits(&found) > fits(b)) {
                best = Some((view, found));
            }
        }
        let error = self.refused(format!(
            "savepoint \"{}\" holds no state of a view with the query of \"{}\"",
            self.savepoint, relation.name
        ));
        Err(match best {
            None => error.with_detail("There is no materialized view in it."),
            Some((view, found)) => error.with_detail(format!(
                "Compared with \"{}\" it has no state for: {}.",
                qualified(view),
                operators(&spec.dataflow, &found)
            )),
        })
    }
}

/// What has no state. The root follows from what is below it, and is told only when all of that is there.
fn operators(dataflow: &tidegate_plan::Dataflow, found: &StateMatch) -> String {
    let is_root = |node: usize| matches!(dataflow.nodes[node].op, Op::Materialize { .. });
    let below = found.missing().any(|o| !is_root(o.node));
    let told: Vec<String> = found
        .missing()
        .filter(|o| !(below && is_root(o.node)))
        .map(|o| match &dataflow.nodes[o.node].op {
            Op::Materialize { .. } => "the rows of the view".to_owned(),
            _ => o.shown.clone(),
        })
        .collect();
    told.join("; ")
}

fn is_same(a: &Relation, b: &Relation) -> bool {
    (&a.schema, &a.name, a.class()) == (&b.schema, &b.name, b.class())
}

fn rows_table(relation: RelationId) -> TableId {
    TableId::of(relation, OperatorId(0), 0)
}

/// The statement without `FROM SAVEPOINT name`, which stands in front of `AS` or at the end: what the view began with is
/// no part of what it is.
pub(super) fn lasting_definition(text: &str, query: &str) -> String {
    let Some(start) = text.find(query) else {
        return text.to_owned();
    };
    let end = start + query.len();
    if let Some(at) = clause(&text[end..]) {
        return text[..end + at].trim_end().to_owned();
    }
    let head = &text[..start];
    match (clause(head), head.to_ascii_lowercase().rfind("as")) {
        (Some(at), Some(keyword)) if at < keyword => {
            format!("{}{}", &text[..at], &text[keyword..])
        }
        _ => text.to_owned(),
    }
}

/// Where `FROM SAVEPOINT` begins.
fn clause(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let found = lower.rmatch_indices("from").find(|(at, from)| {
        let rest = &lower[at + from.len()..];
        rest.starts_with(char::is_whitespace) && rest.trim_start().starts_with("savepoint")
    });
    found.map(|(at, _)| at)
}

impl Session {
    /// What could not begin with saved state is told as that, and not as a failure of the server.
    pub(super) fn not_begun(savepoint: &Ident, error: SqlError) -> SqlError {
        match error.state == SqlState::INTERNAL_ERROR {
            true => SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "the view cannot begin with savepoint \"{}\": {}",
                    tidegate_parser::fold(savepoint),
                    error.message
                ),
            )
            .with_hint("Without FROM SAVEPOINT the view is built from what its inputs hold now."),
            false => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_does_not_name_the_savepoint() {
        let query = "SELECT count(*) FROM savepoint AS s";
        let lasting = format!("CREATE MATERIALIZED VIEW \"as\" (a) AS {query}");
        for given in [
            format!("CREATE MATERIALIZED VIEW \"as\" (a) FROM SAVEPOINT one AS {query}"),
            format!("CREATE MATERIALIZED VIEW \"as\" (a) from  savepoint \"From\" AS {query}"),
            format!("CREATE MATERIALIZED VIEW \"as\" (a) FROM SAVEPOINT \"as\" AS {query}"),
            format!("CREATE MATERIALIZED VIEW \"as\" (a) AS {query} FROM SAVEPOINT one"),
        ] {
            assert_eq!(lasting_definition(&given, query), lasting, "{given}");
        }
        assert_eq!(lasting_definition(&lasting, query), lasting);
    }
}

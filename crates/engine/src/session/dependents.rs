//! Whether everything that reads a view can go on when its query changes.
//!
//! What reads it has a plan that was made for the view as it was: for columns at their positions with their types, for
//! rows that are never retracted if they never were, for columns that no two rows shared. Plans of others are not made
//! anew, so what they rely on has to stay. Columns at the end may come.

use super::alter_query::NewQuery;
use crate::database::Database;
use tidegate_catalog::{Catalog, Column, Relation, RelationClass, SearchPath};
use tidegate_plan::{Dataflow, Node, Op};
use tidegate_types::{SqlError, SqlState};

/// What stands in the way, by kind.
#[derive(Default)]
struct Obstacles {
    gone: Vec<(String, String)>,
    retyped: Vec<(String, String)>,
    other: Vec<(String, String)>,
}

pub(super) fn expect_dependents_go_on(
    database: &Database,
    catalog: &Catalog,
    new: &NewQuery,
) -> Result<(), SqlError> {
    let mut obstacles = Obstacles::default();
    let path = SearchPath(vec![new.old.schema.clone()]);
    for reader in database.runtime()?.readers_of(new.old.id) {
        let name = match catalog.relation(reader.relation) {
            Some(relation) => catalog.describe(relation, &path),
            None => "a subscription".to_owned(),
        };
        look_at(&name, &reader, new, &mut obstacles);
    }
    for reader in catalog.readers(new.old.id) {
        let name = catalog.describe(reader, &path);
        if reader.class() == RelationClass::View {
            for column in 0..new.old.columns.len() {
                look_at_column(&name, column, new, false, &mut obstacles);
            }
        } else if crate::suspension::suspension(reader).is_some() {
            let running = crate::suspension::with_suspension(reader, None);
            if let Some(spec) = database.spec(catalog, &running)? {
                look_at(&name, &spec.dataflow, new, &mut obstacles);
            }
        }
    }
    obstacles.tell(&new.old)
}

fn look_at(name: &str, reader: &Dataflow, new: &NewQuery, obstacles: &mut Obstacles) {
    for node in &reader.nodes {
        let Op::Import { relation, columns } = &node.op else {
            continue;
        };
        if *relation != new.old.id {
            continue;
        }
        for column in columns {
            look_at_column(name, *column, new, true, obstacles);
        }
        if node.append_only {
            let why = "relies on rows that are never retracted, and a change of the query retracts"
                .to_owned();
            obstacles.other.push((name.to_owned(), why));
        } else if !node.watermarks.is_empty() {
            let why = "relies on watermarks, and a change of the query changes rows before them"
                .to_owned();
            obstacles.other.push((name.to_owned(), why));
        } else if let Some(why) = lost_key(node, columns, new) {
            obstacles.other.push((name.to_owned(), why));
        }
    }
}

/// A dependent that was planned for rows that differ in some columns needs rows that do.
fn lost_key(node: &Node, columns: &[usize], new: &NewQuery) -> Option<String> {
    let key: Vec<usize> = node
        .unique_key
        .as_ref()?
        .iter()
        .map(|c| columns[*c])
        .collect();
    let unique = new.plan.root().unique_key.as_ref();
    if unique.is_some_and(|unique| unique.iter().all(|c| key.contains(c))) {
        return None;
    }
    let names: Vec<&str> = key
        .iter()
        .map(|c| new.old.columns[*c].name.as_str())
        .collect();
    Some(match names.as_slice() {
        [] => "relies on there being at most one row".to_owned(),
        _ => format!(
            "relies on no two rows having the same ({})",
            names.join(", ")
        ),
    })
}

fn look_at_column(
    name: &str,
    column: usize,
    new: &NewQuery,
    is_compiled: bool,
    obstacles: &mut Obstacles,
) {
    let before = &new.old.columns[column];
    let after: Option<&Column> = new.relation.columns.get(column);
    let about = |what: String| (format!("column {} of it", before.name), what);
    let Some(after) = after.filter(|a| a.name == before.name) else {
        let (what, _) = about(String::new());
        obstacles.gone.push((name.to_owned(), what));
        return;
    };
    if after.sql_type != before.sql_type {
        let what = format!(
            "column {} of it, which would change from {} to {}",
            before.name, before.sql_type, after.sql_type
        );
        obstacles.retyped.push((name.to_owned(), what));
    } else if is_compiled && after.nullable && !before.nullable {
        let why = format!("relies on column {} never being NULL", before.name);
        obstacles.other.push((name.to_owned(), why));
    }
}

impl Obstacles {
    fn tell(mut self, view: &Relation) -> Result<(), SqlError> {
        for list in [&mut self.gone, &mut self.retyped, &mut self.other] {
            list.sort();
            list.dedup();
        }
        let depends = |list: &[(String, String)]| -> Vec<String> {
            let lines = list
                .iter()
                .map(|(who, what)| format!("{who} depends on {what}"));
            lines.collect()
        };
        let name = &view.name;
        let (state, message, detail) = if !self.gone.is_empty() {
            (
                SqlState::DEPENDENT_OBJECTS,
                format!(
                    "cannot remove columns of materialized view \"{name}\" because other objects depend on them"
                ),
                depends(&self.gone),
            )
        } else if !self.retyped.is_empty() {
            (
                SqlState::INVALID_TABLE_DEFINITION,
                format!(
                    "cannot change the type of columns of materialized view \"{name}\" because other objects depend on them"
                ),
                depends(&self.retyped),
            )
        } else if !self.other.is_empty() {
            let lines = self.other.iter().map(|(who, why)| format!("{who} {why}"));
            (
                SqlState::DEPENDENT_OBJECTS,
                format!(
                    "cannot alter materialized view \"{name}\" in this way because other objects depend on it"
                ),
                lines.collect(),
            )
        } else {
            return Ok(());
        };
        Err(SqlError::new(state, message)
            .with_detail(detail.join("\n"))
            .with_hint(
                "Columns keep their names, places and types, and new ones come at the end; or drop the dependent objects and create them again.",
            ))
    }
}

//! Whether sources can still be read from where a savepoint left them.

use std::sync::Arc;
use tidegate_checkpoint::{Restorer, TableEntry};
use tidegate_connectors::Source;
use tidegate_runtime::{RelationSpec, SavedPosition, saved_positions};
use tidegate_types::{RelationId, SqlError, SqlState, TableId};

/// Opens every split that these relations had begun to read, as it was left; 55000 names the source that cannot be.
/// `stored` gives what is saved of a table.
pub(crate) async fn check_positions(
    savepoint: &str,
    specs: &[RelationSpec],
    restorer: &Arc<Restorer>,
    stored: impl Fn(TableId) -> Option<Arc<TableEntry>>,
) -> Result<(), SqlError> {
    let mut wanted: Vec<(Arc<dyn Source>, String, SavedPosition)> = Vec::new();
    for spec in specs {
        for position in saved_positions(&spec.dataflow, restorer, &stored).await? {
            let Some((source, name)) = connector(spec, position.source) else {
                continue;
            };
            let known = wanted.iter().any(|(_, _, p)| *p == position);
            if !known {
                wanted.push((source, name, position));
            }
        }
    }
    let savepoint = savepoint.to_owned();
    // Opening may wait for a disk or a network.
    let checked = tokio::task::spawn_blocking(move || {
        wanted.iter().try_for_each(|(source, name, position)| {
            match source.open(&position.split, Some(&position.offset), None) {
                Ok(_) => Ok(()),
                Err(error) => Err(no_longer(&savepoint, name, position, error.into())),
            }
        })
    });
    checked
        .await
        .unwrap_or_else(|_| Err(SqlError::internal("a source panicked while it was opened")))
}

fn connector(spec: &RelationSpec, source: RelationId) -> Option<(Arc<dyn Source>, String)> {
    let mut specs = std::iter::once(spec).chain(&spec.readers);
    let reader = specs.find(|s| s.relation() == source)?;
    Some((reader.source.clone()?, reader.dataflow.name.clone()))
}

fn no_longer(savepoint: &str, name: &str, at: &SavedPosition, error: SqlError) -> SqlError {
    let told = SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("source \"{name}\" no longer holds the position that savepoint \"{savepoint}\" has of it"),
    )
    .with_detail(format!(
        "Split \"{}\" at {}: {}",
        at.split.as_str(),
        at.offset,
        error.message
    ));
    match error.hint {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}

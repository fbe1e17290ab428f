//! How far a dataflow had read its sources, as a manifest says.

use crate::build;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_checkpoint::{CheckpointError, Restorer, TableEntry};
use tidegate_connectors::{Offset, SplitId};
use tidegate_plan::{Dataflow, Op};
use tidegate_types::{KeyGroupRange, RelationId, SqlError, SqlState, TableId};

/// Where one split of a source is read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedPosition {
    pub source: RelationId,
    pub split: SplitId,
    pub offset: Offset,
}

/// Of every source that the dataflow reads itself. `stored` gives what is stored for a table of the dataflow.
pub async fn saved_positions(
    dataflow: &Dataflow,
    restorer: &Arc<Restorer>,
    stored: impl Fn(TableId) -> Option<Arc<TableEntry>>,
) -> Result<Vec<SavedPosition>, SqlError> {
    let mut positions = Vec::new();
    for node in &dataflow.nodes {
        let Op::Source { relation, .. } = &node.op else {
            continue;
        };
        let Some(entry) = stored(build::position_table(dataflow.relation, node)) else {
            continue;
        };
        let runs = restorer.table_runs(&entry, KeyGroupRange::ALL).await;
        let runs = runs.map_err(|e: CheckpointError| SqlError::from(e))?;
        // Later runs override earlier ones.
        let mut newest: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for entry in runs.iter().flat_map(|run| run.iter()) {
            newest.insert(entry.key.to_vec(), entry.value.map(<[u8]>::to_vec));
        }
        for (split, offset) in newest {
            let Some(offset) = offset else { continue };
            let read = String::from_utf8(split)
                .ok()
                .zip(Offset::decode(&offset))
                .ok_or_else(|| {
                    SqlError::new(
                        SqlState::DATA_CORRUPTED,
                        "the saved offset of a split cannot be read",
                    )
                })?;
            positions.push(SavedPosition {
                source: *relation,
                split: SplitId::new(read.0),
                offset: read.1,
            });
        }
    }
    Ok(positions)
}

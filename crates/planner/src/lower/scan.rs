//! Scans: a table's or view's changes are imported, a source is read through its connector.

use super::Lowered;
use crate::context::{RelationKind, RelationSource};
use crate::refuse::in_view;
use crate::rel::{Origin, Rel};
use datafusion::logical_expr::TableScan;
use std::sync::Arc;
use tidegate_plan::Op;
use tidegate_types::SqlError;

pub(super) fn table(scan: &TableScan) -> Result<Lowered, SqlError> {
    let Some(source) = scan.source.downcast_ref::<RelationSource>() else {
        return Err(in_view(format!(
            "reading \"{}\", which is computed when it is read,",
            scan.table_name
        )));
    };
    assert!(
        scan.filters.is_empty() && scan.fetch.is_none(),
        "no relation of ours takes filters or limits"
    );
    let relation = &source.relation;
    let wanted: Vec<usize> = match &scan.projection {
        Some(projection) => projection.clone(),
        None => (0..relation.schema.fields().len()).collect(),
    };
    // Rows without columns cannot be told apart or counted by an exchange: one column is read, and none is shown.
    let read = if wanted.is_empty() {
        vec![cheapest(&relation.schema)]
    } else {
        wanted.clone()
    };
    let columns = read.iter().map(|c| relation.columns[*c]).collect();
    let op = match relation.kind {
        RelationKind::Source => Op::Source {
            relation: relation.id,
            columns,
        },
        RelationKind::Table | RelationKind::MaterializedView => Op::Import {
            relation: relation.id,
            columns,
        },
        RelationKind::View => unreachable!("a plain view is planned in place"),
        RelationKind::System => {
            return Err(in_view(format!(
                "reading the system relation \"{}\"",
                relation.name
            )));
        }
    };
    let schema = Arc::new(relation.schema.project(&read).map_err(SqlError::internal)?);
    let mut rel = Rel::new(op, Vec::new(), schema);
    rel.origin = Origin {
        append_only: relation.append_only,
        unique_key: relation.unique_key.as_ref().and_then(|key| {
            key.iter()
                .map(|c| read.iter().position(|r| r == c))
                .collect::<Option<Vec<usize>>>()
        }),
        watermarks: relation
            .watermarks
            .iter()
            .filter_map(|(c, watermark)| {
                let place = read.iter().position(|r| r == c)?;
                Some((place, watermark.clone()))
            })
            .collect(),
    };
    Ok(Lowered {
        rel,
        columns: (0..wanted.len()).collect(),
    })
}

/// The first column of fixed width, else the first.
fn cheapest(schema: &datafusion::arrow::datatypes::Schema) -> usize {
    schema
        .fields()
        .iter()
        .position(|f| f.data_type().is_primitive())
        .unwrap_or(0)
}

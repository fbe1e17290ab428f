//! A layer: what one epoch, or several neighbouring ones, changed in a view. Immutable and shared.

use super::log::LogRows;
use super::sorted::{SortedRows, SortedRowsBuilder};
use super::{cursor::Cursor, row::RowLayout};
use crate::StateError;
use crate::run::{Run, RunBuilder};
use arrow::array::Int64Array;
use std::sync::Arc;
use tidegate_types::{Batch, Epoch, KeyGroup, TableId};

#[derive(Debug)]
pub struct Layer {
    /// The first and last epoch whose changes are in it; `None` for what was restored.
    pub first: Option<Epoch>,
    pub last: Option<Epoch>,
    pub rows: LayerRows,
}

#[derive(Debug)]
pub enum LayerRows {
    Sorted(SortedRows),
    Log(LogRows),
}

impl Layer {
    pub fn sorted(&self) -> &SortedRows {
        match &self.rows {
            LayerRows::Sorted(rows) => rows,
            LayerRows::Log(_) => unreachable!("a view is keyed or a log, never both"),
        }
    }

    pub fn log(&self) -> &LogRows {
        match &self.rows {
            LayerRows::Log(rows) => rows,
            LayerRows::Sorted(_) => unreachable!("a view is keyed or a log, never both"),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that a merge would have to visit.
    pub fn len(&self) -> usize {
        match &self.rows {
            LayerRows::Sorted(rows) => rows.len(),
            LayerRows::Log(rows) => rows.len(),
        }
    }

    /// What it adds to the number of rows of the view.
    pub fn diff_sum(&self) -> i64 {
        match &self.rows {
            LayerRows::Sorted(rows) => rows.diff_sum(),
            LayerRows::Log(rows) => rows.len() as i64,
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match &self.rows {
            LayerRows::Sorted(rows) => rows.memory_bytes(),
            LayerRows::Log(rows) => rows.memory_bytes(),
        }
    }

    /// What it has of key groups from this one on.
    pub fn from_group(&self, group: KeyGroup) -> Self {
        let rows = LayerRows::Sorted(self.sorted().from_group(group));
        Self {
            first: self.first,
            last: self.last,
            rows,
        }
    }

    /// One layer for several neighbouring ones.
    pub fn merge(layers: &[Arc<Layer>]) -> Result<Self, StateError> {
        let (oldest, newest) = (&layers[0], &layers[layers.len() - 1]);
        let rows = match &oldest.rows {
            LayerRows::Log(_) => LayerRows::Log(LogRows::merge(layers.iter().map(|l| l.log()))?),
            LayerRows::Sorted(_) => {
                let mut cursor = Cursor::new(layers, &[], None);
                let mut builder = SortedRowsBuilder::default();
                while let Some((row, diff)) = cursor.next_row()? {
                    builder.push(&[row], diff);
                }
                LayerRows::Sorted(builder.finish())
            }
        };
        Ok(Self {
            // What was restored lies before every epoch.
            first: oldest.first,
            last: newest.last,
            rows,
        })
    }

    /// The changes of some layers as a run of this table, which is made when it is first read.
    pub fn run(table: TableId, layers: Vec<Arc<Layer>>, layout: Arc<RowLayout>) -> Option<Run> {
        (!layers.is_empty())
            .then(|| Run::lazily(table, move || Self::collect(table, &layers, &layout)))
    }

    fn collect(table: TableId, layers: &[Arc<Layer>], layout: &RowLayout) -> RunBuilder {
        let entries = layers.iter().map(|l| l.len()).sum();
        let mut builder = RunBuilder::new(table, false, entries);
        if matches!(layers[0].rows, LayerRows::Log(_)) {
            for layer in layers {
                let written = layer.log().write_run(layout, &mut builder);
                written.expect("the layout was made for the schema of these batches");
            }
            return builder;
        }
        let mut cursor = Cursor::new(layers, &[], None);
        while let Some((row, diff)) = cursor.next_row().expect("layers are in memory") {
            builder.push_in_group(row[0], &row[1..], &[], Some(&diff.to_le_bytes()));
        }
        builder
    }

    /// The changes as batches.
    pub fn batches(&self, layout: &RowLayout) -> Result<Vec<Batch>, StateError> {
        const BATCH_ROWS: usize = 8192;
        match &self.rows {
            LayerRows::Log(rows) => Ok(rows.batches().iter().cloned().map(Batch::insert).collect()),
            LayerRows::Sorted(rows) => {
                let all: Vec<(&[u8], i64)> = rows.iter().collect();
                let mut batches = Vec::new();
                for part in all.chunks(BATCH_ROWS) {
                    let decoded = layout.decode(part.iter().map(|(row, _)| &row[1..]), None)?;
                    let diffs: Int64Array = part
                        .iter()
                        .map(|(_, diff)| *diff)
                        .collect::<Vec<_>>()
                        .into();
                    batches.push(Batch::new(decoded, diffs));
                }
                Ok(batches)
            }
        }
    }
}

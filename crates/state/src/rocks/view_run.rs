//! The run of a view of which some changes were moved to RocksDB before a checkpoint held them.
//!
//! It is read in pieces: of a keyed view a key group at a time, of a log some rows at a time.

use super::database::Family;
use super::layout;
use super::owned::OwnedSnapshot;
use super::view::Through;
use crate::StateError;
use crate::order::sorted_indices;
use crate::run::{Run, RunBuilder, StoredRun};
use crate::view::cursor::Cursor;
use crate::view::layer::{Layer, LayerRows};
use crate::view::row::RowLayout;
use crate::view::{count, log};
use std::ops::Range;
use std::sync::Arc;
use tidegate_types::{ByteRows, Diff, KEY_GROUPS, KeyGroup, TableId};

/// A piece of a log ends at about so much.
const LOG_PIECE_BYTES: usize = if cfg!(test) { 1 << 10 } else { 2 << 20 };

pub struct ViewRun {
    table: TableId,
    snapshot: Arc<OwnedSnapshot>,
    notes: Vec<Through>,
    /// Newer than what is noted.
    layers: Vec<Arc<Layer>>,
    layout: Arc<RowLayout>,
    is_log: bool,
}

impl ViewRun {
    pub fn new(
        table: TableId,
        snapshot: Arc<OwnedSnapshot>,
        notes: Vec<Through>,
        layers: Vec<Arc<Layer>>,
        layout: Arc<RowLayout>,
    ) -> Self {
        let is_log = notes.iter().any(|n| n.numbers.is_some())
            || matches!(layers.first().map(|l| &l.rows), Some(LayerRows::Log(_)));
        Self {
            table,
            snapshot,
            notes,
            layers,
            layout,
            is_log,
        }
    }

    fn keyed_piece(&self, group: KeyGroup) -> Result<Option<Run>, StateError> {
        let (mut rows, mut diffs) = (ByteRows::new(), Vec::new());
        for note in &self.notes {
            let prefix = layout::generation_group(self.table, note.generation, group);
            let end = layout::after_prefix(&prefix);
            let mut noted = self.snapshot.iterate(Family::Changes, &prefix, end);
            noted.check()?;
            while let Some((key, value)) = noted.item() {
                rows.push(&key[prefix.len()..]);
                diffs.push(count(value)?);
                noted.advance()?;
            }
        }
        let mut cursor = Cursor::new(&self.layers, &[group], None);
        while let Some((row, diff)) = cursor.next_row()? {
            if row[0] != group {
                break;
            }
            rows.push(&row[1..]);
            diffs.push(diff);
        }
        Ok(self.summed(group, &rows, &diffs))
    }

    fn summed(&self, group: KeyGroup, rows: &ByteRows, diffs: &[Diff]) -> Option<Run> {
        let order = sorted_indices(
            rows.len(),
            |i| (group, rows.get(i)),
            |a, b| rows.get(a).cmp(rows.get(b)),
        );
        let mut piece = RunBuilder::new(self.table, false, rows.len());
        for same in order.chunk_by(|a, b| rows.get(*a as usize) == rows.get(*b as usize)) {
            let sum: Diff = same.iter().map(|i| diffs[*i as usize]).sum();
            if sum != 0 {
                let row = rows.get(same[0] as usize);
                piece.push_in_group(group, row, &[], Some(&sum.to_le_bytes()));
            }
        }
        piece.finish()
    }

    fn log_pieces<'a>(
        &'a self,
        group: KeyGroup,
        numbers: Range<u64>,
    ) -> impl Iterator<Item = Result<Run, StateError>> + 'a {
        let mut next = numbers.start;
        std::iter::from_fn(move || {
            if next >= numbers.end {
                return None;
            }
            let piece = self.log_piece(group, next..numbers.end);
            next = match &piece {
                Ok((_, reached)) => *reached,
                Err(_) => numbers.end,
            };
            piece.map(|(run, _)| run).transpose()
        })
    }

    /// Rows with these numbers, and the number after the last of them.
    fn log_piece(
        &self,
        group: KeyGroup,
        numbers: Range<u64>,
    ) -> Result<(Option<Run>, u64), StateError> {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        layout::group_and_key(&mut from, self.table, group, &numbers.start.to_be_bytes());
        layout::group_and_key(&mut to, self.table, group, &numbers.end.to_be_bytes());
        let mut rows = self.snapshot.iterate(Family::Log, &from, Some(to));
        rows.check()?;
        let (mut piece, mut bytes, mut reached) =
            (RunBuilder::new(self.table, false, 0), 0, numbers.end);
        let (mut numbered, one) = (Vec::new(), 1i64.to_le_bytes());
        while let Some((key, row)) = rows.item() {
            let number = &key[layout::TABLE_BYTES + 1..];
            if bytes >= LOG_PIECE_BYTES {
                reached = log::number(number)?;
                break;
            }
            numbered.clear();
            numbered.extend_from_slice(number);
            numbered.extend_from_slice(row);
            piece.push_in_group(group, &numbered, &[], Some(&one));
            bytes += numbered.len();
            rows.advance()?;
        }
        Ok((piece.finish(), reached))
    }
}

impl StoredRun for ViewRun {
    fn pieces(&self) -> Box<dyn Iterator<Item = Result<Run, StateError>> + '_> {
        if !self.is_log {
            let groups = (0..KEY_GROUPS).map(|g| g as KeyGroup);
            return Box::new(groups.filter_map(|g| self.keyed_piece(g).transpose()));
        }
        let numbers = self.notes.iter().filter_map(|n| n.numbers.clone());
        let noted = numbers.flat_map(|(group, numbers)| self.log_pieces(group, numbers));
        let layers = Layer::run(self.table, self.layers.clone(), self.layout.clone());
        Box::new(noted.chain(layers.into_iter().map(Ok)))
    }
}

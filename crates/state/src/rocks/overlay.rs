//! The memory table in front of a RocksDB table: what is not in RocksDB, or has another value there, shadowing what is.

use super::database::Family;
use super::layout;
use crate::memory::map::MapTable;
use crate::memory::sweep::Swept;
use crate::memory::value::{Known, ValueTable};
use crate::memory::within;
use crate::run::{Run, RunEntry};
use crate::table::{Cell, StateError, Table};
use std::ops::{Bound, ControlFlow};
use tidegate_types::{KeyGroup, TableId};

/// What a RocksDB table needs of the memory table in front of it.
pub trait Overlay: Table + Sized {
    const FAMILY: Family;

    fn known_many<'s>(&'s self, cells: &[Cell<'_>], visit: &mut dyn FnMut(usize, Known<'s>));
    /// The cells known of a key within the bounds, in order or the reverse; tombstones without value.
    fn scan_known<'a>(
        &'a self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
    ) -> Vec<(&'a [u8], Option<&'a [u8]>)>;
    /// Every cell known, tombstones without value.
    fn visit_known(&self, visit: &mut dyn FnMut(RunEntry<'_>));
    /// From now on RocksDB may know cells which the overlay does not.
    fn begin_below(&mut self);
    /// Takes cells that are to be written to RocksDB.
    fn sweep(&mut self, swept: &mut Swept) -> Result<(), StateError>;
    /// RocksDB has what the last sweep took.
    fn spilled(&mut self) -> Result<(), StateError>;
    /// Forgets what it knows of the cells of a restored run.
    fn forget(&mut self, run: &Run) -> Result<(), StateError>;
    fn memory_bytes(&self) -> usize;
    /// The RocksDB key of a cell.
    fn disk_key(out: &mut Vec<u8>, table: TableId, group: KeyGroup, cell: Cell<'_>);
    /// A cell from what follows the table in a RocksDB key.
    fn split_disk_key(bytes: &[u8]) -> Result<(KeyGroup, Cell<'_>), StateError>;
}

impl Overlay for ValueTable {
    const FAMILY: Family = Family::Value;

    fn known_many<'s>(&'s self, cells: &[Cell<'_>], visit: &mut dyn FnMut(usize, Known<'s>)) {
        ValueTable::known_many(self, cells, visit);
    }

    fn scan_known<'a>(
        &'a self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        _reverse: bool,
    ) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        match self.known(key) {
            Known::Value(value) if within(&[], bounds) => vec![(&[], Some(value))],
            Known::Deleted => vec![(&[], None)],
            _ => Vec::new(),
        }
    }

    fn visit_known(&self, visit: &mut dyn FnMut(RunEntry<'_>)) {
        ValueTable::visit_known(self, &mut |group, key, value| {
            visit(RunEntry {
                group,
                key,
                sub: &[],
                value,
            });
            ControlFlow::Continue(())
        });
    }

    fn begin_below(&mut self) {
        ValueTable::begin_below(self);
    }

    fn sweep(&mut self, swept: &mut Swept) -> Result<(), StateError> {
        ValueTable::sweep(self, swept)
    }

    fn spilled(&mut self) -> Result<(), StateError> {
        ValueTable::spilled(self)
    }

    fn forget(&mut self, run: &Run) -> Result<(), StateError> {
        run.iter().try_for_each(|e| self.load(e.key, None))
    }

    fn memory_bytes(&self) -> usize {
        ValueTable::memory_bytes(self)
    }

    fn disk_key(out: &mut Vec<u8>, table: TableId, group: KeyGroup, cell: Cell<'_>) {
        layout::group_and_key(out, table, group, cell.key);
    }

    fn split_disk_key(bytes: &[u8]) -> Result<(KeyGroup, Cell<'_>), StateError> {
        let damaged = || StateError::Damaged("a key of a value table is cut short".into());
        let (group, key) = bytes.split_first().ok_or_else(damaged)?;
        Ok((*group, Cell::key(key)))
    }
}

impl Overlay for MapTable {
    const FAMILY: Family = Family::Map;

    fn known_many<'s>(&'s self, cells: &[Cell<'_>], visit: &mut dyn FnMut(usize, Known<'s>)) {
        for (i, cell) in cells.iter().enumerate() {
            visit(i, self.known(*cell));
        }
    }

    fn scan_known<'a>(
        &'a self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
    ) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        let mut known = Vec::new();
        MapTable::scan_known(self, key, bounds, reverse, &mut |sub, value| {
            known.push((sub, value));
            ControlFlow::Continue(())
        });
        known
    }

    fn visit_known(&self, visit: &mut dyn FnMut(RunEntry<'_>)) {
        MapTable::visit_known(self, &mut |group, key, sub, value| {
            visit(RunEntry {
                group,
                key,
                sub,
                value,
            });
            ControlFlow::Continue(())
        });
    }

    fn begin_below(&mut self) {
        MapTable::begin_below(self);
    }

    fn sweep(&mut self, swept: &mut Swept) -> Result<(), StateError> {
        MapTable::sweep(self, swept)
    }

    fn spilled(&mut self) -> Result<(), StateError> {
        MapTable::spilled(self)
    }

    fn forget(&mut self, run: &Run) -> Result<(), StateError> {
        run.iter().try_for_each(|e| self.load(e.key, e.sub, None))
    }

    fn memory_bytes(&self) -> usize {
        MapTable::memory_bytes(self)
    }

    fn disk_key(out: &mut Vec<u8>, table: TableId, group: KeyGroup, cell: Cell<'_>) {
        layout::map_key(out, table, group, cell.key);
        out.extend_from_slice(cell.sub);
    }

    fn split_disk_key(bytes: &[u8]) -> Result<(KeyGroup, Cell<'_>), StateError> {
        let (group, key, sub) = layout::split_map_key(bytes)?;
        Ok((group, Cell { key, sub }))
    }
}

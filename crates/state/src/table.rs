//! The contract of a state table.
//!
//! Keys and values are bytes; the operator that owns the table encodes them (`RowCodec`). All access is by batch: one
//! dispatch for many keys. A table remembers what changed since the last completed checkpoint, and gives it away as a
//! [`Run`] when it is sealed.
//!
//! Guarantees: reads see all earlier writes of the same table. `seal` costs what changed, not what is stored. What was
//! sealed for a checkpoint that is then aborted is part of the next seal.
//! Non-guarantees: the order in which `get_many` visits; anything about other tables.

use crate::run::Run;
use std::ops::{Bound, ControlFlow};
use tidegate_types::{CheckpointId, KeyGroup, TableId};

/// Value: one value per key, sub-keys are empty. Map: ordered sub-keys under each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Form {
    Value,
    Map,
}

/// How an older and a newer entry of one key become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Merge {
    /// The newer wins.
    Replace,
    /// Values are counts (i64, little endian) that add up; zero is absent. Views are kept so.
    Sum,
}

/// What a table needs to be opened. The plan knows more (schemas, names); a backend does not need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    pub id: TableId,
    pub form: Form,
    pub merge: Merge,
}

/// The address of one value. `sub` is empty in a table of value form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell<'a> {
    pub key: &'a [u8],
    pub sub: &'a [u8],
}

impl<'a> Cell<'a> {
    pub fn key(key: &'a [u8]) -> Self {
        Self { key, sub: &[] }
    }
}

/// A new value for a cell; `None` deletes it.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    pub cell: Cell<'a>,
    pub value: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Cells that exist; an estimate on RocksDB.
    pub cells: u64,
    /// Bytes of keys and values, in memory or on disk.
    pub bytes: u64,
    /// Bytes of the changes since the last completed checkpoint.
    pub changed_bytes: u64,
}

/// What can go wrong with state. All of it is infrastructure: the worker restarts from the last checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state backend: {0}")]
    Backend(String),
    #[error("state is damaged: {0}")]
    Damaged(String),
    #[error("memory limit exceeded: {0}")]
    OutOfMemory(String),
    #[error("state cannot be encoded or decoded: {0}")]
    Codec(#[from] arrow::error::ArrowError),
    /// Other contents have taken the place of those that a subscriber followed.
    #[error("the view has other columns by now")]
    Replaced,
    /// The rows as of this epoch are no longer kept apart from later ones: ask for the newest published epoch.
    #[error("the rows of a view as of epoch {0} are no longer kept")]
    EpochGone(tidegate_types::Epoch),
}

/// One operator's keyed state on one worker.
pub trait Table: Send {
    /// Calls `visit(i, value of cells[i])` for every i, in any order.
    fn get_many(
        &self,
        cells: &[Cell<'_>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), StateError>;

    /// Applies the changes in order.
    fn write_many(&mut self, changes: &[Change<'_>]) -> Result<(), StateError>;

    /// The cells under `key` with a sub-key within the bounds, in sub-key order or the reverse, until `visit` breaks.
    fn scan(
        &self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError>;

    /// For each of the keys all its cells: `visit(i, sub, value)`; per key in sub-key order.
    fn scan_many(
        &self,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, &[u8], &[u8]),
    ) -> Result<(), StateError>;

    /// Every cell: `visit(key group, key, sub, value)`, in any order. For inspection and tests, not for hot paths.
    fn scan_all(
        &self,
        visit: &mut dyn FnMut(KeyGroup, &[u8], &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError>;

    /// The changes since the last completed checkpoint, as one run that belongs to this checkpoint; `None` when nothing
    /// changed. The only synchronous part of a checkpoint.
    fn seal(&mut self, checkpoint: CheckpointId) -> Result<Option<Run>, StateError>;

    /// This checkpoint (and every earlier one) is durable: what was sealed for it is no longer a change.
    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), StateError>;

    /// This checkpoint will never complete: what was sealed for it joins the next seal.
    fn aborted(&mut self, checkpoint: CheckpointId);

    /// Loads a restored run, older runs first. Only cells in this worker's key groups are in it.
    fn restore(&mut self, run: &Run) -> Result<(), StateError>;

    fn stats(&self) -> TableStats;
}

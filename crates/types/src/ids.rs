//! Ids of things that outlive a process.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A table, source, view, materialized view or sink. Given out by the catalog, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationId(pub u64);

/// A structural hash of an operator and all that is upstream of it within its dataflow: stable across replanning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperatorId(pub u64);

/// One state table of one operator of one relation's dataflow, in this database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId(pub u64);

/// The index of a worker among all workers of an incarnation.
pub type WorkerId = usize;

impl fmt::Display for RelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl TableId {
    /// The id of the `index`-th state table of an operator within a relation's dataflow.
    pub fn of(relation: RelationId, operator: OperatorId, index: usize) -> Self {
        let mut bytes = [0u8; 24];
        bytes[..8].copy_from_slice(&relation.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&operator.0.to_be_bytes());
        bytes[16..].copy_from_slice(&(index as u64).to_be_bytes());
        Self(xxhash_rust::xxh3::xxh3_64(&bytes))
    }
}

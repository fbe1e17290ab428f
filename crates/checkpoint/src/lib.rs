//! Checkpoints and savepoints in object storage.
//!
//! Read in this order:
//! - [`storage`]: a directory, memory or a bucket; [`local`] makes files durable.
//! - [`run_file`]: the one format of state, sorted runs as Arrow IPC; [`manifest`]: what a checkpoint consists of.
//! - [`store`]: who owns the storage, what is in it, where recovery starts; [`commit`]: taking a checkpoint.
//! - [`rows`]: a state table as typed rows, by the [`schemas`] in its manifest.
//! - [`restore`], [`savepoint`], [`retention`], [`merge`], [`history`]: what happens to checkpoints afterwards;
//!   [`metrics`] counts them, [`maintenance`] does what is due in the background.
//! - [`copy`]: between storages; [`portable`]: as Parquet; [`offline`]: for tools, beside or without a server.
//! - [`faults`]: an object store that fails on purpose, for tests here and elsewhere.
//!
//! **Invariants.** Objects are never changed after they were written. The conditional creation of a manifest file is the
//! only commit point. Nothing is decoded before its checksum was verified. Nothing that a retained checkpoint or a
//! savepoint refers to is deleted. All of it is async and has no threads of its own.

mod bucket;
pub mod buffers;
pub mod commit;
pub mod copy;
mod delta;
pub mod error;
pub mod faults;
mod full;
pub mod history;
mod inventory;
mod layout;
pub mod local;
pub mod maintenance;
pub mod manifest;
pub mod merge;
mod merge_policy;
pub mod metrics;
pub mod offline;
pub mod portable;
pub mod restore;
pub mod retention;
pub mod rows;
pub mod run_file;
pub mod savepoint;
pub mod schemas;
pub mod storage;
pub mod store;
mod values;

pub use buffers::Buffers;
pub use commit::{Commit, PendingCheckpoint, UploadedRuns};
pub use copy::CopyProgress;
pub use error::{CheckpointError, Damage, StorageError};
pub use history::{
    CheckpointRecord, CheckpointStatus, OPERATORS_KEPT, OperatorRecord, WorkerRecord,
};
pub use inventory::Skipped;
pub use maintenance::Maintenance;
pub use manifest::{IN_FLIGHT, Manifest, SavepointDetails, TableDescriptor, TableEntry};
pub use merge::MergeReport;
pub use offline::{InUse, Offline};
pub use restore::Restorer;
pub use retention::Removed;
pub use rows::TableRows;
pub use run_file::{BlockRef, RunRef};
pub use savepoint::SavepointInfo;
pub use schemas::TableSchemas;
pub use storage::{RetryPolicy, Storage};
pub use store::{CheckpointStore, Held, Recovery, StoreOptions};

#[cfg(test)]
mod tests;

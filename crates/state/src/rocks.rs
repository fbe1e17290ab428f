//! State in RocksDB: one database per worker, for state larger than memory.
//!
//! - [`database`]: opening, column families, options, the memory limit; [`owned`]: snapshots and iterators that own it.
//! - [`layout`]: how cells become RocksDB keys.
//! - [`table`]: state tables, each behind an [`overlay`]; [`view`]: a view's rows.
//!
//! Changes live in an overlay in memory and enter RocksDB when the checkpoint that holds them is completed, on the
//! background thread, with the checkpoint's number in the same write batch. So what is on disk is always the state as of
//! some checkpoint, unless the overlay ran full between two checkpoints: then changes are written through and a marker
//! says that the files are no longer such a state.
//!
//! The write-ahead log is off: a checkpoint is what makes state durable. For now a start always begins with an empty
//! database and restores from the checkpoint's runs; using the files that are there, where the marker allows it, is a
//! later step, for which the numbers and the marker are written.

pub mod database;
pub mod key_scan;
pub mod layout;
pub mod overlay;
pub mod owned;
pub mod table;
pub mod view;
pub mod writer;

pub use database::RocksDb;

impl From<::rocksdb::Error> for crate::StateError {
    fn from(error: ::rocksdb::Error) -> Self {
        match error.kind() {
            ::rocksdb::ErrorKind::Corruption => Self::Damaged(error.to_string()),
            _ => Self::Backend(format!("rocksdb: {error}")),
        }
    }
}

//! State in RocksDB: one database per worker, for state larger than memory.
//!
//! - [`database`]: opening, column families, options, the memory limit; [`owned`]: snapshots and iterators that own it.
//! - [`layout`]: how cells become RocksDB keys; [`writer`]: how they get there.
//! - [`table`]: state tables, each behind an [`overlay`]; [`through`]: their runs when the overlay was too small.
//! - [`view`]: a view's rows; [`view_run`]: their runs when memory was too small.
//!
//! RocksDB is where state goes that does not fit into its share of memory, and is written only then. What is durable is in
//! the runs of checkpoints: the write-ahead log is off, and a start always begins with an empty database.

pub mod database;
pub mod key_scan;
pub mod layout;
pub mod overlay;
pub mod owned;
pub mod table;
pub mod through;
pub mod view;
pub mod view_run;
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

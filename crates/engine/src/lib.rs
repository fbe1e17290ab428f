//! The embeddable database: sessions, the lifecycle of DDL, reads, subscriptions and system tables.
//!
//! - [`api`]: the boundary to whoever speaks to clients; [`Database`] and `Session` implement it.
//! - [`database`]: opening and closing; the catalog, the log and the runtime together.
//! - [`config`], [`settings`]: what a database is opened with, and what a session may change.
//! - `log`: the command log that orders DDL and row changes.
//! - `session`: a statement's way from its tree to its response, a file per family.
//! - `dml`: changes to tables: who may write what, and in which order.
//! - `past`: the same of savepoints and checkpoints.
//! - `read`: views at one epoch as DataFusion scans them.
//! - `recovery`: what a recovery would have to do now, and how long it would take.
//! - `relations`: between the catalog, the planner and the runtime.
//! - `rescale`: another number of workers while the database runs.
//! - `secrets`: what of an option is not shown.
//! - `suspension`: views and sinks that are left out, in the catalog.
//! - [`offline`]: checkpoints, savepoints and state for tools, without a database.
//! - `system`: `pg_catalog`, `information_schema`, `tidegate`.
//!
//! A `SELECT` goes: `session::query` plans it, takes one snapshot of all its views, binds them, streams. An `INSERT` goes:
//! `dml` decides constraints under the sequencer, the log makes it durable, the runtime makes it visible. A
//! `CREATE MATERIALIZED VIEW` goes: planned, logged, told to the runtime, waited for.

pub mod api;
mod begin;
mod checkpoint_settings;
pub mod config;
pub mod database;
mod dml;
mod fit;
mod log;
pub mod offline;
mod past;
mod read;
mod recovery;
mod relations;
mod rescale;
mod secrets;
mod session;
pub mod settings;
mod sources;
mod suspension;
mod system;
mod timeline;

pub use begin::FromSavepoint;
pub use config::Config;
pub use database::Database;
pub use session::Session;

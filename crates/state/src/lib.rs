//! Where everything durable that an operator or a view knows is kept while it runs.
//!
//! - [`table`]: the contract of a state table, in two forms (value: key → value; map: key → ordered sub-key → value).
//! - [`run`]: a sorted, immutable piece of a table: what a checkpoint stores and a restore reads.
//! - [`backend`]: opens tables and views on one worker; [`memory`] and [`rocks`] implement it.
//! - [`view`]: the contents of a view, readable at an epoch while it is written.
//! - [`maintenance`]: the background thread that merges what readers would otherwise have to.
//!
//! A table is owned by one operator on one worker and is not shared; a view is shared with readers.

// Callbacks that visit cells have four borrowed parameters; naming each shape would only hide the lifetimes.
#![allow(clippy::type_complexity)]

pub mod backend;
pub mod maintenance;
pub mod memory;
mod order;
pub mod rocks;
pub mod run;
pub mod table;
pub mod view;

pub use backend::{BackendConfig, BackendKind, Backends, remove_working_state};
pub use run::{Run, RunBuilder};
pub use table::{Cell, Change, Form, Merge, StateError, Table, TableSpec, TableStats};
pub use view::{
    SlicePosition, Subscription, ViewDelta, ViewScan, ViewSnapshot, ViewSpec, ViewStore,
};

#[cfg(test)]
mod tests;

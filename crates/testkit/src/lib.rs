//! What tests are made with. Nothing of it is part of the product.
//!
//! - [`text`]: batches written and read as small tables of text.
//! - [`value`]: rows as plain values, for those who compute what should come out.
//! - [`model_table`]: a state table that is obviously right.
//! - [`runner`]: one operator, or a whole dataflow, driven on one thread without the runtime; also a reference for it.
//! - [`check`]: one operator against expected text.
//! - [`oracle`]: every operator again, naively, over whole collections.
//! - [`cases`] and [`properties`]: random plans and inputs for every operator, and the five properties that all must have.
//! - `tidy`: rules of the repository that no compiler checks, as tests.

pub mod cases;
pub mod check;
pub mod model_table;
pub mod oracle;
#[cfg(test)]
mod properties;
pub mod runner;
pub mod text;
#[cfg(test)]
mod tidy;
pub mod value;

pub use check::{Check, check};
pub use model_table::ModelTable;
pub use runner::{DataflowRunner, NodeRunner, TableOpener};
pub use value::{Row, Value, ZSet};

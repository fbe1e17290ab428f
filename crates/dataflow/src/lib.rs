//! Operators: deterministic functions of (input changes, declared state), a file each.
//!
//! An operator knows no thread, channel, clock or file. The driver (in `runtime`, and in tests `testkit`) hands it
//! batches and barriers in order, gives it its state tables, and carries away what it emits.

pub mod operator;

pub use operator::{Cx, Operator, OperatorError, Port, Progress, RowError};

//! Operators: deterministic functions of (input changes, declared state), a file each.
//!
//! An operator knows no thread, channel, clock or file. The driver (in `runtime`, and in tests `testkit`) hands it
//! batches and barriers in order, gives it its state tables, and carries away what it emits.

mod aggregate;
mod append_top_n;
mod at_most_one;
pub mod check;
mod checked;
mod closing;
mod count_table;
pub mod expression;
pub mod factory;
mod filter;
mod forgetting;
mod groups;
pub mod join;
mod key_counts;
mod numbering;
mod on_close;
pub mod operator;
mod order_prefix;
mod ordered_rows;
mod project;
mod replay;
pub mod row_failure;
mod session;
mod time_filter;
mod top_n;
mod union;
mod unnest;
pub mod value_bytes;
mod values;
mod window;

pub use check::check;
pub use factory::build;
pub use operator::{Cx, Operator, OperatorError, Port, Progress, RowError};

//! From a query's syntax tree to a dataflow plan.
//!
//! The walk of `CREATE MATERIALIZED VIEW v AS SELECT …`, and what each stage may assume:
//!
//! 1. [`refuse`] looks at the syntax tree: what DataFusion would silently ignore or get wrong is refused by name. What can be
//!    said in other words is rewritten: [`time_windows`], [`set_returning`], [`quantified`], [`multisets`], [`lateral`],
//!    [`lateral_limit`], [`windows`].
//! 2. [`query`] turns the tree into a DataFusion logical plan. [`context`] answers its questions about names: relations
//!    come from the caller's [`Relations`], functions from one [`functions::registry`]. Ad-hoc reads go the same way, so a
//!    function, a type or a coercion cannot mean one thing in a `SELECT` and another in a view.
//! 3. [`optimize`] runs DataFusion's analyzer and those of its optimizer rules that hold for changing inputs.
//! 4. [`lower`] makes a tree of plan operators over positional expressions; a file per family of nodes.
//! 5. [`rules`] rewrite that tree; a file per rule.
//! 6. [`dataflow`] derives properties ([`properties`]: append-only, unique keys, distributions), flattens the tree and gives
//!    every node its id and its state tables.
//!
//! Promises: what is planned is maintained exactly; what cannot be is refused with `0A000` and the feature's name.
//! Errors carry Postgres' SQLSTATEs and wording ([`errors`]). Nothing here reads data, a clock or a file.
//!
//! **Types of aggregates** follow Postgres where it shows: `sum` of `smallint`/`integer` is `bigint`, `sum(bigint)` is
//! `numeric(38,0)`, `avg` of exact numbers is a `numeric` with at least 16 decimals, of floats a `double precision`;
//! variance and standard deviation are always `double precision`. Ad-hoc queries use the same functions.
//!
//! **Known differences from Postgres**, in views and reads alike: quotients and averages of `numeric` have 16 decimals where
//! Postgres has at least 16 significant digits; the standard deviation of whole numbers may differ in the last digit of a
//! double; `extract(epoch …)` prints no trailing zeros; a string literal among the arguments of `coalesce`, `greatest` and
//! `least` does not take the type of the others and needs a cast; a correlated scalar sub-query with LIMIT is refused.

pub mod context;
pub mod dataflow;
pub mod errors;
pub mod explain;
pub mod functions;
mod lateral;
mod lateral_limit;
pub mod lower;
mod multisets;
pub mod names;
mod now;
pub mod optimize;
pub mod properties;
mod quantified;
pub mod query;
pub mod refuse;
pub mod rel;
pub mod rules;
mod set_returning;
pub mod spellings;
mod time_windows;
mod values;
pub mod view;
pub mod watermarks;
mod windows;

#[cfg(test)]
mod tests;

pub use context::{RelationKind, RelationSource, Relations, Resolved, ViewQuery};
pub use dataflow::{plan_source, plan_table};
pub use explain::{explain, operators};
pub use functions::{registry, session_state_defaults, stored_functions};
pub use query::{Planner, bind};
pub use view::{PlannedSink, PlannedView};

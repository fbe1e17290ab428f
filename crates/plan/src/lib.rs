//! The dataflow plan as pure data: what the planner makes and the runtime builds.
//!
//! A [`Dataflow`] is a list of [`Node`]s in topological order; a node names its inputs by index and says how their rows
//! must be distributed. Plans hold no handles, no closures and no names of columns that matter: columns are positions.

pub mod dataflow;
pub mod durable;
pub mod exclusion;
pub mod explain;
pub mod expr;
pub mod join_state;
pub mod op;
pub mod state_tables;
pub mod succession;
pub mod time_bins;
pub mod watermark;

pub use dataflow::{CONTENTS, Dataflow, Edge, Node};
pub use durable::{PlanError, Stored};
pub use exclusion::{Excluding, Exclusion};
pub use expr::ScalarExpr;
pub use op::{
    AggregateCall, AggregateFunction, Distribution, JoinKind, Op, PairFunction, Ranking, SortKey,
    StateTable, TimeBound, bound_columns,
};
pub use state_tables::{AggregateState, ValueSet};
pub use succession::Fate;
pub use watermark::{ColumnWatermarks, TimeStep, Watermark};

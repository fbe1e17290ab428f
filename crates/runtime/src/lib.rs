//! The only crate that knows timely and threads: it turns plans into dataflows and barriers into epochs.
//!
//! Read in this order:
//! 1. [`runtime`]: what the engine calls: create, drop, append, flush, checkpoint, read.
//! 2. [`coordinator`]: cuts barriers, learns when all workers have passed them, publishes epochs, runs checkpoints.
//! 3. [`worker`]: one thread pinned to a core; takes commands in one order and steps timely.
//! 4. [`build`]: a plan's nodes as timely operators; [`driver`] wraps each; [`input`] feeds them; [`root`] ends them.
//!
//! **Invariants.** All workers see the same commands in the same order. Every operator passes every barrier. A batch of
//! an epoch is never processed before the barrier of the epoch before it. A source holds back while too many rows are
//! in flight; barriers never wait for rows of a later epoch.

mod alteration;
mod board;
mod build;
mod checkpoint_parts;
mod checkpointing;
mod command;
mod coordinator;
mod credits;
mod driver;
mod error_board;
mod event_clock;
#[cfg(debug_assertions)]
mod failpoint;
mod following;
mod hub;
mod in_flight;
mod incarnation;
mod input;
mod lag;
mod memory;
mod packet;
mod policy;
mod recovery;
mod rescale;
mod restart;
mod restore;
mod root;
pub mod runtime;
mod saved_positions;
mod schedule;
mod schemas;
mod seed;
pub mod spec;
mod state_match;
pub mod status;
mod suspension;
mod taking_over;
mod work;
mod worker;

pub use alteration::{Alteration, OperatorState};
pub use following::{Changes, PublishedEpochs, Subscription};
pub use policy::{
    CheckpointAlignment, CheckpointExecution, CheckpointGuarantee, CheckpointMode,
    CheckpointPolicy, RelationChoices,
};
pub use recovery::{RecoveryMeasure, RecoveryStatus};
pub use restart::RestartStrategy;
pub use runtime::{Runtime, RuntimeConfig, ViewReader};
pub use saved_positions::{SavedPosition, saved_positions};
pub use seed::Seed;
pub use spec::{CatalogSnapshot, ChangeLog, EventTime, RelationSpec};
pub use state_match::{MatchedOperator, MatchedTable, StateMatch, match_state, rows_of, same_form};
pub use status::{CheckpointInfo, ErrorRow, JobStatus, OperatorStatus, RuntimeStatus};
pub use suspension::{Reason, Suspension};
pub use work::WorkDone;

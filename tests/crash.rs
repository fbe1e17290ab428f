//! What survives: the real server, killed at random moments, stopped, damaged, out of space, with a panic in an operator,
//! started again with another backend and number of workers, rescaled while it runs.
//!
//! The kills draw from a seed that is printed first; `TIDEGATE_CRASH_SEED` runs it again and `TIDEGATE_CRASH_ROUNDS` kills
//! more often than the ten times of an ordinary run. What a seed cannot fix is how far the server gets between two
//! messages, so a failure may take a few runs of its seed to come back.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "crash/altered.rs"]
mod altered;
#[path = "crash/chaos.rs"]
mod chaos;
#[path = "crash/event_time.rs"]
mod event_time;
#[path = "crash/guarantees.rs"]
mod guarantees;
#[path = "crash/kills.rs"]
mod kills;
#[path = "crash/load.rs"]
mod load;
#[path = "crash/matrix.rs"]
mod matrix;
#[path = "crash/memory.rs"]
mod memory;
#[path = "crash/modes.rs"]
mod modes;
#[path = "crash/observed.rs"]
mod observed;
#[path = "crash/rescale.rs"]
mod rescale;
#[path = "crash/server.rs"]
mod server;
#[path = "crash/single.rs"]
mod single;
#[path = "crash/suspended.rs"]
mod suspended;

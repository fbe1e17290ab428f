//! Savepoints of the real server: as Parquet for others, elsewhere, read as the past, restored; and the tools for when it
//! is down.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "savepoints/begin.rs"]
mod begin;
#[path = "savepoints/history.rs"]
mod history;
#[path = "savepoints/portable.rs"]
mod portable;
#[path = "savepoints/rollback.rs"]
mod rollback;
#[path = "savepoints/seeded.rs"]
mod seeded;
#[path = "crash/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "savepoints/shutdown.rs"]
mod shutdown;
#[path = "savepoints/statements.rs"]
mod statements;
#[path = "savepoints/tools.rs"]
mod tools;

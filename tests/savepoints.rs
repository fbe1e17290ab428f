//! Savepoints of the real server: as Parquet for others, elsewhere, read as the past, restored; and the tools for when it
//! is down.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "savepoints/begin.rs"]
mod begin;
#[path = "savepoints/bucket.rs"]
mod bucket;
#[path = "savepoints/history.rs"]
mod history;
#[path = "servers/moto.rs"]
mod moto;
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

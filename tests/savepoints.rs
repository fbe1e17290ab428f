//! Savepoints of the real server: as Parquet for others, elsewhere, read as the past, restored; and the tools for when it
//! is down.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "savepoints/portable.rs"]
mod portable;
#[path = "crash/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "savepoints/statements.rs"]
mod statements;
#[path = "savepoints/tools.rs"]
mod tools;

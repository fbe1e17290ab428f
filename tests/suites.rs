//! What is promised in SQL, asked of the real server binary: the suites of `sqllogictest/` and the SQL blocks of the
//! documentation.
//!
//! [`suites::file`] reads a suite, [`suites::server`] starts and kills servers (ours and, as the oracle, Postgres),
//! [`suites::runner`] runs a suite in one of three modes, [`suites::docs`] runs the documentation. What is promised of bad
//! input is in [`suites::bad_input`].
//!
//! `TIDEGATE_SLT_FILE=joins` restricts the run to suites whose name contains that. `TIDEGATE_SLT_ORACLE=postgres` with
//! `TIDEGATE_SLT_REWRITE=1` writes what Postgres answers into the suites; without it they are only verified.
//! `TIDEGATE_SLT_RUN_SKIPPED=1` runs what is marked to be skipped, to see whether the reason still holds.
#![allow(clippy::unwrap_used)]

mod suites {
    pub mod bad_input;
    pub mod docs;
    pub mod file;
    pub mod runner;
    pub mod server;
}

use suites::bad_input;
use suites::runner::{Mode, run_oracle, run_suites};

#[tokio::test]
async fn as_queries_in_memory() {
    run_suites(Mode::Queries, "memory").await;
}

#[tokio::test]
async fn as_queries_on_rocksdb() {
    run_suites(Mode::Queries, "rocksdb").await;
}

#[tokio::test]
async fn as_views_in_memory() {
    run_suites(Mode::Views, "memory").await;
}

#[tokio::test]
async fn as_views_on_rocksdb() {
    run_suites(Mode::Views, "rocksdb").await;
}

#[tokio::test]
async fn as_views_with_crashes_in_memory() {
    run_suites(Mode::ViewsWithCrashes, "memory").await;
}

#[tokio::test]
async fn as_views_with_crashes_on_rocksdb() {
    run_suites(Mode::ViewsWithCrashes, "rocksdb").await;
}

#[tokio::test]
async fn postgres_agrees() {
    run_oracle().await;
}

#[tokio::test]
async fn documentation_runs() {
    suites::docs::run().await;
}

#[tokio::test]
async fn unknown_names_are_named_beside_the_known_ones() {
    bad_input::unknown_names().await;
}

#[tokio::test]
async fn undecodable_rows_are_set_aside_in_memory() {
    bad_input::undecodable_rows("memory").await;
}

#[tokio::test]
async fn undecodable_rows_are_set_aside_on_rocksdb() {
    bad_input::undecodable_rows("rocksdb").await;
}

#[tokio::test]
async fn failing_expressions_go_with_their_rows_in_memory() {
    bad_input::failing_expressions("memory").await;
}

#[tokio::test]
async fn failing_expressions_go_with_their_rows_on_rocksdb() {
    bad_input::failing_expressions("rocksdb").await;
}

#[tokio::test]
async fn a_second_server_on_the_same_storage_is_refused() {
    bad_input::a_second_server_on_the_same_storage().await;
}

#[tokio::test]
async fn a_damaged_log_is_named() {
    bad_input::a_damaged_log().await;
}

#[tokio::test]
async fn damaged_checkpoints_are_named() {
    bad_input::damaged_checkpoints().await;
}

//! What is promised in SQL, asked of the real server binary: the suites of `sqllogictest/` and the SQL blocks of the
//! documentation.
//!
//! [`suites::file`] reads a suite, [`suites::server`] starts and kills servers (ours and, as the oracle, Postgres),
//! [`suites::runner`] runs a suite in one of three modes, [`suites::docs`] runs the documentation.
//!
//! `TIDEGATE_SLT_FILE=joins` restricts the run to suites whose name contains that. `TIDEGATE_SLT_ORACLE=postgres` with
//! `TIDEGATE_SLT_REWRITE=1` writes what Postgres answers into the suites; without it they are only verified.
//! `TIDEGATE_SLT_RUN_SKIPPED=1` runs what is marked to be skipped, to see whether the reason still holds.
#![allow(clippy::unwrap_used)]

mod suites {
    pub mod docs;
    pub mod file;
    pub mod runner;
    pub mod server;
}

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

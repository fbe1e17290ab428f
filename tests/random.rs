//! Random tables, files, queries, changes and accidents, against what Postgres answers.
//!
//! Each round starts a server (either backend, one or two workers), makes the same tables in a temporary Postgres, sends the
//! same random statements to both and compares rows as text at many points: materialized views created before the data,
//! created in the middle (backfill), after kill -9, after a rollback to a savepoint, after a restart with another backend
//! and number of workers, and queries asked ad hoc. Inexact numbers are compared with a tolerance. In Postgres every view
//! is a plain view, so what is expected is always computed from the tables.
//!
//! The ordinary run has a seed of its own, so that it repeats; `TIDEGATE_SEED` chooses another, `TIDEGATE_RANDOM_SECONDS`
//! bounds it (25 by default). Without an installed Postgres the test says so and compares nothing.
//!
//! Two workloads that others know, TPC-H and Nexmark, are compared in the same way.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "random/cases.rs"]
mod cases;
#[path = "random/changes.rs"]
mod changes;
#[path = "random/compare.rs"]
mod compare;
#[path = "random/expressions.rs"]
mod expressions;
#[path = "random/files.rs"]
mod files;
#[path = "random/generate.rs"]
mod generate;
#[path = "random/nexmark.rs"]
mod nexmark;
#[path = "random/queries.rs"]
mod queries;
#[path = "random/reference.rs"]
mod reference;
#[path = "random/round.rs"]
mod round;
#[path = "random/servers.rs"]
mod servers;
#[path = "random/tpch.rs"]
mod tpch;

use generate::Generator;
use rand::SeedableRng;
use rand::rngs::StdRng;
use round::{Round, Tally};
use servers::{Postgres, Tidegate};
use std::time::{Duration, Instant};

/// What a run without `TIDEGATE_SEED` starts from.
const ORDINARY_SEED: u64 = 3000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_equal_what_postgres_answers() {
    let seed = from_environment("TIDEGATE_SEED").unwrap_or(ORDINARY_SEED);
    let limit = Duration::from_secs(from_environment("TIDEGATE_RANDOM_SECONDS").unwrap_or(25));
    eprintln!("TIDEGATE_SEED={seed}");
    let postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(reason) => return eprintln!("SKIPPED: no oracle: {reason}"),
    };
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut rounds = 0;
    while rounds == 0 || start.elapsed() < limit {
        let seed = seed.wrapping_add(rounds);
        let generator = Generator {
            rng: StdRng::seed_from_u64(seed),
            moved: 0,
        };
        let mut round = Round::new(generator, seed, &postgres, &mut tally).await;
        round.play().await;
        rounds += 1;
    }
    eprintln!("{rounds} rounds: {:?}", tally.events);
    for (mode, count) in &tally.compared {
        eprintln!("compared: {count:5} {mode}");
    }
    eprintln!("views by shape: {:?}", tally.shapes);
    for (reason, count) in &tally.skipped {
        eprintln!("skipped: {count:5} × {reason}");
    }
    for (what, reason) in cases::EXCLUDED {
        eprintln!("excluded: {what}: {reason}");
    }
    assert!(
        tally.findings.is_empty(),
        "seed {seed}: {} findings:\n{}",
        tally.findings.len(),
        tally.findings.join("\n\n")
    );
    assert!(
        tally.compared.len() == 8 || rounds < 8,
        "every mode compared something"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_once_wrong_stays_right() {
    let postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(reason) => return eprintln!("SKIPPED: no oracle: {reason}"),
    };
    let tidegate = Tidegate::start("memory", 1).await;
    cases::check(&tidegate, &postgres).await;
}

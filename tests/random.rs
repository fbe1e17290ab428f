//! Random tables, queries, changes and crashes, against what Postgres answers.
//!
//! Each round starts a server (either backend, one or two workers), makes the same tables in a temporary Postgres, sends the
//! same random statements to both and compares rows as text at many points: materialized views created before the data,
//! created in the middle (backfill), after kill -9, and queries asked ad hoc. Inexact numbers are compared with a tolerance.
//! In Postgres every view is a plain view, so what is expected is always computed from the tables.
//!
//! The ordinary run has a seed of its own, so that it repeats; `TIDEGATE_SEED` chooses another, `TIDEGATE_RANDOM_SECONDS` bounds it (25 by default). Without an installed Postgres the test
//! says so and compares nothing.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "random/cases.rs"]
mod cases;
#[path = "random/compare.rs"]
mod compare;
#[path = "random/generate.rs"]
mod generate;
#[path = "random/servers.rs"]
mod servers;

use generate::{Generator, Query, Relation};
use rand::SeedableRng;
use rand::rngs::StdRng;
use servers::{Postgres, Refusal, Tidegate, run};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// What a run without `TIDEGATE_SEED` starts from.
const ORDINARY_SEED: u64 = 3000;

/// How much was compared in each mode, what was not, and what was wrong.
#[derive(Default)]
struct Tally {
    compared: BTreeMap<&'static str, usize>,
    shapes: BTreeMap<&'static str, usize>,
    skipped: BTreeMap<String, usize>,
    findings: Vec<String>,
    crashes: usize,
    changes: usize,
}

impl Tally {
    fn skip(&mut self, who: &str, refusal: &Refusal) {
        let reason = format!("{who} {}: {}", refusal.code, refusal.message);
        *self.skipped.entry(reason).or_default() += 1;
    }
}

/// A materialized view of the round.
struct View {
    relation: Relation,
    sql: String,
    backfilled: bool,
}

struct Round<'a> {
    generator: Generator,
    tidegate: Tidegate,
    postgres: &'a Postgres,
    tables: Vec<Relation>,
    views: Vec<View>,
    made: usize,
    crashed: bool,
    label: String,
    script: String,
    tally: &'a mut Tally,
}

impl Round<'_> {
    fn finding(&mut self, what: &str) {
        let path =
            std::env::temp_dir().join(format!("tidegate-random-{}.sql", self.tally.findings.len()));
        std::fs::write(&path, &self.script).unwrap();
        let text = format!("[{}; script in {}]\n{what}", self.label, path.display());
        eprintln!("FINDING {text}");
        self.tally.findings.push(text);
    }

    async fn make_tables(&mut self) {
        run(
            &self.postgres.client,
            "DROP SCHEMA IF EXISTS r CASCADE; CREATE SCHEMA r; SET search_path = r",
        )
        .await
        .unwrap();
        for i in 0..2 + self.generator.below(3) {
            let table = self.generator.table(&format!("t{i}"));
            let sql = self.generator.create(&table);
            run(&self.tidegate.client, &sql).await.unwrap();
            run(&self.postgres.client, &sql).await.unwrap();
            writeln!(self.script, "{sql};").unwrap();
            self.tables.push(table);
        }
    }

    fn relations(&self) -> Vec<Relation> {
        let views = self.views.iter().map(|v| v.relation.clone());
        // Tables twice: most queries read them.
        self.tables
            .iter()
            .cloned()
            .chain(self.tables.iter().cloned())
            .chain(views)
            .collect()
    }

    /// Whether Postgres would answer the query.
    async fn query(&mut self) -> Option<Query> {
        let relations = self.relations();
        let query = self.generator.query(&relations);
        match run(&self.postgres.client, &query.sql).await {
            Ok(_) => Some(query),
            Err(refusal) => {
                self.tally.skip("postgres refuses", &refusal);
                None
            }
        }
    }

    async fn make_view(&mut self, backfilled: bool) {
        let Some(query) = self.query().await else {
            return;
        };
        let name = format!("v{}", self.made);
        self.made += 1;
        let sql = format!("CREATE MATERIALIZED VIEW {name} AS {}", query.sql);
        writeln!(self.script, "{sql};").unwrap();
        match run(&self.tidegate.client, &sql).await {
            Ok(_) => {}
            Err(refusal) if refusal.code == "0A000" => {
                return self.tally.skip("tidegate refuses", &refusal);
            }
            Err(refusal) => {
                let log = self.tidegate.log_tail();
                return self.finding(&format!("{sql}\n  refused: {refusal:?}\n{log}"));
            }
        }
        run(
            &self.postgres.client,
            &format!("CREATE VIEW {name} AS {}", query.sql),
        )
        .await
        .unwrap();
        let columns = (0..query.types.len())
            .map(|i| format!("x{i}"))
            .zip(query.types.iter().copied());
        let mut columns: Vec<_> = columns.collect();
        if query.sql.contains(" AS sub FROM") {
            columns.last_mut().unwrap().0 = "sub".into();
        }
        *self.tally.shapes.entry(query.shape).or_default() += 1;
        let relation = Relation {
            name,
            columns,
            key: false,
        };
        self.views.push(View {
            relation,
            sql,
            backfilled,
        });
    }

    /// The statements to Tidegate first: what it does not support must not reach Postgres either.
    async fn change(&mut self) {
        let transaction = self.generator.chance(25);
        let count = if transaction {
            1 + self.generator.below(4)
        } else {
            1
        };
        let mut statements = Vec::new();
        for _ in 0..count {
            let table = self.tables[self.generator.below(self.tables.len())].clone();
            statements.push(self.generator.change(&table));
        }
        if transaction {
            statements.insert(0, "BEGIN".into());
            statements.push(
                if self.generator.chance(80) {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                }
                .into(),
            );
        }
        let mut answers = Vec::new();
        for sql in &statements {
            let answer = run(&self.tidegate.client, sql).await.err();
            if let Some(refusal) = answer.as_ref().filter(|r| r.code == "0A000") {
                self.tally.skip("tidegate refuses", refusal);
                if transaction {
                    run(&self.tidegate.client, "ROLLBACK").await.unwrap();
                }
                return;
            }
            answers.push(answer);
        }
        for (sql, answer) in statements.iter().zip(answers) {
            writeln!(self.script, "{sql};").unwrap();
            let expected = run(&self.postgres.client, sql).await.err();
            let code = |r: &Option<Refusal>| r.as_ref().map(|r| r.code.clone());
            if code(&expected) != code(&answer) {
                self.finding(&format!(
                    "{sql}\n  Postgres: {expected:?}\n  Tidegate: {answer:?}"
                ));
            }
        }
        self.tally.changes += 1;
    }

    /// Rows of `sql` in both, None when there is nothing to compare.
    async fn differs(&mut self, sql: &str, types: &[generate::Type]) -> Option<Option<String>> {
        let expected = match run(&self.postgres.client, sql).await {
            Ok(rows) => rows,
            Err(refusal) => {
                self.tally.skip("postgres refuses", &refusal);
                return None;
            }
        };
        let start = Instant::now();
        loop {
            match run(&self.tidegate.client, sql).await {
                Ok(actual) => return Some(compare::difference(types, expected, actual)),
                // Still backfilling.
                Err(refusal)
                    if refusal.code == "55000" && start.elapsed() < Duration::from_secs(20) =>
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(refusal) if refusal.code == "0A000" => {
                    self.tally.skip("tidegate refuses", &refusal);
                    return None;
                }
                Err(refusal) => {
                    return Some(Some(format!(
                        "  refused: {refusal:?}\n{}",
                        self.tidegate.log_tail()
                    )));
                }
            }
        }
    }

    async fn compare_views(&mut self) {
        let mut at = 0;
        while at < self.views.len() {
            let view = &self.views[at];
            let mode = match (self.crashed, view.backfilled) {
                (true, _) => "views after a crash",
                (false, true) => "views created in the middle",
                (false, false) => "views created before the data",
            };
            let (sql, types): (_, Vec<_>) = (
                format!("SELECT * FROM {}", view.relation.name),
                view.relation.columns.iter().map(|c| c.1).collect(),
            );
            let definition = view.sql.clone();
            match self.differs(&sql, &types).await {
                Some(None) => *self.tally.compared.entry(mode).or_default() += 1,
                Some(Some(difference)) => {
                    // One report a view; views over it are still compared with their own definitions.
                    self.views.remove(at);
                    self.finding(&format!("{mode}: {definition}\n{difference}"));
                    continue;
                }
                None => {}
            }
            at += 1;
        }
    }

    async fn compare_queries(&mut self, count: usize) {
        for _ in 0..count {
            let Some(query) = self.query().await else {
                continue;
            };
            match self.differs(&query.sql, &query.types).await {
                Some(None) => *self.tally.compared.entry("queries").or_default() += 1,
                Some(Some(difference)) => {
                    self.finding(&format!("query: {}\n{difference}", query.sql))
                }
                None => {}
            }
        }
    }

    async fn work(&mut self, changes: usize) {
        for i in 0..changes {
            self.change().await;
            if i % 4 == 3 {
                self.compare_views().await;
            }
        }
        self.compare_views().await;
    }

    async fn crash(&mut self) {
        writeln!(self.script, "-- kill -9").unwrap();
        self.tidegate.crash().await;
        self.crashed = true;
        self.tally.crashes += 1;
        self.compare_views().await;
    }

    async fn play(&mut self) {
        self.make_tables().await;
        for _ in 0..4 {
            self.make_view(false).await;
        }
        self.work(8).await;
        self.compare_queries(6).await;
        for _ in 0..4 {
            self.make_view(true).await;
        }
        self.work(6).await;
        self.crash().await;
        self.work(4).await;
        // A crash while a view is being filled and changes are on their way.
        self.make_view(true).await;
        self.change().await;
        self.crash().await;
        self.work(4).await;
        self.compare_queries(4).await;
    }
}

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
        let mut generator = Generator {
            rng: StdRng::seed_from_u64(seed.wrapping_add(rounds)),
        };
        let backend = ["memory", "rocksdb"][generator.below(2)];
        let workers = 1 + generator.below(2);
        let mut round = Round {
            tidegate: Tidegate::start(backend, workers).await,
            label: format!(
                "TIDEGATE_SEED={} {backend} workers={workers}",
                seed.wrapping_add(rounds)
            ),
            generator,
            postgres: &postgres,
            tables: Vec::new(),
            views: Vec::new(),
            made: 0,
            crashed: false,
            script: String::new(),
            tally: &mut tally,
        };
        round.play().await;
        rounds += 1;
    }
    eprintln!(
        "{rounds} rounds, {} changes, {} crashes",
        tally.changes, tally.crashes
    );
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
    assert_eq!(tally.compared.len(), 4, "every mode compared something");
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

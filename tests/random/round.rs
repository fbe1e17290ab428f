//! One round: a server, tables, files and views, random statements to both servers, and comparisons in between.

use crate::compare;
use crate::files::SourceFile;
use crate::generate::{Generator, Relation, Type};
use crate::queries::Query;
use crate::servers::{Postgres, Refusal, Rows, Tidegate, run};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How much was compared in each mode, what was not, and what was wrong.
#[derive(Default)]
pub struct Tally {
    pub compared: BTreeMap<&'static str, usize>,
    pub shapes: BTreeMap<&'static str, usize>,
    pub skipped: BTreeMap<String, usize>,
    pub findings: Vec<String>,
    pub events: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn skip(&mut self, who: &str, refusal: &Refusal) {
        let reason = format!("{who} {}: {}", refusal.code, refusal.message);
        *self.skipped.entry(reason).or_default() += 1;
    }

    fn compared(&mut self, mode: &'static str) {
        *self.compared.entry(mode).or_default() += 1;
    }

    fn event(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }
}

/// A materialized view of the round.
#[derive(Clone)]
struct View {
    relation: Relation,
    sql: String,
    backfilled: bool,
    /// Views and tables between it and the data, itself included.
    depth: usize,
}

pub struct Round<'a> {
    pub generator: Generator,
    pub tidegate: Tidegate,
    pub postgres: &'a Postgres,
    pub label: String,
    pub tally: &'a mut Tally,
    tables: Vec<Relation>,
    files: Vec<SourceFile>,
    views: Vec<View>,
    made: usize,
    /// Lines that are not rows were missing from `tidegate.errors`, which is reported once.
    lost_lines: bool,
    diverged: bool,
    /// What happened last to the server as a whole.
    since: Option<&'static str>,
    script: String,
}

impl<'a> Round<'a> {
    pub async fn new(
        mut generator: Generator,
        seed: u64,
        postgres: &'a Postgres,
        tally: &'a mut Tally,
    ) -> Round<'a> {
        let (backend, workers) = (place(&mut generator), 1 + generator.below(2));
        Round {
            tidegate: Tidegate::start(backend, workers).await,
            label: format!("TIDEGATE_SEED={seed} {backend} workers={workers}"),
            generator,
            postgres,
            tally,
            tables: Vec::new(),
            files: Vec::new(),
            views: Vec::new(),
            made: 0,
            lost_lines: false,
            diverged: false,
            since: None,
            script: String::new(),
        }
    }

    fn finding(&mut self, what: &str) {
        let seed = self.label.split([' ', '=']).nth(1).unwrap_or_default();
        let number = self.tally.findings.len();
        let path = std::env::temp_dir().join(format!("tidegate-random-{seed}-{number}.sql"));
        std::fs::write(&path, &self.script).unwrap();
        let text = format!("[{}; script in {}]\n{what}", self.label, path.display());
        eprintln!("FINDING {text}");
        self.tally.findings.push(text);
    }

    /// A statement that both have to take.
    async fn both(&mut self, sql: &str) {
        writeln!(self.script, "{sql};").unwrap();
        for client in [&self.tidegate.client, &self.postgres.client] {
            if let Err(refusal) = run(client, sql).await {
                panic!("{}: {sql}: {refusal:?}", self.label);
            }
        }
    }

    async fn make_tables(&mut self) {
        let schema = "DROP SCHEMA IF EXISTS r CASCADE; CREATE SCHEMA r; SET search_path = r";
        run(&self.postgres.client, schema).await.unwrap();
        for i in 0..2 + self.generator.below(3) {
            let table = self.generator.table(&format!("t{i}"));
            let sql = self.generator.create(&table);
            self.both(&sql).await;
            self.tables.push(table);
        }
        if self.generator.chance(50) {
            self.make_file().await;
        }
    }

    async fn make_file(&mut self) {
        let mut file = SourceFile::new(&mut self.generator, "f0", self.tidegate.directory());
        let first = file.grow(&mut self.generator);
        for sql in [file.create_table(), first] {
            run(&self.postgres.client, &sql).await.unwrap();
        }
        let copy = format!(
            "CREATE MATERIALIZED VIEW whole AS SELECT * FROM {}",
            file.relation.name
        );
        for sql in [file.create_source(), copy.clone()] {
            writeln!(self.script, "{sql};").unwrap();
            run(&self.tidegate.client, &sql).await.unwrap();
        }
        let plain = copy.replace("MATERIALIZED ", "");
        run(&self.postgres.client, &plain).await.unwrap();
        let mut relation = file.relation.clone();
        relation.name = "whole".into();
        self.views.push(View {
            relation,
            sql: copy,
            backfilled: false,
            depth: 1,
        });
        self.files.push(file);
    }

    /// What queries may read. A source itself can only be read by views.
    fn relations(&self, for_view: bool) -> Vec<Relation> {
        let views = self.views.iter().map(|v| v.relation.clone());
        let files = self.files.iter().map(|f| f.relation.clone());
        // Tables twice: most queries read them.
        let tables = self.tables.iter().cloned();
        let read = tables.clone().chain(tables).chain(views);
        match for_view {
            true => read.chain(files.clone()).chain(files).collect(),
            false => read.collect(),
        }
    }

    /// A query that Postgres answers.
    async fn query(&mut self, for_view: bool) -> Option<Query> {
        let relations = self.relations(for_view);
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
        let Some(query) = self.query(true).await else {
            return;
        };
        let name = format!("v{}", self.made);
        self.made += 1;
        let with = match self.generator.below(8) {
            0 => " WITH (state_backend = 'rocksdb')",
            1 => " WITH (state_backend = 'memory')",
            _ => "",
        };
        let sql = format!("CREATE MATERIALIZED VIEW {name}{with} AS {}", query.sql);
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
        let plain = format!("CREATE VIEW {name} AS {}", query.sql);
        run(&self.postgres.client, &plain).await.unwrap();
        *self.tally.shapes.entry(query.shape).or_default() += 1;
        let types = query.types.iter().enumerate();
        let relation = Relation {
            name,
            columns: types.map(|(i, t)| (format!("x{i}"), *t)).collect(),
            key: false,
            weight: query.weight,
        };
        let below = self.views.iter().filter(|v| {
            let name = format!("{} ", v.relation.name);
            query.sql.contains(&name)
        });
        let depth = 1 + below.map(|v| v.depth).max().unwrap_or(0);
        if depth >= 3 {
            self.tally.event("views three or more deep");
        }
        self.views.push(View {
            relation,
            sql,
            backfilled,
            depth,
        });
    }

    /// One statement to both. Tidegate first: what it does not support must not reach Postgres either. Answers whether it
    /// took it.
    async fn statement(&mut self, sql: &str, types: &[Type]) -> bool {
        let answer = run(&self.tidegate.client, sql).await;
        if let Err(refusal) = &answer
            && refusal.code == "0A000"
        {
            self.tally.skip("tidegate refuses", refusal);
            return false;
        }
        writeln!(self.script, "{sql};").unwrap();
        let expected = run(&self.postgres.client, sql).await;
        match (expected, answer) {
            (Ok(expected), Ok(answer)) => {
                if !expected.is_empty() || !answer.is_empty() {
                    self.returned(sql, types, expected, answer);
                }
            }
            (Err(expected), Err(answer)) if same_refusal(&expected, &answer) => {
                self.tally.event("statements refused by both");
            }
            (expected, answer) => {
                let text = |answer: Result<Rows, Refusal>| match answer {
                    Ok(rows) => format!("{} rows", rows.len()),
                    Err(refusal) => format!("{refusal:?}"),
                };
                let (expected, answer) = (text(expected), text(answer));
                self.finding(&format!(
                    "{sql}\n  Postgres: {expected}\n  Tidegate: {answer}"
                ));
            }
        }
        true
    }

    fn returned(&mut self, sql: &str, types: &[Type], expected: Rows, answer: Rows) {
        match compare::difference(types, expected, answer) {
            None => self.tally.compared("rows that changes return"),
            Some(difference) => self.finding(&format!("{sql}\n{difference}")),
        }
    }

    async fn change(&mut self) {
        if self.generator.chance(25)
            && let Some(file) = self.files.first_mut()
        {
            let sql = file.grow(&mut self.generator);
            writeln!(self.script, "-- the file grows: {sql}").unwrap();
            run(&self.postgres.client, &sql).await.unwrap();
            self.tally.event("growths of files");
            return self.arrive().await;
        }
        let transaction = self.generator.chance(25);
        let count = if transaction {
            self.statement("BEGIN", &[]).await;
            1 + self.generator.below(4)
        } else {
            1
        };
        for _ in 0..count {
            let table = self.tables[self.generator.below(self.tables.len())].clone();
            let tables = self.tables.clone();
            let sql = self.generator.change(&table, &tables);
            let types: Vec<Type> = table.columns.iter().map(|c| c.1).collect();
            if !self.statement(&sql, &types).await && transaction {
                self.both("ROLLBACK").await;
                return;
            }
            if transaction && self.generator.chance(30) {
                // What the transaction itself sees.
                let query = format!("SELECT * FROM {}", table.name);
                if let Some(Some(wrong)) = self.differs(&query, &types).await {
                    self.finding(&format!("within a transaction: {query}\n{wrong}"));
                }
            }
        }
        if transaction {
            let end = ["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"][self.generator.below(4)];
            self.statement(end, &[]).await;
        }
        self.tally.event("changes");
    }

    /// Waits until all of the files' rows are there.
    async fn arrive(&mut self) {
        let Some(file) = self.files.first() else {
            return;
        };
        let undecodable = file.undecodable.to_string();
        let (count, errors) = (
            "SELECT count(*) FROM whole",
            "SELECT count(*) FROM tidegate.errors WHERE relation = 'f0'",
        );
        let expected = run(&self.postgres.client, count).await.unwrap();
        let start = Instant::now();
        loop {
            let rows = run(&self.tidegate.client, count).await;
            let aside = run(&self.tidegate.client, errors).await;
            let arrived = rows.as_ref().is_ok_and(|rows| *rows == expected);
            let told = aside
                .as_ref()
                .is_ok_and(|a| a[0][0].as_ref() == Some(&undecodable));
            if arrived && (told || self.lost_lines) {
                break self.tally.compared("rows and undecodable lines of files");
            }
            if start.elapsed() > Duration::from_secs(15) {
                self.lost_lines = !told;
                break self.finding(&format!(
                    "{} rows and {undecodable} undecodable lines expected of a file: {rows:?}, {aside:?}\n{}",
                    expected[0][0].as_deref().unwrap_or_default(),
                    self.tidegate.log_tail()
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        run(&self.tidegate.client, "FLUSH").await.unwrap();
    }

    /// Rows of `sql` in both, None when there is nothing to compare.
    async fn differs(&mut self, sql: &str, types: &[Type]) -> Option<Option<String>> {
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
                    let log = self.tidegate.log_tail();
                    return Some(Some(format!("  refused: {refusal:?}\n{log}")));
                }
            }
        }
    }

    async fn compare_views(&mut self) {
        if self.diverged {
            return;
        }
        let mut at = 0;
        while at < self.views.len() {
            let view = self.views[at].clone();
            let mode = match (self.since, view.backfilled) {
                (Some(mode), _) => mode,
                (None, true) => "views created in the middle",
                (None, false) => "views created before the data",
            };
            let sql = format!("SELECT * FROM {}", view.relation.name);
            let types: Vec<Type> = view.relation.columns.iter().map(|c| c.1).collect();
            match self.differs(&sql, &types).await {
                Some(None) => self.tally.compared(mode),
                Some(Some(difference)) => {
                    // One report a view; views over it are still compared with their own definitions.
                    self.views.remove(at);
                    self.finding(&format!("{mode}: {}\n{difference}", view.sql));
                    continue;
                }
                None => {}
            }
            at += 1;
        }
    }

    async fn compare_queries(&mut self, count: usize) {
        for _ in 0..count {
            if self.diverged {
                return;
            }
            let Some(query) = self.query(false).await else {
                continue;
            };
            match self.differs(&query.sql, &query.types).await {
                Some(None) => self.tally.compared("queries"),
                Some(Some(difference)) => {
                    self.finding(&format!("query: {}\n{difference}", query.sql))
                }
                None => {}
            }
        }
    }

    async fn work(&mut self, changes: usize) {
        for i in 0..changes {
            if self.diverged {
                return;
            }
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
        self.since = Some("views after a crash");
        self.tally.event("crashes");
        self.arrive().await;
        self.compare_views().await;
    }

    /// Any checkpoint restores under another backend and another number of workers.
    async fn move_elsewhere(&mut self) {
        let backend = place(&mut self.generator);
        let workers = 1 + (self.tidegate.settings().1 + self.generator.below(2)) % 3;
        writeln!(self.script, "-- restart: {backend} workers={workers}").unwrap();
        self.tidegate.restart(backend, workers).await;
        self.label += &format!(" then {backend} workers={workers}");
        self.since = Some("views after a restart with other settings");
        self.tally.event("restarts with other settings");
        self.arrive().await;
        self.compare_views().await;
    }

    /// A savepoint, changes and a view that are undone, and what was before.
    async fn go_back(&mut self) {
        let (views, saved) = (self.views.clone(), self.tables.clone());
        writeln!(self.script, "SAVEPOINT here;").unwrap();
        run(&self.tidegate.client, "SAVEPOINT here").await.unwrap();
        for table in &saved {
            let copy = format!("CREATE TABLE saved_{0} AS TABLE {0}", table.name);
            run(&self.postgres.client, &copy).await.unwrap();
        }
        self.make_view(true).await;
        self.work(4).await;
        writeln!(self.script, "ROLLBACK TO SAVEPOINT here;").unwrap();
        if let Err(refusal) = run(&self.tidegate.client, "ROLLBACK TO SAVEPOINT here").await {
            return self.finding(&format!("ROLLBACK TO SAVEPOINT: {refusal:?}"));
        }
        for table in &saved {
            let name = &table.name;
            let back = format!(
                "TRUNCATE {name}; INSERT INTO {name} TABLE saved_{name}; DROP TABLE saved_{name}"
            );
            run(&self.postgres.client, &back).await.unwrap();
        }
        self.views = views;
        self.since = Some("views after a rollback to a savepoint");
        self.tally.event("rollbacks to savepoints");
        self.arrive().await;
        self.compare_views().await;
    }

    /// To the end, or until the tables differ.
    pub async fn play(&mut self) {
        self.make_tables().await;
        for _ in 0..4 {
            self.make_view(false).await;
        }
        self.arrive().await;
        self.work(8).await;
        self.compare_queries(6).await;
        for _ in 0..4 {
            self.make_view(true).await;
        }
        self.work(6).await;
        if self.generator.chance(40) {
            self.go_back().await;
            self.work(4).await;
        }
        self.crash().await;
        self.work(4).await;
        // A crash while a view is being filled and changes are on their way.
        self.make_view(true).await;
        self.change().await;
        self.crash().await;
        self.work(4).await;
        if self.generator.chance(60) {
            self.move_elsewhere().await;
            self.make_view(true).await;
            self.work(4).await;
        }
        self.compare_queries(4).await;
    }
}

fn place(generator: &mut Generator) -> &'static str {
    ["memory", "rocksdb"][generator.below(2)]
}

/// A statement may break several rules; which of them is found first depends on the order of rows and checks.
fn same_refusal(a: &Refusal, b: &Refusal) -> bool {
    let of_rows = ["21000", "23502", "23505"];
    a.code == b.code || of_rows.contains(&a.code.as_str()) && of_rows.contains(&b.code.as_str())
}

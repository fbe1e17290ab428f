//! Runs suites: against the server in three modes, and against Postgres, whose answers are the expected ones.
//!
//! A suite passes when every record is as it expects. All that is wrong in all suites is collected and shown at the end,
//! with how many comparisons were made and what was left out.

use super::file::{self, Expect, Record, Section, Sort, Suite};
use super::server::{Postgres, Server};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The queries are asked after the data is there.
    Queries,
    /// The queries are materialized views that are there before the data.
    Views,
    /// As views, and the server is killed amid the data and after it.
    ViewsWithCrashes,
}

/// How long a view may say that it is not ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Outcome {
    comparisons: usize,
    kills: usize,
    skipped: Vec<String>,
    failures: Vec<String>,
}

pub async fn run_suites(mode: Mode, backend: &str) {
    let begin = Instant::now();
    let mut total = Outcome::default();
    for suite in file::all() {
        Run::new(&suite, mode, &mut total).suite(backend).await;
    }
    report(&format!("{mode:?} on {backend}"), &total, begin);
}

/// Verifies the expected results against Postgres, or takes them from it with `TIDEGATE_SLT_REWRITE`.
pub async fn run_oracle() {
    let asked = std::env::var("TIDEGATE_SLT_ORACLE").ok();
    assert!(
        asked.as_deref().unwrap_or("postgres") == "postgres",
        "the oracle is postgres"
    );
    let rewrite = std::env::var_os("TIDEGATE_SLT_REWRITE").is_some();
    let Some(postgres) = Postgres::start().await else {
        assert!(
            asked.is_none(),
            "TIDEGATE_SLT_ORACLE is set and Postgres is not installed"
        );
        say(
            "suites: SKIPPED postgres_agrees: Postgres is not installed (apt-get install postgresql)\n",
        );
        return;
    };
    let begin = Instant::now();
    let mut total = Outcome::default();
    for suite in file::all() {
        let client = postgres.database(&suite.name).await;
        let mut answers = Vec::new();
        for (index, record) in suite.records.iter().enumerate() {
            if let Some(reason) = &record.marks.not_in_postgres {
                total
                    .skipped
                    .push(format!("{}: {reason}", place(&suite, record)));
                continue;
            }
            let sql = record
                .sql
                .replace("CREATE MATERIALIZED VIEW", "CREATE VIEW");
            let sql = sql.replace("DROP MATERIALIZED VIEW", "DROP VIEW");
            let answer = ask(&client, &sql).await;
            if let (true, Expect::Rows { sort, .. }, Ok(rows)) = (rewrite, &record.expect, &answer)
            {
                answers.push((index, arranged(rows, *sort)));
            } else {
                judge(&suite, record, &record.expect, answer, &mut total);
            }
            if let Expect::Rows { types, .. } = &record.expect {
                check_types(&client, &suite, record, &sql, types, &mut total).await;
            }
        }
        suite.rewrite_if_any(&answers);
    }
    report("Postgres as the oracle", &total, begin);
}

impl Suite {
    fn rewrite_if_any(&self, answers: &[(usize, Vec<String>)]) {
        if !answers.is_empty() {
            self.rewrite(answers);
        }
    }
}

fn report(what: &str, outcome: &Outcome, begin: Instant) {
    let mut text = format!(
        "suites: {what}: {} comparisons, {} kills, {} skipped, {} wrong, {:.1} s\n",
        outcome.comparisons,
        outcome.kills,
        outcome.skipped.len(),
        outcome.failures.len(),
        begin.elapsed().as_secs_f64()
    );
    for skipped in &outcome.skipped {
        let _ = writeln!(text, "suites:   skipped {skipped}");
    }
    say(&text);
    assert!(
        outcome.failures.is_empty(),
        "{what}:\n{}",
        outcome.failures.join("\n\n")
    );
    assert!(outcome.comparisons > 0, "{what} compared nothing");
}

/// Past the test harness, which would show it only on failure.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn place(suite: &Suite, record: &Record) -> String {
    format!("{}.slt:{}", suite.name, record.line)
}

struct Run<'a> {
    suite: &'a Suite,
    mode: Mode,
    total: &'a mut Outcome,
}

impl<'a> Run<'a> {
    fn new(suite: &'a Suite, mode: Mode, total: &'a mut Outcome) -> Self {
        Run { suite, mode, total }
    }

    async fn suite(&mut self, backend: &str) {
        let mut server = Server::start(backend).await;
        let mut client = server.connect().await;
        let of = |section| {
            self.suite
                .records
                .iter()
                .filter(move |r: &&Record| r.section == section)
        };
        let rounds = self
            .suite
            .records
            .iter()
            .map(|r| r.round)
            .max()
            .map_or(0, |r| r + 1);
        for record in of(Section::Schema) {
            self.plainly(&client, record).await;
        }
        let mut views = std::collections::HashMap::new();
        if self.mode != Mode::Queries {
            for record in of(Section::Queries) {
                self.create_view(&client, record, &mut views).await;
            }
        }
        for round in 0..rounds {
            let data: Vec<&Record> = of(Section::Data).filter(|r| r.round == round).collect();
            let middle = crash_point(&data);
            for (index, record) in data.iter().enumerate() {
                if self.mode == Mode::ViewsWithCrashes && index == middle {
                    client = self.crash(&mut server).await;
                }
                self.plainly(&client, record).await;
            }
            if self.mode == Mode::ViewsWithCrashes {
                client = self.crash(&mut server).await;
            }
            for record in of(Section::Queries).filter(|r| r.round == round) {
                match (self.mode, views.get(&record.line)) {
                    (Mode::Queries, _) => self.plainly(&client, record).await,
                    (_, Some(view)) => self.compare_view(&client, record, view).await,
                    (_, None) => (),
                }
            }
        }
        if std::env::var_os("TIDEGATE_SLT_LOG").is_some() {
            say(&server.log());
        }
    }

    async fn crash(&mut self, server: &mut Server) -> Client {
        server.kill();
        self.total.kills += 1;
        server.restart().await;
        server.connect().await
    }

    fn skipped(&mut self, record: &Record, reason: Option<&String>) -> bool {
        if let Some(reason) = reason {
            self.total
                .skipped
                .push(format!("{}: {reason}", place(self.suite, record)));
        }
        reason.is_some()
    }

    async fn plainly(&mut self, client: &Client, record: &Record) {
        if self.skipped(record, record.marks.skip.as_ref()) {
            return;
        }
        let answer = ask(client, &record.sql).await;
        judge(self.suite, record, &record.expect, answer, self.total);
        if let (Expect::Rows { types, .. }, Mode::Queries) = (&record.expect, self.mode)
            && record.section == Section::Queries
        {
            if let Some(reason) = &record.marks.types_differ {
                let place = place(self.suite, record);
                self.total
                    .skipped
                    .push(format!("{place}: types only: {reason}"));
                return;
            }
            check_types(client, self.suite, record, &record.sql, types, self.total).await;
        }
    }

    async fn create_view(
        &mut self,
        client: &Client,
        record: &Record,
        views: &mut std::collections::HashMap<usize, String>,
    ) {
        let Expect::Rows { types, .. } = &record.expect else {
            return;
        };
        let reason = record
            .marks
            .skip
            .as_ref()
            .or(record.marks.not_a_view.as_ref());
        if self.skipped(record, reason) {
            return;
        }
        let name = format!("q{}", record.line);
        let columns: Vec<String> = (1..=types.len()).map(|c| format!("c{c}")).collect();
        let sql = format!(
            "CREATE MATERIALIZED VIEW {name} ({}) AS {}",
            columns.join(", "),
            record.sql
        );
        match ask(client, &sql).await {
            Ok(_) => {
                views.insert(record.line, name);
            }
            Err(error) => self.total.failures.push(format!(
                "{}: not taken as a view: {error}\n{}",
                place(self.suite, record),
                record.sql
            )),
        }
    }

    /// The order of a view's rows is not promised: both sides are sorted.
    async fn compare_view(&mut self, client: &Client, record: &Record, view: &str) {
        let Expect::Rows { types, sort, rows } = &record.expect else {
            return;
        };
        let expect = Expect::Rows {
            types: types.clone(),
            sort: if *sort == Sort::Values {
                Sort::Values
            } else {
                Sort::Rows
            },
            rows: if *sort == Sort::No {
                sorted(rows.clone())
            } else {
                rows.clone()
            },
        };
        let begin = Instant::now();
        let answer = loop {
            match ask(client, &format!("SELECT * FROM {view}")).await {
                Err(error) if error.starts_with("55000") && begin.elapsed() < READY_LIMIT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => break answer,
            }
        };
        judge(self.suite, record, &expect, answer, self.total);
    }
}

/// The middle of the statements, outside of a transaction.
fn crash_point(data: &[&Record]) -> usize {
    let mut inside = false;
    for (index, record) in data.iter().enumerate() {
        if index >= data.len() / 2 && index > 0 && !inside {
            return index;
        }
        let sql = record.sql.to_uppercase();
        inside |= sql.starts_with("BEGIN") || sql.starts_with("START TRANSACTION");
        inside &= !(sql.starts_with("COMMIT") || sql.starts_with("END"))
            && (!sql.starts_with("ROLLBACK") || sql.contains(" TO "));
    }
    data.len()
}

/// Rows with values separated by blanks, or SQLSTATE and message.
async fn ask(client: &Client, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let answer = tokio::time::timeout(STATEMENT_LIMIT, client.simple_query(sql)).await;
    let messages = match answer {
        Err(_) => return Err("no answer in time".to_owned()),
        Ok(Err(error)) => {
            return Err(match error.as_db_error() {
                Some(error) => format!("{} {}", error.code().code(), error.message()),
                None => format!("connection: {error}"),
            });
        }
        Ok(Ok(messages)) => messages,
    };
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push(
                (0..row.len())
                    .map(|column| shown(row.get(column)))
                    .collect(),
            );
        }
    }
    Ok(rows)
}

fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.replace('\n', "\\n"),
    }
}

fn arranged(rows: &[Vec<String>], sort: Sort) -> Vec<String> {
    let joined = rows.iter().map(|row| row.join(" "));
    match sort {
        Sort::No => joined.collect(),
        Sort::Rows => sorted(joined.collect()),
        Sort::Values => sorted(rows.iter().flatten().cloned().collect()),
    }
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn judge(
    suite: &Suite,
    record: &Record,
    expect: &Expect,
    answer: Result<Vec<Vec<String>>, String>,
    total: &mut Outcome,
) {
    total.comparisons += 1;
    let wrong = match (expect, answer) {
        (Expect::Ok, Ok(_)) => None,
        (Expect::Error(state), Err(error)) if error.starts_with(state.as_str()) => None,
        (Expect::Error(state), Ok(_)) => Some(format!("succeeded instead of {state}")),
        (Expect::Error(state), Err(error)) => Some(format!("instead of {state}: {error}")),
        (_, Err(error)) => Some(error),
        (Expect::Rows { sort, rows, .. }, Ok(answer)) => {
            let answer = arranged(&answer, *sort);
            (answer != *rows).then(|| {
                format!(
                    "expected:\n  {}\nanswered:\n  {}",
                    rows.join("\n  "),
                    answer.join("\n  ")
                )
            })
        }
    };
    if let Some(wrong) = wrong {
        let failure = format!("{}: {wrong}\n{}", place(suite, record), record.sql);
        total.failures.push(failure);
    }
}

/// The declared kinds of the columns against those that the server describes.
async fn check_types(
    client: &Client,
    suite: &Suite,
    record: &Record,
    sql: &str,
    types: &str,
    total: &mut Outcome,
) {
    let Ok(statement) = client.prepare(sql).await else {
        return;
    };
    let described: String = statement
        .columns()
        .iter()
        .map(|c| kind(c.type_()))
        .collect();
    if described != types {
        let names: Vec<&str> = statement
            .columns()
            .iter()
            .map(|c| c.type_().name())
            .collect();
        total.failures.push(format!(
            "{}: columns {types}, described as {described} {names:?}\n{}",
            place(suite, record),
            record.sql
        ));
    }
}

fn kind(described: &Type) -> char {
    match *described {
        Type::BOOL => 'B',
        Type::INT2 | Type::INT4 | Type::INT8 => 'I',
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => 'R',
        _ => 'T',
    }
}

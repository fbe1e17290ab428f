//! What TPC-H and Nexmark share: known queries as views, compared with what Postgres computes from the same tables.

use crate::compare::difference;
use crate::generate::Type;
use crate::servers::{Postgres, Rows, Tidegate, run};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_postgres::types::Type as PostgresType;

pub struct KnownQuery {
    pub name: String,
    pub sql: String,
    types: Vec<Type>,
    /// Rows that were compared, over all times.
    pub rows: usize,
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../sql")
        .join(name)
}

/// A query of a file of the repository, with its columns as Postgres describes them.
pub async fn known(postgres: &Postgres, folder: &Path, name: &str) -> KnownQuery {
    let sql = std::fs::read_to_string(folder.join(format!("{name}.sql"))).unwrap();
    let lines = sql
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    let sql = lines.collect::<Vec<_>>().join("\n");
    described(postgres, name, &sql).await
}

pub async fn described(postgres: &Postgres, name: &str, sql: &str) -> KnownQuery {
    let statement = postgres.client.prepare(sql).await.unwrap();
    let types = statement.columns().iter().map(|c| match *c.type_() {
        // How many digits an average has is the server's choice.
        PostgresType::NUMERIC => Type::Approximate,
        PostgresType::FLOAT8 => Type::Double,
        _ => Type::Other,
    });
    KnownQuery {
        name: name.to_owned(),
        types: types.collect(),
        sql: sql.trim().trim_end_matches(';').to_owned(),
        rows: 0,
    }
}

/// The rows of a query once its views are built.
pub async fn rows(tidegate: &Tidegate, sql: &str) -> Rows {
    let start = Instant::now();
    loop {
        match run(&tidegate.client, sql).await {
            Ok(rows) => break rows,
            Err(refusal) => assert!(
                refusal.code == "55000" && start.elapsed() < Duration::from_secs(30),
                "{sql}: {refusal:?}\n{}",
                tidegate.log_tail()
            ),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Compares a query, or the view of the same name, with what Postgres answers now.
pub async fn compare(
    tidegate: &Tidegate,
    postgres: &Postgres,
    query: &mut KnownQuery,
    asked: &str,
    when: &str,
) {
    let expected = run(&postgres.client, &query.sql).await.unwrap();
    let actual = rows(tidegate, asked).await;
    query.rows += expected.len();
    if let Some(wrong) = difference(&query.types, expected, actual) {
        panic!("{} {when}, asked as {asked}\n{wrong}", query.name);
    }
}

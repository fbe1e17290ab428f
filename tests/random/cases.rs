//! What random runs once found, as small scripts; and what they leave out.

use crate::compare::difference;
use crate::servers::{Postgres, Tidegate, run};

/// What is not generated, with the reason.
pub const EXCLUDED: &[(&str, &str)] = &[];

/// Statements, then a query that is asked as such and as a view that was created before the last statement.
const CASES: &[(&[&str], &str)] = &[
    // What follows IS NOT DISTINCT FROM was its right side, AND included.
    (
        &[
            "CREATE TABLE c0 (a integer, b integer, s text)",
            "INSERT INTO c0 VALUES (1, 1, 'x'), (NULL, NULL, 'x'), (1, NULL, NULL), (2, 2, 'y')",
        ],
        "SELECT a, s FROM c0 WHERE a IS NOT DISTINCT FROM b AND s = 'x' OR a IS DISTINCT FROM b AND s IS NULL",
    ),
    // Reads summed partial sums when another aggregate was DISTINCT, which changed the column's type.
    (
        &[
            "CREATE TABLE c1 (a integer, s text)",
            "INSERT INTO c1 VALUES (1, 'x'), (2, 'xx'), (2, NULL)",
        ],
        "SELECT sum(a) AS total, count(DISTINCT length(s)) AS lengths FROM c1",
    ),
    // A constant before NOT IN lost the NULLs of the sub-query.
    (
        &[
            "CREATE TABLE c3 (a integer)",
            "CREATE TABLE c4 (b integer)",
            "INSERT INTO c3 VALUES (7), (21)",
            "INSERT INTO c4 VALUES (1), (NULL)",
        ],
        "SELECT a FROM c3 WHERE 4 NOT IN (SELECT b FROM c4)",
    ),
    // A constant in an aggregate's ORDER BY was the position of a column.
    (
        &[
            "CREATE TABLE c2 (a integer, b integer)",
            "INSERT INTO c2 VALUES (3, 1), (1, 2), (2, 3)",
        ],
        "SELECT array_agg(b ORDER BY 1, b DESC) AS list FROM c2",
    ),
];

pub async fn check(tidegate: &Tidegate, postgres: &Postgres) {
    for (number, (statements, query)) in CASES.iter().enumerate() {
        let (last, first) = statements.split_last().unwrap();
        for sql in first {
            run(&tidegate.client, sql).await.unwrap();
            run(&postgres.client, sql).await.unwrap();
        }
        let view = format!("CREATE MATERIALIZED VIEW case_{number} AS {query}");
        run(&tidegate.client, &view).await.unwrap();
        run(&tidegate.client, last).await.unwrap();
        run(&postgres.client, last).await.unwrap();
        let expected = run(&postgres.client, query).await.unwrap();
        let types = vec![crate::generate::Type::Other; expected.first().map_or(0, Vec::len)];
        for asked in [(*query).to_owned(), format!("SELECT * FROM case_{number}")] {
            let actual = run(&tidegate.client, &asked).await.unwrap();
            let wrong = difference(&types, expected.clone(), actual);
            assert!(
                wrong.is_none(),
                "{query} asked as {asked}\n{}",
                wrong.unwrap()
            );
        }
    }
}

//! What random runs once found, as small scripts; and what they leave out.

use crate::compare::difference;
use crate::servers::{Postgres, Tidegate, run};

/// What is not generated, with the reason.
pub const EXCLUDED: &[(&str, &str)] = &[(
    "array_agg of uuid",
    "the list does not know that its elements are uuids, and shows their bytes",
)];

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
    // A correlated NOT IN was refused, and with a condition on the outside alone it lost rows.
    (
        &[
            "CREATE TABLE c5 (a integer, g integer, b boolean)",
            "CREATE TABLE c6 (x integer, g integer)",
            "INSERT INTO c5 VALUES (1, 1, true), (2, 1, false), (3, 2, NULL), (NULL, 1, true), (NULL, 9, true)",
            "INSERT INTO c6 VALUES (1, 1), (NULL, 2), (5, 1)",
        ],
        "SELECT a, g FROM c5 WHERE a NOT IN (SELECT x FROM c6 WHERE c6.g = c5.g)",
    ),
    (
        &[
            "CREATE TABLE c7 (a integer, b boolean)",
            "CREATE TABLE c8 (x integer)",
            "INSERT INTO c7 VALUES (1, true), (2, false), (3, NULL), (NULL, false), (7, true)",
            "INSERT INTO c8 VALUES (1), (2)",
        ],
        "SELECT a FROM c7 WHERE a NOT IN (SELECT x FROM c8 WHERE c7.b)",
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

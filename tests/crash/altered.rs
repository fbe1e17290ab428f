//! Views that get another query while they run: what stays, what those who read them see, and what a crash leaves.

use crate::server::{Server, command, refused, rows, run, until_rows};
use rand::prelude::*;
use rand::rngs::StdRng;
use std::time::Duration;
use tokio_postgres::Client;

const BACKENDS: [&str; 2] = ["memory", "rocksdb"];

async fn tables(client: &Client) {
    run(
        client,
        "CREATE TABLE t (id bigint PRIMARY KEY, g text, x integer);
         CREATE TABLE u (g text PRIMARY KEY, name text);
         INSERT INTO t SELECT i, 'g' || (i % 7)::text, (i % 11)::int FROM generate_series(1, 500) AS s(i);
         INSERT INTO u SELECT 'g' || i::text, 'name ' || i::text FROM generate_series(0, 5) AS s(i);",
    )
    .await;
}

/// A view equals its query computed as a batch.
async fn verify(client: &Client, view: &str) {
    let different = rows(client, &format!("VERIFY MATERIALIZED VIEW {view}")).await;
    assert!(different.is_empty(), "{view}: {different:?}");
}

/// What changed since the cursor was read last: rows with their diffs, and in how many epochs.
async fn changes(client: &Client) -> (usize, Vec<String>) {
    let mut epochs = Vec::new();
    let mut changes = Vec::new();
    for row in rows(client, "FETCH ALL c").await {
        let (epoch, change) = row.split_once('|').unwrap();
        epochs.push(epoch.to_owned());
        changes.push(change.to_owned());
    }
    epochs.sort();
    epochs.dedup();
    changes.sort();
    (epochs.len(), changes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_an_altered_view_get_the_difference_in_one_epoch() {
    for backend in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(directory.path(), &[("state_backend", backend)]);
        let client = server.connect().await;
        tables(&client).await;
        run(
            &client,
            "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g;
             CREATE MATERIALIZED VIEW w AS SELECT g, n + 1 AS more FROM v WHERE g <> 'g3'",
        )
        .await;
        let reader = server.connect().await;
        run(
            &reader,
            "DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE w WITH (snapshot = false)",
        )
        .await;
        // 500 rows: 72 each in g1 to g3, 71 in the others.
        run(
            &client,
            "ALTER MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g HAVING count(*) > 71",
        )
        .await;
        assert_eq!(
            rows(&client, "SELECT * FROM v").await,
            ["g1|72", "g2|72", "g3|72"]
        );
        assert_eq!(rows(&client, "SELECT * FROM w").await, ["g1|73", "g2|73"]);
        let gone: Vec<String> = ["g0", "g4", "g5", "g6"]
            .map(|g| format!("-1|{g}|72"))
            .into();
        assert_eq!(changes(&reader).await, (1, gone), "{backend}");
        // Both sides of the difference: other rows in the place of those that are there.
        run(
            &client,
            "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT g, count(*) + 1 AS n FROM t WHERE g < 'g3' GROUP BY g",
        )
        .await;
        let (epochs, both) = changes(&reader).await;
        assert_eq!(epochs, 1);
        assert_eq!(
            both,
            ["-1|g1|73", "-1|g2|73", "1|g0|73", "1|g1|74", "1|g2|74"]
        );
        // What comes later follows the new query.
        run(
            &client,
            "INSERT INTO t VALUES (1000, 'g0', 1), (1001, 'g5', 1)",
        )
        .await;
        until_rows(&client, "SELECT * FROM v", |r| {
            r == ["g0|73", "g1|73", "g2|73"]
        })
        .await;
        verify(&client, "v").await;
        verify(&client, "w").await;
        // The same again is no change.
        changes(&reader).await;
        run(
            &client,
            "ALTER MATERIALIZED VIEW v AS SELECT g, count(*) + 1 AS n FROM t WHERE g < 'g3' GROUP BY g",
        )
        .await;
        assert_eq!(changes(&reader).await, (0, vec![]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_may_come_at_the_end() {
    for backend in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        let settings = [("state_backend", backend), ("checkpoint_interval", "off")];
        let mut server = Server::start(directory.path(), &settings);
        let client = server.connect().await;
        tables(&client).await;
        run(
            &client,
            "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g;
             CREATE MATERIALIZED VIEW w AS SELECT sum(n) AS all_of_them FROM v;
             CREATE VIEW plain AS SELECT g FROM v;
             ALTER MATERIALIZED VIEW v AS SELECT g, count(*) AS n, sum(x) AS total FROM t WHERE id <= 70 GROUP BY g;
             CREATE MATERIALIZED VIEW totals AS SELECT sum(total) AS total FROM v",
        )
        .await;
        assert_eq!(rows(&client, "SELECT * FROM w").await, ["70"]);
        assert_eq!(rows(&client, "SELECT count(*) FROM plain").await, ["7"]);
        let total = "SELECT sum(x) FROM t WHERE id <= 70";
        assert_eq!(
            rows(&client, "SELECT * FROM totals").await,
            rows(&client, total).await
        );
        run(&client, "UPDATE t SET x = x + 1 WHERE id < 20").await;
        for view in ["v", "w", "totals"] {
            verify(&client, view).await;
        }
        server.kill();
        server.wait();
        let server = Server::start(directory.path(), &settings);
        let client = server.connect().await;
        for view in ["v", "w", "totals"] {
            verify(&client, view).await;
        }
        assert_eq!(rows(&client, "SELECT count(total) FROM v").await, ["7"]);
    }
}

/// Queries with the columns `g text, n bigint`, of which neither is ever NULL by what is known.
const QUERIES: [&str; 12] = [
    "SELECT g, count(*) AS n FROM t GROUP BY g",
    "SELECT g, count(*) AS n FROM t GROUP BY g HAVING count(*) > 71",
    "SELECT g, count(x) AS n FROM t GROUP BY g",
    "SELECT g || '' AS g, count(*) * 2 AS n FROM t GROUP BY g",
    "SELECT g, count(DISTINCT x) AS n FROM t WHERE id % 3 = 0 GROUP BY g",
    "SELECT u.g, count(*) AS n FROM t JOIN u ON u.g = t.g GROUP BY u.g",
    "SELECT u.name AS g, count(*) AS n FROM t JOIN u ON u.g = t.g GROUP BY u.name",
    "SELECT t.g, t.id AS n FROM t JOIN u ON u.g = t.g",
    "SELECT t.g, t.id * 10 AS n FROM t JOIN u ON u.g = t.g WHERE t.id < 50",
    "SELECT t.g, t.id AS n FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.g = t.g)",
    "SELECT g, id AS n FROM (SELECT g, id, row_number() OVER (PARTITION BY g ORDER BY id DESC) AS r FROM t) AS s WHERE r < 4",
    "SELECT g, n FROM (SELECT g, count(*) AS n FROM t GROUP BY g UNION ALL SELECT g, 0::bigint FROM u) AS s",
];

/// `v` is not unique by anything, so that every query may follow every other.
fn over(query: &str) -> String {
    format!(
        "SELECT g, n FROM ({query}) AS one UNION ALL SELECT 'nothing', 0::bigint FROM u WHERE g = 'none'"
    )
}

async fn change(client: &Client, random: &mut StdRng) {
    let id = random.random_range(1..900);
    let sql = match random.random_range(0..6) {
        0 => format!("DELETE FROM t WHERE id = {id}"),
        1 => format!("UPDATE t SET g = 'g{}' WHERE id = {id}", id % 9),
        2 => format!("DELETE FROM u WHERE g = 'g{}'", id % 7),
        3 => format!(
            "INSERT INTO u VALUES ('g{}', 'other') ON CONFLICT (g) DO UPDATE SET name = 'name {id}'",
            id % 8
        ),
        _ => format!(
            "INSERT INTO t VALUES ({id}, 'g{}', {}) ON CONFLICT (id) DO UPDATE SET x = 5",
            id % 8,
            id % 11
        ),
    };
    run(client, &sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_query_may_follow_any_other_while_rows_change() {
    let seed: u64 = std::env::var("TIDEGATE_CRASH_SEED").map_or(17, |s| s.parse().unwrap());
    println!("TIDEGATE_CRASH_SEED={seed}");
    for (index, backend) in BACKENDS.into_iter().enumerate() {
        let mut random = StdRng::seed_from_u64(seed + index as u64);
        let directory = tempfile::tempdir().unwrap();
        let settings = [("state_backend", backend), ("checkpoint_interval", "20ms")];
        let mut server = Server::start(directory.path(), &settings);
        let mut client = server.connect().await;
        tables(&client).await;
        run(
            &client,
            &format!(
                "CREATE MATERIALIZED VIEW v AS {};
                 CREATE MATERIALIZED VIEW w AS SELECT n % 5 AS m, count(*) AS times, min(g) AS least FROM v GROUP BY n % 5;
                 CREATE MATERIALIZED VIEW z AS SELECT v.g, v.n, u.name FROM v LEFT JOIN u ON u.g = v.g",
                over(QUERIES[0])
            ),
        )
        .await;
        for step in 0..12 {
            let query = over(QUERIES[random.random_range(0..QUERIES.len())]);
            let writer = server.connect().await;
            let mut its_random = StdRng::seed_from_u64(random.random());
            let writing = tokio::spawn(async move {
                for _ in 0..30 {
                    change(&writer, &mut its_random).await;
                }
            });
            run(&client, &format!("ALTER MATERIALIZED VIEW v AS {query}")).await;
            writing.await.unwrap();
            assert_eq!(
                rows(&client, "SELECT * FROM v").await,
                rows(&client, &query).await,
                "{step} {query}"
            );
            for view in ["v", "w", "z"] {
                verify(&client, view).await;
            }
            if random.random_range(0..4) == 0 {
                let workers = random.random_range(1..4);
                run(&client, &format!("ALTER SYSTEM SET workers = {workers}")).await;
            }
            if random.random_range(0..4) == 0 {
                server.kill();
                server.wait();
                server = Server::start(directory.path(), &settings);
                client = server.connect().await;
                assert_eq!(
                    rows(&client, "SELECT * FROM v").await,
                    rows(&client, &query).await,
                    "{step} {query}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_leaves_the_old_view_or_the_new_one() {
    let seed: u64 = std::env::var("TIDEGATE_CRASH_SEED").map_or(5, |s| s.parse().unwrap());
    println!("TIDEGATE_CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut old, mut new) = (0, 0);
    let directory = tempfile::tempdir().unwrap();
    let settings = [("checkpoint_interval", "30ms")];
    let mut server = Server::start(directory.path(), &settings);
    let mut client = server.connect().await;
    tables(&client).await;
    let mut present = over(QUERIES[0]);
    run(
        &client,
        &format!(
            "CREATE MATERIALIZED VIEW v AS {present};
             CREATE MATERIALIZED VIEW w AS SELECT g, count(*) AS times, sum(n) AS total FROM v GROUP BY g"
        ),
    )
    .await;
    for round in 0..16 {
        let query = over(QUERIES[1 + round % (QUERIES.len() - 1)]);
        let other = server.connect().await;
        let statement = format!("ALTER MATERIALIZED VIEW v AS {query}");
        let altering = tokio::spawn(async move { other.simple_query(&statement).await.is_ok() });
        tokio::time::sleep(Duration::from_micros(random.random_range(0..60_000))).await;
        server.kill();
        server.wait();
        let done = altering.await.unwrap();
        server = Server::start(directory.path(), &settings);
        client = server.connect().await;
        let definition = rows(&client, "SHOW CREATE MATERIALIZED VIEW v")
            .await
            .join("");
        let is_new = definition.contains(&query);
        assert!(is_new || definition.contains(&present), "{definition}");
        assert!(is_new || !done, "what was acknowledged is gone");
        if is_new {
            new += 1;
            present = query;
        } else {
            old += 1;
        }
        let of_view = rows(&client, "SELECT * FROM v").await;
        assert_eq!(
            of_view,
            rows(&client, &present).await,
            "round {round}: {present}"
        );
        change(&client, &mut random).await;
        verify(&client, "v").await;
        verify(&client, "w").await;
    }
    println!("{old} times the old view, {new} times the new one");
    assert!(new > 0, "no alteration was ever carried out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_it_leaves_the_view_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    tables(&client).await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g;
         CREATE MATERIALIZED VIEW w AS SELECT sum(n) AS total FROM v;
         INSERT INTO t SELECT i, 'h', (i % 4)::int FROM generate_series(1001, 21000) AS s(i)",
    )
    .await;
    let other = server.connect().await;
    let token = other.cancel_token();
    let altering = tokio::spawn(async move {
        // A hundred million pairs: it is far from its end when it is cancelled.
        let sql = "ALTER MATERIALIZED VIEW v AS SELECT a.g, count(*) AS n FROM t AS a JOIN t AS b ON a.x = b.x GROUP BY a.g";
        other.simple_query(sql).await.map(|_| ())
    });
    until_rows(&client, "SHOW JOBS", |jobs| {
        jobs.iter().any(|j| j.contains("alter"))
    })
    .await;
    let in_use = refused(&client, "DROP TABLE t CASCADE").await;
    assert_eq!(in_use.code().code(), "55006", "{in_use:?}");
    token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    let error = altering.await.unwrap().unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "57014");
    until_rows(&client, "SHOW JOBS", |jobs| jobs.is_empty()).await;
    run(&client, "INSERT INTO t VALUES (30001, 'h', 1)").await;
    let n = "SELECT n FROM v WHERE g = 'h'";
    until_rows(&client, n, |r| r == ["20001"]).await;
    verify(&client, "v").await;
    verify(&client, "w").await;
    run(
        &client,
        "ALTER MATERIALIZED VIEW v AS SELECT g, count(*) + 1 AS n FROM t GROUP BY g",
    )
    .await;
    assert_eq!(rows(&client, n).await, ["20002"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_who_depends_on_what() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    tables(&client).await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, sum(x) AS total FROM t GROUP BY g;
         CREATE MATERIALIZED VIEW w AS SELECT g, n FROM v;
         CREATE VIEW plain AS SELECT total FROM v",
    )
    .await;
    let asked = [
        (
            "ALTER MATERIALIZED VIEW v AS SELECT g FROM t GROUP BY g",
            "2BP01",
            "cannot remove columns of materialized view \"v\" because other objects depend on them",
            "materialized view w depends on column n of it\nview plain depends on column n of it\nview plain depends on column total of it",
        ),
        (
            "ALTER MATERIALIZED VIEW v AS SELECT g, sum(x) AS n, sum(x) AS total FROM t GROUP BY g",
            "2BP01",
            "cannot alter materialized view \"v\" in this way because other objects depend on it",
            "materialized view w relies on column n never being NULL",
        ),
        (
            "ALTER MATERIALIZED VIEW v AS SELECT g, count(*)::int AS n, sum(x) AS total FROM t GROUP BY g",
            "42P16",
            "cannot change the type of columns of materialized view \"v\" because other objects depend on them",
            "materialized view w depends on column n of it, which would change from bigint to integer\nview plain depends on column n of it, which would change from bigint to integer",
        ),
        (
            "ALTER MATERIALIZED VIEW v AS SELECT g, id AS n, x::bigint AS total FROM t",
            "2BP01",
            "cannot alter materialized view \"v\" in this way because other objects depend on it",
            "materialized view w relies on no two rows having the same (g)",
        ),
        (
            "ALTER MATERIALIZED VIEW v AS SELECT g, n, 1::bigint AS total FROM w",
            "42P17",
            "materialized view \"v\" would read itself",
            "\"w\" reads it.",
        ),
    ];
    for (sql, state, message, detail) in asked {
        let error = refused(&client, sql).await;
        assert_eq!(error.code().code(), state, "{sql}: {error:?}");
        assert_eq!(error.message(), message, "{sql}");
        assert_eq!(error.detail().unwrap_or_default(), detail, "{sql}");
        let explained = refused(&client, &format!("EXPLAIN {sql}")).await;
        assert_eq!(explained.message(), message);
    }
    let others = [
        ("ALTER MATERIALIZED VIEW none AS SELECT 1 AS a", "42P01"),
        ("ALTER MATERIALIZED VIEW t AS SELECT 1 AS a", "42809"),
        (
            "ALTER MATERIALIZED VIEW v AS SELECT nothing FROM t",
            "42703",
        ),
        (
            "CREATE OR REPLACE MATERIALIZED VIEW t AS SELECT 1 AS a",
            "42809",
        ),
        (
            "CREATE OR REPLACE MATERIALIZED VIEW v WITH (state_backend = 'rocksdb') AS SELECT g, count(*) AS n, sum(x) AS total FROM t GROUP BY g",
            "0A000",
        ),
    ];
    for (sql, state) in others {
        assert_eq!(refused(&client, sql).await.code().code(), state, "{sql}");
    }
    run(
        &client,
        "ALTER MATERIALIZED VIEW IF EXISTS none AS SELECT 1 AS a",
    )
    .await;
    verify(&client, "v").await;
    run(&client, "DROP VIEW plain; DROP MATERIALIZED VIEW w").await;
    run(
        &client,
        "ALTER MATERIALIZED VIEW v AS SELECT max(id) AS newest FROM t",
    )
    .await;
    assert_eq!(rows(&client, "SELECT * FROM v").await, ["500"]);
    run(
        &client,
        "CREATE OR REPLACE MATERIALIZED VIEW fresh AS SELECT 1 AS a FROM t",
    )
    .await;
    assert_eq!(rows(&client, "SELECT count(*) FROM fresh").await, ["500"]);
}

/// Figures of bytes are the machine's.
fn without_bytes(lines: Vec<String>) -> Vec<String> {
    let mask = |line: String| {
        let words: Vec<&str> = line.split(' ').collect();
        let masked = words.iter().enumerate().map(|(i, word)| {
            let is_amount = words
                .get(i + 1)
                .is_some_and(|next| next.starts_with("bytes"));
            if is_amount && *word != "0" { "N" } else { word }
        });
        masked.collect::<Vec<_>>().join(" ")
    };
    lines.into_iter().map(mask).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_what_becomes_of_each_operator() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    tables(&client).await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g",
    )
    .await;
    let explain = |query: &'static str| {
        let client = &client;
        async move {
            let messages = client
                .simple_query(&format!("EXPLAIN ALTER MATERIALIZED VIEW v AS {query}"))
                .await
                .unwrap();
            let lines = messages.iter().filter_map(|m| match m {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            without_bytes(lines.collect())
        }
    };
    assert_eq!(
        explain("SELECT g, count(*) AS n FROM t GROUP BY g HAVING count(*) > 71").await,
        [
            "Materialize key (g)  [migrated: 7 rows, N bytes; rows that differ change in one epoch]",
            "  Filter count(Int64(1)) > Int64(71)  [rebuilt: has no state]",
            "    Aggregate by (g): count(*)  [kept: 7 rows, N bytes]",
            "      Import t (g)  [kept]",
            "State: N bytes kept, 0 bytes dropped",
        ]
    );
    assert_eq!(
        explain("SELECT g, count(*) AS n FROM t GROUP BY g").await,
        [
            "Materialize key (g)  [kept: 7 rows, N bytes]",
            "  Aggregate by (g): count(*)  [kept: 7 rows, N bytes]",
            "    Import t (g)  [kept]",
            "State: N bytes kept, 0 bytes dropped",
        ]
    );
    assert_eq!(
        explain("SELECT g, count(x) AS n FROM t GROUP BY g").await,
        [
            "Materialize key (g)  [migrated: 7 rows, N bytes; rows that differ change in one epoch]",
            "  Aggregate by (g): count(x)  [rebuilt]",
            "    Import t (g, x)  [rebuilt: reads \"t\" from the beginning]",
            "State: 0 bytes kept, N bytes dropped",
        ]
    );
    assert_eq!(
        rows(&client, "SELECT count(*) FROM v").await,
        ["7"],
        "nothing was changed"
    );
}

/// `first_barrier_panic` counts the operators of `v` that pass the first barrier after they were built: those of both
/// plans beside each other, then those of the new plan alone. `worker_panic` counts all barriers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_worker_leaves_the_old_view_or_the_new_one() {
    for interval in ["off", "30ms"] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let failpoint = directory.path().join("failpoint");
        let settings = [
            ("checkpoint_interval", interval),
            ("restart_strategy", "fixed"),
            ("restart_attempts", "100"),
            ("restart_delay", "10ms"),
        ];
        let mut with_failures = command(&data, &settings);
        with_failures.env("TIDEGATE_FAILPOINT", format!("@{}", failpoint.display()));
        let server = Server::spawn(with_failures);
        let client = server.connect().await;
        tables(&client).await;
        let mut present = over(QUERIES[0]);
        run(
            &client,
            &format!(
                "CREATE MATERIALIZED VIEW v AS {present};
                 CREATE MATERIALIZED VIEW w AS SELECT g, count(*) AS times, sum(n) AS total FROM v GROUP BY g"
            ),
        )
        .await;
        let mut seen = [0, 0];
        for round in 1..20 {
            let failure = match round % 3 {
                0 => format!("worker_panic:*:{}", round / 3),
                _ => format!("first_barrier_panic:v:{}", round * 2),
            };
            let new = failpoint.with_extension("new");
            std::fs::write(&new, &failure).unwrap();
            std::fs::rename(&new, &failpoint).unwrap();
            let query = over(QUERIES[round % QUERIES.len()]);
            let sql = format!("ALTER MATERIALIZED VIEW v AS {query}");
            let done = match client.simple_query(&sql).await {
                Ok(_) => true,
                Err(error) => {
                    let error = error.as_db_error().unwrap().clone();
                    // 55006 while workers that were started from an older checkpoint alter the view again.
                    let code = error.code().code();
                    assert!(["55000", "55006"].contains(&code), "{failure}: {error:?}");
                    false
                }
            };
            std::fs::write(&failpoint, "").unwrap();
            let definition = rows(&client, "SHOW CREATE MATERIALIZED VIEW v")
                .await
                .join("");
            assert_eq!(
                definition.contains(&query),
                done || query == present,
                "{failure}"
            );
            if done {
                present = query;
            }
            seen[usize::from(done)] += 1;
            let mut random = StdRng::seed_from_u64(round as u64);
            change(&client, &mut random).await;
            assert_eq!(
                rows(&client, "SELECT * FROM v").await,
                rows(&client, &present).await,
                "{failure} {interval}"
            );
            verify(&client, "v").await;
            verify(&client, "w").await;
        }
        println!(
            "{seen:?} given up and carried out; {} restarts",
            server.metric("tidegate_runtime_restarts_total")
        );
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_over_sources_go_on_from_where_they_are() {
    for backend in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(directory.path(), &[("state_backend", backend)]);
        let client = server.connect().await;
        run(
            &client,
            "CREATE SOURCE bid WITH (connector = 'nexmark', table = 'bid', events = '60000', rate = '15000', seed = '7');
             CREATE MATERIALIZED VIEW v AS SELECT auction, count(*) AS n FROM bid GROUP BY auction;
             CREATE MATERIALIZED VIEW few AS SELECT auction, price FROM bid WHERE price > 5000000;
             CREATE MATERIALIZED VIEW w AS SELECT sum(n) AS bids FROM v",
        )
        .await;
        for (index, query) in [
            // Kept, then built anew, then kept below something else.
            "SELECT auction, count(*) AS n FROM bid GROUP BY auction HAVING count(*) > 2",
            "SELECT auction, count(price) AS n FROM bid WHERE price > 1000 GROUP BY auction",
            "SELECT auction, n + 1 AS n FROM (SELECT auction, count(price) AS n FROM bid WHERE price > 1000 GROUP BY auction) AS s",
        ]
        .into_iter()
        .enumerate()
        {
            run(&client, &format!("ALTER MATERIALIZED VIEW v AS {query}")).await;
            run(&client, &format!("CREATE MATERIALIZED VIEW fresh{index} AS {query}")).await;
            let both = format!(
                "SELECT (SELECT count(*) FROM (SELECT * FROM v EXCEPT ALL SELECT * FROM fresh{index}) AS a),
                        (SELECT count(*) FROM (SELECT * FROM fresh{index} EXCEPT ALL SELECT * FROM v) AS b)"
            );
            assert_eq!(rows(&client, &both).await, ["0|0"], "{query}");
            verify(&client, "w").await;
        }
        // Rows that only arrive are kept in their order; those of another query take their place.
        run(
            &client,
            "ALTER MATERIALIZED VIEW few AS SELECT auction, price FROM bid WHERE price > 8000000",
        )
        .await;
        run(&client, "CREATE MATERIALIZED VIEW fewer AS SELECT auction, price FROM bid WHERE price > 8000000").await;
        assert_eq!(
            rows(&client, "SELECT * FROM few EXCEPT ALL SELECT * FROM fewer")
                .await
                .len(),
            0
        );
        assert_eq!(
            rows(&client, "SELECT * FROM fewer EXCEPT ALL SELECT * FROM few")
                .await
                .len(),
            0
        );
        run(
            &client,
            "CREATE MATERIALIZED VIEW over_few AS SELECT max(price) AS best FROM few",
        )
        .await;
        let error = refused(
            &client,
            "ALTER MATERIALIZED VIEW few AS SELECT auction, price FROM bid",
        )
        .await;
        assert_eq!(error.code().code(), "2BP01");
        assert_eq!(
            error.detail().unwrap(),
            "materialized view over_few relies on rows that are never retracted, and a change of the query retracts"
        );
    }
}

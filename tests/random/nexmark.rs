//! Nexmark: the queries of `sql/nexmark` over a bounded number of events, compared with what Postgres computes from the same
//! events, which it gets by COPY from views that are nothing but the sources.

use crate::reference::{KnownQuery, compare, described, folder, known, rows};
use crate::servers::{Postgres, Tidegate, run};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use std::pin::pin;
use std::time::{Duration, Instant};

const EVENTS: usize = 20_000;
/// The first of an input that only grows, under other names.
const HIGHEST: &str =
    "SELECT auction AS a, price AS p, bidder AS b FROM bid ORDER BY 2 DESC, 1, 3 LIMIT 7";

/// Of fifty events these are persons, auctions and bids.
const SHARES: [(&str, usize); 3] = [("person", 1), ("auction", 3), ("bid", 46)];
const QUERIES: [&str; 16] = [
    "q0", "q1", "q2", "q3", "q4", "q6", "q9", "q10", "q13", "q14", "q15", "q16", "q17", "q20",
    "q21", "q22",
];
/// Queries with windows of time as table functions, and these as Postgres says them.
const WINDOWED: [&str; 5] = ["q5", "q7", "q8", "q11", "q12"];
const WINDOWS: [(&str, &str); 5] = [
    (
        "TUMBLE(bid, date_time, INTERVAL '10 seconds')",
        "(SELECT *, date_bin('10 seconds', date_time, '1970-01-01') AS window_start,
           date_bin('10 seconds', date_time, '1970-01-01') + INTERVAL '10 seconds' AS window_end FROM bid)",
    ),
    (
        "TUMBLE(person, date_time, INTERVAL '10 seconds')",
        "(SELECT *, date_bin('10 seconds', date_time, '1970-01-01') AS window_start,
           date_bin('10 seconds', date_time, '1970-01-01') + INTERVAL '10 seconds' AS window_end FROM person)",
    ),
    (
        "TUMBLE(auction, date_time, INTERVAL '10 seconds')",
        "(SELECT *, date_bin('10 seconds', date_time, '1970-01-01') AS window_start,
           date_bin('10 seconds', date_time, '1970-01-01') + INTERVAL '10 seconds' AS window_end FROM auction)",
    ),
    (
        "HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')",
        "(SELECT b.*, s AS window_start, s + INTERVAL '10 seconds' AS window_end FROM bid AS b, LATERAL
           (SELECT date_bin('2 seconds', date_time, '1970-01-01') - g * INTERVAL '2 seconds' AS s
              FROM generate_series(0, 4) AS g) AS starts)",
    ),
    (
        "SESSION(bid PARTITION BY bidder, date_time, INTERVAL '10 seconds')",
        "(SELECT *, min(date_time) OVER session AS window_start,
             max(date_time) OVER session + INTERVAL '10 seconds' AS window_end
           FROM (SELECT *, count(*) FILTER (WHERE fresh) OVER (PARTITION BY bidder ORDER BY date_time) AS number
             FROM (SELECT *, date_time - lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time)
                 > INTERVAL '10 seconds' AS fresh FROM bid) AS f) AS n
           WINDOW session AS (PARTITION BY bidder, number))",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nexmark_results_equal_what_postgres_computes() {
    let postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(reason) => return eprintln!("SKIPPED: no oracle: {reason}"),
    };
    for backend in ["memory", "rocksdb"] {
        let begin = Instant::now();
        let mut tidegate = Tidegate::start(backend, 2).await;
        for (table, _) in SHARES {
            let source = format!(
                "CREATE SOURCE {table} WITH (connector = 'nexmark', table = '{table}', events = '{EVENTS}', rate = '20000', seed = '5')"
            );
            run(&tidegate.client, &source).await.unwrap();
            let raw = format!("CREATE MATERIALIZED VIEW raw_{table} AS SELECT * FROM {table}");
            run(&tidegate.client, &raw).await.unwrap();
        }
        for name in QUERIES.into_iter().chain(WINDOWED) {
            let sql =
                std::fs::read_to_string(folder("nexmark").join(format!("{name}.sql"))).unwrap();
            let sql = in_little_time(&sql);
            let view = format!("CREATE MATERIALIZED VIEW {name} AS {sql}");
            run(&tidegate.client, &view).await.unwrap();
        }
        let view = format!("CREATE MATERIALIZED VIEW highest AS {HIGHEST}");
        run(&tidegate.client, &view).await.unwrap();
        // In the middle of the events.
        tokio::time::sleep(Duration::from_millis(300)).await;
        tidegate.crash().await;
        for (table, share) in SHARES {
            all_arrived(&tidegate, table, EVENTS / 50 * share).await;
        }
        copy_all(&tidegate, &postgres).await;
        let mut compared = Vec::new();
        for name in QUERIES.into_iter().chain(WINDOWED) {
            let mut query = match WINDOWED.contains(&name) {
                true => windowed(&postgres, name).await,
                false => known(&postgres, &folder("nexmark"), name).await,
            };
            let view = format!("SELECT * FROM {name}");
            compare(&tidegate, &postgres, &mut query, &view, backend).await;
            assert!(query.rows > 0, "{name} has rows");
            compared.push(format!("{name} {}", query.rows));
        }
        let mut highest = described(&postgres, "highest", HIGHEST).await;
        compare(
            &tidegate,
            &postgres,
            &mut highest,
            "SELECT * FROM highest",
            backend,
        )
        .await;
        eprintln!(
            "Nexmark on {backend}, {EVENTS} events, 1 crash, rows compared: {}; {:.1} s",
            compared.join(", "),
            begin.elapsed().as_secs_f64()
        );
    }
}

/// A query of a file, as Postgres can be asked it.
async fn windowed(postgres: &Postgres, name: &str) -> KnownQuery {
    let sql = std::fs::read_to_string(folder("nexmark").join(format!("{name}.sql"))).unwrap();
    let lines = sql.lines().filter(|line| !line.starts_with("--"));
    let mut said = lines.collect::<Vec<_>>().join("\n");
    for (window, query) in WINDOWS {
        said = said.replace(window, query);
    }
    described(postgres, name, &in_little_time(&said)).await
}

/// All events come within a second: windows are as much shorter.
fn in_little_time(sql: &str) -> String {
    sql.replace("'10 seconds'", "'100 milliseconds'")
        .replace("'2 seconds'", "'20 milliseconds'")
}

async fn all_arrived(tidegate: &Tidegate, table: &str, expected: usize) {
    let count = format!("SELECT count(*) FROM raw_{table}");
    let start = Instant::now();
    while rows(tidegate, &count).await[0][0].as_deref() != Some(expected.to_string().as_str()) {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "not all of {table}: {}",
            tidegate.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The other views have what this one has.
    run(&tidegate.client, "FLUSH").await.unwrap();
}

/// Makes the tables in Postgres as the views are, and fills them.
async fn copy_all(tidegate: &Tidegate, postgres: &Postgres) {
    for (table, _) in SHARES {
        let raw = format!("SELECT * FROM raw_{table}");
        let statement = tidegate.client.prepare(&raw).await.unwrap();
        let columns = statement.columns().iter();
        let columns = columns.map(|c| format!("{} {}", c.name(), c.type_().name()));
        let columns: Vec<String> = columns.collect();
        for sql in [
            format!("DROP TABLE IF EXISTS {table}"),
            format!("CREATE TABLE {table} ({})", columns.join(", ")),
        ] {
            run(&postgres.client, &sql).await.unwrap();
        }
        let out = format!("COPY ({raw}) TO STDOUT");
        let out = tidegate.client.copy_out(&out);
        let pieces: Vec<Bytes> = out.await.unwrap().try_collect().await.unwrap();
        let into = format!("COPY {table} FROM STDIN");
        let into = postgres.client.copy_in(&into);
        let mut into = pin!(into.await.unwrap());
        for piece in pieces {
            into.send(piece).await.unwrap();
        }
        into.finish().await.unwrap();
    }
}

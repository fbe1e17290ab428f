//! Watermarks, late rows, windows that close, and state that does not grow, on the real server, which is killed in between.

use crate::server::{Server, refused, rows, run};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// Asks until the answer is this.
async fn becomes(client: &Client, sql: &str, expected: &[&str]) {
    let start = Instant::now();
    loop {
        let found = rows(client, sql).await;
        if found == expected {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{sql}\nexpected {expected:?}\nfound {found:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const MINUTES: &str = "SELECT window_start, count(*) AS n, sum(amount) AS total
     FROM TUMBLE(orders, at, INTERVAL '1 minute') GROUP BY window_start";

async fn order(client: &Client, at: &str, amount: i32) {
    let sql = format!("INSERT INTO orders VALUES ('2024-01-01 {at}', {amount})");
    run(client, &sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_close_once_and_late_rows_are_left_out_also_across_a_crash() {
    for backend in ["memory", "rocksdb"] {
        let directory = tempfile::tempdir().unwrap();
        let settings = [("state_backend", backend), ("checkpoint_interval", "100ms")];
        let mut server = Server::start(directory.path(), &settings);
        let mut client = server.connect().await;
        run(
            &client,
            "CREATE TABLE orders (at timestamp, amount int, WATERMARK FOR at AS at - INTERVAL '10 seconds') APPEND ONLY",
        )
        .await;
        let closed = format!("CREATE MATERIALIZED VIEW closed AS {MINUTES} EMIT ON WINDOW CLOSE");
        run(&client, &closed).await;
        let open = format!("CREATE MATERIALIZED VIEW open AS {MINUTES}");
        run(&client, &open).await;

        order(&client, "10:00:05", 1).await;
        order(&client, "10:00:59", 2).await;
        order(&client, "10:01:05", 4).await;
        // The watermark is at 10:00:55: out of order, and not late.
        order(&client, "10:00:56", 8).await;
        becomes(
            &client,
            "SELECT * FROM open ORDER BY 1",
            &["2024-01-01 10:00:00|3|11", "2024-01-01 10:01:00|1|4"],
        )
        .await;
        assert!(rows(&client, "SELECT * FROM closed").await.is_empty());
        // And now the first minute is over.
        order(&client, "10:01:10", 16).await;
        becomes(
            &client,
            "SELECT * FROM closed",
            &["2024-01-01 10:00:00|3|11"],
        )
        .await;
        order(&client, "10:00:58", 32).await;
        becomes(
            &client,
            "SELECT name, column_name, delay, watermark, late_rows FROM tidegate.watermarks",
            &["orders|at|00:00:10|2024-01-01 10:01:00+00|1"],
        )
        .await;
        run(&client, "CHECKPOINT").await;

        server.kill();
        server.wait();
        server = Server::start(directory.path(), &settings);
        client = server.connect().await;
        // Late before, late after.
        order(&client, "10:00:59", 64).await;
        order(&client, "10:01:30", 128).await;
        order(&client, "10:02:30", 256).await;
        becomes(
            &client,
            "SELECT * FROM closed ORDER BY 1",
            &["2024-01-01 10:00:00|3|11", "2024-01-01 10:01:00|3|148"],
        )
        .await;
        becomes(
            &client,
            "SELECT * FROM open ORDER BY 1",
            &[
                "2024-01-01 10:00:00|3|11",
                "2024-01-01 10:01:00|3|148",
                "2024-01-01 10:02:00|1|256",
            ],
        )
        .await;
        // A table holds the rows that were not late, so that a view made later is no different.
        let later = format!("CREATE MATERIALIZED VIEW later AS {MINUTES} EMIT ON WINDOW CLOSE");
        run(&client, &later).await;
        becomes(
            &client,
            "SELECT * FROM later ORDER BY 1",
            &["2024-01-01 10:00:00|3|11", "2024-01-01 10:01:00|3|148"],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_of_windows_gets_another_query() {
    for backend in ["memory", "rocksdb"] {
        let directory = tempfile::tempdir().unwrap();
        let settings = [("state_backend", backend), ("checkpoint_interval", "100ms")];
        let mut server = Server::start(directory.path(), &settings);
        let mut client = server.connect().await;
        run(
            &client,
            "CREATE TABLE orders (at timestamp, amount int, WATERMARK FOR at AS at - INTERVAL '10 seconds') APPEND ONLY",
        )
        .await;
        let closed = format!("CREATE MATERIALIZED VIEW closed AS {MINUTES} EMIT ON WINDOW CLOSE");
        let open = format!("CREATE MATERIALIZED VIEW open AS {MINUTES}");
        run(&client, &format!("{closed}; {open};")).await;
        for (at, amount) in [("10:00:05", 1), ("10:00:59", 2), ("10:01:15", 4)] {
            order(&client, at, amount).await;
        }
        // What the windows that are over were made of has been freed; the table has it.
        for view in ["closed", "open"] {
            let query = MINUTES.replace("sum(amount)", "max(amount)");
            run(
                &client,
                &format!("ALTER MATERIALIZED VIEW {view} AS {query}"),
            )
            .await;
        }
        becomes(
            &client,
            "SELECT * FROM closed",
            &["2024-01-01 10:00:00|2|2"],
        )
        .await;
        order(&client, "10:01:20", 8).await;
        server.kill();
        server.wait();
        server = Server::start(directory.path(), &settings);
        client = server.connect().await;
        order(&client, "10:02:30", 16).await;
        let both = ["2024-01-01 10:00:00|2|2", "2024-01-01 10:01:00|2|8"];
        becomes(&client, "SELECT * FROM closed ORDER BY 1", &both).await;
        let all = [both[0], both[1], "2024-01-01 10:02:00|1|16"];
        becomes(&client, "SELECT * FROM open ORDER BY 1", &all).await;

        // It stays one that waits, by whichever statement.
        let shown = rows(&client, "SHOW CREATE MATERIALIZED VIEW closed").await;
        assert!(shown[0].contains("EMIT ON WINDOW CLOSE"), "{shown:?}");
        let replace = format!("CREATE OR REPLACE MATERIALIZED VIEW closed AS {MINUTES}");
        let error = refused(&client, &replace).await;
        assert_eq!(error.code().code(), "0A000", "{error}");
        // Who reads it has freed what lies before the watermark, and cannot be told of it again.
        run(
            &client,
            "CREATE MATERIALIZED VIEW hours AS SELECT date_bin(INTERVAL '1 hour', window_start) AS hour, sum(n) AS n
             FROM closed GROUP BY 1",
        )
        .await;
        let error = refused(
            &client,
            &format!("ALTER MATERIALIZED VIEW closed AS {MINUTES}"),
        )
        .await;
        assert_eq!(error.code().code(), "2BP01", "{error}");
    }
}

/// A file of events in order but for some that are late, and how many are.
fn write_events(path: &Path) -> usize {
    let (mut text, mut late) = (String::new(), 0);
    for second in 0..3000_i64 {
        let mut time = second;
        if second % 100 == 99 {
            // Twenty seconds behind a watermark that is five behind.
            time -= 25;
            late += 1;
        }
        let (minutes, seconds) = (time.div_euclid(60), time.rem_euclid(60));
        text.push_str(&format!(
            "{{\"at\": \"2024-01-01 {:02}:{:02}:{seconds:02}\", \"k\": {}}}\n",
            minutes / 60,
            minutes % 60,
            second % 7
        ));
    }
    std::fs::write(path, text).unwrap();
    late
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_of_a_source_finds_the_same_rows_late() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("events.json");
    let late = write_events(&file);
    let server = Server::start(&directory.path().join("data"), &[]);
    let client = server.connect().await;
    run(
        &client,
        &format!(
            "CREATE SOURCE events (at timestamp, k int, WATERMARK FOR at AS at - INTERVAL '5 seconds')
             WITH (connector = 'file', path = '{}', late_rows = 'errors') FORMAT PLAIN ENCODE JSON",
            file.display()
        ),
    )
    .await;
    let view = |name: &str| {
        format!(
            "CREATE MATERIALIZED VIEW {name} AS SELECT window_end, k, count(*) AS n
             FROM TUMBLE(events, at, INTERVAL '1 minute') GROUP BY window_end, k EMIT ON WINDOW CLOSE"
        )
    };
    run(&client, &view("first")).await;
    let expected = (3000 - late).to_string();
    // The source has ended, so that all its windows are closed.
    becomes(&client, "SELECT sum(n) FROM first", &[&expected]).await;
    run(&client, &view("second")).await;
    becomes(&client, "SELECT sum(n) FROM second", &[&expected]).await;
    let difference = "SELECT count(*) FROM (SELECT * FROM first EXCEPT SELECT * FROM second) AS d";
    assert_eq!(rows(&client, difference).await, ["0"]);
    becomes(
        &client,
        "SELECT ended, late_rows FROM tidegate.watermarks",
        &[&format!("t|{late}")],
    )
    .await;
    let errors = rows(
        &client,
        "SELECT count(*), min(message) FROM tidegate.errors WHERE relation = 'events'",
    )
    .await;
    assert_eq!(
        errors,
        [format!(
            "{late}|the row is late: its time is before the watermark"
        )]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_source_does_not_hold_a_join_back() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [("watermark_idle_timeout", "500ms")];
    let server = Server::start(directory.path(), &settings);
    let client = server.connect().await;
    for table in ["busy", "quiet"] {
        let sql = format!(
            "CREATE TABLE {table} (at timestamp, v int, WATERMARK FOR at AS at) APPEND ONLY"
        );
        run(&client, &sql).await;
    }
    run(
        &client,
        "CREATE MATERIALIZED VIEW joined AS SELECT b.window_start, b.v AS b, q.v AS q
           FROM TUMBLE(busy, at, INTERVAL '1 minute') AS b
           JOIN TUMBLE(quiet, at, INTERVAL '1 minute') AS q ON b.window_start = q.window_start
           EMIT ON WINDOW CLOSE",
    )
    .await;
    run(
        &client,
        "INSERT INTO quiet VALUES ('2024-01-01 10:00:10', 1)",
    )
    .await;
    run(
        &client,
        "INSERT INTO busy VALUES ('2024-01-01 10:00:20', 2)",
    )
    .await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        let second = start.elapsed().as_millis() / 20;
        run(
            &client,
            &format!("INSERT INTO busy VALUES (timestamp '2024-01-01 10:05:00' + interval '{second} seconds', 3)"),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    becomes(
        &client,
        "SELECT * FROM joined",
        &["2024-01-01 10:00:00|2|1"],
    )
    .await;
    // What it gives now is behind.
    run(
        &client,
        "INSERT INTO quiet VALUES ('2024-01-01 10:00:30', 9)",
    )
    .await;
    becomes(
        &client,
        "SELECT late_rows FROM tidegate.watermarks WHERE name = 'quiet'",
        &["1"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_enter_and_leave_as_time_passes_also_across_a_crash() {
    for backend in ["memory", "rocksdb"] {
        let directory = tempfile::tempdir().unwrap();
        let settings = [("state_backend", backend), ("checkpoint_interval", "100ms")];
        let mut server = Server::start(directory.path(), &settings);
        let mut client = server.connect().await;
        run(
            &client,
            "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz)",
        )
        .await;
        run(
            &client,
            "CREATE MATERIALIZED VIEW shown AS SELECT id FROM notes
               WHERE at <= now() AND at > now() - INTERVAL '2 seconds'",
        )
        .await;
        run(
            &client,
            "CREATE MATERIALIZED VIEW past AS SELECT count(*) AS n FROM notes WHERE at <= now()",
        )
        .await;
        run(
            &client,
            "INSERT INTO notes VALUES (1, now()), (2, now() + INTERVAL '3 seconds'), (3, now() - INTERVAL '1 hour'),
               (4, now() + INTERVAL '1 day')",
        )
        .await;
        becomes(&client, "SELECT * FROM shown", &["1"]).await;
        becomes(&client, "SELECT * FROM past", &["2"]).await;
        // Nothing comes, and they leave and enter.
        becomes(&client, "SELECT * FROM shown", &[]).await;
        run(&client, "CHECKPOINT").await;
        server.kill();
        server.wait();
        server = Server::start(directory.path(), &settings);
        client = server.connect().await;
        becomes(&client, "SELECT * FROM shown", &["2"]).await;
        becomes(&client, "SELECT * FROM past", &["3"]).await;
        run(&client, "DELETE FROM notes WHERE id = 2").await;
        becomes(&client, "SELECT * FROM shown", &[]).await;
        becomes(&client, "SELECT * FROM past", &["2"]).await;
        run(&client, "UPDATE notes SET at = now() WHERE id = 4").await;
        becomes(&client, "SELECT * FROM shown", &["4"]).await;
        becomes(&client, "SELECT * FROM shown", &[]).await;
        becomes(&client, "SELECT * FROM past", &["3"]).await;
    }
}

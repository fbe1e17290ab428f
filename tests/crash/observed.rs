//! What a person can see of checkpoints: in SQL, over restarts, and as figures for Prometheus.

use crate::modes::{Scene, number, until_checkpointed};
use crate::server::{refused, rows, run, until_rows};
use tokio_postgres::Client;

const ALL: &str = "SELECT id, epoch, status, cause, duration_ms, alignment_ms, sync_ms, async_ms, bytes_written, bytes_total, \
     in_flight_bytes, mode, execution, alignment, guarantee FROM tidegate.checkpoints";
const WORKERS: &str = "SELECT * FROM tidegate.checkpoint_workers";
const OPERATORS: &str = "SELECT * FROM tidegate.checkpoint_operators";

async fn insert(client: &Client, from: i64, to: i64) {
    run(
        client,
        &format!("INSERT INTO t SELECT g, g % 10 FROM generate_series({from}, {to}) AS s(g)"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_checkpoints_survives_restarts_and_adds_up() {
    let scene = Scene::new(&[("checkpoint_interval", "off")]);
    let mut server = scene.start("2");
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id bigint PRIMARY KEY, g bigint);
         CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g",
    )
    .await;
    insert(&client, 1, 5_000).await;
    run(&client, "CHECKPOINT").await;
    insert(&client, 5_001, 5_100).await;
    run(&client, "CHECKPOINT").await;
    run(&client, "ALTER SYSTEM SET checkpoint_timeout = '100ms'").await;
    scene.slow("operator_slow:v:300");
    insert(&client, 5_101, 5_101).await;
    refused(&client, "CHECKPOINT").await;
    scene.slow("");
    run(&client, "ALTER SYSTEM RESET checkpoint_timeout").await;
    // Twice: the last one holds nothing but what the aborted one would have.
    run(&client, "CHECKPOINT").await;
    let ended = "SELECT status, count(*) FROM tidegate.checkpoints GROUP BY status";
    assert_eq!(rows(&client, ended).await, ["aborted|1", "completed|3"]);
    let named = "SELECT DISTINCT relation FROM tidegate.checkpoint_operators WHERE rows > 0";
    assert_eq!(rows(&client, named).await, ["t", "v"]);
    // Both tables' rows, on both workers, and in each checkpoint as many as changed.
    let of_table = "SELECT sum(o.rows) FROM tidegate.checkpoint_operators AS o WHERE o.relation = 't' AND o.type = 'Materialize' \
         GROUP BY o.checkpoint_id";
    assert_eq!(rows(&client, of_table).await, ["1", "100", "5000"]);
    let sums = "SELECT c.id FROM tidegate.checkpoints AS c JOIN (SELECT checkpoint_id, sum(rows) AS rows, sum(bytes) AS bytes, \
             max(sync_ms) AS sync FROM tidegate.checkpoint_workers GROUP BY checkpoint_id) AS w ON w.checkpoint_id = c.id \
         JOIN (SELECT checkpoint_id, sum(rows) AS rows, sum(bytes) AS bytes FROM tidegate.checkpoint_operators \
             GROUP BY checkpoint_id) AS o ON o.checkpoint_id = c.id \
         WHERE w.rows = o.rows AND w.bytes = c.bytes_written AND o.bytes <= w.bytes AND o.bytes > 0 AND w.sync = c.sync_ms";
    assert_eq!(rows(&client, sums).await.len(), 3);
    for (figure, expected) in [
        (
            "tidegate_checkpoint_checkpoints_total{status=\"completed\"}",
            3.0,
        ),
        (
            "tidegate_checkpoint_checkpoints_total{status=\"aborted\"}",
            1.0,
        ),
        ("tidegate_checkpoint_duration_seconds_count", 3.0),
    ] {
        assert_eq!(server.metric(figure), expected, "{figure}");
    }
    let written = number(
        &client,
        "SELECT sum(bytes_written) FROM tidegate.checkpoints",
    )
    .await;
    assert_eq!(
        server.metric("tidegate_checkpoint_written_bytes_total"),
        written
    );
    let last = "SELECT bytes FROM tidegate.checkpoint_workers WHERE worker = 1 ORDER BY checkpoint_id DESC LIMIT 1";
    let last = number(&client, last).await;
    let figure = "tidegate_checkpoint_worker_written_bytes{worker=\"1\"}";
    assert_eq!(server.metric(figure), last);
    let mut before = Vec::new();
    for sql in [ALL, WORKERS, OPERATORS] {
        before.push(rows(&client, sql).await);
    }
    drop(client);
    server.terminate();
    server.wait();
    let server = scene.start("1");
    let client = server.connect().await;
    for (sql, before) in [ALL, WORKERS, OPERATORS].into_iter().zip(before) {
        let after = rows(&client, sql).await;
        let lost: Vec<_> = before.iter().filter(|row| !after.contains(row)).collect();
        assert!(lost.is_empty(), "{sql}: {lost:?} are not in {after:?}");
    }
    assert_eq!(
        rows(&client, "SHOW CHECKPOINTS").await.len(),
        rows(&client, ALL).await.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_barrier_overtook_are_shown_where_they_waited() {
    let scene = Scene::new(&[
        ("checkpoint_interval", "100ms"),
        ("checkpoint_alignment", "unaligned"),
        ("rows_per_epoch", "32768"),
    ]);
    let server = scene.start("2");
    let client = server.connect().await;
    run(
        &client,
        "CREATE SOURCE s (id bigint) WITH (connector = 'datagen', rows = '400000', \"rows.per.second\" = '50000',
             \"fields.id.kind\" = 'sequence');
         SET background_ddl = on;
         CREATE MATERIALIZED VIEW slow AS SELECT id % 10 AS g, count(*) AS n FROM s GROUP BY id % 10",
    )
    .await;
    scene.slow("batch_slow:slow:20");
    until_checkpointed(&client, "in_flight_bytes > 0").await;
    scene.slow("");
    let where_they_waited = "SELECT DISTINCT o.relation FROM tidegate.checkpoint_operators AS o WHERE o.in_flight_bytes > 0";
    assert_eq!(rows(&client, where_they_waited).await, ["slow"]);
    let differ = "SELECT c.id FROM tidegate.checkpoints AS c JOIN (SELECT checkpoint_id, sum(in_flight_bytes) AS bytes \
         FROM tidegate.checkpoint_operators GROUP BY checkpoint_id) AS o ON o.checkpoint_id = c.id WHERE o.bytes <> c.in_flight_bytes";
    assert_eq!(rows(&client, differ).await, [""; 0]);
    assert!(server.metric("tidegate_checkpoint_in_flight_bytes_total") > 0.0);
    assert!(server.metric("tidegate_checkpoint_unaligned_total") >= 1.0);
}

/// `rows in=… out=…` and the rest of a line of `EXPLAIN ANALYZE`.
fn figure(plan: &[String], operator: &str, name: &str) -> u64 {
    let line = plan.iter().find(|l| l.trim_start().starts_with(operator));
    let line = line.unwrap_or_else(|| panic!("{operator} in {plan:?}"));
    let (_, rest) = line
        .split_once(name)
        .unwrap_or_else(|| panic!("{name} in {line}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_view_tells_what_its_operators_do_and_keep() {
    let scene = Scene::new(&[]);
    let server = scene.start("2");
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY, g bigint)").await;
    insert(&client, 1, 1_000).await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t WHERE id > 100 GROUP BY g",
    )
    .await;
    // Rows that go while history is still being read may never be seen.
    until_rows(&client, "SHOW JOBS", |jobs| jobs.is_empty()).await;
    run(&client, "DELETE FROM t WHERE id BETWEEN 901 AND 1000").await;
    run(&client, "FLUSH").await;
    let explain = "EXPLAIN ANALYZE MATERIALIZED VIEW v";
    let plan = rows(&client, explain).await;
    // 900 rows that came and 100 that went, in ten groups.
    assert_eq!(figure(&plan, "Import", "out="), 1_100);
    assert_eq!(figure(&plan, "Aggregate", "rows in="), 1_000);
    assert_eq!(figure(&plan, "Aggregate", "state rows="), 10);
    assert!(figure(&plan, "Aggregate", "bytes=") > 0);
    assert_eq!(figure(&plan, "Materialize", "state rows="), 10);
    assert_eq!(
        figure(&plan, "Materialize", "rows in="),
        figure(&plan, "Aggregate", "out=")
    );
    let explain = "EXPLAIN (ANALYZE, VERBOSE) MATERIALIZED VIEW v";
    let plan = rows(&client, explain).await;
    let workers = plan
        .iter()
        .filter(|l| l.trim_start().starts_with("worker "));
    assert_eq!(workers.count(), 2 * figure_lines(&plan));
    refused(&client, "EXPLAIN ANALYZE MATERIALIZED VIEW t").await;
}

/// Operators among the lines.
fn figure_lines(plan: &[String]) -> usize {
    let workers = |l: &&String| l.trim_start().starts_with("worker ");
    plan.iter().filter(|l| !workers(l)).count()
}

//! What exactly-once and at-least-once are worth: two views of one source, with one guarantee each, through the same
//! crashes of the same server.
//!
//! One worker is slow, so that it lets a barrier pass late while rows behind that barrier already come from the other. The
//! at-least-once view has processed them when the checkpoint is taken, whose offsets lie before them; after the crash they
//! are read again. A third view over the same rows takes the time, so that the two are not held up themselves.

use crate::modes::{Scene, number, until_checkpointed};
use crate::server::{rows, run, until_rows};
use tokio_postgres::Client;

const PER_SECOND: u64 = 4_000;
const CRASHES: usize = 4;
/// After so many of them rows must be there twice; on an idle machine that takes more crashes.
const DOUBLING: usize = 2;
const MOST_CRASHES: usize = 24;

async fn create(client: &Client) {
    run(
        client,
        &format!(
            "CREATE SOURCE s (id bigint) WITH (connector = 'datagen', splits = '4',
                 \"rows.per.second\" = '{PER_SECOND}', \"fields.id.kind\" = 'sequence');
             SET background_ddl = on;
             CREATE MATERIALIZED VIEW once WITH (checkpoint_guarantee = 'exactly_once')
                 AS SELECT id, count(*) AS n FROM s GROUP BY id;
             CREATE MATERIALIZED VIEW twice WITH (checkpoint_guarantee = 'at_least_once')
                 AS SELECT id, count(*) AS n FROM s GROUP BY id;
             CREATE MATERIALIZED VIEW late AS SELECT id % 100 AS g, count(*) AS n FROM s GROUP BY id % 100"
        ),
    )
    .await;
    until_rows(client, "SHOW JOBS", <[String]>::is_empty).await;
}

/// Rows beyond the first of each id.
async fn doubles(client: &Client, view: &str) -> f64 {
    number(
        client,
        &format!("SELECT coalesce(sum(n - 1), 0) FROM {view}"),
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_same_crashes_at_least_once_doubles_rows_exactly_once_does_not_and_none_loses() {
    let scene = Scene::new(&[("checkpoint_interval", "40ms"), ("rows_per_epoch", "32768")]);
    let mut server = scene.start("2");
    let mut client = server.connect().await;
    create(&client).await;
    let mut grown: Vec<f64> = Vec::new();
    let doubling = |grown: &[f64]| grown.iter().filter(|rows| **rows > 0.0).count();
    for crash in 0..MOST_CRASHES {
        // Whether a crash falls between the barriers of two workers is chance.
        if crash >= CRASHES && doubling(&grown) >= DOUBLING {
            break;
        }
        let before = doubles(&client, "twice").await;
        scene.slow(&format!("operator_slow:late@{}:15", crash % 2));
        for _ in 0..3 {
            until_checkpointed(&client, "status = 'completed'").await;
        }
        server.kill();
        server.wait();
        scene.slow("");
        server = scene.start("2");
        client = server.connect().await;
        // What was read again is behind the next checkpoint.
        until_checkpointed(&client, "status = 'completed'").await;
        grown.push(doubles(&client, "twice").await - before);
        assert_eq!(doubles(&client, "once").await, 0.0, "crash {crash}");
    }
    println!("rows that at least once doubled at each crash: {grown:?}");
    // Of each split the first so many rows, each once.
    let prefixes =
        "SELECT id % 4, count(*), (max(id) - id % 4) / 4 + 1, max(n) FROM once GROUP BY id % 4";
    for row in rows(&client, prefixes).await {
        let cells: Vec<u64> = row.split('|').map(|c| c.parse().unwrap()).collect();
        assert!(cells[1] == cells[2] && cells[3] == 1, "exactly once: {row}");
    }
    let lost =
        "SELECT once.id FROM once LEFT JOIN twice ON twice.id = once.id WHERE twice.id IS NULL";
    assert_eq!(
        rows(&client, lost).await,
        [""; 0],
        "at least once has lost rows"
    );
    assert!(
        doubling(&grown) >= DOUBLING,
        "at least once doubled rows at fewer than {DOUBLING} crashes: {grown:?}"
    );
}

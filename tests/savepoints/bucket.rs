//! Checkpoints and savepoints in a bucket: the server is killed, and another one begins with what was saved.

use crate::moto::{MISSING, Moto};
use crate::server::{Server, command, rows, run};
use std::path::Path;
use tokio_postgres::Client;

const VIEW: &str = "SELECT g, count(*) AS n, sum(x) AS total FROM t GROUP BY g";

async fn expect_right(client: &Client, count: &str) {
    assert_eq!(rows(client, "SELECT count(*) FROM t").await, [count]);
    assert_eq!(
        rows(client, "SELECT * FROM v ORDER BY 1").await,
        rows(client, &format!("{VIEW} ORDER BY 1")).await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_checkpoints_are_in_a_bucket_is_killed_and_moved() {
    let Some(moto) = tokio::task::spawn_blocking(Moto::start).await.unwrap() else {
        return eprintln!("SKIPPED a_server_whose_checkpoints_are_in_a_bucket: {MISSING}");
    };
    moto.create_bucket("tides");
    for backend in ["memory", "rocksdb"] {
        let directory = tempfile::tempdir().unwrap();
        let storage = moto.url(&format!("tides/{backend}/checkpoints"));
        let settings = [
            ("state_backend", backend),
            ("checkpoint_storage", &storage),
            ("checkpoint_interval", "200ms"),
        ];
        let start = |name: &str| {
            let data: &Path = &directory.path().join(name);
            command(data, &settings)
        };
        let mut server = Server::spawn(start("first"));
        let client = server.connect().await;
        run(
            &client,
            &format!("CREATE TABLE t (id bigint PRIMARY KEY, g bigint, x bigint); CREATE MATERIALIZED VIEW v AS {VIEW}"),
        )
        .await;
        let insert = |from: i64, to: i64| {
            format!(
                "INSERT INTO t SELECT i, i % 13, i * 7 FROM generate_series({from}, {to}) AS s(i)"
            )
        };
        run(&client, &insert(1, 3_000)).await;
        run(&client, "CHECKPOINT").await;
        // The log has these, and no checkpoint.
        run(&client, &insert(3_001, 3_100)).await;
        server.kill();
        server.wait();
        let server = Server::spawn(start("first"));
        let client = server.connect().await;
        expect_right(&client, "3100").await;

        let place = moto.url(&format!("tides/{backend}/elsewhere"));
        run(&client, &format!("SAVEPOINT moving TO '{place}'")).await;
        run(&client, "DELETE FROM t WHERE id > 100").await;
        expect_right(&client, "100").await;
        // Another server, with nothing but the bucket.
        let mut begin = crate::begin::command(
            &directory.path().join("second"),
            3,
            &[("state_backend", "memory")],
        );
        begin.args(["--from-savepoint", &place]);
        let second = Server::spawn(begin);
        let client = second.connect().await;
        expect_right(&client, "3100").await;
        run(&client, &insert(3_101, 3_200)).await;
        expect_right(&client, "3200").await;
    }
}

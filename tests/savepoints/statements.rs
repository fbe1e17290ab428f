//! The statements of savepoints, through the wire.

use crate::server::{Server, rows, run};
use tokio_postgres::Client;

async fn code(client: &Client, sql: &str) -> (String, String) {
    let error = client.simple_query(sql).await.expect_err(sql);
    let error = error
        .as_db_error()
        .unwrap_or_else(|| panic!("{sql}: {error:?}"));
    (error.code().code().to_owned(), error.message().to_owned())
}

async fn fill(client: &Client) {
    run(client, "CREATE TABLE t (id bigint PRIMARY KEY, g text)").await;
    run(
        client,
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g",
    )
    .await;
    run(
        client,
        "CREATE MATERIALIZED VIEW u AS SELECT count(*) AS n FROM t",
    )
    .await;
    run(
        client,
        "INSERT INTO t SELECT i, 'g' || (i % 2)::text FROM generate_series(1, 10) AS s(i)",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_read_by_savepoint_epoch_and_time() {
    for backend in ["memory", "rocksdb"] {
        let directory = tempfile::tempdir().unwrap();
        let settings = [("state_backend", backend), ("checkpoint_interval", "off")];
        let server = Server::start(directory.path(), &settings);
        let client = server.connect().await;
        fill(&client).await;
        run(&client, "SAVEPOINT one").await;
        let epoch = rows(
            &client,
            "SELECT epoch FROM tidegate.savepoints WHERE name = 'one'",
        )
        .await;
        run(&client, "DELETE FROM t WHERE id <= 5").await;
        run(&client, "INSERT INTO t VALUES (11, 'new')").await;
        let past = "SELECT g, n FROM v FOR SYSTEM_TIME AS OF SAVEPOINT one";
        assert_eq!(rows(&client, past).await, ["g0|5", "g1|5"]);
        assert_eq!(
            rows(&client, "SELECT * FROM v").await,
            ["g0|3", "g1|2", "new|1"]
        );
        let both = "SELECT now.g, now.n, v.n FROM v FOR SYSTEM_TIME AS OF SAVEPOINT one FULL JOIN v AS now ON now.g = v.g";
        assert_eq!(rows(&client, both).await, ["g0|3|5", "g1|2|5", "new|1|∅"]);
        let gone = "SELECT id FROM public.t FOR SYSTEM_TIME AS OF SAVEPOINT \"one\" AS old WHERE old.id < 3 AND id NOT IN (SELECT id FROM t)";
        assert_eq!(rows(&client, gone).await, ["1", "2"]);
        let at = format!("SELECT count(*) FROM t FOR SYSTEM_TIME AS OF {}", epoch[0]);
        assert_eq!(rows(&client, &at).await, ["10"]);
        let now = "SELECT count(*) FROM t FOR SYSTEM_TIME AS OF '2100-01-01 00:00:00'";
        assert_eq!(rows(&client, now).await, ["10"], "the newest that is kept");
        run(&client, "CHECKPOINT").await;
        assert_eq!(rows(&client, now).await, ["6"]);
        let (state, message) = code(&client, "SELECT * FROM v FOR SYSTEM_TIME AS OF 3").await;
        assert_eq!(
            (state.as_str(), message.as_str()),
            ("55000", "the state as of epoch 3 is not kept")
        );
        let (state, _) = code(
            &client,
            "SELECT * FROM v FOR SYSTEM_TIME AS OF '1999-01-01'",
        )
        .await;
        assert_eq!(state, "55000");
        let (state, _) = code(
            &client,
            "SELECT * FROM v FOR SYSTEM_TIME AS OF SAVEPOINT nothing",
        )
        .await;
        assert_eq!(state, "3B001");
        // What was dropped since is still in the savepoint.
        run(&client, "DROP MATERIALIZED VIEW v").await;
        assert_eq!(rows(&client, past).await, ["g0|5", "g1|5"]);
        run(
            &client,
            "CREATE MATERIALIZED VIEW late AS SELECT 1 AS one FROM t",
        )
        .await;
        let (state, _) = code(
            &client,
            "SELECT * FROM late FOR SYSTEM_TIME AS OF SAVEPOINT one",
        )
        .await;
        assert_eq!(state, "42P01");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn savepoints_of_views_elsewhere_and_wrong_ones() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"), &[]);
    let client = server.connect().await;
    fill(&client).await;
    let place = directory.path().join("place");
    run(&client, "SAVEPOINT whole").await;
    run(
        &client,
        &format!(
            "SAVEPOINT part FOR MATERIALIZED VIEW v TO '{}'",
            place.display()
        ),
    )
    .await;
    let listed = rows(
        &client,
        "SELECT name, views::text, format FROM tidegate.savepoints",
    )
    .await;
    assert_eq!(listed, ["part|{v}|native", "whole|{u,v}|native"]);
    run(&client, "DELETE FROM t").await;
    let past = "SELECT g, n FROM v FOR SYSTEM_TIME AS OF SAVEPOINT part";
    assert_eq!(rows(&client, past).await, ["g0|5", "g1|5"]);
    let (state, _) = code(
        &client,
        "SELECT * FROM u FOR SYSTEM_TIME AS OF SAVEPOINT part",
    )
    .await;
    assert_eq!(state, "55000");
    let (state, _) = code(&client, "SAVEPOINT part").await;
    assert_eq!(state, "42710");
    let (state, message) = code(&client, "SAVEPOINT x WITH (format = 'csv')").await;
    assert_eq!(
        (state.as_str(), message.as_str()),
        ("22023", "unknown format \"csv\" of a savepoint")
    );
    let (state, _) = code(&client, "SAVEPOINT x WITH (colour = 'red')").await;
    assert_eq!(state, "42601");
    let (state, _) = code(&client, "SAVEPOINT x FOR MATERIALIZED VIEW t").await;
    assert_eq!(state, "42809");
    let (state, _) = code(&client, "SAVEPOINT x TO 'ftp://somewhere'").await;
    assert_eq!(state, "22023");
    let (state, _) = code(&client, "VERIFY SAVEPOINT nothing").await;
    assert_eq!(state, "3B001");
    // Where it was copied to is gone: that is said, and the reference stays.
    std::fs::remove_dir_all(&place).unwrap();
    let (state, _) = code(&client, "VERIFY SAVEPOINT part").await;
    assert_eq!(state, "22023");
    assert_eq!(
        rows(&client, "SELECT count(*) FROM tidegate.savepoints").await,
        ["2"]
    );
    run(&client, "RELEASE SAVEPOINT whole").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_verified_against_their_queries() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    fill(&client).await;
    run(&client, "CREATE MATERIALIZED VIEW f AS SELECT g, avg(id / 3.0::float8) AS a, sum(0.1::float8) AS s FROM t GROUP BY g").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW over AS SELECT n, count(*) AS c FROM v GROUP BY n",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW top AS SELECT id FROM t ORDER BY id DESC LIMIT 3",
    )
    .await;
    run(&client, "UPDATE t SET g = 'g2' WHERE id % 3 = 0").await;
    for view in ["v", "u", "f", "over", "top"] {
        let different = rows(&client, &format!("VERIFY MATERIALIZED VIEW {view}")).await;
        assert!(different.is_empty(), "{view}: {different:?}");
    }
    run(
        &client,
        "CREATE MATERIALIZED VIEW bad AS SELECT 10 / (id - 3) AS x FROM t",
    )
    .await;
    let (state, message) = code(&client, "VERIFY MATERIALIZED VIEW bad").await;
    assert_eq!(state, "55000");
    assert!(message.contains("1 rows fail in it"), "{message}");
    run(
        &client,
        "CREATE SOURCE s (n bigint) WITH (connector = 'datagen', rows = '10')",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW sv AS SELECT count(*) AS n FROM s",
    )
    .await;
    let (state, message) = code(&client, "VERIFY MATERIALIZED VIEW sv").await;
    assert_eq!(state, "55000");
    assert!(
        message.contains("reads source \"s\", which keeps no rows"),
        "{message}"
    );
    let (state, _) = code(&client, "VERIFY MATERIALIZED VIEW t").await;
    assert_eq!(state, "42809");
}

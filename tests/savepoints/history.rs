//! `history_retention`: for how long the past can be read without a savepoint.

use crate::server::{Server, refused, rows, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_stay_as_long_as_the_past_is_to_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [
        ("checkpoint_interval", "off"),
        ("checkpoint_retained", "1"),
        ("history_retention", "1h"),
    ];
    let mut server = Server::start(directory.path(), &settings);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY)").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t",
    )
    .await;
    let mut epochs = Vec::new();
    let mut times = Vec::new();
    for id in 1..=6 {
        run(&client, &format!("INSERT INTO t VALUES ({id})")).await;
        run(&client, "CHECKPOINT").await;
        let newest = "SELECT max(epoch) FROM tidegate.checkpoints WHERE status = 'completed'";
        epochs.push(rows(&client, newest).await.remove(0));
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        times.push(rows(&client, "SELECT now()::text").await.remove(0));
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    for (index, (epoch, time)) in epochs.iter().zip(&times).enumerate() {
        let expected = [(index + 1).to_string()];
        let at_epoch = format!("SELECT n FROM v FOR SYSTEM_TIME AS OF {epoch}");
        assert_eq!(rows(&client, &at_epoch).await, expected, "epoch {epoch}");
        let at_time = format!("SELECT n FROM v FOR SYSTEM_TIME AS OF '{time}'");
        assert_eq!(rows(&client, &at_time).await, expected, "{time}");
    }
    // A time relative to now, which is another one whenever the statement is executed.
    run(
        &client,
        "PREPARE then AS SELECT n FROM v FOR SYSTEM_TIME AS OF now() - INTERVAL '50 milliseconds'",
    )
    .await;
    assert_eq!(rows(&client, "EXECUTE then").await, ["6"]);
    run(&client, "DELETE FROM t WHERE id = 6").await;
    run(&client, "CHECKPOINT").await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(rows(&client, "EXECUTE then").await, ["5"]);
    let long_ago = refused(
        &client,
        "SELECT n FROM v FOR SYSTEM_TIME AS OF now() - INTERVAL '2' DAY",
    )
    .await;
    assert_eq!(long_ago.code().code(), "55000");
    run(&client, "INSERT INTO t VALUES (6)").await;
    run(&client, "CHECKPOINT").await;
    let newest = "SELECT max(epoch) FROM tidegate.checkpoints WHERE status = 'completed'";
    let newest = rows(&client, newest).await.remove(0);
    // Over a restart, too.
    server.kill();
    server.wait();
    let server = Server::start(directory.path(), &settings);
    let client = server.connect().await;
    let first = format!("SELECT n FROM v FOR SYSTEM_TIME AS OF {}", epochs[0]);
    assert_eq!(rows(&client, &first).await, ["1"]);
    // With a shorter time, what is older goes; the state as of its beginning stays.
    run(&client, "ALTER SYSTEM SET history_retention = '1s'").await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    run(&client, "INSERT INTO t VALUES (7)").await;
    run(&client, "CHECKPOINT").await;
    let error = refused(&client, &first).await;
    assert_eq!(error.code().code(), "55000");
    assert!(
        error.hint().unwrap().contains("history_retention"),
        "{error:?}"
    );
    let last = format!("SELECT n FROM v FOR SYSTEM_TIME AS OF {newest}");
    assert_eq!(rows(&client, &last).await, ["6"]);
    run(&client, "ALTER SYSTEM SET history_retention = 'off'").await;
    run(&client, "INSERT INTO t VALUES (8)").await;
    run(&client, "CHECKPOINT").await;
    let error = refused(&client, &last).await;
    assert_eq!(error.code().code(), "55000");
}

//! `SHUTDOWN`, with a savepoint as the end and without.

use crate::begin::command;
use crate::server::{Server, refused, rows, run, until_rows};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Runs a statement that is the last of its connection; answers whether it was completed.
async fn completed(server: &Server, sql: &str) -> bool {
    let client = server.connect().await;
    let answers = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    answers
        .iter()
        .any(|a| matches!(a, SimpleQueryMessage::CommandComplete(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_is_answered_and_the_others_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY)").await;
    run(&client, "INSERT INTO t VALUES (1), (2)").await;
    run(&client, "BEGIN").await;
    let error = refused(&client, "SHUTDOWN").await;
    assert_eq!(error.code().code(), "25001");
    run(&client, "ROLLBACK").await;
    run(&client, "SAVEPOINT taken").await;
    let error = refused(&client, "SHUTDOWN WITH SAVEPOINT taken").await;
    assert_eq!(error.code().code(), "42710");
    // Nothing can be written there, which shows when the workers have stopped: they are started again.
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("savepoints"), "a file").unwrap();
    let newest = "SELECT max(epoch) FROM tidegate.checkpoints";
    let before: u64 = rows(&client, newest).await[0].parse().unwrap();
    let sql = format!(
        "SHUTDOWN WITH SAVEPOINT there TO '{}'",
        place.path().display()
    );
    let error = refused(&client, &sql).await;
    assert!(
        error.message().contains("savepoints/there.json"),
        "{error:?}"
    );
    run(&client, "CHECKPOINT").await;
    let after: u64 = rows(&client, newest).await[0].parse().unwrap();
    assert!(after > before, "{before}, {after}");
    // It was refused, and the server goes on.
    run(&client, "INSERT INTO t VALUES (3)").await;

    // One waits for a result that will not come, another is idle.
    let address = format!(
        "host=127.0.0.1 port={} user=ann dbname=tidegate",
        server.port
    );
    let (idle, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
    let idle_ends = tokio::spawn(connection);
    let busy = server.connect().await;
    let waiting = tokio::spawn(async move { busy.simple_query("SUBSCRIBE TO t").await });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(completed(&server, "SHUTDOWN").await);
    let error = idle_ends.await.unwrap().expect_err("it ends with an error");
    assert_eq!(error.code().unwrap().code(), "57P01");
    drop(idle);
    match waiting.await.unwrap() {
        // A subscription answers its end, or is cut off.
        Ok(_) => {}
        Err(error) => assert!(
            error.code().is_none_or(|c| c.code() == "57P01"),
            "{error:?}"
        ),
    }
    assert!(server.wait().success());
    let server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    assert_eq!(rows(&client, "SELECT * FROM t").await, ["1", "2", "3"]);
    // It stopped with a last checkpoint.
    assert_eq!(server.replayed_rows(), 0);
}

/// All that a sink has made visible: each line with how often it is there.
fn written(out: &Path) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for entry in std::fs::read_dir(out).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("part-")
        {
            for line in std::fs::read_to_string(path).unwrap().lines() {
                *lines.entry(line.to_owned()).or_default() += 1;
            }
        }
    }
    lines
}

/// Rows come all the time, the server is moved, and afterwards every row is in the output once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_moved_writes_everything_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("in.csv");
    std::fs::write(&file, "").unwrap();
    let (out, place) = (directory.path().join("out"), directory.path().join("place"));
    let settings = [("checkpoint_interval", "50ms")];
    let mut old = Server::start(&directory.path().join("old"), &settings);
    let client = old.connect().await;
    run(&client, &format!(
        "CREATE SOURCE s (x integer) WITH (connector = 'file', path = '{}', follow = 'true') FORMAT PLAIN ENCODE CSV (header = 'false')",
        file.display()
    )).await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY)").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(x) AS total FROM s",
    )
    .await;
    run(&client, &format!(
        "CREATE SINK k AS SELECT x FROM s WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE JSON",
        out.display()
    )).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (stop, file) = (stop.clone(), file.clone());
        move || {
            let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
            let mut next = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                writeln!(file, "{next}").unwrap();
                next += 1;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            next
        }
    });
    until_rows(&client, "SELECT * FROM v", |r| {
        !r.is_empty() && !r[0].starts_with("0|")
    })
    .await;
    run(&client, "INSERT INTO t VALUES (1)").await;
    let sql = format!("SHUTDOWN WITH SAVEPOINT moving TO '{}'", place.display());
    assert!(completed(&old, &sql).await);
    assert!(old.wait().success());
    let mut start = command(&directory.path().join("new"), 3, &settings);
    start.arg("--from-savepoint").arg(&place);
    let new = Server::spawn(start);
    let client = new.connect().await;
    assert_eq!(rows(&client, "SELECT * FROM t").await, ["1"]);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let count: u64 = writer.join().unwrap();
    let expected = format!("{count}|{}", count * (count - 1) / 2);
    until_rows(&client, "SELECT * FROM v", |r| r == [expected.as_str()]).await;
    run(&client, "CHECKPOINT").await;
    let lines = written(&out);
    let twice: Vec<_> = lines.iter().filter(|(_, n)| **n != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(lines.len() as u64, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_waits_for_the_end_of_bounded_sources() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data, &[]);
    let client = server.connect().await;
    run(&client, "CREATE SOURCE s (n bigint) WITH (connector = 'datagen', rows = '3000', \"rows.per.second\" = '2000', \"fields.n.kind\" = 'sequence')").await;
    run(&client, "SET background_ddl = on").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(n) AS total FROM s",
    )
    .await;
    assert!(completed(&server, "SHUTDOWN WITH SAVEPOINT drained DRAIN").await);
    assert!(server.wait().success());
    let mut start = command(&directory.path().join("new"), 2, &[]);
    start
        .arg("--from-savepoint")
        .arg(format!("{}#drained", data.display()));
    let new = Server::spawn(start);
    // The savepoint has it all: it can be read before anything is generated again.
    let past = "SELECT * FROM v";
    assert_eq!(rows(&new.connect().await, past).await, ["3000|4498500"]);
    let server = Server::start(&data, &[]);
    let saved = rows(
        &server.connect().await,
        "SELECT * FROM v FOR SYSTEM_TIME AS OF SAVEPOINT drained",
    )
    .await;
    assert_eq!(saved, ["3000|4498500"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_reads_files_that_nobody_has_looked_for_yet() {
    let directory = tempfile::tempdir().unwrap();
    let (files, out) = (directory.path().join("in"), directory.path().join("out"));
    std::fs::create_dir(&files).unwrap();
    for file in 0..20 {
        let lines = (0..500).map(|i| format!("{{\"n\": {}}}\n", file * 500 + i));
        let name = files.join(format!("{file}.json"));
        std::fs::write(name, lines.collect::<String>()).unwrap();
    }
    let mut server = Server::start(&directory.path().join("data"), &[]);
    let client = server.connect().await;
    let statements = format!(
        "CREATE SOURCE s (n bigint) WITH (connector = 'file', path = '{}', follow = 'false') FORMAT PLAIN ENCODE JSON;
         CREATE SINK written FROM s WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE JSON",
        files.display(),
        out.display()
    );
    run(&client, &statements).await;
    // At once: the source's splits are found by a thread of their own.
    assert!(completed(&server, "SHUTDOWN WITH SAVEPOINT drained DRAIN").await);
    assert!(server.wait().success());
    let lines = written(&out);
    assert_eq!(lines.len(), 10_000);
    assert!(lines.values().all(|n| *n == 1));
}

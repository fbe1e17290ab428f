//! `ROLLBACK TO SAVEPOINT`: what is checked before anything is done, and what becomes of sinks.

use crate::server::{Server, refused, rows, run, until_rows};
use std::path::{Path, PathBuf};
use tokio_postgres::Client;

async fn fill(client: &Client) {
    run(client, "CREATE TABLE t (id bigint PRIMARY KEY, g text)").await;
    run(
        client,
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g",
    )
    .await;
    run(client, "INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, 'b')").await;
}

fn runs(storage: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(storage.join("runs")).unwrap() {
        for run in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            found.push(run.unwrap().path());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_savepoint_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let data = directory.path().join("data");
    let mut server = Server::start(&data, &[("checkpoint_interval", "off")]);
    let client = server.connect().await;
    fill(&client).await;
    run(&client, &format!("SAVEPOINT away TO '{}'", place.display())).await;
    run(&client, "INSERT INTO t VALUES (4, 'c')").await;
    for path in runs(&place) {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
    }
    let error = refused(&client, "ROLLBACK TO SAVEPOINT away").await;
    assert_eq!(error.code().code(), "XX001");
    // Neither did the database go back, nor will it at the next start; nor was a savepoint of the present needed.
    let held = ["a|2", "b|1", "c|1"];
    assert_eq!(rows(&client, "SELECT * FROM v").await, held);
    assert_eq!(
        rows(&client, "SELECT name FROM tidegate.savepoints").await,
        ["away"]
    );
    server.kill();
    server.wait();
    let server = Server::start(&data, &[]);
    assert_eq!(rows(&server.connect().await, "SELECT * FROM v").await, held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_lies_elsewhere_is_brought_back() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let data = directory.path().join("data");
    let mut server = Server::start(&data, &[("checkpoint_interval", "off")]);
    let client = server.connect().await;
    fill(&client).await;
    run(&client, &format!("SAVEPOINT away TO '{}'", place.display())).await;
    run(
        &client,
        &format!(
            "SAVEPOINT part FOR MATERIALIZED VIEW v TO '{}'",
            place.display()
        ),
    )
    .await;
    run(&client, "DELETE FROM t").await;
    let error = refused(&client, "ROLLBACK TO SAVEPOINT part").await;
    assert_eq!(error.code().code(), "0A000");
    assert!(
        error.hint().unwrap().contains("FROM SAVEPOINT"),
        "{error:?}"
    );
    run(&client, "ROLLBACK TO SAVEPOINT away").await;
    assert_eq!(rows(&client, "SELECT * FROM v").await, ["a|2", "b|1"]);
    run(&client, "INSERT INTO t VALUES (9, 'b')").await;
    // From then on the place is not needed.
    std::fs::remove_dir_all(&place).unwrap();
    server.kill();
    server.wait();
    let server = Server::start(&data, &[]);
    let client = server.connect().await;
    assert_eq!(rows(&client, "SELECT * FROM v").await, ["a|2", "b|2"]);
    assert_eq!(
        rows(&client, "VERIFY MATERIALIZED VIEW v").await,
        [] as [String; 0]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_has_to_hold_its_saved_position() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("in.csv");
    std::fs::write(&file, "1\n2\n3\n").unwrap();
    let server = Server::start(&directory.path().join("data"), &[]);
    let client = server.connect().await;
    run(&client, &format!(
        "CREATE SOURCE s (x integer) WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE CSV (header = 'false')",
        file.display()
    )).await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT sum(x) AS total FROM s",
    )
    .await;
    until_rows(&client, "SELECT * FROM v", |r| r == ["6"]).await;
    run(&client, "SAVEPOINT one").await;
    std::fs::write(&file, "1\n").unwrap();
    let error = refused(&client, "ROLLBACK TO SAVEPOINT one").await;
    assert_eq!(error.code().code(), "55000");
    assert_eq!(
        error.message(),
        "source \"s\" no longer holds the position that savepoint \"one\" has of it"
    );
    std::fs::remove_file(&file).unwrap();
    let error = refused(&client, "ROLLBACK TO SAVEPOINT one").await;
    assert_eq!(error.code().code(), "55000");
    assert_eq!(rows(&client, "SELECT * FROM v").await, ["6"]);
    assert_eq!(
        rows(&client, "SELECT name FROM tidegate.savepoints").await,
        ["one"]
    );
}

/// What a sink with a changelog adds up to, and all of its lines.
fn written(out: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(out).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("part-")
        {
            let text = std::fs::read_to_string(path).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sinks_skip_or_replay() {
    for (how, crash) in [
        ("skip", false),
        ("replay", false),
        ("skip", true),
        ("replay", true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let data = directory.path().join("data");
        let mut server = Server::start(&data, &[("checkpoint_interval", "off")]);
        let client = server.connect().await;
        fill(&client).await;
        run(&client, &format!(
            "CREATE SINK k FROM t WITH (connector = 'file', path = '{}', changelog = 'true') FORMAT PLAIN ENCODE JSON",
            out.display()
        )).await;
        run(&client, "SAVEPOINT one").await;
        run(&client, "INSERT INTO t VALUES (4, 'c')").await;
        run(&client, "DELETE FROM t WHERE id = 1").await;
        let error = refused(&client, "ROLLBACK TO SAVEPOINT one").await;
        assert_eq!(error.code().code(), "55000");
        assert!(error.hint().unwrap().contains("'replay'"), "{error:?}");
        let error = refused(&client, "ROLLBACK TO SAVEPOINT one WITH (sinks = 'undo')").await;
        assert_eq!(error.code().code(), "22023");
        let error = refused(&client, "ROLLBACK TO SAVEPOINT one WITH (sources = 'skip')").await;
        assert_eq!(error.code().code(), "42601");
        run(
            &client,
            &format!("ROLLBACK TO SAVEPOINT one WITH (sinks = '{how}')"),
        )
        .await;
        if crash {
            server.kill();
            server.wait();
            server = Server::start(&data, &[("checkpoint_interval", "off")]);
        }
        let client = server.connect().await;
        run(&client, "INSERT INTO t VALUES (5, 'e')").await;
        run(&client, "CHECKPOINT").await;
        assert_eq!(
            rows(&client, "SELECT id FROM t").await,
            ["1", "2", "3", "5"]
        );
        let line =
            |id: u32, g: &str, diff: i32| format!("{{\"id\":{id},\"g\":\"{g}\",\"diff\":{diff}}}");
        // Before the savepoint, until the return, and after it.
        let mut expected = vec![line(1, "a", 1), line(2, "a", 1), line(3, "b", 1)];
        expected.extend([line(4, "c", 1), line(1, "a", -1)]);
        if how == "replay" {
            expected.extend([line(1, "a", 1), line(2, "a", 1), line(3, "b", 1)]);
        }
        expected.push(line(5, "e", 1));
        expected.sort();
        assert_eq!(written(&out), expected, "{how}, crash: {crash}");
        drop(server);
    }
}

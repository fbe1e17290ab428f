//! Bad input is named and set aside, and everything else goes on: unknown options, rows that cannot be read, expressions
//! that fail, a second server on the same storage, files that are damaged.

use super::server::Server;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, SimpleQueryMessage};

async fn run(client: &Client, sql: &str) {
    if let Err(error) = client.simple_query(sql).await {
        panic!("{sql}: {error:?}");
    }
}

/// Rows with `|` between their columns, sorted; NULL is `∅`. A view that is being built is waited for.
async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let begin = Instant::now();
    let messages = loop {
        match client.simple_query(sql).await {
            Ok(messages) => break messages,
            Err(error) => assert!(
                error.code().is_some_and(|c| c.code() == "55000")
                    && begin.elapsed() < Duration::from_secs(20),
                "{sql}: {error:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let cells = (0..row.len()).map(|c| row.get(c).unwrap_or("∅"));
            Some(cells.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

/// Asks until the answer is the expected one.
async fn expect(client: &Client, sql: &str, expected: &[&str]) {
    let begin = Instant::now();
    loop {
        let answer = rows(client, sql).await;
        if answer == expected {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "{sql}\n  expected {expected:#?}\n  answered {answer:#?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn unknown_names() {
    // A statement, its SQLSTATE, and what its message and its hint name.
    const STATEMENTS: &[(&str, &str, &str, &str)] = &[
        (
            "CREATE SOURCE s (a int) WITH (connector = 'flie', path = '/tmp/x') FORMAT PLAIN ENCODE JSON",
            "22023",
            "\"flie\"",
            "known connectors: nexmark, datagen, file",
        ),
        (
            "CREATE SOURCE s (a int) WITH (connector = 'file', path = '/tmp/x', folow = 'true') FORMAT PLAIN ENCODE JSON",
            "22023",
            "\"folow\"",
            "path, follow",
        ),
        (
            "CREATE SOURCE s (a int) WITH (connector = 'file', path = '/tmp/x') FORMAT PLAIN ENCODE JSON (colour = 'red')",
            "22023",
            "\"colour\"",
            "",
        ),
        (
            "CREATE SOURCE s (a int) WITH (connector = 'file', path = '/tmp/x') FORMAT PLAIN ENCODE XML",
            "22023",
            "\"xml\"",
            "JSON, CSV",
        ),
        (
            "CREATE SOURCE s WITH (connector = 'nexmark', table = 'bids')",
            "22023",
            "\"bids\"",
            "bid",
        ),
        (
            "CREATE SOURCE s (a int) WITH (connector = 'datagen', \"fields.b.kind\" = 'sequence')",
            "22023",
            "b",
            "",
        ),
        (
            "CREATE SINK k FROM v WITH (connector = 'fiel', path = '/tmp/x') FORMAT PLAIN ENCODE JSON",
            "22023",
            "\"fiel\"",
            "known connectors: blackhole, file",
        ),
        (
            "CREATE MATERIALIZED VIEW w WITH (state_backnd = 'rocksdb') AS SELECT a FROM t",
            "22023",
            "\"state_backnd\"",
            "state_backend",
        ),
        (
            "CREATE MATERIALIZED VIEW w WITH (state_backend = 'disk') AS SELECT a FROM t",
            "22023",
            "disk",
            "memory, rocksdb",
        ),
        (
            "SET chekpoint_interval = '1s'",
            "42704",
            "\"chekpoint_interval\"",
            "SHOW ALL",
        ),
        (
            "SHOW no_such_setting",
            "42704",
            "\"no_such_setting\"",
            "SHOW ALL",
        ),
    ];
    let server = Server::start("memory").await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (a int)").await;
    run(&client, "CREATE MATERIALIZED VIEW v AS SELECT a FROM t").await;
    let mut wrong = Vec::new();
    for (sql, state, named, hint) in STATEMENTS {
        match client.simple_query(sql).await {
            Ok(_) => wrong.push(format!("{sql}: accepted")),
            Err(error) => {
                let error = error.as_db_error().expect("an answer of the server");
                let hinted = error.hint().unwrap_or_default();
                // A short list may be in the message itself.
                let said = format!("{} {hinted}", error.message());
                if error.code().code() != *state
                    || !error.message().contains(named)
                    || !hint.split(", ").all(|word| said.contains(word))
                {
                    wrong.push(format!("{sql}\n  {error:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (arguments, named) in [
        (
            &["--set", "chekpoint_interval=1s"][..],
            "chekpoint_interval",
        ),
        (&["--set", "state_backend=disk"], "disk"),
        (&["--wokers", "2"], "--wokers"),
    ] {
        let (status, said) = server.another(arguments);
        assert!(
            !status.success() && said.contains(named),
            "{arguments:?}: {status} {said}"
        );
    }
}

pub async fn undecodable_rows(backend: &str) {
    let mut server = Server::start(backend).await;
    let client = server.connect().await;
    let path = server.directory().join("events.jsonl");
    let lines = [
        r#"{"id": 1, "name": "one"}"#,
        r#"{"id": "many", "name": "two"}"#,
        r#"{"id": 3, "name": "three"}"#,
        "not JSON",
        r#"{"id": 99999999999, "name": "too large"}"#,
        r#"{"id": 6}"#,
    ];
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let source = format!(
        "CREATE SOURCE events (id integer, name text) WITH (connector = 'file', path = '{}', follow = 'true') FORMAT PLAIN ENCODE JSON",
        path.display()
    );
    run(&client, &source).await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW seen AS SELECT id, name FROM events",
    )
    .await;
    let seen = ["1|one", "3|three", "6|∅"];
    expect(&client, "SELECT * FROM seen", &seen).await;
    // The cause, and where each of the lines begins.
    let asked = "SELECT sqlstate, split, \"offset\", row, count FROM tidegate.errors WHERE relation = 'events'";
    let mut aside: Vec<String> = [(1, "22P02"), (3, "22P02"), (4, "22003")]
        .iter()
        .map(|&(line, state)| {
            let byte: usize = lines[..line].iter().map(|l| l.len() + 1).sum();
            let at = format!("byte {byte} (line {})", line + 1);
            format!("{state}|{}|{at}|{}|1", path.display(), lines[line])
        })
        .collect();
    aside.sort();
    let answer = rows(&client, asked).await;
    assert_eq!(answer, aside);
    let causes = rows(&client, "SELECT message FROM tidegate.errors").await;
    assert!(
        causes
            .iter()
            .any(|cause| cause.contains("\"id\"") && cause.contains("\"many\""))
    );
    // A view that is made later reads the same lines again, which are not counted again.
    run(
        &client,
        "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM events",
    )
    .await;
    expect(&client, "SELECT n FROM counted", &["3"]).await;
    assert_eq!(rows(&client, asked).await, answer);
    assert_eq!(
        rows(
            &client,
            "SELECT errors FROM tidegate.sources WHERE name = 'events'"
        )
        .await,
        ["3"]
    );
    // A restart from a checkpoint behind those lines keeps what was set aside, and the file goes on.
    run(&client, "CHECKPOINT").await;
    server.kill();
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    writeln!(file, "[]\n{{\"id\": 7, \"name\": \"seven\"}}").unwrap();
    server.restart().await;
    let client = server.connect().await;
    expect(&client, "SELECT n FROM counted", &["4"]).await;
    expect(&client, "SELECT count(*) FROM tidegate.errors", &["4"]).await;
    assert!(
        rows(&client, asked)
            .await
            .iter()
            .any(|row| *row == answer[0])
    );
}

pub async fn failing_expressions(backend: &str) {
    let mut server = Server::start(backend).await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY, n int, s text)",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW inverse AS SELECT id, 100 / n AS part FROM t",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW numbers AS SELECT s::int AS number, count(*) AS n FROM t GROUP BY s::int",
    )
    .await;
    run(
        &client,
        "INSERT INTO t VALUES (1, 10, '1'), (2, 0, '1'), (3, 5, 'three'), (4, 0, NULL)",
    )
    .await;
    let inverse = "SELECT * FROM inverse";
    let numbers = "SELECT * FROM numbers";
    let errors = "SELECT relation, sqlstate, sum(count) FROM tidegate.errors GROUP BY 1, 2";
    assert_eq!(rows(&client, inverse).await, ["1|10", "3|20"]);
    assert_eq!(rows(&client, numbers).await, ["1|2", "∅|1"]);
    let standing = ["inverse|22012|2", "numbers|22P02|1"];
    expect(&client, errors, &standing).await;
    let of_view = "SELECT name, errors FROM tidegate.materialized_views WHERE errors > 0";
    expect(&client, of_view, &["inverse|2", "numbers|1"]).await;
    // Over a crash: from the checkpoint, and from the log.
    run(&client, "CHECKPOINT").await;
    run(&client, "INSERT INTO t VALUES (5, 0, 'five')").await;
    server.kill();
    server.restart().await;
    let client = server.connect().await;
    expect(&client, errors, &["inverse|22012|3", "numbers|22P02|2"]).await;
    assert_eq!(rows(&client, inverse).await, ["1|10", "3|20"]);
    // The row changes or goes, and its error with it.
    run(&client, "UPDATE t SET n = 4 WHERE id = 2").await;
    run(&client, "UPDATE t SET s = '5' WHERE id = 5").await;
    run(&client, "DELETE FROM t WHERE id = 4").await;
    assert_eq!(rows(&client, inverse).await, ["1|10", "2|25", "3|20"]);
    assert_eq!(rows(&client, numbers).await, ["1|2", "5|1"]);
    expect(&client, errors, &["inverse|22012|1", "numbers|22P02|1"]).await;
    run(&client, "DELETE FROM t").await;
    assert!(rows(&client, numbers).await.is_empty());
    expect(&client, errors, &[]).await;
}

/// The data directories differ, the storage of the checkpoints does not.
pub async fn a_second_server_on_the_same_storage() {
    let storage = tempfile::tempdir().unwrap();
    let set = format!("checkpoint_storage=file://{}", storage.path().display());
    let server = Server::start_with("memory", &["--set", &set]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (a int)").await;
    let other = tempfile::tempdir().unwrap();
    let directory = other.path().display().to_string();
    let (status, said) = server.another(&["--data-dir", &directory, "--set", &set]);
    assert!(!status.success(), "{said}");
    assert!(said.contains("another server"), "{said}");
    run(&client, "INSERT INTO t VALUES (1)").await;
    run(&client, "CHECKPOINT").await;
    assert_eq!(rows(&client, "SELECT a FROM t").await, ["1"]);
}

/// Below a directory, the files with this extension, oldest first by name.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A log that is damaged before its end has lost acknowledged writes: the server says where, and does not start.
pub async fn a_damaged_log() {
    let mut server = Server::start_with("memory", &["--set", "checkpoint_interval=off"]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (a int)").await;
    for a in 0..50 {
        run(&client, &format!("INSERT INTO t VALUES ({a})")).await;
    }
    server.kill();
    let log = files(&server.directory().join("data"), "log")
        .pop()
        .unwrap();
    let intact = std::fs::read(&log).unwrap();
    let mut bytes = intact.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&log, &bytes).unwrap();
    let (status, said) = server.another(&[]);
    let name = log.file_name().unwrap().to_str().unwrap();
    assert!(!status.success(), "{said}");
    assert!(said.contains(name) && said.contains("damaged"), "{said}");
    // Nothing was repaired by guessing: with the bytes back, all is there.
    std::fs::write(&log, &intact).unwrap();
    server.restart().await;
    let client = server.connect().await;
    assert_eq!(
        rows(&client, "SELECT count(*), max(a) FROM t").await,
        ["50|49"]
    );
}

/// All checkpoints are damaged: what could be read is not enough, and the server names a file instead of starting empty.
pub async fn damaged_checkpoints() {
    for extension in ["json", "run"] {
        let mut server = Server::start_with("memory", &["--set", "checkpoint_interval=off"]).await;
        let client = server.connect().await;
        run(&client, "CREATE TABLE t (a int)").await;
        for a in 0..5 {
            run(&client, &format!("INSERT INTO t VALUES ({a})")).await;
            run(&client, "CHECKPOINT").await;
        }
        server.kill();
        let storage = server.directory().join("data/checkpoints");
        let kept = if extension == "run" {
            "runs"
        } else {
            "manifests"
        };
        let damaged = files(&storage.join(kept), extension);
        let mut intact = Vec::new();
        for path in &damaged {
            let bytes = std::fs::read(path).unwrap();
            let mut wrong = bytes.clone();
            let middle = wrong.len() / 2;
            wrong[middle] ^= 0x55;
            std::fs::write(path, wrong).unwrap();
            intact.push(bytes);
        }
        let (status, said) = server.another(&[]);
        assert!(!status.success(), "{extension}: {said}");
        assert!(
            damaged
                .iter()
                .any(|path| said.contains(path.file_name().unwrap().to_str().unwrap())),
            "{extension}: {said}"
        );
        for (path, bytes) in damaged.iter().zip(intact) {
            std::fs::write(path, bytes).unwrap();
        }
        server.restart().await;
        let client = server.connect().await;
        assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["5"]);
    }
}

//! One accident each: a second server, a clean stop, a rollback, a panic in an operator, damage, a full disk, and a sink.

use crate::server::{Server, command, rows, run};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// Rows `first..end` in statements of ten.
async fn insert(client: &Client, first: i64, end: i64) {
    let numbers: Vec<i64> = (first..end).collect();
    for ten in numbers.chunks(10) {
        let values: Vec<String> = ten.iter().map(|n| format!("({n}, {})", n % 5)).collect();
        run(
            client,
            &format!("INSERT INTO t VALUES {}", values.join(", ")),
        )
        .await;
    }
}

async fn create(client: &Client) {
    run(client, "CREATE TABLE t (id bigint PRIMARY KEY, g integer)").await;
    run(
        client,
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, sum(id) AS total FROM t GROUP BY g",
    )
    .await;
}

/// The table holds exactly `0..end`, and the view what follows from that.
async fn assert_holds(client: &Client, end: i64) {
    let mut expected: Vec<String> = (0..5)
        .map(|g| (g, (0..end).filter(|n| n % 5 == g).collect::<Vec<_>>()))
        .filter(|(_, of_group)| !of_group.is_empty())
        .map(|(g, of_group)| format!("{g}|{}|{}", of_group.len(), of_group.iter().sum::<i64>()))
        .collect();
    expected.sort();
    assert_eq!(rows(client, "SELECT * FROM v").await, expected);
    let whole = format!(
        "{end}|{}",
        if end == 0 {
            "∅".into()
        } else {
            (end - 1).to_string()
        }
    );
    assert_eq!(
        rows(client, "SELECT count(*), max(id) FROM t").await,
        [whole]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_data_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    create(&client).await;
    insert(&client, 0, 10).await;
    let second = command(directory.path(), &[]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    let clear = format!(
        "the data directory \"{}\" is in use by another server",
        directory.path().display()
    );
    assert!(said.contains(&clear) && said.contains("55006"), "{said}");
    insert(&client, 10, 20).await;
    assert_holds(&client, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_leaves_nothing_to_replay() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), &[("checkpoint_interval", "off")]);
    let client = server.connect().await;
    create(&client).await;
    insert(&client, 0, 100).await;
    server.terminate();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    let started = Instant::now();
    let server = Server::start(directory.path(), &[]);
    assert_holds(&server.connect().await, 100).await;
    println!("ready and read after {} ms", started.elapsed().as_millis());
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(server.replayed_rows(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_to_a_savepoint_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    create(&client).await;
    insert(&client, 0, 30).await;
    run(&client, "SAVEPOINT here").await;
    insert(&client, 30, 60).await;
    run(&client, "UPDATE t SET g = 0").await;
    run(&client, "ROLLBACK TO SAVEPOINT here").await;
    server.kill();
    server.wait();
    let mut server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    assert_holds(&client, 30).await;
    // What comes after is on the new timeline, and survives too.
    insert(&client, 30, 40).await;
    server.kill();
    server.wait();
    let server = Server::start(directory.path(), &[]);
    assert_holds(&server.connect().await, 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_an_operator_restarts_the_workers_under_the_session() {
    for backend in ["memory", "rocksdb"] {
        let directory = tempfile::tempdir().unwrap();
        let settings = [("state_backend", backend), ("checkpoint_interval", "200ms")];
        let mut command = command(directory.path(), &settings);
        command.env("TIDEGATE_FAILPOINT", "operator_panic:v:60");
        let server = Server::spawn(command);
        let client = server.connect().await;
        create(&client).await;
        for first in (0..300).step_by(10) {
            insert(&client, first, first + 10).await;
            // Reading waits for what was written, so each of these is an epoch of its own.
            rows(&client, "SELECT * FROM v").await;
        }
        assert_holds(&client, 300).await;
        assert!(
            server.metric("tidegate_runtime_restarts_total") >= 1.0,
            "{}",
            server.log()
        );
        assert!(server.log().contains("the failpoint in an operator"));
        run(&client, "UPDATE t SET g = 7 WHERE id < 3").await;
        assert_eq!(rows(&client, "SELECT n FROM v WHERE g = 7").await, ["3"]);
    }
}

/// The newest file below a directory, by the number in its name.
fn newest(directory: &Path, extension: &str) -> PathBuf {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
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
    found.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_is_passed_over_and_named() {
    for (folder, extension) in [("manifests", "json"), ("runs", "run")] {
        let directory = tempfile::tempdir().unwrap();
        let off = [("checkpoint_interval", "off")];
        let mut server = Server::start(directory.path(), &off);
        let client = server.connect().await;
        create(&client).await;
        for first in [0, 50] {
            insert(&client, first, first + 50).await;
            run(&client, "CHECKPOINT").await;
        }
        insert(&client, 100, 150).await;
        server.kill();
        server.wait();
        let path = newest(
            &directory.path().join("checkpoints").join(folder),
            extension,
        );
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        std::fs::write(&path, bytes).unwrap();
        let server = Server::start(directory.path(), &off);
        assert_holds(&server.connect().await, 150).await;
        let log = server.log();
        assert!(
            log.contains("passed over") || log.contains("is damaged"),
            "{folder}: {log}"
        );
        assert_eq!(server.replayed_rows(), 100, "{folder}: {log}");
    }
}

pub struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A file system of this size at the directory, if this may be done here.
pub fn mounted(directory: &Path, size: &str) -> Option<Mounted> {
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
        .arg(directory)
        .output();
    mount
        .is_ok_and(|m| m.status.success())
        .then(|| Mounted(directory.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_loses_none() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mounted) = mounted(directory.path(), "24m") else {
        println!("SKIPPED a_full_disk_refuses_writes_and_loses_none: mounting a tmpfs takes root");
        return;
    };
    let ballast = directory.path().join("ballast");
    std::fs::write(&ballast, vec![1; 12 << 20]).unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data, &[("checkpoint_interval", "200ms")]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY, pad text)").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(id) AS total FROM t",
    )
    .await;
    let insert = |id: i64| format!("INSERT INTO t VALUES ({id}, repeat('x', 300000))");
    let mut acknowledged = 0i64;
    let refused = loop {
        match client.simple_query(&insert(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 500, "the disk is never full");
    };
    let refused = refused
        .as_db_error()
        .unwrap_or_else(|| panic!("{refused:?}\n{}", server.log()));
    assert_eq!(refused.code().code(), "53100", "{refused:?}");
    let expected = |n: i64| vec![format!("{n}|{}", n * (n - 1) / 2)];
    assert_eq!(
        rows(&client, "SELECT * FROM v").await,
        expected(acknowledged)
    );
    std::fs::remove_file(&ballast).unwrap();
    for _ in 0..3 {
        run(&client, &insert(acknowledged)).await;
        acknowledged += 1;
    }
    assert_eq!(
        rows(&client, "SELECT * FROM v").await,
        expected(acknowledged)
    );
    server.kill();
    server.wait();
    let server = Server::start(&data, &[]);
    let client = server.connect().await;
    assert_eq!(
        rows(&client, "SELECT * FROM v").await,
        expected(acknowledged)
    );
    assert_eq!(
        rows(&client, "SELECT count(*), sum(id) FROM t").await,
        expected(acknowledged)
    );
    println!("{acknowledged} rows before and after the disk was full");
}

/// The lines of all files that a sink has made visible.
fn output(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|e| e.to_string_lossy().contains("json"))
        {
            lines.extend(
                std::fs::read_to_string(path)
                    .unwrap()
                    .lines()
                    .map(str::to_owned),
            );
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_sink_has_each_row_once_across_kills() {
    const ROWS: usize = 6000;
    let directory = tempfile::tempdir().unwrap();
    // The sink makes its directory itself.
    let out = directory.path().join("out");
    let data = directory.path().join("data");
    let settings = [("checkpoint_interval", "100ms")];
    let mut server = Server::start(&data, &settings);
    let client = server.connect().await;
    let source = format!(
        "CREATE SOURCE ticks (n bigint) WITH (connector = 'datagen', rows = '{ROWS}', \"rows.per.second\" = '1500', \"fields.n.kind\" = 'sequence')"
    );
    run(&client, &source).await;
    let sink = format!(
        "CREATE SINK s AS SELECT n, n * 2 AS twice FROM ticks WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE JSON",
        out.display()
    );
    run(&client, &sink).await;
    for (phase, ms) in [
        ("committed", 350),
        ("committing", 420),
        ("committed", 500),
        ("sealing", 250),
    ] {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        server.kill_at(phase);
        tokio::time::sleep(Duration::from_millis(600)).await;
        server.kill();
        server.wait();
        server = Server::start(&data, &settings);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while output(&out).len() < ROWS {
        assert!(
            Instant::now() < deadline,
            "{} of {ROWS} rows came out\n{}",
            output(&out).len(),
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let lines = output(&out);
    let distinct: BTreeSet<&String> = lines.iter().collect();
    assert_eq!(
        (lines.len(), distinct.len()),
        (ROWS, ROWS),
        "rows and distinct rows"
    );
    assert!(
        lines.iter().all(|l| l.contains("\"twice\"")),
        "{}",
        lines[0]
    );
}

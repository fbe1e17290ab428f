//! `tidegate checkpoint`, `savepoint` and `state`, beside a server and without one.

use crate::server::{Server, rows, run};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a tool on a data directory.
pub fn tool(data: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(words).arg("--data-dir").arg(data);
    command.output().unwrap()
}

pub fn answer(data: &Path, words: &[&str]) -> String {
    let output = tool(data, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(data: &Path, words: &[&str]) -> Value {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&answer(data, &words)).unwrap()
}

fn refused(data: &Path, words: &[&str], because: &str) {
    let output = tool(data, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
    assert!(said.contains(because), "{words:?}: {said}");
}

async fn fill(server: &Server) {
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id bigint PRIMARY KEY, g text, x numeric(10,2))",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, sum(x) AS total FROM t GROUP BY g",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW w AS SELECT a.id, b.id AS other FROM t a JOIN t b ON a.g = b.g",
    )
    .await;
    run(
        &client,
        "INSERT INTO t SELECT i, 'g' || (i % 3)::text, i / 4.0 FROM generate_series(1, 30) AS s(i)",
    )
    .await;
    run(&client, "CHECKPOINT").await;
    run(&client, "DELETE FROM t WHERE id > 27").await;
    run(&client, "SAVEPOINT \"Größe 1\"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_list_describe_verify_copy_and_delete() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    refused(&data, &["checkpoint", "list"], "no such directory");
    let mut server = Server::start(&data, &[("checkpoint_interval", "off")]);
    fill(&server).await;
    // Beside the running server everything may be read, and nothing deleted.
    let checkpoints = json(&data, &["checkpoint", "list"]);
    let checkpoints = checkpoints["checkpoints"].as_array().unwrap().clone();
    assert!(checkpoints.len() >= 2, "{checkpoints:?}");
    assert!(checkpoints[0]["id"].as_u64() > checkpoints[1]["id"].as_u64());
    let savepoints = json(&data, &["savepoint", "list"]);
    let saved = &savepoints["savepoints"][0];
    assert_eq!(saved["name"], "Größe 1");
    assert_eq!(saved["views"], serde_json::json!(["v", "w"]));
    refused(
        &data,
        &["savepoint", "delete", "Größe 1"],
        "a running server is using",
    );
    let oldest = checkpoints.last().unwrap()["id"].to_string();
    refused(
        &data,
        &["checkpoint", "delete", &oldest],
        "a running server is using",
    );
    let described = json(&data, &["savepoint", "describe"]);
    assert_eq!(described["savepoint"]["format"], "native");
    let relations = described["relations"].as_array().unwrap();
    let t = relations.iter().find(|r| r["name"] == "t").unwrap();
    assert_eq!(t["kind"], "table");
    assert!(answer(&data, &["checkpoint", "verify", "--all"]).contains("whole"));
    server.terminate();
    server.wait();

    let place = directory.path().join("elsewhere");
    let to = place.to_str().unwrap();
    answer(
        &data,
        &["savepoint", "copy", "Größe 1", to, "--as", "moved"],
    );
    refused(
        &data,
        &["savepoint", "copy", "Größe 1", to, "--as", "moved"],
        "already exists",
    );
    let newest = json(&data, &["checkpoint", "list"])["checkpoints"][0]["id"].to_string();
    answer(&data, &["checkpoint", "copy", &newest, to]);
    let elsewhere = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["savepoint", "verify", "--storage", to])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&elsewhere.stdout).into_owned();
    assert_eq!(said.matches("whole").count(), 2, "{said}");

    refused(&data, &["checkpoint", "delete", &newest], "is the newest");
    answer(&data, &["checkpoint", "delete", &oldest]);
    refused(
        &data,
        &["checkpoint", "describe", &oldest],
        "there is no checkpoint",
    );
    answer(&data, &["savepoint", "delete", "Größe 1"]);
    refused(
        &data,
        &["savepoint", "describe", "Größe 1"],
        "does not exist",
    );
    // The database is as it was.
    let server = Server::start(&data, &[]);
    let client = server.connect().await;
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["27"]);
    assert_eq!(
        rows(&client, "SELECT * FROM v WHERE g = 'g0'").await,
        ["g0|9|33.75"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_tables_are_printed_as_rows() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data, &[]);
    fill(&server).await;
    server.terminate();
    server.wait();
    let lines = |words: &[&str]| -> Vec<Value> {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let text = answer(&data, &words);
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    };
    let mut v = lines(&["state", "print", "v"]);
    v.sort_by_key(|r| r["g"].to_string());
    assert_eq!(v.len(), 3);
    assert_eq!(
        v[1],
        serde_json::json!({"g": "g1", "n": 9, "total": "29.25"})
    );
    let groups = lines(&["state", "print", "v.groups", "--savepoint", "Größe 1"]);
    assert!(groups.iter().all(|g| g["rows"] == 9), "{groups:?}");
    let left = lines(&["state", "print", "w.left"]);
    assert_eq!(left.len(), 27);
    assert!(left.iter().all(|r| r["count"] == 1), "{left:?}");
    assert_eq!(lines(&["state", "print", "t", "--limit", "5"]).len(), 5);
    refused(
        &data,
        &["state", "print", "nothing"],
        "there is no state table \"nothing\"",
    );
    assert!(answer(&data, &["state", "list"]).contains("groups"));
    assert!(answer(&data, &["state", "print", "v"]).starts_with("g "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_by_verify() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start(&data, &[("checkpoint_interval", "off")]);
    fill(&server).await;
    server.kill();
    server.wait();
    let runs = data.join("checkpoints/runs");
    let mut found = Vec::new();
    for generation in std::fs::read_dir(runs).unwrap() {
        for run in std::fs::read_dir(generation.unwrap().path()).unwrap() {
            found.push(run.unwrap().path());
        }
    }
    found.sort();
    let path = found.pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    let output = tool(&data, &["savepoint", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name) && said.contains("damaged"), "{said}");
}

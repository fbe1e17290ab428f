//! `--from-savepoint`: servers of their own that begin with what another one saved.

use crate::server::{Server, refused, rows, run, until_rows};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use tokio_postgres::Client;

/// As [`crate::server::command`], with so many workers.
pub fn command(data_dir: &Path, workers: usize, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("--data-dir").arg(data_dir);
    command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    command.args([
        "--workers",
        &workers.to_string(),
        "--set",
        "pin_workers=off",
    ]);
    for (name, value) in settings {
        command.arg("--set").arg(format!("{name}={value}"));
    }
    let piped = || Stdio::piped();
    command.stdin(Stdio::null()).stdout(piped()).stderr(piped());
    command
}

fn from(data_dir: &Path, workers: usize, backend: &str, savepoint: &str) -> Command {
    let mut command = command(data_dir, workers, &[("state_backend", backend)]);
    command.args(["--from-savepoint", savepoint]);
    command
}

/// What a server says that does not start.
fn not_started(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const QUERIES: &[(&str, &str)] = &[
    (
        "grouped",
        "SELECT g, count(*) AS n, sum(x) AS total, max(x) AS most FROM t GROUP BY g",
    ),
    (
        "joined",
        "SELECT a.id, b.id AS other FROM t a LEFT JOIN t b ON a.g = b.g AND a.id < b.id",
    ),
    ("highest", "SELECT id, x FROM t ORDER BY x DESC, id LIMIT 7"),
    (
        "above",
        "SELECT n, count(*) AS groups FROM grouped GROUP BY n",
    ),
];

async fn fill(client: &Client) {
    run(
        client,
        "CREATE TABLE t (id bigint PRIMARY KEY, g text, x integer)",
    )
    .await;
    for (name, query) in QUERIES {
        run(
            client,
            &format!("CREATE MATERIALIZED VIEW {name} AS {query}"),
        )
        .await;
    }
    run(client, "INSERT INTO t SELECT i, 'g' || (i % 9)::text, (i * 37) % 101 FROM generate_series(1, 150) AS s(i)").await;
    run(client, "DELETE FROM t WHERE id % 10 = 0").await;
}

async fn expect_right(client: &Client) {
    for (name, query) in QUERIES {
        let held = rows(client, &format!("SELECT * FROM {name}")).await;
        assert_eq!(held, rows(client, query).await, "{name}");
        assert!(!held.is_empty());
        let different = rows(client, &format!("VERIFY MATERIALIZED VIEW {name}")).await;
        assert!(different.is_empty(), "{name}: {different:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_goes_on_with_other_workers_and_another_backend() {
    for (first, second) in [
        (("memory", 2), ("rocksdb", 3)),
        (("rocksdb", 3), ("memory", 1)),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("place").display().to_string();
        let old = Server::spawn(command(
            &directory.path().join("old"),
            first.1,
            &[("state_backend", first.0)],
        ));
        let client = old.connect().await;
        fill(&client).await;
        run(&client, &format!("SAVEPOINT moving TO '{place}'")).await;
        let saved = rows(&client, "SELECT * FROM t").await;
        assert_eq!(saved.len(), 135);
        // The old server goes on for itself.
        run(&client, "DELETE FROM t").await;
        let data = directory.path().join("new");
        let mut new = Server::spawn(from(&data, second.1, second.0, &place));
        let client = new.connect().await;
        assert_eq!(rows(&client, "SELECT * FROM t").await, saved);
        expect_right(&client).await;
        // Epochs go on, so that the past stays in order.
        run(&client, "CHECKPOINT").await;
        let in_order = "SELECT count(*) > 1, bool_and(epoch > before) FROM \
             (SELECT epoch, lag(epoch, 1, 0::bigint) OVER (ORDER BY id) AS before FROM tidegate.checkpoints) AS c";
        assert_eq!(rows(&client, in_order).await, ["t|t"]);
        // Data and definitions that come now are as durable as anywhere.
        run(
            &client,
            "INSERT INTO t SELECT i, 'new', i FROM generate_series(1000, 1020) AS s(i)",
        )
        .await;
        run(&client, "CREATE TABLE u (id bigint PRIMARY KEY)").await;
        run(
            &client,
            "CREATE MATERIALIZED VIEW of_u AS SELECT count(*) AS n FROM u",
        )
        .await;
        run(&client, "INSERT INTO u VALUES (1), (2)").await;
        expect_right(&client).await;
        new.kill();
        new.wait();
        let said = not_started(from(&data, second.1, second.0, &place));
        assert!(
            said.contains("55000") && said.contains("needs a data directory that is empty"),
            "{said}"
        );
        let new = Server::spawn(command(&data, second.1, &[("state_backend", second.0)]));
        let client = new.connect().await;
        assert_eq!(rows(&client, "SELECT * FROM of_u").await, ["2"]);
        assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["156"]);
        expect_right(&client).await;
        run(&client, "SAVEPOINT here").await;
        drop(old);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_savepoint_is_named_by_its_place_and_name() {
    let directory = tempfile::tempdir().unwrap();
    let old = directory.path().join("old");
    let server = Server::start(&old, &[]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY)").await;
    run(&client, "INSERT INTO t VALUES (1)").await;
    run(&client, "SAVEPOINT one").await;
    run(&client, "INSERT INTO t VALUES (2)").await;
    run(&client, "SAVEPOINT two").await;
    // While the old server runs, in its data directory or in the storage itself.
    let storage = old.join("checkpoints");
    for (number, (place, held)) in [
        (format!("{}#one", old.display()), "1"),
        (format!("{}#two", storage.display()), "2"),
    ]
    .into_iter()
    .enumerate()
    {
        let data = directory.path().join(format!("new{number}"));
        let new = Server::spawn(from(&data, 2, "memory", &place));
        let client = new.connect().await;
        assert_eq!(rows(&client, "SELECT count(*) FROM t").await, [held]);
    }
    let data = directory.path().join("empty");
    let said = not_started(from(&data, 2, "memory", &old.display().to_string()));
    assert!(
        said.contains("there are several savepoints") && said.contains("URL#NAME"),
        "{said}"
    );
    let said = not_started(from(
        &data,
        2,
        "memory",
        &format!("{}#three", old.display()),
    ));
    assert!(said.contains("3B001"), "{said}");
    let said = not_started(from(
        &data,
        2,
        "memory",
        &directory.path().join("nowhere").display().to_string(),
    ));
    assert!(said.contains("there is no such directory"), "{said}");
    // A directory in which nothing began is still empty.
    let new = Server::spawn(from(&data, 2, "memory", &format!("{}#one", old.display())));
    assert_eq!(
        rows(&new.connect().await, "SELECT count(*) FROM t").await,
        ["1"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_savepoint_of_some_views_begins_with_those() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place").display().to_string();
    let old = Server::start(&directory.path().join("old"), &[]);
    let client = old.connect().await;
    fill(&client).await;
    run(&client, "CREATE TABLE other (id bigint PRIMARY KEY)").await;
    run(
        &client,
        &format!("SAVEPOINT part FOR MATERIALIZED VIEW above TO '{place}'"),
    )
    .await;
    let above = rows(&client, "SELECT * FROM above").await;
    let new = Server::spawn(from(&directory.path().join("new"), 3, "memory", &place));
    let client = new.connect().await;
    assert_eq!(rows(&client, "SELECT * FROM above").await, above);
    let views = rows(&client, "SELECT name FROM tidegate.materialized_views").await;
    assert_eq!(views, ["above", "grouped"]);
    let error = refused(&client, "SELECT * FROM other").await;
    assert_eq!(error.code().code(), "42P01");
    run(&client, "INSERT INTO t VALUES (5000, 'x', 1)").await;
    let held = rows(&client, "SELECT * FROM above").await;
    let computed = rows(
        &client,
        "SELECT n, count(*) FROM (SELECT g, count(*) AS n FROM t GROUP BY g) AS q GROUP BY n",
    )
    .await;
    assert_eq!(held, computed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_go_on_where_the_savepoint_left_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("in.csv");
    std::fs::write(&file, "1\n2\n").unwrap();
    let place = directory.path().join("place").display().to_string();
    let old = Server::start(&directory.path().join("old"), &[]);
    let client = old.connect().await;
    let source = format!(
        "CREATE SOURCE s (x integer) WITH (connector = 'file', path = '{}', follow = 'true') FORMAT PLAIN ENCODE CSV (header = 'false')",
        file.display()
    );
    run(&client, &source).await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(x) AS total FROM s",
    )
    .await;
    until_rows(&client, "SELECT * FROM v", |r| r == ["2|3"]).await;
    run(&client, &format!("SAVEPOINT moving TO '{place}'")).await;
    drop(old);
    // What was read before is altered: it is not read again.
    std::fs::write(&file, "7\n7\n").unwrap();
    let mut more = std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .unwrap();
    more.write_all(b"10\n").unwrap();
    let new = Server::spawn(from(&directory.path().join("new"), 2, "memory", &place));
    let client = new.connect().await;
    until_rows(&client, "SELECT * FROM v", |r| r == ["3|13"]).await;
    std::fs::write(&file, "1\n").unwrap();
    let said = not_started(from(&directory.path().join("late"), 2, "memory", &place));
    assert!(
        said.contains("55000") && said.contains("no longer holds the position"),
        "{said}"
    );
}

/// Castagnoli's polynomial, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// Gives a state table of the savepoint the id that it would have if another version had planned its operator otherwise.
fn as_of_another_version(place: &Path, name: &str, operator_of: &str) {
    let path = place.join(format!("savepoints/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    let (header, body) = text.trim_end().split_once('\n').unwrap();
    let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
    let tables = parsed["snapshot"]["tables"].as_array().unwrap();
    let table = tables.iter().find(|t| t["name"] == operator_of).unwrap();
    let id = table["table"].as_str().unwrap();
    let body = body.replace(id, "00000000deadbeef");
    let mut header: serde_json::Value = serde_json::from_str(header).unwrap();
    header["bytes"] = body.len().into();
    header["crc32c"] = format!("{:08x}", crc32c(body.as_bytes())).into();
    std::fs::write(&path, format!("{header}\n{body}\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_of_operators_that_changed_is_refused_or_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let out = directory.path().join("out");
    let old = Server::start(&directory.path().join("old"), &[]);
    let client = old.connect().await;
    fill(&client).await;
    let sink = format!(
        "CREATE SINK k FROM above WITH (connector = 'file', path = '{}', changelog = 'true') FORMAT PLAIN ENCODE JSON",
        out.display()
    );
    run(&client, &sink).await;
    run(
        &client,
        &format!("SAVEPOINT moving TO '{}'", place.display()),
    )
    .await;
    drop(old);
    as_of_another_version(&place, "moving", "groups");
    let data = directory.path().join("new");
    let place = place.display().to_string();
    let said = not_started(from(&data, 2, "memory", &place));
    for told in [
        "55000",
        "belongs to nothing",
        "finds no state",
        "--allow-non-restored-state",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let mut allowed = from(&data, 2, "memory", &place);
    allowed.arg("--allow-non-restored-state");
    let new = Server::spawn(allowed);
    let client = new.connect().await;
    for (name, _) in QUERIES {
        until_rows(&client, &format!("SELECT count(*) FROM {name}"), |r| {
            r != ["0"]
        })
        .await;
    }
    expect_right(&client).await;
    run(&client, "DELETE FROM t WHERE id % 3 = 0").await;
    expect_right(&client).await;
    assert!(new.log().contains("state is not restored"), "{}", new.log());
    // The sink would write everything again.
    let status = rows(&client, "SHOW SINKS").await;
    assert!(status.iter().any(|s| s.contains("suspended")), "{status:?}");
}

/// Any checkpoint will do, as the tool copies it from a server that is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_was_copied_begins_a_database_too() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("old");
    let settings = [
        ("checkpoint_interval", "off"),
        ("checkpoint_alignment", "unaligned"),
    ];
    let mut old = Server::start(&data, &settings);
    let client = old.connect().await;
    fill(&client).await;
    run(&client, "CHECKPOINT").await;
    let saved = rows(&client, "SELECT * FROM t").await;
    let newest = "SELECT max(id) FROM tidegate.checkpoints WHERE status = 'completed'";
    let id = rows(&client, newest).await.remove(0);
    old.kill();
    old.wait();
    let place = directory.path().join("place").display().to_string();
    crate::tools::answer(&data, &["checkpoint", "copy", &id, &place]);
    let new = Server::spawn(from(&directory.path().join("new"), 3, "rocksdb", &place));
    let client = new.connect().await;
    assert_eq!(rows(&client, "SELECT * FROM t").await, saved);
    expect_right(&client).await;
}

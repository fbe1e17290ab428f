//! `memory_limit` holds: state on RocksDB larger than memory stays within it, also while it is restored; state in memory
//! holds its sources back and fails statements instead of having the process killed.
//!
//! `TIDEGATE_MEMORY_STATE_MB` and `TIDEGATE_MEMORY_LIMIT_MB` set the size of the state on RocksDB and its limit.

use crate::server::{Server, refused, rows, run, until_rows};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// What is beside the limit however large that is: a block at least of every run that is merged, parts on their way to
/// storage, stacks, and what allocators cannot give back because something in the same page lives.
const BESIDE_MB: u64 = 192;
/// Bytes of text in each row. A row is in the state of the aggregate and in the view.
const TEXT_BYTES: u64 = 480;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Megabytes of a line of `/proc/<id>/status`; none when the process is gone.
fn memory_mb(id: u32, line: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let found = status.lines().find(|l| l.starts_with(line))?;
    let kilobytes: u64 = found.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes >> 10)
}

/// Follows how much memory of its own a server has resident. The pages of its program, which the kernel can drop and which
/// are many in a build with debug information, are not counted.
struct Watch {
    id: u32,
    idle_mb: u64,
    peak_mb: Arc<AtomicU64>,
}

impl Watch {
    fn new(server: &Server) -> Self {
        let id = server.id();
        let idle_mb = memory_mb(id, "RssAnon").unwrap();
        let peak_mb = Arc::new(AtomicU64::new(idle_mb));
        let seen = peak_mb.clone();
        std::thread::spawn(move || {
            while let Some(anonymous) = memory_mb(id, "RssAnon") {
                seen.fetch_max(anonymous, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self {
            id,
            idle_mb,
            peak_mb,
        }
    }

    fn peak_mb(&self) -> u64 {
        self.peak_mb.load(Ordering::Relaxed)
    }

    /// The limit, what checkpoints take beside it, and what the server takes when it has nothing to do.
    fn check(&self, limit_mb: u64) {
        let (peak, idle) = (self.peak_mb(), self.idle_mb);
        assert!(
            peak <= idle + limit_mb + BESIDE_MB,
            "{peak} MB were resident under a limit of {limit_mb} MB; {idle} MB when idle"
        );
    }

    fn report(&self) -> String {
        format!(
            "at most {} MB resident ({} MB with the pages of the program), {} MB when idle",
            self.peak_mb(),
            memory_mb(self.id, "VmHWM").unwrap_or(0),
            self.idle_mb
        )
    }
}

fn disk_mb(directory: &Path) -> u64 {
    fn bytes(directory: &Path) -> u64 {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let sizes = entries.map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        });
        sizes.sum()
    }
    bytes(directory) >> 20
}

async fn create(client: &Client, keys: u64, rows: u64) {
    let source = format!(
        "CREATE SOURCE s (k bigint, p text) WITH (connector = 'datagen', rows = '{rows}',
           fields.k.kind = 'sequence', fields.p.length = '{TEXT_BYTES}')"
    );
    run(client, &source).await;
    run(client, "SET background_ddl = on").await;
    let view = format!(
        "CREATE MATERIALIZED VIEW v AS SELECT k % {keys} AS k, count(*) AS n, max(p) AS p FROM s GROUP BY 1"
    );
    run(client, &view).await;
}

/// Until all rows are in, and no more than the limit (and what the server took before) was ever resident.
async fn wait_for_rows(
    server: &Server,
    client: &Client,
    wanted: u64,
    watch: &Watch,
    limit_mb: u64,
) {
    let deadline = Instant::now() + Duration::from_secs(1800);
    loop {
        watch.check(limit_mb);
        // Refused while the view's source is replayed.
        let found = client.simple_query("SELECT sum(n) FROM v").await;
        let sum = found.ok().and_then(|messages| match &messages[..] {
            [_, tokio_postgres::SimpleQueryMessage::Row(row), ..] => {
                row.get(0)?.parse::<u64>().ok()
            }
            _ => None,
        });
        if sum == Some(wanted) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{sum:?} of {wanted} rows are in:\n{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn state_larger_than_memory(checkpoints: &str, state_mb: u64, limit_mb: u64) {
    let directory = TempDir::new().unwrap();
    let limit = format!("{limit_mb}MB");
    let settings = [
        ("state_backend", "rocksdb"),
        ("memory_limit", limit.as_str()),
        ("checkpoint_interval", checkpoints),
    ];
    // Once in the aggregate's state and once in the view; a quarter of the keys come twice.
    let keys = (state_mb << 20) / (2 * (TEXT_BYTES + 30));
    let total = keys * 5 / 4;
    let server = Server::start(directory.path(), &settings);
    let watch = Watch::new(&server);
    let client = server.connect().await;
    let started = Instant::now();
    create(&client, keys, total).await;
    wait_for_rows(&server, &client, total, &watch, limit_mb).await;
    let expected = vec![format!("{keys}|{}|{}", total, keys * TEXT_BYTES)];
    let check = "SELECT count(*), sum(n), sum(length(p)) FROM v";
    assert_eq!(rows(&client, check).await, expected);
    run(&client, "CHECKPOINT").await;
    println!(
        "checkpoints {checkpoints}: {state_mb} MB of state, {} MB on disk, under {limit_mb} MB: {}; {:.0} rows/s",
        disk_mb(&directory.path().join("working")),
        watch.report(),
        total as f64 / started.elapsed().as_secs_f64(),
    );
    watch.check(limit_mb);
    server.kill();
    drop((client, server));
    let started = Instant::now();
    let server = Server::start(directory.path(), &settings);
    let restored = started.elapsed();
    let watch = Watch {
        idle_mb: watch.idle_mb,
        ..Watch::new(&server)
    };
    let client = server.connect().await;
    until_rows(&client, check, |found| found == expected).await;
    println!(
        "  restored in {:.1} s: {}",
        restored.as_secs_f64(),
        watch.report()
    );
    watch.check(limit_mb);
}

#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_holds_more_than_memory() {
    let state_mb = from_environment("TIDEGATE_MEMORY_STATE_MB", 320);
    let limit_mb = from_environment("TIDEGATE_MEMORY_LIMIT_MB", 48);
    state_larger_than_memory("1s", state_mb, limit_mb).await;
}

/// What no checkpoint holds goes to RocksDB too, and is part of the next checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_holds_more_than_memory_without_checkpoints() {
    let state_mb = from_environment("TIDEGATE_MEMORY_STATE_MB", 320);
    let limit_mb = from_environment("TIDEGATE_MEMORY_LIMIT_MB", 48);
    state_larger_than_memory("off", state_mb, limit_mb).await;
}

/// A query that needs more than its share of the limit is refused, and the session goes on.
#[tokio::test(flavor = "multi_thread")]
async fn queries_keep_to_their_share() {
    let directory = TempDir::new().unwrap();
    let server = Server::start(directory.path(), &[("memory_limit", "48MB")]);
    let client = server.connect().await;
    let joined = |rows: u64| {
        format!(
            "SELECT length(string_agg(repeat('x', 500), '')) FROM generate_series(1, {rows}) AS s(g)"
        )
    };
    let error = refused(&client, &joined(100_000)).await;
    assert_eq!(error.code(), &SqlState::OUT_OF_MEMORY);
    assert_eq!(rows(&client, &joined(1_000)).await, ["500000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_runs_short_stops_growing() {
    let directory = TempDir::new().unwrap();
    let server = Server::start(directory.path(), &[("memory_limit", "48MB")]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (k bigint PRIMARY KEY, p text)").await;
    // Far more than there is room for: the source has to hold back.
    create(&client, 10_000_000, 10_000_000).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !server.log().contains("sources are not read any further") {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let insert = |n: u64| {
        format!(
            "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series({}, {}) AS g(g)",
            n * 1000,
            n * 1000 + 999
        )
    };
    // Statements have a little more room than sources.
    let mut inserted = 0;
    let error = loop {
        assert!(
            inserted < 100,
            "statements that add to state are not refused"
        );
        match client.simple_query(&insert(inserted)).await {
            Ok(_) => inserted += 1,
            Err(_) => break refused(&client, &insert(inserted)).await,
        }
    };
    assert_eq!(error.code(), &SqlState::OUT_OF_MEMORY);
    assert!(
        error.hint().is_some_and(|h| h.contains("rocksdb")),
        "{error:?}"
    );
    assert_eq!(
        rows(&client, "SELECT count(*) FROM t").await,
        [(inserted * 1000).to_string()]
    );
    assert_eq!(
        refused(&client, "CREATE MATERIALIZED VIEW w AS SELECT * FROM t")
            .await
            .code(),
        &SqlState::OUT_OF_MEMORY
    );
    // What makes room goes on, and then there is room.
    run(&client, "DELETE FROM t WHERE k < 500").await;
    run(&client, "DROP MATERIALIZED VIEW v").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.simple_query(&insert(inserted)).await.is_err() {
        assert!(Instant::now() < deadline, "there is still no room");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

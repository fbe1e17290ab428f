//! Views that fail, are suspended, and come back; and what the others see of it.

use crate::server::{Server, command, refused, rows, run, until_rows};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

const BACKENDS: [&str; 2] = ["memory", "rocksdb"];

/// A server whose operators fail as a file says, which tests write while it runs.
struct Scene {
    directory: tempfile::TempDir,
    settings: Vec<(&'static str, &'static str)>,
}

impl Scene {
    fn new(settings: &[(&'static str, &'static str)]) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            settings: settings.to_vec(),
        }
    }

    fn failpoint(&self) -> PathBuf {
        self.directory.path().join("failpoint")
    }

    /// Replaced as a whole: a server that reads it at this moment sees the old one or the new one.
    fn fail(&self, description: &str) {
        let path = self.failpoint();
        let new = path.with_extension("new");
        std::fs::write(&new, description).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn start(&self) -> Server {
        let mut command = command(&self.data(), &self.settings);
        command.env(
            "TIDEGATE_FAILPOINT",
            format!("@{}", self.failpoint().display()),
        );
        Server::spawn(command)
    }

    fn restart(&self, mut server: Server) -> Server {
        server.kill();
        server.wait();
        self.start()
    }
}

async fn create(client: &Client) {
    run(
        client,
        "CREATE TABLE t (id bigint PRIMARY KEY, g integer);
         CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, sum(id) AS total FROM t GROUP BY g;
         CREATE MATERIALIZED VIEW above AS SELECT sum(n) AS n FROM v;
         CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM t",
    )
    .await;
}

/// Rows `first..end`, ten a statement.
async fn insert(client: &Client, first: i64, end: i64) {
    for ten in (first..end).step_by(10) {
        let values: Vec<String> = (ten..end.min(ten + 10))
            .map(|n| format!("({n}, {})", n % 5))
            .collect();
        run(
            client,
            &format!("INSERT INTO t VALUES {}", values.join(", ")),
        )
        .await;
    }
}

/// What `v` holds once the table holds `0..end`.
fn expected(end: i64) -> Vec<String> {
    let of_group = |g: i64| -> Vec<i64> { (0..end).filter(|n| n % 5 == g).collect() };
    (0..5)
        .map(|g| (g, of_group(g)))
        .filter(|(_, of_group)| !of_group.is_empty())
        .map(|(g, of_group)| format!("{g}|{}|{}", of_group.len(), of_group.iter().sum::<i64>()))
        .collect()
}

async fn assert_all(client: &Client, end: i64, context: &str) {
    assert_eq!(
        rows(client, "SELECT * FROM v").await,
        expected(end),
        "{context}"
    );
    for view in ["above", "other"] {
        let found = rows(client, &format!("SELECT n FROM {view}")).await;
        assert_eq!(found, [end.to_string()], "{context}: {view}");
    }
}

async fn views(client: &Client) -> Vec<String> {
    rows(client, "SHOW MATERIALIZED VIEWS").await
}

fn has(lines: &[String], begin: &str) -> bool {
    lines.iter().any(|line| line.starts_with(begin))
}

async fn assert_suspended(client: &Client, name: &str) {
    let error = refused(client, &format!("SELECT * FROM {name}")).await;
    assert_eq!(error.code().code(), "55000", "{error:?}");
    let said = format!("materialized view \"{name}\" is suspended");
    assert_eq!(error.message(), said);
    assert!(
        error.hint().is_some_and(|h| h.contains("RESUME")),
        "{error:?}"
    );
}

fn until_logged(server: &Server, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !server.log().contains(text) {
        assert!(Instant::now() < deadline, "no {text} in {}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rollback_a_failure_goes_back_to_the_savepoint_and_no_further() {
    for backend in BACKENDS {
        let scene = Scene::new(&[("state_backend", backend), ("checkpoint_interval", "off")]);
        let server = scene.start();
        let client = server.connect().await;
        create(&client).await;
        insert(&client, 0, 30).await;
        run(&client, "SAVEPOINT here").await;
        insert(&client, 30, 60).await;
        run(&client, "UPDATE t SET g = 0").await;
        // Before anything of the new timeline can be in a checkpoint.
        scene.fail("first_barrier_panic:v:1");
        run(&client, "ROLLBACK TO SAVEPOINT here").await;
        assert_eq!(server.metric("tidegate_runtime_restarts_total"), 1.0);
        assert_all(&client, 30, backend).await;
        insert(&client, 30, 40).await;
        assert_all(&client, 40, backend).await;
        let server = scene.restart(server);
        assert_all(&server.connect().await, 40, backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_keeps_failing_is_suspended_and_the_others_go_on() {
    for backend in BACKENDS {
        let scene = Scene::new(&[
            ("state_backend", backend),
            ("checkpoint_interval", "100ms"),
            ("restart_delay", "10ms"),
            ("restart_attempts", "2"),
        ]);
        let server = scene.start();
        let client = server.connect().await;
        create(&client).await;
        insert(&client, 0, 10).await;
        assert_all(&client, 10, backend).await;
        scene.fail("operator_panic:v:always");
        insert(&client, 10, 20).await;
        until_rows(&client, "SHOW MATERIALIZED VIEWS", |lines| {
            has(lines, "v|suspended")
        })
        .await;
        let lines = views(&client).await;
        assert!(
            has(
                &lines,
                "v|suspended|0|the failpoint in an operator of \"v\""
            ),
            "{lines:?}"
        );
        assert!(
            has(
                &lines,
                "above|suspended|0|it reads \"v\", which is suspended"
            ),
            "{lines:?}"
        );
        // The workers have just started again: it is on its way back.
        until_rows(&client, "SHOW MATERIALIZED VIEWS", |lines| {
            has(lines, "other|running|0|∅")
        })
        .await;
        assert_eq!(rows(&client, "SELECT n FROM other").await, ["20"]);
        // Two more attempts, and the start without it.
        assert_eq!(server.metric("tidegate_runtime_restarts_total"), 3.0);
        insert(&client, 20, 30).await;
        assert_eq!(rows(&client, "SELECT n FROM other").await, ["30"]);
        assert_suspended(&client, "v").await;
        assert_suspended(&client, "above").await;

        until_logged(&server, "suspensions are durable");
        let server = scene.restart(server);
        let client = server.connect().await;
        assert_suspended(&client, "v").await;
        assert_eq!(rows(&client, "SELECT n FROM other").await, ["30"]);
        assert_eq!(server.metric("tidegate_runtime_restarts_total"), 0.0);
        // It still fails, now in front of the one who asks for it.
        let error = refused(&client, "RESUME MATERIALIZED VIEW v").await;
        assert!(error.message().contains("failpoint"), "{error:?}");
        assert_suspended(&client, "above").await;
        insert(&client, 30, 40).await;

        scene.fail("");
        run(&client, "RESUME MATERIALIZED VIEW v").await;
        assert_all(&client, 40, backend).await;
        insert(&client, 40, 50).await;
        assert_all(&client, 50, backend).await;
        let server = scene.restart(server);
        let client = server.connect().await;
        assert_all(&client, 50, backend).await;
        until_rows(&client, "SHOW MATERIALIZED VIEWS", |lines| {
            lines.iter().all(|l| l.contains("|running|"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_by_hand_it_stays_so_across_kills_and_is_built_anew() {
    for backend in BACKENDS {
        let scene = Scene::new(&[("state_backend", backend), ("checkpoint_interval", "off")]);
        let server = scene.start();
        let client = server.connect().await;
        create(&client).await;
        insert(&client, 0, 20).await;
        // Both lives of the view between two checkpoints: what the first holds must not be added to the second.
        run(&client, "CHECKPOINT").await;
        run(&client, "SUSPEND MATERIALIZED VIEW v").await;
        insert(&client, 20, 30).await;
        run(&client, "RESUME MATERIALIZED VIEW v").await;
        run(&client, "CHECKPOINT").await;
        let server = scene.restart(server);
        let client = server.connect().await;
        assert_eq!(server.replayed_rows(), 0);
        assert_all(&client, 30, backend).await;

        run(&client, "SUSPEND MATERIALIZED VIEW v").await;
        insert(&client, 30, 40).await;
        for view in ["v", "above"] {
            assert_suspended(&client, view).await;
        }
        let server = scene.restart(server);
        let client = server.connect().await;
        let lines = views(&client).await;
        assert!(
            has(&lines, "v|suspended|0|suspended by SUSPEND"),
            "{lines:?}"
        );
        assert_eq!(rows(&client, "SELECT n FROM other").await, ["40"]);
        let error = refused(&client, "RESUME MATERIALIZED VIEW above").await;
        assert_eq!(error.code().code(), "55000");
        assert!(error.message().contains("reads \"v\""), "{error:?}");
        let error = refused(&client, "CREATE MATERIALIZED VIEW more AS SELECT n FROM v").await;
        assert_eq!(error.code().code(), "55000", "{error:?}");
        run(&client, "RESUME MATERIALIZED VIEW v").await;
        assert_all(&client, 40, backend).await;

        // Resumed and killed before any checkpoint knows of it.
        let server = scene.restart(server);
        let client = server.connect().await;
        assert_all(&client, 40, backend).await;
        run(&client, "SUSPEND MATERIALIZED VIEW v").await;
        run(&client, "CHECKPOINT").await;
        run(&client, "DROP MATERIALIZED VIEW v CASCADE").await;
        assert_eq!(views(&client).await.len(), 1);
        let server = scene.restart(server);
        let lines = views(&server.connect().await).await;
        assert_eq!(lines, ["other|running|0|∅"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_over_a_source_is_replayed_when_it_is_resumed() {
    const ROWS: i64 = 3000;
    let scene = Scene::new(&[("checkpoint_interval", "100ms")]);
    let server = scene.start();
    let client = server.connect().await;
    let source = format!(
        "CREATE SOURCE ticks (n bigint) WITH (connector = 'datagen', rows = '{ROWS}', \"rows.per.second\" = '1000', \
         \"fields.n.kind\" = 'sequence')"
    );
    run(&client, &source).await;
    for name in ["a", "b"] {
        let view = "SELECT count(*) AS n, count(DISTINCT n) AS different FROM ticks";
        run(
            &client,
            &format!("CREATE MATERIALIZED VIEW {name} AS {view}"),
        )
        .await;
    }
    run(&client, "SUSPEND MATERIALIZED VIEW a").await;
    let server = scene.restart(server);
    let client = server.connect().await;
    assert_suspended(&client, "a").await;
    run(&client, "RESUME MATERIALIZED VIEW a").await;
    let server = scene.restart(server);
    let client = server.connect().await;
    for name in ["a", "b"] {
        let sql = format!("SELECT n, different FROM {name}");
        until_rows(&client, &sql, |found| *found == [format!("{ROWS}|{ROWS}")]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_keeps_its_view_from_being_suspended() {
    let scene = Scene::new(&[]);
    let server = scene.start();
    let client = server.connect().await;
    create(&client).await;
    run(
        &client,
        "CREATE SINK s FROM above WITH (connector = 'blackhole')",
    )
    .await;
    let error = refused(&client, "SUSPEND MATERIALIZED VIEW v").await;
    assert_eq!(error.code().code(), "2BP01");
    assert!(error.message().contains("sink \"s\""), "{error:?}");
    let error = refused(&client, "SUSPEND SINK s").await;
    assert_eq!(error.code().code(), "0A000");
    run(&client, "DROP SINK s").await;
    run(&client, "SUSPEND MATERIALIZED VIEW v").await;
    run(&client, "SUSPEND MATERIALIZED VIEW v").await;
    run(&client, "RESUME MATERIALIZED VIEW v").await;
    run(&client, "RESUME MATERIALIZED VIEW v").await;
    insert(&client, 0, 10).await;
    assert_all(&client, 10, "resumed twice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_restarts_one_failure_suspends_a_view_or_ends_everything() {
    let scene = Scene::new(&[("restart_strategy", "none")]);
    let server = scene.start();
    let client = server.connect().await;
    create(&client).await;
    insert(&client, 0, 10).await;
    assert_all(&client, 10, "before").await;
    scene.fail("operator_panic:v:1");
    insert(&client, 10, 20).await;
    until_rows(&client, "SHOW MATERIALIZED VIEWS", |lines| {
        has(lines, "v|suspended")
    })
    .await;
    assert_eq!(rows(&client, "SELECT n FROM other").await, ["20"]);
    assert_eq!(server.http_status("/healthz"), 200);
    // Not the fault of any view: nothing can be left out.
    scene.fail("worker_panic:*:1");
    run(&client, "INSERT INTO t VALUES (20, 0)").await;
    let error = refused(&client, "SELECT n FROM other").await;
    assert_eq!(error.code().code(), "57P03", "{error:?}");
    assert!(error.detail().is_some_and(|d| d.contains("failpoint")));
    assert_eq!(server.http_status("/healthz"), 503);
    scene.fail("");
    let server = scene.restart(server);
    let client = server.connect().await;
    // The insert was acknowledged.
    assert_eq!(rows(&client, "SELECT n FROM other").await, ["21"]);
    run(&client, "RESUME MATERIALIZED VIEW v").await;
    assert_all(&client, 21, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_over_one_that_is_being_built_cannot_be_read_before_it() {
    let scene = Scene::new(&[]);
    let server = scene.start();
    let client = server.connect().await;
    run(
        &client,
        "CREATE SOURCE ticks (n bigint) WITH (connector = 'datagen', rows = '100000', \"fields.n.kind\" = 'sequence');
         CREATE MATERIALIZED VIEW base AS SELECT n FROM ticks",
    )
    .await;
    until_rows(&client, "SELECT count(*) FROM base", |n| n == ["100000"]).await;
    run(&client, "SET background_ddl = on").await;
    scene.fail("operator_slow:slow:50");
    run(
        &client,
        "CREATE MATERIALIZED VIEW slow AS SELECT n + 1 AS n FROM ticks",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW over_it AS SELECT count(*) AS n FROM slow",
    )
    .await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match client.simple_query("SELECT n FROM over_it").await {
            Ok(_) => break,
            Err(error) => assert_eq!(error.code().unwrap().code(), "55000", "{error:?}"),
        }
        assert!(Instant::now() < deadline);
    }
    assert_eq!(rows(&client, "SELECT n FROM over_it").await, ["100000"]);
}

/// How long a statement takes.
async fn timed(client: &Client, sql: &str) -> Duration {
    let started = Instant::now();
    run(client, sql).await;
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_falls_behind_is_left_out_and_comes_back() {
    for backend in BACKENDS {
        let scene = Scene::new(&[
            ("state_backend", backend),
            ("checkpoint_interval", "200ms"),
            ("max_barrier_lag", "1s"),
        ]);
        let server = scene.start();
        let client = server.connect().await;
        create(&client).await;
        insert(&client, 0, 20).await;
        assert_all(&client, 20, backend).await;
        // Each of its operators takes two seconds for each barrier.
        scene.fail("operator_slow:v:2000");
        insert(&client, 20, 30).await;
        until_rows(&client, "SHOW MATERIALIZED VIEWS", |lines| {
            has(lines, "v|behind") && has(lines, "above|behind") && has(lines, "other|running")
        })
        .await;
        let error = refused(&client, "SELECT * FROM v").await;
        assert_eq!(error.code().code(), "55000");
        assert!(error.message().contains("has fallen behind"), "{error:?}");
        // The others are not held up any more: ten writes, each followed by a read that waits for it, in less time than
        // one barrier of the slow view.
        scene.fail("");
        let mut slowest = Duration::ZERO;
        for n in 30..40 {
            insert(&client, n, n + 1).await;
            slowest = slowest.max(timed(&client, "SELECT n FROM other").await);
        }
        assert!(
            slowest < Duration::from_millis(1500),
            "{backend}: {slowest:?}"
        );
        assert_eq!(rows(&client, "SELECT n FROM other").await, ["40"]);
        // It comes back by itself, and holds what it would if it had never been away.
        until_rows(&client, "SHOW MATERIALIZED VIEWS", |lines| {
            has(lines, "v|running") && has(lines, "above|running")
        })
        .await;
        assert_all(&client, 40, backend).await;
        insert(&client, 40, 50).await;
        assert_all(&client, 50, backend).await;
        assert_eq!(server.metric("tidegate_runtime_restarts_total"), 0.0);

        // Killed while it is left out: it is built anew, and whoever reads it waits for that.
        scene.fail("operator_slow:v:2000");
        insert(&client, 50, 60).await;
        until_rows(&client, "SHOW MATERIALIZED VIEWS", |lines| {
            has(lines, "v|behind")
        })
        .await;
        scene.fail("");
        let server = scene.restart(server);
        assert_all(&server.connect().await, 60, backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_with_a_sink_behind_it_holds_everybody_up_rather_than_write_twice() {
    let scene = Scene::new(&[("max_barrier_lag", "300ms")]);
    let server = scene.start();
    let client = server.connect().await;
    create(&client).await;
    run(
        &client,
        "CREATE SINK s FROM above WITH (connector = 'blackhole')",
    )
    .await;
    scene.fail("operator_slow:v:1000");
    insert(&client, 0, 10).await;
    assert_all(&client, 10, "slow").await;
    scene.fail("");
    insert(&client, 10, 20).await;
    assert_all(&client, 20, "quick again").await;
    assert!(!server.log().contains("fell behind"), "{}", server.log());
}

//! `ALTER SYSTEM SET workers`: another number of workers under open sessions, subscriptions and cursors, with rows coming in
//! and a view half built; refused, failed, and killed in the middle of it.

use crate::server::{Server, bare_command, command, refused, rows, run, until_rows};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, SimpleQueryMessage};

async fn create(client: &Client) {
    run(
        client,
        "CREATE TABLE t (id bigint PRIMARY KEY, g bigint);
         CREATE SOURCE s (id bigint) WITH (connector = 'datagen', splits = '3', rows = '30000', \"rows.per.second\" = '6000', \"fields.id.kind\" = 'sequence');
         CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, sum(id) AS total, max(id) AS high FROM t GROUP BY g;
         CREATE MATERIALIZED VIEW top AS SELECT id FROM t ORDER BY id DESC LIMIT 3;
         SET background_ddl = on;
         CREATE MATERIALIZED VIEW grown AS SELECT id, id % 5 AS g FROM s;
         CREATE MATERIALIZED VIEW over AS SELECT v.g, v.n, count(*) AS ids FROM grown JOIN v ON grown.g = v.g GROUP BY v.g, v.n;
         CREATE MATERIALIZED VIEW failing AS SELECT id, 10 / (id - id % 1000) AS x FROM t",
    )
    .await;
}

/// What follows from a table that holds exactly `0..end`.
fn groups(end: i64) -> Vec<String> {
    let of = |g: i64| (0..end).filter(move |id| id % 5 == g);
    let groups = (0..5).filter(|g| *g < end);
    groups
        .map(|g| {
            format!(
                "{g}|{}|{}|{}",
                of(g).count(),
                of(g).sum::<i64>(),
                of(g).max().unwrap()
            )
        })
        .collect()
}

async fn insert(client: &Client, id: i64) {
    run(client, &format!("INSERT INTO t VALUES ({id}, {})", id % 5)).await;
}

/// Inserts one row after the other until told to stop, and answers how many and the longest that one took.
async fn keep_inserting(client: Client, next: Arc<AtomicI64>, stop: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        insert(&client, next.load(Ordering::SeqCst)).await;
        longest = longest.max(began.elapsed());
        next.fetch_add(1, Ordering::SeqCst);
    }
    longest
}

/// Adds what a cursor over a subscription has to give, epoch, diff and a row each, at most so many times.
async fn fetch(client: &Client, held: &mut BTreeMap<String, i64>, times: usize) {
    for _ in 0..times {
        let mut count = 0;
        for message in client
            .simple_query("FETCH 1000 FROM c WITH (timeout = '200ms')")
            .await
            .unwrap()
        {
            if let SimpleQueryMessage::Row(row) = message {
                let diff: i64 = row.get(1).unwrap().parse().unwrap();
                let cells: Vec<&str> = (2..row.len()).map(|c| row.get(c).unwrap()).collect();
                *held.entry(cells.join("|")).or_default() += diff;
                count += 1;
            }
        }
        held.retain(|_, count| *count != 0);
        if count == 0 {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_subscriptions_and_cursors_go_on_over_a_rescale() {
    for backend in ["memory", "rocksdb"] {
        let directory = tempfile::tempdir().unwrap();
        let settings = [("state_backend", backend), ("checkpoint_interval", "100ms")];
        let mut server = Server::start(directory.path(), &settings);
        let (client, follower) = (server.connect().await, server.connect().await);
        create(&client).await;
        for id in 0..20 {
            insert(&client, id).await;
        }
        run(&follower, "DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE v").await;
        run(
            &follower,
            "DECLARE old CURSOR WITH HOLD FOR SELECT * FROM v ORDER BY g",
        )
        .await;
        assert_eq!(rows(&follower, "FETCH 1 FROM old").await, groups(20)[..1]);
        let (next, stop) = (
            Arc::new(AtomicI64::new(20)),
            Arc::new(AtomicBool::new(false)),
        );
        let inserting = tokio::spawn(keep_inserting(
            server.connect().await,
            next.clone(),
            stop.clone(),
        ));
        let mut held = BTreeMap::new();
        for workers in ["4", "1", "3", "3", "2"] {
            run(&client, &format!("ALTER SYSTEM SET workers = {workers}")).await;
            assert_eq!(rows(&client, "SHOW workers").await, [workers]);
            fetch(&follower, &mut held, 2).await;
        }
        stop.store(true, Ordering::SeqCst);
        let longest = inserting.await.unwrap();
        let end = next.load(Ordering::SeqCst);
        println!(
            "{backend}: {end} rows while workers changed, the longest statement took {longest:?}"
        );
        assert!(longest < Duration::from_secs(10), "{longest:?}");
        assert_eq!(rows(&client, "SELECT * FROM v").await, groups(end));
        fetch(&follower, &mut held, usize::MAX).await;
        let followed: Vec<String> = held.keys().cloned().collect();
        assert_eq!(followed, groups(end), "what the subscription told adds up");
        assert!(held.values().all(|count| *count == 1), "{held:?}");
        assert_eq!(rows(&follower, "FETCH ALL FROM old").await, groups(20)[1..]);
        let top: Vec<String> = (end - 3..end).map(|id| id.to_string()).collect();
        assert_eq!(rows(&client, "SELECT * FROM top").await.len(), top.len());
        // Each row below 1000 fails, once, on whichever worker it was.
        let failed = "SELECT count(*), sum(count) FROM tidegate.errors WHERE relation = 'failing'";
        let expected = end.min(1000);
        assert_eq!(
            rows(&client, failed).await,
            [format!("{expected}|{expected}")]
        );
        run(&client, "DELETE FROM t WHERE id < 10").await;
        let expected = expected - 10;
        assert_eq!(
            rows(&client, failed).await,
            [format!("{expected}|{expected}")]
        );
        let all = |found: &[String]| found == ["30000"];
        until_rows(&client, "SELECT count(*) FROM grown", all).await;
        let ids = "SELECT count(*), count(DISTINCT id), sum(id) FROM grown";
        assert_eq!(
            rows(&client, ids).await,
            [format!("30000|30000|{}", 30_000u64 * 29_999 / 2)]
        );
        assert_eq!(rows(&client, "SELECT sum(ids) FROM over").await, ["30000"]);
        server.kill();
        server.wait();
    }
}

/// A server whose operators fail or are slow as a file says.
fn with_failpoint(directory: &Path, settings: &[(&str, &str)]) -> Server {
    let mut command = command(&directory.join("data"), settings);
    command.env(
        "TIDEGATE_FAILPOINT",
        format!("@{}", directory.join("failpoint").display()),
    );
    Server::spawn(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_built_view_goes_on_over_a_rescale() {
    let directory = tempfile::tempdir().unwrap();
    let slow = |text: &str| std::fs::write(directory.path().join("failpoint"), text).unwrap();
    slow("");
    let server = with_failpoint(directory.path(), &[("checkpoint_interval", "off")]);
    let client = server.connect().await;
    run(
        &client,
        "CREATE SOURCE s (id bigint) WITH (connector = 'datagen', splits = '4', rows = '20000', \"fields.id.kind\" = 'sequence');
         CREATE MATERIALIZED VIEW grown AS SELECT id, id % 7 AS g FROM s;
         CREATE MATERIALIZED VIEW keyed AS SELECT id / 2 AS pair, count(*) AS n, sum(id) AS total FROM s GROUP BY id / 2;
         SET background_ddl = on",
    )
    .await;
    until_rows(&client, "SELECT count(*) FROM grown", |found| {
        found == ["20000"]
    })
    .await;
    until_rows(&client, "SELECT sum(n) FROM keyed", |found| {
        found == ["20000"]
    })
    .await;
    slow("operator_slow:a:20;slice_rows:a:50;slice_rows:b:20");
    run(
        &client,
        "CREATE MATERIALIZED VIEW a AS SELECT g, count(*) AS n, sum(id) AS total FROM grown GROUP BY g;
         CREATE MATERIALIZED VIEW b AS SELECT pair % 7 AS g, count(*) AS n, sum(total) AS total FROM keyed GROUP BY pair % 7",
    )
    .await;
    let building = "SELECT count(*) FROM tidegate.jobs WHERE name IN ('a', 'b')";
    for workers in ["4", "1", "3", "2"] {
        run(&client, &format!("ALTER SYSTEM SET workers = {workers}")).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        println!(
            "{workers} workers: {:?}",
            rows(&client, "SELECT name, progress FROM tidegate.jobs").await
        );
    }
    assert_eq!(
        rows(&client, building).await,
        ["2"],
        "it was half built all the time"
    );
    slow("");
    until_rows(&client, building, |found| found == ["0"]).await;
    let of = |g: u64| (0..20_000u64).filter(move |id| id % 7 == g);
    let expected: Vec<String> = (0..7)
        .map(|g| format!("{g}|{}|{}", of(g).count(), of(g).sum::<u64>()))
        .collect();
    assert_eq!(rows(&client, "SELECT * FROM a").await, expected);
    let of = |g: u64| (0..10_000u64).filter(move |pair| pair % 7 == g);
    let expected: Vec<String> = (0..7)
        .map(|g| {
            format!(
                "{g}|{}|{}",
                of(g).count(),
                of(g).map(|pair| 4 * pair + 1).sum::<u64>()
            )
        })
        .collect();
    assert_eq!(rows(&client, "SELECT * FROM b").await, expected);
}

/// Rows queue in front of a slow operator, and checkpoints overtake them; a suspended view stays what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rescale_waits_for_rows_that_queue_and_checkpoints_that_overtake() {
    let directory = tempfile::tempdir().unwrap();
    let slow = |text: &str| std::fs::write(directory.path().join("failpoint"), text).unwrap();
    slow("");
    let settings = [
        ("checkpoint_interval", "40ms"),
        ("checkpoint_alignment", "unaligned"),
        ("rows_in_flight", "40000"),
        ("rows_per_epoch", "16384"),
    ];
    let server = with_failpoint(directory.path(), &settings);
    let client = server.connect().await;
    run(
        &client,
        "CREATE SOURCE r (id bigint) WITH (connector = 'datagen', splits = '4', rows = '60000', \"rows.per.second\" = '20000', \"fields.id.kind\" = 'sequence');
         SET background_ddl = on;
         CREATE MATERIALIZED VIEW v AS SELECT id % 7 AS g, count(*) AS n, sum(id) AS total FROM r GROUP BY id % 7;
         CREATE MATERIALIZED VIEW w AS SELECT sum(n) AS n FROM v;
         SUSPEND MATERIALIZED VIEW w",
    )
    .await;
    slow("batch_slow:v:3");
    let overtook = "SELECT count(*) FROM tidegate.checkpoints WHERE alignment = 'unaligned' AND in_flight_bytes > 0";
    until_rows(&client, overtook, |found| found != ["0"]).await;
    for workers in ["4", "1", "2"] {
        run(&client, &format!("ALTER SYSTEM SET workers = {workers}")).await;
        let alignment = rows(&client, "SHOW checkpoint_alignment").await;
        assert_eq!(alignment, ["unaligned"]);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    slow("");
    until_rows(&client, "SELECT coalesce(sum(n), 0) FROM v", |found| {
        found == ["60000"]
    })
    .await;
    let of = |g: u64| (0..60_000u64).filter(move |id| id % 7 == g);
    let expected: Vec<String> = (0..7)
        .map(|g| format!("{g}|{}|{}", of(g).count(), of(g).sum::<u64>()))
        .collect();
    assert_eq!(rows(&client, "SELECT * FROM v").await, expected);
    let status = "SELECT status FROM tidegate.materialized_views WHERE name = 'w'";
    assert_eq!(rows(&client, status).await, ["suspended"]);
    run(&client, "RESUME MATERIALIZED VIEW w").await;
    until_rows(&client, "SELECT count(*) FROM tidegate.jobs", |found| {
        found == ["0"]
    })
    .await;
    assert_eq!(rows(&client, "SELECT n FROM w").await, ["60000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_holds_over_a_restart_and_wrong_ones_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::spawn(bare_command(directory.path(), &[]));
    let client = server.connect().await;
    let cores = rows(&client, "SHOW workers").await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY)").await;
    for (value, hint) in [
        ("257", "numbers from 0 to 256"),
        ("-1", "numbers from 0 to 256"),
        ("'many'", "a whole number"),
        ("'2.5'", "a whole number"),
    ] {
        let error = refused(&client, &format!("ALTER SYSTEM SET workers = {value}")).await;
        assert_eq!(error.code().code(), "22023", "{value}: {error:?}");
        assert!(error.hint().unwrap().contains(hint), "{value}: {error:?}");
    }
    let error = refused(&client, "BEGIN; ALTER SYSTEM SET workers = 3").await;
    assert_eq!(error.code().code(), "25001", "{error:?}");
    run(&client, "ROLLBACK").await;
    let error = refused(&client, "SET workers = 3").await;
    assert_eq!(error.code().code(), "55P02", "{error:?}");
    assert_eq!(rows(&client, "SHOW workers").await, cores);
    run(&client, "ALTER SYSTEM SET workers = 3").await;
    run(
        &client,
        "INSERT INTO t SELECT * FROM generate_series(1, 100)",
    )
    .await;
    server.kill();
    server.wait();
    let mut server = Server::spawn(bare_command(directory.path(), &[]));
    let client = server.connect().await;
    assert_eq!(rows(&client, "SHOW workers").await, ["3"]);
    let shown = "SELECT value FROM tidegate.settings WHERE name = 'workers'";
    assert_eq!(rows(&client, shown).await, ["3"]);
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["100"]);
    run(&client, "ALTER SYSTEM RESET workers").await;
    assert_eq!(rows(&client, "SHOW workers").await, cores);
    server.kill();
    server.wait();
    // What is given at the start wins, as with every setting.
    let server = Server::spawn(bare_command(directory.path(), &[("workers", "1")]));
    let client = server.connect().await;
    assert_eq!(rows(&client, "SHOW workers").await, ["1"]);
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["100"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_rescale_leaves_the_old_number_and_a_working_database() {
    let directory = tempfile::tempdir().unwrap();
    let fail = |text: &str| std::fs::write(directory.path().join("failpoint"), text).unwrap();
    fail("");
    let settings = [("checkpoint_interval", "off")];
    let server = with_failpoint(directory.path(), &settings);
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id bigint PRIMARY KEY, g bigint);
         CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, sum(id) AS total, max(id) AS high FROM t GROUP BY g",
    )
    .await;
    for id in 0..10 {
        insert(&client, id).await;
    }
    let follower = server.connect().await;
    run(&follower, "DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE v").await;
    let mut held = BTreeMap::new();
    fetch(&follower, &mut held, usize::MAX).await;
    // The first of the new workers fails.
    fail("first_barrier_panic:v:1");
    let error = refused(&client, "ALTER SYSTEM SET workers = 3").await;
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert!(
        error.message().contains("could not be changed to 3"),
        "{error:?}"
    );
    assert!(error.detail().unwrap().contains("failpoint"), "{error:?}");
    assert_eq!(rows(&client, "SHOW workers").await, ["2"]);
    assert_eq!(rows(&client, "SELECT * FROM v").await, groups(10));
    // Its checkpoint is not durable in time.
    run(&client, "ALTER SYSTEM SET checkpoint_timeout = '300ms'").await;
    fail("operator_slow:v:600");
    let error = refused(&client, "ALTER SYSTEM SET workers = 3").await;
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert!(error.message().contains("checkpoint_timeout"), "{error:?}");
    fail("");
    run(&client, "ALTER SYSTEM RESET checkpoint_timeout").await;
    assert_eq!(rows(&client, "SHOW workers").await, ["2"]);
    let written = std::fs::read_to_string(directory.path().join("data/settings.json")).unwrap();
    assert!(!written.contains("workers"), "{written}");
    insert(&client, 10).await;
    assert_eq!(rows(&client, "SELECT * FROM v").await, groups(11));
    // Nothing that the subscription has told is lost.
    fetch(&follower, &mut held, usize::MAX).await;
    let followed: Vec<String> = held.keys().cloned().collect();
    assert_eq!(followed, groups(11));
    run(&client, "ALTER SYSTEM SET workers = 3").await;
    insert(&client, 11).await;
    assert_eq!(rows(&client, "SELECT * FROM v").await, groups(12));
    assert_eq!(rows(&client, "SHOW workers").await, ["3"]);
}

/// Killed at whatever moment of a rescale, the server comes back with the old number or the new, and with all rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_rescale_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [("checkpoint_interval", "50ms")];
    let mut server = Server::spawn(bare_command(directory.path(), &settings));
    let mut client = server.connect().await;
    create(&client).await;
    let mut end = 0;
    for (round, workers) in ["3", "1", "4", "2", "3", "1"].into_iter().enumerate() {
        for _ in 0..10 {
            insert(&client, end).await;
            end += 1;
        }
        let rescaling = tokio::spawn(async move {
            // Its answer may be lost with the server.
            let _ = client
                .simple_query(&format!("ALTER SYSTEM SET workers = {workers}"))
                .await;
        });
        tokio::time::sleep(Duration::from_millis(12 * round as u64 + 3)).await;
        server.kill();
        server.wait();
        rescaling.await.unwrap();
        server = Server::spawn(bare_command(directory.path(), &settings));
        client = server.connect().await;
        assert_eq!(
            rows(&client, "SELECT * FROM v").await,
            groups(end),
            "round {round}"
        );
        println!(
            "round {round}: {:?} workers",
            rows(&client, "SHOW workers").await
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_is_predicted_from_what_was_measured() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [("checkpoint_interval", "off")];
    let mut server = Server::start(directory.path(), &settings);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY, g bigint)").await;
    run(
        &client,
        "INSERT INTO t SELECT id, id % 5 FROM generate_series(1, 3000) AS new(id)",
    )
    .await;
    let steps = "SELECT step, rows, bytes IS NULL OR bytes > 0, estimated_ms IS NOT NULL FROM tidegate.recovery";
    let basis = "SELECT basis FROM tidegate.recovery WHERE step = 'replay'";
    let before = rows(&client, steps).await;
    assert!(before.contains(&"replay|3000|t|f".to_owned()), "{before:?}");
    assert!(rows(&client, basis).await[0].contains("no measurement yet"));
    run(&client, "CHECKPOINT").await;
    let after = rows(&client, steps).await;
    assert!(after.contains(&"replay|0|t|t".to_owned()), "{after:?}");
    assert!(after.contains(&"restore|3000|t|f".to_owned()), "{after:?}");
    run(
        &client,
        "INSERT INTO t SELECT id, id % 5 FROM generate_series(3001, 5000) AS new(id)",
    )
    .await;
    server.kill();
    server.wait();
    let server = Server::start(directory.path(), &settings);
    let client = server.connect().await;
    assert_eq!(server.replayed_rows(), 2000, "as was said before");
    let now = rows(&client, steps).await;
    assert!(now.contains(&"restore|3000|t|t".to_owned()), "{now:?}");
    assert!(now.contains(&"replay|2000|t|t".to_owned()), "{now:?}");
    assert!(now.contains(&"readable|∅|t|t".to_owned()), "{now:?}");
    assert_eq!(rows(&client, "SHOW RECOVERY").await.len(), 4);
}

//! Every backend and number of workers restores what every other has left: from a checkpoint, from one whose barrier had
//! overtaken rows, and from a savepoint.
//!
//! What is restored is computed here again, from arithmetic and the changes that were made: joins, aggregates, the first of
//! each group, retractions among all of it, and two views that were half built when the server was killed, one over rows
//! that only grow and one over rows that are retracted. An ordinary run takes pairs with each backend and number on either side;
//! `TIDEGATE_RESTORE_MATRIX=all` takes all of them.

use crate::server::{Server, command, rows, run, until_rows};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio_postgres::Client;

/// A backend and a number of workers.
type Place = (&'static str, &'static str);

const PLACES: [Place; 6] = [
    ("memory", "1"),
    ("memory", "2"),
    ("memory", "4"),
    ("rocksdb", "1"),
    ("rocksdb", "2"),
    ("rocksdb", "4"),
];

/// Rows of the source that ends, and of the one that goes on until after the crash.
const GROWN: u64 = 24_000;
const STEADY: u64 = 40_000;
const STEADY_PER_SECOND: u64 = 20_000;

/// The table as it is after some changes: g and x by id.
#[derive(Clone)]
struct Model {
    t: BTreeMap<i64, (i64, i64)>,
}

impl Model {
    fn new() -> Self {
        let t = (0..2400)
            .map(|id| (id, (id % 13, id * 7919 % 500)))
            .collect();
        Self { t }
    }

    /// As the statements of [`change`] do.
    fn change(&mut self, round: i64) {
        self.t.retain(|id, _| id % 10 != 3 + round);
        for (id, (_, x)) in &mut self.t {
            if id % 7 == 2 {
                *x += 1 + round;
            }
        }
        let new = 10_000 * (round + 1);
        self.t
            .extend((new..new + 50).map(|id| (id, (id % 11, id % 600))));
    }

    fn name(g: i64) -> Option<String> {
        (g < 10).then(|| format!("name {g}"))
    }

    fn groups(&self) -> BTreeMap<i64, Vec<(i64, i64)>> {
        let mut groups: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
        for (id, (g, x)) in &self.t {
            groups.entry(*g).or_default().push((*id, *x));
        }
        groups
    }

    /// What each query answers.
    fn answers(&self) -> Vec<(&'static str, Vec<String>)> {
        let groups = self.groups();
        let joined = self
            .t
            .iter()
            .filter_map(|(id, (g, x))| Some(format!("{id}|{}|{x}", Self::name(*g)?)));
        let kept = groups.iter().map(|(g, rows)| {
            let named = if Self::name(*g).is_some() {
                rows.len()
            } else {
                0
            };
            format!("{g}|{named}|{}", rows.len())
        });
        let sums = groups.iter().map(|(g, rows)| {
            let xs: Vec<i64> = rows.iter().map(|(_, x)| *x).collect();
            let distinct: BTreeSet<&i64> = xs.iter().collect();
            let (low, high) = (xs.iter().min().unwrap(), xs.iter().max().unwrap());
            format!(
                "{g}|{}|{}|{low}|{high}|{}",
                xs.len(),
                xs.iter().sum::<i64>(),
                distinct.len()
            )
        });
        let mut by_x: Vec<(i64, i64)> = self.t.iter().map(|(id, (_, x))| (-x, *id)).collect();
        by_x.sort();
        let top = by_x.iter().take(12).map(|(x, id)| format!("{id}|{}", -x));
        let each = groups.iter().flat_map(|(g, rows)| {
            let mut by_x: Vec<(i64, i64)> = rows.iter().map(|(id, x)| (-x, *id)).collect();
            by_x.sort();
            let first = by_x.into_iter().take(3);
            first
                .map(|(x, id)| format!("{g}|{id}|{}", -x))
                .collect::<Vec<_>>()
        });
        let values: BTreeSet<i64> = self.t.values().map(|(_, x)| *x).collect();
        let late_keyed = groups.iter().filter_map(|(g, rows)| {
            let name = Self::name(*g)?;
            let xs = || rows.iter().map(|(_, x)| *x);
            Some(format!(
                "{name}|{}|{}|{}",
                rows.len(),
                xs().sum::<i64>(),
                xs().max()?
            ))
        });
        let of_group = |g: u64, end: u64| (0..end).filter(move |id| id % 7 == g);
        let late = (0..7).map(|g| {
            let ids = of_group(g, GROWN);
            let (low, high) = (g, of_group(g, GROWN).max().unwrap());
            format!(
                "{g}|{}|{}|{low}|{high}",
                ids.clone().count(),
                ids.sum::<u64>()
            )
        });
        let slow = (0..7).map(|g| {
            let ids = of_group(g, STEADY);
            format!("{g}|{}|{}", ids.clone().count(), ids.sum::<u64>())
        });
        let ids: u64 = (0..GROWN).sum();
        let mut answers = vec![
            ("SELECT * FROM joined", joined.collect()),
            ("SELECT * FROM kept", kept.collect()),
            ("SELECT * FROM sums", sums.collect()),
            ("SELECT * FROM top", top.collect()),
            ("SELECT * FROM each", each.collect()),
            (
                "SELECT * FROM vals",
                values.iter().map(i64::to_string).collect(),
            ),
            (
                "SELECT count(*), count(DISTINCT id), sum(id) FROM grown",
                vec![format!("{GROWN}|{GROWN}|{ids}")],
            ),
            ("SELECT * FROM late", late.collect()),
            ("SELECT * FROM late_keyed", late_keyed.collect()),
            ("SELECT * FROM slow", slow.collect::<Vec<_>>()),
        ];
        for (_, rows) in &mut answers {
            rows.sort();
        }
        answers
    }
}

async fn change(client: &Client, round: i64) {
    let new = 10_000 * (round + 1);
    run(
        client,
        &format!(
            "DELETE FROM t WHERE id % 10 = {};
             UPDATE t SET x = x + {} WHERE id % 7 = 2;
             INSERT INTO t SELECT id, id % 11, id % 600 FROM generate_series({new}, {}) AS new(id)",
            3 + round,
            1 + round,
            new + 49
        ),
    )
    .await;
}

/// A data directory as a killed server has left it.
struct Origin {
    directory: tempfile::TempDir,
    place: Place,
}

fn failpoint(directory: &Path) -> PathBuf {
    directory.join("failpoint")
}

fn slow(directory: &Path, description: &str) {
    let new = directory.join("failpoint.new");
    std::fs::write(&new, description).unwrap();
    std::fs::rename(new, failpoint(directory)).unwrap();
}

fn start(directory: &Path, place: Place, more: &[(&str, &str)]) -> Server {
    let mut settings = vec![
        ("state_backend", place.0),
        ("workers", place.1),
        ("checkpoint_interval", "40ms"),
        ("rows_per_epoch", "16384"),
    ];
    settings.extend(more);
    let mut command = command(&directory.join("data"), &settings);
    command.env(
        "TIDEGATE_FAILPOINT",
        format!("@{}", failpoint(directory).display()),
    );
    Server::spawn(command)
}

async fn create(client: &Client) {
    run(
        client,
        &format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, g bigint, x bigint);
             CREATE TABLE names (g bigint PRIMARY KEY, name text);
             INSERT INTO names SELECT g, 'name ' || g FROM generate_series(0, 9) AS n(g);
             INSERT INTO t SELECT id, id % 13, id * 7919 % 500 FROM generate_series(0, 2399) AS n(id);
             CREATE SOURCE s (id bigint) WITH (connector = 'datagen', splits = '4', rows = '{GROWN}', \"fields.id.kind\" = 'sequence');
             CREATE SOURCE r (id bigint) WITH (connector = 'datagen', splits = '4', rows = '{STEADY}',
                 \"rows.per.second\" = '{STEADY_PER_SECOND}', \"fields.id.kind\" = 'sequence');
             CREATE MATERIALIZED VIEW joined AS SELECT t.id, n.name, t.x FROM t JOIN names n ON t.g = n.g;
             CREATE MATERIALIZED VIEW kept AS SELECT t.g, count(n.name) AS named, count(*) AS n FROM t LEFT JOIN names n ON t.g = n.g GROUP BY t.g;
             CREATE MATERIALIZED VIEW sums AS SELECT g, count(*) AS n, sum(x) AS s, min(x) AS low, max(x) AS high, count(DISTINCT x) AS d FROM t GROUP BY g;
             CREATE MATERIALIZED VIEW top AS SELECT id, x FROM t ORDER BY x DESC, id LIMIT 12;
             CREATE MATERIALIZED VIEW each AS SELECT g, id, x FROM
                 (SELECT g, id, x, row_number() OVER (PARTITION BY g ORDER BY x DESC, id) AS place FROM t) AS ranked WHERE place <= 3;
             CREATE MATERIALIZED VIEW vals AS SELECT DISTINCT x FROM t;
             CREATE MATERIALIZED VIEW grown AS SELECT id, id % 7 AS g FROM s;
             SET background_ddl = on;
             CREATE MATERIALIZED VIEW slow AS SELECT id % 7 AS g, count(*) AS n, sum(id) AS total FROM r GROUP BY id % 7"
        ),
    )
    .await;
    let whole = |found: &[String]| found == [GROWN.to_string()];
    until_rows(client, "SELECT count(*) FROM grown", whole).await;
}

/// Begins to build two more views, and returns when both are on the way.
async fn create_late(client: &Client, directory: &Path, more: &str) {
    slow(
        directory,
        &format!("operator_slow:late:15;slice_rows:late:80;slice_rows:late_keyed:6{more}"),
    );
    run(
        client,
        "CREATE MATERIALIZED VIEW late AS SELECT g, count(*) AS n, sum(id) AS total, min(id) AS low, max(id) AS high FROM grown GROUP BY g;
         CREATE MATERIALIZED VIEW late_keyed AS SELECT name, count(*) AS n, sum(x) AS total, max(x) AS high FROM joined GROUP BY name",
    )
    .await;
    let under_way = |found: &[String]| found == ["2"];
    until_rows(
        client,
        "SELECT count(*) FROM tidegate.jobs WHERE progress > 0.05 AND name LIKE 'late%'",
        under_way,
    )
    .await;
}

async fn number(client: &Client, sql: &str) -> f64 {
    rows(client, sql).await[0].parse().unwrap_or(0.0)
}

/// Waits until this many more checkpoints of a kind are durable.
async fn until_checkpoints(client: &Client, of: &str, count: f64) {
    let sql =
        format!("SELECT count(*) FROM tidegate.checkpoints WHERE status = 'completed' AND {of}");
    let before = number(client, &sql).await;
    let enough = |found: &[String]| found[0].parse::<f64>().unwrap() >= before + count;
    until_rows(client, &sql, enough).await;
}

async fn assert_half_built(client: &Client) {
    let jobs = rows(
        client,
        "SELECT name FROM tidegate.jobs WHERE progress < 0.95",
    )
    .await;
    let late = jobs.iter().filter(|name| name.starts_with("late")).count();
    assert_eq!(late, 2, "both are still being built: {jobs:?}");
}

impl Origin {
    /// Killed behind a checkpoint of half-built views.
    async fn with_checkpoint(place: Place) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = start(directory.path(), place, &[]);
        let client = server.connect().await;
        create(&client).await;
        change(&client, 0).await;
        create_late(&client, directory.path(), "").await;
        until_checkpoints(&client, "alignment = 'aligned'", 2.0).await;
        assert_half_built(&client).await;
        server.kill();
        server.wait();
        Self { directory, place }
    }

    /// The same with a savepoint, further changes behind it, and rows overtaken by the newest checkpoint.
    async fn with_savepoint_and_overtaken_rows(place: Place) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let unaligned = [
            ("checkpoint_alignment", "unaligned"),
            ("rows_in_flight", "40000"),
        ];
        let mut server = start(directory.path(), place, &unaligned);
        let client = server.connect().await;
        create(&client).await;
        change(&client, 0).await;
        create_late(&client, directory.path(), ";batch_slow:slow:6").await;
        run(&client, "SAVEPOINT middle").await;
        change(&client, 1).await;
        until_checkpoints(
            &client,
            "alignment = 'unaligned' AND in_flight_bytes > 0",
            1.0,
        )
        .await;
        assert_half_built(&client).await;
        server.kill();
        server.wait();
        Self { directory, place }
    }

    /// Starts elsewhere, on a copy, and compares everything.
    async fn restores(&self, target: Place, from: From) {
        let context = format!("{:?} to {target:?} from {from:?}", self.place);
        let began = Instant::now();
        let copy = tempfile::tempdir().unwrap();
        copy_tree(
            &self.directory.path().join("data"),
            &copy.path().join("data"),
        );
        let server = start(copy.path(), target, &[]);
        let client = server.connect().await;
        let mut model = Model::new();
        model.change(0);
        match from {
            From::Checkpoint => {}
            From::Overtaken => model.change(1),
            From::Savepoint => run(&client, "ROLLBACK TO SAVEPOINT middle").await,
        }
        assert_eq!(rows(&client, "SHOW workers").await, [target.1], "{context}");
        until_rows(&client, "SELECT count(*) FROM tidegate.jobs", |found| {
            found == ["0"]
        })
        .await;
        let all = |found: &[String]| found == [STEADY.to_string()];
        until_rows(&client, "SELECT coalesce(sum(n), 0) FROM slow", all).await;
        for (query, expected) in model.answers() {
            assert_eq!(rows(&client, query).await, expected, "{context}: {query}");
        }
        // And it goes on from there.
        change(&client, 2).await;
        model.change(2);
        for (query, expected) in model.answers() {
            assert_eq!(
                rows(&client, query).await,
                expected,
                "{context}, later: {query}"
            );
        }
        println!("{context}: {} ms", began.elapsed().as_millis());
    }
}

#[derive(Debug, Clone, Copy)]
enum From {
    Checkpoint,
    Overtaken,
    Savepoint,
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // Working state is of no use to another process.
        if entry.file_name() == "working" {
            continue;
        }
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Origins with their targets: all, or those of an ordinary run.
fn pairs(ordinary: &[(usize, &[usize])]) -> Vec<(Place, Vec<Place>)> {
    if std::env::var("TIDEGATE_RESTORE_MATRIX").is_ok_and(|v| v == "all") {
        return PLACES
            .iter()
            .map(|origin| (*origin, PLACES.to_vec()))
            .collect();
    }
    let places = |of: &[usize]| of.iter().map(|t| PLACES[*t]).collect();
    ordinary
        .iter()
        .map(|(origin, targets)| (PLACES[*origin], places(targets)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_restores_everywhere() {
    for (origin, targets) in pairs(&[(2, &[3, 1]), (3, &[5, 0]), (4, &[2, 4])]) {
        let origin = Origin::with_checkpoint(origin).await;
        for target in targets {
            origin.restores(target, From::Checkpoint).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overtaken_rows_and_savepoints_restore_everywhere() {
    for (origin, targets) in pairs(&[(5, &[1, 3, 4]), (0, &[2, 5, 0])]) {
        let origin = Origin::with_savepoint_and_overtaken_rows(origin).await;
        for target in targets {
            origin.restores(target, From::Overtaken).await;
            origin.restores(target, From::Savepoint).await;
        }
    }
}

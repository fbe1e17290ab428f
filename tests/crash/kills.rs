//! Kill -9 under load, many times over the same data.

use crate::load::{Rows, Writer};
use crate::server::{PHASES, Server, rows, run, until_rows};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::Client;

const WRITERS: i32 = 4;
const EVENTS: u64 = 40_000;
/// Of the 50 events of each round of the generator 46 are bids.
const BIDS: u64 = EVENTS / 50 * 46;

const TABLES: &str =
    "CREATE TABLE orders (id integer PRIMARY KEY, customer integer, amount bigint);
    CREATE TABLE items (id integer PRIMARY KEY, order_id integer, quantity integer)";

/// Each view with the query that it is and that is run again over the tables. `via` stands for a view below it, which is
/// its own query in the second form.
const VIEWS: [(&str, &str); 6] = [
    (
        "per_customer",
        "SELECT customer, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer",
    ),
    (
        "per_order",
        "SELECT o.id, o.customer, count(*) AS n, sum(i.quantity) AS quantity FROM orders o \
         JOIN items i ON i.order_id = o.id GROUP BY o.id, o.customer",
    ),
    (
        "on_views",
        "SELECT c.customer, c.total, q.quantity FROM {per_customer} c LEFT JOIN \
         (SELECT customer, sum(quantity) AS quantity FROM {per_order} GROUP BY customer) q ON q.customer = c.customer",
    ),
    (
        "outer_join",
        "SELECT o.id, i.id AS item, i.quantity FROM orders o FULL JOIN items i ON i.order_id = o.id",
    ),
    (
        "largest",
        "SELECT id, amount FROM orders ORDER BY amount DESC, id LIMIT 10",
    ),
    (
        "lonely",
        "SELECT id, customer FROM orders o WHERE NOT EXISTS (SELECT 1 FROM items i WHERE i.order_id = o.id AND i.quantity > 5)",
    ),
];

const STREAM_VIEWS: [(&str, &str); 2] = [
    (
        "per_auction",
        "SELECT auction, count(*) AS n, sum(price) AS total, max(price) AS highest FROM bid GROUP BY auction",
    ),
    (
        "all_bids",
        "SELECT count(*) AS n, sum(price) AS total FROM bid",
    ),
];

fn of_views(query: &str) -> String {
    query.replace(['{', '}'], "")
}

fn of_tables(query: &str) -> String {
    let mut query = query.to_owned();
    for (name, definition) in VIEWS {
        query = query.replace(&format!("{{{name}}}"), &format!("({definition})"));
    }
    query
}

fn stream(rate: u64) -> String {
    let rate = if rate == 0 {
        String::new()
    } else {
        format!(", rate = '{rate}'")
    };
    format!(
        "CREATE SOURCE bid WITH (connector = 'nexmark', table = 'bid', events = '{EVENTS}', seed = '7'{rate})"
    )
}

async fn create_stream(client: &Client, rate: u64) {
    run(client, &stream(rate)).await;
    run(client, "SET background_ddl = on").await;
    for (name, query) in STREAM_VIEWS {
        run(
            client,
            &format!("CREATE MATERIALIZED VIEW {name} AS {query}"),
        )
        .await;
    }
    // From here on they can be read, whatever happens.
    until_rows(client, "SHOW JOBS", <[String]>::is_empty).await;
}

fn settings(round: u64) -> [(&'static str, &'static str); 2] {
    let backend = if round.is_multiple_of(2) {
        "memory"
    } else {
        "rocksdb"
    };
    [("state_backend", backend), ("checkpoint_interval", "200ms")]
}

pub fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

pub fn seed() -> u64 {
    let seed = number_from_environment("TIDEGATE_CRASH_SEED").unwrap_or_else(rand::random);
    println!("TIDEGATE_CRASH_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_nothing_acknowledged_is_lost() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let rounds = number_from_environment("TIDEGATE_CRASH_ROUNDS").unwrap_or(10);
    let directory = tempfile::tempdir().unwrap();
    let mut writers: Vec<Writer> = (1..=WRITERS)
        .map(|number| Writer::new(number, seed))
        .collect();
    let mut tally = Tally::default();
    let mut server = Server::start(directory.path(), &settings(0));
    let client = server.connect().await;
    create_tables(&client).await;
    create_stream(&client, 1500).await;
    drop(client);
    for round in 1..=rounds {
        let mut running = Vec::new();
        for writer in writers.drain(..) {
            let client = server.connect().await;
            running.push(tokio::spawn(writer.run(client)));
        }
        kill_somewhere(&server, &mut random).await;
        for writer in running {
            writers.push(writer.await.unwrap());
        }
        server.wait();
        let phase = server.last_phase();
        *tally.phases.entry(phase.unwrap_or("none")).or_default() += 1;
        let settings = settings(round);
        server = Server::start(directory.path(), &settings);
        let replayed = server.replayed_rows();
        tally.replayed += replayed;
        println!(
            "kill {round}: in phase {phase:?}, {replayed} rows replayed, next on {}",
            settings[0].1
        );
        let context = format!("seed {seed}, round {round}");
        check(&server.connect().await, &mut writers, &mut tally, &context).await;
    }
    let acknowledged: u64 = writers.iter().map(|w| w.transactions).sum();
    println!("{rounds} kills, {acknowledged} transactions acknowledged, {tally:?}");
    check_stream(&server).await;
    assert!(tally.replayed > 0, "no kill left rows to replay");
    // Phases that are over within microseconds are hit by luck; those that wait for the disk are aimed at.
    let hit: Vec<&str> = PHASES
        .into_iter()
        .filter(|p| tally.phases.contains_key(p))
        .collect();
    assert!(rounds < 10 || hit.len() >= 3, "only {hit:?} were hit");
    if rounds >= 50 {
        for phase in ["sealing", "uploading", "committing", "committed"] {
            assert!(
                hit.contains(&phase),
                "{phase} was never hit: {:?}",
                tally.phases
            );
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    phases: BTreeMap<&'static str, u64>,
    replayed: u64,
    /// Transactions that nobody was told of and that are there all the same.
    unacknowledged_but_there: u64,
    comparisons: u64,
}

/// Lets the load run for a moment; then two kills of three wait for a phase, the others do not look.
async fn kill_somewhere(server: &Server, random: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(random.random_range(300..1200))).await;
    if random.random_bool(0.75) {
        // `sealed` is followed by `uploading` at once, so aiming at it is aiming at the same moment.
        let phases = ["sealing", "uploading", "committing", "committed"];
        server.kill_at(phases[random.random_range(0..phases.len())]);
        // A phase comes with the next checkpoint; if none does, something else is wrong, and the kill below shows it.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    server.kill();
}

pub async fn create_tables(client: &Client) {
    run(client, TABLES).await;
    for (name, query) in VIEWS {
        let query = of_views(query);
        run(
            client,
            &format!("CREATE MATERIALIZED VIEW {name} AS {query}"),
        )
        .await;
    }
}

/// After a restart: every acknowledged write, whole transactions, and views that are their queries, by the server's own
/// reckoning and by another. Answers how many transactions are there that nobody was told of.
pub async fn check_tables(client: &Client, writers: &mut [Writer], context: &str) -> u64 {
    let found = Rows::parse(
        &rows(client, "SELECT * FROM orders").await,
        &rows(client, "SELECT * FROM items").await,
    );
    let mut unacknowledged_but_there = 0;
    for writer in writers {
        unacknowledged_but_there += u64::from(writer.settle(&found, context));
    }
    for (name, query) in VIEWS {
        let view = rows(client, &format!("SELECT * FROM {name}")).await;
        let recomputed = rows(client, &of_tables(query)).await;
        assert_eq!(view, recomputed, "{context}: view {name}");
        let independent = found.of_view(name);
        assert_eq!(
            view, independent,
            "{context}: view {name} and the rows it is of"
        );
    }
    unacknowledged_but_there
}

async fn check(client: &Client, writers: &mut [Writer], tally: &mut Tally, context: &str) {
    tally.unacknowledged_but_there += check_tables(client, writers, context).await;
    tally.comparisons += 2 * VIEWS.len() as u64;
    let both = "SELECT (SELECT sum(n) FROM per_auction), n, (SELECT sum(total) FROM per_auction), total FROM all_bids";
    for row in rows(client, both).await {
        let cells: Vec<&str> = row.split('|').collect();
        let same =
            (cells[0] == cells[1] || (cells[0] == "∅" && cells[1] == "0")) && cells[2] == cells[3];
        assert!(
            same,
            "{context}: two views of one stream differ at one epoch: {row}"
        );
        tally.comparisons += 1;
    }
}

/// Once the stream has come to its end, its views are those of a server that never crashed.
async fn check_stream(server: &Server) {
    let directory = tempfile::tempdir().unwrap();
    let calm = Server::start(directory.path(), &[]);
    let reference = calm.connect().await;
    create_stream(&reference, 0).await;
    let client = server.connect().await;
    for client in [&reference, &client] {
        until_rows(client, "SELECT n FROM all_bids", |n| {
            let n: u64 = n[0].parse().unwrap();
            assert!(n <= BIDS, "{n} of {BIDS} bids were counted");
            n == BIDS
        })
        .await;
    }
    for (name, _) in STREAM_VIEWS {
        let sql = format!("SELECT * FROM {name}");
        assert_eq!(
            rows(&client, &sql).await,
            rows(&reference, &sql).await,
            "{name}"
        );
    }
}

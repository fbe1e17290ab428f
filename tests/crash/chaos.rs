//! Everything at once, for as long as one likes: a server under load is disturbed, goes on in another mode, is disturbed
//! again. What it holds is compared after each disturbance with what was acknowledged, by a computation outside of it.
//!
//! `TIDEGATE_CHAOS_SECONDS` bounds the run (25 without it, which sees most disturbances once; `make chaos` takes minutes).
//! It goes in campaigns, each on data of its own and with a seed that is printed and that `TIDEGATE_CRASH_SEED` begins with
//! again. A round of a campaign is one life of the server: a mode from the [matrix](modes), drawn without repetition, and one
//! [disturbance](Disturbance). In the end every row of the source has to be there, once or, where at-least-once was among
//! the modes, once or more.

use crate::kills::{check_tables, create_tables, number_from_environment, seed};
use crate::load::Writer;
use crate::server::{Server, command, rows, run, until_rows};
use crate::single::mounted;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

const WRITERS: i32 = 3;
/// Of the source in a campaign, and how many come in a second.
const TICKS: u64 = 30_000;
const TICKS_PER_SECOND: u64 = 1200;
const ROUNDS: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    /// Kill -9 at some moment.
    Kill,
    /// Kill -9 as the log enters a phase of a checkpoint.
    KillAtPhase,
    /// The process dies in the middle of one change of storage, done, not done, half done, or acknowledged and not done.
    CrashInStorage,
    /// Storage fails now and then, loses answers, tears writes, is slow, and lists late.
    UnreliableStorage,
    FullDisk,
    /// SIGSTOP, then SIGCONT.
    Stopped,
    /// The clock of barriers jumps ahead by a day and back by two.
    ClockJumps,
    /// An operator panics, so that workers start again below the sessions.
    OperatorPanics,
    /// Rows queue in front of one worker's operators; then kill -9.
    Backpressure,
}

const DISTURBANCES: [Disturbance; 9] = [
    Disturbance::Kill,
    Disturbance::KillAtPhase,
    Disturbance::CrashInStorage,
    Disturbance::UnreliableStorage,
    Disturbance::FullDisk,
    Disturbance::Stopped,
    Disturbance::ClockJumps,
    Disturbance::OperatorPanics,
    Disturbance::Backpressure,
];

type Mode = Vec<(&'static str, &'static str)>;

/// Backend × workers × mode × alignment, guarantee and execution, as far as these go together.
fn modes() -> Vec<Mode> {
    let mut modes = Vec::new();
    let aligned = [
        ("exactly_once", "async"),
        ("exactly_once", "sync"),
        ("at_least_once", "async"),
        ("at_least_once", "sync"),
    ];
    let aligned = aligned.map(|(guarantee, execution)| {
        vec![
            ("checkpoint_guarantee", guarantee),
            ("checkpoint_execution", execution),
        ]
    });
    let overtaking = [
        vec![("checkpoint_alignment", "unaligned")],
        vec![("aligned_checkpoint_timeout", "15ms")],
    ];
    for barrier in aligned.into_iter().chain(overtaking) {
        for backend in ["memory", "rocksdb"] {
            for workers in ["1", "2", "4"] {
                for mode in ["incremental", "full"] {
                    let mut all = vec![
                        ("state_backend", backend),
                        ("workers", workers),
                        ("checkpoint_mode", mode),
                    ];
                    all.extend(&barrier);
                    modes.push(all);
                }
            }
        }
    }
    modes
}

fn is_at_least_once(mode: &Mode) -> bool {
    mode.contains(&("checkpoint_guarantee", "at_least_once"))
}

#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    disturbances: BTreeMap<String, u64>,
    modes: BTreeMap<String, u64>,
    comparisons: u64,
    transactions: u64,
    unacknowledged_but_there: u64,
    refused: u64,
    /// Starts that ended in a crash of storage and were done again.
    crashed_starts: u64,
    doubled_rows: u64,
    campaigns: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_views_are_their_queries() {
    let seconds = number_from_environment("TIDEGATE_CHAOS_SECONDS").unwrap_or(25);
    let ends = Instant::now() + Duration::from_secs(seconds);
    let first = seed();
    let mut tally = Tally::default();
    let mut order = StdRng::seed_from_u64(first);
    let mut all = modes();
    all.shuffle(&mut order);
    let mut next_modes = all.iter().cycle().cloned();
    while Instant::now() < ends {
        // The first is `first` itself, so that a campaign that failed is begun again by its seed.
        let seed = first.wrapping_add(tally.campaigns);
        println!("campaign {}: TIDEGATE_CRASH_SEED={seed}", tally.campaigns);
        let campaign = Campaign::new(seed);
        campaign.run(&mut next_modes, ends, &mut tally).await;
        tally.campaigns += 1;
    }
    println!("{} of {} modes; {tally:#?}", tally.modes.len(), all.len());
}

struct Campaign {
    /// Of limited size, if that can be had; goes before the directory that it is mounted in.
    disk: Option<crate::single::Mounted>,
    directory: tempfile::TempDir,
    context: String,
    random: StdRng,
    writers: Vec<Writer>,
    /// Rows of the source may be there more than once.
    may_be_doubled: bool,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let mut writers: Vec<Writer> = (1..=WRITERS).map(|n| Writer::new(n, seed)).collect();
        for writer in &mut writers {
            // The disk is full.
            writer.tolerated = &["53100"];
        }
        Self {
            disk: mounted(&disk, "160m"),
            directory,
            context: format!("seed {seed}"),
            random: StdRng::seed_from_u64(seed),
            writers,
            may_be_doubled: false,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What is to fail from now on, as the failpoints of the runtime describe it.
    fn fail(&self, description: &str) {
        let new = self.path("failpoint.new");
        std::fs::write(&new, description).unwrap();
        std::fs::rename(new, self.path("failpoint")).unwrap();
    }

    fn start(&self, mode: &Mode, storage_faults: Option<&str>) -> Result<Server, String> {
        let mut settings = mode.clone();
        settings.push(("checkpoint_interval", "120ms"));
        settings.push(("rows_per_epoch", "16384"));
        let mut command = command(&self.path("disk/data"), &settings);
        command.env(
            "TIDEGATE_FAILPOINT",
            format!("@{}", self.path("failpoint").display()),
        );
        if let Some(faults) = storage_faults {
            command.env("TIDEGATE_STORAGE_FAULTS", faults);
        }
        Server::try_spawn(command)
    }

    async fn run(
        mut self,
        modes: &mut impl Iterator<Item = Mode>,
        ends: Instant,
        tally: &mut Tally,
    ) {
        // Views over tables cannot be created as at-least-once ones.
        let mode = vec![("workers", "2")];
        let mut server = self.start(&mode, None).unwrap();
        let client = server.connect().await;
        create_tables(&client).await;
        create_stream(&client).await;
        run(&client, "CHECKPOINT").await;
        server.kill();
        server.wait();
        let mut disturbances = Vec::new();
        for round in 0..ROUNDS {
            if Instant::now() >= ends {
                break;
            }
            if disturbances.is_empty() {
                disturbances = DISTURBANCES.to_vec();
                disturbances.shuffle(&mut self.random);
            }
            let disturbance = disturbances.pop().unwrap();
            let mode = self.next(modes);
            println!(
                "{} round {round}: {disturbance:?} in {mode:?}",
                self.context
            );
            *tally
                .disturbances
                .entry(format!("{disturbance:?}"))
                .or_default() += 1;
            *tally.modes.entry(format!("{mode:?}")).or_default() += 1;
            tally.rounds += 1;
            self.round(disturbance, &mode, tally).await;
        }
        let mode = self.next(modes);
        self.fail("");
        let server = self.start(&mode, None).unwrap();
        // Time is up: what the source has not given yet is not waited for.
        let is_whole = Instant::now() < ends;
        self.check_end(&server, is_whole, tally).await;
        tally.transactions += self.writers.iter().map(|w| w.transactions).sum::<u64>();
        tally.refused += self.writers.iter().map(|w| w.refused).sum::<u64>();
    }

    fn next(&mut self, modes: &mut impl Iterator<Item = Mode>) -> Mode {
        let mode = modes.next().unwrap();
        self.may_be_doubled |= is_at_least_once(&mode);
        mode
    }

    /// One life of the server.
    async fn round(&mut self, disturbance: Disturbance, mode: &Mode, tally: &mut Tally) {
        self.fail("");
        if disturbance == Disturbance::CrashInStorage
            && self.writers.iter().any(Writer::is_unsettled)
        {
            // Two servers that died in a row would leave two transactions open.
            let mut server = self.start(mode, None).unwrap();
            self.check(&server.connect().await, tally).await;
            server.kill();
            server.wait();
        }
        let faults = self.storage_faults(disturbance);
        let mut server = match self.start(mode, faults.as_deref()) {
            Ok(server) => server,
            Err(_) if disturbance == Disturbance::CrashInStorage => {
                tally.crashed_starts += 1;
                return;
            }
            Err(log) => panic!("{}: the server did not start: {log}", self.context),
        };
        // A server that may die at any moment cannot be asked what it holds; the next one is.
        if disturbance != Disturbance::CrashInStorage {
            self.check(&server.connect().await, tally).await;
        }
        let load = Load::start(&server, std::mem::take(&mut self.writers)).await;
        let pause = self.random.random_range(200..700);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if self.disturb(disturbance, &server).await {
            self.writers = load.join().await;
        } else {
            self.writers = load.end().await;
            self.check(&server.connect().await, tally).await;
            server.kill();
        }
        server.wait();
    }

    fn storage_faults(&mut self, disturbance: Disturbance) -> Option<String> {
        let seed: u32 = self.random.random();
        match disturbance {
            Disturbance::CrashInStorage => {
                let step = self.random.random_range(0..40);
                let hows = ["before", "after", "torn", "lost"];
                let how = hows[self.random.random_range(0..hows.len())];
                Some(format!("crash={step}:{how}"))
            }
            Disturbance::UnreliableStorage => Some(format!(
                "seed={seed},error=0.05,answer_lost=0.05,torn=0.03,slow=0.1,slow_ms=60,list_lag_ms=400"
            )),
            _ => None,
        }
    }

    /// Ends with the server dead (`true`), or undisturbed again.
    async fn disturb(&mut self, disturbance: Disturbance, server: &Server) -> bool {
        let some_time = Duration::from_millis(self.random.random_range(300..900));
        match disturbance {
            Disturbance::Kill => {
                server.kill();
                return true;
            }
            Disturbance::KillAtPhase => {
                let phases = ["sealing", "sealed", "uploading", "committing", "committed"];
                server.kill_at(phases[self.random.random_range(0..phases.len())]);
                until_ended(server, Duration::from_secs(3)).await;
                server.kill();
                return true;
            }
            Disturbance::CrashInStorage => {
                until_ended(server, Duration::from_secs(8)).await;
                server.kill();
                return true;
            }
            Disturbance::UnreliableStorage => tokio::time::sleep(2 * some_time).await,
            Disturbance::FullDisk => {
                if self.disk.is_some() {
                    let ballast = self.path("disk/ballast");
                    fill(&ballast);
                    tokio::time::sleep(some_time).await;
                    std::fs::remove_file(&ballast).unwrap();
                    tokio::time::sleep(some_time).await;
                } else {
                    println!("SKIPPED a full disk: mounting a tmpfs takes root");
                }
            }
            Disturbance::Stopped => {
                server.signal("STOP");
                tokio::time::sleep(3 * some_time).await;
                server.signal("CONT");
                tokio::time::sleep(some_time).await;
            }
            Disturbance::ClockJumps => self.jump_clock(server).await,
            Disturbance::OperatorPanics => {
                self.fail("operator_panic:per_order:4");
                let before = server.metric("tidegate_runtime_restarts_total");
                let deadline = Instant::now() + Duration::from_secs(20);
                while server.metric("tidegate_runtime_restarts_total") <= before {
                    assert!(Instant::now() < deadline, "{}", server.log());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                self.fail("");
            }
            Disturbance::Backpressure => {
                self.fail("batch_slow:per_order@0:8;batch_slow:seen@0:15;operator_slow:on_views:5");
                tokio::time::sleep(3 * some_time).await;
                self.fail("");
                server.kill();
                return true;
            }
        }
        false
    }

    /// Time as barriers carry it never goes back, and goes on while the clock is behind.
    async fn jump_clock(&self, server: &Server) {
        const DAY_MS: i64 = 86_400_000;
        let client = server.connect().await;
        let mut last = (0, 0);
        for ahead in [0, DAY_MS, -DAY_MS, 5_000, 0] {
            self.fail(&format!("clock:*:{ahead}"));
            // An epoch that is cut after the jump.
            run(&client, "FLUSH").await;
            for _ in 0..4 {
                let now = barrier(&client).await;
                assert!(
                    now.0 >= last.0 && now.1 >= last.1,
                    "{}: epoch {} at {} came after epoch {} at {}",
                    self.context,
                    now.0,
                    now.1,
                    last.0,
                    last.1
                );
                last = now;
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
        self.fail("");
    }

    /// Every acknowledged write, whole transactions, views that are their queries, and of each split of the source the rows up
    /// to one of them, once.
    async fn check(&mut self, client: &Client, tally: &mut Tally) {
        let context = format!("{}, round {}", self.context, tally.rounds);
        tally.unacknowledged_but_there += check_tables(client, &mut self.writers, &context).await;
        let prefixes = "SELECT p.split, p.n, p.lowest, p.highest, p.total, count(s.id) AS seen FROM once p \
             LEFT JOIN seen s ON s.id % 4 = p.split AND s.id <= p.highest \
             GROUP BY p.split, p.n, p.lowest, p.highest, p.total";
        for row in rows(client, prefixes).await {
            let cells: Vec<u64> = row.split('|').map(|c| c.parse().unwrap()).collect();
            let (split, n) = (cells[0], cells[1]);
            let total = n * split + 4 * (n * (n - 1) / 2);
            let highest = split + 4 * (n - 1);
            assert_eq!(
                cells,
                [split, n, split, highest, total, n],
                "{context}: the first {n} rows of split {split}, each once, and none of them lost at least once"
            );
        }
        tally.comparisons += 13;
    }

    async fn check_end(&mut self, server: &Server, is_whole: bool, tally: &mut Tally) {
        let client = server.connect().await;
        self.check(&client, tally).await;
        if is_whole {
            let all = |found: &[String]| found == [TICKS.to_string()];
            until_rows(&client, "SELECT sum(n) FROM once", all).await;
            self.check(&client, tally).await;
            let shape = "SELECT count(*), min(id), max(id), min(n) FROM seen";
            assert_eq!(
                rows(&client, shape).await,
                [format!("{TICKS}|0|{}|1", TICKS - 1)],
                "{}: rows of the source are lost",
                self.context
            );
        }
        let doubled = rows(&client, "SELECT count(*) FROM seen WHERE n > 1").await;
        let doubled: u64 = doubled[0].parse().unwrap();
        assert!(
            doubled == 0 || self.may_be_doubled,
            "{}: {doubled} rows are there twice and were read exactly once",
            self.context
        );
        tally.doubled_rows += doubled;
        let suspended = "SELECT name, suspended_because FROM tidegate.materialized_views WHERE suspended_because IS NOT NULL";
        assert_eq!(rows(&client, suspended).await, [""; 0], "{}", self.context);
    }
}

async fn create_stream(client: &Client) {
    run(
        client,
        &format!(
            "CREATE SOURCE ticks (id bigint) WITH (connector = 'datagen', splits = '4', rows = '{TICKS}',
                 \"rows.per.second\" = '{TICKS_PER_SECOND}', \"fields.id.kind\" = 'sequence');
             SET background_ddl = on;
             CREATE MATERIALIZED VIEW once WITH (checkpoint_guarantee = 'exactly_once') AS
                 SELECT id % 4 AS split, count(*) AS n, min(id) AS lowest, max(id) AS highest, sum(id) AS total
                 FROM ticks GROUP BY id % 4;
             CREATE MATERIALIZED VIEW seen AS SELECT id, count(*) AS n FROM ticks GROUP BY id"
        ),
    )
    .await;
    until_rows(client, "SHOW JOBS", <[String]>::is_empty).await;
}

/// The newest epoch and its time in milliseconds.
async fn barrier(client: &Client) -> (u64, i64) {
    let sql = "SELECT epoch, (extract(epoch FROM time) * 1000)::bigint FROM tidegate.barriers";
    let found = rows(client, sql).await;
    let (epoch, time) = found[0].split_once('|').unwrap();
    (epoch.parse().unwrap(), time.parse().unwrap())
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    for piece in [1 << 20, 1 << 12] {
        let zeros = vec![0; piece];
        while file.write_all(&zeros).is_ok() {}
    }
}

async fn until_ended(server: &Server, patience: Duration) {
    let deadline = Instant::now() + patience;
    while !server.has_ended() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writers at work.
struct Load {
    running: Vec<JoinHandle<Writer>>,
    ends: Arc<AtomicBool>,
}

impl Load {
    async fn start(server: &Server, writers: Vec<Writer>) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for writer in writers {
            let Some(client) = server.try_connect().await else {
                // It is dead already; the writer waits for the next.
                running.push(tokio::spawn(async { writer }));
                continue;
            };
            running.push(tokio::spawn(writer.run_until(client, ends.clone())));
        }
        Self { running, ends }
    }

    /// Lets transactions under way come to their end.
    async fn end(self) -> Vec<Writer> {
        self.ends.store(true, Ordering::Relaxed);
        self.join().await
    }

    async fn join(self) -> Vec<Writer> {
        let mut writers = Vec::new();
        for writer in self.running {
            let writer = tokio::time::timeout(Duration::from_secs(60), writer).await;
            writers.push(
                writer
                    .expect("a statement is answered, or its connection ends")
                    .unwrap(),
            );
        }
        writers
    }
}

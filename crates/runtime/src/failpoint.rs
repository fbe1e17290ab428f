//! Failures on demand, for tests of debug builds: they show what a failure inside an operator does, and what it does not.
//!
//! `TIDEGATE_FAILPOINT` holds a description, or several with `;` in between, or `@` and the path of a file that holds them.
//! The file is read again at every barrier, so that a test can begin and end failures while the server runs; an empty or
//! missing file fails nothing.
//!
//! | description | what happens |
//! |---|---|
//! | `operator_panic:<relation>:<n>` | panics when an operator of the relation, on whatever worker, is given a barrier for the n-th time; once |
//! | `operator_panic:<relation>:always` | panics at each barrier |
//! | `first_barrier_panic:<relation>:<n>` | as the first, and counts only barriers that are an operator's first since it was built |
//! | `worker_panic:*:<n>` | panics when a worker is told of a barrier for the n-th time, outside of any dataflow; once |
//! | `operator_slow:<relation>:<ms>` | takes so long at each barrier |
//! | `batch_slow:<relation>:<ms>` | takes so long for each batch |
//! | `slice_rows:<relation>:<n>` | a backfill of the relation reads so many rows at a time |
//! | `clock:*:<ms>` | the clock that barriers take their time from is wrong by so much; may be negative |
//!
//! `<relation>@<n>` is the relation on worker n alone, so that one worker can be made late. Counts begin when a description is seen first. Anything else is ignored with a warning.

use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

const VARIABLE: &str = "TIDEGATE_FAILPOINT";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// Barriers left to be let through; the one that finds one left fails, later ones do not.
    Nth(u64),
    FirstNth(u64),
    Always,
    Slow(Duration),
    SlowBatch(Duration),
    SliceRows(usize),
    /// Milliseconds that the clock is ahead.
    Clock(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Failpoint {
    relation: String,
    /// `None`: on all workers.
    worker: Option<usize>,
    failure: Failure,
}

impl Failpoint {
    fn is_at(&self, relation: &str, worker: usize) -> bool {
        self.relation == relation && self.worker.is_none_or(|w| w == worker)
    }
}

enum Origin {
    Nowhere,
    Variable,
    File(PathBuf),
}

#[derive(Default)]
struct Current {
    text: String,
    failpoints: Vec<Failpoint>,
}

static ORIGIN: OnceLock<Origin> = OnceLock::new();
static CURRENT: Mutex<Option<Current>> = Mutex::new(None);

/// Stands for the worker itself, or the server, where a relation is named.
const WORKER: &str = "*";

/// Called when a worker is told of a barrier.
pub(crate) fn worker_barrier(worker: usize) {
    operator_barrier(WORKER, worker, false);
}

/// Called with the relation of an operator that is about to process a barrier, and whether it is the operator's first.
pub(crate) fn operator_barrier(relation: &str, worker: usize, is_first: bool) {
    happens(relation, worker, |failure| failure.hit(is_first));
}

/// Called with the relation of an operator that is about to process a batch.
pub(crate) fn operator_batch(relation: &str, worker: usize) {
    happens(relation, worker, |failure| match failure {
        Failure::SlowBatch(pause) => Some(Due::Sleep(*pause)),
        _ => None,
    });
}

/// Called with the relation whose backfill is about to read a slice of at most so many rows; answers how many it reads.
pub(crate) fn slice_rows(relation: &str, worker: usize, rows: usize) -> usize {
    let mut limit = rows;
    happens(relation, worker, |failure| {
        if let Failure::SliceRows(rows) = failure {
            limit = *rows;
        }
        None
    });
    limit
}

/// By how much the clock of barriers is wrong.
pub(crate) fn clock_ahead_ms() -> i64 {
    let mut ahead_ms = 0;
    happens(WORKER, 0, |failure| {
        if let Failure::Clock(ms) = failure {
            ahead_ms = *ms;
        }
        None
    });
    ahead_ms
}

fn happens(relation: &str, worker: usize, mut hit: impl FnMut(&mut Failure) -> Option<Due>) {
    let text = match ORIGIN.get_or_init(origin) {
        Origin::Nowhere => return,
        Origin::Variable => std::env::var(VARIABLE).unwrap_or_default(),
        Origin::File(path) => std::fs::read_to_string(path).unwrap_or_default(),
    };
    let due: Vec<Due> = {
        let mut current = CURRENT.lock();
        let current = current.get_or_insert_default();
        if current.text != text {
            *current = Current {
                failpoints: read(&text),
                text,
            };
        }
        let failpoints = current.failpoints.iter_mut();
        failpoints
            .filter(|f| f.is_at(relation, worker))
            .filter_map(|f| hit(&mut f.failure))
            .collect()
    };
    for due in due {
        match due {
            Due::Panic => panic!("the failpoint in an operator of \"{relation}\""),
            Due::Sleep(pause) => std::thread::sleep(pause),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    Panic,
    Sleep(Duration),
}

impl Failure {
    fn hit(&mut self, is_first: bool) -> Option<Due> {
        match self {
            Failure::Always => Some(Due::Panic),
            Failure::Slow(pause) => Some(Due::Sleep(*pause)),
            Failure::SlowBatch(_) | Failure::SliceRows(_) | Failure::Clock(_) => None,
            Failure::FirstNth(_) if !is_first => None,
            Failure::Nth(left) | Failure::FirstNth(left) => {
                let is_due = *left == 1;
                *left = left.saturating_sub(1);
                is_due.then_some(Due::Panic)
            }
        }
    }
}

fn origin() -> Origin {
    match std::env::var(VARIABLE) {
        Err(_) => Origin::Nowhere,
        Ok(text) => match text.strip_prefix('@') {
            Some(path) => Origin::File(path.into()),
            None => Origin::Variable,
        },
    }
}

fn read(text: &str) -> Vec<Failpoint> {
    let described = text.split(';').map(str::trim).filter(|d| !d.is_empty());
    described
        .filter_map(|description| {
            let failpoint = parse(description);
            if failpoint.is_none() {
                tracing::warn!("{VARIABLE} has \"{description}\", which is no failpoint");
            }
            failpoint
        })
        .collect()
}

fn parse(text: &str) -> Option<Failpoint> {
    let (kind, rest) = text.split_once(':')?;
    let (relation, argument) = rest.rsplit_once(':')?;
    let nth = || argument.parse().ok().filter(|n| *n > 0);
    let failure = match kind {
        "operator_panic" if argument == "always" => Failure::Always,
        "operator_panic" => Failure::Nth(nth()?),
        "worker_panic" if relation == WORKER => Failure::Nth(nth()?),
        "first_barrier_panic" => Failure::FirstNth(nth()?),
        "operator_slow" => Failure::Slow(Duration::from_millis(nth()?)),
        "batch_slow" => Failure::SlowBatch(Duration::from_millis(nth()?)),
        "slice_rows" => Failure::SliceRows(usize::try_from(nth()?).ok()?),
        "clock" if relation == WORKER => Failure::Clock(argument.parse().ok()?),
        _ => return None,
    };
    let on_one = relation
        .rsplit_once('@')
        .and_then(|(relation, worker)| Some((relation, worker.parse().ok()?)));
    let (relation, worker) = match on_one {
        Some((relation, worker)) => (relation, Some(worker)),
        None => (relation, None),
    };
    Some(Failpoint {
        relation: relation.to_owned(),
        worker,
        failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_descriptions_are_failpoints() {
        let failpoint = parse("operator_panic:a view:12").expect("this is the form");
        assert_eq!(failpoint.relation, "a view");
        assert_eq!(failpoint.failure, Failure::Nth(12));
        let failure = |text| parse(text).map(|f| f.failure);
        assert_eq!(failure("operator_panic:v:always"), Some(Failure::Always));
        assert_eq!(
            failure("first_barrier_panic:v:1"),
            Some(Failure::FirstNth(1))
        );
        assert_eq!(
            failure("operator_slow:v:20"),
            Some(Failure::Slow(Duration::from_millis(20)))
        );
        assert_eq!(failure("clock:*:-60000"), Some(Failure::Clock(-60_000)));
        let late = parse("batch_slow:a@b@1:20").expect("this is the form");
        assert_eq!((late.relation.as_str(), late.worker), ("a@b", Some(1)));
        assert!(late.is_at("a@b", 1) && !late.is_at("a@b", 0));
        for text in [
            "",
            "clock:v:5",
            "operator_panic:v",
            "operator_panic:v:0",
            "operator_panic:v:x",
            "panic:v:1",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn several_stand_beside_each_other() {
        let both = read(" operator_slow:v:20; slice_rows:w:7;");
        let failures: Vec<Failure> = both.iter().map(|f| f.failure).collect();
        let slow = Failure::Slow(Duration::from_millis(20));
        assert_eq!(failures, [slow, Failure::SliceRows(7)]);
    }

    #[test]
    fn a_count_is_due_once() {
        let mut failure = Failure::Nth(2);
        let hits = [(); 4].map(|()| failure.hit(false).is_some());
        assert_eq!(hits, [false, true, false, false]);
        let mut failure = Failure::FirstNth(1);
        assert_eq!(failure.hit(false), None);
        assert_eq!(failure.hit(true), Some(Due::Panic));
    }
}

//! The five properties of every operator, over random plans and inputs, on every backend.
//!
//! 1. At each barrier the accumulated output equals the oracle's over the accumulated input.
//! 2. Cutting and ordering an epoch's batches differently, and interrupting the operator, changes nothing.
//! 3. Rebuilding the operator from its sealed tables at random barriers, on another backend, changes nothing.
//! 4. Retracting all input leaves output, errors and state tables empty.
//! 5. Where the plan says that an operator can tell its output from its state, it does, row for row.
//!
//! A failure prints the operator and the seed; `TIDEGATE_SEED` runs that one alone.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use crate::cases::{Case, Generator, Input, REGISTRY, random_epochs};
use crate::check::single_node;
use crate::oracle::Expected;
use crate::runner::{NodeRunner, Output, model_tables};
use crate::value::{Row, Value, ZSet, add, add_batch, batch_of};
use rand::prelude::*;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use tidegate_plan::Dataflow;
use tidegate_plan::succession::can_replay;
use tidegate_state::{BackendConfig, BackendKind, Backends, Run, Table, TableSpec};
use tidegate_types::KeyGroupRange;

/// What has come out so far.
#[derive(Debug, Default, Clone)]
struct Seen {
    rows: ZSet,
    /// Errors with their diffs, by SQLSTATE, message and row.
    errors: BTreeMap<(String, String, String), i64>,
}

impl Seen {
    fn add(&mut self, output: Output) {
        output
            .batches
            .iter()
            .for_each(|batch| add_batch(&mut self.rows, batch));
        for error in output.errors {
            let key = (error.state.to_string(), error.message, error.row);
            let count = self.errors.entry(key.clone()).or_default();
            *count += error.diff;
            if *count == 0 {
                self.errors.remove(&key);
            }
        }
    }

    fn assert_is(&self, expected: &Expected, at: &str) {
        let mut errors = BTreeMap::new();
        for ((state, ..), count) in &self.errors {
            *errors.entry(state.clone()).or_default() += count;
        }
        assert_eq!(errors, expected.errors, "errors of {at}");
        let same = self.rows.len() == expected.rows.len()
            && self
                .rows
                .iter()
                .zip(&expected.rows)
                .all(|((a, m), (b, n))| {
                    m == n && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b))
                });
        assert!(
            same,
            "{at}\nexpected: {:#?}\nseen: {:#?}",
            expected.rows, self.rows
        );
    }

    fn assert_same(&self, other: &Seen, at: &str) {
        assert_eq!(self.rows, other.rows, "rows of {at}");
        assert_eq!(self.errors, other.errors, "errors of {at}");
    }
}

/// The oracle rounds where the operators do not.
fn close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) if a.is_finite() && b.is_finite() => {
            (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
        }
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b))
        }
        (a, b) => a == b,
    }
}

/// A batch for a port: rows with their diffs.
type Piece = (usize, Vec<(Row, i64)>);

fn cut(random: &mut StdRng, epoch: &[Input], case: &Case) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for port in 0..case.inputs.len() {
        let mut rows = Vec::new();
        for input in epoch.iter().filter(|input| input.port == port) {
            rows.push((input.row.clone(), input.diff));
            if random.random_range(0..3) == 0 {
                pieces.push((port, std::mem::take(&mut rows)));
            }
        }
        if !rows.is_empty() {
            pieces.push((port, rows));
        }
    }
    pieces.shuffle(random);
    pieces
}

fn whole(epoch: &[Input], case: &Case) -> Vec<Piece> {
    let rows = |port| {
        epoch
            .iter()
            .filter(move |i| i.port == port)
            .map(|i| (i.row.clone(), i.diff))
            .collect::<Vec<_>>()
    };
    (0..case.inputs.len())
        .map(|port| (port, rows(port)))
        .filter(|(_, rows)| !rows.is_empty())
        .collect()
}

/// One backend on which tables can be opened.
struct Backend {
    backends: Option<(BackendKind, Backends)>,
}

impl Backend {
    fn open(&self, spec: &TableSpec) -> Box<dyn Table> {
        match &self.backends {
            Some((kind, backends)) => backends.open_table(*kind, spec).unwrap(),
            None => model_tables(spec),
        }
    }
}

fn real(kind: BackendKind, directory: &std::path::Path) -> Option<Backend> {
    let config = BackendConfig {
        directory: directory.join(format!("{kind:?}")),
        worker: 0,
        groups: KeyGroupRange::ALL,
        cache_limit_bytes: 16 << 20,
        overlay_limit_bytes: 1 << 10,
        memory: tidegate_state::memory::MemoryAccount::default(),
    };
    let backends = Backends::open(config).unwrap();
    let probe = TableSpec {
        id: tidegate_types::TableId(1),
        form: tidegate_state::Form::Value,
        merge: tidegate_state::Merge::Replace,
    };
    backends.open_table(kind, &probe).ok()?;
    Some(Backend {
        backends: Some((kind, backends)),
    })
}

fn runner(dataflow: &Dataflow, backend: &Backend) -> NodeRunner {
    NodeRunner::new(dataflow, dataflow.nodes.len() - 1, &|spec| {
        backend.open(spec)
    })
    .unwrap()
}

fn push(runner: &mut NodeRunner, case: &Case, pieces: &[Piece], epoch: u64) -> Output {
    let mut all = Output::default();
    let mut note = |output: Output| {
        all.batches.extend(output.batches);
        all.errors.extend(output.errors);
    };
    for (port, rows) in pieces {
        note(
            runner
                .batch(*port, batch_of(rows, &case.inputs[*port]))
                .unwrap(),
        );
    }
    note(runner.barrier(epoch).unwrap());
    all
}

/// Runs one seed of one operator; returns how many comparisons were made.
fn run(generator: &Generator, seed: u64, on: &Backend, other: &Backend) -> usize {
    let random = &mut StdRng::seed_from_u64(seed);
    let case = generator.1(random);
    let mut finals = Vec::new();
    let epochs = random_epochs(random, &case, &mut finals);
    if std::env::var_os("TIDEGATE_SEED").is_some() {
        eprintln!("{}: {:?}", generator.0, case.op);
    }
    let mut dataflow = single_node(
        case.op.clone(),
        &case.inputs,
        case.output.clone(),
        case.append_only,
    );
    // Backends keep tables by id: every run of every seed gets its own.
    dataflow.relation = tidegate_types::RelationId(seed << 1 | 1);
    let other_dataflow = Dataflow {
        relation: tidegate_types::RelationId(seed << 1),
        ..dataflow.clone()
    };
    let mut plain = runner(&dataflow, on);
    let mut varied = runner(&other_dataflow, other);
    let mut interrupted_on_other = true;
    let (mut seen, mut seen_varied) = (Seen::default(), Seen::default());
    let mut inputs = vec![ZSet::new(); case.inputs.len()];
    let mut runs: Vec<(usize, Run)> = Vec::new();
    let mut comparisons = 0;
    for (index, epoch) in epochs.iter().enumerate() {
        let number = index as u64 + 1;
        let at = format!("{} seed {seed} epoch {number}: {}", case.name, case.op);
        epoch
            .iter()
            .for_each(|i| add(&mut inputs[i.port], i.row.clone(), i.diff));
        seen.add(push(&mut plain, &case, &whole(epoch, &case), number));
        seen.assert_is(&(case.oracle)(&inputs, number), &at);
        varied.budget_rows = [1, 2, 5, usize::MAX][random.random_range(0..4)];
        seen_varied.add(push(&mut varied, &case, &cut(random, epoch, &case), number));
        seen_varied.assert_same(&seen, &format!("other batches, {at}"));
        comparisons += 2;
        if random.random_range(0..3) == 0 {
            runs.extend(varied.seal(number).unwrap());
            interrupted_on_other = !interrupted_on_other;
            let (backend, fresh) = if interrupted_on_other {
                (other, &other_dataflow)
            } else {
                (on, &other_dataflow)
            };
            let relation = tidegate_types::RelationId(1 << 40 | seed << 8 | number);
            varied = runner(
                &Dataflow {
                    relation,
                    ..fresh.clone()
                },
                backend,
            );
            varied.restore(&runs).unwrap();
            if can_replay(&dataflow, dataflow.nodes.len() - 1) {
                varied.budget_rows = [1, 3, usize::MAX][random.random_range(0..3)];
                let mut told = ZSet::new();
                for batch in varied.replay().unwrap().batches {
                    add_batch(&mut told, &batch);
                }
                assert_eq!(told, seen_varied.rows, "told by {at}");
                comparisons += 1;
            }
        }
    }
    if !case.append_only {
        let mut rows: Vec<Input> = Vec::new();
        for (port, state) in inputs.iter().enumerate() {
            rows.extend(state.iter().map(|(row, count)| Input {
                port,
                row: row.clone(),
                diff: -count,
            }));
        }
        let number = epochs.len() as u64 + 1;
        let at = format!("{} seed {seed}, all retracted: {}", case.name, case.op);
        let empty = vec![ZSet::new(); case.inputs.len()];
        for (runner, seen) in [(&mut plain, &mut seen), (&mut varied, &mut seen_varied)] {
            seen.add(push(runner, &case, &cut(random, &rows, &case), number));
            seen.assert_is(&(case.oracle)(&empty, number), &at);
            assert_eq!(runner.cells(), usize::from(case.resident), "state of {at}");
            comparisons += 2;
        }
    }
    comparisons
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        Some(seed) => seed..seed + 1,
        None => {
            0..std::env::var("TIDEGATE_SEEDS")
                .ok()
                .and_then(|s| s.parse().ok())
                .unwrap_or(150)
        }
    }
}

fn run_all(on: &Backend, other: &Backend, name: &str) {
    for generator in REGISTRY {
        let mut comparisons = 0;
        for seed in seeds() {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                run(generator, seed, on, other)
            }));
            match outcome {
                Ok(count) => comparisons += count,
                Err(panic) => {
                    eprintln!("failed: {} TIDEGATE_SEED={seed} on {name}", generator.0);
                    std::panic::resume_unwind(panic);
                }
            }
        }
        eprintln!("{} on {name}: {comparisons} comparisons", generator.0);
        assert!(comparisons > 0, "{} compared nothing", generator.0);
    }
}

#[test]
fn every_operator_in_the_model() {
    let model = Backend { backends: None };
    run_all(&model, &model, "model");
}

#[test]
fn every_operator_on_every_backend() {
    let directory = tempfile::tempdir().unwrap();
    let memory = real(BackendKind::Memory, directory.path()).unwrap();
    match real(BackendKind::RocksDb, directory.path()) {
        Some(rocks) => run_all(&memory, &rocks, "memory and rocksdb"),
        None => run_all(&memory, &Backend { backends: None }, "memory"),
    }
}

//! Views.

use super::{Worker, other, part, seeds};
use crate::{BackendKind, Run, SlicePosition, StateError, ViewSnapshot, ViewSpec, ViewStore};
use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_types::{Batch, CheckpointId, Epoch, KEY_GROUPS, KeyGroup, KeyGroupRange, TableId};

type Row = (Option<i64>, String);
type Model = BTreeMap<Row, i64>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
    ]))
}

fn spec(append_only: bool) -> ViewSpec {
    let key = if append_only { vec![] } else { vec![1] };
    ViewSpec {
        table: TableId(5),
        schema: schema(),
        key,
        append_only,
    }
}

fn batch(rows: &[(Row, i64)]) -> Batch {
    let names = StringArray::from(rows.iter().map(|((_, s), _)| s.clone()).collect::<Vec<_>>());
    let numbers = Int64Array::from(rows.iter().map(|((n, _), _)| *n).collect::<Vec<_>>());
    let columns = RecordBatch::try_new(schema(), vec![Arc::new(names), Arc::new(numbers)]).unwrap();
    Batch::new(
        columns,
        Int64Array::from(rows.iter().map(|(_, d)| *d).collect::<Vec<_>>()),
    )
}

fn rows(batch: &RecordBatch) -> Vec<Row> {
    let (names, numbers) = (
        batch.column(0).as_string::<i32>(),
        batch.column(1).as_primitive::<Int64Type>(),
    );
    (0..batch.num_rows())
        .map(|i| {
            (
                numbers.is_valid(i).then(|| numbers.value(i)),
                names.value(i).to_owned(),
            )
        })
        .collect()
}

fn add(model: &mut Model, rows: impl IntoIterator<Item = (Row, i64)>) {
    for (row, diff) in rows {
        let count = model.entry(row.clone()).or_default();
        *count += diff;
        if *count == 0 {
            model.remove(&row);
        }
    }
}

fn scanned(snapshot: &ViewSnapshot) -> Model {
    let mut model = Model::new();
    let mut count = 0;
    for batch in snapshot.scan(None, 7).unwrap() {
        let batch = batch.unwrap();
        assert!(batch.num_rows() <= 7 && batch.num_rows() > 0);
        count += batch.num_rows();
        add(&mut model, rows(&batch).into_iter().map(|r| (r, 1)));
    }
    assert_eq!(count, snapshot.num_rows());
    model
}

fn sliced(snapshot: &ViewSnapshot, max_rows: usize) -> (Model, Vec<SlicePosition>) {
    let (mut model, mut after, mut positions) = (Model::new(), None, Vec::new());
    loop {
        let (batch, next) = snapshot
            .slice(after.as_ref(), KEY_GROUPS, max_rows)
            .unwrap();
        assert!(batch.num_rows() <= max_rows);
        add(
            &mut model,
            rows(batch.rows()).into_iter().zip(batch.diff_values()),
        );
        match next {
            Some(next) => {
                assert!(after.as_ref() < Some(&next), "slices move on");
                positions.push(next.clone());
                after = Some(next);
            }
            None => return (model, positions),
        }
    }
}

fn check(snapshot: &ViewSnapshot, model: &Model, rng: &mut StdRng, store: &ViewStore) {
    assert_eq!(&scanned(snapshot), model);
    assert_eq!(&sliced(snapshot, rng.random_range(1..40)).0, model);
    let counted: usize = snapshot
        .scan(Some(&[]), 100)
        .unwrap()
        .map(|b| b.unwrap().num_rows())
        .sum();
    assert_eq!(counted, snapshot.num_rows());
    if store.spec().append_only {
        return;
    }
    let key = Some(rng.random_range(0..40)).filter(|n| *n > 0);
    let keys = store
        .encode_keys(&[Arc::new(Int64Array::from(vec![key]))])
        .unwrap();
    let expected: Model = model
        .iter()
        .filter(|((n, _), _)| *n == key)
        .map(|(r, c)| (r.clone(), *c))
        .collect();
    for scan in [
        snapshot.lookup(keys.row(0).data(), None, 3),
        snapshot.lookup_prefix(keys.row(0).data(), None, 3),
    ] {
        let mut found = Model::new();
        for batch in scan.unwrap() {
            add(
                &mut found,
                rows(&batch.unwrap()).into_iter().map(|r| (r, 1)),
            );
        }
        assert_eq!(found, expected);
    }
    for batch in snapshot.scan(Some(&[1]), 10).unwrap() {
        assert_eq!(batch.unwrap().schema().field(0).name(), "n");
    }
}

struct ViewRun {
    kind: BackendKind,
    append_only: bool,
    rng: StdRng,
    store: Arc<ViewStore>,
    model: Model,
    epoch: u64,
    published: u64,
    by_epoch: BTreeMap<u64, Model>,
    kept: Vec<(ViewSnapshot, Model)>,
    sealed: Option<(CheckpointId, Option<Run>, Model)>,
    checkpoint: u64,
    durable: Model,
    runs: Vec<Run>,
}

impl ViewRun {
    fn append(&mut self) {
        self.epoch += 1;
        let mut batches = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let mut changes = Vec::new();
            for _ in 0..self.rng.random_range(1..40) {
                let row = (
                    Some(self.rng.random_range(0..40)).filter(|n| *n > 0),
                    format!("r{}", self.rng.random_range(0..6)),
                );
                let present = self.model.get(&row).copied().unwrap_or(0);
                let diff = match self.append_only {
                    true => self.rng.random_range(1..3),
                    false if present > 0 && self.rng.random_bool(0.6) => {
                        -self.rng.random_range(1..=present)
                    }
                    false => self.rng.random_range(1..4),
                };
                changes.push((row.clone(), diff));
                add(&mut self.model, [(row, diff)]);
            }
            batches.push(batch(&changes));
        }
        self.store.append(Epoch(self.epoch), batches).unwrap();
        self.by_epoch.insert(self.epoch, self.model.clone());
    }

    fn publish(&mut self) {
        self.published = self.rng.random_range(self.published..=self.epoch);
        self.store.publish(Epoch(self.published));
    }

    fn read(&mut self) {
        let Some(model) = self.by_epoch.get(&self.published) else {
            return;
        };
        let snapshot = match self.store.snapshot(Epoch(self.published)) {
            Ok(snapshot) => snapshot,
            Err(error) => panic!("the newest published epoch is readable: {error}"),
        };
        check(&snapshot, model, &mut self.rng, &self.store);
        self.kept.push((snapshot, model.clone()));
        if self.kept.len() > 5 {
            let kept = self.kept.swap_remove(self.rng.random_range(0..5));
            check(&kept.0, &kept.1, &mut self.rng, &self.store);
        }
    }

    fn seal(&mut self) {
        self.checkpoint += 1;
        let checkpoint = CheckpointId(self.checkpoint);
        let run = self.store.seal(checkpoint, Epoch(self.epoch)).unwrap();
        self.sealed = Some((checkpoint, run, self.model.clone()));
    }

    fn finish_checkpoint(&mut self) {
        let Some((checkpoint, run, model)) = self.sealed.take() else {
            return;
        };
        if self.rng.random_bool(0.3) {
            self.store.aborted(checkpoint);
            return;
        }
        // A checkpoint completes when all workers have passed its barrier, so its epoch is published.
        self.published = self.epoch;
        self.store.publish(Epoch(self.published));
        self.store.completed(checkpoint).unwrap();
        self.durable = model;
        self.runs.extend(run);
        if self.rng.random_bool(0.1) {
            self.check_restore();
        }
    }

    fn check_restore(&mut self) {
        let workers = self.rng.random_range(1..4);
        let mut all = Model::new();
        for worker in 0..workers {
            let groups = KeyGroupRange::of_worker(worker, workers);
            let home = Worker::new(groups, 1 << 20);
            let kind = if self.rng.random_bool(0.7) {
                other(self.kind)
            } else {
                self.kind
            };
            let store = home
                .backends
                .open_view(kind, spec(self.append_only))
                .unwrap();
            for run in self.runs.iter().filter_map(|r| part(r, groups)) {
                store.restore(&run).unwrap();
            }
            assert_eq!(
                store.seal(CheckpointId(1), Epoch(0)).unwrap(),
                None,
                "what was restored is no change"
            );
            store.append(Epoch(1), vec![]).unwrap();
            store.publish(Epoch(1));
            let snapshot = store.snapshot(Epoch(1)).unwrap();
            let contents = scanned(&snapshot);
            assert_eq!(sliced(&snapshot, 10).0, contents);
            add(&mut all, contents);
        }
        assert_eq!(all, self.durable);
    }
}

fn random_view(kind: BackendKind, append_only: bool, limit_bytes: usize, seed: u64, steps: usize) {
    let worker = Worker::new(KeyGroupRange::ALL, limit_bytes);
    let mut run = ViewRun {
        kind,
        append_only,
        rng: StdRng::seed_from_u64(seed),
        store: worker.backends.open_view(kind, spec(append_only)).unwrap(),
        model: Model::new(),
        epoch: 0,
        published: 0,
        by_epoch: BTreeMap::new(),
        kept: Vec::new(),
        sealed: None,
        checkpoint: 0,
        durable: Model::new(),
        runs: Vec::new(),
    };
    for _ in 0..steps {
        match run.rng.random_range(0..20) {
            0..10 => run.append(),
            10..14 => run.publish(),
            14..17 => run.read(),
            17 if run.sealed.is_none() => run.seal(),
            18 => run.finish_checkpoint(),
            _ => {}
        }
    }
    for (snapshot, model) in std::mem::take(&mut run.kept) {
        check(&snapshot, &model, &mut run.rng, &run.store);
    }
    run.published = run.epoch;
    run.store.publish(Epoch(run.epoch));
    run.read();
    run.finish_checkpoint();
    run.seal();
    run.finish_checkpoint();
    run.check_restore();
    assert_eq!(run.store.negative_rows(), 0);
}

#[test]
fn views_in_memory_show_every_epoch() {
    for seed in seeds(4) {
        eprintln!("seed {seed}");
        random_view(BackendKind::Memory, false, 0, seed, 300);
        random_view(BackendKind::Memory, true, 0, seed, 300);
    }
}

#[test]
fn views_in_rocksdb_show_every_epoch() {
    for seed in seeds(3) {
        eprintln!("seed {seed}");
        random_view(BackendKind::RocksDb, false, 1 << 20, seed, 300);
        random_view(BackendKind::RocksDb, true, 1 << 20, seed, 300);
    }
}

/// With no room at all, and with a little, so that layers go to RocksDB before a checkpoint holds them.
#[test]
fn views_that_overflow_show_every_epoch() {
    for seed in seeds(4) {
        eprintln!("seed {seed}");
        for limit_bytes in [0, 8 << 10] {
            random_view(BackendKind::RocksDb, false, limit_bytes, seed, 300);
            random_view(BackendKind::RocksDb, true, limit_bytes, seed, 300);
        }
    }
}

#[test]
fn layers_are_merged_and_old_epochs_go() {
    let worker = Worker::new(KeyGroupRange::ALL, 0);
    let store = worker
        .backends
        .open_view(BackendKind::Memory, spec(false))
        .unwrap();
    for epoch in 1..=200 {
        let n = epoch as i64;
        store
            .append(Epoch(epoch), vec![batch(&[((Some(n), "x".into()), 1)])])
            .unwrap();
        store.publish(Epoch(epoch));
    }
    for _ in 0..500 {
        if store.layer_count() < 25 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(store.layer_count() < 25, "{} layers", store.layer_count());
    assert!(matches!(
        store.snapshot(Epoch(1)),
        Err(StateError::EpochGone(Epoch(1)))
    ));
    assert_eq!(store.snapshot(Epoch(200)).unwrap().num_rows(), 200);
    let used = worker.backends.bytes_used();
    assert_eq!(used as u64, store.stats().bytes);
}

/// A backfill reads slices while the view changes; what the slices and the changes give together is the view.
#[test]
fn a_backfill_sees_each_row_once() {
    for (kind, append_only) in [
        (BackendKind::Memory, false),
        (BackendKind::Memory, true),
        (BackendKind::RocksDb, false),
        (BackendKind::RocksDb, true),
    ] {
        for seed in seeds(2) {
            let worker = Worker::new(KeyGroupRange::ALL, 0);
            let store = worker.backends.open_view(kind, spec(append_only)).unwrap();
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut model, mut copy, mut position, mut done) =
                (Model::new(), Model::new(), None, false);
            for epoch in 1..=60 {
                let mut changes = Vec::new();
                for _ in 0..if epoch == 1 { 200 } else { 10 } {
                    let row = (Some(rng.random_range(0..1000)), "x".to_owned());
                    let remove = !append_only && model.contains_key(&row);
                    let diff = if remove { -1 } else { 1 };
                    changes.push((row.clone(), diff));
                    add(&mut model, [(row, diff)]);
                }
                let delta = batch(&changes);
                store.append(Epoch(epoch), vec![delta.clone()]).unwrap();
                store.publish(Epoch(epoch));
                if epoch % 7 == 0 {
                    store.seal(CheckpointId(epoch), Epoch(epoch)).unwrap();
                    store.completed(CheckpointId(epoch)).unwrap();
                }
                let passed = match (&position, done) {
                    (_, true) => delta,
                    (Some(position), false) => store.at_or_before(position, &delta).unwrap(),
                    (None, false) => Batch::empty(schema()),
                };
                add(
                    &mut copy,
                    rows(passed.rows()).into_iter().zip(passed.diff_values()),
                );
                if !done {
                    let snapshot = store.snapshot(Epoch(epoch)).unwrap();
                    let (slice, next) = snapshot.slice(position.as_ref(), KEY_GROUPS, 20).unwrap();
                    add(
                        &mut copy,
                        rows(slice.rows()).into_iter().zip(slice.diff_values()),
                    );
                    done = next.is_none();
                    position = next;
                }
            }
            assert!(done);
            assert_eq!(
                copy, model,
                "{kind:?} append only {append_only} seed {seed}"
            );
        }
    }
}

/// What several workers had, on one: each stretch of key groups gives its own rows, and nothing of others.
#[test]
fn a_slice_keeps_to_its_key_groups() {
    for (kind, append_only) in [
        (BackendKind::Memory, false),
        (BackendKind::Memory, true),
        (BackendKind::RocksDb, true),
    ] {
        let mut runs = Vec::new();
        for worker in 0..4 {
            let one = Worker::new(KeyGroupRange::of_worker(worker, 4), 1 << 20);
            let store = one.backends.open_view(kind, spec(append_only)).unwrap();
            let name = worker.to_string();
            let own = |n: &i64| {
                append_only || {
                    let columns = [Arc::new(Int64Array::from(vec![*n])) as arrow::array::ArrayRef];
                    let keys = store.encode_keys(&columns).unwrap();
                    let group =
                        tidegate_types::key_group(tidegate_types::hash_key(keys.row(0).data()));
                    KeyGroupRange::of_worker(worker, 4).contains(group)
                }
            };
            let numbers = (0..200).filter(own);
            let all: Vec<_> = numbers.map(|n| ((Some(n), name.clone()), 1)).collect();
            store.append(Epoch(1), vec![batch(&all)]).unwrap();
            store.publish(Epoch(1));
            runs.extend(store.seal(CheckpointId(1), Epoch(1)).unwrap());
        }
        let one = Worker::new(KeyGroupRange::ALL, 1 << 20);
        let store = one.backends.open_view(kind, spec(append_only)).unwrap();
        for run in &runs {
            store.restore(run).unwrap();
        }
        store.publish(Epoch(2));
        let snapshot = store.snapshot(Epoch(2)).unwrap();
        let mut sum = 0;
        for worker in [2, 0, 3, 1] {
            let groups = KeyGroupRange::of_worker(worker, 4);
            let mut at = SlicePosition {
                group: groups.start as KeyGroup,
                row: Vec::new(),
            };
            loop {
                let (slice, next) = snapshot.slice(Some(&at), groups.end, 30).unwrap();
                let all = rows(slice.rows());
                assert!(
                    all.iter().all(|(_, name)| *name == worker.to_string()),
                    "{kind:?}: {all:?}"
                );
                sum += all.len();
                match next {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
        assert_eq!(sum, if append_only { 800 } else { 200 }, "{kind:?}");
    }
}

#[test]
fn a_subscriber_gets_each_epoch_once_published() {
    let worker = Worker::new(KeyGroupRange::ALL, 0);
    for append_only in [false, true] {
        let store = worker
            .backends
            .open_view(BackendKind::Memory, spec(append_only))
            .unwrap();
        let row = |n: i64| ((Some(n), "x".to_owned()), 1);
        store.append(Epoch(1), vec![batch(&[row(1)])]).unwrap();
        store
            .append(Epoch(2), vec![batch(&[row(2), row(3)])])
            .unwrap();
        store.publish(Epoch(1));
        let mut subscription = store.subscribe(Epoch(1), 2).unwrap();
        assert!(
            subscription.try_next().is_none(),
            "epoch 2 is not published"
        );
        store.publish(Epoch(2));
        let delta = subscription.try_next().unwrap().unwrap();
        assert_eq!(delta.epoch, Epoch(2));
        assert_eq!(
            delta
                .batches()
                .unwrap()
                .iter()
                .map(Batch::num_rows)
                .sum::<usize>(),
            2
        );
        for epoch in 3..7 {
            store.append(Epoch(epoch), vec![batch(&[row(9)])]).unwrap();
            store.publish(Epoch(epoch));
        }
        assert!(
            subscription.try_next().unwrap().is_ok() && subscription.try_next().unwrap().is_ok()
        );
        assert!(subscription.try_next().unwrap().is_err(), "it lagged");
    }
}

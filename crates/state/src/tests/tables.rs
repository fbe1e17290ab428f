//! State tables.

use super::{Worker, other, part, seeds};
use crate::{BackendKind, Cell, Change, Form, Merge, Run, RunBuilder, Table, TableSpec};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use tidegate_types::{CheckpointId, KeyGroupRange, TableId, hash_key, key_group};

type Model = BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>;

fn spec(form: Form) -> TableSpec {
    TableSpec {
        id: TableId(77),
        form,
        merge: Merge::Replace,
    }
}

fn contents(table: &dyn Table) -> Model {
    let mut model = Model::new();
    table
        .scan_all(&mut |group, key, sub, value| {
            assert_eq!(group, key_group(hash_key(key)));
            let twice = model.insert((key.to_vec(), sub.to_vec()), value.to_vec());
            assert!(twice.is_none(), "a cell is visited once");
            ControlFlow::Continue(())
        })
        .unwrap();
    model
}

/// One table beside its model, with what each checkpoint should restore to.
struct Run1 {
    form: Form,
    kind: BackendKind,
    rng: StdRng,
    table: Box<dyn Table>,
    model: Model,
    changed: BTreeSet<(Vec<u8>, Vec<u8>)>,
    sealed: Option<(
        CheckpointId,
        Option<Run>,
        Model,
        BTreeSet<(Vec<u8>, Vec<u8>)>,
    )>,
    durable: Model,
    runs: Vec<Run>,
    checkpoint: u64,
    keys: u64,
    subs: u64,
}

impl Run1 {
    fn key(&mut self) -> Vec<u8> {
        // A few keys have many sub-keys, most have few.
        let n = if self.rng.random_bool(0.3) {
            self.rng.random_range(0..3)
        } else {
            self.rng.random_range(0..self.keys)
        };
        let mut key = vec![1];
        key.extend_from_slice(&n.to_be_bytes());
        key
    }

    fn sub(&mut self) -> Vec<u8> {
        if self.form == Form::Value {
            return Vec::new();
        }
        let n = self.rng.random_range(0..self.subs);
        let mut sub = n.to_be_bytes()[6..].to_vec();
        sub.extend(std::iter::repeat_n(b's', (n % 40) as usize));
        sub
    }

    fn value(&mut self) -> Vec<u8> {
        let length = match self.rng.random_range(0..100) {
            0 => self.rng.random_range(1000..5000),
            1..50 => 20,
            _ => self.rng.random_range(0..60),
        };
        vec![self.rng.random(); length]
    }

    fn write(&mut self) {
        let count = self.rng.random_range(1..40);
        let mut writes = Vec::new();
        for _ in 0..count {
            let delete = self.rng.random_bool(0.4);
            let cell = (self.key(), self.sub());
            writes.push((cell, (!delete).then(|| self.value())));
        }
        let changes: Vec<Change<'_>> = writes
            .iter()
            .map(|((key, sub), value)| Change {
                cell: Cell { key, sub },
                value: value.as_deref(),
            })
            .collect();
        self.table.write_many(&changes).unwrap();
        for (cell, value) in writes {
            self.changed.insert(cell.clone());
            match value {
                Some(value) => self.model.insert(cell, value),
                None => self.model.remove(&cell),
            };
        }
    }

    fn read(&mut self) {
        let cells: Vec<_> = (0..self.rng.random_range(1..50))
            .map(|_| (self.key(), self.sub()))
            .collect();
        let asked: Vec<Cell<'_>> = cells.iter().map(|(key, sub)| Cell { key, sub }).collect();
        let mut seen = vec![0; cells.len()];
        let model = &self.model;
        let mut visit = |i: usize, value: Option<&[u8]>| {
            seen[i] += 1;
            assert_eq!(
                value,
                model.get(&cells[i]).map(Vec::as_slice),
                "{:?}",
                cells[i]
            );
        };
        self.table.get_many(&asked, &mut visit).unwrap();
        assert!(seen.iter().all(|n| *n == 1));
        let keys: Vec<&[u8]> = cells.iter().map(|(key, _)| key.as_slice()).collect();
        let mut found: Vec<Vec<(Vec<u8>, Vec<u8>)>> = vec![Vec::new(); keys.len()];
        self.table
            .scan_many(&keys, &mut |i, sub, value| {
                found[i].push((sub.to_vec(), value.to_vec()))
            })
            .unwrap();
        for (key, found) in keys.iter().zip(found) {
            assert_eq!(
                found,
                self.expected(key, (Bound::Unbounded, Bound::Unbounded))
            );
        }
    }

    fn expected(
        &self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let of_key = self
            .model
            .range((key.to_vec(), Vec::new())..)
            .take_while(|((k, _), _)| k == key);
        let within = of_key.filter(|((_, sub), _)| bounds.contains_slice(sub));
        within
            .map(|((_, sub), value)| (sub.clone(), value.clone()))
            .collect()
    }

    fn scan(&mut self) {
        let key = self.key();
        let (a, b) = (self.sub(), self.sub());
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let bound = |rng: &mut StdRng| rng.random_range(0..3);
        let low = match bound(&mut self.rng) {
            0 => Bound::Unbounded,
            1 => Bound::Included(low.as_slice()),
            _ => Bound::Excluded(low.as_slice()),
        };
        let high = match bound(&mut self.rng) {
            0 => Bound::Unbounded,
            1 => Bound::Included(high.as_slice()),
            _ => Bound::Excluded(high.as_slice()),
        };
        let reverse = self.rng.random_bool(0.5);
        let limit = if self.rng.random_bool(0.5) {
            usize::MAX
        } else {
            self.rng.random_range(1..5)
        };
        let mut found = Vec::new();
        self.table
            .scan(&key, (low, high), reverse, &mut |sub, value| {
                found.push((sub.to_vec(), value.to_vec()));
                if found.len() == limit {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        let mut expected = self.expected(&key, (low, high));
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        assert_eq!(
            found, expected,
            "key {key:?} bounds {low:?} {high:?} reverse {reverse}"
        );
    }

    fn seal(&mut self) {
        self.checkpoint += 1;
        let checkpoint = CheckpointId(self.checkpoint);
        let run = self.table.seal(checkpoint).unwrap();
        let changed = std::mem::take(&mut self.changed);
        for entry in run.iter().flat_map(|r| r.iter()) {
            let cell = (entry.key.to_vec(), entry.sub.to_vec());
            // A map table whose last checkpoint is still being written to RocksDB may seal its cells once more.
            let once_more = self.kind == BackendKind::RocksDb && self.form == Form::Map;
            assert!(
                changed.contains(&cell) || once_more,
                "only what changed is sealed"
            );
            assert_eq!(entry.value, self.model.get(&cell).map(Vec::as_slice));
            if self.kind == BackendKind::Memory && entry.value.is_none() && self.sealed.is_none() {
                // A cell that came and went between two checkpoints leaves nothing, unless an aborted one had seen it.
                assert!(self.durable.contains_key(&cell) || self.seen_by_aborted(&cell));
            }
        }
        let sorted = |r: &Run| {
            (1..r.len()).all(|i| {
                let (a, b) = (r.entry(i - 1), r.entry(i));
                (a.group, a.key, a.sub) < (b.group, b.key, b.sub)
            })
        };
        assert!(run.as_ref().is_none_or(sorted));
        assert!(run.as_ref().is_none_or(|r| !r.is_empty()));
        self.sealed = Some((checkpoint, run, self.model.clone(), changed));
    }

    fn seen_by_aborted(&self, _cell: &(Vec<u8>, Vec<u8>)) -> bool {
        self.checkpoint > self.runs.len() as u64
    }

    fn finish_checkpoint(&mut self) {
        let Some((checkpoint, run, model, changed)) = self.sealed.take() else {
            return;
        };
        if self.rng.random_bool(0.3) {
            self.table.aborted(checkpoint);
            self.changed.extend(changed);
            return;
        }
        self.table.completed(checkpoint).unwrap();
        self.durable = model;
        self.runs.extend(run);
        if self.rng.random_bool(0.1) {
            self.check_restore();
        }
    }

    /// The runs so far, restored in the other backend by workers that own other key groups.
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
            let mut table = home.backends.open_table(kind, &spec(self.form)).unwrap();
            for run in self.runs.iter().filter_map(|r| part(r, groups)) {
                table.restore(&run).unwrap();
            }
            assert_eq!(
                table.seal(CheckpointId(1)).unwrap(),
                None,
                "what was restored is no change"
            );
            all.extend(contents(&*table));
        }
        assert_eq!(all, self.durable);
    }
}

/// `RangeBounds` wants sized borders.
trait ContainsSlice {
    fn contains_slice(&self, sub: &[u8]) -> bool;
}

impl ContainsSlice for (Bound<&[u8]>, Bound<&[u8]>) {
    fn contains_slice(&self, sub: &[u8]) -> bool {
        let above = match self.0 {
            Bound::Unbounded => true,
            Bound::Included(low) => sub >= low,
            Bound::Excluded(low) => sub > low,
        };
        let below = match self.1 {
            Bound::Unbounded => true,
            Bound::Included(high) => sub <= high,
            Bound::Excluded(high) => sub < high,
        };
        above && below
    }
}

fn random_operations(
    kind: BackendKind,
    form: Form,
    overlay_limit_bytes: usize,
    seed: u64,
    steps: usize,
) {
    let worker = Worker::new(KeyGroupRange::ALL, overlay_limit_bytes);
    let mut rng = StdRng::seed_from_u64(seed);
    let (keys, subs) = (rng.random_range(5..300), rng.random_range(3..400));
    let mut run = Run1 {
        form,
        kind,
        rng,
        table: worker.backends.open_table(kind, &spec(form)).unwrap(),
        model: Model::new(),
        changed: BTreeSet::new(),
        sealed: None,
        durable: Model::new(),
        runs: Vec::new(),
        checkpoint: 0,
        keys,
        subs,
    };
    for _ in 0..steps {
        match run.rng.random_range(0..20) {
            0..11 => run.write(),
            11..14 => run.read(),
            14..17 => run.scan(),
            17 if run.sealed.is_none() => run.seal(),
            18 => run.finish_checkpoint(),
            19 if run.rng.random_bool(0.1) => assert_eq!(contents(&*run.table), run.model),
            _ => run.write(),
        }
    }
    assert_eq!(contents(&*run.table), run.model);
    run.finish_checkpoint();
    run.seal();
    run.finish_checkpoint();
    run.check_restore();
}

#[test]
fn memory_tables_behave_like_maps() {
    for seed in seeds(6) {
        eprintln!("seed {seed}");
        random_operations(BackendKind::Memory, Form::Value, 0, seed, 600);
        random_operations(BackendKind::Memory, Form::Map, 0, seed, 600);
    }
}

#[test]
fn rocksdb_tables_behave_like_maps() {
    for seed in seeds(4) {
        eprintln!("seed {seed}");
        random_operations(BackendKind::RocksDb, Form::Value, 1 << 20, seed, 500);
        random_operations(BackendKind::RocksDb, Form::Map, 1 << 20, seed, 500);
    }
}

#[test]
fn rocksdb_tables_that_overflow_behave_like_maps() {
    for seed in seeds(4) {
        eprintln!("seed {seed}");
        random_operations(BackendKind::RocksDb, Form::Value, 48 << 10, seed, 500);
        random_operations(BackendKind::RocksDb, Form::Map, 48 << 10, seed, 500);
    }
}

#[test]
fn a_run_has_the_changed_keys_and_no_others() {
    for kind in [BackendKind::Memory, BackendKind::RocksDb] {
        let worker = Worker::new(KeyGroupRange::ALL, 64 << 20);
        let mut table = worker
            .backends
            .open_table(kind, &spec(Form::Value))
            .unwrap();
        for n in 0..50_000 {
            let key = u32::to_be_bytes(n);
            let change = Change {
                cell: Cell::key(&key),
                value: Some(&[7; 20]),
            };
            table.write_many(&[change]).unwrap();
        }
        assert_eq!(table.seal(CheckpointId(1)).unwrap().unwrap().len(), 50_000);
        table.completed(CheckpointId(1)).unwrap();
        for n in 0..10 {
            let key = u32::to_be_bytes(n);
            let change = Change {
                cell: Cell::key(&key),
                value: if n < 3 { None } else { Some(&[8; 20]) },
            };
            table.write_many(&[change]).unwrap();
        }
        let run = table.seal(CheckpointId(2)).unwrap().unwrap();
        assert_eq!(run.len(), 10);
        assert!(run.memory_bytes() < 2000, "{}", run.memory_bytes());
        assert_eq!(run.iter().filter(|e| e.value.is_none()).count(), 3);
        table.completed(CheckpointId(2)).unwrap();
        assert_eq!(table.seal(CheckpointId(3)).unwrap(), None);
    }
}

#[test]
fn churn_does_not_grow_memory() {
    for form in [Form::Value, Form::Map] {
        let worker = Worker::new(KeyGroupRange::ALL, 0);
        let mut table = worker
            .backends
            .open_table(BackendKind::Memory, &spec(form))
            .unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        let mut peak = 0;
        for round in 0..200u32 {
            for i in 0..500u32 {
                let (new, old) = (
                    (round * 500 + i).to_be_bytes(),
                    (round * 500 + i).wrapping_sub(2000).to_be_bytes(),
                );
                let value = vec![1; rng.random_range(1..100)];
                let sub: &[u8] = if form == Form::Map { b"sub" } else { b"" };
                let changes = [
                    Change {
                        cell: Cell { key: &new, sub },
                        value: Some(&value),
                    },
                    Change {
                        cell: Cell { key: &old, sub },
                        value: None,
                    },
                ];
                table.write_many(&changes).unwrap();
            }
            let checkpoint = CheckpointId(u64::from(round));
            table.seal(checkpoint).unwrap();
            table.completed(checkpoint).unwrap();
            peak = peak.max(worker.backends.bytes_used());
            assert_eq!(worker.backends.bytes_used() as u64, table.stats().bytes);
        }
        assert!(table.stats().cells <= 2000);
        assert!(peak < 1 << 20, "{form:?}: {peak} bytes for 2000 cells");
        drop(table);
        assert_eq!(worker.backends.bytes_used(), 0);
    }
}

/// Five million keyed sums have to fit, with all that is around them, into a gigabyte.
#[test]
fn a_keyed_sum_takes_few_bytes() {
    const KEYS: u64 = 300_000;
    let worker = Worker::new(KeyGroupRange::ALL, 0);
    let mut table = worker
        .backends
        .open_table(BackendKind::Memory, &spec(Form::Value))
        .unwrap();
    let keys: Vec<[u8; 9]> = (0..KEYS)
        .map(|n| {
            let mut key = [1; 9];
            key[1..].copy_from_slice(&n.to_be_bytes());
            key
        })
        .collect();
    for keys in keys.chunks(1000) {
        let changes: Vec<_> = keys
            .iter()
            .map(|k| Change {
                cell: Cell::key(k),
                value: Some(&[3; 20]),
            })
            .collect();
        table.write_many(&changes).unwrap();
    }
    let bytes_per_key = worker.backends.bytes_used() as u64 / KEYS;
    // Every key is a change here: its place in the list is in this figure.
    assert!(bytes_per_key <= 80, "{bytes_per_key}");
}

/// State grows far beyond the limits; what is in memory does not.
#[test]
fn rocksdb_keeps_to_its_memory() {
    const OVERLAY: usize = 2 << 20;
    for form in [Form::Value, Form::Map] {
        let worker = Worker::new(KeyGroupRange::ALL, OVERLAY);
        let mut table = worker
            .backends
            .open_table(BackendKind::RocksDb, &spec(form))
            .unwrap();
        let sub: &[u8] = if form == Form::Map { b"sub" } else { b"" };
        let keys: Vec<[u8; 4]> = (0..200_000u32).map(u32::to_be_bytes).collect();
        let mut rng = StdRng::seed_from_u64(1);
        for (step, keys) in keys.chunks(1000).enumerate() {
            let value: Vec<u8> = (0..150).map(|_| rng.random()).collect();
            let change = |key| Change {
                cell: Cell { key, sub },
                value: Some(&value),
            };
            let changes: Vec<_> = keys.iter().map(|k| change(k.as_slice())).collect();
            table.write_many(&changes).unwrap();
            let used = worker.backends.bytes_used();
            assert!(
                used <= OVERLAY + OVERLAY / 4,
                "{form:?}: {used} bytes in overlays"
            );
            let cached = worker.backends.cache_bytes();
            assert!(
                cached <= 24 << 20,
                "{form:?}: {cached} bytes of cache and buffers"
            );
            if step % 5 == 4 {
                let checkpoint = CheckpointId(step as u64);
                table.seal(checkpoint).unwrap();
                table.completed(checkpoint).unwrap();
            }
        }
        let cells: Vec<_> = keys
            .iter()
            .step_by(97)
            .map(|key| Cell { key, sub })
            .collect();
        let mut found = 0;
        table
            .get_many(&cells, &mut |_, value| {
                found += usize::from(value.is_some_and(|v| v.len() == 150))
            })
            .unwrap();
        assert_eq!(found, cells.len());
    }
}

/// Long keys that come in pieces, cut anywhere, and then a run that changes some of them in the middle and at the end.
#[test]
fn many_cells_of_a_key_are_restored_in_pieces() {
    let worker = Worker::new(KeyGroupRange::ALL, 1 << 20);
    let key = |k: usize| format!("key {k}").into_bytes();
    let sub = |n: usize| (n as u32).to_be_bytes().to_vec();
    let mut rng = StdRng::seed_from_u64(4);
    for kind in [BackendKind::Memory, BackendKind::RocksDb] {
        let mut model = Model::new();
        for (k, count) in [1, 2, 70, 900, 4000, 1].into_iter().enumerate() {
            for n in 0..count {
                let value = vec![k as u8; rng.random_range(0..40)];
                model.insert((key(k), sub(n * 2)), value);
            }
        }
        model.insert((key(3), sub(901)), vec![7; 4000]);
        let mut sorted: Vec<_> = model.clone().into_iter().collect();
        sorted.sort_by_key(|((k, s), _)| (key_group(hash_key(k)), k.clone(), s.clone()));
        let mut table = worker.backends.open_table(kind, &spec(Form::Map)).unwrap();
        let mut rest = &sorted[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rng.random_range(1..=rest.len().min(700)));
            let mut run = RunBuilder::new(TableId(77), true, piece.len());
            for ((k, s), value) in piece {
                run.push(k, s, Some(value));
            }
            table.restore(&run.finish().unwrap()).unwrap();
            rest = behind;
        }
        assert_eq!(contents(table.as_ref()), model, "{kind:?}");
        let mut run = RunBuilder::new(TableId(77), true, 0);
        for k in 0..6 {
            for n in (0..9000).step_by(37) {
                let value = (n % 3 > 0).then(|| vec![9; n % 50]);
                run.push(&key(k), &sub(n), value.as_deref());
                match value {
                    Some(value) => model.insert((key(k), sub(n)), value),
                    None => model.remove(&(key(k), sub(n))),
                };
            }
        }
        table.restore(&run.finish().unwrap()).unwrap();
        assert_eq!(contents(table.as_ref()), model, "{kind:?}");
        assert!(
            table.seal(CheckpointId(1)).unwrap().is_none(),
            "{kind:?}: nothing has changed"
        );
        for ((k, s), value) in model.iter().step_by(11) {
            let cell = Cell { key: k, sub: s };
            table
                .get_many(&[cell], &mut |_, found| {
                    assert_eq!(found, Some(value.as_slice()))
                })
                .unwrap();
        }
        worker.backends.drop_table(kind, TableId(77));
    }
}

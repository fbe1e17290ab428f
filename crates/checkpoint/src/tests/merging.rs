//! Merging against a model: whatever is merged, and whenever, a restore gives the same.

use super::{checkpoint_of, descriptor, open};
use crate::merge_policy::{MAX_LEVELS, levels};
use crate::{CheckpointStore, Manifest, Storage};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_state::{Merge, Run, RunBuilder};
use tidegate_types::{KeyGroupRange, TableId, hash_key, key_group};

const REPLACE: TableId = TableId(1);
const SUM: TableId = TableId(2);

#[derive(Default, Clone, Debug, PartialEq)]
struct Model {
    replace: BTreeMap<Vec<u8>, Vec<u8>>,
    sum: BTreeMap<Vec<u8>, i64>,
}

/// The changes of one checkpoint, as runs by key groups.
struct Changes {
    replace: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    sum: BTreeMap<Vec<u8>, i64>,
}

impl Changes {
    fn random(rng: &mut StdRng, count: usize, deleting: bool) -> Self {
        let mut changes = Self {
            replace: BTreeMap::new(),
            sum: BTreeMap::new(),
        };
        for _ in 0..count {
            let key = format!("{:04}", rng.random_range(0..300)).into_bytes();
            let value = (!deleting && rng.random_bool(0.7))
                .then(|| rng.random::<u64>().to_string().into_bytes());
            changes.replace.insert(key.clone(), value);
            *changes.sum.entry(key).or_default() += rng.random_range(-2..3);
        }
        changes
    }

    fn runs(&self, groups: KeyGroupRange) -> Vec<Run> {
        let mut replace = RunBuilder::new(REPLACE, false, 0);
        let mut sum = RunBuilder::new(SUM, false, 0);
        for (key, value) in self
            .replace
            .iter()
            .filter(|(k, _)| groups.contains(key_group(hash_key(k))))
        {
            replace.push(key, &[], value.as_deref());
        }
        for (key, count) in self
            .sum
            .iter()
            .filter(|(k, _)| groups.contains(key_group(hash_key(k))))
        {
            sum.push(key, &[], Some(&count.to_le_bytes()));
        }
        replace.finish().into_iter().chain(sum.finish()).collect()
    }

    fn apply(&self, model: &mut Model) {
        for (key, value) in &self.replace {
            match value {
                Some(value) => model.replace.insert(key.clone(), value.clone()),
                None => model.replace.remove(key),
            };
        }
        for (key, count) in &self.sum {
            *model.sum.entry(key.clone()).or_default() += count;
        }
        model.sum.retain(|_, count| *count != 0);
    }
}

async fn restored(store: &CheckpointStore, manifest: &Manifest, workers: usize) -> Model {
    let mut model = Model::default();
    let restorer = store.restorer();
    for worker in 0..workers {
        let groups = KeyGroupRange::of_worker(worker, workers);
        for run in restorer
            .table_runs(manifest.table(REPLACE).unwrap(), groups)
            .await
            .unwrap()
        {
            for e in run.iter() {
                match e.value {
                    Some(value) => model.replace.insert(e.key.to_vec(), value.to_vec()),
                    None => model.replace.remove(e.key),
                };
            }
        }
        for run in restorer
            .table_runs(manifest.table(SUM).unwrap(), groups)
            .await
            .unwrap()
        {
            for e in run.iter() {
                let count = i64::from_le_bytes(e.value.unwrap().try_into().unwrap());
                *model.sum.entry(e.key.to_vec()).or_default() += count;
            }
        }
    }
    model.sum.retain(|_, count| *count != 0);
    model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merging_changes_nothing() {
    let seed = rand::rng().random::<u64>();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let storage = Storage::open("memory://").unwrap();
    let mut store = open(&storage).await.unwrap();
    store.newest().unwrap();
    let mut model = Model::default();
    let mut epoch = store.start_epoch();
    let tables = vec![descriptor(1, Merge::Replace), descriptor(2, Merge::Sum)];
    let (mut merges, mut most_levels) = (0, 0);
    for round in 0..160 {
        let count = if round == 0 {
            2_000
        } else {
            rng.random_range(1..40)
        };
        let changes = Changes::random(&mut rng, count, false);
        let manifest = checkpoint_of(&store, epoch, tables.clone(), |groups| changes.runs(groups))
            .await
            .unwrap();
        changes.apply(&mut model);
        epoch = epoch.next();
        if rng.random_bool(0.9) {
            while store.merge_once(&BTreeSet::new()).await.unwrap().is_some() {
                merges += 1;
            }
        }
        store.clean_up().await.unwrap();
        most_levels = most_levels.max(levels(&manifest.table(REPLACE).unwrap().runs).len());
        assert_eq!(
            restored(&store, &manifest, 1 + round % 4).await,
            model,
            "round {round}"
        );
        if rng.random_bool(0.05) {
            store = open(&storage).await.unwrap();
            assert!(*store.newest().unwrap().manifest.unwrap() == *manifest);
            epoch = store.start_epoch();
        }
    }
    assert!(merges >= 15, "{merges}");
    assert!(most_levels <= MAX_LEVELS + 8, "{most_levels}");
    let manifest = store.base().unwrap();
    let rows = manifest.table(REPLACE).unwrap().rows();
    assert!(
        rows < 1_200,
        "{rows} rows for {} live ones",
        model.replace.len()
    );
}

/// What was deleted goes away in the end: no tombstone and no zero stays at the bottom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_state_leaves_nothing_behind() {
    let store = open(&Storage::open("memory://").unwrap()).await.unwrap();
    store.newest().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut epoch = store.start_epoch();
    let tables = vec![descriptor(1, Merge::Replace), descriptor(2, Merge::Sum)];
    let mut model = Model::default();
    let first = Changes::random(&mut rng, 500, false);
    first.apply(&mut model);
    checkpoint_of(&store, epoch, tables.clone(), |groups| first.runs(groups))
        .await
        .unwrap();
    let retract = Changes {
        replace: model.replace.keys().map(|k| (k.clone(), None)).collect(),
        sum: model.sum.iter().map(|(k, n)| (k.clone(), -n)).collect(),
    };
    for i in 0..12 {
        epoch = epoch.next();
        let none = Changes {
            replace: BTreeMap::from([(b"x".to_vec(), None)]),
            sum: BTreeMap::from([(b"x".to_vec(), 0)]),
        };
        let changes = if i == 0 { &retract } else { &none };
        checkpoint_of(&store, epoch, tables.clone(), |groups| changes.runs(groups))
            .await
            .unwrap();
        while store.merge_once(&BTreeSet::new()).await.unwrap().is_some() {}
    }
    epoch = epoch.next();
    let manifest = checkpoint_of(&store, epoch, tables, |_| vec![])
        .await
        .unwrap();
    assert!(
        manifest.rows() < 30,
        "{} rows are left of nothing",
        manifest.rows()
    );
    assert_eq!(restored(&store, &manifest, 2).await, Model::default());
}

/// A small idle table does not keep a large object alive for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_large_object_moves_out() {
    let storage = Storage::open("memory://").unwrap();
    let store = open(&storage).await.unwrap();
    store.newest().unwrap();
    let mut epoch = store.start_epoch();
    let tables = vec![descriptor(1, Merge::Replace), descriptor(2, Merge::Replace)];
    let large = |value: u64, groups: KeyGroupRange| {
        let mut builder = RunBuilder::new(TableId(1), false, 0);
        for i in 0..40_000u64 {
            let key = hash_key(&i.to_le_bytes()).to_le_bytes();
            if groups.contains(key_group(hash_key(&key))) {
                builder.push(&key, &[], Some(&(hash_key(&key) ^ value).to_le_bytes()));
            }
        }
        builder.finish()
    };
    let mut idle = RunBuilder::new(TableId(2), false, 0);
    idle.push(b"k", &[], Some(b"kept"));
    let idle = idle.finish().unwrap();
    let first = checkpoint_of(&store, epoch, tables.clone(), |groups| {
        let mut runs: Vec<Run> = large(0, groups).into_iter().collect();
        if groups.start == 0 {
            runs.push(idle.clone());
        }
        runs
    });
    let first = first.await.unwrap();
    let object = first.table(TableId(2)).unwrap().runs[0].object.clone();
    let mut moved = false;
    for i in 1..=24 {
        epoch = epoch.next();
        let manifest = checkpoint_of(&store, epoch, tables.clone(), |groups| {
            large(i, groups).into_iter().collect()
        });
        let manifest = manifest.await.unwrap();
        while store.merge_once(&BTreeSet::new()).await.unwrap().is_some() {}
        store.clean_up().await.unwrap();
        moved |= manifest.table(TableId(2)).unwrap().runs[0].object != object;
    }
    assert!(moved);
    assert!(
        storage
            .list("runs")
            .await
            .unwrap()
            .iter()
            .all(|l| *l.object != *object)
    );
    let manifest = store.base().unwrap();
    let runs = store
        .restorer()
        .table_runs(manifest.table(TableId(2)).unwrap(), KeyGroupRange::ALL)
        .await
        .unwrap();
    assert_eq!(runs, [idle]);
}

#[tokio::test]
async fn a_merge_of_a_dropped_table_is_not_adopted() {
    let storage = Storage::open("memory://").unwrap();
    let store = open(&storage).await.unwrap();
    store.newest().unwrap();
    let mut rng = StdRng::seed_from_u64(2);
    let mut epoch = store.start_epoch();
    let tables = vec![descriptor(1, Merge::Replace), descriptor(2, Merge::Sum)];
    for _ in 0..8 {
        let changes = Changes::random(&mut rng, 20, false);
        checkpoint_of(&store, epoch, tables.clone(), |groups| changes.runs(groups))
            .await
            .unwrap();
        epoch = epoch.next();
    }
    assert!(store.merge_once(&BTreeSet::new()).await.unwrap().is_some());
    for _ in 0..4 {
        let manifest = checkpoint_of(&store, epoch, vec![descriptor(3, Merge::Sum)], |_| vec![])
            .await
            .unwrap();
        assert_eq!(manifest.tables.keys().collect::<Vec<_>>(), [&TableId(3)]);
        epoch = epoch.next();
    }
    store.clean_up().await.unwrap();
    assert!(storage.list("runs").await.unwrap().is_empty());
}

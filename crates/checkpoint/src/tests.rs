//! The store as a whole.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod copies;
mod crash;
mod damage;
mod durability;
mod lagging;
mod merging;
mod s3;

use crate::{
    CheckpointError, CheckpointStore, Commit, Manifest, Storage, StorageError, StoreOptions,
    TableDescriptor, UploadedRuns,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidegate_state::{Form, Merge, Run, RunBuilder};
use tidegate_types::{Epoch, KeyGroupRange, LogPosition, OperatorId, RelationId, TableId};
use tokio::runtime::Handle;

pub(crate) async fn open(storage: &Storage) -> crate::error::Result<Arc<CheckpointStore>> {
    let options = StoreOptions {
        listing_lag: Duration::ZERO,
        ..StoreOptions::default()
    };
    CheckpointStore::open(storage.clone(), options, Handle::current()).await
}

pub(crate) fn descriptor(table: u64, merge: Merge) -> TableDescriptor {
    TableDescriptor {
        table: TableId(table),
        relation: RelationId(1),
        operator: OperatorId(u64::MAX - table),
        name: format!("t{table}"),
        form: Form::Value,
        merge,
        schemas: None,
    }
}

pub(crate) type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) fn run(
    table: u64,
    changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    groups: KeyGroupRange,
) -> Option<Run> {
    let mut builder = RunBuilder::new(TableId(table), false, changes.len());
    for (key, value) in changes {
        if groups.contains(tidegate_types::key_group(tidegate_types::hash_key(key))) {
            builder.push(key, &[], value.as_deref());
        }
    }
    builder.finish()
}

/// Takes one checkpoint of these tables by two workers, with the runs that `sealed` gives for a worker's key groups.
pub(crate) async fn checkpoint_of(
    store: &CheckpointStore,
    epoch: Epoch,
    tables: Vec<TableDescriptor>,
    sealed: impl Fn(KeyGroupRange) -> Vec<Run>,
) -> crate::error::Result<Arc<Manifest>> {
    let pending = store.begin(store.next_checkpoint(), epoch)?;
    let mut uploads: Vec<UploadedRuns> = Vec::new();
    for worker in 0..2 {
        uploads.push(
            store
                .upload(
                    &pending,
                    worker,
                    sealed(KeyGroupRange::of_worker(worker, 2)),
                )
                .await?,
        );
    }
    let commit = Commit {
        time_ms: 1,
        log_position: LogPosition(epoch.0),
        catalog: Arc::new(serde_json::json!({"tables": ["t1"]})),
        tables,
        uploads,
        sink_tokens: BTreeMap::from([(RelationId(3), vec![0, 255])]),
        replaced: BTreeSet::new(),
        rewritten: BTreeSet::new(),
    };
    store.commit(pending, commit).await
}

/// Takes one checkpoint with these changes to table 1.
pub(crate) async fn checkpoint(
    store: &CheckpointStore,
    epoch: Epoch,
    changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>,
) -> crate::error::Result<Arc<Manifest>> {
    let sealed = |groups| run(1, changes, groups).into_iter().collect();
    checkpoint_of(store, epoch, vec![descriptor(1, Merge::Replace)], sealed).await
}

/// The contents of table 1, restored by so many workers.
pub(crate) async fn contents(
    store: &CheckpointStore,
    manifest: &Manifest,
    workers: usize,
) -> crate::error::Result<Contents> {
    let mut all = Contents::new();
    let restorer = store.restorer();
    let Some(entry) = manifest.table(TableId(1)) else {
        return Ok(all);
    };
    for worker in 0..workers {
        let groups = KeyGroupRange::of_worker(worker, workers);
        for run in restorer.table_runs(entry, groups).await? {
            for e in run.iter() {
                assert!(groups.contains(e.group));
                match e.value {
                    Some(value) => all.insert(e.key.to_vec(), value.to_vec()),
                    None => all.remove(e.key),
                };
            }
        }
    }
    Ok(all)
}

pub(crate) fn changes(pairs: &[(&str, Option<&str>)]) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    pairs
        .iter()
        .map(|(k, v)| (k.as_bytes().to_vec(), v.map(|v| v.as_bytes().to_vec())))
        .collect()
}

pub(crate) fn expected(pairs: &[(&str, &str)]) -> Contents {
    pairs
        .iter()
        .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()))
        .collect()
}

#[tokio::test]
async fn a_checkpoint_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let storage = || Storage::open(directory.path().join("deep/er").to_str().unwrap()).unwrap();
    let store = open(&storage()).await.unwrap();
    assert!(store.newest().unwrap().manifest.is_none());
    let first = store.start_epoch();
    checkpoint(
        &store,
        first,
        &changes(&[("a", Some("1")), ("b", Some("2"))]),
    )
    .await
    .unwrap();
    let epoch = first.next();
    let written = checkpoint(&store, epoch, &changes(&[("a", None), ("c", Some("3"))]))
        .await
        .unwrap();
    let refused = open(&storage()).await.unwrap_err();
    assert!(
        refused.to_string().contains("another server is using"),
        "{refused}"
    );
    drop(store);

    let store = open(&storage()).await.unwrap();
    let recovery = store.newest().unwrap();
    assert!(recovery.skipped.is_empty());
    let manifest = recovery.manifest.unwrap();
    assert!(*manifest == *written);
    assert!(store.start_epoch() > epoch);
    assert_eq!(store.next_checkpoint().0, 3);
    for workers in 1..5 {
        let found = contents(&store, &manifest, workers).await.unwrap();
        assert_eq!(found, expected(&[("b", "2"), ("c", "3")]));
    }
}

#[tokio::test]
async fn a_savepoint_outlives_its_checkpoint() {
    let storage = Storage::open("memory://").unwrap();
    let store = open(&storage).await.unwrap();
    store.newest().unwrap();
    let mut epoch = store.start_epoch();
    let first = checkpoint(&store, epoch, &changes(&[("a", Some("1"))]))
        .await
        .unwrap();
    let saved = store.savepoint("Before / upgrade", &first).await.unwrap();
    let duplicate: tidegate_types::SqlError = store
        .savepoint("Before / upgrade", &first)
        .await
        .unwrap_err()
        .into();
    assert_eq!(duplicate.state.code(), "42710");
    for i in 0..30 {
        epoch = epoch.next();
        checkpoint(
            &store,
            epoch,
            &changes(&[("a", Some(&format!("later {i}")))]),
        )
        .await
        .unwrap();
        while store
            .merge_once(&Default::default())
            .await
            .unwrap()
            .is_some()
        {}
        store.clean_up().await.unwrap();
    }
    assert_eq!(
        contents(&store, &saved, 1).await.unwrap(),
        expected(&[("a", "1")])
    );
    let store = open(&storage).await.unwrap();
    store.newest().unwrap();
    store.clean_up().await.unwrap();
    let listed = store.savepoints();
    assert_eq!(
        (listed.len(), listed[0].name.as_str()),
        (1, "Before / upgrade")
    );
    let saved = store.describe_savepoint("Before / upgrade").unwrap();
    assert_eq!(saved.savepoint.as_deref(), Some("Before / upgrade"));
    assert_eq!(
        contents(&store, &saved, 3).await.unwrap(),
        expected(&[("a", "1")])
    );

    // Rolling back: the savepoint's state is what the next checkpoint builds upon, and no epoch is used twice.
    let used = store.reserved_epoch();
    store.rebase(&saved);
    assert!(store.start_epoch() > used);
    store.reserve_epochs(store.start_epoch()).await.unwrap();
    let back = checkpoint(&store, store.start_epoch(), &changes(&[("b", Some("2"))]))
        .await
        .unwrap();
    assert_eq!(
        contents(&store, &back, 2).await.unwrap(),
        expected(&[("a", "1"), ("b", "2")])
    );

    store.release("Before / upgrade").await.unwrap();
    let unknown: tidegate_types::SqlError =
        store.release("Before / upgrade").await.unwrap_err().into();
    assert_eq!(unknown.state.code(), "3B001");
    store.clean_up().await.unwrap();
    assert_eq!(
        contents(&store, &back, 2).await.unwrap(),
        expected(&[("a", "1"), ("b", "2")])
    );
    assert!(storage.list("savepoints").await.unwrap().is_empty());
}

#[tokio::test]
async fn only_as_many_checkpoints_stay_as_asked_for() {
    let storage = Storage::open("memory://").unwrap();
    let store = open(&storage).await.unwrap();
    store.newest().unwrap();
    let mut epoch = store.start_epoch();
    for i in 0..10 {
        checkpoint(&store, epoch, &changes(&[("a", Some(&i.to_string()))]))
            .await
            .unwrap();
        store.clean_up().await.unwrap();
        epoch = epoch.next();
    }
    let retained: Vec<u64> = store.retained().iter().map(|m| m.checkpoint.0).collect();
    assert_eq!(retained, [10, 9, 8]);
    assert_eq!(store.oldest_log_position(), Some(LogPosition(epoch.0 - 3)));
    assert_eq!(storage.list("manifests").await.unwrap().len(), 3);
    store.set_retained(1);
    checkpoint(&store, epoch, &changes(&[])).await.unwrap();
    store.clean_up().await.unwrap();
    assert_eq!(store.retained().len(), 1);
    assert_eq!(store.checkpoints()[0].checkpoint.0, 11);
}

#[tokio::test]
async fn order_is_enforced() {
    let store = open(&Storage::open("memory://").unwrap()).await.unwrap();
    store.newest().unwrap();
    let epoch = store.start_epoch();
    let late = store.begin(store.next_checkpoint(), epoch).unwrap();
    assert!(store.begin(late.checkpoint, epoch).is_err());
    checkpoint(&store, epoch.next(), &changes(&[("a", Some("1"))]))
        .await
        .unwrap();
    let commit = Commit {
        time_ms: 0,
        log_position: LogPosition(0),
        catalog: Arc::new(serde_json::Value::Null),
        tables: vec![],
        uploads: vec![],
        sink_tokens: BTreeMap::new(),
        replaced: BTreeSet::new(),
        rewritten: BTreeSet::new(),
    };
    assert!(
        store
            .commit(late, commit.clone())
            .await
            .unwrap_err()
            .to_string()
            .contains("cannot follow")
    );
    store.abort(late);
    assert!(
        store
            .commit(late, commit)
            .await
            .unwrap_err()
            .to_string()
            .contains("was aborted")
    );
    let above = Epoch(store.reserved_epoch().0 + 1);
    assert!(store.begin(store.next_checkpoint(), above).is_err());
    store.reserve_epochs(above).await.unwrap();
    assert!(store.begin(store.next_checkpoint(), above).is_ok());
}

#[tokio::test]
async fn the_history_survives_a_restart() {
    use crate::{CheckpointRecord, CheckpointStatus};
    let storage = Storage::open("memory://").unwrap();
    let store = open(&storage).await.unwrap();
    let record = |n: u64| CheckpointRecord {
        checkpoint: tidegate_types::CheckpointId(n),
        epoch: Epoch(n),
        status: if n.is_multiple_of(3) {
            CheckpointStatus::Failed
        } else {
            CheckpointStatus::Completed
        },
        savepoint: None,
        cause: n.is_multiple_of(3).then(|| "no space left".to_owned()),
        triggered_ms: 5,
        duration_ms: 1.5,
        sync_ms: 0.1,
        async_ms: 1.4,
        alignment_ms: 0.2,
        bytes_written: 10,
        bytes_total: 100,
        in_flight_bytes: 0,
        mode: String::new(),
        execution: String::new(),
        alignment: String::new(),
        guarantee: String::new(),
        workers: vec![],
        operators: vec![crate::OperatorRecord {
            relation: tidegate_types::RelationId(1),
            operator: tidegate_types::OperatorId(n),
            worker: 0,
            rows: n,
            bytes: 10 * n,
            in_flight_bytes: 0,
            sync_ms: 0.1,
        }],
    };
    for n in 1..=2_000 {
        store.record(record(n));
        if n.is_multiple_of(10) {
            store.flush_history().await.unwrap();
        }
    }
    assert_eq!(store.checkpoints().len(), 1_024);
    assert!(storage.list("history").await.unwrap().len() <= 33);
    let store = open(&storage).await.unwrap();
    let found = store.checkpoints();
    assert_eq!(found[0], record(2_000));
    let detailed = found.iter().filter(|r| !r.operators.is_empty()).count();
    assert_eq!(detailed, 64);
    assert!(found.len() > 900 && found.windows(2).all(|w| w[0].checkpoint > w[1].checkpoint));
    assert_eq!(store.next_checkpoint().0, 2_001);
}

/// A server that opens the storage and takes five checkpoints, unless another one takes over.
async fn five_checkpoints(storage: &Storage) -> Result<(u64, u64), CheckpointError> {
    let store = open(storage).await?;
    store.newest()?;
    let mut done = 0;
    for i in 0..5 {
        let value = format!("{}-{i}", store.generation());
        let epoch = Epoch(store.start_epoch().0 + i);
        let change = changes(&[("owner", Some(&value))]);
        match checkpoint(&store, epoch, &change).await {
            Ok(_) => done = i + 1,
            Err(CheckpointError::TakenOver { .. }) => break,
            Err(e) => return Err(e),
        }
        store.clean_up().await.or_else(|e| {
            if e.is_fatal() {
                Ok(Default::default())
            } else {
                Err(e)
            }
        })?;
        tokio::task::yield_now().await;
    }
    Ok((store.generation(), done))
}

/// Of many servers that open the same storage at once and go on, one can commit in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_openers_one_survives() {
    for round in 0..20 {
        let storage = Storage::open("memory://").unwrap();
        let openers = (0..4).map(|_| {
            let storage = storage.clone();
            tokio::spawn(async move {
                loop {
                    match five_checkpoints(&storage).await {
                        // What others have made and removed in between: as after a crash it begins again.
                        Err(
                            CheckpointError::Uncertain { .. }
                            | CheckpointError::Storage(StorageError::Unavailable { .. }),
                        ) => tokio::task::yield_now().await,
                        ended => return ended,
                    }
                }
            })
        });
        let mut finished = Vec::new();
        for opener in openers.collect::<Vec<_>>() {
            match opener.await.unwrap() {
                Ok(outcome) => finished.push(outcome),
                Err(CheckpointError::TakenOver { .. }) => {}
                Err(e) => panic!("round {round}: {e}"),
            }
        }
        let (newest, done) = *finished
            .iter()
            .max()
            .expect("the last one to claim survives");
        assert_eq!(done, 5, "round {round}: {finished:?}");
        let store = open(&storage).await.unwrap();
        let manifest = store.newest().unwrap().manifest.unwrap();
        let found = contents(&store, &manifest, 1).await.unwrap();
        assert_eq!(found, expected(&[("owner", &format!("{newest}-4"))]));
    }
}

/// All that the store does can be spawned.
#[test]
fn futures_can_be_sent() {
    fn sent<T: Send>(_: T) {}
    fn check(
        store: &'static std::sync::Arc<CheckpointStore>,
        manifest: &'static Arc<Manifest>,
        commit: Commit,
    ) {
        let pending = store.begin(store.next_checkpoint(), Epoch(1)).unwrap();
        sent(store.upload(&pending, 0, vec![]));
        sent(store.commit(pending, commit));
        sent(store.clean_up());
        sent(store.clean_up_generations());
        sent(store.merge_once(const { &std::collections::BTreeSet::new() }));
        sent(store.savepoint("", manifest));
        sent(store.release(""));
        sent(store.verify(manifest));
        sent(store.flush_history());
        sent(store.reserve_epochs(Epoch(1)));
        let restorer: &'static Arc<crate::Restorer> = Box::leak(Box::new(store.restorer()));
        sent(restorer.table_runs(manifest.table(TableId(1)).unwrap(), KeyGroupRange::ALL));
        sent(CheckpointStore::open(
            store.storage().clone(),
            StoreOptions::default(),
            Handle::current(),
        ));
    }
    let _ = check;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_background_task_removes_and_merges() {
    let storage = Storage::open("memory://").unwrap();
    let store = open(&storage).await.unwrap();
    store.newest().unwrap();
    let maintenance = store.start_maintenance();
    let mut epoch = store.start_epoch();
    for i in 0..40 {
        let change = changes(&[("a", Some(&i.to_string()))]);
        checkpoint(&store, epoch, &change).await.unwrap();
        epoch = epoch.next();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    maintenance.stop().await;
    store.clean_up().await.unwrap();
    assert!(storage.list("runs").await.unwrap().len() < 30);
    assert_eq!(
        Arc::strong_count(&store),
        1,
        "nothing holds the store any more"
    );
    let manifest = store.base().unwrap();
    assert_eq!(
        contents(&store, &manifest, 1).await.unwrap(),
        expected(&[("a", "39")])
    );
}

/// A worker fails while a commit is under way: what it wrote does not come back as the base of the next one.
#[tokio::test]
async fn a_commit_that_recovery_overtakes_is_not_built_upon() {
    use crate::faults::{Effect, Faults, OperationKind, Rule};
    let faults = Faults::new();
    let storage = Storage::open("memory://")
        .unwrap()
        .wrapped(|s| faults.wrap(s));
    let store = open(&storage).await.unwrap();
    store.newest().unwrap();
    let epoch = store.start_epoch();
    checkpoint(&store, epoch, &changes(&[("a", Some("1"))]))
        .await
        .unwrap();
    let effect = Effect::Delay(std::time::Duration::from_millis(50));
    faults.add(Rule {
        kind: OperationKind::Put,
        object: "manifests".into(),
        times: 1,
        effect,
    });
    let slow = changes(&[("a", Some("2"))]);
    let (late, recovered) = tokio::join!(checkpoint(&store, epoch.next(), &slow), async {
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        store.newest().unwrap().manifest.unwrap()
    });
    assert!(late.unwrap_err().to_string().contains("was aborted"));
    let next = checkpoint(&store, epoch.next().next(), &changes(&[("b", Some("1"))]))
        .await
        .unwrap();
    assert_eq!(
        contents(&store, &recovered, 1).await.unwrap(),
        expected(&[("a", "1")])
    );
    assert_eq!(
        contents(&store, &next, 1).await.unwrap(),
        expected(&[("a", "1"), ("b", "1")])
    );
    store.clean_up().await.unwrap();
    let store = open(&storage).await.unwrap();
    assert_eq!(
        store.newest().unwrap().manifest.unwrap().checkpoint,
        next.checkpoint
    );
    assert_eq!(store.retained().len(), 2);
}

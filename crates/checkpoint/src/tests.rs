//! The store as a whole.
#![allow(clippy::unwrap_used)]

use crate::{CheckpointStore, Commit, Manifest, Storage, StoreOptions, TableDescriptor, UploadedRuns};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_state::{Form, Merge, Run, RunBuilder};
use tidegate_types::{Epoch, KeyGroupRange, LogPosition, OperatorId, RelationId, TableId};
use tokio::runtime::Handle;

pub(crate) async fn open(storage: &Storage) -> crate::error::Result<Arc<CheckpointStore>> {
    CheckpointStore::open(storage.clone(), StoreOptions::default(), Handle::current()).await
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

pub(crate) fn run(table: u64, changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>, groups: KeyGroupRange) -> Option<Run> {
    let mut builder = RunBuilder::new(TableId(table), false, changes.len());
    for (key, value) in changes {
        if groups.contains(tidegate_types::key_group(tidegate_types::hash_key(key))) {
            builder.push(key, &[], value.as_deref());
        }
    }
    builder.finish()
}

/// Takes one checkpoint with these changes to table 1, by two workers.
pub(crate) async fn checkpoint(
    store: &CheckpointStore,
    epoch: Epoch,
    changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>,
) -> crate::error::Result<Arc<Manifest>> {
    let pending = store.begin(store.next_checkpoint(), epoch)?;
    let mut uploads: Vec<UploadedRuns> = Vec::new();
    for worker in 0..2 {
        let runs = run(1, changes, KeyGroupRange::of_worker(worker, 2)).into_iter().collect();
        uploads.push(store.upload(&pending, worker, runs).await?);
    }
    let commit = Commit {
        time_ms: 1,
        log_position: LogPosition(epoch.0),
        catalog: Arc::new(serde_json::json!({"tables": ["t1"]})),
        tables: vec![descriptor(1, Merge::Replace)],
        uploads,
        sink_tokens: BTreeMap::from([(RelationId(3), vec![0, 255])]),
    };
    store.commit(pending, commit).await
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
    pairs.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.map(|v| v.as_bytes().to_vec()))).collect()
}

pub(crate) fn expected(pairs: &[(&str, &str)]) -> Contents {
    pairs.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect()
}

#[tokio::test]
async fn a_checkpoint_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let storage = || Storage::open(directory.path().join("deep/er").to_str().unwrap()).unwrap();
    let store = open(&storage()).await.unwrap();
    assert!(store.newest().unwrap().manifest.is_none());
    let first = store.start_epoch();
    checkpoint(&store, first, &changes(&[("a", Some("1")), ("b", Some("2"))])).await.unwrap();
    let epoch = first.next();
    let written = checkpoint(&store, epoch, &changes(&[("a", None), ("c", Some("3"))])).await.unwrap();
    let refused = open(&storage()).await.unwrap_err();
    assert!(refused.to_string().contains("another server is using"), "{refused}");
    drop(store);

    let store = open(&storage()).await.unwrap();
    let recovery = store.newest().unwrap();
    assert!(recovery.skipped.is_empty());
    let manifest = recovery.manifest.unwrap();
    assert_eq!(*manifest, *written);
    assert!(store.start_epoch() > epoch);
    assert_eq!(store.next_checkpoint().0, 3);
    for workers in 1..5 {
        let found = contents(&store, &manifest, workers).await.unwrap();
        assert_eq!(found, expected(&[("b", "2"), ("c", "3")]));
    }
}

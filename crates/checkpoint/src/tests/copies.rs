//! Savepoints in other places, and storage as tools see it.

use super::{changes, checkpoint, contents, open};
use crate::copy::{copy_savepoint, remove_copy};
use crate::offline::{InUse, Offline};
use crate::{CheckpointError, CheckpointStore, Manifest, Storage};
use std::sync::Arc;
use tidegate_types::{CheckpointId, Epoch, LogPosition};

/// Three checkpoints, of which the newest holds a = 3 and b = 1.
async fn three(store: &CheckpointStore) -> Arc<Manifest> {
    store.newest().unwrap();
    let first = store.start_epoch();
    let steps = [
        changes(&[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]),
        changes(&[("a", Some("2"))]),
        changes(&[("a", Some("3")), ("c", None)]),
    ];
    let mut newest = None;
    for (index, step) in steps.iter().enumerate() {
        let epoch = Epoch(first.0 + index as u64);
        newest = Some(checkpoint(store, epoch, step).await.unwrap());
    }
    newest.unwrap()
}

#[tokio::test]
async fn a_copied_savepoint_lives_alone_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("copy");
    let newest_contents;
    {
        let store = open(&Storage::open("memory://").unwrap()).await.unwrap();
        let newest = three(&store).await;
        newest_contents = contents(&store, &newest, 3).await.unwrap();
        let to = Storage::attach_or_create(place.to_str().unwrap()).unwrap();
        let mut told = Vec::new();
        copy_savepoint(&store.restorer(), &newest, &to, "away", &mut |p| {
            told.push(p)
        })
        .await
        .unwrap();
        assert_eq!(told.last().unwrap().bytes, newest.bytes());
        let again = copy_savepoint(&store.restorer(), &newest, &to, "away", &mut |_| {}).await;
        assert!(matches!(again, Err(CheckpointError::SavepointExists(_))));
        copy_savepoint(&store.restorer(), &newest, &to, "another", &mut |_| {})
            .await
            .unwrap();
    }
    // What it was made from is gone.
    let offline = Offline::open(Storage::attach(place.to_str().unwrap()).unwrap())
        .await
        .unwrap();
    assert!(!offline.is_owned() && offline.in_use().unwrap() == InUse::No);
    assert!(
        offline
            .savepoint(None)
            .unwrap_err()
            .to_string()
            .contains("another, away")
    );
    let away = offline.savepoint(Some("away")).unwrap();
    offline.verify(&away).await.unwrap();

    let storage = Storage::open("memory://").unwrap();
    let store = open(&storage).await.unwrap();
    assert!(store.newest().unwrap().manifest.is_none());
    let imported = store
        .import(&offline.restorer(&away).unwrap(), &away, &mut |_| {})
        .await
        .unwrap();
    store.clean_up().await.unwrap();
    let adopted = store.adopt(&imported, LogPosition(77)).await.unwrap();
    assert_eq!(adopted.checkpoint, away.checkpoint);
    assert!(store.start_epoch() > away.epoch);
    assert_eq!(
        contents(&store, &adopted, 2).await.unwrap(),
        newest_contents
    );
    drop(store);
    let store = open(&storage).await.unwrap();
    let newest = store.newest().unwrap().manifest.unwrap();
    assert_eq!(*newest, *adopted);
    assert_eq!(newest.log_position, LogPosition(77));
    assert!(store.start_epoch() > away.epoch);
    store.clean_up().await.unwrap();
    // It goes on from there.
    let next = checkpoint(&store, store.start_epoch(), &changes(&[("d", Some("9"))])).await;
    let mut expected = newest_contents.clone();
    expected.insert(b"d".to_vec(), b"9".to_vec());
    assert_eq!(contents(&store, &next.unwrap(), 4).await.unwrap(), expected);

    offline.delete_savepoint("away").await.unwrap();
    let left = Offline::open(Storage::attach(place.to_str().unwrap()).unwrap())
        .await
        .unwrap();
    assert_eq!(left.savepoints().len(), 1);
    let another = left.savepoint(None).unwrap();
    left.verify(&another).await.unwrap();
    remove_copy(left.storage(), "another", Some(&another))
        .await
        .unwrap();
    assert!(left.storage().list("runs").await.unwrap().is_empty());
}

#[tokio::test]
async fn damage_is_not_copied() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&Storage::open(directory.path().to_str().unwrap()).unwrap())
        .await
        .unwrap();
    let newest = three(&store).await;
    let object = newest.objects().into_iter().next_back().unwrap();
    let path = directory.path().join(&*object);
    let mut bytes = std::fs::read(&path).unwrap();
    let block = newest
        .tables
        .values()
        .next()
        .unwrap()
        .runs
        .last()
        .unwrap()
        .blocks[0];
    bytes[block.offset as usize + 40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let to = Storage::open("memory://").unwrap();
    let copied = copy_savepoint(&store.restorer(), &newest, &to, "x", &mut |_| {}).await;
    assert!(
        matches!(copied, Err(CheckpointError::Damaged(_))),
        "{copied:?}"
    );
    assert!(
        to.list("").await.unwrap().is_empty(),
        "nothing is left behind"
    );
}

#[tokio::test]
async fn tools_read_beside_a_server_and_delete_only_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path().to_str().unwrap().to_owned();
    let attach = || Offline::open(Storage::attach(&location).unwrap());
    assert!(Storage::attach("/no/such/place").is_err());
    let newest;
    {
        let store = open(&Storage::open(&location).unwrap()).await.unwrap();
        newest = three(&store).await;
        store.savepoint("kept", &newest).await.unwrap();
        let offline = attach().await.unwrap();
        assert_eq!(offline.in_use().unwrap(), InUse::Yes);
        assert_eq!(offline.checkpoints().len(), 3);
        offline.verify(&newest).await.unwrap();
        let refused = offline.delete_savepoint("kept").await;
        assert!(matches!(refused, Err(CheckpointError::InUse { .. })));
        let refused = attach()
            .await
            .unwrap()
            .delete_checkpoint(newest.checkpoint)
            .await;
        assert!(matches!(refused, Err(CheckpointError::InUse { .. })));
        // What the tool has read expires; that is not damage.
        let oldest = attach().await.unwrap();
        let first = oldest.checkpoints().pop().unwrap();
        for i in 1..4 {
            let epoch = Epoch(newest.epoch.0 + i);
            checkpoint(
                &store,
                epoch,
                &changes(&[("a", Some("x")), ("b", Some("x"))]),
            )
            .await
            .unwrap();
            store.merge_once(&Default::default()).await.unwrap();
        }
        store.release("kept").await.unwrap();
        store.clean_up().await.unwrap();
        if let Err(error) = oldest.verify(&first).await {
            assert!(error.to_string().contains("has expired"), "{error}");
        }
        store
            .savepoint("kept", &store.base().unwrap())
            .await
            .unwrap();
    }
    let offline = attach().await.unwrap();
    assert_eq!(offline.in_use().unwrap(), InUse::No);
    let ids: Vec<CheckpointId> = offline.checkpoints().iter().map(|m| m.checkpoint).collect();
    offline.delete_checkpoint(ids[0]).await.unwrap();
    let offline = attach().await.unwrap();
    let left: Vec<CheckpointId> = offline.checkpoints().iter().map(|m| m.checkpoint).collect();
    assert_eq!(left, ids[1..]);
    // The savepoint keeps the runs that it shares.
    offline
        .verify(&offline.savepoint(None).unwrap())
        .await
        .unwrap();
    let unknown = attach()
        .await
        .unwrap()
        .delete_checkpoint(CheckpointId(999))
        .await;
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .contains("no checkpoint 999")
    );
    offline.delete_savepoint("kept").await.unwrap();
    let store = open(&Storage::open(&location).unwrap()).await.unwrap();
    assert_eq!(store.newest().unwrap().manifest.unwrap().checkpoint, ids[1]);
}

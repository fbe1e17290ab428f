//! The same over S3's protocol, against `moto_server` where it is installed (`pip install 'moto[server]'`).

use super::{changes, checkpoint, contents, expected, open};
use crate::{CheckpointError, Storage};
use moto::{MISSING, Moto};

#[path = "../../../../tests/servers/moto.rs"]
mod moto;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_in_a_bucket() {
    let Some(moto) = tokio::task::spawn_blocking(Moto::start).await.unwrap() else {
        return eprintln!("SKIPPED checkpoints_in_a_bucket: {MISSING}");
    };
    moto.create_bucket("tides");
    let url = moto.url("tides/some/prefix");
    let storage = Storage::open(&url).unwrap();
    assert_eq!(storage.location(), "s3://tides/some/prefix");
    let first = open(&storage).await.unwrap();
    first.newest().unwrap();
    let mut epoch = first.start_epoch();
    for i in 0..12 {
        let value = i.to_string();
        checkpoint(
            &first,
            epoch,
            &changes(&[("a", Some(&value)), ("b", Some(&value))]),
        )
        .await
        .unwrap();
        first.merge_once(&Default::default()).await.unwrap();
        first.clean_up().await.unwrap();
        epoch = epoch.next();
    }
    first
        .savepoint("kept", &first.base().unwrap())
        .await
        .unwrap();
    assert!(matches!(
        storage.create("savepoints/kept.json", "other".into()).await,
        Err(crate::StorageError::Conflict { .. })
    ));

    let second = open(&storage).await.unwrap();
    let manifest = second.newest().unwrap().manifest.unwrap();
    assert_eq!(
        contents(&second, &manifest, 3).await.unwrap(),
        expected(&[("a", "11"), ("b", "11")])
    );
    assert_eq!(second.savepoints().len(), 1);
    let late = checkpoint(&first, epoch, &changes(&[("a", Some("late"))]))
        .await
        .unwrap_err();
    assert!(matches!(late, CheckpointError::TakenOver { .. }), "{late}");
    checkpoint(&second, second.start_epoch(), &changes(&[("a", None)]))
        .await
        .unwrap();
    second.clean_up().await.unwrap();

    let mut writer = storage.writer("runs/0000000001/large.run");
    for _ in 0..5 {
        writer.write(vec![7; 8 << 20].into()).await.unwrap();
    }
    writer.finish().await.unwrap();
    assert_eq!(
        storage
            .get_range("runs/0000000001/large.run", 40 << 20, 0)
            .await
            .map(|b| b.len())
            .unwrap_or(0),
        0
    );
    assert_eq!(
        storage
            .get("runs/0000000001/large.run")
            .await
            .unwrap()
            .len(),
        40 << 20
    );
    storage
        .delete(&[
            "runs/0000000001/large.run".to_owned(),
            "runs/none".to_owned(),
        ])
        .await
        .unwrap();
}

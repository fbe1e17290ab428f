//! Local files: what is acknowledged was synced, files before names, names before answers.

use super::{changes, checkpoint, open};
use crate::Storage;
use crate::local::{SyncEvent, SyncProbe};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<SyncEvent>>);

impl SyncProbe for Recorder {
    fn event(&self, event: SyncEvent) {
        self.0.lock().push(event);
    }
}

/// Follows the steps: what is written but not synced, named but not synced into its directory.
#[derive(Default)]
struct Replay {
    synced_files: BTreeSet<PathBuf>,
    unsynced_names: BTreeSet<PathBuf>,
    placed: Vec<PathBuf>,
}

impl Replay {
    fn apply(&mut self, event: &SyncEvent) {
        match event {
            SyncEvent::Written(_) => {}
            SyncEvent::FileSynced(file) => {
                self.synced_files.insert(file.clone());
            }
            SyncEvent::Placed(file) => {
                let name = file.to_string_lossy().into_owned();
                let synced = self
                    .synced_files
                    .iter()
                    .any(|s| s.to_string_lossy().starts_with(&format!("{name}#")));
                assert!(synced, "{name} got its name before its bytes were synced");
                if in_folder(file, "manifests") {
                    let runs: Vec<_> = self
                        .unsynced_names
                        .iter()
                        .filter(|f| in_folder(f, "runs"))
                        .collect();
                    assert!(runs.is_empty(), "{name} exists before {runs:?} are durable");
                }
                self.unsynced_names.insert(file.clone());
                self.placed.push(file.clone());
            }
            SyncEvent::Removed(file) => {
                self.unsynced_names.insert(file.clone());
            }
            SyncEvent::DirectorySynced(directory) => {
                self.unsynced_names
                    .retain(|f| f.parent() != Some(directory));
            }
        }
    }
}

fn in_folder(file: &Path, folder: &str) -> bool {
    file.components().any(|c| c.as_os_str() == folder)
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    let location = directory.path().join("data/checkpoints");
    let storage = Storage::open_probed(location.to_str().unwrap(), Some(recorder.clone())).unwrap();
    let made = recorder.0.lock().clone();
    assert_eq!(
        made.len(),
        2,
        "each new directory is synced into its parent: {made:?}"
    );
    let mut replay = Replay::default();
    let mut seen = 0;
    let mut acknowledged = |what: &str, count: usize, folder: &str| {
        let events = recorder.0.lock();
        let before = replay
            .placed
            .iter()
            .filter(|f| in_folder(f, folder))
            .count();
        events[seen..].iter().for_each(|e| replay.apply(e));
        seen = events.len();
        let after = replay
            .placed
            .iter()
            .filter(|f| in_folder(f, folder))
            .count();
        assert_eq!(after - before, count, "{what}");
        assert!(
            replay.unsynced_names.is_empty(),
            "{what} was acknowledged before {:?}",
            replay.unsynced_names
        );
    };
    let store = open(&storage).await.unwrap();
    acknowledged("opening", 1, "generations");
    store.newest().unwrap();
    let mut epoch = store.start_epoch();
    for i in 0..6 {
        let pairs: Vec<(String, String)> = (0..50)
            .map(|k| (format!("key {k}"), format!("{i}")))
            .collect();
        let pairs: Vec<(&str, Option<&str>)> =
            pairs.iter().map(|(k, v)| (&**k, Some(&**v))).collect();
        checkpoint(&store, epoch, &changes(&pairs)).await.unwrap();
        acknowledged("a checkpoint", 2, "runs");
        store.clean_up().await.unwrap();
        acknowledged("removal", 0, "manifests");
        epoch = epoch.next();
    }
    store.savepoint("s", &store.base().unwrap()).await.unwrap();
    acknowledged("a savepoint", 1, "savepoints");
    store.release("s").await.unwrap();
    acknowledged("a release", 0, "savepoints");
    let mut writer = storage.writer("runs/0000000001/large.run");
    for _ in 0..10 {
        writer.write(vec![7; 5 << 20].into()).await.unwrap();
    }
    writer.finish().await.unwrap();
    acknowledged("a large object", 1, "runs");
    assert_eq!(
        storage
            .get("runs/0000000001/large.run")
            .await
            .unwrap()
            .len(),
        50 << 20
    );
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let location = directory.path().to_str().unwrap();
    std::fs::create_dir_all(directory.path().join("runs/0000000001")).unwrap();
    let staged = directory
        .path()
        .join("runs/0000000001/0000000001-c1-w0.run#1");
    std::fs::write(&staged, b"half").unwrap();
    let storage = Storage::open(location).unwrap();
    assert!(!staged.exists());
    assert!(storage.list("runs").await.unwrap().is_empty());
    let writer = storage.writer("runs/unfinished");
    drop(writer);
    assert!(storage.list("runs").await.unwrap().is_empty());
}

#[tokio::test]
async fn create_has_one_winner() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(directory.path().to_str().unwrap()).unwrap();
    let attempts = (0..16).map(|i| {
        let storage = storage.clone();
        tokio::spawn(async move {
            storage
                .create("manifests/1.json", format!("{i}").into())
                .await
                .is_ok()
        })
    });
    let mut winners = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        winners += usize::from(attempt.await.unwrap());
    }
    assert_eq!(winners, 1);
}

/// A small file system of its own; `None` where this process may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(directory.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test]
async fn a_full_disk_fails_checkpoints_and_loses_none() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!(
            "SKIPPED a_full_disk_fails_checkpoints_and_loses_none: mounting a tmpfs takes root"
        );
        return;
    };
    let location = disk.0.path().join("data");
    let storage = Storage::open(location.to_str().unwrap()).unwrap();
    let store = open(&storage).await.unwrap();
    store.newest().unwrap();
    let mut epoch = store.start_epoch();
    checkpoint(&store, epoch, &changes(&[("a", Some("1"))]))
        .await
        .unwrap();
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![0; 400 << 10]).unwrap();
    let mut last = 1;
    let error = loop {
        epoch = epoch.next();
        let value = format!("{}", last + 1);
        match checkpoint(&store, epoch, &changes(&[("a", Some(&value))])).await {
            Ok(_) => last += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(tidegate_types::SqlError::from(error).state.code(), "53100");
    store.clean_up().await.unwrap();
    let newest = store.base().unwrap();
    store.verify(&newest).await.unwrap();
    std::fs::remove_file(&filler).unwrap();
    epoch = epoch.next();
    checkpoint(&store, epoch, &changes(&[("b", Some("1"))]))
        .await
        .unwrap();
    drop(store);
    let store = open(&storage).await.unwrap();
    let manifest = store.newest().unwrap().manifest.unwrap();
    let found = super::contents(&store, &manifest, 1).await.unwrap();
    assert_eq!(
        found,
        super::expected(&[("a", &last.to_string()), ("b", "1")])
    );
}

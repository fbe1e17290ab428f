#![allow(clippy::unwrap_used)]

use super::*;
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use std::path::PathBuf;

#[derive(Default)]
struct Seen {
    events: Mutex<Vec<String>>,
}

impl LogObserver for Seen {
    fn durable(&self, position: LogPosition, _: LogEntry) {
        self.events.lock().push(format!("durable {}", position.0));
    }
}

impl SyncProbe for Seen {
    fn file_synced(&self, _: &Path) {
        self.events.lock().push("file synced".into());
    }

    fn directory_synced(&self, _: &Path) {
        self.events.lock().push("directory synced".into());
    }
}

fn entry(value: i64) -> LogEntry {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![value, value + 1]));
    let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let batch = Batch::new(rows, Int64Array::from(vec![1, -1]));
    LogEntry::Transaction {
        changes: vec![(RelationId(7), batch)],
    }
}

fn values(directory: &Path, after: u64) -> Vec<(u64, i64)> {
    let mut seen = Vec::new();
    let log = ClosedLog::open(directory, None).unwrap();
    log.read(LogPosition(after), &mut |position, entry| {
        let LogEntry::Transaction { changes } = entry else {
            panic!("only transactions were written")
        };
        let numbers = changes[0]
            .1
            .column(0)
            .as_any()
            .downcast_ref::<Int64Array>()
            .unwrap()
            .clone();
        assert_eq!(changes[0].1.diff_values(), vec![1, -1]);
        seen.push((position.0, numbers.value(0)));
        Ok(())
    })
    .unwrap();
    seen
}

async fn write(directory: &Path, numbers: std::ops::Range<i64>) {
    let log = ClosedLog::open(directory, None)
        .unwrap()
        .start(Arc::new(Seen::default()))
        .unwrap();
    for n in numbers {
        let (_, durable) = log.append(entry(n)).unwrap();
        durable.await.unwrap().unwrap();
    }
}

fn only_segment(directory: &Path) -> PathBuf {
    std::fs::read_dir(directory)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
}

#[tokio::test]
async fn what_was_acknowledged_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 0..3).await;
    write(directory.path(), 3..5).await;
    assert_eq!(
        values(directory.path(), 0),
        vec![(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    );
    assert_eq!(values(directory.path(), 3), vec![(4, 3), (5, 4)]);
}

#[tokio::test]
async fn files_and_directory_are_synced_before_anybody_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let seen = Arc::new(Seen::default());
    let log = ClosedLog::open(directory.path(), Some(seen.clone()))
        .unwrap()
        .start(seen.clone())
        .unwrap();
    let (_, durable) = log.append(entry(1)).unwrap();
    durable.await.unwrap().unwrap();
    assert_eq!(
        *seen.events.lock(),
        [
            "file synced",
            "directory synced",
            "file synced",
            "durable 1"
        ]
    );
}

#[tokio::test]
async fn a_torn_last_entry_is_cut_off_at_any_length() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 0..2).await;
    let path = only_segment(directory.path());
    let whole = std::fs::read(&path).unwrap();
    write(directory.path(), 2..3).await;
    let longer = std::fs::read(&path).unwrap();
    for length in whole.len()..longer.len() {
        std::fs::write(&path, &longer[..length]).unwrap();
        assert_eq!(
            values(directory.path(), 0),
            vec![(1, 0), (2, 1)],
            "cut at {length}"
        );
    }
    write(directory.path(), 9..10).await;
    assert_eq!(values(directory.path(), 2), vec![(3, 9)]);
}

#[tokio::test]
async fn damage_before_the_end_is_named_and_never_skipped() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 0..3).await;
    let path = only_segment(directory.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = ClosedLog::open(directory.path(), None).err().unwrap();
    assert_eq!(error.state, SqlState::DATA_CORRUPTED);
    assert!(
        error.message.contains("damaged at byte 16"),
        "{}",
        error.message
    );
}

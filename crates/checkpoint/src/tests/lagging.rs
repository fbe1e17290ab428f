//! Storage whose listings do not know of what was written last.

use super::{changes, checkpoint};
use crate::faults::Faults;
use crate::{CheckpointStore, Storage, StoreOptions};
use std::time::Duration;
use tidegate_types::Epoch;
use tokio::runtime::Handle;

/// A server that dies and is started again at once, again and again, while a listing shows hardly anything of it.
#[tokio::test]
async fn what_a_listing_hides_is_neither_lost_nor_written_again() {
    let raw = Storage::open("memory://").unwrap();
    let faults = Faults::new();
    faults.list_lag(Duration::from_millis(300));
    let storage = raw.wrapped(|store| faults.wrap(store));
    let mut newest = None;
    let mut last = Epoch(0);
    for start in 0..4 {
        let options = StoreOptions {
            retained: 2,
            ..StoreOptions::default()
        };
        let store = CheckpointStore::open(storage.clone(), options, Handle::current())
            .await
            .unwrap();
        assert!(
            store.start_epoch() > last,
            "epochs are used twice at start {start}"
        );
        let found = store.newest().unwrap().manifest.map(|m| m.checkpoint);
        assert_eq!(found, newest, "start {start}");
        for i in 0..5 {
            last = Epoch(store.start_epoch().0 + i);
            let value = format!("{start}.{i}");
            let change = changes(&[("key", Some(&value))]);
            newest = Some(checkpoint(&store, last, &change).await.unwrap().checkpoint);
            store.clean_up().await.unwrap();
        }
    }
}

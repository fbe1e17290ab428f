//! A crash at every step of everything the store does.

use super::{Contents, changes, checkpoint, contents};
use crate::faults::{Crash, Faults};
use crate::{CheckpointError, CheckpointStore, RetryPolicy, Storage, StoreOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidegate_types::Epoch;
use tokio::runtime::Handle;

/// What was acknowledged, and what was under way.
#[derive(Debug, Default, Clone)]
struct Trace {
    durable: Contents,
    checkpoints: usize,
    attempted: Option<Contents>,
    savepoints: BTreeMap<String, Contents>,
    attempted_savepoint: Option<String>,
    last_epoch: Epoch,
}

async fn open_quickly(storage: &Storage) -> crate::error::Result<Arc<CheckpointStore>> {
    let options = StoreOptions {
        retained: 2,
        resolve_within: Duration::ZERO,
        listing_lag: Duration::ZERO,
        ..StoreOptions::default()
    };
    CheckpointStore::open(storage.clone(), options, Handle::current()).await
}

async fn one_checkpoint(
    store: &CheckpointStore,
    i: u64,
    trace: &mut Trace,
) -> crate::error::Result<()> {
    let key = format!("key {}", i % 5);
    let value = (i % 4 != 3).then(|| format!("value {i}"));
    let mut next = trace.durable.clone();
    match &value {
        Some(value) => next.insert(key.clone().into_bytes(), value.clone().into_bytes()),
        None => next.remove(key.as_bytes()),
    };
    trace.last_epoch = trace.last_epoch.max(store.start_epoch()).next();
    trace.attempted = Some(next);
    let done = checkpoint(
        store,
        trace.last_epoch,
        &changes(&[(&key, value.as_deref())]),
    )
    .await;
    done?;
    trace.durable = trace.attempted.take().unwrap();
    trace.checkpoints += 1;
    Ok(())
}

/// Checkpoints, savepoints, merges, removals and a restart.
async fn scenario(storage: &Storage, trace: &mut Trace) -> crate::error::Result<()> {
    let mut i = 0;
    for checkpoints in [11, 5] {
        let store = open_quickly(storage).await?;
        store.newest()?;
        store.clean_up().await?;
        for _ in 0..checkpoints {
            i += 1;
            one_checkpoint(&store, i, trace).await?;
            store.clean_up().await?;
            while store.merge_once(&BTreeSet::new()).await?.is_some() {}
            if i == 3 || i == 12 {
                let name = format!("at {i}");
                trace.attempted_savepoint = Some(name.clone());
                store.savepoint(&name, &store.base().unwrap()).await?;
                trace.attempted_savepoint = None;
                trace.savepoints.insert(name, trace.durable.clone());
            }
            if i == 13 {
                trace.attempted_savepoint = Some("at 3".to_owned());
                let saved = trace.savepoints.remove("at 3").unwrap();
                if let Err(e) = store.release("at 3").await {
                    // Not acknowledged: it may be there or not.
                    drop(saved);
                    return Err(e);
                }
                trace.attempted_savepoint = None;
            }
        }
        store
            .reserve_epochs(Epoch(store.reserved_epoch().0 + 1))
            .await?;
        trace.last_epoch = store.reserved_epoch();
        store.flush_history().await?;
    }
    Ok(())
}

fn storages() -> (Storage, Storage, Faults) {
    let raw = Storage::open("memory://").unwrap().with_retry(RetryPolicy {
        attempts: 1,
        first_delay: Duration::ZERO,
    });
    let faults = Faults::new();
    (raw.clone(), raw.wrapped(|store| faults.wrap(store)), faults)
}

/// Whatever the crash left: old or new, never damaged, nothing needed is gone, nothing else stays.
async fn check(raw: &Storage, trace: &mut Trace, crash: Crash, place: &str) {
    let store = open_quickly(raw)
        .await
        .unwrap_or_else(|e| panic!("{place}: {e}"));
    assert!(
        store.start_epoch() > trace.last_epoch || trace.checkpoints == 0,
        "{place}: epochs are used twice"
    );
    let recovery = match store.newest() {
        Ok(recovery) => recovery,
        // The only manifest there was is torn.
        Err(CheckpointError::Damaged(_)) if crash == Crash::Torn && trace.checkpoints == 0 => {
            return;
        }
        Err(e) => panic!("{place}: {e}"),
    };
    assert!(
        recovery.skipped.is_empty() || crash == Crash::Torn,
        "{place}: {:?}",
        recovery.skipped
    );
    match &recovery.manifest {
        Some(manifest) => {
            store
                .verify(manifest)
                .await
                .unwrap_or_else(|e| panic!("{place}: {e}"));
            let found = contents(&store, manifest, 3).await.unwrap();
            let new = trace.attempted.as_ref().is_some_and(|new| *new == found);
            assert!(
                found == trace.durable || new,
                "{place}: {found:?} is neither old nor new: {trace:?}"
            );
            trace.durable = found;
        }
        None => assert_eq!(trace.checkpoints, 0, "{place}: the checkpoints are gone"),
    }
    for info in store.savepoints() {
        if trace.attempted_savepoint.as_ref() == Some(&info.name) {
            continue;
        }
        let saved = store
            .describe_savepoint(&info.name)
            .unwrap_or_else(|e| panic!("{place}: {e}"));
        store
            .verify(&saved)
            .await
            .unwrap_or_else(|e| panic!("{place}: savepoint {}: {e}", info.name));
        assert_eq!(
            contents(&store, &saved, 2).await.unwrap(),
            trace.savepoints[&info.name],
            "{place}"
        );
    }
    let names: Vec<String> = store.savepoints().into_iter().map(|s| s.name).collect();
    assert!(
        trace.savepoints.keys().all(|name| names.contains(name)),
        "{place}: {names:?}"
    );

    // It goes on, and what nothing needs goes away.
    trace.attempted = None;
    one_checkpoint(&store, 100, trace)
        .await
        .unwrap_or_else(|e| panic!("{place}: {e}"));
    store.clean_up().await.unwrap();
    let newest = store.base().unwrap();
    assert_eq!(
        contents(&store, &newest, 1).await.unwrap(),
        trace.durable,
        "{place}"
    );
    if store.savepoints().iter().all(|s| s.damage.is_none()) {
        let saved = store.savepoints().into_iter().filter_map(|s| s.manifest);
        let needed: BTreeSet<String> = store
            .retained()
            .into_iter()
            .chain(saved)
            .flat_map(|m| m.objects())
            .map(|o| o.to_string())
            .collect();
        let there: BTreeSet<String> = raw
            .list("runs")
            .await
            .unwrap()
            .into_iter()
            .map(|l| l.object)
            .collect();
        assert_eq!(there, needed, "{place}");
    }
}

async fn crash_everywhere(crash: Crash) {
    let (_, faulty, faults) = storages();
    scenario(&faulty, &mut Trace::default()).await.unwrap();
    let steps = faults.steps();
    assert!(steps.len() > 60, "{}", steps.len());
    for (n, step) in steps.iter().enumerate() {
        let (raw, faulty, faults) = storages();
        faults.crash_at(n, crash);
        let mut trace = Trace::default();
        let outcome = scenario(&faulty, &mut trace).await;
        assert!(faults.has_crashed());
        let place = format!(
            "crash {crash:?} step {n} ({:?} {}), {outcome:?}",
            step.kind, step.object
        );
        check(&raw, &mut trace, crash, &place).await;
    }
}

#[tokio::test]
async fn crash_before_every_step() {
    crash_everywhere(Crash::Before).await;
}

#[tokio::test]
async fn crash_after_every_step() {
    crash_everywhere(Crash::After).await;
}

#[tokio::test]
async fn crash_in_the_middle_of_every_write() {
    crash_everywhere(Crash::Torn).await;
}

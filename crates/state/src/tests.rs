//! Properties that hold for both backends: random operations against a model, and moves between the backends.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod tables;
mod views;

use crate::{BackendConfig, BackendKind, Backends, Run, RunBuilder};
use tempfile::TempDir;
use tidegate_types::KeyGroupRange;

/// A worker's backends, and the directory that they use.
struct Worker {
    backends: Backends,
    _directory: TempDir,
}

impl Worker {
    fn new(groups: KeyGroupRange, overlay_limit_bytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = BackendConfig {
            directory: directory.path().to_owned(),
            worker: 0,
            groups,
            cache_limit_bytes: 16 << 20,
            overlay_limit_bytes,
            memory: crate::memory::MemoryAccount::default(),
        };
        Self {
            backends: Backends::open(config).unwrap(),
            _directory: directory,
        }
    }
}

fn other(kind: BackendKind) -> BackendKind {
    match kind {
        BackendKind::Memory => BackendKind::RocksDb,
        BackendKind::RocksDb => BackendKind::Memory,
    }
}

/// The entries of a run that lie in these key groups.
fn part(run: &Run, groups: KeyGroupRange) -> Option<Run> {
    let mut builder = RunBuilder::new(run.table, run.has_sub_keys(), run.len());
    for entry in run.iter().filter(|e| groups.contains(e.group)) {
        builder.push_in_group(entry.group, entry.key, entry.sub, entry.value);
    }
    builder.finish()
}

/// The seed of a test: from the environment to repeat a failure, else a fixed one for each round.
fn seeds(rounds: u64) -> Vec<u64> {
    match std::env::var("TIDEGATE_TEST_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..rounds).collect(),
    }
}

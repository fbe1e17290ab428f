//! Who writes next, and what has been written that no epoch holds yet.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use tidegate_types::{Batch, LogPosition, RelationId, SqlError, SqlState};

/// A row by its table and the hash of its key (of all its columns where the table has none). Two rows with the same hash
/// count as the same row: the worst of it is a needless conflict.
pub(crate) type RowKey = (RelationId, u64);

/// The right to decide and append. One statement has it at a time; it is given back before waiting for the disk.
pub(crate) struct Turn<'a> {
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

struct Pending {
    position: LogPosition,
    changes: Vec<(RelationId, Batch)>,
}

#[derive(Default)]
struct Written {
    /// Appended, and perhaps not part of an epoch yet; oldest first.
    pending: VecDeque<Pending>,
    /// Which rows recent commits changed, as long as a transaction is open that began before them.
    recent: VecDeque<(LogPosition, HashSet<RowKey>)>,
    /// Open transactions by what they read.
    open: BTreeMap<LogPosition, usize>,
}

#[derive(Default)]
pub(crate) struct Sequencer {
    turn: tokio::sync::Mutex<()>,
    written: Mutex<Written>,
}

impl Sequencer {
    pub async fn turn(&self) -> Turn<'_> {
        Turn {
            _guard: self.turn.lock().await,
        }
    }

    /// A transaction reads the database as of this position.
    pub fn begin(&self, position: LogPosition) {
        *self.written.lock().open.entry(position).or_default() += 1;
    }

    pub fn end(&self, position: LogPosition) {
        let mut written = self.written.lock();
        if let Some(count) = written.open.get_mut(&position) {
            *count -= 1;
            if *count == 0 {
                written.open.remove(&position);
            }
        }
        let oldest = written.open.keys().next().copied();
        written
            .recent
            .retain(|(at, _)| oldest.is_some_and(|oldest| *at > oldest));
    }

    /// 40001 when a row was changed by a commit after this position.
    pub fn check_conflicts(
        &self,
        base: LogPosition,
        keys: &HashSet<RowKey>,
    ) -> Result<(), SqlError> {
        let written = self.written.lock();
        let conflict = written
            .recent
            .iter()
            .any(|(at, theirs)| *at > base && !theirs.is_disjoint(keys));
        if conflict {
            return Err(SqlError::new(
                SqlState::SERIALIZATION_FAILURE,
                "could not serialize access due to concurrent update",
            )
            .with_hint("Retry the transaction."));
        }
        Ok(())
    }

    pub fn appended(
        &self,
        _turn: &Turn<'_>,
        position: LogPosition,
        changes: Vec<(RelationId, Batch)>,
        keys: HashSet<RowKey>,
    ) {
        let mut written = self.written.lock();
        written.pending.push_back(Pending { position, changes });
        // A transaction that ends right after its commit is counted no more, so all commits are kept while any is open.
        if !written.open.is_empty() {
            written.recent.push_back((position, keys));
        }
    }

    /// What was appended behind a position. Everything up to it is in every epoch that will be read from now on.
    pub fn pending_after(
        &self,
        _turn: &Turn<'_>,
        position: LogPosition,
    ) -> HashMap<RelationId, Vec<Batch>> {
        let mut written = self.written.lock();
        while written
            .pending
            .front()
            .is_some_and(|p| p.position <= position)
        {
            written.pending.pop_front();
        }
        let mut changes: HashMap<RelationId, Vec<Batch>> = HashMap::new();
        for pending in &written.pending {
            for (relation, batch) in &pending.changes {
                changes.entry(*relation).or_default().push(batch.clone());
            }
        }
        changes
    }

    /// Nothing from this position on became durable; the log will give the positions out again.
    pub fn failed_from(&self, position: LogPosition) {
        let mut written = self.written.lock();
        written.pending.retain(|p| p.position < position);
        written.recent.retain(|(at, _)| *at < position);
    }
}

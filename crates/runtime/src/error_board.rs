//! The rows that failed, as a person sees them: a Z-set of errors per relation and the decode errors of sources.
//!
//! Operators' errors are durable in a state table of their driver; this board mirrors them for readers. Decode errors of
//! sources never retract; the newest of each source are kept, all are counted, in a state table of the source.

use parking_lot::Mutex;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use tidegate_types::{OperatorId, RelationId, WorkerId};

/// How many decode errors of one source are kept for reading.
pub(crate) const KEPT_DECODE_ERRORS: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ErrorKey {
    pub operator: OperatorId,
    pub state: String,
    pub message: String,
    pub row: String,
}

#[derive(Debug, Clone)]
pub(crate) struct DecodeErrorRow {
    pub state: String,
    pub message: String,
    pub row: String,
    pub split: String,
    pub offset: String,
}

#[derive(Default)]
struct SourceErrors {
    total: u64,
    newest: VecDeque<DecodeErrorRow>,
}

#[derive(Default)]
struct Contents {
    rows: HashMap<(RelationId, WorkerId), BTreeMap<ErrorKey, i64>>,
    sources: HashMap<(RelationId, WorkerId), SourceErrors>,
    late: HashMap<(RelationId, WorkerId), u64>,
}

impl Contents {
    /// The errors that stand. One worker may have seen a row fail and another, after a restart, that it went.
    fn standing(&self) -> BTreeMap<(RelationId, &ErrorKey), i64> {
        let mut standing = BTreeMap::new();
        for ((relation, _), rows) in &self.rows {
            for (key, count) in rows {
                *standing.entry((*relation, key)).or_default() += count;
            }
        }
        standing.retain(|_, count| *count != 0);
        standing
    }
}

#[derive(Default)]
pub(crate) struct ErrorBoard {
    contents: Mutex<Contents>,
}

impl ErrorBoard {
    /// Adds to how often this error stands, as far as this worker knows.
    pub fn add(&self, relation: RelationId, worker: WorkerId, key: ErrorKey, diff: i64) {
        let mut contents = self.contents.lock();
        let rows = contents.rows.entry((relation, worker)).or_default();
        match rows.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(diff);
            }
            Entry::Occupied(entry) if entry.get() + diff == 0 => {
                entry.remove();
            }
            Entry::Occupied(mut entry) => *entry.get_mut() += diff,
        }
    }

    pub fn decode_failed(&self, relation: RelationId, worker: WorkerId, error: DecodeErrorRow) {
        let mut contents = self.contents.lock();
        let source = contents.sources.entry((relation, worker)).or_default();
        source.total += 1;
        if source.newest.len() == KEPT_DECODE_ERRORS {
            source.newest.pop_front();
        }
        source.newest.push_back(error);
    }

    /// What a source could not decode before it was started again.
    pub fn restore_source(
        &self,
        relation: RelationId,
        worker: WorkerId,
        total: u64,
        newest: Vec<DecodeErrorRow>,
    ) {
        let newest = newest.into();
        let errors = SourceErrors { total, newest };
        self.contents
            .lock()
            .sources
            .insert((relation, worker), errors);
    }

    /// How many rows of a relation came late, on this worker.
    pub fn late_rows(&self, relation: RelationId, worker: WorkerId, count: u64) {
        let mut contents = self.contents.lock();
        contents.late.insert((relation, worker), count);
    }

    /// The same over all workers.
    pub fn all_late_rows(&self, relation: RelationId) -> u64 {
        let contents = self.contents.lock();
        let late = contents.late.iter().filter(|((r, _), _)| *r == relation);
        late.map(|(_, count)| count).sum()
    }

    pub fn forget(&self, relation: RelationId, worker: WorkerId) {
        let mut contents = self.contents.lock();
        contents.late.remove(&(relation, worker));
        contents.rows.remove(&(relation, worker));
        contents.sources.remove(&(relation, worker));
    }

    /// Workers from this number on are no more.
    pub fn forget_workers_from(&self, first: WorkerId) {
        let mut contents = self.contents.lock();
        contents.rows.retain(|(_, worker), _| *worker < first);
        contents.sources.retain(|(_, worker), _| *worker < first);
    }

    /// Calls `visit` for each error of an operator: how often it stands over all workers.
    pub fn visit_rows(&self, visit: &mut dyn FnMut(RelationId, &ErrorKey, i64)) {
        let contents = self.contents.lock();
        for ((relation, key), count) in contents.standing() {
            visit(relation, key, count);
        }
    }

    pub fn visit_decode_errors(&self, visit: &mut dyn FnMut(RelationId, &DecodeErrorRow)) {
        for ((relation, _), source) in &self.contents.lock().sources {
            for error in &source.newest {
                visit(*relation, error);
            }
        }
    }

    /// All errors of a relation so far: rows that stand now, plus undecodable rows ever seen.
    pub fn count(&self, relation: RelationId) -> u64 {
        let contents = self.contents.lock();
        let sources = contents.sources.iter().filter(|((r, _), _)| *r == relation);
        let rows = contents.standing();
        let rows = rows.iter().filter(|((r, _), _)| *r == relation);
        rows.map(|(_, count)| count.unsigned_abs()).sum::<u64>()
            + sources.map(|(_, s)| s.total).sum::<u64>()
    }
}

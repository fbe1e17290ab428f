//! The rows that failed, as a person sees them: a Z-set of errors per relation and the decode errors of sources.
//!
//! Operators' errors are durable in a state table of their driver; this board mirrors them for readers. Decode errors of
//! sources never retract; the newest of each source are kept, all are counted.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use tidegate_types::{OperatorId, RelationId, WorkerId};

/// How many decode errors of one source are kept for reading.
const KEPT_DECODE_ERRORS: usize = 1000;

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
}

#[derive(Default)]
pub(crate) struct ErrorBoard {
    contents: Mutex<Contents>,
}

impl ErrorBoard {
    /// Sets how often this error stands on this worker; zero removes it.
    pub fn set(&self, relation: RelationId, worker: WorkerId, key: ErrorKey, count: i64) {
        let mut contents = self.contents.lock();
        let rows = contents.rows.entry((relation, worker)).or_default();
        if count == 0 {
            rows.remove(&key);
        } else {
            rows.insert(key, count);
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

    pub fn forget(&self, relation: RelationId, worker: WorkerId) {
        let mut contents = self.contents.lock();
        contents.rows.remove(&(relation, worker));
        contents.sources.remove(&(relation, worker));
    }

    /// Calls `visit` for each error of an operator: how often it stands over all workers.
    pub fn visit_rows(&self, visit: &mut dyn FnMut(RelationId, &ErrorKey, i64)) {
        for ((relation, _), rows) in &self.contents.lock().rows {
            for (key, count) in rows {
                visit(*relation, key, *count);
            }
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
        let rows = contents.rows.iter().filter(|((r, _), _)| *r == relation);
        let sources = contents.sources.iter().filter(|((r, _), _)| *r == relation);
        rows.map(|(_, rows)| rows.values().map(|c| c.unsigned_abs()).sum::<u64>())
            .sum::<u64>()
            + sources.map(|(_, s)| s.total).sum::<u64>()
    }
}

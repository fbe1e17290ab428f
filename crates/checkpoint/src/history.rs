//! What became of checkpoints: the records behind `SHOW CHECKPOINTS`, kept in storage.
//!
//! Records are written in parts of [`PART_RECORDS`]; the current part is rewritten as it grows, which [`flush`] does from
//! time to time and at shutdown. A crash may lose the records since the last flush; what completed is then filled in
//! from the manifests. Only the newest [`PARTS_KEPT`] parts stay.
//! What single operators wrote is kept of the newest [`DETAILED`] checkpoints.
//!
//! [`flush`]: CheckpointStore::flush_history

use crate::error::{Result, StorageError};
use crate::layout;
use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::storage::Storage;
use crate::store::CheckpointStore;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use tidegate_types::{CheckpointId, Epoch, OperatorId, RelationId, WorkerId};

const PART_RECORDS: usize = 32;
const PARTS_KEPT: usize = 32;
const KEPT: usize = PART_RECORDS * PARTS_KEPT;
/// Of so many checkpoints, the newest, it is known what each operator wrote.
const DETAILED: usize = 64;
/// Of how many operators that is kept, those that wrote most; the others are part of their worker's sums alone.
pub const OPERATORS_KEPT: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointStatus {
    Completed,
    Failed,
    Aborted,
}

/// One checkpoint as a person sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    pub checkpoint: CheckpointId,
    pub epoch: Epoch,
    pub status: CheckpointStatus,
    /// Set when it was taken for a savepoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<String>,
    /// Why it failed or was aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    pub triggered_ms: i64,
    /// From the trigger until durable (or given up).
    pub duration_ms: f64,
    /// The longest that a worker spent sealing, all its operators together.
    pub sync_ms: f64,
    /// From the last seal until durable.
    pub async_ms: f64,
    /// From the trigger until the last operator had the barrier.
    pub alignment_ms: f64,
    pub bytes_written: u64,
    pub bytes_total: u64,
    /// In-flight rows that became part of it (unaligned checkpoints).
    #[serde(default)]
    pub in_flight_bytes: u64,
    /// How it was taken, by the names of settings; empty when the record was lost.
    #[serde(default)]
    pub mode: String,
    #[serde(default)]
    pub execution: String,
    /// What its barrier did: `aligned` also where it might have overtaken but found nothing to overtake.
    #[serde(default)]
    pub alignment: String,
    #[serde(default)]
    pub guarantee: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<OperatorRecord>,
}

/// One worker's part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRecord {
    pub worker: WorkerId,
    pub sync_ms: f64,
    pub encode_ms: f64,
    pub write_ms: f64,
    pub rows: u64,
    pub bytes: u64,
}

/// What one operator of a relation wrote on one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorRecord {
    pub relation: RelationId,
    pub operator: OperatorId,
    pub worker: WorkerId,
    pub rows: u64,
    pub bytes: u64,
    /// Rows that the barrier overtook in front of it.
    #[serde(default)]
    pub in_flight_bytes: u64,
    pub sync_ms: f64,
}

#[derive(Debug)]
pub(crate) struct History {
    generation: u64,
    records: Mutex<Records>,
    pub metrics: Mutex<Metrics>,
}

#[derive(Debug, Default)]
struct Records {
    /// Oldest first.
    all: VecDeque<CheckpointRecord>,
    /// How many at the end belong to the current part.
    current: usize,
    part: u64,
    dirty: bool,
    /// Objects of finished parts, oldest first.
    parts: VecDeque<String>,
}

impl History {
    /// Records cannot be worth failing a start: what does not parse is left out, with a warning.
    pub async fn load(storage: &Storage, generation: u64) -> Result<Self, StorageError> {
        let mut records = Records::default();
        let listed = storage.list(layout::HISTORY).await?;
        let recent = listed.len().saturating_sub(PARTS_KEPT);
        for (i, part) in listed.into_iter().enumerate() {
            if i >= recent {
                let bytes = match storage.get(&part.object).await {
                    Ok(bytes) => bytes,
                    // The server before this one was just removing it.
                    Err(e) if e.is_not_found() => continue,
                    Err(e) => return Err(e),
                };
                match serde_json::from_slice::<Vec<CheckpointRecord>>(&bytes) {
                    Ok(part) => records.all.extend(part),
                    Err(error) => {
                        tracing::warn!(object = part.object, %error, "history of checkpoints is damaged")
                    }
                }
            }
            records.parts.push_back(part.object);
        }
        records.trim();
        Ok(Self {
            generation,
            records: Mutex::new(records),
            metrics: Mutex::default(),
        })
    }

    pub fn newest(&self) -> CheckpointId {
        self.records
            .lock()
            .all
            .iter()
            .map(|r| r.checkpoint)
            .max()
            .unwrap_or_default()
    }
}

impl Records {
    fn trim(&mut self) {
        while self.all.len() > KEPT {
            self.all.pop_front();
        }
        let old = self.all.len().saturating_sub(DETAILED);
        // All before were trimmed when they got old.
        for record in self.all.range_mut(..old).rev() {
            if record.operators.is_empty() {
                break;
            }
            record.operators = Vec::new();
        }
    }
}

impl CheckpointStore {
    /// Remembers what became of a checkpoint.
    pub fn record(&self, record: CheckpointRecord) {
        self.history.metrics.lock().observe(&record);
        let has_failed = record.status != CheckpointStatus::Completed;
        let mut records = self.history.records.lock();
        records.all.push_back(record);
        records.current += 1;
        records.dirty = true;
        records.trim();
        drop(records);
        // A commit wakes whoever writes it down by itself.
        if has_failed {
            self.committed.notify_one();
        }
    }

    /// Something was recorded that is not written yet.
    pub(crate) fn has_unwritten_history(&self) -> bool {
        self.history.records.lock().dirty
    }

    /// Newest first. Retained checkpoints of which the record was lost are there with what their manifest says.
    pub fn checkpoints(&self) -> Vec<CheckpointRecord> {
        let mut all: BTreeMap<CheckpointId, CheckpointRecord> = self
            .retained()
            .iter()
            .map(|m| (m.checkpoint, record_of(m)))
            .collect();
        all.extend(
            self.history
                .records
                .lock()
                .all
                .iter()
                .map(|r| (r.checkpoint, r.clone())),
        );
        all.into_values().rev().collect()
    }

    /// Writes what was recorded since the last call, if anything was.
    pub async fn flush_history(&self) -> Result<()> {
        let (object, bytes, expired) = {
            let mut records = self.history.records.lock();
            if !records.dirty {
                return Ok(());
            }
            records.dirty = false;
            let from = records.all.len().saturating_sub(records.current);
            let part: Vec<&CheckpointRecord> = records.all.iter().skip(from).collect();
            let bytes = serde_json::to_vec(&part).expect("records have string keys only");
            let object = layout::history(self.history.generation, records.part);
            if records.current >= PART_RECORDS {
                records.current = 0;
                records.part += 1;
                records.parts.push_back(object.clone());
            }
            let surplus = records.parts.len().saturating_sub(PARTS_KEPT);
            let expired: Vec<String> = records.parts.drain(..surplus).collect();
            (object, bytes, expired)
        };
        let written = self.storage.put(&object, &[bytes.into()]).await;
        if written.is_err() {
            self.history.records.lock().dirty = true;
        }
        written?;
        self.storage.delete(&expired).await?;
        Ok(())
    }
}

fn record_of(manifest: &Manifest) -> CheckpointRecord {
    CheckpointRecord {
        checkpoint: manifest.checkpoint,
        epoch: manifest.epoch,
        status: CheckpointStatus::Completed,
        savepoint: None,
        cause: None,
        triggered_ms: manifest.time_ms,
        duration_ms: (manifest.created_ms - manifest.time_ms).max(0) as f64,
        sync_ms: 0.0,
        async_ms: 0.0,
        alignment_ms: 0.0,
        bytes_written: manifest.bytes_written,
        bytes_total: manifest.bytes(),
        in_flight_bytes: manifest.in_flight_bytes(),
        mode: String::new(),
        execution: String::new(),
        alignment: String::new(),
        guarantee: String::new(),
        workers: Vec::new(),
        operators: Vec::new(),
    }
}

//! Lists of what the runtime and the checkpoint store have to tell.

use super::Session;
use crate::offline::{format_of, timestamp, views_of};
use tidegate_types::SqlError;

pub(super) const CHECKPOINT_COLUMNS: &[&str] = &[
    "Id",
    "Epoch",
    "Status",
    "Cause",
    "Trigger to durable ms",
    "Alignment ms",
    "Sync ms",
    "Async ms",
    "Bytes written",
    "Bytes total",
    "In flight bytes",
    "Mode",
    "Execution",
    "Alignment",
    "Guarantee",
];
pub(super) const SAVEPOINT_COLUMNS: &[&str] = &[
    "Name", "Taken at", "Epoch", "Views", "Rows", "Bytes", "Format", "Location", "Damage",
];
pub(super) const RECOVERY_COLUMNS: &[&str] =
    &["Step", "Subject", "Rows", "Bytes", "Estimated ms", "Basis"];

impl Session {
    pub(super) fn job_lines(&self) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let catalog = self.database.catalog.get();
        let status = self.database.runtime()?.status();
        let line = |job: &tidegate_runtime::JobStatus| {
            let name = catalog.relation(job.relation).map(|r| r.name.clone());
            let progress = job.fraction.map(|f| format!("{:.1}%", f * 100.0));
            vec![
                Some(job.relation.to_string()),
                name,
                Some(job.rows_read.to_string()),
                job.rows_total.map(|t| t.to_string()),
                progress,
                Some(if job.is_alteration { "alter" } else { "build" }.to_owned()),
            ]
        };
        Ok(status.jobs.iter().map(line).collect())
    }

    pub(super) fn checkpoint_lines(&self) -> Vec<Vec<Option<String>>> {
        let line = |record: tidegate_checkpoint::CheckpointRecord| {
            vec![
                Some(record.checkpoint.to_string()),
                Some(record.epoch.to_string()),
                Some(format!("{:?}", record.status).to_lowercase()),
                record.cause,
                Some(format!("{:.1}", record.duration_ms)),
                Some(format!("{:.1}", record.alignment_ms)),
                Some(format!("{:.3}", record.sync_ms)),
                Some(format!("{:.1}", record.async_ms)),
                Some(record.bytes_written.to_string()),
                Some(record.bytes_total.to_string()),
                Some(record.in_flight_bytes.to_string()),
                known(record.mode),
                known(record.execution),
                known(record.alignment),
                known(record.guarantee),
            ]
        };
        self.database
            .store
            .checkpoints()
            .into_iter()
            .map(line)
            .collect()
    }

    pub(super) fn recovery_lines(&self) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let line = |step: crate::recovery::Step| {
            vec![
                Some(step.name.to_owned()),
                Some(step.subject),
                step.rows.map(|r| r.to_string()),
                step.bytes.map(|b| b.to_string()),
                step.estimated_ms.map(|ms| format!("{ms:.1}")),
                Some(step.basis),
            ]
        };
        let steps = self.database.recovery_steps()?;
        Ok(steps.into_iter().map(line).collect())
    }

    pub(super) fn savepoint_lines(&self) -> Vec<Vec<Option<String>>> {
        let line = |info: tidegate_checkpoint::SavepointInfo| {
            let manifest = info.manifest.as_ref();
            vec![
                Some(info.name.clone()),
                manifest.map(|m| timestamp(m.created_ms)),
                manifest.map(|m| m.epoch.to_string()),
                manifest.map(|m| views_of(m).join(", ")),
                manifest.map(|m| m.rows().to_string()),
                manifest.map(|m| m.bytes().to_string()),
                manifest.map(|m| format_of(m).to_owned()),
                Some(info.location.clone()),
                info.damage.as_ref().map(ToString::to_string),
            ]
        };
        self.database
            .store
            .savepoints()
            .into_iter()
            .map(line)
            .collect()
    }
}

/// Of checkpoints whose record was lost in a crash, not all is known.
fn known(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

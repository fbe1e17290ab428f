//! What a recovery would have to do now, and about how long it would take: `SHOW RECOVERY`, `tidegate.recovery`.
//!
//! How much there is to do is known exactly, except for rows that sources have given since the newest checkpoint, which are
//! counted where barriers are cut. How long that takes is inferred from what this process has measured whenever it
//! started workers on a checkpoint. A measurement of little says nothing about much: then no time is given rather than a
//! wrong one. Starting the process itself is no part of it.

use crate::database::Database;
use crate::offline::timestamp;
use std::time::{Duration, UNIX_EPOCH};
use tidegate_runtime::RecoveryMeasure;
use tidegate_types::SqlError;

/// From so much on a measurement is taken for a rate.
const RATE_BYTES: u64 = 4 << 20;
const RATE_ROWS: u64 = 20_000;

/// A part of a recovery, in their order.
pub(crate) struct Step {
    pub name: &'static str,
    pub subject: String,
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
    pub estimated_ms: Option<f64>,
    /// What the estimate follows from, or why there is none.
    pub basis: String,
}

impl Database {
    pub(crate) fn recovery_steps(&self) -> Result<Vec<Step>, SqlError> {
        let status = self.runtime()?.recovery();
        let newest = self.store.retained().into_iter().next();
        let replayed_to = newest.as_ref().map_or(0, |m| m.log_position.0);
        let entries = self.log.durable_position().0.saturating_sub(replayed_to);
        let restore = match &newest {
            None => Step {
                name: "restore",
                subject: "there is no checkpoint yet".to_owned(),
                rows: Some(0),
                bytes: Some(0),
                estimated_ms: Some(0.0),
                basis: "nothing to read".to_owned(),
            },
            Some(manifest) => {
                let (rows, bytes) = (manifest.rows(), manifest.bytes());
                let (estimated_ms, basis) = restoring(bytes, status.restored.as_ref());
                Step {
                    name: "restore",
                    subject: format!(
                        "checkpoint {} of epoch {}",
                        manifest.checkpoint, manifest.epoch
                    ),
                    rows: Some(rows),
                    bytes: Some(bytes),
                    estimated_ms,
                    basis,
                }
            }
        };
        let (estimated_ms, basis) = replaying(status.log_rows, status.replayed.as_ref());
        let replay = Step {
            name: "replay",
            subject: format!("{entries} entries of the command log"),
            rows: Some(status.log_rows),
            bytes: None,
            estimated_ms,
            basis,
        };
        let sum = restore.estimated_ms.zip(replay.estimated_ms);
        let total = Step {
            name: "readable",
            subject: "readers are let in".to_owned(),
            rows: None,
            bytes: None,
            estimated_ms: sum.map(|(restore, replay)| restore + replay),
            basis: match sum {
                Some(_) => "the sum of the steps before",
                None => "a step before has no estimate",
            }
            .to_owned(),
        };
        let sources = Step {
            name: "read again",
            subject: "what sources have given since the checkpoint".to_owned(),
            rows: Some(status.source_rows),
            bytes: None,
            estimated_ms: None,
            basis: "as fast as sources give it, while the database answers".to_owned(),
        };
        Ok(vec![restore, replay, total, sources])
    }
}

fn restoring(bytes: u64, measured: Option<&RecoveryMeasure>) -> (Option<f64>, String) {
    let Some(measured) = measured else {
        let basis = "no measurement yet: this server has restored no checkpoint since it started";
        return (None, basis.to_owned());
    };
    let what = format!("{} bytes", measured.bytes);
    estimate(
        (bytes, measured.bytes, RATE_BYTES),
        measured.restoring,
        described(measured, &what),
    )
}

fn replaying(rows: u64, measured: Option<&RecoveryMeasure>) -> (Option<f64>, String) {
    match measured {
        _ if rows == 0 => (Some(0.0), "nothing to replay".to_owned()),
        None => {
            let basis = "no measurement yet: this server has replayed nothing since it started";
            (None, basis.to_owned())
        }
        Some(measured) => {
            let what = format!("{} rows", measured.log_rows);
            estimate(
                (rows, measured.log_rows, RATE_ROWS),
                measured.replaying,
                described(measured, &what),
            )
        }
    }
}

fn described(measured: &RecoveryMeasure, what: &str) -> (String, String) {
    let at = measured.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let when = format!(
        "with {} workers at {}",
        measured.workers,
        timestamp(at.as_millis() as i64)
    );
    (what.to_owned(), when)
}

/// From an amount, an amount that was measured, and the one from which on that is a rate.
fn estimate(
    (amount, measured, rate_from): (u64, u64, u64),
    took: Duration,
    (what, when): (String, String),
) -> (Option<f64>, String) {
    let took_ms = took.as_secs_f64() * 1000.0;
    let basis = format!("measured: {what} in {took_ms:.1} ms {when}");
    let ratio = amount as f64 / measured.max(1) as f64;
    match measured >= rate_from {
        true => (Some(took_ms * ratio), basis),
        // So little that most of the time is what every start costs.
        false if ratio <= 2.0 => (Some(took_ms), basis),
        false => (None, format!("{basis}, too little to tell from")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(
        bytes: u64,
        restoring_ms: u64,
        log_rows: u64,
        replaying_ms: u64,
    ) -> RecoveryMeasure {
        RecoveryMeasure {
            at: UNIX_EPOCH,
            workers: 2,
            bytes,
            rows: bytes / 10,
            restoring: Duration::from_millis(restoring_ms),
            log_rows,
            replaying: Duration::from_millis(replaying_ms),
        }
    }

    #[test]
    fn much_follows_from_much_and_not_from_little() {
        let much = measured(100 << 20, 1000, 100_000, 500);
        assert_eq!(restoring(200 << 20, Some(&much)).0, Some(2000.0));
        assert_eq!(restoring(10 << 20, Some(&much)).0, Some(100.0));
        assert_eq!(replaying(1_000_000, Some(&much)).0, Some(5000.0));
        let little = measured(1000, 30, 10, 3);
        assert_eq!(restoring(1500, Some(&little)).0, Some(30.0));
        let (none, why) = restoring(1 << 30, Some(&little));
        assert!(none.is_none() && why.contains("too little"), "{why}");
        assert_eq!(replaying(20, Some(&little)).0, Some(3.0));
        assert_eq!(replaying(1000, Some(&little)).0, None);
    }

    #[test]
    fn without_a_measurement_there_is_no_time() {
        let (none, why) = restoring(1, None);
        assert!(
            none.is_none() && why.contains("no measurement yet"),
            "{why}"
        );
        assert_eq!(replaying(1, None).0, None);
        assert_eq!(replaying(0, None).0, Some(0.0));
    }
}

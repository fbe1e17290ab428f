//! Checkpoints as figures for Prometheus, counted since the store was opened.
//!
//! Labels are bounded: how a checkpoint ended, and the worker. What single operators wrote is in the history alone, where
//! it can be asked for by name.

use crate::history::{CheckpointRecord, CheckpointStatus};
use crate::store::CheckpointStore;
use std::fmt::Write;

/// Upper bounds of the buckets of times, in seconds.
const BOUNDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0,
];

#[derive(Debug, Default)]
struct Histogram {
    /// By bound, not cumulative.
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum_seconds: f64,
}

impl Histogram {
    fn observe_ms(&mut self, ms: f64) {
        let seconds = ms / 1000.0;
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.counts[bucket] += 1;
        }
        self.count += 1;
        self.sum_seconds += seconds;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    completed: u64,
    failed: u64,
    aborted: u64,
    unaligned: u64,
    written_bytes: u64,
    in_flight_bytes: u64,
    duration: Histogram,
    alignment: Histogram,
    sync: Histogram,
    write: Histogram,
    /// The newest that completed.
    last: Option<CheckpointRecord>,
}

impl Metrics {
    pub fn observe(&mut self, record: &CheckpointRecord) {
        match record.status {
            CheckpointStatus::Failed => self.failed += 1,
            CheckpointStatus::Aborted => self.aborted += 1,
            CheckpointStatus::Completed => {
                self.completed += 1;
                self.unaligned += u64::from(record.alignment == "unaligned");
                self.written_bytes += record.bytes_written;
                self.in_flight_bytes += record.in_flight_bytes;
                self.duration.observe_ms(record.duration_ms);
                self.alignment.observe_ms(record.alignment_ms);
                self.sync.observe_ms(record.sync_ms);
                self.write.observe_ms(record.async_ms);
                let last = CheckpointRecord {
                    operators: Vec::new(),
                    ..record.clone()
                };
                self.last = Some(last);
            }
        }
    }

    fn counters(&self, out: &mut Text) {
        let ended = [
            ("completed", self.completed as f64),
            ("failed", self.failed as f64),
            ("aborted", self.aborted as f64),
        ];
        out.family(
            "tidegate_checkpoint_checkpoints_total",
            "counter",
            "Checkpoints by how they ended.",
        );
        for (status, count) in ended {
            out.line(&format!("_total{{status=\"{status}\"}}"), count);
        }
        for (name, help, value) in [
            (
                "tidegate_checkpoint_unaligned_total",
                "Completed checkpoints whose barrier overtook rows.",
                self.unaligned,
            ),
            (
                "tidegate_checkpoint_written_bytes_total",
                "State that checkpoints wrote.",
                self.written_bytes,
            ),
            (
                "tidegate_checkpoint_in_flight_bytes_total",
                "Rows that barriers overtook and checkpoints wrote.",
                self.in_flight_bytes,
            ),
        ] {
            out.family(name, "counter", help);
            out.line("_total", value as f64);
        }
    }

    fn times(&self, out: &mut Text) {
        for (name, help, histogram) in [
            (
                "tidegate_checkpoint_duration_seconds",
                "From trigger to durable.",
                &self.duration,
            ),
            (
                "tidegate_checkpoint_alignment_seconds",
                "From the trigger until the last operator had the barrier.",
                &self.alignment,
            ),
            (
                "tidegate_checkpoint_sync_seconds",
                "The longest that a worker spent sealing.",
                &self.sync,
            ),
            (
                "tidegate_checkpoint_async_seconds",
                "From the last seal until durable.",
                &self.write,
            ),
        ] {
            out.family(name, "histogram", help);
            let mut below = 0;
            for (bound, count) in BOUNDS.iter().zip(histogram.counts) {
                below += count;
                out.line(&format!("_bucket{{le=\"{bound}\"}}"), below as f64);
            }
            out.line("_bucket{le=\"+Inf\"}", histogram.count as f64);
            out.line("_sum", histogram.sum_seconds);
            out.line("_count", histogram.count as f64);
        }
    }

    fn last(&self, out: &mut Text) {
        let Some(last) = &self.last else {
            return;
        };
        for (name, help, value) in [
            (
                "tidegate_checkpoint_last_duration_seconds",
                "From trigger to durable, of the newest completed checkpoint.",
                last.duration_ms / 1000.0,
            ),
            (
                "tidegate_checkpoint_last_written_bytes",
                "State that the newest completed checkpoint wrote.",
                last.bytes_written as f64,
            ),
            (
                "tidegate_checkpoint_last_completed_timestamp_seconds",
                "When the newest completed checkpoint was triggered, since 1970.",
                last.triggered_ms as f64 / 1000.0,
            ),
            (
                "tidegate_checkpoint_state_bytes",
                "All that the newest completed checkpoint refers to.",
                last.bytes_total as f64,
            ),
        ] {
            out.family(name, "gauge", help);
            out.line("", value);
        }
        type OfWorker = fn(&crate::WorkerRecord) -> f64;
        let of_workers: [(&str, &str, OfWorker); 4] = [
            (
                "tidegate_checkpoint_worker_sync_seconds",
                "Sealing, in the newest completed checkpoint.",
                |w| w.sync_ms / 1000.0,
            ),
            (
                "tidegate_checkpoint_worker_encode_seconds",
                "Encoding, in the newest completed checkpoint.",
                |w| w.encode_ms / 1000.0,
            ),
            (
                "tidegate_checkpoint_worker_write_seconds",
                "Waiting for storage, in the newest completed checkpoint.",
                |w| w.write_ms / 1000.0,
            ),
            (
                "tidegate_checkpoint_worker_written_bytes",
                "State of the worker that the newest completed checkpoint wrote.",
                |w| w.bytes as f64,
            ),
        ];
        for (name, help, value) in of_workers {
            out.family(name, "gauge", help);
            for worker in &last.workers {
                let label = format!("{{worker=\"{}\"}}", worker.worker);
                out.line(&label, value(worker));
            }
        }
    }
}

/// Prometheus text under construction. The last figure's family names its lines.
#[derive(Default)]
struct Text {
    out: String,
    family: &'static str,
}

impl Text {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name.strip_suffix("_total").unwrap_or(name);
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, rest: &str, value: f64) {
        let _ = writeln!(self.out, "{}{rest} {value}", self.family);
    }
}

impl CheckpointStore {
    /// Prometheus text about checkpoints and savepoints.
    pub fn metrics(&self) -> String {
        let mut out = Text::default();
        let metrics = self.history.metrics.lock();
        metrics.counters(&mut out);
        metrics.times(&mut out);
        metrics.last(&mut out);
        drop(metrics);
        let (retained, savepoints) = {
            let state = self.state.lock();
            (state.checkpoints.len(), state.savepoints.len())
        };
        for (name, help, value) in [
            (
                "tidegate_checkpoint_retained",
                "Completed checkpoints that are kept.",
                retained,
            ),
            (
                "tidegate_checkpoint_savepoints",
                "Savepoints that there are.",
                savepoints,
            ),
        ] {
            out.family(name, "gauge", help);
            out.line("", value as f64);
        }
        out.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_every_bucket_above_it() {
        let mut metrics = Metrics::default();
        metrics.duration.observe_ms(3.0);
        metrics.duration.observe_ms(700.0);
        metrics.duration.observe_ms(1e6);
        let mut out = Text::default();
        metrics.times(&mut out);
        for line in [
            "tidegate_checkpoint_duration_seconds_bucket{le=\"0.0025\"} 0\n",
            "tidegate_checkpoint_duration_seconds_bucket{le=\"0.005\"} 1\n",
            "tidegate_checkpoint_duration_seconds_bucket{le=\"1\"} 2\n",
            "tidegate_checkpoint_duration_seconds_bucket{le=\"120\"} 2\n",
            "tidegate_checkpoint_duration_seconds_bucket{le=\"+Inf\"} 3\n",
            "tidegate_checkpoint_duration_seconds_count 3\n",
        ] {
            assert!(out.out.contains(line), "{line} in {}", out.out);
        }
    }

    #[test]
    fn every_line_belongs_to_the_family_before_it() {
        let mut out = Text::default();
        Metrics::default().counters(&mut out);
        assert!(out.out.contains(
            "# TYPE tidegate_checkpoint_checkpoints_total counter\n\
             tidegate_checkpoint_checkpoints_total{status=\"completed\"} 0\n"
        ));
    }
}

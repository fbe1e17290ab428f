//! What the engine counts, as Prometheus text.

use crate::database::Database;
use std::fmt::Write;

/// One line per figure, with its help and type.
pub(crate) fn text(database: &Database) -> String {
    let mut out = String::new();
    let Ok(runtime) = database.runtime() else {
        return out;
    };
    let status = runtime.status();
    let figures: [(&str, &str, &str, f64); 6] = [
        (
            "tidegate_runtime_epoch",
            "gauge",
            "The newest epoch that readers see.",
            status.epoch.0 as f64,
        ),
        (
            "tidegate_runtime_workers",
            "gauge",
            "Worker threads.",
            status.workers as f64,
        ),
        (
            "tidegate_runtime_barriers_in_flight",
            "gauge",
            "Barriers under way.",
            status.barriers_in_flight as f64,
        ),
        (
            "tidegate_runtime_rows_in_total",
            "counter",
            "Rows read from sources and the log.",
            status.rows_in as f64,
        ),
        (
            "tidegate_runtime_restarts_total",
            "counter",
            "Restarts of the workers.",
            status.restarts as f64,
        ),
        (
            "tidegate_runtime_backfilling_relations",
            "gauge",
            "Views being built.",
            status.jobs.len() as f64,
        ),
    ];
    for (name, kind, help, value) in figures {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    }
    out.push_str(&database.store.metrics());
    out
}

//! How long the barrier of a checkpoint takes while rows queue in front of an operator that is slower than its source:
//! behind the queue, and past it.

use crate::database::{Common, run as execute, session};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct Options {
    /// Rows that may queue, one measurement of each kind for each.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "100000,200000,400000,800000"
    )]
    queued: Vec<u64>,
    /// Checkpoints to measure, after a first.
    #[arg(long, default_value_t = 4)]
    checkpoints_measured: usize,
    /// How much the operator has to do for each row.
    #[arg(long, default_value_t = 40)]
    cost: u32,
    #[command(flatten)]
    common: Common,
}

pub async fn run(options: Options) -> Result<Value> {
    let mut points = Vec::new();
    for queued in &options.queued {
        let aligned = measure(&options, *queued, "aligned").await?;
        let unaligned = measure(&options, *queued, "unaligned").await?;
        points.push(json!({ "queued_rows": queued, "aligned": aligned, "unaligned": unaligned }));
    }
    Ok(json!({
        "benchmark": "backpressure",
        "backend": options.common.backend,
        "cost": options.cost,
        "points": points,
    }))
}

/// Medians over checkpoints that were taken while the queue was full.
async fn measure(options: &Options, queued: u64, alignment: &str) -> Result<Value> {
    let mut common = Common {
        checkpoints: "300ms".into(),
        ..options.common.clone()
    };
    common.settings.extend([
        format!("rows_in_flight={queued}"),
        format!("checkpoint_alignment={alignment}"),
        // Epochs end because of checkpoints alone.
        "rows_per_epoch=1000000000".into(),
        "barrier_interval=60s".into(),
    ]);
    let database = common.open().await?;
    let mut session = session(&database)?;
    execute(
        &mut session,
        &format!(
            "CREATE SOURCE s (k bigint) WITH (connector = 'datagen', rows = '10000000000', splits = '8', fields.k.kind = 'sequence');
             SET background_ddl = on;
             CREATE SINK result AS SELECT k % 1000 AS g, count(*) AS n, max(md5(repeat(k::text, {}))) AS most
                 FROM s GROUP BY k % 1000 WITH (connector = 'blackhole')",
            options.cost
        ),
    )
    .await?;
    let wanted = options.checkpoints_measured + 1;
    let sql = format!(
        "SELECT alignment_ms, duration_ms, in_flight_bytes FROM tidegate.checkpoints
             WHERE status = 'completed' AND alignment = '{alignment}' ORDER BY id DESC"
    );
    let (patience, started) = (Duration::from_secs(180), Instant::now());
    let mut measured = loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let completed = execute(&mut session, &sql).await?;
        if completed.len() >= wanted || started.elapsed() > patience {
            break completed;
        }
    };
    // The first may have found the queue still short.
    measured.truncate(options.checkpoints_measured);
    let median = |column: usize| {
        let cells = measured.iter().filter_map(|row| row[column].parse().ok());
        let mut values: Vec<f64> = cells.collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let line = json!({
        "checkpoints": measured.len(),
        "alignment_ms": median(0),
        "duration_ms": median(1),
        "in_flight_bytes": median(2),
    });
    // With it goes the queue, behind which the last checkpoint would wait.
    execute(&mut session, "DROP SINK result").await?;
    drop(session);
    database.shutdown().await?;
    common.clean();
    Ok(line)
}

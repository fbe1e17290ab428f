//! Sums per key: the plainest use of state, at a size where memory and checkpoints matter.

use crate::database::{Common, finish, run as execute, session};
use crate::usage;
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::time::Instant;

#[derive(Args)]
pub struct Options {
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    #[command(flatten)]
    common: Common,
}

pub async fn run(options: Options) -> Result<Value> {
    let database = options.common.open().await?;
    let mut session = session(&database)?;
    let create = format!(
        "CREATE SOURCE s (k bigint, x bigint) WITH (connector = 'datagen', rows = '{}',
           fields.k.kind = 'random', fields.k.min = '1', fields.k.max = '{}',
           fields.x.kind = 'random', fields.x.min = '0', fields.x.max = '1000')",
        options.rows, options.keys
    );
    execute(&mut session, &create).await?;
    let (cpu, started) = (usage::cpu_seconds(), Instant::now());
    execute(
        &mut session,
        "CREATE SINK result AS SELECT k, sum(x) AS total FROM s GROUP BY k WITH (connector = 'blackhole')",
    )
    .await?;
    finish(&database, &mut session, 1).await?;
    let seconds = started.elapsed().as_secs_f64();
    let checkpoints = database.checkpoints();
    let line = json!({
        "benchmark": "keyed",
        "keys": options.keys,
        "rows": options.rows,
        "workers": database.status()?.workers,
        "backend": options.common.backend,
        "checkpoints": options.common.checkpoints,
        "settings": options.common.settings,
        "seconds": seconds,
        "rows_per_second": (options.rows as f64 / seconds).round(),
        "cpu_seconds": usage::cpu_seconds() - cpu,
        "resident_mb": usage::resident_bytes() / (1 << 20),
        "peak_resident_mb": usage::peak_resident_bytes() / (1 << 20),
        "completed_checkpoints": checkpoints.len(),
        "largest_sync_ms": checkpoints.iter().map(|c| c.sync_ms).fold(0.0, f64::max),
        "checkpoint_bytes": checkpoints.iter().map(|c| c.bytes_written).sum::<u64>(),
    });
    database.shutdown().await?;
    options.common.clean();
    Ok(line)
}

//! What a server costs that has nothing to do: views installed, checkpoints on, no change.

use crate::database::{Common, run as execute, session};
use crate::usage;
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct Options {
    #[arg(long, default_value_t = 100)]
    views: u32,
    /// How long nothing is done.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[command(flatten)]
    common: Common,
}

pub async fn run(options: Options) -> Result<Value> {
    let database = options.common.open().await?;
    let mut session = session(&database)?;
    execute(
        &mut session,
        "CREATE TABLE t (id bigint PRIMARY KEY, x bigint)",
    )
    .await?;
    for view in 0..options.views {
        execute(
            &mut session,
            &format!(
                "CREATE MATERIALIZED VIEW v{view} AS SELECT x % {} AS g, sum(x) AS s FROM t GROUP BY 1",
                view + 1
            ),
        )
        .await?;
    }
    execute(&mut session, "INSERT INTO t VALUES (1, 1); FLUSH").await?;
    // Checkpoints of what was just done, and the merging behind them.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (cpu, started) = (usage::cpu_seconds(), Instant::now());
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let share = (usage::cpu_seconds() - cpu) / started.elapsed().as_secs_f64();
    let line = json!({
        "benchmark": "idle",
        "views": options.views,
        "workers": database.status()?.workers,
        "percent_of_a_core": share * 100.0,
        "resident_mb": usage::resident_bytes() / (1 << 20),
    });
    drop(session);
    database.shutdown().await?;
    options.common.clean();
    Ok(line)
}

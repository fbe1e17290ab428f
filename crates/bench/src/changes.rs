//! What a checkpoint costs against how much changed since the one before: bytes, and the part that workers wait for.

use crate::database::{Common, finish, run as execute, session};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate_engine::Session;

#[derive(Args)]
pub struct Options {
    /// Keys in the state.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// How many of them change between two checkpoints, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,100000")]
    changed: Vec<u64>,
    #[command(flatten)]
    common: Common,
}

pub async fn run(options: Options) -> Result<Value> {
    // Only the checkpoints that are asked for.
    let common = Common {
        checkpoints: "off".into(),
        ..options.common.clone()
    };
    let database = common.open().await?;
    let mut session = session(&database)?;
    let keys = options.keys;
    execute(
        &mut session,
        &format!(
            "CREATE SOURCE s (k bigint, x bigint) WITH (connector = 'datagen', rows = '{keys}',
               fields.k.kind = 'sequence', fields.k.start = '1',
               fields.x.kind = 'random', fields.x.min = '0', fields.x.max = '1000');
             CREATE TABLE t (k bigint, x bigint) APPEND ONLY;
             SET background_ddl = on;
             CREATE SINK result AS
               SELECT k, sum(x) AS total FROM (SELECT * FROM s UNION ALL SELECT * FROM t) AS u GROUP BY k
               WITH (connector = 'blackhole')"
        ),
    )
    .await?;
    finish(&database, &mut session, 1).await?;
    let full = checkpoint(&mut session, &database).await?;
    let mut measured = Vec::new();
    for changed in &options.changed {
        execute(
            &mut session,
            &format!(
                "INSERT INTO t SELECT (i * 7919) % {keys} + 1, 1 FROM generate_series(1, {changed}) AS g (i)"
            ),
        )
        .await?;
        execute(&mut session, "FLUSH").await?;
        let mut line = checkpoint(&mut session, &database).await?;
        line["changed_keys"] = json!(changed);
        measured.push(line);
    }
    let line = json!({
        "benchmark": "changes",
        "keys": keys,
        "backend": common.backend,
        "workers": database.status()?.workers,
        "first": full,
        "then": measured,
    });
    drop(session);
    database.shutdown().await?;
    common.clean();
    Ok(line)
}

async fn checkpoint(
    session: &mut Session,
    database: &std::sync::Arc<tidegate_engine::Database>,
) -> Result<Value> {
    let started = Instant::now();
    execute(session, "CHECKPOINT").await?;
    let seconds = started.elapsed().as_secs_f64();
    // Its record is written right behind it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let newest = database.checkpoints();
    let newest = newest
        .iter()
        .max_by_key(|c| c.checkpoint)
        .context("a checkpoint was taken")?;
    Ok(json!({
        "bytes": newest.bytes_written,
        "sync_ms": newest.sync_ms,
        "seconds": seconds,
        "bytes_total": newest.bytes_total,
    }))
}

//! Latency of small things: from an insert to its visibility, and point reads.

use crate::database::{Common, run as execute, session};
use anyhow::Result;
use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate_engine::api::{Response, ScalarValue, SessionApi};

#[derive(Args)]
pub struct InsertOptions {
    #[arg(long, default_value_t = 500)]
    inserts: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub struct ReadOptions {
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    #[arg(long, default_value_t = 20_000)]
    reads: u32,
    #[command(flatten)]
    common: Common,
}

/// The session reads its own write, so the read behind an insert waits until the view holds it.
pub async fn insert(options: InsertOptions) -> Result<Value> {
    let database = options.common.open().await?;
    let mut session = session(&database)?;
    execute(
        &mut session,
        "CREATE TABLE t (id bigint PRIMARY KEY, x bigint);
         CREATE MATERIALIZED VIEW v AS SELECT x % 10 AS g, sum(x) AS s FROM t GROUP BY 1",
    )
    .await?;
    let (mut durable, mut visible) = (Vec::new(), Vec::new());
    for id in 0..options.inserts {
        let started = Instant::now();
        execute(&mut session, &format!("INSERT INTO t VALUES ({id}, {id})")).await?;
        durable.push(started.elapsed());
        execute(&mut session, "SELECT s FROM v WHERE g = 0").await?;
        visible.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let line = json!({
        "benchmark": "insert-latency",
        "inserts": options.inserts,
        "durable_p50_ms": percentile(&mut durable, 0.5),
        "durable_p99_ms": percentile(&mut durable, 0.99),
        "visible_p50_ms": percentile(&mut visible, 0.5),
        "visible_p99_ms": percentile(&mut visible, 0.99),
    });
    database.shutdown().await?;
    options.common.clean();
    Ok(line)
}

pub async fn point_reads(options: ReadOptions) -> Result<Value> {
    let database = options.common.open().await?;
    let mut session = session(&database)?;
    let keys = options.keys;
    execute(
        &mut session,
        &format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, x bigint);
             INSERT INTO t SELECT i, i * 2 FROM generate_series(1, {keys}) AS s (i);
             CREATE MATERIALIZED VIEW v AS SELECT id, sum(x) AS s FROM t GROUP BY id"
        ),
    )
    .await?;
    let statement = session.parse("SELECT s FROM v WHERE id = $1")?.remove(0);
    let prepared = session.prepare(statement, Vec::new()).await?;
    let mut times = Vec::new();
    let started = Instant::now();
    for read in 0..options.reads {
        let id = (u64::from(read) * 7919) % keys + 1;
        let begun = Instant::now();
        let response = session
            .execute(&prepared, vec![ScalarValue::Int64(Some(id as i64))])
            .await?;
        let Response::Rows { mut stream, .. } = response else {
            anyhow::bail!("a query returns rows")
        };
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            rows += batch?.num_rows();
        }
        anyhow::ensure!(rows == 1, "key {id} has {rows} rows");
        times.push(begun.elapsed());
    }
    let seconds = started.elapsed().as_secs_f64();
    let line = json!({
        "benchmark": "point-reads",
        "keys": keys,
        "reads": options.reads,
        "reads_per_second": (f64::from(options.reads) / seconds).round(),
        "p50_ms": percentile(&mut times, 0.5),
        "p99_ms": percentile(&mut times, 0.99),
    });
    database.shutdown().await?;
    options.common.clean();
    Ok(line)
}

fn percentile(times: &mut [Duration], p: f64) -> f64 {
    times.sort_unstable();
    let index = ((times.len() as f64 - 1.0) * p) as usize;
    (times[index].as_secs_f64() * 1e6).round() / 1e3
}

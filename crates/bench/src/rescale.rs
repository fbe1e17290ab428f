//! For how long nothing can be read or written while the number of workers changes, over a state of so many keys.
//!
//! Between the changes a second session asks for one row after the other: the longest that one took is the pause as a
//! client sees it, beside the pause that the database measures.

use crate::database::{Common, finish, run as execute, session};
use crate::usage;
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidegate_engine::Database;
use tidegate_engine::api::SessionApi;

#[derive(Args)]
pub struct Options {
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Numbers of workers, one after the other, beside the one that the run begins with.
    #[arg(long, value_delimiter = ',', default_value = "1,2,1,2,4,2")]
    to: Vec<usize>,
    #[command(flatten)]
    common: Common,
}

pub async fn run(options: Options) -> Result<Value> {
    let database = options.common.open().await?;
    let mut session = session(&database)?;
    let keys = options.keys;
    execute(
        &mut session,
        &format!(
            "CREATE SOURCE s (k bigint, x bigint) WITH (connector = 'datagen', rows = '{keys}',
               fields.k.kind = 'sequence', fields.k.start = '1',
               fields.x.kind = 'random', fields.x.min = '0', fields.x.max = '1000');
             SET background_ddl = on;
             CREATE MATERIALIZED VIEW v AS SELECT k, sum(x) AS total FROM s GROUP BY k;
             CREATE TABLE t (id bigint PRIMARY KEY, x bigint)"
        ),
    )
    .await?;
    finish(&database, &mut session, 1).await?;
    let began_with = database.status()?.workers;
    let mut changes = Vec::new();
    for workers in &options.to {
        let stop = Arc::new(AtomicBool::new(false));
        let asking = tokio::spawn(keep_asking(database.clone(), stop.clone()));
        let started = Instant::now();
        execute(
            &mut session,
            &format!("ALTER SYSTEM SET workers = {workers}"),
        )
        .await?;
        let statement = started.elapsed();
        let notices = session.take_notices();
        let measured = notices.iter().find_map(|n| paused_ms(&n.content.message));
        stop.store(true, Ordering::SeqCst);
        let longest = asking.await??;
        changes.push(json!({
            "workers": workers,
            "statement_ms": millis(statement),
            "pause_ms": measured,
            "longest_read_ms": millis(longest),
        }));
    }
    let rows = execute(&mut session, "SELECT count(*) FROM v").await?;
    let longest = changes.iter().filter_map(|c| c["longest_read_ms"].as_f64());
    let line = json!({
        "benchmark": "rescale",
        "keys": keys,
        "backend": options.common.backend,
        "workers": began_with,
        "changes": changes.clone(),
        "longest_read_ms": longest.fold(0.0, f64::max),
        "rows": rows.concat().concat(),
        "resident_mb": usage::resident_bytes() / (1 << 20),
    });
    drop(session);
    database.shutdown().await?;
    options.common.clean();
    Ok(line)
}

/// Reads until told to stop; answers how long the longest took.
async fn keep_asking(database: Arc<Database>, stop: Arc<AtomicBool>) -> Result<Duration> {
    let mut session = session(&database)?;
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::SeqCst) {
        let started = Instant::now();
        execute(&mut session, "SELECT total FROM v WHERE k = 17").await?;
        longest = longest.max(started.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(longest)
}

/// From "…; statements waited for 12 ms".
fn paused_ms(notice: &str) -> Option<u64> {
    let (_, behind) = notice.split_once("waited for ")?;
    behind.split(' ').next()?.parse().ok()
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

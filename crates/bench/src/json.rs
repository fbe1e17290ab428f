//! Bids read from files of JSON lines, the way many streams begin: the files are written first, by a file sink, and the
//! clock runs while they are read.

use crate::database::{Common, finish, run as execute, session};
use crate::nexmark::{self, create_result};
use crate::usage;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

#[derive(Args)]
pub struct Options {
    /// A Nexmark query over bids: q0, q1, q2, q17 or q18.
    #[arg(long)]
    query: String,
    /// Events of the combined stream; 92 % are bids, and those are in the files.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// blackhole or view.
    #[arg(long, default_value = "blackhole")]
    into: String,
    #[command(flatten)]
    common: Common,
}

const COLUMNS: &str = "auction bigint, bidder bigint, price bigint, channel text, url text, date_time timestamp, extra text";

pub async fn run(options: Options) -> Result<Value> {
    let query = nexmark::query(&options.query)?;
    anyhow::ensure!(query.reads == ["bid"], "only queries over bids");
    let files = options.common.data_dir().with_extension("json");
    write_bids(&options, &files).await?;
    let bytes = directory_bytes(&files)?;

    let database = options.common.open().await?;
    let mut session = session(&database)?;
    let path = files.to_str().context("the path is text")?;
    execute(
        &mut session,
        &format!(
            "CREATE SOURCE bid ({COLUMNS}) WITH (connector = 'file', path = '{path}', follow = 'false') FORMAT PLAIN ENCODE JSON"
        ),
    )
    .await?;
    let (cpu, started) = (usage::cpu_seconds(), Instant::now());
    execute(&mut session, &create_result(query, &options.into)).await?;
    finish(&database, &mut session, 1).await?;
    let seconds = started.elapsed().as_secs_f64();
    let rows = options.events / 50 * 46;
    let line = json!({
        "benchmark": "json",
        "query": query.name,
        "into": options.into,
        "bids": rows,
        "workers": database.status()?.workers,
        "backend": options.common.backend,
        "checkpoints": options.common.checkpoints,
        "seconds": seconds,
        "bids_per_second": (rows as f64 / seconds).round(),
        "bytes": bytes,
        "bytes_per_second": (bytes as f64 / seconds).round(),
        "cpu_seconds": usage::cpu_seconds() - cpu,
        "peak_resident_mb": usage::peak_resident_bytes() / (1 << 20),
    });
    database.shutdown().await?;
    options.common.clean();
    std::fs::remove_dir_all(&files)?;
    Ok(line)
}

async fn write_bids(options: &Options, files: &Path) -> Result<()> {
    let database = options.common.open().await?;
    let mut session = session(&database)?;
    execute(
        &mut session,
        &format!(
            "CREATE SOURCE bid WITH (connector = 'nexmark', table = 'bid', events = '{}');
             CREATE SINK written FROM bid WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE JSON",
            options.events,
            files.display()
        ),
    )
    .await?;
    finish(&database, &mut session, 1).await?;
    // What a sink has written becomes visible with a checkpoint.
    execute(&mut session, "CHECKPOINT").await?;
    drop(session);
    database.shutdown().await?;
    options.common.clean();
    Ok(())
}

fn directory_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

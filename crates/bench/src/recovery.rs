//! How long it takes to open a database over a state of so many keys.

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
    /// Without the files in which a backend works: as after a move to another machine.
    #[arg(long)]
    moved: bool,
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
             CREATE MATERIALIZED VIEW v AS SELECT k, sum(x) AS total FROM s GROUP BY k"
        ),
    )
    .await?;
    finish(&database, &mut session, 1).await?;
    drop(session);
    database.shutdown().await?;
    drop(database);
    let working = options.common.data_dir().join("working");
    if options.moved && working.exists() {
        std::fs::remove_dir_all(&working)?;
    }
    let started = Instant::now();
    let database = options.common.open().await?;
    let opened = started.elapsed().as_secs_f64();
    let mut session = crate::database::session(&database)?;
    let rows = execute(&mut session, "SELECT count(*) FROM v")
        .await?
        .concat()
        .concat();
    let readable = started.elapsed().as_secs_f64();
    let line = json!({
        "benchmark": "recovery",
        "keys": keys,
        "backend": options.common.backend,
        "moved": options.moved,
        "workers": database.status()?.workers,
        "open_seconds": opened,
        "readable_seconds": readable,
        "rows": rows,
        "resident_mb": usage::resident_bytes() / (1 << 20),
    });
    drop(session);
    database.shutdown().await?;
    options.common.clean();
    Ok(line)
}

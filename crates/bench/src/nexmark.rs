//! Nexmark by SQL. The generator makes every column of every event, in this process, whatever the query looks at; tables
//! that it does not read go to a blackhole. Time runs from the statement that creates the query until the final barrier
//! has passed.

use crate::database::{Common, finish, run as execute, session};
use crate::usage;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use std::time::Instant;

#[derive(Args)]
pub struct Options {
    /// q0 to q22.
    #[arg(long)]
    query: String,
    /// Events of the combined stream: 2 % persons, 6 % auctions, 92 % bids.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// blackhole or view.
    #[arg(long, default_value = "blackhole")]
    into: String,
    /// Sources whose rows are late after four seconds, so that the state of windows is freed.
    #[arg(long)]
    watermarks: bool,
    #[command(flatten)]
    common: Common,
}

const TABLES: [&str; 3] = ["person", "auction", "bid"];

macro_rules! queries {
    ($($name:literal of $($table:literal)+),+ $(,)?) => {
        &[$(Query {
            name: $name,
            reads: &[$($table),+],
            sql: include_str!(concat!("../../../sql/nexmark/", $name, ".sql")),
        }),+]
    };
}

const QUERIES: &[Query] = queries![
    "q0" of "bid",
    "q1" of "bid",
    "q2" of "bid",
    "q3" of "auction" "person",
    "q4" of "auction" "bid",
    "q5" of "bid",
    "q6" of "auction" "bid",
    "q7" of "bid",
    "q8" of "person" "auction",
    "q9" of "auction" "bid",
    "q10" of "bid",
    "q11" of "bid",
    "q12" of "bid",
    "q13" of "bid",
    "q14" of "bid",
    "q15" of "bid",
    "q16" of "bid",
    "q17" of "bid",
    "q18" of "bid",
    "q19" of "bid",
    "q20" of "bid" "auction",
    "q21" of "bid",
    "q22" of "bid",
];

pub struct Query {
    pub name: &'static str,
    pub reads: &'static [&'static str],
    sql: &'static str,
}

pub fn query(name: &str) -> Result<&'static Query> {
    let query = QUERIES.iter().find(|query| query.name == name);
    query.with_context(|| {
        let names: Vec<_> = QUERIES.iter().map(|query| query.name).collect();
        format!("no query is called {name}; there are {}", names.join(", "))
    })
}

/// The statement that makes a query run.
pub fn create_result(query: &Query, into: &str) -> String {
    match into {
        "view" => format!(
            "SET background_ddl = on; CREATE MATERIALIZED VIEW result AS {}",
            query.sql
        ),
        _ => format!(
            "CREATE SINK result AS {} WITH (connector = 'blackhole')",
            query.sql
        ),
    }
}

pub async fn run(options: Options) -> Result<Value> {
    let query = query(&options.query)?;
    let database = options.common.open().await?;
    let mut session = session(&database)?;
    let watermark = match options.watermarks {
        true => "(WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds')",
        false => "",
    };
    for table in TABLES {
        let events = options.events;
        execute(
            &mut session,
            &format!("CREATE SOURCE {table} {watermark} WITH (connector = 'nexmark', table = '{table}', events = '{events}')"),
        )
        .await?;
    }
    let create = create_result(query, &options.into);
    let (cpu, started) = (usage::cpu_seconds(), Instant::now());
    execute(&mut session, &create).await?;
    for table in TABLES.iter().filter(|t| !query.reads.contains(t)) {
        execute(
            &mut session,
            &format!("CREATE SINK drain_{table} FROM {table} WITH (connector = 'blackhole')"),
        )
        .await?;
    }
    finish(&database, &mut session, TABLES.len()).await?;
    let seconds = started.elapsed().as_secs_f64();
    let checkpoints = database.checkpoints();
    let rows = if options.into == "view" {
        execute(&mut session, "SELECT count(*) FROM result")
            .await?
            .concat()
            .concat()
    } else {
        String::new()
    };
    let line = json!({
        "benchmark": "nexmark",
        "query": query.name,
        "into": options.into,
        "watermarks": options.watermarks,
        "events": options.events,
        "workers": database.status()?.workers,
        "backend": options.common.backend,
        "checkpoints": options.common.checkpoints,
        "seconds": seconds,
        "events_per_second": (options.events as f64 / seconds).round(),
        "cpu_seconds": usage::cpu_seconds() - cpu,
        "peak_resident_mb": usage::peak_resident_bytes() / (1 << 20),
        "completed_checkpoints": checkpoints.len(),
        "checkpoint_bytes": checkpoints.iter().map(|c| c.bytes_written).sum::<u64>(),
        "result_rows": rows,
    });
    database.shutdown().await?;
    options.common.clean();
    Ok(line)
}

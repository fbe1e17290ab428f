//! Benchmarks through the real engine, by SQL: one JSON line a run.
//!
//! `tidegate-bench nexmark --query q0 --events 10000000`, and the others that `--help` lists. Everything runs in this
//! process: generator, dataflow, checkpoints. Figures are of a release build only; see `docs/benchmarks.md`.

mod backpressure;
mod changes;
mod database;
mod idle;
mod json;
mod keyed;
mod latency;
mod nexmark;
mod plot;
mod recovery;
mod rescale;
mod usage;

use clap::{Parser, Subcommand};
use std::io::Write;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "tidegate-bench",
    about = "Benchmarks of Tidegate by SQL, one JSON line a run"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A Nexmark query over generated events, into a blackhole sink or a materialized view.
    Nexmark(nexmark::Options),
    /// Sums per key over generated rows.
    Keyed(keyed::Options),
    /// Nexmark queries over bids from files of JSON lines.
    Json(json::Options),
    /// Bytes and waiting time of a checkpoint against how many keys changed.
    Changes(changes::Options),
    /// How long the barrier of a checkpoint takes while rows queue, aligned and unaligned.
    Backpressure(backpressure::Options),
    /// From INSERT to visible in a view, one at a time.
    InsertLatency(latency::InsertOptions),
    /// Point reads of a view through prepared statements.
    PointReads(latency::ReadOptions),
    /// How long opening takes over a state of so many keys.
    Recovery(recovery::Options),
    /// For how long statements wait while the number of workers changes.
    Rescale(rescale::Options),
    /// What a server costs that has nothing to do.
    Idle(idle::Options),
    /// Draws what runs have printed.
    Plot(plot::Options),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let line = runtime.block_on(async {
        match cli.command {
            Command::Nexmark(options) => nexmark::run(options).await,
            Command::Keyed(options) => keyed::run(options).await,
            Command::Json(options) => json::run(options).await,
            Command::Changes(options) => changes::run(options).await,
            Command::Backpressure(options) => backpressure::run(options).await,
            Command::InsertLatency(options) => latency::insert(options).await,
            Command::PointReads(options) => latency::point_reads(options).await,
            Command::Recovery(options) => recovery::run(options).await,
            Command::Rescale(options) => rescale::run(options).await,
            Command::Idle(options) => idle::run(options).await,
            Command::Plot(options) => plot::run(&options),
        }
    })?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

//! The binary `tidegate`: from a command line to a running server, and to an exit code.
//!
//! [`cli`] reads the command line, [`settings`] lays command line, environment, file and defaults over each other,
//! [`logging`] begins to log, [`listen`] binds what may be bound, [`allocators`] suits memory to its limit, [`serve`] runs the database behind its listeners until a
//! signal comes. [`tools`] works on checkpoints, savepoints and state instead.
//!
//! Exit codes: 0 after a clean stop, 1 when something failed, 2 when the command line or a setting is wrong, 128 + signal
//! when a second signal cut the stop short.

mod allocators;
mod cli;
mod listen;
mod logging;
mod serve;
mod settings;
mod tools;

#[cfg(test)]
mod tests;

use clap::FromArgMatches;
use cli::{Cli, Command};
use settings::Options;
use std::io::Write;
use std::process::ExitCode;
use tidegate_types::SqlError;
use tools::Tool;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why the process ends without success.
#[derive(Debug)]
enum Failure {
    /// The command line, the environment or the configuration file asks for what cannot be.
    Usage(SqlError),
    /// Something did not work.
    Runtime(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Runtime(error)
    }
}

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            complain(&error);
            ExitCode::from(2)
        }
        Err(Failure::Runtime(error)) => {
            match error.downcast_ref::<SqlError>() {
                Some(error) => complain(error),
                None => say(&format!("tidegate: error: {error:#}\n")),
            }
            ExitCode::from(1)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let args = match cli.command {
        None => cli.server,
        Some(Command::Server(args)) => args,
        Some(Command::Checkpoint(command)) => return tools::run(Tool::Checkpoint(command)),
        Some(Command::Savepoint(command)) => return tools::run(Tool::Savepoint(command)),
        Some(Command::State(command)) => return tools::run(Tool::State(command)),
    };
    let options = Options::gather(&args, std::env::vars()).map_err(Failure::Usage)?;
    logging::start(&options).map_err(Failure::Usage)?;
    for name in &options.ignored_environment {
        tracing::warn!(variable = %name, "environment variable names no setting and is ignored");
    }
    serve::run(options)
}

/// An error as psql shows it, with the name of the program.
fn complain(error: &SqlError) {
    let mut text = format!("tidegate: error {}: {}\n", error.state, error.message);
    for (kind, more) in [("detail", &error.detail), ("hint", &error.hint)] {
        if let Some(more) = more {
            text.push_str(&format!("{kind}: {more}\n"));
        }
    }
    say(&text);
}

/// To stderr, outside of the log: the reader is a person at a terminal, or the log is not there yet.
fn say(text: &str) {
    // If stderr is closed there is nowhere left to complain.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

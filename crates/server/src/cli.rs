//! The command line.

use crate::settings::all_settings;
use crate::tools::{CheckpointCommand, SavepointCommand, StateCommand};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;

/// A streaming SQL database that speaks the Postgres wire protocol.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server; the same as no command at all.
    Server(ServerArgs),
    /// Checkpoints: list, describe, verify, copy and delete them while the server is down.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Savepoints: list, describe, verify, copy and delete them while the server is down.
    #[command(subcommand)]
    Savepoint(SavepointCommand),
    /// State tables of a checkpoint or savepoint, as rows.
    #[command(subcommand)]
    State(StateCommand),
}

#[derive(Debug, Default, Args)]
pub struct ServerArgs {
    /// Where everything is kept [default: ./tidegate-data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the Postgres wire protocol; loopback only [default: 127.0.0.1:7432].
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Address of health and metrics; loopback only [default: 127.0.0.1:7480].
    #[arg(long, value_name = "HOST:PORT")]
    pub http_listen: Option<String>,
    /// Worker threads [default: one per core].
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// A TOML file of settings: `name = value` lines.
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Begin a new, empty data directory with this savepoint, of whatever server: where it was copied to, with #NAME
    /// behind it if there are several.
    #[arg(long, value_name = "URL[#NAME]")]
    pub from_savepoint: Option<String>,
    /// With --from-savepoint: let go of state that belongs to nothing in the plans of this version, and build the views
    /// that it was of anew.
    #[arg(long, requires = "from_savepoint")]
    pub allow_non_restored_state: bool,
    /// Any setting; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Addresses of all processes of a cluster (not built yet).
    #[arg(long, value_name = "HOST:PORT,…", hide = true)]
    pub hosts: Option<String>,
    /// This process among the hosts (not built yet).
    #[arg(long, value_name = "N", hide = true)]
    pub process: Option<String>,
}

/// The command with every setting and its default in its help.
pub fn command() -> clap::Command {
    let settings = settings_help();
    Cli::command()
        .after_long_help(settings.clone())
        .mut_subcommand("server", |server| server.after_long_help(settings))
}

fn settings_help() -> String {
    let mut text = String::from(
        "Settings, by --set NAME=VALUE, by the environment (TIDEGATE_NAME) or in the configuration file,\n\
         each before the next:\n",
    );
    for setting in all_settings() {
        let default = if setting.default.is_empty() {
            "''"
        } else {
            setting.default
        };
        text.push_str(&format!(
            "  {} [default: {default}]\n      {}\n",
            setting.name, setting.description
        ));
    }
    text
}

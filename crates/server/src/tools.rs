//! The subcommands that work on storage rather than serve: what they take, and how they answer.
//!
//! An answer goes to stdout, as tables or with `--json`; progress and errors go to stderr. They end with 1 when something
//! that was verified is damaged.

use crate::Failure;
use crate::cli::ServerArgs;
use crate::settings::Options;
use anyhow::Context;
use clap::{Args, Subcommand};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use tidegate_engine::offline::{Origin, Report, StateRows, Tools};
use tidegate_types::SqlError;

/// Where the checkpoints and savepoints are.
#[derive(Debug, Args)]
pub struct Place {
    /// The server's data directory [default: ./tidegate-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The storage itself, as in checkpoint_storage: a directory or a URL. Also where savepoints were copied to.
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    storage: Option<String>,
    /// The server's configuration file.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Which state is meant: the newest checkpoint unless one is named.
#[derive(Debug, Args)]
pub struct Which {
    /// The checkpoint with this number.
    #[arg(long, value_name = "ID", conflicts_with = "savepoint")]
    checkpoint: Option<u64>,
    /// A savepoint.
    #[arg(long, value_name = "NAME")]
    savepoint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// All checkpoints that can be restored, and damaged ones, newest first.
    List(#[command(flatten)] Place),
    /// What a checkpoint holds; the newest unless one is named.
    Describe {
        id: Option<u64>,
        #[command(flatten)]
        place: Place,
    },
    /// Reads checkpoints and verifies every checksum; the newest unless some are named.
    Verify {
        ids: Vec<u64>,
        /// All there are.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Makes a savepoint of a checkpoint at another place.
    Copy {
        id: u64,
        /// A directory or URL.
        to: String,
        /// The name of the savepoint [default: checkpoint_ID].
        #[arg(long = "as", value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Deletes a checkpoint. The server must be down.
    Delete {
        id: u64,
        /// Also the newest one, from which the server would start.
        #[arg(long)]
        force: bool,
        /// In a bucket: become the owner, which stops a server that is running on it.
        #[arg(long)]
        take_over: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub enum SavepointCommand {
    /// All savepoints.
    List(#[command(flatten)] Place),
    /// What a savepoint holds; the only one unless one is named.
    Describe {
        name: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Reads savepoints and verifies every checksum; all unless some are named.
    Verify {
        names: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Copies a savepoint to another place, where it is complete.
    Copy {
        name: String,
        /// A directory or URL.
        to: String,
        /// Its name there [default: the same].
        #[arg(long = "as", value_name = "NAME")]
        new_name: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Deletes a savepoint. The server must be down; while it runs, RELEASE SAVEPOINT does this.
    Delete {
        name: String,
        /// In a bucket: become the owner, which stops a server that is running on it.
        #[arg(long)]
        take_over: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// The state tables there are.
    List {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        place: Place,
    },
    /// A state table as rows.
    Print {
        /// Its id, or RELATION.TABLE, or a table or materialized view for its rows.
        table: String,
        /// At most so many rows.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        place: Place,
    },
}

pub enum Tool {
    Checkpoint(CheckpointCommand),
    Savepoint(SavepointCommand),
    State(StateCommand),
}

pub fn run(tool: Tool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the threads of the tool")?;
    runtime.block_on(async {
        match tool {
            Tool::Checkpoint(command) => checkpoint(command).await,
            Tool::Savepoint(command) => savepoint(command).await,
            Tool::State(command) => state(command).await,
        }
    })
}

impl Place {
    fn location(&self) -> Result<String, Failure> {
        if let Some(storage) = &self.storage {
            return Ok(storage.clone());
        }
        let args = ServerArgs {
            data_dir: self.data_dir.clone(),
            config: self.config.clone(),
            ..ServerArgs::default()
        };
        let options = Options::gather(&args, std::env::vars()).map_err(Failure::Usage)?;
        let config = options.config.with_persisted().map_err(runtime_failure)?;
        Ok(config.checkpoint_storage())
    }

    async fn open(&self) -> Result<Tools, Failure> {
        Tools::open(&self.location()?)
            .await
            .map_err(runtime_failure)
    }

    fn answer(&self, report: &Report) -> Result<(), Failure> {
        say(&if self.json {
            report.json()
        } else {
            report.text()
        })
    }

    /// What was done, in a sentence.
    fn done(&self, sentence: &str) -> Result<(), Failure> {
        match self.json {
            true => say("{}\n"),
            false => say(&format!("{sentence}\n")),
        }
    }
}

impl Which {
    fn origin(&self) -> Origin {
        match &self.savepoint {
            Some(name) => Origin::Savepoint(Some(name.clone())),
            None => Origin::Checkpoint(self.checkpoint),
        }
    }
}

fn runtime_failure(error: SqlError) -> Failure {
    Failure::Runtime(error.into())
}

fn say(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write the answer")?),
    }
}

async fn checkpoint(command: CheckpointCommand) -> Result<(), Failure> {
    match command {
        CheckpointCommand::List(place) => place.answer(&place.open().await?.list_checkpoints()),
        CheckpointCommand::Describe { id, place } => {
            describe(&place, &Origin::Checkpoint(id)).await
        }
        CheckpointCommand::Verify { ids, all, place } => {
            let tools = place.open().await?;
            let wanted = match (all, ids.is_empty()) {
                (true, _) => tools.all_checkpoints(),
                (false, true) => vec![Origin::Checkpoint(None)],
                (false, false) => ids
                    .into_iter()
                    .map(|id| Origin::Checkpoint(Some(id)))
                    .collect(),
            };
            verify(&place, &tools, &wanted).await
        }
        CheckpointCommand::Copy {
            id,
            to,
            name,
            place,
        } => copy(&place, &Origin::Checkpoint(Some(id)), &to, name.as_deref()).await,
        CheckpointCommand::Delete {
            id,
            force,
            take_over,
            place,
        } => {
            let tools = place.open().await?;
            let deleted = tools.delete_checkpoint(id, force, take_over).await;
            deleted.map_err(runtime_failure)?;
            place.done(&format!("checkpoint {id} is deleted"))
        }
    }
}

async fn savepoint(command: SavepointCommand) -> Result<(), Failure> {
    match command {
        SavepointCommand::List(place) => place.answer(&place.open().await?.list_savepoints()),
        SavepointCommand::Describe { name, place } => {
            describe(&place, &Origin::Savepoint(name)).await
        }
        SavepointCommand::Verify { names, place } => {
            let tools = place.open().await?;
            let wanted = match names.is_empty() {
                true => tools.all_savepoints(),
                false => names
                    .into_iter()
                    .map(|n| Origin::Savepoint(Some(n)))
                    .collect(),
            };
            verify(&place, &tools, &wanted).await
        }
        SavepointCommand::Copy {
            name,
            to,
            new_name,
            place,
        } => {
            copy(
                &place,
                &Origin::Savepoint(Some(name)),
                &to,
                new_name.as_deref(),
            )
            .await
        }
        SavepointCommand::Delete {
            name,
            take_over,
            place,
        } => {
            let tools = place.open().await?;
            let deleted = tools.delete_savepoint(&name, take_over).await;
            deleted.map_err(runtime_failure)?;
            place.done(&format!("savepoint \"{name}\" is deleted"))
        }
    }
}

async fn describe(place: &Place, origin: &Origin) -> Result<(), Failure> {
    let tools = place.open().await?;
    place.answer(&tools.describe(origin).map_err(runtime_failure)?)
}

async fn verify(place: &Place, tools: &Tools, wanted: &[Origin]) -> Result<(), Failure> {
    let (report, whole) = tools.verify(wanted).await.map_err(runtime_failure)?;
    place.answer(&report)?;
    match whole {
        true => Ok(()),
        false => Err(Failure::Runtime(anyhow::anyhow!("not everything is whole"))),
    }
}

async fn copy(place: &Place, origin: &Origin, to: &str, name: Option<&str>) -> Result<(), Failure> {
    let tools = place.open().await?;
    let watched = std::io::stderr().is_terminal();
    let mut told = 0;
    let mut progress = |p: tidegate_engine::offline::Progress| {
        let percent = (p.bytes * 100).checked_div(p.bytes_total).unwrap_or(100);
        if watched && percent != told {
            told = percent;
            // A terminal that is gone is no reason to stop.
            let _ = write!(
                std::io::stderr(),
                "\r{percent} % of {} bytes",
                p.bytes_total
            );
        }
    };
    let copied = tools.copy(origin, to, name, &mut progress).await;
    if told > 0 {
        let _ = writeln!(std::io::stderr());
    }
    place.answer(&copied.map_err(runtime_failure)?)
}

async fn state(command: StateCommand) -> Result<(), Failure> {
    match command {
        StateCommand::List { which, place } => {
            let tools = place.open().await?;
            place.answer(&tools.list_state(&which.origin()).map_err(runtime_failure)?)
        }
        StateCommand::Print {
            table,
            limit,
            which,
            place,
        } => {
            let tools = place.open().await?;
            let rows = tools.state_rows(&which.origin(), &table);
            print(&place, rows.map_err(runtime_failure)?, limit).await
        }
    }
}

/// Rows as they come: a table is never held as a whole.
async fn print(place: &Place, mut rows: StateRows, limit: Option<usize>) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut first = true;
    while left > 0 {
        let Some(mut lines) = rows.next().await.map_err(runtime_failure)? else {
            break;
        };
        lines.truncate(left);
        left -= lines.len();
        match place.json {
            true => say(&json_lines(&rows, &lines))?,
            false => say(&rows.aligned(&lines, first))?,
        }
        first = false;
    }
    if first && !place.json {
        say("(no rows)\n")?;
    }
    Ok(())
}

/// One object a line.
fn json_lines(rows: &StateRows, lines: &[Vec<Option<String>>]) -> String {
    let mut text = String::new();
    for line in lines {
        let mut object = serde_json::Map::new();
        for (index, (column, value)) in rows.columns.iter().zip(line).enumerate() {
            let value = match value {
                None => serde_json::Value::Null,
                Some(text) if rows.is_bare(index) => serde_json::from_str(text)
                    .unwrap_or_else(|_| serde_json::Value::String(text.clone())),
                Some(text) => serde_json::Value::String(text.clone()),
            };
            object.insert(column.clone(), value);
        }
        text.push_str(&serde_json::Value::Object(object).to_string());
        text.push('\n');
    }
    text
}

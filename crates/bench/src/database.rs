//! A database of its own for each run, and statements on it.

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::api::{Response, RowStream, ScalarValue, SessionApi, SessionOptions};
use tidegate_engine::{Config, Database, Session};
use tidegate_types::SqlType;
use tidegate_types::text::write_text;

/// What all benchmarks take.
#[derive(Args, Clone)]
pub struct Common {
    /// Worker threads; one per core when absent.
    #[arg(long)]
    pub workers: Option<usize>,
    /// memory or rocksdb.
    #[arg(long, default_value = "memory")]
    pub backend: String,
    /// Time between checkpoints, or off.
    #[arg(long, default_value = "1s")]
    pub checkpoints: String,
    /// Where the run keeps its data; a directory under the system's temporary one when absent. Removed at the end.
    #[arg(long)]
    pub directory: Option<PathBuf>,
    /// Further settings, name=value.
    #[arg(long = "set")]
    pub settings: Vec<String>,
}

impl Common {
    pub fn data_dir(&self) -> PathBuf {
        let own = || std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
        self.directory.clone().unwrap_or_else(own)
    }

    pub async fn open(&self) -> Result<Arc<Database>> {
        let mut config = Config::new(self.data_dir())
            .with("state_backend", &self.backend)?
            .with("checkpoint_interval", &self.checkpoints)?;
        if let Some(workers) = self.workers {
            config = config.with("workers", &workers.to_string())?;
        }
        for setting in &self.settings {
            let (name, value) = setting.split_once('=').context("--set takes name=value")?;
            config = config.with(name, value)?;
        }
        Ok(Database::open(config).await?)
    }

    pub fn clean(&self) {
        // What is left behind is in a temporary directory.
        let _ = std::fs::remove_dir_all(self.data_dir());
    }
}

pub fn session(database: &Arc<Database>) -> Result<Session> {
    Ok(database.session(SessionOptions {
        user: "bench".into(),
        ..SessionOptions::default()
    })?)
}

/// Runs statements; answers the rows of the last as text.
pub async fn run(session: &mut Session, sql: &str) -> Result<Vec<Vec<String>>> {
    let mut last = Vec::new();
    for statement in session.parse(sql)? {
        let prepared = session.prepare(statement, Vec::new()).await?;
        last = match session
            .execute(&prepared, Vec::<ScalarValue>::new())
            .await?
        {
            Response::Rows { stream, .. } => collect(stream).await?,
            _ => Vec::new(),
        };
    }
    Ok(last)
}

/// Waits until the sources that are read have come to their end, and everything of them is visible.
pub async fn finish(database: &Arc<Database>, session: &mut Session, sources: usize) -> Result<()> {
    while database.status()?.finished_sources.len() < sources {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    run(session, "FLUSH").await?;
    Ok(())
}

/// Rows of a stream as text.
async fn collect(mut stream: RowStream) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let mut line = Vec::new();
            for (column, field) in batch.columns().iter().zip(batch.schema().fields()) {
                let mut text = String::new();
                write_text(column.as_ref(), &SqlType::from_field(field), row, &mut text);
                line.push(text);
            }
            rows.push(line);
        }
    }
    Ok(rows)
}

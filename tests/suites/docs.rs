//! Runs every SQL block of `README.md` and `docs/`, in order, each file against a fresh server.
//!
//! Left out, with the reason printed: blocks that begin with "```sql ignore", that hold commands of psql, or that
//! subscribe, which ends only when the client says so.

use super::runner::say;
use super::server::Server;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BLOCK_LIMIT: Duration = Duration::from_secs(60);

struct Block {
    line: usize,
    sql: String,
    excluded: Option<&'static str>,
}

pub async fn run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths = vec![root.join("README.md")];
    collect(&root.join("docs"), &mut paths);
    let (mut ran, mut failures) = (0, Vec::new());
    for path in paths.iter().filter(|path| path.exists()) {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let blocks = blocks(&std::fs::read_to_string(path).unwrap());
        if blocks.iter().all(|block| block.excluded.is_some()) {
            blocks.iter().for_each(|block| excluded(&name, block));
            continue;
        }
        let server = Server::start("memory").await;
        let client = server.connect().await;
        for block in &blocks {
            if block.excluded.is_some() {
                excluded(&name, block);
                continue;
            }
            ran += 1;
            match tokio::time::timeout(BLOCK_LIMIT, client.simple_query(&block.sql)).await {
                Ok(Ok(_)) => (),
                Ok(Err(error)) => {
                    let message = match error.as_db_error() {
                        Some(error) => format!("{} {}", error.code().code(), error.message()),
                        None => error.to_string(),
                    };
                    failures.push(format!("{name}:{}: {message}\n{}", block.line, block.sql));
                }
                Err(_) => failures.push(format!("{name}:{}: no answer in time", block.line)),
            }
        }
    }
    say(&format!(
        "docs: {ran} SQL blocks ran, {} wrong\n",
        failures.len()
    ));
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn excluded(name: &str, block: &Block) {
    if let Some(reason) = block.excluded {
        say(&format!(
            "docs:   excluded {name}:{}: {reason}\n",
            block.line
        ));
    }
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    for path in found {
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(kind) = line.trim().strip_prefix("```sql") else {
            continue;
        };
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| line.trim() != "```")
            .collect();
        let begins = |prefix: &str| {
            body.iter()
                .any(|line| line.trim().to_uppercase().starts_with(prefix))
        };
        let excluded = if kind.trim() == "ignore" {
            Some("marked to be ignored")
        } else if begins("\\") {
            Some("holds commands of psql")
        } else if begins("SUBSCRIBE") {
            Some("a subscription does not end by itself")
        } else {
            None
        };
        blocks.push(Block {
            line: number + 1,
            sql: body.join("\n"),
            excluded,
        });
    }
    blocks
}

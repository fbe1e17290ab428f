//! Runs every SQL block of `README.md` and `docs/`, in order, each file against a fresh server.
//!
//! Of the tables in `docs/sql` every row is run: its last column is an example, and the one before says what comes of it (see
//! `docs/sql/README.md`). In between blocks they run in the order in which they stand there.
//!
//! Left out, with the reason printed: blocks that begin with "```sql ignore", that hold commands of psql, or that
//! subscribe, which ends only when the client says so.

use super::runner::say;
use super::server::Server;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_postgres::Client;

const BLOCK_LIMIT: Duration = Duration::from_secs(60);

struct Block {
    line: usize,
    sql: String,
    excluded: Option<&'static str>,
    expected: Expected,
}

/// What comes of a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Nothing but that it works.
    Success,
    /// A query also works as a materialized view.
    Everywhere,
    /// It does not.
    InReads,
    /// This SQLSTATE.
    Refusal([u8; 5]),
}

pub async fn run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths = vec![root.join("README.md")];
    collect(&root.join("docs"), &mut paths);
    let (mut ran, mut failures) = (0, Vec::new());
    for path in paths.iter().filter(|path| path.exists()) {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let has_examples = name.starts_with("docs/sql/");
        let blocks = blocks(&std::fs::read_to_string(path).unwrap(), has_examples);
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
            if let Err(wrong) = judge(&client, block).await {
                failures.push(format!("{name}:{}: {wrong}\n{}", block.line, block.sql));
            }
        }
    }
    say(&format!(
        "docs: {ran} SQL blocks and examples ran, {} wrong\n",
        failures.len()
    ));
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

async fn judge(client: &Client, block: &Block) -> Result<(), String> {
    let said = answer(client, &block.sql).await?;
    if let Expected::Refusal(code) = block.expected {
        let code = String::from_utf8_lossy(&code).into_owned();
        return match said {
            Some((found, _)) if found == code => Ok(()),
            Some((found, message)) => Err(format!("{code} expected: {found} {message}")),
            None => Err(format!("{code} expected, and it works")),
        };
    }
    if let Some((code, message)) = said {
        return Err(format!("{code} {message}"));
    }
    let is_query = ["SELECT", "WITH", "VALUES"]
        .iter()
        .any(|w| block.sql.starts_with(w));
    let of_the_past = block.sql.contains("FOR SYSTEM_TIME");
    if block.expected == Expected::Success || !is_query || of_the_past {
        return Ok(());
    }
    let view = format!("CREATE MATERIALIZED VIEW example AS {}", block.sql);
    match (answer(client, &view).await?, block.expected) {
        (None, Expected::Everywhere) => {
            match answer(client, "DROP MATERIALIZED VIEW example").await? {
                None => Ok(()),
                Some((code, message)) => Err(format!("{code} {message}")),
            }
        }
        (None, _) => Err("a materialized view can hold it".to_owned()),
        (Some((code, message)), Expected::Everywhere) => {
            Err(format!("as a materialized view: {code} {message}"))
        }
        (Some(_), _) => Ok(()),
    }
}

/// The code and message of an error, if there is one.
async fn answer(client: &Client, sql: &str) -> Result<Option<(String, String)>, String> {
    let asked = tokio::time::timeout(BLOCK_LIMIT, client.simple_query(sql)).await;
    match asked.map_err(|_| "no answer in time".to_owned())? {
        Ok(_) => Ok(None),
        Err(error) => match error.as_db_error() {
            Some(e) => Ok(Some((e.code().code().to_owned(), e.message().to_owned()))),
            None => Err(error.to_string()),
        },
    }
}

/// A row of a table of examples.
fn example(line: &str) -> Option<(Expected, String)> {
    let cells = line.strip_prefix("| ")?.strip_suffix("` |")?;
    let (rest, sql) = cells.rsplit_once(" | `")?;
    let (_, says) = rest.rsplit_once(" | ")?;
    let expected = match says {
        "yes" => Expected::Everywhere,
        "reads" => Expected::InReads,
        code => Expected::Refusal(code.as_bytes().try_into().ok()?),
    };
    Some((expected, sql.replace("\\|", "|")))
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

fn blocks(text: &str, has_examples: bool) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(kind) = line.trim().strip_prefix("```sql") else {
            if let Some((expected, sql)) = example(line).filter(|_| has_examples) {
                blocks.push(Block {
                    line: number + 1,
                    sql,
                    excluded: None,
                    expected,
                });
            }
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
            expected: Expected::Success,
        });
    }
    blocks
}

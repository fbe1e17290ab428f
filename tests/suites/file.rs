//! The format of a suite: sqllogictest records in a schema, then rounds of data and queries.
//!
//! ```text
//! statement ok                 # expected to succeed
//! CREATE TABLE t (a int);
//!
//! statement error (42P07)      # expected to fail with this SQLSTATE
//! CREATE TABLE t (a int);
//!
//! # data                       <- what follows changes data
//! # queries                    <- what follows asks; another "# data" begins another round
//!
//! # not-a-view: why            <- the next query is not run as a materialized view
//! # skip: why                  <- the next record is not run against Tidegate
//! # types-differ: why          <- the next query's column types are Postgres' and ours are others
//! # not-in-postgres: why       <- the next record is not verified against Postgres
//! query IT rowsort             # B boolean, I integers, R real numbers and numeric, T anything else
//! SELECT a, b FROM t
//! ----
//! 1 x
//! ```
//!
//! Values are the text Postgres prints, separated by a blank; NULL is `NULL`, an empty string `(empty)`.

use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Schema,
    Data,
    Queries,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Rows,
    Values,
    No,
}

#[derive(Clone, Debug)]
pub enum Expect {
    Ok,
    Error(String),
    Rows {
        types: String,
        sort: Sort,
        rows: Vec<String>,
    },
}

/// Why a record is left out of some runs.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    pub not_a_view: Option<String>,
    pub skip: Option<String>,
    pub types_differ: Option<String>,
    pub not_in_postgres: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Record {
    /// Line of the first word of the record, from one.
    pub line: usize,
    pub section: Section,
    pub round: usize,
    pub sql: String,
    pub expect: Expect,
    pub marks: Marks,
    /// Lines of the file, from zero, that hold the expected rows.
    pub expected_lines: std::ops::Range<usize>,
}

pub struct Suite {
    pub path: PathBuf,
    pub name: String,
    pub records: Vec<Record>,
    lines: Vec<String>,
}

impl Suite {
    pub fn read(path: &Path) -> Suite {
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let records = parse(path, &lines);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Suite {
            path: path.to_owned(),
            name,
            records,
            lines,
        }
    }

    /// Writes the suite with other expected rows.
    pub fn rewrite(&self, answers: &[(usize, Vec<String>)]) {
        let mut lines = self.lines.clone();
        for (record, rows) in answers.iter().rev() {
            lines.splice(
                self.records[*record].expected_lines.clone(),
                rows.iter().cloned(),
            );
        }
        std::fs::write(&self.path, lines.join("\n") + "\n").unwrap();
    }
}

fn parse(path: &Path, lines: &[String]) -> Vec<Record> {
    let mut records = Vec::new();
    let (mut section, mut round) = (Section::Schema, 0);
    let run_skipped = std::env::var_os("TIDEGATE_SLT_RUN_SKIPPED").is_some();
    let mut marks = Marks::default();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim();
        let number = at + 1;
        at += 1;
        let known = |mark: &str| {
            line.strip_prefix(mark)
                .map(|reason| reason.trim().to_owned())
        };
        match line {
            "" => continue,
            "# data" => {
                round += usize::from(section == Section::Queries);
                section = Section::Data;
                continue;
            }
            "# queries" => {
                section = Section::Queries;
                continue;
            }
            _ if line.starts_with('#') => {
                marks.not_a_view = known("# not-a-view:").or(marks.not_a_view);
                marks.skip = known("# skip:").filter(|_| !run_skipped).or(marks.skip);
                marks.types_differ = known("# types-differ:").or(marks.types_differ);
                marks.not_in_postgres = known("# not-in-postgres:").or(marks.not_in_postgres);
                continue;
            }
            _ => (),
        }
        let mut words = line.split_whitespace();
        let mut expect = match (words.next(), words.next(), words.next()) {
            (Some("statement"), Some("ok"), None) => Expect::Ok,
            (Some("statement"), Some("error"), Some(state)) => {
                Expect::Error(state.trim_matches(['(', ')']).to_owned())
            }
            (Some("query"), Some(types), sort) => Expect::Rows {
                types: types.to_owned(),
                sort: match sort {
                    Some("rowsort") => Sort::Rows,
                    Some("valuesort") => Sort::Values,
                    None | Some("nosort") => Sort::No,
                    Some(other) => panic!("{}:{number}: unknown order {other}", path.display()),
                },
                rows: Vec::new(),
            },
            _ => panic!("{}:{number}: not a record: {line}", path.display()),
        };
        let begin = at;
        while at < lines.len() && !lines[at].is_empty() && lines[at] != "----" {
            at += 1;
        }
        let sql = lines[begin..at]
            .join("\n")
            .trim()
            .trim_end_matches(';')
            .to_owned();
        let mut expected_lines = at..at;
        if let Expect::Rows { rows, .. } = &mut expect {
            assert!(
                lines.get(at).is_some_and(|l| l == "----"),
                "{}:{number}: a query without ----",
                path.display()
            );
            at += 1;
            let begin = at;
            while at < lines.len() && !lines[at].is_empty() {
                rows.push(lines[at].clone());
                at += 1;
            }
            expected_lines = begin..at;
        }
        records.push(Record {
            line: number,
            section,
            round,
            sql,
            expect,
            marks: std::mem::take(&mut marks),
            expected_lines,
        });
    }
    records
}

/// The suites of the repository, by name.
pub fn all() -> Vec<Suite> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sqllogictest");
    let wanted = std::env::var("TIDEGATE_SLT_FILE").unwrap_or_default();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "slt"))
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .contains(&wanted)
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no suites in {}", directory.display());
    paths.iter().map(|path| Suite::read(path)).collect()
}

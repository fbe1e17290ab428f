//! A source over a file of JSON lines that grows while a round goes on; some of its lines cannot be read.

use crate::generate::Type::{self, *};
use crate::generate::{Generator, Relation};
use std::io::Write;
use std::path::{Path, PathBuf};

pub struct SourceFile {
    pub relation: Relation,
    path: PathBuf,
    /// Lines that are not rows.
    pub undecodable: usize,
}

const TYPES: [Type; 9] = [
    Int, BigInt, Numeric, Text, Bool, Date, Timestamp, Double, Small,
];

impl SourceFile {
    pub fn new(generator: &mut Generator, name: &str, directory: &Path) -> SourceFile {
        let mut columns = vec![("a".to_owned(), Int)];
        for i in 0..1 + generator.below(4) {
            columns.push((format!("c{i}"), TYPES[generator.below(TYPES.len())]));
        }
        columns.push(("s".to_owned(), Text));
        let path = directory.join(format!("{name}.jsonl"));
        std::fs::write(&path, "").unwrap();
        SourceFile {
            relation: Relation {
                name: name.to_owned(),
                columns,
                key: false,
                weight: 10,
            },
            path,
            undecodable: 0,
        }
    }

    fn columns(&self) -> String {
        let columns = self.relation.columns.iter();
        let columns = columns.map(|(name, of)| format!("{name} {}", of.sql()));
        columns.collect::<Vec<_>>().join(", ")
    }

    pub fn create_source(&self) -> String {
        format!(
            "CREATE SOURCE {} ({}) WITH (connector = 'file', path = '{}', follow = 'true') FORMAT PLAIN ENCODE JSON",
            self.relation.name,
            self.columns(),
            self.path.display()
        )
    }

    pub fn create_table(&self) -> String {
        format!("CREATE TABLE {} ({})", self.relation.name, self.columns())
    }

    /// Appends some lines; what a table has to be given instead.
    pub fn grow(&mut self, generator: &mut Generator) -> String {
        let mut lines = String::new();
        let mut rows = Vec::new();
        for _ in 0..1 + generator.below(6) {
            if generator.chance(10) {
                lines += generator.pick(&[
                    "{\"a\": \"many\"}\n",
                    "{\"a\": 1, \n",
                    "not JSON\n",
                    "{\"a\": 99999999999}\n",
                    "[1, 2]\n",
                ]);
                self.undecodable += 1;
            }
            let (mut json, mut sql) = (Vec::new(), Vec::new());
            for (name, of) in &self.relation.columns {
                let (in_json, in_sql) = generator.both(*of);
                // A field that is not there is NULL.
                if in_json != "null" || generator.chance(50) {
                    json.push(format!("\"{name}\": {in_json}"));
                }
                sql.push(in_sql);
            }
            lines += &format!("{{{}}}\n", json.join(", "));
            rows.push(format!("({})", sql.join(", ")));
        }
        let mut file = std::fs::File::options()
            .append(true)
            .open(&self.path)
            .unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        format!(
            "INSERT INTO {} VALUES {}",
            self.relation.name,
            rows.join(", ")
        )
    }
}

impl Generator {
    /// One value in JSON and in SQL.
    fn both(&mut self, of: Type) -> (String, String) {
        if self.chance(20) {
            return ("null".into(), "NULL".into());
        }
        let n = self.below(6) as i64;
        let bare = |text: String| (text.clone(), text);
        let quoted = |text: String| (format!("\"{text}\""), format!("'{text}'"));
        match of {
            Bool => bare((n % 2 == 0).to_string()),
            Text => quoted(self.pick(&["a", "b", "ab", "", "x y", "ä"]).to_owned()),
            Date => quoted(format!("2024-0{}-28", n + 1)),
            Timestamp => quoted(format!("2024-02-2{n} 1{n}:30:00")),
            Numeric => bare(format!("{n}.{}5", self.below(3))),
            Double => bare(format!("{}", n as f64 / 2.0 - 0.5)),
            BigInt => bare((n * 1_000_000_007).to_string()),
            _ => bare((n - 2).to_string()),
        }
    }
}

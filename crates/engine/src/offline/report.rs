//! What a tool has to tell, for people as aligned tables and for programs as JSON.

use serde_json::{Map, Value};
use std::fmt::Write;

/// Rows under a name. Columns are named as in JSON; people see them in the same words.
#[derive(Debug, Clone)]
pub struct Section {
    pub name: &'static str,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<Value>>,
    /// One row, shown as a list of its values: an object in JSON.
    pub single: bool,
}

impl Section {
    pub fn list(name: &'static str, columns: &[&'static str]) -> Self {
        Self {
            name,
            columns: columns.to_vec(),
            rows: Vec::new(),
            single: false,
        }
    }

    pub fn single(name: &'static str, values: Vec<(&'static str, Value)>) -> Self {
        let (columns, row) = values.into_iter().unzip();
        Self {
            name,
            columns,
            rows: vec![row],
            single: true,
        }
    }

    fn object(&self, row: &[Value]) -> Value {
        let pairs = self.columns.iter().zip(row);
        Value::Object(pairs.map(|(c, v)| ((*c).to_owned(), v.clone())).collect())
    }

    fn json(&self) -> Value {
        match self.rows.as_slice() {
            [row] if self.single => self.object(row),
            rows => Value::Array(rows.iter().map(|r| self.object(r)).collect()),
        }
    }

    fn text(&self, out: &mut String) {
        if self.single
            && let [row] = self.rows.as_slice()
        {
            let width = self.columns.iter().map(|c| c.len()).max().unwrap_or(0);
            for (column, value) in self.columns.iter().zip(row) {
                line(out, &format!("{:width$}  {}", words(column), shown(value)));
            }
            return;
        }
        let headers: Vec<String> = self.columns.iter().map(|c| words(c)).collect();
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|r| r.iter().map(shown).collect())
            .collect();
        let numbers = |c: usize| self.rows.iter().all(|r| r[c].is_number() || r[c].is_null());
        let right: Vec<bool> = (0..headers.len()).map(numbers).collect();
        aligned(&headers, &rows, &right, out);
    }
}

/// Lines of columns under each other.
pub(crate) fn aligned(headers: &[String], rows: &[Vec<String>], right: &[bool], out: &mut String) {
    let width = |c: usize| {
        let cells = rows.iter().map(|r| r[c].chars().count());
        cells.chain([headers[c].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let mut write = |cells: &[String], header: bool| {
        let mut text = String::new();
        for (c, cell) in cells.iter().enumerate() {
            let gap = if c == 0 { "" } else { "  " };
            let width = widths[c];
            // Writing to a string cannot fail.
            let _ = match right[c] && !header {
                true => write!(text, "{gap}{cell:>width$}"),
                false => write!(text, "{gap}{cell:width$}"),
            };
        }
        line(out, &text);
    };
    write(headers, true);
    let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
    write(&rule, true);
    for row in rows {
        write(row, false);
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

fn words(column: &str) -> String {
    column.replace('_', " ")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[derive(Debug, Clone, Default)]
pub struct Report {
    pub sections: Vec<Section>,
}

impl Report {
    pub fn of(sections: Vec<Section>) -> Self {
        Self { sections }
    }

    /// One object, with a member for each section.
    pub fn json(&self) -> String {
        let members = self.sections.iter().map(|s| (s.name.to_owned(), s.json()));
        let object = Value::Object(members.collect::<Map<_, _>>());
        let mut text = serde_json::to_string_pretty(&object).expect("plain data");
        text.push('\n');
        text
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        for (index, section) in self.sections.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            if section.rows.is_empty() {
                line(&mut out, &format!("(no {})", words(section.name)));
            } else {
                section.text(&mut out);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn sections_for_people_and_for_programs() {
        let mut list = Section::list("state_tables", &["name", "rows_kept"]);
        list.rows.push(vec![json!("left"), json!(12)]);
        list.rows.push(vec![json!("größe"), json!(3)]);
        let single = Section::single(
            "savepoint",
            vec![("name", json!("a")), ("taken_at", Value::Null)],
        );
        let report = Report::of(vec![single, list, Section::list("relations", &["name"])]);
        expect![[r#"
            name      a
            taken at

            name   rows kept
            -----  ---------
            left          12
            größe          3

            (no relations)
        "#]]
        .assert_eq(&report.text());
        let parsed: Value = serde_json::from_str(&report.json()).expect("it is JSON");
        assert_eq!(parsed["savepoint"]["name"], "a");
        assert_eq!(parsed["state_tables"][1]["rows_kept"], 3);
        assert_eq!(parsed["relations"], json!([]));
    }
}

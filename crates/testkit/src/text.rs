//! Batches as text: `+1 (1,abc)` a row, `--` a barrier, `L` and `R` (or `0`, `1`, …) in front for the input.
//!
//! Values are in Postgres's text form; nothing is NULL, `""` is the empty string, and a value with a comma or parenthesis
//! is quoted.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use std::fmt::Write;
use tidegate_dataflow::RowError;
use tidegate_types::text::{TextWriter, Value, ValueAppender, parse_text};
use tidegate_types::{Batch, Diff, SqlType};

/// What a text table says to do.
#[derive(Debug, Clone)]
pub enum Step {
    Batch(usize, Batch),
    Barrier,
}

/// The cells of a line, NULL being none, and its diff.
type TextRow = (Vec<Option<String>>, Diff);

/// Reads steps. Neighbouring lines of one input are one batch; an empty line separates two.
pub fn parse(text: &str, inputs: &[SchemaRef]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut open: Option<(usize, Vec<TextRow>)> = None;
    for line in text.lines().map(str::trim).chain(std::iter::once("")) {
        let row = if line.is_empty() || line == "--" {
            None
        } else {
            Some(parse_line(line))
        };
        let same_input =
            matches!((&open, &row), (Some((port, _)), Some((next, ..))) if port == next);
        if let Some((port, rows)) = open.take_if(|_| !same_input) {
            steps.push(Step::Batch(port, to_batch(&rows, &inputs[port])));
        }
        if let Some((port, cells, diff)) = row {
            open.get_or_insert_with(|| (port, Vec::new()))
                .1
                .push((cells, diff));
        }
        if line == "--" {
            steps.push(Step::Barrier);
        }
    }
    steps
}

fn parse_line(line: &str) -> (usize, Vec<Option<String>>, Diff) {
    let open = line
        .find('(')
        .unwrap_or_else(|| panic!("a row in parentheses: {line}"));
    let mut words: Vec<&str> = line[..open].split_whitespace().collect();
    let diff = words
        .pop()
        .and_then(|w| w.parse().ok())
        .unwrap_or_else(|| panic!("a diff before the row: {line}"));
    let port = match words.as_slice() {
        [] | ["L"] => 0,
        ["R"] => 1,
        [number] => number
            .parse()
            .unwrap_or_else(|_| panic!("L, R or a number: {line}")),
        _ => panic!("too many words before the row: {line}"),
    };
    let inner = line[open..]
        .strip_prefix('(')
        .and_then(|r| r.strip_suffix(')'));
    (
        port,
        split_cells(inner.unwrap_or_else(|| panic!("a closed parenthesis: {line}"))),
        diff,
    )
}

fn split_cells(inner: &str) -> Vec<Option<String>> {
    let (mut cells, mut cell, mut quoted, mut in_quotes) =
        (Vec::new(), String::new(), false, false);
    for character in inner.chars() {
        match character {
            '"' => (quoted, in_quotes) = (true, !in_quotes),
            ',' if !in_quotes => {
                cells.push((!cell.is_empty() || quoted).then(|| std::mem::take(&mut cell)));
                quoted = false;
            }
            other => cell.push(other),
        }
    }
    cells.push((!cell.is_empty() || quoted).then_some(cell));
    cells
}

fn to_batch(rows: &[TextRow], schema: &SchemaRef) -> Batch {
    let columns = schema.fields().iter().enumerate().map(|(index, field)| {
        let sql_type = SqlType::from_field(field);
        let mut appender = ValueAppender::new(&sql_type, rows.len());
        for (cells, _) in rows {
            // A row without columns is written `()`, which reads as one empty cell.
            match cells
                .get(index)
                .unwrap_or_else(|| panic!("a value for column {index}: {cells:?}"))
            {
                Some(text) => appender
                    .append(&parse_text(text, &sql_type).unwrap_or_else(|e| panic!("{text}: {e}"))),
                None => appender.append(&Value::Null),
            }
        }
        appender.finish()
    });
    let columns = columns.collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let records = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .expect("rows fit the schema");
    Batch::new(
        records,
        rows.iter()
            .map(|(_, diff)| *diff)
            .collect::<Vec<_>>()
            .into(),
    )
}

/// The lines of a batch, one per row, in its order.
pub fn lines(batch: &Batch) -> Vec<String> {
    let schema = batch.schema();
    let types: Vec<SqlType> = schema
        .fields()
        .iter()
        .map(|f| SqlType::from_field(f))
        .collect();
    let writers: Vec<TextWriter<'_>> = batch
        .columns()
        .iter()
        .zip(&types)
        .map(|(column, sql_type)| TextWriter::new(column.as_ref(), sql_type))
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            let mut line = format!("{:+} (", batch.diff(row));
            for (index, writer) in writers.iter().enumerate() {
                if index > 0 {
                    line.push(',');
                }
                let mut cell = String::new();
                writer.write(row, &mut cell);
                let quote =
                    cell.is_empty() && !writer.is_null(row) || cell.contains(['(', ')', ',', '"']);
                if quote {
                    write!(line, "\"{cell}\"").expect("strings take everything");
                } else {
                    line.push_str(&cell);
                }
            }
            line.push(')');
            line
        })
        .collect()
}

pub fn error_line(error: &RowError) -> String {
    format!(
        "! {:+} {} {} {}",
        error.diff, error.state, error.row, error.message
    )
}

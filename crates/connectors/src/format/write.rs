//! Batches to JSON lines and to CSV.
//!
//! JSON: numbers and booleans as such, NULL as `null`, `jsonb` embedded, arrays and rows as JSON, everything else as a
//! string in Postgres's text form (timestamps with `T`). What is written reads back as the same value.
//! CSV: Postgres's text form; NULL is the dialect's null string, a value equal to it is quoted.

use super::Encoder;
use super::csv::Dialect;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use tidegate_types::SqlType;
use tidegate_types::text::TextWriter;

/// Written to the file whenever so much has gathered.
const BUFFER_BYTES: usize = 256 << 10;
/// The column that says how often a row was added or removed.
pub(crate) const DIFF_COLUMN: &str = "diff";

/// Rows gathered in memory before they go to the file.
struct Output {
    file: File,
    buffer: String,
}

impl Output {
    fn new(file: File) -> Self {
        Self {
            file,
            buffer: String::with_capacity(BUFFER_BYTES),
        }
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(self.buffer.as_bytes())?;
        self.buffer.clear();
        Ok(())
    }
}

pub(crate) struct JsonEncoder {
    output: Output,
    /// For each column what comes before its value: a brace or comma, its name and a colon.
    prefixes: Vec<String>,
    types: Vec<SqlType>,
    changelog: bool,
}

impl JsonEncoder {
    pub fn new(file: File, schema: &SchemaRef, changelog: bool) -> Self {
        let prefix = |(index, field): (usize, &FieldRef)| {
            let mut prefix = String::from(if index == 0 { "{" } else { "," });
            json_string_into(field.name(), &mut prefix);
            prefix.push(':');
            prefix
        };
        Self {
            output: Output::new(file),
            prefixes: schema.fields().iter().enumerate().map(prefix).collect(),
            types: types(schema),
            changelog,
        }
    }
}

impl Encoder for JsonEncoder {
    fn write(&mut self, rows: &RecordBatch, diffs: Option<&Int64Array>) -> io::Result<()> {
        let cells = rows
            .columns()
            .iter()
            .zip(&self.types)
            .map(|(array, sql_type)| JsonCell::new(array, sql_type))
            .collect::<Vec<_>>();
        for row in 0..rows.num_rows() {
            let out = &mut self.output.buffer;
            for (cell, prefix) in cells.iter().zip(&self.prefixes) {
                out.push_str(prefix);
                cell.write(row, out);
            }
            if cells.is_empty() {
                out.push('{');
            }
            if self.changelog {
                let comma = if cells.is_empty() { "" } else { "," };
                let diff = diffs.map_or(1, |d| d.value(row));
                write!(out, "{comma}\"{DIFF_COLUMN}\":{diff}").expect("writing to a string");
            }
            out.push_str("}\n");
            self.output.flush_if_full()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<File> {
        self.output.flush()?;
        Ok(self.output.file)
    }
}

/// Writes the values of one column as JSON. What to do is decided once per column.
struct JsonCell<'a> {
    nulls: Option<NullBuffer>,
    form: JsonForm<'a>,
}

enum JsonForm<'a> {
    Boolean(&'a BooleanArray),
    /// A number, or a document: its text as it is.
    Verbatim(TextWriter<'a>),
    /// A number, or a string where it is none.
    Float(TextWriter<'a>),
    Timestamp(TextWriter<'a>),
    /// Any other text, in quotes.
    Text(TextWriter<'a>),
    Array(&'a ListArray, Box<JsonCell<'a>>),
    Record(Vec<(String, JsonCell<'a>)>),
}

impl<'a> JsonCell<'a> {
    fn new(array: &'a ArrayRef, sql_type: &SqlType) -> Self {
        let text = || TextWriter::new(array, sql_type);
        let form = match (sql_type, array.data_type()) {
            (SqlType::Jsonb, _) => JsonForm::Verbatim(text()),
            (_, DataType::Boolean) => JsonForm::Boolean(array.as_boolean()),
            (_, data_type) if data_type.is_integer() || data_type.is_decimal() => {
                JsonForm::Verbatim(text())
            }
            (_, data_type) if data_type.is_floating() => JsonForm::Float(text()),
            (_, DataType::Timestamp(..)) => JsonForm::Timestamp(text()),
            (_, DataType::List(element)) => {
                let list = array.as_list::<i32>();
                let element = JsonCell::new(list.values(), &SqlType::from_field(element));
                JsonForm::Array(list, Box::new(element))
            }
            (_, DataType::Struct(fields)) => {
                let columns = fields.iter().zip(array.as_struct().columns());
                let member = |(field, column): (&FieldRef, &'a ArrayRef)| {
                    let cell = JsonCell::new(column, &SqlType::from_field(field));
                    (field.name().clone(), cell)
                };
                JsonForm::Record(columns.map(member).collect())
            }
            _ => JsonForm::Text(text()),
        };
        Self {
            nulls: array.logical_nulls(),
            form,
        }
    }

    fn write(&self, row: usize, out: &mut String) {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return out.push_str("null");
        }
        match &self.form {
            JsonForm::Boolean(values) => {
                out.push_str(if values.value(row) { "true" } else { "false" });
            }
            JsonForm::Verbatim(text) => text.write(row, out),
            JsonForm::Float(text) => {
                let start = out.len();
                text.write(row, out);
                if out.ends_with(|c: char| c.is_ascii_alphabetic()) {
                    out.insert(start, '"');
                    out.push('"');
                }
            }
            JsonForm::Timestamp(text) => {
                out.push('"');
                let start = out.len();
                text.write(row, out);
                if let Some(space) = out[start..].find(' ') {
                    out.replace_range(start + space..=start + space, "T");
                }
                if out.ends_with("+00") {
                    out.truncate(out.len() - 3);
                    out.push('Z');
                }
                out.push('"');
            }
            JsonForm::Text(text) => {
                let start = out.len();
                text.write(row, out);
                quote_from(start, out);
            }
            JsonForm::Array(list, elements) => {
                let (from, to) = (list.value_offsets()[row], list.value_offsets()[row + 1]);
                out.push('[');
                for index in from..to {
                    if index > from {
                        out.push(',');
                    }
                    elements.write(index as usize, out);
                }
                out.push(']');
            }
            JsonForm::Record(members) => {
                out.push('{');
                for (index, (name, cell)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    json_string_into(name, out);
                    out.push(':');
                    cell.write(row, out);
                }
                out.push('}');
            }
        }
    }
}

/// Makes a string in quotes of what was appended since `start`.
fn quote_from(start: usize, out: &mut String) {
    if out.as_bytes()[start..].iter().any(needs_escape) {
        let text = out.split_off(start);
        return json_string_into(&text, out);
    }
    out.insert(start, '"');
    out.push('"');
}

fn needs_escape(byte: &u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..0x20)
}

/// A string in quotes, escaped no more than needed.
fn json_string_into(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                write!(out, "\\u{:04x}", u32::from(control)).expect("writing to a string");
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

pub(crate) struct CsvEncoder {
    output: Output,
    types: Vec<SqlType>,
    dialect: Dialect,
    changelog: bool,
    value: String,
}

impl CsvEncoder {
    pub fn new(file: File, schema: &SchemaRef, changelog: bool, dialect: &Dialect) -> Self {
        let mut encoder = Self {
            output: Output::new(file),
            types: types(schema),
            dialect: dialect.clone(),
            changelog,
            value: String::new(),
        };
        if dialect.header {
            for (index, field) in schema.fields().iter().enumerate() {
                encoder.separator(index);
                encoder.field(field.name());
            }
            if changelog {
                encoder.separator(schema.fields().len());
                encoder.field(DIFF_COLUMN);
            }
            encoder.output.buffer.push('\n');
        }
        encoder
    }

    fn separator(&mut self, index: usize) {
        if index > 0 {
            self.output.buffer.push(char::from(self.dialect.delimiter));
        }
    }

    /// A value that is not NULL, in quotes where it needs them.
    fn field(&mut self, value: &str) {
        let (quote, delimiter) = (
            char::from(self.dialect.quote),
            char::from(self.dialect.delimiter),
        );
        let special = |c: char| matches!(c, '\n' | '\r') || c == quote || c == delimiter;
        let out = &mut self.output.buffer;
        if value != self.dialect.null && !value.contains(special) {
            return out.push_str(value);
        }
        out.push(quote);
        for c in value.chars() {
            if c == quote {
                out.push(quote);
            }
            out.push(c);
        }
        out.push(quote);
    }
}

impl Encoder for CsvEncoder {
    fn write(&mut self, rows: &RecordBatch, diffs: Option<&Int64Array>) -> io::Result<()> {
        let cells = rows
            .columns()
            .iter()
            .zip(&self.types)
            .map(|(array, sql_type)| TextWriter::new(array, sql_type))
            .collect::<Vec<_>>();
        let mut value = std::mem::take(&mut self.value);
        for row in 0..rows.num_rows() {
            for (index, cell) in cells.iter().enumerate() {
                self.separator(index);
                if cell.is_null(row) {
                    self.output.buffer.push_str(&self.dialect.null);
                    continue;
                }
                value.clear();
                cell.write(row, &mut value);
                self.field(&value);
            }
            if self.changelog {
                self.separator(cells.len());
                let diff = diffs.map_or(1, |d| d.value(row));
                write!(self.output.buffer, "{diff}").expect("writing to a string");
            }
            self.output.buffer.push('\n');
            self.output.flush_if_full()?;
        }
        self.value = value;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<File> {
        self.output.flush()?;
        Ok(self.output.file)
    }
}

fn types(schema: &SchemaRef) -> Vec<SqlType> {
    schema
        .fields()
        .iter()
        .map(|field| SqlType::from_field(field))
        .collect()
}

#[cfg(test)]
mod tests;

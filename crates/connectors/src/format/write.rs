//! Batches to JSON lines and to CSV.
//!
//! JSON: numbers and booleans as such, NULL as `null`, `jsonb` embedded, arrays and rows as JSON, everything else as a
//! string in Postgres's text form (timestamps with `T`). What is written reads back as the same value.
//! CSV: Postgres's text form; NULL is the dialect's null string, a value equal to it is quoted.

use super::csv::Dialect;
use super::{Encoder, print};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use std::fs::File;
use std::io::{self, Write};
use tidegate_types::SqlType;

/// Written to the file whenever so much has gathered.
const BUFFER_BYTES: usize = 256 << 10;
/// The column that says how often a row was added or removed.
pub(crate) const DIFF_COLUMN: &str = "diff";

/// Rows gathered in memory before they go to the file.
struct Output {
    file: File,
    buffer: Vec<u8>,
}

impl Output {
    fn new(file: File) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

pub(crate) struct JsonEncoder {
    output: Output,
    /// For each column what comes before its value: a brace or comma, its name and a colon.
    prefixes: Vec<Vec<u8>>,
    types: Vec<SqlType>,
    changelog: bool,
}

impl JsonEncoder {
    pub fn new(file: File, schema: &SchemaRef, changelog: bool) -> Self {
        let prefix = |(index, field): (usize, &std::sync::Arc<Field>)| {
            let mut prefix = vec![if index == 0 { b'{' } else { b',' }];
            json_string_into(field.name().as_bytes(), &mut prefix);
            prefix.push(b':');
            prefix
        };
        Self {
            output: Output::new(file),
            prefixes: schema.fields().iter().enumerate().map(prefix).collect(),
            types: schema
                .fields()
                .iter()
                .map(|f| SqlType::from_field(f))
                .collect(),
            changelog,
        }
    }
}

impl Encoder for JsonEncoder {
    fn write(&mut self, rows: &RecordBatch, diffs: Option<&Int64Array>) -> io::Result<()> {
        for row in 0..rows.num_rows() {
            let out = &mut self.output.buffer;
            for (index, array) in rows.columns().iter().enumerate() {
                out.extend_from_slice(&self.prefixes[index]);
                json_into(array, &self.types[index], row, out);
            }
            if rows.num_columns() == 0 {
                out.push(b'{');
            }
            if self.changelog {
                let comma = if rows.num_columns() == 0 { "" } else { "," };
                let diff = diffs.map_or(1, |d| d.value(row));
                write!(out, "{comma}\"{DIFF_COLUMN}\":{diff}")?;
            }
            out.extend_from_slice(b"}\n");
            self.output.flush_if_full()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<File> {
        self.output.flush()?;
        Ok(self.output.file)
    }
}

/// Appends a value as JSON.
pub fn json_into(array: &ArrayRef, sql_type: &SqlType, row: usize, out: &mut Vec<u8>) {
    if array.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match array.data_type() {
        DataType::Boolean => {
            let truth = array.as_boolean().value(row);
            out.extend_from_slice(if truth { b"true" } else { b"false" });
        }
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Decimal128(..) => print::value_into(array, row, out),
        DataType::Float32 if array.as_primitive::<Float32Type>().value(row).is_finite() => {
            print::value_into(array, row, out);
        }
        DataType::Float64 if array.as_primitive::<Float64Type>().value(row).is_finite() => {
            print::value_into(array, row, out);
        }
        DataType::Utf8 if *sql_type == SqlType::Jsonb => print::value_into(array, row, out),
        DataType::Utf8 => json_string_into(array.as_string::<i32>().value(row).as_bytes(), out),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            out.push(b'"');
            let us = array.as_primitive::<TimestampMicrosecondType>().value(row);
            print::timestamp_into(us, b'T', out);
            out.extend_from_slice(if zone.is_some() { b"Z\"" } else { b"\"" });
        }
        DataType::List(element) => {
            let element_type = SqlType::from_field(element);
            let elements = array.as_list::<i32>().value(row);
            out.push(b'[');
            for index in 0..elements.len() {
                if index > 0 {
                    out.push(b',');
                }
                json_into(&elements, &element_type, index, out);
            }
            out.push(b']');
        }
        DataType::Struct(fields) => {
            out.push(b'{');
            for (index, (field, child)) in
                fields.iter().zip(array.as_struct().columns()).enumerate()
            {
                if index > 0 {
                    out.push(b',');
                }
                json_string_into(field.name().as_bytes(), out);
                out.push(b':');
                json_into(child, &SqlType::from_field(field), row, out);
            }
            out.push(b'}');
        }
        _ => {
            let mut text = Vec::new();
            print::value_into(array, row, &mut text);
            json_string_into(&text, out);
        }
    }
}

/// A string in quotes, escaped no more than needed.
pub(crate) fn json_string_into(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest
        .iter()
        .position(|b| matches!(b, b'"' | b'\\' | 0..0x20))
    {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

pub(crate) struct CsvEncoder {
    output: Output,
    dialect: Dialect,
    changelog: bool,
    value: Vec<u8>,
}

impl CsvEncoder {
    pub fn new(
        file: File,
        schema: &SchemaRef,
        changelog: bool,
        dialect: &Dialect,
    ) -> io::Result<Self> {
        let mut encoder = Self {
            output: Output::new(file),
            dialect: dialect.clone(),
            changelog,
            value: Vec::new(),
        };
        if dialect.header {
            for (index, field) in schema.fields().iter().enumerate() {
                encoder.separator(index);
                encoder.field(field.name().as_bytes());
            }
            if changelog {
                encoder.separator(schema.fields().len());
                encoder.field(DIFF_COLUMN.as_bytes());
            }
            encoder.output.buffer.push(b'\n');
        }
        Ok(encoder)
    }

    fn separator(&mut self, index: usize) {
        if index > 0 {
            self.output.buffer.push(self.dialect.delimiter);
        }
    }

    /// A value that is not NULL, in quotes where it needs them.
    fn field(&mut self, value: &[u8]) {
        let (quote, delimiter) = (self.dialect.quote, self.dialect.delimiter);
        let special = |b: &u8| matches!(b, b'\n' | b'\r') || *b == quote || *b == delimiter;
        let out = &mut self.output.buffer;
        if value != self.dialect.null.as_bytes() && !value.iter().any(special) {
            return out.extend_from_slice(value);
        }
        out.push(quote);
        for byte in value {
            if *byte == quote {
                out.push(quote);
            }
            out.push(*byte);
        }
        out.push(quote);
    }
}

impl Encoder for CsvEncoder {
    fn write(&mut self, rows: &RecordBatch, diffs: Option<&Int64Array>) -> io::Result<()> {
        for row in 0..rows.num_rows() {
            for (index, array) in rows.columns().iter().enumerate() {
                self.separator(index);
                if array.is_null(row) {
                    self.output
                        .buffer
                        .extend_from_slice(self.dialect.null.as_bytes());
                    continue;
                }
                let mut value = std::mem::take(&mut self.value);
                value.clear();
                print::value_into(array, row, &mut value);
                self.field(&value);
                self.value = value;
            }
            if self.changelog {
                self.separator(rows.num_columns());
                write!(self.output.buffer, "{}", diffs.map_or(1, |d| d.value(row)))?;
            }
            self.output.buffer.push(b'\n');
            self.output.flush_if_full()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<File> {
        self.output.flush()?;
        Ok(self.output.file)
    }
}

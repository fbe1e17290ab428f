//! CSV: RFC 4180, with Postgres's reading of NULL.
//!
//! Options: `header` (true: the first line names the columns; false: they come in the order of the source's),
//! `delimiter` (`,`), `quote` (`"`, doubled inside quotes), `null` (empty: what NULL looks like outside quotes). Columns
//! are matched by name; those that the file does not have are NULL, those that the source does not have are ignored.
//! A record may span lines inside quotes. A malformed record ends with its line.

use super::column::{Column, Values};
use super::{Consumed, DecodeError, Decoder, ROWS_BETWEEN_CHECKS, json};
use crate::options::Options;
use crate::{ConnectorError, Offset};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use std::collections::BTreeMap;
use tidegate_types::{SqlError, SqlState};

const OPTIONS: &[&str] = &["header", "delimiter", "quote", "null"];

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// How a CSV file is written.
#[derive(Debug, Clone)]
pub struct Dialect {
    pub header: bool,
    pub delimiter: u8,
    pub quote: u8,
    pub null: String,
}

impl Dialect {
    pub fn of(options: &BTreeMap<String, String>) -> Result<Self, ConnectorError> {
        let options = Options::new("ENCODE CSV", options, OPTIONS)?;
        let dialect = Self {
            header: options.boolean("header", true)?,
            delimiter: options.byte("delimiter", b',')?,
            quote: options.byte("quote", b'"')?,
            null: options.text("null").unwrap_or_default().to_owned(),
        };
        if dialect.delimiter == dialect.quote {
            return Err(ConnectorError::invalid(
                "options \"delimiter\" and \"quote\" of ENCODE CSV must differ",
            ));
        }
        let special = [dialect.delimiter, dialect.quote, b'\r', b'\n'];
        if dialect.null.bytes().any(|b| special.contains(&b)) {
            return Err(options.wrong("null", "a text without delimiter, quote and line break"));
        }
        Ok(dialect)
    }
}

pub(crate) struct CsvDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    dialect: Dialect,
    /// The names of all columns of the source, with the column of the projection that each goes to.
    names: Vec<(String, Option<usize>)>,
    /// For each field of a record the column that it goes to. Known after the header.
    mapping: Vec<Option<usize>>,
    rows: usize,
    errors: Vec<DecodeError>,
    fields: Vec<FieldText>,
    scratch: Vec<u8>,
}

/// Where a field is in the input.
#[derive(Debug, Clone, Copy)]
struct FieldText {
    start: usize,
    end: usize,
    quoted: bool,
    /// Holds doubled quotes.
    escaped: bool,
}

/// How reading a record ended.
enum Record {
    /// The record ends in front of this byte.
    Ends(usize),
    Incomplete,
    Malformed(SqlError, usize),
}

impl CsvDecoder {
    pub fn new(schema: &SchemaRef, projection: Option<&[usize]>, dialect: Dialect) -> Self {
        let target = |index: usize| match projection {
            None => Some(index),
            Some(projection) => projection.iter().position(|p| *p == index),
        };
        let names = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| (field.name().clone(), target(index)))
            .collect::<Vec<_>>();
        let schema = super::projected(schema, projection);
        Self {
            columns: schema.fields().iter().map(Column::new).collect(),
            schema,
            mapping: names.iter().map(|(_, target)| *target).collect(),
            names,
            dialect,
            rows: 0,
            errors: Vec::new(),
            fields: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Finds the fields of the record that begins at `start`. `end`: the input ends with the file.
    fn record(&mut self, input: &[u8], start: usize, end: bool) -> Record {
        self.fields.clear();
        let mut at = start;
        loop {
            let quoted = input.get(at) == Some(&self.dialect.quote);
            let field = if quoted {
                match self.quoted_field(input, at) {
                    Some(field) => field,
                    None if !end => return Record::Incomplete,
                    None => {
                        let error = malformed("unterminated CSV quoted field");
                        return Record::Malformed(error, line_end(input, start));
                    }
                }
            } else {
                self.plain_field(input, at)
            };
            self.fields.push(field);
            at = match (quoted, &input[field.end..]) {
                // Behind the closing quote, and behind the carriage return of a line break.
                (true, [_, b'\r', b'\n', ..]) => field.end + 2,
                (true, _) => field.end + 1,
                (false, [b'\r', b'\n', ..]) => field.end + 1,
                (false, _) => field.end,
            };
            match input.get(at) {
                None if end => return Record::Ends(at),
                None => return Record::Incomplete,
                Some(b'\n') => return Record::Ends(at + 1),
                Some(byte) if *byte == self.dialect.delimiter => at += 1,
                Some(b'\r') if at + 1 == input.len() && end => return Record::Ends(at + 1),
                Some(b'\r') if at + 1 == input.len() => return Record::Incomplete,
                Some(_) => {
                    let error = malformed("unexpected text behind a CSV quoted field");
                    return match input[at..].contains(&b'\n') || end {
                        true => Record::Malformed(error, line_end(input, at)),
                        false => Record::Incomplete,
                    };
                }
            }
        }
    }

    /// A field without quotes. A carriage return in front of the line break belongs to the break.
    fn plain_field(&self, input: &[u8], start: usize) -> FieldText {
        let stop = self.field_end(input, start);
        let break_behind = input.get(stop).is_none_or(|b| *b == b'\n');
        let cut = usize::from(break_behind && input[start..stop].ends_with(b"\r"));
        FieldText {
            start,
            end: stop - cut,
            quoted: false,
            escaped: false,
        }
    }

    /// A field at its opening quote, or `None` if the closing one is not there.
    fn quoted_field(&self, input: &[u8], at: usize) -> Option<FieldText> {
        let quote = self.dialect.quote;
        let (start, mut from, mut escaped) = (at + 1, at + 1, false);
        loop {
            let end = from + input[from..].iter().position(|b| *b == quote)?;
            if input.get(end + 1) != Some(&quote) {
                return Some(FieldText {
                    start,
                    end,
                    quoted: true,
                    escaped,
                });
            }
            escaped = true;
            from = end + 2;
        }
    }

    /// The next delimiter or line break, or the end of the input, eight bytes at a time.
    #[inline(always)]
    fn field_end(&self, input: &[u8], mut at: usize) -> usize {
        let delimiters = ONES * u64::from(self.dialect.delimiter);
        while let Some(chunk) = input.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*chunk);
            let (a, b) = (word ^ delimiters, word ^ (ONES * b'\n' as u64));
            // The lowest marked byte of each term is exact: borrows only disturb those above it.
            let marks = (a.wrapping_sub(ONES) & !a | b.wrapping_sub(ONES) & !b) & HIGHS;
            if marks != 0 {
                return at + marks.trailing_zeros() as usize / 8;
            }
            at += 8;
        }
        let delimiter = self.dialect.delimiter;
        while input
            .get(at)
            .is_some_and(|b| *b != delimiter && *b != b'\n')
        {
            at += 1;
        }
        at
    }

    /// Moves the fields that were found into the columns.
    fn row(&mut self, input: &[u8]) -> Result<(), SqlError> {
        let (found, expected) = (self.fields.len(), self.mapping.len());
        if found > expected {
            return Err(malformed("extra data after last expected column"));
        }
        if found < expected {
            return Err(malformed(format!(
                "{expected} fields expected, {found} found"
            )));
        }
        for (field, target) in self.fields.iter().zip(&self.mapping) {
            let Some(target) = target else { continue };
            let column = &mut self.columns[*target];
            let raw = &input[field.start..field.end];
            if !field.quoted && raw == self.dialect.null.as_bytes() {
                column.push_null()?;
                continue;
            }
            let bytes = match field.escaped {
                false => raw,
                true => {
                    undouble(raw, self.dialect.quote, &mut self.scratch);
                    &self.scratch
                }
            };
            let text = std::str::from_utf8(bytes).expect("cut from valid UTF-8 at ASCII");
            let array_as_json = matches!(column.values, Values::Array(..)) && text.starts_with('[');
            let pushed = match array_as_json {
                true => json::array_from_text(column, text),
                false => column.push_text(text),
            };
            pushed.map_err(|error| super::in_column(error, column.field.name()))?;
        }
        for column in &mut self.columns {
            if column.len() == self.rows {
                column.push_null()?;
            }
        }
        Ok(())
    }

    fn is_blank(&self) -> bool {
        // With a single column an empty line is a value.
        self.mapping.len() != 1
            && matches!(self.fields.as_slice(), [only] if !only.quoted && only.start == only.end)
    }
}

impl Decoder for CsvDecoder {
    fn preamble(&mut self, input: &[u8], end: bool) -> Result<Option<Consumed>, SqlError> {
        let Some(start) = super::byte_order_mark(input, end) else {
            return Ok(None);
        };
        if !self.dialect.header || (end && start == input.len()) {
            return Ok(Some(Consumed {
                bytes: start,
                lines: 0,
            }));
        }
        let stop = match self.record(input, start, end) {
            Record::Incomplete => return Ok(None),
            Record::Malformed(error, _) => return Err(error),
            Record::Ends(stop) => stop,
        };
        let mut scratch = Vec::new();
        self.mapping.clear();
        for field in &self.fields {
            undouble(
                &input[field.start..field.end],
                self.dialect.quote,
                &mut scratch,
            );
            let name = scratch.trim_ascii();
            let target = self
                .names
                .iter()
                .find(|(known, _)| known.as_bytes() == name);
            self.mapping.push(target.and_then(|(_, target)| *target));
        }
        let known = |field: &FieldText| {
            let name = input[field.start..field.end].trim_ascii();
            self.names.iter().any(|(known, _)| known.as_bytes() == name)
        };
        if !self.fields.iter().any(known) {
            let names = self
                .names
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>();
            return Err(malformed(format!(
                "its header names none of the columns {}",
                names.join(", ")
            )));
        }
        Ok(Some(Consumed {
            bytes: stop,
            lines: count_lines(&input[..stop]),
        }))
    }

    fn decode(&mut self, input: &[u8], end: bool, at: Offset, max_rows: usize) -> Consumed {
        let valid = match std::str::from_utf8(input) {
            Ok(_) => input.len(),
            Err(error) => error.valid_up_to(),
        };
        let mut consumed = Consumed::default();
        while consumed.bytes < input.len() && self.pending() < max_rows {
            let start = consumed.bytes;
            let (read, stop) = match self.record(input, start, end) {
                Record::Incomplete => break,
                Record::Malformed(error, stop) => (Err(error), stop),
                Record::Ends(stop) if self.is_blank() => {
                    consumed = Consumed {
                        bytes: stop,
                        lines: consumed.lines + 1,
                    };
                    continue;
                }
                Record::Ends(stop)
                    if stop > valid && std::str::from_utf8(&input[start..stop]).is_err() =>
                {
                    (Err(super::not_utf8()), stop)
                }
                Record::Ends(stop) => (self.row(input), stop),
            };
            match read {
                Ok(()) => self.rows += 1,
                Err(error) => {
                    for column in &mut self.columns {
                        column.truncate(self.rows.min(column.len()));
                    }
                    let raw = &input[start..stop];
                    self.errors
                        .push(DecodeError::new(error, raw, super::advance(at, consumed)));
                }
            }
            consumed = Consumed {
                bytes: stop,
                lines: consumed.lines + count_lines(&input[start..stop]),
            };
            if self.pending().is_multiple_of(ROWS_BETWEEN_CHECKS) && self.is_full() {
                break;
            }
        }
        consumed
    }

    fn pending(&self) -> usize {
        self.rows + self.errors.len()
    }

    fn is_full(&self) -> bool {
        self.columns.iter().any(Column::is_full)
    }

    fn finish(&mut self) -> (RecordBatch, Vec<DecodeError>) {
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        let rows = std::mem::take(&mut self.rows);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .expect("columns are made from the schema and are all of the same length");
        (batch, std::mem::take(&mut self.errors))
    }
}

fn malformed(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::BAD_COPY_FORMAT, message)
}

fn line_end(input: &[u8], from: usize) -> usize {
    input[from..]
        .iter()
        .position(|b| *b == b'\n')
        .map_or(input.len(), |end| from + end + 1)
}

/// A last line without a break is a line too.
fn count_lines(record: &[u8]) -> u64 {
    let breaks = record.iter().filter(|b| **b == b'\n').count() as u64;
    breaks + u64::from(record.last().is_some_and(|b| *b != b'\n'))
}

/// What is between quotes, with each doubled quote made one.
fn undouble(raw: &[u8], quote: u8, out: &mut Vec<u8>) {
    out.clear();
    let mut after_quote = false;
    for byte in raw {
        if *byte == quote && after_quote {
            after_quote = false;
            continue;
        }
        after_quote = *byte == quote;
        out.push(*byte);
    }
}

#[cfg(test)]
mod tests;

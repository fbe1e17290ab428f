//! JSON lines, parsed in one pass from bytes into columns.
//!
//! There is no intermediate document: a value is read by the column it goes to, a value that no column wants is checked
//! and skipped. What makes it fast is that rows resemble each other: for the n-th member of an object the decoder first
//! tries the key that was n-th before, one comparison of bytes, and only then looks the key up.
//!
//! One object per line; a line break inside a string has to be escaped in JSON, therefore the next line break always
//! ends the row and a malformed row costs that row alone. Members are matched to columns by name; of equal ones the last
//! counts; unknown ones are ignored, missing ones are NULL. Numbers and booleans are accepted for text and text for
//! everything that text can mean.

pub(crate) mod cursor;

use super::column::{Bytes, Column, Values, nul_character};
use super::{Consumed, DecodeError, Decoder, ROWS_BETWEEN_CHECKS, timestamp};
use crate::Offset;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use cursor::{Cursor, unescape};
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_types::text::{Value, canonical_jsonb, parse_text};
use tidegate_types::{SqlError, SqlState, SqlType};

/// A place in the order of members is learnt anew after so many rows that had another key there.
const MISSES_BEFORE_RELEARNING: u8 = 16;

pub(crate) struct JsonDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    order: Vec<Expected>,
    rows: usize,
    errors: Vec<DecodeError>,
    scratch: Vec<u8>,
}

/// The key that is likely at one place of an object, and the column it goes to.
struct Expected {
    /// The key with its quotes and the colon behind it.
    token: Vec<u8>,
    target: Option<usize>,
    misses: u8,
}

impl JsonDecoder {
    pub fn new(schema: &SchemaRef, projection: Option<&[usize]>) -> Self {
        let schema = super::projected(schema, projection);
        let columns = schema.fields().iter().map(Column::new).collect();
        let by_name =
            |(index, field): (usize, &Arc<arrow::datatypes::Field>)| (field.name().clone(), index);
        Self {
            columns,
            by_name: schema.fields().iter().enumerate().map(by_name).collect(),
            schema,
            order: Vec::new(),
            rows: 0,
            errors: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Reads the object at the cursor into the columns.
    fn row(&mut self, cursor: &mut Cursor<'_>) -> Result<(), SqlError> {
        cursor.skip_spaces();
        if cursor.peek() != b'{' {
            return Err(cursor.unexpected("an object"));
        }
        cursor.at += 1;
        cursor.skip_spaces();
        if cursor.peek() == b'}' {
            cursor.at += 1;
        } else {
            self.members(cursor)?;
        }
        cursor.skip_spaces();
        if !cursor.at_line_end() {
            return Err(cursor.unexpected("the end of the line"));
        }
        for column in &mut self.columns {
            if column.len() == self.rows {
                column.push_null()?;
            }
        }
        Ok(())
    }

    fn members(&mut self, cursor: &mut Cursor<'_>) -> Result<(), SqlError> {
        let mut place = 0;
        loop {
            let target = match self.order.get_mut(place) {
                Some(expected) if cursor.skip_token(&expected.token) => {
                    expected.misses = 0;
                    expected.target
                }
                _ => self.key(cursor, place)?,
            };
            place += 1;
            cursor.skip_spaces();
            match target {
                None => cursor.skip_value(0)?,
                Some(index) => {
                    let column = &mut self.columns[index];
                    if column.len() > self.rows {
                        column.truncate(self.rows);
                    }
                    if let Err(error) = value(column, cursor, &mut self.scratch) {
                        return Err(super::in_column(error, column.field.name()));
                    }
                }
            }
            cursor.skip_spaces();
            match cursor.peek() {
                b',' => {
                    cursor.at += 1;
                    cursor.skip_spaces();
                }
                b'}' => {
                    cursor.at += 1;
                    return Ok(());
                }
                _ => return Err(cursor.unexpected("\",\" or \"}\"")),
            }
        }
    }

    /// Reads a key and its colon, and learns that it is likely here.
    #[cold]
    fn key(&mut self, cursor: &mut Cursor<'_>, place: usize) -> Result<Option<usize>, SqlError> {
        let start = cursor.at;
        if cursor.peek() != b'"' {
            return Err(cursor.unexpected("a key in quotes"));
        }
        let (raw, escaped) = cursor.string()?;
        let target = if escaped {
            self.scratch.clear();
            unescape(raw, &mut self.scratch)?;
            std::str::from_utf8(&self.scratch)
                .ok()
                .and_then(|key| self.by_name.get(key))
        } else {
            std::str::from_utf8(raw)
                .ok()
                .and_then(|key| self.by_name.get(key))
        };
        let target = target.copied();
        let token_end = cursor.at;
        cursor.skip_spaces();
        if cursor.peek() != b':' {
            return Err(cursor.unexpected("\":\""));
        }
        let adjacent = cursor.at == token_end;
        cursor.at += 1;
        if adjacent {
            self.learn(place, cursor.since(start), target);
        }
        Ok(target)
    }

    fn learn(&mut self, place: usize, token: &[u8], target: Option<usize>) {
        let learnt = || Expected {
            token: token.to_vec(),
            target,
            misses: 0,
        };
        if self.order.len() == place {
            self.order.push(learnt());
        } else if let Some(expected) = self.order.get_mut(place) {
            expected.misses += 1;
            if expected.misses > MISSES_BEFORE_RELEARNING {
                *expected = learnt();
            }
        }
    }

    /// Also a column that has no value of the row yet may hold the first bytes of one.
    fn roll_back(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.rows.min(column.len()));
        }
    }
}

impl Decoder for JsonDecoder {
    fn preamble(&mut self, input: &[u8], end: bool) -> Result<Option<Consumed>, SqlError> {
        Ok(super::byte_order_mark(input, end).map(|bytes| Consumed { bytes, lines: 0 }))
    }

    fn decode(&mut self, input: &[u8], end: bool, at: Offset, max_rows: usize) -> Consumed {
        let complete = match input.iter().rposition(|b| *b == b'\n') {
            _ if end => input,
            Some(last) => &input[..=last],
            None => return Consumed::default(),
        };
        let valid = std::str::from_utf8(complete).is_ok();
        let mut cursor = Cursor::new(complete);
        let mut consumed = Consumed::default();
        while consumed.bytes < complete.len() && self.pending() < max_rows {
            cursor.at = consumed.bytes;
            cursor.zeros = 0;
            cursor.skip_spaces();
            let read = if cursor.at_line_end() {
                None
            } else if valid || cursor.line_is_utf8(consumed.bytes) {
                Some(self.row(&mut cursor))
            } else {
                Some(Err(super::not_utf8()))
            };
            if !matches!(read, Some(Err(_))) {
                cursor.skip_line_end();
            } else {
                cursor.at = consumed.bytes;
                cursor.skip_line();
            }
            match read {
                None => {}
                Some(Ok(())) => self.rows += 1,
                Some(Err(error)) => {
                    self.roll_back();
                    let raw = &complete[consumed.bytes..cursor.at];
                    self.errors
                        .push(DecodeError::new(error, raw, super::advance(at, consumed)));
                }
            }
            consumed = Consumed {
                bytes: cursor.at,
                lines: consumed.lines + 1,
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

/// Reads the value at the cursor into a column.
fn value(
    column: &mut Column,
    cursor: &mut Cursor<'_>,
    scratch: &mut Vec<u8>,
) -> Result<(), SqlError> {
    let first = cursor.peek();
    if first == b'n' {
        cursor.literal("null")?;
        return column.push_null();
    }
    match (&mut column.values, first) {
        (Values::BigInt(values), b'-' | b'0'..=b'9') => match cursor.small_integer() {
            Some(number) => values.push(number),
            None => return whole_number(column, cursor.number()?),
        },
        (Values::SmallInt(_) | Values::Integer(_), b'-' | b'0'..=b'9') => {
            return whole_number(column, cursor.number()?);
        }
        (Values::Text(bytes), b'"') => text(bytes, cursor)?,
        (Values::Text(_) | Values::Varchar(_), first) if first != b'"' => {
            // A number, a boolean, an array or an object: its own text.
            let start = cursor.at;
            cursor.skip_value(0)?;
            return column.push_text(as_text(cursor.since(start)));
        }
        (Values::Jsonb(bytes), _) => {
            let start = cursor.at;
            cursor.skip_value(0)?;
            bytes.push(canonical_jsonb(as_text(cursor.since(start)))?.as_bytes());
        }
        (Values::Timestamp(values, _), b'-' | b'0'..=b'9') => {
            values.push(timestamp::from_ms(cursor.number()?, &column.sql_type)?);
        }
        (Values::Array(ends, child), b'[') => {
            elements(child, cursor, scratch)?;
            ends.push(child.len() as i32);
        }
        (Values::Boolean(values), b't' | b'f') => {
            let truth = first == b't';
            cursor.literal(if truth { "true" } else { "false" })?;
            values.push(truth);
        }
        (_, b'"') => {
            let (raw, escaped) = cursor.string()?;
            let raw = if escaped {
                scratch.clear();
                unescape(raw, scratch)?;
                as_text(scratch)
            } else {
                as_text(raw)
            };
            return column.push_text(raw);
        }
        (values, b'-' | b'0'..=b'9') if takes_numbers(values) => {
            return column.push_text(cursor.number()?);
        }
        _ => {
            let start = cursor.at;
            cursor.skip_value(0)?;
            let sql_type = &column.sql_type;
            return Err(SqlError::new(
                SqlState::INVALID_TEXT_REPRESENTATION,
                format!(
                    "invalid input for type {sql_type}: {}",
                    shortened(cursor.since(start))
                ),
            ));
        }
    }
    column.end_value();
    Ok(())
}

fn takes_numbers(values: &Values) -> bool {
    matches!(
        values,
        Values::Real(_) | Values::Double(_) | Values::Numeric(..)
    )
}

/// JSON does not tell 1 from 1.0 and 1e0: what is whole is an integer.
fn whole_number(column: &mut Column, number: &str) -> Result<(), SqlError> {
    if !number.contains(['.', 'e', 'E']) {
        return column.push_text(number);
    }
    const FINE: SqlType = SqlType::Numeric {
        precision: 38,
        scale: 18,
    };
    const ONE: i128 = 10i128.pow(18);
    match parse_text(number, &FINE) {
        Ok(Value::Numeric(value)) if value % ONE == 0 => {
            column.push_text(&(value / ONE).to_string())
        }
        _ => parse_text(number, &column.sql_type).map(|_| ()),
    }
}

/// A string into a text column. Without escapes it is one copy.
fn text(bytes: &mut Bytes, cursor: &mut Cursor<'_>) -> Result<(), SqlError> {
    let (raw, escaped) = cursor.string()?;
    if !escaped {
        // Control characters, NUL among them, cannot be in a string unescaped.
        bytes.push(raw);
        return Ok(());
    }
    let start = bytes.values.len();
    unescape(raw, &mut bytes.values)?;
    if bytes.values[start..].contains(&0) {
        return Err(nul_character());
    }
    bytes.end_value();
    Ok(())
}

fn elements(
    child: &mut Column,
    cursor: &mut Cursor<'_>,
    scratch: &mut Vec<u8>,
) -> Result<(), SqlError> {
    cursor.at += 1;
    cursor.skip_spaces();
    if cursor.peek() == b']' {
        cursor.at += 1;
        return Ok(());
    }
    loop {
        value(child, cursor, scratch)?;
        cursor.skip_spaces();
        match cursor.peek() {
            b',' => {
                cursor.at += 1;
                cursor.skip_spaces();
            }
            b']' => {
                cursor.at += 1;
                return Ok(());
            }
            _ => return Err(cursor.unexpected("\",\" or \"]\"")),
        }
    }
}

/// Reads an array from a text that holds JSON, for formats that have no arrays of their own.
pub(crate) fn array_from_text(column: &mut Column, text: &str) -> Result<(), SqlError> {
    let mut cursor = Cursor::new(text.as_bytes());
    cursor.skip_spaces();
    value(column, &mut cursor, &mut Vec::new())?;
    cursor.skip_spaces();
    match cursor.at == text.len() {
        true => Ok(()),
        false => Err(cursor.unexpected("the end of the array")),
    }
}

/// The input was validated as UTF-8, and is only ever cut at ASCII characters.
fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("cut from valid UTF-8 at quotes")
}

fn shortened(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(64)]).into_owned();
    if value.len() > 64 { text + "…" } else { text }
}

#[cfg(test)]
mod tests;

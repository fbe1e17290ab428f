//! Values as text, exactly as Postgres 15 prints and reads them with `DateStyle = ISO, MDY`, `IntervalStyle = postgres`,
//! `bytea_output = hex`, `extra_float_digits = 1` and `TimeZone = UTC`.
//!
//! - Out: [`TextWriter`] over an Arrow array of any type; [`write_text`] for one value; [`to_text`] for a cast to `text`.
//! - In: [`parse_text`] gives a [`Value`]; a [`ValueAppender`] collects values into the Arrow array of their type;
//!   [`from_text`] is a cast of a whole column. Errors have Postgres's SQLSTATE, wording, detail and hint.
//!
//! Where the kept types are narrower than Postgres's, values that do not fit are refused (22003, 22008): `numeric` has at
//! most 38 digits and no NaN, timestamps end in the year 294247, an interval's time part within 292 years. A `numeric`
//! that was declared without a scale is kept with ten decimals and printed without trailing zeros. `infinity` of dates and
//! timestamps is the largest value of their Arrow type. Input that needs a clock (`now`, `today`) or a time-zone database
//! (`Europe/Berlin`) is refused: what a text means must not depend on when it is read.

mod bytes;
mod datetime;
mod datetime_input;
mod datetime_names;
mod interval;
mod json;
mod nested;
mod number;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use datetime::{civil_from_days, days_from_civil};
pub use json::{Json, canonical_jsonb};
pub use value::{IntervalValue, Value, ValueAppender};
pub use write::{TextWriter, write_text};

use crate::{SqlError, SqlState, SqlType};
use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};

/// Reads a value of a type from its text form, as Postgres's input function of that type does.
pub fn parse_text(text: &str, sql_type: &SqlType) -> Result<Value, SqlError> {
    Ok(match sql_type {
        SqlType::Boolean => Value::Boolean(bytes::parse_boolean(text)?),
        SqlType::SmallInt => Value::SmallInt(number::parse_integer(text, sql_type)? as i16),
        SqlType::Integer => Value::Integer(number::parse_integer(text, sql_type)? as i32),
        SqlType::BigInt => Value::BigInt(number::parse_integer(text, sql_type)?),
        SqlType::Real => Value::Real(number::parse_real(text)?),
        SqlType::Double => Value::Double(number::parse_double(text)?),
        SqlType::Numeric { precision, scale } => {
            Value::Numeric(number::parse_numeric(text, *precision, *scale)?)
        }
        SqlType::Text | SqlType::Other(_) => Value::Text(text.to_owned()),
        SqlType::Varchar { length } => Value::Text(fit_varchar(text, *length)?.to_owned()),
        SqlType::Char { length } => Value::Text(fit_char(text, *length)?.to_owned()),
        SqlType::Bytea => Value::Bytea(bytes::parse_bytea(text)?),
        SqlType::Date => Value::Date(datetime_input::parse_date(text)?),
        SqlType::Time => Value::Time(datetime_input::parse_time(text)?),
        SqlType::Timestamp => Value::Timestamp(datetime_input::parse_timestamp(text, false)?),
        SqlType::TimestampTz => Value::Timestamp(datetime_input::parse_timestamp(text, true)?),
        SqlType::Interval => Value::Interval(interval::parse_interval(text)?),
        SqlType::Uuid => Value::Uuid(bytes::parse_uuid(text)?),
        SqlType::Jsonb => Value::Text(canonical_jsonb(text)?),
        SqlType::Array(element) => Value::List(nested::parse_array(text, element)?),
        SqlType::Record(fields) => Value::Record(nested::parse_record(text, fields)?),
    })
}

/// Reads a whole column. The error says which row it was.
pub fn from_text(column: &StringArray, sql_type: &SqlType) -> Result<ArrayRef, (usize, SqlError)> {
    let mut appender = ValueAppender::new(sql_type, column.len());
    for (row, text) in column.iter().enumerate() {
        match text {
            Some(text) => appender.append(&parse_text(text, sql_type).map_err(|e| (row, e))?),
            None => appender.append(&Value::Null),
        }
    }
    Ok(appender.finish())
}

/// A cast to `text`: as [`TextWriter`] writes, but booleans are spelled out, and `char(n)` loses its padding.
pub fn to_text(array: &dyn Array, sql_type: &SqlType) -> StringArray {
    let unpadded = match sql_type {
        SqlType::Char { .. } => &SqlType::Text,
        other => other,
    };
    let writer = TextWriter::new(array, unpadded);
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut cell = String::new();
    for row in 0..array.len() {
        if writer.is_null(row) {
            out.append_null();
            continue;
        }
        cell.clear();
        writer.write(row, &mut cell);
        match sql_type {
            SqlType::Boolean => out.append_value(if cell == "t" { "true" } else { "false" }),
            SqlType::Char { .. } => out.append_value(cell.trim_end_matches(' ')),
            _ => out.append_value(&cell),
        }
    }
    out.finish()
}

/// A value for a `varchar(n)` column: what is too long may only be so by trailing spaces, which are cut.
pub fn fit_varchar(text: &str, length: u32) -> Result<&str, SqlError> {
    fit(text, length).ok_or_else(|| too_long("character varying", length))
}

/// A value for a `char(n)` column, as it is kept: without trailing spaces. They come back when it is printed.
pub fn fit_char(text: &str, length: u32) -> Result<&str, SqlError> {
    match fit(text, length) {
        Some(fitting) => Ok(fitting.trim_end_matches(' ')),
        None => Err(too_long("character", length)),
    }
}

fn fit(text: &str, length: u32) -> Option<&str> {
    match text.char_indices().nth(length as usize) {
        None => Some(text),
        Some((end, _)) if text[end..].bytes().all(|b| b == b' ') => Some(&text[..end]),
        Some(_) => None,
    }
}

fn too_long(type_name: &str, length: u32) -> SqlError {
    SqlError::new(
        SqlState::STRING_TOO_LONG,
        format!("value too long for type {type_name}({length})"),
    )
}

fn invalid(type_name: &str, text: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

/// What C's `isspace` says in the C locale; Postgres trims no other characters.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii() && is_space(c as u8))
}

/// So many microseconds as an interval of days and time prints.
pub fn micros_as_interval(micros: i64) -> String {
    const DAY: i64 = 86_400_000_000;
    let mut out = String::new();
    interval::write_interval(0, micros / DAY, i128::from(micros % DAY), &mut out);
    out
}

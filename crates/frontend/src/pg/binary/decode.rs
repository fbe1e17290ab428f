//! Binary parameters to values. A length that does not fit the type is 22P03, as in Postgres.

use super::{EPOCH_DAYS, EPOCH_MICROS};
use crate::pg::message::utf8;
use crate::pg::types::oid_of;
use bytes::Buf;
use tidegate_types::text::{IntervalValue, Value, parse_text};
use tidegate_types::{SqlError, SqlState, SqlType};

/// Reads a value of a type from its binary form. `what` names it in errors: `bind parameter 1`.
pub(in crate::pg) fn decode_binary(
    mut bytes: &[u8],
    sql_type: &SqlType,
    what: &str,
) -> Result<Value, SqlError> {
    let value = take(&mut bytes, sql_type, what)?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(incorrect(what))
    }
}

fn incorrect(what: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_BINARY_REPRESENTATION,
        format!("incorrect binary data format in {what}"),
    )
}

fn array<const N: usize>(bytes: &mut &[u8], what: &str) -> Result<[u8; N], SqlError> {
    let (taken, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or_else(|| incorrect(what))?;
    *bytes = rest;
    Ok(*taken)
}

fn take(bytes: &mut &[u8], sql_type: &SqlType, what: &str) -> Result<Value, SqlError> {
    Ok(match sql_type {
        SqlType::Boolean => Value::Boolean(array::<1>(bytes, what)?[0] != 0),
        SqlType::SmallInt => Value::SmallInt(i16::from_be_bytes(array(bytes, what)?)),
        SqlType::Integer => Value::Integer(i32::from_be_bytes(array(bytes, what)?)),
        // An oid has four bytes, and no type of its own here.
        SqlType::BigInt if bytes.len() == 4 => {
            Value::BigInt(u32::from_be_bytes(array(bytes, what)?) as i64)
        }
        SqlType::BigInt => Value::BigInt(i64::from_be_bytes(array(bytes, what)?)),
        SqlType::Real => Value::Real(f32::from_be_bytes(array(bytes, what)?)),
        SqlType::Double => Value::Double(f64::from_be_bytes(array(bytes, what)?)),
        // By way of its text, so that rounding and overflow are decided in one place.
        SqlType::Numeric { .. } => parse_text(&numeric_text(bytes, what)?, sql_type)?,
        SqlType::Text | SqlType::Varchar { .. } | SqlType::Char { .. } | SqlType::Other(_) => {
            parse_text(utf8(std::mem::take(bytes))?, sql_type)?
        }
        SqlType::Jsonb => match std::mem::take(bytes) {
            [1, text @ ..] => parse_text(utf8(text)?, sql_type)?,
            // The type json has no version byte.
            text @ ([
                b'{' | b'[' | b'"' | b't' | b'f' | b'n' | b'-' | b' ' | b'\t' | b'\n' | b'\r',
                ..,
            ]
            | [b'0'..=b'9', ..]) => parse_text(utf8(text)?, sql_type)?,
            _ => return Err(incorrect(what)),
        },
        SqlType::Bytea => Value::Bytea(std::mem::take(bytes).to_vec()),
        SqlType::Date => match i32::from_be_bytes(array(bytes, what)?) {
            infinite @ (i32::MAX | i32::MIN) => Value::Date(infinite),
            days => Value::Date(
                days.checked_add(EPOCH_DAYS)
                    .ok_or_else(|| out_of_range("date"))?,
            ),
        },
        SqlType::Time => match i64::from_be_bytes(array(bytes, what)?) {
            micros @ 0..=86_400_000_000 => Value::Time(micros),
            _ => return Err(out_of_range("time")),
        },
        SqlType::Timestamp | SqlType::TimestampTz => {
            match i64::from_be_bytes(array(bytes, what)?) {
                infinite @ (i64::MAX | i64::MIN) => Value::Timestamp(infinite),
                micros => Value::Timestamp(
                    micros
                        .checked_add(EPOCH_MICROS)
                        .ok_or_else(|| out_of_range("timestamp"))?,
                ),
            }
        }
        SqlType::Interval => {
            let micros = i64::from_be_bytes(array(bytes, what)?);
            Value::Interval(IntervalValue {
                nanos: micros
                    .checked_mul(1_000)
                    .ok_or_else(|| out_of_range("interval"))?,
                days: i32::from_be_bytes(array(bytes, what)?),
                months: i32::from_be_bytes(array(bytes, what)?),
            })
        }
        SqlType::Uuid => Value::Uuid(array(bytes, what)?),
        SqlType::Array(element) => Value::List(take_array(bytes, element, what)?),
        SqlType::Record(_) => {
            return Err(SqlError::not_supported(
                "a parameter of a composite type in binary format",
            ));
        }
    })
}

fn out_of_range(what: &str) -> SqlError {
    SqlError::new(SqlState::DATETIME_OVERFLOW, format!("{what} out of range"))
}

fn take_array(bytes: &mut &[u8], element: &SqlType, what: &str) -> Result<Vec<Value>, SqlError> {
    let [dimensions, _has_nulls, oid] = [
        i32::from_be_bytes(array(bytes, what)?),
        i32::from_be_bytes(array(bytes, what)?),
        i32::from_be_bytes(array(bytes, what)?),
    ];
    let text = |oid: u32| matches!(oid, 19 | 25 | 1042 | 1043);
    if oid as u32 != oid_of(element) && !(text(oid as u32) && text(oid_of(element))) {
        return Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "binary data has array element type {oid} instead of expected {}",
                oid_of(element)
            ),
        ));
    }
    let length = match dimensions {
        0 => return Ok(vec![]),
        1 => i32::from_be_bytes(array(bytes, what)?),
        _ => {
            return Err(SqlError::not_supported(
                "an array of more than one dimension",
            ));
        }
    };
    let _lower_bound: [u8; 4] = array(bytes, what)?;
    let mut values = Vec::new();
    for _ in 0..length {
        let size = i32::from_be_bytes(array(bytes, what)?);
        values.push(match usize::try_from(size) {
            Ok(size) if size <= bytes.len() => {
                let (cell, rest) = bytes.split_at(size);
                *bytes = rest;
                decode_binary(cell, element, what)?
            }
            Err(_) if size == -1 => Value::Null,
            _ => return Err(incorrect(what)),
        });
    }
    Ok(values)
}

/// From digits in base 10,000 to a decimal text.
fn numeric_text(bytes: &mut &[u8], what: &str) -> Result<String, SqlError> {
    let mut header: &[u8] = &array::<8>(bytes, what)?;
    let (count, weight, sign, decimals) = (
        header.get_u16(),
        header.get_i16(),
        header.get_u16(),
        header.get_u16(),
    );
    let mut text = match sign {
        0 => String::new(),
        0x4000 => "-".to_owned(),
        0xc000 => return Ok("NaN".to_owned()),
        0xd000 => return Ok("Infinity".to_owned()),
        0xf000 => return Ok("-Infinity".to_owned()),
        _ => return Err(incorrect(what)),
    };
    let mut digits = Vec::with_capacity(count as usize);
    for _ in 0..count {
        match u16::from_be_bytes(array(bytes, what)?) {
            digit @ 0..=9_999 => digits.push(digit),
            _ => return Err(incorrect(what)),
        }
    }
    let group = |place: i64| -> u16 {
        let index = weight as i64 - place;
        usize::try_from(index)
            .ok()
            .and_then(|i| digits.get(i))
            .copied()
            .unwrap_or(0)
    };
    text.push('0');
    for place in (0..=weight as i64).rev() {
        text.push_str(&format!("{:04}", group(place)));
    }
    let mut fraction = String::new();
    for place in 1..=(decimals as i64 + 3) / 4 {
        fraction.push_str(&format!("{:04}", group(-place)));
    }
    fraction.truncate(decimals as usize);
    text.push('.');
    text.push_str(&fraction);
    Ok(text)
}

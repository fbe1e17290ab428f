//! `boolean`, `bytea` and `uuid`.

use super::{invalid, is_space, trim};
use crate::{SqlError, SqlState};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A unique prefix of true, false, yes, no, on, off; or 1 or 0.
pub(super) fn parse_boolean(text: &str) -> Result<bool, SqlError> {
    let word = trim(text).to_ascii_lowercase();
    let is = |whole: &str, shortest: usize| word.len() >= shortest && whole.starts_with(&word);
    if is("true", 1) || is("yes", 1) || word == "on" || word == "1" {
        Ok(true)
    } else if is("false", 1) || is("no", 1) || is("off", 2) || word == "0" {
        Ok(false)
    } else {
        Err(invalid("boolean", text))
    }
}

pub(super) fn write_hex(bytes: &[u8], out: &mut String) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(HEX[(byte >> 4) as usize] as char);
        out.push(HEX[(byte & 15) as usize] as char);
    }
}

pub(super) fn write_bytea(bytes: &[u8], out: &mut String) {
    out.push_str("\\x");
    write_hex(bytes, out);
}

pub(super) fn parse_bytea(text: &str) -> Result<Vec<u8>, SqlError> {
    match text.strip_prefix("\\x") {
        Some(digits) => parse_bytea_hex(digits),
        None => parse_bytea_escape(text),
    }
}

fn parse_bytea_hex(digits: &str) -> Result<Vec<u8>, SqlError> {
    let refused = |message: String| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let digit = |c: char| {
        c.to_digit(16)
            .ok_or_else(|| refused(format!("invalid hexadecimal digit: \"{c}\"")))
    };
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut chars = digits.chars();
    while let Some(first) = chars.next() {
        if first.is_ascii() && is_space(first as u8) {
            continue;
        }
        let high = digit(first)?;
        let second = chars
            .next()
            .ok_or_else(|| refused("invalid hexadecimal data: odd number of digits".to_owned()))?;
        bytes.push((high << 4 | digit(second)?) as u8);
    }
    Ok(bytes)
}

fn parse_bytea_escape(text: &str) -> Result<Vec<u8>, SqlError> {
    let refused = || {
        SqlError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            "invalid input syntax for type bytea",
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                rest = tail;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            (b'\\', _) => return Err(refused()),
            (byte, tail) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    Ok(bytes)
}

pub(super) fn write_uuid(bytes: &[u8], out: &mut String) {
    for (part, range) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if part > 0 {
            out.push('-');
        }
        write_hex(&bytes[range], out);
    }
}

/// Thirty-two digits, with a hyphen allowed after each group of four, perhaps in braces.
pub(super) fn parse_uuid(text: &str) -> Result<[u8; 16], SqlError> {
    let refused = || invalid("uuid", text);
    let mut digits = match text.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}').ok_or_else(refused)?,
        None => text,
    }
    .bytes();
    let mut uuid = [0u8; 16];
    for (index, byte) in uuid.iter_mut().enumerate() {
        let mut next = || {
            digits
                .next()
                .and_then(|d| (d as char).to_digit(16))
                .ok_or_else(refused)
        };
        *byte = (next()? << 4 | next()?) as u8;
        if index % 2 == 1 && index < 15 {
            let mut ahead = digits.clone();
            if ahead.next() == Some(b'-') {
                digits = ahead;
            }
        }
    }
    if digits.next().is_some() {
        return Err(refused());
    }
    Ok(uuid)
}

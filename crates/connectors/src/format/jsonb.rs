//! The canonical text of `jsonb`, as Postgres prints it: keys by length, then by bytes, of equal ones the last; one space
//! behind each comma and colon; numbers without exponent.

use super::CellError;
use super::json::cursor::{Cursor, check_depth, unescape};
use tidegate_types::SqlState;

/// Zeros that exponents may add to one document, so that a short text cannot become an enormous one.
const MAX_ZEROS: usize = 1 << 20;

/// Appends the canonical text of a JSON document.
pub fn canonical_into(document: &[u8], out: &mut Vec<u8>) -> Result<(), CellError> {
    // Line breaks are white space in a document, and nowhere else in valid JSON.
    let line = document
        .iter()
        .map(|b| if *b == b'\n' { b' ' } else { *b })
        .collect::<Vec<_>>();
    let mut cursor = Cursor::new(&line);
    cursor.skip_spaces();
    value_into(&mut cursor, out, 0)?;
    cursor.skip_spaces();
    match cursor.at == line.len() {
        true => Ok(()),
        false => Err(cursor.unexpected("the end of the document")),
    }
}

/// The canonical text of a JSON document.
pub fn canonical(document: &str) -> Result<String, CellError> {
    let mut out = Vec::with_capacity(document.len());
    canonical_into(document.as_bytes(), &mut out)?;
    Ok(String::from_utf8(out).expect("made of pieces of valid UTF-8"))
}

/// The same for the value at the cursor.
pub(crate) fn value_into(
    cursor: &mut Cursor<'_>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), CellError> {
    check_depth(depth)?;
    if depth == 0 {
        cursor.zeros = 0;
    }
    match cursor.peek() {
        b'{' => object_into(cursor, out, depth),
        b'[' => array_into(cursor, out, depth),
        b'"' => {
            let (raw, escaped) = cursor.string()?;
            string_into(raw, escaped, out)
        }
        b'-' | b'0'..=b'9' => {
            let number = cursor.number()?;
            let zeros = number_into(number, MAX_ZEROS - cursor.zeros, out)?;
            cursor.zeros += zeros;
            Ok(())
        }
        _ => {
            let start = cursor.at;
            cursor.skip_value(depth)?;
            out.extend_from_slice(cursor.since(start));
            Ok(())
        }
    }
}

fn array_into(cursor: &mut Cursor<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), CellError> {
    out.push(b'[');
    cursor.at += 1;
    cursor.skip_spaces();
    if cursor.peek() == b']' {
        cursor.at += 1;
        out.push(b']');
        return Ok(());
    }
    loop {
        value_into(cursor, out, depth + 1)?;
        if !cursor.next_member(b']')? {
            out.push(b']');
            return Ok(());
        }
        out.extend_from_slice(b", ");
    }
}

fn object_into(cursor: &mut Cursor<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), CellError> {
    cursor.at += 1;
    cursor.skip_spaces();
    let mut members: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    if cursor.peek() == b'}' {
        cursor.at += 1;
    } else {
        loop {
            let (raw, escaped) = cursor.skip_key()?;
            let mut key = Vec::with_capacity(raw.len());
            if escaped {
                unescape(raw, &mut key)?;
            } else {
                key.extend_from_slice(raw);
            }
            let mut value = Vec::new();
            value_into(cursor, &mut value, depth + 1)?;
            members.push((key, value));
            if !cursor.next_member(b'}')? {
                break;
            }
        }
    }
    // The sort is stable, so that of equal keys the last one written stays last.
    members.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
    out.push(b'{');
    let mut first = true;
    for (index, (key, value)) in members.iter().enumerate() {
        if members.get(index + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        if !first {
            out.extend_from_slice(b", ");
        }
        first = false;
        escape_into(key, out)?;
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
    }
    out.push(b'}');
    Ok(())
}

fn string_into(raw: &[u8], escaped: bool, out: &mut Vec<u8>) -> Result<(), CellError> {
    if !escaped {
        out.push(b'"');
        out.extend_from_slice(raw);
        out.push(b'"');
        return Ok(());
    }
    let mut text = Vec::with_capacity(raw.len());
    unescape(raw, &mut text)?;
    escape_into(&text, out)
}

/// A string in quotes, escaped no more than needed.
fn escape_into(text: &[u8], out: &mut Vec<u8>) -> Result<(), CellError> {
    if text.contains(&0) {
        return Err(CellError::new(
            SqlState::from_code("22P05"),
            "unsupported Unicode escape sequence: \\u0000 cannot be converted to text",
        ));
    }
    super::write::json_string_into(text, out);
    Ok(())
}

/// A number as Postgres's `numeric` prints it: digits without exponent, its fraction's zeros kept. Returns how many zeros
/// the exponent added; more than `most_zeros` are refused.
fn number_into(number: &str, most_zeros: usize, out: &mut Vec<u8>) -> Result<usize, CellError> {
    let (sign, unsigned) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let Some(at) = unsigned.find(['e', 'E']) else {
        let zero = unsigned.bytes().all(|b| matches!(b, b'0' | b'.'));
        out.extend_from_slice(if zero {
            unsigned.as_bytes()
        } else {
            number.as_bytes()
        });
        return Ok(0);
    };
    let exponent = unsigned[at + 1..].parse::<i32>().map(i64::from);
    let (whole, fraction) = unsigned[..at]
        .split_once('.')
        .unwrap_or((&unsigned[..at], ""));
    let digits = format!("{whole}{fraction}");
    let exponent = exponent.unwrap_or(i64::MAX / 2);
    // The decimal point comes behind so many of the digits.
    let point = whole.len() as i64 + exponent;
    let (trailing, leading) = (point - digits.len() as i64, -point);
    let zeros = trailing.max(leading).max(0) as usize;
    if zeros > most_zeros {
        return Err(CellError::new(
            SqlState::NUMERIC_OUT_OF_RANGE,
            format!("value \"{number}\" is out of range for type numeric"),
        ));
    }
    let split = point.clamp(0, digits.len() as i64) as usize;
    let (before, behind) = digits.split_at(split);
    let zero = digits.bytes().all(|b| b == b'0');
    if !zero {
        out.extend_from_slice(sign.as_bytes());
    }
    let before = before.trim_start_matches('0');
    if before.is_empty() {
        out.push(b'0');
    } else {
        out.extend_from_slice(before.as_bytes());
        out.resize(out.len() + trailing.max(0) as usize, b'0');
    }
    if leading > 0 || !behind.is_empty() {
        out.push(b'.');
        out.resize(out.len() + leading.max(0) as usize, b'0');
        out.extend_from_slice(behind.as_bytes());
    }
    Ok(zeros)
}

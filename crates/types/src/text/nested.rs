//! Arrays `{a,"b c",NULL}` and rows `(1,"x y",)`: quoting on the way out, cutting into elements on the way in.

use super::{Value, is_space, parse_text, trim};
use crate::{SqlError, SqlState, SqlType};

/// An element of an array, in quotes where it could be taken for something else.
pub(super) fn write_array_element(element: &str, out: &mut String) {
    let special = |b: u8| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',') || is_space(b);
    let quoted =
        element.is_empty() || element.eq_ignore_ascii_case("null") || element.bytes().any(special);
    if !quoted {
        out.push_str(element);
        return;
    }
    out.push('"');
    for c in element.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// A field of a row; quotes and backslashes in it are doubled.
pub(super) fn write_record_field(field: &str, out: &mut String) {
    let special = |b: u8| matches!(b, b'"' | b'\\' | b'(' | b')' | b',') || is_space(b);
    if !field.is_empty() && !field.bytes().any(special) {
        out.push_str(field);
        return;
    }
    out.push('"');
    for c in field.chars() {
        if matches!(c, '"' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('"');
}

pub(super) fn parse_array(text: &str, element: &SqlType) -> Result<Vec<Value>, SqlError> {
    elements(text, element)?
        .into_iter()
        .map(|e| match e {
            Some(e) => parse_text(&e, element),
            None => Ok(Value::Null),
        })
        .collect()
}

fn malformed_array(text: &str, detail: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("malformed array literal: \"{text}\""),
    )
    .with_detail(detail)
}

/// The texts of an array's elements; of inner arrays when the elements are arrays.
fn elements(text: &str, element: &SqlType) -> Result<Vec<Option<String>>, SqlError> {
    let refused = |detail: &str| malformed_array(text, detail);
    let body = trim(text);
    if body.starts_with('[') {
        return Err(SqlError::not_supported("an array with explicit bounds"));
    }
    let Some(body) = body.strip_prefix('{') else {
        return Err(refused(
            "Array value must start with \"{\" or dimension information.",
        ));
    };
    let mut cursor = Cursor { rest: body };
    let mut elements = Vec::new();
    cursor.skip_space();
    if cursor.take('}') {
        return cursor.nothing_left(text, elements);
    }
    loop {
        cursor.skip_space();
        match cursor.rest.chars().next() {
            None => return Err(refused("Unexpected end of input.")),
            Some(c @ (',' | '}')) => {
                return Err(refused(&format!("Unexpected \"{c}\" character.")));
            }
            Some('{') if matches!(element, SqlType::Array(_)) => {
                elements.push(Some(cursor.braced(text)?))
            }
            Some('{') => {
                return Err(SqlError::not_supported(
                    "an array of more than one dimension",
                ));
            }
            Some('"') => elements.push(Some(cursor.quoted(text)?)),
            Some(_) => elements.push(cursor.bare(text)?),
        }
        cursor.skip_space();
        if cursor.take('}') {
            return cursor.nothing_left(text, elements);
        }
        if !cursor.take(',') {
            return Err(match cursor.rest.is_empty() {
                true => refused("Unexpected end of input."),
                false => refused("Unexpected array element."),
            });
        }
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn skip_space(&mut self) {
        self.rest = self
            .rest
            .trim_start_matches(|c: char| c.is_ascii() && is_space(c as u8));
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn nothing_left<T>(mut self, text: &str, elements: T) -> Result<T, SqlError> {
        self.skip_space();
        if self.rest.is_empty() {
            Ok(elements)
        } else {
            Err(malformed_array(text, "Junk after closing right brace."))
        }
    }

    fn quoted(&mut self, text: &str) -> Result<String, SqlError> {
        let mut out = String::new();
        let mut chars = self.rest[1..].chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => {
                    self.rest = chars.as_str();
                    return Ok(out);
                }
                '\\' => out.extend(chars.next()),
                c => out.push(c),
            }
        }
        Err(malformed_array(text, "Unexpected end of input."))
    }

    /// An element without quotes; `NULL` in any case is one that is missing.
    fn bare(&mut self, text: &str) -> Result<Option<String>, SqlError> {
        let mut out = String::new();
        // Trailing spaces are cut, escaped ones are not.
        let mut kept = 0;
        let mut escaped = false;
        let mut chars = self.rest.chars();
        loop {
            let ahead = chars.as_str();
            match chars.next() {
                None => return Err(malformed_array(text, "Unexpected end of input.")),
                Some(',' | '}') => {
                    self.rest = ahead;
                    break;
                }
                Some('"' | '{') => return Err(malformed_array(text, "Unexpected array element.")),
                Some('\\') => {
                    out.extend(chars.next());
                    kept = out.len();
                    escaped = true;
                }
                Some(c) => {
                    out.push(c);
                    if !(c.is_ascii() && is_space(c as u8)) {
                        kept = out.len();
                    }
                }
            }
        }
        out.truncate(kept);
        Ok((escaped || !out.eq_ignore_ascii_case("null")).then_some(out))
    }

    /// An inner array with its braces.
    fn braced(&mut self, text: &str) -> Result<String, SqlError> {
        let (mut depth, mut in_quotes, mut escaped) = (0, false, false);
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_quotes = !in_quotes,
                '{' if !in_quotes => depth += 1,
                '}' if !in_quotes => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let (inner, rest) = self.rest.split_at(at + 1);
                self.rest = rest;
                return Ok(inner.to_owned());
            }
        }
        Err(malformed_array(text, "Unexpected end of input."))
    }
}

fn malformed_record(text: &str, detail: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("malformed record literal: \"{text}\""),
    )
    .with_detail(detail)
}

pub(super) fn parse_record(
    text: &str,
    fields: &[(String, SqlType)],
) -> Result<Vec<Value>, SqlError> {
    let body = trim(text)
        .strip_prefix('(')
        .ok_or_else(|| malformed_record(text, "Missing left parenthesis."))?;
    let mut chars = body.chars();
    let mut values = Vec::with_capacity(fields.len());
    for (index, (_, sql_type)) in fields.iter().enumerate() {
        let (cell, end) = record_field(&mut chars, text)?;
        values.push(match cell {
            Some(cell) => parse_text(&cell, sql_type)?,
            None => Value::Null,
        });
        let last = index + 1 == fields.len();
        match end {
            ',' if last => return Err(malformed_record(text, "Too many columns.")),
            ')' if !last => return Err(malformed_record(text, "Too few columns.")),
            _ => {}
        }
    }
    if !trim(chars.as_str()).is_empty() {
        return Err(malformed_record(text, "Junk after right parenthesis."));
    }
    Ok(values)
}

/// A field up to the comma or parenthesis that ends it, which is returned too. Nothing at all is NULL.
fn record_field(
    chars: &mut std::str::Chars<'_>,
    text: &str,
) -> Result<(Option<String>, char), SqlError> {
    let ended = || malformed_record(text, "Unexpected end of input.");
    let mut out = String::new();
    let mut something = false;
    let mut in_quotes = false;
    loop {
        let c = chars.next().ok_or_else(ended)?;
        match c {
            ',' | ')' if !in_quotes => return Ok((something.then_some(out), c)),
            '\\' => out.push(chars.next().ok_or_else(ended)?),
            '"' if in_quotes && chars.as_str().starts_with('"') => {
                chars.next();
                out.push('"');
            }
            '"' => in_quotes = !in_quotes,
            c => out.push(c),
        }
        something = true;
    }
}

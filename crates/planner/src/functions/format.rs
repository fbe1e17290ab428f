//! `format(pattern, …)`, `quote_ident`, `quote_literal`, and how many of some values are NULL.

use super::rowwise::{Row, Rowwise, is_text};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;
use tidegate_types::text::Value;
use tidegate_types::{SqlError, SqlState, SqlType};

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let format = Rowwise {
        name: "format",
        strict: false,
        coerce: |arguments| match arguments {
            [pattern, rest @ ..] if is_text(pattern) => {
                let mut types = vec![DataType::Utf8];
                types.extend(rest.iter().cloned());
                Some(types)
            }
            _ => None,
        },
        returns: |_| SqlType::Text,
        body: format,
    };
    vec![
        format.udf(),
        quoting("quote_ident", |row| {
            Ok(Value::Text(tidegate_parser::quote_ident(&row.text(0))))
        }),
        quoting("quote_literal", |row| {
            Ok(Value::Text(quote_literal(&row.text(0))))
        }),
        counting("num_nulls", |row| Ok(Value::Integer(nulls(row)))),
        counting("num_nonnulls", |row| {
            Ok(Value::Integer(row.len() as i32 - nulls(row)))
        }),
    ]
}

/// A function of one value in its text form.
fn quoting(name: &'static str, body: fn(&Row<'_>) -> Result<Value, SqlError>) -> Arc<ScalarUDF> {
    let function = Rowwise {
        name,
        strict: true,
        coerce: |arguments| (arguments.len() == 1).then(|| arguments.to_vec()),
        returns: |_| SqlType::Text,
        body,
    };
    function.udf()
}

/// A function of how many of its arguments are NULL.
fn counting(name: &'static str, body: fn(&Row<'_>) -> Result<Value, SqlError>) -> Arc<ScalarUDF> {
    let function = Rowwise {
        name,
        strict: false,
        coerce: |arguments| (!arguments.is_empty()).then(|| arguments.to_vec()),
        returns: |_| SqlType::Integer,
        body,
    };
    function.udf()
}

fn nulls(row: &Row<'_>) -> i32 {
    (0..row.len()).filter(|i| row.is_null(*i)).count() as i32
}

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// `%[position$][-][width]{s|I|L}`.
fn format(row: &Row<'_>) -> Result<Value, SqlError> {
    if row.is_null(0) {
        return Ok(Value::Null);
    }
    let mut out = String::new();
    let mut rest = row.str(0);
    let mut next = 1;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (position, after) = position(rest)?;
        let (left, width, after) = width(after, row, &mut next)?;
        let kind = after.chars().next().ok_or_else(|| {
            invalid("unterminated format() type specifier")
                .with_hint("For a single \"%\" use \"%%\".")
        })?;
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(
                invalid(format!("unrecognized format() type specifier \"{kind}\""))
                    .with_hint("For a single \"%\" use \"%%\"."),
            );
        }
        rest = &after[kind.len_utf8()..];
        let index = position.unwrap_or(next);
        next = index + 1;
        if index >= row.len() {
            return Err(invalid("too few arguments for format()"));
        }
        pad(&mut out, &argument(row, index, kind)?, width, left);
    }
    out.push_str(rest);
    Ok(Value::Text(out))
}

/// `n$`.
fn position(rest: &str) -> Result<(Option<usize>, &str), SqlError> {
    let digits = rest.chars().take_while(char::is_ascii_digit).count();
    match (digits, rest[digits..].strip_prefix('$')) {
        (1.., Some(after)) => match rest[..digits].parse() {
            Ok(0) | Err(_) => Err(invalid(
                "format specifies argument 0, but arguments are numbered from 1",
            )),
            Ok(position) => Ok((Some(position), after)),
        },
        _ => Ok((None, rest)),
    }
}

/// `[-][n | * ]`: left-aligned, how wide, and what follows.
fn width<'a>(
    rest: &'a str,
    row: &Row<'_>,
    next: &mut usize,
) -> Result<(bool, usize, &'a str), SqlError> {
    let (mut left, rest) = match rest.strip_prefix('-') {
        Some(after) => (true, after),
        None => (false, rest),
    };
    if let Some(after) = rest.strip_prefix('*') {
        let (given, after) = position(after)?;
        let index = given.unwrap_or(*next);
        *next = index + 1;
        if index >= row.len() {
            return Err(invalid("too few arguments for format()"));
        }
        let width: i64 = match row.is_null(index) {
            true => 0,
            false => row
                .text(index)
                .parse()
                .map_err(|_| invalid("the width of format() is not a number"))?,
        };
        left |= width < 0;
        return Ok((left, width.unsigned_abs() as usize, after));
    }
    let digits = rest.chars().take_while(char::is_ascii_digit).count();
    let width = rest[..digits].parse().unwrap_or(0);
    Ok((left, width, &rest[digits..]))
}

fn argument(row: &Row<'_>, index: usize, kind: char) -> Result<String, SqlError> {
    if row.is_null(index) {
        return match kind {
            's' => Ok(String::new()),
            'L' => Ok("NULL".to_owned()),
            _ => Err(SqlError::new(
                SqlState::from_code("22004"),
                "null values cannot be formatted as an SQL identifier",
            )),
        };
    }
    let text = row.text(index);
    Ok(match kind {
        's' => text,
        'I' => tidegate_parser::quote_ident(&text),
        _ => quote_literal(&text),
    })
}

fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!(" E'{}'", quoted.replace('\\', "\\\\"))
            .trim_start()
            .to_owned(),
        false => format!("'{quoted}'"),
    }
}

fn pad(out: &mut String, text: &str, width: usize, left: bool) {
    let missing = width.saturating_sub(text.chars().count());
    let spaces = std::iter::repeat_n(' ', missing);
    if left {
        out.push_str(text);
        out.extend(spaces);
    } else {
        out.extend(spaces);
        out.push_str(text);
    }
}

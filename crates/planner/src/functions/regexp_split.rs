//! `regexp_split_to_array(text, pattern [, flags])`, which DataFusion lacks. Patterns are those of Rust's `regex`, as in the
//! other regular-expression functions here.

use super::rowwise::{Row, Rowwise, is_text, texts};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;
use regex::{Regex, RegexBuilder};
use std::sync::Arc;
use tidegate_types::text::Value;
use tidegate_types::{SqlError, SqlState, SqlType};

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let split = Rowwise {
        name: "regexp_split_to_array",
        strict: true,
        coerce,
        returns: |_| SqlType::Array(Box::new(SqlType::Text)),
        body: split,
    };
    vec![split.udf()]
}

fn coerce(arguments: &[DataType]) -> Option<Vec<DataType>> {
    match arguments.iter().all(is_text) {
        true => texts(arguments, 2).or_else(|| texts(arguments, 3)),
        false => None,
    }
}

fn split(row: &Row<'_>) -> Result<Value, SqlError> {
    let flags = if row.len() > 2 { row.str(2) } else { "" };
    let pattern = compiled(row.str(1), flags)?;
    let pieces = pieces(row.str(0), &pattern);
    Ok(Value::List(
        pieces
            .into_iter()
            .map(|piece| Value::Text(piece.to_owned()))
            .collect(),
    ))
}

fn compiled(pattern: &str, flags: &str) -> Result<Regex, SqlError> {
    let invalid = |message: String| SqlError::new(SqlState::INVALID_REGULAR_EXPRESSION, message);
    let mut builder = RegexBuilder::new(pattern);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'c' => builder.case_insensitive(false),
            'n' | 'm' => builder.multi_line(true),
            's' => builder.dot_matches_new_line(true),
            'x' => builder.ignore_whitespace(true),
            'g' => {
                let message = "regexp_split_to_array() does not support the \"global\" option";
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
            other => {
                let message = format!("invalid regular expression option: \"{other}\"");
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
        };
    }
    builder
        .build()
        .map_err(|e| invalid(format!("invalid regular expression: {e}")))
}

/// What lies between matches. Empty matches at either end, or right behind another match, do not count.
fn pieces<'a>(text: &'a str, pattern: &Regex) -> Vec<&'a str> {
    let (mut pieces, mut start) = (Vec::new(), 0);
    for found in pattern.find_iter(text) {
        let nothing = found.is_empty();
        if nothing && (found.start() == start || found.end() == text.len()) {
            continue;
        }
        pieces.push(&text[start..found.start()]);
        start = found.end();
    }
    pieces.push(&text[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Postgres: `select regexp_split_to_array(text, pattern)`.
    #[test]
    fn pieces_are_those_of_postgres() {
        let of = |text: &'static str, pattern: &str| pieces(text, &compiled(pattern, "").unwrap());
        assert_eq!(of("a, b,c", r",\s*"), ["a", "b", "c"]);
        assert_eq!(of("abc", ""), ["a", "b", "c"]);
        assert_eq!(of("the fox", r"\s*"), ["t", "h", "e", "f", "o", "x"]);
        assert_eq!(of(",a,", ","), ["", "a", ""]);
        assert_eq!(of("", ","), [""]);
    }
}

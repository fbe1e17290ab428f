//! `regexp_split_to_array(text, pattern [, flags])` and `substring(text FROM pattern)`, which DataFusion lacks. Patterns are
//! those of Rust's `regex`, as in the other regular-expression functions here.

use super::rowwise::{Row, Rowwise, is_text, texts};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use regex::{Regex, RegexBuilder};
use std::sync::{Arc, OnceLock};
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
    vec![split.udf(), substring().clone()]
}

fn substring() -> &'static Arc<ScalarUDF> {
    static SUBSTRING: OnceLock<Arc<ScalarUDF>> = OnceLock::new();
    SUBSTRING.get_or_init(|| {
        Arc::new(ScalarUDF::new_from_impl(SubstringMatching {
            signature: Signature::string(2, Volatility::Immutable),
        }))
    })
}

/// `substring(text FROM 'pattern')`: what tells it from the substring at a place is the type of the second argument.
#[derive(Debug)]
pub(super) struct SubstringPlanner;

impl ExprPlanner for SubstringPlanner {
    fn plan_substring(&self, args: Vec<Expr>) -> DataFusionResult<PlannerResult<Vec<Expr>>> {
        let is_pattern = matches!(
            args.as_slice(),
            [
                _,
                Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Utf8View(_), _)
            ]
        );
        if !is_pattern {
            return Ok(PlannerResult::Original(args));
        }
        let func = substring().clone();
        Ok(PlannerResult::Planned(Expr::ScalarFunction(
            ScalarFunction { func, args },
        )))
    }
}

/// What matches, or the first group in parentheses where there is one; NULL where nothing does.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SubstringMatching {
    signature: Signature,
}

impl ScalarUDFImpl for SubstringMatching {
    fn name(&self) -> &str {
        "substring_matching"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let scalars = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalars { 1 } else { args.number_rows };
        let is_constant = matches!(args.args[1], ColumnarValue::Scalar(_));
        let strings = |argument: &ColumnarValue, rows| -> DataFusionResult<ArrayRef> {
            Ok(cast(&argument.clone().into_array(rows)?, &DataType::Utf8)?)
        };
        let texts = strings(&args.args[0], rows)?;
        let patterns = strings(&args.args[1], if is_constant { 1 } else { rows })?;
        let result =
            matching(texts.as_string(), patterns.as_string()).map_err(crate::errors::external)?;
        Ok(match scalars {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(Arc::new(result)),
        })
    }
}

/// One pattern is for all texts.
fn matching(texts: &StringArray, patterns: &StringArray) -> Result<StringArray, SqlError> {
    let mut found = StringBuilder::with_capacity(texts.len(), texts.len() * 8);
    let mut compiled_last: Option<(&str, Regex)> = None;
    for row in 0..texts.len() {
        let at = if patterns.len() == 1 { 0 } else { row };
        if texts.is_null(row) || patterns.is_null(at) {
            found.append_null();
            continue;
        }
        let pattern = patterns.value(at);
        let regex = match &mut compiled_last {
            Some((last, regex)) if *last == pattern => &*regex,
            last => &last.insert((pattern, compiled(pattern, "")?)).1,
        };
        let text = texts.value(row);
        found.append_option(match regex.captures_len() {
            1 => regex.find(text).map(|m| m.as_str()),
            _ => regex
                .captures(text)
                .and_then(|c| c.get(1))
                .map(|m| m.as_str()),
        });
    }
    Ok(found.finish())
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

    #[test]
    fn substrings_are_those_of_postgres() {
        let texts = StringArray::from(vec![Some("foobar"), Some("Thomas"), None, Some("")]);
        let of = |pattern| {
            let found = matching(&texts, &StringArray::from(vec![pattern])).unwrap();
            let found = found.iter().map(|f| f.map(str::to_owned));
            found.collect::<Vec<_>>()
        };
        let owned = |texts: [Option<&str>; 4]| texts.map(|t| t.map(str::to_owned));
        assert_eq!(of("o(.)b"), owned([Some("o"), None, None, None]));
        assert_eq!(of("o.b"), owned([Some("oob"), None, None, None]));
        assert_eq!(of("...$"), owned([Some("bar"), Some("mas"), None, None]));
        assert_eq!(of("x*"), owned([Some(""), Some(""), None, Some("")]));
    }

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

//! From what Arrow and DataFusion report to the SQLSTATE and message of a row's error.

use crate::RowError;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use tidegate_types::text::write_text;
use tidegate_types::{Diff, SqlError, SqlState, SqlType};

/// Whether a row may be at fault, or the machine: no memory, no disk. What looks like a bug in a function is laid to the rows
/// that bring it out as well, so that the others go on.
pub fn is_data_error(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ArrowError(arrow, _) => !matches!(
            arrow.as_ref(),
            ArrowError::MemoryError(_) | ArrowError::IoError(..)
        ),
        DataFusionError::ResourcesExhausted(_) | DataFusionError::IoError(_) => false,
        _ => true,
    }
}

/// The error of one row, with its text.
pub fn row_error(error: &DataFusionError, rows: &RecordBatch, row: usize, diff: Diff) -> RowError {
    let (state, message) = classify(error);
    RowError {
        state,
        message,
        row: row_text(rows, row),
        diff,
    }
}

pub fn classify(error: &DataFusionError) -> (SqlState, String) {
    match error.find_root() {
        DataFusionError::ArrowError(arrow, _) => classify_arrow(arrow),
        DataFusionError::Execution(message) => (classify_text(message), message.clone()),
        DataFusionError::External(inner) => classify_foreign(inner.as_ref()),
        DataFusionError::Internal(message) => (SqlState::INTERNAL_ERROR, message.clone()),
        DataFusionError::NotImplemented(message) => {
            (SqlState::FEATURE_NOT_SUPPORTED, message.clone())
        }
        other => (SqlState::DATA_EXCEPTION, other.strip_backtrace()),
    }
}

/// What came through one library from another, or is ours and knows its state.
fn classify_foreign(error: &(dyn std::error::Error + Send + Sync + 'static)) -> (SqlState, String) {
    if let Some(ours) = error.downcast_ref::<SqlError>() {
        (ours.state.clone(), ours.message.clone())
    } else if let Some(arrow) = error.downcast_ref::<ArrowError>() {
        classify_arrow(arrow)
    } else if let Some(error) = error.downcast_ref::<DataFusionError>() {
        classify(error)
    } else {
        (classify_text(&error.to_string()), error.to_string())
    }
}

fn classify_arrow(error: &ArrowError) -> (SqlState, String) {
    match error {
        ArrowError::DivideByZero => (SqlState::DIVISION_BY_ZERO, "division by zero".into()),
        ArrowError::ArithmeticOverflow(message) => (
            SqlState::NUMERIC_OUT_OF_RANGE,
            format!("value out of range: {message}"),
        ),
        ArrowError::ParseError(message) => (state_of_parse(message), message.clone()),
        ArrowError::CastError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::InvalidArgumentError(message)
        | ArrowError::JsonError(message) => (classify_text(message), message.clone()),
        ArrowError::ExternalError(inner) => classify_foreign(inner.as_ref()),
        other => (SqlState::DATA_EXCEPTION, other.to_string()),
    }
}

fn state_of_parse(message: &str) -> SqlState {
    let lower = message.to_ascii_lowercase();
    if lower.contains("out of range")
        || lower.contains("overflow")
        || lower.contains("outside of range")
    {
        if names_a_time(&lower) {
            SqlState::DATETIME_OVERFLOW
        } else {
            SqlState::NUMERIC_OUT_OF_RANGE
        }
    } else if names_a_time(&lower) {
        SqlState::INVALID_DATETIME
    } else {
        SqlState::INVALID_TEXT_REPRESENTATION
    }
}

fn names_a_time(lower: &str) -> bool {
    ["timestamp", "date", "time", "interval"]
        .iter()
        .any(|word| lower.contains(word))
}

/// Arrow's kernels report most causes as text alone, so that the text decides.
fn classify_text(message: &str) -> SqlState {
    let lower = message.to_ascii_lowercase();
    if lower.contains("divide by zero") || lower.contains("division by zero") {
        SqlState::DIVISION_BY_ZERO
    } else if lower.contains("cannot cast string")
        || lower.contains("cannot cast value")
        || lower.contains("can't parse")
    {
        if names_a_time(&lower) {
            SqlState::INVALID_DATETIME
        } else {
            SqlState::INVALID_TEXT_REPRESENTATION
        }
    } else if lower.contains("error parsing")
        || lower.contains("invalid") && lower.contains("string")
    {
        state_of_parse(message)
    } else if [
        "overflow",
        "too large",
        "too small",
        "out of range",
        "can't cast value",
        "does not fit",
    ]
    .iter()
    .any(|w| lower.contains(w))
    {
        if names_a_time(&lower) {
            SqlState::DATETIME_OVERFLOW
        } else {
            SqlState::NUMERIC_OUT_OF_RANGE
        }
    } else {
        SqlState::DATA_EXCEPTION
    }
}

/// A row's values in Postgres's text form: `(1,abc,)`. NULL is nothing.
pub fn row_text(rows: &RecordBatch, row: usize) -> String {
    let schema = rows.schema_ref();
    let mut text = String::from("(");
    for (index, column) in rows.columns().iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_text(
            column.as_ref(),
            &SqlType::from_field(schema.field(index)),
            row,
            &mut text,
        );
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::compute::{CastOptions, cast_with_options};
    use arrow::datatypes::{DataType, TimeUnit};
    use std::sync::Arc;

    fn state_of_cast(from: ArrayRef, to: &DataType) -> String {
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let error = cast_with_options(&from, to, &strict).expect_err("a value that does not fit");
        classify(&error.into()).0.to_string()
    }

    /// SQLSTATEs of `select 'x'::integer` and the like in Postgres 15.
    #[test]
    fn casts_fail_with_the_states_of_postgres() {
        let text = |value: &str| Arc::new(StringArray::from(vec![value.to_owned()])) as ArrayRef;
        assert_eq!(state_of_cast(text("x"), &DataType::Int32), "22P02");
        assert_eq!(state_of_cast(text("x"), &DataType::Boolean), "22P02");
        assert_eq!(state_of_cast(text("x"), &DataType::Float64), "22P02");
        assert_eq!(
            state_of_cast(text("x"), &DataType::Decimal128(10, 2)),
            "22P02"
        );
        assert_eq!(state_of_cast(text("x"), &DataType::Date32), "22007");
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(state_of_cast(text("x"), &timestamp), "22007");
        let float = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
        assert_eq!(state_of_cast(float(1e10), &DataType::Int32), "22003");
        assert_eq!(
            state_of_cast(float(1e10), &DataType::Decimal128(5, 2)),
            "22003"
        );
    }
}

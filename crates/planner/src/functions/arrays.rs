//! Array functions that Postgres has and DataFusion has not, or with another meaning.

use super::rowwise::{Row, Rowwise};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Int32Type};
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;
use tidegate_types::text::{Value, parse_text};
use tidegate_types::{SqlError, SqlState, SqlType};

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Rowwise {
            name: "array_remove",
            strict: false,
            coerce: |a| with_element(a, 1),
            returns: first,
            body: |row| {
                changed(row, |element, wanted| {
                    (*element != wanted[0]).then(|| element.clone())
                })
            },
        }
        .udf(),
        Rowwise {
            name: "array_replace",
            strict: false,
            coerce: |a| with_element(a, 2),
            returns: first,
            body: |row| {
                changed(row, |element, wanted| {
                    Some(if *element == wanted[0] {
                        wanted[1].clone()
                    } else {
                        element.clone()
                    })
                })
            },
        }
        .udf(),
        Rowwise {
            name: "array_dims",
            strict: true,
            coerce: |a| is_one_list(a),
            returns: |_| SqlType::Text,
            body: |row| {
                let length = row.elements(0).len();
                Ok(match length {
                    0 => Value::Null,
                    n => Value::Text(format!("[1:{n}]")),
                })
            },
        }
        .udf(),
        Rowwise {
            name: "trim_array",
            strict: true,
            coerce: |a| match a {
                [list @ DataType::List(_), count] if count.is_integer() => {
                    Some(vec![list.clone(), DataType::Int32])
                }
                _ => None,
            },
            returns: first,
            body: trimmed,
        }
        .udf(),
        Rowwise {
            name: "array_overlap",
            strict: true,
            coerce: |a| match a {
                [left @ DataType::List(_), DataType::List(_)] => {
                    Some(vec![left.clone(), left.clone()])
                }
                _ => None,
            },
            returns: |_| SqlType::Boolean,
            body: |row| {
                let right = row.elements(1);
                let shared = row
                    .elements(0)
                    .into_iter()
                    .any(|e| e.is_some() && right.contains(&e));
                Ok(Value::Boolean(shared))
            },
        }
        .udf(),
        Rowwise {
            name: "array_fill",
            strict: false,
            coerce: |a| match a {
                [value, DataType::List(_)] => Some(vec![
                    value.clone(),
                    DataType::new_list(DataType::Int32, true),
                ]),
                _ => None,
            },
            returns: |types| SqlType::Array(Box::new(types[0].clone())),
            body: filled,
        }
        .udf(),
        Rowwise {
            name: "array_length",
            strict: true,
            coerce: |a| match a {
                [list @ DataType::List(_), dimension] if dimension.is_integer() => {
                    Some(vec![list.clone(), DataType::Int32])
                }
                _ => None,
            },
            returns: |_| SqlType::Integer,
            body: |row| {
                let length = row.array(0).as_list::<i32>().value_length(row.number());
                Ok(match row.primitive::<Int32Type>(1) {
                    1 if length > 0 => Value::Integer(length),
                    _ => Value::Null,
                })
            },
        }
        .udf(),
    ]
}

fn first(types: &[SqlType]) -> SqlType {
    types[0].clone()
}

fn is_one_list(arguments: &[DataType]) -> Option<Vec<DataType>> {
    match arguments {
        [list @ DataType::List(_)] => Some(vec![list.clone()]),
        _ => None,
    }
}

/// A list and so many values of its element's type.
fn with_element(arguments: &[DataType], count: usize) -> Option<Vec<DataType>> {
    match arguments {
        [list @ DataType::List(element), rest @ ..] if rest.len() == count => {
            let mut types = vec![list.clone()];
            types.extend(std::iter::repeat_n(element.data_type().clone(), count));
            Some(types)
        }
        _ => None,
    }
}

fn element_type(row: &Row<'_>) -> SqlType {
    match row.sql_type(0) {
        SqlType::Array(element) => element.as_ref().clone(),
        other => other.clone(),
    }
}

fn list_of(elements: Vec<Option<String>>, element: &SqlType) -> Result<Value, SqlError> {
    let values = elements.into_iter().map(|e| match e {
        Some(text) => parse_text(&text, element),
        None => Ok(Value::Null),
    });
    Ok(Value::List(values.collect::<Result<_, _>>()?))
}

/// The list with each element as `change` has it; `None` leaves it out.
fn changed(
    row: &Row<'_>,
    change: impl Fn(&Option<String>, &[Option<String>]) -> Option<Option<String>>,
) -> Result<Value, SqlError> {
    if row.is_null(0) {
        return Ok(Value::Null);
    }
    let wanted: Vec<Option<String>> = (1..row.len())
        .map(|i| (!row.is_null(i)).then(|| row.text(i)))
        .collect();
    let elements = row.elements(0);
    let kept = elements.iter().filter_map(|e| change(e, &wanted)).collect();
    list_of(kept, &element_type(row))
}

fn trimmed(row: &Row<'_>) -> Result<Value, SqlError> {
    let mut elements = row.elements(0);
    let count = row.primitive::<Int32Type>(1);
    let left = usize::try_from(count)
        .ok()
        .and_then(|c| elements.len().checked_sub(c));
    let Some(left) = left else {
        return Err(SqlError::new(
            SqlState::from_code("2202E"),
            format!(
                "number of elements to trim must be between 0 and {}",
                elements.len()
            ),
        ));
    };
    elements.truncate(left);
    list_of(elements, &element_type(row))
}

fn filled(row: &Row<'_>) -> Result<Value, SqlError> {
    if row.is_null(1) {
        return Err(SqlError::new(
            SqlState::from_code("22004"),
            "dimension array or low bound array cannot be null",
        ));
    }
    let lengths = row.array(1).as_list::<i32>().value(row.number());
    let lengths = lengths.as_primitive::<Int32Type>();
    let count = match lengths.len() {
        0 => 0,
        1 => usize::try_from(lengths.value(0)).unwrap_or(0).min(1 << 20),
        _ => {
            return Err(SqlError::not_supported(
                "an array of more than one dimension",
            ));
        }
    };
    let value = match row.is_null(0) {
        true => Value::Null,
        false => parse_text(&row.text(0), row.sql_type(0))?,
    };
    Ok(Value::List(vec![value; count]))
}

//! Functions and operators over `jsonb`, which is kept as its canonical text. `json` is kept as `jsonb`, so that functions
//! of both names are the same here.

use super::rowwise::{Row, Rowwise, is_text, texts};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;
use tidegate_types::text::{Json, Value, parse_text, write_text};
use tidegate_types::{SqlError, SqlState, SqlType};

type Body = fn(&Row<'_>) -> Result<Value, SqlError>;
type Coerce = fn(&[DataType]) -> Option<Vec<DataType>>;

fn jsonb(_: &[SqlType]) -> SqlType {
    SqlType::Jsonb
}

fn text(_: &[SqlType]) -> SqlType {
    SqlType::Text
}

fn boolean(_: &[SqlType]) -> SqlType {
    SqlType::Boolean
}

fn strict(
    name: &'static str,
    coerce: Coerce,
    returns: fn(&[SqlType]) -> SqlType,
    body: Body,
) -> Arc<ScalarUDF> {
    Rowwise {
        name,
        strict: true,
        coerce,
        returns,
        body,
    }
    .udf()
}

fn lenient(
    name: &'static str,
    coerce: Coerce,
    returns: fn(&[SqlType]) -> SqlType,
    body: Body,
) -> Arc<ScalarUDF> {
    Rowwise {
        name,
        strict: false,
        coerce,
        returns,
        body,
    }
    .udf()
}

/// Postgres' other name of a function.
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("json_typeof", "jsonb_typeof"),
    ("json_build_object", "jsonb_build_object"),
    ("json_build_array", "jsonb_build_array"),
    ("to_json", "to_jsonb"),
    ("row_to_json", "to_jsonb"),
    ("array_to_json", "to_jsonb"),
    ("json_extract_path", "jsonb_extract_path"),
    ("json_extract_path_text", "jsonb_extract_path_text"),
    ("json_strip_nulls", "jsonb_strip_nulls"),
    ("json_object", "jsonb_object"),
    ("json_array_length", "jsonb_array_length"),
];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        strict(
            "jsonb_typeof",
            |a| texts(a, 1),
            text,
            |row| Ok(Value::Text(kind(&json(row, 0)?).to_owned())),
        ),
        lenient("jsonb_build_object", anything, jsonb, build_object),
        lenient("jsonb_build_array", anything, jsonb, |row| {
            let items = (0..row.len())
                .map(|i| value_of(row, i))
                .collect::<Result<_, _>>()?;
            written(&Json::Array(items))
        }),
        strict(
            "to_jsonb",
            |a| (a.len() == 1).then(|| a.to_vec()),
            jsonb,
            |row| written(&value_of(row, 0)?),
        ),
        strict(
            "jsonb_array_length",
            |a| texts(a, 1),
            |_| SqlType::Integer,
            array_length,
        ),
        strict(
            "jsonb_extract_path",
            |a| texts(a, a.len()),
            jsonb,
            |row| {
                let path: Vec<String> = (1..row.len()).map(|i| row.str(i).to_owned()).collect();
                optional(at_path(&json(row, 0)?, &path))
            },
        ),
        strict(
            "jsonb_extract_path_text",
            |a| texts(a, a.len()),
            text,
            |row| {
                let path: Vec<String> = (1..row.len()).map(|i| row.str(i).to_owned()).collect();
                as_text(at_path(&json(row, 0)?, &path))
            },
        ),
        strict("jsonb_at_path", with_path, jsonb, |row| {
            let Some(path) = path(row, 1)? else {
                return Ok(Value::Null);
            };
            optional(at_path(&json(row, 0)?, &path))
        }),
        strict("jsonb_at_path_text", with_path, text, |row| {
            let Some(path) = path(row, 1)? else {
                return Ok(Value::Null);
            };
            as_text(at_path(&json(row, 0)?, &path))
        }),
        strict(
            "jsonb_contains",
            |a| texts(a, 2),
            boolean,
            |row| {
                Ok(Value::Boolean(contains(
                    &json(row, 0)?,
                    &json(row, 1)?,
                    true,
                )))
            },
        ),
        strict(
            "jsonb_exists",
            |a| texts(a, 2),
            boolean,
            |row| Ok(Value::Boolean(has_key(&json(row, 0)?, row.str(1)))),
        ),
        strict("jsonb_exists_any", with_path, boolean, |row| {
            let value = json(row, 0)?;
            Ok(Value::Boolean(
                names(row, 1)?.iter().any(|k| has_key(&value, k)),
            ))
        }),
        strict("jsonb_exists_all", with_path, boolean, |row| {
            let value = json(row, 0)?;
            Ok(Value::Boolean(
                names(row, 1)?.iter().all(|k| has_key(&value, k)),
            ))
        }),
        strict(
            "jsonb_concat",
            |a| texts(a, 2),
            jsonb,
            |row| written(&concat(json(row, 0)?, json(row, 1)?)),
        ),
        strict("jsonb_delete", minus, jsonb, delete),
        strict("jsonb_delete_path", with_path, jsonb, |row| {
            let mut value = json(row, 0)?;
            if let Some(path) = path(row, 1)? {
                delete_path(&mut value, &path)?;
            }
            written(&value)
        }),
        strict("jsonb_set", set_arguments, jsonb, |row| {
            set(row, Place::Replace)
        }),
        strict("jsonb_insert", set_arguments, jsonb, |row| {
            set(row, Place::Before)
        }),
        strict(
            "jsonb_strip_nulls",
            |a| texts(a, 1),
            jsonb,
            |row| written(&strip(json(row, 0)?)),
        ),
        strict(
            "jsonb_pretty",
            |a| texts(a, 1),
            text,
            |row| {
                let mut out = String::new();
                pretty(&json(row, 0)?, 0, &mut out);
                Ok(Value::Text(out))
            },
        ),
        strict("jsonb_object", object_arguments, jsonb, object),
        strict(
            "jsonb_elements",
            |a| texts(a, 1),
            jsonbs,
            |row| {
                Ok(Value::List(
                    items(row)?
                        .iter()
                        .map(|i| Value::Text(i.to_string()))
                        .collect(),
                ))
            },
        ),
        strict(
            "jsonb_elements_text",
            |a| texts(a, 1),
            all_text,
            |row| {
                Ok(Value::List(
                    items(row)?
                        .iter()
                        .map(|i| as_text(Some(i)))
                        .collect::<Result<_, _>>()?,
                ))
            },
        ),
        strict(
            "jsonb_keys",
            |a| texts(a, 1),
            all_text,
            |row| match json(row, 0)? {
                Json::Object(members) => Ok(Value::List(
                    members.into_iter().map(|(k, _)| Value::Text(k)).collect(),
                )),
                other => Err(invalid(&format!(
                    "cannot call jsonb_object_keys on {}",
                    described(&other)
                ))),
            },
        ),
        strict("jsonb_join", one_list, jsonb, |row| {
            let items = row
                .elements(0)
                .into_iter()
                .map(|i| i.map_or_else(|| Ok(Json::null()), |i| Json::parse(&i)));
            written(&Json::Array(items.collect::<Result<_, _>>()?))
        }),
        strict("jsonb_object_join", one_list, jsonb, object_join),
    ]
}

fn jsonbs(_: &[SqlType]) -> SqlType {
    SqlType::Array(Box::new(SqlType::Jsonb))
}

fn all_text(_: &[SqlType]) -> SqlType {
    SqlType::Array(Box::new(SqlType::Text))
}

fn one_list(arguments: &[DataType]) -> Option<Vec<DataType>> {
    match arguments {
        [DataType::List(_)] => Some(vec![DataType::new_list(DataType::Utf8, true)]),
        _ => None,
    }
}

fn described(value: &Json) -> &'static str {
    match value {
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
        _ => "a scalar",
    }
}

fn items(row: &Row<'_>) -> Result<Vec<Json>, SqlError> {
    match json(row, 0)? {
        Json::Array(items) => Ok(items),
        Json::Object(_) => Err(invalid("cannot extract elements from an object")),
        _ => Err(invalid("cannot extract elements from a scalar")),
    }
}

/// An object of pairs, each an array of a key and a value: what `jsonb_object_agg` collects.
fn object_join(row: &Row<'_>) -> Result<Value, SqlError> {
    let mut members = Vec::new();
    for pair in row.elements(0).into_iter().flatten() {
        let Json::Array(pair) = Json::parse(&pair)? else {
            continue;
        };
        let Ok([key, value]) = <[Json; 2]>::try_from(pair) else {
            continue;
        };
        let key = match key {
            Json::Text(text) => text,
            Json::Plain(plain) if plain == "null" => {
                return Err(invalid("field name must not be null"));
            }
            other => other.to_string(),
        };
        members.push((key, value));
    }
    written(&Json::object(members))
}

/// An argument as JSON text.
fn json(row: &Row<'_>, index: usize) -> Result<Json, SqlError> {
    Json::parse(row.str(index))
}

fn written(value: &Json) -> Result<Value, SqlError> {
    Ok(Value::Text(value.to_string()))
}

fn optional(found: Option<&Json>) -> Result<Value, SqlError> {
    found.map_or(Ok(Value::Null), written)
}

fn as_text(found: Option<&Json>) -> Result<Value, SqlError> {
    Ok(match found {
        None => Value::Null,
        Some(Json::Plain(plain)) if plain == "null" => Value::Null,
        Some(Json::Text(text)) => Value::Text(text.clone()),
        Some(other) => Value::Text(other.to_string()),
    })
}

fn anything(arguments: &[DataType]) -> Option<Vec<DataType>> {
    Some(arguments.to_vec())
}

/// JSON and a list of texts, which may be a literal.
fn with_path(arguments: &[DataType]) -> Option<Vec<DataType>> {
    match arguments {
        [value, path] if is_text(value) && is_text(path) => Some(vec![DataType::Utf8; 2]),
        [value, DataType::List(_)] if is_text(value) => Some(vec![
            DataType::Utf8,
            DataType::new_list(DataType::Utf8, true),
        ]),
        _ => None,
    }
}

fn minus(arguments: &[DataType]) -> Option<Vec<DataType>> {
    match arguments {
        [value, index] if is_text(value) && index.is_integer() => {
            Some(vec![DataType::Utf8, DataType::Int64])
        }
        other => with_path(other),
    }
}

fn set_arguments(arguments: &[DataType]) -> Option<Vec<DataType>> {
    let (path, rest) = arguments.get(..2).zip(arguments.get(2..))?;
    let mut types = with_path(path)?;
    match rest {
        [value] if is_text(value) => types.push(DataType::Utf8),
        [value, flag] if is_text(value) && matches!(flag, DataType::Boolean | DataType::Null) => {
            types.extend([DataType::Utf8, DataType::Boolean]);
        }
        _ => return None,
    }
    Some(types)
}

fn object_arguments(arguments: &[DataType]) -> Option<Vec<DataType>> {
    let each = |t: &DataType| match t {
        DataType::List(_) => Some(DataType::new_list(DataType::Utf8, true)),
        t if is_text(t) => Some(DataType::Utf8),
        _ => None,
    };
    matches!(arguments.len(), 1 | 2)
        .then(|| arguments.iter().map(each).collect())
        .flatten()
}

/// A list of texts, given as a list or as the text of one.
fn list(row: &Row<'_>, index: usize) -> Result<Vec<Option<String>>, SqlError> {
    if !matches!(row.sql_type(index), SqlType::Array(_)) {
        let parsed = parse_text(row.str(index), &SqlType::Array(Box::new(SqlType::Text)))?;
        let Value::List(values) = parsed else {
            return Ok(Vec::new());
        };
        return Ok(values
            .into_iter()
            .map(|v| match v {
                Value::Text(text) => Some(text),
                _ => None,
            })
            .collect());
    }
    Ok(row.elements(index))
}

/// A path; one with NULL in it leads nowhere.
fn path(row: &Row<'_>, index: usize) -> Result<Option<Vec<String>>, SqlError> {
    Ok(list(row, index)?.into_iter().collect())
}

fn names(row: &Row<'_>, index: usize) -> Result<Vec<String>, SqlError> {
    Ok(list(row, index)?.into_iter().flatten().collect())
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Object(_) => "object",
        Json::Array(_) => "array",
        Json::Text(_) => "string",
        Json::Plain(plain) => match plain.as_str() {
            "null" => "null",
            "true" | "false" => "boolean",
            _ => "number",
        },
    }
}

fn array_length(row: &Row<'_>) -> Result<Value, SqlError> {
    match json(row, 0)? {
        Json::Array(items) => Ok(Value::Integer(items.len() as i32)),
        Json::Object(_) => Err(invalid("cannot get array length of a non-array")),
        _ => Err(invalid("cannot get array length of a scalar")),
    }
}

fn invalid(message: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// The element that an index means; negative ones count from the end.
fn nth(length: usize, index: &str) -> Option<usize> {
    let index: i64 = index.parse().ok()?;
    let index = if index < 0 {
        index + length as i64
    } else {
        index
    };
    usize::try_from(index).ok().filter(|i| *i < length)
}

fn at_path<'a>(value: &'a Json, path: &[String]) -> Option<&'a Json> {
    path.iter().try_fold(value, |value, step| match value {
        Json::Object(members) => members.iter().find(|(k, _)| k == step).map(|(_, v)| v),
        Json::Array(items) => nth(items.len(), step).map(|i| &items[i]),
        _ => None,
    })
}

/// Whether `part` is in `whole`. At the top an array may contain a bare scalar.
fn contains(whole: &Json, part: &Json, top: bool) -> bool {
    match (whole, part) {
        (Json::Object(whole), Json::Object(part)) => part.iter().all(|(key, wanted)| {
            whole
                .iter()
                .any(|(k, v)| k == key && contains(v, wanted, false))
        }),
        (Json::Array(whole), Json::Array(part)) => part
            .iter()
            .all(|wanted| whole.iter().any(|v| contains(v, wanted, false))),
        (Json::Array(whole), scalar @ (Json::Plain(_) | Json::Text(_))) => {
            top && whole.iter().any(|v| equal(v, scalar))
        }
        (a, b) => equal(a, b),
    }
}

/// Numbers are equal by value: `1.0` is `1`.
fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Plain(a), Json::Plain(b)) => {
            a == b || digits(a).is_some_and(|d| Some(d) == digits(b))
        }
        (Json::Text(a), Json::Text(b)) => a == b,
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|((k, a), (l, b))| k == l && equal(a, b))
        }
        _ => false,
    }
}

/// A number without zeros at the end of its decimals.
fn digits(plain: &str) -> Option<&str> {
    let is_number = plain.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    is_number.then(|| match plain.contains('.') {
        true => plain.trim_end_matches('0').trim_end_matches('.'),
        false => plain,
    })
}

fn has_key(value: &Json, key: &str) -> bool {
    match value {
        Json::Object(members) => members.iter().any(|(k, _)| k == key),
        Json::Array(items) => items
            .iter()
            .any(|i| matches!(i, Json::Text(text) if text == key)),
        Json::Text(text) => text == key,
        Json::Plain(_) => false,
    }
}

fn concat(left: Json, right: Json) -> Json {
    match (left, right) {
        (Json::Object(mut left), Json::Object(right)) => {
            left.extend(right);
            Json::object(left)
        }
        (Json::Array(mut left), Json::Array(right)) => {
            left.extend(right);
            Json::Array(left)
        }
        (Json::Array(mut left), right) => {
            left.push(right);
            Json::Array(left)
        }
        (left, Json::Array(right)) => Json::Array(std::iter::once(left).chain(right).collect()),
        (left, right) => Json::Array(vec![left, right]),
    }
}

fn delete(row: &Row<'_>) -> Result<Value, SqlError> {
    let mut value = json(row, 0)?;
    if matches!(row.sql_type(1), SqlType::BigInt) {
        let index = row.primitive::<Int64Type>(1).to_string();
        match &mut value {
            Json::Array(items) => {
                if let Some(at) = nth(items.len(), &index) {
                    items.remove(at);
                }
            }
            Json::Object(_) => {
                return Err(invalid("cannot delete from object using integer index"));
            }
            _ => return Err(invalid("cannot delete from scalar")),
        }
        return written(&value);
    }
    let names = match row.sql_type(1) {
        SqlType::Array(_) => names(row, 1)?,
        _ => vec![row.str(1).to_owned()],
    };
    match &mut value {
        Json::Object(members) => members.retain(|(k, _)| !names.contains(k)),
        Json::Array(items) => {
            items.retain(|i| !matches!(i, Json::Text(text) if names.contains(text)))
        }
        _ => return Err(invalid("cannot delete from scalar")),
    }
    written(&value)
}

fn delete_path(value: &mut Json, path: &[String]) -> Result<(), SqlError> {
    let Some((step, rest)) = path.split_first() else {
        return Ok(());
    };
    match value {
        Json::Object(members) => match rest {
            [] => members.retain(|(k, _)| k != step),
            rest => {
                if let Some((_, inner)) = members.iter_mut().find(|(k, _)| k == step) {
                    delete_path(inner, rest)?;
                }
            }
        },
        Json::Array(items) => {
            if step.parse::<i64>().is_err() {
                return Err(not_an_index(step));
            }
            match (nth(items.len(), step), rest) {
                (Some(at), []) => {
                    items.remove(at);
                }
                (Some(at), rest) => delete_path(&mut items[at], rest)?,
                (None, _) => {}
            }
        }
        _ => {}
    }
    Ok(())
}

fn not_an_index(step: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("path element at position 1 is not an integer: \"{step}\""),
    )
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// `jsonb_set`: in the place of what is there, or, unless forbidden, new.
    Replace,
    /// `jsonb_insert`: in front of, or behind, an element of an array; new in an object.
    Before,
}

fn set(row: &Row<'_>, place: Place) -> Result<Value, SqlError> {
    let mut value = json(row, 0)?;
    let new = json(row, 2)?;
    let flag = (row.len() > 3).then(|| row.boolean(3));
    let Some(path) = path(row, 1)? else {
        return Err(invalid("path element must not be null"));
    };
    if matches!(value, Json::Plain(_) | Json::Text(_)) {
        return Err(invalid("cannot set path in scalar"));
    }
    put(&mut value, &path, new, place, flag)?;
    written(&value)
}

fn put(
    value: &mut Json,
    path: &[String],
    new: Json,
    place: Place,
    flag: Option<bool>,
) -> Result<(), SqlError> {
    let Some((step, rest)) = path.split_first() else {
        return Ok(());
    };
    match value {
        Json::Object(members) => {
            let found = members.iter().position(|(k, _)| k == step);
            match (found, rest.is_empty()) {
                (Some(at), false) => return put(&mut members[at].1, rest, new, place, flag),
                (Some(_), true) if place == Place::Before => {
                    return Err(invalid("cannot replace existing key")
                        .with_hint("Try using the function jsonb_set to replace key value."));
                }
                (Some(at), true) => members[at].1 = new,
                (None, true) if place == Place::Before || flag != Some(false) => {
                    let mut all = std::mem::take(members);
                    all.push((step.clone(), new));
                    *value = Json::object(all);
                }
                _ => {}
            }
        }
        Json::Array(items) => {
            if step.parse::<i64>().is_err() {
                return Err(not_an_index(step));
            }
            let found = nth(items.len(), step);
            match (found, rest.is_empty()) {
                (Some(at), false) => return put(&mut items[at], rest, new, place, flag),
                (Some(at), true) if place == Place::Replace => items[at] = new,
                (Some(at), true) => items.insert(at + usize::from(flag == Some(true)), new),
                (None, true) if place == Place::Before || flag != Some(false) => {
                    match step.starts_with('-') {
                        true => items.insert(0, new),
                        false => items.push(new),
                    }
                }
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}

fn strip(value: Json) -> Json {
    match value {
        Json::Object(members) => Json::Object(
            members
                .into_iter()
                .filter(|(_, v)| !matches!(v, Json::Plain(plain) if plain == "null"))
                .map(|(k, v)| (k, strip(v)))
                .collect(),
        ),
        Json::Array(items) => Json::Array(items.into_iter().map(strip).collect()),
        other => other,
    }
}

fn pretty(value: &Json, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    };
    match value {
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(depth + 1, out);
                pretty(item, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        Json::Object(members) => {
            out.push('{');
            for (index, (key, item)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(depth + 1, out);
                out.push_str(&Json::Text(key.clone()).to_string());
                out.push_str(": ");
                pretty(item, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn build_object(row: &Row<'_>) -> Result<Value, SqlError> {
    if !row.len().is_multiple_of(2) {
        return Err(invalid("argument list must have even number of elements").with_hint(
            "The arguments of jsonb_build_object() must consist of alternating keys and values.",
        ));
    }
    let mut members = Vec::new();
    for index in (0..row.len()).step_by(2) {
        if row.is_null(index) {
            return Err(invalid(&format!(
                "argument {}: key must not be null",
                index + 1
            )));
        }
        members.push((row.text(index), value_of(row, index + 1)?));
    }
    written(&Json::object(members))
}

fn object(row: &Row<'_>) -> Result<Value, SqlError> {
    let pairs: Vec<(Option<String>, Option<String>)> = if row.len() == 2 {
        let (keys, values) = (list(row, 0)?, list(row, 1)?);
        if keys.len() != values.len() {
            return Err(SqlError::new(
                SqlState::from_code("2202E"),
                "mismatched array dimensions",
            ));
        }
        keys.into_iter().zip(values).collect()
    } else {
        let parts = list(row, 0)?;
        if parts.len() % 2 != 0 {
            return Err(SqlError::new(
                SqlState::from_code("2202E"),
                "array must have even number of elements",
            ));
        }
        parts
            .chunks(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    };
    let mut members = Vec::new();
    for (key, value) in pairs {
        let key = key.ok_or_else(|| {
            SqlError::new(
                SqlState::from_code("22004"),
                "null value not allowed for object key",
            )
        })?;
        members.push((key, value.map_or_else(Json::null, Json::Text)));
    }
    written(&Json::object(members))
}

/// An argument of any type as JSON.
fn value_of(row: &Row<'_>, index: usize) -> Result<Json, SqlError> {
    match row.is_null(index) {
        true => Ok(Json::null()),
        false => to_json(row.array(index), row.sql_type(index), row.number()),
    }
}

/// A value as `to_jsonb` has it: numbers and booleans as such, times in ISO 8601, all else as text.
pub(super) fn to_json(array: &ArrayRef, sql_type: &SqlType, row: usize) -> Result<Json, SqlError> {
    if array.is_null(row) {
        return Ok(Json::null());
    }
    let text = |sql_type: &SqlType| {
        let mut out = String::new();
        write_text(array.as_ref(), sql_type, row, &mut out);
        out
    };
    Ok(match sql_type {
        SqlType::Boolean => Json::Plain(
            if array.as_boolean().value(row) {
                "true"
            } else {
                "false"
            }
            .to_owned(),
        ),
        SqlType::SmallInt | SqlType::Integer | SqlType::BigInt | SqlType::Numeric { .. } => {
            Json::Plain(text(sql_type))
        }
        SqlType::Real | SqlType::Double => {
            let number = text(sql_type);
            match number.as_str() {
                "NaN" | "Infinity" | "-Infinity" => Json::Text(number),
                // Exponents are written out in jsonb.
                _ => Json::parse(&number)?,
            }
        }
        SqlType::Jsonb => Json::parse(&text(sql_type))?,
        SqlType::Timestamp => Json::Text(text(sql_type).replacen(' ', "T", 1)),
        SqlType::TimestampTz => Json::Text(format!("{}:00", text(sql_type).replacen(' ', "T", 1))),
        SqlType::Array(element) => {
            let list = array.as_list::<i32>().value(row);
            let items = (0..list.len()).map(|i| to_json(&list, element, i));
            Json::Array(items.collect::<Result<_, _>>()?)
        }
        SqlType::Record(fields) => {
            let record = array.as_struct();
            let mut members = Vec::new();
            for (index, (name, field)) in fields.iter().enumerate() {
                members.push((name.clone(), to_json(record.column(index), field, row)?));
            }
            Json::object(members)
        }
        other => Json::Text(text(other)),
    })
}

//! GROUP BY over all rows of each group at once.

use super::Expected;
use super::pairs;
use crate::value::{Row, Value, ZSet, add};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use tidegate_plan::{AggregateCall, AggregateFunction as F, SortKey};

/// The aggregate of all rows. `outputs` are the types of the calls' columns.
pub fn aggregate(
    keys: &[usize],
    calls: &[AggregateCall],
    outputs: &[DataType],
    input: &ZSet,
) -> Expected {
    let mut groups: BTreeMap<Row, Vec<&Row>> = BTreeMap::new();
    if keys.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    for (row, count) in input {
        let group = groups
            .entry(keys.iter().map(|k| row[*k].clone()).collect())
            .or_default();
        group.extend(std::iter::repeat_n(
            row,
            usize::try_from(*count).expect("no negative counts"),
        ));
    }
    let mut expected = Expected::default();
    for (key, rows) in groups {
        let values: Result<Row, &str> = calls
            .iter()
            .zip(outputs)
            .map(|(call, output)| value(call, output, &rows))
            .collect();
        match values {
            Ok(values) => add(
                &mut expected.rows,
                key.into_iter().chain(values).collect(),
                1,
            ),
            Err(state) => expected.fail(state, 1),
        }
    }
    expected
}

pub fn compare(order: &[SortKey], a: &Row, b: &Row) -> Ordering {
    for key in order {
        let (a, b) = (&a[key.column], &b[key.column]);
        let ordering = match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => {
                if key.nulls_first {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (false, true) => {
                if key.nulls_first {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (false, false) => {
                if key.descending {
                    b.cmp(a)
                } else {
                    a.cmp(b)
                }
            }
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    Ordering::Equal
}

fn value(call: &AggregateCall, output: &DataType, rows: &[&Row]) -> Result<Value, &'static str> {
    let mut rows: Vec<&Row> = rows
        .iter()
        .copied()
        .filter(|row| call.filter.is_none_or(|f| row[f] == Value::Bool(true)))
        .filter(|row| {
            matches!(
                call.function,
                F::ArrayAgg | F::Library | F::FirstValue | F::LastValue
            ) || call.arguments.first().is_none_or(|a| !row[*a].is_null())
        })
        .collect();
    let arguments = |row: &Row| -> Row { call.arguments.iter().map(|a| row[*a].clone()).collect() };
    rows.sort_by(|a, b| {
        compare(&call.order_by, a, b).then_with(|| arguments(a).cmp(&arguments(b)))
    });
    if call.distinct {
        let mut seen = Vec::new();
        rows.retain(|row| {
            let new = !seen.contains(&arguments(row));
            seen.push(arguments(row));
            new
        });
    }
    if call.function == F::Count {
        return Ok(Value::Int(rows.len() as i64));
    }
    if let F::Pair(function) = call.function {
        return Ok(pairs::pair(function, &rows, &call.arguments));
    }
    if call.function == F::LinearRegression {
        return pairs::regression(&rows, &call.arguments);
    }
    if rows.is_empty() {
        return Ok(Value::Null);
    }
    let values: Vec<&Value> = rows.iter().map(|row| &row[call.arguments[0]]).collect();
    match call.function {
        F::Count => unreachable!("above"),
        F::Min => Ok((*values.iter().min().expect("not empty")).clone()),
        F::Max => Ok((*values.iter().max().expect("not empty")).clone()),
        F::BoolAnd => Ok(Value::Bool(values.iter().all(|v| **v == Value::Bool(true)))),
        F::BoolOr => Ok(Value::Bool(values.iter().any(|v| **v == Value::Bool(true)))),
        F::ArrayAgg | F::Library => Ok(Value::List(values.into_iter().cloned().collect())),
        F::BitAnd | F::BitOr | F::BitXor => Ok(bits(call.function, &values)),
        F::FirstValue => Ok(values[0].clone()),
        F::LastValue => Ok(values[values.len() - 1].clone()),
        F::PercentileCont | F::PercentileDisc => Ok(percentile(call, &values)),
        F::Mode => {
            let copies = |value: &Value| values.iter().filter(|v| **v == value).count();
            let most = values.iter().map(|v| copies(v)).max();
            let mode = values.iter().find(|v| Some(copies(v)) == most);
            Ok((*mode.expect("not empty")).clone())
        }
        F::Pair(_) | F::LinearRegression => unreachable!("above"),
        F::StringAgg => Ok(string_agg(call, &rows)),
        F::Sum => sum(&values, output),
        F::Avg => average(&values, output),
        F::VarPop | F::VarSamp | F::StddevPop | F::StddevSamp => {
            Ok(variance(call.function, &values))
        }
    }
}

fn bits(function: F, values: &[&Value]) -> Value {
    let integers = values.iter().map(|value| match value {
        Value::Int(value) => *value,
        other => panic!("{other:?} is no integer"),
    });
    let combined = integers.reduce(|a, b| match function {
        F::BitAnd => a & b,
        F::BitOr => a | b,
        _ => a ^ b,
    });
    combined.map_or(Value::Null, Value::Int)
}

/// Of values in order.
fn percentile(call: &AggregateCall, values: &[&Value]) -> Value {
    let fraction = match call.parameter.as_ref().map(|p| p.expr()) {
        Some(Expr::Literal(ScalarValue::Float64(Some(fraction)), _)) => *fraction,
        other => panic!("{other:?} is no fraction"),
    };
    if call.function == F::PercentileDisc {
        // The first value up to which there is such a share of all.
        let share = |row: &usize| (*row + 1) as f64 / values.len() as f64;
        let row = (0..values.len()).find(|row| share(row) >= fraction);
        return values[row.unwrap_or(values.len() - 1)].clone();
    }
    let place = fraction * (values.len() - 1) as f64;
    let (low, high) = (place.floor(), place.ceil());
    let at = |place: f64| float(values[place as usize]);
    Value::Float(at(low) * (1.0 - (place - low)) + at(high) * (place - low))
}

fn string_agg(call: &AggregateCall, rows: &[&Row]) -> Value {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        if let (true, Value::Text(delimiter)) = (index > 0, &row[call.arguments[1]]) {
            text.push_str(delimiter);
        }
        if let Value::Text(value) = &row[call.arguments[0]] {
            text.push_str(value);
        }
    }
    Value::Text(text)
}

/// The values as integers of one scale, if they are no floats.
fn whole(values: &[&Value]) -> Option<(i128, i8)> {
    values
        .iter()
        .try_fold((0, 0), |(sum, _), value| match value {
            Value::Int(v) => Some((sum + i128::from(*v), 0)),
            Value::Decimal(v, scale) => Some((sum + v, *scale)),
            _ => None,
        })
}

pub(super) fn float(value: &Value) -> f64 {
    match value {
        Value::Float(v) => *v,
        Value::Int(v) => *v as f64,
        Value::Decimal(v, scale) => *v as f64 / 10f64.powi(i32::from(*scale)),
        other => panic!("{other:?} is no number"),
    }
}

fn sum(values: &[&Value], output: &DataType) -> Result<Value, &'static str> {
    match (whole(values), output) {
        (Some((sum, 0)), DataType::Int64) => {
            i64::try_from(sum).map(Value::Int).map_err(|_| "22003")
        }
        (Some((sum, from)), DataType::Decimal128(precision, to)) => {
            let sum = sum * 10i128.pow((to - from) as u32);
            if sum.abs() < 10i128.pow(u32::from(*precision)) {
                Ok(Value::Decimal(sum, *to))
            } else {
                Err("22003")
            }
        }
        (None, _) => Ok(Value::Float(values.iter().map(|v| float(v)).sum())),
        other => panic!("a sum as {other:?}"),
    }
}

fn average(values: &[&Value], output: &DataType) -> Result<Value, &'static str> {
    let count = values.len() as i128;
    match (whole(values), output) {
        (Some((sum, from)), DataType::Decimal128(_, to)) => {
            let sum = sum * 10i128.pow((to - from) as u32);
            let (quotient, rest) = (sum / count, sum % count);
            let away = i128::from(rest.abs() * 2 >= count) * sum.signum();
            Ok(Value::Decimal(quotient + away, *to))
        }
        (Some((sum, scale)), _) => Ok(Value::Float(
            sum as f64 / count as f64 / 10f64.powi(i32::from(scale)),
        )),
        (None, _) => Ok(Value::Float(
            values.iter().map(|v| float(v)).sum::<f64>() / count as f64,
        )),
    }
}

fn variance(function: F, values: &[&Value]) -> Value {
    let floats: Vec<f64> = values.iter().map(|v| float(v)).collect();
    let count = floats.len() as f64;
    let sample = matches!(function, F::VarSamp | F::StddevSamp);
    if sample && floats.len() < 2 {
        return Value::Null;
    }
    let mean = floats.iter().sum::<f64>() / count;
    let squares: f64 = floats.iter().map(|v| (v - mean) * (v - mean)).sum();
    let variance = squares / if sample { count - 1.0 } else { count };
    let root = matches!(function, F::StddevPop | F::StddevSamp);
    Value::Float(if root { variance.sqrt() } else { variance })
}

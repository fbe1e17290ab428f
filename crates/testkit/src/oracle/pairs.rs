//! What is computed from two values of each row, about the means and over all rows at once.

use super::aggregate::float;
use crate::value::{Row, Value};
use tidegate_plan::PairFunction as P;

pub fn pair(function: P, rows: &[&Row], arguments: &[usize]) -> Value {
    let pairs: Vec<(f64, f64)> = rows
        .iter()
        .map(|row| (&row[arguments[0]], &row[arguments[1]]))
        .filter(|(y, x)| !y.is_null() && !x.is_null())
        .map(|(y, x)| (float(y), float(x)))
        .collect();
    let count = pairs.len() as f64;
    if function == P::RegrCount {
        return Value::Int(pairs.len() as i64);
    }
    if pairs.is_empty() || function == P::CovarSamp && pairs.len() < 2 {
        return Value::Null;
    }
    if pairs.iter().any(|(y, x)| !y.is_finite() || !x.is_finite()) {
        return Value::Float(f64::NAN);
    }
    let mean_y = pairs.iter().map(|(y, _)| y).sum::<f64>() / count;
    let mean_x = pairs.iter().map(|(_, x)| x).sum::<f64>() / count;
    let same = |one: &dyn Fn(&(f64, f64)) -> f64| {
        let first = one(&pairs[0]);
        pairs.iter().all(|pair| one(pair) == first)
    };
    let (flat_y, flat_x) = (same(&|p| p.0), same(&|p| p.1));
    let total = |product: &dyn Fn(f64, f64) -> f64| -> f64 {
        let centred = pairs.iter().map(|(y, x)| (y - mean_y, x - mean_x));
        centred.map(|(y, x)| product(y, x)).sum()
    };
    let xx = if flat_x { 0.0 } else { total(&|_, x| x * x) };
    let yy = if flat_y { 0.0 } else { total(&|y, _| y * y) };
    let xy = if flat_x || flat_y {
        0.0
    } else {
        total(&|y, x| x * y)
    };
    let value = match function {
        P::RegrCount => unreachable!("above"),
        P::RegrAvgX => mean_x,
        P::RegrAvgY => mean_y,
        P::RegrSxx => xx,
        P::RegrSyy => yy,
        P::RegrSxy => xy,
        P::CovarPop => xy / count,
        P::CovarSamp => xy / (count - 1.0),
        P::Corr if flat_x || flat_y => return Value::Null,
        P::Corr => xy / (xx * yy).sqrt(),
        P::RegrSlope | P::RegrIntercept | P::RegrR2 if flat_x => return Value::Null,
        P::RegrSlope => xy / xx,
        P::RegrIntercept => mean_y - xy / xx * mean_x,
        P::RegrR2 if flat_y => 1.0,
        P::RegrR2 => xy * xy / xx / yy,
    };
    Value::Float(value)
}

/// The coefficients by Cramer's rule over whole numbers.
pub fn regression(rows: &[&Row], arguments: &[usize]) -> Result<Value, &'static str> {
    let mut samples: Vec<(i128, Vec<i128>)> = Vec::new();
    for row in rows {
        let (Value::Int(y), Value::List(x)) = (&row[arguments[0]], &row[arguments[1]]) else {
            continue;
        };
        let x: Option<Vec<i128>> = x
            .iter()
            .map(|x| match x {
                Value::Int(x) => Some(i128::from(*x)),
                _ => None,
            })
            .collect();
        samples.extend(x.map(|x| (i128::from(*y), [vec![1], x].concat())));
    }
    let Some((_, first)) = samples.first() else {
        return Ok(Value::Null);
    };
    let size = first.len();
    if samples.iter().any(|(_, x)| x.len() != size) {
        return Err("2202E");
    }
    let left: Vec<Vec<i128>> = (0..size)
        .map(|i| {
            (0..size)
                .map(|j| samples.iter().map(|(_, x)| x[i] * x[j]).sum())
                .collect()
        })
        .collect();
    let right: Vec<i128> = (0..size)
        .map(|i| samples.iter().map(|(y, x)| x[i] * y).sum())
        .collect();
    let whole = determinant(&left);
    if whole == 0 {
        return Ok(Value::Null);
    }
    let coefficients = (0..size).map(|column| {
        let mut replaced = left.clone();
        for (row, value) in replaced.iter_mut().zip(&right) {
            row[column] = *value;
        }
        Value::Float(determinant(&replaced) as f64 / whole as f64)
    });
    Ok(Value::List(coefficients.collect()))
}

fn determinant(matrix: &[Vec<i128>]) -> i128 {
    if matrix.is_empty() {
        return 1;
    }
    let terms = (0..matrix.len()).map(|column| {
        let minor: Vec<Vec<i128>> = matrix[1..]
            .iter()
            .map(|row| [&row[..column], &row[column + 1..]].concat())
            .collect();
        let sign = if column % 2 == 0 { 1 } else { -1 };
        sign * matrix[0][column] * determinant(&minor)
    });
    terms.sum()
}

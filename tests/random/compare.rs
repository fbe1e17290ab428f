//! Whether two results hold the same rows.

use crate::generate::Type;
use crate::servers::Rows;
use std::cmp::Ordering;

fn inexact(types: &[Type], column: usize) -> bool {
    matches!(types[column], Type::Real | Type::Double | Type::Approximate)
}

fn number(text: &Option<String>) -> f64 {
    text.as_deref()
        .map_or(f64::NEG_INFINITY, |t| t.parse().unwrap_or(f64::NAN))
}

fn close(a: &Option<String>, b: &Option<String>) -> bool {
    if a == b {
        return true;
    }
    let (Some(_), Some(_)) = (a, b) else {
        return false;
    };
    let (a, b) = (number(a), number(b));
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1.0)
}

/// Exact columns first, so that rounding never changes which rows stand side by side unless they agree in all of those.
fn order(types: &[Type], a: &[Option<String>], b: &[Option<String>]) -> Ordering {
    let columns = 0..types.len().min(a.len()).min(b.len());
    let exact = columns
        .clone()
        .filter(|c| !inexact(types, *c))
        .map(|c| a[c].cmp(&b[c]));
    let rounded = columns.filter(|c| inexact(types, *c)).map(|c| {
        // Adding zero makes -0 the same as 0.
        let round = |t: &Option<String>| (number(t) * 1e4).round() + 0.0;
        round(&a[c]).total_cmp(&round(&b[c]))
    });
    exact
        .chain(rounded)
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// None when equal, else what differs.
pub fn difference(types: &[Type], mut expected: Rows, mut actual: Rows) -> Option<String> {
    expected.sort_by(|a, b| order(types, a, b));
    actual.sort_by(|a, b| order(types, a, b));
    let same = |a: &Vec<Option<String>>, b: &Vec<Option<String>>| {
        a.len() == b.len()
            && (0..a.len()).all(|c| match c < types.len() && inexact(types, c) {
                true => close(&a[c], &b[c]),
                false => a[c] == b[c],
            })
    };
    if expected.len() == actual.len() && expected.iter().zip(&actual).all(|(a, b)| same(a, b)) {
        return None;
    }
    // A multiset difference that is short to read.
    let mut spare = actual.clone();
    let mut missing = Vec::new();
    for row in &expected {
        match spare.iter().position(|r| same(row, r)) {
            Some(at) => {
                spare.swap_remove(at);
            }
            None => missing.push(row.clone()),
        }
    }
    if missing.is_empty() && spare.is_empty() {
        return None;
    }
    let show = |rows: &Rows| {
        let cell = |v: &Option<String>| v.clone().unwrap_or_else(|| "NULL".into());
        let lines = rows
            .iter()
            .take(6)
            .map(|r| r.iter().map(cell).collect::<Vec<_>>().join(" | "));
        lines.collect::<Vec<_>>().join("\n    ")
    };
    Some(format!(
        "  {} rows expected, {} found\n  missing ({}):\n    {}\n  unexpected ({}):\n    {}",
        expected.len(),
        actual.len(),
        missing.len(),
        show(&missing),
        spare.len(),
        show(&spare)
    ))
}

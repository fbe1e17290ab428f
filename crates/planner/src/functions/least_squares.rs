//! Least squares over rows at hand: Householder's reflections, so that nothing is squared.

use tidegate_types::{SqlError, SqlState};

/// y, and what it is explained by.
type Sample = (f64, Vec<f64>);

/// Longer arrays are a mistake.
const MAX_FEATURES: usize = 256;

/// Intercept and coefficients; None where they are not determined.
pub(super) fn fit(rows: &[Sample]) -> Result<Option<Vec<f64>>, SqlError> {
    let Some((_, first)) = rows.first() else {
        return Ok(None);
    };
    let features = first.len();
    if rows.iter().any(|(_, x)| x.len() != features) {
        let message = "linear_regression needs arrays of one length";
        return Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, message));
    }
    if features > MAX_FEATURES {
        let message = format!("linear_regression takes arrays of up to {MAX_FEATURES} numbers");
        return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
    }
    let finite = |(y, x): &Sample| y.is_finite() && x.iter().all(|x| x.is_finite());
    if rows.len() < features + 1 || !rows.iter().all(finite) {
        return Ok(None);
    }
    let count = rows.len() as f64;
    let mean = |value: &dyn Fn(&Sample) -> f64| rows.iter().map(value).sum::<f64>() / count;
    let means: Vec<f64> = (0..features).map(|i| mean(&|row| row.1[i])).collect();
    let mean_y = mean(&|row| row.0);
    let columns: Vec<Vec<f64>> = means
        .iter()
        .enumerate()
        .map(|(i, mean)| rows.iter().map(|(_, x)| x[i] - mean).collect())
        .collect();
    let right: Vec<f64> = rows.iter().map(|(y, _)| y - mean_y).collect();
    let Some(coefficients) = solve(columns, right) else {
        return Ok(None);
    };
    let through: f64 = coefficients.iter().zip(&means).map(|(c, m)| c * m).sum();
    let mut all = vec![mean_y - through];
    all.extend(coefficients);
    Ok(Some(all))
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The columns' best combination for the right side; None where one of them follows from others.
fn solve(mut columns: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let size = columns.len();
    let sizes: Vec<f64> = columns.iter().map(|c| norm(c)).collect();
    for step in 0..size {
        let length = norm(&columns[step][step..]);
        if length <= sizes[step] * 1e-12 || length == 0.0 {
            return None;
        }
        let mut mirror = columns[step][step..].to_vec();
        mirror[0] += length.copysign(mirror[0]);
        let square: f64 = mirror.iter().map(|v| v * v).sum();
        let reflect = |values: &mut [f64]| {
            let along: f64 = mirror.iter().zip(&*values).map(|(m, v)| m * v).sum();
            for (value, m) in values.iter_mut().zip(&mirror) {
                *value -= 2.0 * along / square * m;
            }
        };
        columns[step..]
            .iter_mut()
            .for_each(|c| reflect(&mut c[step..]));
        reflect(&mut right[step..]);
    }
    let mut solution = vec![0.0; size];
    for i in (0..size).rev() {
        let known: f64 = (i + 1..size).map(|j| columns[j][i] * solution[j]).sum();
        solution[i] = (right[i] - known) / columns[i][i];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_plane_is_found() {
        let rows: Vec<Sample> = (0..20)
            .map(|i| {
                let x = vec![f64::from(i % 5), f64::from(i * i % 7)];
                (3.0 + 2.0 * x[0] - 0.5 * x[1], x)
            })
            .collect();
        let found = fit(&rows).unwrap().unwrap();
        for (found, wanted) in found.iter().zip([3.0, 2.0, -0.5]) {
            assert!((found - wanted).abs() < 1e-12, "{found} is not {wanted}");
        }
        assert_eq!(fit(&rows[..2]).unwrap(), None);
        let doubled: Vec<_> = rows
            .iter()
            .map(|(y, x)| (*y, vec![x[0], 2.0 * x[0]]))
            .collect();
        assert_eq!(fit(&doubled).unwrap(), None);
        assert!(fit(&[(1.0, vec![1.0]), (2.0, vec![])]).is_err());
    }
}

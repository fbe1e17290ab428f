//! linear_regression(y, x): least squares with an intercept, from exact sums.
//!
//! State: for each length that arrays have how many rows have it, how many of these are not finite, and the sums of all
//! products of two of 1, x₁, …, xₖ and of each with y. Nothing is rounded before the equations are solved, so that rows may
//! come and go in any order; the solution is then corrected by its exact error until it no longer changes.
//!
//! A row with a NULL in it does not count. Fewer rows than coefficients, or an x that others determine: NULL. Arrays of
//! different lengths: an error in place of the group's row.

use super::accumulator::{Accumulator, Failure, Finished, Merge, Weights, unsupported};
use super::exact::Exact;
use crate::OperatorError;
use crate::value_bytes::{Reader, write_i64};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_types::SqlState;

/// Longer arrays are a mistake.
const MAX_FEATURES: usize = 256;

#[derive(Clone)]
struct Sums {
    count: i64,
    specials: i64,
    /// Of the products of 1 and each x with themselves, row by row of the upper triangle; then of each with y.
    products: Vec<Exact>,
}

/// By the length of the arrays.
type Models = BTreeMap<usize, Sums>;

impl Sums {
    /// Of arrays that are too long nothing is summed up.
    fn new(features: usize) -> Self {
        let width = if features > MAX_FEATURES {
            0
        } else {
            features + 1
        };
        Self {
            count: 0,
            specials: 0,
            products: vec![Exact::Zero; width * (width + 1) / 2 + width],
        }
    }

    fn add(&mut self, y: f64, x: &[f64], weight: i64) {
        self.count += weight;
        if x.len() > MAX_FEATURES {
            return;
        }
        if !y.is_finite() || x.iter().any(|x| !x.is_finite()) {
            self.specials += weight;
            return;
        }
        let value = |place: usize| if place == 0 { 1.0 } else { x[place - 1] };
        let mut products = self.products.iter_mut();
        let mut next = || products.next().expect("there is a sum for each product");
        for i in 0..=x.len() {
            for j in i..=x.len() {
                next().add_floats(value(i), value(j), weight);
            }
        }
        for i in 0..=x.len() {
            next().add_floats(value(i), y, weight);
        }
    }

    fn plus(&mut self, other: &Self) {
        self.count += other.count;
        self.specials += other.specials;
        for (sum, more) in self.products.iter_mut().zip(&other.products) {
            sum.add_exact(more);
        }
    }

    fn is_nothing(&self) -> bool {
        self.count == 0 && self.specials == 0 && self.products.iter().all(Exact::is_zero)
    }
}

fn read(reader: &mut Reader<'_>) -> Result<Models, OperatorError> {
    let mut models = Models::new();
    for _ in 0..reader.i64()? {
        let features = reader.i64()?.clamp(0, MAX_FEATURES as i64 + 1) as usize;
        let mut sums = Sums::new(features);
        sums.count = reader.i64()?;
        sums.specials = reader.i64()?;
        for product in &mut sums.products {
            *product = Exact::read(reader)?;
        }
        models.insert(features, sums);
    }
    Ok(models)
}

fn write(models: &Models, out: &mut Vec<u8>) {
    write_i64(models.len() as i64, out);
    for (features, sums) in models {
        write_i64(*features as i64, out);
        write_i64(sums.count, out);
        write_i64(sums.specials, out);
        sums.products.iter().for_each(|product| product.write(out));
    }
}

/// The equations of the coefficients without the intercept: all sums about their means, times the number of rows.
struct Equations {
    left: Vec<Vec<Exact>>,
    right: Vec<Exact>,
}

/// Intercept and coefficients; None where they are not determined.
fn solve(features: usize, sums: &Sums) -> Option<Vec<f64>> {
    let width = features + 1;
    if sums.count < width as i64 || sums.specials > 0 {
        return None;
    }
    let place = |i: usize, j: usize| {
        let (i, j) = (i.min(j), i.max(j));
        // Row i begins behind i rows of falling length.
        i * width - i * (i + 1) / 2 + j
    };
    let product = |i: usize, j: usize| &sums.products[place(i, j)];
    let with_y = |i: usize| &sums.products[width * (width + 1) / 2 + i];
    let n = sums.count;
    let centred = |i: usize| -> Vec<Exact> {
        let pair = |j| Exact::cross(n, product(i, j), product(0, i), product(0, j));
        (1..width).map(pair).collect()
    };
    let equations = Equations {
        left: (1..width).map(centred).collect(),
        right: (1..width)
            .map(|i| Exact::cross(n, with_y(i), product(0, i), with_y(0)))
            .collect(),
    };
    let coefficients = equations.solution()?;
    let mut rest = with_y(0).clone();
    for (i, coefficient) in coefficients.iter().enumerate() {
        rest.add_scaled(product(0, i + 1), -coefficient);
    }
    let intercept = rest.to_f64() / n as f64;
    let all: Vec<f64> = std::iter::once(intercept).chain(coefficients).collect();
    all.iter().all(|c| c.is_finite()).then_some(all)
}

impl Equations {
    fn solution(&self) -> Option<Vec<f64>> {
        const ROUNDS: usize = 10;
        let size = self.right.len();
        // Scaled so that the diagonal is one: the size of units must not decide what counts as nothing.
        let scales: Vec<f64> = (0..size).map(|i| self.left[i][i].to_f64().sqrt()).collect();
        if scales.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
            return None;
        }
        let scaled = |i: usize, j: usize| self.left[i][j].to_f64() / scales[i] / scales[j];
        let matrix: Vec<Vec<f64>> = (0..size)
            .map(|i| (0..size).map(|j| scaled(i, j)).collect())
            .collect();
        let lower = cholesky(matrix)?;
        let correction = |right: &[Exact]| -> Vec<f64> {
            let right = right.iter().zip(&scales).map(|(r, s)| r.to_f64() / s);
            let solved = substituted(&lower, right.collect());
            solved.iter().zip(&scales).map(|(x, s)| x / s).collect()
        };
        let mut solution = correction(&self.right);
        for _ in 0..ROUNDS {
            if solution.iter().any(|x| !x.is_finite()) {
                return None;
            }
            let error: Vec<Exact> = (0..size)
                .map(|i| {
                    let mut error = self.right[i].clone();
                    for (left, x) in self.left[i].iter().zip(&solution) {
                        error.add_scaled(left, -x);
                    }
                    error
                })
                .collect();
            let better: Vec<f64> = solution
                .iter()
                .zip(correction(&error))
                .map(|(x, step)| x + step)
                .collect();
            if better == solution {
                break;
            }
            solution = better;
        }
        Some(solution)
    }
}

/// The lower triangle whose product with its transpose is this matrix; None where some column follows from others.
fn cholesky(matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let size = matrix.len();
    let nothing = size as f64 * 8.0 * f64::EPSILON;
    let mut lower = vec![vec![0.0; size]; size];
    for i in 0..size {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let rest = matrix[i][j] - known;
            lower[i][j] = match i == j {
                true if rest <= nothing => return None,
                true => rest.sqrt(),
                false => rest / lower[j][j],
            };
        }
    }
    Some(lower)
}

fn substituted(lower: &[Vec<f64>], mut values: Vec<f64>) -> Vec<f64> {
    let size = values.len();
    for i in 0..size {
        let known: f64 = (0..i).map(|k| lower[i][k] * values[k]).sum();
        values[i] = (values[i] - known) / lower[i][i];
    }
    for i in (0..size).rev() {
        let known: f64 = (i + 1..size).map(|k| lower[k][i] * values[k]).sum();
        values[i] = (values[i] - known) / lower[i][i];
    }
    values
}

/// What a group's model is.
enum Outcome {
    Coefficients(Option<Vec<f64>>),
    Lengths,
    TooLong,
}

pub struct Regression {
    item: FieldRef,
    groups: Vec<Models>,
    finished: [Vec<Outcome>; 2],
}

impl Regression {
    pub fn new(output: &Field) -> Result<Self, OperatorError> {
        match output.data_type() {
            DataType::List(item) if *item.data_type() == DataType::Float64 => Ok(Self {
                item: item.clone(),
                groups: Vec::new(),
                finished: Default::default(),
            }),
            other => Err(unsupported(format_args!("linear_regression as {other}"))),
        }
    }

    fn outcome(models: &Models) -> Outcome {
        let mut there = models.iter().filter(|(_, sums)| sums.count > 0);
        match (there.next(), there.next()) {
            (Some((features, _)), None) if *features > MAX_FEATURES => Outcome::TooLong,
            (Some((features, sums)), None) => Outcome::Coefficients(solve(*features, sums)),
            (None, _) => Outcome::Coefficients(None),
            (Some(_), Some(_)) => Outcome::Lengths,
        }
    }

    fn column(&self, outcomes: Vec<Outcome>) -> Result<Finished, OperatorError> {
        let (mut values, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
        let mut failures = Vec::new();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let coefficients = match outcome {
                Outcome::Coefficients(coefficients) => coefficients,
                Outcome::Lengths => {
                    failures.push(Failure {
                        index,
                        state: SqlState::ARRAY_SUBSCRIPT_ERROR,
                        message: "linear_regression needs arrays of one length".to_owned(),
                    });
                    None
                }
                Outcome::TooLong => {
                    failures.push(Failure {
                        index,
                        state: SqlState::PROGRAM_LIMIT_EXCEEDED,
                        message: format!(
                            "linear_regression takes arrays of up to {MAX_FEATURES} numbers"
                        ),
                    });
                    None
                }
            };
            valid.push(coefficients.is_some());
            let coefficients = coefficients.unwrap_or_default();
            lengths.push(coefficients.len());
            values.extend(coefficients);
        }
        let list = ListArray::try_new(
            self.item.clone(),
            OffsetBuffer::from_lengths(lengths),
            Arc::new(Float64Array::from(values)),
            Some(NullBuffer::from(valid)),
        )?;
        Ok(Finished {
            values: Arc::new(list),
            failures,
        })
    }
}

impl Accumulator for Regression {
    fn resize(&mut self, groups: usize) {
        self.groups.resize_with(groups, Models::new);
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        let y = cast(&arguments[0], &DataType::Float64)?;
        let y = y.as_primitive::<Float64Type>();
        let wanted = DataType::List(Arc::new(Field::new("item", DataType::Float64, true)));
        let x = cast(&arguments[1], &wanted)?;
        let x = x.as_list::<i32>();
        for (row, group) in groups.iter().enumerate() {
            let weight = weights.get(row);
            if weight == 0 || y.is_null(row) || x.is_null(row) {
                continue;
            }
            let values = x.value(row);
            if values.null_count() > 0 {
                continue;
            }
            let values = values.as_primitive::<Float64Type>().values();
            let features = values.len().min(MAX_FEATURES + 1);
            self.groups[*group as usize]
                .entry(features)
                .or_insert_with(|| Sums::new(features))
                .add(y.value(row), &values[..features], weight);
        }
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let before = match old {
            Some(reader) => read(reader)?,
            None => Models::new(),
        };
        let mut after = before.clone();
        for (features, change) in &self.groups[at.group] {
            after
                .entry(*features)
                .or_insert_with(|| Sums::new(*features))
                .plus(change);
        }
        after.retain(|_, sums| !sums.is_nothing());
        write(&after, new);
        self.finished[0].push(Self::outcome(&before));
        self.finished[1].push(Self::outcome(&after));
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let [old, new] = std::mem::take(&mut self.finished);
        Ok([self.column(old)?, self.column(new)?])
    }

    fn clear(&mut self) {
        self.groups.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fitted(rows: &[(f64, Vec<f64>)]) -> Option<Vec<f64>> {
        let features = rows[0].1.len();
        let mut sums = Sums::new(features);
        rows.iter().for_each(|(y, x)| sums.add(*y, x, 1));
        solve(features, &sums)
    }

    #[test]
    fn a_plane_is_found_exactly() {
        let x: Vec<Vec<f64>> = (0..12)
            .map(|i| vec![f64::from(i % 5), f64::from(i * i % 7)])
            .collect();
        let rows = |offset: f64| -> Vec<(f64, Vec<f64>)> {
            x.iter()
                .map(|x| {
                    let x: Vec<f64> = x.iter().map(|x| x + offset).collect();
                    (3.0 + 2.0 * x[0] - 0.5 * x[1], x)
                })
                .collect()
        };
        assert_eq!(fitted(&rows(0.0)).unwrap(), [3.0, 2.0, -0.5]);
        // Far away from zero plain sums of squares lose all digits.
        assert_eq!(fitted(&rows(1e9)).unwrap(), [3.0, 2.0, -0.5]);
    }

    #[test]
    fn what_is_not_determined_is_null() {
        let rows: Vec<(f64, Vec<f64>)> = (0..5)
            .map(|i| (f64::from(i), vec![f64::from(i), 2.0 * f64::from(i)]))
            .collect();
        assert_eq!(fitted(&rows), None);
        assert_eq!(fitted(&[(1.0, vec![2.0])]), None);
        assert_eq!(fitted(&[(1.0, vec![2.0]), (2.0, vec![2.0])]), None);
        assert_eq!(fitted(&[(1.0, vec![]), (3.0, vec![])]).unwrap(), [2.0]);
    }

    #[test]
    fn rows_that_went_leave_nothing() {
        let mut sums = Sums::new(1);
        let rows = [(0.1, 0.7), (1e300, -1e-300), (5.0, 3.0)];
        rows.iter().for_each(|(y, x)| sums.add(*y, &[*x], 1));
        rows.iter().for_each(|(y, x)| sums.add(*y, &[*x], -1));
        assert!(sums.is_nothing());
    }
}

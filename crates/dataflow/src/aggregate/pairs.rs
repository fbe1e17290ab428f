//! corr, covar_*, regr_*: from the exact sums of x, y, x², y² and xy over the rows that have both.
//!
//! State: the number of such rows, how many of them are not finite, the five sums.

use super::accumulator::{Accumulator, Finished, Merge, Weights, unsupported};
use super::exact::Exact;
use super::number::{Number, NumberColumn};
use crate::OperatorError;
use crate::value_bytes::{Reader, write_i64};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, i256};
use tidegate_plan::PairFunction;

#[derive(Clone, Default)]
struct Sums {
    count: i64,
    /// Rows in which a value is not finite: one of them makes the result NaN.
    specials: i64,
    x: Exact,
    y: Exact,
    xx: Exact,
    yy: Exact,
    xy: Exact,
}

impl Sums {
    fn add(&mut self, y: f64, x: f64, weight: i64) {
        self.count += weight;
        if !(x.is_finite() && y.is_finite()) {
            self.specials += weight;
            return;
        }
        self.x.add_float(x, weight);
        self.y.add_float(y, weight);
        self.xx.add_square(x, weight);
        self.yy.add_square(y, weight);
        self.xy.add_floats(x, y, weight);
    }

    fn plus(&self, other: &Self) -> Self {
        let mut total = self.clone();
        total.count += other.count;
        total.specials += other.specials;
        let sums = [
            &mut total.x,
            &mut total.y,
            &mut total.xx,
            &mut total.yy,
            &mut total.xy,
        ];
        let others = [&other.x, &other.y, &other.xx, &other.yy, &other.xy];
        for (sum, more) in sums.into_iter().zip(others) {
            sum.add_exact(more);
        }
        total
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, OperatorError> {
        Ok(Self {
            count: reader.i64()?,
            specials: reader.i64()?,
            x: Exact::read(reader)?,
            y: Exact::read(reader)?,
            xx: Exact::read(reader)?,
            yy: Exact::read(reader)?,
            xy: Exact::read(reader)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_i64(self.count, out);
        write_i64(self.specials, out);
        for sum in [&self.x, &self.y, &self.xx, &self.yy, &self.xy] {
            sum.write(out);
        }
    }
}

pub struct Pairs {
    function: PairFunction,
    groups: Vec<Sums>,
    finished: [NumberColumn; 2],
}

impl Pairs {
    pub fn new(function: PairFunction, output: &Field) -> Result<Self, OperatorError> {
        let output = output.data_type();
        if !output.is_integer() && *output != DataType::Float64 {
            return Err(unsupported(format_args!("{function:?} as {output}")));
        }
        Ok(Self {
            function,
            groups: Vec::new(),
            finished: [NumberColumn::new(output), NumberColumn::new(output)],
        })
    }

    /// As Postgres has them: NULL where a line is not determined.
    fn number(&self, sums: &Sums) -> Number {
        use PairFunction as P;
        if self.function == P::RegrCount {
            return Number::Ratio {
                value: i256::from_i128(sums.count.into()),
                scale: 0,
                divisor: 1,
            };
        }
        let least = if self.function == P::CovarSamp { 2 } else { 1 };
        if sums.count < least {
            return Number::Null;
        }
        if sums.specials > 0 {
            return Number::Special(f64::NAN);
        }
        let (n, count) = (sums.count, sums.count as f64);
        let spread = |sum: &Exact, squares: &Exact| Exact::spread(n, sum, squares).to_f64();
        let xx = || spread(&sums.x, &sums.xx);
        let yy = || spread(&sums.y, &sums.yy);
        let xy = || Exact::cross(n, &sums.xy, &sums.x, &sums.y).to_f64();
        let determined = |value: Option<f64>| value.map_or(Number::Null, Number::Float);
        match self.function {
            P::RegrCount => Number::Null,
            P::RegrAvgX => Number::Float(sums.x.to_f64() / count),
            P::RegrAvgY => Number::Float(sums.y.to_f64() / count),
            P::RegrSxx => Number::Float(xx() / count),
            P::RegrSyy => Number::Float(yy() / count),
            P::RegrSxy => Number::Float(xy() / count),
            P::CovarPop => Number::Float(xy() / count / count),
            P::CovarSamp => Number::Float(xy() / count / (count - 1.0)),
            P::Corr => {
                let (xx, yy) = (xx(), yy());
                determined((xx > 0.0 && yy > 0.0).then(|| xy() / xx.sqrt() / yy.sqrt()))
            }
            P::RegrSlope => determined(Some(xx()).filter(|xx| *xx > 0.0).map(|xx| xy() / xx)),
            P::RegrIntercept => determined(Some(xx()).filter(|xx| *xx > 0.0).map(|xx| {
                let slope = xy() / xx;
                let mut rest = sums.y.clone();
                rest.add_scaled(&sums.x, -slope);
                rest.to_f64() / count
            })),
            P::RegrR2 => {
                let (xx, yy) = (xx(), yy());
                match (xx > 0.0, yy > 0.0) {
                    (false, _) => Number::Null,
                    (_, false) => Number::Float(1.0),
                    _ => {
                        let xy = xy();
                        Number::Float(xy / xx * (xy / yy))
                    }
                }
            }
        }
    }
}

impl Accumulator for Pairs {
    fn resize(&mut self, groups: usize) {
        self.groups.resize_with(groups, Sums::default);
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        let y = cast(&arguments[0], &DataType::Float64)?;
        let x = cast(&arguments[1], &DataType::Float64)?;
        let (y, x) = (
            y.as_primitive::<Float64Type>(),
            x.as_primitive::<Float64Type>(),
        );
        for (row, group) in groups.iter().enumerate() {
            let weight = weights.get(row);
            if weight != 0 && y.is_valid(row) && x.is_valid(row) {
                self.groups[*group as usize].add(y.value(row), x.value(row), weight);
            }
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
            Some(reader) => Sums::read(reader)?,
            None => Sums::default(),
        };
        let after = before.plus(&self.groups[at.group]);
        after.write(new);
        let numbers = [self.number(&before), self.number(&after)];
        self.finished
            .iter_mut()
            .zip(numbers)
            .for_each(|(column, number)| column.push(number));
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        Ok([self.finished[0].finish(), self.finished[1].finish()])
    }

    fn clear(&mut self) {
        self.groups.clear();
    }
}

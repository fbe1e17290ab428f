//! var_pop, var_samp, stddev_pop, stddev_samp: from the exact sums of x and x².
//!
//! State: both sums, a count of values that are not finite, and unless every row counts the number of values.

use super::accumulator::{Accumulator, Finished, Merge, Weights, unsupported};
use super::exact::Exact;
use super::number::{Number, NumberColumn, NumberShape};
use super::sum::doubles;
use crate::OperatorError;
use crate::groups::widen;
use crate::value_bytes::{Reader, write_i64};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, UInt64Type};
use tidegate_plan::AggregateFunction;

#[derive(Clone, Default)]
struct Moments {
    sum: Exact,
    squares: Exact,
    /// Values that are not finite: one of them makes the result NaN.
    specials: i64,
    count: i64,
}

pub struct Variance {
    sample: bool,
    root: bool,
    scale: i8,
    every_row: bool,
    moments: Vec<Moments>,
    finished: [NumberColumn; 2],
}

impl Variance {
    pub fn new(function: AggregateFunction, every_row: bool, shape: NumberShape) -> Self {
        use AggregateFunction as F;
        Self {
            sample: matches!(function, F::VarSamp | F::StddevSamp),
            root: matches!(function, F::StddevPop | F::StddevSamp),
            scale: shape.scale(),
            every_row,
            moments: Vec::new(),
            finished: [
                NumberColumn::new(&shape.output),
                NumberColumn::new(&shape.output),
            ],
        }
    }

    fn number(&self, moments: &Moments) -> Number {
        let count = moments.count;
        if count <= 0 || self.sample && count == 1 {
            return Number::Null;
        }
        if moments.specials > 0 {
            return Number::Special(f64::NAN);
        }
        let spread = Exact::spread(count, &moments.sum, &moments.squares).to_f64();
        let divisor = count as f64
            * if self.sample {
                (count - 1) as f64
            } else {
                count as f64
            };
        let variance = spread / divisor / 10f64.powi(2 * i32::from(self.scale));
        Number::Float(if self.root { variance.sqrt() } else { variance })
    }
}

impl Moments {
    fn add_whole(&mut self, value: i128, weight: i64) {
        self.sum.add_product(value, weight, 0);
        match value.checked_mul(value) {
            Some(square) => self.squares.add_product(square, weight, 0),
            None => {
                let mask = 0xffff_ffff_ffff;
                let pieces = [value & mask, value >> 48 & mask, value >> 96];
                for (i, a) in pieces.iter().enumerate() {
                    for (j, b) in pieces.iter().enumerate() {
                        self.squares.add_product(a * b, weight, 48 * (i + j) as i32);
                    }
                }
            }
        }
        self.count += weight;
    }

    fn add_float(&mut self, value: f64, weight: i64) {
        if value.is_finite() {
            self.sum.add_float(value, weight);
            self.squares.add_square(value, weight);
        } else {
            self.specials += weight;
        }
        self.count += weight;
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, OperatorError> {
        Ok(Self {
            sum: Exact::read(reader)?,
            squares: Exact::read(reader)?,
            specials: reader.i64()?,
            count: 0,
        })
    }

    fn plus(&self, other: &Self) -> Self {
        let mut total = self.clone();
        total.sum.add_exact(&other.sum);
        total.squares.add_exact(&other.squares);
        total.specials += other.specials;
        total.count += other.count;
        total
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.sum.write(out);
        self.squares.write(out);
        write_i64(self.specials, out);
    }
}

impl Accumulator for Variance {
    fn resize(&mut self, groups: usize) {
        self.moments.resize(groups, Moments::default());
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        let (moments, argument) = (&mut self.moments, &arguments[0]);
        if let Some(values) = doubles(argument) {
            weights.each(groups, &values, |g, v, w| moments[g].add_float(v, w));
        } else if let Some(values) = widen(argument) {
            weights.each(groups, &values, |g, v, w| {
                moments[g].add_whole(i128::from(v), w)
            });
        } else {
            match argument.data_type() {
                DataType::Decimal128(..) => {
                    let values = argument.as_primitive::<Decimal128Type>().values();
                    weights.each(groups, values, |g, v, w| moments[g].add_whole(v, w));
                }
                DataType::UInt64 => {
                    let values = argument.as_primitive::<UInt64Type>().values();
                    weights.each(groups, values, |g, v, w| {
                        moments[g].add_whole(i128::from(v), w)
                    });
                }
                other => return Err(unsupported(format_args!("a variance of {other}"))),
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
        let mut before = Moments::default();
        if let Some(reader) = old {
            before = Moments::read(reader)?;
            before.count = if self.every_row {
                at.rows_old.unwrap_or(0)
            } else {
                reader.i64()?
            };
        }
        let after = before.plus(&self.moments[at.group]);
        after.write(new);
        if !self.every_row {
            write_i64(after.count, new);
        }
        self.finished[0].push(self.number(&before));
        self.finished[1].push(self.number(&after));
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        Ok([self.finished[0].finish(), self.finished[1].finish()])
    }

    fn clear(&mut self) {
        self.moments.clear();
    }
}

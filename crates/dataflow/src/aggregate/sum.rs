//! sum and avg, over whole numbers (integers, decimals) and over floats.
//!
//! State: the exact sum, and unless every row counts the number of values; floats put a byte in front that says whether
//! counts of NaN, infinity and negative infinity follow.

use super::accumulator::{Accumulator, Finished, Merge, Weights, unsupported};
use super::exact::Exact;
use super::number::{Number, NumberColumn, NumberShape};
use crate::OperatorError;
use crate::groups::widen;
use crate::value_bytes::{Reader, write_i64, write_i128};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, UInt64Type, i256};
use std::collections::HashMap;
use tidegate_plan::AggregateFunction;
use tidegate_state::StateError;

/// An integer wide enough that no sum of an input's values overflows it.
pub trait Whole: Copy + Default + Send {
    fn plus(self, other: Self) -> Self;
    fn plus_times(self, value: i128, times: i64) -> Self;
    fn wide(self) -> i256;
    fn write(self, out: &mut Vec<u8>);
    fn read(reader: &mut Reader<'_>) -> Result<Self, StateError>;
}

/// For integers of up to 64 bits.
impl Whole for i128 {
    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn plus_times(self, value: i128, times: i64) -> Self {
        self + value * i128::from(times)
    }

    fn wide(self) -> i256 {
        i256::from_i128(self)
    }

    fn write(self, out: &mut Vec<u8>) {
        write_i128(self, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        reader.i128()
    }
}

/// For decimals of up to 38 digits.
impl Whole for i256 {
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn plus_times(self, value: i128, times: i64) -> Self {
        self.wrapping_add(i256::from_i128(value).wrapping_mul(i256::from_i128(i128::from(times))))
    }

    fn wide(self) -> i256 {
        self
    }

    /// The shortest two's complement that has the sign right, after its length.
    fn write(self, out: &mut Vec<u8>) {
        let bytes = self.to_le_bytes();
        let fill = if self < i256::ZERO { 0xff } else { 0 };
        let mut length = bytes
            .iter()
            .rposition(|b| *b != fill)
            .map_or(0, |last| last + 1);
        if length > 0 && (bytes[length - 1] ^ fill) & 0x80 != 0 || length == 0 && fill != 0 {
            length += 1;
        }
        out.push(length as u8);
        out.extend_from_slice(&bytes[..length]);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        let length = usize::from(reader.take(1)?[0]);
        let bytes = reader.take(length)?;
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) {
            0xff
        } else {
            0
        };
        let mut all = [fill; 32];
        all.get_mut(..length)
            .ok_or_else(|| StateError::Damaged("a sum is too long".into()))?
            .copy_from_slice(bytes);
        Ok(i256::from_le_bytes(all))
    }
}

/// How many values there are, when that is not how many rows there are.
#[derive(Default)]
struct Counts {
    every_row: bool,
    counts: Vec<i64>,
}

impl Counts {
    fn resize(&mut self, groups: usize) {
        if !self.every_row {
            self.counts.resize(groups, 0);
        }
    }

    fn update(&mut self, groups: &[u32], weights: Weights<'_>) {
        if !self.every_row {
            weights.count(groups, &mut self.counts);
        }
    }

    /// The counts before and after.
    fn merge(
        &self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(i64, i64), OperatorError> {
        if self.every_row {
            return Ok((at.rows_old.unwrap_or(0), at.rows_new));
        }
        let before = old.map_or(Ok(0), Reader::i64)?;
        let after = before + self.counts[at.group];
        write_i64(after, new);
        Ok((before, after))
    }
}

pub struct WholeSum<W> {
    average: bool,
    scale: i8,
    sums: Vec<W>,
    counts: Counts,
    finished: [NumberColumn; 2],
}

impl<W: Whole> WholeSum<W> {
    pub fn new(function: AggregateFunction, every_row: bool, shape: NumberShape) -> Self {
        Self {
            average: function == AggregateFunction::Avg,
            scale: shape.scale(),
            sums: Vec::new(),
            counts: Counts {
                every_row,
                counts: Vec::new(),
            },
            finished: [
                NumberColumn::new(&shape.output),
                NumberColumn::new(&shape.output),
            ],
        }
    }

    fn number(&self, sum: W, count: i64) -> Number {
        match count {
            ..=0 => Number::Null,
            _ => Number::Ratio {
                value: sum.wide(),
                scale: self.scale,
                divisor: if self.average { count } else { 1 },
            },
        }
    }
}

impl<W: Whole> Accumulator for WholeSum<W> {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, W::default());
        self.counts.resize(groups);
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        self.counts.update(groups, weights);
        let sums = &mut self.sums;
        let argument = &arguments[0];
        if let Some(values) = widen(argument) {
            weights.each(groups, &values, |g, v, w| {
                sums[g] = sums[g].plus_times(i128::from(v), w)
            });
            return Ok(());
        }
        match argument.data_type() {
            DataType::UInt64 => {
                let values = argument.as_primitive::<UInt64Type>().values();
                weights.each(groups, values, |g, v, w| {
                    sums[g] = sums[g].plus_times(i128::from(v), w)
                });
            }
            DataType::Decimal128(..) => {
                let values = argument.as_primitive::<Decimal128Type>().values();
                weights.each(groups, values, |g, v, w| sums[g] = sums[g].plus_times(v, w));
            }
            other => return Err(unsupported(format_args!("a sum of {other}"))),
        }
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        mut old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let before = old.as_deref_mut().map_or(Ok(W::default()), W::read)?;
        let after = before.plus(self.sums[at.group]);
        after.write(new);
        let (count_before, count_after) = self.counts.merge(at, old, new)?;
        let numbers = [
            self.number(before, count_before),
            self.number(after, count_after),
        ];
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
        self.sums.clear();
        self.counts.counts.clear();
    }
}

/// How many values were NaN, infinity and negative infinity.
pub type Specials = [i64; 3];

/// The index into [`Specials`] of a value that is not finite.
pub fn special_index(value: f64) -> Option<usize> {
    if value.is_finite() {
        None
    } else if value.is_nan() {
        Some(0)
    } else {
        Some(if value > 0.0 { 1 } else { 2 })
    }
}

pub fn special_sum(specials: Specials) -> Option<f64> {
    match specials.map(|count| count > 0) {
        [false, false, false] => None,
        [false, true, false] => Some(f64::INFINITY),
        [false, false, true] => Some(f64::NEG_INFINITY),
        _ => Some(f64::NAN),
    }
}

pub fn write_specials(specials: Specials, out: &mut Vec<u8>) {
    if specials == [0; 3] {
        out.push(0);
    } else {
        out.push(1);
        specials.iter().for_each(|count| write_i64(*count, out));
    }
}

pub fn read_specials(reader: &mut Reader<'_>) -> Result<Specials, StateError> {
    match reader.take(1)? {
        [0] => Ok([0; 3]),
        _ => Ok([reader.i64()?, reader.i64()?, reader.i64()?]),
    }
}

/// A float argument's values as doubles.
pub fn doubles(argument: &ArrayRef) -> Option<arrow::buffer::ScalarBuffer<f64>> {
    match argument.data_type() {
        DataType::Float64 => Some(argument.as_primitive::<Float64Type>().values().clone()),
        DataType::Float32 => Some(
            argument
                .as_primitive::<Float32Type>()
                .values()
                .iter()
                .map(|v| f64::from(*v))
                .collect(),
        ),
        _ => None,
    }
}

pub struct FloatSum {
    average: bool,
    single: bool,
    sums: Vec<Exact>,
    specials: HashMap<usize, Specials>,
    counts: Counts,
    finished: [NumberColumn; 2],
}

impl FloatSum {
    pub fn new(function: AggregateFunction, every_row: bool, shape: NumberShape) -> Self {
        Self {
            average: function == AggregateFunction::Avg,
            single: shape.output == DataType::Float32,
            sums: Vec::new(),
            specials: HashMap::new(),
            counts: Counts {
                every_row,
                counts: Vec::new(),
            },
            finished: [
                NumberColumn::new(&shape.output),
                NumberColumn::new(&shape.output),
            ],
        }
    }

    fn number(&self, sum: &Exact, specials: Specials, count: i64) -> Number {
        if count <= 0 {
            return Number::Null;
        }
        if let Some(special) = special_sum(specials) {
            return Number::Special(special);
        }
        Number::Float(match (self.average, self.single) {
            (true, _) => sum.to_f64() / count as f64,
            (false, true) => f64::from(sum.to_f32()),
            (false, false) => sum.to_f64(),
        })
    }
}

impl Accumulator for FloatSum {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, Exact::Zero);
        self.counts.resize(groups);
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        self.counts.update(groups, weights);
        let values =
            doubles(&arguments[0]).ok_or_else(|| unsupported("a float sum of another type"))?;
        let (sums, specials) = (&mut self.sums, &mut self.specials);
        weights.each(
            groups,
            &values,
            |group, value, weight| match special_index(value) {
                None => sums[group].add_float(value, weight),
                Some(index) => specials.entry(group).or_default()[index] += weight,
            },
        );
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        mut old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let (before, specials_before) = match old.as_deref_mut() {
            Some(reader) => (Exact::read(reader)?, read_specials(reader)?),
            None => (Exact::Zero, [0; 3]),
        };
        let mut after = before.clone();
        after.add_exact(&self.sums[at.group]);
        after.write(new);
        let mut specials_after = specials_before;
        if let Some(delta) = self.specials.get(&at.group) {
            specials_after
                .iter_mut()
                .zip(delta)
                .for_each(|(count, d)| *count += d);
        }
        write_specials(specials_after, new);
        let (count_before, count_after) = self.counts.merge(at, old, new)?;
        self.finished[0].push(self.number(&before, specials_before, count_before));
        self.finished[1].push(self.number(&after, specials_after, count_after));
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        Ok([self.finished[0].finish(), self.finished[1].finish()])
    }

    fn clear(&mut self) {
        self.sums.clear();
        self.specials.clear();
        self.counts.counts.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn wide_sums_are_stored_short_and_survive() {
        for value in [
            "0",
            "1",
            "-1",
            "127",
            "128",
            "-128",
            "-129",
            "99999999999999999999999999999999999999999999",
        ] {
            let value = i256::from_string(value).unwrap();
            let mut out = Vec::new();
            value.write(&mut out);
            assert_eq!(i256::read(&mut Reader::new(&out)).unwrap(), value);
        }
        let mut out = Vec::new();
        i256::from_i128(-128).write(&mut out);
        assert_eq!(out, [1, 0x80]);
    }
}

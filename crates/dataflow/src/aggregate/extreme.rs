//! min and max.
//!
//! Over rows that are never retracted the extreme itself is the state: a number as a varint, anything else as encoded bytes.
//! Over others a value set keeps every value with its count; the state has the current extreme beside it, so that the set is
//! searched only when the extreme itself has gone.

use super::accumulator::{Accumulator, Finished, Merge, Weights, unsupported};
use super::sum::doubles;
use super::value_set::scan_extreme;
use crate::OperatorError;
use crate::groups::widen;
use crate::value_bytes::{Reader, write_bytes, write_i128};
use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, new_null_array,
};
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int32Type, UInt64Type};
use std::sync::Arc;
use tidegate_state::StateError;
use tidegate_types::RowCodec;

/// Types whose values compare as integers of 128 bits.
pub fn holds_numbers(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Float32
                | DataType::Float64
                | DataType::Decimal128(..)
                | DataType::Date32
                | DataType::Timestamp(..)
                | DataType::Time64(_)
        )
}

/// Floats as integers in Postgres's order: NaN above infinity, and one zero.
fn order_of(value: f64) -> i64 {
    let canonical = if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    };
    let raw = canonical.to_bits() as i64;
    raw ^ (((raw >> 63) as u64) >> 1) as i64
}

fn float_of(order: i64) -> f64 {
    f64::from_bits((order ^ (((order >> 63) as u64) >> 1) as i64) as u64)
}

pub struct NumberExtreme {
    max: bool,
    output: DataType,
    /// `none` where there is no value.
    extremes: Vec<i128>,
    /// Worse than any value of any type.
    none: i128,
    finished: [Vec<Option<i128>>; 2],
}

impl NumberExtreme {
    pub fn new(max: bool, output: &Field) -> Self {
        let none = if max { i128::MIN } else { i128::MAX };
        let output = output.data_type().clone();
        Self {
            max,
            output,
            extremes: Vec::new(),
            none,
            finished: Default::default(),
        }
    }

    fn better(&self, a: i128, b: i128) -> i128 {
        if self.max { a.max(b) } else { a.min(b) }
    }

    fn column(&self, values: Vec<Option<i128>>) -> Result<Finished, OperatorError> {
        let values: ArrayRef = match &self.output {
            DataType::Decimal128(..) => {
                Arc::new(Decimal128Array::from(values).with_data_type(self.output.clone()))
            }
            DataType::Float32 | DataType::Float64 => {
                let floats = values.iter().map(|v| v.map(|v| float_of(v as i64)));
                cast(
                    &(Arc::new(floats.collect::<Float64Array>()) as ArrayRef),
                    &self.output,
                )?
            }
            DataType::UInt64 => {
                let values = values.iter().map(|v| v.map(|v| v as u64));
                Arc::new(values.collect::<arrow::array::UInt64Array>())
            }
            DataType::Date32 => {
                let days = values.iter().map(|v| v.map(|v| v as i32));
                let days = days.collect::<arrow::array::PrimitiveArray<Int32Type>>();
                cast(&(Arc::new(days) as ArrayRef), &self.output)?
            }
            _ => {
                let wide = values
                    .iter()
                    .map(|v| v.map(|v| v as i64))
                    .collect::<Int64Array>();
                cast(&(Arc::new(wide) as ArrayRef), &self.output)?
            }
        };
        Ok(Finished::plain(values))
    }
}

impl Accumulator for NumberExtreme {
    fn resize(&mut self, groups: usize) {
        self.extremes.resize(groups, self.none);
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        let (max, extremes, argument) = (self.max, &mut self.extremes, &arguments[0]);
        let mut note = |group: usize, value: i128| {
            let slot = &mut extremes[group];
            if max {
                *slot = (*slot).max(value)
            } else {
                *slot = (*slot).min(value)
            }
        };
        if let Some(values) = widen(argument) {
            weights.each(groups, &values, |g, v, _| note(g, i128::from(v)));
        } else if let Some(values) = doubles(argument) {
            weights.each(groups, &values, |g, v, _| note(g, i128::from(order_of(v))));
        } else {
            match argument.data_type() {
                DataType::Decimal128(..) => {
                    weights.each(
                        groups,
                        argument.as_primitive::<Decimal128Type>().values(),
                        |g, v, _| note(g, v),
                    );
                }
                DataType::UInt64 => {
                    let values = argument.as_primitive::<UInt64Type>().values();
                    weights.each(groups, values, |g, v, _| note(g, i128::from(v)));
                }
                other => return Err(unsupported(format_args!("an extreme of {other}"))),
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
            Some(reader) => match reader.take(1)? {
                [0] => self.none,
                _ => reader.i128()?,
            },
            None => self.none,
        };
        let after = self.better(before, self.extremes[at.group]);
        if after == self.none {
            new.push(0);
        } else {
            new.push(1);
            write_i128(after, new);
        }
        let none = self.none;
        self.finished
            .iter_mut()
            .zip([before, after])
            .for_each(|(column, v)| column.push((v != none).then_some(v)));
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let [old, new] = std::mem::take(&mut self.finished);
        Ok([self.column(old)?, self.column(new)?])
    }

    fn clear(&mut self) {
        self.extremes.clear();
    }
}

/// Encoded values on their way into an output column.
struct EncodedColumn {
    codec: RowCodec,
    output: DataType,
}

impl EncodedColumn {
    fn new(output: &Field) -> Result<Self, OperatorError> {
        let output = output.data_type().clone();
        Ok(Self {
            codec: RowCodec::new(std::slice::from_ref(&output))?,
            output,
        })
    }

    fn column(&self, values: &[Option<Box<[u8]>>]) -> Result<Finished, OperatorError> {
        let present: Vec<&[u8]> = values.iter().flatten().map(AsRef::as_ref).collect();
        if present.is_empty() {
            return Ok(Finished::plain(new_null_array(&self.output, values.len())));
        }
        let decoded = self.codec.decode(present)?.remove(0);
        if decoded.len() == values.len() {
            return Ok(Finished::plain(decoded));
        }
        let null = new_null_array(&self.output, 1);
        let mut next = 0;
        let places: Vec<(usize, usize)> = values
            .iter()
            .map(|value| match value {
                Some(_) => {
                    next += 1;
                    (0, next - 1)
                }
                None => (1, 0),
            })
            .collect();
        Ok(Finished::plain(interleave(
            &[decoded.as_ref(), null.as_ref()],
            &places,
        )?))
    }
}

type Encoded = Option<Box<[u8]>>;

fn better_bytes<'a>(max: bool, a: Option<&'a [u8]>, b: Option<&'a [u8]>) -> Option<&'a [u8]> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if (a > b) == max { a } else { b }),
        (a, b) => a.or(b),
    }
}

fn read_encoded<'a>(old: Option<&mut Reader<'a>>) -> Result<Option<&'a [u8]>, StateError> {
    match old {
        Some(reader) => match reader.take(1)? {
            [0] => Ok(None),
            _ => reader.bytes().map(Some),
        },
        None => Ok(None),
    }
}

fn write_encoded(value: Option<&[u8]>, new: &mut Vec<u8>) {
    match value {
        None => new.push(0),
        Some(bytes) => {
            new.push(1);
            write_bytes(bytes, new);
        }
    }
}

/// Over rows that are never retracted, for types that do not compare as numbers.
pub struct ByteExtreme {
    max: bool,
    encoded: EncodedColumn,
    extremes: Vec<Encoded>,
    finished: [Vec<Encoded>; 2],
}

impl ByteExtreme {
    pub fn new(max: bool, output: &Field) -> Result<Self, OperatorError> {
        let encoded = EncodedColumn::new(output)?;
        Ok(Self {
            max,
            encoded,
            extremes: Vec::new(),
            finished: Default::default(),
        })
    }
}

impl Accumulator for ByteExtreme {
    fn resize(&mut self, groups: usize) {
        self.extremes.resize(groups, None);
    }

    fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        arguments: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        let rows = self.encoded.codec.encode(arguments)?;
        for (row, group) in groups.iter().enumerate() {
            if weights.get(row) == 0 {
                continue;
            }
            let slot = &mut self.extremes[*group as usize];
            let bytes = rows.row(row).data();
            if slot
                .as_deref()
                .is_none_or(|best| bytes != best && (bytes > best) == self.max)
            {
                *slot = Some(bytes.into());
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
        let before = read_encoded(old)?;
        let after = better_bytes(self.max, before, self.extremes[at.group].as_deref());
        write_encoded(after, new);
        self.finished
            .iter_mut()
            .zip([before, after])
            .for_each(|(column, v)| column.push(v.map(Box::from)));
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let [old, new] = std::mem::take(&mut self.finished);
        Ok([self.encoded.column(&old)?, self.encoded.column(&new)?])
    }

    fn clear(&mut self) {
        self.extremes.clear();
    }
}

/// Over rows that may be retracted: reads a value set.
pub struct SetExtreme {
    max: bool,
    set: usize,
    encoded: EncodedColumn,
    finished: [Vec<Encoded>; 2],
}

impl SetExtreme {
    pub fn new(max: bool, set: usize, output: &Field) -> Result<Self, OperatorError> {
        Ok(Self {
            max,
            set,
            encoded: EncodedColumn::new(output)?,
            finished: Default::default(),
        })
    }
}

impl Accumulator for SetExtreme {
    fn resize(&mut self, _groups: usize) {}

    fn update(&mut self, _: &[u32], _: Weights<'_>, _: &[ArrayRef]) -> Result<(), OperatorError> {
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let before = read_encoded(old)?;
        let (mut candidate, mut gone) = (None, false);
        for (value, _, count) in at.sets[self.set].changes(at.group) {
            if count > 0 {
                candidate = better_bytes(self.max, candidate, Some(value));
            } else if Some(value) == before {
                gone = true;
            }
        }
        // Once the extreme has gone, what takes its place may be a value that did not change.
        let found;
        let after = if gone {
            found = scan_extreme(at.tables[1 + self.set].as_ref(), at.key, self.max)?;
            found.as_deref()
        } else {
            better_bytes(self.max, before, candidate)
        };
        write_encoded(after, new);
        self.finished
            .iter_mut()
            .zip([before, after])
            .for_each(|(column, v)| column.push(v.map(Box::from)));
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let [old, new] = std::mem::take(&mut self.finished);
        Ok([self.encoded.column(&old)?, self.encoded.column(&new)?])
    }

    fn clear(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_order_as_in_postgres() {
        let ordered = [
            f64::NEG_INFINITY,
            -1.5,
            -0.0,
            1e-300,
            2.0,
            f64::INFINITY,
            f64::NAN,
        ];
        assert!(ordered.windows(2).all(|w| order_of(w[0]) < order_of(w[1])));
        assert_eq!(order_of(0.0), order_of(-0.0));
        for value in ordered {
            assert!(float_of(order_of(value)).total_cmp(&(value + 0.0)).is_eq());
        }
    }
}

//! Numbers on their way into an output column: range checks, scales, rounding.

use super::accumulator::{Failure, Finished, unsupported};
use crate::OperatorError;
use arrow::array::{
    ArrayRef, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    PrimitiveArray, UInt64Array,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Int16Type, Int32Type, Int64Type, UInt64Type, i256,
};
use std::sync::Arc;
use tidegate_types::SqlState;

/// What a numeric call reads and what it gives.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberShape {
    pub input: DataType,
    pub output: DataType,
}

impl NumberShape {
    pub fn new(input: &DataType, output: &DataType) -> Result<Self, OperatorError> {
        let readable = input.is_integer()
            || matches!(
                input,
                DataType::Decimal128(..) | DataType::Float32 | DataType::Float64
            );
        let writable = matches!(
            output,
            DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::UInt64
                | DataType::Float32
                | DataType::Float64
                | DataType::Decimal128(..)
        );
        if !readable || !writable {
            return Err(unsupported(format_args!(
                "an aggregate of {input} as {output}"
            )));
        }
        Ok(Self {
            input: input.clone(),
            output: output.clone(),
        })
    }

    /// Digits after the point of what is added up.
    pub fn scale(&self) -> i8 {
        match self.input {
            DataType::Decimal128(_, scale) => scale,
            _ => 0,
        }
    }
}

/// One output value before its type is known to hold it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Null,
    /// `value / divisor / 10^scale`, exactly.
    Ratio {
        value: i256,
        scale: i8,
        divisor: i64,
    },
    /// From finite inputs; an infinite result is an overflow.
    Float(f64),
    /// From inputs of which some are infinite or not a number.
    Special(f64),
}

/// An output column that grows.
pub struct NumberColumn {
    values: Values,
    failures: Vec<Failure>,
}

enum Values {
    Int16(Vec<Option<i16>>),
    Int32(Vec<Option<i32>>),
    Int64(Vec<Option<i64>>),
    UInt64(Vec<Option<u64>>),
    Float32(Vec<Option<f32>>),
    Float64(Vec<Option<f64>>),
    Decimal(Vec<Option<i128>>, u8, i8),
}

impl NumberColumn {
    pub fn new(output: &DataType) -> Self {
        let values = match output {
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::UInt64 => Values::UInt64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => {
                Values::Decimal(Vec::new(), *precision, *scale)
            }
            other => unreachable!("NumberShape refuses {other}"),
        };
        Self {
            values,
            failures: Vec::new(),
        }
    }

    pub fn push(&mut self, number: Number) {
        let held = match &mut self.values {
            Values::Int16(v) => push_whole::<Int16Type>(v, number),
            Values::Int32(v) => push_whole::<Int32Type>(v, number),
            Values::Int64(v) => push_whole::<Int64Type>(v, number),
            Values::UInt64(v) => push_whole::<UInt64Type>(v, number),
            Values::Float64(v) => {
                let value = float_of(number);
                let held = !overflows(number, value.is_some_and(f64::is_infinite));
                v.push(value.filter(|_| held));
                held
            }
            Values::Float32(v) => {
                let value = float_of(number).map(|v| v as f32);
                let held = !overflows(number, value.is_some_and(f32::is_infinite));
                v.push(value.filter(|_| held));
                held
            }
            Values::Decimal(v, precision, scale) => push_decimal(v, *precision, *scale, number),
        };
        if !held {
            let (index, message) = (self.len() - 1, self.failure().to_owned());
            self.failures.push(Failure {
                index,
                state: SqlState::NUMERIC_OUT_OF_RANGE,
                message,
            });
        }
    }

    fn len(&self) -> usize {
        match &self.values {
            Values::Int16(v) => v.len(),
            Values::Int32(v) => v.len(),
            Values::Int64(v) => v.len(),
            Values::UInt64(v) => v.len(),
            Values::Float32(v) => v.len(),
            Values::Float64(v) => v.len(),
            Values::Decimal(v, ..) => v.len(),
        }
    }

    /// Postgres's words for a value that the type cannot hold.
    fn failure(&self) -> &'static str {
        match &self.values {
            Values::Int16(_) => "smallint out of range",
            Values::Int32(_) => "integer out of range",
            Values::Int64(_) | Values::UInt64(_) => "bigint out of range",
            Values::Float32(_) | Values::Float64(_) => "value out of range: overflow",
            Values::Decimal(..) => "numeric field overflow",
        }
    }

    pub fn finish(&mut self) -> Finished {
        let values: ArrayRef = match &mut self.values {
            Values::Int16(v) => Arc::new(Int16Array::from(std::mem::take(v))),
            Values::Int32(v) => Arc::new(Int32Array::from(std::mem::take(v))),
            Values::Int64(v) => Arc::new(Int64Array::from(std::mem::take(v))),
            Values::UInt64(v) => Arc::new(UInt64Array::from(std::mem::take(v))),
            Values::Float32(v) => Arc::new(Float32Array::from(std::mem::take(v))),
            Values::Float64(v) => Arc::new(Float64Array::from(std::mem::take(v))),
            Values::Decimal(v, precision, scale) => {
                let array: PrimitiveArray<Decimal128Type> =
                    Decimal128Array::from(std::mem::take(v));
                Arc::new(array.with_data_type(DataType::Decimal128(*precision, *scale)))
            }
        };
        Finished {
            values,
            failures: std::mem::take(&mut self.failures),
        }
    }
}

/// Infinity is a value of the type when it came in, and an overflow when it did not.
fn overflows(number: Number, infinite: bool) -> bool {
    infinite && !matches!(number, Number::Special(_))
}

fn float_of(number: Number) -> Option<f64> {
    match number {
        Number::Null => None,
        Number::Float(value) | Number::Special(value) => Some(value),
        Number::Ratio {
            value,
            scale,
            divisor,
        } => {
            let value = whole_to_f64(value) / divisor as f64;
            Some(if scale == 0 {
                value
            } else {
                value / 10f64.powi(i32::from(scale))
            })
        }
    }
}

/// The nearest float, or next to it beyond 128 bits.
fn whole_to_f64(value: i256) -> f64 {
    match value.to_i128() {
        Some(small) => small as f64,
        None => {
            let (low, high) = value.to_parts();
            high as f64 * 2f64.powi(128) + low as f64
        }
    }
}

fn push_whole<T: ArrowPrimitiveType>(column: &mut Vec<Option<T::Native>>, number: Number) -> bool
where
    T::Native: TryFrom<i128>,
{
    let value = match number {
        Number::Null => {
            column.push(None);
            return true;
        }
        Number::Ratio {
            value,
            scale,
            divisor,
        } => rescaled(value, scale, divisor, 0),
        Number::Float(value) | Number::Special(value) => i256::from_f64(value.round()),
    };
    let value = value
        .and_then(i256::to_i128)
        .and_then(|v| T::Native::try_from(v).ok());
    column.push(value);
    value.is_some()
}

fn push_decimal(column: &mut Vec<Option<i128>>, precision: u8, scale: i8, number: Number) -> bool {
    let value = match number {
        Number::Null => {
            column.push(None);
            return true;
        }
        Number::Ratio {
            value,
            scale: from,
            divisor,
        } => rescaled(value, from, divisor, scale),
        Number::Float(value) | Number::Special(value) => {
            i256::from_f64((value * 10f64.powi(i32::from(scale))).round())
        }
    };
    let limit = 10i128.pow(u32::from(precision));
    let value = value
        .and_then(i256::to_i128)
        .filter(|v| *v > -limit && *v < limit);
    column.push(value);
    value.is_some()
}

/// `value / divisor` moved from one scale to another, rounded half away from zero as Postgres's numeric does.
fn rescaled(value: i256, from: i8, divisor: i64, to: i8) -> Option<i256> {
    let shift = i32::from(to) - i32::from(from);
    if shift == 0 && divisor == 1 {
        return Some(value);
    }
    let power = i256::from_i128(10).checked_pow(shift.unsigned_abs())?;
    let (numerator, denominator) = match shift {
        0.. => (
            value.checked_mul(power)?,
            i256::from_i128(i128::from(divisor)),
        ),
        _ => (
            value,
            power.checked_mul(i256::from_i128(i128::from(divisor)))?,
        ),
    };
    if denominator == i256::ONE {
        return Some(numerator);
    }
    let quotient = numerator.checked_div(denominator)?;
    let remainder = numerator.checked_rem(denominator)?;
    let twice = remainder.wrapping_abs().checked_mul(i256::from_i128(2))?;
    if twice < denominator.wrapping_abs() {
        return Some(quotient);
    }
    let away = if (numerator < i256::ZERO) == (denominator < i256::ZERO) {
        i256::ONE
    } else {
        i256::MINUS_ONE
    };
    quotient.checked_add(away)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(value: i128) -> i256 {
        i256::from_i128(value)
    }

    /// Postgres: `select round(x / y, s)`.
    #[test]
    fn halves_round_away_from_zero() {
        assert_eq!(rescaled(whole(5), 0, 2, 0), Some(whole(3)));
        assert_eq!(rescaled(whole(-5), 0, 2, 0), Some(whole(-3)));
        assert_eq!(rescaled(whole(10), 0, 3, 4), Some(whole(33333)));
        assert_eq!(rescaled(whole(149), 2, 1, 0), Some(whole(1)));
        assert_eq!(rescaled(whole(150), 2, 1, 0), Some(whole(2)));
    }

    #[test]
    fn what_does_not_fit_is_a_failure() {
        let mut column = NumberColumn::new(&DataType::Int32);
        column.push(Number::Ratio {
            value: whole(1 << 31),
            scale: 0,
            divisor: 1,
        });
        column.push(Number::Ratio {
            value: whole((1 << 31) - 1),
            scale: 0,
            divisor: 1,
        });
        let finished = column.finish();
        assert_eq!(finished.failures.len(), 1);
        assert_eq!(finished.failures[0].message, "integer out of range");
        assert_eq!(finished.values.null_count(), 1);
    }
}

//! Sums of floats without any rounding.
//!
//! A finite float is an integer times a power of two, and so is every sum of floats. [`Exact`] keeps that integer: in 128
//! bits around the magnitudes seen as long as they fit, in as many as needed otherwise. Adding and subtracting the same
//! values in any order gives the same number, so retractions never drift; rounding happens once, when a value is read.

use crate::value_bytes::{Reader, write_i64, write_u128};
use tidegate_state::StateError;

/// `± Σ limbs[i]·2^(64·i) · 2^exponent`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Magnitude {
    negative: bool,
    limbs: Vec<u64>,
    exponent: i32,
}

#[derive(Debug, Clone, Default)]
pub enum Exact {
    #[default]
    Zero,
    /// `sum · 2^exponent`
    Narrow {
        sum: i128,
        exponent: i32,
    },
    Wide(Box<Wide>),
}

/// Two's complement limbs, least significant first; the last one carries the sign.
#[derive(Debug, Clone)]
pub struct Wide {
    limbs: Vec<u64>,
    exponent: i32,
}

/// Bits left free below a first value, for smaller ones to come.
const MARGIN_BITS: u32 = 24;

impl Exact {
    /// Adds `value · times`. The value must be finite.
    pub fn add_float(&mut self, value: f64, times: i64) {
        let (mantissa, exponent) = parts(value);
        // 53 bits by 63 bits fit.
        self.add(i128::from(mantissa) * i128::from(times), exponent);
    }

    /// Adds `value² · times`.
    pub fn add_square(&mut self, value: f64, times: i64) {
        self.add_floats(value, value, times);
    }

    /// Adds `a · b · times`. Both must be finite.
    pub fn add_floats(&mut self, a: f64, b: f64, times: i64) {
        let ((a, low), (b, high)) = (parts(a), parts(b));
        self.add_product(i128::from(a) * i128::from(b), times, low + high);
    }

    /// Adds `other · factor`. The factor must be finite.
    pub fn add_scaled(&mut self, other: &Exact, factor: f64) {
        let (mantissa, exponent) = parts(factor);
        let magnitude = other.magnitude();
        let mantissa = i128::from(if magnitude.negative {
            -mantissa
        } else {
            mantissa
        });
        for (index, limb) in magnitude.limbs.iter().enumerate() {
            // 53 bits by 64 bits fit.
            let at = magnitude.exponent + 64 * index as i32 + exponent;
            self.add(mantissa * i128::from(*limb), at);
        }
    }

    /// Adds `factor · times · 2^exponent` where the product may need more than 127 bits.
    pub fn add_product(&mut self, factor: i128, times: i64, exponent: i32) {
        match factor.checked_mul(i128::from(times)) {
            Some(product) => self.add(product, exponent),
            None => {
                let (low, high) = (factor & 0xffff_ffff_ffff, factor >> 48);
                self.add(low * i128::from(times), exponent);
                match high.checked_mul(i128::from(times)) {
                    Some(product) => self.add(product, exponent + 48),
                    None => {
                        let (low, higher) = (high & 0xffff_ffff_ffff, high >> 48);
                        self.add(low * i128::from(times), exponent + 48);
                        self.add(higher * i128::from(times), exponent + 96);
                    }
                }
            }
        }
    }

    /// Adds `value · 2^exponent`.
    pub fn add(&mut self, value: i128, exponent: i32) {
        if value == 0 {
            return;
        }
        let zeros = value.trailing_zeros();
        let (value, exponent) = (value >> zeros, exponent + zeros as i32);
        match self {
            Exact::Zero => {
                let margin = 126u32.saturating_sub(bits(value)).min(MARGIN_BITS);
                *self = Exact::Narrow {
                    sum: value << margin,
                    exponent: exponent - margin as i32,
                };
            }
            Exact::Narrow {
                sum,
                exponent: base,
            } => {
                if let Some((new_sum, new_base)) = add_narrow(*sum, *base, value, exponent) {
                    (*sum, *base) = (new_sum, new_base);
                    if *sum == 0 {
                        *self = Exact::Zero;
                    }
                    return;
                }
                let mut wide = Wide {
                    limbs: vec![0],
                    exponent: (*base).div_euclid(64) * 64,
                };
                wide.add(*sum, *base);
                wide.add(value, exponent);
                *self = Exact::Wide(Box::new(wide));
            }
            Exact::Wide(wide) => wide.add(value, exponent),
        }
    }

    pub fn add_exact(&mut self, other: &Exact) {
        match other {
            Exact::Zero => {}
            Exact::Narrow { sum, exponent } => self.add(*sum, *exponent),
            Exact::Wide(_) => self.add_magnitude(&other.magnitude(), 1),
        }
    }

    fn add_magnitude(&mut self, magnitude: &Magnitude, sign: i128) {
        let sign = if magnitude.negative { -sign } else { sign };
        for (index, limb) in magnitude.limbs.iter().enumerate() {
            self.add(
                sign * i128::from(*limb),
                magnitude.exponent + 64 * index as i32,
            );
        }
    }

    /// `count · squares − sum²`, the numerator of every variance.
    pub fn spread(count: i64, sum: &Exact, squares: &Exact) -> Exact {
        Self::cross(count, squares, sum, sum)
    }

    /// `count · products − a · b`, the numerator of every covariance.
    pub fn cross(count: i64, products: &Exact, a: &Exact, b: &Exact) -> Exact {
        let mut result = Exact::Zero;
        let products = products.magnitude();
        for (index, limb) in products.limbs.iter().enumerate() {
            let sign = if products.negative { -1 } else { 1 };
            result.add_product(
                sign * i128::from(*limb),
                count,
                products.exponent + 64 * index as i32,
            );
        }
        let (a, b) = (a.magnitude(), b.magnitude());
        let sign = if a.negative == b.negative { -1 } else { 1 };
        for (i, x) in a.limbs.iter().enumerate() {
            for (j, y) in b.limbs.iter().enumerate() {
                let product = u128::from(*x) * u128::from(*y);
                let exponent = a.exponent + b.exponent + 64 * (i + j) as i32;
                result.add(sign * i128::from(product as u64), exponent);
                result.add(sign * i128::from((product >> 64) as u64), exponent + 64);
            }
        }
        result
    }

    pub fn is_zero(&self) -> bool {
        self.magnitude().limbs.is_empty()
    }

    /// The nearest double, ties to even; infinite when there is none.
    pub fn to_f64(&self) -> f64 {
        if let Exact::Narrow { sum, exponent } = self {
            // Here the conversion rounds once and the scaling is exact: nothing is subnormal or overflows.
            if (-900..800).contains(exponent) {
                return *sum as f64 * 2f64.powi(*exponent);
            }
        }
        self.magnitude().round(53, -1074)
    }

    /// The nearest single; infinite when there is none.
    pub fn to_f32(&self) -> f32 {
        self.magnitude().round(24, -149) as f32
    }

    fn magnitude(&self) -> Magnitude {
        match self {
            Exact::Zero => Magnitude::default(),
            Exact::Narrow { sum, exponent } => {
                let value = sum.unsigned_abs();
                Magnitude::new(
                    *sum < 0,
                    vec![value as u64, (value >> 64) as u64],
                    *exponent,
                )
            }
            Exact::Wide(wide) => {
                let negative = wide.is_negative();
                let mut limbs = wide.limbs.clone();
                if negative {
                    let mut carry = true;
                    for limb in &mut limbs {
                        let (value, over) = (!*limb).overflowing_add(u64::from(carry));
                        (*limb, carry) = (value, over);
                    }
                }
                Magnitude::new(negative, limbs, wide.exponent)
            }
        }
    }

    /// One form for one number: exponent, sign and length, then the bytes of the magnitude without zeros at either end.
    pub fn write(&self, out: &mut Vec<u8>) {
        let magnitude = self.magnitude();
        let bytes: Vec<u8> = magnitude
            .limbs
            .iter()
            .flat_map(|l| l.to_le_bytes())
            .collect();
        let length = bytes
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |last| last + 1);
        write_u128((length as u128) << 1 | u128::from(magnitude.negative), out);
        if length > 0 {
            write_i64(i64::from(magnitude.exponent), out);
            out.extend_from_slice(&bytes[..length]);
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        let head = reader.u128()?;
        let (length, negative) = ((head >> 1) as usize, head & 1 == 1);
        if length == 0 {
            return Ok(Exact::Zero);
        }
        let exponent =
            i32::try_from(reader.i64()?).map_err(|_| StateError::Damaged("an exponent".into()))?;
        let bytes = reader.take(length)?;
        let limbs = bytes
            .chunks(8)
            .map(|chunk| {
                let mut limb = [0u8; 8];
                limb[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(limb)
            })
            .collect();
        let mut exact = Exact::Zero;
        exact.add_magnitude(
            &Magnitude {
                negative,
                limbs,
                exponent,
            },
            1,
        );
        Ok(exact)
    }
}

/// `mantissa · 2^exponent == value`
fn parts(value: f64) -> (i64, i32) {
    let raw = value.to_bits();
    let field = (raw >> 52 & 0x7ff) as i32;
    let fraction = (raw & 0x000f_ffff_ffff_ffff) as i64;
    let (mantissa, exponent) = if field == 0 {
        (fraction, -1074)
    } else {
        (fraction | 1 << 52, field - 1075)
    };
    (
        if value.is_sign_negative() {
            -mantissa
        } else {
            mantissa
        },
        exponent,
    )
}

fn bits(value: i128) -> u32 {
    128 - value.unsigned_abs().leading_zeros()
}

/// The sum in 128 bits, at the lower of the exponents, if it fits.
fn add_narrow(sum: i128, base: i32, value: i128, exponent: i32) -> Option<(i128, i32)> {
    if exponent >= base {
        let shift = (exponent - base) as u32;
        if shift + bits(value) > 126 {
            return None;
        }
        return Some((sum.checked_add(value << shift)?, base));
    }
    let shift = (base - exponent) as u32;
    if shift + bits(sum) > 126 {
        return None;
    }
    Some(((sum << shift).checked_add(value)?, exponent))
}

impl Wide {
    fn is_negative(&self) -> bool {
        self.limbs.last().is_some_and(|l| *l >> 63 == 1)
    }

    fn add(&mut self, value: i128, exponent: i32) {
        let aligned = exponent.div_euclid(64) * 64;
        if aligned < self.exponent {
            let missing = (self.exponent - aligned) as usize / 64;
            self.limbs.splice(0..0, std::iter::repeat_n(0, missing));
            self.exponent = aligned;
        }
        let first = (aligned - self.exponent) as usize / 64;
        let shift = (exponent - aligned) as u32;
        // The value as three limbs, sign extended.
        let low = (value as u128) << shift;
        let high = if shift == 0 {
            (value >> 127) as u64
        } else {
            (value >> (128 - shift)) as u64
        };
        let addend = [low as u64, (low >> 64) as u64, high];
        let fill = if value < 0 { u64::MAX } else { 0 };
        // One limb more than both need, so that the sign survives the carry.
        let sign = if self.is_negative() { u64::MAX } else { 0 };
        let length = self.limbs.len().max(first + 3) + 1;
        self.limbs.resize(length, sign);
        let mut carry = false;
        for index in first..length {
            let term = addend.get(index - first).copied().unwrap_or(fill);
            let (partial, over) = self.limbs[index].overflowing_add(term);
            let (total, over_too) = partial.overflowing_add(u64::from(carry));
            (self.limbs[index], carry) = (total, over || over_too);
        }
        self.trim();
    }

    /// Drops limbs that only repeat the sign.
    fn trim(&mut self) {
        while let [.., before, last] = self.limbs.as_slice() {
            if *last != if before >> 63 == 1 { u64::MAX } else { 0 } {
                break;
            }
            self.limbs.pop();
        }
    }
}

impl Magnitude {
    /// With no zero limbs above and no zero bits below.
    fn new(negative: bool, mut limbs: Vec<u64>, exponent: i32) -> Self {
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
        let Some(first) = limbs.iter().position(|l| *l != 0) else {
            return Self::default();
        };
        let shift = limbs[first].trailing_zeros();
        limbs.drain(..first);
        if shift > 0 {
            for index in 0..limbs.len() {
                let above = limbs.get(index + 1).copied().unwrap_or(0);
                limbs[index] = limbs[index] >> shift | above << (64 - shift);
            }
            if limbs.last() == Some(&0) {
                limbs.pop();
            }
        }
        Self {
            negative,
            limbs,
            exponent: exponent + (64 * first as u32 + shift) as i32,
        }
    }

    fn bit(&self, index: i64) -> bool {
        index >= 0
            && self
                .limbs
                .get(index as usize / 64)
                .is_some_and(|l| l >> (index as usize % 64) & 1 == 1)
    }

    /// Rounds to `precision` bits, none of them below `2^lowest`; ties to even.
    fn round(&self, precision: i64, lowest: i64) -> f64 {
        let Some(top) = self.limbs.last() else {
            return 0.0;
        };
        let length = 64 * self.limbs.len() as i64 - i64::from(top.leading_zeros());
        // Bits below `cut` are rounded away.
        let cut = (length - precision)
            .max(lowest - i64::from(self.exponent))
            .max(0);
        let mut kept = 0u64;
        for index in (cut..length).rev() {
            kept = kept << 1 | u64::from(self.bit(index));
        }
        if cut > 0 && self.bit(cut - 1) {
            // The magnitude has its lowest set bit at zero, so anything below the half shows there.
            let beyond_half = cut > 1;
            if beyond_half || kept & 1 == 1 {
                kept += 1;
            }
        }
        let scale = cut + i64::from(self.exponent);
        let value = scaled(kept as f64, scale);
        if self.negative { -value } else { value }
    }
}

/// `value · 2^scale` in steps that stay exact.
fn scaled(mut value: f64, mut scale: i64) -> f64 {
    while scale > 1000 && value.is_finite() {
        value *= 2f64.powi(1000);
        scale -= 1000;
    }
    if scale > 1000 {
        return value;
    }
    if scale < -1000 {
        // Not below -1074, and `value` is at least one: the first half stays normal, the second is exact by construction.
        let half = (scale / 2) as i32;
        return value * 2f64.powi(half) * 2f64.powi((scale - i64::from(half)) as i32);
    }
    value * 2f64.powi(scale as i32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn sum(values: &[f64]) -> Exact {
        let mut exact = Exact::Zero;
        values.iter().for_each(|v| exact.add_float(*v, 1));
        exact
    }

    #[test]
    fn what_rounding_would_lose_is_kept() {
        assert_eq!(sum(&[1e308, 1.0, -1e308]).to_f64(), 1.0);
        assert_eq!(sum(&[1e16, 1.0, -1e16]).to_f64(), 1.0);
        assert_eq!(
            sum(&[f64::MAX, f64::from_bits(1), -f64::MAX]).to_f64(),
            f64::from_bits(1)
        );
        assert_eq!(sum(&[f64::MAX, f64::MAX]).to_f64(), f64::INFINITY);
        // Python: math.fsum([0.1] * 10)
        assert_eq!(sum(&[0.1; 10]).to_f64(), 1.0);
    }

    #[test]
    fn singles_round_once() {
        // 1 + 2^-24 + 2^-60: by way of a double it would be a tie, and round down.
        let exact = sum(&[1.0, 2f64.powi(-24), 2f64.powi(-60)]);
        assert_eq!(exact.to_f32(), 1.0 + f32::EPSILON);
    }

    #[test]
    fn every_float_is_its_own_sum() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..20_000 {
            let value = f64::from_bits(random.random());
            if value.is_finite() {
                assert_eq!(sum(&[value]).to_f64(), value);
                assert_eq!(sum(&[value]).magnitude().round(53, -1074), value);
                let single = value as f32;
                if single.is_finite() {
                    assert_eq!(sum(&[f64::from(single)]).to_f32(), single);
                }
            }
        }
    }

    #[test]
    fn any_order_and_any_detour_give_one_form() {
        let mut random = StdRng::seed_from_u64(2);
        for round in 0..300 {
            let spread: i32 = random.random_range(1..600);
            let values: Vec<f64> = (0..random.random_range(1..40))
                .map(|_| {
                    random.random_range(-1.0..1.0)
                        * 2f64.powi(random.random_range(-spread..=spread))
                })
                .collect();
            let mut there_and_back = Exact::Zero;
            for value in &values {
                there_and_back.add_float(*value, 3);
            }
            let mut stored = Vec::new();
            there_and_back.write(&mut stored);
            let mut back = Exact::read(&mut Reader::new(&stored)).unwrap();
            for value in values.iter().rev() {
                back.add_float(*value, -2);
            }
            let (mut a, mut b) = (Vec::new(), Vec::new());
            back.write(&mut a);
            sum(&values).write(&mut b);
            assert_eq!(a, b, "round {round}");
            for value in &values {
                back.add_float(*value, -1);
            }
            let mut zero = Vec::new();
            back.write(&mut zero);
            assert_eq!(zero, [0], "round {round}");
        }
    }

    #[test]
    fn the_spread_of_equal_values_is_zero() {
        let value = 0.1f64;
        let (mut sum, mut squares) = (Exact::Zero, Exact::Zero);
        sum.add_float(value, 7);
        squares.add_square(value, 7);
        assert_eq!(Exact::spread(7, &sum, &squares).to_f64(), 0.0);
        let (mut sum, mut squares) = (Exact::Zero, Exact::Zero);
        for value in [1.0, 2.0, 3.0, 4.0] {
            sum.add_float(value, 1);
            squares.add_square(value, 1);
        }
        assert_eq!(Exact::spread(4, &sum, &squares).to_f64(), 20.0);
    }
}

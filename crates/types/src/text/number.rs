//! Integers, floats and `numeric`.

use super::{invalid, trim};
use crate::sql_type::DEFAULT_NUMERIC;
use crate::{SqlError, SqlState, SqlType};
use std::fmt::Write;

/// A signed decimal integer of one of the three integer types.
pub(super) fn parse_integer(text: &str, sql_type: &SqlType) -> Result<i64, SqlError> {
    let (low, high) = match sql_type {
        SqlType::SmallInt => (i16::MIN as i64, i16::MAX as i64),
        SqlType::Integer => (i32::MIN as i64, i32::MAX as i64),
        _ => (i64::MIN, i64::MAX),
    };
    let trimmed = trim(text);
    let (negative, digits) = match trimmed.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        return Err(invalid(&sql_type.to_string(), text));
    }
    // Counted downwards, because the lowest number has no positive counterpart.
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(invalid(&sql_type.to_string(), text));
        }
        let next = value
            .checked_mul(10)
            .and_then(|v| v.checked_sub((digit - b'0') as i64))
            .filter(|v| *v >= low);
        value = next.ok_or_else(|| integer_out_of_range(text, sql_type))?;
    }
    if negative {
        return Ok(value);
    }
    value
        .checked_neg()
        .filter(|v| *v <= high)
        .ok_or_else(|| integer_out_of_range(text, sql_type))
}

fn integer_out_of_range(text: &str, sql_type: &SqlType) -> SqlError {
    SqlError::new(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("value \"{text}\" is out of range for type {sql_type}"),
    )
}

pub(super) fn parse_double(text: &str) -> Result<f64, SqlError> {
    let trimmed = trim(text);
    let value: f64 = trimmed
        .parse()
        .map_err(|_| invalid("double precision", text))?;
    if lost(trimmed, value.is_infinite(), value == 0.0) {
        return Err(float_out_of_range(trimmed, "double precision"));
    }
    Ok(value)
}

pub(super) fn parse_real(text: &str) -> Result<f32, SqlError> {
    let trimmed = trim(text);
    let value: f32 = trimmed.parse().map_err(|_| invalid("real", text))?;
    if lost(trimmed, value.is_infinite(), value == 0.0) {
        return Err(float_out_of_range(trimmed, "real"));
    }
    Ok(value)
}

/// Whether a finite number became infinite, or one that is not zero became zero.
fn lost(text: &str, infinite: bool, zero: bool) -> bool {
    let mut mantissa = text.bytes().take_while(|b| !matches!(b, b'e' | b'E'));
    (infinite && text.bytes().any(|b| b.is_ascii_digit()))
        || (zero && mantissa.any(|b| matches!(b, b'1'..=b'9')))
}

fn float_out_of_range(text: &str, type_name: &str) -> SqlError {
    SqlError::new(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("\"{text}\" is out of range for type {type_name}"),
    )
}

/// The shortest text that reads back as the same number; exponent form outside of 1e-4 to 1e15.
pub(super) fn write_double(value: f64, out: &mut String) {
    if !write_special(value.is_nan(), value.is_infinite(), value < 0.0, out) {
        lay_out(&shortest_double(value), 15, out);
    }
}

/// As [`write_double`], with the exponent form from 1e6 on.
pub(super) fn write_real(value: f32, out: &mut String) {
    if !write_special(value.is_nan(), value.is_infinite(), value < 0.0, out) {
        lay_out(&shortest_real(value), 6, out);
    }
}

fn write_special(nan: bool, infinite: bool, negative: bool, out: &mut String) -> bool {
    match (nan, infinite, negative) {
        (true, ..) => out.push_str("NaN"),
        (_, true, false) => out.push_str("Infinity"),
        (_, true, true) => out.push_str("-Infinity"),
        _ => return false,
    }
    true
}

/// Postgres's shortest digits differ from Rust's in two ways. Of two candidates equally far away it takes the even one. And
/// digits exactly half-way to the next float do not count, although rounding to even would bring a reader back.
fn shortest_double(value: f64) -> String {
    let bits = value.to_bits();
    let (fraction, exponent) = (bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i32);
    let (mantissa, power) = match exponent {
        0 => (fraction, -1074),
        _ => (fraction | 1 << 52, exponent - 1075),
    };
    let good = |text: &String| text.parse() == Ok(value) && !on_boundary(text, mantissa, power);
    let shortest = format!("{value:e}");
    let decimals = decimals_of(&shortest);
    let longer = (decimals + 1..17).map(|decimals| format!("{value:.decimals$e}"));
    // Below a power of two floats are closer: there the nearest digits may belong to another float.
    [format!("{value:.decimals$e}"), shortest.clone()]
        .into_iter()
        .chain(longer)
        .find(good)
        .unwrap_or(shortest)
}

fn shortest_real(value: f32) -> String {
    let bits = value.to_bits();
    let (fraction, exponent) = (bits & ((1 << 23) - 1), (bits >> 23 & 0xff) as i32);
    let (mantissa, power) = match exponent {
        0 => (fraction, -149),
        _ => (fraction | 1 << 23, exponent - 150),
    };
    let good =
        |text: &String| text.parse() == Ok(value) && !on_boundary(text, mantissa as u64, power);
    let shortest = format!("{value:e}");
    let decimals = decimals_of(&shortest);
    let longer = (decimals + 1..9).map(|decimals| format!("{value:.decimals$e}"));
    [format!("{value:.decimals$e}"), shortest.clone()]
        .into_iter()
        .chain(longer)
        .find(good)
        .unwrap_or(shortest)
}

/// How many digits stand behind the point of `d.ddde±x`.
fn decimals_of(text: &str) -> usize {
    let (digits, _) = text.split_once('e').expect("formatted with an exponent");
    digits.split_once('.').map_or(0, |(_, f)| f.len())
}

/// Whether a decimal `d.ddde±x` is exactly half-way between `mantissa · 2^power` and the float next to it.
fn on_boundary(text: &str, mantissa: u64, power: i32) -> bool {
    let (digits, exponent) = text.split_once('e').expect("formatted with an exponent");
    let exponent: i32 = exponent.parse().expect("formatted as a number");
    let decimals = decimals_of(text) as i32;
    let digits: u128 = digits
        .bytes()
        .filter(u8::is_ascii_digit)
        .fold(0, |n, d| n * 10 + (d - b'0') as u128);
    let ten = exponent - decimals;
    // digits · 10^ten = odd · 2^power, compared without its powers of two: 5^|ten| goes to the side where it is whole.
    let Some(five) = 5u128.checked_pow(ten.unsigned_abs()) else {
        return false;
    };
    let below = match mantissa.is_power_of_two() && mantissa > 1 {
        true => (mantissa * 4 - 1, power - 2),
        false => ((mantissa * 2).saturating_sub(1), power - 1),
    };
    [(mantissa * 2 + 1, power - 1), below]
        .into_iter()
        .any(|(odd, power)| {
            let (left, right) = match ten >= 0 {
                true => (digits.checked_mul(five), Some(odd as u128)),
                false => (Some(digits), (odd as u128).checked_mul(five)),
            };
            let (Some(left), Some(right)) = (left, right) else {
                return false;
            };
            if left == 0 || right == 0 {
                return false;
            }
            let (left_twos, right_twos) =
                (left.trailing_zeros() as i32, right.trailing_zeros() as i32);
            left >> left_twos == right >> right_twos && left_twos + ten == right_twos + power
        })
}

/// From Rust's `-d.ddde±x` to C's form.
fn lay_out(text: &str, highest: i32, out: &mut String) {
    let (digits, exponent) = text.split_once('e').expect("formatted with an exponent");
    let exponent: i32 = exponent.parse().expect("formatted as a number");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    out.push_str(sign);
    if !(-4..highest).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{digits}e{sign}{:02}", exponent.abs()).expect("writing to a string");
        return;
    }
    let plain: String = digits.chars().filter(|c| *c != '.').collect();
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        out.push_str(&plain);
        return;
    }
    let whole = exponent as usize + 1;
    if plain.len() <= whole {
        out.push_str(&plain);
        out.extend(std::iter::repeat_n('0', whole - plain.len()));
    } else {
        out.push_str(&plain[..whole]);
        out.push('.');
        out.push_str(&plain[whole..]);
    }
}

/// A decimal literal in parts: its digits without the point, and how many of them stand behind it.
pub(super) struct Decimal<'a> {
    pub negative: bool,
    pub whole: &'a str,
    pub fraction: &'a str,
    pub exponent: i64,
}

impl<'a> Decimal<'a> {
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], Self::read_exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
            return None;
        }
        Some(Self {
            negative,
            whole,
            fraction,
            exponent,
        })
    }

    fn read_exponent(text: &str) -> Option<i64> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // Anything beyond a few hundred thousand is out of range wherever it is used.
        Some(
            text.parse()
                .unwrap_or(if text.starts_with('-') {
                    -1_000_000
                } else {
                    1_000_000
                })
                .clamp(-1_000_000, 1_000_000),
        )
    }
}

/// The unscaled value of a `numeric(precision, scale)`, rounded half away from zero.
pub(super) fn parse_numeric(text: &str, precision: u8, scale: i8) -> Result<i128, SqlError> {
    let trimmed = trim(text);
    let bare = trimmed.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if matches!(bare.as_str(), "nan" | "inf" | "infinity") {
        return Err(SqlError::not_supported(format!("numeric {trimmed}")));
    }
    let decimal = Decimal::read(trimmed).ok_or_else(|| invalid("numeric", text))?;
    let digits = decimal.whole.bytes().chain(decimal.fraction.bytes());
    // How many of all digits stand before the place of the last kept one.
    let kept = decimal.whole.len() as i64 + decimal.exponent + scale as i64;
    let mut value: i128 = 0;
    let mut seen: i64 = 0;
    for digit in digits {
        let digit = (digit - b'0') as i128;
        if seen < kept {
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(digit))
                .ok_or_else(|| numeric_overflow(precision, scale))?;
        } else if seen == kept {
            value += i128::from(digit >= 5);
            break;
        } else {
            break;
        }
        seen += 1;
    }
    while value != 0 && seen < kept {
        value = value
            .checked_mul(10)
            .ok_or_else(|| numeric_overflow(precision, scale))?;
        seen += 1;
    }
    if value >= 10i128.pow(precision as u32) {
        return Err(numeric_overflow(precision, scale));
    }
    Ok(if decimal.negative { -value } else { value })
}

fn numeric_overflow(precision: u8, scale: i8) -> SqlError {
    let limit = match precision as i32 - scale as i32 {
        0 => "1".to_owned(),
        digits => format!("10^{digits}"),
    };
    SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "numeric field overflow").with_detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than {limit}."
    ))
}

/// Whether trailing zeros are noise: the scale was not asked for.
pub(super) fn is_plain_numeric(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Numeric { precision, scale } if (*precision, *scale) == DEFAULT_NUMERIC)
}

/// An unscaled value given as decimal text, with its point put in.
pub(super) fn write_numeric(unscaled: &str, scale: i8, plain: bool, out: &mut String) {
    let (sign, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", unscaled),
    };
    out.push_str(sign);
    if scale <= 0 {
        out.push_str(digits);
        if digits != "0" {
            out.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
        }
        return;
    }
    let scale = scale as usize;
    if digits.len() <= scale {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', scale - digits.len()));
        out.push_str(digits);
    } else {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.push_str(whole);
        out.push('.');
        out.push_str(fraction);
    }
    if plain {
        let kept = out.trim_end_matches('0').trim_end_matches('.').len();
        out.truncate(kept);
    }
}

//! Values to text, as Postgres prints them under its default settings, in UTC.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::io::Write;

const US_PER_SECOND: i64 = 1_000_000;
const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;

/// Appends the text of a value that is not NULL.
pub fn value_into(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match array.data_type() {
        DataType::Boolean => out.push(if array.as_boolean().value(row) {
            b't'
        } else {
            b'f'
        }),
        DataType::Int16 => display_into(array.as_primitive::<Int16Type>().value(row), out),
        DataType::Int32 => display_into(array.as_primitive::<Int32Type>().value(row), out),
        DataType::Int64 => display_into(array.as_primitive::<Int64Type>().value(row), out),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            float_into(f64::from(value), &format!("{value:e}"), 6, out);
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            float_into(value, &format!("{value:e}"), 15, out);
        }
        DataType::Decimal128(_, scale) => {
            decimal_into(
                array.as_primitive::<Decimal128Type>().value(row),
                *scale,
                out,
            );
        }
        DataType::Utf8 => out.extend_from_slice(array.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => bytea_into(array.as_binary::<i32>().value(row), out),
        DataType::FixedSizeBinary(16) => {
            uuid_into(array.as_fixed_size_binary().value(row), out);
        }
        DataType::Date32 => date_into(
            i64::from(array.as_primitive::<Date32Type>().value(row)),
            out,
        ),
        DataType::Time64(TimeUnit::Microsecond) => {
            clock_into(
                array.as_primitive::<Time64MicrosecondType>().value(row),
                out,
            );
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            timestamp_into(
                array.as_primitive::<TimestampMicrosecondType>().value(row),
                b' ',
                out,
            );
            if zone.is_some() {
                out.extend_from_slice(b"+00");
            }
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            interval_into(
                array.as_primitive::<IntervalMonthDayNanoType>().value(row),
                out,
            );
        }
        DataType::List(_) => array_into(&array.as_list::<i32>().value(row), out),
        _ => other_into(array, row, out),
    }
}

/// Types that no column of SQL has, but an expression may: as Arrow displays them.
fn other_into(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()) {
        Ok(formatter) => display_into(formatter.value(row), out),
        Err(error) => display_into(error, out),
    }
}

fn display_into(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    write!(out, "{value}").expect("writing to memory does not fail");
}

/// The shortest digits that read back as the same number, with an exponent when it is below -4 or as Postgres does.
fn float_into(value: f64, shortest: &str, most_digits: i32, out: &mut Vec<u8>) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 {
            b"Infinity"
        } else {
            b"-Infinity"
        });
    }
    let (mantissa, exponent) = shortest.split_once('e').expect("written with an exponent");
    let exponent = exponent.parse::<i32>().expect("written with an exponent");
    if (-4..most_digits).contains(&exponent) {
        return place_point_into(mantissa, exponent, out);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    display_into(format_args!("{mantissa}e{sign}{:02}", exponent.abs()), out);
}

/// `d.ddd · 10^exponent` written without exponent.
fn place_point_into(mantissa: &str, exponent: i32, out: &mut Vec<u8>) {
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    if unsigned.len() < mantissa.len() {
        out.push(b'-');
    }
    let digits = unsigned.replace('.', "");
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-exponent - 1) as usize, b'0');
        return out.extend_from_slice(digits.as_bytes());
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        out.extend_from_slice(digits.as_bytes());
        out.resize(out.len() + whole - digits.len(), b'0');
    } else {
        display_into(
            format_args!("{}.{}", &digits[..whole], &digits[whole..]),
            out,
        );
    }
}

pub fn decimal_into(value: i128, scale: i8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let digits = value.unsigned_abs().to_string();
    match usize::try_from(scale) {
        Ok(0) | Err(_) => {
            out.extend_from_slice(digits.as_bytes());
            if value != 0 {
                out.resize(out.len() + usize::from(scale.min(0).unsigned_abs()), b'0');
            }
        }
        Ok(scale) => {
            let digits = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            display_into(format_args!("{whole}.{fraction}"), out);
        }
    }
}

pub fn bytea_into(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    hex_into(bytes, out);
}

fn hex_into(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

pub fn uuid_into(bytes: &[u8], out: &mut Vec<u8>) {
    for (index, range) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if index > 0 {
            out.push(b'-');
        }
        hex_into(&bytes[range], out);
    }
}

pub fn date_into(days: i64, out: &mut Vec<u8>) {
    // The inverse of `parse::days`: the year begins in March, in cycles of 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if year > 0 {
        display_into(format_args!("{year:04}-{month:02}-{day:02}"), out);
    } else {
        display_into(format_args!("{:04}-{month:02}-{day:02} BC", 1 - year), out);
    }
}

/// `HH:MM:SS[.ffffff]` without trailing zeros.
pub fn clock_into(us: i64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (us / US_PER_SECOND, us % US_PER_SECOND);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    display_into(
        format_args!("{hours:02}:{:02}:{:02}", minutes % 60, seconds % 60),
        out,
    );
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        display_into(format_args!(".{}", digits.trim_end_matches('0')), out);
    }
}

pub fn timestamp_into(us: i64, separator: u8, out: &mut Vec<u8>) {
    let start = out.len();
    date_into(us.div_euclid(US_PER_DAY), out);
    // The era comes last of all.
    let era = out[start..].ends_with(b" BC");
    if era {
        out.truncate(out.len() - 3);
    }
    out.push(separator);
    clock_into(us.rem_euclid(US_PER_DAY), out);
    if era {
        out.extend_from_slice(b" BC");
    }
}

pub fn interval_into(interval: IntervalMonthDayNano, out: &mut Vec<u8>) {
    let start = out.len();
    let (years, months) = (interval.months / 12, interval.months % 12);
    let mut negative_before = false;
    for (value, name) in [(years, "year"), (months, "mon"), (interval.days, "day")] {
        if value == 0 {
            continue;
        }
        let space = if out.len() > start { " " } else { "" };
        let plus = if negative_before && value > 0 {
            "+"
        } else {
            ""
        };
        let plural = if value == 1 { "" } else { "s" };
        display_into(format_args!("{space}{plus}{value} {name}{plural}"), out);
        negative_before = value < 0;
    }
    let us = interval.nanoseconds / 1000;
    if us == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.push(b' ');
    }
    if us < 0 {
        out.push(b'-');
    } else if negative_before {
        out.push(b'+');
    }
    clock_into(us.abs(), out);
}

/// `{a,"b c",NULL}`.
fn array_into(elements: &ArrayRef, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut text = Vec::new();
    for row in 0..elements.len() {
        if row > 0 {
            out.push(b',');
        }
        if elements.is_null(row) {
            out.extend_from_slice(b"NULL");
            continue;
        }
        text.clear();
        value_into(elements, row, &mut text);
        let special = |b: &u8| b.is_ascii_whitespace() || b"{}\",\\".contains(b);
        let nested = matches!(elements.data_type(), DataType::List(_));
        let plain =
            !text.is_empty() && !text.iter().any(special) && !text.eq_ignore_ascii_case(b"null");
        if plain || nested {
            out.extend_from_slice(&text);
            continue;
        }
        out.push(b'"');
        for byte in &text {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
    out.push(b'}');
}

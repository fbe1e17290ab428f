//! Text to values, as Postgres reads them, with two additions: a timestamp may be a number of milliseconds since 1970,
//! and an array may be written as JSON.

use super::CellError;
use arrow::datatypes::IntervalMonthDayNano;
use std::str::FromStr;
use tidegate_types::{SqlState, SqlType};

type Parsed<T> = Result<T, CellError>;

const US_PER_SECOND: i64 = 1_000_000;
const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;

fn invalid<T>(sql_type: &SqlType, text: &str) -> Parsed<T> {
    Err(CellError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {sql_type}: \"{text}\""),
    ))
}

fn invalid_time<T>(sql_type: &SqlType, text: &str) -> Parsed<T> {
    Err(CellError::new(
        SqlState::INVALID_DATETIME,
        format!("invalid input syntax for type {sql_type}: \"{text}\""),
    ))
}

fn time_out_of_range<T>(sql_type: &SqlType, text: &str) -> Parsed<T> {
    Err(CellError::new(
        SqlState::DATETIME_OVERFLOW,
        format!("{sql_type} out of range: \"{text}\""),
    ))
}

pub fn out_of_range(sql_type: &SqlType, text: &str) -> CellError {
    CellError::new(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("value \"{text}\" is out of range for type {sql_type}"),
    )
}

pub fn boolean(text: &str) -> Parsed<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Ok(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Ok(false),
        _ => invalid(&SqlType::Boolean, text),
    }
}

/// A whole number; a fraction of zeros and an exponent are accepted where the value is whole.
pub fn integer<T: TryFrom<i64>>(text: &str, sql_type: &SqlType) -> Parsed<T> {
    let trimmed = text.trim();
    let value = match trimmed.parse::<i64>() {
        Ok(value) => value,
        Err(error) => match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                return Err(out_of_range(sql_type, trimmed));
            }
            _ => match decimal_parts(trimmed).and_then(|d| d.to_scale(0, true)) {
                Some(value) => match i64::try_from(value) {
                    Ok(value) => value,
                    Err(_) => return Err(out_of_range(sql_type, trimmed)),
                },
                None => return invalid(sql_type, text),
            },
        },
    };
    T::try_from(value).map_err(|_| out_of_range(sql_type, trimmed))
}

/// Rust reads what Postgres does, `NaN` and `Infinity` included, but overflows to infinity instead of failing.
pub fn float<T: FromStr + Into<f64> + Copy>(text: &str, sql_type: &SqlType) -> Parsed<T> {
    let trimmed = text.trim();
    let Ok(value) = trimmed.parse::<T>() else {
        return invalid(sql_type, text);
    };
    if value.into().is_infinite() && !trimmed.to_ascii_lowercase().contains("inf") {
        return Err(out_of_range(sql_type, trimmed));
    }
    Ok(value)
}

/// A numeric, rounded half away from zero to the scale.
pub fn decimal(text: &str, precision: u8, scale: i8) -> Parsed<i128> {
    let sql_type = SqlType::Numeric { precision, scale };
    let trimmed = text.trim();
    let Some(parts) = decimal_parts(trimmed) else {
        return invalid(&sql_type, text);
    };
    match parts.to_scale(i32::from(scale), false) {
        Some(value) if value.unsigned_abs() < 10u128.pow(u32::from(precision.min(38))) => Ok(value),
        _ => Err(out_of_range(&sql_type, trimmed)),
    }
}

/// `digits · 10^-scale`.
struct DecimalParts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i32,
}

fn decimal_parts(text: &str) -> Option<DecimalParts<'_>> {
    let (negative, unsigned) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let mantissa_end = unsigned.iter().position(|b| matches!(b, b'e' | b'E'));
    let (mantissa, exponent) = match mantissa_end {
        None => (unsigned, 0),
        Some(at) => {
            let exponent = std::str::from_utf8(&unsigned[at + 1..]).ok()?;
            (&unsigned[..at], exponent.parse::<i32>().ok()?)
        }
    };
    let (whole, fraction) = match mantissa.iter().position(|b| *b == b'.') {
        None => (mantissa, &[][..]),
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
    };
    let digits = whole.iter().chain(fraction).all(u8::is_ascii_digit);
    (digits && whole.len() + fraction.len() > 0).then_some(DecimalParts {
        negative,
        whole,
        fraction,
        exponent,
    })
}

impl DecimalParts<'_> {
    /// The value times 10^scale, or `None` when it does not fit, or, if it must be exact, is not whole.
    fn to_scale(&self, scale: i32, exact: bool) -> Option<i128> {
        let digits = || self.whole.iter().chain(self.fraction);
        // How many of the digits are in front of the last place that is kept.
        let kept =
            i64::try_from(self.whole.len()).ok()? + i64::from(self.exponent) + i64::from(scale);
        let mut value: i128 = 0;
        for digit in digits().take(kept.max(0) as usize) {
            value = value
                .checked_mul(10)?
                .checked_add(i128::from(digit - b'0'))?;
        }
        let present = (self.whole.len() + self.fraction.len()) as i64;
        for _ in present..kept.max(present) {
            if value == 0 {
                break;
            }
            value = value.checked_mul(10)?;
        }
        if exact && digits().skip(kept.max(0) as usize).any(|d| *d != b'0') {
            return None;
        }
        if kept >= 0 && digits().nth(kept as usize).is_some_and(|d| *d >= b'5') {
            value = value.checked_add(1)?;
        }
        Some(if self.negative { -value } else { value })
    }
}

/// `\x…` hexadecimal, or Postgres's older escape form.
pub fn bytea(text: &str) -> Parsed<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("\\x") {
        return match hex_bytes(hex.as_bytes()) {
            Some(bytes) => Ok(bytes),
            None => invalid(&SqlType::Bytea, text),
        };
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => {
                out.push(b'\\');
                rest = after;
            }
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            (b'\\', _) => return invalid(&SqlType::Bytea, text),
            _ => out.push(*byte),
        }
    }
    Ok(out)
}

fn hex_bytes(hex: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    hex.chunks(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

/// Thirty-two hexadecimal digits, with hyphens after any group of four, possibly in braces.
pub fn uuid(text: &str) -> Parsed<[u8; 16]> {
    let trimmed = text.trim();
    let inner = match trimmed.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').unwrap_or_default(),
        None => trimmed,
    };
    let mut digits = Vec::with_capacity(32);
    for byte in inner.bytes() {
        match byte {
            b'-' if !digits.is_empty() && digits.len() % 4 == 0 && digits.len() < 32 => {}
            _ => digits.push(byte),
        }
    }
    match hex_bytes(&digits).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
        Some(uuid) => Ok(uuid),
        None => invalid(&SqlType::Uuid, text),
    }
}

/// Days since 1970.
pub fn date(text: &str) -> Parsed<i32> {
    let mut input = Input::of(text);
    let Some((year, month, day)) = input.date() else {
        return invalid_time(&SqlType::Date, text);
    };
    // Postgres accepts a time after the date and drops it.
    if !input.0.is_empty() {
        return timestamp_text(text, false, &SqlType::Date)
            .map(|us| us.div_euclid(US_PER_DAY) as i32);
    }
    match days(year, month, day) {
        Some(days) => Ok(days as i32),
        None => time_out_of_range(&SqlType::Date, text),
    }
}

/// Microseconds since midnight.
pub fn time(text: &str) -> Parsed<i64> {
    let mut input = Input::of(text);
    match input.time() {
        Some(us) if input.0.is_empty() && (0..=US_PER_DAY).contains(&us) => Ok(us),
        Some(_) if input.0.is_empty() => time_out_of_range(&SqlType::Time, text),
        _ => invalid_time(&SqlType::Time, text),
    }
}

/// Microseconds since 1970: ISO text, or a whole number of milliseconds. A zone in the text counts only when the type
/// has one (`utc`); without one the text means UTC.
pub fn timestamp(text: &str, utc: bool) -> Parsed<i64> {
    let sql_type = if utc {
        SqlType::TimestampTz
    } else {
        SqlType::Timestamp
    };
    match text.as_bytes() {
        [b'-' | b'0'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            match text.parse::<i64>().ok().and_then(|ms| ms.checked_mul(1000)) {
                Some(us) => Ok(us),
                None => time_out_of_range(&sql_type, text),
            }
        }
        _ => timestamp_text(text, utc, &sql_type),
    }
}

fn timestamp_text(text: &str, utc: bool, sql_type: &SqlType) -> Parsed<i64> {
    let mut input = Input::of(text);
    let Some((year, month, day)) = input.date() else {
        return invalid_time(sql_type, text);
    };
    let mut us = 0;
    if let [b'T' | b't' | b' ', rest @ ..] = input.0 {
        input.0 = rest.trim_ascii_start();
        match input.time() {
            Some(time) => us = time,
            None => return invalid_time(sql_type, text),
        }
    }
    let Some(zone) = input.zone() else {
        return invalid_time(sql_type, text);
    };
    if !input.0.is_empty() {
        return invalid_time(sql_type, text);
    }
    let days = match days(year, month, day) {
        Some(days) if (0..=US_PER_DAY).contains(&us) => days,
        _ => return time_out_of_range(sql_type, text),
    };
    let zone_us = if utc { zone * US_PER_SECOND } else { 0 };
    match days
        .checked_mul(US_PER_DAY)
        .and_then(|d| d.checked_add(us - zone_us))
    {
        Some(us) => Ok(us),
        None => time_out_of_range(sql_type, text),
    }
}

/// Days since 1970 of a day in the proleptic Gregorian calendar; `None` when there is no such day.
pub fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    const LENGTHS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = *LENGTHS.get(usize::try_from(month - 1).ok()?)? + i64::from(month == 2 && leap);
    if !(1..=length).contains(&day) || year > 294_276 {
        return None;
    }
    // The year begins in March here, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// What is left of a text.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn of(text: &'a str) -> Self {
        Self(text.trim_ascii().as_bytes())
    }

    fn skip(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// A number of `least` to `most` digits.
    #[inline(always)]
    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let (mut value, mut count) = (0i64, 0);
        while count < most
            && let [digit @ b'0'..=b'9', rest @ ..] = self.0
        {
            value = value * 10 + i64::from(digit - b'0');
            self.0 = rest;
            count += 1;
        }
        (count >= least).then_some(value)
    }

    fn date(&mut self) -> Option<(i64, i64, i64)> {
        let year = self.digits(4, 6)?;
        self.skip(b'-').then_some(())?;
        let month = self.digits(1, 2)?;
        self.skip(b'-').then_some(())?;
        Some((year, month, self.digits(1, 2)?))
    }

    /// `HH:MM[:SS[.ffffff]]` in microseconds. Out of range is negative.
    fn time(&mut self) -> Option<i64> {
        let hours = self.digits(1, 2)?;
        self.skip(b':').then_some(())?;
        let minutes = self.digits(2, 2)?;
        let mut us = 0;
        if self.skip(b':') {
            us = self.digits(2, 2)? * US_PER_SECOND;
            if us > 60 * US_PER_SECOND {
                return Some(-1);
            }
            if self.skip(b'.') {
                us += self.fraction_us()?;
            }
        }
        if minutes > 59 {
            return Some(-1);
        }
        Some((hours * 60 + minutes) * 60 * US_PER_SECOND + us)
    }

    /// The digits behind a decimal point, rounded to microseconds.
    fn fraction_us(&mut self) -> Option<i64> {
        let before = self.0.len();
        let value = self.digits(1, 6)?;
        let count = before - self.0.len();
        let mut us = value * 10i64.pow(6 - count as u32);
        if let [next @ b'0'..=b'9', ..] = self.0 {
            us += i64::from(*next >= b'5');
            while let [b'0'..=b'9', rest @ ..] = self.0 {
                self.0 = rest;
            }
        }
        Some(us)
    }

    /// Seconds east of Greenwich of `Z`, `UTC`, `±HH[[:]MM[:SS]]`, or of nothing.
    fn zone(&mut self) -> Option<i64> {
        self.0 = self.0.trim_ascii_start();
        if self.0.is_empty() {
            return Some(0);
        }
        if [&b"z"[..], b"utc", b"gmt"]
            .iter()
            .any(|name| self.0.eq_ignore_ascii_case(name))
        {
            self.0 = &[];
            return Some(0);
        }
        let sign = match (self.skip(b'+'), self.skip(b'-')) {
            (true, false) => 1,
            (false, true) => -1,
            _ => return None,
        };
        let hours = self.digits(2, 2)?;
        let minutes = match self.skip(b':') || !self.0.is_empty() {
            true => self.digits(2, 2)?,
            false => 0,
        };
        let seconds = if self.skip(b':') {
            self.digits(2, 2)?
        } else {
            0
        };
        (hours < 16 && minutes < 60 && seconds < 60)
            .then_some(sign * ((hours * 60 + minutes) * 60 + seconds))
    }
}

/// `1 year 2 mons -3 days 04:05:06.7`, with or without `ago`, or ISO 8601 `P1Y2M3DT4H5M6S`.
pub fn interval(text: &str) -> Parsed<IntervalMonthDayNano> {
    let trimmed = text.trim();
    let parsed = match trimmed.strip_prefix('P') {
        Some(iso) => iso_interval(iso),
        None => verbose_interval(trimmed),
    };
    match parsed.and_then(Interval::finish) {
        Some(interval) => Ok(interval),
        None => invalid_time(&SqlType::Interval, text),
    }
}

/// An interval under construction.
#[derive(Default)]
struct Interval {
    months: f64,
    days: f64,
    us: f64,
}

impl Interval {
    fn add(&mut self, value: f64, unit: &str) -> Option<()> {
        match unit {
            "y" | "yr" | "yrs" | "year" | "years" => self.months += value * 12.0,
            "mon" | "mons" | "month" | "months" => self.months += value,
            "w" | "week" | "weeks" => self.days += value * 7.0,
            "d" | "day" | "days" => self.days += value,
            "h" | "hr" | "hrs" | "hour" | "hours" => self.us += value * 3.6e9,
            "m" | "min" | "mins" | "minute" | "minutes" => self.us += value * 6e7,
            "s" | "sec" | "secs" | "second" | "seconds" => self.us += value * 1e6,
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => self.us += value * 1e3,
            "us" | "usec" | "usecs" | "microsecond" | "microseconds" => self.us += value,
            "decade" | "decades" => self.months += value * 120.0,
            "century" | "centuries" => self.months += value * 1200.0,
            _ => return None,
        }
        Some(())
    }

    /// Fractions of months become days of which a month has thirty, fractions of days become time.
    fn finish(self) -> Option<IntervalMonthDayNano> {
        let months = self.months.trunc();
        let all_days = self.days + (self.months - months) * 30.0;
        let days = all_days.trunc();
        let us = (self.us + (all_days - days) * US_PER_DAY as f64).round();
        let fits = months.abs() < f64::from(i32::MAX)
            && days.abs() < f64::from(i32::MAX)
            && us.abs() < 9.2e15;
        fits.then(|| IntervalMonthDayNano::new(months as i32, days as i32, us as i64 * 1000))
    }
}

fn verbose_interval(text: &str) -> Option<Interval> {
    let lower = text.to_ascii_lowercase();
    let words = lower.strip_prefix('@').unwrap_or(&lower);
    let mut interval = Interval::default();
    let mut words = words.split_ascii_whitespace().peekable();
    words.peek()?;
    let (mut pending, mut ago) = (None::<f64>, false);
    for word in words {
        let first = word.bytes().next()?;
        if ago {
            return None;
        } else if word == "ago" && pending.is_none() {
            ago = true;
        } else if word.contains(':') {
            let (negative, clock) = match word.strip_prefix('-') {
                Some(rest) => (true, rest),
                None => (false, word.strip_prefix('+').unwrap_or(word)),
            };
            let us = clock_us(clock)?;
            interval.us += if negative { -us } else { us };
        } else if let Some(value) = pending.take() {
            interval.add(value, word)?;
        } else if first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.') {
            let end = word
                .find(|c: char| c.is_ascii_alphabetic())
                .unwrap_or(word.len());
            let value = word[..end].parse::<f64>().ok()?;
            match &word[end..] {
                "" => pending = Some(value),
                unit => interval.add(value, unit)?,
            }
        } else {
            return None;
        }
    }
    // A last number without a unit means seconds.
    if let Some(value) = pending {
        interval.add(value, "s")?;
    }
    if ago {
        interval = Interval {
            months: -interval.months,
            days: -interval.days,
            us: -interval.us,
        };
    }
    Some(interval)
}

/// `[H]HH:MM[:SS[.f]]`, with any number of hours.
fn clock_us(text: &str) -> Option<f64> {
    let mut input = Input(text.as_bytes());
    let hours = input.digits(1, 9)?;
    input.skip(b':').then_some(())?;
    let minutes = input.digits(2, 2)?;
    let mut us = (hours * 60 + minutes) * 60 * US_PER_SECOND;
    if input.skip(b':') {
        us += input.digits(2, 2)? * US_PER_SECOND;
        if input.skip(b'.') {
            us += input.fraction_us()?;
        }
    }
    (input.0.is_empty() && minutes < 60).then_some(us as f64)
}

fn iso_interval(text: &str) -> Option<Interval> {
    let mut interval = Interval::default();
    let (mut in_time, mut rest) = (false, text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('T').filter(|_| !in_time) {
            in_time = true;
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let value = rest[..end].parse::<f64>().ok()?;
        let unit = match (&rest[end..=end], in_time) {
            ("Y", false) => "y",
            ("M", false) => "mon",
            ("W", false) => "w",
            ("D", false) => "d",
            ("H", true) => "h",
            ("M", true) => "m",
            ("S", true) => "s",
            _ => return None,
        };
        interval.add(value, unit)?;
        rest = &rest[end + 1..];
    }
    Some(interval)
}

/// The elements of a one-dimensional array literal `{a,"b c",NULL}`; `None` for NULL.
pub fn array_elements(text: &str) -> Parsed<Vec<Option<String>>> {
    let malformed = || {
        CellError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("malformed array literal: \"{text}\""),
        )
    };
    let inner = text
        .trim()
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'));
    let inner = inner.ok_or_else(malformed)?;
    let mut elements = Vec::new();
    if inner.trim().is_empty() {
        return Ok(elements);
    }
    let mut chars = inner.chars();
    let (mut element, mut quoted, mut in_quotes) = (String::new(), false, false);
    loop {
        match chars.next() {
            Some('\\') => element.push(chars.next().ok_or_else(malformed)?),
            Some('"') => {
                in_quotes = !in_quotes;
                quoted = true;
            }
            Some('{' | '}') if !in_quotes => {
                return Err(CellError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "arrays of more than one dimension are not supported",
                ));
            }
            Some(c) if !in_quotes && c.is_whitespace() && (quoted || element.is_empty()) => {}
            Some(c) if in_quotes || c != ',' => element.push(c),
            end => {
                if in_quotes || (!quoted && element.trim().is_empty()) {
                    return Err(malformed());
                }
                let value = std::mem::take(&mut element);
                elements.push(match quoted {
                    true => Some(value),
                    false if value.trim().eq_ignore_ascii_case("null") => None,
                    false => Some(value.trim().to_owned()),
                });
                quoted = false;
                if end.is_none() {
                    return Ok(elements);
                }
            }
        }
    }
}

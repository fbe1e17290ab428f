//! Intervals: months, days and a time part, each with a sign of its own.

use super::datetime::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_SECOND, write_fraction};
use super::datetime_input::fraction_micros;
use super::value::IntervalValue;
use super::{is_space, trim};
use crate::{SqlError, SqlState};
use std::fmt::Write;

const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;

/// `1 year 2 mons -3 days +04:05:06.7`.
pub(super) fn write_interval(months: i64, days: i64, micros: i128, out: &mut String) {
    let mut first = true;
    let mut negative_before = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        let space = if first { "" } else { " " };
        let sign = if negative_before && value > 0 {
            "+"
        } else {
            ""
        };
        let plural = if value == 1 { "" } else { "s" };
        write!(out, "{space}{sign}{value} {unit}{plural}").expect("writing to a string");
        first = false;
        negative_before = value < 0;
    }
    if !first && micros == 0 {
        return;
    }
    if !first {
        out.push(' ');
    }
    if micros < 0 {
        out.push('-');
    } else if negative_before {
        out.push('+');
    }
    let micros = micros.unsigned_abs();
    let seconds = micros / MICROS_PER_SECOND as u128;
    write!(
        out,
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
    .expect("writing to a string");
    write_fraction((micros % MICROS_PER_SECOND as u128) as i64, out);
}

enum Refusal {
    Syntax,
    Field,
    Range,
}

pub(super) fn parse_interval(text: &str) -> Result<IntervalValue, SqlError> {
    let trimmed = trim(text);
    let sum = match trimmed.strip_prefix('P') {
        Some(iso) => read_iso(iso),
        None => read_verbose(trimmed),
    };
    sum.and_then(Sum::finish).map_err(|refusal| match refusal {
        Refusal::Syntax => SqlError::new(
            SqlState::INVALID_DATETIME,
            format!("invalid input syntax for type interval: \"{text}\""),
        ),
        Refusal::Field => SqlError::new(
            SqlState::from_code("22015"),
            format!("interval field value out of range: \"{text}\""),
        ),
        Refusal::Range => SqlError::new(SqlState::DATETIME_OVERFLOW, "interval out of range"),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Decade,
    Century,
    Millennium,
}

impl Unit {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds"
            | "microsecon" => Unit::Microsecond,
            "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds"
            | "millisecon" => Unit::Millisecond,
            "s" | "sec" | "secs" | "second" | "seconds" => Unit::Second,
            "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
            "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hour,
            "d" | "day" | "days" => Unit::Day,
            "w" | "week" | "weeks" => Unit::Week,
            "mon" | "mons" | "month" | "months" => Unit::Month,
            "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
            "dec" | "decs" | "decade" | "decades" => Unit::Decade,
            "c" | "cent" | "century" | "centuries" => Unit::Century,
            "mil" | "mils" | "millennium" | "millennia" => Unit::Millennium,
            _ => return None,
        })
    }
}

const ALL_SECONDS: [Unit; 3] = [Unit::Second, Unit::Millisecond, Unit::Microsecond];

/// A number as written: the whole part, and the fraction with the sign of the number.
#[derive(Clone, Copy)]
struct Number {
    whole: i64,
    fraction: f64,
}

impl Number {
    fn read(negative: bool, digits: &str) -> Result<Self, Refusal> {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(Refusal::Syntax);
        }
        let whole: i64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| Refusal::Field)?
        };
        let fraction: f64 = if fraction.is_empty() {
            0.0
        } else {
            format!("0.{fraction}")
                .parse()
                .map_err(|_| Refusal::Syntax)?
        };
        let sign = if negative { -1 } else { 1 };
        Ok(Self {
            whole: whole * sign,
            fraction: fraction * sign as f64,
        })
    }
}

/// The interval so far. Wide, so that only the end has to look for overflow of the time part.
#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    micros: i128,
    seen: Vec<Unit>,
    fields: usize,
}

impl Sum {
    fn mark(&mut self, units: &[Unit]) -> Result<(), Refusal> {
        if units.iter().any(|unit| self.seen.contains(unit)) {
            return Err(Refusal::Syntax);
        }
        self.seen.extend_from_slice(units);
        self.fields += 1;
        Ok(())
    }

    fn add(&mut self, number: Number, unit: Unit) -> Result<(), Refusal> {
        match unit {
            // A fraction speaks for the smaller units too.
            Unit::Second if number.fraction != 0.0 => self.mark(&ALL_SECONDS)?,
            unit => self.mark(&[unit])?,
        }
        match unit {
            Unit::Microsecond => self.add_time(number, 1),
            Unit::Millisecond => self.add_time(number, 1_000),
            Unit::Second => self.add_time(number, MICROS_PER_SECOND),
            Unit::Minute => self.add_time(number, MICROS_PER_MINUTE),
            Unit::Hour => self.add_time(number, MICROS_PER_HOUR),
            Unit::Day => self.add_days(number, 1)?,
            Unit::Week => self.add_days(number, 7)?,
            Unit::Month => {
                self.add_months(number.whole, 1)?;
                self.add_days(
                    Number {
                        whole: 0,
                        fraction: number.fraction,
                    },
                    30,
                )?;
            }
            Unit::Year => self.add_years(number, 1)?,
            Unit::Decade => self.add_years(number, 10)?,
            Unit::Century => self.add_years(number, 100)?,
            Unit::Millennium => self.add_years(number, 1_000)?,
        }
        Ok(())
    }

    fn add_time(&mut self, number: Number, scale: i64) {
        self.micros += number.whole as i128 * scale as i128;
        self.micros += (number.fraction * scale as f64).round_ties_even() as i128;
    }

    fn add_days(&mut self, number: Number, scale: i64) -> Result<(), Refusal> {
        let part = number.fraction * scale as f64;
        let extra = part.trunc();
        let days = number
            .whole
            .checked_mul(scale)
            .and_then(|d| d.checked_add(extra as i64))
            .and_then(|d| d.checked_add(self.days))
            .filter(|d| i32::try_from(*d).is_ok());
        self.days = days.ok_or(Refusal::Field)?;
        self.micros += ((part - extra) * MICROS_PER_DAY as f64).round_ties_even() as i128;
        Ok(())
    }

    fn add_months(&mut self, whole: i64, scale: i64) -> Result<(), Refusal> {
        let months = whole
            .checked_mul(scale)
            .and_then(|m| m.checked_add(self.months));
        self.months = months.ok_or(Refusal::Range)?;
        Ok(())
    }

    fn add_years(&mut self, number: Number, scale: i64) -> Result<(), Refusal> {
        self.add_months(number.whole, 12 * scale)?;
        let part = (number.fraction * (12 * scale) as f64).round_ties_even();
        self.add_months(part as i64, 1)
    }

    fn add_clock(&mut self, negative: bool, clock: &str) -> Result<(), Refusal> {
        self.mark(&[Unit::Hour, Unit::Minute])?;
        self.mark(&ALL_SECONDS)?;
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let number = |digits: &str| -> Result<i64, Refusal> {
            match digits {
                "" => Ok(0),
                digits => digits.parse().map_err(|_| Refusal::Field),
            }
        };
        let (hour, minute, second) = match whole.split(':').collect::<Vec<_>>().as_slice() {
            [hour, minute] if !clock.contains('.') => (number(hour)?, number(minute)?, 0),
            [minute, second] => (0, number(minute)?, number(second)?),
            [hour, minute, second] => (number(hour)?, number(minute)?, number(second)?),
            _ => return Err(Refusal::Syntax),
        };
        if minute > 59 || second > 60 {
            return Err(Refusal::Field);
        }
        let micros = hour as i128 * MICROS_PER_HOUR as i128
            + (minute * MICROS_PER_MINUTE + second * MICROS_PER_SECOND) as i128
            + fraction_micros(fraction).ok_or(Refusal::Syntax)? as i128;
        self.micros += if negative { -micros } else { micros };
        Ok(())
    }

    fn add_year_month(&mut self, negative: bool, text: &str) -> Result<(), Refusal> {
        self.mark(&[Unit::Month])?;
        let (years, months) = text.split_once('-').ok_or(Refusal::Syntax)?;
        let years: i64 = years.parse().map_err(|_| Refusal::Syntax)?;
        let months: i64 = months.parse().map_err(|_| Refusal::Syntax)?;
        if months > 11 {
            return Err(Refusal::Field);
        }
        let total = years
            .checked_mul(12)
            .and_then(|m| m.checked_add(months))
            .ok_or(Refusal::Range)?;
        self.add_months(if negative { -total } else { total }, 1)
    }

    fn finish(self) -> Result<IntervalValue, Refusal> {
        if self.fields == 0 {
            return Err(Refusal::Syntax);
        }
        let nanos = self
            .micros
            .checked_mul(1_000)
            .and_then(|n| i64::try_from(n).ok());
        Ok(IntervalValue {
            months: i32::try_from(self.months).map_err(|_| Refusal::Range)?,
            days: i32::try_from(self.days).map_err(|_| Refusal::Field)?,
            nanos: nanos.ok_or(Refusal::Range)?,
        })
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self
            .rest
            .trim_start_matches(|c: char| c.is_ascii() && is_space(c as u8));
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn sign(&mut self) -> bool {
        let negative = self.rest.starts_with('-');
        if negative || self.rest.starts_with('+') {
            self.rest = &self.rest[1..];
            self.skip_space();
        }
        negative
    }
}

/// Numbers with units, clock times, `years-months`, `@` and `ago`. A number without a unit is days before a clock time
/// or hours, seconds at the end, and nothing elsewhere.
fn read_verbose(text: &str) -> Result<Sum, Refusal> {
    let mut sum = Sum::default();
    let mut reader = Reader { rest: text };
    let mut pending: Option<Number> = None;
    // A number before one whose unit is not known yet.
    let mut before: Option<Number> = None;
    let mut ago = false;
    loop {
        reader.skip_space();
        let Some(first) = reader.rest.chars().next() else {
            break;
        };
        match first {
            '0'..='9' | '+' | '-' | '.' => {
                let negative = reader.sign();
                let digits = reader.take(|c| c.is_ascii_digit() || matches!(c, '.' | ':' | '-'));
                if digits.contains(':') {
                    if let Some(days) = pending.take() {
                        sum.add(days, Unit::Day)?;
                    }
                    sum.add_clock(negative, digits)?;
                } else if digits.contains('-') {
                    sum.add_year_month(negative, digits)?;
                } else if before.is_some() {
                    return Err(Refusal::Syntax);
                } else {
                    before = pending.replace(Number::read(negative, digits)?);
                }
            }
            '@' => reader.rest = &reader.rest[1..],
            c if c.is_ascii_alphabetic() => {
                let word = reader
                    .take(|c| c.is_ascii_alphabetic())
                    .to_ascii_lowercase();
                match (Unit::of(&word), pending.take()) {
                    (Some(unit), Some(number)) => {
                        match before.take() {
                            Some(days) if unit == Unit::Hour => sum.add(days, Unit::Day)?,
                            Some(_) => return Err(Refusal::Syntax),
                            None => {}
                        }
                        sum.add(number, unit)?;
                    }
                    // A unit too many is overlooked, as in Postgres.
                    (Some(_), None) if sum.fields > 0 => {}
                    (None, None) if word == "ago" => ago = true,
                    _ => return Err(Refusal::Syntax),
                }
            }
            _ => return Err(Refusal::Syntax),
        }
    }
    if before.is_some() {
        return Err(Refusal::Syntax);
    }
    if let Some(seconds) = pending {
        sum.add(seconds, Unit::Second)?;
    }
    if ago {
        sum.months = -sum.months;
        sum.days = -sum.days;
        sum.micros = -sum.micros;
    }
    Ok(sum)
}

/// What follows the `P` of ISO 8601: `1Y2M3DT4H5M6S`, or `0001-02-03T04:05:06`.
fn read_iso(text: &str) -> Result<Sum, Refusal> {
    let mut sum = Sum::default();
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    if date.matches('-').count() == 2
        && date.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        && !date.starts_with('-')
    {
        let mut parts = date.split('-');
        for unit in [Unit::Year, Unit::Month, Unit::Day] {
            sum.add(Number::read(false, parts.next().unwrap_or_default())?, unit)?;
        }
    } else {
        read_designated(date, false, &mut sum)?;
    }
    match time {
        Some(time) if time.contains(':') => sum.add_clock(false, time)?,
        Some(time) => read_designated(time, true, &mut sum)?,
        None => {}
    }
    if time.is_some() {
        sum.fields += 1;
    }
    Ok(sum)
}

fn read_designated(text: &str, time: bool, sum: &mut Sum) -> Result<(), Refusal> {
    let mut reader = Reader { rest: text };
    while !reader.rest.is_empty() {
        let negative = reader.sign();
        let number = Number::read(negative, reader.take(|c| c.is_ascii_digit() || c == '.'))?;
        let unit = match (reader.rest.chars().next(), time) {
            (Some('Y'), false) => Unit::Year,
            (Some('M'), false) => Unit::Month,
            (Some('W'), false) => Unit::Week,
            (Some('D'), false) => Unit::Day,
            (Some('H'), true) => Unit::Hour,
            (Some('M'), true) => Unit::Minute,
            (Some('S'), true) => Unit::Second,
            _ => return Err(Refusal::Syntax),
        };
        reader.rest = &reader.rest[1..];
        sum.add(number, unit)?;
    }
    Ok(())
}

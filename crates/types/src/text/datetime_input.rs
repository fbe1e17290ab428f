//! Dates, times and timestamps from text: cut into words, numbers, dates, times and zones, then given their meaning in
//! order, much as Postgres's `ParseDateTime` and `DecodeDateTime` do.

use super::datetime::{
    MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_SECOND, days_from_civil, days_in_month,
};
use super::datetime_names::{MONTH_NAMES, MONTHS, WEEKDAYS, ZONES};
use super::{is_space, trim};
use crate::{SqlError, SqlState};

/// Why a text is not a date: each has an SQLSTATE and wording of its own.
enum Refusal {
    Syntax,
    Overflow,
    /// Month or day impossible: perhaps they were meant the other way round.
    FieldOrder,
    ZoneOverflow,
    UnknownZone(String),
    NeedsClock(String),
}

type Decoded<T> = Result<T, Refusal>;

/// What was found in a text. Years are as written until `bc` is applied.
#[derive(Default)]
struct Fields {
    year: Option<i64>,
    year_digits: usize,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    /// Days since 1970, when a date came as one word.
    days: Option<i64>,
    time: Option<i64>,
    hour: i64,
    afternoon: Option<bool>,
    zone_seconds: Option<i64>,
    before_christ: bool,
    infinite: Option<bool>,
}

pub(super) fn parse_date(text: &str) -> Result<i32, SqlError> {
    let decode = || -> Decoded<Option<i32>> {
        let fields = decode(text, false)?;
        match fields.infinite {
            Some(true) => return Ok(Some(i32::MAX)),
            Some(false) => return Ok(Some(i32::MIN)),
            None => {}
        }
        fields.day_micros()?;
        let days = fields.date()?.ok_or(Refusal::Syntax)?;
        let range = days_from_civil(-4713, 11, 24)..=days_from_civil(5_874_897, 12, 31);
        Ok(range.contains(&days).then_some(days as i32))
    };
    decode()
        .map_err(|r| r.error("date", text))?
        .ok_or_else(|| out_of_range("date", text))
}

pub(super) fn parse_time(text: &str) -> Result<i64, SqlError> {
    let decode = || -> Decoded<i64> {
        let fields = decode(text, true)?;
        let micros = fields.day_micros()?.ok_or(Refusal::Syntax)?;
        fields.date()?;
        if micros > MICROS_PER_DAY {
            Err(Refusal::Overflow)
        } else {
            Ok(micros)
        }
    };
    decode().map_err(|r| r.error("time", text))
}

/// Microseconds since 1970. Without `zoned` a zone is read and ignored, as the standard asks for.
pub(super) fn parse_timestamp(text: &str, zoned: bool) -> Result<i64, SqlError> {
    let decode = || -> Decoded<Option<i64>> {
        let fields = decode(text, false)?;
        match fields.infinite {
            Some(true) => return Ok(Some(i64::MAX)),
            Some(false) => return Ok(Some(i64::MIN)),
            None => {}
        }
        let micros = fields.day_micros()?.unwrap_or(0);
        let days = fields.date()?.ok_or(Refusal::Syntax)?;
        let offset = if zoned {
            fields.zone_seconds.unwrap_or(0)
        } else {
            0
        };
        let value = days as i128 * MICROS_PER_DAY as i128 + micros as i128
            - offset as i128 * MICROS_PER_SECOND as i128;
        let first = days_from_civil(-4713, 11, 24) as i128 * MICROS_PER_DAY as i128;
        Ok((first..i64::MAX as i128)
            .contains(&value)
            .then_some(value as i64))
    };
    let type_name = if zoned {
        "timestamp with time zone"
    } else {
        "timestamp"
    };
    decode()
        .map_err(|r| r.error(type_name, text))?
        .ok_or_else(|| out_of_range("timestamp", text))
}

fn out_of_range(what: &str, text: &str) -> SqlError {
    SqlError::new(
        SqlState::DATETIME_OVERFLOW,
        format!("{what} out of range: \"{text}\""),
    )
}

impl Refusal {
    fn error(self, type_name: &str, text: &str) -> SqlError {
        let overflow = || {
            SqlError::new(
                SqlState::DATETIME_OVERFLOW,
                format!("date/time field value out of range: \"{text}\""),
            )
        };
        match self {
            Refusal::Syntax => SqlError::new(
                SqlState::INVALID_DATETIME,
                format!("invalid input syntax for type {type_name}: \"{text}\""),
            ),
            Refusal::Overflow => overflow(),
            Refusal::FieldOrder => {
                overflow().with_hint("Perhaps you need a different \"datestyle\" setting.")
            }
            Refusal::ZoneOverflow => SqlError::new(
                SqlState::from_code("22009"),
                format!("time zone displacement out of range: \"{text}\""),
            ),
            Refusal::UnknownZone(zone) => SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("time zone \"{zone}\" not recognized"),
            ),
            Refusal::NeedsClock(word) => {
                SqlError::not_supported(format!("the date/time value \"{word}\" in text"))
                    .with_hint("Use now() or current_date.")
            }
        }
    }
}

impl Fields {
    fn date(&self) -> Decoded<Option<i64>> {
        if self.days.is_some() {
            return Ok(self.days);
        }
        let Some(year) = self.year else {
            return if self.month.or(self.day).is_some() {
                Err(Refusal::Syntax)
            } else {
                Ok(None)
            };
        };
        let year = match (self.before_christ, self.year_digits) {
            (true, _) if year <= 0 => return Err(Refusal::Overflow),
            (true, _) => 1 - year,
            (false, 0..=2) if year < 70 => year + 2000,
            (false, 0..=2) => year + 1900,
            (false, _) if year <= 0 => return Err(Refusal::Overflow),
            (false, _) => year,
        };
        if let Some(day_of_year) = self.day_of_year {
            let length = if days_in_month(year, 2) == 29 {
                366
            } else {
                365
            };
            if !(1..=length).contains(&day_of_year) {
                return Err(Refusal::Overflow);
            }
            return Ok(Some(days_from_civil(year, 1, 1) + day_of_year as i64 - 1));
        }
        let (Some(month), Some(day)) = (self.month, self.day) else {
            return Err(Refusal::Syntax);
        };
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(Refusal::FieldOrder);
        }
        if day > days_in_month(year, month) {
            return Err(Refusal::Overflow);
        }
        Ok(Some(days_from_civil(year, month, day)))
    }

    fn day_micros(&self) -> Decoded<Option<i64>> {
        let Some(time) = self.time else {
            return if self.afternoon.is_some() {
                Err(Refusal::Syntax)
            } else {
                Ok(None)
            };
        };
        let beyond = self.hour == 24 && time > MICROS_PER_DAY;
        if self.hour > 24 || beyond {
            return Err(Refusal::Overflow);
        }
        let shift = match self.afternoon {
            Some(_) if self.hour > 12 => return Err(Refusal::Overflow),
            Some(true) if self.hour != 12 => 12,
            Some(false) if self.hour == 12 => -12,
            _ => 0,
        };
        let micros = time + shift * MICROS_PER_HOUR;
        if micros > MICROS_PER_DAY {
            Err(Refusal::Overflow)
        } else {
            Ok(Some(micros))
        }
    }

    fn has_date(&self) -> bool {
        self.days.is_some()
            || (self.year.is_some() && (self.day.is_some() || self.day_of_year.is_some()))
    }

    fn set_year(&mut self, digits: &str) -> Decoded<()> {
        if self.year.is_some() {
            return Err(Refusal::Syntax);
        }
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Refusal::Syntax);
        }
        self.year = Some(digits.parse().map_err(|_| Refusal::Overflow)?);
        self.year_digits = digits.len();
        Ok(())
    }

    fn set_time(&mut self, hour: i64, minute: i64, second: i64, micros: i64) -> Decoded<()> {
        if self.time.is_some() {
            return Err(Refusal::Syntax);
        }
        if minute > 59 || second > 60 {
            return Err(Refusal::Overflow);
        }
        self.hour = hour;
        self.time = Some(((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + micros);
        Ok(())
    }
}

fn small(digits: &str) -> Decoded<u32> {
    digits.parse().map_err(|_| Refusal::Overflow)
}

/// Microseconds of a fraction's digits, rounded as C's `rint(x * 1e6)`.
pub(super) fn fraction_micros(digits: &str) -> Option<i64> {
    if digits.is_empty() {
        return Some(0);
    }
    let fraction: f64 = format!("0.{digits}").parse().ok()?;
    Some((fraction * 1e6).round_ties_even() as i64)
}

/// The pieces of a text, cut by their first characters.
struct Pieces<'a> {
    rest: &'a str,
}

enum Piece<'a> {
    /// Digits, perhaps with a fraction.
    Number(&'a str),
    /// Parts of a date and what stood between them.
    Date(&'a str, char),
    Time(&'a str),
    Word(String),
    /// A sign and what follows it.
    Zone(bool, &'a str),
    Signed(bool, String),
}

impl<'a> Pieces<'a> {
    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn next(&mut self) -> Decoded<Option<Piece<'a>>> {
        loop {
            let Some(first) = self.rest.chars().next() else {
                return Ok(None);
            };
            return Ok(Some(match first {
                c if c.is_ascii() && is_space(c as u8) => {
                    self.rest = &self.rest[1..];
                    continue;
                }
                '0'..='9' => self.numeric(),
                'a'..='z' | 'A'..='Z' => self.word(),
                '+' | '-' => {
                    self.rest = self.rest[1..].trim_start();
                    let positive = first == '+';
                    match self.rest.chars().next() {
                        Some('0'..='9') => {
                            Piece::Zone(positive, self.take(|c| c.is_ascii_digit() || c == ':'))
                        }
                        Some('a'..='z' | 'A'..='Z') => Piece::Signed(
                            positive,
                            self.take(|c| c.is_ascii_alphabetic()).to_ascii_lowercase(),
                        ),
                        _ => return Err(Refusal::Syntax),
                    }
                }
                '.' => return Err(Refusal::Syntax),
                c if c.is_ascii_punctuation() => {
                    self.rest = &self.rest[1..];
                    continue;
                }
                _ => return Err(Refusal::Syntax),
            }));
        }
    }

    fn numeric(&mut self) -> Piece<'a> {
        let start = self.rest;
        let digits = self.take(|c| c.is_ascii_digit());
        let whole = |pieces: &Self| &start[..start.len() - pieces.rest.len()];
        match self.rest.chars().next() {
            Some(':') => {
                self.take(|c| c.is_ascii_digit() || matches!(c, ':' | '.'));
                Piece::Time(whole(self))
            }
            Some(between @ ('-' | '/' | '.')) => {
                let after = &self.rest[1..];
                let second = after.bytes().take_while(u8::is_ascii_digit).count();
                if between == '.' && !after[second..].starts_with('.') {
                    self.take(|c| c == '.' || c.is_ascii_digit());
                    return Piece::Number(whole(self));
                }
                if after.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    self.take(|c| c == between || c.is_ascii_alphanumeric());
                } else {
                    self.take(|c| c == between || c.is_ascii_digit());
                }
                Piece::Date(whole(self), between)
            }
            _ => Piece::Number(digits),
        }
    }

    fn word(&mut self) -> Piece<'a> {
        let start = self.rest;
        self.take(|c| c.is_ascii_alphabetic());
        if self.rest.starts_with(['/', '_']) {
            self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+'));
        }
        Piece::Word(start[..start.len() - self.rest.len()].to_ascii_lowercase())
    }
}

fn decode(text: &str, time_only: bool) -> Decoded<Fields> {
    let mut fields = Fields::default();
    let mut pieces = Pieces { rest: trim(text) };
    let mut count = 0;
    // After the `T` of ISO 8601 a number is a time.
    let mut time_next = time_only;
    while let Some(piece) = pieces.next()? {
        count += 1;
        match piece {
            Piece::Time(time) => decode_time(time, &mut fields)?,
            Piece::Date(date, between) => decode_date(date, between, &mut fields)?,
            Piece::Number(number) => decode_number(number, time_next, &mut fields)?,
            Piece::Zone(positive, zone) => {
                if fields.time.is_none() && !fields.has_date() {
                    return Err(Refusal::Syntax);
                }
                let offset = decode_zone(zone)? * if positive { 1 } else { -1 };
                // POSIX counts west of Greenwich: `UTC+3` is `-03`.
                fields.zone_seconds = Some(match fields.zone_seconds {
                    Some(0) => -offset,
                    Some(_) => return Err(Refusal::Syntax),
                    None => offset,
                });
            }
            Piece::Signed(positive, word) => {
                if positive || word != "infinity" || count > 1 {
                    return Err(Refusal::Syntax);
                }
                fields.infinite = Some(false);
            }
            Piece::Word(word) if word == "t" => {
                if time_next && !time_only {
                    return Err(Refusal::Syntax);
                }
                time_next = true;
            }
            Piece::Word(word) if word == "j" && !fields.has_date() => {
                let digits = pieces.take(|c| c.is_ascii_digit());
                let julian: i64 = digits.parse().map_err(|_| Refusal::Syntax)?;
                fields.days = Some(julian - 2_440_588);
            }
            Piece::Word(word) => decode_word(&word, time_only, &mut fields)?,
        }
        if fields.infinite.is_some() && count > 1 {
            return Err(Refusal::Syntax);
        }
    }
    if count == 0 {
        Err(Refusal::Syntax)
    } else {
        Ok(fields)
    }
}

fn decode_word(word: &str, time_only: bool, fields: &mut Fields) -> Decoded<()> {
    let month = MONTHS.iter().chain(&MONTH_NAMES).position(|m| *m == word);
    if let Some(month) = month.or((word == "sept").then_some(8)) {
        let month = (month % 12 + 1) as u32;
        // `Jan 2 2024` after a number that was taken for a month cannot happen: numbers wait for the word.
        if fields.month.replace(month).is_some() {
            return Err(Refusal::Syntax);
        }
        return Ok(());
    }
    if let Some((_, hours)) = ZONES.iter().find(|(zone, _)| *zone == word) {
        if fields.zone_seconds.is_some() {
            return Err(Refusal::Syntax);
        }
        fields.zone_seconds = Some((hours * 3_600.0) as i64);
        return Ok(());
    }
    match word {
        "am" | "pm" => fields.afternoon = Some(word == "pm"),
        "ad" => {}
        "bc" => fields.before_christ = true,
        "infinity" if !time_only => fields.infinite = Some(true),
        "epoch" if !time_only => {
            fields.days = Some(0);
            fields.time = Some(0);
        }
        "allballs" => {
            fields.time = Some(0);
            fields.zone_seconds = Some(0);
        }
        "now" | "today" | "tomorrow" | "yesterday" => {
            return Err(Refusal::NeedsClock(word.to_owned()));
        }
        word if WEEKDAYS.contains(&word) => {}
        word if word.contains(['/', '_']) && !time_only => {
            return Err(Refusal::UnknownZone(word.to_owned()));
        }
        _ => return Err(Refusal::Syntax),
    }
    Ok(())
}

fn decode_time(time: &str, fields: &mut Fields) -> Decoded<()> {
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let micros = fraction_micros(fraction).ok_or(Refusal::Syntax)?;
    let parts: Vec<&str> = clock.split(':').collect();
    let number = |part: &str| -> Decoded<i64> {
        match part {
            "" => Ok(0),
            digits => digits.parse().map_err(|_| Refusal::Overflow),
        }
    };
    match parts.as_slice() {
        [hour, minute] if !time.contains('.') => {
            fields.set_time(number(hour)?, number(minute)?, 0, 0)
        }
        [minute, second] => fields.set_time(0, number(minute)?, number(second)?, micros),
        [hour, minute, second] => {
            fields.set_time(number(hour)?, number(minute)?, number(second)?, micros)
        }
        _ => Err(Refusal::Syntax),
    }
}

fn decode_date(date: &str, between: char, fields: &mut Fields) -> Decoded<()> {
    if fields.has_date() {
        return Err(Refusal::Syntax);
    }
    let parts: Vec<&str> = date.split(between).collect();
    let spelled = parts
        .iter()
        .position(|p| p.starts_with(|c: char| c.is_ascii_alphabetic()));
    match (parts.as_slice(), spelled) {
        ([first, word, last], Some(1)) => {
            decode_word(&word.to_ascii_lowercase(), false, fields)?;
            let (year, day) = if first.len() > 2 {
                (first, last)
            } else {
                (last, first)
            };
            fields.set_year(year)?;
            fields.day = Some(small(day)?);
        }
        (_, Some(_)) => return Err(Refusal::Syntax),
        ([year, month, day], None) if year.len() > 2 => {
            fields.set_year(year)?;
            fields.month = Some(small(month)?);
            fields.day = Some(small(day)?);
        }
        ([month, day, year], None) => {
            fields.set_year(year)?;
            fields.month = Some(small(month)?);
            fields.day = Some(small(day)?);
        }
        ([year, day], None) if year.len() > 2 && day.len() == 3 => {
            fields.set_year(year)?;
            fields.day_of_year = Some(small(day)?);
        }
        _ => return Err(Refusal::Syntax),
    }
    Ok(())
}

fn decode_number(number: &str, time_next: bool, fields: &mut Fields) -> Decoded<()> {
    let (digits, fraction) = number.split_once('.').unwrap_or((number, ""));
    let run_together = fields.month.is_none() || fields.has_date();
    match digits.len() {
        8 if run_together && !fields.has_date() && !time_next => {
            fields.set_year(&digits[..4])?;
            fields.month = Some(small(&digits[4..6])?);
            fields.day = Some(small(&digits[6..])?);
        }
        6 if run_together && !fields.has_date() && !time_next => {
            fields.set_year(&digits[..2])?;
            fields.month = Some(small(&digits[2..4])?);
            fields.day = Some(small(&digits[4..])?);
        }
        4 | 6 if fields.has_date() || time_next => {
            let number = |range: std::ops::Range<usize>| {
                digits.get(range).map_or(Ok(0), |d| small(d).map(i64::from))
            };
            let micros = fraction_micros(fraction).ok_or(Refusal::Syntax)?;
            fields.set_time(number(0..2)?, number(2..4)?, number(4..6)?, micros)?;
        }
        _ if fields.has_date() || !fraction.is_empty() => return Err(Refusal::Syntax),
        1 | 2 if fields.day.is_none() => {
            let day = small(digits)?;
            // Before the month's name it is taken for a day only if it can be one.
            if fields.month.is_none() && !(1..=31).contains(&day) {
                return Err(Refusal::Syntax);
            }
            fields.day = Some(day);
        }
        _ => fields.set_year(digits)?,
    }
    Ok(())
}

fn decode_zone(zone: &str) -> Decoded<i64> {
    let number = |digits: &str| digits.parse::<i64>().map_err(|_| Refusal::Syntax);
    let (hours, minutes, seconds) = match zone.split(':').collect::<Vec<_>>().as_slice() {
        [run] if run.len() > 2 => {
            let (hours, minutes) = run.split_at(run.len() - 2);
            (number(hours)?, number(minutes)?, 0)
        }
        [hours] => (number(hours)?, 0, 0),
        [hours, minutes] => (number(hours)?, number(minutes)?, 0),
        [hours, minutes, seconds] => (number(hours)?, number(minutes)?, number(seconds)?),
        _ => return Err(Refusal::Syntax),
    };
    if hours > 15 || minutes > 59 || seconds > 59 {
        return Err(Refusal::ZoneOverflow);
    }
    Ok((hours * 60 + minutes) * 60 + seconds)
}

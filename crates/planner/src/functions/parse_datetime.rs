//! `to_date(text, pattern)` and `to_timestamp(text, pattern)` with Postgres' template patterns; `to_timestamp(seconds)`.

use super::rowwise::{Row, Rowwise, is_text, texts};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;
use tidegate_types::text::{Value, civil_from_days, days_from_civil};
use tidegate_types::{SqlError, SqlState, SqlType};

const DAY: i64 = 86_400_000_000;

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let to_date = Rowwise {
        name: "to_date",
        strict: true,
        coerce: |a| texts(a, 2),
        returns: |_| SqlType::Date,
        body: |row| {
            let (days, _) = read(row.str(0), row.str(1))?;
            i32::try_from(days)
                .map(Value::Date)
                .map_err(|_| out_of_range(row.str(0)))
        },
    };
    let to_timestamp = Rowwise {
        name: "to_timestamp",
        strict: true,
        coerce: |a| match a {
            [text, pattern] if is_text(text) && is_text(pattern) => Some(vec![DataType::Utf8; 2]),
            [seconds] if seconds.is_numeric() || seconds.is_null() => Some(vec![DataType::Float64]),
            _ => None,
        },
        returns: |_| SqlType::TimestampTz,
        body: |row: &Row<'_>| {
            if row.len() == 1 {
                return seconds(row.primitive::<Float64Type>(0));
            }
            let (days, micros) = read(row.str(0), row.str(1))?;
            days.checked_mul(DAY)
                .and_then(|d| d.checked_add(micros))
                .map(Value::Timestamp)
                .ok_or_else(|| out_of_range(row.str(0)))
        },
    };
    vec![to_date.udf(), to_timestamp.udf()]
}

fn seconds(seconds: f64) -> Result<Value, SqlError> {
    let micros = (seconds * 1e6).round();
    if micros.is_finite() && micros.abs() < 9.2e18 {
        return Ok(Value::Timestamp(micros as i64));
    }
    Err(SqlError::new(
        SqlState::DATETIME_OVERFLOW,
        format!("timestamp out of range: \"{seconds}\""),
    ))
}

fn out_of_range(text: &str) -> SqlError {
    SqlError::new(
        SqlState::DATETIME_OVERFLOW,
        format!("date/time field value out of range: \"{text}\""),
    )
}

fn invalid(message: String) -> SqlError {
    SqlError::new(SqlState::from_code("22007"), message)
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// What has been read so far.
#[derive(Default)]
struct Fields {
    year: Option<i64>,
    bc: bool,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    hour: i64,
    hour12: bool,
    pm: Option<bool>,
    minute: i64,
    second: i64,
    seconds_of_day: Option<i64>,
    micros: i64,
}

/// Longest first where one begins another; upper case.
const PATTERNS: &[&str] = &[
    "Y,YYY", "YYYY", "YYY", "YY", "IYYY", "Y", "MONTH", "MON", "MM", "MI", "MS", "US", "DDD", "DD",
    "DAY", "DY", "D", "ID", "HH24", "HH12", "HH", "SSSSS", "SSSS", "SS", "A.M.", "P.M.", "AM",
    "PM", "B.C.", "A.D.", "BC", "AD", "J", "WW", "W", "Q", "FF1", "FF2", "FF3", "FF4", "FF5",
    "FF6",
];

/// Days since 1970 and microseconds of the day.
fn read(text: &str, pattern: &str) -> Result<(i64, i64), SqlError> {
    let mut fields = Fields::default();
    let mut input = text;
    let mut rest = pattern;
    while !rest.is_empty() {
        if let Some(after) = ["FM", "fm", "TH", "th", "FX"]
            .iter()
            .find_map(|p| rest.strip_prefix(p))
        {
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix('"') {
            let (quoted, after) = after.split_once('"').unwrap_or((after, ""));
            for _ in quoted.chars() {
                input = skip_one(input);
            }
            rest = after;
            continue;
        }
        let upper = |p: &&&str| {
            rest.get(..p.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(p))
        };
        if let Some(name) = PATTERNS.iter().find(upper) {
            rest = &rest[name.len()..];
            input = input.trim_start();
            if input.is_empty() {
                break;
            }
            let digits_follow = PATTERNS
                .iter()
                .find(upper_of(rest))
                .is_some_and(|p| !matches!(*p, "MONTH" | "MON" | "DAY" | "DY"));
            input = field(name, input, digits_follow, text, &mut fields)?;
            continue;
        }
        let c = rest.chars().next().unwrap_or_default();
        rest = &rest[c.len_utf8()..];
        // A separator stands for any run of separators; a letter for one character.
        if c.is_alphanumeric() {
            input = skip_one(input);
        } else {
            input = input.trim_start_matches(|c: char| c.is_whitespace());
            // A sign behind a space belongs to the number.
            let separates = |next: char| match next {
                '+' | '-' => !c.is_whitespace(),
                next => !next.is_alphanumeric(),
            };
            if input.chars().next().is_some_and(separates) {
                input = skip_one(input);
            }
        }
    }
    assembled(&fields, text)
}

fn upper_of<'a>(rest: &'a str) -> impl Fn(&&&str) -> bool + 'a {
    move |p| {
        rest.get(..p.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(p))
    }
}

fn skip_one(input: &str) -> &str {
    let mut chars = input.chars();
    chars.next();
    chars.as_str()
}

/// Reads one field; answers what follows it.
fn field<'a>(
    name: &str,
    input: &'a str,
    digits_follow: bool,
    whole: &str,
    fields: &mut Fields,
) -> Result<&'a str, SqlError> {
    let number = |width: usize| -> Result<(i64, usize, &'a str), SqlError> {
        let sign = usize::from(input.starts_with(['-', '+']));
        let limit = if digits_follow { width } else { usize::MAX };
        let count = input[sign..]
            .bytes()
            .take(limit)
            .take_while(u8::is_ascii_digit)
            .count();
        let end = sign + count;
        let value = input[..end].parse().map_err(|_| {
            let shown: String = input.chars().take(width).collect();
            let error = invalid(format!("invalid value \"{shown}\" for \"{name}\""));
            match count {
                0 => error.with_detail("Value must be an integer."),
                _ => out_of_range(whole),
            }
        })?;
        Ok((value, count, &input[end..]))
    };
    let simple = |(value, _, rest): (i64, usize, &'a str)| (value, rest);
    Ok(match name {
        "YYYY" | "IYYY" => {
            let (value, rest) = simple(number(4)?);
            fields.year = Some(value);
            rest
        }
        "YYY" | "YY" | "Y" => {
            let (value, count, rest) = number(name.len())?;
            fields.year = Some(match count {
                1 | 2 if value < 70 => value + 2000,
                1 | 2 => value + 1900,
                3 if value < 520 => value + 2000,
                3 => value + 1000,
                _ => value,
            });
            rest
        }
        "MM" => {
            let (value, rest) = simple(number(2)?);
            fields.month = Some(value);
            rest
        }
        "MONTH" | "MON" => {
            let lower = input.to_lowercase();
            let found = (0..12).find_map(|i| {
                let full = name == "MONTH" && lower.starts_with(MONTHS[i]);
                let length = if full { MONTHS[i].len() } else { 3 };
                lower
                    .starts_with(&MONTHS[i][..length])
                    .then_some((i, length))
            });
            let Some((month, length)) = found else {
                let shown: String = input.chars().take_while(|c| c.is_alphanumeric()).collect();
                return Err(invalid(format!("invalid value \"{shown}\" for \"{name}\""))
                    .with_detail(
                        "The given value did not match any of the allowed values for this field.",
                    ));
            };
            fields.month = Some(month as i64 + 1);
            &input[length..]
        }
        "DD" => {
            let (value, rest) = simple(number(2)?);
            fields.day = Some(value);
            rest
        }
        "DDD" => {
            let (value, rest) = simple(number(3)?);
            fields.day_of_year = Some(value);
            rest
        }
        "J" => {
            let (value, rest) = simple(number(7)?);
            fields.julian = Some(value);
            rest
        }
        "HH24" => {
            let (value, rest) = simple(number(2)?);
            (fields.hour, fields.hour12) = (value, false);
            rest
        }
        "HH12" | "HH" => {
            let (value, rest) = simple(number(2)?);
            (fields.hour, fields.hour12) = (value, true);
            rest
        }
        "MI" => {
            let (value, rest) = simple(number(2)?);
            fields.minute = value;
            rest
        }
        "SS" => {
            let (value, rest) = simple(number(2)?);
            fields.second = value;
            rest
        }
        "SSSS" | "SSSSS" => {
            let (value, rest) = simple(number(5)?);
            fields.seconds_of_day = Some(value);
            rest
        }
        "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
            let width = match name {
                "MS" => 3,
                "US" => 6,
                other => other[2..].parse().unwrap_or(6),
            };
            let (value, count, rest) = number(width)?;
            let shift = 6_u32.saturating_sub(count.min(6) as u32);
            fields.micros = value * 10_i64.pow(shift);
            rest
        }
        "AM" | "PM" | "A.M." | "P.M." => {
            let length = name.len();
            fields.pm = Some(input.starts_with(['p', 'P']));
            input.get(length..).unwrap_or("")
        }
        "BC" | "AD" | "B.C." | "A.D." => {
            fields.bc = input.starts_with(['b', 'B']);
            input.get(name.len()..).unwrap_or("")
        }
        "DAY" | "DY" => input.trim_start_matches(|c: char| c.is_alphabetic()),
        "D" | "ID" | "W" | "Q" | "WW" => number(name.len())?.2,
        other => {
            return Err(SqlError::not_supported(format!(
                "the pattern \"{other}\" in to_date and to_timestamp"
            )));
        }
    })
}

fn assembled(fields: &Fields, text: &str) -> Result<(i64, i64), SqlError> {
    let year = match (fields.year, fields.bc) {
        (Some(year), true) => 1 - year,
        (Some(year), false) if year < 0 => year + 1,
        (year, _) => year.unwrap_or(0),
    };
    let (month, day) = (fields.month.unwrap_or(1), fields.day.unwrap_or(1));
    let days = if let Some(julian) = fields.julian {
        julian - 2_440_588
    } else if let Some(nth) = fields.day_of_year {
        let first = days_from_civil(year, 1, 1);
        let last = days_from_civil(year + 1, 1, 1) - first;
        if !(1..=last).contains(&nth) {
            return Err(out_of_range(text));
        }
        first + nth - 1
    } else {
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(out_of_range(text));
        }
        let days = days_from_civil(year, month as u32, day as u32);
        if civil_from_days(days) != (year, month as u32, day as u32) {
            return Err(out_of_range(text));
        }
        days
    };
    let mut hour = fields.hour;
    if fields.hour12 {
        if !(1..=12).contains(&hour) {
            return Err(
                invalid(format!("hour \"{hour}\" is invalid for the 12-hour clock"))
                    .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."),
            );
        }
        hour %= 12;
    }
    if fields.pm == Some(true) && hour < 12 {
        hour += 12;
    }
    if !(0..=24).contains(&hour)
        || !(0..60).contains(&fields.minute)
        || !(0..=60).contains(&fields.second)
    {
        return Err(out_of_range(text));
    }
    let seconds = fields
        .seconds_of_day
        .unwrap_or(hour * 3600 + fields.minute * 60 + fields.second);
    Ok((days, seconds * 1_000_000 + fields.micros))
}

//! The proleptic Gregorian calendar, and how dates, times and timestamps are printed.

use arrow::datatypes::TimeUnit;
use std::fmt::Write;

pub(super) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(super) const MICROS_PER_HOUR: i64 = 3_600 * MICROS_PER_SECOND;
pub(super) const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// Days since 1970-01-01 of a date; year 0 is 1 BC.
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month as i64 + 9) % 12) + 2) / 5 + day as i64 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year (0 is 1 BC), month and day of a number of days since 1970-01-01.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

pub(super) fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `2024-01-02`, `0044-03-15 BC`.
pub(super) fn write_date(days: i64, out: &mut String) {
    let before_christ = write_day(days, out);
    if before_christ {
        out.push_str(" BC");
    }
}

fn write_day(days: i64, out: &mut String) -> bool {
    let (year, month, day) = civil_from_days(days);
    let shown = if year <= 0 { 1 - year } else { year };
    write!(out, "{shown:04}-{month:02}-{day:02}").expect("writing to a string");
    year <= 0
}

/// `04:05:06.7`; the fraction without trailing zeros.
pub(super) fn write_time(micros: i64, out: &mut String) {
    let seconds = micros / MICROS_PER_SECOND;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    write!(out, "{hour:02}:{minute:02}:{second:02}").expect("writing to a string");
    write_fraction(micros % MICROS_PER_SECOND, out);
}

pub(super) fn write_fraction(micros: i64, out: &mut String) {
    if micros != 0 {
        write!(out, ".{micros:06}").expect("writing to a string");
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// Days since 1970 and microseconds of that day.
pub(super) fn split(value: i64, unit: TimeUnit) -> (i64, i64) {
    let per_second = per_second(unit);
    let (seconds, rest) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let micros = match unit {
        TimeUnit::Nanosecond => rest / 1_000,
        _ => rest * (MICROS_PER_SECOND / per_second),
    };
    (
        seconds.div_euclid(86_400),
        seconds.rem_euclid(86_400) * MICROS_PER_SECOND + micros,
    )
}

pub(super) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// `2024-01-02 03:04:05.6+00 BC`; the zone only when the type has one.
pub(super) fn write_timestamp(value: i64, unit: TimeUnit, zoned: bool, out: &mut String) {
    match value {
        i64::MAX => return out.push_str("infinity"),
        i64::MIN => return out.push_str("-infinity"),
        _ => {}
    }
    let (days, micros) = split(value, unit);
    let before_christ = write_day(days, out);
    out.push(' ');
    write_time(micros, out);
    if zoned {
        out.push_str("+00");
    }
    if before_christ {
        out.push_str(" BC");
    }
}

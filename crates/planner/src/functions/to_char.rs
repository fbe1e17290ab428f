//! `to_char(timestamp, pattern)` with Postgres' template patterns. DataFusion's own reads strftime patterns.
//!
//! Patterns that are not known are copied as they are, as Postgres does; so is text in double quotes. `FM` drops padding.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::fmt::Write;
use std::sync::Arc;
use tidegate_types::text::{civil_from_days, days_from_civil};

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::user_defined(Volatility::Immutable);
    vec![Arc::new(ScalarUDF::new_from_impl(ToChar { signature }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    signature: Signature,
}

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        "to_char"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [
                DataType::Timestamp(..) | DataType::Date32 | DataType::Date64,
                pattern,
            ] if pattern.is_string() || pattern.is_null() => Ok(vec![MICROS, DataType::Utf8]),
            [number, pattern]
                if number.is_numeric() && (pattern.is_string() || pattern.is_null()) =>
            {
                Ok(vec![number.clone(), DataType::Utf8])
            }
            [interval @ DataType::Interval(_), pattern]
                if pattern.is_string() || pattern.is_null() =>
            {
                Ok(vec![interval.clone(), DataType::Utf8])
            }
            [DataType::Null, _] => Ok(vec![MICROS, DataType::Utf8]),
            [value, _] => Err(crate::errors::external(
                tidegate_types::SqlError::not_supported(format!(
                    "to_char of {}",
                    tidegate_types::SqlType::from_arrow(value)
                )),
            )),
            _ => Err(DataFusionError::Plan(
                "function 'to_char' expects two arguments".to_owned(),
            )),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalars { 1 } else { args.number_rows };
        if args.arg_fields[0].data_type().is_numeric()
            || matches!(args.arg_fields[0].data_type(), DataType::Interval(_))
        {
            let result = others(&args, rows)?;
            return Ok(match scalars {
                true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
                false => ColumnarValue::Array(result),
            });
        }
        // Zoned timestamps are UTC here, so that dropping the zone keeps the wall clock.
        let times = cast(&args.args[0].clone().into_array(rows)?, &MICROS)?;
        let result = match &args.args[1] {
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(pattern))) => {
                constant(&times, &compile(pattern))
            }
            pattern => varying(&times, &pattern.clone().into_array(rows)?),
        };
        match scalars {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &result, 0,
            )?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

/// Numbers and intervals.
fn others(args: &ScalarFunctionArgs, rows: usize) -> Result<ArrayRef> {
    let values = args.args[0].clone().into_array(rows)?;
    let patterns = cast(&args.args[1].clone().into_array(rows)?, &DataType::Utf8)?;
    let patterns = patterns.as_string::<i32>();
    let numbers = match values.data_type() {
        DataType::Interval(_) => None,
        DataType::Float32 | DataType::Float64 => Some(floats(&values)?),
        _ => {
            let sql_type = tidegate_types::SqlType::from_field(&args.arg_fields[0]);
            Some(tidegate_types::text::to_text(values.as_ref(), &sql_type))
        }
    };
    let mut builder = StringBuilder::new();
    for row in 0..rows {
        if values.is_null(row) || patterns.is_null(row) {
            builder.append_null();
            continue;
        }
        match &numbers {
            Some(numbers) => builder.append_value(
                super::to_char_number::to_char(numbers.value(row), patterns.value(row))
                    .map_err(crate::errors::external)?,
            ),
            None => {
                let interval = values
                    .as_primitive::<datafusion::arrow::datatypes::IntervalMonthDayNanoType>()
                    .value(row);
                let mut text = String::new();
                write(
                    &compile(patterns.value(row)),
                    &Parts::of_interval(interval),
                    &mut text,
                );
                builder.append_value(text);
            }
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// Without exponents, with as many digits as a float tells apart.
fn floats(values: &ArrayRef) -> Result<datafusion::arrow::array::StringArray> {
    let doubles = cast(values, &DataType::Float64)?;
    let digits = if values.data_type() == &DataType::Float32 {
        6
    } else {
        15
    };
    let text = |value: f64| {
        if value == 0.0 || !value.is_finite() {
            return "0".to_owned();
        }
        let places = digits - 1 - value.abs().log10().floor() as i64;
        format!(
            "{value:.*}",
            usize::try_from(places.clamp(0, 300)).unwrap_or(0)
        )
    };
    let doubles = doubles.as_primitive::<datafusion::arrow::datatypes::Float64Type>();
    Ok(doubles.iter().map(|v| v.map(text)).collect())
}

fn constant(times: &ArrayRef, pattern: &[Item]) -> ArrayRef {
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut builder = StringBuilder::with_capacity(times.len(), times.len() * 16);
    let mut text = String::new();
    for time in times {
        match time {
            Some(time) => {
                text.clear();
                write(pattern, &Parts::of(time), &mut text);
                builder.append_value(&text);
            }
            None => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}

fn varying(times: &ArrayRef, patterns: &ArrayRef) -> ArrayRef {
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let patterns = patterns.as_string::<i32>();
    let mut builder = StringBuilder::new();
    for row in 0..times.len() {
        if times.is_null(row) || patterns.is_null(row) {
            builder.append_null();
            continue;
        }
        let mut text = String::new();
        write(
            &compile(patterns.value(row)),
            &Parts::of(times.value(row)),
            &mut text,
        );
        builder.append_value(text);
    }
    Arc::new(builder.finish())
}

/// A moment taken apart.
struct Parts {
    days: i64,
    year: i64,
    month: u32,
    day: u32,
    second_of_day: i64,
    micros: i64,
}

impl Parts {
    fn of(time: i64) -> Self {
        const DAY: i64 = 86_400_000_000;
        let (days, rest) = (time.div_euclid(DAY), time.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        Self {
            days,
            year,
            month,
            day,
            second_of_day: rest / 1_000_000,
            micros: rest % 1_000_000,
        }
    }

    /// An interval has parts of its own: hours that need not fit a day.
    fn of_interval(interval: datafusion::arrow::datatypes::IntervalMonthDayNano) -> Self {
        let micros = interval.nanoseconds / 1000;
        Self {
            days: i64::from(interval.days),
            year: i64::from(interval.months / 12),
            month: (interval.months % 12).unsigned_abs(),
            day: interval.days.unsigned_abs(),
            second_of_day: micros / 1_000_000,
            micros: (micros % 1_000_000).abs(),
        }
    }

    fn hour(&self) -> i64 {
        self.second_of_day / 3600
    }

    fn hour12(&self) -> i64 {
        match self.hour() % 12 {
            0 => 12,
            hour => hour,
        }
    }

    /// Monday is 1, Sunday is 7.
    fn iso_weekday(&self) -> i64 {
        (self.days + 3).rem_euclid(7) + 1
    }

    fn day_of_year(&self) -> i64 {
        self.days - days_from_civil(self.year, 1, 1) + 1
    }

    /// ISO 8601 year and week.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = self.days - self.iso_weekday() + 4;
        let (year, ..) = civil_from_days(thursday);
        (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Item {
    Text(String),
    Field { field: Field, fill: bool },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Case {
    Upper,
    Title,
    Lower,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    Year(usize),
    IsoYear,
    Month,
    MonthName(Case),
    MonthShort(Case),
    DayOfMonth,
    DayOfYear,
    DayName(Case),
    DayShort(Case),
    /// Sunday is 1.
    Weekday,
    IsoWeekday,
    WeekOfYear,
    IsoWeek,
    WeekOfMonth,
    Quarter,
    Julian,
    Century,
    Hour24,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    Millis,
    Micros,
    /// Upper case, dots.
    Meridiem(bool, bool),
    Era(bool, bool),
    Zone(bool),
    ZoneOffset,
}

/// Longest first where one begins another.
const FIELDS: &[(&str, Field)] = &[
    ("YYYY", Field::Year(4)),
    ("yyyy", Field::Year(4)),
    ("YYY", Field::Year(3)),
    ("yyy", Field::Year(3)),
    ("YY", Field::Year(2)),
    ("yy", Field::Year(2)),
    ("Y", Field::Year(1)),
    ("y", Field::Year(1)),
    ("IYYY", Field::IsoYear),
    ("iyyy", Field::IsoYear),
    ("MONTH", Field::MonthName(Case::Upper)),
    ("Month", Field::MonthName(Case::Title)),
    ("month", Field::MonthName(Case::Lower)),
    ("MON", Field::MonthShort(Case::Upper)),
    ("Mon", Field::MonthShort(Case::Title)),
    ("mon", Field::MonthShort(Case::Lower)),
    ("MM", Field::Month),
    ("mm", Field::Month),
    ("MI", Field::Minute),
    ("mi", Field::Minute),
    ("MS", Field::Millis),
    ("ms", Field::Millis),
    ("US", Field::Micros),
    ("us", Field::Micros),
    ("DDD", Field::DayOfYear),
    ("ddd", Field::DayOfYear),
    ("DD", Field::DayOfMonth),
    ("dd", Field::DayOfMonth),
    ("DAY", Field::DayName(Case::Upper)),
    ("Day", Field::DayName(Case::Title)),
    ("day", Field::DayName(Case::Lower)),
    ("DY", Field::DayShort(Case::Upper)),
    ("Dy", Field::DayShort(Case::Title)),
    ("dy", Field::DayShort(Case::Lower)),
    ("D", Field::Weekday),
    ("d", Field::Weekday),
    ("ID", Field::IsoWeekday),
    ("id", Field::IsoWeekday),
    ("IW", Field::IsoWeek),
    ("iw", Field::IsoWeek),
    ("WW", Field::WeekOfYear),
    ("ww", Field::WeekOfYear),
    ("W", Field::WeekOfMonth),
    ("w", Field::WeekOfMonth),
    ("Q", Field::Quarter),
    ("q", Field::Quarter),
    ("J", Field::Julian),
    ("j", Field::Julian),
    ("CC", Field::Century),
    ("cc", Field::Century),
    ("HH24", Field::Hour24),
    ("hh24", Field::Hour24),
    ("HH12", Field::Hour12),
    ("hh12", Field::Hour12),
    ("HH", Field::Hour12),
    ("hh", Field::Hour12),
    ("SSSSS", Field::SecondOfDay),
    ("SSSS", Field::SecondOfDay),
    ("ssss", Field::SecondOfDay),
    ("SS", Field::Second),
    ("ss", Field::Second),
    ("A.M.", Field::Meridiem(true, true)),
    ("P.M.", Field::Meridiem(true, true)),
    ("a.m.", Field::Meridiem(false, true)),
    ("p.m.", Field::Meridiem(false, true)),
    ("AM", Field::Meridiem(true, false)),
    ("PM", Field::Meridiem(true, false)),
    ("am", Field::Meridiem(false, false)),
    ("pm", Field::Meridiem(false, false)),
    ("B.C.", Field::Era(true, true)),
    ("A.D.", Field::Era(true, true)),
    ("BC", Field::Era(true, false)),
    ("AD", Field::Era(true, false)),
    ("bc", Field::Era(false, false)),
    ("ad", Field::Era(false, false)),
    ("TZ", Field::Zone(true)),
    ("tz", Field::Zone(false)),
    ("OF", Field::ZoneOffset),
];

fn compile(pattern: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut rest = pattern;
    let mut fill = true;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            fill = false;
            rest = after;
        } else if let Some(after) = rest.strip_prefix('"') {
            let (quoted, after) = after.split_once('"').unwrap_or((after, ""));
            text(&mut items, quoted);
            rest = after;
        } else if let Some((name, field)) = FIELDS.iter().find(|(name, _)| rest.starts_with(name)) {
            items.push(Item::Field {
                field: *field,
                fill,
            });
            fill = true;
            rest = &rest[name.len()..];
        } else {
            let length = rest.chars().next().map_or(0, char::len_utf8);
            text(&mut items, &rest[..length]);
            rest = &rest[length..];
        }
    }
    items
}

fn text(items: &mut Vec<Item>, more: &str) {
    match items.last_mut() {
        Some(Item::Text(text)) => text.push_str(more),
        _ => items.push(Item::Text(more.to_owned())),
    }
}

fn write(items: &[Item], parts: &Parts, out: &mut String) {
    for item in items {
        match item {
            Item::Text(text) => out.push_str(text),
            Item::Field { field, fill } => write_field(*field, *fill, parts, out),
        }
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

fn write_field(field: Field, fill: bool, parts: &Parts, out: &mut String) {
    // Years before 1 are counted from 1 BC.
    let year = if parts.year <= 0 {
        1 - parts.year
    } else {
        parts.year
    };
    let month = MONTHS[(parts.month as usize).max(1) - 1];
    let day = DAYS[parts.iso_weekday() as usize - 1];
    let (value, width) = match field {
        Field::MonthName(case) => return name(month, case, if fill { 9 } else { 0 }, out),
        Field::MonthShort(case) => return name(&month[..3], case, 0, out),
        Field::DayName(case) => return name(day, case, if fill { 9 } else { 0 }, out),
        Field::DayShort(case) => return name(&day[..3], case, 0, out),
        Field::Meridiem(upper, dots) => {
            let text = if parts.hour() < 12 { "a.m." } else { "p.m." };
            return marker(text, upper, dots, out);
        }
        Field::Era(upper, dots) => {
            return marker(
                if parts.year <= 0 { "b.c." } else { "a.d." },
                upper,
                dots,
                out,
            );
        }
        Field::Zone(upper) => return out.push_str(if upper { "UTC" } else { "utc" }),
        Field::ZoneOffset => return out.push_str("+00"),
        Field::Year(4) => (year, 4),
        Field::Year(digits) => (year % 10i64.pow(digits as u32), digits),
        Field::IsoYear => (parts.iso_week().0, 4),
        Field::Month => (i64::from(parts.month), 2),
        Field::DayOfMonth => (i64::from(parts.day), 2),
        Field::DayOfYear => (parts.day_of_year(), 3),
        Field::Weekday => (parts.iso_weekday() % 7 + 1, 1),
        Field::IsoWeekday => (parts.iso_weekday(), 1),
        Field::WeekOfYear => ((parts.day_of_year() - 1) / 7 + 1, 2),
        Field::IsoWeek => (parts.iso_week().1, 2),
        Field::WeekOfMonth => ((i64::from(parts.day) - 1) / 7 + 1, 1),
        Field::Quarter => ((i64::from(parts.month) - 1) / 3 + 1, 1),
        Field::Julian => (parts.days + 2_440_588, 1),
        Field::Century => ((year + 99) / 100, 2),
        Field::Hour24 => (parts.hour(), 2),
        Field::Hour12 => (parts.hour12(), 2),
        Field::Minute => (parts.second_of_day / 60 % 60, 2),
        Field::Second => (parts.second_of_day % 60, 2),
        Field::SecondOfDay => (parts.second_of_day, 1),
        Field::Millis => (parts.micros / 1000, 3),
        Field::Micros => (parts.micros, 6),
    };
    let width = if fill { width } else { 0 };
    let _ = write!(out, "{value:0width$}");
}

fn name(name: &str, case: Case, width: usize, out: &mut String) {
    let text = match case {
        Case::Upper => name.to_uppercase(),
        Case::Title => name.to_owned(),
        Case::Lower => name.to_lowercase(),
    };
    let _ = write!(out, "{text:width$}");
}

fn marker(dotted: &str, upper: bool, dots: bool, out: &mut String) {
    for c in dotted.chars().filter(|c| dots || *c != '.') {
        out.extend(if upper {
            c.to_uppercase().collect::<Vec<_>>()
        } else {
            vec![c]
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(time: i64, pattern: &str) -> String {
        let mut out = String::new();
        write(&compile(pattern), &Parts::of(time), &mut out);
        out
    }

    // 2024-02-05 15:04:09.012345, and what Postgres 15 says to_char of it is.
    const TIME: i64 = 1_707_145_449_012_345;

    #[test]
    fn patterns_mean_what_they_mean_in_postgres() {
        assert_eq!(
            formatted(TIME, "YYYY-MM-DD HH24:MI:SS.US"),
            "2024-02-05 15:04:09.012345"
        );
        assert_eq!(
            formatted(TIME, "HH12:MI am, FMDD.FMMM.YY"),
            "03:04 pm, 5.2.24"
        );
        assert_eq!(
            formatted(TIME, "Day|FMDay|DY|Mon|FMMONTH"),
            "Monday   |Monday|MON|Feb|FEBRUARY"
        );
        assert_eq!(
            formatted(TIME, "DDD IYYY-IW-ID Q J \"week\" WW"),
            "036 2024-06-1 1 2460346 week 06"
        );
        assert_eq!(
            formatted(TIME, "HH:MI:SS.MS P.M. SSSS CC"),
            "03:04:09.012 P.M. 54249 21"
        );
        assert_eq!(formatted(0, "yyyy-mm-dd"), "1970-01-01");
    }
}

//! `t AT TIME ZONE zone`, which is `timezone(zone, t)`: of a `timestamptz` the wall clock in the zone, of a `timestamp` the
//! moment at which clocks in the zone show it.

use super::rowwise::{Row, Rowwise, is_text};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::{Array, AsArray, TimestampMicrosecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;
use tidegate_types::text::Value;
use tidegate_types::{SqlError, SqlState, SqlType};

const HOUR: i64 = 3_600_000_000;

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let timezone = Rowwise {
        name: "timezone",
        strict: true,
        coerce: |arguments| match arguments {
            [zone, time] if is_text(zone) => {
                let zoned = matches!(time, DataType::Timestamp(_, Some(_)));
                let zone_of = zoned.then(|| "UTC".into());
                let takes = zoned
                    || matches!(time, DataType::Timestamp(_, None) | DataType::Date32)
                    || time.is_null();
                let time = DataType::Timestamp(TimeUnit::Microsecond, zone_of);
                takes.then(|| vec![DataType::Utf8, time])
            }
            _ => None,
        },
        returns: |types| match types.get(1) {
            Some(SqlType::TimestampTz) => SqlType::Timestamp,
            _ => SqlType::TimestampTz,
        },
        body: |row: &Row<'_>| {
            let time = row.primitive::<TimestampMicrosecondType>(1);
            let shifted = match row.sql_type(1) {
                SqlType::TimestampTz => wall_clock(time, row.str(0))?,
                _ => moment(time, row.str(0))?,
            };
            Ok(Value::Timestamp(shifted))
        },
    };
    vec![timezone.udf()]
}

fn zone_of(name: &str) -> Result<Tz, SqlError> {
    // IANA's names are told apart by case, Postgres' are not; those of three letters are written in capitals.
    let known = [name.to_owned(), name.to_uppercase()];
    let found = known.iter().find_map(|n| n.parse::<Tz>().ok());
    found.ok_or_else(|| {
        SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("time zone \"{name}\" not recognized"),
        )
    })
}

fn out_of_range() -> SqlError {
    SqlError::new(SqlState::DATETIME_OVERFLOW, "timestamp out of range")
}

/// What clocks in a zone show at a moment.
fn wall_clock(time: i64, zone: &str) -> Result<i64, SqlError> {
    let there = TimestampMicrosecondArray::from(vec![time])
        .value_as_datetime_with_tz(0, zone_of(zone)?)
        .ok_or_else(out_of_range)?;
    Ok(there.naive_local().and_utc().timestamp_micros())
}

/// When clocks in a zone show a time. One that they jump over is as far behind the jump as it seems to be.
fn moment(time: i64, zone: &str) -> Result<i64, SqlError> {
    zone_of(zone)?;
    let name = match zone.parse::<Tz>() {
        Ok(_) => zone.to_owned(),
        Err(_) => zone.to_uppercase(),
    };
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(name.into()));
    let shown = |time: i64| {
        let shown = cast(&TimestampMicrosecondArray::from(vec![time]), &zoned).ok()?;
        let shown = shown.as_primitive::<TimestampMicrosecondType>();
        shown.is_valid(0).then(|| shown.value(0))
    };
    shown(time)
        .or_else(|| shown(time.checked_sub(HOUR)?)?.checked_add(HOUR))
        .ok_or_else(out_of_range)
}

//! `age(a, b)`: years, months and days between two moments, as people count them. `age(a)` counts to midnight of today.

use super::rowwise::{Row, Rowwise};
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;
use tidegate_types::text::{IntervalValue, Value, civil_from_days, days_from_civil};
use tidegate_types::{SqlError, SqlType};

const DAY: i64 = 86_400_000_000;

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let age = Rowwise {
        name: "age",
        strict: true,
        coerce: |arguments| {
            let time = DataType::Timestamp(TimeUnit::Microsecond, None);
            let fits = |t: &DataType| {
                matches!(t, DataType::Timestamp(..) | DataType::Date32) || t.is_null()
            };
            (arguments.len() == 2 && arguments.iter().all(fits)).then(|| vec![time.clone(), time])
        },
        returns: |_| SqlType::Interval,
        body: |row: &Row<'_>| -> Result<Value, SqlError> {
            let later = row.primitive::<TimestampMicrosecondType>(0);
            let earlier = row.primitive::<TimestampMicrosecondType>(1);
            Ok(Value::Interval(between(later, earlier)))
        },
    };
    vec![age.udf()]
}

/// Of the later moment's day of the month as many are borrowed as the earlier one's month has, as Postgres does.
fn between(a: i64, b: i64) -> IntervalValue {
    let negative = a < b;
    let (later, earlier) = if negative { (b, a) } else { (a, b) };
    let (y1, m1, d1) = civil_from_days(later.div_euclid(DAY));
    let (y2, m2, d2) = civil_from_days(earlier.div_euclid(DAY));
    let mut time = later.rem_euclid(DAY) - earlier.rem_euclid(DAY);
    let mut days = i64::from(d1) - i64::from(d2);
    let mut months = (y1 - y2) * 12 + i64::from(m1) - i64::from(m2);
    if time < 0 {
        time += DAY;
        days -= 1;
    }
    while days < 0 {
        // The month that the days are borrowed from: of the earlier moment, or before the later one when time runs back.
        let (year, month) = if negative { (y1, m1) } else { (y2, m2) };
        days += days_in(year, month);
        months -= 1;
    }
    let sign = if negative { -1 } else { 1 };
    IntervalValue {
        months: (sign * months) as i32,
        days: (sign * days) as i32,
        nanos: sign * time * 1000,
    }
}

fn days_in(year: i64, month: u32) -> i64 {
    let (next_year, next) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    days_from_civil(next_year, next, 1) - days_from_civil(year, month, 1)
}

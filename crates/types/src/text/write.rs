//! From Arrow arrays of any type to text. What to do is decided once per column, not per value.

use super::bytes::{write_bytea, write_uuid};
use super::datetime::{per_second, split, write_date, write_time, write_timestamp};
use super::interval::write_interval;
use super::nested::{write_array_element, write_record_field};
use super::number::{is_plain_numeric, write_double, write_numeric, write_real};
use crate::SqlType;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::fmt::{Display, Write};

/// Writes a value of row `usize`; never called for NULL.
type Cell<'a> = Box<dyn Fn(usize, &mut String) + Send + Sync + 'a>;

/// Where the elements of a row's list begin and end.
type Elements<'a> = Box<dyn Fn(usize) -> (usize, usize) + Send + Sync + 'a>;

/// Writes the values of one column as Postgres prints them.
pub struct TextWriter<'a> {
    nulls: Option<NullBuffer>,
    cell: Cell<'a>,
}

impl<'a> TextWriter<'a> {
    /// `sql_type` says what the Arrow type alone does not: `uuid`, padding of `char(n)`, a `numeric` without scale.
    pub fn new(array: &'a dyn Array, sql_type: &SqlType) -> Self {
        Self {
            nulls: array.logical_nulls(),
            cell: cell(array, sql_type),
        }
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.is_null(row))
    }

    /// Appends the value of a row; nothing for NULL, which has no text of its own.
    pub fn write(&self, row: usize, out: &mut String) {
        if !self.is_null(row) {
            (self.cell)(row, out);
        }
    }
}

/// Appends one value; nothing for NULL. For more than one value of a column make a [`TextWriter`].
pub fn write_text(array: &dyn Array, sql_type: &SqlType, row: usize, out: &mut String) {
    TextWriter::new(array, sql_type).write(row, out);
}

fn cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    match array.data_type() {
        DataType::Null => Box::new(|_, _| {}),
        DataType::Boolean => {
            let values = array.as_boolean();
            Box::new(move |row, out| out.push(if values.value(row) { 't' } else { 'f' }))
        }
        DataType::Int8 => displayed::<Int8Type>(array),
        DataType::Int16 => displayed::<Int16Type>(array),
        DataType::Int32 => displayed::<Int32Type>(array),
        DataType::Int64 => displayed::<Int64Type>(array),
        DataType::UInt8 => displayed::<UInt8Type>(array),
        DataType::UInt16 => displayed::<UInt16Type>(array),
        DataType::UInt32 => displayed::<UInt32Type>(array),
        DataType::UInt64 => displayed::<UInt64Type>(array),
        DataType::Float16 => each::<Float16Type>(array, |v, out| write_real(v.to_f32(), out)),
        DataType::Float32 => each::<Float32Type>(array, write_real),
        DataType::Float64 => each::<Float64Type>(array, write_double),
        DataType::Decimal32(_, scale) => decimal::<Decimal32Type>(array, *scale, sql_type),
        DataType::Decimal64(_, scale) => decimal::<Decimal64Type>(array, *scale, sql_type),
        DataType::Decimal128(_, scale) => decimal::<Decimal128Type>(array, *scale, sql_type),
        DataType::Decimal256(_, scale) => decimal::<Decimal256Type>(array, *scale, sql_type),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => string_cell(array, sql_type),
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => binary_cell(array, sql_type),
        DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(..) => moment_cell(array),
        DataType::Interval(_) | DataType::Duration(_) => span_cell(array),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            list_cell(array, sql_type)
        }
        DataType::Struct(_) => struct_cell(array, sql_type),
        DataType::Dictionary(..) => dictionary_cell(array, sql_type),
        _ => other_cell(array),
    }
}

fn each<'a, T: ArrowPrimitiveType>(
    array: &'a dyn Array,
    write: impl Fn(T::Native, &mut String) + Send + Sync + 'a,
) -> Cell<'a> {
    let values: &PrimitiveArray<T> = array.as_primitive();
    Box::new(move |row, out| write(values.value(row), out))
}

fn displayed<T: ArrowPrimitiveType<Native: Display>>(array: &dyn Array) -> Cell<'_> {
    each::<T>(array, |v, out| {
        write!(out, "{v}").expect("writing to a string")
    })
}

fn decimal<'a, T: ArrowPrimitiveType<Native: Display>>(
    array: &'a dyn Array,
    scale: i8,
    sql_type: &SqlType,
) -> Cell<'a> {
    let plain = is_plain_numeric(sql_type);
    each::<T>(array, move |v, out| {
        write_numeric(&v.to_string(), scale, plain, out)
    })
}

fn string_cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    let padded = match sql_type {
        SqlType::Char { length } => Some(*length as usize),
        _ => None,
    };
    let write = move |text: &str, out: &mut String| {
        out.push_str(text);
        if let Some(length) = padded {
            let missing = length.saturating_sub(text.chars().count());
            out.extend(std::iter::repeat_n(' ', missing));
        }
    };
    match array.data_type() {
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            Box::new(move |row, out| write(values.value(row), out))
        }
        DataType::LargeUtf8 => {
            let values = array.as_string::<i64>();
            Box::new(move |row, out| write(values.value(row), out))
        }
        _ => {
            let values = array.as_string_view();
            Box::new(move |row, out| write(values.value(row), out))
        }
    }
}

fn binary_cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    match array.data_type() {
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            Box::new(move |row, out| write_bytea(values.value(row), out))
        }
        DataType::LargeBinary => {
            let values = array.as_binary::<i64>();
            Box::new(move |row, out| write_bytea(values.value(row), out))
        }
        DataType::FixedSizeBinary(width) => {
            let values = array.as_fixed_size_binary();
            if *width == 16 && matches!(sql_type, SqlType::Uuid) {
                Box::new(move |row, out| write_uuid(values.value(row), out))
            } else {
                Box::new(move |row, out| write_bytea(values.value(row), out))
            }
        }
        _ => {
            let values = array.as_binary_view();
            Box::new(move |row, out| write_bytea(values.value(row), out))
        }
    }
}

/// Dates, times of day and timestamps.
fn moment_cell(array: &dyn Array) -> Cell<'_> {
    fn timestamp<'a, T: ArrowPrimitiveType<Native = i64>>(
        array: &'a dyn Array,
        unit: TimeUnit,
        zoned: bool,
    ) -> Cell<'a> {
        each::<T>(array, move |v, out| write_timestamp(v, unit, zoned, out))
    }
    match array.data_type() {
        DataType::Date32 => each::<Date32Type>(array, |days, out| match days {
            i32::MAX => out.push_str("infinity"),
            i32::MIN => out.push_str("-infinity"),
            days => write_date(days as i64, out),
        }),
        DataType::Date64 => each::<Date64Type>(array, |v, out| {
            write_date(split(v, TimeUnit::Millisecond).0, out)
        }),
        DataType::Time32(TimeUnit::Second) => {
            each::<Time32SecondType>(array, |v, out| write_time(v as i64 * 1_000_000, out))
        }
        DataType::Time32(_) => {
            each::<Time32MillisecondType>(array, |v, out| write_time(v as i64 * 1_000, out))
        }
        DataType::Time64(TimeUnit::Microsecond) => each::<Time64MicrosecondType>(array, write_time),
        DataType::Time64(_) => {
            each::<Time64NanosecondType>(array, |v, out| write_time(v / 1_000, out))
        }
        DataType::Timestamp(unit @ TimeUnit::Second, zone) => {
            timestamp::<TimestampSecondType>(array, *unit, zone.is_some())
        }
        DataType::Timestamp(unit @ TimeUnit::Millisecond, zone) => {
            timestamp::<TimestampMillisecondType>(array, *unit, zone.is_some())
        }
        DataType::Timestamp(unit @ TimeUnit::Microsecond, zone) => {
            timestamp::<TimestampMicrosecondType>(array, *unit, zone.is_some())
        }
        DataType::Timestamp(unit @ TimeUnit::Nanosecond, zone) => {
            timestamp::<TimestampNanosecondType>(array, *unit, zone.is_some())
        }
        other => unreachable!("{other} is no date, time or timestamp"),
    }
}

/// Intervals and durations.
fn span_cell(array: &dyn Array) -> Cell<'_> {
    fn duration<'a, T: ArrowPrimitiveType<Native = i64>>(
        array: &'a dyn Array,
        unit: TimeUnit,
    ) -> Cell<'a> {
        let per_second = per_second(unit) as i128;
        each::<T>(array, move |v, out| {
            write_interval(0, 0, v as i128 * 1_000_000 / per_second, out)
        })
    }
    match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            each::<IntervalYearMonthType>(array, |months, out| {
                write_interval(months as i64, 0, 0, out)
            })
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            each::<IntervalDayTimeType>(array, |v, out| {
                write_interval(0, v.days as i64, v.milliseconds as i128 * 1_000, out);
            })
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            each::<IntervalMonthDayNanoType>(array, |v, out| {
                write_interval(
                    v.months as i64,
                    v.days as i64,
                    v.nanoseconds as i128 / 1_000,
                    out,
                );
            })
        }
        DataType::Duration(unit @ TimeUnit::Second) => duration::<DurationSecondType>(array, *unit),
        DataType::Duration(unit @ TimeUnit::Millisecond) => {
            duration::<DurationMillisecondType>(array, *unit)
        }
        DataType::Duration(unit @ TimeUnit::Microsecond) => {
            duration::<DurationMicrosecondType>(array, *unit)
        }
        DataType::Duration(unit @ TimeUnit::Nanosecond) => {
            duration::<DurationNanosecondType>(array, *unit)
        }
        other => unreachable!("{other} is no span of time"),
    }
}

fn list_cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    let element = match sql_type {
        SqlType::Array(element) => (**element).clone(),
        _ => match SqlType::from_arrow(array.data_type()) {
            SqlType::Array(element) => *element,
            other => other,
        },
    };
    let nested = matches!(element, SqlType::Array(_));
    let (values, range): (&'a ArrayRef, Elements<'a>) = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            (
                list.values(),
                Box::new(move |row| (offsets[row] as usize, offsets[row + 1] as usize)),
            )
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.value_offsets();
            (
                list.values(),
                Box::new(move |row| (offsets[row] as usize, offsets[row + 1] as usize)),
            )
        }
        _ => {
            let list = array.as_fixed_size_list();
            let length = list.value_length() as usize;
            (
                list.values(),
                Box::new(move |row| (row * length, (row + 1) * length)),
            )
        }
    };
    let writer = TextWriter::new(values.as_ref(), &element);
    Box::new(move |row, out| {
        let (start, end) = range(row);
        let mut text = String::new();
        out.push('{');
        for index in start..end {
            if index > start {
                out.push(',');
            }
            if writer.is_null(index) {
                out.push_str("NULL");
            } else if nested {
                writer.write(index, out);
            } else {
                text.clear();
                writer.write(index, &mut text);
                write_array_element(&text, out);
            }
        }
        out.push('}');
    })
}

fn struct_cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    let record = array.as_struct();
    let writers: Vec<TextWriter<'a>> = record
        .columns()
        .iter()
        .zip(record.fields())
        .enumerate()
        .map(|(index, (column, field))| match sql_type {
            SqlType::Record(fields) if index < fields.len() => {
                TextWriter::new(column.as_ref(), &fields[index].1)
            }
            _ => TextWriter::new(column.as_ref(), &SqlType::from_field(field)),
        })
        .collect();
    Box::new(move |row, out| {
        let mut text = String::new();
        out.push('(');
        for (index, writer) in writers.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            if !writer.is_null(row) {
                text.clear();
                writer.write(row, &mut text);
                write_record_field(&text, out);
            }
        }
        out.push(')');
    })
}

fn dictionary_cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    let dictionary = array.as_any_dictionary();
    if dictionary.values().is_empty() {
        return Box::new(|_, _| {});
    }
    let keys = dictionary.normalized_keys();
    let writer = TextWriter::new(dictionary.values().as_ref(), sql_type);
    Box::new(move |row, out| writer.write(keys[row], out))
}

/// Maps, unions and whatever else an expression may produce: as Arrow displays them.
fn other_cell(array: &dyn Array) -> Cell<'_> {
    let options = FormatOptions::new().with_null("NULL");
    match ArrayFormatter::try_new(array, &options) {
        // The formatter is not `Sync`, and such columns are rare: one is made per value.
        Ok(_) => Box::new(move |row, out| {
            let options = FormatOptions::new().with_null("NULL");
            let formatter =
                ArrayFormatter::try_new(array, &options).expect("made one for this array before");
            write!(out, "{}", formatter.value(row)).expect("writing to a string");
        }),
        Err(_) => {
            let name = array.data_type().to_string();
            Box::new(move |_, out| out.push_str(&name))
        }
    }
}

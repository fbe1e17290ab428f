//! Arrow columns to binary values. As in `tidegate_types::text`, what to do is decided once per column.

use super::{EPOCH_DAYS, EPOCH_MICROS, NUMERIC_BASE};
use crate::pg::types::oid_of;
use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use bytes::{BufMut, BytesMut};
use std::fmt::Display;
use tidegate_types::sql_type::DEFAULT_NUMERIC;
use tidegate_types::text::TextWriter;
use tidegate_types::{SqlError, SqlState, SqlType};

type Cell<'a> = Box<dyn Fn(usize, &mut BytesMut) -> Result<(), SqlError> + Send + Sync + 'a>;

/// Where the elements of a row's list begin and end.
type Elements<'a> = Box<dyn Fn(usize) -> (usize, usize) + Send + Sync + 'a>;

/// Writes the values of one column in the binary format of its SQL type.
pub(in crate::pg) struct BinaryWriter<'a> {
    nulls: Option<NullBuffer>,
    cell: Cell<'a>,
}

impl<'a> BinaryWriter<'a> {
    pub(in crate::pg) fn new(array: &'a dyn Array, sql_type: &SqlType) -> Self {
        Self {
            nulls: array.logical_nulls(),
            cell: cell(array, sql_type),
        }
    }

    pub(in crate::pg) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.is_null(row))
    }

    /// Appends the value of a row that is not NULL, without its length.
    pub(in crate::pg) fn write(&self, row: usize, out: &mut BytesMut) -> Result<(), SqlError> {
        (self.cell)(row, out)
    }

    /// Appends a length and the value; the length -1 for NULL.
    pub(in crate::pg) fn write_sized(
        &self,
        row: usize,
        out: &mut BytesMut,
    ) -> Result<(), SqlError> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        self.write(row, out)?;
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

fn cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean();
            infallible(move |row, out| out.put_u8(values.value(row) as u8))
        }
        DataType::Int8 => each::<Int8Type>(array, |v, out| out.put_i16(v as i16)),
        DataType::Int16 => each::<Int16Type>(array, |v, out| out.put_i16(v)),
        DataType::Int32 => each::<Int32Type>(array, |v, out| out.put_i32(v)),
        DataType::Int64 => each::<Int64Type>(array, |v, out| out.put_i64(v)),
        DataType::UInt8 => each::<UInt8Type>(array, |v, out| out.put_i16(v as i16)),
        DataType::UInt16 => each::<UInt16Type>(array, |v, out| out.put_i32(v as i32)),
        DataType::UInt32 => each::<UInt32Type>(array, |v, out| out.put_i64(v as i64)),
        DataType::UInt64 => {
            each::<UInt64Type>(array, |v, out| put_numeric(&v.to_string(), 0, false, out))
        }
        DataType::Float16 => each::<Float16Type>(array, |v, out| out.put_f32(v.to_f32())),
        DataType::Float32 => each::<Float32Type>(array, |v, out| out.put_f32(v)),
        DataType::Float64 => each::<Float64Type>(array, |v, out| out.put_f64(v)),
        DataType::Decimal32(_, scale) => decimal::<Decimal32Type>(array, *scale, sql_type),
        DataType::Decimal64(_, scale) => decimal::<Decimal64Type>(array, *scale, sql_type),
        DataType::Decimal128(_, scale) => decimal::<Decimal128Type>(array, *scale, sql_type),
        DataType::Decimal256(_, scale) => decimal::<Decimal256Type>(array, *scale, sql_type),
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => bytes_cell(array),
        DataType::Date32 => each::<Date32Type>(array, |v, out| out.put_i32(days(v as i64))),
        DataType::Date64 => {
            each::<Date64Type>(array, |v, out| out.put_i32(days(v.div_euclid(86_400_000))))
        }
        DataType::Time32(TimeUnit::Second) => {
            each::<Time32SecondType>(array, |v, out| out.put_i64(v as i64 * 1_000_000))
        }
        DataType::Time32(_) => {
            each::<Time32MillisecondType>(array, |v, out| out.put_i64(v as i64 * 1_000))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            each::<Time64MicrosecondType>(array, |v, out| out.put_i64(v))
        }
        DataType::Time64(_) => each::<Time64NanosecondType>(array, |v, out| out.put_i64(v / 1_000)),
        DataType::Timestamp(unit, _) => timestamp_cell(array, *unit),
        DataType::Interval(_) | DataType::Duration(_) => interval_cell(array),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            list_cell(array, sql_type)
        }
        DataType::Struct(_) => struct_cell(array, sql_type),
        DataType::Dictionary(..) => dictionary_cell(array, sql_type),
        // Strings, and everything that is shown as text.
        _ => text_cell(array, sql_type),
    }
}

fn infallible<'a>(write: impl Fn(usize, &mut BytesMut) + Send + Sync + 'a) -> Cell<'a> {
    Box::new(move |row, out| {
        write(row, out);
        Ok(())
    })
}

fn each<'a, T: ArrowPrimitiveType>(
    array: &'a dyn Array,
    write: impl Fn(T::Native, &mut BytesMut) + Send + Sync + 'a,
) -> Cell<'a> {
    let values: &PrimitiveArray<T> = array.as_primitive();
    infallible(move |row, out| write(values.value(row), out))
}

fn days(since_1970: i64) -> i32 {
    match i32::try_from(since_1970) {
        // Infinities are the same numbers in both counts.
        Ok(infinite @ (i32::MAX | i32::MIN)) => infinite,
        Ok(days) => days.saturating_sub(EPOCH_DAYS),
        Err(_) => i32::MAX,
    }
}

fn timestamp_cell(array: &dyn Array, unit: TimeUnit) -> Cell<'_> {
    let put = |micros: i64, out: &mut BytesMut| {
        out.put_i64(match micros {
            i64::MAX | i64::MIN => micros,
            micros => micros.saturating_sub(EPOCH_MICROS),
        });
    };
    match unit {
        TimeUnit::Second => {
            each::<TimestampSecondType>(array, move |v, out| put(v.saturating_mul(1_000_000), out))
        }
        TimeUnit::Millisecond => {
            each::<TimestampMillisecondType>(array, move |v, out| put(v.saturating_mul(1_000), out))
        }
        TimeUnit::Microsecond => each::<TimestampMicrosecondType>(array, put),
        TimeUnit::Nanosecond => {
            each::<TimestampNanosecondType>(array, move |v, out| put(v.div_euclid(1_000), out))
        }
    }
}

fn interval_cell(array: &dyn Array) -> Cell<'_> {
    fn put(micros: i64, days: i32, months: i32, out: &mut BytesMut) {
        out.put_i64(micros);
        out.put_i32(days);
        out.put_i32(months);
    }
    match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            each::<IntervalYearMonthType>(array, |v, out| put(0, 0, v, out))
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            each::<IntervalDayTimeType>(array, |v, out| {
                put(v.milliseconds as i64 * 1_000, v.days, 0, out)
            })
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            each::<IntervalMonthDayNanoType>(array, |v, out| {
                put(v.nanoseconds / 1_000, v.days, v.months, out)
            })
        }
        DataType::Duration(TimeUnit::Second) => {
            each::<DurationSecondType>(array, |v, out| put(v.saturating_mul(1_000_000), 0, 0, out))
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            each::<DurationMillisecondType>(array, |v, out| put(v.saturating_mul(1_000), 0, 0, out))
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            each::<DurationMicrosecondType>(array, |v, out| put(v, 0, 0, out))
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            each::<DurationNanosecondType>(array, |v, out| put(v / 1_000, 0, 0, out))
        }
        other => unreachable!("{other} is no interval"),
    }
}

fn decimal<'a, T: ArrowPrimitiveType<Native: Display>>(
    array: &'a dyn Array,
    scale: i8,
    sql_type: &SqlType,
) -> Cell<'a> {
    let plain = matches!(sql_type, SqlType::Numeric { precision, scale } if (*precision, *scale) == DEFAULT_NUMERIC);
    each::<T>(array, move |v, out| {
        put_numeric(&v.to_string(), scale, plain, out)
    })
}

/// An unscaled value in decimal: number of digits in base 10,000, weight of the first, sign, decimals, digits.
pub(super) fn put_numeric(unscaled: &str, scale: i8, plain: bool, out: &mut BytesMut) {
    let (negative, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, unscaled),
    };
    let mut padded = digits.to_owned();
    let mut decimals = scale.max(0) as usize;
    padded.extend(std::iter::repeat_n('0', (-scale).max(0) as usize));
    if plain {
        // As in its text form: decimals that were not asked for are not shown.
        while decimals > 0 && padded.ends_with('0') {
            padded.pop();
            decimals -= 1;
        }
    }
    let shown_decimals = decimals;
    // Both sides of the point are filled up to whole groups of four.
    let after = decimals.next_multiple_of(4);
    padded.extend(std::iter::repeat_n('0', after - decimals));
    let whole = padded.len().saturating_sub(after);
    let missing = whole.next_multiple_of(4) + after - padded.len();
    let padded = format!("{}{padded}", "0".repeat(missing));
    let groups: Vec<u16> = padded
        .as_bytes()
        .chunks(4)
        .map(|g| g.iter().fold(0, |n, d| n * 10 + (d - b'0') as u16))
        .collect();
    debug_assert!(groups.iter().all(|g| (*g as u32) < NUMERIC_BASE));
    let first = groups.iter().position(|g| *g != 0);
    let last = groups.iter().rposition(|g| *g != 0);
    let (significant, weight) = match (first, last) {
        (Some(first), Some(last)) => {
            let whole_groups = (groups.len() - after / 4) as i64;
            (
                &groups[first..=last],
                (whole_groups - 1 - first as i64) as i16,
            )
        }
        _ => (&groups[..0], 0),
    };
    out.put_u16(significant.len() as u16);
    out.put_i16(weight);
    out.put_u16(if negative && !significant.is_empty() {
        0x4000
    } else {
        0
    });
    out.put_u16(shown_decimals as u16);
    significant.iter().for_each(|g| out.put_u16(*g));
}

fn text_cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    let versioned = matches!(sql_type, SqlType::Jsonb);
    if array.data_type() == &DataType::Utf8 && !matches!(sql_type, SqlType::Char { .. }) {
        let values = array.as_string::<i32>();
        return infallible(move |row, out| {
            if versioned {
                out.put_u8(1);
            }
            out.put_slice(values.value(row).as_bytes());
        });
    }
    let writer = TextWriter::new(array, sql_type);
    infallible(move |row, out| {
        let mut text = String::new();
        writer.write(row, &mut text);
        if versioned {
            out.put_u8(1);
        }
        out.put_slice(text.as_bytes());
    })
}

fn bytes_cell(array: &dyn Array) -> Cell<'_> {
    match array.data_type() {
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            infallible(move |row, out| out.put_slice(values.value(row)))
        }
        DataType::LargeBinary => {
            let values = array.as_binary::<i64>();
            infallible(move |row, out| out.put_slice(values.value(row)))
        }
        DataType::BinaryView => {
            let values = array.as_binary_view();
            infallible(move |row, out| out.put_slice(values.value(row)))
        }
        _ => {
            let values = array.as_fixed_size_binary();
            infallible(move |row, out| out.put_slice(values.value(row)))
        }
    }
}

fn element_type(array: &dyn Array, sql_type: &SqlType) -> SqlType {
    match sql_type {
        SqlType::Array(element) => (**element).clone(),
        _ => match SqlType::from_arrow(array.data_type()) {
            SqlType::Array(element) => *element,
            other => other,
        },
    }
}

/// One-dimensional arrays. Arrays of arrays are Postgres's arrays of more dimensions, whose binary form is not built.
fn list_cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    let element = element_type(array, sql_type);
    if matches!(element, SqlType::Array(_)) {
        return Box::new(|_, _| {
            Err(SqlError::not_supported(
                "an array of more than one dimension in binary format",
            ))
        });
    }
    let oid = oid_of(&element);
    let (values, range): (_, Elements<'a>) = match array.data_type() {
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
    let writer = BinaryWriter::new(values.as_ref(), &element);
    Box::new(move |row, out| {
        let (start, end) = range(row);
        out.put_i32(i32::from(start < end));
        out.put_i32(i32::from((start..end).any(|i| writer.is_null(i))));
        out.put_u32(oid);
        if start == end {
            return Ok(());
        }
        let length = i32::try_from(end - start).map_err(|_| {
            SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "array size exceeds the maximum allowed",
            )
        })?;
        out.put_i32(length);
        out.put_i32(1);
        (start..end).try_for_each(|index| writer.write_sized(index, out))
    })
}

fn struct_cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    let record = array.as_struct();
    let writers: Vec<(u32, BinaryWriter<'a>)> = record
        .columns()
        .iter()
        .zip(record.fields())
        .enumerate()
        .map(|(index, (column, field))| {
            let field_type = match sql_type {
                SqlType::Record(fields) if index < fields.len() => fields[index].1.clone(),
                _ => SqlType::from_field(field),
            };
            (
                oid_of(&field_type),
                BinaryWriter::new(column.as_ref(), &field_type),
            )
        })
        .collect();
    Box::new(move |row, out| {
        out.put_i32(writers.len() as i32);
        writers.iter().try_for_each(|(oid, writer)| {
            out.put_u32(*oid);
            writer.write_sized(row, out)
        })
    })
}

fn dictionary_cell<'a>(array: &'a dyn Array, sql_type: &SqlType) -> Cell<'a> {
    let dictionary = array.as_any_dictionary();
    if dictionary.values().is_empty() {
        return infallible(|_, _| {});
    }
    let keys = dictionary.normalized_keys();
    let writer = BinaryWriter::new(dictionary.values().as_ref(), sql_type);
    Box::new(move |row, out| writer.write(keys[row], out))
}

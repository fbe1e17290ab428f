//! A column under construction that can be cut back to any earlier length, so that a row that fails half-way leaves no
//! trace. That is what Arrow's own builders lack.

use super::timestamp;
use crate::ConnectorError;
use arrow::array::NullBufferBuilder;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, ListArray,
    PrimitiveArray, StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, FieldRef, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use std::sync::Arc;
use tidegate_types::text::{Value, canonical_jsonb, fit_char, fit_varchar, parse_text};
use tidegate_types::{SqlError, SqlState, SqlType};

/// Strings of a batch share offsets of 32 bits. A column refuses to grow beyond, long before they overflow.
const MAX_COLUMN_BYTES: usize = 1 << 30;

/// Values of a column, in the representation that Arrow will get.
pub(crate) enum Values {
    Boolean(Vec<bool>),
    SmallInt(Vec<i16>),
    Integer(Vec<i32>),
    BigInt(Vec<i64>),
    Real(Vec<f32>),
    Double(Vec<f64>),
    Numeric(Vec<i128>, u8, i8),
    Text(Bytes),
    /// Text whose type limits its length.
    Varchar(Bytes),
    Jsonb(Bytes),
    Bytea(Bytes),
    Date(Vec<i32>),
    Time(Vec<i64>),
    /// `true`: with time zone.
    Timestamp(Vec<i64>, bool),
    Interval(Vec<IntervalMonthDayNano>),
    Uuid(Vec<u8>),
    Array(Vec<i32>, Box<Column>),
}

/// Byte strings laid end to end.
pub(crate) struct Bytes {
    pub offsets: Vec<i32>,
    pub values: Vec<u8>,
}

impl Bytes {
    fn new() -> Self {
        Self {
            offsets: vec![0],
            values: Vec::new(),
        }
    }

    #[inline(always)]
    pub fn push(&mut self, bytes: &[u8]) {
        self.values.extend_from_slice(bytes);
        self.end_value();
    }

    /// What was appended to `values` since the last value is one value.
    #[inline(always)]
    pub fn end_value(&mut self) {
        self.offsets.push(self.values.len() as i32);
    }

    fn truncate(&mut self, length: usize) {
        self.offsets.truncate(length + 1);
        self.values.truncate(self.offsets[length] as usize);
    }

    /// Offsets and values; the next batch is expected to be of about the same size.
    fn finish(&mut self) -> (OffsetBuffer<i32>, Vec<u8>) {
        let mut offsets = Vec::with_capacity(self.offsets.len());
        offsets.push(0);
        let offsets = std::mem::replace(&mut self.offsets, offsets);
        let room = self.values.len() + self.values.len() / 16;
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(room));
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), values)
    }
}

pub(crate) struct Column {
    pub field: FieldRef,
    pub sql_type: SqlType,
    pub values: Values,
    nulls: NullBufferBuilder,
}

impl Column {
    /// Refuses types that cannot be decoded.
    pub fn check(field: &Field) -> Result<(), ConnectorError> {
        let sql_type = SqlType::from_field(field);
        let known = match &sql_type {
            SqlType::Array(element) => !matches!(
                **element,
                SqlType::Array(_) | SqlType::Record(_) | SqlType::Other(_)
            ),
            SqlType::Record(_) | SqlType::Other(_) => false,
            _ => true,
        };
        // A field whose Arrow type is another one that means the same in SQL was not made from a column definition.
        if known && sql_type.arrow().equals_datatype(field.data_type()) {
            return Ok(());
        }
        Err(ConnectorError::not_supported(format!(
            "a source column of type {sql_type} (column \"{}\")",
            field.name()
        )))
    }

    /// A column for a field that [`Column::check`] accepted.
    pub fn new(field: &FieldRef) -> Self {
        let sql_type = SqlType::from_field(field);
        let values = match &sql_type {
            SqlType::Boolean => Values::Boolean(Vec::new()),
            SqlType::SmallInt => Values::SmallInt(Vec::new()),
            SqlType::Integer => Values::Integer(Vec::new()),
            SqlType::BigInt => Values::BigInt(Vec::new()),
            SqlType::Real => Values::Real(Vec::new()),
            SqlType::Double => Values::Double(Vec::new()),
            SqlType::Numeric { precision, scale } => {
                Values::Numeric(Vec::new(), *precision, *scale)
            }
            SqlType::Text => Values::Text(Bytes::new()),
            SqlType::Varchar { .. } | SqlType::Char { .. } => Values::Varchar(Bytes::new()),
            SqlType::Jsonb => Values::Jsonb(Bytes::new()),
            SqlType::Bytea => Values::Bytea(Bytes::new()),
            SqlType::Date => Values::Date(Vec::new()),
            SqlType::Time => Values::Time(Vec::new()),
            SqlType::Timestamp => Values::Timestamp(Vec::new(), false),
            SqlType::TimestampTz => Values::Timestamp(Vec::new(), true),
            SqlType::Interval => Values::Interval(Vec::new()),
            SqlType::Uuid => Values::Uuid(Vec::new()),
            SqlType::Array(_) => match field.data_type() {
                DataType::List(element) => Values::Array(vec![0], Box::new(Column::new(element))),
                other => unreachable!("an array is kept as a list, not {other}"),
            },
            SqlType::Record(_) | SqlType::Other(_) => {
                unreachable!("column types are checked when the source is created")
            }
        };
        Self {
            field: field.clone(),
            sql_type,
            values,
            nulls: NullBufferBuilder::new(0),
        }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.nulls.len()
    }

    pub fn truncate(&mut self, length: usize) {
        self.nulls.truncate(length);
        match &mut self.values {
            Values::Boolean(v) => v.truncate(length),
            Values::SmallInt(v) => v.truncate(length),
            Values::Integer(v) | Values::Date(v) => v.truncate(length),
            Values::BigInt(v) | Values::Time(v) | Values::Timestamp(v, _) => v.truncate(length),
            Values::Real(v) => v.truncate(length),
            Values::Double(v) => v.truncate(length),
            Values::Numeric(v, ..) => v.truncate(length),
            Values::Text(b) | Values::Varchar(b) | Values::Jsonb(b) | Values::Bytea(b) => {
                b.truncate(length);
            }
            Values::Interval(v) => v.truncate(length),
            Values::Uuid(v) => v.truncate(length * 16),
            Values::Array(ends, child) => {
                ends.truncate(length + 1);
                child.truncate(ends[length] as usize);
            }
        }
    }

    /// Marks what was just appended to the values as a value that is not NULL.
    #[inline(always)]
    pub fn end_value(&mut self) {
        self.nulls.append_non_null();
    }

    pub fn push_null(&mut self) -> Result<(), SqlError> {
        if !self.field.is_nullable() {
            return Err(SqlError::new(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" violates not-null constraint",
                    self.field.name()
                ),
            ));
        }
        match &mut self.values {
            Values::Boolean(v) => v.push(false),
            Values::SmallInt(v) => v.push(0),
            Values::Integer(v) | Values::Date(v) => v.push(0),
            Values::BigInt(v) | Values::Time(v) | Values::Timestamp(v, _) => v.push(0),
            Values::Real(v) => v.push(0.0),
            Values::Double(v) => v.push(0.0),
            Values::Numeric(v, ..) => v.push(0),
            Values::Text(b) | Values::Varchar(b) | Values::Jsonb(b) | Values::Bytea(b) => {
                b.end_value();
            }
            Values::Interval(v) => v.push(IntervalMonthDayNano::new(0, 0, 0)),
            Values::Uuid(v) => v.resize(v.len() + 16, 0),
            Values::Array(ends, child) => ends.push(child.len() as i32),
        }
        self.nulls.append_null();
        Ok(())
    }

    /// Appends the value that the text means in this column's type.
    pub fn push_text(&mut self, text: &str) -> Result<(), SqlError> {
        match &mut self.values {
            Values::Text(bytes) => push_characters(bytes, text)?,
            Values::Varchar(bytes) => push_characters(bytes, fitted(text, &self.sql_type)?)?,
            Values::Jsonb(bytes) => bytes.push(canonical_jsonb(text)?.as_bytes()),
            Values::Timestamp(values, _) => values.push(timestamp::parse(text, &self.sql_type)?),
            Values::BigInt(values) => match text.parse() {
                Ok(value) => values.push(value),
                Err(_) => return self.push_value(&parse_text(text, &self.sql_type)?),
            },
            _ => return self.push_value(&parse_text(text, &self.sql_type)?),
        }
        self.end_value();
        Ok(())
    }

    fn push_value(&mut self, value: &Value) -> Result<(), SqlError> {
        match (&mut self.values, value) {
            (_, Value::Null) => return self.push_null(),
            (Values::Boolean(v), Value::Boolean(value)) => v.push(*value),
            (Values::SmallInt(v), Value::SmallInt(value)) => v.push(*value),
            (Values::Integer(v), Value::Integer(value)) => v.push(*value),
            (Values::BigInt(v), Value::BigInt(value)) => v.push(*value),
            (Values::Real(v), Value::Real(value)) => v.push(*value),
            (Values::Double(v), Value::Double(value)) => v.push(*value),
            (Values::Numeric(v, ..), Value::Numeric(value)) => v.push(*value),
            (Values::Text(b) | Values::Varchar(b), Value::Text(text)) => push_characters(b, text)?,
            (Values::Jsonb(b), Value::Text(text)) => b.push(text.as_bytes()),
            (Values::Bytea(b), Value::Bytea(bytes)) => b.push(bytes),
            (Values::Date(v), Value::Date(days)) => v.push(*days),
            (Values::Time(v), Value::Time(us)) => v.push(*us),
            (Values::Timestamp(v, _), Value::Timestamp(us)) => v.push(*us),
            (Values::Interval(v), Value::Interval(i)) => {
                v.push(IntervalMonthDayNano::new(i.months, i.days, i.nanos));
            }
            (Values::Uuid(v), Value::Uuid(bytes)) => v.extend_from_slice(bytes),
            (Values::Array(ends, child), Value::List(values)) => {
                for value in values {
                    child.push_value(value)?;
                }
                ends.push(child.len() as i32);
            }
            (_, value) => unreachable!("{value:?} was read as a value of this column's type"),
        }
        self.end_value();
        Ok(())
    }

    /// Bytes that this column's strings take; a batch ends before they become too many.
    pub fn is_full(&self) -> bool {
        match &self.values {
            Values::Text(b) | Values::Varchar(b) | Values::Jsonb(b) | Values::Bytea(b) => {
                b.values.len() > MAX_COLUMN_BYTES
            }
            Values::Array(_, child) => child.len() > MAX_COLUMN_BYTES / 16 || child.is_full(),
            _ => false,
        }
    }

    /// The finished array; the column is empty again.
    pub fn finish(&mut self) -> ArrayRef {
        let length = self.nulls.len();
        let nulls = self.nulls.finish();
        match &mut self.values {
            Values::Boolean(v) => {
                let bits = BooleanBuffer::from(take_values(v));
                Arc::new(BooleanArray::new(bits, nulls))
            }
            Values::SmallInt(v) => primitive::<Int16Type>(v, nulls),
            Values::Integer(v) => primitive::<Int32Type>(v, nulls),
            Values::BigInt(v) => primitive::<Int64Type>(v, nulls),
            Values::Real(v) => primitive::<Float32Type>(v, nulls),
            Values::Double(v) => primitive::<Float64Type>(v, nulls),
            Values::Numeric(v, precision, scale) => Arc::new(
                Decimal128Array::new(ScalarBuffer::from(take_values(v)), nulls)
                    .with_precision_and_scale(*precision, *scale)
                    .expect("the schema has a valid precision and scale"),
            ),
            Values::Text(b) | Values::Varchar(b) | Values::Jsonb(b) => {
                let (offsets, values) = b.finish();
                // SAFETY: only whole strings of valid UTF-8 are appended (decoders validate their input), and the
                // offsets are the lengths after each of them.
                let array =
                    unsafe { StringArray::new_unchecked(offsets, Buffer::from_vec(values), nulls) };
                Arc::new(array)
            }
            Values::Bytea(b) => {
                let (offsets, values) = b.finish();
                Arc::new(BinaryArray::new(offsets, Buffer::from_vec(values), nulls))
            }
            Values::Date(v) => primitive::<Date32Type>(v, nulls),
            Values::Time(v) => primitive::<Time64MicrosecondType>(v, nulls),
            Values::Timestamp(v, utc) => {
                let values = ScalarBuffer::from(take_values(v));
                let array = PrimitiveArray::<TimestampMicrosecondType>::new(values, nulls);
                Arc::new(if *utc {
                    array.with_timezone("UTC")
                } else {
                    array
                })
            }
            Values::Interval(v) => primitive::<IntervalMonthDayNanoType>(v, nulls),
            Values::Uuid(v) => {
                let values = Buffer::from_vec(take_values(v));
                Arc::new(
                    FixedSizeBinaryArray::try_new_with_len(16, values, nulls, length)
                        .expect("sixteen bytes for each value"),
                )
            }
            Values::Array(ends, child) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(take_values(ends)));
                ends.push(0);
                let child_field = child.field.clone();
                Arc::new(ListArray::new(child_field, offsets, child.finish(), nulls))
            }
        }
    }
}

/// The values, leaving room for as many.
fn take_values<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next)
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let values = ScalarBuffer::from(take_values(values));
    Arc::new(PrimitiveArray::<T>::new(values, nulls))
}

/// Text may hold any character but NUL, as in Postgres.
fn push_characters(bytes: &mut Bytes, text: &str) -> Result<(), SqlError> {
    if text.as_bytes().contains(&0) {
        return Err(nul_character());
    }
    bytes.push(text.as_bytes());
    Ok(())
}

pub(crate) fn nul_character() -> SqlError {
    SqlError::new(
        SqlState::from_code("22021"),
        "invalid byte sequence for encoding \"UTF8\": 0x00",
    )
}

/// The text within the length that the type allows.
fn fitted<'a>(text: &'a str, sql_type: &SqlType) -> Result<&'a str, SqlError> {
    match sql_type {
        SqlType::Varchar { length } => fit_varchar(text, *length),
        SqlType::Char { length } => fit_char(text, *length),
        _ => Ok(text),
    }
}

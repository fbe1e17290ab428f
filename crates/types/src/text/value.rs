//! One value of any SQL type outside of a column, and the way into a column.

use crate::SqlType;
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    FixedSizeBinaryBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, IntervalMonthDayNanoBuilder, ListArray, NullBufferBuilder, StringBuilder,
    StructArray, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Fields, IntervalMonthDayNano};
use std::sync::Arc;

/// A value as its column keeps it: see `SqlType::arrow` for units.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    SmallInt(i16),
    Integer(i32),
    BigInt(i64),
    Real(f32),
    Double(f64),
    /// The unscaled value; the scale is the type's.
    Numeric(i128),
    /// `text`, `varchar`, `char` without padding, `jsonb` in its canonical form.
    Text(String),
    Bytea(Vec<u8>),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970, with or without a zone.
    Timestamp(i64),
    Interval(IntervalValue),
    Uuid([u8; 16]),
    List(Vec<Value>),
    Record(Vec<Value>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntervalValue {
    pub months: i32,
    pub days: i32,
    pub nanos: i64,
}

/// Collects values of one type into its Arrow array.
pub struct ValueAppender {
    builder: Builder,
}

enum Builder {
    Boolean(BooleanBuilder),
    SmallInt(Int16Builder),
    Integer(Int32Builder),
    BigInt(Int64Builder),
    Real(Float32Builder),
    Double(Float64Builder),
    Numeric(Decimal128Builder),
    Text(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    Uuid(FixedSizeBinaryBuilder),
    List {
        element: SqlType,
        elements: Box<ValueAppender>,
        lengths: Vec<usize>,
        nulls: NullBufferBuilder,
    },
    Record {
        fields: Fields,
        columns: Vec<ValueAppender>,
        nulls: NullBufferBuilder,
    },
}

impl ValueAppender {
    pub fn new(sql_type: &SqlType, capacity: usize) -> Self {
        let builder = match sql_type {
            SqlType::Boolean => Builder::Boolean(BooleanBuilder::with_capacity(capacity)),
            SqlType::SmallInt => Builder::SmallInt(Int16Builder::with_capacity(capacity)),
            SqlType::Integer => Builder::Integer(Int32Builder::with_capacity(capacity)),
            SqlType::BigInt => Builder::BigInt(Int64Builder::with_capacity(capacity)),
            SqlType::Real => Builder::Real(Float32Builder::with_capacity(capacity)),
            SqlType::Double => Builder::Double(Float64Builder::with_capacity(capacity)),
            SqlType::Numeric { .. } => Builder::Numeric(
                Decimal128Builder::with_capacity(capacity).with_data_type(sql_type.arrow()),
            ),
            SqlType::Text
            | SqlType::Varchar { .. }
            | SqlType::Char { .. }
            | SqlType::Jsonb
            | SqlType::Other(_) => {
                Builder::Text(StringBuilder::with_capacity(capacity, capacity * 16))
            }
            SqlType::Bytea => Builder::Bytea(BinaryBuilder::with_capacity(capacity, capacity * 16)),
            SqlType::Date => Builder::Date(Date32Builder::with_capacity(capacity)),
            SqlType::Time => Builder::Time(Time64MicrosecondBuilder::with_capacity(capacity)),
            SqlType::Timestamp | SqlType::TimestampTz => Builder::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(capacity)
                    .with_data_type(sql_type.arrow()),
            ),
            SqlType::Interval => {
                Builder::Interval(IntervalMonthDayNanoBuilder::with_capacity(capacity))
            }
            SqlType::Uuid => Builder::Uuid(FixedSizeBinaryBuilder::with_capacity(capacity, 16)),
            SqlType::Array(element) => Builder::List {
                element: (**element).clone(),
                elements: Box::new(ValueAppender::new(element, capacity)),
                lengths: Vec::with_capacity(capacity),
                nulls: NullBufferBuilder::new(capacity),
            },
            SqlType::Record(fields) => Builder::Record {
                fields: match sql_type.arrow() {
                    DataType::Struct(fields) => fields,
                    other => unreachable!("a record is kept as a struct, not {other}"),
                },
                columns: fields
                    .iter()
                    .map(|(_, t)| ValueAppender::new(t, capacity))
                    .collect(),
                nulls: NullBufferBuilder::new(capacity),
            },
        };
        Self { builder }
    }

    /// # Panics
    /// When the value is of another type than the column: both come from one `SqlType`.
    pub fn append(&mut self, value: &Value) {
        match (&mut self.builder, value) {
            (Builder::Boolean(b), Value::Boolean(v)) => b.append_value(*v),
            (Builder::SmallInt(b), Value::SmallInt(v)) => b.append_value(*v),
            (Builder::Integer(b), Value::Integer(v)) => b.append_value(*v),
            (Builder::BigInt(b), Value::BigInt(v)) => b.append_value(*v),
            (Builder::Real(b), Value::Real(v)) => b.append_value(*v),
            (Builder::Double(b), Value::Double(v)) => b.append_value(*v),
            (Builder::Numeric(b), Value::Numeric(v)) => b.append_value(*v),
            (Builder::Text(b), Value::Text(v)) => b.append_value(v),
            (Builder::Bytea(b), Value::Bytea(v)) => b.append_value(v),
            (Builder::Date(b), Value::Date(v)) => b.append_value(*v),
            (Builder::Time(b), Value::Time(v)) => b.append_value(*v),
            (Builder::Timestamp(b), Value::Timestamp(v)) => b.append_value(*v),
            (Builder::Interval(b), Value::Interval(v)) => {
                b.append_value(IntervalMonthDayNano::new(v.months, v.days, v.nanos));
            }
            (Builder::Uuid(b), Value::Uuid(v)) => b.append_value(v).expect("sixteen bytes"),
            (
                Builder::List {
                    elements,
                    lengths,
                    nulls,
                    ..
                },
                Value::List(values),
            ) => {
                values.iter().for_each(|v| elements.append(v));
                lengths.push(values.len());
                nulls.append_non_null();
            }
            (Builder::Record { columns, nulls, .. }, Value::Record(values)) => {
                assert_eq!(columns.len(), values.len(), "one value per field");
                columns
                    .iter_mut()
                    .zip(values)
                    .for_each(|(c, v)| c.append(v));
                nulls.append_non_null();
            }
            (_, Value::Null) => self.append_null(),
            (_, value) => panic!("{value:?} is not of the column's type"),
        }
    }

    fn append_null(&mut self) {
        match &mut self.builder {
            Builder::Boolean(b) => b.append_null(),
            Builder::SmallInt(b) => b.append_null(),
            Builder::Integer(b) => b.append_null(),
            Builder::BigInt(b) => b.append_null(),
            Builder::Real(b) => b.append_null(),
            Builder::Double(b) => b.append_null(),
            Builder::Numeric(b) => b.append_null(),
            Builder::Text(b) => b.append_null(),
            Builder::Bytea(b) => b.append_null(),
            Builder::Date(b) => b.append_null(),
            Builder::Time(b) => b.append_null(),
            Builder::Timestamp(b) => b.append_null(),
            Builder::Interval(b) => b.append_null(),
            Builder::Uuid(b) => b.append_null(),
            Builder::List { lengths, nulls, .. } => {
                lengths.push(0);
                nulls.append_null();
            }
            Builder::Record { columns, nulls, .. } => {
                columns.iter_mut().for_each(ValueAppender::append_null);
                nulls.append_null();
            }
        }
    }

    /// The values so far as one array; the appender is empty again.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.builder {
            Builder::Boolean(b) => Arc::new(b.finish()),
            Builder::SmallInt(b) => Arc::new(b.finish()),
            Builder::Integer(b) => Arc::new(b.finish()),
            Builder::BigInt(b) => Arc::new(b.finish()),
            Builder::Real(b) => Arc::new(b.finish()),
            Builder::Double(b) => Arc::new(b.finish()),
            Builder::Numeric(b) => Arc::new(b.finish()),
            Builder::Text(b) => Arc::new(b.finish()),
            Builder::Bytea(b) => Arc::new(b.finish()),
            Builder::Date(b) => Arc::new(b.finish()),
            Builder::Time(b) => Arc::new(b.finish()),
            Builder::Timestamp(b) => Arc::new(b.finish()),
            Builder::Interval(b) => Arc::new(b.finish()),
            Builder::Uuid(b) => Arc::new(b.finish()),
            Builder::List {
                element,
                elements,
                lengths,
                nulls,
            } => {
                let offsets = OffsetBuffer::from_lengths(lengths.drain(..));
                let field = Arc::new(element.field("item", true));
                Arc::new(ListArray::new(
                    field,
                    offsets,
                    elements.finish(),
                    nulls.finish(),
                ))
            }
            Builder::Record {
                fields,
                columns,
                nulls,
            } => {
                let length = nulls.len();
                let columns = columns.iter_mut().map(ValueAppender::finish).collect();
                let array = StructArray::try_new_with_length(
                    fields.clone(),
                    columns,
                    nulls.finish(),
                    length,
                );
                Arc::new(array.expect("the columns have the fields' types and one length"))
            }
        }
    }
}

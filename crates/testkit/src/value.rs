//! Rows as plain values that compare as SQL orders them.

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::*;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_types::Batch;

pub type Row = Vec<Value>;

/// Rows with their counts; never zero.
pub type ZSet = BTreeMap<Row, i64>;

/// NULL first, numbers by value, NaN above all floats. Integers of every width, dates and timestamps are `Int`.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Unscaled value and scale.
    Decimal(i128, i8),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub fn text(value: &str) -> Self {
        Value::Text(value.to_owned())
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Int(_) => 2,
            Value::Float(_) => 3,
            Value::Decimal(..) => 4,
            Value::Text(_) => 5,
            Value::List(_) => 6,
        }
    }
}

/// One zero, one NaN.
fn canonical(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => canonical(*a).total_cmp(&canonical(*b)),
            (Value::Decimal(a, s), Value::Decimal(b, t)) => {
                assert_eq!(s, t, "decimals of one column have one scale");
                a.cmp(b)
            }
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::List(a), Value::List(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

/// Adds a row to a Z-set.
pub fn add(set: &mut ZSet, row: Row, diff: i64) {
    if diff == 0 {
        return;
    }
    let count = set.entry(row.clone()).or_default();
    *count += diff;
    if *count == 0 {
        set.remove(&row);
    }
}

pub fn add_batch(set: &mut ZSet, batch: &Batch) {
    for (row, values) in rows_of(batch).into_iter().enumerate() {
        add(set, values, batch.diff(row));
    }
}

pub fn rows_of(batch: &Batch) -> Vec<Row> {
    let columns: Vec<Vec<Value>> = batch.columns().iter().map(values_of).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|c| c[row].clone()).collect())
        .collect()
}

pub fn values_of(array: &ArrayRef) -> Vec<Value> {
    let nulls = array.logical_nulls();
    let value = |index: usize| -> Value {
        if nulls.as_ref().is_some_and(|n| n.is_null(index)) {
            return Value::Null;
        }
        match array.data_type() {
            DataType::Boolean => Value::Bool(array.as_boolean().value(index)),
            DataType::Float32 => {
                Value::Float(f64::from(array.as_primitive::<Float32Type>().value(index)))
            }
            DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(index)),
            DataType::Decimal128(_, scale) => {
                Value::Decimal(array.as_primitive::<Decimal128Type>().value(index), *scale)
            }
            DataType::Utf8 => Value::Text(array.as_string::<i32>().value(index).to_owned()),
            DataType::List(_) => Value::List(values_of(&array.as_list::<i32>().value(index))),
            DataType::Date32 => {
                Value::Int(i64::from(array.as_primitive::<Date32Type>().value(index)))
            }
            _ => {
                let wide =
                    cast(&array.slice(index, 1), &DataType::Int64).expect("an integer or a time");
                Value::Int(wide.as_primitive::<Int64Type>().value(0))
            }
        }
    };
    (0..array.len()).map(value).collect()
}

/// The column of a type that has these values.
pub fn column_of(values: &[Value], data_type: &DataType) -> ArrayRef {
    let ints = || {
        values.iter().map(|v| match v {
            Value::Null => None,
            Value::Int(v) => Some(*v),
            other => panic!("{other:?} is no integer"),
        })
    };
    let floats = || {
        values.iter().map(|v| match v {
            Value::Null => None,
            Value::Float(v) => Some(*v),
            other => panic!("{other:?} is no float"),
        })
    };
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from_iter(values.iter().map(|v| match v {
            Value::Null => None,
            Value::Bool(v) => Some(*v),
            other => panic!("{other:?} is no boolean"),
        }))),
        DataType::Float64 => Arc::new(Float64Array::from_iter(floats())),
        DataType::Float32 => Arc::new(Float32Array::from_iter(
            floats().map(|v| v.map(|v| v as f32)),
        )),
        DataType::Decimal128(precision, scale) => {
            let array = Decimal128Array::from_iter(values.iter().map(|v| match v {
                Value::Null => None,
                Value::Decimal(v, _) => Some(*v),
                other => panic!("{other:?} is no decimal"),
            }));
            Arc::new(
                array
                    .with_precision_and_scale(*precision, *scale)
                    .expect("in range"),
            )
        }
        DataType::Utf8 => Arc::new(StringArray::from_iter(values.iter().map(|v| match v {
            Value::Null => None,
            Value::Text(v) => Some(v.as_str()),
            other => panic!("{other:?} is no text"),
        }))),
        DataType::List(field) => {
            let (mut elements, mut lengths, mut present) = (Vec::new(), Vec::new(), Vec::new());
            for value in values {
                let list: &[Value] = match value {
                    Value::Null => &[],
                    Value::List(list) => list,
                    other => panic!("{other:?} is no list"),
                };
                elements.extend_from_slice(list);
                lengths.push(list.len());
                present.push(!value.is_null());
            }
            Arc::new(ListArray::new(
                field.clone(),
                OffsetBuffer::from_lengths(lengths),
                column_of(&elements, field.data_type()),
                Some(NullBuffer::from(present)),
            ))
        }
        DataType::Date32 => Arc::new(Date32Array::from_iter(ints().map(|v| v.map(|v| v as i32)))),
        _ => cast(
            &(Arc::new(Int64Array::from_iter(ints())) as ArrayRef),
            data_type,
        )
        .expect("an integer or a time"),
    }
}

/// A batch of these rows.
pub fn batch_of(rows: &[(Row, i64)], schema: &SchemaRef) -> Batch {
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let values: Vec<Value> = rows.iter().map(|(row, _)| row[index].clone()).collect();
            column_of(&values, field.data_type())
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let records = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .expect("rows fit the schema");
    Batch::new(
        records,
        rows.iter()
            .map(|(_, diff)| *diff)
            .collect::<Vec<i64>>()
            .into(),
    )
}

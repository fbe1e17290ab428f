//! Rows of system relations, and the columns that say how they are kept.
//!
//! A relation's columns are one line of text, `oid oid, relname name, relchecks int2 = 0`: name, Postgres's type, and the
//! value of rows that do not say otherwise (NULL without one). OIDs are `bigint` here, names and `"char"` are `text`.

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int16Array, Int16Builder, Int32Array, Int64Array,
    Int64Builder, ListBuilder, RecordBatch, RecordBatchOptions, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;
use tidegate_types::{SqlError, SqlType};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Ints(Vec<i64>),
    Texts(Vec<String>),
    /// Microseconds since 1970.
    Time(i64),
}

impl Cell {
    /// A number, also one written as text: clients send OIDs both ways.
    pub fn int(&self) -> Option<i64> {
        match self {
            Cell::Int(number) => Some(*number),
            Cell::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn from_millis(millis: i64) -> Self {
        Cell::Time(millis.saturating_mul(1000))
    }
}

macro_rules! cells {
    ($($from:ty => $variant:ident($value:ident) $make:expr;)*) => {
        $(impl From<$from> for Cell { fn from($value: $from) -> Self { Cell::$variant($make) } })*
    };
}

cells! {
    bool => Bool(value) value;
    i64 => Int(value) value;
    u64 => Int(value) i64::try_from(value).unwrap_or(i64::MAX);
    usize => Int(value) i64::try_from(value).unwrap_or(i64::MAX);
    f64 => Float(value) value;
    &str => Text(value) value.to_owned();
    String => Text(value) value;
    Vec<i64> => Ints(value) value;
    Vec<String> => Texts(value) value;
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}

/// Values by column name.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    cells: Vec<(&'static str, Cell)>,
}

impl Row {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with(mut self, column: &'static str, cell: impl Into<Cell>) -> Self {
        self.cells.push((column, cell.into()));
        self
    }

    pub fn get(&self, column: &str) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|(name, _)| *name == column)
            .map(|(_, cell)| cell)
    }
}

pub(super) struct Column {
    pub name: &'static str,
    /// As Postgres calls it.
    pub type_name: &'static str,
    pub default: Cell,
}

impl Column {
    pub fn sql_type(&self) -> SqlType {
        sql_type(self.type_name)
    }
}

fn sql_type(name: &str) -> SqlType {
    match name {
        "bool" => SqlType::Boolean,
        "int2" => SqlType::SmallInt,
        "int4" => SqlType::Integer,
        "int8" | "oid" | "xid" => SqlType::BigInt,
        "float8" => SqlType::Double,
        "timestamptz" => SqlType::TimestampTz,
        "int2[]" => SqlType::Array(Box::new(SqlType::SmallInt)),
        "oid[]" => SqlType::Array(Box::new(SqlType::BigInt)),
        "text[]" => SqlType::Array(Box::new(SqlType::Text)),
        "text" | "name" | "char" => SqlType::Text,
        other => unreachable!("no system relation has a column of type {other}"),
    }
}

pub(super) fn columns(line: &'static str) -> Vec<Column> {
    line.split(',')
        .map(|column| {
            let (declared, default) = match column.split_once('=') {
                Some((declared, default)) => (declared, Some(default.trim())),
                None => (column, None),
            };
            let (name, type_name) = declared
                .trim()
                .split_once(' ')
                .expect("a column has a name and a type");
            let type_name = type_name.trim();
            let default = default.map_or(Cell::Null, |text| match sql_type(type_name) {
                SqlType::Boolean => Cell::Bool(text == "t"),
                SqlType::Text => Cell::Text(text.trim_matches('\'').to_owned()),
                _ => Cell::Int(text.parse().expect("a default is a number here")),
            });
            Column {
                name,
                type_name,
                default,
            }
        })
        .collect()
}

pub(super) fn schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(
        columns
            .iter()
            .map(|c| c.sql_type().field(c.name, true))
            .collect::<Vec<Field>>(),
    ))
}

/// Rows as Arrow columns.
pub(super) fn batch(columns: &[Column], rows: &[Row]) -> Result<RecordBatch, SqlError> {
    let arrays = columns
        .iter()
        .map(|column| {
            let cells: Vec<&Cell> = rows
                .iter()
                .map(|row| row.get(column.name).unwrap_or(&column.default))
                .collect();
            array(&column.sql_type(), &cells)
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema(columns), arrays, &options).map_err(SqlError::internal)
}

/// Cells as one Arrow array; what is of another type is NULL.
pub(super) fn array(sql_type: &SqlType, cells: &[&Cell]) -> ArrayRef {
    let ints = || {
        cells
            .iter()
            .map(|c| if let Cell::Int(n) = c { Some(*n) } else { None })
    };
    match sql_type {
        SqlType::Boolean => Arc::new(
            cells
                .iter()
                .map(|c| {
                    if let Cell::Bool(b) = c {
                        Some(*b)
                    } else {
                        None
                    }
                })
                .collect::<BooleanArray>(),
        ),
        SqlType::SmallInt => Arc::new(ints().map(|n| n.map(|n| n as i16)).collect::<Int16Array>()),
        SqlType::Integer => Arc::new(ints().map(|n| n.map(|n| n as i32)).collect::<Int32Array>()),
        SqlType::BigInt => Arc::new(ints().collect::<Int64Array>()),
        SqlType::Double => Arc::new(
            cells
                .iter()
                .map(|c| {
                    if let Cell::Float(x) = c {
                        Some(*x)
                    } else {
                        None
                    }
                })
                .collect::<Float64Array>(),
        ),
        SqlType::TimestampTz => {
            let times = cells.iter().map(|c| {
                if let Cell::Time(t) = c {
                    Some(*t)
                } else {
                    None
                }
            });
            Arc::new(
                times
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            )
        }
        SqlType::Array(element) => lists(element, cells),
        _ => Arc::new(cells.iter().map(|c| c.text()).collect::<StringArray>()),
    }
}

fn lists(element: &SqlType, cells: &[&Cell]) -> ArrayRef {
    let numbers = |cell: &Cell| {
        if let Cell::Ints(numbers) = cell {
            Some(numbers.clone())
        } else {
            None
        }
    };
    match element {
        SqlType::SmallInt => {
            let mut list = ListBuilder::new(Int16Builder::new());
            for cell in cells {
                list.append_option(numbers(cell).map(|n| n.into_iter().map(|n| Some(n as i16))));
            }
            Arc::new(list.finish())
        }
        SqlType::BigInt => {
            let mut list = ListBuilder::new(Int64Builder::new());
            for cell in cells {
                list.append_option(numbers(cell).map(|n| n.into_iter().map(Some)));
            }
            Arc::new(list.finish())
        }
        _ => {
            let mut list = ListBuilder::new(StringBuilder::new());
            for cell in cells {
                let texts = if let Cell::Texts(texts) = cell {
                    Some(texts)
                } else {
                    None
                };
                list.append_option(texts.map(|t| t.iter().map(Some)));
            }
            Arc::new(list.finish())
        }
    }
}

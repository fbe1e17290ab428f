//! SQL's types, and the Arrow type that each is kept as.
//!
//! The Arrow type decides storage and computation; what SQL adds to it (that a string is `jsonb`, that sixteen bytes are
//! a `uuid`) travels as field metadata under [`TYPE_KEY`], so that a schema alone is enough to print a row the way
//! Postgres would. Length limits of `varchar(n)` and `char(n)` are kept in the same metadata and enforced on write.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The metadata key under which a field says what SQL calls it, where the Arrow type alone does not.
pub const TYPE_KEY: &str = "tidegate.type";

/// Precision and scale of a `numeric` that was declared without them.
pub const DEFAULT_NUMERIC: (u8, i8) = (38, 10);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SqlType {
    Boolean,
    SmallInt,
    Integer,
    BigInt,
    Real,
    Double,
    Numeric {
        precision: u8,
        scale: i8,
    },
    Text,
    Varchar {
        length: u32,
    },
    Char {
        length: u32,
    },
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Jsonb,
    Array(Box<SqlType>),
    /// A composite row: names and types of its fields.
    Record(Vec<(String, SqlType)>),
    /// Any other Arrow type that an expression produced; printed as text.
    Other(String),
}

impl SqlType {
    pub fn arrow(&self) -> DataType {
        match self {
            SqlType::Boolean => DataType::Boolean,
            SqlType::SmallInt => DataType::Int16,
            SqlType::Integer => DataType::Int32,
            SqlType::BigInt => DataType::Int64,
            SqlType::Real => DataType::Float32,
            SqlType::Double => DataType::Float64,
            SqlType::Numeric { precision, scale } => DataType::Decimal128(*precision, *scale),
            SqlType::Text | SqlType::Varchar { .. } | SqlType::Char { .. } | SqlType::Jsonb => {
                DataType::Utf8
            }
            SqlType::Bytea => DataType::Binary,
            SqlType::Date => DataType::Date32,
            SqlType::Time => DataType::Time64(TimeUnit::Microsecond),
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            SqlType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            SqlType::Uuid => DataType::FixedSizeBinary(16),
            SqlType::Array(element) => DataType::List(Arc::new(element.field("item", true))),
            SqlType::Record(fields) => {
                DataType::Struct(fields.iter().map(|(n, t)| t.field(n, true)).collect())
            }
            SqlType::Other(_) => DataType::Utf8,
        }
    }

    /// An Arrow field of this type, with the metadata from which [`SqlType::from_field`] finds it again.
    pub fn field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.arrow(), nullable);
        match self.tag() {
            Some(tag) => field.with_metadata(HashMap::from([(TYPE_KEY.to_owned(), tag)])),
            None => field,
        }
    }

    fn tag(&self) -> Option<String> {
        match self {
            SqlType::Uuid => Some("uuid".into()),
            SqlType::Jsonb => Some("jsonb".into()),
            SqlType::Varchar { length } => Some(format!("varchar({length})")),
            SqlType::Char { length } => Some(format!("char({length})")),
            _ => None,
        }
    }

    pub fn from_field(field: &Field) -> Self {
        match field.metadata().get(TYPE_KEY).map(String::as_str) {
            Some("uuid") => SqlType::Uuid,
            Some("jsonb") => SqlType::Jsonb,
            Some(tag) => length_of(tag, "varchar")
                .map(|length| SqlType::Varchar { length })
                .or_else(|| length_of(tag, "char").map(|length| SqlType::Char { length }))
                .unwrap_or_else(|| Self::from_arrow(field.data_type())),
            None => Self::from_arrow(field.data_type()),
        }
    }

    /// The type that an Arrow type means without metadata. Unsigned and narrow integers widen.
    pub fn from_arrow(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => SqlType::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => SqlType::SmallInt,
            DataType::Int32 | DataType::UInt16 => SqlType::Integer,
            DataType::Int64 | DataType::UInt32 => SqlType::BigInt,
            DataType::UInt64 => SqlType::Numeric {
                precision: 20,
                scale: 0,
            },
            DataType::Float16 | DataType::Float32 => SqlType::Real,
            DataType::Float64 => SqlType::Double,
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => SqlType::Numeric {
                precision: *precision,
                scale: *scale,
            },
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
                SqlType::Text
            }
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => SqlType::Bytea,
            DataType::Date32 | DataType::Date64 => SqlType::Date,
            DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
            DataType::Timestamp(_, None) => SqlType::Timestamp,
            DataType::Timestamp(_, Some(_)) => SqlType::TimestampTz,
            DataType::Interval(_) | DataType::Duration(_) => SqlType::Interval,
            DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
                SqlType::Array(Box::new(Self::from_field(f)))
            }
            DataType::Dictionary(_, value) => Self::from_arrow(value),
            DataType::Struct(fields) => SqlType::Record(
                fields
                    .iter()
                    .map(|f| (f.name().clone(), Self::from_field(f)))
                    .collect(),
            ),
            other => SqlType::Other(other.to_string()),
        }
    }
}

fn length_of(tag: &str, name: &str) -> Option<u32> {
    tag.strip_prefix(name)?
        .strip_prefix('(')?
        .strip_suffix(')')?
        .parse()
        .ok()
}

/// As Postgres's `format_type` writes it.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SqlType::Boolean => f.write_str("boolean"),
            SqlType::SmallInt => f.write_str("smallint"),
            SqlType::Integer => f.write_str("integer"),
            SqlType::BigInt => f.write_str("bigint"),
            SqlType::Real => f.write_str("real"),
            SqlType::Double => f.write_str("double precision"),
            SqlType::Numeric { precision, scale } if (*precision, *scale) == DEFAULT_NUMERIC => {
                f.write_str("numeric")
            }
            SqlType::Numeric { precision, scale } => write!(f, "numeric({precision},{scale})"),
            SqlType::Text => f.write_str("text"),
            SqlType::Varchar { length } => write!(f, "character varying({length})"),
            SqlType::Char { length } => write!(f, "character({length})"),
            SqlType::Bytea => f.write_str("bytea"),
            SqlType::Date => f.write_str("date"),
            SqlType::Time => f.write_str("time without time zone"),
            SqlType::Timestamp => f.write_str("timestamp without time zone"),
            SqlType::TimestampTz => f.write_str("timestamp with time zone"),
            SqlType::Interval => f.write_str("interval"),
            SqlType::Uuid => f.write_str("uuid"),
            SqlType::Jsonb => f.write_str("jsonb"),
            SqlType::Array(element) => write!(f, "{element}[]"),
            SqlType::Record(_) => f.write_str("record"),
            SqlType::Other(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_again_from_its_field() {
        let element = SqlType::Uuid;
        for sql_type in [
            SqlType::Boolean,
            SqlType::Numeric {
                precision: 12,
                scale: 2,
            },
            SqlType::Varchar { length: 12 },
            SqlType::Char { length: 3 },
            SqlType::Jsonb,
            SqlType::TimestampTz,
            SqlType::Interval,
            SqlType::Array(Box::new(element)),
        ] {
            assert_eq!(SqlType::from_field(&sql_type.field("c", true)), sql_type);
        }
    }
}

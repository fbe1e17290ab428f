//! SQL types as the protocol names them: OID, length, modifier.

use super::message::Format;
use pgwire::api::Type;
use tidegate_types::sql_type::DEFAULT_NUMERIC;
use tidegate_types::{SqlError, SqlState, SqlType};

/// A column of a result, as `RowDescription` tells of it.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub name: String,
    pub sql_type: SqlType,
    pub oid: u32,
    /// Bytes of a value, -1 when that varies.
    pub length: i16,
    pub modifier: i32,
    pub format: Format,
}

impl Column {
    pub(super) fn new(name: &str, sql_type: SqlType, format: Format) -> Self {
        Self {
            name: name.to_owned(),
            oid: oid_of(&sql_type),
            length: length_of(&sql_type),
            modifier: modifier_of(&sql_type),
            format,
            sql_type,
        }
    }
}

/// The type and its array's type; what has no type of its own in Postgres is shown as text.
fn pair(sql_type: &SqlType) -> (Type, Type) {
    match sql_type {
        SqlType::Boolean => (Type::BOOL, Type::BOOL_ARRAY),
        SqlType::SmallInt => (Type::INT2, Type::INT2_ARRAY),
        SqlType::Integer => (Type::INT4, Type::INT4_ARRAY),
        SqlType::BigInt => (Type::INT8, Type::INT8_ARRAY),
        SqlType::Real => (Type::FLOAT4, Type::FLOAT4_ARRAY),
        SqlType::Double => (Type::FLOAT8, Type::FLOAT8_ARRAY),
        SqlType::Numeric { .. } => (Type::NUMERIC, Type::NUMERIC_ARRAY),
        SqlType::Text | SqlType::Other(_) => (Type::TEXT, Type::TEXT_ARRAY),
        SqlType::Varchar { .. } => (Type::VARCHAR, Type::VARCHAR_ARRAY),
        SqlType::Char { .. } => (Type::BPCHAR, Type::BPCHAR_ARRAY),
        SqlType::Bytea => (Type::BYTEA, Type::BYTEA_ARRAY),
        SqlType::Date => (Type::DATE, Type::DATE_ARRAY),
        SqlType::Time => (Type::TIME, Type::TIME_ARRAY),
        SqlType::Timestamp => (Type::TIMESTAMP, Type::TIMESTAMP_ARRAY),
        SqlType::TimestampTz => (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
        SqlType::Interval => (Type::INTERVAL, Type::INTERVAL_ARRAY),
        SqlType::Uuid => (Type::UUID, Type::UUID_ARRAY),
        SqlType::Jsonb => (Type::JSONB, Type::JSONB_ARRAY),
        SqlType::Record(_) => (Type::RECORD, Type::RECORD_ARRAY),
        // An array of arrays has the type of an array of the innermost elements.
        SqlType::Array(element) => {
            let array = pair(element).1;
            (array.clone(), array)
        }
    }
}

pub(super) fn oid_of(sql_type: &SqlType) -> u32 {
    pair(sql_type).0.oid()
}

fn length_of(sql_type: &SqlType) -> i16 {
    match sql_type {
        SqlType::Boolean => 1,
        SqlType::SmallInt => 2,
        SqlType::Integer | SqlType::Real | SqlType::Date => 4,
        SqlType::BigInt
        | SqlType::Double
        | SqlType::Time
        | SqlType::Timestamp
        | SqlType::TimestampTz => 8,
        SqlType::Interval | SqlType::Uuid => 16,
        _ => -1,
    }
}

fn modifier_of(sql_type: &SqlType) -> i32 {
    match sql_type {
        SqlType::Varchar { length } | SqlType::Char { length } => *length as i32 + 4,
        SqlType::Numeric { precision, scale } if (*precision, *scale) != DEFAULT_NUMERIC => {
            ((*precision as i32) << 16 | (*scale as i32 & 0x7ff)) + 4
        }
        SqlType::Array(element) => modifier_of(element),
        _ => -1,
    }
}

/// What a client declared a parameter to be; `None` leaves it to inference.
pub(super) fn declared_type(oid: u32) -> Result<Option<SqlType>, SqlError> {
    let Some(declared) = Type::from_oid(oid) else {
        return match oid {
            0 => Ok(None),
            _ => Err(SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("type with OID {oid} does not exist"),
            )),
        };
    };
    let plain_numeric = SqlType::Numeric {
        precision: DEFAULT_NUMERIC.0,
        scale: DEFAULT_NUMERIC.1,
    };
    Ok(Some(match declared {
        Type::UNKNOWN => return Ok(None),
        Type::BOOL => SqlType::Boolean,
        Type::INT2 => SqlType::SmallInt,
        Type::INT4 => SqlType::Integer,
        Type::INT8 | Type::OID | Type::REGCLASS | Type::REGTYPE | Type::XID => SqlType::BigInt,
        Type::FLOAT4 => SqlType::Real,
        Type::FLOAT8 => SqlType::Double,
        Type::NUMERIC => plain_numeric,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR => SqlType::Text,
        Type::BYTEA => SqlType::Bytea,
        Type::DATE => SqlType::Date,
        Type::TIME => SqlType::Time,
        Type::TIMESTAMP => SqlType::Timestamp,
        Type::TIMESTAMPTZ => SqlType::TimestampTz,
        Type::INTERVAL => SqlType::Interval,
        Type::UUID => SqlType::Uuid,
        Type::JSON | Type::JSONB => SqlType::Jsonb,
        other => {
            let element = ELEMENTS.iter().find(|element| pair(element).1 == other);
            let element = element
                .ok_or_else(|| SqlError::not_supported(format!("a parameter of type {other}")))?;
            SqlType::Array(Box::new(element.clone()))
        }
    }))
}

/// Types whose arrays may be declared as parameters.
const ELEMENTS: [SqlType; 18] = [
    SqlType::Boolean,
    SqlType::SmallInt,
    SqlType::Integer,
    SqlType::BigInt,
    SqlType::Real,
    SqlType::Double,
    SqlType::Numeric {
        precision: DEFAULT_NUMERIC.0,
        scale: DEFAULT_NUMERIC.1,
    },
    SqlType::Text,
    SqlType::Varchar { length: u32::MAX },
    SqlType::Char { length: u32::MAX },
    SqlType::Bytea,
    SqlType::Date,
    SqlType::Time,
    SqlType::Timestamp,
    SqlType::TimestampTz,
    SqlType::Interval,
    SqlType::Uuid,
    SqlType::Jsonb,
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn types_are_those_of_pg_type() {
        // select oid, typlen from pg_type, and atttypmod of columns of these types.
        let column = |t: SqlType| {
            let c = Column::new("c", t, Format::Text);
            (c.oid, c.length, c.modifier)
        };
        assert_eq!(column(SqlType::Integer), (23, 4, -1));
        assert_eq!(column(SqlType::Varchar { length: 12 }), (1043, -1, 16));
        assert_eq!(
            column(SqlType::Numeric {
                precision: 7,
                scale: 2
            }),
            (1700, -1, 458_758)
        );
        assert_eq!(column(SqlType::Uuid), (2950, 16, -1));
        assert_eq!(
            column(SqlType::Array(Box::new(SqlType::Text))),
            (1009, -1, -1)
        );
        assert_eq!(
            column(SqlType::Array(Box::new(SqlType::Array(Box::new(
                SqlType::Integer
            ))))),
            (1007, -1, -1)
        );
    }

    #[test]
    fn declared_types_are_found_again() {
        for element in ELEMENTS
            .iter()
            .filter(|e| !matches!(e, SqlType::Varchar { .. } | SqlType::Char { .. }))
        {
            assert_eq!(
                declared_type(oid_of(element)).unwrap().as_ref(),
                Some(element)
            );
            let array = SqlType::Array(Box::new(element.clone()));
            assert_eq!(declared_type(oid_of(&array)).unwrap(), Some(array));
        }
        assert_eq!(declared_type(0).unwrap(), None);
        assert_eq!(declared_type(999_999).unwrap_err().state.code(), "42704");
    }
}

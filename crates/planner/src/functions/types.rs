//! SQL's names of types, as Postgres means them: microseconds, plain `numeric`, `uuid` and `jsonb` with their metadata.

use datafusion::arrow::datatypes::FieldRef;
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::{
    self, ArrayElemTypeDef, CharacterLength, DataType as Sql, ExactNumberInfo, TimezoneInfo,
};
use std::sync::Arc;
use tidegate_types::sql_type::DEFAULT_NUMERIC;
use tidegate_types::{SqlError, SqlState, SqlType};

/// Decides the type of casts and typed literals.
#[derive(Debug)]
pub struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        let planned = sql_type_of(sql_type).map_err(crate::errors::external)?;
        // A cast to varchar(n) is to text here: lengths are enforced where rows are written.
        Ok(Some(Arc::new(planned.field("", true))))
    }
}

/// The type that a name in SQL means. Also what column definitions are read with.
pub fn sql_type_of(sql_type: &ast::DataType) -> Result<SqlType, SqlError> {
    let planned = match sql_type {
        Sql::Boolean | Sql::Bool => SqlType::Boolean,
        Sql::SmallInt(_) | Sql::Int2(_) | Sql::TinyInt(_) => SqlType::SmallInt,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) | Sql::Int32 | Sql::MediumInt(_) => {
            SqlType::Integer
        }
        Sql::BigInt(_) | Sql::Int8(_) | Sql::Int64 => SqlType::BigInt,
        Sql::Real | Sql::Float4 | Sql::Float32 => SqlType::Real,
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float64 => SqlType::Double,
        Sql::Float(info) => match info {
            ExactNumberInfo::Precision(bits) if *bits <= 24 => SqlType::Real,
            _ => SqlType::Double,
        },
        Sql::Numeric(info) | Sql::Decimal(info) | Sql::Dec(info) => numeric(info)?,
        Sql::Text | Sql::String(_) => SqlType::Text,
        Sql::Varchar(length)
        | Sql::CharacterVarying(length)
        | Sql::CharVarying(length)
        | Sql::Nvarchar(length) => {
            length_of(length.as_ref()).map_or(SqlType::Text, |length| SqlType::Varchar { length })
        }
        Sql::Char(length) | Sql::Character(length) => SqlType::Char {
            length: length_of(length.as_ref()).unwrap_or(1),
        },
        Sql::Bytea | Sql::Binary(_) | Sql::Varbinary(_) | Sql::Blob(_) | Sql::Bytes(_) => {
            SqlType::Bytea
        }
        Sql::Date | Sql::Date32 => SqlType::Date,
        Sql::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Time,
        Sql::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)
        | Sql::Datetime(_) => SqlType::Timestamp,
        Sql::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => SqlType::TimestampTz,
        Sql::Interval { .. } => SqlType::Interval,
        Sql::Uuid => SqlType::Uuid,
        // `json` is kept as `jsonb`: text in canonical form.
        Sql::JSON | Sql::JSONB => SqlType::Jsonb,
        Sql::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::Parenthesis(element),
        ) => match sql_type_of(element)? {
            SqlType::Array(_) => {
                return Err(SqlError::not_supported(
                    "an array of more than one dimension",
                ));
            }
            element => SqlType::Array(Box::new(element)),
        },
        Sql::Custom(name, _) => custom(&name.to_string())?,
        other => return Err(unknown(&other.to_string())),
    };
    Ok(planned)
}

/// Names that the parser does not know as types.
fn custom(name: &str) -> Result<SqlType, SqlError> {
    match name.to_lowercase().as_str() {
        "bpchar" | "pg_catalog.bpchar" | "name" | "pg_catalog.text" => Ok(SqlType::Text),
        "pg_catalog.int4" | "serial" => Ok(SqlType::Integer),
        "pg_catalog.int8" | "bigserial" | "oid" => Ok(SqlType::BigInt),
        "jsonb" | "json" => Ok(SqlType::Jsonb),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("type \"{}\" does not exist", name.to_lowercase()),
    )
}

fn length_of(length: Option<&CharacterLength>) -> Option<u32> {
    match length? {
        CharacterLength::IntegerLength { length, .. } => u32::try_from(*length).ok(),
        CharacterLength::Max => None,
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType, SqlError> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (u64::from(DEFAULT_NUMERIC.0), i64::from(DEFAULT_NUMERIC.1)),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    if !(1..=38).contains(&precision) {
        let message = format!("NUMERIC precision {precision} must be between 1 and 38");
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    if scale < 0 || scale > precision as i64 {
        let message = format!("NUMERIC scale {scale} must be between 0 and precision {precision}");
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    Ok(SqlType::Numeric {
        precision: precision as u8,
        scale: scale as i8,
    })
}

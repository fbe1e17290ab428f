//! How to read a state table's bytes: the columns of its keys, sub-keys and values, as a manifest keeps them.
//!
//! Keys and sub-keys are `RowCodec` encodings of their columns, ascending with NULLs first unless a field says otherwise
//! under [`ORDER_KEY`]; sub-keys whose order does not matter are [`PACKED`]. Values are written by whoever owns the table, in the form that [`TableSchemas::encoding`] names.
//! The form in a manifest is JSON that people can read; a type that this version does not know is refused by name.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Field metadata: `asc nulls last`, `desc nulls first`, `desc nulls last`, or [`PACKED`].
pub const ORDER_KEY: &str = "tidegate.order";
/// The columns are in no order, but encoded together by `PackedCodec`.
pub const PACKED: &str = "packed";
/// Field metadata in the key of a view's rows: which column of the view it is.
pub const COLUMN_KEY: &str = "tidegate.column";

/// Forms of values that this version decodes; any other is shown as bytes.
pub mod encoding {
    /// A zigzag LEB128 integer per field.
    pub const VARINT: &str = "varint";
    /// The number of rows as a varint, then what each aggregate call keeps.
    pub const GROUPS: &str = "groups";
    /// Of a list of rows for each: count, length, encoded row.
    pub const ROWS: &str = "rows";
    /// The rows of a view: a count of eight bytes, little endian, beside the encoded row as key.
    pub const COUNT: &str = "count";
    /// As `COUNT`, with eight bytes in front of the row in the key: its number in the order of arrival.
    pub const NUMBERED: &str = "numbered";
    /// Failed rows: the key is a JSON array of SQLSTATE, message and row, the value a count as in `COUNT`.
    pub const ERRORS: &str = "errors";
    /// Where a source was: the key is a split's name, the value its offset.
    pub const OFFSET: &str = "offset";
    /// How far a backfill was: the key is a key group, the value empty when all of it was read.
    pub const SLICE: &str = "slice";
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchemas {
    pub key: SchemaRef,
    pub sub_key: SchemaRef,
    pub value: SchemaRef,
    pub encoding: String,
}

impl TableSchemas {
    pub fn to_json(&self) -> Value {
        json!({
            "key": fields_to_json(&self.key),
            "sub_key": fields_to_json(&self.sub_key),
            "value": fields_to_json(&self.value),
            "encoding": self.encoding,
        })
    }

    /// Fails with what cannot be read.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let schema = |name: &str| -> Result<SchemaRef, String> {
            let fields = value[name]
                .as_array()
                .ok_or_else(|| format!("its schemas have no {name}"))?;
            let fields: Result<Vec<Field>, String> = fields.iter().map(field_from_json).collect();
            Ok(Arc::new(Schema::new(fields?)))
        };
        Ok(Self {
            key: schema("key")?,
            sub_key: schema("sub_key")?,
            value: schema("value")?,
            encoding: value["encoding"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

fn fields_to_json(schema: &Schema) -> Vec<Value> {
    schema.fields().iter().map(|f| field_to_json(f)).collect()
}

fn field_to_json(field: &Field) -> Value {
    let mut json = json!({ "name": field.name(), "type": type_to_json(field.data_type()) });
    if field.is_nullable() {
        json["nullable"] = Value::Bool(true);
    }
    if !field.metadata().is_empty() {
        // In order, so that equal schemas have equal forms.
        let sorted: std::collections::BTreeMap<_, _> = field.metadata().iter().collect();
        json["metadata"] = json!(sorted);
    }
    json
}

fn type_to_json(data_type: &DataType) -> Value {
    match data_type {
        DataType::List(element) => json!({ "list": field_to_json(element) }),
        DataType::Struct(fields) => {
            json!({ "struct": fields.iter().map(|f| field_to_json(f)).collect::<Vec<_>>() })
        }
        other => Value::String(other.to_string()),
    }
}

fn field_from_json(json: &Value) -> Result<Field, String> {
    let name = json["name"].as_str().ok_or("a column has no name")?;
    let data_type = type_from_json(&json["type"])
        .map_err(|e| format!("column \"{name}\" has a type that cannot be read: {e}"))?;
    let field = Field::new(name, data_type, json["nullable"].as_bool().unwrap_or(false));
    let metadata: HashMap<String, String> = match &json["metadata"] {
        Value::Object(map) => map
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
            .collect(),
        _ => HashMap::new(),
    };
    Ok(field.with_metadata(metadata))
}

fn type_from_json(json: &Value) -> Result<DataType, String> {
    match json {
        Value::String(name) => name.parse().map_err(|e| format!("{e}")),
        Value::Object(map) if map.contains_key("list") => {
            Ok(DataType::List(Arc::new(field_from_json(&map["list"])?)))
        }
        Value::Object(map) if map.contains_key("struct") => {
            let fields = map["struct"].as_array().ok_or("a struct has no fields")?;
            let fields: Result<Vec<Field>, String> = fields.iter().map(field_from_json).collect();
            Ok(DataType::Struct(fields?.into()))
        }
        other => Err(format!("{other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_types::SqlType;

    #[test]
    fn every_type_survives() {
        let types = [
            SqlType::Boolean,
            SqlType::SmallInt,
            SqlType::Integer,
            SqlType::BigInt,
            SqlType::Real,
            SqlType::Double,
            SqlType::Text,
            SqlType::Bytea,
            SqlType::Date,
            SqlType::Time,
            SqlType::Timestamp,
            SqlType::TimestampTz,
            SqlType::Interval,
            SqlType::Uuid,
            SqlType::Jsonb,
            SqlType::Array(Box::new(SqlType::Uuid)),
        ];
        let fields: Vec<Field> = types
            .iter()
            .enumerate()
            .map(|(i, t)| t.field(&format!("c {i}"), i % 2 == 0))
            .chain([Field::new("n", DataType::Decimal128(20, 4), true)])
            .collect();
        let ordered = Field::new("o", DataType::Int64, true).with_metadata(HashMap::from([(
            ORDER_KEY.to_owned(),
            "desc nulls last".to_owned(),
        )]));
        let schemas = TableSchemas {
            key: Arc::new(Schema::new(fields)),
            sub_key: Arc::new(Schema::new(vec![ordered])),
            value: Arc::new(Schema::empty()),
            encoding: encoding::VARINT.to_owned(),
        };
        let json: Value = serde_json::from_str(&schemas.to_json().to_string()).expect("it is JSON");
        assert_eq!(TableSchemas::from_json(&json), Ok(schemas));
    }
}

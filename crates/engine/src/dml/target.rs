//! The table that a statement writes, and what its rows must satisfy.

use super::RowKey;
use crate::session::Session;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use std::collections::HashSet;
use std::sync::Arc;
use tidegate_catalog::{Column, Relation, RelationClass, RelationKind, TableDef};
use tidegate_parser::sqlparser::ast::ObjectName;
use tidegate_types::{Batch, RowCodec, SqlError, SqlState, SqlType, hash_key, text};

pub(crate) struct Target {
    pub relation: Arc<Relation>,
    pub def: TableDef,
    pub schema: SchemaRef,
    codec: RowCodec,
}

impl Session {
    /// The table of this name, or 42809 for anything else that has it.
    pub(super) fn target(&self, name: &ObjectName) -> Result<Target, SqlError> {
        let catalog = self.database.catalog.get();
        let relation = catalog
            .resolve(&tidegate_parser::name_parts(name), &self.path())?
            .clone();
        self.target_of(relation)
    }

    /// A table to write to.
    pub(super) fn target_of(&self, relation: Arc<Relation>) -> Result<Target, SqlError> {
        let RelationKind::Table(def) = &relation.kind else {
            let what = match relation.class() {
                RelationClass::MaterializedView => {
                    format!("cannot change materialized view \"{}\"", relation.name)
                }
                class => format!("cannot change {class} \"{}\"", relation.name),
            };
            return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, what));
        };
        let schema = relation.arrow_schema();
        let def = def.clone();
        let keyed = if def.primary_key.is_empty() {
            (0..schema.fields().len()).collect()
        } else {
            def.primary_key.clone()
        };
        let types: Vec<DataType> = keyed
            .iter()
            .map(|c| schema.field(*c).data_type().clone())
            .collect();
        let codec = RowCodec::new(&types).map_err(SqlError::internal)?;
        Ok(Target {
            relation,
            def,
            schema,
            codec,
        })
    }
}

impl Target {
    pub fn column(&self, name: &str) -> Result<(usize, &Column), SqlError> {
        self.relation.column(name).ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!(
                    "column \"{name}\" of relation \"{}\" does not exist",
                    self.relation.name
                ),
            )
        })
    }

    /// `UPDATE` and `DELETE` are not for tables that only grow.
    pub fn expect_mutable(&self, verb: &str) -> Result<(), SqlError> {
        if self.def.append_only {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot {verb} append-only table \"{}\"", self.relation.name),
            ));
        }
        Ok(())
    }

    /// The encoded key of each row: of the primary key, or of the whole row.
    pub fn keys(&self, rows: &RecordBatch) -> Result<arrow::row::Rows, SqlError> {
        let columns: Vec<ArrayRef> = match self.def.primary_key.as_slice() {
            [] => rows.columns().to_vec(),
            key => key.iter().map(|c| rows.column(*c).clone()).collect(),
        };
        self.codec.encode(&columns).map_err(SqlError::internal)
    }

    pub fn row_keys(&self, batches: &[Batch]) -> Result<HashSet<RowKey>, SqlError> {
        let mut keys = HashSet::new();
        for batch in batches {
            // Rows that are only added to a table without a key conflict with nothing.
            if self.def.primary_key.is_empty() && batch.diffs().is_none() {
                continue;
            }
            for row in self.keys(batch.rows())?.iter() {
                keys.insert((self.relation.id, hash_key(row.data())));
            }
        }
        Ok(keys)
    }

    /// A column of values as the table stores them: Postgres's assignment conversion.
    pub fn convert(&self, values: &ArrayRef, column: usize) -> Result<ArrayRef, SqlError> {
        assign(values, &self.relation.columns[column].sql_type).map_err(|mut error| {
            if error.state == SqlState::DATATYPE_MISMATCH {
                error.message = format!(
                    "column \"{}\" {}",
                    self.relation.columns[column].name, error.message
                );
            }
            error
        })
    }

    /// Rows with all columns converted, and NOT NULL checked.
    pub fn rows(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch, SqlError> {
        let count = columns.first().map_or(0, |c| c.len());
        for (index, column) in columns.iter().enumerate() {
            let definition = &self.relation.columns[index];
            if !definition.nullable && column.null_count() > 0 {
                let row = (0..count)
                    .find(|r| column.is_null(*r))
                    .expect("a null was counted");
                return Err(SqlError::new(
                    SqlState::NOT_NULL_VIOLATION,
                    format!(
                        "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                        definition.name, self.relation.name
                    ),
                )
                .with_detail(format!("Failing row contains ({}).", self.row_text(&columns, row))));
            }
        }
        RecordBatch::try_new(self.schema.clone(), columns).map_err(SqlError::internal)
    }

    pub fn row_text(&self, columns: &[ArrayRef], row: usize) -> String {
        let texts: Vec<String> = columns
            .iter()
            .zip(&self.relation.columns)
            .map(|(values, column)| {
                if values.is_null(row) {
                    return "null".to_owned();
                }
                let mut out = String::new();
                text::write_text(values.as_ref(), &column.sql_type, row, &mut out);
                out
            })
            .collect();
        texts.join(", ")
    }

    /// 23505 as Postgres words it.
    pub fn duplicate(&self, rows: &RecordBatch, row: usize) -> SqlError {
        let names: Vec<&str> = self
            .def
            .primary_key
            .iter()
            .map(|c| self.relation.columns[*c].name.as_str())
            .collect();
        let columns: Vec<ArrayRef> = self
            .def
            .primary_key
            .iter()
            .map(|c| rows.column(*c).clone())
            .collect();
        let values: Vec<String> = columns
            .iter()
            .zip(&self.def.primary_key)
            .map(|(values, column)| {
                let mut out = String::new();
                text::write_text(
                    values.as_ref(),
                    &self.relation.columns[*column].sql_type,
                    row,
                    &mut out,
                );
                out
            })
            .collect();
        let constraint = self
            .def
            .primary_key_name
            .clone()
            .unwrap_or_else(|| format!("{}_pkey", self.relation.name));
        SqlError::new(
            SqlState::UNIQUE_VIOLATION,
            format!("duplicate key value violates unique constraint \"{constraint}\""),
        )
        .with_detail(format!(
            "Key ({})=({}) already exists.",
            names.join(", "),
            values.join(", ")
        ))
    }
}

/// Values as another type keeps them, by the rules of assignment: text is read as the type's input, numbers must fit.
pub(super) fn assign(values: &ArrayRef, to: &SqlType) -> Result<ArrayRef, SqlError> {
    let from = SqlType::from_arrow(values.data_type());
    if values.data_type() == &DataType::Null {
        return Ok(new_null_array(&to.arrow(), values.len()));
    }
    let is_text = matches!(
        values.data_type(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    if is_text {
        let strings = arrow::compute::cast(values, &DataType::Utf8).map_err(SqlError::internal)?;
        let strings = strings
            .as_any()
            .downcast_ref::<StringArray>()
            .expect("it was just cast");
        return text::from_text(strings, to).map_err(|(_, error)| error);
    }
    if let SqlType::Text | SqlType::Varchar { .. } | SqlType::Char { .. } | SqlType::Jsonb = to {
        let strings = text::to_text(values.as_ref(), &from);
        return text::from_text(&strings, to).map_err(|(_, error)| error);
    }
    if values.data_type() == &to.arrow() {
        return Ok(values.clone());
    }
    if !is_assignable(&from, to) {
        return Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!("is of type {to} but expression is of type {from}"),
        )
        .with_hint("You will need to rewrite or cast the expression."));
    }
    let values = if rounds(&from, to) {
        round(values)?
    } else {
        values.clone()
    };
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(&values, &to.arrow(), &options).map_err(|_| out_of_range(to))
}

fn is_number(sql_type: &SqlType) -> bool {
    use SqlType as T;
    matches!(
        sql_type,
        T::SmallInt | T::Integer | T::BigInt | T::Real | T::Double | T::Numeric { .. }
    )
}

fn is_assignable(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    match (from, to) {
        (a, b) if is_number(a) && is_number(b) => true,
        (T::Date | T::Timestamp | T::TimestampTz, T::Date | T::Timestamp | T::TimestampTz) => true,
        (T::Timestamp | T::TimestampTz | T::Interval, T::Time) => true,
        (T::Time, T::Interval) => true,
        (T::Bytea, T::Uuid) | (T::Uuid, T::Bytea) => false,
        (T::Array(a), T::Array(b)) => a == b || is_assignable(a, b) || **a == T::Text,
        _ => false,
    }
}

fn out_of_range(to: &SqlType) -> SqlError {
    match to {
        SqlType::Numeric { precision, scale } => {
            SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "numeric field overflow").with_detail(format!(
                "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
                i32::from(*precision) - i32::from(*scale)
            ))
        }
        _ => SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, format!("{to} out of range")),
    }
}

/// Fractions become whole numbers by rounding, which Arrow's cast would cut off.
fn rounds(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    matches!(from, T::Real | T::Double) && matches!(to, T::SmallInt | T::Integer | T::BigInt)
}

fn round(values: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let doubles = arrow::compute::cast(values, &DataType::Float64).map_err(SqlError::internal)?;
    let doubles = doubles
        .as_any()
        .downcast_ref::<arrow::array::Float64Array>()
        .expect("it was just cast");
    Ok(Arc::new(doubles.unary::<_, arrow::datatypes::Float64Type>(
        f64::round_ties_even,
    )))
}

/// The rows in which a mask is true.
pub(super) fn keep(rows: &RecordBatch, mask: Vec<bool>) -> Result<RecordBatch, SqlError> {
    arrow::compute::filter_record_batch(rows, &BooleanArray::from(mask)).map_err(SqlError::internal)
}

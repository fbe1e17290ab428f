//! `WATERMARK FOR c AS c - INTERVAL '…'` of a source or a table.

use super::Session;
use crate::dml::table_schema;
use crate::relations::Names;
use arrow::datatypes::Schema;
use std::collections::BTreeMap;
use tidegate_catalog::{Column, WatermarkDef};
use tidegate_parser::Watermark;
use tidegate_planner::{Planner, watermarks::delay_us};
use tidegate_types::{SqlError, SqlState, SqlType};

/// What is done with late rows: `drop`, or `errors`, which also shows them in `tidegate.errors`.
const LATE_ROWS: &str = "late_rows";

/// Takes `late_rows` out of the options of a source; answers whether late rows are kept.
pub(super) fn take_late_rows(
    options: &mut BTreeMap<String, String>,
    has_watermark: bool,
) -> Result<bool, SqlError> {
    let invalid = |message: String| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    match options.remove(LATE_ROWS) {
        None => Ok(false),
        Some(_) if !has_watermark => Err(invalid("late_rows needs a WATERMARK".to_owned())
            .with_hint("Without one no row is late.")),
        Some(value) => match value.as_str() {
            "drop" => Ok(false),
            "errors" => Ok(true),
            other => Err(invalid(format!("invalid value for late_rows: \"{other}\""))
                .with_hint("It is drop or errors.")),
        },
    }
}

impl Session {
    /// The watermark over these columns.
    pub(super) fn watermark(
        &self,
        watermark: &Watermark,
        relation: &str,
        columns: &[Column],
        text: &str,
    ) -> Result<WatermarkDef, SqlError> {
        let name = tidegate_parser::fold(&watermark.column);
        let located = |error: SqlError| error.with_position(watermark.position);
        let found = columns.iter().position(|c| c.name == name);
        let Some(column) = found else {
            let message = format!("column \"{name}\" of relation \"{relation}\" does not exist");
            return Err(located(SqlError::new(SqlState::UNDEFINED_COLUMN, message)));
        };
        let sql_type = &columns[column].sql_type;
        if !matches!(sql_type, SqlType::Timestamp | SqlType::TimestampTz) {
            let message =
                format!("a watermark needs a timestamp, and column \"{name}\" is {sql_type}");
            return Err(located(SqlError::new(SqlState::DATATYPE_MISMATCH, message)));
        }
        let fields: Vec<_> = columns
            .iter()
            .map(|c| c.sql_type.field(&c.name, true))
            .collect();
        let schema = table_schema(relation, &Schema::new(fields))?;
        let names = Names {
            catalog: self.database.catalog.get(),
            path: self.path(),
            system: None,
        };
        let planned = Planner::new(&names, text).expression(watermark.expr.clone(), &schema)?;
        match delay_us(&planned, &name) {
            Some(delay_us) => Ok(WatermarkDef {
                column,
                delay_us,
                keeps_late: false,
            }),
            None => Err(located(
                SqlError::not_supported(format!("WATERMARK FOR {name} AS this expression"))
                    .with_hint(format!("Use {name} or {name} - INTERVAL '5 seconds'.")),
            )),
        }
    }
}

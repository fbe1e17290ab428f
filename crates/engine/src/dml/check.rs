//! `CHECK` constraints over rows that are written.

use super::returning::table_schema;
use super::rows::one_row_of;
use super::target::Target;
use crate::session::Session;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use tidegate_catalog::{Check, Column};
use tidegate_types::{SqlError, SqlState, SqlType};

impl Session {
    /// Rows with all columns converted, NOT NULL and `CHECK` constraints checked.
    pub(super) fn checked_rows(
        &self,
        target: &Target,
        columns: Vec<ArrayRef>,
    ) -> Result<RecordBatch, SqlError> {
        let rows = target.rows(columns)?;
        for check in &target.def.checks {
            let schema = table_schema(&target.relation.name, &target.schema)?;
            let condition = super::insert::parse_expression(&check.condition)?;
            let computed = self.computed(condition, schema, &check.condition)?;
            let verdict = computed
                .evaluate(&rows, &[], &check.condition)
                .map_err(unplaced)?;
            let verdict = verdict
                .as_boolean_opt()
                .ok_or_else(|| not_boolean(&verdict))?;
            // Unknown passes.
            let failed = (0..rows.num_rows()).find(|r| verdict.is_valid(*r) && !verdict.value(*r));
            if let Some(row) = failed {
                return Err(SqlError::new(
                    SqlState::CHECK_VIOLATION,
                    format!(
                        "new row for relation \"{}\" violates check constraint \"{}\"",
                        target.relation.name, check.name
                    ),
                )
                .with_detail(format!(
                    "Failing row contains ({}).",
                    target.row_text(rows.columns(), row)
                )));
            }
        }
        Ok(rows)
    }

    /// Whether a constraint can be checked, before a table is made with it.
    pub(crate) fn check_condition(
        &self,
        table: &str,
        columns: &[Column],
        check: &Check,
    ) -> Result<(), SqlError> {
        let fields: Vec<_> = columns
            .iter()
            .map(|c| c.sql_type.field(&c.name, true))
            .collect();
        let schema = table_schema(table, &Schema::new(fields))?;
        let condition = super::insert::parse_expression(&check.condition)?;
        let computed = self
            .computed(condition, schema.clone(), &check.condition)
            .map_err(unplaced)?;
        let field = computed.field("check")?;
        if !matches!(field.data_type(), DataType::Boolean | DataType::Null) {
            return Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "argument of CHECK must be type boolean, not type {}",
                    SqlType::from_field(&field)
                ),
            ));
        }
        // An aggregate or a sub-query plans and cannot be computed over a row.
        computed
            .evaluate(&one_row_of(schema.as_arrow()), &[], &check.condition)
            .map(|_| ())
            .or_else(|error| {
                let refused = [SqlState::FEATURE_NOT_SUPPORTED, SqlState::SYNTAX_ERROR];
                match refused.contains(&error.state) {
                    true => Err(unplaced(error)),
                    false => Ok(()),
                }
            })
    }
}

fn not_boolean(verdict: &ArrayRef) -> SqlError {
    SqlError::internal(format!("a CHECK constraint gave {}", verdict.data_type()))
}

fn unplaced(mut error: SqlError) -> SqlError {
    error.position = None;
    error
}

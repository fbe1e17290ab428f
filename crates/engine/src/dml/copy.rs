//! `COPY … FROM STDIN` and `COPY … TO STDOUT`. The bytes are the frontend's; rows pass here.

use super::Effect;
use super::rows::together;
use super::target::Target;
use crate::api::{CopyFormat, CopyIn, CopyOptions, Response, RowStream};
use crate::session::Session;
use arrow::datatypes::Schema;
use futures::TryStreamExt;
use std::any::Any;
use std::sync::Arc;
use tidegate_parser::sqlparser::ast;
use tidegate_planner::Planner;
use tidegate_types::{Batch, SqlError, SqlState};

/// What a `COPY … FROM STDIN` writes to.
struct CopyTarget {
    table: ast::ObjectName,
    columns: Vec<usize>,
}

impl Session {
    pub(crate) async fn copy(&mut self, statement: &ast::Statement) -> Result<Response, SqlError> {
        let ast::Statement::Copy {
            source,
            to,
            target,
            options,
            legacy_options,
            ..
        } = statement
        else {
            return Err(SqlError::internal("not a COPY"));
        };
        let layout = layout(options, legacy_options)?;
        match (target, to) {
            (ast::CopyTarget::Stdin, false) => self.copy_from(source, layout),
            (ast::CopyTarget::Stdout, true) => self.copy_to(source, layout).await,
            (other, _) => Err(
                SqlError::not_supported(format!("COPY with {other}")).with_hint(
                    "Use STDIN or STDOUT; psql's \\copy reads and writes files of the client.",
                ),
            ),
        }
    }

    fn copy_from(
        &mut self,
        source: &ast::CopySource,
        options: CopyOptions,
    ) -> Result<Response, SqlError> {
        let ast::CopySource::Table {
            table_name,
            columns,
        } = source
        else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "COPY FROM takes a table, not a query",
            ));
        };
        let target = self.target(table_name)?;
        let columns = self.copied_columns(&target, columns)?;
        let fields: Vec<_> = columns
            .iter()
            .map(|c| {
                target.relation.columns[*c]
                    .sql_type
                    .field(&target.relation.columns[*c].name, true)
            })
            .collect();
        let opaque: Arc<dyn Any + Send + Sync> = Arc::new(CopyTarget {
            table: table_name.clone(),
            columns,
        });
        Ok(Response::CopyIn(CopyIn {
            schema: Arc::new(Schema::new(fields)),
            options,
            target: opaque,
        }))
    }

    fn copied_columns(
        &self,
        target: &Target,
        columns: &[ast::Ident],
    ) -> Result<Vec<usize>, SqlError> {
        if columns.is_empty() {
            return Ok(target.relation.visible_columns().map(|(i, _)| i).collect());
        }
        columns
            .iter()
            .map(|c| Ok(target.column(&tidegate_parser::fold(c))?.0))
            .collect()
    }

    /// Takes all rows of a COPY as one statement.
    pub(crate) async fn copy_rows(
        &mut self,
        copy: CopyIn,
        rows: RowStream,
    ) -> Result<u64, SqlError> {
        let CopyTarget { table, columns } = copy
            .target
            .downcast_ref::<CopyTarget>()
            .ok_or_else(|| SqlError::internal("not a COPY of this session"))?;
        let target = self.target(table)?;
        let batches: Vec<_> = rows.try_collect().await?;
        let mut widened = Vec::new();
        for batch in &batches {
            widened.push(self.widen(&target, columns, batch)?);
        }
        let rows = together(&target, &widened)?;
        let count = rows.num_rows() as u64;
        let database = self.database.clone();
        let turn = match self.transaction {
            Some(_) => None,
            None => Some(database.sequencer.turn().await),
        };
        if !target.def.primary_key.is_empty() {
            let encoded = target.keys(&rows)?;
            let keys: Vec<&[u8]> = encoded.iter().map(|k| k.data()).collect();
            let reading = self.reading_for_write(&target, turn.as_ref()).await?;
            let present = target.present(&reading, &keys)?;
            let mut seen = hashbrown::HashSet::new();
            if let Some(row) = (0..keys.len())
                .find(|i| present.rows.contains_key(keys[*i]) || !seen.insert(keys[*i]))
            {
                return Err(target.duplicate(&rows, row));
            }
        }
        let effect = Effect {
            batches: vec![Batch::insert(rows.clone())],
            rows: vec![rows],
        };
        self.apply(&target, &effect, turn).await?;
        Ok(count)
    }

    async fn copy_to(
        &mut self,
        source: &ast::CopySource,
        options: CopyOptions,
    ) -> Result<Response, SqlError> {
        let text = match source {
            ast::CopySource::Query(query) => query.to_string(),
            ast::CopySource::Table {
                table_name,
                columns,
            } if columns.is_empty() => {
                format!("SELECT * FROM {table_name}")
            }
            ast::CopySource::Table {
                table_name,
                columns,
            } => {
                let list: Vec<String> = columns.iter().map(ToString::to_string).collect();
                format!("SELECT {} FROM {table_name}", list.join(", "))
            }
        };
        let names = self.names();
        let planned =
            Planner::new(&names, &text).query(crate::relations::parse_query(&text)?, &[])?;
        let reading = self
            .reading(&crate::session::relations_of(&planned.plan))
            .await?;
        let schema = planned.schema.clone();
        let stream = self.stream(planned, Vec::new(), &reading, &text).await?;
        Ok(Response::CopyOut {
            schema,
            stream,
            options,
        })
    }
}

/// How a `COPY … TO STDOUT` lays its bytes out.
pub(crate) fn copy_out_options(statement: &ast::Statement) -> Result<CopyOptions, SqlError> {
    match statement {
        ast::Statement::Copy {
            to: true,
            target: ast::CopyTarget::Stdout,
            options,
            legacy_options,
            ..
        } => layout(options, legacy_options),
        _ => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "a subscription can only be copied TO STDOUT",
        )),
    }
}

fn layout(
    options: &[ast::CopyOption],
    legacy: &[ast::CopyLegacyOption],
) -> Result<CopyOptions, SqlError> {
    let is_csv = options
        .iter()
        .any(|o| matches!(o, ast::CopyOption::Format(f) if f.value.eq_ignore_ascii_case("csv")))
        || legacy
            .iter()
            .any(|o| matches!(o, ast::CopyLegacyOption::Csv(_)));
    let mut layout = CopyOptions::of(if is_csv {
        CopyFormat::Csv
    } else {
        CopyFormat::Text
    });
    for option in options {
        match option {
            ast::CopyOption::Format(format) => match format.value.to_ascii_lowercase().as_str() {
                "csv" | "text" => {}
                other => return Err(SqlError::not_supported(format!("COPY format \"{other}\""))),
            },
            ast::CopyOption::Delimiter(c) => layout.delimiter = byte("delimiter", *c)?,
            ast::CopyOption::Null(text) => layout.null = text.clone(),
            ast::CopyOption::Header(on) => layout.header = *on,
            ast::CopyOption::Quote(c) => layout.quote = byte("quote", *c)?,
            ast::CopyOption::Escape(c) => layout.escape = byte("escape", *c)?,
            other => return Err(SqlError::not_supported(format!("COPY option {other}"))),
        }
    }
    for option in legacy {
        match option {
            ast::CopyLegacyOption::Csv(csv) => {
                for part in csv {
                    match part {
                        ast::CopyLegacyCsvOption::Header => layout.header = true,
                        ast::CopyLegacyCsvOption::Quote(c) => layout.quote = byte("quote", *c)?,
                        ast::CopyLegacyCsvOption::Escape(c) => layout.escape = byte("escape", *c)?,
                        other => {
                            return Err(SqlError::not_supported(format!("COPY option {other}")));
                        }
                    }
                }
            }
            ast::CopyLegacyOption::Header => layout.header = true,
            ast::CopyLegacyOption::Delimiter(c) => layout.delimiter = byte("delimiter", *c)?,
            ast::CopyLegacyOption::Null(text) => layout.null = text.clone(),
            other => return Err(SqlError::not_supported(format!("COPY option {other}"))),
        }
    }
    Ok(layout)
}

fn byte(what: &str, character: char) -> Result<u8, SqlError> {
    u8::try_from(character)
        .ok()
        .filter(u8::is_ascii)
        .ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("COPY {what} must be a single one-byte character"),
            )
        })
}

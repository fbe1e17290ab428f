//! Rows of a result: their description, and batches as `DataRow` messages.

use super::binary::BinaryWriter;
use super::message::{Format, violation};
use super::outbox::frame;
use super::types::Column;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::{BufMut, BytesMut};
use tidegate_types::text::TextWriter;
use tidegate_types::{SqlError, SqlType};

/// The columns of a result. `formats` is as in `Bind`: none for all text, one for all, or one each.
pub(super) fn columns_of(schema: &Schema, formats: &[Format]) -> Result<Vec<Column>, SqlError> {
    let fields = schema.fields();
    if formats.len() > 1 && formats.len() != fields.len() {
        return Err(violation(format!(
            "bind message has {} result formats but query has {} columns",
            formats.len(),
            fields.len()
        )));
    }
    let format = |index: usize| match formats {
        [] => Format::Text,
        [all] => *all,
        each => each[index],
    };
    Ok(fields
        .iter()
        .enumerate()
        .map(|(index, field)| Column::new(field.name(), SqlType::from_field(field), format(index)))
        .collect())
}

enum Writer<'a> {
    Text(TextWriter<'a>),
    Binary(BinaryWriter<'a>),
}

/// Lays rows of one batch into a buffer.
pub(super) struct RowWriter<'a> {
    writers: Vec<Writer<'a>>,
    cell: String,
}

impl<'a> RowWriter<'a> {
    pub(super) fn new(batch: &'a RecordBatch, columns: &[Column]) -> Result<Self, SqlError> {
        if batch.num_columns() != columns.len() {
            return Err(SqlError::internal(
                "a batch has other columns than its statement",
            ));
        }
        let writers =
            batch
                .columns()
                .iter()
                .zip(columns)
                .map(|(array, column)| match column.format {
                    Format::Text => Writer::Text(TextWriter::new(array.as_ref(), &column.sql_type)),
                    Format::Binary => {
                        Writer::Binary(BinaryWriter::new(array.as_ref(), &column.sql_type))
                    }
                });
        Ok(Self {
            writers: writers.collect(),
            cell: String::new(),
        })
    }

    /// Appends a row; nothing of it when it fails.
    pub(super) fn write(&mut self, row: usize, out: &mut BytesMut) -> Result<(), SqlError> {
        let start = out.len();
        let mut result = Ok(());
        frame(out, b'D', |out| {
            out.put_u16(self.writers.len() as u16);
            for writer in &self.writers {
                match writer {
                    Writer::Text(text) if text.is_null(row) => out.put_i32(-1),
                    Writer::Text(text) => {
                        self.cell.clear();
                        text.write(row, &mut self.cell);
                        out.put_i32(self.cell.len() as i32);
                        out.put_slice(self.cell.as_bytes());
                    }
                    Writer::Binary(binary) => {
                        result = binary.write_sized(row, out);
                        if result.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        if result.is_err() {
            out.truncate(start);
        }
        result
    }
}

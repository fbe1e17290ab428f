//! Rows to lines of `COPY` data.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tidegate_engine::api::{CopyFormat, CopyOptions};
use tidegate_types::text::TextWriter;
use tidegate_types::{SqlError, SqlType};

pub(super) struct CopyWriter {
    options: CopyOptions,
    names: Vec<String>,
    types: Vec<SqlType>,
    line: String,
    cell: String,
}

impl CopyWriter {
    pub(super) fn new(schema: &Schema, options: &CopyOptions) -> Self {
        Self {
            options: options.clone(),
            names: schema.fields().iter().map(|f| f.name().clone()).collect(),
            types: schema
                .fields()
                .iter()
                .map(|f| SqlType::from_field(f))
                .collect(),
            line: String::new(),
            cell: String::new(),
        }
    }

    /// The line of column names, if it is wanted.
    pub(super) fn header(&mut self) -> Option<&str> {
        if !self.options.header {
            return None;
        }
        self.line.clear();
        for (index, name) in self.names.iter().enumerate() {
            if index > 0 {
                self.line.push(self.options.delimiter as char);
            }
            write_cell(name, &self.options, &mut self.line);
        }
        self.line.push('\n');
        Some(&self.line)
    }

    pub(super) fn columns<'b>(
        &self,
        batch: &'b RecordBatch,
    ) -> Result<Vec<TextWriter<'b>>, SqlError> {
        if batch.num_columns() != self.types.len() {
            return Err(SqlError::internal(
                "a batch has other columns than its statement",
            ));
        }
        let columns = batch.columns().iter().zip(&self.types);
        Ok(columns
            .map(|(array, sql_type)| TextWriter::new(array.as_ref(), sql_type))
            .collect())
    }

    pub(super) fn line(&mut self, columns: &[TextWriter<'_>], row: usize) -> &str {
        self.line.clear();
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                self.line.push(self.options.delimiter as char);
            }
            if column.is_null(row) {
                self.line.push_str(&self.options.null);
                continue;
            }
            self.cell.clear();
            column.write(row, &mut self.cell);
            write_cell(&self.cell, &self.options, &mut self.line);
        }
        self.line.push('\n');
        &self.line
    }
}

fn write_cell(cell: &str, options: &CopyOptions, out: &mut String) {
    match options.format {
        CopyFormat::Text => write_text_cell(cell, options, out),
        CopyFormat::Csv => write_csv_cell(cell, options, out),
    }
}

fn write_text_cell(cell: &str, options: &CopyOptions, out: &mut String) {
    for c in cell.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c => {
                if c == options.delimiter as char {
                    out.push('\\');
                }
                out.push(c);
            }
        }
    }
}

/// Quoted where it would be read as something else: as NULL, as more than one cell or line, or as the end of data.
fn write_csv_cell(cell: &str, options: &CopyOptions, out: &mut String) {
    let special =
        |b: u8| b == options.delimiter || b == options.quote || matches!(b, b'\n' | b'\r');
    if cell != options.null && cell != "\\." && !cell.bytes().any(special) {
        out.push_str(cell);
        return;
    }
    out.push(options.quote as char);
    for c in cell.chars() {
        if c == options.quote as char || c == options.escape as char {
            out.push(options.escape as char);
        }
        out.push(c);
    }
    out.push(options.quote as char);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{ArrayRef, Int32Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn lines_are_those_of_postgres() {
        // copy (values (1, E'a,"b'), (null, null), (2, ''), (3, E'x\ty\\')) to stdout [csv header], in Postgres.
        let a: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(2), Some(3)]));
        let b: ArrayRef = Arc::new(StringArray::from(vec![
            Some("a,\"b"),
            None,
            Some(""),
            Some("x\ty\\"),
        ]));
        let batch = RecordBatch::try_from_iter([("a", a), ("b", b)]).unwrap();
        let lines = |options: CopyOptions| {
            let mut writer = CopyWriter::new(&batch.schema(), &options);
            let columns = writer.columns(&batch).unwrap();
            let mut all = writer.header().unwrap_or_default().to_owned();
            (0..4).for_each(|row| all.push_str(writer.line(&columns, row)));
            all
        };
        assert_eq!(
            lines(CopyOptions::of(CopyFormat::Text)),
            "1\ta,\"b\n\\N\t\\N\n2\t\n3\tx\\ty\\\\\n"
        );
        let csv = CopyOptions {
            header: true,
            ..CopyOptions::of(CopyFormat::Csv)
        };
        assert_eq!(lines(csv), "a,b\n1,\"a,\"\"b\"\n,\n2,\"\"\n3,x\ty\\\n");
    }
}

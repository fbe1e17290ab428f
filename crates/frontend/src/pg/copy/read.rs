//! `COPY` data, in pieces cut anywhere, to batches.

use crate::pg::message::utf8;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use tidegate_engine::api::{CopyFormat, CopyOptions};
use tidegate_types::text::{Value, ValueAppender, parse_text};
use tidegate_types::{SqlError, SqlState, SqlType};

/// Rows in a batch; the last has fewer.
const BATCH_ROWS: usize = 8_192;

pub(super) struct CopyReader {
    options: CopyOptions,
    schema: SchemaRef,
    types: Vec<SqlType>,
    columns: Vec<ValueAppender>,
    rows: usize,
    batches: Vec<RecordBatch>,
    /// Bytes of lines that are not complete yet.
    pending: Vec<u8>,
    /// How far `pending` was searched for the end of a line, and in which state that was.
    searched: usize,
    in_quotes: bool,
    escaped: bool,
    line: u64,
    /// `\.` was read: what follows is ignored.
    ended: bool,
}

impl CopyReader {
    pub(super) fn new(schema: &Schema, options: CopyOptions) -> Self {
        let types: Vec<SqlType> = schema
            .fields()
            .iter()
            .map(|f| SqlType::from_field(f))
            .collect();
        // Names and types as the target has them; whether NULL is allowed is the session's to check.
        let fields: Vec<_> = schema
            .fields()
            .iter()
            .zip(&types)
            .map(|(f, t)| t.field(f.name(), true))
            .collect();
        Self {
            options,
            schema: Arc::new(Schema::new(fields)),
            columns: types.iter().map(|t| ValueAppender::new(t, 0)).collect(),
            types,
            rows: 0,
            batches: Vec::new(),
            pending: Vec::new(),
            searched: 0,
            in_quotes: false,
            escaped: false,
            line: 0,
            ended: false,
        }
    }

    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), SqlError> {
        self.pending.extend_from_slice(data);
        let pending = std::mem::take(&mut self.pending);
        let mut start = 0;
        while let Some(end) = self.line_end(&pending) {
            let line = &pending[start..end];
            self.take_line(line.strip_suffix(b"\r").unwrap_or(line))?;
            start = end + 1;
        }
        self.pending = pending;
        self.pending.drain(..start);
        self.searched -= start;
        Ok(())
    }

    /// The last line needs no newline.
    pub(super) fn finish(&mut self) -> Result<(), SqlError> {
        if self.in_quotes && !self.ended {
            return Err(malformed("unterminated CSV quoted field"));
        }
        let last = std::mem::take(&mut self.pending);
        if !last.is_empty() {
            self.take_line(last.strip_suffix(b"\r").unwrap_or(&last))?;
        }
        self.cut_batch()
    }

    pub(super) fn take_batches(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.batches)
    }

    /// Where the next line ends, from where the search stopped last.
    fn line_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let csv = self.options.format == CopyFormat::Csv;
        while let Some(&byte) = bytes.get(self.searched) {
            let at = self.searched;
            self.searched += 1;
            if std::mem::take(&mut self.escaped) {
                continue;
            }
            match byte {
                b'\n' if !self.in_quotes => return Some(at),
                b'\\' if !csv => self.escaped = true,
                byte if csv
                    && self.in_quotes
                    && byte == self.options.escape
                    && byte != self.options.quote =>
                {
                    self.escaped = true;
                }
                byte if csv && byte == self.options.quote => self.in_quotes = !self.in_quotes,
                _ => {}
            }
        }
        None
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), SqlError> {
        self.line += 1;
        if self.ended || (self.line == 1 && self.options.header) {
            return Ok(());
        }
        if line == b"\\." {
            self.ended = true;
            return Ok(());
        }
        let cells = match self.options.format {
            CopyFormat::Text => text_cells(line, &self.options),
            CopyFormat::Csv => csv_cells(line, &self.options),
        };
        let mut values = Vec::with_capacity(self.types.len());
        for (index, sql_type) in self.types.iter().enumerate() {
            let name = self.schema.field(index).name();
            let cell = cells
                .get(index)
                .ok_or_else(|| malformed(format!("missing data for column \"{name}\"")));
            let value = cell.and_then(|cell| match cell {
                Some(bytes) => parse_text(utf8(bytes)?, sql_type),
                None => Ok(Value::Null),
            });
            values.push(value.map_err(|error| match error.detail {
                Some(_) => error,
                None => error.with_detail(format!("COPY line {}, column {name}.", self.line)),
            })?);
        }
        if cells.len() > self.types.len() {
            return Err(malformed("extra data after last expected column")
                .with_detail(format!("COPY line {}.", self.line)));
        }
        self.columns
            .iter_mut()
            .zip(&values)
            .for_each(|(c, v)| c.append(v));
        self.rows += 1;
        if self.rows == BATCH_ROWS {
            self.cut_batch()
        } else {
            Ok(())
        }
    }

    fn cut_batch(&mut self) -> Result<(), SqlError> {
        if self.rows > 0 {
            self.rows = 0;
            let columns = self.columns.iter_mut().map(ValueAppender::finish).collect();
            let batch =
                RecordBatch::try_new(self.schema.clone(), columns).map_err(SqlError::internal)?;
            self.batches.push(batch);
        }
        Ok(())
    }
}

fn malformed(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::BAD_COPY_FORMAT, message)
}

/// Cells of a line in text format: cut at delimiters, then `\` taken for what it stands for.
fn text_cells(line: &[u8], options: &CopyOptions) -> Vec<Option<Vec<u8>>> {
    let mut cells = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if *byte == options.delimiter => {
                cells.push(text_cell(&line[start..at], options));
                start = at + 1;
            }
            _ => {}
        }
    }
    cells.push(text_cell(&line[start..], options));
    cells
}

fn text_cell(cell: &[u8], options: &CopyOptions) -> Option<Vec<u8>> {
    if cell == options.null.as_bytes() {
        return None;
    }
    let mut out = Vec::with_capacity(cell.len());
    let mut bytes = cell.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.peek().copied() {
            Some(b'0'..=b'7') => byte_number(&mut bytes, 8, 3).unwrap_or_default(),
            Some(b'x') => {
                bytes.next();
                byte_number(&mut bytes, 16, 2).unwrap_or(b'x')
            }
            Some(letter) => {
                bytes.next();
                match letter {
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 0x0b,
                    other => other,
                }
            }
            None => b'\\',
        });
    }
    Some(out)
}

/// A byte from at most so many digits; what does not fit into a byte is cut off, as in Postgres.
fn byte_number(
    bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>,
    radix: u32,
    most: usize,
) -> Option<u8> {
    let mut value = None;
    for _ in 0..most {
        let Some(digit) = bytes.peek().and_then(|b| (*b as char).to_digit(radix)) else {
            break;
        };
        bytes.next();
        value = Some(value.unwrap_or(0) * radix + digit);
    }
    value.map(|v| v as u8)
}

/// Cells of a CSV record. What is quoted is never NULL; quotes may begin anywhere in a cell.
fn csv_cells(line: &[u8], options: &CopyOptions) -> Vec<Option<Vec<u8>>> {
    let mut cells = Vec::new();
    let (mut cell, mut quoted, mut in_quotes) = (Vec::new(), false, false);
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        at += 1;
        if in_quotes {
            let next = line.get(at).copied();
            if byte == options.escape
                && next.is_some_and(|n| n == options.quote || n == options.escape)
            {
                cell.extend(next);
                at += 1;
            } else if byte == options.quote {
                in_quotes = false;
            } else {
                cell.push(byte);
            }
        } else if byte == options.quote {
            (quoted, in_quotes) = (true, true);
        } else if byte == options.delimiter {
            cells.push(csv_cell(&mut cell, &mut quoted, options));
        } else {
            cell.push(byte);
        }
    }
    cells.push(csv_cell(&mut cell, &mut quoted, options));
    cells
}

fn csv_cell(cell: &mut Vec<u8>, quoted: &mut bool, options: &CopyOptions) -> Option<Vec<u8>> {
    let (cell, quoted) = (std::mem::take(cell), std::mem::take(quoted));
    (quoted || cell != options.null.as_bytes()).then_some(cell)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tidegate_types::text::TextWriter;

    fn read(options: &CopyOptions, data: &[u8], piece: usize) -> Result<Vec<String>, SqlError> {
        let schema = Schema::new(vec![
            SqlType::Integer.field("a", true),
            SqlType::Text.field("b", true),
        ]);
        let mut reader = CopyReader::new(&schema, options.clone());
        data.chunks(piece).try_for_each(|d| reader.push(d))?;
        reader.finish()?;
        let mut rows = Vec::new();
        for batch in reader.take_batches() {
            let cell = |column: usize, row: usize| {
                let writer = TextWriter::new(batch.column(column), &SqlType::Text);
                let mut out = String::new();
                writer.write(row, &mut out);
                if writer.is_null(row) {
                    "∅".to_owned()
                } else {
                    out
                }
            };
            rows.extend(
                (0..batch.num_rows()).map(|row| format!("{}|{}", cell(0, row), cell(1, row))),
            );
        }
        Ok(rows)
    }

    #[test]
    fn text_is_read_however_it_is_cut() {
        // copy t from stdin, then select a, b from t, in Postgres.
        let data = b"1\tx\n\\N\t\\N\n2\ta\\tb\\\\c\\x41\\101\n3\tl1\\\nl2\r\n4\t\n\\.\nignored\n";
        let expected = ["1|x", "∅|∅", "2|a\tb\\cAA", "3|l1\nl2", "4|"];
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(
                read(&CopyOptions::of(CopyFormat::Text), data, piece).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn csv_is_read_however_it_is_cut() {
        let data = b"a,b\n1,\"x, \"\"y\"\"\"\n,\n2,\"\"\n3,\"l1\nl2\"\r\n4,p\"q r\"s\n5,last";
        let options = CopyOptions {
            header: true,
            ..CopyOptions::of(CopyFormat::Csv)
        };
        let expected = ["1|x, \"y\"", "∅|∅", "2|", "3|l1\nl2", "4|pq rs", "5|last"];
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(read(&options, data, piece).unwrap(), expected);
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let text = CopyOptions::of(CopyFormat::Text);
        let cases: [(&[u8], &str, &str); 4] = [
            (b"1\n", "22P04", "missing data for column \"b\""),
            (
                b"1\tx\ty\n",
                "22P04",
                "extra data after last expected column",
            ),
            (
                b"1\tx\nz\tx\n",
                "22P02",
                "invalid input syntax for type integer: \"z\"",
            ),
            (
                b"1\t\xff\n",
                "22021",
                "invalid byte sequence for encoding \"UTF8\": 0xff",
            ),
        ];
        for (data, state, message) in cases {
            let error = read(&text, data, 1000).unwrap_err();
            assert_eq!(
                (error.state.code(), error.message.as_str()),
                (state, message)
            );
        }
        let error = read(&CopyOptions::of(CopyFormat::Csv), b"1,\"x\n", 1000).unwrap_err();
        assert_eq!(error.message, "unterminated CSV quoted field");
    }
}

//! What the tests of several modules need: batches as lines of text, and readers read to their ends.

#![allow(clippy::unwrap_used)]

use crate::{DecodeError, Next, Offset, Source, SplitId, SplitReader};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_types::SqlType;
use tidegate_types::text::TextWriter;

pub fn schema(columns: &[(&str, SqlType)]) -> SchemaRef {
    let fields = columns
        .iter()
        .map(|(name, sql_type)| sql_type.field(name, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

/// Each row as its values in Postgres's text form between bars.
pub fn lines(batch: &RecordBatch) -> Vec<String> {
    let schema = batch.schema();
    let types = schema
        .fields()
        .iter()
        .map(|f| SqlType::from_field(f))
        .collect::<Vec<_>>();
    let columns = batch.columns().iter().zip(&types);
    let writers = columns
        .map(|(a, t)| TextWriter::new(a, t))
        .collect::<Vec<_>>();
    (0..batch.num_rows())
        .map(|row| {
            let cell = |writer: &TextWriter<'_>| match writer.is_null(row) {
                true => "NULL".to_owned(),
                false => {
                    let mut text = String::new();
                    writer.write(row, &mut text);
                    text
                }
            };
            writers.iter().map(cell).collect::<Vec<_>>().join("|")
        })
        .collect()
}

/// Everything that a reader gives until it is finished or idle.
#[derive(Debug, Default, PartialEq)]
pub struct Read {
    pub rows: Vec<String>,
    pub errors: Vec<DecodeError>,
    /// The offset after each chunk, with the number of rows so far.
    pub offsets: Vec<(Offset, usize)>,
    pub finished: bool,
}

pub fn read(reader: &mut dyn SplitReader, max_rows: usize, until: Option<&Offset>) -> Read {
    let mut read = Read::default();
    loop {
        let before = reader.offset();
        let next = reader.next(max_rows, until).unwrap();
        let moved = reader.offset() != before;
        assert!(
            !moved || matches!(next, Next::Chunk(_)),
            "the offset moves with chunks"
        );
        match next {
            Next::Chunk(chunk) => {
                assert!(chunk.batch.num_rows() + chunk.errors.len() <= max_rows);
                read.rows.extend(lines(&chunk.batch));
                read.errors.extend(chunk.errors);
                read.offsets.push((reader.offset(), read.rows.len()));
            }
            Next::Idle => return read,
            Next::WaitUntil(at) => {
                std::thread::sleep(at.saturating_duration_since(std::time::Instant::now()));
            }
            Next::Finished => {
                read.finished = true;
                return read;
            }
        }
    }
}

/// The rows of all splits, sorted.
pub fn read_all(source: &dyn Source, max_rows: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for split in source.splits().unwrap() {
        let read = read(
            &mut *source.open(&split, None, None).unwrap(),
            max_rows,
            None,
        );
        assert!(read.finished);
        rows.extend(read.rows);
    }
    rows.sort();
    rows
}

/// Whoever stops anywhere and goes on from the offset, in whatever portions, gets the same rows.
pub fn check_resuming(source: &dyn Source, split: &SplitId, portions: &[usize]) {
    let whole = read(&mut *source.open(split, None, None).unwrap(), 1 << 20, None);
    assert!(whole.finished);
    for portion in portions {
        let parts = read(
            &mut *source.open(split, None, None).unwrap(),
            *portion,
            None,
        );
        assert_eq!((&parts.rows, &parts.errors), (&whole.rows, &whole.errors));
        let step = (parts.offsets.len() / 5).max(1);
        for (offset, rows) in parts.offsets.iter().step_by(step) {
            let bytes = offset.encode();
            assert_eq!(Offset::decode(&bytes), Some(*offset));
            let rest = read(
                &mut *source.open(split, Some(offset), None).unwrap(),
                1000,
                None,
            );
            assert_eq!(rest.rows, whole.rows[*rows..]);
            let mut replay = source.open(split, None, None).unwrap();
            let first = read(&mut *replay, 777, Some(offset));
            assert_eq!(
                (first.rows.as_slice(), replay.offset()),
                (&whole.rows[..*rows], *offset)
            );
        }
    }
}

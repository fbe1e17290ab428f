//! Formats: bytes to columns and back.
//!
//! Decoding is a [`Decoder`] that reads records from the front of a buffer into [`column::Column`]s; a record that fails
//! is rolled back and set aside as a [`DecodeError`], and the next one is read. Encoding is an [`Encoder`] that appends
//! the rows of a batch to a file.

pub(crate) mod column;
pub(crate) mod csv;
pub(crate) mod json;
pub(crate) mod parquet;
pub(crate) mod timestamp;
pub(crate) mod write;

use crate::options::{Options, unknown};
use crate::{ConnectorError, Offset};
use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use tidegate_types::{SqlError, SqlState};

/// A record longer than this is set aside, so that one lost quote cannot swallow a file into memory.
pub const MAX_RECORD_BYTES: usize = 16 << 20;
/// How often decoders look whether their columns are full. So many of the longest records fit what is left then.
const ROWS_BETWEEN_CHECKS: usize = 16;
/// How much of an undecodable record is kept.
const RAW_BYTES: usize = 256;

/// How values are written as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encode {
    Json,
    Csv,
    Parquet,
}

/// The clause `FORMAT PLAIN ENCODE … (…)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub encode: Encode,
    pub options: BTreeMap<String, String>,
}

impl Format {
    /// Checks the words of the clause; their options are checked by who uses the format.
    pub fn new(
        format: &str,
        encode: &str,
        options: BTreeMap<String, String>,
    ) -> Result<Self, ConnectorError> {
        match format.to_ascii_uppercase().as_str() {
            "PLAIN" => {}
            other @ ("UPSERT" | "DEBEZIUM" | "DEBEZIUM_MONGO" | "MAXWELL" | "CANAL" | "NATIVE") => {
                return Err(ConnectorError::not_supported(format!("FORMAT {other}")));
            }
            _ => return Err(unknown("format", format, "", &["PLAIN"])),
        }
        let encode = match encode.to_ascii_uppercase().as_str() {
            "JSON" => Encode::Json,
            "CSV" => Encode::Csv,
            "PARQUET" => Encode::Parquet,
            other @ ("AVRO" | "PROTOBUF" | "BYTES" | "TEXT" | "TEMPLATE") => {
                return Err(ConnectorError::not_supported(format!("ENCODE {other}")));
            }
            _ => return Err(unknown("encoding", encode, "", &["JSON", "CSV", "PARQUET"])),
        };
        Ok(Self { encode, options })
    }

    /// How this format reads lines into columns of this schema.
    pub(crate) fn decoder_factory(
        &self,
        schema: &SchemaRef,
    ) -> Result<DecoderFactory, ConnectorError> {
        for field in schema.fields() {
            column::Column::check(field)?;
        }
        match self.encode {
            Encode::Json => {
                Options::new("ENCODE JSON", &self.options, NO_OPTIONS)?;
                Ok(DecoderFactory::Json)
            }
            Encode::Csv => Ok(DecoderFactory::Csv(csv::Dialect::of(&self.options)?)),
            Encode::Parquet => Err(ConnectorError::not_supported("reading ENCODE PARQUET")),
        }
    }

    pub(crate) fn encoder_factory(
        &self,
        schema: &SchemaRef,
    ) -> Result<EncoderFactory, ConnectorError> {
        match self.encode {
            Encode::Json => {
                Options::new("ENCODE JSON", &self.options, NO_OPTIONS)?;
                Ok(EncoderFactory::Json)
            }
            Encode::Csv => Ok(EncoderFactory::Csv(csv::Dialect::of(&self.options)?)),
            Encode::Parquet => Ok(EncoderFactory::Parquet(parquet::Settings::of(
                schema,
                &self.options,
            )?)),
        }
    }
}

const NO_OPTIONS: &[&str] = &[];

/// A record that could not become a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeError {
    pub state: SqlState,
    pub message: String,
    /// The beginning of the record.
    pub raw: Vec<u8>,
    /// Where the record begins.
    pub offset: Offset,
}

impl DecodeError {
    pub(crate) fn new(error: SqlError, record: &[u8], offset: Offset) -> Self {
        let record = record.trim_ascii_end();
        Self {
            state: error.state,
            message: error.message,
            raw: record[..record.len().min(RAW_BYTES)].to_vec(),
            offset,
        }
    }
}

/// Says in which column.
fn in_column(mut error: SqlError, name: &str) -> SqlError {
    error.message = format!("column \"{name}\": {}", error.message);
    error
}

/// Reads records of one split, in order, into a batch.
pub(crate) trait Decoder: Send {
    /// Reads what precedes the first record. Returns its length in bytes and lines, or `None` if more input is needed.
    /// `end`: there will be no more.
    fn preamble(&mut self, input: &[u8], end: bool) -> Result<Option<Consumed>, SqlError>;

    /// Reads records from the front of `input`, which begins at `at`, until `max_rows` rows and errors, or the last
    /// complete record. `end`: what is left is complete. Consuming nothing means that the first record is not complete.
    fn decode(&mut self, input: &[u8], end: bool, at: Offset, max_rows: usize) -> Consumed;

    /// Rows and errors since the last `finish`.
    fn pending(&self) -> usize;

    /// A column holds as many bytes as a batch should: finish it before reading on.
    fn is_full(&self) -> bool;

    fn finish(&mut self) -> (RecordBatch, Vec<DecodeError>);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Consumed {
    pub bytes: usize,
    pub lines: u64,
}

/// The columns that a projection leaves, in its order.
pub(crate) fn projected(schema: &SchemaRef, projection: Option<&[usize]>) -> SchemaRef {
    match projection {
        None => schema.clone(),
        Some(indices) => Arc::new(
            schema
                .project(indices)
                .expect("a projection names columns of the schema"),
        ),
    }
}

/// Bytes of the mark that some programs put in front of UTF-8; `None` while there are too few to tell.
fn byte_order_mark(input: &[u8], end: bool) -> Option<usize> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    if input.starts_with(MARK) {
        Some(MARK.len())
    } else if !end && MARK.starts_with(input) {
        None
    } else {
        Some(0)
    }
}

fn not_utf8() -> SqlError {
    SqlError::new(
        SqlState::from_code("22021"),
        "invalid byte sequence for encoding \"UTF8\"",
    )
}

/// A file offset behind what was consumed.
pub(crate) fn advance(at: Offset, consumed: Consumed) -> Offset {
    match at {
        Offset::File { bytes, lines } => Offset::File {
            bytes: bytes + consumed.bytes as u64,
            lines: lines + consumed.lines,
        },
        Offset::Number(n) => Offset::Number(n + consumed.bytes as u64),
    }
}

pub(crate) enum DecoderFactory {
    Json,
    Csv(csv::Dialect),
}

impl DecoderFactory {
    /// A decoder of the projected columns of a schema.
    pub(crate) fn create(
        &self,
        schema: &SchemaRef,
        projection: Option<&[usize]>,
    ) -> Box<dyn Decoder> {
        match self {
            DecoderFactory::Json => Box::new(json::JsonDecoder::new(schema, projection)),
            DecoderFactory::Csv(dialect) => {
                Box::new(csv::CsvDecoder::new(schema, projection, dialect.clone()))
            }
        }
    }
}

/// Appends rows to one file.
pub(crate) trait Encoder: Send {
    /// Rows with their diffs when the file has a column for them. Otherwise each row counts once.
    fn write(&mut self, rows: &RecordBatch, diffs: Option<&Int64Array>) -> io::Result<()>;

    /// Writes what is buffered, and gives the file back for syncing.
    fn finish(self: Box<Self>) -> io::Result<File>;
}

pub(crate) enum EncoderFactory {
    Json,
    Csv(csv::Dialect),
    Parquet(parquet::Settings),
}

impl EncoderFactory {
    /// `changelog`: every row is followed by its diff.
    pub(crate) fn create(
        &self,
        file: File,
        schema: &SchemaRef,
        changelog: bool,
    ) -> io::Result<Box<dyn Encoder>> {
        Ok(match self {
            EncoderFactory::Json => Box::new(write::JsonEncoder::new(file, schema, changelog)),
            EncoderFactory::Csv(dialect) => {
                Box::new(write::CsvEncoder::new(file, schema, changelog, dialect))
            }
            EncoderFactory::Parquet(settings) => {
                Box::new(parquet::ParquetEncoder::new(file, settings, changelog)?)
            }
        })
    }

    pub(crate) fn extension(&self) -> &'static str {
        match self {
            EncoderFactory::Json => "jsonl",
            EncoderFactory::Csv(_) => "csv",
            EncoderFactory::Parquet(_) => "parquet",
        }
    }
}

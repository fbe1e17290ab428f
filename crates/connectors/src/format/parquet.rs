//! Batches to Parquet files.
//!
//! Columns keep their Arrow types, except that Parquet has no interval of months, days and nanoseconds: intervals are
//! written as text. Option: `compression` (`zstd`, `snappy`, `lz4`, `none`).

use super::{Encoder, write};
use crate::ConnectorError;
use crate::options::Options;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use tidegate_types::SqlType;
use tidegate_types::text::to_text;

/// A row group is written out when its encoded form has grown to so much.
const ROW_GROUP_BYTES: usize = 32 << 20;

pub(crate) struct Settings {
    schema: SchemaRef,
    compression: Compression,
}

impl Settings {
    pub fn of(
        schema: &SchemaRef,
        options: &BTreeMap<String, String>,
    ) -> Result<Self, ConnectorError> {
        let options = Options::new("ENCODE PARQUET", options, &["compression"])?;
        let compression = match options
            .text("compression")
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            None | Some("zstd") => Compression::ZSTD(ZstdLevel::default()),
            Some("snappy") => Compression::SNAPPY,
            Some("lz4") => Compression::LZ4_RAW,
            Some("none" | "uncompressed") => Compression::UNCOMPRESSED,
            Some(_) => return Err(options.wrong("compression", "zstd, snappy, lz4 or none")),
        };
        let fields = schema
            .fields()
            .iter()
            .map(|field| written_field(field))
            .collect::<Vec<_>>();
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            compression,
        })
    }
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(IntervalUnit::MonthDayNano))
}

fn written_field(field: &Field) -> Field {
    match field.data_type() {
        t if is_interval(t) => Field::new(field.name(), DataType::Utf8, field.is_nullable()),
        DataType::List(element) if is_interval(element.data_type()) => {
            let element = Arc::new(written_field(element));
            Field::new(field.name(), DataType::List(element), field.is_nullable())
        }
        _ => field.clone(),
    }
}

pub(crate) struct ParquetEncoder {
    writer: ArrowWriter<File>,
    schema: SchemaRef,
    changelog: bool,
}

impl ParquetEncoder {
    pub fn new(file: File, settings: &Settings, changelog: bool) -> io::Result<Self> {
        let mut fields = settings.schema.fields().to_vec();
        if changelog {
            let diff = Field::new(write::DIFF_COLUMN, DataType::Int64, false);
            fields.push(Arc::new(diff));
        }
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_compression(settings.compression)
            .build();
        let writer =
            ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(io_error)?;
        Ok(Self {
            writer,
            schema,
            changelog,
        })
    }
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, rows: &RecordBatch, diffs: Option<&Int64Array>) -> io::Result<()> {
        let mut columns = rows.columns().iter().map(written_array).collect::<Vec<_>>();
        if self.changelog {
            let ones = || Int64Array::from(vec![1; rows.num_rows()]);
            columns.push(Arc::new(diffs.cloned().unwrap_or_else(ones)));
        }
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(io::Error::other)?;
        self.writer.write(&batch).map_err(io_error)?;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush().map_err(io_error)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<File> {
        self.writer.into_inner().map_err(io_error)
    }
}

/// Parquet wraps the error of the file; a full disk has to be recognised as such.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(io) => *io,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}

fn written_array(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        t if is_interval(t) => texts(array),
        DataType::List(element) if is_interval(element.data_type()) => {
            let list = array.as_list::<i32>();
            Arc::new(ListArray::new(
                Arc::new(written_field(element)),
                list.offsets().clone(),
                texts(list.values()),
                list.nulls().cloned(),
            ))
        }
        _ => array.clone(),
    }
}

fn texts(array: &ArrayRef) -> ArrayRef {
    Arc::new(to_text(array, &SqlType::Interval))
}

#![allow(clippy::unwrap_used)]

use crate::format::Format;
use crate::source::datagen::DatagenSource;
use crate::testing::{lines, options, read, schema};
use crate::{Next, Offset, Source, SplitId, source};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use tidegate_types::SqlType;

fn every_type() -> SchemaRef {
    schema(&[
        ("b", SqlType::Boolean),
        ("i2", SqlType::SmallInt),
        ("i4", SqlType::Integer),
        ("i8", SqlType::BigInt),
        ("f4", SqlType::Real),
        ("f8", SqlType::Double),
        (
            "n",
            SqlType::Numeric {
                precision: 12,
                scale: 3,
            },
        ),
        ("t", SqlType::Text),
        ("v", SqlType::Varchar { length: 9 }),
        ("y", SqlType::Bytea),
        ("d", SqlType::Date),
        ("h", SqlType::Time),
        ("s", SqlType::Timestamp),
        ("z", SqlType::TimestampTz),
        ("p", SqlType::Interval),
        ("u", SqlType::Uuid),
        ("j", SqlType::Jsonb),
        ("ai", SqlType::Array(Box::new(SqlType::Integer))),
        ("at", SqlType::Array(Box::new(SqlType::Text))),
        ("as", SqlType::Array(Box::new(SqlType::Timestamp))),
    ])
}

/// Random rows of every type, then the same with NULLs between them.
fn rows() -> RecordBatch {
    let source = DatagenSource::new(&every_type(), &options(&[("rows", "200")])).unwrap();
    let mut reader = source.open(&SplitId::new("0"), None, None).unwrap();
    let Next::Chunk(chunk) = reader.next(200, None).unwrap() else {
        panic!("rows were asked for")
    };
    let batch = chunk.batch;
    let gaps = arrow::array::UInt32Array::from_iter((0..100u32).map(|n| (n % 3 > 0).then_some(n)));
    let sparse = arrow::compute::take_record_batch(&batch, &gaps).unwrap();
    concat_batches(&batch.schema(), [&batch, &sparse]).unwrap()
}

fn written(format: &Format, batch: &RecordBatch, changelog: Option<&Int64Array>) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let factory = format.encoder_factory(&batch.schema()).unwrap();
    let file = File::create(&path).unwrap();
    let mut encoder = factory
        .create(file, &batch.schema(), changelog.is_some())
        .unwrap();
    encoder.write(batch, changelog).unwrap();
    encoder.finish().unwrap().sync_all().unwrap();
    std::fs::read(&path).unwrap()
}

fn format(encode: &str, pairs: &[(&str, &str)]) -> Format {
    Format::new("plain", encode, options(pairs)).unwrap()
}

#[test]
fn what_is_written_reads_back() {
    let batch = rows();
    for format in [
        format("json", &[]),
        format("csv", &[]),
        format(
            "csv",
            &[
                ("header", "false"),
                ("delimiter", "|"),
                ("null", "\\N"),
                ("quote", "'"),
            ],
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in");
        std::fs::write(&path, written(&format, &batch, None)).unwrap();
        let pairs = options(&[("path", path.to_str().unwrap())]);
        let source = source("file", &batch.schema(), &pairs, Some(&format)).unwrap();
        let split = source.splits().unwrap().remove(0);
        let read = read(&mut *source.open(&split, None, None).unwrap(), 70, None);
        assert_eq!(read.errors, []);
        assert_eq!(read.rows, lines(&batch));
    }
}

#[test]
fn json_and_csv_as_people_expect_them() {
    let schema = schema(&[
        ("id", SqlType::BigInt),
        ("name", SqlType::Text),
        ("at", SqlType::TimestampTz),
        ("doc", SqlType::Jsonb),
    ]);
    let at = arrow::array::TimestampMicrosecondArray::from(vec![Some(1_500_000), None]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2])),
        Arc::new(StringArray::from(vec![
            Some("say \"hi\",\n\u{1}"),
            Some(""),
        ])),
        Arc::new(at.with_timezone("UTC")),
        Arc::new(StringArray::from(vec![Some("{\"a\": 1}"), None])),
    ];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    let diffs = Int64Array::from(vec![1, -2]);
    assert_eq!(
        String::from_utf8(written(&format("json", &[]), &batch, Some(&diffs))).unwrap(),
        "{\"id\":1,\"name\":\"say \\\"hi\\\",\\n\\u0001\",\"at\":\"1970-01-01T00:00:01.5Z\",\"doc\":{\"a\": 1},\"diff\":1}\n\
         {\"id\":2,\"name\":\"\",\"at\":null,\"doc\":null,\"diff\":-2}\n"
    );
    assert_eq!(
        String::from_utf8(written(&format("csv", &[]), &batch, Some(&diffs))).unwrap(),
        "id,name,at,doc,diff\n\
         1,\"say \"\"hi\"\",\n\u{1}\",1970-01-01 00:00:01.5+00,\"{\"\"a\"\": 1}\",1\n\
         2,\"\",,,-2\n"
    );
}

#[test]
fn floats_that_are_no_numbers_are_quoted() {
    let schema = schema(&[("f", SqlType::Double)]);
    let values = vec![1e300, f64::NAN, f64::NEG_INFINITY, -0.5];
    let column: ArrayRef = Arc::new(arrow::array::Float64Array::from(values));
    let batch = RecordBatch::try_new(schema, vec![column]).unwrap();
    let text = String::from_utf8(written(&format("json", &[]), &batch, None)).unwrap();
    assert_eq!(
        text,
        "{\"f\":1e+300}\n{\"f\":\"NaN\"}\n{\"f\":\"-Infinity\"}\n{\"f\":-0.5}\n"
    );
}

#[test]
fn parquet_is_readable_with_another_reader() {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let batch = rows();
    let diffs = Int64Array::from(
        (0..batch.num_rows() as i64)
            .map(|n| n % 5 - 2)
            .collect::<Vec<_>>(),
    );
    for compression in ["zstd", "snappy", "lz4", "none"] {
        let bytes = written(
            &format("parquet", &[("compression", compression)]),
            &batch,
            Some(&diffs),
        );
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.parquet");
        std::fs::write(&path, bytes).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        let batches = reader
            .build()
            .unwrap()
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let read = concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(read.schema().field(read.num_columns() - 1).name(), "diff");
        let expected = lines(&batch);
        let expected = expected
            .iter()
            .zip(diffs.values())
            .map(|(line, diff)| format!("{line}|{diff}"));
        assert_eq!(lines(&read), expected.collect::<Vec<_>>());
    }
}

#[test]
fn formats_are_checked() {
    for (format, encode, state, named) in [
        ("plain", "yaml", "22023", "yaml"),
        ("debezium", "json", "0A000", "DEBEZIUM"),
        ("plain", "avro", "0A000", "AVRO"),
        ("fancy", "json", "22023", "fancy"),
    ] {
        let error = Format::new(format, encode, BTreeMap::new()).unwrap_err();
        assert_eq!(error.sql().state.code(), state);
        assert!(error.to_string().contains(named), "{error}");
    }
    let offset = Offset::File {
        bytes: 10,
        lines: 2,
    };
    assert_eq!(offset.to_string(), "byte 10 (line 3)");
}

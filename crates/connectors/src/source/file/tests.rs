#![allow(clippy::unwrap_used, clippy::print_stdout)]

use super::*;
use crate::testing::{check_resuming, options, read, read_all, schema};
use std::io::Write;
use std::sync::Arc;
use tempfile::TempDir;
use tidegate_types::SqlType;

fn columns() -> SchemaRef {
    schema(&[("id", SqlType::BigInt), ("name", SqlType::Text)])
}

fn source_with(path: &Path, encode: &str, pairs: &[(&str, &str)]) -> Arc<dyn Source> {
    let mut all = options(pairs);
    all.insert("path".into(), path.to_str().unwrap().into());
    let format = Format::new("PLAIN", encode, BTreeMap::new()).unwrap();
    crate::source("file", &columns(), &all, Some(&format)).unwrap()
}

fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn only_split(source: &dyn Source) -> SplitId {
    let mut splits = source.splits().unwrap();
    assert_eq!(splits.len(), 1);
    splits.remove(0)
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Several blocks of lines, a few of them bad.
fn many_lines(count: usize) -> String {
    (0..count)
        .map(|n| match n % 97 {
            13 => format!("{{\"id\":{n},\"name\":\n"),
            14 => "\n".to_owned(),
            _ => format!("{{\"id\":{n},\"name\":\"{}\"}}\n", "x".repeat(n % 60)),
        })
        .collect()
}

#[test]
fn resuming_and_portions_make_no_difference() {
    let directory = directory();
    let json = directory.path().join("a.json");
    append(&json, &many_lines(40_000));
    let source = source_with(&json, "json", &[]);
    check_resuming(&*source, &only_split(&*source), &[1000, 4096]);

    let csv = directory.path().join("a.csv");
    let lines = (0..3000).map(|n| {
        format!(
            "\"row\n{n}\",{}\n",
            if n % 50 == 7 {
                "x".into()
            } else {
                n.to_string()
            }
        )
    });
    append(&csv, &format!("name,id\n{}", lines.collect::<String>()));
    let source = source_with(&csv, "csv", &[]);
    check_resuming(&*source, &only_split(&*source), &[1, 100]);
}

#[test]
fn errors_say_where_they_are() {
    let directory = directory();
    let file = directory.path().join("a.json");
    let text = many_lines(20_000);
    append(&file, &text);
    let source = source_with(&file, "json", &[]);
    let read = read(
        &mut *source.open(&only_split(&*source), None, None).unwrap(),
        500,
        None,
    );
    assert_eq!(
        read.rows.len() + read.errors.len(),
        text.lines().filter(|l| !l.is_empty()).count()
    );
    assert!(read.errors.len() > 200);
    let lines = text.lines().collect::<Vec<_>>();
    for error in &read.errors {
        let Offset::File { bytes, lines: line } = error.offset else {
            panic!()
        };
        assert!(text[bytes as usize..].starts_with(lines[line as usize]));
        assert_eq!(error.raw, lines[line as usize].as_bytes());
    }
}

#[test]
fn directories_and_globs() {
    let directory = directory();
    for (name, id) in [
        ("b.json", 2),
        ("a.json", 1),
        (".hidden.json", 8),
        ("_tmp.json", 9),
        ("c.txt", 3),
    ] {
        append(&directory.path().join(name), &format!("{{\"id\":{id}}}"));
    }
    fs::create_dir(directory.path().join("below")).unwrap();
    let ids = |source: Arc<dyn Source>| read_all(&*source, 10);
    assert_eq!(
        ids(source_with(directory.path(), "json", &[])),
        ["1|NULL", "2|NULL", "3|NULL"]
    );
    let glob = source_with(&directory.path().join("*.json"), "json", &[]);
    let names = glob.splits().unwrap();
    assert!(names.iter().any(|n| n.as_str().ends_with("/a.json")));
    let glob = source_with(&directory.path().join("[ab].json"), "json", &[]);
    assert_eq!(ids(glob), ["1|NULL", "2|NULL"]);
    let missing = source_with(&directory.path().join("missing.json"), "json", &[]);
    let error = missing.splits().unwrap_err();
    assert_eq!(error.sql().state.code(), "58P01");
    assert!(error.to_string().contains("missing.json"), "{error}");
}

#[test]
fn following_finds_lines_and_files_that_are_added() {
    let directory = directory();
    let file = directory.path().join("a.json");
    append(&file, "{\"id\":1}\n{\"id\":2");
    let source = source_with(directory.path(), "json", &[("follow", "true")]);
    assert!(!source.bounded());
    let split = only_split(&*source);
    let mut reader = source.open(&split, None, None).unwrap();
    let first = read(&mut *reader, 10, None);
    assert_eq!(
        (first.rows.as_slice(), first.finished),
        (&["1|NULL".to_owned()][..], false)
    );
    assert_eq!(read(&mut *reader, 10, None).rows.len(), 0);
    append(&file, "2,\"name\":\"x\"}\n{\"id\":3}\n");
    assert_eq!(read(&mut *reader, 10, None).rows, ["22|x", "3|NULL"]);
    append(&directory.path().join("b.json"), "{\"id\":4}\n");
    let splits = source.splits().unwrap();
    assert_eq!(splits.len(), 2);
    let mut second = source.open(&splits[1], None, None).unwrap();
    assert_eq!(read(&mut *second, 10, None).rows, ["4|NULL"]);
    // Resuming sees what was not there before.
    let offset = reader.offset();
    append(&file, "{\"id\":5}\n");
    let mut resumed = source.open(&split, Some(&offset), None).unwrap();
    assert_eq!(read(&mut *resumed, 10, None).rows, ["5|NULL"]);
}

#[test]
fn a_followed_csv_waits_for_its_header() {
    let directory = directory();
    let file = directory.path().join("a.csv");
    append(&file, "");
    let source = source_with(&file, "csv", &[("follow", "true")]);
    let mut reader = source.open(&only_split(&*source), None, None).unwrap();
    assert_eq!(
        read(&mut *reader, 10, None),
        crate::testing::Read::default()
    );
    append(&file, "name,");
    assert_eq!(read(&mut *reader, 10, None).rows.len(), 0);
    append(&file, "id\n\"a\nb\",1\n\"c");
    assert_eq!(read(&mut *reader, 10, None).rows, ["1|a\nb"]);
    append(&file, "\",2\n");
    assert_eq!(read(&mut *reader, 10, None).rows, ["2|c"]);
}

/// Whoever replays up to where another reader stands gets there, also where nothing but blanks is left to read.
#[test]
fn blank_lines_and_headers_alone_move_the_offset() {
    let directory = directory();
    for (encode, text) in [
        ("json", "{\"id\":1}\n\n  \n"),
        ("csv", "id\n"),
        ("csv", "id,name\n1,\n\n\n"),
    ] {
        let file = directory.path().join("a");
        fs::write(&file, text).unwrap();
        let source = source_with(&file, encode, &[]);
        let split = only_split(&*source);
        let mut shared = source.open(&split, None, None).unwrap();
        assert!(read(&mut *shared, 10, None).finished);
        let end = shared.offset();
        assert_eq!(end.position(), text.len() as u64);
        let mut replay = source.open(&split, None, None).unwrap();
        read(&mut *replay, 1, Some(&end));
        assert_eq!(replay.offset(), end);
    }
}

#[test]
fn truncated_and_missing_files_are_named() {
    let directory = directory();
    let file = directory.path().join("a.json");
    append(&file, "{\"id\":1}\n{\"id\":2}\n");
    let source = source_with(&file, "json", &[("follow", "true")]);
    let split = only_split(&*source);
    let mut reader = source.open(&split, None, None).unwrap();
    assert_eq!(read(&mut *reader, 10, None).rows.len(), 2);
    let offset = reader.offset();
    fs::write(&file, "{\"id\":1}\n").unwrap();
    for error in [
        reader.next(10, None).unwrap_err(),
        source.open(&split, Some(&offset), None).err().unwrap(),
    ] {
        assert!(matches!(error, ConnectorError::Lost(_)));
        assert_eq!(error.sql().state.code(), "55000");
        assert!(error.to_string().contains("a.json"), "{error}");
    }
    fs::remove_file(&file).unwrap();
    let error = source.open(&split, Some(&offset), None).err().unwrap();
    assert!(
        matches!(error, ConnectorError::Lost(_)) && error.to_string().contains("no longer exists")
    );
}

#[test]
fn an_endless_line_is_set_aside() {
    let directory = directory();
    let file = directory.path().join("a.json");
    append(&file, "{\"id\":1}\n{\"name\":\"");
    append(&file, &"x".repeat(MAX_RECORD_BYTES + 2 * READ_BYTES));
    append(&file, "\"}\n{\"id\":2}\n");
    let source = source_with(&file, "json", &[]);
    let split = only_split(&*source);
    check_resuming(&*source, &split, &[1]);
    let read = read(&mut *source.open(&split, None, None).unwrap(), 10, None);
    assert_eq!(read.rows, ["1|NULL", "2|NULL"]);
    assert_eq!(read.errors.len(), 1);
    assert_eq!(read.errors[0].state.code(), "54000");
    assert_eq!(read.errors[0].offset, Offset::File { bytes: 9, lines: 1 });
}

#[test]
fn projections_decode_less() {
    let directory = directory();
    let file = directory.path().join("a.json");
    append(&file, "{\"id\":\"not a number\",\"name\":\"x\"}\n");
    let source = source_with(&file, "json", &[]);
    let split = only_split(&*source);
    let read = read(
        &mut *source.open(&split, None, Some(&[1])).unwrap(),
        10,
        None,
    );
    assert_eq!(
        (read.rows.as_slice(), read.errors.len()),
        (&["x".to_owned()][..], 0)
    );
}

#[test]
fn statements_are_checked() {
    let format = Format::new("PLAIN", "JSON", BTreeMap::new()).unwrap();
    let make = |pairs: &[(&str, &str)], format: Option<&Format>| {
        FileSource::new(&columns(), &options(pairs), format)
            .err()
            .unwrap()
    };
    assert!(make(&[], Some(&format)).to_string().contains("\"path\""));
    assert!(
        make(&[("path", "/tmp/x")], None)
            .sql()
            .hint
            .as_deref()
            .unwrap()
            .contains("ENCODE")
    );
    assert!(
        make(&[("path", "/tmp/x"), ("follow", "perhaps")], Some(&format))
            .to_string()
            .contains("follow")
    );
    let error = make(&[("path", "/tmp/x"), ("tail", "true")], Some(&format));
    assert!(error.sql().hint.as_deref().unwrap().contains("follow"));
    let record = SqlType::Record(vec![("a".into(), SqlType::Text)]);
    let error = FileSource::new(
        &schema(&[("r", record)]),
        &options(&[("path", "/tmp/x")]),
        Some(&format),
    );
    assert_eq!(error.err().unwrap().sql().state.code(), "0A000");
}

/// Not a test of correctness: prints how fast Nexmark's bids are read from JSON lines, every column of them.
#[test]
#[ignore = "measures, in release builds"]
fn json_decoding_rate() {
    let directory = directory();
    let bids = options(&[("table", "bid"), ("events", "2000000"), ("splits", "1")]);
    let schema = crate::schema_of("nexmark", &bids).unwrap().unwrap();
    let generator = crate::source("nexmark", &schema, &bids, None).unwrap();
    let format = Format::new("PLAIN", "JSON", BTreeMap::new()).unwrap();
    let path = directory.path().join("bids.json");
    let file = File::create(&path).unwrap();
    let mut encoder = format
        .encoder_factory(&schema)
        .unwrap()
        .create(file, &schema, false)
        .unwrap();
    let mut reader = generator.open(&SplitId::new("0"), None, None).unwrap();
    while let Next::Chunk(chunk) = reader.next(8192, None).unwrap() {
        encoder.write(&chunk.batch, None).unwrap();
    }
    encoder.finish().unwrap();
    let pairs = options(&[("path", path.to_str().unwrap())]);
    let source = FileSource::new(&schema, &pairs, Some(&format)).unwrap();
    let start = std::time::Instant::now();
    let mut reader = source.open(&only_split(&source), None, None).unwrap();
    let mut rows = 0;
    while let Next::Chunk(chunk) = reader.next(8192, None).unwrap() {
        assert_eq!(chunk.errors, []);
        rows += chunk.batch.num_rows();
    }
    let (seconds, bytes) = (
        start.elapsed().as_secs_f64(),
        fs::metadata(&path).unwrap().len(),
    );
    println!(
        "{:.2} M rows/s, {:.0} MB/s",
        rows as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1e6
    );
}

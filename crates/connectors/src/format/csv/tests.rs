#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{lines, options, schema};
use tidegate_types::SqlType;

/// Decodes a whole file, in portions of so many bytes of it being known.
fn decode_in(
    schema: &SchemaRef,
    projection: Option<&[usize]>,
    pairs: &[(&str, &str)],
    input: &[u8],
    portion: usize,
) -> (Vec<String>, Vec<DecodeError>) {
    let dialect = Dialect::of(&options(pairs)).unwrap();
    let mut decoder = CsvDecoder::new(schema, projection, dialect);
    let (mut known, mut at) = (0, Offset::File { bytes: 0, lines: 0 });
    let preamble = loop {
        match decoder
            .preamble(&input[..known], known == input.len())
            .unwrap()
        {
            Some(preamble) => break preamble,
            None => known = (known + portion).min(input.len()),
        }
    };
    at = crate::format::advance(at, preamble);
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    loop {
        let end = known == input.len();
        let rest = &input[at.position() as usize..known];
        let consumed = decoder.decode(rest, end, at, 3);
        at = crate::format::advance(at, consumed);
        let (batch, bad) = decoder.finish();
        rows.extend(lines(&batch));
        errors.extend(bad);
        if consumed.bytes == 0 && end {
            assert_eq!(at.position() as usize, input.len());
            return (rows, errors);
        }
        if consumed.bytes == 0 {
            known = (known + portion).min(input.len());
        }
    }
}

fn decode(
    schema: &SchemaRef,
    pairs: &[(&str, &str)],
    input: &[u8],
) -> (Vec<String>, Vec<DecodeError>) {
    let whole = decode_in(schema, None, pairs, input, input.len().max(1));
    for portion in [1, 2, 7] {
        assert_eq!(decode_in(schema, None, pairs, input, portion), whole);
    }
    whole
}

fn people() -> SchemaRef {
    schema(&[
        ("id", SqlType::BigInt),
        ("name", SqlType::Text),
        ("at", SqlType::Timestamp),
    ])
}

#[test]
fn columns_by_name_quotes_and_nulls() {
    let input = "\u{feff}at,extra,name,id\r\n\
        2024-01-01 00:00:00,x,\"a \"\"b\"\",\nc\",1\r\n\
        ,,,2\n\
        1436918400000,,\"\",3\n\
        \n\
        ,,plain \"quotes\",4";
    let (rows, errors) = decode(&people(), &[], input.as_bytes());
    assert_eq!(errors, []);
    assert_eq!(
        rows,
        [
            "1|a \"b\",\nc|2024-01-01 00:00:00",
            "2|NULL|NULL",
            "3||2015-07-15 00:00:00",
            "4|plain \"quotes\"|NULL",
        ]
    );
}

#[test]
fn a_bad_record_costs_its_line() {
    let input =
        b"id,name\n1,one\nx,two\n3\n4,four,4\n5,\"fi\"ve\n6,s\xffx\n7,seven\n8,\"open\n9,nine\n";
    let (rows, errors) = decode(&people(), &[], input);
    assert_eq!(rows, ["1|one|NULL", "7|seven|NULL", "9|nine|NULL"]);
    let found = errors
        .iter()
        .map(|e| match e.offset {
            Offset::File { lines, .. } => (lines + 1, e.state.code()),
            Offset::Number(_) => unreachable!(),
        })
        .collect::<Vec<_>>();
    let expected = [
        (3, "22P02"),
        (4, "22P04"),
        (5, "22P04"),
        (6, "22P04"),
        (7, "22021"),
        (9, "22P04"),
    ];
    assert_eq!(found, expected);
    assert_eq!(
        errors[0].message,
        "column \"id\": invalid input syntax for type bigint: \"x\""
    );
}

#[test]
fn dialects() {
    let input = b"1;'it''s; so';\\N\n2;\\N;2024-01-01\n";
    let pairs = [
        ("header", "false"),
        ("delimiter", ";"),
        ("quote", "'"),
        ("null", "\\N"),
    ];
    let (rows, errors) = decode(&people(), &pairs, input);
    assert_eq!(errors, []);
    assert_eq!(rows, ["1|it's; so|NULL", "2|NULL|2024-01-01 00:00:00"]);
    for (pair, named) in [
        (("delimiter", "||"), "delimiter"),
        (("header", "maybe"), "header"),
        (("null", "a,b"), "null"),
        (("color", "red"), "color"),
    ] {
        let error = Dialect::of(&options(&[pair])).unwrap_err();
        assert_eq!(error.sql().state.code(), "22023");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn arrays_in_either_form_and_a_single_column() {
    let schema = schema(&[("l", SqlType::Array(Box::new(SqlType::Text)))]);
    let input = b"l\n\"{a,\"\"b c\"\",NULL}\"\n\"[\"\"x\"\", null]\"\n\n{}\n";
    let (rows, errors) = decode(&schema, &[], input);
    assert_eq!(errors, []);
    assert_eq!(rows, ["{a,\"b c\",NULL}", "{x,NULL}", "NULL", "{}"]);
}

#[test]
fn projections_read_the_wanted_columns() {
    let input = b"name,id,at\none,1,not a time\ntwo,2,2024-01-01\n";
    let (rows, errors) = decode_in(&people(), Some(&[1, 0]), &[], input, 5);
    assert_eq!(
        (rows, errors),
        (vec!["one|1".into(), "two|2".into()], vec![])
    );
}

#[test]
fn a_header_without_any_known_column_is_refused() {
    let mut decoder = CsvDecoder::new(&people(), None, Dialect::of(&options(&[])).unwrap());
    let error = decoder.preamble(b"1,one\n2,two\n", true).unwrap_err();
    assert!(error.message.contains("id, name, at"), "{}", error.message);
}

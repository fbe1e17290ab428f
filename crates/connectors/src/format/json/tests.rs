#![allow(clippy::unwrap_used, clippy::print_stdout)]

use super::*;
use crate::testing::{lines, schema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn decode(schema: &SchemaRef, input: &[u8]) -> (Vec<String>, Vec<DecodeError>) {
    let mut decoder = JsonDecoder::new(schema, None);
    let start = Offset::File { bytes: 0, lines: 0 };
    let consumed = decoder.decode(input, true, start, usize::MAX);
    assert_eq!(consumed.bytes, input.len());
    let (batch, errors) = decoder.finish();
    (lines(&batch), errors)
}

fn one(sql_type: SqlType, json: &str) -> Result<String, (String, String)> {
    let line = format!("{{\"c\": {json}}}");
    let (mut rows, errors) = decode(&schema(&[("c", sql_type)]), line.as_bytes());
    match errors.into_iter().next() {
        Some(error) => Err((error.state.code().to_owned(), error.message)),
        None => Ok(rows.remove(0)),
    }
}

#[test]
fn values_of_every_type() {
    let numeric = SqlType::Numeric {
        precision: 10,
        scale: 2,
    };
    let integers = SqlType::Array(Box::new(SqlType::Integer));
    let cases = [
        (SqlType::Boolean, "true", "t"),
        (SqlType::Boolean, "\"off\"", "f"),
        (SqlType::SmallInt, "-32768", "-32768"),
        (SqlType::Integer, "2147483647", "2147483647"),
        (SqlType::Integer, "7.0", "7"),
        (
            SqlType::BigInt,
            "-9223372036854775808",
            "-9223372036854775808",
        ),
        (SqlType::BigInt, "1e3", "1000"),
        (SqlType::BigInt, "\"12\"", "12"),
        (SqlType::Real, "2.5e-3", "0.0025"),
        (SqlType::Double, "0.1", "0.1"),
        (SqlType::Double, "\"NaN\"", "NaN"),
        (numeric.clone(), "12.345", "12.35"),
        (
            SqlType::Text,
            "\"a\\n\\u00e4\\ud83d\\ude00\"",
            "a\n\u{e4}\u{1f600}",
        ),
        (SqlType::Text, "12.50", "12.50"),
        (SqlType::Text, "{\"a\": [1]}", "{\"a\": [1]}"),
        (SqlType::Varchar { length: 3 }, "\"abc  \"", "abc"),
        (SqlType::Bytea, "\"\\\\x00ff\"", "\\x00ff"),
        (SqlType::Date, "\"2024-02-29\"", "2024-02-29"),
        (SqlType::Time, "\"12:34:56.7\"", "12:34:56.7"),
        (
            SqlType::Timestamp,
            "\"2024-02-29T12:00:00.25\"",
            "2024-02-29 12:00:00.25",
        ),
        (SqlType::Timestamp, "1436918400000", "2015-07-15 00:00:00"),
        (
            SqlType::TimestampTz,
            "\"2024-01-01T00:00:00+02:00\"",
            "2023-12-31 22:00:00+00",
        ),
        (SqlType::Interval, "\"1 day 02:03:04\"", "1 day 02:03:04"),
        (
            SqlType::Uuid,
            "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
        (
            SqlType::Jsonb,
            "{\"bb\":1.50,\"a\":[1e2,null]}",
            "{\"a\": [100, null], \"bb\": 1.50}",
        ),
        (integers.clone(), "[1, null, 3]", "{1,NULL,3}"),
        (integers.clone(), "[]", "{}"),
        (integers.clone(), "\"{4,5}\"", "{4,5}"),
    ];
    for (sql_type, json, expected) in cases {
        assert_eq!(
            one(sql_type.clone(), json).as_deref(),
            Ok(expected),
            "{sql_type} {json}"
        );
        assert_eq!(one(sql_type, "null").as_deref(), Ok("NULL"));
    }
}

#[test]
fn values_that_do_not_fit() {
    for (sql_type, json, state) in [
        (SqlType::SmallInt, "40000", "22003"),
        (SqlType::Integer, "2147483648", "22003"),
        (SqlType::BigInt, "9223372036854775808", "22003"),
        (SqlType::BigInt, "1.5", "22P02"),
        (SqlType::BigInt, "true", "22P02"),
        (SqlType::Boolean, "1", "22P02"),
        (SqlType::Varchar { length: 2 }, "\"abc\"", "22001"),
        (SqlType::Timestamp, "\"2024-13-01T00:00:00\"", "22008"),
        (SqlType::Text, "\"\\u0000\"", "22021"),
        (
            SqlType::Array(Box::new(SqlType::Integer)),
            "[1, \"x\"]",
            "22P02",
        ),
        (SqlType::Array(Box::new(SqlType::Integer)), "[[1]]", "22P02"),
        (SqlType::Jsonb, "1e999999999", "22003"),
    ] {
        let (found, message) = one(sql_type.clone(), json).unwrap_err();
        assert_eq!(found, state, "{sql_type} {json}: {message}");
        assert!(message.starts_with("column \"c\": "), "{message}");
    }
}

#[test]
fn a_bad_row_costs_that_row_alone() {
    let schema = schema(&[
        ("a", SqlType::BigInt),
        ("t", SqlType::Text),
        ("l", SqlType::Array(Box::new(SqlType::Text))),
    ]);
    let mut input = Vec::new();
    input.extend_from_slice(b"{\"a\":1,\"t\":\"one\",\"l\":[\"x\"]}\n");
    input.extend_from_slice(b"{\"a\":2,\"t\":\"two\",\"l\":[\"y\",7,{}]} trailing\n");
    input.extend_from_slice(b"{\"a\":\"x\",\"t\":\"three\"}\r\n");
    input.extend_from_slice(b"\n   \n");
    input.extend_from_slice(b"{\"t\":\"four\",\"unknown\":{\"a\":[1,{\"b\":null}]},\"a\":4}\r\n");
    input.extend_from_slice(b"{\"t\":\"unfinished\n");
    input.extend_from_slice(b"{\"t\":\"\xff\",\"a\":5}\n");
    input.extend_from_slice(b"[1]\n");
    input.extend_from_slice(b"{\"a\":6,\"a\":7,\"t\":\"\xc3\xa9\"}");
    let (rows, errors) = decode(&schema, &input);
    assert_eq!(rows, ["1|one|{x}", "4|four|NULL", "7|\u{e9}|NULL"]);
    let found = errors
        .iter()
        .map(|e| match e.offset {
            Offset::File { bytes, lines } => (lines, e.state.code(), input[bytes as usize]),
            Offset::Number(_) => unreachable!(),
        })
        .collect::<Vec<_>>();
    let expected = [
        (1, "22P02", b'{'),
        (2, "22P02", b'{'),
        (6, "22P02", b'{'),
        (7, "22021", b'{'),
        (8, "22P02", b'['),
    ];
    assert_eq!(found, expected);
    assert_eq!(errors[1].raw, b"{\"a\":\"x\",\"t\":\"three\"}");
}

#[test]
fn not_null_columns_refuse_null_and_absence() {
    let field = SqlType::BigInt.field("a", false);
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![field]));
    let (rows, errors) = decode(&schema, b"{\"a\":null}\n{}\n{\"a\":1}\n");
    assert_eq!(rows, ["1"]);
    assert_eq!(
        errors.iter().map(|e| e.state.code()).collect::<Vec<_>>(),
        ["23502", "23502"]
    );
}

#[test]
fn members_in_changing_order_and_escaped_keys() {
    let schema = schema(&[
        ("a", SqlType::BigInt),
        ("\u{e9}\"", SqlType::BigInt),
        ("c", SqlType::BigInt),
    ]);
    let mut input = String::new();
    let mut expected = Vec::new();
    for row in 0..200 {
        let mut members = [
            format!("\"a\":{row}"),
            format!("\"\\u00e9\\\"\" : {}", row + 1),
            format!("\"c\":{}", row + 2),
            "\"zz\":0".to_owned(),
        ];
        members.rotate_left(row / 50);
        input.push_str(&format!("{{{}}}\n", members.join(" , ")));
        expected.push(format!("{row}|{}|{}", row + 1, row + 2));
    }
    assert_eq!(decode(&schema, input.as_bytes()), (expected, vec![]));
}

#[test]
fn portions_make_no_difference_and_incomplete_lines_wait() {
    let schema = schema(&[("a", SqlType::BigInt)]);
    let input = (0..50)
        .map(|n| {
            if n % 7 == 3 {
                "oops\n".to_owned()
            } else {
                format!("{{\"a\":{n}}}\n")
            }
        })
        .collect::<String>();
    let whole = decode(&schema, input.as_bytes());
    for portion in 1..12 {
        let mut decoder = JsonDecoder::new(&schema, None);
        let (mut at, mut rows, mut errors) = (Offset::File { bytes: 0, lines: 0 }, vec![], vec![]);
        while (at.position() as usize) < input.len() {
            let rest = &input.as_bytes()[at.position() as usize..];
            let consumed = decoder.decode(rest, false, at, portion);
            at = crate::format::advance(at, consumed);
            let (batch, bad) = decoder.finish();
            assert_eq!(
                batch.num_rows() + bad.len(),
                portion.min(batch.num_rows() + bad.len())
            );
            rows.extend(lines(&batch));
            errors.extend(bad);
        }
        assert_eq!((rows, errors), whole);
    }
    let mut decoder = JsonDecoder::new(&schema, None);
    let start = Offset::File { bytes: 0, lines: 0 };
    assert_eq!(
        decoder.decode(b"{\"a\":1}", false, start, 10),
        Consumed::default()
    );
}

/// Mutated documents: a line is accepted exactly when another parser accepts it as an object.
#[test]
fn accepts_what_another_parser_accepts() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let schema = schema(&[("j", SqlType::Jsonb), ("t", SqlType::Text)]);
    let seeds: [&[u8]; 6] = [
        b"{\"a\":1,\"j\":{\"x\":[1,2.5e-3,-0,{}],\"y\":\"z\\\"\\u0041\"},\"t\":null}",
        b"{\"t\":\"plain text that is longer than eight bytes\",\"j\":[true,false,null]}",
        b"{ \"j\" : \"\\ud83d\\ude00 \\\\ \\n\" , \"t\" : \"\xc3\xa9\" }",
        b"{\"q\":[[],[[]],{\"k\":[]}],\"j\":0}",
        b"{}",
        b"{\"j\":-1.25E+2,\"t\":{\"deep\":[{\"er\":1}]}}",
    ];
    let alphabet = b"{}[]\",:\\/ 0123456789.eE+-truefalsnbu\xc3\xa9\xff\x01\t";
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..40_000 {
        let mut line = seeds[random.random_range(0..seeds.len())].to_vec();
        for _ in 0..random.random_range(0..4) {
            let byte = alphabet[random.random_range(0..alphabet.len())];
            let at = random.random_range(0..=line.len());
            match random.random_range(0..3) {
                0 => line.insert(at, byte),
                1 if at < line.len() => drop(line.remove(at)),
                _ if at < line.len() => line[at] = byte,
                _ => {}
            }
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let other = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&line);
        let (rows, errors) = decode(&schema, &line);
        assert_eq!(rows.len() + errors.len(), 1);
        let text = String::from_utf8_lossy(&line);
        // Postgres has no NUL in text, and refuses numbers beyond its own range.
        let ours = errors
            .first()
            .is_some_and(|e| matches!(e.state.code(), "22021" | "22P05" | "22003"));
        let theirs = other
            .as_ref()
            .is_err_and(|e| e.to_string().contains("out of range"));
        if (ours && other.is_ok()) || theirs {
            continue;
        }
        assert_eq!(
            errors.is_empty(),
            other.is_ok(),
            "{text}: {errors:?} {other:?}"
        );
        if let Ok(members) = other {
            accepted += 1;
            let jsonb = rows[0].split('|').next().unwrap();
            let expected = members.get("j").filter(|j| !j.is_null());
            match expected {
                None => assert_eq!(jsonb, "NULL"),
                Some(value) => {
                    let again = serde_json::from_str::<serde_json::Value>(jsonb);
                    let again = again.unwrap_or_else(|e| panic!("{text}: {jsonb}: {e}"));
                    assert!(same(&again, value), "{text}: {jsonb}");
                }
            }
        } else {
            refused += 1;
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 5_000 && refused > 5_000);
}

/// Equal but for the form of numbers.
fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Number(a), Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || ((a - b) / b).abs() < 1e-9
        }
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Object(a), Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

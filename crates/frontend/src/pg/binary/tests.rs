//! `postgres15.tsv` is what Postgres 15's send functions gave: type, text, hexadecimal bytes.
#![allow(clippy::unwrap_used)]

use super::*;
use bytes::BytesMut;
use tidegate_types::SqlType;
use tidegate_types::text::{Value, ValueAppender, parse_text};

const POSTGRES: &str = include_str!("postgres15.tsv");

fn type_named(name: &str) -> SqlType {
    if let Some(element) = name.strip_suffix("[]") {
        return SqlType::Array(Box::new(type_named(element)));
    }
    match name {
        "boolean" => SqlType::Boolean,
        "smallint" => SqlType::SmallInt,
        "integer" => SqlType::Integer,
        "bigint" => SqlType::BigInt,
        "real" => SqlType::Real,
        "double precision" => SqlType::Double,
        "numeric(7,2)" => SqlType::Numeric {
            precision: 7,
            scale: 2,
        },
        "numeric(30,12)" => SqlType::Numeric {
            precision: 30,
            scale: 12,
        },
        "numeric(38,0)" => SqlType::Numeric {
            precision: 38,
            scale: 0,
        },
        "text" => SqlType::Text,
        "varchar(5)" => SqlType::Varchar { length: 5 },
        "char(5)" => SqlType::Char { length: 5 },
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::TimestampTz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "jsonb" => SqlType::Jsonb,
        other => panic!("unknown type {other}"),
    }
}

fn encoded(value: &Value, sql_type: &SqlType) -> String {
    let mut appender = ValueAppender::new(sql_type, 1);
    appender.append(value);
    let array = appender.finish();
    let mut out = BytesMut::new();
    BinaryWriter::new(&array, sql_type)
        .write(0, &mut out)
        .unwrap();
    out.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect()
}

#[test]
fn every_type_goes_both_ways_as_in_postgres() {
    let mut compared = 0;
    for line in POSTGRES.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        let [name, text, hex] = cells.as_slice() else {
            panic!("three cells expected in {line:?}")
        };
        let sql_type = type_named(name);
        let text = text.replace("\\\\", "\\");
        let value = parse_text(&text, &sql_type).unwrap();
        assert_eq!(&encoded(&value, &sql_type), hex, "{name} {text}");
        let back = decode_binary(&bytes_of(hex), &sql_type, "bind parameter 1").unwrap();
        // NaN equals nothing; its bytes were compared.
        if !text.contains("NaN") {
            assert_eq!(back, value, "{name} {text}");
        }
        compared += 1;
    }
    assert!(compared > 60, "only {compared} lines");
}

#[test]
fn a_row_carries_the_types_of_its_fields() {
    // select encode(record_send(row(1::int4, 'x'::text, null::bool)), 'hex'), in Postgres.
    let row = SqlType::Record(vec![
        ("a".into(), SqlType::Integer),
        ("b".into(), SqlType::Text),
        ("c".into(), SqlType::Boolean),
    ]);
    let value = Value::Record(vec![
        Value::Integer(1),
        Value::Text("x".into()),
        Value::Null,
    ]);
    let expected = "00000003000000170000000400000001000000190000000178\
                    00000010ffffffff";
    assert_eq!(encoded(&value, &row), expected);
}

#[test]
fn no_bytes_can_make_it_panic() {
    let types = POSTGRES
        .lines()
        .map(|l| type_named(l.split('\t').next().unwrap()));
    for sql_type in types {
        for length in 0..24 {
            for fill in [0u8, 1, 0x27, 0x7f, 0xff] {
                // Whatever the verdict is.
                let _ = decode_binary(&vec![fill; length], &sql_type, "bind parameter 1");
            }
        }
    }
    let error = decode_binary(&[1, 2, 3], &SqlType::Integer, "bind parameter 1").unwrap_err();
    assert_eq!(
        (error.state.code(), error.message.as_str()),
        ("22P03", "incorrect binary data format in bind parameter 1")
    );
}

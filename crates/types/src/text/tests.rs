//! `postgres15.tsv` is what Postgres 15 answered: type, input, `ok` or SQLSTATE, output or message, detail, hint. It was
//! written by `COPY … TO STDOUT`, with `SET TimeZone = 'UTC'`.
#![allow(clippy::unwrap_used)]

use super::*;
use arrow::array::*;
use arrow::datatypes::*;
use std::sync::Arc;

const POSTGRES: &str = include_str!("postgres15.tsv");

/// What Postgres takes and we do not, each for a reason given in the module's documentation or here.
const DIFFERENT: [(&str, &str); 8] = [
    // Hexadecimal floats are what C's strtod happens to read.
    ("real", "0x1A"),
    ("double precision", "0x1A"),
    // Beyond an i64 of microseconds since 1970.
    ("timestamp", "294276-12-31 23:59:59.999999"),
    ("timestamptz", "294276-12-31 23:59:59.999999"),
    // Beyond an i64 of nanoseconds.
    ("interval", "2562047788 hours"),
    // An ISO 8601 number without designator.
    ("interval", "P1"),
    // A plain numeric: trailing zeros are not kept apart.
    ("numeric(38,10)", "1.5"),
    ("numeric(38,10)", "1"),
];

fn type_named(name: &str) -> SqlType {
    if let Some(element) = name.strip_suffix("[]") {
        return SqlType::Array(Box::new(type_named(element)));
    }
    let (base, arguments) = match name.strip_suffix(')').and_then(|n| n.split_once('(')) {
        Some((base, arguments)) => (
            base,
            arguments
                .split(',')
                .map(|a| a.parse::<u32>().unwrap())
                .collect(),
        ),
        None => (name, vec![]),
    };
    match (base, arguments.as_slice()) {
        ("boolean", _) => SqlType::Boolean,
        ("smallint", _) => SqlType::SmallInt,
        ("integer", _) => SqlType::Integer,
        ("bigint", _) => SqlType::BigInt,
        ("real", _) => SqlType::Real,
        ("double precision", _) => SqlType::Double,
        ("numeric", [p, s]) => SqlType::Numeric {
            precision: *p as u8,
            scale: *s as i8,
        },
        ("text", _) => SqlType::Text,
        ("varchar", [n]) => SqlType::Varchar { length: *n },
        ("char", [n]) => SqlType::Char { length: *n },
        ("bytea", _) => SqlType::Bytea,
        ("date", _) => SqlType::Date,
        ("time", _) => SqlType::Time,
        ("timestamp", _) => SqlType::Timestamp,
        ("timestamptz", _) => SqlType::TimestampTz,
        ("interval", _) => SqlType::Interval,
        ("uuid", _) => SqlType::Uuid,
        ("jsonb", _) => SqlType::Jsonb,
        other => panic!("unknown type {other:?}"),
    }
}

fn unescape(cell: &str) -> String {
    let mut out = String::new();
    let mut chars = cell.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next().unwrap() {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'v' => '\u{b}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                c => c,
            }),
            c => out.push(c),
        }
    }
    out
}

fn read_and_print(text: &str, sql_type: &SqlType) -> Result<String, SqlError> {
    let mut appender = ValueAppender::new(sql_type, 1);
    appender.append(&parse_text(text, sql_type)?);
    let array = appender.finish();
    assert_eq!(array.data_type(), &sql_type.arrow());
    let mut out = String::new();
    write_text(&array, sql_type, 0, &mut out);
    Ok(out)
}

#[test]
fn every_type_reads_and_prints_as_postgres_does() {
    let mut compared = 0;
    let mut wrong = Vec::new();
    for line in POSTGRES.lines() {
        let cells: Vec<String> = line.split('\t').map(unescape).collect();
        let [name, input, state, output, detail, hint] = cells.as_slice() else {
            panic!("six cells expected in {line:?}");
        };
        if DIFFERENT.contains(&(name.as_str(), input.as_str())) {
            continue;
        }
        let sql_type = type_named(name);
        let got = match read_and_print(input, &sql_type) {
            // The file holds casts to text, which spell booleans out.
            Ok(text) if sql_type == SqlType::Boolean => (
                "ok".into(),
                if text == "t" { "true" } else { "false" }.into(),
                String::new(),
                String::new(),
            ),
            Ok(text) => ("ok".into(), text, String::new(), String::new()),
            Err(e) => (
                e.state.code().to_owned(),
                e.message,
                e.detail.unwrap_or_default(),
                e.hint.unwrap_or_default(),
            ),
        };
        let expected = (state.clone(), output.clone(), detail.clone(), hint.clone());
        compared += 1;
        if got != expected {
            wrong.push(format!(
                "{name} {input:?}\n  postgres {expected:?}\n  here     {got:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {compared} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared > 800, "only {compared} lines");
}

fn printed(array: &dyn Array, sql_type: &SqlType) -> Vec<String> {
    let writer = TextWriter::new(array, sql_type);
    (0..array.len())
        .map(|row| {
            let mut out = String::new();
            writer.write(row, &mut out);
            if writer.is_null(row) {
                "∅".into()
            } else {
                out
            }
        })
        .collect()
}

fn plainly(array: &dyn Array) -> Vec<String> {
    printed(array, &SqlType::from_arrow(array.data_type()))
}

#[test]
fn every_arrow_type_has_a_text() {
    assert_eq!(
        plainly(&UInt64Array::from(vec![u64::MAX])),
        ["18446744073709551615"]
    );
    assert_eq!(plainly(&Int8Array::from(vec![Some(-1), None])), ["-1", "∅"]);
    assert_eq!(plainly(&StringViewArray::from(vec!["view"])), ["view"]);
    assert_eq!(plainly(&LargeStringArray::from(vec!["large"])), ["large"]);
    assert_eq!(plainly(&NullArray::new(1)), ["∅"]);
    let wide = Decimal256Array::from(vec![i256::from_i128(-12345)])
        .with_precision_and_scale(60, 3)
        .unwrap();
    assert_eq!(plainly(&wide), ["-12.345"]);
    let round = Decimal128Array::from(vec![12, 0])
        .with_precision_and_scale(5, -2)
        .unwrap();
    assert_eq!(plainly(&round), ["1200", "0"]);
    assert_eq!(plainly(&Time32SecondArray::from(vec![3_661])), ["01:01:01"]);
    assert_eq!(
        plainly(&Time32MillisecondArray::from(vec![1_500])),
        ["00:00:01.5"]
    );
    assert_eq!(
        plainly(&Time64NanosecondArray::from(vec![1_234_567_891])),
        ["00:00:01.234567"]
    );
    assert_eq!(plainly(&Date64Array::from(vec![-1])), ["1969-12-31"]);
    assert_eq!(
        plainly(&TimestampSecondArray::from(vec![-62_135_596_801])),
        ["0001-12-31 23:59:59 BC"]
    );
    assert_eq!(
        plainly(&TimestampMillisecondArray::from(vec![1_700_000_000_123])),
        ["2023-11-14 22:13:20.123"]
    );
    let zoned =
        TimestampNanosecondArray::from(vec![1_700_000_000_123_456_789]).with_timezone("+00:00");
    assert_eq!(plainly(&zoned), ["2023-11-14 22:13:20.123456+00"]);
    assert_eq!(
        plainly(&DurationMillisecondArray::from(vec![-90_500])),
        ["-00:01:30.5"]
    );
    assert_eq!(
        plainly(&IntervalYearMonthArray::from(vec![-14])),
        ["-1 years -2 mons"]
    );
    assert_eq!(
        plainly(&IntervalDayTimeArray::from(vec![IntervalDayTime::new(
            1, -1_000
        )])),
        ["1 day -00:00:01"]
    );
    let words: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
    assert_eq!(plainly(&words), ["a", "∅", "a"]);
    assert_eq!(
        plainly(&FixedSizeBinaryArray::try_from_iter([[1u8, 171]].into_iter()).unwrap()),
        ["\\x01ab"]
    );
    assert_eq!(
        plainly(&BinaryViewArray::from(vec![&b"\x00"[..]])),
        ["\\x00"]
    );
}

#[test]
fn nested_values_are_quoted_where_they_must_be() {
    // select row(1, 'x y', null, '', 'a"b\c', '{1,"a b"}'::text[]), in Postgres.
    let record = SqlType::Record(vec![
        ("a".into(), SqlType::Integer),
        ("b".into(), SqlType::Text),
        ("c".into(), SqlType::Text),
        ("d".into(), SqlType::Text),
        ("e".into(), SqlType::Text),
        ("f".into(), SqlType::Array(Box::new(SqlType::Text))),
    ]);
    let text = r#"(1,"x y",,"","a""b\\c","{1,""a b""}")"#;
    assert_eq!(read_and_print(text, &record).unwrap(), text);
    let rows = SqlType::Array(Box::new(SqlType::Record(vec![
        ("a".into(), SqlType::Integer),
        ("b".into(), SqlType::Text),
    ])));
    let text = r#"{"(1,\"x y\")",NULL}"#;
    assert_eq!(read_and_print(text, &rows).unwrap(), text);
    let matrix = SqlType::Array(Box::new(SqlType::Array(Box::new(SqlType::Integer))));
    assert_eq!(
        read_and_print("{{1,2},{3,NULL}}", &matrix).unwrap(),
        "{{1,2},{3,NULL}}"
    );
    assert_eq!(
        parse_text("{{1},{2}}", &SqlType::Array(Box::new(SqlType::Integer)))
            .unwrap_err()
            .state
            .code(),
        "0A000"
    );
}

#[test]
fn a_cast_to_text_differs_from_printing_for_two_types() {
    let flags = BooleanArray::from(vec![Some(true), None]);
    assert_eq!(
        to_text(&flags, &SqlType::Boolean),
        StringArray::from(vec![Some("true"), None])
    );
    let chars = StringArray::from(vec!["a"]);
    assert_eq!(printed(&chars, &SqlType::Char { length: 3 }), ["a  "]);
    assert_eq!(
        to_text(&chars, &SqlType::Char { length: 3 }),
        StringArray::from(vec!["a"])
    );
}

#[test]
fn what_is_too_long_is_refused() {
    // insert into t(v varchar(3)) values ('abcd'), in Postgres.
    let error = parse_text("abcd", &SqlType::Varchar { length: 3 }).unwrap_err();
    assert_eq!(
        (error.state.code(), error.message.as_str()),
        ("22001", "value too long for type character varying(3)")
    );
    let error = parse_text("abcd", &SqlType::Char { length: 3 }).unwrap_err();
    assert_eq!(
        (error.state.code(), error.message.as_str()),
        ("22001", "value too long for type character(3)")
    );
}

#[test]
fn a_plain_numeric_prints_no_trailing_zeros() {
    let plain = SqlType::Numeric {
        precision: 38,
        scale: 10,
    };
    for (text, expected) in [
        ("1.50", "1.5"),
        ("100", "100"),
        ("-0.0", "0"),
        ("0.10", "0.1"),
    ] {
        assert_eq!(read_and_print(text, &plain).unwrap(), expected);
    }
    assert_eq!(parse_text("NaN", &plain).unwrap_err().state.code(), "0A000");
}

#[test]
fn a_column_that_cannot_be_read_names_its_row() {
    let column = StringArray::from(vec![Some("1"), None, Some("x")]);
    let (row, error) = from_text(&column, &SqlType::Integer).unwrap_err();
    assert_eq!((row, error.state.code()), (2, "22P02"));
    let column = StringArray::from(vec![Some("{1,2}"), None, Some("{}")]);
    let array = from_text(&column, &SqlType::Array(Box::new(SqlType::Integer))).unwrap();
    assert_eq!(array.len(), 3);
    assert!(array.is_null(1));
}

#[test]
fn the_calendar_agrees_with_itself() {
    for days in (-1_800_000..3_000_000).step_by(97) {
        let (year, month, day) = civil_from_days(days);
        assert_eq!(days_from_civil(year, month, day), days);
    }
    assert_eq!(days_from_civil(2000, 1, 1), 10_957);
}

#[test]
fn every_float_reads_back_as_itself() {
    let mut bits: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..20_000 {
        bits = bits
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let value = f64::from_bits(bits);
        let small = f32::from_bits((bits >> 32) as u32);
        let column: ArrayRef = Arc::new(Float64Array::from(vec![value]));
        if value.is_finite() {
            assert_eq!(
                plainly(&column)[0].parse::<f64>().unwrap().to_bits(),
                value.to_bits()
            );
        }
        if small.is_finite() {
            assert_eq!(
                plainly(&Float32Array::from(vec![small]))[0]
                    .parse::<f32>()
                    .unwrap()
                    .to_bits(),
                small.to_bits()
            );
        }
    }
}

#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{check_resuming, options, read, read_all, schema};
use tidegate_types::SqlType;

fn source(
    columns: &[(&str, SqlType)],
    pairs: &[(&str, &str)],
) -> Result<DatagenSource, ConnectorError> {
    DatagenSource::new(&schema(columns), &options(pairs))
}

#[test]
fn sequences_of_every_counted_type() {
    let columns = [
        ("a", SqlType::BigInt),
        (
            "b",
            SqlType::Numeric {
                precision: 8,
                scale: 2,
            },
        ),
        ("c", SqlType::Date),
        ("d", SqlType::Timestamp),
        ("e", SqlType::Double),
        ("f", SqlType::Text),
    ];
    let pairs = [
        ("fields.a.kind", "sequence"),
        ("fields.a.start", "5"),
        ("fields.a.end", "7"),
        ("fields.b.kind", "sequence"),
        ("fields.b.step", "0.25"),
        ("fields.c.kind", "sequence"),
        ("fields.c.start", "2024-02-28"),
        ("fields.d.kind", "sequence"),
        ("fields.d.start", "2024-01-01 00:00:00"),
        ("fields.d.step", "1 hour"),
        ("fields.e.kind", "sequence"),
        ("fields.f.kind", "sequence"),
    ];
    let source = source(&columns, &pairs).unwrap();
    assert!(source.bounded());
    assert_eq!(
        read_all(&source, 2),
        [
            "5|0.00|2024-02-28|2024-01-01 00:00:00|0|0",
            "6|0.25|2024-02-29|2024-01-01 01:00:00|1|1",
            "7|0.50|2024-03-01|2024-01-01 02:00:00|2|2",
        ]
    );
}

#[test]
fn neither_splits_nor_portions_nor_resuming_change_a_row() {
    let columns = [
        ("id", SqlType::BigInt),
        ("k", SqlType::Integer),
        ("t", SqlType::Text),
        ("l", SqlType::Array(Box::new(SqlType::SmallInt))),
        ("u", SqlType::Uuid),
    ];
    let with = |splits: &str| {
        let pairs = [
            ("fields.id.kind", "sequence"),
            ("fields.k.min", "1"),
            ("fields.k.max", "10"),
            ("rows", "1234"),
            ("splits", splits),
            ("seed", "9"),
        ];
        source(&columns, &pairs).unwrap()
    };
    let one = read_all(&with("1"), 10_000);
    assert_eq!(one.len(), 1234);
    assert_eq!(read_all(&with("5"), 7), one);
    let five = with("5");
    for split in five.splits().unwrap() {
        check_resuming(&five, &split, &[1, 100]);
    }
}

#[test]
fn random_values_are_within_their_range_and_reach_its_ends() {
    let columns = [
        ("a", SqlType::Integer),
        ("b", SqlType::Real),
        ("c", SqlType::BigInt),
    ];
    let pairs = [
        ("fields.a.min", "-1"),
        ("fields.a.max", "1"),
        ("fields.b.min", "2"),
        ("fields.b.max", "3"),
        ("rows", "2000"),
    ];
    let rows = read_all(&source(&columns, &pairs).unwrap(), 100);
    let (mut counts, mut signs) = ([0; 3], [0; 2]);
    for row in rows {
        let values = row.split('|').collect::<Vec<_>>();
        counts[(values[0].parse::<i64>().unwrap() + 1) as usize] += 1;
        assert!((2.0..=3.0).contains(&values[1].parse::<f64>().unwrap()));
        signs[usize::from(values[2].starts_with('-'))] += 1;
    }
    assert!(counts.iter().all(|n| *n > 500), "{counts:?}");
    assert!(signs.iter().all(|n| *n > 800), "{signs:?}");
}

#[test]
fn options_are_checked() {
    let columns = [("a", SqlType::Integer), ("b", SqlType::Boolean)];
    for pairs in [
        [("fields.a.kind", "magic")],
        [("fields.a.min", "x")],
        [("fields.a.max", "3000000000")],
        [("fields.a.start", "1")],
        [("fields.b.kind", "sequence")],
        [("fields.b.length", "3")],
        [("fields.c.kind", "random")],
        [("splits", "0")],
    ] {
        let error = source(&columns, &pairs)
            .err()
            .unwrap_or_else(|| panic!("{pairs:?}"));
        assert_eq!(error.sql().state.code(), "22023", "{pairs:?}");
        assert!(error.to_string().contains(pairs[0].0), "{error}");
    }
    let backwards = [
        ("fields.a.kind", "sequence"),
        ("fields.a.start", "3"),
        ("fields.a.end", "1"),
    ];
    assert!(source(&columns, &backwards).is_err());
    let down = [
        ("fields.a.kind", "sequence"),
        ("fields.a.start", "3"),
        ("fields.a.end", "1"),
        ("fields.a.step", "-1"),
    ];
    assert_eq!(
        read_all(&source(&columns[..1], &down).unwrap(), 10),
        ["1", "2", "3"]
    );
}

#[test]
fn an_endless_source_is_slow_unless_told_otherwise() {
    let slow = source(&[("a", SqlType::Integer)], &[]).unwrap();
    assert!(!slow.bounded());
    let mut reader = slow.open(&SplitId::new("0"), None, None).unwrap();
    assert!(matches!(reader.next(10, None).unwrap(), Next::WaitUntil(_)));
    let fast = source(&[("a", SqlType::Integer)], &[("rows.per.second", "0")]).unwrap();
    let mut reader = fast.open(&SplitId::new("0"), None, None).unwrap();
    let until = Offset::Number(5000);
    assert_eq!(read(&mut *reader, 1000, Some(&until)).rows.len(), 5000);
    assert_eq!(reader.offset(), until);
}

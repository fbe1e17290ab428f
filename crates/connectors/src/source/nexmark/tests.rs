#![allow(clippy::unwrap_used, clippy::print_stdout)]

use super::*;
use crate::testing::{check_resuming, options, read, read_all};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use std::collections::HashMap;

fn source(pairs: &[(&str, &str)]) -> NexmarkSource {
    let options = options(pairs);
    NexmarkSource::new(&schema_of(&options).unwrap(), &options).unwrap()
}

fn batch(pairs: &[(&str, &str)]) -> RecordBatch {
    let mut all = pairs.to_vec();
    all.push(("splits", "1"));
    let source = source(&all);
    let mut reader = source.open(&SplitId::new("0"), None, None).unwrap();
    match reader.next(1 << 20, None).unwrap() {
        Next::Chunk(chunk) => chunk.batch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn neither_splits_nor_portions_nor_resuming_change_a_row() {
    for table in [Some("person"), Some("auction"), Some("bid"), None] {
        let with = |splits: &'static str| {
            let mut pairs = vec![("events", "3321"), ("seed", "3"), ("splits", splits)];
            pairs.extend(table.map(|t| ("table", t)));
            source(&pairs)
        };
        let one = read_all(&with("1"), 100_000);
        let expected = match table {
            Some("person") => 67,
            Some("auction") => 66 * 3 + 3,
            Some("bid") => 66 * 46 + 17,
            _ => 3321,
        };
        assert_eq!(one.len(), expected);
        assert_eq!(read_all(&with("3"), 100), one);
        assert_eq!(read_all(&with("16"), 3), one);
        let three = with("3");
        for split in three.splits().unwrap() {
            check_resuming(&three, &split, &[7, 1000]);
        }
    }
}

#[test]
fn another_seed_gives_other_rows() {
    let with = |seed| {
        read_all(
            &source(&[("table", "bid"), ("events", "1000"), ("seed", seed)]),
            100,
        )
    };
    assert_eq!(with("1"), with("1"));
    assert_ne!(with("1"), with("2"));
}

#[test]
fn a_projection_is_the_same_columns() {
    for table in ["person", "auction", "bid"] {
        let source = source(&[("table", table), ("events", "5000"), ("splits", "1")]);
        let whole = batch(&[("table", table), ("events", "5000")]);
        for column in 0..whole.num_columns() {
            let mut reader = source
                .open(&SplitId::new("0"), None, Some(&[column]))
                .unwrap();
            let Next::Chunk(chunk) = reader.next(1 << 20, None).unwrap() else {
                panic!()
            };
            assert_eq!(chunk.batch, whole.project(&[column]).unwrap());
        }
        let mut reader = source.open(&SplitId::new("0"), None, Some(&[])).unwrap();
        let Next::Chunk(chunk) = reader.next(1 << 20, None).unwrap() else {
            panic!()
        };
        assert_eq!(chunk.batch.num_rows(), whole.num_rows());
    }
}

#[test]
fn the_combined_stream_holds_the_rows_of_the_tables() {
    let combined = batch(&[("events", "2500")]);
    let types = combined.column(0).as_primitive::<Int64Type>();
    for (kind, table) in ["person", "auction", "bid"].into_iter().enumerate() {
        let records = combined.column(kind + 1);
        let of_kind = (0..combined.num_rows())
            .map(|row| types.value(row) == kind as i64)
            .collect::<arrow::array::BooleanArray>();
        assert_eq!(arrow::compute::is_not_null(records).unwrap(), of_kind);
        let kept = arrow::compute::filter(records, &of_kind).unwrap();
        let alone = batch(&[("events", "2500"), ("table", table)]);
        assert_eq!(kept.as_struct().columns(), alone.columns(), "{table}");
    }
}

fn longs(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch
        .column_by_name(column)
        .unwrap()
        .as_primitive::<Int64Type>()
        .values()
        .to_vec()
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch
        .column_by_name(column)
        .unwrap()
        .as_string::<i32>()
        .clone();
    column.iter().map(|t| t.unwrap().to_owned()).collect()
}

/// Bytes of an event as the reference generator counts them: eight for a number or time, the length of a text.
fn average_size(batch: &RecordBatch, uncounted: &[&str]) -> f64 {
    let mut bytes = 0;
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        bytes += match column.data_type() {
            arrow::datatypes::DataType::Utf8 if uncounted.contains(&field.name().as_str()) => 0,
            arrow::datatypes::DataType::Utf8 => column.as_string::<i32>().values().len(),
            _ => column.len() * 8,
        };
    }
    bytes as f64 / batch.num_rows() as f64
}

#[test]
fn sizes_are_those_of_the_reference() {
    let events = ("events", "100000");
    let sizes = [
        ("person", 200.0, vec![]),
        ("auction", 500.0, vec![]),
        ("bid", 100.0, vec!["channel", "url"]),
    ];
    for (table, expected, uncounted) in sizes {
        let size = average_size(&batch(&[("table", table), events]), &uncounted);
        assert!((size - expected).abs() < expected * 0.05, "{table}: {size}");
    }
}

#[test]
fn bids_have_the_distributions_of_the_reference() {
    let bids = batch(&[("table", "bid"), ("events", "500000")]);
    let rows = bids.num_rows() as f64;
    let share = |count: usize| count as f64 / rows;
    let near =
        |value: f64, expected: f64| assert!((value - expected).abs() < 0.01, "{value} {expected}");

    let hot_auctions = longs(&bids, "auction")
        .iter()
        .filter(|a| (*a - 1000) % 100 == 0)
        .count();
    // One of two is hot, and one of about a hundred others is by chance.
    near(share(hot_auctions), 0.5 + 0.5 / 100.0);
    let hot_bidders = longs(&bids, "bidder")
        .iter()
        .filter(|b| (*b - 1001) % 100 == 0)
        .count();
    near(share(hot_bidders), 0.75 + 0.25 / 100.0);

    let prices = longs(&bids, "price");
    assert!(prices.iter().all(|p| (100..=100_000_000).contains(p)));
    near(share(prices.iter().filter(|p| **p < 100_000).count()), 0.5);

    let mut channels = HashMap::<String, usize>::new();
    for (channel, url) in texts(&bids, "channel").into_iter().zip(texts(&bids, "url")) {
        assert!(url.starts_with("https://www.nexmark.com/"), "{url}");
        let path = url.strip_prefix("https://www.nexmark.com/").unwrap();
        assert_eq!(path.split('/').count(), 4, "{url}");
        assert!(path.contains("/item.htm?query=1"), "{url}");
        if let Some(number) = channel.strip_prefix("channel-") {
            assert!(number.parse::<u32>().unwrap() < 10_000);
        }
        *channels.entry(channel).or_default() += 1;
    }
    for hot in ["Google", "Facebook", "Baidu", "Apple"] {
        near(share(channels[hot]), 0.125);
    }
    assert_eq!(channels.len(), 10_004);
}

#[test]
fn ids_refer_to_what_exists() {
    let events = ("events", "200000");
    let persons = batch(&[("table", "person"), events]);
    assert_eq!(longs(&persons, "id"), (1000..5000).collect::<Vec<_>>());
    let auctions = batch(&[("table", "auction"), events]);
    assert_eq!(longs(&auctions, "id"), (1000..13_000).collect::<Vec<_>>());
    assert!(
        longs(&auctions, "category")
            .iter()
            .all(|c| (10..15).contains(c))
    );
    let (bids, reserves) = (longs(&auctions, "initial_bid"), longs(&auctions, "reserve"));
    assert!(
        bids.iter()
            .zip(&reserves)
            .all(|(bid, reserve)| reserve > bid)
    );
    // A little ahead of what exists, as in the reference.
    assert!(
        longs(&auctions, "seller")
            .iter()
            .all(|id| (1000..5010).contains(id))
    );
    for name in texts(&auctions, "description") {
        assert!(
            (1..100).contains(&name.len()) && name.trim() == name,
            "{name:?}"
        );
    }
    for email in texts(&persons, "email_address") {
        assert!(email.contains('@') && email.ends_with(".com"));
    }
    for card in texts(&persons, "credit_card") {
        assert!(
            card.split(' ')
                .all(|group| group.len() == 4 && group.parse::<u32>().is_ok())
        );
    }
    let times = |batch: &RecordBatch, column: &str| {
        let column = batch.column_by_name(column).unwrap();
        column
            .as_primitive::<TimestampMicrosecondType>()
            .values()
            .to_vec()
    };
    let opened = times(&auctions, "date_time");
    assert_eq!(opened[0], 1_436_918_400_000_000 + 100);
    assert!(
        opened
            .iter()
            .zip(times(&auctions, "expires"))
            .all(|(from, to)| *from < to)
    );
}

#[test]
fn times_follow_the_event_number() {
    let pairs = [
        ("table", "bid"),
        ("events", "1000"),
        ("base_time", "2020-01-01T00:00:00Z"),
        ("event_time_rate", "3000"),
    ];
    let bids = batch(&pairs);
    let times = bids.column_by_name("date_time").unwrap();
    let times = times.as_primitive::<TimestampMicrosecondType>();
    // The first bid is event 4, the last one event 999.
    assert_eq!(times.value(0), 1_577_836_800_000_000 + 4 * 1_000_000 / 3000);
    assert_eq!(
        times.value(bids.num_rows() - 1),
        1_577_836_800_000_000 + 999 * 1_000_000 / 3000
    );
}

#[test]
fn a_rate_holds_back() {
    let limited = source(&[
        ("table", "bid"),
        ("events", "1000"),
        ("rate", "10000"),
        ("splits", "1"),
    ]);
    let start = Instant::now();
    let read = read(
        &mut *limited.open(&SplitId::new("0"), None, None).unwrap(),
        100,
        None,
    );
    assert_eq!(read.rows.len(), 920);
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds > 0.09, "{seconds}");
    // A replay is not held back.
    let slow = source(&[("table", "bid"), ("rate", "1"), ("splits", "1")]);
    let until = Offset::Number(100_000);
    let mut reader = slow.open(&SplitId::new("0"), None, None).unwrap();
    let replay = crate::testing::read(&mut *reader, 10_000, Some(&until));
    assert_eq!((replay.rows.len(), reader.offset()), (92_000, until));
}

#[test]
fn options_and_columns_are_checked() {
    let bid = options(&[("table", "bid")]);
    let wrong = |pairs: &[(&str, &str)]| {
        let schema = schema_of(&bid).unwrap();
        let mut all = vec![("table", "bid")];
        all.extend_from_slice(pairs);
        match NexmarkSource::new(&schema, &options(&all)) {
            Ok(_) => panic!("{pairs:?} was accepted"),
            Err(error) => error,
        }
    };
    let error = wrong(&[("speed", "1")]);
    assert!(
        error.to_string().contains("\"speed\"")
            && error.sql().hint.as_deref().unwrap().contains("rate")
    );
    for pair in [
        ("events", "-1"),
        ("splits", "0"),
        ("bid_proportion", "x"),
        ("base_time", "now-ish"),
    ] {
        let error = wrong(&[pair]);
        assert_eq!(error.sql().state.code(), "22023");
        assert!(error.to_string().contains(pair.0), "{error}");
    }
    assert!(schema_of(&options(&[("table", "bids")])).is_err());
    let columns =
        crate::testing::schema(&[("price", SqlType::BigInt), ("auction", SqlType::BigInt)]);
    let source = NexmarkSource::new(&columns, &bid).unwrap();
    assert!(!source.bounded() && source.runs_on_worker());
    for columns in [("prize", SqlType::BigInt), ("price", SqlType::Text)] {
        let schema = crate::testing::schema(&[columns]);
        let error = NexmarkSource::new(&schema, &bid).err().unwrap();
        assert_eq!(error.sql().state.code(), "22023");
    }
    let split = SplitId::new("9");
    assert!(matches!(
        source.open(&split, None, None),
        Err(ConnectorError::Lost(_))
    ));
}

/// Not a test of correctness: prints how fast bids are made, every column of them.
#[test]
#[ignore = "measures, in release builds"]
fn generation_rate() {
    let source = source(&[("table", "bid"), ("events", "40000000"), ("splits", "1")]);
    let mut reader = source.open(&SplitId::new("0"), None, None).unwrap();
    let start = Instant::now();
    let (mut rows, mut bytes) = (0, 0);
    while let Next::Chunk(chunk) = reader.next(8192, None).unwrap() {
        rows += chunk.batch.num_rows();
        bytes += chunk.batch.get_array_memory_size();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:.1} M events/s, {} rows, {} MB",
        40.0 / seconds,
        rows,
        bytes >> 20
    );
}

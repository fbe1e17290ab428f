#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{options, schema};
use tidegate_types::SqlType;

#[test]
fn unknown_connectors_are_named_beside_the_known_ones() {
    let columns = schema(&[("a", SqlType::BigInt)]);
    let error = source("flie", &columns, &options(&[]), None).err().unwrap();
    assert_eq!(error.sql().state.code(), "22023");
    assert!(error.to_string().contains("\"flie\""));
    assert_eq!(
        error.sql().hint.as_deref(),
        Some("known connectors: nexmark, datagen, file")
    );
    let error = source("kafka", &columns, &options(&[]), None)
        .err()
        .unwrap();
    assert_eq!(error.sql().state.code(), "0A000");
    let request = SinkRequest {
        id: "1",
        connector: "nexmark",
        schema: &columns,
        options: &options(&[]),
        format: None,
        append_only: true,
    };
    let error = sink(&request).err().unwrap();
    assert_eq!(
        error.sql().hint.as_deref(),
        Some("known connectors: blackhole, file")
    );
}

#[test]
fn generators_have_no_format() {
    let columns = schema(&[("a", SqlType::BigInt)]);
    let csv = Format::new("PLAIN", "CSV", options(&[])).unwrap();
    let json = Format::new("PLAIN", "JSON", options(&[])).unwrap();
    assert!(source("datagen", &columns, &options(&[]), Some(&csv)).is_err());
    assert!(source("datagen", &columns, &options(&[]), Some(&json)).is_ok());
}

#[test]
fn only_nexmark_brings_its_columns() {
    assert!(schema_of("file", &options(&[])).unwrap().is_none());
    let columns = schema_of("nexmark", &options(&[("table", "bid")]))
        .unwrap()
        .unwrap();
    let names = columns
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            "auction",
            "bidder",
            "price",
            "channel",
            "url",
            "date_time",
            "extra"
        ]
    );
    let options = options(&[("connector", "nexmark"), ("events", "10")]);
    let columns = schema_of("nexmark", &options).unwrap().unwrap();
    assert!(
        source("nexmark", &columns, &options, None)
            .unwrap()
            .bounded()
    );
}

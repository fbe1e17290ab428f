//! Tables written by hand come back as the rows they stand for.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::tests::{checkpoint_of, descriptor, open};
use crate::{Storage, TableDescriptor};
use arrow::array::{Int64Array, StringArray};
use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use std::collections::HashMap;
use tidegate_state::{Form, RunBuilder};
use tidegate_types::{KeyGroup, TableId};

fn field(name: &str, data_type: DataType, metadata: &[(&str, &str)]) -> Field {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Field::new(name, data_type, true).with_metadata(metadata)
}

fn described(merge: Merge, form: Form, schemas: &TableSchemas) -> TableDescriptor {
    TableDescriptor {
        form,
        schemas: Some(schemas.to_json()),
        ..descriptor(1, merge)
    }
}

type Cells = Vec<(Vec<u8>, Vec<u8>, Option<Vec<u8>>)>;

/// Takes one checkpoint per list of cells, and prints the rows of the table.
async fn printed(table: TableDescriptor, checkpoints: Vec<Cells>, expected: Expect) {
    let storage = Storage::open("memory://").unwrap();
    let store = open(&storage).await.unwrap();
    store.newest().unwrap();
    let map = table.form == Form::Map;
    let mut manifest = None;
    for (index, cells) in checkpoints.iter().enumerate() {
        let sealed = |groups: KeyGroupRange| {
            let mut builder = RunBuilder::new(TableId(1), map, cells.len());
            for (key, sub, value) in cells {
                let group: KeyGroup = tidegate_types::key_group(tidegate_types::hash_key(key));
                if groups.contains(group) {
                    builder.push_in_group(group, key, sub, value.as_deref());
                }
            }
            builder.finish().into_iter().collect()
        };
        let epoch = tidegate_types::Epoch(store.start_epoch().0 + index as u64);
        manifest = Some(
            checkpoint_of(&store, epoch, vec![table.clone()], sealed)
                .await
                .unwrap(),
        );
    }
    let manifest = manifest.unwrap();
    let rows = TableRows::new(manifest.tables[&TableId(1)].clone()).unwrap();
    let batches: Vec<RecordBatch> = rows
        .stream(&store.restorer(), KeyGroupRange::ALL)
        .try_collect()
        .await
        .unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let mut lines: Vec<&str> = text.lines().collect();
    // Rows come by key group; the order is of no interest here.
    let end = lines.len() - 1;
    lines[3..end].sort_unstable();
    expected.assert_eq(&lines.join("\n"));
}

fn encoded(columns: &[ArrayRef], options: &[SortOptions]) -> Vec<Vec<u8>> {
    let types = columns
        .iter()
        .zip(options)
        .map(|(c, o)| (c.data_type().clone(), *o));
    let codec = RowCodec::with_order(types.collect()).unwrap();
    let rows = codec.encode(columns).unwrap();
    rows.iter().map(|r| r.data().to_vec()).collect()
}

#[tokio::test]
async fn a_view_has_its_columns_in_order_and_rows_as_often_as_they_are() {
    let ascending = SortOptions::default();
    // The key column is the view's second.
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let rows = encoded(&[numbers, names], &[ascending; 2]);
    let schemas = TableSchemas {
        key: Arc::new(Schema::new(vec![
            field("n", DataType::Int64, &[(COLUMN_KEY, "1")]),
            field("name", DataType::Utf8, &[(COLUMN_KEY, "0")]),
        ])),
        sub_key: Arc::new(Schema::empty()),
        value: Arc::new(Schema::empty()),
        encoding: encoding::COUNT.to_owned(),
    };
    let count = |n: i64| Some(n.to_le_bytes().to_vec());
    let cell = |i: usize, n: i64| (rows[i].clone(), vec![], count(n));
    let checkpoints = vec![
        vec![cell(0, 1), cell(1, 2), cell(2, 1)],
        vec![cell(0, -1), cell(2, 1)],
    ];
    printed(
        described(Merge::Sum, Form::Value, &schemas),
        checkpoints,
        expect![[r#"
            +------+---+
            | name | n |
            +------+---+
            | b    |   |
            | b    |   |
            | c    | 3 |
            | c    | 3 |
            +------+---+"#]],
    )
    .await;
}

#[tokio::test]
async fn cells_of_a_map_come_with_key_sub_key_and_counters() {
    let descending = SortOptions {
        descending: true,
        nulls_first: false,
    };
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![7, 7, 8]));
    let subs: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, Some("y")]));
    let keys = encoded(&[keys], &[SortOptions::default()]);
    let subs = encoded(&[subs], &[descending]);
    let schemas = TableSchemas {
        key: Arc::new(Schema::new(vec![field("k", DataType::Int64, &[])])),
        sub_key: Arc::new(Schema::new(vec![field(
            "k",
            DataType::Utf8,
            &[(ORDER_KEY, "desc nulls last")],
        )])),
        value: Arc::new(Schema::new(vec![
            Field::new("count", DataType::Int64, false),
            Field::new("matches", DataType::Int64, false),
        ])),
        encoding: encoding::VARINT.to_owned(),
    };
    let cell = |i: usize, value: Option<&[u8]>| {
        (keys[i].clone(), subs[i].clone(), value.map(<[u8]>::to_vec))
    };
    // Zigzag: 2 is one, 0xd8 0x04 is three hundred.
    let checkpoints = vec![
        vec![
            cell(0, Some(&[2])),
            cell(1, Some(&[2, 0xd8, 0x04])),
            cell(2, Some(&[2, 2])),
        ],
        vec![cell(2, None), cell(0, Some(&[4, 1]))],
    ];
    printed(
        described(Merge::Replace, Form::Map, &schemas),
        checkpoints,
        expect![[r#"
            +---+-----+-------+---------+
            | k | k_2 | count | matches |
            +---+-----+-------+---------+
            | 7 |     | 1     | 300     |
            | 7 | x   | 2     | -1      |
            +---+-----+-------+---------+"#]],
    )
    .await;
}

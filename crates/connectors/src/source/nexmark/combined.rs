//! The combined stream: every event a row, with its content in one of three nullable rows.

use super::event::{Events, Knobs};
use super::text::Texts;
use super::{auction, bid, person};
use arrow::array::{ArrayRef, Int64Array, StructArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::Fields;
use std::sync::Arc;
use tidegate_types::SqlType;

type Columns = &'static [(&'static str, SqlType)];
type Generate = fn(&Events, &Knobs, &Texts, &[usize]) -> Vec<ArrayRef>;

/// In the order of `event_type`.
const KINDS: [(&str, Columns, Generate); 3] = [
    ("person", person::COLUMNS, person::columns),
    ("auction", auction::COLUMNS, auction::columns),
    ("bid", bid::COLUMNS, bid::columns),
];

pub fn columns() -> Vec<(&'static str, SqlType)> {
    let record = |columns: Columns| {
        SqlType::Record(
            columns
                .iter()
                .map(|(n, t)| ((*n).to_owned(), t.clone()))
                .collect(),
        )
    };
    let mut all = vec![("event_type", SqlType::BigInt)];
    all.extend(
        KINDS
            .iter()
            .map(|(name, columns, _)| (*name, record(columns))),
    );
    all
}

fn kind_of(knobs: &Knobs, place: u32) -> usize {
    let place = u64::from(place);
    if place < knobs.person_proportion {
        0
    } else if place < knobs.person_proportion + knobs.auction_proportion {
        1
    } else {
        2
    }
}

pub fn generate(events: &Events, knobs: &Knobs, texts: &Texts, wanted: &[usize]) -> Vec<ArrayRef> {
    let kinds = events
        .places
        .iter()
        .map(|place| kind_of(knobs, *place))
        .collect::<Vec<_>>();
    let column = |index: &usize| -> ArrayRef {
        match index {
            0 => Arc::new(Int64Array::from_iter_values(
                kinds.iter().map(|k| *k as i64),
            )),
            kind => record(events, &kinds, kind - 1, knobs, texts),
        }
    };
    wanted.iter().map(column).collect()
}

/// The rows of one kind, spread over all events with NULLs between them.
fn record(events: &Events, kinds: &[usize], kind: usize, knobs: &Knobs, texts: &Texts) -> ArrayRef {
    let (_, columns, generate) = KINDS[kind];
    let mut own = Events::default();
    let mut indices = Vec::with_capacity(kinds.len());
    for (row, of) in kinds.iter().enumerate() {
        indices.push((*of == kind).then_some(own.len() as u32));
        if *of == kind {
            own.push(events, row);
        }
    }
    let indices = UInt32Array::from(indices);
    let every = (0..columns.len()).collect::<Vec<_>>();
    let arrays = generate(&own, knobs, texts, &every)
        .iter()
        .map(|array| take(array, &indices, None).expect("indices are within the rows of the kind"))
        .collect::<Vec<_>>();
    let fields = columns
        .iter()
        .map(|(name, t)| t.field(name, true))
        .collect::<Fields>();
    let nulls = kinds.iter().map(|of| *of == kind).collect::<NullBuffer>();
    Arc::new(StructArray::new(fields, arrays, Some(nulls)))
}

//! Auctions: three of 50 events.

use super::bid::PRICES;
use super::event::{
    CATEGORIES, Draw, Events, FIRST_AUCTION_ID, FIRST_CATEGORY_ID, FIRST_PERSON_ID, HOT_STRIDE,
    Knobs,
};
use super::text::{ExtraLength, TextColumn, Texts, push_extra};
use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use std::sync::Arc;
use tidegate_types::SqlType;

pub const COLUMNS: &[(&str, SqlType)] = &[
    ("id", SqlType::BigInt),
    ("item_name", SqlType::Text),
    ("description", SqlType::Text),
    ("initial_bid", SqlType::BigInt),
    ("reserve", SqlType::BigInt),
    ("date_time", SqlType::Timestamp),
    ("expires", SqlType::Timestamp),
    ("seller", SqlType::BigInt),
    ("category", SqlType::BigInt),
    ("extra", SqlType::Text),
];

/// Salts of the draws.
const NAME: u64 = 21;
const DESCRIPTION: u64 = 22;
const INITIAL_BID: u64 = 23;
const RESERVE: u64 = 24;
const EXPIRES: u64 = 25;
const SELLER: u64 = 26;
const CATEGORY: u64 = 27;
const EXTRA: u64 = 28;

pub fn columns(events: &Events, knobs: &Knobs, texts: &Texts, wanted: &[usize]) -> Vec<ArrayRef> {
    let rows = events.len();
    let numbers = |value: &dyn Fn(usize) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            (0..rows).map(|row| value(row) as i64),
        ))
    };
    let hashes = &events.hashes;
    let initial_bid = |row: usize| PRICES.draw(&mut Draw::new(hashes[row], INITIAL_BID));
    let column = |index: &usize| -> ArrayRef {
        match COLUMNS[*index].0 {
            "id" => numbers(&|row| {
                FIRST_AUCTION_ID
                    + knobs.last_auction(events.cycles[row], u64::from(events.places[row]))
            }),
            "item_name" => texts_of(rows, 12, |row| name(texts, hashes[row])),
            "description" => texts_of(rows, 52, |row| description(texts, hashes[row])),
            "initial_bid" => numbers(&initial_bid),
            "reserve" => {
                numbers(&|row| initial_bid(row) + PRICES.draw(&mut Draw::new(hashes[row], RESERVE)))
            }
            "date_time" => Arc::new(TimestampMicrosecondArray::from(knobs.times_us(events))),
            "expires" => Arc::new(TimestampMicrosecondArray::from_iter_values(
                (0..rows).map(|row| expires(knobs, events.numbers[row], hashes[row])),
            )),
            "seller" => numbers(&|row| {
                seller(
                    knobs,
                    events.cycles[row],
                    u64::from(events.places[row]),
                    hashes[row],
                )
            }),
            "category" => numbers(&|row| {
                FIRST_CATEGORY_ID + Draw::new(hashes[row], CATEGORY).below(CATEGORIES)
            }),
            "extra" => extras(events, knobs, texts),
            other => unreachable!("auctions have no column {other}"),
        }
    };
    wanted.iter().map(column).collect()
}

fn texts_of<'a>(rows: usize, average: usize, text: impl Fn(usize) -> &'a [u8]) -> ArrayRef {
    let mut column = TextColumn::with_capacity(rows, average);
    for row in 0..rows {
        column.push(text(row));
    }
    column.finish()
}

fn name(texts: &Texts, hash: u64) -> &[u8] {
    texts.words(20, &mut Draw::new(hash, NAME))
}

fn description(texts: &Texts, hash: u64) -> &[u8] {
    texts.words(100, &mut Draw::new(hash, DESCRIPTION))
}

/// Up to twice the time in which as many auctions open as are in flight, so that about that many are.
fn expires(knobs: &Knobs, number: u64, hash: u64) -> i64 {
    let ahead = knobs.in_flight_auctions * knobs.cycle() / knobs.auction_proportion;
    let opened_us = knobs.time_us(number);
    let horizon_ms = (knobs.time_us(number + ahead) - opened_us) as u64 / 1000;
    let length_ms = 1 + Draw::new(hash, EXPIRES).below((2 * horizon_ms).max(1));
    opened_us + (length_ms * 1000) as i64
}

fn seller(knobs: &Knobs, cycle: u64, place: u64, hash: u64) -> u64 {
    let mut draw = Draw::new(hash, SELLER);
    let last = knobs.last_person(cycle, place);
    let base = match draw.below(knobs.hot_sellers_ratio) {
        0 => knobs.next_person(last, &mut draw),
        _ => last / HOT_STRIDE * HOT_STRIDE,
    };
    base + FIRST_PERSON_ID
}

fn extras(events: &Events, knobs: &Knobs, texts: &Texts) -> ArrayRef {
    let mut column = TextColumn::with_capacity(events.len(), knobs.avg_auction_size as usize);
    for hash in &events.hashes {
        let size = 6 * 8 + name(texts, *hash).len() + description(texts, *hash).len();
        let length = ExtraLength::new(size as u64, knobs.avg_auction_size);
        push_extra(&mut column, texts, *hash, EXTRA, length);
    }
    column.finish()
}

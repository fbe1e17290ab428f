//! Persons: one of 50 events.

use super::event::{Draw, Events, FIRST_PERSON_ID, Knobs};
use super::text::{ExtraLength, TextColumn, Texts, push_extra};
use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use std::sync::Arc;
use tidegate_types::SqlType;

pub const COLUMNS: &[(&str, SqlType)] = &[
    ("id", SqlType::BigInt),
    ("name", SqlType::Text),
    ("email_address", SqlType::Text),
    ("credit_card", SqlType::Text),
    ("city", SqlType::Text),
    ("state", SqlType::Text),
    ("date_time", SqlType::Timestamp),
    ("extra", SqlType::Text),
];

const FIRST_NAMES: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: [&str; 9] = [
    "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
/// Digits and the spaces between their groups.
const CREDIT_CARD_BYTES: usize = 19;

/// Salts of the draws.
const NAME: u64 = 31;
const EMAIL: u64 = 32;
const CREDIT_CARD: u64 = 33;
const CITY: u64 = 34;
const STATE: u64 = 35;
const EXTRA: u64 = 36;

pub fn columns(events: &Events, knobs: &Knobs, texts: &Texts, wanted: &[usize]) -> Vec<ArrayRef> {
    let column = |index: &usize| -> ArrayRef {
        match COLUMNS[*index].0 {
            "id" => {
                let id = |(cycle, place): (&u64, &u32)| {
                    (FIRST_PERSON_ID + knobs.last_person(*cycle, u64::from(*place))) as i64
                };
                let places = events.cycles.iter().zip(&events.places);
                Arc::new(Int64Array::from_iter_values(places.map(id)))
            }
            "name" => written(events, 16, name),
            "email_address" => written(events, 20, |out, hash| email(out, texts, hash)),
            "credit_card" => written(events, CREDIT_CARD_BYTES, credit_card),
            "city" => written(events, 12, |out, hash| {
                out.extend_from_slice(city(hash).as_bytes())
            }),
            "state" => written(events, 2, |out, hash| {
                out.extend_from_slice(state(hash).as_bytes())
            }),
            "date_time" => Arc::new(TimestampMicrosecondArray::from(knobs.times_us(events))),
            "extra" => extras(events, knobs, texts),
            other => unreachable!("persons have no column {other}"),
        }
    };
    wanted.iter().map(column).collect()
}

/// A string column whose values are written one by one into a buffer that is used again.
fn written(events: &Events, average: usize, write: impl Fn(&mut Vec<u8>, u64)) -> ArrayRef {
    let mut column = TextColumn::with_capacity(events.len(), average);
    let mut value = Vec::with_capacity(64);
    for hash in &events.hashes {
        value.clear();
        write(&mut value, *hash);
        column.push(&value);
    }
    column.finish()
}

fn pick<const N: usize>(of: [&'static str; N], draw: &mut Draw) -> &'static str {
    of[draw.below(N as u64) as usize]
}

fn name(out: &mut Vec<u8>, hash: u64) {
    let mut draw = Draw::new(hash, NAME);
    out.extend_from_slice(pick(FIRST_NAMES, &mut draw).as_bytes());
    out.push(b' ');
    out.extend_from_slice(pick(LAST_NAMES, &mut draw).as_bytes());
}

fn email(out: &mut Vec<u8>, texts: &Texts, hash: u64) {
    let mut draw = Draw::new(hash, EMAIL);
    for (most, end) in [(7, "@"), (5, ".com")] {
        let length = 3 + draw.below(most - 3);
        out.extend_from_slice(texts.letters(length, &mut draw));
        out.extend_from_slice(end.as_bytes());
    }
}

fn credit_card(out: &mut Vec<u8>, hash: u64) {
    let mut draw = Draw::new(hash, CREDIT_CARD);
    for group in 0..4 {
        if group > 0 {
            out.push(b' ');
        }
        for _ in 0..4 {
            out.push(b'0' + draw.below(10) as u8);
        }
    }
}

fn city(hash: u64) -> &'static str {
    pick(CITIES, &mut Draw::new(hash, CITY))
}

fn state(hash: u64) -> &'static str {
    pick(STATES, &mut Draw::new(hash, STATE))
}

fn extras(events: &Events, knobs: &Knobs, texts: &Texts) -> ArrayRef {
    let mut column = TextColumn::with_capacity(events.len(), knobs.avg_person_size as usize);
    let mut others = Vec::with_capacity(64);
    for hash in &events.hashes {
        others.clear();
        name(&mut others, *hash);
        email(&mut others, texts, *hash);
        let size = 8 + others.len() + CREDIT_CARD_BYTES + city(*hash).len() + state(*hash).len();
        let length = ExtraLength::new(size as u64, knobs.avg_person_size);
        push_extra(&mut column, texts, *hash, EXTRA, length);
    }
    column.finish()
}

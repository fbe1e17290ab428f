//! Bids: 46 of 50 events, therefore the part that has to be fast. A column at a time, no allocation per row.

use super::event::{Draw, Events, FIRST_AUCTION_ID, FIRST_PERSON_ID, HOT_STRIDE, ID_LEAD, Knobs};
use super::text::{CHANNELS, ExtraLength, HOT_CHANNELS, Texts, fixed_extra};
use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use std::sync::{Arc, LazyLock};
use tidegate_types::SqlType;

pub const COLUMNS: &[(&str, SqlType)] = &[
    ("auction", SqlType::BigInt),
    ("bidder", SqlType::BigInt),
    ("price", SqlType::BigInt),
    ("channel", SqlType::Text),
    ("url", SqlType::Text),
    ("date_time", SqlType::Timestamp),
    ("extra", SqlType::Text),
];

/// Salts of the draws.
const AUCTION: u64 = 11;
const BIDDER: u64 = 12;
const PRICE: u64 = 13;
const CHANNEL: u64 = 14;
const EXTRA: u64 = 15;

/// Of two bids one comes through one of the four big channels.
const HOT_CHANNELS_RATIO: u64 = 2;

pub fn columns(events: &Events, knobs: &Knobs, texts: &Texts, wanted: &[usize]) -> Vec<ArrayRef> {
    let column = |index: &usize| -> ArrayRef {
        match COLUMNS[*index].0 {
            "auction" => auctions(events, knobs),
            "bidder" => bidders(events, knobs),
            "price" => prices(events),
            "channel" => texts.channels.column(events.len(), 12, channels(events)),
            "url" => texts.urls.column(events.len(), 72, channels(events)),
            "date_time" => Arc::new(TimestampMicrosecondArray::from(knobs.times_us(events))),
            "extra" => {
                let length = ExtraLength::new(4 * 8, knobs.avg_bid_size);
                fixed_extra(texts, &events.hashes, EXTRA, length)
            }
            other => unreachable!("bids have no column {other}"),
        }
    };
    wanted.iter().map(column).collect()
}

/// The hot auction of the moment, or one of those in flight.
fn auctions(events: &Events, knobs: &Knobs) -> ArrayRef {
    let auction = |((hash, cycle), place): ((&u64, &u64), &u32)| {
        let mut draw = Draw::new(*hash, AUCTION);
        let last = knobs.last_auction(*cycle, u64::from(*place));
        let hot = draw.below(knobs.hot_auction_ratio) > 0;
        let least = last.saturating_sub(knobs.in_flight_auctions);
        let random = least + draw.below(last - least + 1 + ID_LEAD);
        let base = if hot {
            last / HOT_STRIDE * HOT_STRIDE
        } else {
            random
        };
        (base + FIRST_AUCTION_ID) as i64
    };
    Arc::new(Int64Array::from_iter_values(rows(events).map(auction)))
}

/// The hot bidder of the moment, or one of the active people.
fn bidders(events: &Events, knobs: &Knobs) -> ArrayRef {
    let bidder = |((hash, cycle), place): ((&u64, &u64), &u32)| {
        let mut draw = Draw::new(*hash, BIDDER);
        let last = knobs.last_person(*cycle, u64::from(*place));
        let hot = draw.below(knobs.hot_bidders_ratio) > 0;
        let random = knobs.next_person(last, &mut draw);
        let base = if hot {
            last / HOT_STRIDE * HOT_STRIDE + 1
        } else {
            random
        };
        (base + FIRST_PERSON_ID) as i64
    };
    Arc::new(Int64Array::from_iter_values(rows(events).map(bidder)))
}

fn rows(events: &Events) -> impl ExactSizeIterator<Item = ((&u64, &u64), &u32)> {
    events.hashes.iter().zip(&events.cycles).zip(&events.places)
}

fn prices(events: &Events) -> ArrayRef {
    let prices = &*PRICES;
    let price = |hash: &u64| prices.draw(&mut Draw::new(*hash, PRICE)) as i64;
    Arc::new(Int64Array::from_iter_values(
        events.hashes.iter().map(price),
    ))
}

/// Indexes into the slots of channels and URLs.
fn channels(events: &Events) -> impl Iterator<Item = usize> {
    events.hashes.iter().map(|hash| {
        let mut draw = Draw::new(*hash, CHANNEL);
        let hot = draw.below(HOT_CHANNELS_RATIO) > 0;
        // The share that is drawn is the same for both, so that nothing branches.
        let range = if hot {
            HOT_CHANNELS.len() as u64
        } else {
            CHANNELS
        };
        let first = if hot { 0 } else { HOT_CHANNELS.len() as u64 };
        (first + draw.below(range)) as usize
    })
}

/// Prices of 1.00 to 1,000,000.00 in cents, distributed evenly over their logarithm: `round(100 · 10^(6u))`, with the
/// power taken from two tables of 1,024 entries.
pub struct Prices {
    coarse: Vec<f64>,
    fine: Vec<f64>,
}

pub static PRICES: LazyLock<Prices> = LazyLock::new(|| Prices {
    coarse: (0..1024)
        .map(|i| 100.0 * 10f64.powf(6.0 * f64::from(i) / 1024.0))
        .collect(),
    fine: (0..1024)
        .map(|i| 10f64.powf(6.0 * f64::from(i) / f64::from(1 << 20)))
        .collect(),
});

impl Prices {
    #[inline(always)]
    pub fn draw(&self, draw: &mut Draw) -> u64 {
        let (coarse, fine) = (draw.below(1024) as usize, draw.below(1024) as usize);
        (self.coarse[coarse] * self.fine[fine] + 0.5) as u64
    }
}

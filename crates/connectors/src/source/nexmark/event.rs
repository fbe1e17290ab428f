//! The arithmetic of the stream: which events a split holds, what ids and times they have, and their random draws.

use crate::ConnectorError;
use crate::format::timestamp;
use crate::options::Options;
use tidegate_types::SqlType;

/// Ids begin here, as in the reference generator.
pub const FIRST_PERSON_ID: u64 = 1000;
pub const FIRST_AUCTION_ID: u64 = 1000;
pub const FIRST_CATEGORY_ID: u64 = 10;
pub const CATEGORIES: u64 = 5;
/// Every so many-th auction or person is a hot one.
pub const HOT_STRIDE: u64 = 100;
/// How far ahead of the last existing one a random id may be.
pub const ID_LEAD: u64 = 10;
/// Cycles of the proportions in a block.
const BLOCK_CYCLES: u64 = 20;
/// 2015-07-15T00:00:00Z.
const BASE_TIME_US: i64 = 1_436_918_400_000_000;

/// What the options of a Nexmark source can change about its events.
#[derive(Debug, Clone)]
pub struct Knobs {
    pub seed: u64,
    pub base_time_us: i64,
    pub event_time_rate: u64,
    pub person_proportion: u64,
    pub auction_proportion: u64,
    pub bid_proportion: u64,
    pub hot_auction_ratio: u64,
    pub hot_bidders_ratio: u64,
    pub hot_sellers_ratio: u64,
    pub active_people: u64,
    pub in_flight_auctions: u64,
    pub avg_person_size: u64,
    pub avg_auction_size: u64,
    pub avg_bid_size: u64,
}

impl Knobs {
    pub fn of(options: &Options<'_>) -> Result<Self, ConnectorError> {
        let number = |name: &str, least: u64, most: u64, default: u64| {
            Ok::<_, ConnectorError>(options.number(name, least..=most)?.unwrap_or(default))
        };
        let base_time_us = match options.text("base_time") {
            None => BASE_TIME_US,
            Some(text) => timestamp::parse(text, &SqlType::TimestampTz)
                .map_err(|_| options.wrong("base_time", "a timestamp, or epoch milliseconds"))?,
        };
        Ok(Self {
            seed: number("seed", 0, u64::MAX, 0)?,
            base_time_us,
            event_time_rate: number("event_time_rate", 1, 1_000_000_000, 10_000)?,
            person_proportion: number("person_proportion", 1, 10_000, 1)?,
            auction_proportion: number("auction_proportion", 1, 10_000, 3)?,
            bid_proportion: number("bid_proportion", 0, 10_000, 46)?,
            hot_auction_ratio: number("hot_auction_ratio", 1, 10_000, 2)?,
            hot_bidders_ratio: number("hot_bidders_ratio", 1, 10_000, 4)?,
            hot_sellers_ratio: number("hot_sellers_ratio", 1, 10_000, 4)?,
            active_people: number("active_people", 1, 1 << 40, 1000)?,
            in_flight_auctions: number("in_flight_auctions", 1, 1 << 40, 100)?,
            avg_person_size: number("avg_person_size", 0, 16_384, 200)?,
            avg_auction_size: number("avg_auction_size", 0, 16_384, 500)?,
            avg_bid_size: number("avg_bid_size", 0, 16_384, 100)?,
        })
    }

    /// Events after which the proportions repeat: 50.
    pub fn cycle(&self) -> u64 {
        self.person_proportion + self.auction_proportion + self.bid_proportion
    }

    pub fn time_us(&self, number: u64) -> i64 {
        let us = u128::from(number) * 1_000_000 / u128::from(self.event_time_rate);
        self.base_time_us + us as i64
    }

    /// The times of all events; the usual rates divide a second into whole microseconds and need no division.
    pub fn times_us(&self, events: &Events) -> Vec<i64> {
        if 1_000_000 % self.event_time_rate == 0 {
            let delay_us = 1_000_000 / self.event_time_rate;
            let time = |n: &u64| self.base_time_us + n.wrapping_mul(delay_us) as i64;
            return events.numbers.iter().map(time).collect();
        }
        events.numbers.iter().map(|n| self.time_us(*n)).collect()
    }

    /// The last person, counted from zero, that exists when the event happens; in cycle `cycle` at place `place`.
    pub fn last_person(&self, cycle: u64, place: u64) -> u64 {
        cycle * self.person_proportion + place.min(self.person_proportion - 1)
    }

    /// Likewise the last auction. Before the first one there is none: it counts as auction 0, which comes soon.
    pub fn last_auction(&self, cycle: u64, place: u64) -> u64 {
        let (persons, auctions) = (self.person_proportion, self.auction_proportion);
        if place < persons {
            return (cycle * auctions).saturating_sub(1);
        }
        cycle * auctions + (place - persons).min(auctions - 1)
    }

    /// One of the people that are active now, or will soon be.
    pub fn next_person(&self, last_person: u64, draw: &mut Draw) -> u64 {
        let people = last_person + 1;
        let active = people.min(self.active_people);
        people - active + draw.below(active + ID_LEAD)
    }
}

/// Events of one split that belong to one table, in order.
#[derive(Debug, Default)]
pub struct Events {
    pub numbers: Vec<u64>,
    /// Which cycle of the proportions an event is in.
    pub cycles: Vec<u64>,
    /// Its place in that cycle.
    pub places: Vec<u32>,
    /// What all of its random draws come from.
    pub hashes: Vec<u64>,
}

impl Events {
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn clear(&mut self) {
        self.numbers.clear();
        self.cycles.clear();
        self.places.clear();
        self.hashes.clear();
    }

    fn extend_cycle(&mut self, seed: u64, cycle: u64, cycle_len: u64, from: u64, to: u64) {
        let first = cycle * cycle_len;
        let count = (to - from) as usize;
        self.numbers.extend(from..to);
        self.cycles.resize(self.cycles.len() + count, cycle);
        self.places.extend((from..to).map(|n| (n - first) as u32));
        self.hashes.extend((from..to).map(|n| hash(seed, n)));
    }

    pub fn push(&mut self, from: &Events, row: usize) {
        self.numbers.push(from.numbers[row]);
        self.cycles.push(from.cycles[row]);
        self.places.push(from.places[row]);
        self.hashes.push(from.hashes[row]);
    }
}

/// Which events are a split's: block b of the stream belongs to split b mod `splits`.
#[derive(Debug, Clone)]
pub struct Layout {
    pub cycle: u64,
    /// First and behind-last place in a cycle that the table shows.
    pub range: (u64, u64),
    pub split: u64,
    pub splits: u64,
    /// Events of the whole stream.
    pub events: u64,
}

impl Layout {
    fn block(&self) -> u64 {
        self.cycle * BLOCK_CYCLES
    }

    /// The event at a position of the split. Grows with the position.
    fn number(&self, position: u64) -> u64 {
        let (block, within) = (position / self.block(), position % self.block());
        block
            .saturating_mul(self.splits)
            .saturating_add(self.split)
            .saturating_mul(self.block())
            .saturating_add(within)
    }

    pub fn finished(&self, position: u64) -> bool {
        self.number(position) >= self.events
    }

    /// Collects up to `max_rows` events of the table from the positions `[start, end)`, and returns where it stopped.
    pub fn collect(
        &self,
        knobs: &Knobs,
        start: u64,
        end: u64,
        max_rows: usize,
        events: &mut Events,
    ) -> u64 {
        events.clear();
        let mut position = start;
        while position < end && events.len() < max_rows && !self.finished(position) {
            let left_in_block = self.block() - position % self.block();
            let first = self.number(position);
            let stop = (first + left_in_block.min(end - position)).min(self.events);
            let reached = self.collect_run(knobs.seed, first, stop, max_rows, events);
            position += reached - first;
        }
        position
    }

    /// The same for consecutive events `[first, stop)` of one block; returns the number behind the last one looked at.
    fn collect_run(
        &self,
        seed: u64,
        first: u64,
        stop: u64,
        max_rows: usize,
        events: &mut Events,
    ) -> u64 {
        let mut cycle = first / self.cycle;
        while cycle * self.cycle < stop {
            let base = cycle * self.cycle;
            let from = (base + self.range.0).max(first);
            let to = (base + self.range.1).min(stop);
            if from < to {
                let room = (max_rows - events.len()) as u64;
                let taken = (to - from).min(room);
                events.extend_cycle(seed, cycle, self.cycle, from, from + taken);
                if taken == room {
                    return from + taken;
                }
            }
            cycle += 1;
        }
        stop
    }
}

/// All random draws of an event derive from this.
fn hash(seed: u64, number: u64) -> u64 {
    mix(mix(seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The finaliser of splitmix64: every bit of the input decides every bit of the output.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One random number of an event, spent bit by bit: each call takes its share from the top and leaves the rest.
#[derive(Debug, Clone, Copy)]
pub struct Draw(u64);

impl Draw {
    /// The draws with different salts of one event are independent.
    #[inline(always)]
    pub fn new(hash: u64, salt: u64) -> Self {
        let product = u128::from(hash ^ salt.wrapping_mul(0xa076_1d64_78bd_642f))
            * u128::from(0xe703_7ed1_a0b4_28db_u64);
        Self(product as u64 ^ (product >> 64) as u64)
    }

    /// A number from zero to below `n`. The shares of one draw should multiply to well below 2⁶⁴.
    #[inline(always)]
    pub fn below(&mut self, n: u64) -> u64 {
        let product = u128::from(self.0) * u128::from(n);
        self.0 = product as u64;
        (product >> 64) as u64
    }
}

//! The Nexmark source: an online auction's persons, auctions and bids, computed instead of read.
//!
//! `WITH (connector = 'nexmark', table = 'person'|'auction'|'bid', events = '…', rate = '…', seed = '…', splits = '…')`.
//! Without `table` it is the combined stream: `event_type` (0 person, 1 auction, 2 bid) and three nullable rows.
//!
//! Schema, proportions (1 person : 3 auctions : 46 bids), distributions and sizes follow the reference generator of
//! Apache Beam and Flink. What differs, and why:
//!
//! - **An event is a pure function of (seed, event number).** Random numbers are drawn by hashing, not in sequence, so
//!   the rows do not depend on splits, batch sizes, resuming or the number of workers, and any column can be left out.
//! - `events` and `rate` count events of the *combined* stream: `table = 'bid', events = '1000000'` gives 920,000 rows.
//! - Free text (`extra`, names, descriptions) is a slice at a random position of a fixed random text.
//! - `date_time` starts at `base_time` and follows the event number at `event_time_rate` events a second (10,000), at a
//!   resolution of microseconds, so that two events have the same time only at higher rates.
//!
//! Event n belongs to block n / B of B = 20 × (50) consecutive events, and block b to split b mod S. The offset of a
//! split counts the events of its blocks, of whatever kind.

mod auction;
mod bid;
mod combined;
mod event;
mod person;
mod text;

use crate::options::Options;
use crate::source::{Allowed, Chunk, Next, Source, SplitReader, Throttle};
use crate::{ConnectorError, Offset, SplitId};
use arrow::array::ArrayRef;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use event::{Events, Knobs, Layout};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use text::Texts;
use tidegate_types::SqlType;

const OPTIONS: &[&str] = &[
    "table",
    "events",
    "rate",
    "seed",
    "splits",
    "base_time",
    "event_time_rate",
    "person_proportion",
    "auction_proportion",
    "bid_proportion",
    "hot_auction_ratio",
    "hot_bidders_ratio",
    "hot_sellers_ratio",
    "active_people",
    "in_flight_auctions",
    "avg_person_size",
    "avg_auction_size",
    "avg_bid_size",
];

/// Which rows of the stream a source shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Person,
    Auction,
    Bid,
    Combined,
}

impl Table {
    fn of(options: &Options<'_>) -> Result<Self, ConnectorError> {
        match options
            .text("table")
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            None | Some("") => Ok(Table::Combined),
            Some("person") => Ok(Table::Person),
            Some("auction") => Ok(Table::Auction),
            Some("bid") => Ok(Table::Bid),
            Some(_) => Err(options.wrong("table", "person, auction or bid, or no such option")),
        }
    }

    fn columns(self) -> Vec<(&'static str, SqlType)> {
        match self {
            Table::Person => person::COLUMNS.to_vec(),
            Table::Auction => auction::COLUMNS.to_vec(),
            Table::Bid => bid::COLUMNS.to_vec(),
            Table::Combined => combined::columns(),
        }
    }

    /// First and behind-last event of this table within a cycle of the proportions.
    fn range(self, knobs: &Knobs) -> (u64, u64) {
        let (persons, auctions) = (knobs.person_proportion, knobs.auction_proportion);
        match self {
            Table::Person => (0, persons),
            Table::Auction => (persons, persons + auctions),
            Table::Bid => (persons + auctions, knobs.cycle()),
            Table::Combined => (0, knobs.cycle()),
        }
    }
}

/// The columns that a Nexmark source has when the statement names none.
pub fn schema_of(options: &BTreeMap<String, String>) -> Result<SchemaRef, ConnectorError> {
    let table = Table::of(&Options::new("connector \"nexmark\"", options, OPTIONS)?)?;
    let fields = table
        .columns()
        .into_iter()
        .map(|(name, sql_type)| sql_type.field(name, true))
        .collect::<Vec<_>>();
    Ok(Arc::new(Schema::new(fields)))
}

pub struct NexmarkSource {
    schema: SchemaRef,
    /// For each column of the schema its index among the table's own columns.
    columns: Vec<usize>,
    table: Table,
    events: Option<u64>,
    rate: Option<f64>,
    splits: u32,
    knobs: Arc<Knobs>,
    texts: Arc<Texts>,
}

impl NexmarkSource {
    pub fn new(
        schema: &SchemaRef,
        options: &BTreeMap<String, String>,
    ) -> Result<Self, ConnectorError> {
        let options = Options::new("connector \"nexmark\"", options, OPTIONS)?;
        let table = Table::of(&options)?;
        let columns = match_columns(table, schema)?;
        let knobs = Knobs::of(&options)?;
        Ok(Self {
            schema: schema.clone(),
            columns,
            table,
            events: options.number("events", 0..=u64::MAX)?,
            rate: options.number("rate", 1e-3..=1e12)?,
            splits: options.number("splits", 1..=4096)?.unwrap_or(8),
            texts: Arc::new(Texts::new(knobs.seed)),
            knobs: Arc::new(knobs),
        })
    }
}

/// Columns may be left out and reordered, but have the table's names and types.
fn match_columns(table: Table, schema: &SchemaRef) -> Result<Vec<usize>, ConnectorError> {
    let own = table.columns();
    let find = |field: &arrow::datatypes::FieldRef| {
        let index = own.iter().position(|(name, _)| name == field.name());
        let Some(index) = index else {
            let names = own.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            return Err(crate::options::unknown(
                "column",
                field.name(),
                " of this nexmark table",
                &names,
            ));
        };
        if own[index].1.arrow() != *field.data_type() {
            return Err(ConnectorError::invalid(format!(
                "column \"{}\" of a nexmark source has type {}, not {}",
                field.name(),
                own[index].1,
                SqlType::from_field(field)
            )));
        }
        Ok(index)
    };
    schema.fields().iter().map(find).collect()
}

impl Source for NexmarkSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Ok((0..self.splits)
            .map(|split| SplitId::new(split.to_string()))
            .collect())
    }

    fn open(
        &self,
        split: &SplitId,
        resume: Option<&Offset>,
        projection: Option<&[usize]>,
    ) -> Result<Box<dyn SplitReader>, ConnectorError> {
        let split = split.number(self.splits)?;
        let (schema, columns) = match projection {
            None => (self.schema.clone(), self.columns.clone()),
            Some(projection) => (
                Arc::new(
                    self.schema
                        .project(projection)
                        .expect("the projection names columns of the schema"),
                ),
                projection.iter().map(|i| self.columns[*i]).collect(),
            ),
        };
        Ok(Box::new(NexmarkReader {
            schema,
            columns,
            table: self.table,
            layout: Layout {
                cycle: self.knobs.cycle(),
                range: self.table.range(&self.knobs),
                split: u64::from(split),
                splits: u64::from(self.splits),
                events: self.events.unwrap_or(u64::MAX),
            },
            knobs: self.knobs.clone(),
            texts: self.texts.clone(),
            position: resume.map_or(0, Offset::position),
            throttle: Throttle::new(self.rate.map(|rate| rate / f64::from(self.splits))),
            events: Events::default(),
        }))
    }

    fn bounded(&self) -> bool {
        self.events.is_some()
    }

    fn runs_on_worker(&self) -> bool {
        true
    }

    fn may_be_undecodable(&self) -> bool {
        false
    }
}

struct NexmarkReader {
    schema: SchemaRef,
    columns: Vec<usize>,
    table: Table,
    layout: Layout,
    knobs: Arc<Knobs>,
    texts: Arc<Texts>,
    position: u64,
    throttle: Throttle,
    /// Reused from call to call.
    events: Events,
}

impl NexmarkReader {
    fn columns(&self) -> Vec<ArrayRef> {
        let (events, knobs, texts) = (&self.events, &*self.knobs, &*self.texts);
        match self.table {
            Table::Bid => bid::columns(events, knobs, texts, &self.columns),
            Table::Auction => auction::columns(events, knobs, texts, &self.columns),
            Table::Person => person::columns(events, knobs, texts, &self.columns),
            Table::Combined => combined::generate(events, knobs, texts, &self.columns),
        }
    }
}

impl SplitReader for NexmarkReader {
    fn next(&mut self, max_rows: usize, until: Option<&Offset>) -> Result<Next, ConnectorError> {
        if self.layout.finished(self.position) {
            return Ok(Next::Finished);
        }
        let start = self.position;
        let end = match until.map(Offset::position) {
            Some(until) if start >= until => return Ok(Next::Idle),
            // What is replayed has happened already, and is not held back.
            Some(until) => until,
            None => match self.throttle.allowed(Instant::now()) {
                Allowed::Positions(n) => start.saturating_add(n),
                Allowed::NotBefore(at) => return Ok(Next::WaitUntil(at)),
            },
        };
        self.position = self
            .layout
            .collect(&self.knobs, start, end, max_rows, &mut self.events);
        if until.is_none() {
            self.throttle.spend(self.position - start);
        }
        let rows = self.events.len();
        let batch = RecordBatch::try_new_with_options(
            self.schema.clone(),
            self.columns(),
            &RecordBatchOptions::new().with_row_count(Some(rows)),
        )
        .expect("the generator makes the columns of its schema");
        Ok(Next::Chunk(Chunk::of(batch)))
    }

    fn offset(&self) -> Offset {
        Offset::Number(self.position)
    }
}

#[cfg(test)]
mod tests;

//! Generated rows: for each column a sequence, or random values from a range.
//!
//! `WITH (connector = 'datagen', …)` with, for a column `c`:
//!
//! | option | meaning |
//! |---|---|
//! | `fields.c.kind` | `random` (default) or `sequence` |
//! | `fields.c.start`, `.end`, `.step` | of a sequence: 0, none, 1 (a day for dates, a second for times); the source ends with its first sequence |
//! | `fields.c.min`, `.max` | of a random value, both included |
//! | `fields.c.length` | of a random text or bytea (10), or of an array (3) |
//! | `fields.c.seed` | instead of one made from `seed` and the column's name |
//!
//! and for the whole source `rows` (no limit by default), `rows.per.second` (10; no limit if the source ends or with 0),
//! `seed` (0) and `splits` (1). Row n belongs to split n mod `splits`, and depends on the seed and n alone.

mod column;

use crate::options::Options;
use crate::source::{Allowed, Chunk, Next, Source, SplitReader, Throttle};
use crate::{ConnectorError, Offset, SplitId};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use column::ColumnSpec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The rate of a source that never ends and does not say how fast it goes.
const DEFAULT_ROWS_PER_SECOND: f64 = 10.0;

pub struct DatagenSource {
    schema: SchemaRef,
    columns: Arc<Vec<ColumnSpec>>,
    /// Rows of all splits together.
    rows: Option<u64>,
    rows_per_second: Option<f64>,
    splits: u32,
}

impl DatagenSource {
    pub fn new(
        schema: &SchemaRef,
        options: &BTreeMap<String, String>,
    ) -> Result<Self, ConnectorError> {
        let mut known = ["rows", "rows.per.second", "seed", "splits"]
            .map(str::to_owned)
            .to_vec();
        for field in schema.fields() {
            known.extend(
                column::OPTIONS
                    .iter()
                    .map(|o| format!("fields.{}.{o}", field.name())),
            );
        }
        let options = Options::new("connector \"datagen\"", options, &known)?;
        if schema.fields().is_empty() {
            return Err(ConnectorError::invalid(
                "connector \"datagen\" needs columns",
            ));
        }
        let seed = options.number("seed", 0..=u64::MAX)?.unwrap_or(0);
        let columns = schema
            .fields()
            .iter()
            .map(|field| ColumnSpec::new(field, &options, seed))
            .collect::<Result<Vec<_>, _>>()?;
        let ends = columns.iter().filter_map(ColumnSpec::rows);
        let rows = options
            .number("rows", 0..=u64::MAX)?
            .into_iter()
            .chain(ends)
            .min();
        let rows_per_second = match options.number("rows.per.second", 0.0..=1e12)? {
            Some(0.0) => None,
            Some(rate) => Some(rate),
            None => rows.is_none().then_some(DEFAULT_ROWS_PER_SECOND),
        };
        Ok(Self {
            schema: schema.clone(),
            columns: Arc::new(columns),
            rows,
            rows_per_second,
            splits: options.number("splits", 1..=4096)?.unwrap_or(1),
        })
    }
}

impl Source for DatagenSource {
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
        let every = || (0..self.columns.len()).collect();
        Ok(Box::new(DatagenReader {
            schema: crate::format::projected(&self.schema, projection),
            wanted: projection.map_or_else(every, <[usize]>::to_vec),
            columns: self.columns.clone(),
            rows: self.rows.unwrap_or(u64::MAX),
            split: u64::from(split.number(self.splits)?),
            splits: u64::from(self.splits),
            position: resume.map_or(0, Offset::position),
            throttle: Throttle::new(
                self.rows_per_second
                    .map(|rate| rate / f64::from(self.splits)),
            ),
        }))
    }

    fn bounded(&self) -> bool {
        self.rows.is_some()
    }

    fn runs_on_worker(&self) -> bool {
        true
    }

    fn may_be_undecodable(&self) -> bool {
        false
    }
}

struct DatagenReader {
    schema: SchemaRef,
    columns: Arc<Vec<ColumnSpec>>,
    wanted: Vec<usize>,
    rows: u64,
    split: u64,
    splits: u64,
    /// Rows of this split that have been made.
    position: u64,
    throttle: Throttle,
}

impl SplitReader for DatagenReader {
    fn next(&mut self, max_rows: usize, until: Option<&Offset>) -> Result<Next, ConnectorError> {
        // Rows of this split: those below the limit that are congruent to its number.
        let rows = self.rows.saturating_sub(self.split).div_ceil(self.splits);
        if self.position >= rows {
            return Ok(Next::Finished);
        }
        let end = match until.map(Offset::position) {
            Some(until) if self.position >= until => return Ok(Next::Idle),
            // What is replayed has happened already, and is not held back.
            Some(until) => until,
            None => match self.throttle.allowed(Instant::now()) {
                Allowed::Positions(n) => self.position.saturating_add(n),
                Allowed::NotBefore(at) => return Ok(Next::WaitUntil(at)),
            },
        };
        let portion = self.position.saturating_add(max_rows.max(1) as u64);
        let end = end.min(rows).min(portion);
        let numbers = (self.position..end)
            .map(|position| position * self.splits + self.split)
            .collect::<Vec<_>>();
        if until.is_none() {
            self.throttle.spend(end - self.position);
        }
        self.position = end;
        let arrays = self
            .wanted
            .iter()
            .map(|index| self.columns[*index].array(&numbers))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .expect("columns are made for the schema");
        Ok(Next::Chunk(Chunk::of(batch)))
    }

    fn offset(&self) -> Offset {
        Offset::Number(self.position)
    }
}

#[cfg(test)]
mod tests;

//! Bringing a batch of one side together with the state of the other, in bounded steps.

use super::matching::Matching;
use super::side::{Grouped, Place};
use super::store::{Page, Unfinished, Weight, write};
use super::verdict::emits_pairs;
use crate::row_failure::row_error;
use crate::{Cx, OperatorError, Progress};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::error::ArrowError;
use std::collections::VecDeque;
use tidegate_state::Cell;

/// A batch on its way through the other side's rows. Goes on where it stopped.
pub(super) struct Probe {
    /// The batch is state already: its pairs are told, and nothing is counted or written.
    pub is_replay: bool,
    /// 0: the batch is of the left side.
    pub from: usize,
    pub batch: Grouped,
    pub page: Page,
    /// The page's rests as columns, once a pair needs them.
    pub page_columns: Option<Vec<ArrayRef>>,
    /// Matches and unknowns that this batch adds to each row of the page; empty when they are not counted.
    pub page_tally: Vec<Weight>,
    /// Matches and unknowns of each row of the batch; empty when they are not counted.
    pub batch_tally: Vec<Weight>,
    /// Keys that have more state rows than one page takes.
    pub unfinished: VecDeque<Unfinished>,
    /// The rows of the batch that take part in this page; `None`: all.
    rows: Option<Vec<u32>>,
    /// The next row of the batch, and the next of its state rows.
    row: usize,
    offset: u32,
}

/// Indices into the batch and into the page, and the products of the diffs.
#[derive(Default)]
pub(super) struct Pairs {
    pub batch: Vec<u32>,
    pub page: Vec<u32>,
    pub diffs: Vec<i64>,
}

impl Probe {
    pub fn new(from: usize, batch: Grouped) -> Self {
        Self {
            is_replay: false,
            from,
            batch,
            page: Page::default(),
            page_columns: None,
            page_tally: Vec::new(),
            batch_tally: Vec::new(),
            unfinished: VecDeque::new(),
            rows: None,
            row: 0,
            offset: 0,
        }
    }

    /// Starts on a page. A page that continues a single key concerns only the rows with that key.
    pub fn set_page(&mut self, mut page: Page, only_key: Option<u32>) {
        self.unfinished.extend(page.unfinished.drain(..));
        self.page_tally = Vec::new();
        self.page = page;
        self.page_columns = None;
        self.rows = only_key.map(|key| {
            let rows = self.batch.key_of.iter().enumerate();
            rows.filter(|(_, k)| **k == key)
                .map(|(row, _)| row as u32)
                .collect()
        });
        self.row = 0;
        self.offset = 0;
    }

    /// The next pairs, at most `limit`; none at the end of the page.
    pub fn next_pairs(&mut self, limit: usize) -> Pairs {
        let mut pairs = Pairs::default();
        let rows = self.rows.as_ref().map_or(self.batch.num_rows(), Vec::len);
        while self.row < rows {
            let row = self.rows.as_ref().map_or(self.row as u32, |r| r[self.row]);
            let (start, length) = self.page.ranges[self.batch.key_of[row as usize] as usize];
            let diff = self.batch.diffs[row as usize];
            let room = (limit - pairs.diffs.len()) as u32;
            let end = length.min(self.offset + room);
            for state in start + self.offset..start + end {
                pairs.batch.push(row);
                pairs.page.push(state);
                pairs
                    .diffs
                    .push(diff * self.page.weights[state as usize].count);
            }
            if end < length {
                self.offset = end;
                break;
            }
            self.offset = 0;
            self.row += 1;
        }
        pairs
    }
}

impl Pairs {
    pub fn len(&self) -> usize {
        self.diffs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.diffs.is_empty()
    }

    fn keep(&self, kept: impl Iterator<Item = usize>) -> Self {
        let mut pairs = Self::default();
        for pair in kept {
            pairs.batch.push(self.batch[pair]);
            pairs.page.push(self.page[pair]);
            pairs.diffs.push(self.diffs[pair]);
        }
        pairs
    }
}

/// The elements at these indices; the array itself when they are all of them in order.
pub(super) fn gather(column: &ArrayRef, indices: &UInt32Array) -> Result<ArrayRef, ArrowError> {
    let values = indices.values();
    let identity =
        values.len() == column.len() && values.iter().enumerate().all(|(i, v)| i == *v as usize);
    if identity {
        Ok(column.clone())
    } else {
        take(column, indices, None)
    }
}

impl Matching {
    pub(super) fn start_probe(
        &self,
        from: usize,
        batch: Grouped,
        cx: &Cx<'_>,
    ) -> Result<Probe, OperatorError> {
        let mut probe = Probe::new(from, batch);
        if self.tallies(from) {
            probe.batch_tally = vec![Weight::default(); probe.batch.num_rows()];
        }
        if self.sides[from].keys.is_empty() {
            // All of the other side: page by page from the start.
            probe.page.ranges = vec![(0, 0)];
            probe.unfinished.push_back(Unfinished {
                key: 0,
                after: None,
            });
            return Ok(probe);
        }
        let keys: Vec<&[u8]> = (0..probe.batch.num_keys() as u32)
            .map(|k| probe.batch.key(k))
            .collect();
        let page = Page::load(cx.tables[1 - from].as_ref(), &keys, self.limits.page_rows)?;
        drop(keys);
        self.turn_page(&mut probe, page, None);
        Ok(probe)
    }

    fn turn_page(&self, probe: &mut Probe, page: Page, only_key: Option<u32>) {
        probe.set_page(page, only_key);
        if self.tallies(1 - probe.from) {
            probe.page_tally = vec![Weight::default(); probe.page.len()];
        }
    }

    pub(super) fn go_on_probing(
        &mut self,
        probe: &mut Probe,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        let mut seen = 0;
        loop {
            let pairs = probe.next_pairs(self.limits.chunk_rows);
            if !pairs.is_empty() {
                seen += pairs.len();
                self.take_pairs(probe, pairs, cx)?;
                if cx.exhausted() || seen >= self.limits.pairs_per_turn {
                    return Ok(Progress::More);
                }
                continue;
            }
            if !probe.is_replay {
                self.write_page_tally(probe, cx)?;
            }
            let Some(next) = probe.unfinished.pop_front() else {
                break;
            };
            let (keys, key) = (probe.batch.num_keys(), probe.batch.key(next.key));
            let page = Page::load_more(
                cx.tables[1 - probe.from].as_ref(),
                keys,
                key,
                &next,
                self.limits.page_rows,
            )?;
            self.turn_page(probe, page, Some(next.key));
        }
        if !probe.is_replay {
            self.apply(probe.from, &probe.batch, &probe.batch_tally, cx)?;
        }
        Ok(Progress::Done)
    }

    /// Counts the pairs that match, and emits them.
    fn take_pairs(
        &mut self,
        probe: &mut Probe,
        pairs: Pairs,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        if probe.page_columns.is_none() {
            let rests = self.sides[1 - probe.from].decode_rests(probe.page.rests.iter())?;
            probe.page_columns = Some(rests);
        }
        let Some(predicate) = &self.predicate else {
            return self.emit_pairs(probe, pairs, cx);
        };
        let batch = UInt32Array::from(pairs.batch.clone());
        let page = UInt32Array::from(pairs.page.clone());
        let answers = predicate.evaluate(pairs.len(), &mut |c| {
            self.pair_column(probe, c, &batch, &page)
        })?;
        for (pair, error) in &answers.failed {
            let (batch, page) = (batch.slice(*pair, 1), page.slice(*pair, 1));
            let columns =
                (0..self.pair.fields().len()).map(|c| self.pair_column(probe, c, &batch, &page));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(1));
            let row = RecordBatch::try_new_with_options(self.pair.clone(), columns, &options)?;
            cx.fail_row(row_error(error, &row, 0, pairs.diffs[*pair]));
        }
        for pair in answers.matched.set_indices() {
            probe.tally(&pairs, pair, |weight| &mut weight.matches);
        }
        if let Some(unknown) = &answers.unknown {
            for pair in unknown.set_indices() {
                probe.tally(&pairs, pair, |weight| &mut weight.unknowns);
            }
        }
        if !emits_pairs(self.output.kind) {
            return Ok(());
        }
        let matched = match answers.matched.count_set_bits() {
            all if all == pairs.len() => pairs,
            _ => pairs.keep(answers.matched.set_indices()),
        };
        self.emit_pairs(probe, matched, cx)
    }

    fn emit_pairs(
        &self,
        probe: &Probe,
        pairs: Pairs,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        if pairs.is_empty() {
            return Ok(());
        }
        let Pairs { batch, page, diffs } = pairs;
        let (batch, page) = (UInt32Array::from(batch), UInt32Array::from(page));
        let columns =
            (0..self.pair.fields().len()).map(|c| self.pair_column(probe, c, &batch, &page));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        self.output.emit(columns, diffs, cx)
    }

    /// One column of these pairs, counted over left columns and then right columns.
    fn pair_column(
        &self,
        probe: &Probe,
        column: usize,
        batch: &UInt32Array,
        page: &UInt32Array,
    ) -> Result<ArrayRef, OperatorError> {
        let left = self.output.schemas[0].fields().len();
        let (side, column) = if column < left {
            (0, column)
        } else {
            (1, column - left)
        };
        if side == probe.from {
            return Ok(gather(&probe.batch.columns[column], batch)?);
        }
        match self.sides[side].places[column] {
            // The keys are equal, and those of the batch are at hand.
            Place::Key(key) => Ok(gather(
                &probe.batch.columns[self.sides[probe.from].keys[key]],
                batch,
            )?),
            Place::Rest(rest) => {
                let columns = probe
                    .page_columns
                    .as_ref()
                    .expect("decoded before the first pair");
                Ok(gather(&columns[rest], page)?)
            }
        }
    }

    /// Writes what this page's rows have gained or lost in matches.
    fn write_page_tally(&mut self, probe: &Probe, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        if probe.page_tally.is_empty() {
            return Ok(());
        }
        let other = 1 - probe.from;
        let mut cells = Vec::new();
        for (key, (start, length)) in probe.page.ranges.iter().enumerate() {
            for row in *start as usize..(*start + *length) as usize {
                let gained = probe.page_tally[row];
                if gained == Weight::default() {
                    continue;
                }
                let before = probe.page.weights[row];
                let after = Weight {
                    count: before.count,
                    matches: before.matches + gained.matches,
                    unknowns: before.unknowns + gained.unknowns,
                };
                let cell = Cell {
                    key: probe.batch.key(key as u32),
                    sub: probe.page.rests.get(row),
                };
                cells.push((cell, after));
                let hash = probe.batch.key_hashes[key];
                self.row_logs[other].touch(hash, cell.key, cell.sub, before, after);
            }
        }
        write(
            cx.tables[other].as_mut(),
            self.rows[other].counters(),
            cells.into_iter(),
        )?;
        Ok(())
    }
}

impl Probe {
    /// Adds one pair to a counter of both of its rows.
    fn tally(&mut self, pairs: &Pairs, pair: usize, counter: impl Fn(&mut Weight) -> &mut i64) {
        let (batch, page) = (pairs.batch[pair] as usize, pairs.page[pair] as usize);
        if let Some(tally) = self.batch_tally.get_mut(batch) {
            *counter(tally) += self.page.weights[page].count;
        }
        if let Some(tally) = self.page_tally.get_mut(page) {
            *counter(tally) += self.batch.diffs[batch];
        }
    }
}

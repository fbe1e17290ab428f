//! A join's present output from its tables: the pairs of the left rows with the right ones, and the rows of preserved
//! sides whose verdict shows them by themselves.
//!
//! The left side is brought together with the right one as if it came now, without counting or writing anything. Rows with
//! a NULL among their keys are not in the tables; where they are part of the output, the plan does not ask for a replay.

use super::matching::Matching;
use super::output::Lone;
use super::probe::Probe;
use super::store::{Page, Unfinished, read};
use super::verdict::{Verdict, by_key, emits_pairs, verdict};
use crate::replay::ReplayKeys;
use crate::{Cx, OperatorError, Progress};
use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions};
use std::collections::VecDeque;
use tidegate_state::Cell;
use tidegate_types::{Batch, ByteRows};

/// Where a replay stands.
pub(super) struct Replay {
    side: usize,
    keys: ReplayKeys,
    /// The keys of the page, and what exceeded pages.
    chunk: ByteRows,
    unfinished: VecDeque<Unfinished>,
    /// The rows of a page on their way through the other side.
    probe: Option<Box<Probe>>,
}

impl Replay {
    pub fn new(cx: &Cx<'_>) -> Result<Self, OperatorError> {
        Self::of_side(0, cx)
    }

    fn of_side(side: usize, cx: &Cx<'_>) -> Result<Self, OperatorError> {
        Ok(Self {
            side,
            keys: ReplayKeys::of(cx.tables[side].as_ref())?,
            chunk: ByteRows::new(),
            unfinished: VecDeque::new(),
            probe: None,
        })
    }

    /// The next rows of the side, with the key (among `chunk`) that each page range belongs to.
    fn next_page(
        &mut self,
        keys_per_step: usize,
        page_rows: usize,
        cx: &Cx<'_>,
    ) -> Result<Option<Page>, OperatorError> {
        let table = cx.tables[self.side].as_ref();
        if let Some(next) = self.unfinished.pop_front() {
            let key = self.chunk.get(next.key as usize);
            let mut page = Page::load_more(table, self.chunk.len(), key, &next, page_rows)?;
            self.unfinished.extend(page.unfinished.drain(..));
            return Ok(Some(page));
        }
        let Some(range) = self.keys.next(keys_per_step) else {
            return Ok(None);
        };
        self.chunk = ByteRows::new();
        self.keys.range(range).for_each(|key| self.chunk.push(key));
        let keys: Vec<&[u8]> = self.chunk.iter().collect();
        let mut page = Page::load(table, &keys, page_rows)?;
        self.unfinished.extend(page.unfinished.drain(..));
        Ok(Some(page))
    }
}

impl Matching {
    pub(super) fn go_on_replaying(
        &mut self,
        replay: &mut Replay,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        loop {
            if let Some(mut probe) = replay.probe.take()
                && self.go_on_probing(&mut probe, cx)? == Progress::More
            {
                replay.probe = Some(probe);
                return Ok(Progress::More);
            }
            if cx.exhausted() {
                return Ok(Progress::More);
            }
            let (step, rows) = (self.limits.keys_per_step, self.limits.page_rows);
            let Some(page) = replay.next_page(step, rows, cx)? else {
                if replay.side == 1 || !self.preserved[1] {
                    return Ok(Progress::Done);
                }
                *replay = Replay::of_side(1, cx)?;
                continue;
            };
            if self.preserved[replay.side] {
                self.tell_alone(replay, &page, cx)?;
            }
            if replay.side == 0 && page.len() > 0 && emits_pairs(self.output.kind) {
                replay.probe = Some(Box::new(self.probe_of(replay, &page, cx)?));
            }
        }
    }

    /// The rows of a page that are in the output by themselves.
    fn tell_alone(
        &self,
        replay: &Replay,
        page: &Page,
        cx: &mut Cx<'_>,
    ) -> Result<(), OperatorError> {
        let side = replay.side;
        let by_keys = match self.counts[1 - side].filter(|_| !self.tallies(side)) {
            None => None,
            Some(table) => {
                let cells: Vec<Cell<'_>> = replay.chunk.iter().map(Cell::key).collect();
                Some(read(cx.tables[table].as_ref(), &cells)?)
            }
        };
        let mut lone = Lone::default();
        for (key, (start, length)) in page.ranges.iter().enumerate() {
            for row in *start as usize..(*start + *length) as usize {
                let weight = page.weights[row];
                let matches = by_keys.as_ref().map(|counts| by_key(counts[key].count));
                let shown: Verdict = verdict(self.output.kind, matches.unwrap_or(weight));
                let (key, rest) = (replay.chunk.get(key), page.rests.get(row));
                lone.push(key, rest, shown, weight.count);
            }
            if lone.len() >= self.limits.full_rows() {
                self.output.flush(side, &self.sides[side], &mut lone, cx)?;
            }
        }
        self.output.flush(side, &self.sides[side], &mut lone, cx)
    }

    /// The left rows of a page as a batch that is brought together with the right side.
    fn probe_of(&self, replay: &Replay, page: &Page, cx: &Cx<'_>) -> Result<Probe, OperatorError> {
        let (mut keys, mut diffs) = (ByteRows::new(), Vec::new());
        let mut rests = ByteRows::new();
        for (key, (start, length)) in page.ranges.iter().enumerate() {
            for row in *start as usize..(*start + *length) as usize {
                keys.push(replay.chunk.get(key));
                rests.push(page.rests.get(row));
                diffs.push(page.weights[row].count);
            }
        }
        let columns = self.sides[0].decode(keys.iter(), rests.iter())?;
        let options = RecordBatchOptions::new().with_row_count(Some(diffs.len()));
        let schema = self.output.schemas[0].clone();
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let batch = self.sides[0].group(Batch::new(rows, Int64Array::from(diffs)))?;
        let mut probe = self.start_probe(0, batch, cx)?;
        probe.is_replay = true;
        Ok(probe)
    }
}

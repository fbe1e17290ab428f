//! What a barrier emits for the rows of a preserved side.

use super::matching::Matching;
use super::output::Lone;
use super::store::{Page, Unfinished, read};
use super::verdict::{Verdict, by_key, verdict};
use crate::{Cx, OperatorError, Progress};
use std::collections::VecDeque;
use std::ops::Range;
use tidegate_state::Cell;
use tidegate_types::hash_key;

/// Where the work of a barrier stands.
#[derive(Default)]
pub(super) struct Settle {
    /// The side whose rows are being settled; 2: all are.
    pub side: usize,
    /// The next row of its log.
    pub row: usize,
    /// The next touched key of the other side.
    pub key: usize,
    /// The touched keys whose rows change their verdict, being scanned: indices into the other side's key log.
    pub flips: Vec<u32>,
    pub page: Page,
    /// The next row of the page, as the position among `flips` and the offset in its range.
    pub flip: usize,
    pub offset: u32,
    pub unfinished: VecDeque<Unfinished>,
    pub output: Lone,
}

impl Matching {
    pub(super) fn go_on_settling(
        &mut self,
        settle: &mut Settle,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        while settle.side < 2 {
            if self.preserved[settle.side] {
                if self.settle_rows(settle, cx)? == Progress::More
                    || self.settle_flips(settle, cx)? == Progress::More
                {
                    return Ok(Progress::More);
                }
                self.flush(settle, cx)?;
            }
            *settle = Settle {
                side: settle.side + 1,
                ..Settle::default()
            };
        }
        self.row_logs = Default::default();
        self.key_logs = Default::default();
        Ok(Progress::Done)
    }

    /// The rows that the epoch touched themselves.
    fn settle_rows(&self, settle: &mut Settle, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        let log = &self.row_logs[settle.side];
        while settle.row < log.len() {
            let rows = settle.row..log.len().min(settle.row + self.limits.keys_per_step);
            settle.row = rows.end;
            let by_keys = self.key_matches(settle.side, rows.clone(), cx)?;
            for row in rows.clone() {
                let (before, after) = log.weights(row);
                let (old, new) = match &by_keys {
                    Some(matches) => matches[row - rows.start],
                    None => (
                        verdict(self.output.kind, before),
                        verdict(self.output.kind, after),
                    ),
                };
                settle.output.change(
                    log.key(row),
                    log.rest(row),
                    (old, before.count),
                    (new, after.count),
                );
            }
            if self.flush_full(settle, cx)? {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
    }

    /// The verdicts of these rows of the log before and after, when they follow from the key alone.
    fn key_matches(
        &self,
        side: usize,
        rows: Range<usize>,
        cx: &Cx<'_>,
    ) -> Result<Option<Vec<(Verdict, Verdict)>>, OperatorError> {
        let Some(table) = self.counts[1 - side].filter(|_| !self.tallies(side)) else {
            return Ok(None);
        };
        let log = &self.row_logs[side];
        let mut matches: Vec<(i64, i64)> = vec![(0, 0); rows.len()];
        let (mut cells, mut missing) = (Vec::new(), Vec::new());
        for (index, row) in rows.enumerate() {
            let key = log.key(row);
            match self.key_logs[1 - side].find(hash_key(key), key) {
                Some(counts) => matches[index] = counts,
                None => {
                    cells.push(Cell::key(key));
                    missing.push(index);
                }
            }
        }
        let weights = read(cx.tables[table].as_ref(), &cells)?;
        for (index, weight) in missing.into_iter().zip(weights) {
            matches[index] = (weight.count, weight.count);
        }
        let decide = |count| verdict(self.output.kind, by_key(count));
        Ok(Some(
            matches
                .into_iter()
                .map(|(before, after)| (decide(before), decide(after)))
                .collect(),
        ))
    }

    /// The rows that the epoch did not touch, of keys that began or ceased to have matches.
    fn settle_flips(
        &self,
        settle: &mut Settle,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        if self.tallies(settle.side) {
            return Ok(Progress::Done);
        }
        loop {
            self.settle_page(settle);
            if self.flush_full(settle, cx)? {
                return Ok(Progress::More);
            }
            if settle.flip < settle.flips.len() {
                continue;
            }
            if !self.next_flips(settle, cx)? {
                return Ok(Progress::Done);
            }
        }
    }

    /// Rows of the page until the output is full.
    fn settle_page(&self, settle: &mut Settle) {
        let (rows, keys) = (&self.row_logs[settle.side], &self.key_logs[1 - settle.side]);
        while settle.flip < settle.flips.len() && settle.output.len() < self.limits.full_rows() {
            let index = settle.flips[settle.flip] as usize;
            let (key, hash) = (keys.key(index), keys.key_hash(index));
            let (before, after) = keys.counts(index);
            let (before, after) = (
                verdict(self.output.kind, by_key(before)),
                verdict(self.output.kind, by_key(after)),
            );
            let (start, length) = settle.page.ranges[settle.flip];
            while settle.offset < length && settle.output.len() < self.limits.full_rows() {
                let row = (start + settle.offset) as usize;
                settle.offset += 1;
                let (rest, count) = (settle.page.rests.get(row), settle.page.weights[row].count);
                if rows.find(hash, key, rest).is_none() {
                    settle
                        .output
                        .change(key, rest, (before, count), (after, count));
                }
            }
            if settle.offset == length {
                settle.offset = 0;
                settle.flip += 1;
            }
        }
    }

    /// Loads the next page; false when there is none.
    fn next_flips(&self, settle: &mut Settle, cx: &Cx<'_>) -> Result<bool, OperatorError> {
        let keys = &self.key_logs[1 - settle.side];
        let table = cx.tables[settle.side].as_ref();
        if let Some(next) = settle.unfinished.pop_front() {
            let key = keys.key(next.key as usize);
            settle.page = Page::load_more(
                table,
                1,
                key,
                &Unfinished {
                    key: 0,
                    after: next.after,
                },
                self.limits.page_rows,
            )?;
            settle.flips = vec![next.key];
        } else {
            settle.flips.clear();
            while settle.key < keys.len() && settle.flips.len() < self.limits.keys_per_step {
                let (before, after) = keys.counts(settle.key);
                if verdict(self.output.kind, by_key(before))
                    != verdict(self.output.kind, by_key(after))
                {
                    settle.flips.push(settle.key as u32);
                }
                settle.key += 1;
            }
            if settle.flips.is_empty() {
                return Ok(false);
            }
            let flips: Vec<&[u8]> = settle.flips.iter().map(|k| keys.key(*k as usize)).collect();
            settle.page = Page::load(table, &flips, self.limits.page_rows)?;
        }
        // From positions in the page to positions in the log.
        for next in settle.page.unfinished.drain(..) {
            settle.unfinished.push_back(Unfinished {
                key: settle.flips[next.key as usize],
                ..next
            });
        }
        settle.flip = 0;
        settle.offset = 0;
        Ok(true)
    }

    /// Emits what is collected when it fills a batch; whether others should get their turn.
    fn flush_full(&self, settle: &mut Settle, cx: &mut Cx<'_>) -> Result<bool, OperatorError> {
        if settle.output.len() < self.limits.full_rows() {
            return Ok(false);
        }
        self.flush(settle, cx)?;
        Ok(cx.exhausted())
    }

    fn flush(&self, settle: &mut Settle, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        self.output.flush(
            settle.side,
            &self.sides[settle.side],
            &mut settle.output,
            cx,
        )
    }
}

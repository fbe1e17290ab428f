//! What a join reads from and writes to its tables.

use crate::value_bytes::{Reader, write_i64};
use std::ops::{Bound, ControlFlow};
use tidegate_state::{Cell, Change, StateError, Table};
use tidegate_types::ByteRows;

/// The counters of a row: how often it is there, and how many rows of the other side match it or may match it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub count: i64,
    pub matches: i64,
    pub unknowns: i64,
}

impl Weight {
    pub fn count(count: i64) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }

    /// The counters as varints, one after the other.
    pub fn encode(&self, counters: usize, out: &mut Vec<u8>) {
        for value in &[self.count, self.matches, self.unknowns][..counters] {
            write_i64(*value, out);
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        // Nearly all rows of nearly all joins are there once, and only their count is kept.
        if bytes == ONCE {
            return Ok(Self::count(1));
        }
        // The last byte of a varint is the one without the high bit.
        let counters = bytes.iter().filter(|b| **b < 0x80).count();
        let whole = bytes.last().is_some_and(|b| *b < 0x80);
        if !whole || counters > 3 {
            return Err(StateError::Damaged(format!(
                "a join's counters are {} bytes long",
                bytes.len()
            )));
        }
        let mut values = [0; 3];
        let mut reader = Reader::new(bytes);
        for value in &mut values[..counters] {
            *value = reader.i64()?;
        }
        let [count, matches, unknowns] = values;
        Ok(Self {
            count,
            matches,
            unknowns,
        })
    }
}

/// The encoding of a lone count of one.
const ONCE: [u8; 1] = [2];

/// The weights of these cells; an absent cell weighs nothing.
pub(super) fn read(table: &dyn Table, cells: &[Cell<'_>]) -> Result<Vec<Weight>, StateError> {
    let mut weights = vec![Weight::default(); cells.len()];
    let mut damage = None;
    table.get_many(cells, &mut |index, value| match value.map(Weight::decode) {
        Some(Ok(weight)) => weights[index] = weight,
        Some(Err(error)) => damage = Some(error),
        None => {}
    })?;
    damage.map_or(Ok(weights), Err)
}

/// Sets the weights of these cells; a cell whose count is zero is deleted.
pub(super) fn write<'a>(
    table: &mut dyn Table,
    counters: usize,
    cells: impl ExactSizeIterator<Item = (Cell<'a>, Weight)>,
) -> Result<(), StateError> {
    let mut values = Vec::with_capacity(cells.len() * counters);
    let mut written = Vec::with_capacity(cells.len());
    for (cell, weight) in cells {
        let start = values.len();
        if weight.count != 0 {
            weight.encode(counters, &mut values);
        }
        written.push((cell, start, values.len()));
    }
    let change = |(cell, start, end): &(Cell<'a>, usize, usize)| Change {
        cell: *cell,
        value: (start < end).then(|| &values[*start..*end]),
    };
    let changes: Vec<Change<'_>> = written.iter().map(change).collect();
    table.write_many(&changes)
}

/// State rows of some keys, at most about a limit of them.
#[derive(Default)]
pub(super) struct Page {
    /// For each key asked for: its first row in the page, and how many there are.
    pub ranges: Vec<(u32, u32)>,
    pub rests: ByteRows,
    pub weights: Vec<Weight>,
    /// Keys that have more rows than are in the page.
    pub unfinished: Vec<Unfinished>,
}

/// A key whose rows after this one are still to be read.
pub(super) struct Unfinished {
    pub key: u32,
    pub after: Option<Vec<u8>>,
}

/// Rows of one key with a sub-key from `low` on, or after it, and below `high`.
pub(super) struct Stretch {
    pub key: Vec<u8>,
    pub low: Bound<Vec<u8>>,
    pub high: Option<Vec<u8>>,
}

impl Page {
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// The rows of all these keys; what exceeds the limit is left for [`Page::load_more`].
    pub fn load(table: &dyn Table, keys: &[&[u8]], limit: usize) -> Result<Self, StateError> {
        let mut page = Self {
            ranges: vec![(0, 0); keys.len()],
            ..Self::default()
        };
        let mut damage = None;
        table.scan_many(keys, &mut |key, sub, value| {
            let range = &mut page.ranges[key];
            if page.weights.len() >= limit {
                if page.unfinished.last().is_none_or(|u| u.key != key as u32) {
                    let after = (range.1 > 0)
                        .then(|| page.rests.get((range.0 + range.1 - 1) as usize).to_vec());
                    page.unfinished.push(Unfinished {
                        key: key as u32,
                        after,
                    });
                }
                return;
            }
            if range.1 == 0 {
                range.0 = page.weights.len() as u32;
            }
            assert_eq!(
                (range.0 + range.1) as usize,
                page.weights.len(),
                "a table visits a key's cells together"
            );
            range.1 += 1;
            page.rests.push(sub);
            match Weight::decode(value) {
                Ok(weight) => page.weights.push(weight),
                Err(error) => {
                    page.weights.push(Weight::default());
                    damage = Some(error);
                }
            }
        })?;
        damage.map_or(Ok(page), Err)
    }

    /// The next rows of one key of `keys` keys; at most `limit`, the rest stays unfinished.
    pub fn load_more(
        table: &dyn Table,
        keys: usize,
        key: &[u8],
        from: &Unfinished,
        limit: usize,
    ) -> Result<Self, StateError> {
        let low = from
            .after
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let (mut page, more) = Self::scan(table, key, (low, Bound::Unbounded), limit)?;
        page.ranges = vec![(0, 0); keys];
        page.ranges[from.key as usize] = (0, page.len() as u32);
        page.unfinished.extend(more.map(|after| Unfinished {
            key: from.key,
            after: Some(after),
        }));
        Ok(page)
    }

    /// The first rows of a stretch, at most `limit`, and what is left of it.
    pub fn load_stretch(
        table: &dyn Table,
        stretch: Stretch,
        limit: usize,
    ) -> Result<(Self, Option<Stretch>), StateError> {
        let low = stretch.low.as_ref().map(Vec::as_slice);
        let high = stretch
            .high
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let (page, more) = Self::scan(table, &stretch.key, (low, high), limit)?;
        Ok((
            page,
            more.map(|after| Stretch {
                low: Bound::Excluded(after),
                ..stretch
            }),
        ))
    }

    /// Rows within the bounds, and the last of them if there are more.
    fn scan(
        table: &dyn Table,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<(Self, Option<Vec<u8>>), StateError> {
        let mut page = Self::default();
        let mut damage = None;
        let mut more = false;
        table.scan(key, bounds, false, &mut |sub, value| {
            if page.weights.len() >= limit {
                more = true;
                return ControlFlow::Break(());
            }
            match Weight::decode(value) {
                Ok(weight) => page.weights.push(weight),
                Err(error) => {
                    damage = Some(error);
                    return ControlFlow::Break(());
                }
            }
            page.rests.push(sub);
            ControlFlow::Continue(())
        })?;
        let more = more.then(|| page.rests.get(page.len() - 1).to_vec());
        damage.map_or(Ok((page, more)), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_survive() {
        for (counters, weight) in [
            (1, Weight::count(1)),
            (1, Weight::count(-300)),
            (
                2,
                Weight {
                    count: 1,
                    matches: 70,
                    unknowns: 0,
                },
            ),
            (
                3,
                Weight {
                    count: i64::MAX,
                    matches: -1,
                    unknowns: i64::MIN,
                },
            ),
        ] {
            let mut bytes = Vec::new();
            weight.encode(counters, &mut bytes);
            assert_eq!(Weight::decode(&bytes).expect("own bytes"), weight);
        }
        assert!(Weight::decode(&[]).is_err());
        assert!(Weight::decode(&[0, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_count_of_one_is_pinned() {
        let mut bytes = Vec::new();
        Weight::count(1).encode(1, &mut bytes);
        assert_eq!(bytes, ONCE);
    }
}

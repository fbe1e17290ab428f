//! Numbers of rows that come in order: `row_number`, `rank`, `dense_rank`.

use crate::order_prefix::OrderPrefix;
use tidegate_plan::Ranking;

/// How rows of a partition are numbered, and which numbers are wanted: those above `offset` and at most `last`.
pub struct Numbered {
    pub ranking: Ranking,
    pub offset: u64,
    pub last: u64,
    /// Empty for row numbers, which do not look at the order.
    pub prefix: OrderPrefix,
}

/// A partition's rows while they are numbered.
#[derive(Default)]
pub struct Numbering {
    rows: u64,
    number: u64,
    order: Vec<u8>,
}

impl Numbering {
    /// The number of the first copy of the next row. Copies of a row have one number after the other for `row_number`,
    /// and the same one otherwise.
    pub fn next(&mut self, how: &Numbered, row: &[u8], count: i64) -> u64 {
        let before = self.rows;
        self.rows = self.rows.saturating_add(count as u64);
        if how.ranking == Ranking::RowNumber {
            return before + 1;
        }
        let order = how.prefix.of(row);
        if before == 0 || order != self.order {
            self.order.clear();
            self.order.extend_from_slice(order);
            self.number = match how.ranking {
                Ranking::DenseRank => self.number + 1,
                _ => before + 1,
            };
        }
        self.number
    }
}

/// A row's place in a window: which entry, its number (zero where numbers are not shown) and how many copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub entry: usize,
    pub number: u64,
    pub count: i64,
}

impl Numbered {
    /// The first rows, in whatever order.
    pub fn first(rows: u64) -> Self {
        Self {
            ranking: Ranking::RowNumber,
            offset: 0,
            last: rows,
            prefix: OrderPrefix::default(),
        }
    }

    /// The places of an ordered multiset that are wanted. With `shown` numbers each copy of a row that has a number of its
    /// own has a place of its own.
    pub fn places<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], i64)>,
        shown: bool,
        places: &mut Vec<Place>,
    ) {
        let mut numbering = Numbering::default();
        for (entry, (row, count)) in rows.enumerate() {
            let number = numbering.next(self, row, count);
            if number > self.last {
                break;
            }
            if self.ranking != Ranking::RowNumber {
                if number > self.offset {
                    let number = if shown { number } else { 0 };
                    places.push(Place {
                        entry,
                        number,
                        count,
                    });
                }
                continue;
            }
            let first = number.max(self.offset + 1);
            let end = (number + count as u64).min(self.last.saturating_add(1));
            if first >= end {
                continue;
            }
            match shown {
                true => places.extend((first..end).map(|number| Place {
                    entry,
                    number,
                    count: 1,
                })),
                false => places.push(Place {
                    entry,
                    number: 0,
                    count: (end - first) as i64,
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::compute::SortOptions;
    use arrow::datatypes::DataType;

    fn places(ranking: Ranking, offset: u64, last: u64, shown: bool) -> Vec<(usize, u64, i64)> {
        // The order is one byte and a flag wide; the rest tells rows apart.
        let order = [(DataType::Boolean, SortOptions::default())];
        let how = Numbered {
            ranking,
            offset,
            last,
            prefix: OrderPrefix::new(&order).unwrap(),
        };
        let rows: [(&[u8], i64); 4] = [(b"aax", 2), (b"aay", 1), (b"bbx", 3), (b"ccx", 1)];
        let mut places = Vec::new();
        how.places(rows.into_iter(), shown, &mut places);
        places
            .iter()
            .map(|p| (p.entry, p.number, p.count))
            .collect()
    }

    #[test]
    fn copies_take_numbers_of_their_own() {
        let of = |offset, last| places(Ranking::RowNumber, offset, last, false);
        assert_eq!(of(1, 4), [(0, 0, 1), (1, 0, 1), (2, 0, 1)]);
        assert_eq!(of(6, 9), [(3, 0, 1)]);
        assert_eq!(of(0, 0), []);
        assert_eq!(of(5, u64::MAX), [(2, 0, 1), (3, 0, 1)]);
        assert_eq!(
            places(Ranking::RowNumber, 1, 4, true),
            [(0, 2, 1), (1, 3, 1), (2, 4, 1)]
        );
    }

    #[test]
    fn equal_orders_share_a_rank() {
        let of = |ranking, last| places(ranking, 0, last, true);
        assert_eq!(
            of(Ranking::Rank, 7),
            [(0, 1, 2), (1, 1, 1), (2, 4, 3), (3, 7, 1)]
        );
        assert_eq!(of(Ranking::Rank, 3), [(0, 1, 2), (1, 1, 1)]);
        assert_eq!(of(Ranking::DenseRank, 2), [(0, 1, 2), (1, 1, 1), (2, 2, 3)]);
        assert_eq!(places(Ranking::Rank, 1, 4, false), [(2, 0, 3)]);
    }
}

//! Which rows a frame has, by their places in a slice of a partition.
//!
//! Peers come from the rows' encodings. Only `RANGE` with an offset has to look at values; that is DataFusion's.

use crate::order_prefix::OrderPrefix;
use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::window_state::WindowFrameContext;
use datafusion::logical_expr::{WindowFrame, WindowFrameBound as Bound, WindowFrameUnits as Units};
use std::ops::Range;
use std::sync::Arc;

/// The groups of rows that are equal in the order.
pub struct Peers {
    /// Where each group begins, and where the last one ends.
    starts: Vec<usize>,
    group_of: Vec<u32>,
}

impl Peers {
    pub fn of<'a>(rows: impl Iterator<Item = &'a [u8]>, prefix: &OrderPrefix) -> Self {
        let (mut starts, mut group_of) = (Vec::new(), Vec::new());
        let mut last: Option<&[u8]> = None;
        for (place, row) in rows.enumerate() {
            let order = prefix.of(row);
            if last != Some(order) {
                starts.push(place);
                last = Some(order);
            }
            group_of.push(starts.len() as u32 - 1);
        }
        starts.push(group_of.len());
        Self { starts, group_of }
    }

    pub fn rows(&self) -> usize {
        self.group_of.len()
    }

    pub fn group(&self, row: usize) -> usize {
        self.group_of[row] as usize
    }

    pub fn of_row(&self, row: usize) -> Range<usize> {
        let group = self.group(row);
        self.starts[group]..self.starts[group + 1]
    }

    pub fn is_start(&self, row: usize) -> bool {
        self.starts[self.group(row)] == row
    }

    /// Where the group so many groups on begins, or the end.
    fn start_of(&self, group: usize) -> usize {
        self.starts[group.min(self.starts.len() - 1)]
    }
}

/// A frame, and the direction of the one column that `RANGE` with an offset looks at.
#[derive(Debug, Clone)]
pub struct Frame {
    pub units: Units,
    pub start: Bound,
    pub end: Bound,
    range: Option<(Arc<WindowFrame>, SortOptions)>,
}

/// The number of rows or groups in a bound; None is unbounded.
fn count(value: &ScalarValue) -> Option<usize> {
    match value {
        ScalarValue::UInt64(Some(count)) => Some(usize::try_from(*count).unwrap_or(usize::MAX)),
        _ => None,
    }
}

impl Frame {
    pub fn new(frame: &WindowFrame, order: &[SortOptions]) -> Result<Self> {
        let offset = |bound: &Bound| match bound {
            Bound::Preceding(value) | Bound::Following(value) => !value.is_null(),
            Bound::CurrentRow => false,
        };
        let by_value =
            frame.units == Units::Range && (offset(&frame.start_bound) || offset(&frame.end_bound));
        let range = match (by_value, order) {
            (false, _) => None,
            (true, [options]) => Some((Arc::new(frame.clone()), *options)),
            (true, _) => {
                let message = "RANGE with an offset has one column to order by";
                return Err(DataFusionError::Plan(message.to_owned()));
            }
        };
        Ok(Self {
            units: frame.units,
            start: frame.start_bound.clone(),
            end: frame.end_bound.clone(),
            range,
        })
    }

    pub fn starts_open(&self) -> bool {
        matches!(&self.start, Bound::Preceding(value) if value.is_null())
    }

    pub fn ends_open(&self) -> bool {
        matches!(&self.end, Bound::Following(value) if value.is_null())
    }

    /// The frame ends in front of its row.
    pub fn ends_before(&self) -> bool {
        matches!(self.end, Bound::Preceding(_))
    }

    /// Whether the rows that are looked at depend on values.
    pub fn by_value(&self) -> bool {
        self.range.is_some()
    }

    /// The frames of these rows, in order. `order` is the one column of a `RANGE` with an offset.
    pub fn of_rows(
        &self,
        rows: Range<usize>,
        peers: &Peers,
        order: Option<&ArrayRef>,
    ) -> Result<Vec<Range<usize>>> {
        if let (Some((frame, options)), Some(order)) = (&self.range, order) {
            let mut context = WindowFrameContext::new(frame.clone(), vec![*options]);
            let columns = [order.clone()];
            let (mut last, mut all) = (0..0, Vec::with_capacity(rows.len()));
            for row in rows {
                last = context.calculate_range(&columns, &last, peers.rows(), row)?;
                all.push(last.start..last.end.max(last.start));
            }
            return Ok(all);
        }
        Ok(rows.map(|row| self.of_row(row, peers)).collect())
    }

    fn of_row(&self, row: usize, peers: &Peers) -> Range<usize> {
        let length = peers.rows();
        let by_rows = self.units == Units::Rows;
        let group = peers.group(row);
        let start = match &self.start {
            Bound::CurrentRow if by_rows => row,
            Bound::CurrentRow => peers.start_of(group),
            Bound::Preceding(value) => match count(value) {
                None => 0,
                Some(rows) if by_rows => row.saturating_sub(rows),
                Some(groups) => peers.start_of(group.saturating_sub(groups)),
            },
            Bound::Following(value) => match count(value) {
                None => length,
                Some(rows) if by_rows => row.saturating_add(rows).min(length),
                Some(groups) => peers.start_of(group.saturating_add(groups)),
            },
        };
        let end = match &self.end {
            Bound::CurrentRow if by_rows => row + 1,
            Bound::CurrentRow => peers.start_of(group + 1),
            Bound::Preceding(value) => match count(value) {
                None => 0,
                Some(rows) if by_rows => (row + 1).saturating_sub(rows),
                Some(groups) => match group.checked_sub(groups) {
                    Some(group) => peers.start_of(group + 1),
                    None => 0,
                },
            },
            Bound::Following(value) => match count(value) {
                None => length,
                Some(rows) if by_rows => row.saturating_add(rows).saturating_add(1).min(length),
                Some(groups) => peers.start_of(group.saturating_add(groups).saturating_add(1)),
            },
        };
        start..end.max(start)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::datatypes::DataType;

    fn frames(units: Units, start: Bound, end: Bound) -> Vec<Range<usize>> {
        // Peers: rows 0 and 1, row 2, rows 3 to 5.
        let rows: [&[u8]; 6] = [b"aax", b"aay", b"bbx", b"ccx", b"ccy", b"ccz"];
        let prefix = OrderPrefix::new(&[(DataType::Boolean, SortOptions::default())]).unwrap();
        let peers = Peers::of(rows.into_iter(), &prefix);
        let frame = WindowFrame::new_bounds(units, start, end);
        let frame = Frame::new(&frame, &[SortOptions::default()]).unwrap();
        frame.of_rows(0..6, &peers, None).unwrap()
    }

    fn rows(count: u64) -> ScalarValue {
        ScalarValue::UInt64(Some(count))
    }

    /// What Postgres' `array_agg(x) OVER (ORDER BY y …)` shows over such rows.
    #[test]
    fn frames_are_those_of_postgres() {
        assert_eq!(
            frames(
                Units::Rows,
                Bound::Preceding(rows(1)),
                Bound::Following(rows(1))
            ),
            [0..2, 0..3, 1..4, 2..5, 3..6, 4..6]
        );
        assert_eq!(
            frames(
                Units::Rows,
                Bound::Preceding(rows(3)),
                Bound::Preceding(rows(2))
            ),
            [0..0, 0..0, 0..1, 0..2, 1..3, 2..4]
        );
        assert_eq!(
            frames(
                Units::Rows,
                Bound::Following(rows(1)),
                Bound::Following(rows(9))
            ),
            [1..6, 2..6, 3..6, 4..6, 5..6, 6..6]
        );
        assert_eq!(
            frames(Units::Groups, Bound::Preceding(rows(1)), Bound::CurrentRow),
            [0..2, 0..2, 0..3, 2..6, 2..6, 2..6]
        );
        assert_eq!(
            frames(
                Units::Groups,
                Bound::Following(rows(1)),
                Bound::Following(rows(1))
            ),
            [2..3, 2..3, 3..6, 6..6, 6..6, 6..6]
        );
        assert_eq!(
            frames(
                Units::Groups,
                Bound::Preceding(rows(2)),
                Bound::Preceding(rows(1))
            ),
            [0..0, 0..0, 0..2, 0..3, 0..3, 0..3]
        );
        let unbounded = ScalarValue::UInt64(None);
        assert_eq!(
            frames(Units::Range, Bound::Preceding(unbounded), Bound::CurrentRow),
            [0..2, 0..2, 0..3, 0..6, 0..6, 0..6]
        );
    }
}

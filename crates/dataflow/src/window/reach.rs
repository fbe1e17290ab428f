//! How far a changed row is felt, and which rows have to be looked at for those that feel it.
//!
//! A call sees from its row some way back and some way ahead ([`Reach`]), so a change is felt as far ahead as calls see back
//! and the other way round. From each changed row of a partition [`Walker`] walks over its neighbours until nobody feels
//! the change any more; what was walked over is the touched span, and around it lies, once more as far, what its rows see.
//!
//! Distances count rows (groups, values) that are the same before and after, so that one span is right for both: in
//! between there are at least as many in either. Rows that came or went count for nothing and are walked over. Overlapping
//! spans become one.

use crate::OperatorError;
use crate::order_prefix::OrderPrefix;
use crate::value_bytes::count_of;
use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{WindowFrameBound as Bound, WindowFrameUnits as Units};
use std::ops::{Bound as KeyBound, ControlFlow};
use tidegate_state::{StateError, Table};
use tidegate_types::RowCodec;

use super::frame::Frame;

/// A distance in one direction.
#[derive(Debug, Clone, PartialEq)]
pub enum Extent {
    Rows(usize),
    /// Groups of peers; zero is the row's own.
    Groups(usize),
    /// A difference of values in the one column of the order.
    Values(ScalarValue),
    Unbounded,
}

/// How far a call sees from its row.
#[derive(Debug, Clone, PartialEq)]
pub struct Reach {
    pub back: Extent,
    pub ahead: Extent,
}

impl Reach {
    pub const ALL: Self = Self {
        back: Extent::Unbounded,
        ahead: Extent::Unbounded,
    };

    pub fn of_frame(frame: &Frame) -> Self {
        // A bound on the other side of the row is nothing to see on this one.
        let own = || match frame.units {
            Units::Rows => Extent::Rows(0),
            Units::Range | Units::Groups => Extent::Groups(0),
        };
        Self {
            back: match &frame.start {
                Bound::Preceding(offset) => extent(frame.units, offset),
                _ => own(),
            },
            ahead: match &frame.end {
                Bound::Following(offset) => extent(frame.units, offset),
                _ => own(),
            },
        }
    }
}

fn extent(units: Units, offset: &ScalarValue) -> Extent {
    match (units, offset) {
        (_, offset) if offset.is_null() => Extent::Unbounded,
        (Units::Range, offset) => Extent::Values(offset.clone()),
        (units, ScalarValue::UInt64(Some(count))) => {
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            match units {
                Units::Groups => Extent::Groups(count),
                _ => Extent::Rows(count),
            }
        }
        _ => Extent::Unbounded,
    }
}

/// One end of a span: the partition's, or a row, which is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edge {
    Open,
    Row(Vec<u8>),
}

impl Edge {
    pub fn bound(&self) -> KeyBound<&[u8]> {
        match self {
            Edge::Open => KeyBound::Unbounded,
            Edge::Row(row) => KeyBound::Included(row),
        }
    }

    /// As the first edge of a span: whether the row is not in front of it.
    pub fn begins_at(&self, row: &[u8]) -> bool {
        match self {
            Edge::Open => true,
            Edge::Row(first) => row >= first.as_slice(),
        }
    }

    /// As the last edge of a span: whether the row is not behind it.
    pub fn reaches(&self, row: &[u8]) -> bool {
        match self {
            Edge::Open => true,
            Edge::Row(last) => row <= last.as_slice(),
        }
    }
}

/// Rows from one edge to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub first: Edge,
    pub last: Edge,
}

/// A changed row: its encoding, and how often it was there and is there.
#[derive(Debug, Clone, Copy)]
pub struct ChangedRow<'a> {
    pub row: &'a [u8],
    pub old: i64,
    pub new: i64,
}

/// What is known of the order of rows.
pub struct Order {
    pub prefix: OrderPrefix,
    /// Of the first column of the order alone.
    codec: Option<RowCodec>,
    descending: bool,
}

impl Order {
    pub fn new(
        columns: &[(arrow::datatypes::DataType, SortOptions)],
    ) -> Result<Self, OperatorError> {
        let codec = match columns.first() {
            Some(first) => Some(RowCodec::with_order(vec![first.clone()])?),
            None => None,
        };
        Ok(Self {
            prefix: OrderPrefix::new(columns)?,
            codec,
            descending: columns.first().is_some_and(|(_, o)| o.descending),
        })
    }

    /// The value of the first column of the order.
    fn value(&self, row: &[u8]) -> Result<Option<ScalarValue>, OperatorError> {
        let Some(codec) = &self.codec else {
            return Ok(None);
        };
        let columns = codec.decode([self.prefix.of(row)])?;
        let value = ScalarValue::try_from_array(&columns[0], 0)?;
        Ok((!value.is_null()).then_some(value))
    }

    /// The encoded order so far from a row, in one direction. None: as far as there are rows.
    fn at_distance(
        &self,
        value: &ScalarValue,
        distance: &ScalarValue,
        back: bool,
    ) -> Result<Option<Vec<u8>>, OperatorError> {
        let distance = with_slack(distance);
        let target = match back == self.descending {
            true => value.add_checked(&distance),
            false => value.sub_checked(&distance),
        };
        let (Ok(target), Some(codec)) = (target, &self.codec) else {
            return Ok(None);
        };
        let column: ArrayRef = target.cast_to(&codec.types()[0])?.to_array()?;
        Ok(Some(codec.encode(&[column])?.row(0).data().to_vec()))
    }
}

/// A month after the 28th of February is the 28th of March, and a month before the 31st is the same day: what is seen back is
/// not what is felt ahead. A few days more than needed do no harm.
fn with_slack(distance: &ScalarValue) -> ScalarValue {
    const DAYS: i32 = 4;
    match distance {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months != 0 => {
            let days = i.days.saturating_add(DAYS);
            let padded = IntervalMonthDayNano::new(i.months, days, i.nanoseconds);
            ScalarValue::IntervalMonthDayNano(Some(padded))
        }
        ScalarValue::IntervalYearMonth(Some(months)) => {
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(*months, DAYS, 0)))
        }
        other => other.clone(),
    }
}

/// Walks over the rows of one partition, as they are now.
pub struct Walker<'a> {
    pub order: &'a Order,
    pub table: &'a dyn Table,
    pub key: &'a [u8],
    /// In order.
    pub changes: &'a [ChangedRow<'a>],
}

/// How far a limit lets a walk go on.
enum Limit {
    Rows(usize),
    Groups(usize),
    /// Up to this encoded order.
    Prefix(Vec<u8>),
}

/// What has been walked over.
struct Seen<'a> {
    rows: usize,
    /// Groups besides the first one in which there are rows.
    groups: usize,
    group: &'a [u8],
    counted: bool,
}

impl Walker<'_> {
    /// The spans that feel the changes, in order and apart.
    pub fn touched(&self, reaches: &[&Reach]) -> Result<Vec<Span>, OperatorError> {
        // Those behind a change see it looking back.
        let behind: Vec<&Extent> = reaches.iter().map(|r| &r.back).collect();
        let before: Vec<&Extent> = reaches.iter().map(|r| &r.ahead).collect();
        let mut spans: Vec<Span> = Vec::new();
        for (index, change) in self.changes.iter().enumerate() {
            let inside = spans.last().is_some_and(|s| s.last.reaches(change.row));
            if !inside {
                let first = self.walk(change.row, true, &before, None)?;
                let overlaps = spans.last().is_some_and(|span| match &first {
                    Edge::Open => true,
                    Edge::Row(row) => span.last.reaches(row),
                });
                if !overlaps {
                    let last = Edge::Row(change.row.to_vec());
                    spans.push(Span { first, last });
                }
            }
            // The next change has to be walked from anyway.
            let next = self.changes.get(index + 1).map(|c| c.row);
            let last = self.walk(change.row, false, &behind, next)?;
            let span = spans.last_mut().expect("a change is in a span");
            let further = match (&span.last, &last) {
                (Edge::Open, _) => false,
                (_, Edge::Open) => true,
                (Edge::Row(known), Edge::Row(row)) => row > known,
            };
            if further {
                span.last = last;
            }
        }
        Ok(spans)
    }

    /// What the rows of a touched span see.
    pub fn seen(
        &self,
        touched: &Span,
        back: &[&Extent],
        ahead: &[&Extent],
    ) -> Result<Span, OperatorError> {
        let walk = |edge: &Edge, reverse: bool, extents: &[&Extent]| match edge {
            Edge::Open => Ok(Edge::Open),
            Edge::Row(row) => self.walk(row, reverse, extents, None),
        };
        Ok(Span {
            first: walk(&touched.first, true, back)?,
            last: walk(&touched.last, false, ahead)?,
        })
    }

    /// The last row from here that one of the limits lets in, or `until` if that is no further.
    fn walk(
        &self,
        from: &[u8],
        back: bool,
        extents: &[&Extent],
        until: Option<&[u8]>,
    ) -> Result<Edge, OperatorError> {
        let Some(limits) = self.limits(from, back, extents)? else {
            return Ok(Edge::Open);
        };
        let bounds = match back {
            true => (KeyBound::Unbounded, KeyBound::Excluded(from)),
            false => (KeyBound::Excluded(from), KeyBound::Unbounded),
        };
        let own = self.order.prefix.of(from);
        let mut group: Vec<u8> = own.to_vec();
        let (mut rows, mut groups, mut counted) = (0, 0, true);
        let mut last: Vec<u8> = from.to_vec();
        let mut blocked: Option<Vec<u8>> = None;
        let mut damaged: Option<StateError> = None;
        self.table.scan(self.key, bounds, back, &mut |sub, value| {
            if until.is_some_and(|until| sub >= until) {
                last = until.unwrap_or_default().to_vec();
                blocked = Some(last.clone());
                return ControlFlow::Break(());
            }
            let prefix = self.order.prefix.of(sub);
            let new_group = prefix != group;
            let seen = Seen {
                rows,
                groups,
                group: prefix,
                counted: counted && !new_group,
            };
            if !limits
                .iter()
                .any(|limit| limit.lets_in(&seen, new_group, back))
            {
                blocked = Some(sub.to_vec());
                return ControlFlow::Break(());
            }
            let count = match count_of(value) {
                Ok(count) => self.common(sub, count),
                Err(error) => {
                    damaged = Some(error);
                    return ControlFlow::Break(());
                }
            };
            if new_group {
                group.clear();
                group.extend_from_slice(prefix);
                counted = false;
            }
            if count > 0 && !counted {
                groups += 1;
                counted = true;
            }
            rows = rows.saturating_add(count as usize);
            last.clear();
            last.extend_from_slice(sub);
            ControlFlow::Continue(())
        })?;
        if let Some(error) = damaged {
            return Err(error.into());
        }
        // What is not there any more may have been further on.
        Ok(blocked.map_or(Edge::Open, |blocked| self.beyond(last, &blocked, back)))
    }

    /// The last row of a walk that something stopped. Rows that are gone are not in the table, and were as near as that.
    fn beyond(&self, last: Vec<u8>, blocked: &[u8], back: bool) -> Edge {
        let gone = match back {
            true => {
                let next = self.changes.partition_point(|c| c.row <= blocked);
                self.changes.get(next).filter(|c| c.row < last.as_slice())
            }
            false => {
                let next = self.changes.partition_point(|c| c.row < blocked);
                let before = next.checked_sub(1).map(|before| &self.changes[before]);
                before.filter(|c| c.row > last.as_slice())
            }
        };
        Edge::Row(gone.map_or(last, |change| change.row.to_vec()))
    }

    /// None: there is no limit.
    fn limits(
        &self,
        from: &[u8],
        back: bool,
        extents: &[&Extent],
    ) -> Result<Option<Vec<Limit>>, OperatorError> {
        let mut limits = Vec::with_capacity(extents.len());
        for extent in extents {
            limits.push(match extent {
                Extent::Unbounded => return Ok(None),
                Extent::Rows(rows) => Limit::Rows(*rows),
                Extent::Groups(groups) => Limit::Groups(*groups),
                Extent::Values(distance) => match self.order.value(from)? {
                    // Those without a value see each other alone.
                    None => Limit::Groups(0),
                    Some(value) => match self.order.at_distance(&value, distance, back)? {
                        None => return Ok(None),
                        Some(prefix) => Limit::Prefix(prefix),
                    },
                },
            });
        }
        Ok(Some(limits))
    }

    /// How many copies of a row are there before and after.
    fn common(&self, row: &[u8], now: i64) -> i64 {
        let old = match self.changes.binary_search_by(|c| c.row.cmp(row)) {
            Ok(found) => self.changes[found].old,
            Err(_) => now,
        };
        old.min(now).max(0)
    }
}

impl Limit {
    fn lets_in(&self, seen: &Seen<'_>, new_group: bool, back: bool) -> bool {
        match self {
            Limit::Rows(rows) => seen.rows < *rows,
            Limit::Groups(groups) if new_group => seen.groups < *groups,
            // A group none of whose rows count yet is on its way to be one more.
            Limit::Groups(groups) => {
                seen.groups < *groups || seen.counted && seen.groups <= *groups
            }
            Limit::Prefix(prefix) if back => seen.group >= prefix.as_slice(),
            Limit::Prefix(prefix) => seen.group <= prefix.as_slice(),
        }
    }
}

//! The results of one call for the touched rows of a slice of a partition.
//!
//! A row whose result cannot be computed fails by itself: which rows are read besides it does not matter.

use super::call::{Call, Kind, Retraction};
use super::frame::Peers;
use super::running::{FloatTotal, Running};
use crate::row_failure::is_data_error;
use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, UInt32Array,
};
use arrow::compute::{cast, filter, interleave, take};
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::Accumulator;
use std::ops::Range;
use std::sync::Arc;
use tidegate_plan::Exclusion;

/// Rows of a partition one after the other, and which of them are asked for.
pub struct Slice<'a> {
    pub peers: &'a Peers,
    pub touched: Range<usize>,
    /// The first column of the order.
    pub order: Option<ArrayRef>,
    /// Of the call, for the slice's rows.
    pub arguments: Vec<ArrayRef>,
    pub filter: Option<BooleanArray>,
    /// What a running call had when the slice begins.
    pub state: Option<Vec<ArrayRef>>,
    /// Rows in front of which the state of a running call is put aside.
    pub anchors: &'a [usize],
}

/// A result for each touched row, NULL for those that failed.
pub struct Results {
    pub values: ArrayRef,
    /// Places among the touched rows.
    pub failures: Vec<(usize, DataFusionError)>,
    /// One for each anchor, None where it could not be had.
    pub states: Vec<Option<Vec<ScalarValue>>>,
}

impl Results {
    /// Of no rows.
    pub fn none(output: &DataType) -> Self {
        Self {
            values: arrow::array::new_empty_array(output),
            failures: Vec::new(),
            states: Vec::new(),
        }
    }

    fn plain(values: ArrayRef, output: &DataType) -> Result<Self> {
        let values = match values.data_type() == output {
            true => values,
            false => cast(&values, output)?,
        };
        Ok(Self {
            values,
            failures: Vec::new(),
            states: Vec::new(),
        })
    }
}

impl Slice<'_> {
    fn values(&self, rows: &Range<usize>) -> Result<Vec<ArrayRef>> {
        let slices = self
            .arguments
            .iter()
            .map(|a| a.slice(rows.start, rows.len()));
        match &self.filter {
            None => Ok(slices.collect()),
            Some(mask) => {
                let mask = mask.slice(rows.start, rows.len());
                slices.map(|s| Ok(filter(&s, &mask)?)).collect()
            }
        }
    }

    fn frames(&self, call: &Call) -> Result<Vec<Range<usize>>> {
        call.frame
            .of_rows(self.touched.clone(), self.peers, self.order.as_ref())
    }

    fn pieces(
        &self,
        exclusion: Option<Exclusion>,
        frame: &Range<usize>,
        row: usize,
    ) -> [Range<usize>; 3] {
        match exclusion {
            None => [frame.clone(), frame.end..frame.end, frame.end..frame.end],
            Some(exclusion) => exclusion.pieces(frame, row, &self.peers.of_row(row)),
        }
    }
}

pub fn evaluate(call: &Call, slice: &Slice<'_>) -> Result<Results> {
    if call.is_running() {
        return running(call, slice);
    }
    let rows = slice.touched.clone();
    let total = slice.peers.rows();
    let plain = |values: ArrayRef| Results::plain(values, &call.output);
    match &call.kind {
        Kind::Aggregate { .. } | Kind::FloatSum { .. } => aggregated(call, slice),
        Kind::First { .. } | Kind::Last { .. } | Kind::Nth { .. } => {
            plain(positioned(call, slice)?)
        }
        Kind::Shift { rows, ignore_nulls } => plain(shifted(slice, *rows, *ignore_nulls)?),
        Kind::Ntile { buckets } => {
            let buckets = usize::try_from(*buckets).unwrap_or(usize::MAX);
            let bucket = |row: usize| bucket_of(row, total, buckets) as i32 + 1;
            plain(Arc::new(rows.map(bucket).collect::<Int32Array>()))
        }
        Kind::PercentRank => {
            let rank = |row: usize| match total {
                1 => 0.0,
                total => slice.peers.of_row(row).start as f64 / (total - 1) as f64,
            };
            let ranks = Float64Array::from_iter_values(rows.map(rank));
            plain(Arc::new(ranks))
        }
        Kind::CumeDist => {
            let share = |row: usize| slice.peers.of_row(row).end as f64 / total as f64;
            plain(Arc::new(Float64Array::from_iter_values(rows.map(share))))
        }
        Kind::RowNumber | Kind::Rank | Kind::DenseRank => running(call, slice),
    }
}

/// The first buckets have one more, as many of them as are left over.
fn bucket_of(row: usize, rows: usize, buckets: usize) -> usize {
    let (size, larger) = (rows / buckets, rows % buckets);
    let in_larger = larger * (size + 1);
    match row < in_larger {
        true => row / (size + 1),
        false => larger + (row - in_larger) / size.max(1),
    }
}

/// Results as they come, and which of them failed.
#[derive(Default)]
struct Collected {
    values: Vec<ScalarValue>,
    failures: Vec<(usize, DataFusionError)>,
}

impl Collected {
    fn push(&mut self, value: Result<ScalarValue>, output: &DataType) -> Result<()> {
        self.values.push(match value {
            Ok(value) => value,
            Err(error) if is_data_error(&error) => {
                self.failures.push((self.values.len(), error));
                ScalarValue::try_from(output)?
            }
            Err(error) => return Err(error),
        });
        Ok(())
    }

    fn results(self, output: &DataType) -> Result<Results> {
        let typed = self
            .values
            .into_iter()
            .map(|value| match value.data_type() == *output {
                true => Ok(value),
                false => value.cast_to(output),
            });
        let typed = typed.collect::<Result<Vec<_>>>()?;
        let values = match typed.is_empty() {
            true => arrow::array::new_empty_array(output),
            false => ScalarValue::iter_to_array(typed)?,
        };
        Ok(Results {
            values,
            failures: self.failures,
            states: Vec::new(),
        })
    }
}

/// Calls whose frames begin with the partition, which has been read from its beginning or from an anchor.
fn running(call: &Call, slice: &Slice<'_>) -> Result<Results> {
    let mut state = Running::new(call)?;
    if let Some(base) = &slice.state {
        state.restore(base)?;
    }
    let mut anchors = slice.anchors.iter().copied().peekable();
    let mut states = Vec::with_capacity(slice.anchors.len());
    let groups_before = |row: usize| match row < slice.peers.rows() {
        true => slice.peers.group(row) as i64,
        false => 0,
    };
    if let Running::Places { rows, groups } = state {
        let number = |row: usize| match call.kind {
            Kind::RowNumber => rows + row as i64 + 1,
            Kind::Rank => rows + slice.peers.of_row(row).start as i64 + 1,
            _ => groups + slice.peers.group(row) as i64 + 1,
        };
        let numbers = Int64Array::from_iter_values(slice.touched.clone().map(number));
        let mut results = Results::plain(Arc::new(numbers), &call.output)?;
        for anchor in anchors {
            let state = state.state(anchor as i64, groups_before(anchor))?;
            results.states.push(Some(state));
        }
        return Ok(results);
    }
    let mut collected = Collected::default();
    // An update that failed leaves nothing to go on with: all further rows have it in their frames.
    let mut broken: Option<DataFusionError> = None;
    let mut taken = 0;
    for frame in slice.frames(call)? {
        while taken < frame.end && broken.is_none() {
            if anchors.next_if_eq(&taken).is_some() {
                states.push(state.state(0, 0).ok());
                continue;
            }
            let end = anchors.peek().map_or(frame.end, |a| frame.end.min(*a));
            if let Err(error) = state.update(&slice.values(&(taken..end))?) {
                broken = Some(error);
            }
            taken = end;
        }
        let value = match &broken {
            None => state.value(&call.output),
            Some(error) => Err(repeated(error)),
        };
        collected.push(value, &call.output)?;
    }
    let mut results = collected.results(&call.output)?;
    states.resize_with(slice.anchors.len(), || None);
    results.states = states;
    Ok(results)
}

/// The same error once more.
fn repeated(error: &DataFusionError) -> DataFusionError {
    let (state, message) = crate::row_failure::classify(error);
    DataFusionError::External(Box::new(tidegate_types::SqlError::new(state, message)))
}

fn aggregated(call: &Call, slice: &Slice<'_>) -> Result<Results> {
    let mut sliding = Sliding::new(call, slice);
    let mut collected = Collected::default();
    let frames = slice.frames(call)?;
    let mut last: Option<(Range<usize>, ScalarValue)> = None;
    for (row, frame) in slice.touched.clone().zip(frames) {
        let known = last.take_if(|(known, _)| call.exclusion.is_none() && *known == frame);
        let value = match known {
            Some((_, value)) => Ok(value),
            None => sliding.value(row, &frame),
        };
        if let Ok(value) = &value {
            last = Some((frame, value.clone()));
        }
        collected.push(value, &call.output)?;
    }
    collected.results(&call.output)
}

/// An aggregate that follows a frame from row to row where it can.
struct Sliding<'a> {
    call: &'a Call,
    slice: &'a Slice<'a>,
    retraction: Retraction,
    current: Option<(Box<dyn Accumulator>, Range<usize>)>,
}

impl<'a> Sliding<'a> {
    fn new(call: &'a Call, slice: &'a Slice<'a>) -> Self {
        let retraction = match &call.kind {
            Kind::Aggregate { retraction, .. } => *retraction,
            _ => Retraction::Any,
        };
        Self {
            call,
            slice,
            retraction,
            current: None,
        }
    }

    fn create(&self, sliding: bool) -> Result<Box<dyn Accumulator>> {
        match &self.call.kind {
            Kind::Aggregate { function, .. } if sliding => function.create_sliding_accumulator(),
            Kind::Aggregate { function, .. } => function.create_accumulator(),
            Kind::FloatSum { average } => Ok(Box::new(FloatTotal::new(*average))),
            _ => Err(DataFusionError::Internal("no aggregate".to_owned())),
        }
    }

    fn value(&mut self, row: usize, frame: &Range<usize>) -> Result<ScalarValue> {
        let pieces = self.slice.pieces(self.call.exclusion, frame, row);
        let excluded = self.call.exclusion.is_some();
        let follows = match self.retraction {
            Retraction::Any => true,
            Retraction::Oldest => !excluded,
            // It may grow, though.
            Retraction::Never => !excluded && self.call.frame.starts_open(),
        };
        if pieces.iter().all(|piece| piece.is_empty()) {
            return self.empty();
        }
        if !follows {
            return self.afresh(&pieces);
        }
        if let Err(error) = self.follow(frame) {
            self.current = None;
            return match is_data_error(&error) {
                true => self.afresh(&pieces),
                false => Err(error),
            };
        }
        if !excluded {
            let (accumulator, _) = self.current.as_mut().expect("it follows");
            return accumulator.evaluate();
        }
        let mut left_out = Vec::new();
        let mut from = frame.start;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            left_out.push(from..piece.start);
            from = piece.end;
        }
        left_out.push(from..frame.end);
        left_out.retain(|piece| !piece.is_empty());
        let left_out = left_out
            .iter()
            .map(|piece| self.slice.values(piece))
            .collect::<Result<Vec<_>>>()?;
        let (accumulator, _) = self.current.as_mut().expect("it follows");
        for values in &left_out {
            accumulator.retract_batch(values)?;
        }
        let value = accumulator.evaluate();
        for values in &left_out {
            accumulator.update_batch(values)?;
        }
        value
    }

    fn empty(&self) -> Result<ScalarValue> {
        match &self.call.kind {
            Kind::Aggregate { function, .. } => {
                function.default_value(function.field().data_type())
            }
            _ => ScalarValue::try_from(&self.call.output),
        }
    }

    fn afresh(&self, pieces: &[Range<usize>]) -> Result<ScalarValue> {
        let mut accumulator = self.create(false)?;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            accumulator.update_batch(&self.slice.values(piece)?)?;
        }
        accumulator.evaluate()
    }

    /// Brings the accumulator to this frame.
    fn follow(&mut self, frame: &Range<usize>) -> Result<()> {
        let (mut accumulator, at) = match self.current.take() {
            Some((accumulator, at))
                if at.start <= frame.start && at.end <= frame.end && frame.start <= at.end =>
            {
                (accumulator, at)
            }
            _ => {
                let sliding = self.retraction != Retraction::Never;
                (self.create(sliding)?, frame.start..frame.start)
            }
        };
        if at.start < frame.start {
            let values = self.slice.values(&(at.start..frame.start))?;
            accumulator.retract_batch(&values)?;
        }
        if at.end < frame.end {
            accumulator.update_batch(&self.slice.values(&(at.end..frame.end))?)?;
        }
        self.current = Some((accumulator, frame.clone()));
        Ok(())
    }
}

/// `first_value`, `last_value` and `nth_value`.
fn positioned(call: &Call, slice: &Slice<'_>) -> Result<ArrayRef> {
    let values = &slice.arguments[0];
    let rows = slice.touched.clone().zip(slice.frames(call)?);
    let indices: UInt32Array = rows
        .map(|(row, frame)| {
            let pieces = slice.pieces(call.exclusion, &frame, row);
            let counts = |ignore_nulls: bool, row: &usize| !(ignore_nulls && values.is_null(*row));
            let mut ahead = pieces.iter().cloned().flatten();
            let mut back = pieces.iter().rev().flat_map(|piece| piece.clone().rev());
            let found = match call.kind {
                Kind::First { ignore_nulls } => ahead.find(|row| counts(ignore_nulls, row)),
                Kind::Last { ignore_nulls } => back.find(|row| counts(ignore_nulls, row)),
                Kind::Nth { n, ignore_nulls } if n > 0 => ahead
                    .filter(|row| counts(ignore_nulls, row))
                    .nth(n as usize - 1),
                Kind::Nth { n, ignore_nulls } if n < 0 => back
                    .filter(|row| counts(ignore_nulls, row))
                    .nth(n.unsigned_abs() as usize - 1),
                _ => None,
            };
            found.map(|row| row as u32)
        })
        .collect();
    Ok(take(values, &indices, None)?)
}

/// `lag`, and `lead` with a negative distance.
fn shifted(slice: &Slice<'_>, distance: i64, ignore_nulls: bool) -> Result<ArrayRef> {
    let values = &slice.arguments[0];
    let rows = slice.peers.rows();
    let far = usize::try_from(distance.unsigned_abs()).unwrap_or(usize::MAX);
    let source = |row: usize| match (distance, ignore_nulls) {
        (0, _) => Some(row),
        (1.., false) => row.checked_sub(far),
        (_, false) => row.checked_add(far).filter(|row| *row < rows),
        (1.., true) => (0..row).rev().filter(|r| values.is_valid(*r)).nth(far - 1),
        (_, true) => (row + 1..rows).filter(|r| values.is_valid(*r)).nth(far - 1),
    };
    let sources = slice.touched.clone().map(source);
    match slice.arguments.get(1) {
        None => {
            let indices: UInt32Array = sources.map(|s| s.map(|row| row as u32)).collect();
            Ok(take(values, &indices, None)?)
        }
        Some(default) => {
            let default = cast(default, values.data_type())?;
            let places: Vec<(usize, usize)> = sources
                .zip(slice.touched.clone())
                .map(|(source, row)| source.map_or((1, row), |source| (0, source)))
                .collect();
            Ok(interleave(&[values.as_ref(), default.as_ref()], &places)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bucket_of;

    /// Postgres: `ntile(b) OVER (ORDER BY x)` over so many rows.
    #[test]
    fn first_buckets_are_larger() {
        let of = |rows: usize, buckets: usize| -> Vec<usize> {
            (0..rows).map(|r| bucket_of(r, rows, buckets)).collect()
        };
        assert_eq!(of(7, 3), [0, 0, 0, 1, 1, 2, 2]);
        assert_eq!(of(3, 5), [0, 1, 2]);
        assert_eq!(of(6, 3), [0, 0, 1, 1, 2, 2]);
    }
}

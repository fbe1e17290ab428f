//! Where running calls can be gone on with: what they had in front of some rows of a partition.
//!
//! State: `anchors`, map form: partition → row → states of the running calls over all rows in front of it. Only rows with
//! which a group of peers begins have one, about one in [`ANCHOR_ROWS`]. A change makes all anchors behind it worthless; they
//! are written anew while the rows behind it are computed.

use super::call::Call;
use super::frame::Peers;
use super::reach::{Edge, Span};
use super::running::Running;
use crate::OperatorError;
use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use std::ops::{Bound, ControlFlow, Range};
use tidegate_state::{Cell, Change, Table};
use tidegate_types::{ByteRows, RowCodec};

/// Rows from one anchor to the next. Fewer cost more state, more cost more reading.
const ANCHOR_ROWS: usize = 32;

/// A row, and the states in front of it.
type Anchor = (Vec<u8>, Vec<u8>);

/// The running calls and the encoding of their states.
pub struct Anchors {
    codec: RowCodec,
    /// The columns of each call's states; empty for calls that do not run.
    columns: Vec<Range<usize>>,
}

impl Anchors {
    /// None where some call has to see the partition from its beginning.
    pub fn new(
        calls: &[Call],
        arguments: &[Option<DataType>],
    ) -> Result<Option<Self>, OperatorError> {
        use super::reach::Extent::Unbounded;
        let unbounded = |call: &Call| call.reach.back == Unbounded && !call.is_running();
        let ahead = calls.iter().any(|call| call.reach.ahead == Unbounded);
        if ahead || calls.iter().any(unbounded) || !calls.iter().any(Call::is_running) {
            return Ok(None);
        }
        let (mut types, mut columns) = (Vec::new(), Vec::new());
        for (call, argument) in calls.iter().zip(arguments) {
            let start = types.len();
            if call.is_running() {
                types.extend(Running::state_types(call, argument.as_ref())?);
            }
            columns.push(start..types.len());
        }
        let codec = RowCodec::new(&types)?;
        Ok(Some(Self { codec, columns }))
    }

    /// The last anchor that is not behind the first of these rows.
    pub fn find(
        &self,
        table: &dyn Table,
        key: &[u8],
        seen: &Span,
    ) -> Result<Option<Anchor>, OperatorError> {
        let Edge::Row(first) = &seen.first else {
            return Ok(None);
        };
        let mut found = None;
        let bounds = (Bound::Unbounded, Bound::Included(first.as_slice()));
        table.scan(key, bounds, true, &mut |row, states| {
            found = Some((row.to_vec(), states.to_vec()));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Removes the anchors behind a changed row.
    pub fn remove_behind(
        &self,
        table: &mut dyn Table,
        key: &[u8],
        row: &[u8],
    ) -> Result<(), OperatorError> {
        let mut gone = ByteRows::new();
        let bounds = (Bound::Excluded(row), Bound::Unbounded);
        table.scan(key, bounds, false, &mut |row, _| {
            gone.push(row);
            ControlFlow::Continue(())
        })?;
        let changes: Vec<Change<'_>> = gone
            .iter()
            .map(|sub| Change {
                cell: Cell { key, sub },
                value: None,
            })
            .collect();
        Ok(table.write_many(&changes)?)
    }

    /// The rows of a slice that are to have an anchor.
    pub fn rows(&self, peers: &Peers) -> Vec<usize> {
        let mut rows = Vec::new();
        let mut next = ANCHOR_ROWS;
        for row in 0..peers.rows() {
            if row >= next && peers.is_start(row) {
                rows.push(row);
                next = row + ANCHOR_ROWS;
            }
        }
        rows
    }

    /// The states of each call.
    pub fn decode(&self, states: &[u8]) -> Result<Vec<Vec<ArrayRef>>, OperatorError> {
        let columns = self.codec.decode([states])?;
        let of_call = |range: &Range<usize>| columns[range.clone()].to_vec();
        Ok(self.columns.iter().map(of_call).collect())
    }

    /// The states of all calls at one row; None where one of them could not be had.
    pub fn encode(
        &self,
        states: &[Option<Vec<ScalarValue>>],
    ) -> Result<Option<Vec<u8>>, OperatorError> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (range, states) in self.columns.iter().zip(states) {
            if range.is_empty() {
                continue;
            }
            let Some(states) = states else {
                return Ok(None);
            };
            for (state, wanted) in states.iter().zip(&self.codec.types()[range.clone()]) {
                let column = state.to_array()?;
                columns.push(match column.data_type() == wanted {
                    true => column,
                    false => cast(&column, wanted)?,
                });
            }
        }
        Ok(Some(self.codec.encode(&columns)?.row(0).data().to_vec()))
    }
}

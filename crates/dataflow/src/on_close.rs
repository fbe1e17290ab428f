//! `EMIT ON WINDOW CLOSE`: `out = rows(t < watermark)`, each given once, when the watermark of its time has passed.
//!
//! State: `rows`, map form: key → other columns → count.
//!
//! Until then changes are kept added up and nothing comes out. Behind the watermark nothing changes any more, so that what comes
//! out is final, is never retracted, and its state is freed. A row whose time is NULL never comes out.
//!
//! Cost: one cell per changed row and epoch, and one for each row that comes out.

use crate::closing::Closing;
use crate::count_table::{scan_counts, write_counts};
use crate::groups::KeyChunk;
use crate::numbering::Numbered;
use crate::ordered_rows::{CHUNK_GROUPS, Kept, OrderedRows};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::ops::ControlFlow;
use tidegate_state::Cell;
use tidegate_types::{Barrier, Batch, ByteRows, RowCodec};

pub struct OnClose {
    rows: OrderedRows,
    closing: Closing,
    /// Of the key's columns.
    codec: RowCodec,
    /// Keys that are final, and the next of them to give.
    next: usize,
    closed: Vec<Box<[u8]>>,
}

impl OnClose {
    pub fn new(
        key: &[usize],
        closing: Closing,
        input: &Schema,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let types: Vec<DataType> = key
            .iter()
            .map(|c| input.field(*c).data_type().clone())
            .collect();
        let all = Numbered::first(u64::MAX);
        Ok(Self {
            rows: OrderedRows::new(key, &[], input, schema, all, Kept::All)?,
            closing,
            codec: RowCodec::new(&types)?,
            next: 0,
            closed: Vec::new(),
        })
    }

    /// Adds the epoch's changes up.
    fn keep(&mut self, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let groups = self.rows.sort();
        for start in (0..groups).step_by(CHUNK_GROUPS) {
            let range = start..(start + CHUNK_GROUPS).min(groups);
            let keys = self.rows.keys(range.clone())?;
            let table = cx.tables[0].as_mut();
            for (index, group) in range.enumerate() {
                let key = keys.keys.get(index);
                let changes = self.rows.counts(group, key, table)?;
                let cells: Vec<Cell<'_>> =
                    changes.iter().map(|(sub, ..)| Cell { key, sub }).collect();
                let counts: Vec<(i64, i64)> =
                    changes.iter().map(|(_, old, new)| (*old, *new)).collect();
                write_counts(table, &cells, &counts)?;
            }
            self.closing.touch(&keys);
        }
        self.rows.clear();
        Ok(())
    }

    /// Gives the rows of keys that are final, and forgets them.
    fn give(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        while self.next < self.closed.len() {
            if cx.exhausted() {
                return Ok(Progress::More);
            }
            let range = self.next..(self.next + CHUNK_GROUPS).min(self.closed.len());
            self.next = range.end;
            let keys: ByteRows = self.closed[range].iter().map(|key| &**key).collect();
            let table = cx.tables[0].as_mut();
            let (mut of_key, mut subs, mut diffs) = (Vec::new(), ByteRows::new(), Vec::new());
            for (index, key) in keys.iter().enumerate() {
                scan_counts(table, key, false, &mut |sub, count| {
                    of_key.push(index as u32);
                    subs.push(sub);
                    diffs.push(count);
                    ControlFlow::Continue(())
                })?;
            }
            let cells: Vec<Cell<'_>> = of_key
                .iter()
                .zip(subs.iter())
                .map(|(index, sub)| Cell {
                    key: keys.get(*index as usize),
                    sub,
                })
                .collect();
            let gone: Vec<(i64, i64)> = diffs.iter().map(|count| (*count, 0)).collect();
            write_counts(table, &cells, &gone)?;
            let columns = self.codec.decode(keys.iter())?;
            let chunk = KeyChunk { keys, columns };
            cx.emit(self.rows.rows(&chunk, of_key, &subs, diffs)?);
        }
        self.closed.clear();
        self.next = 0;
        Ok(Progress::Done)
    }
}

impl Operator for OnClose {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        _cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.rows.collect(&batch)?;
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.keep(cx)?;
        let closed = self.closing.take_closed(barrier, cx.tables)?;
        self.closed = closed.iter().map(Into::into).collect();
        self.give(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        self.give(cx)
    }
}

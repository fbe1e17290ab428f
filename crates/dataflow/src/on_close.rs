//! `EMIT ON WINDOW CLOSE`: `out = rows(t < watermark)`, each given once, when the watermark of its time has passed.
//!
//! State: `rows`, map form: key → other columns → count.
//!
//! Until then changes are kept added up and nothing comes out. Behind the watermark nothing changes any more, so that what comes
//! out is final, is never retracted, and its state is freed. A row whose time is NULL never comes out.
//!
//! Cost: one cell per changed row and epoch, and one for each row that comes out.

use crate::closing::Closing;
use crate::count_table::{take_all, write_recounts};
use crate::groups::KeyChunk;
use crate::numbering::Numbered;
use crate::ordered_rows::{CHUNK_GROUPS, Kept, OrderedRows};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::datatypes::{DataType, Schema, SchemaRef};
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
                write_recounts(table, key, &changes)?;
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
            let (of_key, subs, diffs) = take_all(cx.tables[0].as_mut(), &keys)?;
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

//! The one file format of all state: sorted runs as Arrow IPC.
//!
//! A run object is an Arrow IPC stream (LZ4) with the columns `key_group, key, sub, value`: first the schema, then the
//! record batches ("blocks") of its runs one run after the other, then the end marker. Any Arrow reader can read it.
//! `sub` is null in tables of value form; a null `value` is a tombstone. Where each block lies, which key groups it
//! holds and its checksum is in the manifest ([`RunRef`]), so that a part of the key groups is read by byte range and
//! nothing is decoded that was not verified. A worker writes one object per checkpoint; a merge writes one per table.
//!
//! Encoding and decoding are synchronous and belong on blocking threads.

use crate::error::{CheckpointError, Damage, Result};
use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, UInt8Array};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type};
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MetadataVersion};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use tidegate_state::run::RunEntry;
use tidegate_state::{Form, Run, RunBuilder};
use tidegate_types::{CheckpointId, KeyGroup, KeyGroupRange, TableId};

/// A block ends at whichever comes first: what is read, checked and decoded at once stays small.
pub(crate) const BLOCK_ROWS: usize = 32 << 10;
/// A block is no larger than this by default: see [`Buffers`](crate::Buffers).
pub(crate) const BLOCK_BYTES: usize = 2 << 20;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("key_group", DataType::UInt8, false),
        Field::new("key", DataType::Binary, false),
        Field::new("sub", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
    ]))
});

/// The schema message with which every object, and every decoder, begins.
static SCHEMA_MESSAGE: LazyLock<Bytes> =
    LazyLock::new(|| ObjectEncoder::new(BLOCK_BYTES).take().into());

/// Where a run lies and what it holds. Part of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRef {
    pub object: Arc<str>,
    /// Which of the object's runs.
    pub index: u32,
    pub rows: u64,
    /// How many of the rows delete.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tombstones: u64,
    /// Encoded size, the sum over its blocks.
    pub bytes: u64,
    /// The newest checkpoint whose changes are in it.
    pub checkpoint: CheckpointId,
    pub blocks: Vec<BlockRef>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl RunRef {
    /// Two references with the same identity are the same run.
    pub fn identity(&self) -> (&str, u32) {
        (&self.object, self.index)
    }

    /// The blocks that hold any of these key groups.
    pub fn blocks_in(&self, groups: KeyGroupRange) -> impl Iterator<Item = &BlockRef> {
        self.blocks.iter().filter(move |b| {
            (b.first_group as usize) < groups.end && (b.last_group as usize) >= groups.start
        })
    }
}

/// One record batch of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "(u64, u64, u32, KeyGroup, KeyGroup, u32)",
    into = "(u64, u64, u32, KeyGroup, KeyGroup, u32)"
)]
pub struct BlockRef {
    pub offset: u64,
    pub bytes: u64,
    pub rows: u32,
    pub first_group: KeyGroup,
    pub last_group: KeyGroup,
    pub crc32c: u32,
}

impl From<(u64, u64, u32, KeyGroup, KeyGroup, u32)> for BlockRef {
    fn from(
        (offset, bytes, rows, first_group, last_group, crc32c): (
            u64,
            u64,
            u32,
            KeyGroup,
            KeyGroup,
            u32,
        ),
    ) -> Self {
        Self {
            offset,
            bytes,
            rows,
            first_group,
            last_group,
            crc32c,
        }
    }
}

impl From<BlockRef> for (u64, u64, u32, KeyGroup, KeyGroup, u32) {
    fn from(b: BlockRef) -> Self {
        (
            b.offset,
            b.bytes,
            b.rows,
            b.first_group,
            b.last_group,
            b.crc32c,
        )
    }
}

/// Encodes a worker's runs of one checkpoint as one object. What is encoded is given away as it comes, and runs that are on
/// disk are read piece by piece. Answers how many bytes there were, and where each run lies.
pub(crate) fn write_runs(
    mut encoder: ObjectEncoder,
    object: &Arc<str>,
    checkpoint: CheckpointId,
    runs: Vec<Run>,
    write: &mut dyn FnMut(Bytes) -> Result<()>,
) -> Result<(u64, Vec<(TableId, RunRef)>)> {
    let mut placed = Vec::with_capacity(runs.len());
    for (index, run) in runs.into_iter().enumerate() {
        let mut reference = empty_reference(object, index as u32, checkpoint);
        for piece in run.pieces() {
            let piece = piece.map_err(|e| {
                CheckpointError::OutOfOrder(format!("reading what has changed failed: {e}"))
            })?;
            let mut next = 0;
            while next < piece.len() {
                next = encoder.block(&piece, next, &mut reference);
                // One chunk per few megabytes: small runs share it, and no large buffer grows by copying.
                if encoder.pending() >= encoder.block_bytes {
                    write(encoder.take().into())?;
                }
            }
        }
        placed.push((run.table, reference));
    }
    let (rest, bytes) = encoder.finish_counted();
    write(rest.into())?;
    Ok((bytes, placed))
}

pub(crate) fn empty_reference(object: &Arc<str>, index: u32, checkpoint: CheckpointId) -> RunRef {
    RunRef {
        object: object.clone(),
        index,
        rows: 0,
        tombstones: 0,
        bytes: 0,
        checkpoint,
        blocks: Vec::new(),
    }
}

/// Writes an object front to back; what is encoded is taken away as it comes.
pub(crate) struct ObjectEncoder {
    writer: StreamWriter<Vec<u8>>,
    /// Bytes taken so far.
    taken: u64,
    block_bytes: usize,
}

impl ObjectEncoder {
    pub fn new(block_bytes: usize) -> Self {
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
            .and_then(|o| o.try_with_compression(Some(CompressionType::LZ4_FRAME)))
            .expect("alignment 8, version 5 and LZ4 are valid together");
        let writer = StreamWriter::try_new_with_options(Vec::new(), &SCHEMA, options)
            .expect("writing a schema to memory cannot fail");
        Self {
            writer,
            taken: 0,
            block_bytes,
        }
    }

    /// Appends entries of a run from this one on as one block; answers the first that is not in it any more.
    pub fn block(&mut self, run: &Run, first: usize, reference: &mut RunRef) -> usize {
        let mut block = self.new_block(run.has_sub_keys());
        let mut next = first;
        while next < run.len() && !block.is_full() {
            // Each is looked at once: sorted entries lie all over memory.
            block.push(run.entry(next));
            next += 1;
        }
        self.write(block, reference);
        next
    }

    pub fn new_block(&self, map_form: bool) -> BlockBuilder {
        BlockBuilder::new(map_form, self.block_bytes)
    }

    /// Appends a block, unless it is empty.
    pub fn write(&mut self, block: BlockBuilder, reference: &mut RunRef) {
        let (Some(first_group), Some(last_group)) = (block.groups.first(), block.groups.last())
        else {
            return;
        };
        let (first_group, last_group) = (*first_group, *last_group);
        let before = self.pending();
        let batch = block.finish();
        self.writer
            .write(&batch)
            .expect("a batch of the object's schema can be written to memory");
        let encoded = &self.writer.get_ref()[before..];
        let block = BlockRef {
            offset: self.taken + before as u64,
            bytes: encoded.len() as u64,
            rows: batch.num_rows() as u32,
            first_group,
            last_group,
            crc32c: crc32c::crc32c(encoded),
        };
        reference.rows += u64::from(block.rows);
        reference.tombstones += batch.column(3).null_count() as u64;
        reference.bytes += block.bytes;
        reference.blocks.push(block);
    }

    /// Appends a block as another object has it, already verified.
    pub fn copy_block(&mut self, block: &BlockRef, bytes: &Bytes, reference: &mut RunRef) {
        let offset = self.taken + self.pending() as u64;
        self.writer.get_mut().extend_from_slice(bytes);
        reference.bytes += block.bytes;
        reference.rows += u64::from(block.rows);
        reference.blocks.push(BlockRef { offset, ..*block });
    }

    pub fn pending(&self) -> usize {
        self.writer.get_ref().len()
    }

    pub fn take(&mut self) -> Vec<u8> {
        let taken = std::mem::take(self.writer.get_mut());
        self.taken += taken.len() as u64;
        taken
    }

    /// The last bytes, with the end marker.
    pub fn finish(self) -> Vec<u8> {
        self.finish_counted().0
    }

    /// The same, and how many bytes there were in all.
    pub fn finish_counted(mut self) -> (Vec<u8>, u64) {
        self.writer.finish().expect("writing to memory cannot fail");
        let rest = self.take();
        (rest, self.taken)
    }
}

/// Entries in order, until there are enough for a block.
pub(crate) struct BlockBuilder {
    block_bytes: usize,
    groups: Vec<KeyGroup>,
    keys: Column,
    /// `None` in tables of value form.
    subs: Option<Column>,
    values: Column,
    /// One per entry: whether it has a value. `None`: all have.
    present: Option<Vec<bool>>,
}

impl BlockBuilder {
    fn new(map_form: bool, block_bytes: usize) -> Self {
        Self {
            block_bytes,
            groups: Vec::with_capacity(BLOCK_ROWS / 4),
            keys: Column::default(),
            subs: map_form.then(Column::default),
            values: Column::default(),
            present: None,
        }
    }

    #[inline]
    pub fn push(&mut self, e: RunEntry<'_>) {
        let rows = self.groups.len();
        self.groups.push(e.group);
        self.keys.push(e.key);
        if let Some(subs) = &mut self.subs {
            subs.push(e.sub);
        }
        self.values.push(e.value.unwrap_or(&[]));
        match &mut self.present {
            Some(present) => present.push(e.value.is_some()),
            None if e.value.is_some() => {}
            None => {
                let mut all = vec![true; rows];
                all.push(false);
                self.present = Some(all);
            }
        }
    }

    pub fn is_full(&self) -> bool {
        let subs = self.subs.as_ref().map_or(0, Column::len);
        self.groups.len() >= BLOCK_ROWS
            || self.keys.len() + subs + self.values.len() >= self.block_bytes
    }

    fn finish(self) -> RecordBatch {
        let rows = self.groups.len();
        let subs = match self.subs {
            Some(subs) => subs.finish(None),
            None => BinaryArray::new_null(rows),
        };
        RecordBatch::try_new(
            SCHEMA.clone(),
            vec![
                Arc::new(UInt8Array::from(self.groups)),
                Arc::new(self.keys.finish(None)),
                Arc::new(subs),
                Arc::new(self.values.finish(self.present.map(NullBuffer::from))),
            ],
        )
        .expect("the columns follow the schema")
    }
}

/// A binary column of a block under construction. A block is small enough for offsets of 32 bits, unless one entry alone is
/// larger, and no table takes such a one.
struct Column {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Default for Column {
    fn default() -> Self {
        let mut ends = Vec::with_capacity(BLOCK_ROWS / 4);
        ends.push(0);
        Self {
            ends,
            bytes: Vec::with_capacity(BLOCK_BYTES / 4),
        }
    }
}

impl Column {
    #[inline]
    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len() as i32);
    }

    /// Bytes so far.
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn finish(self, nulls: Option<NullBuffer>) -> BinaryArray {
        BinaryArray::new(
            OffsetBuffer::new(self.ends.into()),
            Buffer::from_vec(self.bytes),
            nulls,
        )
    }
}

/// A block as it was decoded, or a part of it. Entries are in order.
pub(crate) struct Block {
    groups: ScalarBuffer<KeyGroup>,
    keys: BinaryArray,
    /// `None` in tables of value form.
    subs: Option<BinaryArray>,
    values: BinaryArray,
    part: Range<usize>,
}

impl Block {
    /// Verifies a block's checksum and decodes it: the entries within `groups`.
    pub fn open(
        form: Form,
        object: &Arc<str>,
        block: &BlockRef,
        bytes: &Bytes,
        groups: KeyGroupRange,
    ) -> std::result::Result<Self, Damage> {
        let damage = |what: String| Damage {
            object: object.clone(),
            offset: Some(block.offset),
            what,
        };
        verify_block(object, block, bytes)?;
        let batch = read_batch(bytes).map_err(|e| damage(format!("it does not decode: {e}")))?;
        if batch.num_rows() != block.rows as usize {
            return Err(damage(format!(
                "it has {} rows instead of {}",
                batch.num_rows(),
                block.rows
            )));
        }
        let group_of = batch.column(0).as_primitive::<UInt8Type>().values();
        // Sorted by key group, so what is wanted is one slice.
        let start = group_of.partition_point(|g| (*g as usize) < groups.start);
        let end = group_of.partition_point(|g| (*g as usize) < groups.end);
        Ok(Self {
            groups: group_of.clone(),
            keys: batch.column(1).as_binary().clone(),
            subs: (form == Form::Map).then(|| batch.column(2).as_binary().clone()),
            values: batch.column(3).as_binary().clone(),
            part: start..end.max(start),
        })
    }

    pub fn len(&self) -> usize {
        self.part.len()
    }

    #[inline]
    pub fn entry(&self, index: usize) -> RunEntry<'_> {
        let place = self.part.start + index;
        let subs = self.subs.as_ref().filter(|subs| subs.is_valid(place));
        RunEntry {
            group: self.groups[place],
            key: self.keys.value(place),
            sub: subs.map_or(&[], |subs| subs.value(place)),
            value: self
                .values
                .is_valid(place)
                .then(|| self.values.value(place)),
        }
    }
}

/// Verifies a block's checksum and decodes it: the entries within `groups`, `None` if there are none.
pub fn decode_block(
    table: TableId,
    form: Form,
    object: &Arc<str>,
    block: &BlockRef,
    bytes: &Bytes,
    groups: KeyGroupRange,
) -> std::result::Result<Option<Run>, Damage> {
    let block = Block::open(form, object, block, bytes, groups)?;
    let mut run = RunBuilder::new(table, form == Form::Map, block.len());
    for e in (0..block.len()).map(|i| block.entry(i)) {
        run.push_in_group(e.group, e.key, e.sub, e.value);
    }
    Ok(run.finish())
}

/// Checks length and checksum only.
pub fn verify_block(
    object: &Arc<str>,
    block: &BlockRef,
    bytes: &Bytes,
) -> std::result::Result<(), Damage> {
    let damage = |what: String| Damage {
        object: object.clone(),
        offset: Some(block.offset),
        what,
    };
    if bytes.len() as u64 != block.bytes {
        return Err(damage(format!(
            "it ends after {} of {} bytes",
            bytes.len(),
            block.bytes
        )));
    }
    let found = crc32c::crc32c(bytes);
    if found != block.crc32c {
        return Err(damage(format!(
            "its checksum is {found:08x} instead of {:08x}",
            block.crc32c
        )));
    }
    Ok(())
}

fn read_batch(bytes: &Bytes) -> std::result::Result<RecordBatch, String> {
    let mut decoder = StreamDecoder::new();
    let mut schema = Buffer::from(SCHEMA_MESSAGE.clone());
    decoder.decode(&mut schema).map_err(|e| e.to_string())?;
    let mut buffer = Buffer::from(bytes.clone());
    let batch = decoder.decode(&mut buffer).map_err(|e| e.to_string())?;
    batch.ok_or_else(|| "no record batch is in it".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(table: u64, map: bool, rows: usize) -> Run {
        let mut builder = RunBuilder::new(TableId(table), map, rows);
        for i in 0..rows {
            let key = format!("key-{i:06}");
            let sub = if map {
                format!("sub-{}", i % 7)
            } else {
                String::new()
            };
            let value = (i % 5 != 0).then(|| format!("value {i}"));
            builder.push(
                key.as_bytes(),
                sub.as_bytes(),
                value.as_ref().map(String::as_bytes),
            );
        }
        builder.finish().expect("rows")
    }

    struct EncodedRuns {
        chunks: Vec<Bytes>,
        bytes: u64,
        runs: Vec<(TableId, RunRef)>,
    }

    fn encode_runs(object: &Arc<str>, checkpoint: CheckpointId, runs: &[Run]) -> EncodedRuns {
        let mut chunks = Vec::new();
        let encoder = ObjectEncoder::new(BLOCK_BYTES);
        let written = write_runs(encoder, object, checkpoint, runs.to_vec(), &mut |chunk| {
            chunks.push(chunk);
            Ok(())
        });
        let (bytes, runs) =
            written.expect("writing to memory cannot fail, and the runs are in memory");
        EncodedRuns {
            chunks,
            bytes,
            runs,
        }
    }

    fn flat(chunks: &[Bytes]) -> Bytes {
        chunks.concat().into()
    }

    fn slice(bytes: &Bytes, b: &BlockRef) -> Bytes {
        bytes.slice(b.offset as usize..(b.offset + b.bytes) as usize)
    }

    #[test]
    fn runs_survive_the_round_trip_whole_and_by_key_group() {
        let object: Arc<str> = "runs/x".into();
        let runs = vec![run(1, false, 100_000), run(2, true, 10), run(3, false, 1)];
        let encoded = encode_runs(&object, CheckpointId(7), &runs);
        let bytes = flat(&encoded.chunks);
        assert_eq!(bytes.len() as u64, encoded.bytes);
        for (original, (table, reference)) in runs.iter().zip(&encoded.runs) {
            let form = if original.has_sub_keys() {
                Form::Map
            } else {
                Form::Value
            };
            assert_eq!(*table, original.table);
            assert_eq!(reference.rows, original.len() as u64);
            assert_eq!(
                reference.tombstones,
                original.iter().filter(|e| e.value.is_none()).count() as u64
            );
            for workers in 1..5 {
                let mut seen = Vec::new();
                for worker in 0..workers {
                    let range = KeyGroupRange::of_worker(worker, workers);
                    for block in reference.blocks_in(range) {
                        let part = decode_block(
                            *table,
                            form,
                            &object,
                            block,
                            &slice(&bytes, block),
                            range,
                        );
                        for e in part.unwrap().iter().flat_map(Run::iter) {
                            assert!(range.contains(e.group));
                            seen.push((
                                e.group,
                                e.key.to_vec(),
                                e.sub.to_vec(),
                                e.value.map(<[u8]>::to_vec),
                            ));
                        }
                    }
                }
                let expected: Vec<_> = original
                    .iter()
                    .map(|e| {
                        (
                            e.group,
                            e.key.to_vec(),
                            e.sub.to_vec(),
                            e.value.map(<[u8]>::to_vec),
                        )
                    })
                    .collect();
                assert_eq!(seen, expected);
            }
        }
    }

    #[test]
    fn an_object_is_an_arrow_stream() {
        let runs = vec![run(1, false, 50_000), run(2, true, 10)];
        let encoded = encode_runs(&"runs/x".into(), CheckpointId(1), &runs);
        let bytes = flat(&encoded.chunks);
        let reader =
            arrow_ipc::reader::StreamReader::try_new(std::io::Cursor::new(bytes), None).unwrap();
        let rows: usize = reader.map(|b| b.unwrap().num_rows()).sum();
        assert_eq!(rows, 50_010);
    }

    #[test]
    fn every_altered_byte_is_noticed_and_named() {
        let object: Arc<str> = "runs/x".into();
        let encoded = encode_runs(&object, CheckpointId(1), &[run(1, false, 20)]);
        let bytes = flat(&encoded.chunks);
        let block = encoded.runs[0].1.blocks[0];
        let good = slice(&bytes, &block);
        for i in 0..good.len() {
            let mut bad = good.to_vec();
            bad[i] ^= 0x40;
            let error = decode_block(
                TableId(1),
                Form::Value,
                &object,
                &block,
                &bad.into(),
                KeyGroupRange::ALL,
            )
            .expect_err("altered");
            assert!(
                error
                    .to_string()
                    .contains(&format!("\"runs/x\" is damaged at offset {}", block.offset))
            );
        }
        let short = good.slice(..good.len() - 1);
        assert!(
            decode_block(
                TableId(1),
                Form::Value,
                &object,
                &block,
                &short,
                KeyGroupRange::ALL
            )
            .is_err()
        );
    }
}

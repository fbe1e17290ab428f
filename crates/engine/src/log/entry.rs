//! What an entry holds, and its bytes.
//!
//! A frame is `length u32 | crc32c u32 | position u64 | body`, little endian; length and checksum cover position and body.
//! A body is a kind byte and the content: JSON for catalog changes, Arrow IPC streams for rows.

use arrow::array::{Int64Array, RecordBatch};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use tidegate_catalog::CatalogChange;
use tidegate_types::{Batch, LogPosition, RelationId, SqlError, SqlState};

const KIND_CATALOG: u8 = 1;
const KIND_TRANSACTION: u8 = 2;
const KIND_TIMELINE: u8 = 3;
const KIND_TIMELINE_REPLAYING_SINKS: u8 = 4;

/// Bytes in front of a frame's content.
pub(super) const FRAME_HEADER: usize = 8;

#[derive(Debug, Clone)]
pub enum LogEntry {
    /// DDL, as one step.
    Catalog { changes: Vec<CatalogChange> },
    /// What one transaction changed. Never split over epochs.
    Transaction { changes: Vec<(RelationId, Batch)> },
    /// The database went back to this savepoint here: entries before have no meaning any more.
    Timeline {
        savepoint: String,
        /// Sinks begin as new ones do.
        replays_sinks: bool,
    },
}

impl LogEntry {
    pub(super) fn encode(&self) -> Result<Vec<u8>, SqlError> {
        let mut body = Vec::new();
        match self {
            LogEntry::Catalog { changes } => {
                body.push(KIND_CATALOG);
                serde_json::to_writer(&mut body, changes).map_err(SqlError::internal)?;
            }
            LogEntry::Transaction { changes } => {
                body.push(KIND_TRANSACTION);
                body.extend_from_slice(&(changes.len() as u32).to_le_bytes());
                for (relation, batch) in changes {
                    encode_changes(&mut body, *relation, batch).map_err(SqlError::internal)?;
                }
            }
            LogEntry::Timeline {
                savepoint,
                replays_sinks,
            } => {
                body.push(match replays_sinks {
                    true => KIND_TIMELINE_REPLAYING_SINKS,
                    false => KIND_TIMELINE,
                });
                body.extend_from_slice(savepoint.as_bytes());
            }
        }
        Ok(body)
    }

    /// `None` when these are not bytes that [`LogEntry::encode`] made.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let (kind, mut rest) = body.split_first()?;
        match *kind {
            KIND_CATALOG => Some(LogEntry::Catalog {
                changes: serde_json::from_slice(rest).ok()?,
            }),
            KIND_TRANSACTION => {
                let count = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
                let changes = (0..count)
                    .map(|_| decode_changes(&mut rest))
                    .collect::<Option<_>>()?;
                rest.is_empty().then_some(LogEntry::Transaction { changes })
            }
            KIND_TIMELINE | KIND_TIMELINE_REPLAYING_SINKS => Some(LogEntry::Timeline {
                savepoint: String::from_utf8(rest.to_vec()).ok()?,
                replays_sinks: *kind == KIND_TIMELINE_REPLAYING_SINKS,
            }),
            _ => None,
        }
    }
}

/// `relation u64 | has diffs u8 | length u32 | IPC stream of the rows`, and with diffs `length u32 | i64 each`.
fn encode_changes(
    body: &mut Vec<u8>,
    relation: RelationId,
    batch: &Batch,
) -> Result<(), arrow::error::ArrowError> {
    body.extend_from_slice(&relation.0.to_le_bytes());
    body.push(u8::from(batch.diffs().is_some()));
    let length_at = body.len();
    body.extend_from_slice(&[0; 4]);
    let mut writer = StreamWriter::try_new(&mut *body, &batch.schema())?;
    writer.write(batch.rows())?;
    writer.finish()?;
    drop(writer);
    let length = (body.len() - length_at - 4) as u32;
    body[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    if let Some(diffs) = batch.diffs() {
        body.extend_from_slice(&(diffs.len() as u32).to_le_bytes());
        for diff in diffs.values() {
            body.extend_from_slice(&diff.to_le_bytes());
        }
    }
    Ok(())
}

fn decode_changes(rest: &mut &[u8]) -> Option<(RelationId, Batch)> {
    let relation = RelationId(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?));
    let has_diffs = take(rest, 1)? == [1];
    let length = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize;
    let stream = take(rest, length)?;
    let mut reader = StreamReader::try_new(std::io::Cursor::new(stream), None).ok()?;
    let rows: RecordBatch = reader.next()?.ok()?;
    if !has_diffs {
        return Some((relation, Batch::insert(rows)));
    }
    let count = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize;
    let bytes = take(rest, count * 8)?;
    let diffs: Int64Array = bytes
        .chunks_exact(8)
        .map(|c| i64::from_le_bytes(c.try_into().expect("chunks are eight bytes")))
        .collect();
    (diffs.len() == rows.num_rows()).then(|| (relation, Batch::new(rows, diffs)))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// The bytes of an entry as they stand in the file.
pub(super) fn frame(position: LogPosition, body: &[u8]) -> Result<Vec<u8>, SqlError> {
    let content = 8 + body.len();
    let length = u32::try_from(content).map_err(|_| {
        SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "a transaction cannot change more than 4 GB of rows",
        )
        .with_hint("Split it into several transactions.")
    })?;
    let mut bytes = Vec::with_capacity(FRAME_HEADER + content);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&position.0.to_le_bytes());
    bytes.extend_from_slice(body);
    let checksum = crc32c::crc32c(&bytes[FRAME_HEADER..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

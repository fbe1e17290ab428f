//! The writing side of a connection: messages are laid into one buffer, and sent when it is long enough, when the client
//! waits for an answer, or when nothing more is at hand.

use super::ConnectionError;
use super::types::Column;
use bytes::{BufMut, BytesMut};
use tidegate_engine::api::{Notice, NoticeSeverity, TransactionStatus};
use tidegate_types::SqlError;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

/// From this length on rows wait for the client to take them.
pub(super) const SEND_BYTES: usize = 64 * 1024;
/// What the buffer keeps after a burst.
const KEEP_BYTES: usize = 1024 * 1024;

pub(super) struct Outbox {
    writer: OwnedWriteHalf,
    buffer: BytesMut,
}

impl Outbox {
    pub(super) fn new(writer: OwnedWriteHalf) -> Self {
        Self {
            writer,
            buffer: BytesMut::with_capacity(READY_BYTES),
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), ConnectionError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let sent = self.writer.write_all(&self.buffer).await;
        self.buffer.clear();
        if self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::with_capacity(READY_BYTES);
        }
        sent.map_err(ConnectionError::Io)
    }

    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= SEND_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Everything sent; the client sees the end of the stream.
    pub(super) async fn close(&mut self) {
        // The client may be gone already, which is what was wanted.
        let _ = self.flush().await;
        let _ = self.writer.shutdown().await;
    }

    /// The buffer itself, for rows that are encoded in place.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// One byte without a frame: the answer to a request for encryption.
    pub(super) fn byte(&mut self, byte: u8) {
        self.buffer.put_u8(byte);
    }

    fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        frame(&mut self.buffer, kind, body);
    }

    pub(super) fn authentication_ok(&mut self) {
        self.message(b'R', |b| b.put_i32(0));
    }

    /// Tells the newest minor version spoken here, and which protocol options are unknown.
    pub(super) fn negotiate_version(&mut self, unknown_options: &[String]) {
        self.message(b'v', |b| {
            b.put_i32(3 << 16);
            b.put_i32(unknown_options.len() as i32);
            unknown_options.iter().for_each(|o| put_string(b, o));
        });
    }

    pub(super) fn parameter_status(&mut self, name: &str, value: &str) {
        self.message(b'S', |b| {
            put_string(b, name);
            put_string(b, value);
        });
    }

    pub(super) fn backend_key(&mut self, pid: i32, secret: i32) {
        self.message(b'K', |b| {
            b.put_i32(pid);
            b.put_i32(secret);
        });
    }

    pub(super) fn ready(&mut self, status: TransactionStatus) {
        let status = match status {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InTransaction => b'T',
            TransactionStatus::Failed => b'E',
        };
        self.message(b'Z', |b| b.put_u8(status));
    }

    pub(super) fn error(&mut self, error: &SqlError) {
        self.message(b'E', |b| put_fields(b, "ERROR", error));
    }

    pub(super) fn fatal(&mut self, error: &SqlError) {
        self.message(b'E', |b| put_fields(b, "FATAL", error));
    }

    pub(super) fn notice(&mut self, notice: &Notice) {
        let severity = match notice.severity {
            NoticeSeverity::Debug => "DEBUG",
            NoticeSeverity::Info => "INFO",
            NoticeSeverity::Notice => "NOTICE",
            NoticeSeverity::Warning => "WARNING",
        };
        self.message(b'N', |b| put_fields(b, severity, &notice.content));
    }

    pub(super) fn command_complete(&mut self, tag: &str) {
        self.message(b'C', |b| put_string(b, tag));
    }

    pub(super) fn empty_query(&mut self) {
        self.message(b'I', |_| {});
    }

    pub(super) fn parse_complete(&mut self) {
        self.message(b'1', |_| {});
    }

    pub(super) fn bind_complete(&mut self) {
        self.message(b'2', |_| {});
    }

    pub(super) fn close_complete(&mut self) {
        self.message(b'3', |_| {});
    }

    pub(super) fn no_data(&mut self) {
        self.message(b'n', |_| {});
    }

    pub(super) fn portal_suspended(&mut self) {
        self.message(b's', |_| {});
    }

    pub(super) fn parameter_description(&mut self, oids: &[u32]) {
        self.message(b't', |b| {
            b.put_u16(oids.len() as u16);
            oids.iter().for_each(|oid| b.put_u32(*oid));
        });
    }

    pub(super) fn row_description(&mut self, columns: &[Column]) {
        self.message(b'T', |b| {
            b.put_u16(columns.len() as u16);
            for column in columns {
                put_string(b, &column.name);
                // Not a column of a table, as far as clients can tell.
                b.put_u32(0);
                b.put_u16(0);
                b.put_u32(column.oid);
                b.put_i16(column.length);
                b.put_i32(column.modifier);
                b.put_u16(column.format as u16);
            }
        });
    }

    pub(super) fn copy_in(&mut self, columns: usize) {
        self.message(b'G', |b| put_copy_formats(b, columns));
    }

    pub(super) fn copy_out(&mut self, columns: usize) {
        self.message(b'H', |b| put_copy_formats(b, columns));
    }

    pub(super) fn copy_data(&mut self, data: &[u8]) {
        self.message(b'd', |b| b.put_slice(data));
    }

    pub(super) fn copy_done(&mut self) {
        self.message(b'c', |_| {});
    }
}

const READY_BYTES: usize = 8 * 1024;

/// Lays out a message: its type, its length including itself, its body.
pub(super) fn frame(buffer: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    buffer.put_u8(kind);
    let start = buffer.len();
    buffer.put_i32(0);
    body(buffer);
    let length = (buffer.len() - start) as i32;
    buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A zero byte cannot be sent within a string; what follows one is left out.
fn put_string(buffer: &mut BytesMut, text: &str) {
    let end = text.find('\0').unwrap_or(text.len());
    buffer.put_slice(&text.as_bytes()[..end]);
    buffer.put_u8(0);
}

fn put_fields(buffer: &mut BytesMut, severity: &str, error: &SqlError) {
    let mut field = |kind: u8, text: &str| {
        buffer.put_u8(kind);
        put_string(buffer, text);
    };
    field(b'S', severity);
    field(b'V', severity);
    field(b'C', error.state.code());
    field(b'M', &error.message);
    if let Some(detail) = &error.detail {
        field(b'D', detail);
    }
    if let Some(hint) = &error.hint {
        field(b'H', hint);
    }
    if let Some(position) = error.position {
        field(b'P', &position.to_string());
    }
    buffer.put_u8(0);
}

/// Text for the whole and for each column: binary COPY is not built.
fn put_copy_formats(buffer: &mut BytesMut, columns: usize) {
    buffer.put_u8(0);
    buffer.put_u16(columns as u16);
    (0..columns).for_each(|_| buffer.put_u16(0));
}

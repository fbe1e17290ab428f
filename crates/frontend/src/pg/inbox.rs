//! The reading side of a connection.

use super::ConnectionError;
use super::message::{Message, decode, missing};
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

/// How much is read ahead of a running statement, only to notice that the client went away.
const READ_AHEAD_BYTES: usize = 64 * 1024;
const READ_BYTES: usize = 8 * 1024;
/// Reserved at once for a long message; more only as its bytes come, so that a length alone costs no memory.
const RESERVE_BYTES: usize = 1024 * 1024;

/// Bytes from the client, cut into messages. All waiting is cancel-safe: no byte is lost when a future is dropped.
pub(super) struct Inbox {
    reader: OwnedReadHalf,
    buffer: BytesMut,
    peeked: Option<Message>,
}

impl Inbox {
    pub(super) fn new(reader: OwnedReadHalf, buffer: BytesMut) -> Self {
        Self {
            reader,
            buffer,
            peeked: None,
        }
    }

    /// The next message; waits for it.
    pub(super) async fn next(&mut self) -> Result<Message, ConnectionError> {
        if let Some(message) = self.peeked.take() {
            return Ok(message);
        }
        loop {
            if let Some(message) = decode(&mut self.buffer).map_err(ConnectionError::Fatal)? {
                return Ok(message);
            }
            let more = missing(&self.buffer).clamp(READ_BYTES, RESERVE_BYTES);
            self.buffer.reserve(more);
            self.read().await?;
        }
    }

    /// Looks at the next message without taking it.
    pub(super) async fn peek(&mut self) -> Result<&Message, ConnectionError> {
        if self.peeked.is_none() {
            let message = self.next().await?;
            self.peeked = Some(message);
        }
        Ok(self.peeked.as_ref().expect("filled above"))
    }

    /// Ends only when the connection does. For use beside a running statement: what the client sends meanwhile is kept,
    /// up to a bound behind which it has to wait.
    pub(super) async fn lost(&mut self) -> ConnectionError {
        loop {
            if self.buffer.len() >= READ_AHEAD_BYTES {
                std::future::pending::<()>().await;
            }
            self.buffer.reserve(READ_BYTES);
            if let Err(error) = self.read().await {
                return error;
            }
        }
    }

    async fn read(&mut self) -> Result<(), ConnectionError> {
        match self.reader.read_buf(&mut self.buffer).await {
            Ok(0) => Err(ConnectionError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(ConnectionError::Io(error)),
        }
    }
}

//! What a statement leads to, sent to the client: rows as they come, a command tag, or `COPY` data.

use super::connection::{Connection, watched};
use super::inbox::Inbox;
use super::rows::RowWriter;
use super::types::Column;
use super::{ConnectionError, Failure};
use arrow::array::RecordBatch;
use futures::{FutureExt, StreamExt};
use tidegate_engine::api::{CancelReason, CancelToken, Response, RowStream, RowsTag};
use tidegate_types::SqlError;

/// How many rows are wanted now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit(pub usize);

impl Limit {
    pub(super) const ALL: Limit = Limit(usize::MAX);
}

/// A result that is not sent to its end.
pub(super) struct Rows {
    pub stream: RowStream,
    pub tag: RowsTag,
    /// A batch of which rows are left, from this one on.
    pub rest: Option<(RecordBatch, usize)>,
}

/// Where a response stands after it was sent, or a part of it.
pub(super) enum Sent {
    Complete,
    /// Rows may be left.
    Suspended(Rows),
}

impl Connection<'_> {
    /// Sends a response up to its `CommandComplete`; a description of its rows was sent before, or was not wanted.
    pub(super) async fn respond(
        &mut self,
        response: Response,
        columns: &[Column],
        limit: Limit,
    ) -> Result<Sent, Failure> {
        match response {
            Response::Rows { stream, tag, .. } => {
                return self
                    .send_rows(
                        Rows {
                            stream,
                            tag,
                            rest: None,
                        },
                        columns,
                        limit,
                    )
                    .await;
            }
            Response::Command { tag } => {
                self.send_asides();
                self.outbox.command_complete(&tag);
            }
            Response::Empty => self.outbox.empty_query(),
            Response::CopyIn(copy) => self.copy_in(copy).await?,
            Response::CopyOut {
                schema,
                stream,
                options,
            } => self.copy_out(&schema, stream, &options).await?,
        }
        Ok(Sent::Complete)
    }

    pub(super) async fn send_rows(
        &mut self,
        mut rows: Rows,
        columns: &[Column],
        limit: Limit,
    ) -> Result<Sent, Failure> {
        let mut sent = 0usize;
        loop {
            let (batch, start) = match rows.rest.take() {
                Some(rest) => rest,
                None => match self.next_batch(&mut rows.stream).await? {
                    Some(batch) => (batch, 0),
                    None => break,
                },
            };
            let end = batch.num_rows().min(start.saturating_add(limit.0 - sent));
            self.send_batch(&batch, start..end, columns).await?;
            sent += end - start;
            if end < batch.num_rows() {
                rows.rest = Some((batch, end));
            }
            if sent == limit.0 {
                self.metrics.rows(sent as u64);
                self.send_asides();
                self.outbox.portal_suspended();
                return Ok(Sent::Suspended(rows));
            }
        }
        self.metrics.rows(sent as u64);
        self.send_asides();
        self.outbox
            .command_complete(&rows.tag.complete(sent as u64));
        Ok(Sent::Complete)
    }

    async fn send_batch(
        &mut self,
        batch: &RecordBatch,
        rows: std::ops::Range<usize>,
        columns: &[Column],
    ) -> Result<(), Failure> {
        let mut writer = RowWriter::new(batch, columns)?;
        for row in rows {
            writer.write(row, self.outbox.buffer())?;
            if self.outbox.is_full() {
                self.flush_watched().await?;
            }
        }
        Ok(())
    }

    /// The next batch of a stream. What is in the outbox is sent first if the stream has to be waited for, so that rows of
    /// a stream without end arrive when they are there.
    pub(super) async fn next_batch(
        &mut self,
        stream: &mut RowStream,
    ) -> Result<Option<RecordBatch>, Failure> {
        let mut next = stream.next();
        let ready = match (&mut next).now_or_never() {
            Some(ready) => ready,
            None => {
                if !self.outbox.is_empty() {
                    // The session's own news should not wait for the next row either.
                    self.flush_watched().await?;
                }
                let Connection { inbox, token, .. } = self;
                return next_or_end(inbox, token, async { next.await.transpose() }).await;
            }
        };
        let batch = ready.transpose()?;
        // A subscription answers its cancellation with its end; whatever still has rows is cut off.
        if batch.is_some() {
            self.token.check()?;
        }
        Ok(batch)
    }

    /// Sends what is there. A client that does not read holds the statement up, but not its cancellation.
    pub(super) async fn flush_watched(&mut self) -> Result<(), Failure> {
        let Connection { outbox, token, .. } = self;
        let mut flush = std::pin::pin!(outbox.flush());
        let reason = tokio::select! {
            biased;
            flushed = &mut flush => return Ok(flushed?),
            reason = token.cancelled() => reason,
        };
        match reason {
            // Half a message may be out: nothing more can be said on this connection.
            CancelReason::Shutdown | CancelReason::ConnectionLost => {
                Err(Failure::Connection(ConnectionError::Closed))
            }
            // The client reads on until it finds the error.
            CancelReason::UserRequest | CancelReason::StatementTimeout => Ok(flush.await?),
        }
    }
}

/// As [`watched`], and cancelled at once: dropping a stream is how it ends. The stream goes first, in case it has something
/// to say about its cancellation.
async fn next_or_end<T>(
    inbox: &mut Inbox,
    token: &CancelToken,
    next: impl Future<Output = Result<T, SqlError>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        next = watched(inbox, token, next) => next,
        reason = token.cancelled() => Err(Failure::Statement(reason.error())),
    }
}

//! `COPY … FROM STDIN` and `COPY … TO STDOUT`: the client's bytes to batches for the session, and batches to bytes.

mod read;
mod write;

use super::connection::{Connection, watched};
use super::inbox::Inbox;
use super::message::{Message, violation};
use super::{ConnectionError, Failure};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use futures::{StreamExt, stream};
use read::CopyReader;
use std::time::Duration;
use tidegate_engine::api::{CancelReason, CancelToken, CopyIn, CopyOptions, RowStream};
use tidegate_types::{SqlError, SqlState};
use tokio::sync::mpsc;
use write::CopyWriter;

/// Batches on their way to the session; with more the client has to wait.
const BATCHES_AHEAD: usize = 2;
/// How long the session may take to undo a copy whose client is gone.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

type BatchSender = mpsc::Sender<Result<RecordBatch, SqlError>>;

impl Connection<'_> {
    pub(super) async fn copy_in(&mut self, copy: CopyIn) -> Result<(), Failure> {
        self.send_asides();
        self.outbox.copy_in(copy.schema.fields().len());
        self.outbox.flush().await?;
        let (sender, mut receiver) = mpsc::channel(BATCHES_AHEAD);
        let rows = stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed();
        let reader = CopyReader::new(&copy.schema, copy.options.clone());
        let count = self.run_copy_in(copy, rows, reader, sender).await?;
        self.send_asides();
        self.outbox.command_complete(&format!("COPY {count}"));
        Ok(())
    }

    async fn run_copy_in(
        &mut self,
        copy: CopyIn,
        rows: RowStream,
        reader: CopyReader,
        sender: BatchSender,
    ) -> Result<u64, Failure> {
        let Connection {
            inbox,
            session,
            token,
            ..
        } = self;
        let mut work = std::pin::pin!(session.copy_in(copy, rows));
        let fed = tokio::select! {
            biased;
            // Before all rows were read: it failed, or wants no more.
            done = &mut work => Ok(Some(done)),
            fed = feed(inbox, token, reader, sender) => fed.map(|()| None),
        };
        match fed {
            Ok(Some(done)) => Ok(done?),
            Ok(None) => watched(inbox, token, work).await,
            Err(lost) => {
                let _ = tokio::time::timeout(UNDO_TIMEOUT, work).await;
                Err(Failure::Connection(lost))
            }
        }
    }

    pub(super) async fn copy_out(
        &mut self,
        schema: &Schema,
        mut rows: RowStream,
        options: &CopyOptions,
    ) -> Result<(), Failure> {
        self.outbox.copy_out(schema.fields().len());
        let mut writer = CopyWriter::new(schema, options);
        if let Some(header) = writer.header() {
            self.outbox.copy_data(header.as_bytes());
        }
        let mut count = 0;
        while let Some(batch) = self.next_batch(&mut rows).await? {
            let columns = writer.columns(&batch)?;
            for row in 0..batch.num_rows() {
                self.outbox.copy_data(writer.line(&columns, row).as_bytes());
                if self.outbox.is_full() {
                    self.flush_watched().await?;
                }
            }
            count += batch.num_rows();
        }
        self.outbox.copy_done();
        self.send_asides();
        self.outbox.command_complete(&format!("COPY {count}"));
        Ok(())
    }
}

/// Reads the client's data up to its end, and hands batches on. What is wrong with the data goes the same way, so that the
/// session undoes the statement with it; only the loss of the connection is returned.
async fn feed(
    inbox: &mut Inbox,
    token: &CancelToken,
    mut reader: CopyReader,
    sender: BatchSender,
) -> Result<(), ConnectionError> {
    loop {
        let message = tokio::select! {
            biased;
            reason = token.cancelled() => {
                let _ = sender.send(Err(reason.error())).await;
                return Ok(());
            }
            message = inbox.next() => message,
        };
        let (data, last) = match message {
            Ok(Message::CopyData(data)) => (Ok(data), false),
            Ok(Message::CopyDone) => (Ok(Default::default()), true),
            Ok(Message::CopyFail(reason)) => (
                Err(SqlError::new(
                    SqlState::QUERY_CANCELED,
                    format!("COPY from stdin failed: {reason}"),
                )),
                true,
            ),
            Ok(Message::Flush | Message::Sync) => continue,
            Ok(Message::Terminate) | Err(_) => {
                token.cancel(CancelReason::ConnectionLost);
                let _ = sender.send(Err(CancelReason::ConnectionLost.error())).await;
                return Err(message.err().unwrap_or(ConnectionError::Closed));
            }
            Ok(_) => (
                Err(violation("unexpected message type during COPY from stdin")),
                true,
            ),
        };
        let read = data
            .and_then(|data| reader.push(&data))
            .and_then(|()| if last { reader.finish() } else { Ok(()) });
        let batches: Vec<_> = match read {
            Ok(()) => reader.take_batches().into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        let failed = batches.iter().any(Result::is_err);
        for batch in batches {
            // A session that takes no more has its own reason, which it tells.
            if sender.send(batch).await.is_err() {
                return Ok(());
            }
        }
        if last || failed {
            return Ok(());
        }
    }
}

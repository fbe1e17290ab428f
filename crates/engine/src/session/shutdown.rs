//! `SHUTDOWN [WITH SAVEPOINT name [TO 'url'] [DRAIN]]`.
//!
//! Alone it stops the server as SIGTERM does, with a last checkpoint. With a savepoint that savepoint is the end: nothing
//! is written to tables after it, and sinks make nothing visible that comes after it, so that a server which begins with it
//! elsewhere goes on exactly where this one stopped. The client is told of success before its connection ends; all others
//! are told 57P01.

use super::savepoint::Wanted;
use super::{Session, command};
use crate::api::Response;
use crate::database::Database;
use std::sync::Arc;
use std::time::Duration;
use tidegate_parser::Savepoint;
use tidegate_types::SqlError;

/// How often sources are asked whether they are at their end.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// The workers have stopped, to be started again unless this is the end.
struct Stopped {
    database: Arc<Database>,
    for_good: bool,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if !self.for_good {
            let database = self.database.clone();
            tokio::spawn(async move {
                if let Err(error) = database.start_again().await {
                    tracing::error!("the workers could not be started again: {error}");
                }
            });
        }
    }
}

impl Session {
    pub(super) async fn shutdown(
        &mut self,
        savepoint: Option<&Savepoint>,
        drain: bool,
    ) -> Result<Response, SqlError> {
        self.outside_transaction("SHUTDOWN")?;
        if let Some(savepoint) = savepoint {
            // What is wrong with it shows before a wait that may be long.
            let wanted = self.wanted(savepoint)?;
            if drain {
                self.drain().await?;
            }
            self.end_with(&wanted).await?;
        }
        self.stops_server = true;
        Ok(command("SHUTDOWN"))
    }

    /// Waits until bounded sources are at their end and everything that was received has been processed.
    async fn drain(&mut self) -> Result<(), SqlError> {
        let runtime = self.database.runtime()?;
        loop {
            let is_done = runtime.unfinished_sources().await?.is_empty();
            runtime.flush().await?;
            if is_done && runtime.status().jobs.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
    }

    /// The savepoint is made of the last checkpoint there is: one after it might make a sink's output visible.
    async fn end_with(&mut self, wanted: &Wanted) -> Result<(), SqlError> {
        let database = self.database.clone();
        let _ddl = database.ddl.lock().await;
        // What was acknowledged before is in the savepoint, and nothing is after it.
        let _turn = database.sequencer.turn().await;
        let mut stopped = Stopped {
            database: database.clone(),
            for_good: false,
        };
        let saved = match database.stop_workers().await {
            Ok(last) => self.save(wanted, &last).await,
            Err(error) => Err(error),
        };
        if let Err(error) = saved {
            database.start_again().await?;
            return Err(error);
        }
        stopped.for_good = true;
        database.end_here();
        Ok(())
    }
}

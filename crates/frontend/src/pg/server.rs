//! Accepting connections, within a limit, until told to stop.

use super::ConnectionError;
use super::connection::Connection;
use super::outbox::Outbox;
use super::registry::Registry;
use super::startup::{Opening, begin};
use crate::metrics::FrontendMetrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::api::{CancelReason, DatabaseApi};
use tidegate_types::{SqlError, SqlState};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{Instrument, debug, info_span, warn};

/// How long a client may take to say who it is.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long sessions may take to end their statements when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Before the next try when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct PgConfig {
    /// Sessions at a time; one more is refused with 53300.
    pub max_connections: usize,
}

impl Default for PgConfig {
    fn default() -> Self {
        Self {
            max_connections: 1_000,
        }
    }
}

/// Serves the wire protocol from one database on any number of listeners.
pub struct PgServer {
    shared: Arc<Shared>,
}

/// What all connections have in common.
pub(super) struct Shared {
    pub database: Arc<dyn DatabaseApi>,
    pub metrics: Arc<FrontendMetrics>,
    pub registry: Arc<Registry>,
    permits: Arc<Semaphore>,
}

impl PgServer {
    pub fn new(
        database: Arc<dyn DatabaseApi>,
        metrics: Arc<FrontendMetrics>,
        config: PgConfig,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                database,
                metrics,
                registry: Arc::default(),
                permits: Arc::new(Semaphore::new(config.max_connections)),
            }),
        }
    }

    /// Accepts until `stop` becomes true, then ends all sessions: idle ones at once, statements by cancelling them.
    pub async fn serve(&self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped(&mut stop) => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        warn!(%error, "a connection ended by a panic");
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    let span = info_span!("connection", %peer);
                    connections.spawn(
                        serve_one(self.shared.clone(), stream, peer, stop.clone()).instrument(span),
                    );
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        self.shared.registry.cancel_all(CancelReason::Shutdown);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            warn!(
                open = connections.len(),
                "sessions did not end in time and are cut off"
            );
            connections.shutdown().await;
        }
    }
}

/// Ends when the server stops (or its owner is gone).
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can stop us in an orderly way any more.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve_one(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are short and waited for: they must not be held back.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let mut outbox = Outbox::new(writer);
    let opening = tokio::select! {
        opening = tokio::time::timeout(STARTUP_TIMEOUT, begin(reader, &mut outbox)) => opening,
        _ = stopped(&mut stop) => return,
    };
    let result = match opening {
        Err(_) => Err(ConnectionError::Closed),
        Ok(Err(error)) => Err(error),
        Ok(Ok(Opening::Cancel { pid, secret })) => {
            shared.registry.cancel(pid, secret);
            return;
        }
        Ok(Ok(Opening::Session(opened))) => match shared.permits.clone().try_acquire_owned() {
            Err(_) => Err(ConnectionError::Fatal(SqlError::new(
                SqlState::TOO_MANY_CONNECTIONS,
                "sorry, too many clients already",
            ))),
            Ok(_permit) => {
                let _open = shared.metrics.connection();
                let (inbox, startup) = *opened;
                Connection::run(&shared, inbox, &mut outbox, startup, peer, stop).await
            }
        },
    };
    match result {
        Ok(()) | Err(ConnectionError::Closed) => {}
        Err(ConnectionError::Io(error)) => debug!(%error, "connection lost"),
        Err(ConnectionError::Fatal(error)) => {
            debug!(%error, "connection refused or ended");
            outbox.fatal(&error);
        }
    }
    outbox.close().await;
}

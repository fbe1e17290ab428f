//! The Postgres wire protocol, version 3.
//!
//! A connection's way through the files:
//!
//! 1. [`server`] accepts it, within a limit, and gives it a task.
//! 2. [`startup`]: encryption is declined, a cancel request is passed on through the [`registry`], or a session opens.
//! 3. [`connection`]: one message after the other until the client leaves. [`simple`] runs a `Query`; [`extended`] keeps
//!    prepared statements and portals; [`respond`] sends what a statement leads to; [`copy`] moves `COPY` data.
//!
//! Under these, [`inbox`] and [`outbox`] turn bytes into messages and back, [`message`] reads what a client says,
//! [`types`], [`rows`] and [`binary`] write values. OIDs come from the crate `pgwire`. Its server traits are not used:
//! they leave no room for suspending a portal over a stream, for watching the socket while a statement runs, or for rows
//! encoded in place; nor are its decoders, for the reason in [`message`].
//!
//! Promises: memory per connection is bounded whatever is sent or selected (rows wait until the client takes them); while
//! a statement runs, a closed connection or a cancel request ends it; a panic in one connection ends that one alone.
//! There is no authentication yet: every user is let in, which is why the server listens on loopback only.

mod binary;
mod connection;
mod copy;
mod extended;
mod inbox;
mod message;
mod outbox;
mod registry;
mod respond;
mod rows;
mod server;
mod simple;
mod startup;
mod types;

#[cfg(test)]
mod tests;

pub use server::{PgConfig, PgServer};

use tidegate_types::SqlError;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    /// The client left, with or without saying so.
    #[error("connection closed")]
    Closed,
    #[error("{0}")]
    Io(std::io::Error),
    /// Said to the client as its last message.
    #[error("{0}")]
    Fatal(SqlError),
}

/// Why a statement ends early: by an error of its own, after which the connection goes on, or with the connection.
#[derive(Debug)]
enum Failure {
    Statement(SqlError),
    Connection(ConnectionError),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Failure::Statement(error)
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Failure::Connection(error)
    }
}

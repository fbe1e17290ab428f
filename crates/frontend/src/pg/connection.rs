//! An open session: one message after the other, and what every statement needs while it runs.

use super::extended::Extended;
use super::inbox::Inbox;
use super::message::Message;
use super::outbox::Outbox;
use super::registry::Registered;
use super::server::{Shared, stopped};
use super::startup::Startup;
use super::{ConnectionError, Failure};
use crate::VERSION;
use crate::metrics::FrontendMetrics;
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_engine::api::{CancelReason, CancelToken, SessionApi};
use tidegate_types::SqlError;
use tokio::sync::watch;

/// How long a statement may go on after its client left, before its work is dropped.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Connection<'a> {
    pub inbox: Inbox,
    pub outbox: &'a mut Outbox,
    pub session: Box<dyn SessionApi>,
    pub token: CancelToken,
    pub metrics: &'a FrontendMetrics,
    pub extended: Extended,
    stop: watch::Receiver<bool>,
    _registered: Registered,
}

impl<'a> Connection<'a> {
    /// Opens the session and serves it until its end.
    pub(super) async fn run(
        shared: &'a Shared,
        inbox: Inbox,
        outbox: &'a mut Outbox,
        startup: Startup,
        peer: SocketAddr,
        stop: watch::Receiver<bool>,
    ) -> Result<(), ConnectionError> {
        let mut startup = startup.with_peer(peer);
        let registered = shared.registry.register(CancelToken::new());
        startup.options.backend_pid = registered.pid;
        let user = startup.options.user.clone();
        let session = shared
            .database
            .clone()
            .open_session(startup.options)
            .map_err(ConnectionError::Fatal)?;
        let token = session.cancel_token();
        registered.set_token(token.clone());
        if let Some(unknown) = &startup.negotiate {
            outbox.negotiate_version(unknown);
        }
        outbox.authentication_ok();
        let (pid, secret) = (registered.pid, registered.secret);
        let mut connection = Self {
            inbox,
            outbox,
            session,
            token,
            metrics: &shared.metrics,
            extended: Extended::default(),
            stop,
            _registered: registered,
        };
        connection.first_parameters(&user);
        connection.outbox.backend_key(pid, secret);
        connection.end_of_cycle().await?;
        connection.serve().await
    }

    async fn serve(&mut self) -> Result<(), ConnectionError> {
        loop {
            let message = tokio::select! {
                biased;
                _ = stopped(&mut self.stop) => return Err(ConnectionError::Fatal(CancelReason::Shutdown.error())),
                message = self.inbox.next() => message?,
            };
            match message {
                Message::Terminate => return Ok(()),
                Message::Query(sql) => self.simple_query(&sql).await?,
                Message::Malformed {
                    error,
                    extended: false,
                } => {
                    self.statement_failed(&error).await?;
                    self.end_of_cycle().await?;
                }
                // What is left of a COPY that failed.
                Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => {}
                extended => self.extended_message(extended).await?,
            }
        }
    }

    /// What every client expects to be told, overlaid by what the session knows better.
    fn first_parameters(&mut self, user: &str) {
        let version = format!("15.0 (Tidegate {VERSION})");
        let fixed = [
            ("server_version", version.as_str()),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("application_name", ""),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
            ("default_transaction_read_only", "off"),
            ("in_hot_standby", "off"),
            ("is_superuser", "on"),
            ("session_authorization", user),
        ];
        let mut own = self.session.take_parameter_changes();
        // Clients show it to people, who should see what they are connected to.
        own.retain(|(name, _)| name != "server_version");
        for (name, value) in fixed {
            let known = own.iter().position(|(n, _)| n.eq_ignore_ascii_case(name));
            let value = known.map_or(value.to_owned(), |at| own.remove(at).1);
            self.outbox.parameter_status(name, &value);
        }
        for (name, value) in own {
            self.outbox.parameter_status(&name, &value);
        }
    }

    /// Notices and changed settings, which come before the end of the statement that caused them.
    pub(super) fn send_asides(&mut self) {
        for name in self.session.take_deallocated() {
            self.extended.forget(&name);
        }
        for notice in self.session.take_notices() {
            self.outbox.notice(&notice);
        }
        for (name, value) in self.session.take_parameter_changes() {
            self.outbox.parameter_status(&name, &value);
        }
    }

    /// `ReadyForQuery`, and everything sent.
    pub(super) async fn end_of_cycle(&mut self) -> Result<(), ConnectionError> {
        self.outbox.ready(self.session.transaction_status());
        self.outbox.flush().await
    }

    /// Tells an error; an open transaction block is failed by it.
    pub(super) async fn statement_failed(
        &mut self,
        error: &SqlError,
    ) -> Result<(), ConnectionError> {
        self.session.fail_transaction();
        self.send_asides();
        self.metrics.statement_failed();
        self.outbox.error(error);
        // Large results may be in the buffer; the error should not wait behind nothing.
        if self.outbox.is_full() {
            self.outbox.flush().await?;
        }
        Ok(())
    }
}

/// Does a statement's work while watching the connection: when the client leaves, the statement is cancelled, and given
/// some time to end in order.
pub(super) async fn watched<T>(
    inbox: &mut Inbox,
    token: &CancelToken,
    work: impl Future<Output = Result<T, SqlError>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => Ok(done?),
        lost = inbox.lost() => {
            token.cancel(CancelReason::ConnectionLost);
            // Whatever comes of it, there is nobody to tell.
            let _ = tokio::time::timeout(ABANDON_TIMEOUT, work).await;
            Err(Failure::Connection(lost))
        }
    }
}

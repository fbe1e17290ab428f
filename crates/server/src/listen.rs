//! Binding addresses, loopback ones only: there is no authentication yet, so whoever can connect may do everything.

use std::net::SocketAddr;
use tidegate_types::{SqlError, SqlState};
use tokio::net::{TcpListener, lookup_host};

/// Binds the setting `name`, given as `HOST:PORT`.
pub async fn bind(name: &str, address: &str) -> Result<TcpListener, SqlError> {
    let cannot = |state: SqlState, why: &dyn std::fmt::Display| {
        SqlError::new(
            state,
            format!("cannot listen on \"{address}\" ({name}): {why}"),
        )
    };
    let found: Vec<SocketAddr> = lookup_host(address)
        .await
        .map_err(|e| {
            cannot(SqlState::INVALID_PARAMETER_VALUE, &e)
                .with_hint("An address is given as HOST:PORT, as in 127.0.0.1:7432.")
        })?
        .collect();
    if let Some(open) = found.iter().find(|a| !a.ip().is_loopback()) {
        let why = format!(
            "{} can be reached from other machines, and there is no authentication yet",
            open.ip()
        );
        return Err(cannot(SqlState::FEATURE_NOT_SUPPORTED, &why)
            .with_hint("Listen on 127.0.0.1 or ::1, and let others in by an SSH tunnel or a proxy that authenticates them."));
    }
    let bound = TcpListener::bind(found.as_slice()).await;
    bound.map_err(|e| {
        let error = cannot(SqlState::IO_ERROR, &e);
        match e.kind() {
            std::io::ErrorKind::AddrInUse => error.with_hint(format!(
                "Is another server running? Choose another port with --set {name}=HOST:PORT."
            )),
            _ => error,
        }
    })
}

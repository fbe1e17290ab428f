//! The running server: listeners first, then the database behind them, until a signal comes.
//!
//! Listening begins before recovery, so that clients are told to wait (57P03) rather than refused, `/readyz` answers, and
//! a port in use is found before the database is touched.

use crate::Failure;
use crate::allocators;
use crate::listen::bind;
use crate::settings::Options;
use anyhow::Context;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tidegate_engine::Database;
use tidegate_engine::api::{DatabaseApi, SessionApi, SessionOptions};
use tidegate_frontend::metrics::FrontendMetrics;
use tidegate_frontend::pg::{PgConfig, PgServer};
use tidegate_frontend::{VERSION, http};
use tidegate_types::{SqlError, SqlState};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

pub fn run(options: Options) -> Result<(), Failure> {
    allocators::suit(options.config.settings.bytes("memory_limit"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tidegate-io")
        .build()
        .context("cannot start the threads of the server")?;
    let result = runtime.block_on(serve(options));
    // What still runs belongs to clients that are gone.
    runtime.shutdown_background();
    result
}

/// The database once it is open; until then every session is told to wait.
#[derive(Default)]
struct Gate {
    database: OnceLock<Arc<Database>>,
}

impl Gate {
    fn open(&self) -> Result<&Arc<Database>, SqlError> {
        self.database.get().ok_or_else(|| {
            SqlError::new(
                SqlState::CANNOT_CONNECT_NOW,
                "the database system is starting up",
            )
        })
    }
}

impl DatabaseApi for Gate {
    fn open_session(
        self: Arc<Self>,
        options: SessionOptions,
    ) -> Result<Box<dyn SessionApi>, SqlError> {
        DatabaseApi::open_session(self.open()?.clone(), options)
    }

    fn metrics(&self) -> String {
        self.open()
            .map(|d| DatabaseApi::metrics(d.as_ref()))
            .unwrap_or_default()
    }

    fn health(&self) -> Result<(), SqlError> {
        match self.open() {
            Ok(database) => DatabaseApi::health(database.as_ref()),
            // Recovery is healthy work.
            Err(_) => Ok(()),
        }
    }

    fn ready(&self) -> Result<(), SqlError> {
        DatabaseApi::ready(self.open()?.as_ref())
    }
}

async fn serve(options: Options) -> Result<(), Failure> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let listener = bind("listen", &options.listen)
        .await
        .map_err(address_failure)?;
    let http_listener = match &options.http_listen {
        Some(address) => Some(
            bind("http_listen", address)
                .await
                .map_err(address_failure)?,
        ),
        None => None,
    };
    let address = local(&listener)?;
    let http_address = http_listener.as_ref().map(local).transpose()?;

    let gate = Arc::new(Gate::default());
    let metrics = Arc::new(FrontendMetrics::default());
    let (stop, stopped) = watch::channel(false);
    let (stop_http, http_stopped) = watch::channel(false);
    let pg = PgServer::new(
        gate.clone(),
        metrics.clone(),
        PgConfig {
            max_connections: options.max_connections,
        },
    );
    let pg = tokio::spawn(async move { pg.serve(listener, stopped).await });
    let http =
        http_listener.map(|l| tokio::spawn(http::serve(l, gate.clone(), metrics, http_stopped)));

    let data_dir = options.config.data_dir.clone();
    info!(version = VERSION, data_dir = %data_dir.display(), workers = options.config.workers(), "opening the database");
    let database = tokio::select! {
        opened = Database::open(options.config) => opened.map_err(|e| Failure::Runtime(e.into()))?,
        name = signals.next() => {
            info!(signal = name, "stopped before the database was open");
            return Ok(());
        }
    };
    // Only this place fills the gate.
    let _ = gate.database.set(database.clone());
    say_ready(address, http_address, &data_dir.display().to_string());

    tokio::select! {
        name = signals.next() => info!(signal = name, "stopping; a second signal stops at once"),
        () = database.stop_requested() => info!("stopping, as SHUTDOWN asked; a signal stops at once"),
    }
    tokio::spawn(exit_on_next(signals));
    let _ = stop.send(true);
    if let Err(error) = pg.await {
        warn!(%error, "the wire protocol ended by a panic");
    }
    let result = database.shutdown().await;
    let _ = stop_http.send(true);
    drop(http);
    result.map_err(|e| Failure::Runtime(anyhow::Error::from(e)))?;
    info!("stopped");
    Ok(())
}

/// A wrong address is a wrong setting; one that is in use is not.
fn address_failure(error: SqlError) -> Failure {
    match error.state == SqlState::IO_ERROR {
        true => Failure::Runtime(error.into()),
        false => Failure::Usage(error),
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    Ok(listener
        .local_addr()
        .context("cannot find out the address that was bound")?)
}

/// One line on stdout, for people and for whoever waits for it.
fn say_ready(address: SocketAddr, http: Option<SocketAddr>, data_dir: &str) {
    let (host, port) = (address.ip(), address.port());
    let http = http.map_or(String::new(), |a| format!(", http://{a}/metrics"));
    let line = format!(
        "Tidegate {VERSION} is ready: psql -h {host} -p {port} -d tidegate (data in {data_dir}{http})\n"
    );
    let mut stdout = std::io::stdout();
    // A closed stdout does not keep the server from serving.
    let _ = stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush());
    info!(%address, "ready");
}

/// The signals that stop the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Whoever signals twice means it: what is durable stays durable, and the next start replays the log.
async fn exit_on_next(mut signals: Signals) {
    let name = signals.next().await;
    warn!(signal = name, "stopping at once");
    std::process::exit(if name == "SIGTERM" {
        128 + libc::SIGTERM
    } else {
        128 + libc::SIGINT
    });
}

//! HTTP beside the wire protocol: `GET /healthz`, `GET /readyz`, `GET /metrics`.
//!
//! `/healthz` is 200 while the process can do its work, `/readyz` once it serves statements; else 503 with the reason.
//! `/metrics` is Prometheus text of engine and frontend.

use crate::metrics::FrontendMetrics;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use tidegate_engine::api::DatabaseApi;
use tidegate_types::SqlError;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The last line of OpenMetrics text.
const END: &str = "# EOF\n";

#[derive(Clone)]
struct Shared {
    database: Arc<dyn DatabaseApi>,
    metrics: Arc<FrontendMetrics>,
}

/// Serves until `stop` becomes true.
pub async fn serve(
    listener: TcpListener,
    database: Arc<dyn DatabaseApi>,
    metrics: Arc<FrontendMetrics>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router(database, metrics)).with_graceful_shutdown(stopped).await
}

fn router(database: Arc<dyn DatabaseApi>, metrics: Arc<FrontendMetrics>) -> Router {
    Router::new()
        .route("/healthz", get(async |State(s): State<Shared>| verdict(s.database.health())))
        .route("/readyz", get(async |State(s): State<Shared>| verdict(s.database.ready())))
        .route("/metrics", get(async |State(s): State<Shared>| exposition(&s)))
        .with_state(Shared { database, metrics })
}

fn verdict(result: Result<(), SqlError>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}: {error}\n", error.state)).into_response(),
    }
}

fn exposition(shared: &Shared) -> Response {
    let engine = shared.database.metrics();
    let mut text = engine.strip_suffix(END).unwrap_or(&engine).to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&shared.metrics.text());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

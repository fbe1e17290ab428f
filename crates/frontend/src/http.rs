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
    axum::serve(listener, router(database, metrics))
        .with_graceful_shutdown(stopped)
        .await
}

fn router(database: Arc<dyn DatabaseApi>, metrics: Arc<FrontendMetrics>) -> Router {
    Router::new()
        .route(
            "/healthz",
            get(async |State(s): State<Shared>| verdict(s.database.health())),
        )
        .route(
            "/readyz",
            get(async |State(s): State<Shared>| verdict(s.database.ready())),
        )
        .route(
            "/metrics",
            get(async |State(s): State<Shared>| exposition(&s)),
        )
        .with_state(Shared { database, metrics })
}

fn verdict(result: Result<(), SqlError>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}: {error}\n", error.state),
        )
            .into_response(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tidegate_engine::api::{SessionApi, SessionOptions};
    use tidegate_types::SqlState;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    struct Starting;

    impl DatabaseApi for Starting {
        fn open_session(
            self: Arc<Self>,
            _: SessionOptions,
        ) -> Result<Box<dyn SessionApi>, SqlError> {
            self.ready().map(|()| unreachable!("it is never ready"))
        }

        fn metrics(&self) -> String {
            "# TYPE engine gauge\nengine 1\n# EOF\n".into()
        }

        fn health(&self) -> Result<(), SqlError> {
            Ok(())
        }

        fn ready(&self) -> Result<(), SqlError> {
            Err(SqlError::new(
                SqlState::CANNOT_CONNECT_NOW,
                "the database system is starting up",
            ))
        }
    }

    #[tokio::test]
    async fn health_readiness_and_metrics_are_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, Arc::new(Starting), Arc::default(), stopped));
        let get = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
        let ready = get("/readyz").await;
        assert!(
            ready.starts_with("HTTP/1.1 503")
                && ready.contains("57P03: the database system is starting up")
        );
        let metrics = get("/metrics").await;
        assert!(
            metrics.contains("engine 1\n") && metrics.contains("tidegate_frontend_connections 0\n")
        );
        assert_eq!(metrics.matches("# EOF").count(), 1);
        assert!(get("/else").await.starts_with("HTTP/1.1 404"));
        stop.send(true).unwrap();
        serving.await.unwrap().unwrap();
    }
}

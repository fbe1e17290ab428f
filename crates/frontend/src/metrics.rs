//! What the frontend counts. The engine's own counters are beside it: see [`crate::http`].

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub struct FrontendMetrics {
    registry: Registry,
    connections: Gauge,
    connections_opened: Counter,
    statements: Counter,
    statement_errors: Counter,
    rows: Counter,
}

impl Default for FrontendMetrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            connections: Gauge::default(),
            connections_opened: Counter::default(),
            statements: Counter::default(),
            statement_errors: Counter::default(),
            rows: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "tidegate_frontend_connections",
            "Open sessions",
            metrics.connections.clone(),
        );
        registry.register(
            "tidegate_frontend_connections_opened",
            "Sessions opened since the start",
            metrics.connections_opened.clone(),
        );
        registry.register(
            "tidegate_frontend_statements",
            "Statements executed",
            metrics.statements.clone(),
        );
        registry.register(
            "tidegate_frontend_statement_errors",
            "Statements that ended with an error",
            metrics.statement_errors.clone(),
        );
        registry.register(
            "tidegate_frontend_rows",
            "Rows sent to clients",
            metrics.rows.clone(),
        );
        metrics
    }
}

impl FrontendMetrics {
    /// Prometheus text, which ends with `# EOF`.
    pub fn text(&self) -> String {
        let mut out = String::new();
        encode(&mut out, &self.registry).expect("writing to a string");
        out
    }

    pub(crate) fn connection(&self) -> OpenConnection {
        self.connections_opened.inc();
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    pub(crate) fn statement(&self) {
        self.statements.inc();
    }

    pub(crate) fn statement_failed(&self) {
        self.statement_errors.inc();
    }

    pub(crate) fn rows(&self, rows: u64) {
        self.rows.inc_by(rows);
    }
}

/// Counts as open until dropped.
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

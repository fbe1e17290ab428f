//! What clients connect to: the Postgres wire protocol ([`pg`]) and HTTP for health and metrics ([`http`]).
//!
//! Both are written against `tidegate_engine::api`, so they know no statement and no table. Nothing here listens on its
//! own: the server gives listeners and an end signal, and decides which addresses are allowed.

pub mod http;
pub mod metrics;
pub mod pg;

/// The version that clients are told, beside the version of Postgres whose behaviour they may expect.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

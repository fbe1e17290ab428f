//! The embeddable database: sessions, the lifecycle of DDL, reads, subscriptions and system tables.
//!
//! [`api`] is what everything outside sees of it.

pub mod api;

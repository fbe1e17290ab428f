//! No code: one selection of features for the third-party crates.
//!
//! Cargo unifies features over the packages that a command selects, so `cargo check -p tidegate-state` and
//! `cargo test --workspace` would otherwise build DataFusion, Arrow and tokio twice, each time a developer changes
//! commands. Every crate depends on this one, which asks for each heavy dependency with the features that the whole
//! workspace ends up with. It promises nothing else and exports nothing.

//! Where rows come from and where they go: sources, sinks and the formats between bytes and columns.
//!
//! A [`Source`] is a set of *splits*, each replayable on its own: `splits → open(split, offset) → next() → chunk`. The
//! offset after a chunk is all that has to be kept to continue behind it. A [`Sink`] makes its output visible in two
//! steps: `write → prepare(checkpoint) → commit(token)`, where the token is kept in the manifest and committing twice
//! is the same as once. [`registry`] turns the options of a statement into either.
//!
//! Reading order: [`source`], [`sink`], then `source/file.rs` with `format/` for the path of a line of JSON into a
//! column, or `source/nexmark/` for a source that computes its rows.
//!
//! Nothing here knows an epoch's meaning, a worker or a dataflow; who calls `next()` and when is the runtime's business.

pub mod error;
pub mod format;
pub mod offset;
pub mod options;
pub mod registry;
pub mod sink;
pub mod source;

#[cfg(test)]
mod testing;

pub use error::ConnectorError;
pub use format::{DecodeError, Encode, Format};
pub use offset::{Offset, SplitId};
pub use registry::{SinkRequest, schema_of, sink, source};
pub use sink::{Sink, SinkCounters, SinkWriter, Token};
pub use source::{Chunk, Next, Source, SplitReader};

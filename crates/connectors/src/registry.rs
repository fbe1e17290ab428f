//! From the options of a statement to a source or a sink.

use crate::options::unknown;
use crate::sink::blackhole::BlackholeSink;
use crate::sink::file::FileSink;
use crate::source::datagen::DatagenSource;
use crate::source::file::FileSource;
use crate::source::nexmark::{self, NexmarkSource};
use crate::{ConnectorError, Encode, Format, Sink, Source};
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::sync::Arc;

const SOURCES: &[&str] = &["nexmark", "datagen", "file"];
const SINKS: &[&str] = &["blackhole", "file"];
/// Connectors that exist elsewhere, and that people will try.
const NOT_BUILT: &[&str] = &[
    "kafka",
    "postgres-cdc",
    "mysql-cdc",
    "webhook",
    "kinesis",
    "pulsar",
    "s3",
    "jdbc",
    "iceberg",
    "delta",
    "redis",
    "nats",
    "mqtt",
];

/// A source as `CREATE SOURCE … WITH (connector = …) FORMAT …` describes it. `schema` holds the columns of the statement,
/// or those of [`schema_of`] if it has none. Nothing is opened: `splits()` is the first to look.
pub fn source(
    connector: &str,
    schema: &SchemaRef,
    options: &BTreeMap<String, String>,
    format: Option<&Format>,
) -> Result<Arc<dyn Source>, ConnectorError> {
    match connector {
        "nexmark" => {
            no_format(connector, format)?;
            Ok(Arc::new(NexmarkSource::new(schema, options)?))
        }
        "datagen" => {
            no_format(connector, format)?;
            Ok(Arc::new(DatagenSource::new(schema, options)?))
        }
        "file" => Ok(Arc::new(FileSource::new(schema, options, format)?)),
        _ => Err(unknown_connector("source", connector, SOURCES)),
    }
}

/// The columns that a source has when its statement names none; `None` where it has to name them.
pub fn schema_of(
    connector: &str,
    options: &BTreeMap<String, String>,
) -> Result<Option<SchemaRef>, ConnectorError> {
    match connector {
        "nexmark" => nexmark::schema_of(options).map(Some),
        _ => Ok(None),
    }
}

/// What `CREATE SINK` says.
#[derive(Debug, Clone, Copy)]
pub struct SinkRequest<'a> {
    /// Identifies the sink among all that may write to the same place, and over restarts. Part of file names.
    pub id: &'a str,
    pub connector: &'a str,
    pub schema: &'a SchemaRef,
    pub options: &'a BTreeMap<String, String>,
    pub format: Option<&'a Format>,
    /// The view never retracts a row.
    pub append_only: bool,
}

pub fn sink(request: &SinkRequest<'_>) -> Result<Arc<dyn Sink>, ConnectorError> {
    match request.connector {
        "blackhole" => Ok(Arc::new(BlackholeSink::new(request.options)?)),
        "file" => Ok(Arc::new(FileSink::new(request)?)),
        other => Err(unknown_connector("sink", other, SINKS)),
    }
}

/// Generators make rows, not bytes. `ENCODE JSON`, which other systems want here, is let pass.
fn no_format(connector: &str, format: Option<&Format>) -> Result<(), ConnectorError> {
    match format {
        None => Ok(()),
        Some(format) if format.encode == Encode::Json && format.options.is_empty() => Ok(()),
        Some(_) => Err(ConnectorError::invalid(format!(
            "connector \"{connector}\" has no format to choose"
        ))
        .with_hint("leave the FORMAT clause out")),
    }
}

fn unknown_connector(kind: &str, connector: &str, known: &[&str]) -> ConnectorError {
    if NOT_BUILT.contains(&connector) {
        return ConnectorError::not_supported(format!("connector \"{connector}\" as a {kind}"))
            .with_hint(format!("known connectors: {}", known.join(", ")));
    }
    unknown("connector", connector, &format!(" for a {kind}"), known)
}

#[cfg(test)]
mod tests;

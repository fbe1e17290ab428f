//! Files as a sink: a directory of JSON lines, CSV or Parquet, in which each change is exactly once.
//!
//! `WITH (connector = 'file', path = '<directory>', changelog = 'true'|'false') FORMAT PLAIN ENCODE JSON|CSV|PARQUET (…)`.
//! Each worker writes one file per checkpoint, none if there is nothing to write:
//!
//! - `write` appends to a hidden temporary file,
//! - `prepare` finishes and syncs it, and syncs the directory: it is there after a crash,
//! - `commit` renames it to `part-<checkpoint>-<worker>-<incarnation>.<ext>` and syncs the directory.
//!
//! The names are in the token. Renaming again finds nothing to do, and a file that the reader of the output has already
//! taken away is not missed. Temporary files that no committed token names are of dead writers; `recover` removes them.
//!
//! A view whose rows only ever come is written as it is. One with updates and deletes needs `changelog = 'true'`: each
//! row is followed by the column `diff`, positive where it was added, negative where removed, and how often.

use crate::ConnectorError;
use crate::format::write::DIFF_COLUMN;
use crate::format::{Encoder, EncoderFactory};
use crate::options::Options;
use crate::registry::SinkRequest;
use crate::sink::{Sink, SinkCounters, SinkWriter, Token};
use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_types::{Batch, CheckpointId, Epoch, SqlError, SqlState};

const OPTIONS: &[&str] = &["path", "changelog"];

pub struct FileSink {
    shared: Arc<Shared>,
}

/// What the writers of all workers use.
struct Shared {
    id: String,
    directory: PathBuf,
    schema: SchemaRef,
    encoders: EncoderFactory,
    changelog: bool,
    /// Tells the files of this incarnation from those of any other.
    incarnation: String,
    counters: SinkCounters,
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Piece {
    temporary: String,
    name: String,
    rows: u64,
}

impl FileSink {
    pub fn new(request: &SinkRequest<'_>) -> Result<Self, ConnectorError> {
        let options = Options::new("connector \"file\"", request.options, OPTIONS)?;
        let path = options.required("path")?;
        if path.is_empty() {
            return Err(options.wrong("path", "a directory"));
        }
        let directory = std::path::absolute(path)
            .map_err(|error| ConnectorError::io("resolve", Path::new(path), &error))?;
        let changelog = options.boolean("changelog", false)?;
        if !request.append_only && !changelog {
            return Err(ConnectorError::invalid(
                "connector \"file\" cannot take updates and deletes as they are, and this view has them",
            )
            .with_hint("set changelog = 'true' to write each change with a column \"diff\""));
        }
        if changelog && request.schema.field_with_name(DIFF_COLUMN).is_ok() {
            return Err(ConnectorError::Statement(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("a changelog adds a column \"{DIFF_COLUMN}\", but the view has one"),
            )));
        }
        let Some(format) = request.format else {
            return Err(ConnectorError::invalid("connector \"file\" needs a format")
                .with_hint("add FORMAT PLAIN ENCODE JSON, CSV or PARQUET"));
        };
        Ok(Self {
            shared: Arc::new(Shared {
                id: request.id.to_owned(),
                directory,
                schema: request.schema.clone(),
                encoders: format.encoder_factory(request.schema)?,
                changelog,
                incarnation: format!("{:08x}", rand::random::<u32>()),
                counters: SinkCounters::default(),
            }),
        })
    }
}

impl Shared {
    fn failed(&self, what: &str, name: &str, error: &io::Error) -> ConnectorError {
        ConnectorError::io(what, &self.directory.join(name), error)
    }

    /// Temporary files of this sink, of whatever incarnation, begin like this.
    fn temporary_prefix(&self) -> String {
        format!(".tidegate-{}-", self.id)
    }

    fn sync_directory(&self) -> Result<(), ConnectorError> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| self.failed("sync directory", "", &error))
    }

    fn piece(token: &Token) -> Result<Piece, ConnectorError> {
        serde_json::from_str(&token.0).map_err(|error| {
            ConnectorError::Lost(SqlError::new(
                SqlState::DATA_CORRUPTED,
                format!("a token of a file sink cannot be read: {error}"),
            ))
        })
    }

    /// Renames without syncing. True: there was something to do.
    fn publish(&self, piece: &Piece) -> Result<bool, ConnectorError> {
        let (from, to) = (
            self.directory.join(&piece.temporary),
            self.directory.join(&piece.name),
        );
        match fs::rename(&from, &to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !to.exists() {
                    // It was synced before its token existed, so somebody has taken it away since.
                    tracing::debug!(file = %to.display(), "a committed output file is no longer there");
                }
                Ok(false)
            }
            Err(error) => Err(self.failed("publish", &piece.temporary, &error)),
        }
    }

    fn remove(&self, name: &str) -> Result<(), ConnectorError> {
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(self.failed("remove", name, &error))
            }
            _ => Ok(()),
        }
    }
}

impl Sink for FileSink {
    fn recover(&self, committed: &[Token]) -> Result<(), ConnectorError> {
        let shared = &self.shared;
        fs::create_dir_all(&shared.directory)
            .map_err(|error| shared.failed("create directory", "", &error))?;
        for token in committed {
            shared.publish(&Shared::piece(token)?)?;
        }
        let prefix = shared.temporary_prefix();
        let entries = fs::read_dir(&shared.directory)
            .map_err(|error| shared.failed("read directory", "", &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| shared.failed("read directory", "", &error))?;
            let name = entry.file_name();
            if let Some(name) = name.to_str().filter(|name| name.starts_with(&prefix)) {
                tracing::info!(file = name, "removed an unfinished output file");
                shared.remove(name)?;
            }
        }
        shared.sync_directory()
    }

    fn open(&self, worker: usize) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(FileWriter {
            shared: self.shared.clone(),
            worker,
            files: 0,
            current: None,
        }))
    }

    fn commit(&self, token: &Token) -> Result<(), ConnectorError> {
        self.shared.publish(&Shared::piece(token)?)?;
        self.shared.sync_directory()
    }

    fn abort(&self, token: &Token) -> Result<(), ConnectorError> {
        self.shared.remove(&Shared::piece(token)?.temporary)
    }

    fn exactly_once(&self) -> bool {
        true
    }

    fn runs_on_worker(&self) -> bool {
        false
    }

    fn counters(&self) -> &SinkCounters {
        &self.shared.counters
    }
}

struct FileWriter {
    shared: Arc<Shared>,
    worker: usize,
    /// Temporary files made so far.
    files: u64,
    current: Option<Part>,
}

/// The file being written.
struct Part {
    temporary: String,
    encoder: Box<dyn Encoder>,
    rows: u64,
}

impl FileWriter {
    fn part(&mut self) -> Result<&mut Part, ConnectorError> {
        if self.current.is_none() {
            let shared = &self.shared;
            let prefix = shared.temporary_prefix();
            let temporary = format!(
                "{prefix}{}-{}-{}",
                shared.incarnation, self.worker, self.files
            );
            let encoder = File::create_new(shared.directory.join(&temporary))
                .and_then(|file| {
                    shared
                        .encoders
                        .create(file, &shared.schema, shared.changelog)
                })
                .map_err(|error| shared.failed("create", &temporary, &error))?;
            self.files += 1;
            self.current = Some(Part {
                temporary,
                encoder,
                rows: 0,
            });
        }
        Ok(self.current.as_mut().expect("made above"))
    }
}

impl SinkWriter for FileWriter {
    fn write(&mut self, _epoch: Epoch, batch: &Batch) -> Result<(), ConnectorError> {
        if batch.is_empty() {
            return Ok(());
        }
        let shared = self.shared.clone();
        shared.counters.count(batch);
        let repeated;
        let batch = match batch.diffs() {
            Some(_) if !shared.changelog => {
                repeated = repeat(batch)?;
                &repeated
            }
            _ => batch,
        };
        let part = self.part()?;
        part.encoder
            .write(batch.rows(), batch.diffs())
            .map_err(|error| shared.failed("write", &part.temporary, &error))?;
        part.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Option<Token>, ConnectorError> {
        let Some(part) = self.current.take() else {
            return Ok(None);
        };
        let shared = &self.shared;
        part.encoder
            .finish()
            .and_then(|file| file.sync_all())
            .map_err(|error| shared.failed("sync", &part.temporary, &error))?;
        shared.sync_directory()?;
        let piece = Piece {
            name: format!(
                "part-{checkpoint:0>12}-{:04}-{}.{}",
                self.worker,
                shared.incarnation,
                shared.encoders.extension(),
                checkpoint = checkpoint.0,
            ),
            temporary: part.temporary,
            rows: part.rows,
        };
        let text = serde_json::to_string(&piece).expect("names and numbers serialise");
        Ok(Some(Token(text)))
    }
}

/// Each row as often as its diff says, for output that has no column for it.
fn repeat(batch: &Batch) -> Result<Batch, ConnectorError> {
    let bug = |message: String| ConnectorError::Lost(SqlError::internal(message));
    let mut indices = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let Ok(times) = usize::try_from(batch.diff(row)) else {
            return Err(bug(
                "a sink of an append-only view received a retraction".into()
            ));
        };
        indices.resize(indices.len() + times, row as u32);
    }
    let rows = Batch::insert(batch.rows().clone()).take(&UInt32Array::from(indices));
    rows.map_err(|error| bug(error.to_string()))
}

#[cfg(test)]
mod tests;

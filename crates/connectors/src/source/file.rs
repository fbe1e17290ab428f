//! Files as a source: one file, all files of a directory, or those that a glob matches; each file is a split.
//!
//! `WITH (connector = 'file', path = '…', follow = 'true'|'false') FORMAT PLAIN ENCODE JSON|CSV (…)`. A directory means
//! its files except those whose names begin with `.` or `_`; it is not searched further down. Without `follow` (the
//! default) the source is bounded: the files are read to their ends as they are. With it, lines that are added and files
//! that appear are found, and a last line without a line break waits for its rest.
//!
//! The id of a split is the absolute path, its offset the bytes and lines read. Files must only be appended to. A file
//! that is gone or shorter than its offset is an error that names it; rewriting one in place goes unnoticed.

use crate::format::{Consumed, DecodeError, Decoder, DecoderFactory, MAX_RECORD_BYTES, advance};
use crate::options::Options;
use crate::source::{Chunk, Next, Source, SplitReader};
use crate::{ConnectorError, Format, Offset, SplitId};
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tidegate_types::{SqlError, SqlState};

/// Read at a time: small enough that a block is decoded while it is in the cache.
const READ_BYTES: usize = 1 << 20;

const OPTIONS: &[&str] = &["path", "follow"];

pub struct FileSource {
    schema: SchemaRef,
    path: String,
    follow: bool,
    decoders: DecoderFactory,
}

impl FileSource {
    pub fn new(
        schema: &SchemaRef,
        options: &BTreeMap<String, String>,
        format: Option<&Format>,
    ) -> Result<Self, ConnectorError> {
        let options = Options::new("connector \"file\"", options, OPTIONS)?;
        let path = options.required("path")?;
        if path.is_empty() {
            return Err(options.wrong("path", "a file, a directory or a glob"));
        }
        let absolute = std::path::absolute(path)
            .map_err(|error| ConnectorError::io("resolve", Path::new(path), &error))?;
        let Some(absolute) = absolute.to_str() else {
            return Err(options.wrong("path", "a path below a working directory in UTF-8"));
        };
        let Some(format) = format else {
            return Err(ConnectorError::invalid("connector \"file\" needs a format")
                .with_hint("add FORMAT PLAIN ENCODE JSON or FORMAT PLAIN ENCODE CSV"));
        };
        if schema.fields().is_empty() {
            return Err(ConnectorError::invalid("connector \"file\" needs columns"));
        }
        Ok(Self {
            schema: schema.clone(),
            path: absolute.to_owned(),
            follow: options.boolean("follow", false)?,
            decoders: format.decoder_factory(schema)?,
        })
    }

    fn files(&self) -> Result<Vec<PathBuf>, ConnectorError> {
        let path = Path::new(&self.path);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => directory(path),
            Ok(_) => Ok(vec![path.to_owned()]),
            Err(error) if error.kind() == ErrorKind::NotFound && is_pattern(&self.path) => {
                matches(&self.path)
            }
            Err(error) => Err(ConnectorError::io("open", path, &error)),
        }
    }
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

fn directory(path: &Path) -> Result<Vec<PathBuf>, ConnectorError> {
    let failed = |error: std::io::Error| ConnectorError::io("read directory", path, &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let hidden = file
            .file_name()
            .and_then(|n| n.to_str())
            .is_none_or(|n| n.starts_with(['.', '_']));
        if !hidden && file.is_file() {
            files.push(file);
        }
    }
    Ok(files)
}

fn matches(pattern: &str) -> Result<Vec<PathBuf>, ConnectorError> {
    let found = glob::glob(pattern).map_err(|error| {
        ConnectorError::invalid(format!(
            "invalid glob \"{pattern}\" in option \"path\": {error}"
        ))
    })?;
    let mut files = Vec::new();
    for entry in found {
        let file = entry
            .map_err(|error| ConnectorError::io("read directory", error.path(), error.error()))?;
        if file.is_file() {
            files.push(file);
        }
    }
    Ok(files)
}

impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        let mut splits = Vec::new();
        for file in self.files()? {
            match file.to_str() {
                Some(path) => splits.push(SplitId::new(path)),
                None => {
                    tracing::warn!(file = %file.display(), "skipped a file whose name is not UTF-8")
                }
            }
        }
        splits.sort();
        Ok(splits)
    }

    fn open(
        &self,
        split: &SplitId,
        resume: Option<&Offset>,
        projection: Option<&[usize]>,
    ) -> Result<Box<dyn SplitReader>, ConnectorError> {
        let path = PathBuf::from(split.as_str());
        let resume = resume
            .copied()
            .unwrap_or(Offset::File { bytes: 0, lines: 0 });
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && resume.position() > 0 => {
                return Err(ConnectorError::lost(format!(
                    "file \"{split}\" no longer exists, its saved position is {resume}"
                )));
            }
            Err(error) => return Err(ConnectorError::io("open", &path, &error)),
        };
        let reader = FileReader {
            path,
            file,
            follow: self.follow,
            decoder: self.decoders.create(&self.schema, projection),
            begun: false,
            buffer: Vec::new(),
            start: 0,
            end_of_file: false,
            offset: resume,
            errors: Vec::new(),
        };
        reader.check_length()?;
        Ok(Box::new(reader))
    }

    fn bounded(&self) -> bool {
        !self.follow
    }

    fn runs_on_worker(&self) -> bool {
        false
    }
}

struct FileReader {
    path: PathBuf,
    file: File,
    follow: bool,
    decoder: Box<dyn Decoder>,
    /// What precedes the first record has been read, and the file is positioned at the offset.
    begun: bool,
    buffer: Vec<u8>,
    /// What of the buffer has been consumed. The byte here is at `offset` of the file.
    start: usize,
    /// The last read reached the end of the file.
    end_of_file: bool,
    offset: Offset,
    /// Records set aside by the reader itself, because they are too long.
    errors: Vec<DecodeError>,
}

impl FileReader {
    /// Reads on behind the buffer.
    fn fill(&mut self) -> Result<(), ConnectorError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.reserve(READ_BYTES);
        let read = (&self.file)
            .take(READ_BYTES as u64)
            .read_to_end(&mut self.buffer);
        let read = read.map_err(|error| ConnectorError::io("read", &self.path, &error))?;
        self.end_of_file = read < READ_BYTES;
        Ok(())
    }

    fn seek(&mut self, to: u64) -> Result<(), ConnectorError> {
        self.buffer.clear();
        self.start = 0;
        self.end_of_file = false;
        match (&self.file).seek(SeekFrom::Start(to)) {
            Ok(_) => Ok(()),
            Err(error) => Err(ConnectorError::io("seek in", &self.path, &error)),
        }
    }

    /// A file shorter than what has been read of it is not the file that it was.
    fn check_length(&self) -> Result<(), ConnectorError> {
        let metadata = self.file.metadata();
        let length = metadata
            .map_err(|error| ConnectorError::io("stat", &self.path, &error))?
            .len();
        if length >= self.offset.position() {
            return Ok(());
        }
        Err(ConnectorError::lost(format!(
            "file \"{}\" was truncated: it has {length} bytes, but was read up to {}",
            self.path.display(),
            self.offset
        ))
        .with_hint("a file of a source may only be appended to"))
    }

    /// Reads the header, if any, then goes to the offset. False: the header is not complete yet.
    fn begin(&mut self) -> Result<bool, ConnectorError> {
        let preamble = loop {
            let end = self.end_of_file && !self.follow;
            match self.decoder.preamble(&self.buffer, end) {
                Ok(Some(consumed)) => break consumed,
                Ok(None) if self.end_of_file => {
                    self.seek(0)?;
                    return Ok(false);
                }
                Ok(None) if self.buffer.len() >= MAX_RECORD_BYTES => {
                    return Err(self.bad_header("it has no end"));
                }
                Ok(None) => self.fill()?,
                Err(error) => return Err(self.bad_header(&error.message)),
            }
        };
        if self.offset.position() > preamble.bytes as u64 {
            self.seek(self.offset.position())?;
        } else {
            self.start = preamble.bytes;
            self.offset = advance(Offset::File { bytes: 0, lines: 0 }, preamble);
        }
        self.begun = true;
        Ok(true)
    }

    fn bad_header(&self, why: &str) -> ConnectorError {
        ConnectorError::lost(format!(
            "file \"{}\" cannot be read: {why}",
            self.path.display()
        ))
    }

    /// Decodes until `max_rows` rows are there, the offset is `until`, or there is nothing more for now.
    fn decode(&mut self, max_rows: usize, until: u64) -> Result<(), ConnectorError> {
        loop {
            let rest = self.buffer.len() - self.start;
            let allowed = usize::try_from(until - self.offset.position()).unwrap_or(usize::MAX);
            let limited = allowed <= rest;
            let input = &self.buffer[self.start..self.start + rest.min(allowed)];
            // An offset is always the end of a record.
            let end = limited || (self.end_of_file && !self.follow);
            let left = max_rows - self.errors.len();
            let consumed = self.decoder.decode(input, end, self.offset, left);
            self.start += consumed.bytes;
            self.offset = advance(self.offset, consumed);
            if self.pending() >= max_rows || self.decoder.is_full() || limited {
                return Ok(());
            }
            if consumed.bytes == 0 && rest >= MAX_RECORD_BYTES {
                if !self.set_aside_long_record()? {
                    return Ok(());
                }
            } else if self.end_of_file {
                return Ok(());
            } else {
                self.fill()?;
            }
        }
    }

    fn pending(&self) -> usize {
        self.decoder.pending() + self.errors.len()
    }

    /// The record at the start of the buffer has no end within reason: sets its first line aside. False: in a file that
    /// is followed, not even that line has ended.
    fn set_aside_long_record(&mut self) -> Result<bool, ConnectorError> {
        let first = &self.buffer[self.start..];
        let raw = first[..first.len().min(1024)].to_vec();
        let mut bytes = 0;
        loop {
            let rest = &self.buffer[self.start..];
            if let Some(end) = rest.iter().position(|b| *b == b'\n') {
                self.start += end + 1;
                bytes += end + 1;
                break;
            }
            bytes += rest.len();
            self.start = self.buffer.len();
            if self.end_of_file && self.follow {
                self.seek(self.offset.position())?;
                return Ok(false);
            } else if self.end_of_file {
                break;
            }
            self.fill()?;
        }
        let error = SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("a record is longer than {} MiB", MAX_RECORD_BYTES >> 20),
        );
        self.errors.push(DecodeError::new(error, &raw, self.offset));
        self.offset = advance(self.offset, Consumed { bytes, lines: 1 });
        Ok(true)
    }

    fn nothing_new(&mut self, until: u64) -> Result<Next, ConnectorError> {
        if self.offset.position() >= until {
            return Ok(Next::Idle);
        }
        if !self.follow {
            return Ok(Next::Finished);
        }
        self.check_length()?;
        // Look again the next time; meanwhile an idle file holds no buffer.
        self.end_of_file = false;
        if self.start == self.buffer.len() {
            self.buffer = Vec::new();
            self.start = 0;
        }
        Ok(Next::Idle)
    }
}

impl SplitReader for FileReader {
    fn next(&mut self, max_rows: usize, until: Option<&Offset>) -> Result<Next, ConnectorError> {
        let until = until.map_or(u64::MAX, Offset::position);
        if self.offset.position() >= until {
            return Ok(Next::Idle);
        }
        let before = self.offset;
        if !self.begun && !self.begin()? {
            return self.nothing_new(until);
        }
        if self.offset.position() < until {
            self.decode(max_rows.max(1), until)?;
        }
        // A header or blank lines alone move the offset too: with a chunk that is empty.
        if self.pending() == 0 && self.offset == before {
            return self.nothing_new(until);
        }
        let (batch, mut errors) = self.decoder.finish();
        errors.append(&mut self.errors);
        Ok(Next::Chunk(Chunk { batch, errors }))
    }

    fn offset(&self) -> Offset {
        self.offset
    }
}

#[cfg(test)]
mod tests;

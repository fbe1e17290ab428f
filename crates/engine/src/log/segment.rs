//! The files of the log: each begins with a magic and the position of its first entry, which is also its name.
//!
//! A segment is full at `SEGMENT_BYTES` and another is begun; whole segments are removed once no checkpoint needs them.

use super::entry::FRAME_HEADER;
use super::{LogEntry, SyncProbe};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_types::{LogPosition, SqlError, SqlState};

const MAGIC: &[u8; 8] = b"TGLOG\0\0\x01";
const SEGMENT_HEADER: u64 = 16;
const SEGMENT_BYTES: u64 = 64 << 20;

#[derive(Clone)]
struct Segment {
    first: u64,
    path: PathBuf,
}

pub(super) struct Segments {
    directory: PathBuf,
    segments: Vec<Segment>,
    /// The last segment, open for writing, and its length.
    file: Option<(File, u64)>,
    last: u64,
    probe: Option<Arc<dyn SyncProbe>>,
}

/// Reads the segments there were when it was made.
pub(super) struct SegmentReader {
    segments: Vec<Segment>,
}

impl Segments {
    pub fn open(directory: &Path, probe: Option<Arc<dyn SyncProbe>>) -> Result<Self, SqlError> {
        std::fs::create_dir_all(directory).map_err(|e| io_error("create", directory, &e))?;
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(|e| io_error("read", directory, &e))? {
            let path = entry.map_err(|e| io_error("read", directory, &e))?.path();
            let number = path
                .file_stem()
                .and_then(|s| s.to_str())
                .and_then(|s| s.parse().ok());
            if let (Some(first), true) = (number, path.extension().is_some_and(|e| e == "log")) {
                segments.push(Segment { first, path });
            }
        }
        segments.sort_by_key(|s| s.first);
        let mut log = Self {
            directory: directory.to_owned(),
            segments,
            file: None,
            last: 0,
            probe,
        };
        log.check()?;
        Ok(log)
    }

    /// Reads everything once: finds the last entry, cuts off a torn one, and refuses damage.
    fn check(&mut self) -> Result<(), SqlError> {
        let Some(first) = self.segments.first().map(|s| s.first) else {
            return Ok(());
        };
        let mut next = first;
        let count = self.segments.len();
        for (index, segment) in self.segments.clone().into_iter().enumerate() {
            let is_last = index + 1 == count;
            let bytes =
                std::fs::read(&segment.path).map_err(|e| io_error("read", &segment.path, &e))?;
            if is_last && (bytes.len() as u64) < SEGMENT_HEADER {
                // Begun and never acknowledged: its header was not complete.
                self.segments.pop();
                std::fs::remove_file(&segment.path)
                    .map_err(|e| io_error("remove", &segment.path, &e))?;
                self.sync_directory()?;
                break;
            }
            check_header(&segment, &bytes)?;
            if segment.first != next {
                let message = format!("the log lacks the entries {next} to {}", segment.first - 1);
                return Err(damaged(&segment.path, 0, &message));
            }
            let mut offset = SEGMENT_HEADER as usize;
            while offset < bytes.len() {
                match parse_frame(&bytes[offset..], next) {
                    Frame::Entry { length, .. } => {
                        offset += length;
                        next += 1;
                    }
                    Frame::Torn if is_last => {
                        tracing::warn!(
                            path = %segment.path.display(),
                            offset,
                            "cut off an entry that was never acknowledged"
                        );
                        let file = open_for_write(&segment.path)?;
                        file.set_len(offset as u64)
                            .map_err(|e| io_error("truncate", &segment.path, &e))?;
                        file.sync_all()
                            .map_err(|e| io_error("sync", &segment.path, &e))?;
                        break;
                    }
                    Frame::Torn | Frame::Damaged => {
                        return Err(damaged(
                            &segment.path,
                            offset as u64,
                            &format!("entry {next} cannot be read"),
                        ));
                    }
                }
            }
        }
        self.last = next - 1;
        if let Some(segment) = self.segments.last() {
            let mut file = open_for_write(&segment.path)?;
            let length = file
                .seek(SeekFrom::End(0))
                .map_err(|e| io_error("seek", &segment.path, &e))?;
            self.file = Some((file, length));
        }
        Ok(())
    }

    pub fn last_position(&self) -> LogPosition {
        LogPosition(self.last)
    }

    pub fn first_position(&self) -> LogPosition {
        LogPosition(self.segments.first().map_or(self.last + 1, |s| s.first))
    }

    pub fn skip_to(&mut self, position: LogPosition) -> Result<(), SqlError> {
        if self.last < position.0 {
            self.last = position.0;
            self.file = None;
        }
        Ok(())
    }

    /// Writes frames that belong together and syncs them. After an error the file is as it was before.
    pub fn write(&mut self, frames: &[&[u8]], last: LogPosition) -> Result<(), SqlError> {
        let first = last.0 + 1 - frames.len() as u64;
        if self
            .file
            .as_ref()
            .is_none_or(|(_, length)| *length >= SEGMENT_BYTES)
        {
            self.begin_segment(first)?;
        }
        let path = self
            .segments
            .last()
            .expect("a segment was begun")
            .path
            .clone();
        let (file, length) = self.file.as_mut().expect("a segment was begun");
        let written = frames
            .iter()
            .try_for_each(|frame| file.write_all(frame))
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            let error = io_error("write", &path, &error);
            let restored = file
                .set_len(*length)
                .and_then(|()| file.seek(SeekFrom::Start(*length)).map(|_| ()));
            if restored.and_then(|()| file.sync_data()).is_err() {
                // What the file holds now is unknown; the next entries go into another one after a restart.
                return Err(error.with_detail("the log could not be cut back; restart the server"));
            }
            return Err(error);
        }
        *length += frames.iter().map(|f| f.len() as u64).sum::<u64>();
        self.last = last.0;
        if let Some(probe) = &self.probe {
            probe.file_synced(&path);
        }
        Ok(())
    }

    fn begin_segment(&mut self, first: u64) -> Result<(), SqlError> {
        let path = self.directory.join(format!("{first:020}.log"));
        let begun = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            file.write_all(MAGIC)?;
            file.write_all(&first.to_le_bytes())?;
            file.sync_all()?;
            Ok(file)
        })();
        let file = begun.map_err(|e: io::Error| {
            // An unfinished segment is removed at the next start, should this fail too.
            let _ = std::fs::remove_file(&path);
            io_error("create", &path, &e)
        })?;
        if let Some(probe) = &self.probe {
            probe.file_synced(&path);
        }
        self.sync_directory()?;
        self.file = Some((file, SEGMENT_HEADER));
        self.segments.push(Segment { first, path });
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), SqlError> {
        let synced = File::open(&self.directory).and_then(|d| d.sync_all());
        synced.map_err(|e| io_error("sync", &self.directory, &e))?;
        if let Some(probe) = &self.probe {
            probe.directory_synced(&self.directory);
        }
        Ok(())
    }

    pub fn reader(&self) -> SegmentReader {
        SegmentReader {
            segments: self.segments.clone(),
        }
    }

    pub fn read(
        &self,
        after: LogPosition,
        visit: &mut dyn FnMut(LogPosition, LogEntry) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        self.reader().read(after, self.last_position(), visit)
    }

    /// Removes segments that hold nothing behind this position.
    pub fn remove_before(&mut self, position: LogPosition) -> Result<(), SqlError> {
        let mut removed = false;
        while self.segments.len() > 1 && self.segments[1].first <= position.0 + 1 {
            let segment = self.segments.remove(0);
            std::fs::remove_file(&segment.path)
                .map_err(|e| io_error("remove", &segment.path, &e))?;
            removed = true;
        }
        if removed {
            self.sync_directory()
        } else {
            Ok(())
        }
    }
}

impl SegmentReader {
    /// Visits the entries behind `after`, up to and including `upto`.
    pub fn read(
        &self,
        after: LogPosition,
        upto: LogPosition,
        visit: &mut dyn FnMut(LogPosition, LogEntry) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        for (index, segment) in self.segments.iter().enumerate() {
            let is_before = self
                .segments
                .get(index + 1)
                .is_some_and(|next| next.first <= after.0 + 1);
            if is_before {
                continue;
            }
            let mut bytes = Vec::new();
            File::open(&segment.path)
                .and_then(|mut f| f.read_to_end(&mut bytes))
                .map_err(|e| io_error("read", &segment.path, &e))?;
            let (mut offset, mut position) = (SEGMENT_HEADER as usize, segment.first);
            while offset < bytes.len() && position <= upto.0 {
                let Frame::Entry { body, length } = parse_frame(&bytes[offset..], position) else {
                    return Err(damaged(
                        &segment.path,
                        offset as u64,
                        &format!("entry {position} cannot be read"),
                    ));
                };
                if position > after.0 {
                    let entry = LogEntry::decode(body).ok_or_else(|| {
                        damaged(
                            &segment.path,
                            offset as u64,
                            &format!("entry {position} cannot be decoded"),
                        )
                    })?;
                    visit(LogPosition(position), entry)?;
                }
                offset += length;
                position += 1;
            }
        }
        Ok(())
    }
}

enum Frame<'a> {
    Entry {
        body: &'a [u8],
        length: usize,
    },
    /// The bytes end within the entry, or a last entry's checksum is wrong: what an interrupted write leaves behind.
    Torn,
    Damaged,
}

fn parse_frame(bytes: &[u8], position: u64) -> Frame<'_> {
    let Some((header, rest)) = bytes.split_at_checked(FRAME_HEADER) else {
        return Frame::Torn;
    };
    let number = |at: usize| {
        u32::from_le_bytes(
            header[at..at + 4]
                .try_into()
                .expect("a header has eight bytes"),
        )
    };
    let length = number(0) as usize;
    let Some(content) = rest.get(..length) else {
        return Frame::Torn;
    };
    let reaches_end = rest.len() == length;
    if length < 8 || crc32c::crc32c(content) != number(4) {
        // A file that was extended but not written ends in zeros; anything else behind a bad checksum is damage.
        let only_zeros = bytes.iter().all(|b| *b == 0);
        return if reaches_end || only_zeros {
            Frame::Torn
        } else {
            Frame::Damaged
        };
    }
    let (stamp, body) = content.split_at(8);
    if stamp != position.to_le_bytes() {
        return Frame::Damaged;
    }
    Frame::Entry {
        body,
        length: FRAME_HEADER + length,
    }
}

fn check_header(segment: &Segment, bytes: &[u8]) -> Result<(), SqlError> {
    if bytes.len() < SEGMENT_HEADER as usize || &bytes[..8] != MAGIC {
        return Err(damaged(
            &segment.path,
            0,
            "this is not a log segment of a known version",
        ));
    }
    if bytes[8..16] != segment.first.to_le_bytes() {
        return Err(damaged(
            &segment.path,
            8,
            "the segment's name and header disagree",
        ));
    }
    Ok(())
}

fn open_for_write(path: &Path) -> Result<File, SqlError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|e| io_error("open", path, &e))
}

fn io_error(action: &str, path: &Path, error: &io::Error) -> SqlError {
    let state = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            SqlState::DISK_FULL
        }
        _ => SqlState::IO_ERROR,
    };
    SqlError::new(
        state,
        format!("could not {action} \"{}\": {error}", path.display()),
    )
}

fn damaged(path: &Path, offset: u64, what: &str) -> SqlError {
    SqlError::new(
        SqlState::DATA_CORRUPTED,
        format!("the log file \"{}\" is damaged at byte {offset}: {what}", path.display()),
    )
    .with_hint("Restore the file from a copy, or restore from a checkpoint with the setting restore_without_log.")
}

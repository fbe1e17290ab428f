//! Writing to RocksDB in the order of its keys.

use super::RocksDb;
use super::database::Family;
use super::layout;
use super::overlay::Overlay;
use crate::order::sorted_indices;
use crate::run::RunEntry;
use crate::table::{Cell, StateError};
use rocksdb::{SstFileWriter, WriteBatch};
use std::path::PathBuf;
use tidegate_types::{ByteRows, TableId};

/// From this size on entries go into files of their own, past RocksDB's write buffers.
const FILE_BYTES: usize = if cfg!(test) { 16 << 10 } else { 1 << 20 };
/// A file ends at about this size.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Takes entries in ascending order of keys, and adds them to the database together: readers see all of them or none.
///
/// Few entries go through the write buffers. Many become files that the database takes over as they are: sorted once,
/// here, and written once, however much is written.
pub struct SortedWriter<'a> {
    database: &'a RocksDb,
    family: Family,
    target: Target<'a>,
}

enum Target<'a> {
    Batch(WriteBatch),
    Files {
        open: Option<SstFileWriter<'a>>,
        files: Vec<PathBuf>,
    },
}

impl<'a> SortedWriter<'a> {
    /// `bytes`: how much is going to be written, roughly.
    pub fn new(database: &'a RocksDb, family: Family, bytes: usize) -> Self {
        let target = if bytes < FILE_BYTES {
            Target::Batch(WriteBatch::default())
        } else {
            Target::Files {
                open: None,
                files: Vec::new(),
            }
        };
        Self {
            database,
            family,
            target,
        }
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        match &mut self.target {
            Target::Batch(batch) => batch.put_cf(&self.database.family(self.family), key, value),
            Target::Files { .. } => self.file()?.put(key, value)?,
        }
        Ok(())
    }

    pub fn delete(&mut self, key: &[u8]) -> Result<(), StateError> {
        match &mut self.target {
            Target::Batch(batch) => batch.delete_cf(&self.database.family(self.family), key),
            Target::Files { .. } => self.file()?.delete(key)?,
        }
        Ok(())
    }

    pub fn merge(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        match &mut self.target {
            Target::Batch(batch) => batch.merge_cf(&self.database.family(self.family), key, value),
            Target::Files { .. } => self.file()?.merge(key, value)?,
        }
        Ok(())
    }

    fn file(&mut self) -> Result<&mut SstFileWriter<'a>, StateError> {
        let Target::Files { open, files } = &mut self.target else {
            unreachable!("only asked for where entries go into files");
        };
        if let Some(full) = open.take_if(|f| f.file_size() >= MAX_FILE_BYTES) {
            close(full)?;
        }
        match open {
            Some(open) => Ok(open),
            None => {
                let path = self.database.new_file();
                let writer = SstFileWriter::create(self.database.options(self.family));
                writer.open(&path)?;
                files.push(path);
                Ok(open.insert(writer))
            }
        }
    }

    pub fn finish(self) -> Result<(), StateError> {
        match self.target {
            Target::Batch(batch) => self.database.write(batch),
            Target::Files { open, files } => {
                if let Some(open) = open {
                    close(open)?;
                }
                match files.is_empty() {
                    true => Ok(()),
                    false => self.database.add_files(self.family, files),
                }
            }
        }
    }
}

fn close(mut file: SstFileWriter<'_>) -> Result<(), StateError> {
    Ok(file.finish()?)
}

/// Writes cells of a table, given in any order, each once.
pub fn write_cells<'e, O: Overlay>(
    database: &RocksDb,
    table: TableId,
    cells: impl Iterator<Item = RunEntry<'e>> + Clone,
) -> Result<(), StateError> {
    let disk_key = |key: &mut Vec<u8>, entry: &RunEntry<'_>| {
        let cell = Cell {
            key: entry.key,
            sub: entry.sub,
        };
        O::disk_key(key, table, entry.group, cell);
    };
    write_sorted(database, O::FAMILY, cells, disk_key)
}

/// Notes that cells of a table changed which the overlay is about to forget.
pub fn note_changes<'e>(
    database: &RocksDb,
    table: TableId,
    generation: u64,
    cells: impl Iterator<Item = RunEntry<'e>> + Clone,
) -> Result<(), StateError> {
    let noted = cells.map(|entry| RunEntry {
        value: Some(&[]),
        ..entry
    });
    let key = |key: &mut Vec<u8>, entry: &RunEntry<'_>| {
        layout::change(key, table, generation, entry);
    };
    write_sorted(database, Family::Changes, noted, key)
}

fn write_sorted<'e>(
    database: &RocksDb,
    family: Family,
    entries: impl Iterator<Item = RunEntry<'e>> + Clone,
    disk_key: impl Fn(&mut Vec<u8>, &RunEntry<'_>),
) -> Result<(), StateError> {
    let (mut keys, mut values, mut key) = (ByteRows::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for entry in entries {
        disk_key(&mut key, &entry);
        keys.push(&key);
        bytes += key.len() + entry.value.map_or(0, <[u8]>::len);
        values.push(entry.value);
    }
    // All keys of a table start alike; what follows decides.
    let order = sorted_indices(
        keys.len(),
        |i| (0, keys.get(i)),
        |a, b| keys.get(a).cmp(keys.get(b)),
    );
    let mut writer = SortedWriter::new(database, family, bytes);
    for index in order {
        match values[index as usize] {
            Some(value) => writer.put(keys.get(index as usize), value)?,
            None => writer.delete(keys.get(index as usize))?,
        }
    }
    writer.finish()
}

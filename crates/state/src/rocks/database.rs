//! One worker's RocksDB.

use super::layout;
use crate::StateError;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor,
    CompactionDecision, DB, DBCompressionType, IngestExternalFileOptions, MergeOperands, Options,
    SliceTransform, WriteBatch, WriteBufferManager, WriteOptions,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate_types::{TableId, WorkerId};

/// A column family by use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Value,
    Map,
    View,
    Log,
    Changes,
}

impl Family {
    const ALL: [Self; 5] = [Self::Value, Self::Map, Self::View, Self::Log, Self::Changes];

    fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Map => "map",
            Self::View => "view",
            Self::Log => "log",
            Self::Changes => "changes",
        }
    }
}

/// A write batch is cut at this size where nothing demands that it be whole.
pub const BATCH_BYTES: usize = 1 << 20;
/// More files than this in level 0 make reading slow; who adds files waits for compactions.
const LEVEL_0_FILES: u64 = 16;

pub struct RocksDb {
    db: DB,
    cache: Cache,
    /// By family, for files that are made outside the database.
    options: [Options; Family::ALL.len()],
    files: PathBuf,
    next_file: AtomicU64,
}

impl RocksDb {
    /// Opens an empty database under `directory/worker-N`, removing what earlier ones left there. Its block cache, index
    /// and filter blocks and write buffers together keep to the limit.
    pub fn open(
        directory: &Path,
        worker: WorkerId,
        memory_limit_bytes: usize,
    ) -> Result<Arc<Self>, StateError> {
        let path = fresh_directory(&directory.join(format!("worker-{worker}")))?;
        // All of them are charged to one cache, whose size is the limit.
        let cache = Cache::new_lru_cache(memory_limit_bytes.max(4 << 20));
        let buffers_bytes = (memory_limit_bytes / 4).max(1 << 20);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            buffers_bytes,
            false,
            cache.clone(),
        );
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_write_buffer_manager(&buffers);
        options.set_max_background_jobs(2);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(1);
        options.set_stats_dump_period_sec(0);
        // Per file that a compaction reads; by default two megabytes of each.
        options.set_compaction_readahead_size((memory_limit_bytes / 64).clamp(64 << 10, 2 << 20));
        let family_options = Family::ALL.map(|f| family_options(f, &cache, buffers_bytes));
        let families = Family::ALL
            .iter()
            .zip(&family_options)
            .map(|(f, options)| ColumnFamilyDescriptor::new(f.name(), options.clone()));
        let db = DB::open_cf_descriptors(&options, &path, families)?;
        let files = path.join("ingest");
        std::fs::create_dir_all(&files)
            .map_err(|e| StateError::Backend(format!("cannot use {}: {e}", files.display())))?;
        Ok(Arc::new(Self {
            db,
            cache,
            options: family_options,
            files,
            next_file: AtomicU64::new(0),
        }))
    }

    pub fn db(&self) -> &DB {
        &self.db
    }

    pub fn family(&self, family: Family) -> Arc<BoundColumnFamily<'_>> {
        self.db
            .cf_handle(family.name())
            .expect("all families are created when the database is opened")
    }

    pub fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        Ok(self.db.write_opt(batch, &options)?)
    }

    pub fn options(&self, family: Family) -> &Options {
        &self.options[family as usize]
    }

    /// A path for a file that is to be added to the database.
    pub fn new_file(&self) -> PathBuf {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        self.files.join(format!("{number}.sst"))
    }

    /// Makes the entries of these files part of the database, newer than all that is there; all files or none.
    pub fn add_files(&self, family: Family, files: Vec<PathBuf>) -> Result<(), StateError> {
        // Adding files is not slowed down by RocksDB as writing is, whatever its compactions have left to do.
        let family = self.family(family);
        let too_many = || -> Result<bool, StateError> {
            let files = self
                .db
                .property_int_value_cf(&family, "rocksdb.num-files-at-level0")?;
            Ok(files.is_some_and(|files| files > LEVEL_0_FILES))
        };
        while too_many()? {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        Ok(self
            .db
            .ingest_external_file_cf_opts(&family, &options, files)?)
    }

    /// Removes everything of a table.
    pub fn drop_table(&self, table: TableId) -> Result<(), StateError> {
        let prefix = layout::table_prefix(table);
        let end =
            layout::after_prefix(&prefix).unwrap_or_else(|| vec![0xff; layout::TABLE_BYTES + 2]);
        let mut batch = WriteBatch::default();
        for family in Family::ALL {
            batch.delete_range_cf(&self.family(family), prefix.clone(), end.clone());
        }
        self.write(batch)
    }

    /// Bytes on disk and in write buffers of a table, roughly.
    pub fn approximate_bytes(&self, family: Family, table: TableId) -> u64 {
        let prefix = layout::table_prefix(table);
        let end =
            layout::after_prefix(&prefix).unwrap_or_else(|| vec![0xff; layout::TABLE_BYTES + 2]);
        let range = rocksdb::Range::new(&prefix, &end);
        self.db
            .get_approximate_sizes_cf(&self.family(family), &[range])
            .into_iter()
            .sum()
    }

    /// Bytes of the block cache in use, write buffers included.
    pub fn cache_bytes(&self) -> usize {
        self.cache.get_usage()
    }
}

/// An empty directory for a new database. Databases of earlier incarnations are removed.
fn fresh_directory(parent: &Path) -> Result<PathBuf, StateError> {
    std::fs::create_dir_all(parent).map_err(|e| unusable(parent, &e))?;
    let newest = remove_databases(parent).map_err(|e| unusable(parent, &e))?;
    Ok(parent.join((newest + 1).to_string()))
}

/// Removes what workers from this number on have left, of which none of the present ones would.
pub fn remove_of_workers_from(directory: &Path, first: WorkerId) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("worker-"));
        if number.is_none_or(|n| n.parse::<WorkerId>().is_ok_and(|n| n < first)) {
            continue;
        }
        let parent = entry.path();
        // The name of the last one stays taken: a reader may have it open still, and would write among the files of
        // another of that name.
        let emptied = remove_databases(&parent).and_then(|newest| match newest {
            0 => Ok(()),
            newest => std::fs::create_dir_all(parent.join(newest.to_string())),
        });
        if let Err(error) = emptied {
            tracing::warn!(path = %parent.display(), %error, "cannot empty an old state directory");
        }
    }
}

/// Removes all databases of a worker and answers the number of the newest. One that a reader of this process still holds
/// open is unlinked and lives on until that reader is done.
fn remove_databases(parent: &Path) -> std::io::Result<u64> {
    let mut newest = 0u64;
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u64>().ok())
        {
            newest = newest.max(number);
            // A reader of the last incarnation may still hold it open and write to it: then the next start removes it.
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove an old state directory yet");
            }
        }
    }
    Ok(newest)
}

fn unusable(path: &Path, error: &std::io::Error) -> StateError {
    StateError::Backend(format!("cannot use {}: {error}", path.display()))
}

fn family_options(family: Family, cache: &Cache, buffers_bytes: usize) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    // Index and filters in pieces: whole ones would not fit into a small cache beside anything else.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_top_level_index_and_filter(true);
    blocks.set_block_size(4 << 10);
    blocks.set_format_version(6);
    if family != Family::Log {
        blocks.set_bloom_filter(10.0, false);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size((buffers_bytes / 2).clamp(512 << 10, 64 << 20));
    options.set_compression_type(DBCompressionType::Lz4);
    // What a compaction keeps of a file that it writes grows with the file.
    options.set_target_file_size_base((buffers_bytes as u64 * 2).clamp(4 << 20, 64 << 20));
    if family == Family::Map {
        options.set_prefix_extractor(SliceTransform::create(
            "tidegate.key",
            |key| layout::map_prefix(key).unwrap_or(key),
            Some(|key| layout::map_prefix(key).is_some()),
        ));
        options.set_memtable_prefix_bloom_ratio(0.05);
    }
    if matches!(family, Family::View | Family::Changes) {
        options.set_merge_operator_associative("tidegate.sum", sum);
    }
    if family == Family::View {
        options.set_compaction_filter("tidegate.nonzero", |_level, key: &[u8], value: &[u8]| {
            // The marker of a table is longer than a count.
            match key.len() > layout::TABLE_BYTES && value == 0i64.to_le_bytes() {
                true => CompactionDecision::Remove,
                false => CompactionDecision::Keep,
            }
        });
    }
    options
}

fn sum(_key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut total = 0i64;
    for value in existing.into_iter().chain(operands) {
        total += i64::from_le_bytes(value.try_into().ok()?);
    }
    Some(total.to_le_bytes().to_vec())
}

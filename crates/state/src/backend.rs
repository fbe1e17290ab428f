//! Opens the tables and views of one worker.

use crate::maintenance::Maintenance;
use crate::memory::MemoryAccount;
use crate::memory::map::MapTable;
use crate::memory::value::ValueTable;
use crate::rocks::RocksDb;
use crate::rocks::table::{RocksContext, RocksTable};
use crate::rocks::view::ViewDisk;
use crate::table::{Form, Merge, StateError, Table, TableSpec};
use crate::view::{ViewSpec, ViewStore};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_types::{KeyGroupRange, TableId, WorkerId};

/// Where state is kept. Chosen per server and per view.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    #[default]
    Memory,
    RocksDb,
}

#[derive(Debug, Clone)]
pub struct BackendConfig {
    /// RocksDB keeps its files in `directory/worker-N`. Nothing is created before the first RocksDB table is opened.
    pub directory: PathBuf,
    pub worker: WorkerId,
    /// The key groups that this worker owns.
    pub groups: KeyGroupRange,
    /// What RocksDB's block cache and write buffers on this worker may take together.
    pub cache_limit_bytes: usize,
    /// What the overlays of this worker's RocksDB tables may take together, and likewise the layers of its RocksDB views,
    /// before they go to RocksDB.
    pub overlay_limit_bytes: usize,
    /// Where tables and views in memory are accounted; workers may share it.
    pub memory: MemoryAccount,
}

/// Empties what workers from this number on have left in the directory of working state; those before empty their own.
pub fn remove_working_state(directory: &Path, first: WorkerId) {
    crate::rocks::database::remove_of_workers_from(directory, first);
}

/// The state backends of one worker.
pub struct Backends {
    config: BackendConfig,
    memory: MemoryAccount,
    /// Of the overlays of RocksDB tables alone.
    overlays: MemoryAccount,
    /// Of the layers of RocksDB views alone.
    layers: MemoryAccount,
    database: Mutex<Option<Arc<RocksDb>>>,
    maintenance: Maintenance,
}

impl Backends {
    pub fn open(config: BackendConfig) -> Result<Self, StateError> {
        let maintenance = Maintenance::start(config.worker)?;
        Ok(Self {
            memory: config.memory.clone(),
            config,
            overlays: MemoryAccount::default(),
            layers: MemoryAccount::default(),
            database: Mutex::new(None),
            maintenance,
        })
    }

    /// Opens RocksDB when it is first needed.
    fn database(&self) -> Result<Arc<RocksDb>, StateError> {
        let mut database = self.database.lock();
        if let Some(database) = &*database {
            return Ok(database.clone());
        }
        let config = &self.config;
        let opened = RocksDb::open(&config.directory, config.worker, config.cache_limit_bytes)?;
        *database = Some(opened.clone());
        Ok(opened)
    }

    pub fn config(&self) -> &BackendConfig {
        &self.config
    }

    pub fn open_table(
        &self,
        kind: BackendKind,
        spec: &TableSpec,
    ) -> Result<Box<dyn Table>, StateError> {
        assert_eq!(spec.merge, Merge::Replace, "tables of counts are views");
        if kind == BackendKind::Memory {
            let share = self.memory.share();
            return Ok(match spec.form {
                Form::Value => Box::new(ValueTable::new(spec.id, share)),
                Form::Map => Box::new(MapTable::new(spec.id, share)),
            });
        }
        let context = RocksContext {
            database: self.database()?,
            maintenance: self.maintenance.handle(),
            account: self.overlays.clone(),
            overlay_limit_bytes: self.config.overlay_limit_bytes,
        };
        Ok(match spec.form {
            Form::Value => Box::new(RocksTable::open_value(spec, context)),
            Form::Map => Box::new(RocksTable::open_map(spec, context)),
        })
    }

    pub fn open_view(
        &self,
        kind: BackendKind,
        spec: ViewSpec,
    ) -> Result<Arc<ViewStore>, StateError> {
        let (disk, share) = match kind {
            BackendKind::Memory => (None, self.memory.share()),
            BackendKind::RocksDb => {
                let disk = ViewDisk::new(self.database()?, spec.table, spec.append_only);
                let limit = self.config.overlay_limit_bytes;
                (Some((disk, limit)), self.layers.share())
            }
        };
        let maintenance = self.maintenance.handle();
        ViewStore::open(spec, self.config.groups, share, maintenance, disk)
    }

    /// Removes what a dropped relation's table or view has on disk, after what is being written for it now. Its `Table`
    /// or `ViewStore` must not be used any more.
    pub fn drop_table(&self, kind: BackendKind, table: TableId) {
        let database = self.database.lock().clone();
        if let (BackendKind::RocksDb, Some(database)) = (kind, database) {
            self.maintenance.handle().submit(move || {
                if let Err(error) = database.drop_table(table) {
                    tracing::error!(%table, %error, "removing a dropped state table from rocksdb failed");
                }
            });
        }
    }

    /// Bytes of tables and views that are in memory, without RocksDB's block cache and buffers: of this worker those on
    /// RocksDB, and what is in the account of those in memory.
    pub fn bytes_used(&self) -> usize {
        self.memory.bytes_used() + self.overlays.bytes_used() + self.layers.bytes_used()
    }

    /// Bytes of RocksDB's block cache and write buffers.
    pub fn cache_bytes(&self) -> usize {
        self.database.lock().as_ref().map_or(0, |d| d.cache_bytes())
    }
}

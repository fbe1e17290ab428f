//! Opens the tables and views of one worker.

use crate::maintenance::Maintenance;
use crate::memory::MemoryAccount;
use crate::memory::map::MapTable;
use crate::memory::value::ValueTable;
use crate::table::{Form, StateError, Table, TableSpec};
use crate::view::{ViewSpec, ViewStore};
use std::path::PathBuf;
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
    /// This worker's share, for RocksDB's block cache and write buffers together.
    pub memory_limit_bytes: usize,
    /// How much each RocksDB table may hold in its overlay before it writes through.
    pub overlay_limit_bytes: usize,
}

/// The state backends of one worker.
pub struct Backends {
    config: BackendConfig,
    memory: MemoryAccount,
    maintenance: Maintenance,
}

impl Backends {
    pub fn open(config: BackendConfig) -> Result<Self, StateError> {
        let maintenance = Maintenance::start(config.worker)?;
        Ok(Self {
            config,
            memory: MemoryAccount::default(),
            maintenance,
        })
    }

    pub fn config(&self) -> &BackendConfig {
        &self.config
    }

    pub fn open_table(
        &self,
        kind: BackendKind,
        spec: &TableSpec,
    ) -> Result<Box<dyn Table>, StateError> {
        let share = self.memory.share();
        match (kind, spec.form) {
            (BackendKind::Memory, Form::Value) => Ok(Box::new(ValueTable::new(spec.id, share))),
            (BackendKind::Memory, Form::Map) => Ok(Box::new(MapTable::new(spec.id, share))),
            (BackendKind::RocksDb, _) => {
                Err(StateError::Backend("rocksdb is not available".into()))
            }
        }
    }

    pub fn open_view(
        &self,
        kind: BackendKind,
        spec: ViewSpec,
    ) -> Result<Arc<ViewStore>, StateError> {
        match kind {
            BackendKind::Memory => ViewStore::in_memory(
                spec,
                self.config.groups,
                self.memory.share(),
                self.maintenance.handle(),
            ),
            BackendKind::RocksDb => Err(StateError::Backend("rocksdb is not available".into())),
        }
    }

    /// Removes what a dropped relation's table or view has on disk. Its `Table` or `ViewStore` must be gone.
    pub fn drop_table(&self, _kind: BackendKind, _table: TableId) -> Result<(), StateError> {
        Ok(())
    }

    /// Bytes of all tables and views of this worker that are in memory, without RocksDB's own.
    pub fn bytes_used(&self) -> usize {
        self.memory.bytes_used()
    }
}

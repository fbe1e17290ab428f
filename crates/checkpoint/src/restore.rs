//! Reading state back: a table's runs, oldest first, in bounded pieces, for any range of key groups.
//!
//! Every block is verified before it is decoded. Pieces are read and decoded ahead in parallel, and come in order.
//! Small objects hold runs of many tables: they are fetched once and kept for the others.

use crate::buffers::Buffers;
use crate::error::{CheckpointError, Damage, Result, StorageError};
use crate::manifest::{Manifest, TableEntry};
use crate::run_file::{BlockRef, decode_block, verify_block};
use crate::storage::Storage;
use crate::store::CheckpointStore;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_state::Run;
use tidegate_types::KeyGroupRange;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

/// Blocks that one stream reads ahead.
const READ_AHEAD: usize = 4;
/// Objects up to this part of [`Buffers::kept_bytes`] are fetched whole, and kept while there is room; then the oldest go.
const WHOLE_OBJECT_PART: u64 = 4;
/// A table whose part has more bytes than this is decoded as it is taken in.
const DECODED_AHEAD_BYTES: u64 = 4 << 20;

/// Reads runs of one recovery. Shared by all workers that restore.
#[derive(Debug)]
pub struct Restorer {
    storage: Storage,
    handle: Handle,
    sizes: HashMap<Arc<str>, u64>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    objects: HashMap<Arc<str>, Arc<OnceCell<Bytes>>>,
    order: std::collections::VecDeque<Arc<str>>,
    bytes: u64,
}

impl CheckpointStore {
    /// To restore from a manifest. What it finds damaged is for [`CheckpointStore::reject`].
    pub fn restorer(&self) -> Arc<Restorer> {
        let sizes = self
            .state
            .lock()
            .run_objects
            .iter()
            .map(|(o, b)| (o.clone(), *b))
            .collect();
        Arc::new(Restorer {
            storage: self.storage.clone(),
            handle: self.handle.clone(),
            sizes,
            kept: Mutex::default(),
        })
    }

    /// Reads and verifies everything a manifest refers to, without decoding it. Fails with the first damage.
    pub async fn verify(&self, manifest: &Manifest) -> Result<()> {
        self.restorer().verify(manifest).await
    }
}

impl Restorer {
    /// Reads and verifies everything a manifest refers to, without decoding it. Fails with the first damage.
    pub async fn verify(self: &Arc<Self>, manifest: &Manifest) -> Result<()> {
        let blocks = manifest
            .tables
            .values()
            .flat_map(|t| &t.runs)
            .flat_map(|r| r.blocks.iter().map(|b| (&r.object, b)));
        let blocks: Vec<(Arc<str>, BlockRef)> = blocks.map(|(o, b)| (o.clone(), *b)).collect();
        self.verify_blocks(blocks).await
    }
}

impl Restorer {
    /// To read a manifest from storage that this process does not own.
    pub fn of(storage: &Storage, manifest: &Manifest) -> Arc<Self> {
        let mut sizes: HashMap<Arc<str>, u64> = HashMap::new();
        for run in manifest.tables.values().flat_map(|t| &t.runs) {
            let end = run.blocks.last().map_or(0, |b| b.offset + b.bytes);
            let size = sizes.entry(run.object.clone()).or_default();
            *size = (*size).max(end);
        }
        Arc::new(Self {
            storage: storage.clone(),
            handle: Handle::current(),
            sizes,
            kept: Mutex::default(),
        })
    }

    pub(crate) fn buffers(&self) -> Buffers {
        self.storage.buffers()
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The table's entries within the key groups: runs oldest first, each piece sorted and within one run.
    pub fn table(
        self: &Arc<Self>,
        entry: &TableEntry,
        groups: KeyGroupRange,
    ) -> BoxStream<'static, Result<Run>> {
        let (table, form) = (entry.descriptor.table, entry.descriptor.form);
        let wanted: Vec<(Arc<str>, BlockRef)> = entry
            .runs
            .iter()
            .flat_map(|r| r.blocks_in(groups).map(|b| (r.object.clone(), *b)))
            .collect();
        let this = self.clone();
        futures::stream::iter(wanted)
            .map(move |(object, block)| {
                let this = this.clone();
                async move {
                    let bytes = this.fetch(&object, &block).await?;
                    let decoded = this
                        .handle
                        .spawn_blocking(move || {
                            decode_block(table, form, &object, &block, &bytes, groups)
                        })
                        .await
                        .map_err(|e| {
                            CheckpointError::OutOfOrder(format!(
                                "decoding a run was cut short: {e}"
                            ))
                        })?;
                    Ok::<_, CheckpointError>(decoded?)
                }
            })
            .buffered(READ_AHEAD)
            .try_filter_map(|run| async { Ok(run) })
            .boxed()
    }

    /// All pieces of a table at once, for small tables and tools.
    pub async fn table_runs(
        self: &Arc<Self>,
        entry: &TableEntry,
        groups: KeyGroupRange,
    ) -> Result<Vec<Run>> {
        self.table(entry, groups).try_collect().await
    }

    /// As [`Restorer::table_runs`], but of a large table everything is verified now, and each piece is read again and
    /// decoded only when it is first looked at: so the table is never in memory whole. Not on a thread that runs futures.
    pub async fn table_runs_later(
        self: &Arc<Self>,
        entry: &TableEntry,
        groups: KeyGroupRange,
    ) -> Result<Vec<Run>> {
        let wanted: Vec<(Arc<str>, BlockRef)> = entry
            .runs
            .iter()
            .flat_map(|r| r.blocks_in(groups).map(|b| (r.object.clone(), *b)))
            .collect();
        if wanted.iter().map(|(_, b)| b.bytes).sum::<u64>() <= DECODED_AHEAD_BYTES {
            return self.table_runs(entry, groups).await;
        }
        self.verify_blocks(wanted.clone()).await?;
        let (table, form) = (entry.descriptor.table, entry.descriptor.form);
        let later = |(object, block): (Arc<str>, BlockRef)| {
            let this = self.clone();
            Run::later(table, move || {
                let bytes = this.handle.block_on(this.fetch(&object, &block));
                let bytes = bytes.map_err(|e| e.to_string())?;
                decode_block(table, form, &object, &block, &bytes, groups)
                    .map_err(|e| e.to_string())
            })
        };
        Ok(wanted.into_iter().map(later).collect())
    }

    async fn verify_blocks(self: &Arc<Self>, blocks: Vec<(Arc<str>, BlockRef)>) -> Result<()> {
        futures::stream::iter(blocks)
            .map(|(object, block)| {
                let restorer = self.clone();
                async move {
                    let bytes = restorer.fetch(&object, &block).await?;
                    verify_block(&object, &block, &bytes)?;
                    Ok::<_, CheckpointError>(())
                }
            })
            .buffer_unordered(READ_AHEAD)
            .try_collect()
            .await
    }

    pub(crate) async fn fetch(&self, object: &Arc<str>, block: &BlockRef) -> Result<Bytes> {
        let missing = |what: &str| Damage {
            object: object.clone(),
            offset: Some(block.offset),
            what: what.to_owned(),
        };
        let largest_whole = self.buffers().kept_bytes as u64 / WHOLE_OBJECT_PART;
        let size = self.sizes.get(object);
        let whole = size.is_some_and(|size| *size <= largest_whole);
        let fetched = if whole {
            self.whole_object(object).await.map(|bytes| {
                let end = ((block.offset + block.bytes) as usize).min(bytes.len());
                bytes.slice((block.offset as usize).min(end)..end)
            })
        } else {
            self.storage
                .get_range(object, block.offset, block.bytes)
                .await
        };
        match fetched {
            Ok(bytes) => Ok(bytes),
            Err(StorageError::NotFound { .. }) => Err(missing("it is missing").into()),
            Err(e) if self.ends_before(object, block).await => {
                Err(missing(&format!("the object ends before the block does: {e}")).into())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// A range beyond the end is reported differently by every store.
    async fn ends_before(&self, object: &Arc<str>, block: &BlockRef) -> bool {
        let listed = self
            .storage
            .list(object.rsplit_once('/').map_or("", |(folder, _)| folder))
            .await;
        listed.is_ok_and(|l| {
            l.iter()
                .any(|l| l.object == **object && l.bytes < block.offset + block.bytes)
        })
    }

    async fn whole_object(&self, object: &Arc<str>) -> Result<Bytes, StorageError> {
        let cell = {
            let mut kept = self.kept.lock();
            match kept.objects.get(object) {
                Some(cell) => cell.clone(),
                None => {
                    let bytes = self.sizes.get(object).copied().unwrap_or(0);
                    kept.insert(object, bytes, self.buffers().kept_bytes as u64)
                }
            }
        };
        cell.get_or_try_init(|| self.storage.get(object))
            .await
            .cloned()
    }
}

impl Kept {
    fn insert(&mut self, object: &Arc<str>, bytes: u64, limit_bytes: u64) -> Arc<OnceCell<Bytes>> {
        let cell = Arc::new(OnceCell::new());
        self.objects.insert(object.clone(), cell.clone());
        self.order.push_back(object.clone());
        self.bytes += bytes;
        while self.bytes > limit_bytes
            && let Some(oldest) = self.order.pop_front()
        {
            let size = self
                .objects
                .remove(&oldest)
                .and_then(|c| c.get().map(|b| b.len() as u64));
            self.bytes = self.bytes.saturating_sub(size.unwrap_or(0));
        }
        cell
    }
}

//! What happens to changed cells when a checkpoint is sealed, completes or is aborted.

use super::MapTable;
use crate::memory::arena::Ref;
use crate::memory::block::{
    Block, BlockCell, CHANGED, MAX_CELLS_BYTES, SEALED, TOMBSTONE, set_flags, splice,
};
use crate::memory::short_hash;
use crate::table::StateError;
use tidegate_types::hash_key;

impl MapTable {
    /// Gives each cell of these blocks new flags or drops it; then merges what has become small.
    pub(super) fn filter(
        &mut self,
        records: &[Ref],
        keep: impl Fn(u8) -> Option<u8>,
    ) -> Result<(), StateError> {
        let mut small: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for record in records {
            if self.filter_block(*record, &keep) {
                let block = self.block(*record);
                small.push((block.key().to_vec(), block.first_sub().to_vec()));
            }
        }
        // Merging frees blocks that may be among `records`, so it starts when all of them were visited.
        for (key, sub) in small {
            let hash = short_hash(hash_key(&key));
            if let Some(place) = self.find(hash, &key) {
                let spot = self.spot(place, &sub);
                self.merge(hash, spot)?;
            }
        }
        Ok(())
    }

    /// Answers whether the block is still there and small enough to be merged.
    fn filter_block(&mut self, record: Ref, keep: impl Fn(u8) -> Option<u8>) -> bool {
        let block = self.block(record);
        let mut kept = Vec::new();
        let mut flags = Vec::new();
        let mut dropped_cells = 0;
        for cell in block.cells() {
            match keep(cell.flags) {
                Some(new) => {
                    flags.push((kept.len(), new));
                    kept.extend_from_slice(&block.cell_bytes()[cell.start..cell.end]);
                }
                None => dropped_cells += u64::from(cell.flags & TOMBSTONE == 0),
            }
        }
        let hash = short_hash(hash_key(block.key()));
        let shrunk = kept.len() < block.cells_bytes();
        self.cells -= dropped_cells;
        if kept.is_empty() {
            let spot = self.spot_of_block(hash, record);
            self.remove_block(hash, spot);
            return false;
        }
        for (at, flags) in flags {
            kept[at] = flags;
        }
        let bytes = self.arena.get_mut(record);
        let length = Block(bytes).cells_bytes();
        splice(bytes, 0, length, &kept);
        shrunk && kept.len() < MAX_CELLS_BYTES / 8
    }

    /// Drops tombstones that a completed checkpoint has recorded; most blocks have none and are not rewritten.
    pub(super) fn filter_tombstones(&mut self, records: Vec<Ref>) -> Result<(), StateError> {
        let mut with_tombstones = Vec::new();
        for record in records {
            let unchanged_tombstone =
                |c: BlockCell<'_>| c.flags & (TOMBSTONE | CHANGED) == TOMBSTONE;
            if self.block(record).cells().any(unchanged_tombstone) {
                with_tombstones.push(record);
            } else {
                self.flag_block(record, |flags| flags & !SEALED);
            }
        }
        self.filter(&with_tombstones, |flags| {
            match flags & (TOMBSTONE | CHANGED) {
                TOMBSTONE => None,
                _ => Some(flags & !SEALED),
            }
        })
    }

    pub(super) fn flag_block(&mut self, record: Ref, change: impl Fn(u8) -> u8) {
        let bytes = self.arena.get_mut(record);
        let mut changed = Vec::new();
        for cell in Block(bytes).cells() {
            let flags = change(cell.flags);
            if flags != cell.flags {
                changed.push((cell.start, flags));
            }
        }
        for (start, flags) in changed {
            set_flags(bytes, start, flags);
        }
    }
}

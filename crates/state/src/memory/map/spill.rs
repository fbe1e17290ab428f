//! Taking blocks out of an overlay, to be written to RocksDB.

use super::{MapTable, Slot};
use crate::memory::arena::Ref;
use crate::memory::block::{CHANGED, set_mark};
use crate::memory::changes::Listed;
use crate::memory::spread;
use crate::memory::sweep::Swept;
use crate::table::StateError;
use tidegate_types::{hash_key, key_group};

impl MapTable {
    /// From now on the store below may know cells which this table does not.
    pub fn begin_below(&mut self) {
        self.below_is_empty = false;
    }

    /// Takes blocks whose cells completed checkpoints hold, and others where it is told to. They stay until
    /// [`MapTable::spilled`].
    pub fn sweep(&mut self, swept: &mut Swept) -> Result<(), StateError> {
        self.hand.start();
        while !swept.is_full() {
            let arena = &self.arena;
            let Some(page) = self.hand.next(|last| arena.next_full_page(last)) else {
                break;
            };
            for record in self.arena.records(page) {
                self.sweep_block(record, swept)?;
            }
        }
        Ok(())
    }

    fn sweep_block(&mut self, record: Ref, swept: &mut Swept) -> Result<(), StateError> {
        let block = self.block(record);
        let listed = self.changes.listed(block.mark(), record);
        if listed == Some(Listed::Spilling) || (listed.is_some() && !swept.through) {
            return Ok(());
        }
        let key = block.key();
        let group = key_group(hash_key(key));
        for cell in block.cells() {
            swept
                .cells
                .push_in_group(group, key, cell.sub, cell.value());
            if cell.flags & CHANGED != 0 {
                swept.unsealed.push_in_group(group, key, cell.sub, None);
            }
        }
        swept.bytes += block.0.len() + size_of::<Slot>() + 1;
        let mark = self.changes.mark_spilling(block.mark(), record)?;
        set_mark(self.arena.get_mut(record), mark);
        Ok(())
    }

    /// What the last sweep took is in the store below: it goes from here, unless it has changed since.
    pub fn spilled(&mut self) -> Result<(), StateError> {
        let records = self.changes.spilled();
        self.filter(&records, |_| None)?;
        if self.index.len() * 4 < self.index.capacity() {
            let capacity = self.index.len() * 2;
            self.index.shrink_to(capacity, |s| spread(s.hash));
        }
        self.settle()
    }
}

//! Which records changed, by checkpoint.
//!
//! Each record carries a word (its *mark*) that says in which list, and where in it, the record stands. A mark may be
//! stale: it holds only if the list really has this record at that place. So marking is O(1), forgetting a whole list
//! when its checkpoint completes touches no record, and a record stands in at most one list: the newest in which it
//! changed.

use super::arena::Ref;
use crate::StateError;
use std::collections::VecDeque;
use tidegate_types::CheckpointId;

/// Where a record stands in the lists; [`UNMARKED`] for a record that never changed.
pub type Mark = u32;

pub const UNMARKED: Mark = u32::MAX;
const LISTS: usize = 8;
const INDEX_BITS: u32 = 29;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
/// In place of a record that has left the list.
const GONE: Ref = u32::MAX;

#[derive(Debug, Default)]
pub struct Changes {
    lists: [Vec<Ref>; LISTS],
    active: usize,
    sealed: VecDeque<(CheckpointId, usize)>,
}

impl Changes {
    pub fn memory_bytes(&self) -> usize {
        self.lists
            .iter()
            .map(|l| l.capacity() * size_of::<Ref>())
            .sum()
    }

    /// How many records changed since the last seal (some of them may be gone by now).
    pub fn active_len(&self) -> usize {
        self.lists[self.active].len()
    }

    pub fn any_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Whether the record is in any list: it changed since the last completed checkpoint.
    pub fn contains(&self, mark: Mark, record: Ref) -> bool {
        mark != UNMARKED && self.lists[list(mark)].get(index(mark)) == Some(&record)
    }

    /// Puts the record into the active list; answers its new mark.
    #[must_use]
    pub fn mark(&mut self, mark: Mark, record: Ref) -> Mark {
        if self.contains(mark, record) {
            if list(mark) == self.active {
                return mark;
            }
            self.lists[list(mark)][index(mark)] = GONE;
        }
        let active = &mut self.lists[self.active];
        assert!(
            active.len() < INDEX_MASK as usize,
            "more changes than a list can number"
        );
        active.push(record);
        ((self.active as u32) << INDEX_BITS) | (active.len() as u32 - 1)
    }

    /// The record has a new address; its mark stays as it is.
    pub fn moved(&mut self, mark: Mark, old: Ref, new: Ref) {
        if self.contains(mark, old) {
            self.lists[list(mark)][index(mark)] = new;
        }
    }

    /// The record is freed.
    pub fn removed(&mut self, mark: Mark, record: Ref) {
        if self.contains(mark, record) {
            self.lists[list(mark)][index(mark)] = GONE;
        }
    }

    /// The records of the active list.
    pub fn active(&self) -> impl Iterator<Item = Ref> + '_ {
        self.lists[self.active]
            .iter()
            .copied()
            .filter(|r| *r != GONE)
    }

    /// Empties the active list.
    pub fn clear_active(&mut self) {
        self.lists[self.active] = Vec::new();
    }

    /// The active list now belongs to this checkpoint.
    pub fn seal(&mut self, checkpoint: CheckpointId) -> Result<(), StateError> {
        let free =
            (0..LISTS).find(|l| *l != self.active && self.sealed.iter().all(|(_, s)| s != l));
        let Some(free) = free else {
            return Err(StateError::Backend(format!(
                "{LISTS} checkpoints are under way at once"
            )));
        };
        self.sealed.push_back((checkpoint, self.active));
        self.active = free;
        Ok(())
    }

    /// Forgets the lists of this checkpoint and earlier ones, and hands out their records.
    pub fn completed(&mut self, checkpoint: CheckpointId) -> Vec<Ref> {
        let mut records = Vec::new();
        while let Some((_, list)) = self.sealed.pop_front_if(|(c, _)| *c <= checkpoint) {
            append_live(&mut records, std::mem::take(&mut self.lists[list]));
        }
        records
    }

    /// Forgets the lists of this checkpoint and later ones (they build on it), and hands out their records: the owner
    /// marks them again.
    pub fn aborted(&mut self, checkpoint: CheckpointId) -> Vec<Ref> {
        let mut records = Vec::new();
        while let Some((_, list)) = self.sealed.pop_back_if(|(c, _)| *c >= checkpoint) {
            append_live(&mut records, std::mem::take(&mut self.lists[list]));
        }
        records
    }
}

fn append_live(records: &mut Vec<Ref>, list: Vec<Ref>) {
    if records.is_empty() {
        *records = list;
        records.retain(|r| *r != GONE);
    } else {
        records.extend(list.into_iter().filter(|r| *r != GONE));
    }
}

fn list(mark: Mark) -> usize {
    (mark >> INDEX_BITS) as usize
}

fn index(mark: Mark) -> usize {
    (mark & INDEX_MASK) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stands_in_the_newest_list_only() {
        let mut changes = Changes::default();
        let a = changes.mark(UNMARKED, 1);
        let b = changes.mark(UNMARKED, 2);
        assert_eq!(changes.mark(a, 1), a);
        changes.seal(CheckpointId(1)).expect("a free list");
        let b = changes.mark(b, 2);
        changes.moved(a, 1, 7);
        assert_eq!(changes.active().collect::<Vec<_>>(), [2]);
        assert!(changes.contains(a, 7) && changes.contains(b, 2));
        assert_eq!(changes.completed(CheckpointId(1)), [7]);
        assert!(!changes.contains(a, 7));
    }

    #[test]
    fn an_aborted_checkpoint_takes_later_ones_along() {
        let mut changes = Changes::default();
        for c in 1..4 {
            let _ = changes.mark(UNMARKED, c as u32);
            changes.seal(CheckpointId(c)).expect("a free list");
        }
        assert_eq!(changes.aborted(CheckpointId(2)), [3, 2]);
        assert_eq!(changes.completed(CheckpointId(1)), [1]);
        assert!(!changes.any_sealed());
    }
}

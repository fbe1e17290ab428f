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
    /// The list of records that are being written to the store below an overlay.
    spilling: Option<usize>,
}

/// What a record is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// It changed since the last seal.
    Active,
    /// It is part of a checkpoint under way.
    Sealed,
    /// It is being written to the store below.
    Spilling,
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

    /// Loads the place that a mark tells of.
    pub fn warm(&self, mark: Mark) {
        if mark != UNMARKED {
            std::hint::black_box(self.lists[list(mark)].get(index(mark)).copied());
        }
    }

    /// In which list the record is.
    pub fn listed(&self, mark: Mark, record: Ref) -> Option<Listed> {
        let list = self.contains(mark, record).then(|| list(mark))?;
        Some(match list {
            list if list == self.active => Listed::Active,
            list if Some(list) == self.spilling => Listed::Spilling,
            _ => Listed::Sealed,
        })
    }

    /// Puts the record into the active list; answers its new mark.
    #[must_use]
    pub fn mark(&mut self, mark: Mark, record: Ref) -> Mark {
        self.move_to(self.active, mark, record)
    }

    /// Puts the record into the list of those that are being written to the store below, whatever list it was in.
    pub fn mark_spilling(&mut self, mark: Mark, record: Ref) -> Result<Mark, StateError> {
        let spilling = match self.spilling {
            Some(list) => list,
            None => {
                let list = self.free_list()?;
                *self.spilling.insert(list)
            }
        };
        Ok(self.move_to(spilling, mark, record))
    }

    /// Forgets the list of records that were being written to the store below, and hands out those that have not
    /// changed since.
    pub fn spilled(&mut self) -> Vec<Ref> {
        let mut records = Vec::new();
        if let Some(list) = self.spilling.take() {
            append_live(&mut records, std::mem::take(&mut self.lists[list]));
        }
        records
    }

    fn move_to(&mut self, target: usize, mark: Mark, record: Ref) -> Mark {
        if self.contains(mark, record) {
            if list(mark) == target {
                return mark;
            }
            self.lists[list(mark)][index(mark)] = GONE;
        }
        let records = &mut self.lists[target];
        assert!(
            records.len() < INDEX_MASK as usize,
            "more changes than a list can number"
        );
        records.push(record);
        ((target as u32) << INDEX_BITS) | (records.len() as u32 - 1)
    }

    fn free_list(&self) -> Result<usize, StateError> {
        let taken = |l: usize| {
            l == self.active
                || Some(l) == self.spilling
                || self.sealed.iter().any(|(_, sealed)| *sealed == l)
        };
        (0..LISTS).find(|l| !taken(*l)).ok_or_else(|| {
            StateError::Backend(format!("{LISTS} checkpoints are under way at once"))
        })
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

    /// The active list now belongs to this checkpoint.
    pub fn seal(&mut self, checkpoint: CheckpointId) -> Result<(), StateError> {
        let free = self.free_list()?;
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
    fn a_record_that_changes_while_it_is_written_is_not_let_go() {
        let mut changes = Changes::default();
        let a = changes.mark_spilling(UNMARKED, 1).expect("a free list");
        let b = changes.mark_spilling(UNMARKED, 2).expect("a free list");
        assert_eq!(changes.listed(a, 1), Some(Listed::Spilling));
        let b = changes.mark(b, 2);
        changes.moved(a, 1, 7);
        changes.seal(CheckpointId(1)).expect("a free list");
        assert_eq!(changes.listed(b, 2), Some(Listed::Sealed));
        assert_eq!(changes.spilled(), [7]);
        assert_eq!(changes.listed(a, 7), None);
        assert_eq!(changes.completed(CheckpointId(1)), [2]);
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

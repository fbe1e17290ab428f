//! A state table in a `BTreeMap`: slow, and obviously right.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use tidegate_state::{Cell, Change, Run, RunBuilder, StateError, Table, TableSpec, TableStats};
use tidegate_types::{CheckpointId, KeyGroup, hash_key, key_group};

type Address = (Vec<u8>, Vec<u8>);

pub struct ModelTable {
    spec: TableSpec,
    cells: BTreeMap<Address, Vec<u8>>,
    changed: BTreeSet<Address>,
    /// What was sealed and is not yet known to be durable.
    sealed: BTreeMap<CheckpointId, BTreeSet<Address>>,
}

impl ModelTable {
    pub fn new(spec: TableSpec) -> Self {
        Self {
            spec,
            cells: BTreeMap::new(),
            changed: BTreeSet::new(),
            sealed: BTreeMap::new(),
        }
    }

    fn under(&self, key: &[u8]) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        let key = key.to_vec();
        let from = (key.clone(), Vec::new());
        self.cells
            .range(from..)
            .take_while(move |((k, _), _)| *k == key)
            .map(|((_, sub), v)| (&sub[..], &v[..]))
            .collect::<Vec<_>>()
            .into_iter()
    }
}

fn within(sub: &[u8], (low, high): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    let above = match low {
        Bound::Included(low) => sub >= low,
        Bound::Excluded(low) => sub > low,
        Bound::Unbounded => true,
    };
    let below = match high {
        Bound::Included(high) => sub <= high,
        Bound::Excluded(high) => sub < high,
        Bound::Unbounded => true,
    };
    above && below
}

impl Table for ModelTable {
    fn get_many(
        &self,
        cells: &[Cell<'_>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), StateError> {
        // Backwards, since no order is promised.
        for (index, cell) in cells.iter().enumerate().rev() {
            visit(
                index,
                self.cells
                    .get(&(cell.key.to_vec(), cell.sub.to_vec()))
                    .map(Vec::as_slice),
            );
        }
        Ok(())
    }

    fn write_many(&mut self, changes: &[Change<'_>]) -> Result<(), StateError> {
        for change in changes {
            let address = (change.cell.key.to_vec(), change.cell.sub.to_vec());
            self.changed.insert(address.clone());
            match change.value {
                Some(value) => self.cells.insert(address, value.to_vec()),
                None => self.cells.remove(&address),
            };
        }
        Ok(())
    }

    fn scan(
        &self,
        key: &[u8],
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let mut found: Vec<(&[u8], &[u8])> = self
            .under(key)
            .filter(|(sub, _)| within(sub, bounds))
            .collect();
        if reverse {
            found.reverse();
        }
        for (sub, value) in found {
            if visit(sub, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_many(
        &self,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, &[u8], &[u8]),
    ) -> Result<(), StateError> {
        for (index, key) in keys.iter().enumerate().rev() {
            self.under(key)
                .for_each(|(sub, value)| visit(index, sub, value));
        }
        Ok(())
    }

    fn scan_all(
        &self,
        visit: &mut dyn FnMut(KeyGroup, &[u8], &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        for ((key, sub), value) in &self.cells {
            if visit(key_group(hash_key(key)), key, sub, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn seal(&mut self, checkpoint: CheckpointId) -> Result<Option<Run>, StateError> {
        let changed = std::mem::take(&mut self.changed);
        let all: BTreeSet<Address> = self
            .sealed
            .values()
            .flatten()
            .chain(&changed)
            .cloned()
            .collect();
        self.sealed.insert(checkpoint, changed);
        let map_form = matches!(self.spec.form, tidegate_state::Form::Map);
        let mut builder = RunBuilder::new(self.spec.id, map_form, all.len());
        for address in &all {
            builder.push(
                &address.0,
                &address.1,
                self.cells.get(address).map(Vec::as_slice),
            );
        }
        Ok(builder.finish())
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), StateError> {
        self.sealed.retain(|id, _| *id > checkpoint);
        Ok(())
    }

    fn aborted(&mut self, checkpoint: CheckpointId) {
        self.changed
            .extend(self.sealed.remove(&checkpoint).into_iter().flatten());
    }

    fn restore(&mut self, run: &Run) -> Result<(), StateError> {
        for entry in run.iter() {
            let address = (entry.key.to_vec(), entry.sub.to_vec());
            match entry.value {
                Some(value) => self.cells.insert(address, value.to_vec()),
                None => self.cells.remove(&address),
            };
        }
        Ok(())
    }

    fn stats(&self) -> TableStats {
        let bytes = |(key, sub): &Address| (key.len() + sub.len()) as u64;
        TableStats {
            cells: self.cells.len() as u64,
            bytes: self
                .cells
                .iter()
                .map(|(address, value)| bytes(address) + value.len() as u64)
                .sum(),
            changed_bytes: self.changed.iter().map(bytes).sum(),
        }
    }
}

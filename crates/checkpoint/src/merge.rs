//! Merged runs, and how a later manifest adopts them.

use crate::manifest::TableEntry;
use crate::run_file::RunRef;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_types::TableId;

/// A merge that is done and waits for the next manifest.
#[derive(Debug, Clone)]
pub(crate) struct FinishedMerge {
    pub id: u64,
    pub table: TableId,
    /// Neighbours in the table's list of runs.
    pub inputs: Vec<(Arc<str>, u32)>,
    /// `None` when nothing was left.
    pub output: Option<RunRef>,
}

impl FinishedMerge {
    /// Puts the output in place of the inputs. False when the table has changed too much for that.
    pub fn apply(&self, tables: &mut BTreeMap<TableId, Arc<TableEntry>>) -> bool {
        let Some(entry) = tables.get_mut(&self.table) else {
            return false;
        };
        let same = |run: &RunRef, input: &(Arc<str>, u32)| run.identity() == (&*input.0, input.1);
        let Some(first) = entry.runs.iter().position(|r| same(r, &self.inputs[0])) else {
            return false;
        };
        let window = first..first + self.inputs.len();
        let all = entry.runs.get(window.clone()).is_some_and(|w| w.iter().zip(&self.inputs).all(|(r, i)| same(r, i)));
        if all {
            Arc::make_mut(entry).runs.splice(window, self.output.clone());
        }
        all
    }
}

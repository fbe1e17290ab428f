//! What a worker does when a plan takes over that was built beside the one that ran.
//!
//! Everything stands still at a barrier, and both the old contents and the new ones are complete. Where the new rows can
//! be kept with the old ones, the store stays and the difference becomes part of the next epoch, for the store and for
//! whoever reads the view. Where they cannot (there are more columns), the new rows become the view's contents as they
//! are, and only those who read the view are given the difference, in the columns that they know.

use crate::command::{Install, TakesOver};
use crate::hub::Hub;
use std::rc::Rc;
use std::sync::Arc;
use tidegate_state::{StateError, ViewStore};
use tidegate_types::{Batch, Epoch};

/// What a root has to add to its first epoch.
#[derive(Default)]
pub(crate) struct First {
    /// Changes of the view.
    pub changes: Vec<Batch>,
    /// Changes that are in the store already.
    pub exported: Vec<Batch>,
}

pub(crate) struct TakingOver {
    pub store: Arc<ViewStore>,
    pub first: First,
}

impl TakingOver {
    pub fn new(hub: &Rc<Hub>, install: &Install, from: &TakesOver) -> Result<Self, StateError> {
        let relation = install.spec.relation();
        let last = Epoch(install.start.0 - 1);
        let old = hub.view(relation);
        let old = old.expect("a view that was running has a store");
        let new = from.arriving.stores.lock()[hub.worker].take();
        let new = new.expect("every worker has built the plan that arrives");
        if from.from.contents == install.spec.dataflow.contents {
            let changes = old.difference(&new, last)?;
            let table = new.spec().table;
            hub.backends.drop_table(install.spec.backend, table);
            let exported = Vec::new();
            return Ok(Self {
                store: old,
                first: First { changes, exported },
            });
        }
        let exporter = hub.exporter(relation);
        let exported = match exporter.borrow().subscribers.is_empty() {
            true => Vec::new(),
            false => old.difference_in_columns(&new, last)?,
        };
        old.end_subscriptions();
        hub.backends
            .drop_table(install.spec.backend, old.spec().table);
        Ok(Self {
            store: new,
            first: First {
                changes: Vec::new(),
                exported,
            },
        })
    }
}

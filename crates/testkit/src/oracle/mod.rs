//! Every operator again, from scratch over whole collections: slow, and written from what SQL says rather than from how the
//! operators work.

pub mod aggregate;
pub mod join;
mod pairs;
pub mod rows;
pub mod session;
pub mod window;

use crate::value::ZSet;
use std::collections::BTreeMap;

/// What an operator's output and errors must add up to.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Expected {
    pub rows: ZSet,
    /// Rows that fail, by SQLSTATE.
    pub errors: BTreeMap<String, i64>,
}

impl Expected {
    pub fn fail(&mut self, state: &str, count: i64) {
        let total = self.errors.entry(state.to_owned()).or_default();
        *total += count;
        if *total == 0 {
            self.errors.remove(state);
        }
    }
}

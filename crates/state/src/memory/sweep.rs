//! Taking cells out of an overlay, to be written to the store below it.
//!
//! A sweep goes round the pages of an arena, a little further each time, and so meets the cells in the order of their
//! age. It ends when it has found what it was asked for or has been round twice: once may only have told apart what is in
//! use from what is not.

use crate::run::RunBuilder;
use tidegate_types::TableId;

/// What a sweep has taken.
pub struct Swept {
    /// Each cell once.
    pub cells: RunBuilder,
    /// Those of them that no checkpoint holds, without their values.
    pub unsealed: RunBuilder,
    /// Memory that is free once they are written.
    pub bytes: usize,
    /// A sweep ends at so many.
    goal_bytes: usize,
    /// Cells are taken although no completed checkpoint holds them.
    pub through: bool,
}

impl Swept {
    pub fn new(table: TableId, map_form: bool, goal_bytes: usize, through: bool) -> Self {
        Self {
            cells: RunBuilder::new(table, map_form, 0),
            unsealed: RunBuilder::new(table, map_form, 0),
            bytes: 0,
            goal_bytes,
            through,
        }
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= self.goal_bytes
    }
}

/// Where the sweeps of a table have come to.
#[derive(Debug, Default)]
pub struct Hand {
    page: Option<u32>,
    rounds: u32,
}

impl Hand {
    /// At the start of a sweep.
    pub fn start(&mut self) {
        self.rounds = 0;
    }

    /// The next page, as the arena answers it for the last one.
    pub fn next(&mut self, page_after: impl Fn(Option<u32>) -> Option<u32>) -> Option<u32> {
        while self.rounds < 3 {
            self.page = page_after(self.page);
            if self.page.is_some() {
                return self.page;
            }
            self.rounds += 1;
        }
        None
    }
}

//! A worker's tally of who has passed which barrier and what was sealed at it.
//!
//! Every driver of the worker signs in when it is built and reports each barrier it has passed, with the state that it
//! sealed when the barrier is a checkpoint's. When all have, the worker has passed the barrier.

use std::collections::{BTreeMap, HashMap};
use tidegate_state::Run;
use tidegate_types::{Epoch, OperatorId, RelationId};

/// What one driver has to say when it passes a barrier.
pub(crate) struct Settled {
    pub operator: OperatorId,
    /// Empty unless the barrier is a checkpoint's.
    pub runs: Vec<Run>,
    /// Time it spent sealing.
    pub micros: u64,
}

impl Settled {
    pub fn nothing(operator: OperatorId) -> Self {
        Self {
            operator,
            runs: Vec::new(),
            micros: 0,
        }
    }
}

/// How long an operator that had something to seal took for it.
pub(crate) type SealTime = (RelationId, OperatorId, u64);

/// What a worker has to say when it has passed a barrier.
#[derive(Default)]
pub(crate) struct Passed {
    /// What its drivers sealed, by relation. Empty unless the barrier is a checkpoint's.
    pub runs: Vec<(RelationId, Run)>,
    /// Time that its drivers spent sealing, together: so long the worker did nothing else.
    pub seal_micros: u64,
    /// Of those that sealed something.
    pub seal_times: Vec<SealTime>,
    /// A driver let the barrier overtake rows, which are part of a later epoch now.
    pub overtaken: bool,
}

#[derive(Default)]
struct Pending {
    /// Drivers yet to come, by relation, so that a dropped relation can be forgotten.
    waiting: HashMap<RelationId, usize>,
    passed: Passed,
}

#[derive(Default)]
pub(crate) struct Board {
    drivers: HashMap<RelationId, usize>,
    pending: BTreeMap<Epoch, Pending>,
}

impl Board {
    /// A driver of this relation takes part from the next barrier on.
    pub fn sign_in(&mut self, relation: RelationId) {
        *self.drivers.entry(relation).or_default() += 1;
    }

    /// A barrier is on its way to all drivers that have signed in.
    pub fn expect(&mut self, epoch: Epoch) {
        let pending = Pending {
            waiting: self.drivers.clone(),
            ..Pending::default()
        };
        self.pending.insert(epoch, pending);
    }

    pub fn pass(&mut self, relation: RelationId, epoch: Epoch, settled: Settled) {
        let pending = self
            .pending
            .get_mut(&epoch)
            .expect("barriers are expected before they are passed");
        let left = pending
            .waiting
            .get_mut(&relation)
            .expect("only drivers that have signed in pass");
        *left -= 1;
        if *left == 0 {
            pending.waiting.remove(&relation);
        }
        let passed = &mut pending.passed;
        passed.seal_micros += settled.micros;
        if !settled.runs.is_empty() {
            let time = (relation, settled.operator, settled.micros);
            passed.seal_times.push(time);
        }
        let runs = settled.runs.into_iter();
        passed.runs.extend(runs.map(|run| (relation, run)));
    }

    /// Rows of this epoch have become part of a later one.
    pub fn overtaken(&mut self, epoch: Epoch) {
        if let Some(pending) = self.pending.get_mut(&epoch) {
            pending.passed.overtaken = true;
        }
    }

    /// Nobody waits for this relation any more, and what it sealed for barriers still under way is dropped.
    pub fn forget(&mut self, relation: RelationId) {
        self.drivers.remove(&relation);
        for pending in self.pending.values_mut() {
            pending.waiting.remove(&relation);
            pending.passed.runs.retain(|(r, _)| *r != relation);
        }
    }

    /// The oldest barrier that everybody has passed, if it was not reported yet.
    pub fn take_passed(&mut self) -> Option<(Epoch, Passed)> {
        let first = self.pending.first_entry()?;
        if !first.get().waiting.is_empty() {
            return None;
        }
        let epoch = *first.key();
        Some((epoch, first.remove().passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_is_passed_when_all_drivers_have_and_in_order() {
        let mut board = Board::default();
        let (a, b) = (RelationId(1), RelationId(2));
        let settled = |micros| Settled {
            micros,
            ..Settled::nothing(OperatorId(0))
        };
        board.sign_in(a);
        board.sign_in(a);
        board.expect(Epoch(1));
        board.sign_in(b);
        board.expect(Epoch(2));
        board.pass(a, Epoch(1), settled(3));
        assert!(board.take_passed().is_none());
        board.pass(b, Epoch(2), settled(0));
        board.pass(a, Epoch(1), settled(5));
        let (epoch, passed) = board
            .take_passed()
            .expect("both drivers of epoch 1 have passed");
        assert_eq!((epoch, passed.seal_micros), (Epoch(1), 8));
        assert!(board.take_passed().is_none());
        board.forget(a);
        assert_eq!(board.take_passed().map(|(e, _)| e), Some(Epoch(2)));
    }
}

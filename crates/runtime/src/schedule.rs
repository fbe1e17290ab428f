//! When the next checkpoint begins, and which are under way.
//!
//! Knows nothing of barriers beyond this: a checkpoint begins with one, and after a barrier that overtook an epoch another
//! must have been passed by everybody before the next may overtake.

use crate::policy::{CheckpointAlignment, CheckpointPolicy};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use tidegate_types::CheckpointId;

#[derive(Debug)]
pub(crate) struct Schedule {
    next: CheckpointId,
    /// Begun and neither durable nor given up, oldest first.
    active: Vec<CheckpointId>,
    /// Somebody waits for one.
    wanted: bool,
    /// And it must not overtake.
    aligned_wanted: bool,
    last_began: Instant,
    last_ended: Option<Instant>,
    /// Barriers have been cut since the last checkpoint, or it was given up.
    has_changes: bool,
    may_overtake: bool,
    failed_in_a_row: u64,
}

impl Schedule {
    pub fn new(next: CheckpointId) -> Self {
        Self {
            next,
            active: Vec::new(),
            wanted: false,
            aligned_wanted: false,
            last_began: Instant::now(),
            last_ended: None,
            has_changes: false,
            // Until the first barrier has passed, readers wait for one that ends an epoch.
            may_overtake: false,
            failed_in_a_row: 0,
        }
    }

    pub fn want(&mut self, aligned: bool) {
        self.wanted = true;
        self.aligned_wanted |= aligned;
    }

    /// Whether the next barrier is a checkpoint's. `arrived`: there is something that no barrier has closed.
    pub fn is_due(&self, policy: &CheckpointPolicy, now: Instant, arrived: bool) -> bool {
        if !self.has_room(policy) {
            return false;
        }
        let on_time = self.on_time(policy).is_some_and(|at| now >= at);
        self.wanted || (on_time && (self.has_changes || arrived))
    }

    fn has_room(&self, policy: &CheckpointPolicy) -> bool {
        let must_wait = policy.alignment == CheckpointAlignment::Unaligned
            && !self.aligned_wanted
            && !self.may_overtake;
        self.active.len() < policy.max_concurrent && !must_wait
    }

    /// When the interval and the pause are over.
    fn on_time(&self, policy: &CheckpointPolicy) -> Option<Instant> {
        let at = self.last_began + policy.interval?;
        let rested = self.last_ended.map(|ended| ended + policy.min_pause);
        Some(rested.map_or(at, |rested| at.max(rested)))
    }

    /// When to look again, if nothing else happens.
    pub fn deadline(&self, policy: &CheckpointPolicy) -> Option<Instant> {
        if !self.has_room(policy) || !self.has_changes {
            return None;
        }
        self.on_time(policy)
    }

    /// Whether the next checkpoint's barrier overtakes from the start.
    pub fn overtakes(&self, policy: &CheckpointPolicy) -> bool {
        policy.alignment == CheckpointAlignment::Unaligned
            && !self.aligned_wanted
            && self.may_overtake
    }

    pub fn may_overtake(&self) -> bool {
        self.may_overtake
    }

    pub fn overtook(&mut self) {
        self.may_overtake = false;
    }

    /// A barrier has ended an epoch everywhere.
    pub fn epoch_ended(&mut self) {
        self.may_overtake = true;
    }

    /// The barrier of a checkpoint is cut. Answers its number, and whether it was asked to be aligned.
    pub fn begin(&mut self, now: Instant) -> (CheckpointId, bool) {
        let id = self.next;
        self.next = CheckpointId(id.0 + 1);
        self.active.push(id);
        self.wanted = false;
        self.last_began = now;
        (id, std::mem::take(&mut self.aligned_wanted))
    }

    /// A barrier is cut. Answers whether that changes when to look again.
    pub fn barrier_cut(&mut self, is_checkpoint: bool) -> bool {
        std::mem::replace(&mut self.has_changes, !is_checkpoint) == is_checkpoint
    }

    pub fn completed(&mut self, checkpoint: CheckpointId) {
        self.active.retain(|c| *c > checkpoint);
        self.last_ended = Some(Instant::now());
        self.failed_in_a_row = 0;
    }

    /// This one is given up and every later one with it, since they build upon it. Answers their numbers, and how many
    /// have failed since the last that did not.
    pub fn aborted(&mut self, checkpoint: CheckpointId) -> (RangeInclusive<CheckpointId>, u64) {
        self.active.retain(|c| *c < checkpoint);
        self.last_ended = Some(Instant::now());
        self.has_changes = true;
        self.failed_in_a_row += 1;
        let last = CheckpointId(self.next.0 - 1);
        (checkpoint..=last, self.failed_in_a_row)
    }
}

/// "3 s", for people.
pub(crate) fn shown(duration: Duration) -> String {
    format!("{duration:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> CheckpointPolicy {
        CheckpointPolicy {
            interval: Some(Duration::from_secs(1)),
            ..CheckpointPolicy::default()
        }
    }

    #[test]
    fn interval_pause_and_concurrency_hold_a_checkpoint_back() {
        let mut schedule = Schedule::new(CheckpointId(1));
        let start = schedule.last_began;
        let second = Duration::from_secs(1);
        assert!(!schedule.is_due(&policy(), start, true));
        assert!(!schedule.is_due(&policy(), start + second, false));
        assert!(schedule.is_due(&policy(), start + second, true));
        schedule.begin(start + second);
        assert!(!schedule.is_due(&policy(), start + 5 * second, true));
        let two = CheckpointPolicy {
            max_concurrent: 2,
            ..policy()
        };
        assert!(schedule.is_due(&two, start + 5 * second, true));
        schedule.completed(CheckpointId(1));
        let paused = CheckpointPolicy {
            min_pause: Duration::from_secs(3600),
            ..policy()
        };
        assert!(!schedule.is_due(&paused, start + 5 * second, true));
        schedule.want(false);
        assert!(schedule.is_due(&paused, start, true), "asked for by hand");
    }

    #[test]
    fn between_two_that_overtake_an_epoch_ends() {
        let unaligned = CheckpointPolicy {
            alignment: CheckpointAlignment::Unaligned,
            ..policy()
        };
        let mut schedule = Schedule::new(CheckpointId(1));
        let later = schedule.last_began + Duration::from_secs(9);
        assert!(!schedule.is_due(&unaligned, later, true));
        schedule.want(true);
        assert!(
            schedule.is_due(&unaligned, later, true),
            "an aligned one may begin"
        );
        assert!(!schedule.overtakes(&unaligned));
        assert_eq!(schedule.begin(later), (CheckpointId(1), true));
        schedule.completed(CheckpointId(1));
        schedule.epoch_ended();
        assert!(schedule.overtakes(&unaligned));
        schedule.overtook();
        assert!(!schedule.is_due(&unaligned, later + Duration::from_secs(9), true));
    }

    #[test]
    fn an_aborted_checkpoint_takes_later_ones_along() {
        let mut schedule = Schedule::new(CheckpointId(4));
        let now = Instant::now();
        for _ in 0..3 {
            schedule.begin(now);
        }
        let (range, failed) = schedule.aborted(CheckpointId(5));
        assert_eq!((range, failed), (CheckpointId(5)..=CheckpointId(6), 1));
        assert_eq!(schedule.active, [CheckpointId(4)]);
        schedule.completed(CheckpointId(4));
        assert_eq!(schedule.aborted(CheckpointId(7)).1, 1);
    }
}

//! How far event time has come, put together from what the readers of sources tell.
//!
//! A reader tells at each barrier how far the rows of its splits have come. The lowest of those that have to be waited for is a
//! source's next floor; it is what a later barrier says is reached, once everybody has passed the one that carried it
//! ([`tidegate_types::watermark`]). Neither goes back.
//!
//! A split that has given nothing for the timeout is not waited for. A source all of whose splits are idle follows the sources
//! that are read together with it: it must not hold a join or a union back. Rows that it gives later are late if they are behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_types::watermark::{END_OF_TIME, EventTimes};
use tidegate_types::{RelationId, WorkerId};

/// What one worker's splits of a source have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// To be waited for, here; `None`: no row has come yet.
    Active(Option<i64>),
    /// No split of the worker has given anything for a while; the furthest they came to.
    Idle(Option<i64>),
    /// None will give anything again.
    Ended,
}

/// Answers the sources that are read by one view, for each view.
pub(crate) type Together<'a> = &'a dyn Fn() -> Vec<BTreeSet<RelationId>>;

#[derive(Debug, Default)]
pub(crate) struct EventClock {
    told: BTreeMap<RelationId, BTreeMap<WorkerId, Told>>,
    workers: usize,
    /// As the newest barrier carries them.
    floors: EventTimes,
    /// Floors that everybody holds to, and everything from before is processed.
    settled: EventTimes,
    /// As the newest barrier carries it.
    reached: EventTimes,
}

impl EventClock {
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }

    /// Whether something is different now.
    pub fn tell(&mut self, source: RelationId, worker: WorkerId, told: Told) -> bool {
        let of_source = self.told.entry(source).or_default();
        of_source.insert(worker, told) != Some(told)
    }

    pub fn forget(&mut self, sources: &[RelationId]) {
        self.told.retain(|source, _| !sources.contains(source));
        for times in [&mut self.floors, &mut self.settled, &mut self.reached] {
            if sources.iter().any(|source| times.contains_key(source)) {
                Arc::make_mut(times).retain(|source, _| !sources.contains(source));
            }
        }
    }

    /// What is reached, and the newest floors.
    pub fn seen(&self) -> (EventTimes, EventTimes) {
        (self.reached.clone(), self.floors.clone())
    }

    pub fn is_used(&self) -> bool {
        !self.told.is_empty()
    }

    /// Everybody has passed a barrier with these floors, and no row was left in front of it.
    pub fn settle(&mut self, floors: &EventTimes) {
        self.settled = floors.clone();
    }

    /// Whether a barrier would carry anything new.
    pub fn has_news(&self, together: Together<'_>) -> bool {
        self.is_used()
            && (self.settled != self.reached || self.next_floors(together) != *self.floors)
    }

    /// What the next barrier carries: the floors and what is reached.
    pub fn advance(&mut self, together: Together<'_>) -> (EventTimes, EventTimes) {
        if self.is_used() {
            let next = self.next_floors(together);
            if next != *self.floors {
                self.floors = Arc::new(next);
            }
        }
        self.reached = self.settled.clone();
        (self.floors.clone(), self.reached.clone())
    }

    fn next_floors(&self, together: Together<'_>) -> BTreeMap<RelationId, i64> {
        let mut floors = (*self.floors).clone();
        let mut raise = |source: RelationId, time: i64| {
            let floor = floors.entry(source).or_insert(time);
            *floor = time.max(*floor);
        };
        let mut idle = BTreeSet::new();
        for source in self.told.keys() {
            match self.of_source(*source) {
                Told::Active(Some(time)) => raise(*source, time),
                Told::Active(None) => {}
                Told::Ended => raise(*source, END_OF_TIME),
                Told::Idle(time) => {
                    idle.insert(*source);
                    if let Some(time) = time {
                        raise(*source, time);
                    }
                }
            }
        }
        if idle.is_empty() {
            return floors;
        }
        let (active, together) = (floors.clone(), together());
        for source in &idle {
            let others = together.iter().filter(|group| group.contains(source));
            let others = others.flatten().filter(|other| !idle.contains(other));
            // Those that have not come anywhere yet are waited for.
            let times: Option<Vec<i64>> = others.map(|other| active.get(other).copied()).collect();
            let lowest = times
                .into_iter()
                .flatten()
                .filter(|t| *t != END_OF_TIME)
                .min();
            if let Some(lowest) = lowest {
                let floor = floors.entry(*source).or_insert(lowest);
                *floor = lowest.max(*floor);
            }
        }
        floors
    }

    fn of_source(&self, source: RelationId) -> Told {
        let told = &self.told[&source];
        if told.len() < self.workers {
            return Told::Active(None);
        }
        let active = told.values().filter_map(|told| match told {
            Told::Active(time) => Some(*time),
            _ => None,
        });
        // No row yet is less than any.
        if let Some(lowest) = active.min() {
            return Told::Active(lowest);
        }
        let idle = told.values().filter_map(|told| match told {
            Told::Idle(time) => Some(*time),
            _ => None,
        });
        idle.max().map_or(Told::Ended, Told::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RelationId = RelationId(1);
    const B: RelationId = RelationId(2);

    fn floors(clock: &mut EventClock, together: &[BTreeSet<RelationId>]) -> Vec<(u64, i64)> {
        let (floors, _) = clock.advance(&|| together.to_vec());
        floors.iter().map(|(r, t)| (r.0, *t)).collect()
    }

    #[test]
    fn the_slowest_worker_is_waited_for_and_time_does_not_go_back() {
        let mut clock = EventClock::new(2);
        clock.tell(A, 0, Told::Active(Some(10)));
        assert_eq!(floors(&mut clock, &[]), []);
        clock.tell(A, 1, Told::Active(None));
        assert_eq!(floors(&mut clock, &[]), []);
        clock.tell(A, 1, Told::Active(Some(7)));
        assert_eq!(floors(&mut clock, &[]), [(1, 7)]);
        clock.tell(A, 1, Told::Active(Some(5)));
        assert_eq!(floors(&mut clock, &[]), [(1, 7)]);
        clock.tell(A, 1, Told::Idle(Some(5)));
        assert_eq!(floors(&mut clock, &[]), [(1, 10)]);
        clock.tell(A, 0, Told::Ended);
        clock.tell(A, 1, Told::Ended);
        assert_eq!(floors(&mut clock, &[]), [(1, END_OF_TIME)]);
    }

    #[test]
    fn what_is_reached_is_what_everybody_has_held_to() {
        let mut clock = EventClock::new(1);
        clock.tell(A, 0, Told::Active(Some(10)));
        let (floors, reached) = clock.advance(&Vec::new);
        assert_eq!((floors.get(&A), reached.get(&A)), (Some(&10), None));
        assert!(!clock.has_news(&Vec::new));
        clock.settle(&floors);
        assert!(clock.has_news(&Vec::new));
        let (_, reached) = clock.advance(&Vec::new);
        assert_eq!(reached.get(&A), Some(&10));
        assert!(!clock.has_news(&Vec::new));
    }

    #[test]
    fn an_idle_source_follows_those_that_are_read_with_it() {
        let mut clock = EventClock::new(1);
        let together = [BTreeSet::from([A, B])];
        clock.tell(A, 0, Told::Active(Some(10)));
        clock.tell(B, 0, Told::Active(Some(3)));
        assert_eq!(floors(&mut clock, &together), [(1, 10), (2, 3)]);
        clock.tell(B, 0, Told::Idle(Some(3)));
        assert_eq!(floors(&mut clock, &[]), [(1, 10), (2, 3)]);
        assert_eq!(floors(&mut clock, &together), [(1, 10), (2, 10)]);
        clock.tell(A, 0, Told::Active(Some(20)));
        assert_eq!(floors(&mut clock, &together), [(1, 20), (2, 20)]);
        clock.tell(A, 0, Told::Idle(Some(20)));
        clock.tell(B, 0, Told::Active(Some(21)));
        assert_eq!(floors(&mut clock, &together), [(1, 21), (2, 21)]);
    }
}

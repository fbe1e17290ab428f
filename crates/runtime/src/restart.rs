//! When workers are started again after a failure, and when whoever keeps failing is left out.
//!
//! A failure is laid at the door of the view or sink whose code was running, or at nobody's. Each of them has a history of
//! its own, and the strategy decides from that: another attempt after a delay, or none. What happens without another
//! attempt is the supervisor's business: a view is suspended and the others go on; without a culprit there is nothing to
//! leave out, and the database stops.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use tidegate_types::RelationId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartStrategy {
    /// Each delay is twice the one before. Failures are in a row while less than `reset_after` lies between them; behind
    /// `attempts` restarts in a row a view is suspended. What is nobody's failure is tried again without end.
    Exponential {
        first: Duration,
        longest: Duration,
        attempts: u32,
        reset_after: Duration,
    },
    /// The same delay each time, and no more than `attempts` restarts in a row.
    Fixed {
        delay: Duration,
        attempts: u32,
        reset_after: Duration,
    },
    /// The same delay each time, and no more than `failures` restarts within any `interval`.
    FailureRate {
        delay: Duration,
        failures: u32,
        interval: Duration,
    },
    /// The first failure is the last.
    None,
}

impl Default for RestartStrategy {
    fn default() -> Self {
        RestartStrategy::Exponential {
            first: Duration::from_millis(50),
            longest: Duration::from_secs(30),
            attempts: 6,
            reset_after: Duration::from_secs(60),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    RestartAfter(Duration),
    GiveUp,
}

/// Who failed when.
pub(crate) struct Restarts {
    strategy: RestartStrategy,
    /// Failures that still count, by culprit.
    failures: HashMap<Option<RelationId>, VecDeque<Instant>>,
}

impl Restarts {
    pub fn new(strategy: RestartStrategy) -> Self {
        Self {
            strategy,
            failures: HashMap::new(),
        }
    }

    pub fn failed(&mut self, culprit: Option<RelationId>, now: Instant) -> Verdict {
        let failures = self.failures.entry(culprit).or_default();
        match self.strategy {
            RestartStrategy::Exponential {
                first,
                longest,
                attempts,
                reset_after,
            } => {
                let in_a_row = count_in_a_row(failures, now, reset_after);
                if culprit.is_some() && in_a_row > attempts {
                    return Verdict::GiveUp;
                }
                let doublings = (in_a_row - 1).min(30);
                Verdict::RestartAfter(first.saturating_mul(1 << doublings).min(longest))
            }
            RestartStrategy::Fixed {
                delay,
                attempts,
                reset_after,
            } => {
                let in_a_row = count_in_a_row(failures, now, reset_after);
                within(in_a_row, attempts, delay)
            }
            RestartStrategy::FailureRate {
                delay,
                failures: allowed,
                interval,
            } => {
                failures.push_back(now);
                while failures.front().is_some_and(|at| now - *at > interval) {
                    failures.pop_front();
                }
                within(failures.len() as u32, allowed, delay)
            }
            RestartStrategy::None => Verdict::GiveUp,
        }
    }

    /// Its failures do not count any more.
    pub fn forgive(&mut self, culprit: RelationId) {
        self.failures.remove(&Some(culprit));
    }
}

fn within(failures: u32, allowed: u32, delay: Duration) -> Verdict {
    if failures > allowed {
        Verdict::GiveUp
    } else {
        Verdict::RestartAfter(delay)
    }
}

fn count_in_a_row(failures: &mut VecDeque<Instant>, now: Instant, reset_after: Duration) -> u32 {
    if failures.back().is_some_and(|at| now - *at >= reset_after) {
        failures.clear();
    }
    failures.push_back(now);
    // What is further back than this changes neither a delay nor a verdict.
    if failures.len() > 20_000 {
        failures.pop_front();
    }
    failures.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: Option<RelationId> = Some(RelationId(7));

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// The verdicts on failures at these times, as delays in milliseconds; `None` where there is no other attempt.
    fn verdicts(
        strategy: RestartStrategy,
        culprit: Option<RelationId>,
        at_ms: &[u64],
    ) -> Vec<Option<u64>> {
        let (mut restarts, begin) = (Restarts::new(strategy), Instant::now());
        let mut verdict = |at: &u64| match restarts.failed(culprit, begin + ms(*at)) {
            Verdict::RestartAfter(delay) => Some(delay.as_millis() as u64),
            Verdict::GiveUp => None,
        };
        at_ms.iter().map(&mut verdict).collect()
    }

    #[test]
    fn exponential_doubles_up_to_a_bound_and_begins_anew_after_a_calm() {
        let strategy = RestartStrategy::Exponential {
            first: ms(10),
            longest: ms(35),
            attempts: 4,
            reset_after: ms(1000),
        };
        let at = [0, 100, 200, 300, 400, 1400, 1500];
        let expected = [
            Some(10),
            Some(20),
            Some(35),
            Some(35),
            None,
            Some(10),
            Some(20),
        ];
        assert_eq!(verdicts(strategy, VIEW, &at), expected);
        // Nobody's failure is tried again without end.
        assert_eq!(verdicts(strategy, None, &at)[4], Some(35));
    }

    #[test]
    fn fixed_counts_attempts_in_a_row() {
        let strategy = RestartStrategy::Fixed {
            delay: ms(5),
            attempts: 2,
            reset_after: ms(1000),
        };
        for culprit in [VIEW, None] {
            let found = verdicts(strategy, culprit, &[0, 999, 1998, 5000]);
            assert_eq!(found, [Some(5), Some(5), None, Some(5)]);
        }
    }

    #[test]
    fn failure_rate_counts_within_a_window() {
        let strategy = RestartStrategy::FailureRate {
            delay: ms(5),
            failures: 2,
            interval: ms(1000),
        };
        let found = verdicts(strategy, VIEW, &[0, 600, 1200, 1300, 9000]);
        assert_eq!(found, [Some(5), Some(5), Some(5), None, Some(5)]);
    }

    #[test]
    fn none_gives_up_at_once() {
        assert_eq!(verdicts(RestartStrategy::None, VIEW, &[0]), [None]);
    }

    #[test]
    fn culprits_are_counted_apart_and_forgiven() {
        let strategy = RestartStrategy::Fixed {
            delay: ms(5),
            attempts: 1,
            reset_after: ms(1000),
        };
        let (mut restarts, now) = (Restarts::new(strategy), Instant::now());
        let other = Some(RelationId(8));
        assert_eq!(restarts.failed(VIEW, now), Verdict::RestartAfter(ms(5)));
        assert_eq!(restarts.failed(other, now), Verdict::RestartAfter(ms(5)));
        assert_eq!(restarts.failed(VIEW, now), Verdict::GiveUp);
        restarts.forgive(RelationId(7));
        assert_eq!(restarts.failed(VIEW, now), Verdict::RestartAfter(ms(5)));
    }
}

//! Which watermark a column has, as a function of those of sources.
//!
//! A watermark of a column bounds *changes*: behind a barrier at which it is w, no row that comes or goes has less than w in
//! the column. So state about smaller values is final. NULL is not bounded.

use crate::time_bins::floor;
use serde::{Deserialize, Serialize};
use tidegate_types::RelationId;
use tidegate_types::watermark::{END_OF_TIME, Watermarks};

/// A monotone function of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimeStep {
    Shift {
        by_us: i64,
    },
    /// To the greatest `k · step + offset` that is not later.
    Floor {
        step_us: i64,
        offset_us: i64,
    },
}

/// The lowest of these: of each source its watermark after these steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Watermark {
    sources: Vec<(RelationId, Vec<TimeStep>)>,
}

/// The watermarks of a node's columns.
pub type ColumnWatermarks = Vec<(usize, Watermark)>;

impl Watermark {
    pub fn of_source(source: RelationId) -> Self {
        Self {
            sources: vec![(source, Vec::new())],
        }
    }

    pub fn then(mut self, step: TimeStep) -> Self {
        for (_, steps) in &mut self.sources {
            steps.push(step);
        }
        self
    }

    /// What bounds rows of either.
    pub fn lowest(mut self, other: Self) -> Self {
        self.sources.extend(other.sources);
        self.sources.sort_by_key(|(source, _)| *source);
        self.sources.dedup();
        self
    }

    /// The same of sources with other ids.
    pub(crate) fn with_sources(&self, other: impl Fn(RelationId) -> RelationId) -> Self {
        let sources = self.sources.iter();
        let sources = sources.map(|(source, steps)| (other(*source), steps.clone()));
        Self {
            sources: sources.collect(),
        }
    }

    /// Nothing that comes or goes from now on is less. `None`: there is no bound yet.
    pub fn at(&self, watermarks: &Watermarks) -> Option<i64> {
        let of_source = |(source, steps): &(RelationId, Vec<TimeStep>)| {
            let reached = watermarks.reached(*source)?;
            steps.iter().try_fold(reached, |time, step| step.of(time))
        };
        let mut lowest = END_OF_TIME;
        for source in &self.sources {
            lowest = lowest.min(of_source(source)?);
        }
        Some(lowest)
    }
}

impl TimeStep {
    fn of(self, time: i64) -> Option<i64> {
        match self {
            _ if time == END_OF_TIME => Some(END_OF_TIME),
            TimeStep::Shift { by_us } => Some(time.saturating_add(by_us)),
            TimeStep::Floor { step_us, offset_us } => floor(time, step_us, offset_us),
        }
    }
}

/// The watermark of a column among these.
pub fn of_column(watermarks: &ColumnWatermarks, column: usize) -> Option<&Watermark> {
    let found = watermarks.iter().find(|(c, _)| *c == column);
    found.map(|(_, watermark)| watermark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn the_lowest_of_its_sources_after_their_steps() {
        let (a, b) = (RelationId(1), RelationId(2));
        let tumbled = Watermark::of_source(a).then(TimeStep::Floor {
            step_us: 10,
            offset_us: 0,
        });
        let both = tumbled.clone().lowest(Watermark::of_source(b));
        let at = |times: &[(RelationId, i64)]| Watermarks {
            reached: Arc::new(times.iter().copied().collect::<BTreeMap<_, _>>()),
            ..Watermarks::default()
        };
        assert_eq!(tumbled.at(&at(&[(a, 27)])), Some(20));
        assert_eq!(both.at(&at(&[(a, 27)])), None);
        assert_eq!(both.at(&at(&[(a, 27), (b, 25)])), Some(20));
        assert_eq!(both.at(&at(&[(a, 27), (b, 5)])), Some(5));
        assert_eq!(both.at(&at(&[(a, END_OF_TIME), (b, 5)])), Some(5));
        let ended = at(&[(a, END_OF_TIME), (b, END_OF_TIME)]);
        assert_eq!(both.at(&ended), Some(END_OF_TIME));
    }
}

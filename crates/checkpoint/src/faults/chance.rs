//! Faults by chance, described in text: how a whole server is tested over storage that is not to be trusted.
//!
//! A description is `name=value` pairs with commas between them:
//!
//! | name | value |
//! |---|---|
//! | `seed` | what the draws come from; 0 |
//! | `error` | chance that an operation fails before it does anything |
//! | `answer_lost` | chance that a change takes effect and its answer is lost |
//! | `torn` | chance that half of an object arrives and the answer is an error; conditional creation is never torn |
//! | `slow`, `slow_ms` | chance that an operation takes so much longer; 100 ms |
//! | `list_lag_ms` | a listing does not know objects that are younger |
//! | `crash` | `<step>:<how>`: the process dies at this change, counted from zero; how: `before`, `after`, `torn` or `lost` |
//!
//! A seed fixes what is drawn one after the other, not which operation draws it.

use super::{Crash, Effect, OperationKind};
use std::time::Duration;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Description {
    pub chances: Chances,
    pub crash: Option<(usize, Crash)>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Chances {
    state: u64,
    error: f64,
    answer_lost: f64,
    torn: f64,
    slow: f64,
    slow_for: Duration,
    pub list_lag: Duration,
}

impl Chances {
    /// A number from 0 to 1, by the generator known as splitmix64.
    fn next(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// What the next operation suffers.
    pub fn draw(&mut self, kind: OperationKind) -> Option<Effect> {
        let (changes, writes) = match kind {
            OperationKind::Put => (true, true),
            OperationKind::Delete => (true, false),
            OperationKind::Get | OperationKind::List => (false, false),
        };
        let effects = [
            (self.error, Effect::Unavailable, true),
            (self.answer_lost, Effect::AnswerLost, changes),
            (self.torn, Effect::Torn, writes),
            (self.slow, Effect::Delay(self.slow_for), true),
        ];
        let mut left = self.next();
        for (chance, effect, applies) in effects {
            if left < chance {
                return applies.then_some(effect);
            }
            left -= chance;
        }
        None
    }
}

pub(super) fn parse(text: &str) -> Result<Description, String> {
    let mut description = Description::default();
    let chances = &mut description.chances;
    chances.slow_for = Duration::from_millis(100);
    for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let wrong = || format!("\"{pair}\" describes no fault of storage");
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let chance = || {
            let chance: f64 = value.parse().map_err(|_| wrong())?;
            let is_chance = (0.0..=1.0).contains(&chance);
            is_chance.then_some(chance).ok_or_else(wrong)
        };
        let number = || value.parse::<u64>().map_err(|_| wrong());
        match name {
            "seed" => chances.state = number()?,
            "error" => chances.error = chance()?,
            "answer_lost" => chances.answer_lost = chance()?,
            "torn" => chances.torn = chance()?,
            "slow" => chances.slow = chance()?,
            "slow_ms" => chances.slow_for = Duration::from_millis(number()?),
            "list_lag_ms" => chances.list_lag = Duration::from_millis(number()?),
            "crash" => {
                let (step, how) = value.split_once(':').ok_or_else(wrong)?;
                let crash = match how {
                    "before" => Crash::Before,
                    "after" => Crash::After,
                    "torn" => Crash::Torn,
                    "lost" => Crash::Lost,
                    _ => return Err(wrong()),
                };
                description.crash = Some((step.parse().map_err(|_| wrong())?, crash));
            }
            _ => return Err(wrong()),
        }
    }
    Ok(description)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_described_happens_about_as_often_and_again_with_its_seed() {
        let text = "seed=5, error=0.1,answer_lost=0.05,slow=0.2,slow_ms=30,crash=7:torn";
        let description = parse(text).unwrap();
        assert_eq!(description.crash, Some((7, Crash::Torn)));
        let drawn = || {
            let mut chances = description.chances.clone();
            (0..10_000)
                .map(|_| chances.draw(OperationKind::Put))
                .collect::<Vec<_>>()
        };
        let first = drawn();
        assert_eq!(first, drawn());
        let count = |effect: Effect| first.iter().filter(|e| **e == Some(effect.clone())).count();
        assert!((900..1100).contains(&count(Effect::Unavailable)));
        assert!((400..600).contains(&count(Effect::AnswerLost)));
        assert!((1850..2150).contains(&count(Effect::Delay(Duration::from_millis(30)))));
        assert_eq!(count(Effect::Torn), 0);
        let mut chances = description.chances.clone();
        let reads = (0..10_000).filter_map(|_| chances.draw(OperationKind::Get));
        assert!(!reads.collect::<Vec<_>>().contains(&Effect::AnswerLost));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in [
            "errors=0.1",
            "error=2",
            "error",
            "crash=7",
            "crash=7:so",
            "slow_ms=x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

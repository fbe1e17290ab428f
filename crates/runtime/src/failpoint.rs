//! A failure on demand, for tests of debug builds: it shows that a panic inside an operator restarts the workers and
//! nothing else.
//!
//! `TIDEGATE_FAILPOINT="operator_panic:<relation name>:<n>"` panics when an operator of that relation, on whatever worker,
//! is given a barrier for the n-th time since the process started. It happens once in the life of a process, so that the
//! workers that are built after it go on. Anything else in the variable is ignored with a warning.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const VARIABLE: &str = "TIDEGATE_FAILPOINT";

struct Failpoint {
    relation: String,
    /// Barriers that are still to be let through; the one that finds one left fails.
    left: AtomicU64,
}

static FAILPOINT: OnceLock<Option<Failpoint>> = OnceLock::new();

/// Called with the relation of an operator that is about to process a barrier.
pub(crate) fn operator_barrier(relation: &str) {
    let Some(failpoint) = FAILPOINT.get_or_init(read) else {
        return;
    };
    if failpoint.relation != relation {
        return;
    }
    let left = failpoint
        .left
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    if left == Ok(1) {
        panic!("the failpoint in an operator of \"{relation}\"");
    }
}

fn read() -> Option<Failpoint> {
    let text = std::env::var(VARIABLE).ok()?;
    let failpoint = parse(&text);
    if failpoint.is_none() {
        tracing::warn!("{VARIABLE} is \"{text}\", which is not operator_panic:<relation name>:<n>");
    }
    failpoint
}

fn parse(text: &str) -> Option<Failpoint> {
    let (relation, nth) = text.strip_prefix("operator_panic:")?.rsplit_once(':')?;
    let nth = nth.parse().ok().filter(|n| *n > 0)?;
    Some(Failpoint {
        relation: relation.to_owned(),
        left: AtomicU64::new(nth),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_descriptions_are_failpoints() {
        let failpoint = parse("operator_panic:a view:12").expect("this is the form");
        assert_eq!(failpoint.relation, "a view");
        assert_eq!(failpoint.left.into_inner(), 12);
        for text in [
            "",
            "operator_panic:v",
            "operator_panic:v:0",
            "operator_panic:v:x",
            "panic:v:1",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}

//! What becomes of a preserved row, by what matches it.

use super::store::Weight;
use tidegate_plan::JoinKind;

/// How a row of a preserved side appears in the output by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Hidden,
    /// With NULLs for the other side, or alone.
    Shown,
    /// With a mark.
    Marked(Option<bool>),
}

/// Depends on nothing but whether there are matches and whether there are unknowns.
pub(super) fn verdict(kind: JoinKind, weight: Weight) -> Verdict {
    let (matched, unknown) = (weight.matches > 0, weight.unknowns > 0);
    let shown_if = |shown| {
        if shown {
            Verdict::Shown
        } else {
            Verdict::Hidden
        }
    };
    match kind {
        JoinKind::Inner => Verdict::Hidden,
        JoinKind::Left | JoinKind::Right | JoinKind::Full => shown_if(!matched),
        JoinKind::LeftSemi => shown_if(matched),
        JoinKind::LeftAnti => shown_if(!matched && !unknown),
        JoinKind::LeftMark if matched => Verdict::Marked(Some(true)),
        JoinKind::LeftMark => Verdict::Marked(if unknown { None } else { Some(false) }),
    }
}

/// Whether pairs of rows are output.
pub(super) fn emits_pairs(kind: JoinKind) -> bool {
    matches!(
        kind,
        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full
    )
}

/// The weight of a row whose matches are decided by the number of rows of the other side with its key.
pub(super) fn by_key(matches: i64) -> Weight {
    Weight {
        count: 0,
        matches,
        unknowns: 0,
    }
}

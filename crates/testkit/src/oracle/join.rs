//! Joins as nested loops.

use super::Expected;
use crate::value::{Row, Value, ZSet, add};
use tidegate_plan::JoinKind;

/// Which rows belong together.
pub struct JoinOn<'a> {
    pub left_keys: &'a [usize],
    pub right_keys: &'a [usize],
    pub null_equals_null: bool,
    /// Over a left and a right row; only `Some(true)` is a match.
    pub residual: &'a dyn Fn(&Row, &Row) -> Option<bool>,
}

impl JoinOn<'_> {
    fn matches(&self, left: &Row, right: &Row) -> bool {
        let equal = self.left_keys.iter().zip(self.right_keys).all(|(l, r)| {
            let (l, r) = (&left[*l], &right[*r]);
            l == r && (self.null_equals_null || !l.is_null())
        });
        equal && (self.residual)(left, right) == Some(true)
    }
}

pub fn join(
    kind: JoinKind,
    on: &JoinOn<'_>,
    left: &ZSet,
    right: &ZSet,
    widths: (usize, usize),
) -> Expected {
    let mut expected = Expected::default();
    let rows = &mut expected.rows;
    for (l, lc) in left {
        let mut matched = false;
        for (r, rc) in right.iter().filter(|(r, _)| on.matches(l, r)) {
            matched = true;
            if matches!(
                kind,
                JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full
            ) {
                add(rows, l.iter().chain(r).cloned().collect(), lc * rc);
            }
        }
        match kind {
            JoinKind::LeftSemi if matched => add(rows, l.clone(), *lc),
            JoinKind::LeftAnti if !matched => add(rows, l.clone(), *lc),
            JoinKind::LeftMark => add(
                rows,
                l.iter().cloned().chain([Value::Bool(matched)]).collect(),
                *lc,
            ),
            JoinKind::Left | JoinKind::Full if !matched => {
                add(
                    rows,
                    l.iter()
                        .cloned()
                        .chain(vec![Value::Null; widths.1])
                        .collect(),
                    *lc,
                );
            }
            _ => {}
        }
    }
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        for (r, rc) in right {
            if !left.keys().any(|l| on.matches(l, r)) {
                add(
                    rows,
                    vec![Value::Null; widths.0]
                        .into_iter()
                        .chain(r.iter().cloned())
                        .collect(),
                    *rc,
                );
            }
        }
    }
    expected
}

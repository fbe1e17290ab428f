//! What a join's output is, from nested loops over all of both inputs: written from what SQL says, not from the operator.

use datafusion::logical_expr::{Expr, col, lit};
use std::collections::BTreeMap;
use tidegate_plan::JoinKind::{self, *};
use tidegate_plan::ScalarExpr;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
}
use Value::{Bool, Int, Null, Text};

pub(super) type Row = Vec<Value>;
pub(super) type ZSet = BTreeMap<Row, i64>;

pub(super) fn add(set: &mut ZSet, row: Row, diff: i64) {
    let count = set.entry(row.clone()).or_default();
    *count += diff;
    if *count == 0 {
        set.remove(&row);
    }
}

/// What the random joins are over. Columns left: a int, b text, v int; right: w int, x int, y text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) kind: JoinKind,
    pub(super) left_keys: &'static [usize],
    pub(super) right_keys: &'static [usize],
    pub(super) null_equals_null: bool,
    pub(super) null_aware: bool,
    pub(super) residual: Residual,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Residual {
    None,
    /// `v < w`
    Less,
    /// `4 / w > v`, which fails when w is zero.
    Fails,
}

impl Residual {
    pub(super) fn expression(self) -> Option<ScalarExpr> {
        let expression: Expr = match self {
            Residual::None => return None,
            Residual::Less => col("2").lt(col("3")),
            Residual::Fails => (lit(4i64) / col("3")).gt(col("2")),
        };
        Some(ScalarExpr::new(expression))
    }

    /// `Err` when the pair fails.
    pub(super) fn truth(self, left: &Row, right: &Row) -> Result<Option<bool>, ()> {
        Ok(match (self, &left[2], &right[0]) {
            (Residual::None, ..) => Some(true),
            (Residual::Less, Int(v), Int(w)) => Some(v < w),
            (Residual::Fails, _, Int(0)) => return Err(()),
            (Residual::Fails, Int(v), Int(w)) => Some(4 / w > *v),
            _ => None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Answer {
    Yes,
    No,
    Unknown,
    Fails,
}

impl Case {
    pub(super) fn aware(&self) -> bool {
        self.null_aware && matches!(self.kind, LeftAnti | LeftMark)
    }

    pub(super) fn answer(&self, left: &Row, right: &Row) -> Answer {
        let equal = |pair: usize| {
            let (l, r) = (&left[self.left_keys[pair]], &right[self.right_keys[pair]]);
            if *l == Null || *r == Null {
                None
            } else {
                Some(l == r)
            }
        };
        let in_first = usize::from(self.aware() && !self.left_keys.is_empty());
        for pair in in_first..self.left_keys.len() {
            let (l, r) = (&left[self.left_keys[pair]], &right[self.right_keys[pair]]);
            let same = if self.null_equals_null {
                l == r
            } else {
                equal(pair) == Some(true)
            };
            if !same {
                return Answer::No;
            }
        }
        let residual = match self.residual.truth(left, right) {
            Ok(truth) => truth,
            Err(()) => return Answer::Fails,
        };
        let truth = if in_first == 1 {
            if residual == Some(true) {
                equal(0)
            } else {
                Some(false)
            }
        } else if self.aware() {
            residual
        } else {
            Some(residual == Some(true))
        };
        match truth {
            Some(true) => Answer::Yes,
            Some(false) => Answer::No,
            None => Answer::Unknown,
        }
    }

    /// The output over all of both inputs, and the pairs that fail.
    pub(super) fn oracle(&self, left: &ZSet, right: &ZSet) -> (ZSet, BTreeMap<String, i64>) {
        let (mut out, mut failed) = (ZSet::new(), BTreeMap::new());
        let nulls = |n| vec![Null; n];
        for (l, n) in left {
            let (mut yes, mut unknown) = (false, false);
            for (r, m) in right {
                match self.answer(l, r) {
                    Answer::Yes => {
                        yes = true;
                        if matches!(self.kind, Inner | Left | Right | Full) {
                            add(&mut out, [l.clone(), r.clone()].concat(), n * m);
                        }
                    }
                    Answer::Unknown => unknown = true,
                    Answer::Fails => {
                        *failed
                            .entry(text(&[l.clone(), r.clone()].concat()))
                            .or_default() += n * m
                    }
                    Answer::No => {}
                }
            }
            match self.kind {
                Left | Full if !yes => add(&mut out, [l.clone(), nulls(3)].concat(), *n),
                LeftSemi if yes => add(&mut out, l.clone(), *n),
                LeftAnti if !yes && !unknown => add(&mut out, l.clone(), *n),
                LeftMark => {
                    let mark = if yes {
                        Bool(true)
                    } else if unknown {
                        Null
                    } else {
                        Bool(false)
                    };
                    add(&mut out, [l.clone(), vec![mark]].concat(), *n);
                }
                _ => {}
            }
        }
        if matches!(self.kind, Right | Full) {
            for (r, m) in right {
                if !left.keys().any(|l| self.answer(l, r) == Answer::Yes) {
                    add(&mut out, [nulls(3), r.clone()].concat(), *m);
                }
            }
        }
        (out, failed)
    }
}

pub(super) fn text(row: &Row) -> String {
    let values: Vec<String> = row
        .iter()
        .map(|v| match v {
            Null => String::new(),
            Bool(b) => b.to_string(),
            Int(i) => i.to_string(),
            Text(t) => t.clone(),
        })
        .collect();
    format!("({})", values.join(","))
}

//! A filter over the numbers of rows bounds how many rows are numbered: `… WHERE rn <= 10` over `row_number() AS rn` is the
//! first ten rows of each partition, and nothing else has to be kept or numbered.
//!
//! Of `row_number` both ends can be bounded, since every row has a number of its own. Of `rank` and `dense_rank` only the
//! upper end is; what else the filter says stays a filter above.

use crate::rel::{Rel, move_positions};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use tidegate_plan::{Op, Ranking, ScalarExpr};

pub(super) fn apply(rel: Rel) -> Rel {
    rel.map_up(&mut bound)
}

/// Numbers from `low` to `high`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    low: i64,
    high: i64,
}

const ALL: Bounds = Bounds {
    low: 1,
    high: i64::MAX,
};

fn bound(rel: Rel) -> Rel {
    if !matches!(rel.op, Op::Filter { .. }) {
        return rel;
    }
    let mut rel = below_projection(rel);
    if let Op::Project { .. } = &rel.op {
        let input = rel.inputs.remove(0);
        rel.inputs.push(bounded(input));
        return rel;
    }
    bounded(rel)
}

/// A filter on a projection of columns of numbered rows, the other way round.
fn below_projection(mut rel: Rel) -> Rel {
    let (Op::Filter { predicate }, Op::Project { expressions }) = (&rel.op, &rel.inputs[0].op)
    else {
        return rel;
    };
    let numbered = matches!(
        rel.inputs[0].inputs[0].op,
        Op::TopN {
            limit: None,
            numbered: true,
            ..
        }
    );
    let columns: Option<Vec<usize>> = expressions.iter().map(ScalarExpr::as_column).collect();
    let (true, Some(columns)) = (numbered, columns) else {
        return rel;
    };
    let predicate = move_positions(predicate, &|p| columns[p]);
    let mut projection = rel.inputs.remove(0);
    let rows = projection.inputs.remove(0);
    let schema = rows.schema.clone();
    projection.inputs = vec![Rel::new(Op::Filter { predicate }, vec![rows], schema)];
    projection
}

fn bounded(mut rel: Rel) -> Rel {
    let Op::Filter { predicate } = &rel.op else {
        return rel;
    };
    let Op::TopN {
        ranking,
        offset: 0,
        limit: None,
        numbered: true,
        ..
    } = &rel.inputs[0].op
    else {
        return rel;
    };
    let number = rel.inputs[0].width() - 1;
    let mut bounds = ALL;
    let mut rest: Vec<Expr> = Vec::new();
    for conjunct in split_conjunction(predicate.expr()) {
        let found = bounds_of(conjunct, number);
        let exact = *ranking == Ranking::RowNumber || found.is_some_and(|b| b.low <= 1);
        if let Some(found) = found {
            bounds.low = bounds.low.max(found.low);
            bounds.high = bounds.high.min(found.high);
        }
        if found.is_none() || !exact {
            rest.push(conjunct.clone());
        }
    }
    if *ranking != Ranking::RowNumber {
        bounds.low = 1;
    }
    if bounds == ALL {
        return rel;
    }
    let mut top_n = rel.inputs.remove(0);
    if let Op::TopN { offset, limit, .. } = &mut top_n.op {
        *offset = (bounds.low - 1) as u64;
        let rows = (i128::from(bounds.high) - i128::from(bounds.low) + 1).max(0);
        *limit = (bounds.high != i64::MAX).then_some(rows as u64);
    }
    match conjunction(rest) {
        None => top_n,
        Some(rest) => {
            let schema = top_n.schema.clone();
            let op = Op::Filter {
                predicate: ScalarExpr::new(rest),
            };
            Rel::new(op, vec![top_n], schema)
        }
    }
}

/// The bounds that a condition puts on the numbers, if that is all it says.
fn bounds_of(condition: &Expr, number: usize) -> Option<Bounds> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if is_number(left, number) {
                comparison(*op, integer(right)?)
            } else if is_number(right, number) {
                comparison(op.swap()?, integer(left)?)
            } else {
                None
            }
        }
        Expr::Between(Between {
            expr,
            negated: false,
            low,
            high,
        }) if is_number(expr, number) => Some(Bounds {
            low: integer(low)?.max(1),
            high: integer(high)?,
        }),
        _ => None,
    }
}

fn comparison(op: Operator, value: i64) -> Option<Bounds> {
    let (low, high) = match op {
        Operator::Eq => (value, value),
        Operator::Lt => (1, value.saturating_sub(1)),
        Operator::LtEq => (1, value),
        Operator::Gt => (value.checked_add(1)?, i64::MAX),
        Operator::GtEq => (value, i64::MAX),
        _ => return None,
    };
    Some(Bounds {
        low: low.max(1),
        // No row has the number zero or less.
        high: high.max(0),
    })
}

fn is_number(expr: &Expr, number: usize) -> bool {
    match expr {
        Expr::Column(column) => column.name.parse() == Ok(number),
        Expr::Cast(Cast { expr, .. }) => is_number(expr, number),
        _ => false,
    }
}

fn integer(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = expr else {
        return None;
    };
    match value {
        ScalarValue::Int16(Some(v)) => Some((*v).into()),
        ScalarValue::Int32(Some(v)) => Some((*v).into()),
        ScalarValue::Int64(Some(v)) => Some(*v),
        ScalarValue::Decimal128(Some(v), _, 0) => i64::try_from(*v).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, lit};

    #[test]
    fn conditions_become_bounds() {
        let of = |e: Expr| bounds_of(&e, 3).map(|b| (b.low, b.high));
        assert_eq!(of(col("3").lt_eq(lit(10i64))), Some((1, 10)));
        assert_eq!(of(lit(10i64).gt(col("3"))), Some((1, 9)));
        assert_eq!(of(col("3").eq(lit(2i64))), Some((2, 2)));
        assert_eq!(of(col("3").eq(lit(0i64))), Some((1, 0)));
        assert_eq!(of(col("3").lt_eq(lit(-4i64))), Some((1, 0)));
        assert_eq!(of(col("3").gt(lit(-4i64))), Some((1, i64::MAX)));
        assert_eq!(of(col("3").between(lit(2i64), lit(4i64))), Some((2, 4)));
        assert_eq!(of(col("2").lt_eq(lit(10i64))), None);
        assert_eq!(of(col("3").not_eq(lit(10i64))), None);
        assert_eq!(of(col("3").lt_eq(col("1"))), None);
    }
}

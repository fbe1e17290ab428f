//! Two filters in a row are one: `σ_p(σ_q(x)) = σ_{q ∧ p}(x)`. The lower one is evaluated first, so that what it guards
//! (a division, a cast) stays guarded.

use crate::rel::Rel;
use datafusion::logical_expr::Expr;
use tidegate_plan::{Op, ScalarExpr};

pub(super) fn apply(rel: Rel) -> Rel {
    rel.map_up(&mut merge)
}

fn merge(mut rel: Rel) -> Rel {
    let Op::Filter { predicate: upper } = &rel.op else {
        return rel;
    };
    let Op::Filter { predicate: lower } = &rel.inputs[0].op else {
        return rel;
    };
    let both: Expr = lower.expr().clone().and(upper.expr().clone());
    rel.op = Op::Filter {
        predicate: ScalarExpr::new(both),
    };
    let input = rel.inputs.remove(0);
    rel.inputs = input.inputs;
    rel
}

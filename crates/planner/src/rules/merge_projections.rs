//! Two projections in a row are one, as long as nothing is computed twice for it: an expression of the lower one that is
//! more than a column or a constant may be used only once by the upper one.

use crate::rel::{Rel, rewrite_positions};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;
use tidegate_plan::{Op, ScalarExpr};

pub(super) fn apply(rel: Rel) -> Rel {
    rel.map_up(&mut merge)
}

fn merge(mut rel: Rel) -> Rel {
    let Op::Project { expressions: upper } = &rel.op else {
        return rel;
    };
    let Op::Project { expressions: lower } = &rel.inputs[0].op else {
        return rel;
    };
    if !cheap(upper, lower) {
        return rel;
    }
    let merged = upper
        .iter()
        .map(|e| rewrite_positions(e, &|p| lower[p].expr().clone()))
        .collect();
    rel.op = Op::Project {
        expressions: merged,
    };
    let input = rel.inputs.remove(0);
    rel.inputs = input.inputs;
    rel
}

fn cheap(upper: &[ScalarExpr], lower: &[ScalarExpr]) -> bool {
    let mut uses = vec![0usize; lower.len()];
    for expression in upper {
        let visited = expression.expr().apply(|e| {
            if let Expr::Column(column) = e {
                uses[column
                    .name
                    .parse::<usize>()
                    .expect("expressions of a plan are positional")] += 1;
            }
            Ok(TreeNodeRecursion::Continue)
        });
        visited.expect("the visitor never fails");
    }
    lower
        .iter()
        .zip(uses)
        .all(|(expression, uses)| uses <= 1 || is_free(expression))
}

fn is_free(expression: &ScalarExpr) -> bool {
    matches!(expression.expr(), Expr::Column(_) | Expr::Literal(..))
}

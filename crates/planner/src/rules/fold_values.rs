//! A projection over rows that are written in the query is other rows written in the query: `SELECT 1, 'a'` is one node.

use crate::rel::{Rel, rewrite_positions};
use tidegate_plan::Op;

pub(super) fn apply(rel: Rel) -> Rel {
    rel.map_up(&mut fold)
}

fn fold(rel: Rel) -> Rel {
    let Op::Project { expressions } = &rel.op else {
        return rel;
    };
    let Op::Values { rows } = &rel.inputs[0].op else {
        return rel;
    };
    let folded = rows
        .iter()
        .map(|row| {
            expressions
                .iter()
                .map(|e| rewrite_positions(e, &|p| row[p].expr().clone()))
                .collect()
        })
        .collect();
    Rel::new(Op::Values { rows: folded }, Vec::new(), rel.schema)
}

//! A projection that outputs its input as it is does nothing. Its names go to the input, if that makes rows of its own; what
//! passes rows through has the names of what it passes.

use crate::rel::Rel;
use tidegate_plan::Op;

pub(super) fn apply(rel: Rel) -> Rel {
    rel.map_up(&mut remove)
}

fn remove(mut rel: Rel) -> Rel {
    let Op::Project { expressions } = &rel.op else {
        return rel;
    };
    let input = &rel.inputs[0];
    let identity = expressions.len() == input.width()
        && expressions
            .iter()
            .enumerate()
            .all(|(i, e)| e.as_column() == Some(i))
        && rel
            .schema
            .fields()
            .iter()
            .zip(input.schema.fields())
            .all(|(a, b)| a.data_type() == b.data_type());
    if !identity {
        return rel;
    }
    let mut input = rel.inputs.remove(0);
    if matches!(
        input.op,
        Op::Project { .. } | Op::Aggregate { .. } | Op::Join { .. } | Op::Union | Op::Values { .. }
    ) {
        input.schema = rel.schema;
    }
    input
}

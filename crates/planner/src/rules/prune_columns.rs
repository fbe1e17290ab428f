//! Columns that nobody reads are neither read, carried over an exchange, nor kept as state.
//!
//! From the root down every node is told which of its columns are needed, and answers with a tree that has them and
//! little else, and where each went. Operators that keep rows (joins, top-n, aggregates) get inputs with exactly what
//! they need.
//!
//! The order of columns inside the plan is made canonical on the way: a projection lists its expressions by their text, a join
//! its keys by position. DataFusion's order follows hash tables here and there, and operator ids, by which state is found
//! again, are hashes of the plan.

use crate::rel::{Rel, move_positions, positions};
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_plan::{AggregateCall, JoinKind, Op, ScalarExpr, SortKey, TimeBound, bound_columns};

pub(super) fn apply(rel: Rel) -> Rel {
    let all: BTreeSet<usize> = (0..rel.width()).collect();
    let order: Vec<usize> = all.iter().copied().collect();
    let Pruned { rel, places } = prune(rel, &all);
    rel.select(&order.iter().map(|c| at(&places, *c)).collect::<Vec<_>>())
}

/// A tree with the columns that were asked for, and for each former position the new one.
struct Pruned {
    rel: Rel,
    places: Vec<Option<usize>>,
}

fn at(places: &[Option<usize>], column: usize) -> usize {
    places[column].expect("a needed column is kept")
}

fn prune(rel: Rel, needed: &BTreeSet<usize>) -> Pruned {
    match rel.op.clone() {
        Op::Import { .. } | Op::Source { .. } => scan(rel, needed),
        Op::Filter { predicate } => filter(rel, &predicate, needed),
        Op::Project { expressions } => project(rel, &expressions, needed),
        Op::Aggregate { keys, calls } => aggregate(rel, &keys, &calls, needed),
        Op::Join { .. } => join(rel, needed),
        Op::Union => union(rel, needed),
        Op::Unnest { lists } => unnest(rel, &lists, needed),
        Op::TopN { .. } => top_n(rel, needed),
        Op::Window {
            partition,
            order,
            calls,
        } => window(rel, (&partition, &order, &calls), needed),
        Op::Session {
            partition,
            time,
            gap_us,
        } => session(rel, (&partition, time, gap_us), needed),
        Op::TimeFilter { from, until } => {
            let columns = bound_columns(from.as_ref(), until.as_ref());
            let wanted: BTreeSet<usize> = needed.iter().copied().chain(columns).collect();
            over_exact(rel, wanted, |places| {
                let moved = |bound: TimeBound| TimeBound {
                    column: at(places, bound.column),
                    ..bound
                };
                Op::TimeFilter {
                    from: from.map(moved),
                    until: until.map(moved),
                }
            })
        }
        // All columns of a root are read.
        Op::OnClose { .. } => unchanged(rel),
        Op::AtMostOne { keys } => {
            let wanted: BTreeSet<usize> = needed.iter().chain(&keys).copied().collect();
            over_exact(rel, wanted, |places| Op::AtMostOne {
                keys: keys.iter().map(|k| at(places, *k)).collect(),
            })
        }
        Op::TableInput { .. } | Op::Values { .. } | Op::Materialize { .. } | Op::Sink { .. } => {
            unchanged(rel)
        }
    }
}

fn unchanged(rel: Rel) -> Pruned {
    let places = (0..rel.width()).map(Some).collect();
    Pruned { rel, places }
}

/// The input narrowed to exactly these columns, in the order in which it has them; at least one stays, since a row has to
/// consist of something.
fn exact(rel: Rel, needed: &BTreeSet<usize>) -> Pruned {
    let mut wanted = needed.clone();
    if wanted.is_empty() {
        wanted.insert(0);
    }
    let width = rel.width();
    let Pruned { rel, places } = prune(rel, &wanted);
    let mut order: Vec<(usize, usize)> = wanted.iter().map(|c| (at(&places, *c), *c)).collect();
    order.sort_unstable();
    let mut kept: Vec<usize> = order.iter().map(|(place, _)| *place).collect();
    kept.dedup();
    let mut places = vec![None; width];
    for (place, column) in order {
        places[column] = kept.iter().position(|k| *k == place);
    }
    Pruned {
        rel: rel.select(&kept),
        places,
    }
}

/// A node of one input whose output has its input's layout.
fn over_exact(
    rel: Rel,
    needed: BTreeSet<usize>,
    op: impl FnOnce(&[Option<usize>]) -> Op,
) -> Pruned {
    let input = rel.inputs.into_iter().next().expect("a node of one input");
    let Pruned { rel: input, places } = exact(input, &needed);
    let op = op(&places);
    let schema = input.schema.clone();
    Pruned {
        rel: Rel::new(op, vec![input], schema),
        places,
    }
}

fn scan(mut rel: Rel, needed: &BTreeSet<usize>) -> Pruned {
    let width = rel.width();
    let mut keep: Vec<usize> = match needed.is_empty() {
        true => vec![0],
        false => needed.iter().copied().collect(),
    };
    if let Op::Import { columns, .. } | Op::Source { columns, .. } = &rel.op {
        keep.sort_by_key(|c| columns[*c]);
    }
    let mut places = vec![None; width];
    for (index, column) in keep.iter().enumerate() {
        places[*column] = Some(index);
    }
    if let Op::Import { columns, .. } | Op::Source { columns, .. } = &mut rel.op {
        *columns = keep.iter().map(|c| columns[*c]).collect();
    }
    rel.schema = Arc::new(rel.schema.project(&keep).expect("kept columns exist"));
    let watermarks = std::mem::take(&mut rel.origin.watermarks).into_iter();
    rel.origin.watermarks = watermarks
        .filter_map(|(column, watermark)| Some((places[column]?, watermark)))
        .collect();
    rel.origin.unique_key = rel.origin.unique_key.and_then(|key| {
        key.iter()
            .map(|c| places[*c])
            .collect::<Option<Vec<usize>>>()
    });
    Pruned { rel, places }
}

fn filter(rel: Rel, predicate: &ScalarExpr, needed: &BTreeSet<usize>) -> Pruned {
    let mut wanted = needed.clone();
    wanted.extend(positions(predicate));
    let input = rel
        .inputs
        .into_iter()
        .next()
        .expect("a filter has an input");
    let Pruned { rel: input, places } = prune(input, &wanted);
    let predicate = move_positions(predicate, &|p| at(&places, p));
    let schema = input.schema.clone();
    Pruned {
        rel: Rel::new(Op::Filter { predicate }, vec![input], schema),
        places,
    }
}

fn project(rel: Rel, expressions: &[ScalarExpr], needed: &BTreeSet<usize>) -> Pruned {
    let mut keep = needed.clone();
    if keep.is_empty() {
        keep.insert(0);
    }
    let wanted: BTreeSet<usize> = keep
        .iter()
        .flat_map(|c| positions(&expressions[*c]))
        .collect();
    let schema = rel.schema.clone();
    let input = rel
        .inputs
        .into_iter()
        .next()
        .expect("a projection has an input");
    let Pruned {
        rel: input,
        places: inner,
    } = prune(input, &wanted);
    let mut moved: Vec<(usize, ScalarExpr)> = keep
        .iter()
        .map(|c| (*c, move_positions(&expressions[*c], &|p| at(&inner, p))))
        .collect();
    // Columns first, by their position: narrowing a row keeps its order.
    moved.sort_by_cached_key(|(_, e)| (e.as_column().unwrap_or(usize::MAX), e.to_string()));
    let mut places = vec![None; schema.fields().len()];
    let mut fields = Vec::new();
    for (index, (column, _)) in moved.iter().enumerate() {
        places[*column] = Some(index);
        fields.push(schema.field(*column).clone());
    }
    Pruned {
        rel: input.project(moved.into_iter().map(|(_, e)| e).collect(), fields),
        places,
    }
}

fn aggregate(
    rel: Rel,
    keys: &[usize],
    calls: &[AggregateCall],
    needed: &BTreeSet<usize>,
) -> Pruned {
    // Keys stay: they decide which groups there are. Without calls the keys are all there is.
    let kept: Vec<usize> = (0..calls.len())
        .filter(|c| needed.contains(&(keys.len() + c)))
        .collect();
    // A group without calls would be DISTINCT, which no longer has the one group of no rows.
    let kept = if kept.is_empty() && keys.is_empty() && !calls.is_empty() {
        vec![0]
    } else {
        kept
    };
    let mut wanted: BTreeSet<usize> = keys.iter().copied().collect();
    for call in kept.iter().map(|c| &calls[*c]) {
        wanted.extend(call.arguments.iter().chain(&call.filter));
        wanted.extend(call.order_by.iter().map(|k| k.column));
    }
    let width = rel.width();
    let mut places: Vec<Option<usize>> = vec![None; width];
    let mut fields = Vec::new();
    for column in (0..keys.len()).chain(kept.iter().map(|c| keys.len() + c)) {
        places[column] = Some(fields.len());
        fields.push(rel.schema.field(column).clone());
    }
    let input = rel
        .inputs
        .into_iter()
        .next()
        .expect("an aggregate has an input");
    let Pruned {
        rel: input,
        places: inner,
    } = exact(input, &wanted);
    let place = |c: &usize| at(&inner, *c);
    let calls = kept
        .iter()
        .map(|c| AggregateCall {
            parameter: calls[*c].parameter.clone(),
            function: calls[*c].function,
            arguments: calls[*c].arguments.iter().map(place).collect(),
            distinct: calls[*c].distinct,
            filter: calls[*c].filter.as_ref().map(place),
            order_by: moved_order(&calls[*c].order_by, &inner),
        })
        .collect();
    let op = Op::Aggregate {
        keys: keys.iter().map(place).collect(),
        calls,
    };
    let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(fields));
    Pruned {
        rel: Rel::new(op, vec![input], schema),
        places,
    }
}

fn moved_order(order: &[SortKey], places: &[Option<usize>]) -> Vec<SortKey> {
    order
        .iter()
        .map(|key| SortKey {
            column: at(places, key.column),
            ..*key
        })
        .collect()
}

fn join(rel: Rel, needed: &BTreeSet<usize>) -> Pruned {
    let Op::Join {
        kind,
        left_keys,
        right_keys,
        null_equals_null,
        null_aware,
        residual,
    } = rel.op
    else {
        unreachable!("called for joins")
    };
    let offset = rel.inputs[0].width();
    let shows_right = matches!(
        kind,
        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full
    );
    let mut left: BTreeSet<usize> = needed.iter().copied().filter(|c| *c < offset).collect();
    let mut right: BTreeSet<usize> = match shows_right {
        true => needed
            .iter()
            .filter(|c| **c >= offset)
            .map(|c| c - offset)
            .collect(),
        false => BTreeSet::new(),
    };
    left.extend(&left_keys);
    right.extend(&right_keys);
    for position in residual.iter().flat_map(positions) {
        match position.checked_sub(offset) {
            None => left.insert(position),
            Some(position) => right.insert(position),
        };
    }
    let right_width = rel.inputs[1].width();
    let mut inputs = rel.inputs.into_iter();
    let mut next =
        |wanted: &BTreeSet<usize>| exact(inputs.next().expect("a join has two inputs"), wanted);
    let (left, right) = (next(&left), next(&right));
    let new_offset = left.rel.width();
    let moved = |p: usize| match p.checked_sub(offset) {
        None => at(&left.places, p),
        Some(p) => new_offset + at(&right.places, p),
    };
    let mut keys: Vec<(usize, usize)> = left_keys
        .iter()
        .zip(&right_keys)
        .map(|(l, r)| (at(&left.places, *l), at(&right.places, *r)))
        .collect();
    // The first pair of a null-aware join is the comparison of the `NOT IN`.
    let fixed = usize::from(null_aware).min(keys.len());
    keys[fixed..].sort_unstable();
    let (left_keys, right_keys) = keys.into_iter().unzip();
    let op = Op::Join {
        kind,
        left_keys,
        right_keys,
        null_equals_null,
        null_aware,
        residual: residual.map(|r| move_positions(&r, &moved)),
    };
    let mut places: Vec<Option<usize>> = left.places.clone();
    if shows_right {
        places.extend((0..right_width).map(|c| right.places[c].map(|p| new_offset + p)));
    } else if kind == JoinKind::LeftMark {
        places.push(Some(new_offset));
    }
    let mut fields = vec![
        None;
        new_offset
            + if shows_right {
                right.rel.width()
            } else {
                usize::from(kind == JoinKind::LeftMark)
            }
    ];
    for (old, new) in places.iter().enumerate() {
        if let Some(new) = new {
            fields[*new] = Some(rel.schema.field(old).clone());
        }
    }
    let fields: Vec<_> = fields
        .into_iter()
        .map(|f| f.expect("every kept column came from somewhere"))
        .collect();
    let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(fields));
    Pruned {
        rel: Rel::new(op, vec![left.rel, right.rel], schema),
        places,
    }
}

fn union(rel: Rel, needed: &BTreeSet<usize>) -> Pruned {
    let mut wanted = needed.clone();
    if wanted.is_empty() {
        wanted.insert(0);
    }
    let mut places = vec![None; rel.width()];
    for (index, column) in wanted.iter().enumerate() {
        places[*column] = Some(index);
    }
    let keep: Vec<usize> = wanted.iter().copied().collect();
    let schema = Arc::new(rel.schema.project(&keep).expect("kept columns exist"));
    // All inputs in one order, whatever theirs is.
    let same = |input: Rel| {
        let Pruned { rel, places } = prune(input, &wanted);
        rel.select(&wanted.iter().map(|c| at(&places, *c)).collect::<Vec<_>>())
    };
    let inputs = rel.inputs.into_iter().map(same).collect();
    Pruned {
        rel: Rel::new(Op::Union, inputs, schema),
        places,
    }
}

fn top_n(rel: Rel, needed: &BTreeSet<usize>) -> Pruned {
    let Op::TopN {
        partition,
        order,
        ranking,
        offset,
        limit,
        numbered,
    } = rel.op
    else {
        unreachable!("called for a top-n")
    };
    let input = rel.inputs.into_iter().next().expect("a top-n has an input");
    let width = input.width();
    let mut wanted: BTreeSet<usize> = needed.iter().copied().filter(|c| *c < width).collect();
    wanted.extend(&partition);
    wanted.extend(order.iter().map(|k| k.column));
    let Pruned {
        rel: input,
        mut places,
    } = exact(input, &wanted);
    let mut schema = input.schema.clone();
    let shown = numbered && needed.contains(&width);
    if shown {
        schema = appended(&schema, [rel.schema.fields()[width].clone()]);
    }
    if numbered {
        places.push(shown.then_some(input.width()));
    }
    let op = Op::TopN {
        partition: partition.iter().map(|p| at(&places, *p)).collect(),
        order: moved_order(&order, &places),
        ranking,
        offset,
        limit,
        numbered: shown,
    };
    Pruned {
        rel: Rel::new(op, vec![input], schema),
        places,
    }
}

/// All lists stay: they decide how many rows there are.
fn unnest(rel: Rel, lists: &[usize], needed: &BTreeSet<usize>) -> Pruned {
    let input = rel
        .inputs
        .into_iter()
        .next()
        .expect("an unnest has an input");
    let wanted: BTreeSet<usize> = needed.iter().chain(lists).copied().collect();
    let Pruned { rel: input, places } = prune(input, &wanted);
    let mut kept: Vec<(usize, usize)> = wanted.iter().map(|c| (at(&places, *c), *c)).collect();
    kept.sort_unstable();
    let mut places = vec![None; rel.schema.fields().len()];
    for (place, (_, column)) in kept.iter().enumerate() {
        places[*column] = Some(place);
    }
    // One column of the input may be here twice: as it is, and unnested.
    let input = input.select(&kept.iter().map(|(place, _)| *place).collect::<Vec<_>>());
    let columns: Vec<usize> = kept.iter().map(|(_, column)| *column).collect();
    let schema = Arc::new(rel.schema.project(&columns).expect("kept columns exist"));
    let op = Op::Unnest {
        lists: lists.iter().map(|l| at(&places, *l)).collect(),
    };
    Pruned {
        rel: Rel::new(op, vec![input], schema),
        places,
    }
}

/// Calls that nobody reads are not computed.
fn window(
    rel: Rel,
    (partition, order, calls): (&[usize], &[SortKey], &[ScalarExpr]),
    needed: &BTreeSet<usize>,
) -> Pruned {
    let input = rel
        .inputs
        .into_iter()
        .next()
        .expect("a window has an input");
    let width = input.width();
    let mut wanted: BTreeSet<usize> = needed.iter().copied().filter(|c| *c < width).collect();
    let kept: Vec<usize> = (0..calls.len())
        .filter(|call| needed.contains(&(width + call)))
        .collect();
    if kept.is_empty() {
        let Pruned { rel, mut places } = prune(input, &wanted);
        places.resize(width + calls.len(), None);
        return Pruned { rel, places };
    }
    wanted.extend(partition);
    wanted.extend(order.iter().map(|k| k.column));
    wanted.extend(kept.iter().flat_map(|call| positions(&calls[*call])));
    let Pruned {
        rel: input,
        mut places,
    } = exact(input, &wanted);
    let fields = kept
        .iter()
        .map(|call| rel.schema.fields()[width + call].clone());
    let schema = appended(&input.schema, fields);
    let op = Op::Window {
        partition: partition.iter().map(|p| at(&places, *p)).collect(),
        order: moved_order(order, &places),
        calls: kept
            .iter()
            .map(|call| move_positions(&calls[*call], &|p| at(&places, p)))
            .collect(),
    };
    places.resize(width + calls.len(), None);
    for (place, call) in kept.iter().enumerate() {
        places[width + call] = Some(input.width() + place);
    }
    Pruned {
        rel: Rel::new(op, vec![input], schema),
        places,
    }
}

/// Both columns that it adds stay, if one of them is read.
fn session(
    rel: Rel,
    (partition, time, gap_us): (&[usize], usize, i64),
    needed: &BTreeSet<usize>,
) -> Pruned {
    let input = rel.inputs.into_iter().next();
    let input = input.expect("sessions have an input");
    let width = input.width();
    let mut wanted: BTreeSet<usize> = needed.iter().copied().filter(|c| *c < width).collect();
    if wanted.len() == needed.len() {
        let Pruned { rel, mut places } = prune(input, &wanted);
        places.resize(width + 2, None);
        return Pruned { rel, places };
    }
    wanted.extend(partition.iter().chain([&time]));
    let Pruned {
        rel: input,
        mut places,
    } = exact(input, &wanted);
    let fields = rel.schema.fields()[width..].iter().cloned();
    let schema = appended(&input.schema, fields);
    let op = Op::Session {
        partition: partition.iter().map(|p| at(&places, *p)).collect(),
        time: at(&places, time),
        gap_us,
    };
    places.resize(width, None);
    places.extend([Some(input.width()), Some(input.width() + 1)]);
    Pruned {
        rel: Rel::new(op, vec![input], schema),
        places,
    }
}

fn appended(schema: &Schema, fields: impl IntoIterator<Item = FieldRef>) -> SchemaRef {
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .cloned()
            .chain(fields)
            .collect::<Vec<FieldRef>>(),
    ))
}

//! What is known about a node's output without looking at data, derived from its inputs.
//!
//! - **append-only**: no row is ever retracted. Sources and append-only tables are; filters, projections and unions keep
//!   it; an inner or semi join of two append-only inputs and DISTINCT over one have it too. Everything else may retract.
//! - **unique key**: columns that no two rows share. No columns at all means that there is at most one row.
//! - **watermarks**: lower bounds of columns in changes yet to come ([`crate::watermarks`]).
//! - **distribution**: which rows an operator has to see together.
//!
//! Each claim is used to save state or an exchange, so each must hold for every input; where in doubt the answer is no.

use crate::rel::Rel;
use crate::watermarks;
use tidegate_plan::join_state::join_partition_keys;
use tidegate_plan::{
    ColumnWatermarks, Distribution, JoinKind, Op, Ranking, ScalarExpr, bound_columns,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    pub append_only: bool,
    pub unique_key: Option<Vec<usize>>,
    pub watermarks: ColumnWatermarks,
}

/// The properties of a node over inputs with these.
pub(crate) fn derive(rel: &Rel, inputs: &[Properties]) -> Properties {
    Properties {
        append_only: append_only(rel, inputs),
        unique_key: unique_key(rel, inputs),
        watermarks: watermarks::derive(rel, inputs),
    }
}

fn append_only(rel: &Rel, inputs: &[Properties]) -> bool {
    let all = inputs.iter().all(|input| input.append_only);
    match &rel.op {
        Op::Import { .. } | Op::Source { .. } | Op::TableInput { .. } => rel.origin.append_only,
        Op::Values { .. } => true,
        Op::OnClose { .. } => true,
        Op::TimeFilter { until, .. } => all && until.is_none(),
        Op::Filter { .. }
        | Op::Project { .. }
        | Op::Union
        | Op::Unnest { .. }
        | Op::Materialize { .. }
        | Op::Sink { .. } => all,
        Op::Aggregate { keys, calls } => calls.is_empty() && !keys.is_empty() && all,
        Op::Join {
            kind: JoinKind::Inner | JoinKind::LeftSemi,
            ..
        } => all,
        Op::Join { .. }
        | Op::TopN { .. }
        | Op::Window { .. }
        | Op::Session { .. }
        | Op::AtMostOne { .. } => false,
    }
}

fn unique_key(rel: &Rel, inputs: &[Properties]) -> Option<Vec<usize>> {
    match &rel.op {
        Op::Import { .. } | Op::Source { .. } | Op::TableInput { .. } => {
            rel.origin.unique_key.clone()
        }
        Op::Values { rows } => (rows.len() <= 1).then(Vec::new),
        Op::Filter { .. }
        | Op::TimeFilter { .. }
        | Op::OnClose { .. }
        | Op::Materialize { .. }
        | Op::Sink { .. } => inputs[0].unique_key.clone(),
        Op::Project { expressions } => inputs[0]
            .unique_key
            .as_ref()
            .and_then(|key| through(expressions, key)),
        Op::Aggregate { keys, .. } => Some((0..keys.len()).collect()),
        Op::TopN {
            partition,
            ranking: Ranking::RowNumber,
            limit: Some(0 | 1),
            ..
        } => Some(partition.clone()),
        Op::TopN {
            partition,
            ranking: Ranking::RowNumber,
            numbered: true,
            ..
        } => {
            let by_number = || partition.iter().copied().chain([rel.width() - 1]).collect();
            inputs[0].unique_key.clone().or_else(|| Some(by_number()))
        }
        Op::TopN { .. } | Op::Window { .. } | Op::Session { .. } => inputs[0].unique_key.clone(),
        Op::AtMostOne { keys } => Some(keys.clone()),
        Op::Union | Op::Unnest { .. } => None,
        Op::Join {
            kind,
            left_keys,
            right_keys,
            ..
        } => join_key(*kind, left_keys, right_keys, rel, inputs),
    }
}

/// Where a projection puts a key, if it keeps every column of it.
fn through(expressions: &[ScalarExpr], key: &[usize]) -> Option<Vec<usize>> {
    key.iter()
        .map(|c| expressions.iter().position(|e| e.as_column() == Some(*c)))
        .collect()
}

fn join_key(
    kind: JoinKind,
    left_keys: &[usize],
    right_keys: &[usize],
    rel: &Rel,
    inputs: &[Properties],
) -> Option<Vec<usize>> {
    let left = inputs[0].unique_key.as_ref();
    if matches!(
        kind,
        JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark
    ) {
        return left.cloned();
    }
    let offset = rel.inputs[0].width();
    let (left, right) = (left?, inputs[1].unique_key.as_ref()?);
    let shifted: Vec<usize> = right.iter().map(|c| c + offset).collect();
    // A row has one partner at most when the other side's key is among the columns that are compared.
    let one_right = right.iter().all(|c| right_keys.contains(c));
    let one_left = left.iter().all(|c| left_keys.contains(c));
    match kind {
        JoinKind::Inner | JoinKind::Left if one_right => return Some(left.clone()),
        JoinKind::Inner | JoinKind::Right if one_left => return Some(shifted),
        _ => {}
    }
    if kind == JoinKind::Full {
        // Unmatched rows of both sides must not look alike: one side's key has to tell them apart by not being NULL.
        let never_null = |input: &Rel, key: &[usize]| {
            !key.is_empty() && key.iter().all(|c| !input.schema.field(*c).is_nullable())
        };
        if !never_null(&rel.inputs[0], left) && !never_null(&rel.inputs[1], right) {
            return None;
        }
    }
    Some(left.iter().copied().chain(shifted).collect())
}

/// How an input's rows must lie for a node to be right.
pub(crate) fn distribution(op: &Op, input: usize, properties: &Properties) -> Distribution {
    match op {
        Op::Aggregate { keys, .. } | Op::AtMostOne { keys } | Op::OnClose { key: keys, .. } => {
            Distribution::Key(keys.clone())
        }
        Op::TopN { partition, .. }
        | Op::Window { partition, .. }
        | Op::Session { partition, .. } => Distribution::Key(partition.clone()),
        Op::Join {
            kind,
            null_aware,
            left_keys,
            right_keys,
            ..
        } => {
            let keys = if input == 0 { left_keys } else { right_keys };
            Distribution::Key(join_partition_keys(*kind, *null_aware, keys).to_vec())
        }
        Op::TimeFilter { from, until } => {
            Distribution::Key(bound_columns(from.as_ref(), until.as_ref()))
        }
        Op::Materialize { key, .. } if key.is_empty() => Distribution::Any,
        Op::Materialize { key, .. } => Distribution::Key(key.clone()),
        // Changes of one row must arrive in order, which one worker sees to.
        Op::Sink { .. } => match &properties.unique_key {
            _ if properties.append_only => Distribution::Any,
            key => Distribution::Key(key.clone().unwrap_or_default()),
        },
        _ => Distribution::Any,
    }
}

/// The columns by which a view keeps its rows: the unique key; all columns where there is none or where it is empty; none
/// where rows only ever arrive and nothing identifies them.
pub(crate) fn view_key(width: usize, properties: &Properties) -> Vec<usize> {
    match &properties.unique_key {
        Some(key) if !key.is_empty() => key.clone(),
        None if properties.append_only => Vec::new(),
        _ => (0..width).collect(),
    }
}

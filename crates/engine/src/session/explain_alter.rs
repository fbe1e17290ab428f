//! `EXPLAIN ALTER MATERIALIZED VIEW … AS`: what would become of each operator, and of its state.

use super::Session;
use super::alter_query::NewQuery;
use std::collections::HashMap;
use tidegate_parser::{AlterMaterializedView, AlterOperation};
use tidegate_plan::succession::can_replay;
use tidegate_plan::{Fate, Op};
use tidegate_planner::operators;
use tidegate_runtime::OperatorState;
use tidegate_types::{OperatorId, RelationId, SqlError};

impl Session {
    pub(super) async fn explain_alter(
        &self,
        alter: &AlterMaterializedView,
        text: &str,
    ) -> Result<String, SqlError> {
        let AlterOperation::Query(query) = &alter.operation else {
            return Err(SqlError::not_supported("EXPLAIN of this ALTER"));
        };
        let old = self.altered_view(&alter.name)?;
        let new = self.with_query(&old, &[], query, text)?;
        let states = self.database.runtime()?.operator_states(old.id).await?;
        Ok(describe(&new, &states, &|id| self.name_of(id)))
    }
}

fn describe(
    new: &NewQuery,
    states: &HashMap<OperatorId, OperatorState>,
    name: &dyn Fn(RelationId) -> Option<String>,
) -> String {
    let mut lines = Vec::new();
    let mut kept_bytes = 0;
    for (index, depth, operator) in operators(&new.plan, name) {
        let node = &new.plan.nodes[index];
        let state = states.get(&node.id).copied().unwrap_or_default();
        let is_root = matches!(node.op, Op::Materialize { .. });
        let fate = match new.fates[index] {
            Fate::Kept => {
                kept_bytes += state.bytes;
                match node.state.is_empty() && !is_root {
                    true => "kept".to_owned(),
                    false => format!("kept: {}", amount(state)),
                }
            }
            Fate::Rebuilt if is_root => root(new, states),
            Fate::Rebuilt => match &node.op {
                Op::Import { relation, .. } | Op::Source { relation, .. } => {
                    let name = name(*relation).unwrap_or_else(|| relation.to_string());
                    format!("rebuilt: reads \"{name}\" from the beginning")
                }
                _ if node.state.is_empty() => "rebuilt: has no state".to_owned(),
                _ if !can_replay(&new.plan, index) && had(new, index) => {
                    "rebuilt: what it keeps does not say what its output is".to_owned()
                }
                _ => "rebuilt".to_owned(),
            },
        };
        lines.push(format!(
            "{:indent$}{operator}  [{fate}]",
            "",
            indent = depth * 2
        ));
    }
    let ids: Vec<OperatorId> = new.plan.nodes.iter().map(|n| n.id).collect();
    let goes = new.old_plan.nodes.iter().filter(|n| !ids.contains(&n.id));
    let dropped: u64 = goes
        .filter(|n| !matches!(n.op, Op::Materialize { .. }))
        .filter_map(|n| states.get(&n.id))
        .map(|s| s.bytes)
        .sum();
    lines.push(format!(
        "State: {kept_bytes} bytes kept, {dropped} bytes dropped"
    ));
    lines.join("\n")
}

/// What becomes of the view's rows.
fn root(new: &NewQuery, states: &HashMap<OperatorId, OperatorState>) -> String {
    let before = states
        .get(&new.old_plan.root().id)
        .copied()
        .unwrap_or_default();
    match new.plan.contents == new.old_plan.contents {
        true => format!(
            "migrated: {}; rows that differ change in one epoch",
            amount(before)
        ),
        false => format!("rebuilt: {}; rows get another form", amount(before)),
    }
}

/// Whether the old plan has the same operator.
fn had(new: &NewQuery, index: usize) -> bool {
    let shape = new.plan.shapes()[index];
    new.old_plan.shapes().contains(&shape)
}

fn amount(state: OperatorState) -> String {
    let rows = if state.rows == 1 { "row" } else { "rows" };
    format!("{} {rows}, {} bytes", state.rows, state.bytes)
}

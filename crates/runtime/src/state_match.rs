//! Which stored state belongs to which operator of a plan.
//!
//! An operator's id is a hash of what it does and of its inputs' ids, so that an operator of one plan finds the state that
//! the same operator of another plan has left behind, whoever planned it and when. Relations have a part in these hashes:
//! where the two plans call them by other ids, the plan is compared as it would be with the ids of the stored one.
//!
//! Promises: state that is said to belong to an operator was written by one that does the same over the same inputs, in
//! the form in which this one reads it. Nothing here reads state; it compares what manifests say about it.

use crate::checkpointing::descriptors_of;
use arrow::datatypes::{DataType, Schema};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tidegate_checkpoint::schemas::{COLUMN_KEY, ORDER_KEY};
use tidegate_checkpoint::{IN_FLIGHT, Manifest, TableDescriptor, TableEntry, TableSchemas};
use tidegate_plan::Dataflow;
use tidegate_types::{OperatorId, RelationId, TableId};

/// A state table of a plan, and what is stored for it.
#[derive(Debug, Clone)]
pub struct MatchedTable {
    pub declared: TableDescriptor,
    /// `None`: nothing that this table could go on from.
    pub stored: Option<Arc<TableEntry>>,
}

/// An operator of a plan that has state, and what is stored for it.
#[derive(Debug, Clone)]
pub struct MatchedOperator {
    /// Its place among the nodes of the dataflow.
    pub node: usize,
    pub operator: OperatorId,
    /// As plans are shown.
    pub shown: String,
    pub tables: Vec<MatchedTable>,
}

impl MatchedOperator {
    /// All that it needs is there.
    pub fn is_found(&self) -> bool {
        self.tables.iter().all(|t| t.stored.is_some())
    }

    pub fn rows(&self) -> u64 {
        self.stored().map(TableEntry::rows).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.stored().map(TableEntry::bytes).sum()
    }

    fn stored(&self) -> impl Iterator<Item = &TableEntry> {
        self.tables.iter().filter_map(|t| t.stored.as_deref())
    }
}

/// A plan beside a manifest.
#[derive(Debug, Clone)]
pub struct StateMatch {
    /// Those with state, in the order of the plan.
    pub operators: Vec<MatchedOperator>,
    /// What the manifest holds of the relation beyond that: it belongs to nothing in the plan.
    pub unused: Vec<Arc<TableEntry>>,
}

impl StateMatch {
    pub fn missing(&self) -> impl Iterator<Item = &MatchedOperator> {
        self.operators.iter().filter(|o| !o.is_found())
    }

    pub fn is_whole(&self) -> bool {
        self.missing().next().is_none()
    }
}

/// Looks for the state of a dataflow's operators in a manifest. `stored_as` says by which ids the manifest knows the
/// dataflow's own relation and those that it reads.
pub fn match_state(
    dataflow: &Dataflow,
    manifest: &Manifest,
    stored_as: impl Fn(RelationId) -> RelationId,
) -> StateMatch {
    let stored_plan = dataflow.with_relations(stored_as);
    let declared = descriptors_of(dataflow);
    let wanted = descriptors_of(&stored_plan);
    let known: HashSet<TableId> = wanted.iter().map(|t| t.table).collect();
    let place: HashMap<OperatorId, usize> = dataflow
        .nodes
        .iter()
        .enumerate()
        .map(|(index, node)| (node.id, index))
        .collect();
    let mut operators: Vec<MatchedOperator> = Vec::new();
    let mut unfit = HashSet::new();
    for (declared, wanted) in declared.into_iter().zip(wanted) {
        let entry = manifest.tables.get(&wanted.table);
        let stored = entry
            .filter(|e| e.descriptor.operator == wanted.operator)
            .filter(|e| same_form(&e.descriptor, &wanted))
            .cloned();
        if stored.is_none() {
            unfit.insert(wanted.table);
        }
        let operator = declared.operator;
        let table = MatchedTable { declared, stored };
        match operators.iter_mut().find(|o| o.operator == operator) {
            Some(matched) => matched.tables.push(table),
            None => {
                let node = place[&operator];
                operators.push(MatchedOperator {
                    node,
                    operator,
                    shown: dataflow.nodes[node].op.to_string(),
                    tables: vec![table],
                });
            }
        }
    }
    let is_unused = |entry: &&Arc<TableEntry>| {
        let d = &entry.descriptor;
        d.relation == stored_plan.relation
            && d.name != IN_FLIGHT
            && (!known.contains(&d.table) || unfit.contains(&d.table))
    };
    StateMatch {
        operators,
        unused: manifest
            .tables
            .values()
            .filter(is_unused)
            .cloned()
            .collect(),
    }
}

/// The table that holds the rows of a table or view.
pub fn rows_of(dataflow: &Dataflow) -> Option<TableDescriptor> {
    let id = crate::build::view_table(dataflow);
    descriptors_of(dataflow).into_iter().find(|t| t.table == id)
}

/// Whether bytes of one table can be read as those of the other. What columns are called plays no part.
pub fn same_form(a: &TableDescriptor, b: &TableDescriptor) -> bool {
    (a.form, a.merge, &a.name) == (b.form, b.merge, &b.name)
        && match (&a.schemas, &b.schemas) {
            (Some(a), Some(b)) => match (TableSchemas::from_json(a), TableSchemas::from_json(b)) {
                (Ok(a), Ok(b)) => {
                    a.encoding == b.encoding
                        && same_columns(&a.key, &b.key)
                        && same_columns(&a.sub_key, &b.sub_key)
                        && same_columns(&a.value, &b.value)
                }
                _ => false,
            },
            (a, b) => a == b,
        }
}

fn same_columns(a: &Schema, b: &Schema) -> bool {
    a.fields().len() == b.fields().len()
        && a.fields().iter().zip(b.fields()).all(|(a, b)| {
            let same = |key: &str| a.metadata().get(key) == b.metadata().get(key);
            same_type(a.data_type(), b.data_type()) && same(ORDER_KEY) && same(COLUMN_KEY)
        })
}

fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => same_type(a.data_type(), b.data_type()),
        (DataType::Struct(a), DataType::Struct(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| same_type(a.data_type(), b.data_type()))
        }
        (a, b) => a == b,
    }
}

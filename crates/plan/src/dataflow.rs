//! Nodes, edges, and their identity.

use crate::{ColumnWatermarks, Distribution, Op, StateTable};
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use tidegate_types::{OperatorId, RelationId};
use xxhash_rust::xxh3::Xxh3;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Index of the node that feeds this input.
    pub from: usize,
    pub distribution: Distribution,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    pub id: OperatorId,
    pub op: Op,
    pub inputs: Vec<Edge>,
    #[serde(skip)]
    pub schema: SchemaRef,
    /// Output rows are never retracted.
    pub append_only: bool,
    /// Columns whose values no two output rows share, if some are known.
    pub unique_key: Option<Vec<usize>>,
    /// Columns whose values in changes yet to come have a lower bound.
    pub watermarks: ColumnWatermarks,
    pub state: Vec<StateTable>,
}

/// One relation's dataflow. The last node is its root.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dataflow {
    pub relation: RelationId,
    pub name: String,
    pub nodes: Vec<Node>,
    /// The operator id under which a view's rows are kept. It changes when a view that is altered has to keep them in
    /// another form; then nothing that an older checkpoint holds of them can be taken for what is kept now.
    pub contents: OperatorId,
}

/// Under which operator id the rows of a view are kept that was never altered.
pub const CONTENTS: OperatorId = OperatorId(0);

impl Dataflow {
    pub fn root(&self) -> &Node {
        self.nodes.last().expect("a dataflow has a root")
    }

    pub fn input_schema(&self, node: usize, input: usize) -> &SchemaRef {
        &self.nodes[self.nodes[node].inputs[input].from].schema
    }

    /// The watermarks of an input's columns.
    pub fn input_watermarks(&self, node: usize, input: usize) -> &ColumnWatermarks {
        &self.nodes[self.nodes[node].inputs[input].from].watermarks
    }

    /// The relations that this dataflow imports or reads, each once, in order of first use.
    pub fn reads(&self) -> Vec<RelationId> {
        let mut relations = Vec::new();
        for node in &self.nodes {
            if let Op::Import { relation, .. } | Op::Source { relation, .. } = &node.op
                && !relations.contains(relation)
            {
                relations.push(*relation);
            }
        }
        relations
    }

    /// The same dataflow as it would be if relations had other ids: its own and those that it reads. Its nodes get the ids
    /// that they have there.
    pub fn with_relations(&self, other: impl Fn(RelationId) -> RelationId) -> Self {
        // Those of a view that was altered are no longer hashes, and keep the ids that they have.
        if other(self.relation) == self.relation && self.reads().iter().all(|r| other(*r) == *r) {
            return self.clone();
        }
        let mut renamed = self.clone();
        renamed.relation = other(self.relation);
        for node in &mut renamed.nodes {
            for (_, watermark) in &mut node.watermarks {
                *watermark = watermark.with_sources(&other);
            }
            match &mut node.op {
                Op::Import { relation, .. }
                | Op::Source { relation, .. }
                | Op::TableInput { relation }
                | Op::Materialize { relation, .. }
                | Op::Sink { relation } => *relation = other(*relation),
                _ => {}
            }
        }
        renamed.assign_ids();
        renamed
    }

    /// Gives every node its id: a hash of what it does and of the ids of its inputs. Equal nodes of one dataflow (a
    /// self-join reads its input twice) are told apart by the order in which they appear.
    pub fn assign_ids(&mut self) {
        let mut seen = std::collections::HashMap::new();
        for index in 0..self.nodes.len() {
            let mut hash = Xxh3::new();
            let node = &self.nodes[index];
            let described = serde_json::to_vec(&node.op).expect("an operator is plain data");
            hash.update(&described);
            for edge in &node.inputs {
                hash.update(&self.nodes[edge.from].id.0.to_be_bytes());
                hash.update(format!("{:?}", edge.distribution).as_bytes());
            }
            hash.update(&[u8::from(node.append_only)]);
            let structural = hash.digest();
            let occurrence = seen.entry(structural).or_insert(0u64);
            let id = structural.wrapping_add(*occurrence);
            *occurrence += 1;
            self.nodes[index].id = OperatorId(id);
        }
    }
}

//! From one plan of a view to the next: which operators, and with them their state, go on.
//!
//! An operator goes on when the old plan has one that does the same over the same inputs, all the way down to the
//! relations that are read, and when it can tell from its state what its output is at present ([`can_replay`]): what is
//! built anew above it starts from that. Operators without state, and those that cannot tell, are built anew above what
//! lies below them. What is built anew down to the relations themselves reads these from the beginning: a backfill.
//!
//! Equality is decided by comparing operators, not ids: hashes may collide, and an operator that was built anew has an id
//! that no operator of the view ever had, so that nothing that an older checkpoint holds can be taken for its state.

use crate::join_state::{JoinLayout, join_partition_keys};
use crate::state_tables::{top_n_keeps_list, top_n_numbers_all};
use crate::{Dataflow, Distribution, JoinKind, Op};
use arrow::datatypes::{Field, Schema};
use std::sync::Arc;
use tidegate_types::OperatorId;
use xxhash_rust::xxh3::Xxh3;

/// What becomes of an operator of the new plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on with its state.
    Kept,
    /// It begins with nothing, and is fed with all of its input.
    Rebuilt,
}

/// Whether an operator's state says what its output is at present, row for row.
pub fn can_replay(dataflow: &Dataflow, index: usize) -> bool {
    // State that a watermark frees does not say what the output was.
    let inputs = 0..dataflow.nodes[index].inputs.len();
    if inputs
        .into_iter()
        .any(|input| !dataflow.input_watermarks(index, input).is_empty())
    {
        return false;
    }
    match &dataflow.nodes[index].op {
        Op::Aggregate { .. } => true,
        Op::TopN {
            ranking,
            offset,
            limit,
            numbered,
            ..
        } => {
            let append_only = dataflow.input_append_only(index, 0);
            !top_n_keeps_list(*ranking, *offset, *limit, append_only)
                && !top_n_numbers_all(*offset, *limit, *numbered)
        }
        Op::Join {
            kind,
            left_keys,
            right_keys,
            null_equals_null,
            null_aware,
            residual,
        } => {
            let layout = JoinLayout::new(*kind, left_keys.len(), *null_aware, residual.is_some());
            if layout.first_compared() {
                return false;
            }
            // A row with a NULL among its keys matches nothing; where it is part of the output it passes without a trace.
            let passes = |preserved: bool, keys: &[usize], input: usize| {
                let schema = dataflow.input_schema(index, input);
                let keys = join_partition_keys(*kind, *null_aware, keys);
                preserved
                    && !null_equals_null
                    && keys.iter().any(|k| schema.field(*k).is_nullable())
            };
            let left = !matches!(kind, JoinKind::Inner | JoinKind::Right | JoinKind::LeftSemi);
            let right = matches!(kind, JoinKind::Right | JoinKind::Full);
            !passes(left, left_keys, 0) && !passes(right, right_keys, 1)
        }
        _ => false,
    }
}

impl Dataflow {
    /// Makes this plan the successor of another: operators that go on take their ids from it, the others get new ones.
    /// `salt` must be different for every succession of a view. Answers what becomes of each operator.
    pub fn succeed(&mut self, old: &Dataflow, salt: u64) -> Vec<Fate> {
        let mut fates = vec![Fate::Rebuilt; self.nodes.len()];
        if self.is_same(old) {
            for (node, before) in self.nodes.iter_mut().zip(&old.nodes) {
                node.id = before.id;
            }
            self.contents = old.contents;
            return vec![Fate::Kept; self.nodes.len()];
        }
        let mut taken = vec![false; old.nodes.len()];
        let root = self.nodes.len() - 1;
        let mut open: Vec<usize> = self.inputs_of(root);
        while let Some(index) = open.pop() {
            let before = (0..old.nodes.len())
                .find(|other| !taken[*other] && self.does_the_same(index, old, *other))
                .filter(|_| can_replay(self, index));
            match before {
                Some(before) => self.take_over(index, old, before, &mut fates, &mut taken),
                None => open.extend(self.inputs_of(index)),
            }
        }
        self.new_ids(&fates, salt);
        self.contents = match self.keeps_contents(old) {
            true => old.contents,
            false => OperatorId(salted(u64::MAX, salt, 0)),
        };
        fates
    }

    /// Whether both do the same, operator for operator, and keep the same rows under the same names.
    pub fn is_same(&self, old: &Dataflow) -> bool {
        let (root, other) = (self.nodes.len() - 1, old.nodes.len() - 1);
        self.nodes.len() == old.nodes.len() && self.does_the_same(root, old, other)
    }

    /// Whether the operators are the same, by their ids, and the rows are kept in the same place.
    pub fn has_ids_of(&self, other: &Dataflow) -> bool {
        let ids = |dataflow: &Dataflow| dataflow.nodes.iter().map(|n| n.id).collect::<Vec<_>>();
        self.contents == other.contents && ids(self) == ids(other)
    }

    /// Whether the rows of both views can be kept in one store, changes from one to the other included.
    pub fn keeps_contents(&self, old: &Dataflow) -> bool {
        let (root, before) = (self.root(), old.root());
        let only_arrive = |dataflow: &Dataflow| match &dataflow.root().op {
            Op::Materialize { key, .. } => key.is_empty() && dataflow.root().append_only,
            _ => true,
        };
        root.op == before.op
            && root.schema == before.schema
            && !only_arrive(self)
            && !only_arrive(old)
    }

    /// Keeps a view's rows as its predecessor does where nothing speaks against it: by the same key, and with columns that
    /// may be NULL where they could be before. So its contents need not be moved, and whoever reads it by its key groups
    /// goes on.
    pub fn conform(&mut self, old: &Dataflow) {
        let before = old.root();
        let Op::Materialize { key: old_key, .. } = &before.op else {
            return;
        };
        let root = self.nodes.len() - 1;
        let fields = self.nodes[root].schema.fields();
        let begins_the_same = fields.len() >= before.schema.fields().len()
            && fields
                .iter()
                .zip(before.schema.fields())
                .all(|(f, b)| f.data_type() == b.data_type() && f.metadata() == b.metadata());
        if !begins_the_same || old_key.is_empty() {
            return;
        }
        let fields: Vec<Field> = fields
            .iter()
            .enumerate()
            .map(|(i, f)| {
                let was = before
                    .schema
                    .fields()
                    .get(i)
                    .is_some_and(|b| b.is_nullable());
                f.as_ref().clone().with_nullable(f.is_nullable() || was)
            })
            .collect();
        let node = &mut self.nodes[root];
        node.schema = Arc::new(Schema::new(fields));
        if let Op::Materialize { key, .. } = &mut node.op {
            key.clone_from(old_key);
        }
        node.inputs[0].distribution = Distribution::Key(old_key.clone());
    }

    /// Whether no two rows of a view share its key.
    pub fn is_unique(&self) -> bool {
        match (&self.root().op, &self.root().unique_key) {
            (Op::Materialize { key, .. }, Some(unique)) => unique.iter().all(|c| key.contains(c)),
            _ => false,
        }
    }

    fn inputs_of(&self, index: usize) -> Vec<usize> {
        self.nodes[index].inputs.iter().map(|e| e.from).collect()
    }

    fn does_the_same(&self, index: usize, old: &Dataflow, other: usize) -> bool {
        let (node, before) = (&self.nodes[index], &old.nodes[other]);
        let is_root = index + 1 == self.nodes.len();
        node.op == before.op
            && match is_root {
                true => node.schema == before.schema,
                false => same_types(&node.schema, &before.schema),
            }
            && node.append_only == before.append_only
            && node.watermarks == before.watermarks
            && node.inputs.len() == before.inputs.len()
            && node.inputs.iter().zip(&before.inputs).all(|(edge, was)| {
                edge.distribution == was.distribution
                    && self.does_the_same(edge.from, old, was.from)
            })
    }

    fn take_over(
        &mut self,
        index: usize,
        old: &Dataflow,
        before: usize,
        fates: &mut [Fate],
        taken: &mut [bool],
    ) {
        self.nodes[index].id = old.nodes[before].id;
        fates[index] = Fate::Kept;
        taken[before] = true;
        let inputs = self.inputs_of(index);
        for (input, edge) in inputs.into_iter().zip(&old.nodes[before].inputs) {
            self.take_over(input, old, edge.from, fates, taken);
        }
    }

    fn new_ids(&mut self, fates: &[Fate], salt: u64) {
        for (index, shape) in self.shapes().into_iter().enumerate() {
            if fates[index] == Fate::Rebuilt {
                self.nodes[index].id = OperatorId(salted(shape, salt, index));
            }
        }
    }
}

/// Names of columns do not matter below the root: columns are positions.
fn same_types(one: &Schema, other: &Schema) -> bool {
    one.fields().len() == other.fields().len()
        && one.fields().iter().zip(other.fields()).all(|(a, b)| {
            a.data_type() == b.data_type()
                && a.is_nullable() == b.is_nullable()
                && a.metadata() == b.metadata()
        })
}

fn salted(shape: u64, salt: u64, index: usize) -> u64 {
    let mut hash = Xxh3::new();
    for part in [shape, salt, index as u64] {
        hash.update(&part.to_be_bytes());
    }
    hash.digest()
}

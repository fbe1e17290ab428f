//! From the tree to the list of nodes: properties, distributions, ids, state tables.

use crate::properties::{self, Properties};
use crate::rel::{Origin, Rel};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;
use tidegate_plan::{Dataflow, Edge, Node, Op};
use tidegate_types::{OperatorId, RelationId, SqlError};

/// What a table or source is planned from.
#[derive(Debug, Clone)]
pub struct StoredRelation {
    pub id: RelationId,
    pub name: String,
    /// All stored columns, hidden ones too.
    pub schema: SchemaRef,
    /// A table's primary key (its hidden row id where it has none of its own). Empty for sources.
    pub primary_key: Vec<usize>,
    pub append_only: bool,
}

/// A table's own dataflow: changes from the command log into the table's view store.
pub fn plan_table(table: &StoredRelation) -> Dataflow {
    let unique_key = (!table.primary_key.is_empty()).then(|| table.primary_key.clone());
    let mut input = Rel::new(
        Op::TableInput { relation: table.id },
        Vec::new(),
        table.schema.clone(),
    );
    input.origin = Origin {
        append_only: table.append_only,
        unique_key,
        ..Origin::default()
    };
    let schema = input.schema.clone();
    materialized(input, schema, table.id, &table.name)
}

/// A source's own dataflow: its connector, with all columns.
pub fn plan_source(source: &StoredRelation) -> Dataflow {
    let columns = (0..source.schema.fields().len()).collect();
    let mut input = Rel::new(
        Op::Source {
            relation: source.id,
            columns,
        },
        Vec::new(),
        source.schema.clone(),
    );
    input.origin = Origin {
        append_only: source.append_only,
        ..Origin::default()
    };
    flatten(input, source.id, &source.name)
}

/// The dataflow that keeps a tree's rows in a view store, under the view's names.
pub(crate) fn materialize(
    rel: Rel,
    names: &SchemaRef,
    relation: RelationId,
    name: &str,
) -> Result<Dataflow, SqlError> {
    let schema = with_names(&rel.schema, names)?;
    Ok(materialized(rel, schema, relation, name))
}

fn materialized(rel: Rel, schema: SchemaRef, relation: RelationId, name: &str) -> Dataflow {
    let key = properties::view_key(rel.width(), &properties_of(&rel));
    flatten(
        Rel::new(Op::Materialize { relation, key }, vec![rel], schema),
        relation,
        name,
    )
}

/// The tree's own nullability under the view's names.
pub(crate) fn with_names(tree: &SchemaRef, names: &SchemaRef) -> Result<SchemaRef, SqlError> {
    let mut fields: Vec<Field> = Vec::new();
    for (have, want) in tree.fields().iter().zip(names.fields()) {
        if have.data_type() != want.data_type() {
            let (name, have, want) = (want.name(), have.data_type(), want.data_type());
            return Err(SqlError::internal(format!(
                "column \"{name}\" became {have} from {want}"
            )));
        }
        fields.push(want.as_ref().clone().with_nullable(have.is_nullable()));
    }
    Ok(Arc::new(Schema::new(fields)))
}

pub(crate) fn properties_of(rel: &Rel) -> Properties {
    let inputs: Vec<Properties> = rel.inputs.iter().map(properties_of).collect();
    properties::derive(rel, &inputs)
}

/// The dataflow of a finished tree.
pub(crate) fn flatten(rel: Rel, relation: RelationId, name: &str) -> Dataflow {
    let mut dataflow = Dataflow {
        relation,
        name: name.to_owned(),
        nodes: Vec::new(),
        contents: tidegate_plan::CONTENTS,
    };
    push(rel, &mut dataflow);
    dataflow.assign_ids();
    dataflow.declare_state();
    dataflow
}

/// Inputs first, so that the list is in topological order and the root is last.
fn push(mut rel: Rel, dataflow: &mut Dataflow) -> (usize, Properties) {
    let children = std::mem::take(&mut rel.inputs);
    // Properties look at the inputs' schemas, so the inputs stay behind as stubs.
    rel.inputs = children
        .iter()
        .map(|child| Rel {
            inputs: Vec::new(),
            ..Rel::new(child.op.clone(), Vec::new(), child.schema.clone())
        })
        .collect();
    let (indexes, inputs): (Vec<usize>, Vec<Properties>) = children
        .into_iter()
        .map(|child| push(child, dataflow))
        .unzip();
    let found = properties::derive(&rel, &inputs);
    let edges = indexes
        .iter()
        .enumerate()
        .map(|(input, from)| Edge {
            from: *from,
            distribution: properties::distribution(&rel.op, input, &inputs[input]),
        })
        .collect();
    dataflow.nodes.push(Node {
        id: OperatorId(0),
        op: rel.op,
        inputs: edges,
        schema: rel.schema,
        append_only: found.append_only,
        unique_key: found.unique_key.clone(),
        watermarks: found.watermarks.clone(),
        state: Vec::new(),
    });
    (dataflow.nodes.len() - 1, found)
}

//! One operator against expected text.

use crate::runner::{NodeRunner, Output, model_tables};
use crate::text::{Step, error_line, lines, parse};
use arrow::datatypes::{Field, Schema, SchemaRef};
use expect_test::Expect;
use std::sync::Arc;
use tidegate_plan::{Dataflow, Distribution, Edge, Node, Op, Watermark};
use tidegate_types::{OperatorId, RelationId, SqlType};

/// An operator with its inputs' and its output's columns.
pub struct Check {
    pub op: Op,
    pub inputs: Vec<SchemaRef>,
    pub output: SchemaRef,
    pub append_only: bool,
}

/// Columns `c0, c1, …` of these types, all nullable.
pub fn columns(types: &[SqlType]) -> SchemaRef {
    let fields: Vec<Field> = types
        .iter()
        .enumerate()
        .map(|(i, t)| t.field(&format!("c{i}"), true))
        .collect();
    Arc::new(Schema::new(fields))
}

/// A dataflow of one operator over imports, with its state declared and ids assigned. The operator is the last node.
pub fn single_node(op: Op, inputs: &[SchemaRef], output: SchemaRef, append_only: bool) -> Dataflow {
    let node = |op, schema, inputs, append_only| Node {
        id: OperatorId(0),
        op,
        inputs,
        schema,
        append_only,
        unique_key: None,
        watermarks: Vec::new(),
        state: Vec::new(),
    };
    let mut nodes: Vec<Node> = inputs
        .iter()
        .enumerate()
        .map(|(index, schema)| {
            let columns = (0..schema.fields().len()).collect();
            let import = Op::Import {
                relation: RelationId(index as u64 + 1),
                columns,
            };
            node(import, schema.clone(), Vec::new(), append_only)
        })
        .collect();
    let edges = (0..inputs.len())
        .map(|from| Edge {
            from,
            distribution: Distribution::Any,
        })
        .collect();
    if let Op::OnClose { time, .. } = &op {
        nodes[0].watermarks = vec![(*time, Watermark::of_source(RelationId(1)))];
    }
    nodes.push(node(op, output, edges, false));
    let mut dataflow = Dataflow {
        relation: RelationId(0),
        name: "checked".into(),
        nodes,
        contents: tidegate_plan::CONTENTS,
    };
    dataflow.assign_ids();
    dataflow.declare_state();
    dataflow
}

/// Runs the text's steps and compares what each epoch gave, sorted, with the expected text.
pub fn check(operator: Check, input: &str, expected: Expect) {
    let Check {
        op,
        inputs,
        output,
        append_only,
    } = operator;
    let dataflow = single_node(op, &inputs, output, append_only);
    let index = dataflow.nodes.len() - 1;
    let mut runner =
        NodeRunner::new(&dataflow, index, &model_tables).expect("the operator can be built");
    let (mut text, mut epoch, mut pending) = (String::new(), 0, Vec::new());
    for step in parse(input, &inputs) {
        match step {
            Step::Batch(port, batch) => note(
                runner.batch(port, batch).expect("the batch goes through"),
                &mut pending,
            ),
            Step::Barrier => {
                epoch += 1;
                note(
                    runner.barrier(epoch).expect("the barrier goes through"),
                    &mut pending,
                );
                pending.sort();
                pending
                    .drain(..)
                    .for_each(|line: String| text.push_str(&(line + "\n")));
                text.push_str("--\n");
            }
        }
    }
    expected.assert_eq(&text);
}

fn note(output: Output, lines_so_far: &mut Vec<String>) {
    output
        .batches
        .iter()
        .for_each(|batch| lines_so_far.extend(lines(batch)));
    lines_so_far.extend(output.errors.iter().map(error_line));
}

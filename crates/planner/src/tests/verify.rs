//! What every plan must satisfy: expressions compile, have the declared types and are never NULL where that is promised;
//! keys of joins agree; inputs of unions agree with their output.

use crate::rel::{positional, positions};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::ExprSchemable;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::create_physical_expr;
use tidegate_plan::{Dataflow, Distribution, Node, Op, ScalarExpr};

pub(super) fn check(dataflow: &Dataflow) {
    for (index, node) in dataflow.nodes.iter().enumerate() {
        let inputs: Vec<&Schema> = (0..node.inputs.len())
            .map(|i| dataflow.input_schema(index, i).as_ref())
            .collect();
        assert!(
            !node.schema.fields().is_empty(),
            "{} has no columns",
            node.op
        );
        for (edge, input) in node.inputs.iter().zip(&inputs) {
            assert!(edge.from < index, "topological order");
            if let Distribution::Key(columns) = &edge.distribution {
                assert!(
                    columns.iter().all(|c| *c < input.fields().len()),
                    "distributed by columns that exist"
                );
            }
        }
        if let Some(key) = &node.unique_key {
            assert!(
                key.iter().all(|c| *c < node.schema.fields().len()),
                "a key of columns that exist"
            );
        }
        operator(node, &inputs);
    }
}

fn operator(node: &Node, inputs: &[&Schema]) {
    match &node.op {
        Op::Filter { predicate } => {
            compiles(
                predicate,
                inputs[0],
                &Field::new("", DataType::Boolean, true),
            );
            assert_eq!(node.schema.as_ref(), inputs[0]);
        }
        Op::Project { expressions } => {
            assert_eq!(expressions.len(), node.schema.fields().len());
            for (expression, field) in expressions.iter().zip(node.schema.fields()) {
                compiles(expression, inputs[0], field);
            }
        }
        Op::Values { rows } => {
            for row in rows {
                for (cell, field) in row.iter().zip(node.schema.fields()) {
                    compiles(
                        cell,
                        &Schema::empty(),
                        &field.as_ref().clone().with_nullable(true),
                    );
                }
            }
        }
        Op::Join {
            left_keys,
            right_keys,
            residual,
            ..
        } => {
            assert_eq!(left_keys.len(), right_keys.len());
            for (left, right) in left_keys.iter().zip(right_keys) {
                assert_eq!(
                    inputs[0].field(*left).data_type(),
                    inputs[1].field(*right).data_type(),
                    "{}",
                    node.op
                );
            }
            if let Some(residual) = residual {
                let both: Vec<_> = inputs
                    .iter()
                    .flat_map(|s| s.fields().iter().cloned())
                    .collect();
                compiles(
                    residual,
                    &Schema::new(both),
                    &Field::new("", DataType::Boolean, true),
                );
            }
        }
        Op::Union => {
            for input in inputs {
                for (have, want) in input.fields().iter().zip(node.schema.fields()) {
                    assert_eq!(have.data_type(), want.data_type());
                    assert!(
                        want.is_nullable() || !have.is_nullable(),
                        "a union hides that {have} may be NULL"
                    );
                }
            }
        }
        _ => {}
    }
}

fn compiles(expression: &ScalarExpr, input: &Schema, field: &Field) {
    let schema = positional(input);
    assert!(
        positions(expression)
            .iter()
            .all(|p| *p < input.fields().len()),
        "{expression} reads what is not there"
    );
    let context = PhysicalPlanningContext::default();
    create_physical_expr(expression.expr(), &schema, &ExecutionProps::new(), &context)
        .unwrap_or_else(|e| panic!("{expression} over {schema}: {e}"));
    let (_, found) = expression.expr().to_field(&schema).unwrap();
    assert_eq!(
        found.data_type(),
        field.data_type(),
        "{expression} over {schema}"
    );
    assert!(
        field.is_nullable() || !found.is_nullable(),
        "{expression} may be NULL, and its column says it is not"
    );
}

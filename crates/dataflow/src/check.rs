//! Whether everything in a plan can be done, asked before the plan is installed.
//!
//! Every operator is built once, and every expression evaluated over no rows: a type that an operator cannot keep, a function
//! or a cast that is missing is then the error of the statement (0A000, with the feature's name) and not of a worker later.
//! What depends on values, such as a constant that cannot be converted, is not an error here: it is one of the rows.

use crate::expression::compile;
use crate::{OperatorError, factory};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ExprSchemable};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tidegate_plan::{Dataflow, Op, ScalarExpr};
use tidegate_types::{KeyGroupRange, SqlError, SqlType};

/// 0A000 with the name of what cannot be done.
pub fn check(dataflow: &Dataflow) -> Result<(), SqlError> {
    for (index, node) in dataflow.nodes.iter().enumerate() {
        if is_runtimes(&node.op) {
            continue;
        }
        let inputs: Vec<SchemaRef> = (0..node.inputs.len())
            .map(|input| dataflow.input_schema(index, input).clone())
            .collect();
        for expression in expressions(&node.op) {
            check_expression(expression.expr(), &inputs)?;
        }
        factory::build(dataflow, index, KeyGroupRange::ALL)
            .map(drop)
            .map_err(|error| unsupported(&family(&node.op), &error))?;
    }
    Ok(())
}

fn is_runtimes(op: &Op) -> bool {
    matches!(
        op,
        Op::Import { .. }
            | Op::Source { .. }
            | Op::TableInput { .. }
            | Op::Materialize { .. }
            | Op::Sink { .. }
    )
}

/// What a person calls the operator.
fn family(op: &Op) -> String {
    let name = match op {
        Op::Aggregate { calls, .. } if calls.is_empty() => "DISTINCT",
        Op::Aggregate { .. } => "GROUP BY",
        Op::Join { .. } => "a join",
        Op::TopN { .. } => "an order",
        Op::Window { .. } => "a window function",
        Op::Session { .. } => "SESSION",
        Op::TimeFilter { .. } => "now()",
        Op::OnClose { .. } => "EMIT ON WINDOW CLOSE",
        Op::AtMostOne { .. } => "a scalar sub-query",
        Op::Unnest { .. } => "unnest",
        _ => "an expression",
    };
    format!("{name} over columns of these types")
}

fn expressions(op: &Op) -> Vec<&ScalarExpr> {
    match op {
        Op::Filter { predicate } => vec![predicate],
        Op::Project { expressions } => expressions.iter().collect(),
        Op::Join {
            residual: Some(residual),
            ..
        } => vec![residual],
        _ => Vec::new(),
    }
}

fn unsupported(feature: &str, cause: &OperatorError) -> SqlError {
    SqlError::not_supported(format!("{feature} in a materialized view"))
        .with_detail(cause.to_string())
}

/// Finds the smallest part of an expression that cannot be evaluated.
fn check_expression(expression: &Expr, inputs: &[SchemaRef]) -> Result<(), SqlError> {
    let fields: Vec<_> = inputs
        .iter()
        .flat_map(|s| s.fields().iter().cloned())
        .collect();
    let input = Schema::new(fields);
    let schema = ScalarExpr::positional_schema(&input);
    let Some(cause) = failure(expression, &schema) else {
        return Ok(());
    };
    let mut culprit = (expression.clone(), cause);
    let walked = expression.apply(|part| {
        let children = match part {
            // Parts of these are not expressions by themselves.
            Expr::WindowFunction(_) | Expr::AggregateFunction(_) => TreeNodeRecursion::Jump,
            _ => TreeNodeRecursion::Continue,
        };
        if let Some(cause) = failure(part, &schema) {
            culprit = (part.clone(), cause);
        }
        Ok(children)
    });
    walked.expect("the visitor never fails");
    let (part, cause) = culprit;
    Err(unsupported(&described(&part, &schema), &cause))
}

/// Why an expression that reads some column cannot be evaluated, whatever the rows.
fn failure(expression: &Expr, schema: &DFSchema) -> Option<OperatorError> {
    let compiled = match compile(&ScalarExpr::new(expression.clone()), schema) {
        Ok(compiled) => compiled,
        Err(error) => return Some(error),
    };
    let rows = RecordBatch::new_empty(Arc::clone(schema.inner()));
    let evaluate = AssertUnwindSafe(|| compiled.evaluate(&rows).map(drop));
    // A kernel that panics over no rows says nothing about what it does with some.
    let Ok(Err(error)) = catch_unwind(evaluate) else {
        return None;
    };
    is_missing(&error).then(|| error.into())
}

/// Errors that say that something does not exist, rather than that a value is not right.
fn is_missing(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::NotImplemented(_) | DataFusionError::Internal(_) => true,
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::NotYetImplemented(_) => true,
            ArrowError::CastError(message) | ArrowError::InvalidArgumentError(message) => {
                message.contains("not supported") || message.starts_with("Invalid ")
            }
            _ => false,
        },
        _ => false,
    }
}

fn described(part: &Expr, schema: &DFSchema) -> String {
    let name = |e: &Expr| match e.to_field(schema) {
        Ok((_, field)) => SqlType::from_field(&field).to_string(),
        Err(_) => "an unknown type".to_owned(),
    };
    match part {
        Expr::ScalarFunction(function) => {
            let types: Vec<String> = function.args.iter().map(name).collect();
            format!("the function {}({})", function.name(), types.join(", "))
        }
        Expr::Cast(cast) => format!("a cast from {} to {}", name(&cast.expr), name(part)),
        Expr::BinaryExpr(binary) => {
            let (left, right) = (name(&binary.left), name(&binary.right));
            format!("the operator {left} {} {right}", binary.op)
        }
        other => format!("the expression {other}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::datatypes::{DataType, Field};
    use datafusion::logical_expr::{cast, col, lit};
    use tidegate_plan::{Ranking, SortKey};
    use tidegate_testkit::check::single_node;

    fn checked(op: Op) -> Result<(), String> {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
        let input = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("l", list, true),
            Field::new("s", DataType::Utf8, true),
        ]));
        let dataflow = single_node(op, std::slice::from_ref(&input), input.clone(), false);
        check(&dataflow).map_err(|e| {
            assert_eq!(e.state.code(), "0A000");
            e.message
        })
    }

    fn filter(predicate: Expr) -> Result<(), String> {
        checked(Op::Filter {
            predicate: ScalarExpr::new(predicate),
        })
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        assert_eq!(filter(col("0").gt(lit(1i32))), Ok(()));
        let wrong = cast(col("1"), DataType::Date32)
            .is_null()
            .or(col("0").gt(lit(1i32)));
        assert_eq!(
            filter(wrong).unwrap_err(),
            "a cast from integer[] to date in a materialized view is not supported"
        );
        let rank = Op::TopN {
            partition: vec![0],
            order: vec![SortKey {
                column: 1,
                descending: false,
                nulls_first: false,
            }],
            ranking: Ranking::Rank,
            offset: 0,
            limit: Some(1),
            numbered: false,
        };
        assert_eq!(
            checked(rank).unwrap_err(),
            "an order over columns of these types in a materialized view is not supported"
        );
    }

    #[test]
    fn values_are_the_business_of_rows() {
        assert_eq!(filter((lit(1i32) / lit(0i32)).gt(col("0"))), Ok(()));
        assert_eq!(filter(cast(lit("x"), DataType::Int32).gt(col("0"))), Ok(()));
    }
}

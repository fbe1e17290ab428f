//! Integer overflow is an error in ad-hoc queries, as it is in views and in Postgres. DataFusion's default is to wrap.
//!
//! Constants are added up while planning ([`constant`]), where DataFusion's own folding would wrap too. The rest is a last
//! rule over the physical plan, which turns the check on in projections, filters and arguments of aggregates.

use datafusion::arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{BinaryExpr as LogicalBinary, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use std::any::Any;
use std::sync::Arc;
use tidegate_types::{SqlError, SqlState};

/// The value of `a op b` over integer literals.
pub(super) fn constant(binary: &LogicalBinary) -> Result<Option<Expr>> {
    let (Some((left, left_wide)), Some((right, right_wide))) =
        (integer(&binary.left), integer(&binary.right))
    else {
        return Ok(None);
    };
    // Two 64-bit values cannot overflow 128 bits in one step.
    let value = match binary.op {
        Operator::Plus => left + right,
        Operator::Minus => left - right,
        Operator::Multiply => left * right,
        _ => return Ok(None),
    };
    let scalar = match left_wide || right_wide {
        true => i64::try_from(value)
            .map(|v| ScalarValue::Int64(Some(v)))
            .map_err(|_| "bigint"),
        false => i32::try_from(value)
            .map(|v| ScalarValue::Int32(Some(v)))
            .map_err(|_| "integer"),
    };
    match scalar {
        Ok(scalar) => Ok(Some(Expr::Literal(scalar, None))),
        Err(name) => {
            let message = format!("{name} out of range");
            Err(crate::errors::external(SqlError::new(
                SqlState::NUMERIC_OUT_OF_RANGE,
                message,
            )))
        }
    }
}

fn integer(expr: &Expr) -> Option<(i128, bool)> {
    match expr {
        Expr::Literal(ScalarValue::Int32(Some(value)), None) => Some((i128::from(*value), false)),
        Expr::Literal(ScalarValue::Int64(Some(value)), None) => Some((i128::from(*value), true)),
        Expr::Negative(inner) => integer(inner).map(|(value, wide)| (-value, wide)),
        _ => None,
    }
}

#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl PhysicalOptimizerRule for CheckedArithmetic {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan.transform_up(node)?.data)
    }

    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn node(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let any = plan.as_ref() as &dyn Any;
    if let Some(projection) = any.downcast_ref::<ProjectionExec>() {
        let input = projection.input().schema();
        let mut changed = false;
        let mut expressions = Vec::new();
        for item in projection.expr() {
            let checked = expression(item.expr.clone(), &input)?;
            changed |= checked.transformed;
            expressions.push(ProjectionExpr {
                expr: checked.data,
                alias: item.alias.clone(),
            });
        }
        if changed {
            let rebuilt = ProjectionExec::try_new(expressions, projection.input().clone())?;
            return Ok(Transformed::yes(Arc::new(rebuilt)));
        }
    } else if let Some(filter) = any.downcast_ref::<FilterExec>() {
        let checked = expression(filter.predicate().clone(), &filter.input().schema())?;
        if checked.transformed {
            let rebuilt = FilterExecBuilder::from(filter)
                .with_predicate(checked.data)
                .build()?;
            return Ok(Transformed::yes(Arc::new(rebuilt)));
        }
    } else if let Some(aggregate) = any.downcast_ref::<AggregateExec>() {
        return arguments(aggregate).map(|rebuilt| match rebuilt {
            Some(rebuilt) => Transformed::yes(rebuilt),
            None => Transformed::no(plan.clone()),
        });
    }
    Ok(Transformed::no(plan))
}

/// The aggregate with checked arguments. Later stages read states, not arguments.
fn arguments(aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if matches!(
        aggregate.mode(),
        AggregateMode::Final | AggregateMode::FinalPartitioned
    ) {
        return Ok(None);
    }
    let input = aggregate.input().schema();
    let mut changed = false;
    let mut calls = Vec::new();
    for call in aggregate.aggr_expr() {
        let mut arguments = Vec::new();
        let mut here = false;
        for argument in call.expressions() {
            let checked = expression(argument, &input)?;
            here |= checked.transformed;
            arguments.push(checked.data);
        }
        let order = call
            .order_bys()
            .iter()
            .map(|sort| sort.expr.clone())
            .collect();
        match call.with_new_expressions(arguments, order) {
            Some(checked) if here => {
                changed = true;
                calls.push(Arc::new(checked));
            }
            _ => calls.push(call.clone()),
        }
    }
    Ok(changed.then(|| Arc::new(aggregate.with_new_aggr_exprs(calls)) as Arc<dyn ExecutionPlan>))
}

fn expression(
    expr: Arc<dyn PhysicalExpr>,
    input: &Schema,
) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
    expr.transform_up(|node| {
        let any = node.as_ref() as &dyn Any;
        if let Some(negative) = any.downcast_ref::<NegativeExpr>() {
            let data_type = negative.arg().data_type(input)?;
            if data_type.is_signed_integer() {
                let zero: Arc<dyn PhysicalExpr> =
                    Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
                let minus = BinaryExpr::new(zero, Operator::Minus, negative.arg().clone())
                    .with_fail_on_overflow(true);
                return Ok(Transformed::yes(Arc::new(minus) as Arc<dyn PhysicalExpr>));
            }
        }
        match any.downcast_ref::<BinaryExpr>() {
            Some(binary)
                if matches!(
                    binary.op(),
                    Operator::Plus | Operator::Minus | Operator::Multiply
                ) =>
            {
                let checked =
                    BinaryExpr::new(binary.left().clone(), *binary.op(), binary.right().clone())
                        .with_fail_on_overflow(true);
                Ok(Transformed::yes(Arc::new(checked) as Arc<dyn PhysicalExpr>))
            }
            _ => Ok(Transformed::no(node)),
        }
    })
}

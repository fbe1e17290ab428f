//! `now()` in views: the time of the barrier.
//!
//! A view is a function of its inputs and of the time that barriers carry. So `now()` is not the constant that DataFusion would
//! make of it, but a function that nothing computes: [`crate::lower`] makes filters over time of the conditions that it is in,
//! and refuses it elsewhere.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use std::sync::Arc;

const NAME: &str = "barrier_time";

/// The plan with `now()` as the barrier's time.
pub(crate) fn bind(plan: LogicalPlan) -> Result<LogicalPlan> {
    let nothing = DFSchema::empty();
    let bound = plan.transform_up_with_subqueries(|node| {
        // What an output column is called stays.
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let replaced = expr.transform_up(|e| match &e {
                Expr::ScalarFunction(function) if function.name() == "now" => {
                    let data_type = e.get_type(&nothing)?;
                    Ok(Transformed::yes(barrier_time(data_type)))
                }
                _ => Ok(Transformed::no(e)),
            })?;
            Ok(replaced.update_data(|e| name.restore(e)))
        })
    })?;
    Ok(bound.data)
}

fn barrier_time(data_type: DataType) -> Expr {
    let function = BarrierTime {
        data_type,
        // Nothing may fold it, or think that two of it are one.
        signature: Signature::nullary(Volatility::Volatile),
    };
    Expr::ScalarFunction(ScalarFunction {
        func: Arc::new(ScalarUDF::new_from_impl(function)),
        args: Vec::new(),
    })
}

pub(crate) fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.name() == NAME)
}

pub(crate) fn mentions_now(expr: &Expr) -> bool {
    expr.exists(|e| Ok(is_now(e)))
        .expect("looking at an expression does not fail")
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BarrierTime {
    data_type: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for BarrierTime {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal(
            "the barrier's time is no value of a row".to_owned(),
        ))
    }
}

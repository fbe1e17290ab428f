//! The calls of a window node: what each computes, over which frame, and how far it sees.
//!
//! Results have to be a function of the rows in the frame alone, whatever else was read: what is retracted tomorrow must be
//! what was emitted today. So aggregates go back by retraction only where that is exact, and are computed afresh per row
//! otherwise; floats are added up without rounding.

use super::frame::Frame;
use super::reach::{Extent, Reach};
use crate::OperatorError;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, WindowFrame, WindowFunctionDefinition as Definition,
};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use std::sync::Arc;
use tidegate_plan::{Excluding, Exclusion, Ranking, ScalarExpr};

pub struct Call {
    pub kind: Kind,
    pub frame: Frame,
    pub exclusion: Option<Exclusion>,
    pub arguments: Vec<Arc<dyn PhysicalExpr>>,
    /// Says which rows count.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    pub output: DataType,
    pub reach: Reach,
}

pub enum Kind {
    Aggregate {
        function: Arc<AggregateFunctionExpr>,
        retraction: Retraction,
    },
    /// `sum` and `avg` of floats.
    FloatSum {
        average: bool,
    },
    First {
        ignore_nulls: bool,
    },
    Last {
        ignore_nulls: bool,
    },
    /// From the front, or from the back if it is negative.
    Nth {
        n: i64,
        ignore_nulls: bool,
    },
    /// So many rows back, or ahead if it is negative.
    Shift {
        rows: i64,
        ignore_nulls: bool,
    },
    Ntile {
        buckets: i64,
    },
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
}

/// What an aggregate can take back without a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retraction {
    Any,
    /// Rows in the order in which they came.
    Oldest,
    Never,
}

impl Kind {
    pub fn looks_at_frame(&self) -> bool {
        matches!(
            self,
            Kind::Aggregate { .. }
                | Kind::FloatSum { .. }
                | Kind::First { .. }
                | Kind::Last { .. }
                | Kind::Nth { .. }
        )
    }
}

impl Call {
    pub fn new(
        call: &ScalarExpr,
        input: &Schema,
        order: &[SortOptions],
        output: DataType,
    ) -> std::result::Result<Self, OperatorError> {
        let Expr::WindowFunction(call) = call.expr() else {
            return Err(internal(format!("not a window function: {call}")).into());
        };
        let positional = ScalarExpr::positional_schema(input);
        let (definition, exclusion, mut arguments, mut filter) = unwrapped(call);
        let physical = |expr: &Expr| physical(expr, &positional);
        let frame = Frame::new(&call.params.window_frame, order)?;
        let ignore_nulls = call.params.null_treatment == Some(NullTreatment::IgnoreNulls);
        let kind = match definition {
            Definition::AggregateUDF(function) => {
                aggregate(function, &arguments, input, &positional, ignore_nulls)?
            }
            Definition::WindowUDF(function) => {
                let kind = positioned(function.name(), &arguments, ignore_nulls)?;
                // What comes behind the value is not looked at by rows, except for a default.
                if matches!(kind, Kind::Shift { .. }) && arguments.len() > 1 {
                    arguments.remove(1);
                }
                if matches!(kind, Kind::Nth { .. } | Kind::Ntile { .. }) {
                    arguments.pop();
                }
                kind
            }
        };
        let reach = reach(&kind, &frame);
        Ok(Self {
            kind,
            frame,
            exclusion,
            arguments: arguments.iter().map(physical).collect::<Result<_>>()?,
            filter: filter.take().map(|f| physical(&f)).transpose()?,
            output,
            reach,
        })
    }

    /// The numbers of all rows.
    pub fn ranking(ranking: Ranking, output: DataType) -> Result<Self> {
        let kind = match ranking {
            Ranking::RowNumber => Kind::RowNumber,
            Ranking::Rank => Kind::Rank,
            Ranking::DenseRank => Kind::DenseRank,
        };
        let frame = Frame::new(&WindowFrame::new(None), &[])?;
        let reach = reach(&kind, &frame);
        Ok(Self {
            kind,
            frame,
            exclusion: None,
            arguments: Vec::new(),
            filter: None,
            output,
            reach,
        })
    }

    /// A frame that begins with the partition and does not end before its row: what it has grows from row to row, and can
    /// be gone on with from what it was at some row.
    pub fn is_running(&self) -> bool {
        let frame = !self.kind.looks_at_frame()
            || self.frame.starts_open() && !self.frame.ends_open() && !self.frame.ends_before();
        frame && self.exclusion.is_none() && self.grows()
    }

    fn grows(&self) -> bool {
        match &self.kind {
            Kind::Aggregate { function, .. } => has_small_exact_state(function.fun().name()),
            Kind::FloatSum { .. } | Kind::First { .. } | Kind::Last { .. } => true,
            Kind::Nth { n, .. } => *n > 0,
            Kind::RowNumber | Kind::Rank | Kind::DenseRank => true,
            Kind::Shift { .. } | Kind::Ntile { .. } | Kind::PercentRank | Kind::CumeDist => false,
        }
    }
}

/// The function inside of an exclusion, and the call's arguments and filter.
fn unwrapped(call: &WindowFunction) -> (&Definition, Option<Exclusion>, Vec<Expr>, Option<Expr>) {
    let mut arguments = call.params.args.clone();
    let filter = call.params.filter.as_deref().cloned();
    let wrapper = match &call.fun {
        Definition::WindowUDF(function) => function.inner().downcast_ref::<Excluding>(),
        Definition::AggregateUDF(_) => None,
    };
    match wrapper {
        None => (&call.fun, None, arguments, filter),
        Some(wrapper) => {
            let filter = match wrapper.filtered {
                true => arguments.pop(),
                false => filter,
            };
            (&wrapper.function, wrapper.exclusion, arguments, filter)
        }
    }
}

fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let context = PhysicalPlanningContext::default();
    create_physical_expr(expr, schema, &ExecutionProps::new(), &context)
}

fn aggregate(
    function: &Arc<AggregateUDF>,
    arguments: &[Expr],
    input: &Schema,
    positional: &DFSchema,
    ignore_nulls: bool,
) -> Result<Kind> {
    let exprs = arguments
        .iter()
        .map(|e| physical(e, positional))
        .collect::<Result<Vec<_>>>()?;
    let float = |e: &Arc<dyn PhysicalExpr>| -> Result<bool> {
        Ok(e.data_type(positional.as_arrow())?.is_floating())
    };
    let name = function.name();
    let of_floats = matches!(name, "sum" | "avg") && float(&exprs[0])?;
    if of_floats {
        return Ok(Kind::FloatSum {
            average: name == "avg",
        });
    }
    let retraction = match name {
        "count" | "sum" | "avg" => Retraction::Any,
        // Which of two zeros or NaNs is kept depends on where a float began.
        "min" | "max" if !float(&exprs[0])? => Retraction::Oldest,
        _ => Retraction::Never,
    };
    let schema = ScalarExpr::positional_schema(input);
    let function = AggregateExprBuilder::new(function.clone(), exprs)
        .schema(schema.inner().clone())
        .alias(name)
        .with_ignore_nulls(ignore_nulls)
        .build()?;
    Ok(Kind::Aggregate {
        function: Arc::new(function),
        retraction,
    })
}

/// Aggregates whose state is small and exact, so that going on from it is the same as beginning at the front.
fn has_small_exact_state(name: &str) -> bool {
    matches!(
        name,
        "count"
            | "sum"
            | "avg"
            | "min"
            | "max"
            | "bool_and"
            | "bool_or"
            | "bit_and"
            | "bit_or"
            | "bit_xor"
    )
}

fn positioned(name: &str, arguments: &[Expr], ignore_nulls: bool) -> Result<Kind> {
    let integer = |place: usize| arguments.get(place).map(|e| integer(e, name)).transpose();
    Ok(match name {
        "first_value" => Kind::First { ignore_nulls },
        "last_value" => Kind::Last { ignore_nulls },
        "nth_value" => Kind::Nth {
            n: integer(1)?.unwrap_or(0),
            ignore_nulls,
        },
        "lag" | "lead" => {
            let rows = integer(1)?.unwrap_or(1);
            Kind::Shift {
                rows: if name == "lag" {
                    rows
                } else {
                    rows.saturating_neg()
                },
                ignore_nulls,
            }
        }
        "ntile" => Kind::Ntile {
            buckets: integer(0)?.unwrap_or(1).max(1),
        },
        "row_number" => Kind::RowNumber,
        "rank" => Kind::Rank,
        "dense_rank" => Kind::DenseRank,
        "percent_rank" => Kind::PercentRank,
        "cume_dist" => Kind::CumeDist,
        other => {
            let message = format!("the window function {other} in a materialized view");
            return Err(DataFusionError::NotImplemented(message));
        }
    })
}

fn integer(expr: &Expr, name: &str) -> Result<i64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Int64)? {
            ScalarValue::Int64(value) => Ok(value.unwrap_or(0)),
            other => Err(internal(format!("{other} is no integer"))),
        },
        other => {
            let message =
                format!("{name} by {other}, which is no constant, in a materialized view");
            Err(DataFusionError::NotImplemented(message))
        }
    }
}

fn reach(kind: &Kind, frame: &Frame) -> Reach {
    let rows = |rows: u64| Extent::Rows(usize::try_from(rows).unwrap_or(usize::MAX));
    match kind {
        Kind::Shift {
            ignore_nulls: true,
            rows,
        } => match *rows >= 0 {
            true => Reach {
                back: Extent::Unbounded,
                ahead: Extent::Rows(0),
            },
            false => Reach {
                back: Extent::Rows(0),
                ahead: Extent::Unbounded,
            },
        },
        Kind::Shift { rows: shift, .. } => {
            let distance = rows(shift.unsigned_abs());
            match *shift >= 0 {
                true => Reach {
                    back: distance,
                    ahead: Extent::Rows(0),
                },
                false => Reach {
                    back: Extent::Rows(0),
                    ahead: distance,
                },
            }
        }
        Kind::RowNumber => Reach {
            back: Extent::Unbounded,
            ahead: Extent::Rows(0),
        },
        Kind::Rank | Kind::DenseRank => Reach {
            back: Extent::Unbounded,
            ahead: Extent::Groups(0),
        },
        Kind::Ntile { .. } | Kind::PercentRank | Kind::CumeDist => Reach::ALL,
        _ => Reach::of_frame(frame),
    }
}

fn internal(message: String) -> DataFusionError {
    DataFusionError::Internal(message)
}

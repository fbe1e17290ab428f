//! Aggregates: keys, arguments, filters and orders become columns of the input, names become functions of ours.

use super::project::{Computed, compute};
use super::{Lowered, lower};
use crate::query::literal;
use crate::refuse::in_view;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{AggregateFunction as Call, NullTreatment};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable};
use std::sync::Arc;
use tidegate_plan::{AggregateCall, AggregateFunction, Op, PairFunction, ScalarExpr, SortKey};
use tidegate_types::{SqlError, SqlState};

pub(super) fn aggregate(aggregate: &Aggregate) -> Result<Lowered, SqlError> {
    if let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() {
        return super::grouping::sets(aggregate, sets);
    }
    let schema = aggregate.input.schema();
    let calls: Vec<Parsed<'_>> = aggregate
        .aggr_expr
        .iter()
        .map(|expr| {
            parse(expr, &|e| {
                e.to_field(schema.as_ref())
                    .map_or(true, |(_, f)| f.is_nullable())
            })
        })
        .collect::<Result<_, _>>()?;
    let mut wanted: Vec<&Expr> = aggregate.group_expr.iter().collect();
    for call in &calls {
        wanted.extend(call.expressions());
    }
    let Computed { input, positions } = compute(lower(&aggregate.input)?, schema, &wanted)?;
    let mut positions = positions.into_iter();
    let mut next = || positions.next().expect("a position for each expression");
    let keys: Vec<usize> = aggregate.group_expr.iter().map(|_| next()).collect();
    let lowered: Vec<AggregateCall> = calls.iter().map(|call| call.place(&mut next)).collect();
    let fields: Vec<Field> = aggregate
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    Ok(group(input.rel, keys, lowered, fields))
}

/// The aggregate node. Keys and calls that repeat are computed once.
fn group(input: Rel, keys: Vec<usize>, calls: Vec<AggregateCall>, fields: Vec<Field>) -> Lowered {
    let mut distinct_keys: Vec<usize> = Vec::new();
    let mut distinct_calls: Vec<AggregateCall> = Vec::new();
    let mut key_fields = Vec::new();
    let mut call_fields = Vec::new();
    let mut places = Vec::new();
    for (key, field) in keys.iter().zip(&fields) {
        let place = distinct_keys
            .iter()
            .position(|k| k == key)
            .unwrap_or_else(|| {
                distinct_keys.push(*key);
                key_fields.push(field.clone());
                distinct_keys.len() - 1
            });
        places.push(place);
    }
    let width = distinct_keys.len();
    for (call, field) in calls.into_iter().zip(&fields[keys.len()..]) {
        let place = distinct_calls
            .iter()
            .position(|c| *c == call)
            .unwrap_or_else(|| {
                distinct_calls.push(call);
                call_fields.push(field.clone());
                distinct_calls.len() - 1
            });
        places.push(width + place);
    }
    key_fields.extend(call_fields);
    let op = Op::Aggregate {
        keys: distinct_keys,
        calls: distinct_calls,
    };
    Lowered {
        rel: Rel::new(op, vec![input], Arc::new(Schema::new(key_fields))),
        columns: places,
    }
}

/// A call whose expressions have no positions yet.
struct Parsed<'a> {
    function: AggregateFunction,
    arguments: Vec<&'a Expr>,
    distinct: bool,
    filter: Option<&'a Expr>,
    order: Vec<(&'a Expr, bool, bool)>,
    parameter: Option<ScalarExpr>,
}

impl<'a> Parsed<'a> {
    fn expressions(&self) -> Vec<&'a Expr> {
        let mut all = self.arguments.clone();
        all.extend(self.filter);
        all.extend(self.order.iter().map(|(e, ..)| *e));
        all
    }

    fn place(&self, next: &mut dyn FnMut() -> usize) -> AggregateCall {
        AggregateCall {
            function: self.function,
            arguments: self.arguments.iter().map(|_| next()).collect(),
            distinct: self.distinct,
            filter: self.filter.map(|_| next()),
            order_by: self
                .order
                .iter()
                .map(|(_, descending, nulls_first)| SortKey {
                    column: next(),
                    descending: *descending,
                    nulls_first: *nulls_first,
                })
                .collect(),
            parameter: self.parameter.clone(),
        }
    }
}

fn parse<'a>(expr: &'a Expr, nullable: &dyn Fn(&Expr) -> bool) -> Result<Parsed<'a>, SqlError> {
    match expr {
        Expr::Alias(alias) => parse(&alias.expr, nullable),
        Expr::AggregateFunction(call) => parse_call(call, nullable),
        other => Err(SqlError::internal(format!("not an aggregate: {other}"))),
    }
}

fn parse_call<'a>(
    call: &'a Call,
    nullable: &dyn Fn(&Expr) -> bool,
) -> Result<Parsed<'a>, SqlError> {
    use AggregateFunction as F;
    let name = call.func.name();
    let ignores_nulls = matches!(call.params.null_treatment, Some(NullTreatment::IgnoreNulls));
    let Some((function, arity)) = function(name).filter(|_| !ignores_nulls) else {
        return Ok(library(call));
    };
    let mut arguments: Vec<&Expr> = call.params.args.iter().collect();
    let mut parameter = None;
    if matches!(function, F::PercentileCont | F::PercentileDisc) {
        let fraction = arguments.pop().and_then(literal);
        let Some(ScalarValue::Float64(_)) = fraction else {
            return Err(in_view(format!("{name} whose fraction is not a constant")));
        };
        if let Some(ScalarValue::Float64(Some(value))) = fraction
            && !(0.0..=1.0).contains(value)
        {
            let message = format!("percentile value {value} is not between 0 and 1");
            return Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, message));
        }
        parameter = fraction.map(|f| ScalarExpr::new(Expr::Literal(f.clone(), None)));
    }
    if arguments.len() != arity {
        return Err(in_view(format!(
            "{name} with {} arguments",
            arguments.len()
        )));
    }
    let ordered = matches!(
        function,
        F::StringAgg | F::ArrayAgg | F::FirstValue | F::LastValue
    );
    let picked = matches!(function, F::PercentileCont | F::PercentileDisc | F::Mode);
    let extreme = matches!(
        function,
        F::Min | F::Max | F::BoolAnd | F::BoolOr | F::BitAnd | F::BitOr
    );
    let distinct = call.params.distinct && !extreme;
    if function == F::Count && !distinct {
        // Counting what is never NULL is counting rows.
        let always =
            literal(arguments[0]).map_or_else(|| !nullable(arguments[0]), |value| !value.is_null());
        if always {
            arguments.clear();
        }
    }
    let given = || call.params.order_by.iter();
    let order = match (ordered, picked) {
        (true, _) => given().map(|s| (&s.expr, !s.asc, s.nulls_first)).collect(),
        // The order is of the argument, whatever it was cast to.
        (_, true) => given()
            .map(|s| (arguments[0], !s.asc, s.nulls_first))
            .collect(),
        // The order in which values are added up does not show.
        _ => Vec::new(),
    };
    Ok(Parsed {
        function,
        arguments,
        distinct,
        filter: call.params.filter.as_deref(),
        order,
        parameter,
    })
}

/// A function that is only known to DataFusion. What it is given become columns, except for constants, which it may want to
/// see when it is made.
fn library(call: &Call) -> Parsed<'_> {
    let mut arguments = Vec::new();
    let mut positional = call.clone();
    for (given, place) in call.params.args.iter().zip(&mut positional.params.args) {
        if literal(given).is_none() {
            *place = ScalarExpr::column(arguments.len()).expr().clone();
            arguments.push(given);
        }
    }
    if arguments.is_empty() {
        arguments.extend(call.params.args.first());
    }
    positional.params.filter = None;
    positional.params.order_by = Vec::new();
    positional.params.distinct = false;
    Parsed {
        function: AggregateFunction::Library,
        arguments,
        distinct: call.params.distinct,
        filter: call.params.filter.as_deref(),
        order: call
            .params
            .order_by
            .iter()
            .map(|s| (&s.expr, !s.asc, s.nulls_first))
            .collect(),
        parameter: Some(ScalarExpr::new(Expr::AggregateFunction(positional))),
    }
}

/// Our function of this name, and how many arguments it has.
fn function(name: &str) -> Option<(AggregateFunction, usize)> {
    use AggregateFunction as F;
    Some(match name {
        "count" => (F::Count, 1),
        "sum" => (F::Sum, 1),
        "avg" => (F::Avg, 1),
        "min" => (F::Min, 1),
        "max" => (F::Max, 1),
        "bool_and" => (F::BoolAnd, 1),
        "bool_or" => (F::BoolOr, 1),
        "string_agg" => (F::StringAgg, 2),
        "array_agg" => (F::ArrayAgg, 1),
        "var_pop" => (F::VarPop, 1),
        "var" => (F::VarSamp, 1),
        "stddev_pop" => (F::StddevPop, 1),
        "stddev" => (F::StddevSamp, 1),
        "bit_and" => (F::BitAnd, 1),
        "bit_or" => (F::BitOr, 1),
        "bit_xor" => (F::BitXor, 1),
        "first_value" => (F::FirstValue, 1),
        "last_value" => (F::LastValue, 1),
        "percentile_cont" => (F::PercentileCont, 1),
        "percentile_disc" => (F::PercentileDisc, 1),
        "mode" => (F::Mode, 1),
        "linear_regression" => (F::LinearRegression, 2),
        other => return pair(other).map(|pair| (F::Pair(pair), 2)),
    })
}

fn pair(name: &str) -> Option<PairFunction> {
    use PairFunction as P;
    Some(match name {
        "corr" => P::Corr,
        "covar_pop" => P::CovarPop,
        "covar_samp" => P::CovarSamp,
        "regr_avgx" => P::RegrAvgX,
        "regr_avgy" => P::RegrAvgY,
        "regr_count" => P::RegrCount,
        "regr_intercept" => P::RegrIntercept,
        "regr_r2" => P::RegrR2,
        "regr_slope" => P::RegrSlope,
        "regr_sxx" => P::RegrSxx,
        "regr_sxy" => P::RegrSxy,
        "regr_syy" => P::RegrSyy,
        _ => return None,
    })
}

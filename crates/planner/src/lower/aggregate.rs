//! Aggregates: keys, arguments, filters and orders become columns of the input, names become functions of ours.

use super::project::{Computed, compute};
use super::{Lowered, lower};
use crate::query::literal;
use crate::refuse::in_view;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::expr::{AggregateFunction as Call, NullTreatment};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable};
use std::sync::Arc;
use tidegate_plan::{AggregateCall, AggregateFunction, Op, SortKey};
use tidegate_types::SqlError;

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
    let Some((function, arity)) = function(name) else {
        return Err(in_view(format!("the aggregate function {name}")));
    };
    if matches!(call.params.null_treatment, Some(NullTreatment::IgnoreNulls)) {
        return Err(in_view(format!("IGNORE NULLS in {name}")));
    }
    let mut arguments: Vec<&Expr> = call.params.args.iter().collect();
    if arguments.len() != arity {
        return Err(in_view(format!(
            "{name} with {} arguments",
            arguments.len()
        )));
    }
    let list = matches!(function, F::StringAgg | F::ArrayAgg);
    let extreme = matches!(function, F::Min | F::Max | F::BoolAnd | F::BoolOr);
    let distinct = call.params.distinct && !extreme;
    if function == F::Count && !distinct {
        // Counting what is never NULL is counting rows.
        let always =
            literal(arguments[0]).map_or_else(|| !nullable(arguments[0]), |value| !value.is_null());
        if always {
            arguments.clear();
        }
    }
    let order = match list {
        // The order in which values are added up does not show.
        false => Vec::new(),
        true => call
            .params
            .order_by
            .iter()
            .map(|s| (&s.expr, !s.asc, s.nulls_first))
            .collect(),
    };
    Ok(Parsed {
        function,
        arguments,
        distinct,
        filter: call.params.filter.as_deref(),
        order,
    })
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
        _ => return None,
    })
}

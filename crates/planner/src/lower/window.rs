//! Window functions: ranking functions number the rows of a top-n without a limit, which a filter above may give it
//! ([`crate::rules`]); all others are calls of a window node. One node for each partition and order.

use super::project::{Computed, compute};
use super::{Lowered, lower};
use crate::refuse::in_view;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, Window};
use std::sync::Arc;
use tidegate_plan::{Op, Ranking, ScalarExpr, SortKey};
use tidegate_types::SqlError;

pub(super) fn window(window: &Window) -> Result<Lowered, SqlError> {
    let schema = window.input.schema();
    let mut input = lower(&window.input)?;
    let mut placed: Vec<Option<usize>> = vec![None; window.window_expr.len()];
    let width = schema.fields().len();
    // DataFusion's names spell the whole call out, and nobody sees these.
    let field = |call: usize, name: &str| {
        let field = window.schema.field(width + call).as_ref().clone();
        field.with_name(name)
    };
    for call in 0..window.window_expr.len() {
        if placed[call].is_some() {
            continue;
        }
        let function = function_of(&window.window_expr[call])?;
        let (partition, order) = (&function.params.partition_by, &function.params.order_by);
        let mut wanted: Vec<&Expr> = partition.iter().collect();
        wanted.extend(order.iter().map(|s| &s.expr));
        let Computed {
            input: computed,
            positions,
        } = compute(input, schema, &wanted)?;
        input = computed;
        let keys = positions[..partition.len()].to_vec();
        let sort: Vec<SortKey> = order
            .iter()
            .zip(&positions[partition.len()..])
            .map(|(s, column)| SortKey {
                column: *column,
                descending: !s.asc,
                nulls_first: s.nulls_first,
            })
            .collect();
        if let Some(ranking) = ranking(function) {
            let op = Op::TopN {
                partition: distinct(&keys),
                order: sort,
                ranking,
                offset: 0,
                limit: None,
                numbered: true,
            };
            placed[call] = Some(input.rel.width());
            input.rel = appended(input.rel, op, vec![field(call, function.fun.name())]);
            continue;
        }
        // All other calls over the same rows in the same order go into one node.
        let mut together = Vec::new();
        for other in call..window.window_expr.len() {
            let function = function_of(&window.window_expr[other])?;
            let same = function.params.partition_by == *partition
                && function.params.order_by == *order
                && ranking(function).is_none();
            if placed[other].is_none() && same {
                refuse(function)?;
                together.push(other);
            }
        }
        let arguments: Vec<&Expr> = together
            .iter()
            .flat_map(|c| arguments(&window.window_expr[*c]))
            .collect();
        let Computed {
            input: computed,
            positions,
        } = compute(input, schema, &arguments)?;
        input = computed;
        let mut next = positions.into_iter();
        let calls = together
            .iter()
            .map(|c| {
                let function = function_of(&window.window_expr[*c])?;
                Ok(positional(function, &keys, &sort, &mut next))
            })
            .collect::<Result<Vec<_>, SqlError>>()?;
        for (place, call) in together.iter().enumerate() {
            placed[*call] = Some(input.rel.width() + place);
        }
        let op = Op::Window {
            partition: distinct(&keys),
            order: sort,
            calls,
        };
        let fields = together
            .iter()
            .map(|c| Ok(field(*c, function_of(&window.window_expr[*c])?.fun.name())))
            .collect::<Result<_, SqlError>>()?;
        input.rel = appended(input.rel, op, fields);
    }
    let places = placed.into_iter().map(|p| p.expect("each call is placed"));
    input.columns.extend(places);
    Ok(input)
}

fn appended(input: Rel, op: Op, added: Vec<Field>) -> Rel {
    let mut fields: Vec<Field> = input
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    fields.extend(added);
    Rel::new(op, vec![input], Arc::new(Schema::new(fields)))
}

fn distinct(columns: &[usize]) -> Vec<usize> {
    let mut seen = Vec::new();
    columns.iter().for_each(|c| {
        if !seen.contains(c) {
            seen.push(*c);
        }
    });
    seen
}

fn function_of(expr: &Expr) -> Result<&WindowFunction, SqlError> {
    match expr {
        Expr::Alias(alias) => function_of(&alias.expr),
        Expr::WindowFunction(function) => Ok(function),
        other => Err(SqlError::internal(format!(
            "not a window function: {other}"
        ))),
    }
}

fn ranking(function: &WindowFunction) -> Option<Ranking> {
    match function.fun.name() {
        "row_number" => Some(Ranking::RowNumber),
        "rank" => Some(Ranking::Rank),
        "dense_rank" => Some(Ranking::DenseRank),
        _ => None,
    }
}

fn refuse(function: &WindowFunction) -> Result<(), SqlError> {
    match function.params.distinct {
        true => {
            let name = function.fun.name();
            Err(in_view(format!("DISTINCT in the window function {name}")))
        }
        false => Ok(()),
    }
}

fn arguments(expr: &Expr) -> Vec<&Expr> {
    let Ok(function) = function_of(expr) else {
        return Vec::new();
    };
    let filter = function.params.filter.as_deref();
    function.params.args.iter().chain(filter).collect()
}

/// The call over positions; what is computed for it lies at the positions that `next` gives, in order.
fn positional(
    function: &WindowFunction,
    keys: &[usize],
    order: &[SortKey],
    next: &mut dyn Iterator<Item = usize>,
) -> ScalarExpr {
    let column = |position: usize| ScalarExpr::column(position).expr().clone();
    let mut call = function.clone();
    let mut place = |expr: &mut Expr| {
        let position = next.next().expect("a position for each argument");
        // A literal argument (an offset, a number of buckets) is looked at when the function is made.
        if !matches!(expr, Expr::Literal(..)) {
            *expr = column(position);
        }
    };
    call.params.args.iter_mut().for_each(&mut place);
    if let Some(filter) = &mut call.params.filter {
        place(filter);
    }
    call.params.partition_by = keys.iter().map(|k| column(*k)).collect();
    for (sort, key) in call.params.order_by.iter_mut().zip(order) {
        sort.expr = column(key.column);
    }
    let expr = Expr::WindowFunction(Box::new(call));
    ScalarExpr::new(expr)
}

//! Window functions: ranking functions number the rows of a top-n without a limit, which a filter above may give it
//! ([`crate::rules`]); all others are calls of a window node. One node for each partition and order.

use super::project::{Computed, compute};
use super::{Lowered, lower, session};
use crate::refuse::in_view;
use crate::rel::Rel;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, Window};
use std::sync::Arc;
use tidegate_plan::{Op, Ranking, ScalarExpr, SortKey};
use tidegate_types::SqlError;

pub(super) fn window(window: &Window) -> Result<Lowered, SqlError> {
    let functions = window
        .window_expr
        .iter()
        .map(function_of)
        .collect::<Result<Vec<_>, _>>()?;
    let mut placing = Placing {
        window,
        input: lower(&window.input)?,
        placed: vec![None; functions.len()],
        functions,
    };
    for call in 0..placing.functions.len() {
        if placing.placed[call].is_none() {
            placing.place(call)?;
        }
    }
    let Placing {
        mut input, placed, ..
    } = placing;
    let places = placed.into_iter().map(|p| p.expect("each call is placed"));
    input.columns.extend(places);
    Ok(input)
}

/// A window node while its calls are put, one node of ours after the other, over its input.
struct Placing<'a> {
    window: &'a Window,
    functions: Vec<&'a WindowFunction>,
    input: Lowered,
    /// Where the result of each call is.
    placed: Vec<Option<usize>>,
}

impl Placing<'_> {
    /// Computes what is not a column of the input yet.
    fn compute(&mut self, wanted: &[&Expr]) -> Result<Vec<usize>, SqlError> {
        let empty = Lowered {
            rel: Rel::new(Op::Union, Vec::new(), Arc::new(Schema::empty())),
            columns: Vec::new(),
        };
        let input = std::mem::replace(&mut self.input, empty);
        let Computed { input, positions } = compute(input, self.window.input.schema(), wanted)?;
        self.input = input;
        Ok(positions)
    }

    /// Places a call, and with it those that can share its node.
    fn place(&mut self, call: usize) -> Result<(), SqlError> {
        let function = self.functions[call];
        let (by, order) = (&function.params.partition_by, &function.params.order_by);
        let wanted: Vec<&Expr> = by.iter().chain(order.iter().map(|s| &s.expr)).collect();
        let positions = self.compute(&wanted)?;
        let (keys, columns) = positions.split_at(by.len());
        let sort: Vec<SortKey> = order
            .iter()
            .zip(columns)
            .map(|(s, column)| SortKey {
                column: *column,
                descending: !s.asc,
                nulls_first: s.nulls_first,
            })
            .collect();
        if let Some(gap) = session::gap(function)? {
            if keys.contains(&columns[0]) {
                return Err(in_view("SESSION partitioned by its time"));
            }
            self.sessions(call, distinct(keys), columns, gap);
            return Ok(());
        }
        if let Some(ranking) = ranking(function) {
            let op = Op::TopN {
                partition: distinct(keys),
                order: sort,
                ranking,
                offset: 0,
                limit: None,
                numbered: true,
            };
            self.append(op, &[call]);
            return Ok(());
        }
        let together: Vec<usize> = (call..self.functions.len())
            .filter(|other| self.placed[*other].is_none())
            .filter(|other| {
                let other = self.functions[*other];
                other.params.partition_by == *by
                    && other.params.order_by == *order
                    && ranking(other).is_none()
                    && !session::is_session(other)
            })
            .collect();
        let functions: Vec<&WindowFunction> = together.iter().map(|c| self.functions[*c]).collect();
        functions.iter().try_for_each(|function| refuse(function))?;
        let wanted: Vec<&Expr> = functions.iter().flat_map(|f| arguments(f)).collect();
        let mut next = self.compute(&wanted)?.into_iter();
        let calls = functions
            .iter()
            .map(|function| positional(function, keys, &sort, &mut next))
            .collect();
        let op = Op::Window {
            partition: distinct(keys),
            order: sort,
            calls,
        };
        self.append(op, &together);
        Ok(())
    }

    /// Places a call and those about the same sessions.
    fn sessions(&mut self, call: usize, partition: Vec<usize>, time: &[usize], gap_us: i64) {
        let width = self.input.rel.width();
        let first = self.functions[call];
        for other in call..self.functions.len() {
            if session::is_same(first, self.functions[other]) {
                let is_end = usize::from(session::is_end(self.functions[other]));
                self.placed[other] = Some(width + is_end);
            }
        }
        let empty = Rel::new(Op::Union, Vec::new(), Arc::new(Schema::empty()));
        let input = std::mem::replace(&mut self.input.rel, empty);
        self.input.rel = session::over(input, partition, time[0], gap_us);
    }

    /// Puts a node over the input whose last columns are the results of these calls.
    fn append(&mut self, op: Op, calls: &[usize]) {
        let width = self.input.rel.width();
        let mut fields: Vec<Field> = self
            .input
            .rel
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone())
            .collect();
        for (place, call) in calls.iter().enumerate() {
            self.placed[*call] = Some(width + place);
            let shown = self.window.input.schema().fields().len();
            let field = self.window.schema.field(shown + call).as_ref().clone();
            // DataFusion's names spell the whole call out, and nobody sees these.
            fields.push(field.with_name(self.functions[*call].fun.name()));
        }
        let rel = Rel::new(op, Vec::new(), Arc::new(Schema::new(fields)));
        let input = std::mem::replace(&mut self.input.rel, rel);
        self.input.rel.inputs.push(input);
    }
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

fn arguments(function: &WindowFunction) -> impl Iterator<Item = &Expr> {
    let filter = function.params.filter.as_deref();
    function.params.args.iter().chain(filter)
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

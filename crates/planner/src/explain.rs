//! `EXPLAIN` of a dataflow: root first, inputs indented below, columns by name.
//!
//! ```text
//! Materialize key (k) unique
//!   Aggregate by k: count(*), sum(v)   exchange by (k)
//!     state groups: value, key (k)
//!     Import t columns (k, v)
//! ```
//!
//! The plan itself has positions only; names here come from the schemas on the way and may repeat.

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;
use std::fmt::Write;
use tidegate_plan::{
    AggregateCall, AggregateFunction, Dataflow, Distribution, JoinKind, Op, PairFunction, Ranking,
    ScalarExpr, SortKey,
};
use tidegate_types::text::to_text;
use tidegate_types::{RelationId, SqlType};

/// The text of a plan. `name` gives a relation's name. `verbose` adds ids and types.
pub fn explain(
    dataflow: &Dataflow,
    verbose: bool,
    name: &dyn Fn(RelationId) -> Option<String>,
) -> String {
    let mut writer = Writer {
        dataflow,
        verbose,
        name,
        text: String::new(),
    };
    writer.node(dataflow.nodes.len() - 1, None, 0);
    writer.text
}

/// Each operator on a line of its own, root first: its index in the plan, how deep it is below the root, and what it does.
pub fn operators(
    dataflow: &Dataflow,
    name: &dyn Fn(RelationId) -> Option<String>,
) -> Vec<(usize, usize, String)> {
    let writer = Writer {
        dataflow,
        verbose: false,
        name,
        text: String::new(),
    };
    let mut lines = Vec::new();
    let mut open = vec![(dataflow.nodes.len() - 1, 0)];
    while let Some((index, depth)) = open.pop() {
        lines.push((index, depth, writer.operator(index)));
        let inputs = dataflow.nodes[index].inputs.iter().rev();
        open.extend(inputs.map(|edge| (edge.from, depth + 1)));
    }
    lines
}

struct Writer<'a> {
    dataflow: &'a Dataflow,
    verbose: bool,
    name: &'a dyn Fn(RelationId) -> Option<String>,
    text: String,
}

impl Writer<'_> {
    fn node(&mut self, index: usize, distribution: Option<&Distribution>, depth: usize) {
        let node = &self.dataflow.nodes[index];
        let mut line = format!("{:indent$}{}", "", self.operator(index), indent = depth * 2);
        match distribution {
            Some(Distribution::Key(columns)) if columns.is_empty() => {
                line.push_str("  [exchange to one worker]")
            }
            Some(Distribution::Key(columns)) => {
                let _ = write!(line, "  [exchange by {}]", list(columns, &node.schema));
            }
            _ => {}
        }
        if node.append_only {
            line.push_str("  [append-only]");
        }
        if let Some(key) = &node.unique_key {
            match key.is_empty() {
                true => line.push_str("  [at most one row]"),
                false => {
                    let _ = write!(line, "  [unique {}]", list(key, &node.schema));
                }
            }
        }
        self.text.push_str(&line);
        self.text.push('\n');
        self.details(index, depth);
        for edge in &node.inputs {
            self.node(edge.from, Some(&edge.distribution), depth + 1);
        }
    }

    /// State tables, and in the verbose form the id and the output.
    fn details(&mut self, index: usize, depth: usize) {
        let node = &self.dataflow.nodes[index];
        let indent = depth * 2 + 4;
        for table in &node.state {
            let form = if table.map { "map" } else { "value" };
            let _ = write!(
                self.text,
                "{:indent$}state {}: {form}, key {}",
                "",
                table.name,
                fields(&table.key)
            );
            if table.map {
                let _ = write!(self.text, ", sub-key {}", fields(&table.sub_key));
            }
            self.text.push('\n');
        }
        if self.verbose {
            let columns: Vec<String> = node
                .schema
                .fields()
                .iter()
                .map(|f| {
                    let null = if f.is_nullable() { "" } else { " not null" };
                    format!("{} {}{null}", f.name(), SqlType::from_field(f))
                })
                .collect();
            let _ = writeln!(self.text, "{:indent$}output {}", "", columns.join(", "));
            let _ = writeln!(self.text, "{:indent$}id {}", "", node.id);
        }
    }

    fn relation(&self, id: RelationId) -> String {
        (self.name)(id).unwrap_or_else(|| format!("relation {id}"))
    }

    fn operator(&self, index: usize) -> String {
        let node = &self.dataflow.nodes[index];
        let input = |i: usize| self.dataflow.input_schema(index, i).as_ref();
        match &node.op {
            Op::Import { relation, .. } => format!(
                "Import {} {}",
                self.relation(*relation),
                fields(&node.schema)
            ),
            Op::Source { relation, .. } => format!(
                "Source {} {}",
                self.relation(*relation),
                fields(&node.schema)
            ),
            Op::TableInput { relation } => format!("TableInput {}", self.relation(*relation)),
            Op::Values { rows } => values(rows),
            Op::Filter { predicate } => format!("Filter {}", scalar(predicate, &[input(0)])),
            Op::Project { expressions } => format!(
                "Project {}",
                projection(expressions, input(0), &node.schema)
            ),
            Op::Aggregate { keys, calls } if calls.is_empty() => {
                format!("Distinct {}", list(keys, input(0)))
            }
            Op::Aggregate { keys, calls } => aggregate(keys, calls, input(0)),
            Op::Join {
                kind,
                left_keys,
                right_keys,
                residual,
                null_equals_null,
                null_aware,
            } => {
                let mut text = match left_keys.is_empty() {
                    true => format!("{}Join", join_name(*kind)),
                    false => {
                        let sign = if *null_equals_null {
                            "is not distinct from"
                        } else {
                            "="
                        };
                        let (left, right) = (list(left_keys, input(0)), list(right_keys, input(1)));
                        format!("{}Join {left} {sign} {right}", join_name(*kind))
                    }
                };
                if *null_aware {
                    text.push_str(" null-aware");
                }
                if let Some(residual) = residual {
                    let _ = write!(text, " where {}", scalar(residual, &[input(0), input(1)]));
                }
                text
            }
            Op::Union => "Union".to_owned(),
            Op::Unnest { lists } => format!("Unnest {}", list(lists, input(0))),
            op @ Op::TopN { .. } => top_n(op, input(0)),
            Op::Window {
                partition,
                order: keys,
                calls,
            } => window(partition, keys, calls, input(0)),
            Op::Session {
                partition,
                time,
                gap_us,
            } => format!(
                "Session by {} in {}, gap {}",
                list(partition, input(0)),
                name(input(0), *time),
                tidegate_types::text::micros_as_interval(*gap_us)
            ),
            Op::TimeFilter { from, until } => {
                let mut text = "TimeFilter".to_owned();
                for (word, bound) in [("from", from), ("until", until)] {
                    if let Some(bound) = bound {
                        let shift = tidegate_types::text::micros_as_interval(bound.shift_us);
                        let _ = write!(text, " {word} {} + {shift}", name(input(0), bound.column));
                    }
                }
                text
            }
            Op::OnClose { time, .. } => format!("OnClose of {}", name(input(0), *time)),
            Op::AtMostOne { .. } => "AtMostOne".to_owned(),
            Op::Materialize { key, .. } if key.is_empty() => "Materialize".to_owned(),
            Op::Materialize { key, .. } => format!("Materialize key {}", list(key, &node.schema)),
            Op::Sink { .. } => "Sink".to_owned(),
        }
    }
}

fn list(columns: &[usize], schema: &Schema) -> String {
    let names: Vec<&str> = columns.iter().map(|c| name(schema, *c)).collect();
    format!("({})", names.join(", "))
}

fn fields(schema: &Schema) -> String {
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|f| crate::names::visible(f.name()))
        .collect();
    format!("({})", names.join(", "))
}

fn name(schema: &Schema, column: usize) -> &str {
    crate::names::visible(schema.field(column).name())
}

/// The expression with the names of the inputs' columns. Over two inputs `left.` and `right.` tell them apart.
fn scalar(expression: &ScalarExpr, inputs: &[&Schema]) -> String {
    let named = expression.expr().clone().transform_up(|e| match e {
        Expr::Column(column) => {
            let mut position: usize = column
                .name
                .parse()
                .expect("expressions of a plan are positional");
            let sides = ["left", "right"];
            for (side, schema) in sides.iter().zip(inputs) {
                if position < schema.fields().len() {
                    let name = name(schema, position);
                    return Ok(Transformed::yes(Expr::Column(match inputs.len() {
                        1 => Column::new_unqualified(name),
                        _ => Column::new(Some(*side), name),
                    })));
                }
                position -= schema.fields().len();
            }
            Ok(Transformed::no(Expr::Column(column)))
        }
        Expr::Literal(value, _) if is_time(&value.data_type()) && !value.is_null() => {
            let sql_type = SqlType::from_arrow(&value.data_type());
            let text = to_text(&value.to_array()?, &sql_type);
            let written = format!("{sql_type} '{}'", text.value(0));
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(
                written,
            ))))
        }
        other => Ok(Transformed::no(other)),
    });
    named.expect("renaming never fails").data.to_string()
}

/// Types whose values DataFusion does not write as people do.
fn is_time(data_type: &DataType) -> bool {
    use DataType::{Date32, Interval, Time64, Timestamp};
    matches!(data_type, Date32 | Interval(_) | Time64(_) | Timestamp(..))
}

fn projection(expressions: &[ScalarExpr], input: &Schema, output: &Schema) -> String {
    let items: Vec<String> = expressions
        .iter()
        .enumerate()
        .map(|(index, e)| {
            let text = scalar(e, &[input]);
            let shown = name(output, index);
            match e.as_column() {
                Some(column) if name(input, column) == shown => shown.to_owned(),
                _ if text == shown => text,
                _ => format!("{text} as {shown}"),
            }
        })
        .collect();
    items.join(", ")
}

fn values(rows: &[Vec<ScalarExpr>]) -> String {
    const SHOWN: usize = 3;
    let mut shown: Vec<String> = rows
        .iter()
        .take(SHOWN)
        .map(|row| {
            let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
            format!("({})", cells.join(", "))
        })
        .collect();
    if rows.len() > SHOWN {
        shown.push(format!("… {} rows", rows.len()));
    }
    match shown.is_empty() {
        true => "Values of no rows".to_owned(),
        false => format!("Values {}", shown.join(", ")),
    }
}

fn aggregate(keys: &[usize], calls: &[AggregateCall], input: &Schema) -> String {
    let calls: Vec<String> = calls.iter().map(|c| call(c, input)).collect();
    match keys.is_empty() {
        true => format!("Aggregate {}", calls.join(", ")),
        false => format!("Aggregate by {}: {}", list(keys, input), calls.join(", ")),
    }
}

fn call(call: &AggregateCall, input: &Schema) -> String {
    use AggregateFunction as F;
    let function = match call.function {
        F::Count => "count",
        F::Sum => "sum",
        F::Avg => "avg",
        F::Min => "min",
        F::Max => "max",
        F::BoolAnd => "bool_and",
        F::BoolOr => "bool_or",
        F::StringAgg => "string_agg",
        F::ArrayAgg => "array_agg",
        F::VarPop => "var_pop",
        F::VarSamp => "var_samp",
        F::StddevPop => "stddev_pop",
        F::StddevSamp => "stddev_samp",
        F::BitAnd => "bit_and",
        F::BitOr => "bit_or",
        F::BitXor => "bit_xor",
        F::Pair(pair) => self::pair(pair),
        F::FirstValue => "first_value",
        F::LastValue => "last_value",
        F::PercentileCont => "percentile_cont",
        F::PercentileDisc => "percentile_disc",
        F::Mode => "mode",
        F::LinearRegression => "linear_regression",
        F::Library => match call.parameter.as_ref().map(ScalarExpr::expr) {
            Some(Expr::AggregateFunction(function)) => function.func.name(),
            _ => "aggregate",
        },
    };
    let names: Vec<&str> = call.arguments.iter().map(|a| name(input, *a)).collect();
    let arguments = if names.is_empty() {
        "*".to_owned()
    } else {
        names.join(", ")
    };
    let distinct = if call.distinct { "distinct " } else { "" };
    let order = match call.order_by.is_empty() {
        true => String::new(),
        false => format!(" order by {}", order(&call.order_by, input)),
    };
    let mut text = format!("{function}({distinct}{arguments}{order})");
    if let Some(filter) = call.filter {
        let _ = write!(text, " filter ({})", name(input, filter));
    }
    text
}

fn pair(function: PairFunction) -> &'static str {
    use PairFunction as P;
    match function {
        P::Corr => "corr",
        P::CovarPop => "covar_pop",
        P::CovarSamp => "covar_samp",
        P::RegrAvgX => "regr_avgx",
        P::RegrAvgY => "regr_avgy",
        P::RegrCount => "regr_count",
        P::RegrIntercept => "regr_intercept",
        P::RegrR2 => "regr_r2",
        P::RegrSlope => "regr_slope",
        P::RegrSxx => "regr_sxx",
        P::RegrSxy => "regr_sxy",
        P::RegrSyy => "regr_syy",
    }
}

fn order(keys: &[SortKey], input: &Schema) -> String {
    let items: Vec<String> = keys
        .iter()
        .map(|key| {
            let direction = if key.descending { " desc" } else { "" };
            // NULLs are largest unless said otherwise.
            let nulls = match (key.descending, key.nulls_first) {
                (false, true) => " nulls first",
                (true, false) => " nulls last",
                _ => "",
            };
            format!("{}{direction}{nulls}", name(input, key.column))
        })
        .collect();
    items.join(", ")
}

fn top_n(op: &Op, input: &Schema) -> String {
    let Op::TopN {
        partition,
        order: keys,
        ranking,
        offset,
        limit,
        numbered,
    } = op
    else {
        unreachable!("called for a top-n")
    };
    let mut text = "TopN".to_owned();
    if !partition.is_empty() {
        let _ = write!(text, " by {}", list(partition, input));
    }
    if !keys.is_empty() {
        let _ = write!(text, " order by {}", order(keys, input));
    }
    if let Some(limit) = limit {
        let _ = write!(text, " limit {limit}");
    }
    if *offset > 0 {
        let _ = write!(text, " offset {offset}");
    }
    text.push_str(match ranking {
        Ranking::RowNumber => "",
        Ranking::Rank => " with ties",
        Ranking::DenseRank => " of distinct orders",
    });
    text.push_str(if *numbered { " numbered" } else { "" });
    text
}

fn window(partition: &[usize], keys: &[SortKey], calls: &[ScalarExpr], input: &Schema) -> String {
    let mut text = "Window".to_owned();
    if !partition.is_empty() {
        let _ = write!(text, " by {}", list(partition, input));
    }
    if !keys.is_empty() {
        let _ = write!(text, " order by {}", order(keys, input));
    }
    let calls: Vec<String> = calls.iter().map(|call| window_call(call, input)).collect();
    let _ = write!(text, ": {}", calls.join(", "));
    text
}

/// A call with its frame; partition and order are the node's.
fn window_call(call: &ScalarExpr, input: &Schema) -> String {
    let Expr::WindowFunction(function) = call.expr() else {
        return scalar(call, &[input]);
    };
    let arguments: Vec<String> = function
        .params
        .args
        .iter()
        .map(|a| scalar(&ScalarExpr::new(a.clone()), &[input]))
        .collect();
    let (name, frame) = (function.fun.name(), &function.params.window_frame);
    format!("{name}({}) {frame}", arguments.join(", "))
}

fn join_name(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "Inner",
        JoinKind::Left => "Left",
        JoinKind::Right => "Right",
        JoinKind::Full => "Full",
        JoinKind::LeftSemi => "Semi",
        JoinKind::LeftAnti => "Anti",
        JoinKind::LeftMark => "Mark",
    }
}

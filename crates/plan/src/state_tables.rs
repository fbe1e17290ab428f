//! Which state tables each operator declares.
//!
//! Keys and sub-keys are `RowCodec` encodings of the columns in their schema; a field that sorts otherwise than ascending
//! with NULLs first says so in its metadata under [`ORDER_KEY`]. Values are written by the operator in its own compact
//! form, named in the value schema's metadata under [`ENCODING_KEY`]: `varint` is a zigzag LEB128 integer per field, `groups`
//! is described where it is written.
//!
//! Declarations are the one place where planner, operators and inspection agree, so what an aggregate keeps in which table
//! ([`AggregateState`]) is decided here too.

use crate::join_state::join_state_tables;
use crate::{AggregateCall, AggregateFunction, Dataflow, Op, Ranking, SortKey, StateTable};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::Arc;

/// Field metadata: `asc nulls last`, `desc nulls first`, `desc nulls last`, or [`PACKED`].
pub const ORDER_KEY: &str = "tidegate.order";
/// In all fields of a sub-key whose order does not matter: they are encoded together by `PackedCodec`.
pub const PACKED: &str = "packed";
/// Schema metadata of a value: how its bytes are written.
pub const ENCODING_KEY: &str = "tidegate.encoding";

/// A multiset of values per group that aggregate calls share: every distinct value with its count, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueSet {
    /// Input columns in the order in which they are encoded.
    pub columns: Vec<SortKey>,
    pub filter: Option<usize>,
    /// Rows with NULL in this column are left out.
    pub skip_nulls_in: Option<usize>,
}

/// How the calls of one aggregate use the table of groups and the tables of values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AggregateState {
    /// Table `1 + i` of the node keeps set `i`.
    pub sets: Vec<ValueSet>,
    /// For each call the set that it reads, if it needs one.
    pub set_of_call: Vec<Option<usize>>,
}

impl AggregateState {
    pub fn of(calls: &[AggregateCall], input_append_only: bool) -> Self {
        let mut state = Self::default();
        for call in calls {
            let set = value_set(call, input_append_only).map(|set| {
                match state.sets.iter().position(|s| *s == set) {
                    Some(index) => index,
                    None => {
                        state.sets.push(set);
                        state.sets.len() - 1
                    }
                }
            });
            state.set_of_call.push(set);
        }
        state
    }
}

/// The set that a call needs: for DISTINCT, for what depends on the order, and for extremes that may be retracted.
fn value_set(call: &AggregateCall, input_append_only: bool) -> Option<ValueSet> {
    use AggregateFunction as F;
    let ordered = matches!(
        call.function,
        F::StringAgg
            | F::ArrayAgg
            | F::FirstValue
            | F::LastValue
            | F::PercentileCont
            | F::PercentileDisc
            | F::Mode
            | F::Library
    );
    let needed = match call.function {
        _ if ordered => true,
        F::Min | F::Max => !input_append_only,
        F::BoolAnd | F::BoolOr | F::BitAnd | F::BitOr => false,
        _ => call.distinct,
    };
    if !needed {
        return None;
    }
    let mut columns: Vec<SortKey> = if ordered {
        call.order_by.clone()
    } else {
        Vec::new()
    };
    let mut seen = Vec::new();
    columns.retain(|key| {
        let new = !seen.contains(&key.column);
        seen.push(key.column);
        new
    });
    for argument in &call.arguments {
        if !columns.iter().any(|key| key.column == *argument) {
            columns.push(SortKey {
                column: *argument,
                descending: false,
                nulls_first: true,
            });
        }
    }
    let skip_nulls_in = match call.function {
        F::ArrayAgg | F::FirstValue | F::LastValue | F::Library => None,
        _ => call.arguments.first().copied(),
    };
    Some(ValueSet {
        columns,
        filter: call.filter,
        skip_nulls_in,
    })
}

impl Dataflow {
    /// Fills every node's `state` from what its operator needs.
    pub fn declare_state(&mut self) {
        for index in 0..self.nodes.len() {
            let inputs: Vec<Input> = self.nodes[index]
                .inputs
                .iter()
                .map(|edge| Input {
                    schema: self.nodes[edge.from].schema.clone(),
                    append_only: self.nodes[edge.from].append_only,
                })
                .collect();
            self.nodes[index].state = state_tables(&self.nodes[index].op, &inputs);
        }
    }

    /// Whether the rows of this input are never retracted.
    pub fn input_append_only(&self, node: usize, input: usize) -> bool {
        self.nodes[self.nodes[node].inputs[input].from].append_only
    }
}

/// What a declaration depends on besides the operator.
#[derive(Debug, Clone)]
pub struct Input {
    pub schema: SchemaRef,
    pub append_only: bool,
}

/// The state tables of an operator, in the order in which it finds them in `Cx::tables`.
pub fn state_tables(op: &Op, inputs: &[Input]) -> Vec<StateTable> {
    match op {
        Op::Values { .. } => vec![value_table(
            "emitted",
            empty(),
            encoded("flag", DataType::Boolean, "flag"),
        )],
        Op::Aggregate { keys, calls } => aggregate_tables(keys, calls, &inputs[0]),
        Op::TopN {
            partition,
            order,
            offset,
            limit,
            numbered,
            ..
        } if top_n_numbers_all(*offset, *limit, *numbered) => {
            window_tables(partition, order, &inputs[0].schema)
        }
        Op::TopN {
            partition,
            order,
            ranking,
            offset,
            limit,
            ..
        } => {
            let list = top_n_keeps_list(*ranking, *offset, *limit, inputs[0].append_only);
            vec![top_n_table(partition, order, &inputs[0].schema, list)]
        }
        Op::Window {
            partition, order, ..
        } => window_tables(partition, order, &inputs[0].schema),
        Op::Session {
            partition, time, ..
        } => {
            let order = [SortKey {
                column: *time,
                descending: false,
                nulls_first: true,
            }];
            vec![top_n_table(partition, &order, &inputs[0].schema, false)]
        }
        Op::TimeFilter { from, until } => {
            let key = crate::bound_columns(from.as_ref(), until.as_ref());
            let rest = rest_of(&inputs[0].schema, &key);
            ["waiting", "present"]
                .map(|name| {
                    map_table(
                        name,
                        columns(&inputs[0].schema, &key),
                        columns(&inputs[0].schema, &rest),
                    )
                })
                .to_vec()
        }
        Op::AtMostOne { keys } | Op::OnClose { key: keys, .. } => {
            let rest = rest_of(&inputs[0].schema, keys);
            vec![map_table(
                "rows",
                columns(&inputs[0].schema, keys),
                columns(&inputs[0].schema, &rest),
            )]
        }
        Op::Join {
            kind,
            left_keys,
            right_keys,
            null_aware,
            residual,
            ..
        } => {
            let (left, right) = (&inputs[0].schema, &inputs[1].schema);
            join_state_tables(
                *kind,
                left_keys,
                right_keys,
                *null_aware,
                residual.is_some(),
                left,
                right,
            )
        }
        Op::Import { .. }
        | Op::Source { .. }
        | Op::TableInput { .. }
        | Op::Filter { .. }
        | Op::Project { .. }
        | Op::Union
        | Op::Unnest { .. }
        | Op::Materialize { .. }
        | Op::Sink { .. } => Vec::new(),
    }
}

fn aggregate_tables(keys: &[usize], calls: &[AggregateCall], input: &Input) -> Vec<StateTable> {
    let key = columns(&input.schema, keys);
    let groups = encoded("accumulators", DataType::Binary, "groups");
    let mut tables = vec![value_table("groups", key.clone(), groups)];
    for set in AggregateState::of(calls, input.append_only).sets {
        tables.push(map_table(
            "values",
            key.clone(),
            ordered(&input.schema, &set.columns),
        ));
    }
    tables
}

/// The columns of a top-n row after its partition: the order first, then what is left.
pub fn top_n_columns(partition: &[usize], order: &[SortKey], width: usize) -> Vec<SortKey> {
    let mut sub: Vec<SortKey> = Vec::new();
    for key in order {
        if !partition.contains(&key.column) && !sub.iter().any(|k| k.column == key.column) {
            sub.push(*key);
        }
    }
    for column in 0..width {
        if !partition.contains(&column) && !sub.iter().any(|k| k.column == column) {
            sub.push(SortKey {
                column,
                descending: false,
                nulls_first: true,
            });
        }
    }
    sub
}

/// Whether a top-n keeps each partition's first rows as one value: when rows are never retracted and so few are wanted that
/// rewriting them together is cheaper than finding them apart. Ranks have no bound on how many rows share one.
pub fn top_n_keeps_list(
    ranking: Ranking,
    offset: u64,
    limit: Option<u64>,
    input_append_only: bool,
) -> bool {
    const FEW: u64 = 16;
    let few = limit.is_some_and(|limit| offset.saturating_add(limit) <= FEW);
    input_append_only && ranking == Ranking::RowNumber && few
}

/// Whether a top-n is of all rows and says their numbers, as window functions do.
pub fn top_n_numbers_all(offset: u64, limit: Option<u64>, numbered: bool) -> bool {
    offset == 0 && limit.is_none() && numbered
}

/// The rows of a partition in order, and beside some of them what running calls had there.
fn window_tables(partition: &[usize], order: &[SortKey], input: &SchemaRef) -> Vec<StateTable> {
    let rows = top_n_table(partition, order, input, false);
    let anchors = StateTable {
        name: "anchors",
        value: encoded("states", DataType::Binary, "states"),
        ..rows.clone()
    };
    vec![rows, anchors]
}

fn top_n_table(
    partition: &[usize],
    order: &[SortKey],
    input: &SchemaRef,
    list: bool,
) -> StateTable {
    let sub = top_n_columns(partition, order, input.fields().len());
    if list {
        return value_table("rows", columns(input, partition), listed(input, &sub));
    }
    map_table("rows", columns(input, partition), ordered(input, &sub))
}

fn value_table(name: &'static str, key: SchemaRef, value: SchemaRef) -> StateTable {
    StateTable {
        name,
        map: false,
        key,
        sub_key: empty(),
        value,
    }
}

fn map_table(name: &'static str, key: SchemaRef, sub_key: SchemaRef) -> StateTable {
    StateTable {
        name,
        map: true,
        key,
        sub_key,
        value: encoded("count", DataType::Int64, "varint"),
    }
}

fn empty() -> SchemaRef {
    Arc::new(Schema::empty())
}

fn encoded(name: &str, data_type: DataType, encoding: &str) -> SchemaRef {
    let metadata = HashMap::from([(ENCODING_KEY.to_owned(), encoding.to_owned())]);
    Arc::new(Schema::new_with_metadata(
        vec![Field::new(name, data_type, false)],
        metadata,
    ))
}

/// Rows in one value: each with its count in front.
fn listed(input: &SchemaRef, columns: &[SortKey]) -> SchemaRef {
    let mut fields = vec![Arc::new(Field::new("count", DataType::Int64, false))];
    fields.extend(ordered(input, columns).fields().iter().cloned());
    let metadata = HashMap::from([(ENCODING_KEY.to_owned(), "rows".to_owned())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

fn columns(input: &SchemaRef, positions: &[usize]) -> SchemaRef {
    Arc::new(
        input
            .project(positions)
            .expect("positions are columns of the input"),
    )
}

fn rest_of(input: &SchemaRef, keys: &[usize]) -> Vec<usize> {
    (0..input.fields().len())
        .filter(|c| !keys.contains(c))
        .collect()
}

fn ordered(input: &SchemaRef, keys: &[SortKey]) -> SchemaRef {
    let fields: Vec<Field> = keys
        .iter()
        .map(|key| {
            let field = input.field(key.column).clone();
            match (key.descending, key.nulls_first) {
                (false, true) => field,
                (descending, nulls_first) => {
                    let mut metadata = field.metadata().clone();
                    let direction = if descending { "desc" } else { "asc" };
                    let nulls = if nulls_first {
                        "nulls first"
                    } else {
                        "nulls last"
                    };
                    metadata.insert(ORDER_KEY.to_owned(), format!("{direction} {nulls}"));
                    field.with_metadata(metadata)
                }
            }
        })
        .collect();
    Arc::new(Schema::new(fields))
}

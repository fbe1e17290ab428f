//! Random plans and inputs for every operator: the one registry that the properties run over.

use crate::oracle::Expected;
use crate::oracle::aggregate::aggregate;
use crate::oracle::join::{JoinOn, join};
use crate::oracle::rows::{
    Meaning, TopNWindow, at_most_one, filter, project, top_n, union, unnest,
};
use crate::oracle::session::session;
use crate::oracle::window::{WindowCall, window};
use crate::value::{Row, Value, ZSet, add};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::functions_aggregate::expr_fn::array_agg;
use datafusion::logical_expr::{Expr, cast, col, lit};
use rand::prelude::*;
use rand::rngs::StdRng;
use std::sync::Arc;
use tidegate_plan::{
    AggregateCall, AggregateFunction as F, JoinKind, Op, PairFunction, Ranking, ScalarExpr,
    SortKey, TimeBound,
};

/// What the output must be over these inputs, after the barrier of an epoch.
type Oracle = Box<dyn Fn(&[ZSet], u64) -> Expected>;

/// An operator with random parameters, and what its output must be.
pub struct Case {
    pub name: &'static str,
    pub op: Op,
    pub inputs: Vec<SchemaRef>,
    pub output: SchemaRef,
    pub append_only: bool,
    /// Output and state that are there over no input at all (a global aggregate, constant rows).
    pub resident: bool,
    pub oracle: Oracle,
}

/// A generator of cases by operator name.
pub type Generator = (&'static str, fn(&mut StdRng) -> Case);

pub const REGISTRY: &[Generator] = &[
    ("filter", filter_case),
    ("project", project_case),
    ("union", union_case),
    ("values", values_case),
    ("aggregate", aggregate_case),
    ("distinct", distinct_case),
    ("top_n", top_n_case),
    ("window", window_case),
    ("session", session_case),
    ("on_close", on_close_case),
    ("time_filter", time_filter_case),
    ("unnest", unnest_case),
    ("at_most_one", at_most_one_case),
    ("join", join_case),
];

const NUMBERS: &[usize] = &[0, 2, 3, 4, 6, 9];
const COLUMNS: usize = 16;
/// The first columns, which are no lists.
const SCALARS: usize = 14;

/// The columns that all random inputs have.
pub fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("c0", DataType::Int32, true),
        Field::new("c1", DataType::Utf8, true),
        Field::new("c2", DataType::Int64, true),
        Field::new("c3", DataType::Float64, true),
        Field::new("c4", DataType::Decimal128(12, 2), true),
        Field::new("c5", DataType::Boolean, true),
        Field::new("c6", DataType::Int64, false),
        Field::new("c7", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("c8", DataType::Boolean, false),
        Field::new("c9", DataType::Float32, true),
        Field::new("c10", DataType::Utf8, true),
        Field::new(
            "c11",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            true,
        ),
        Field::new("c12", DataType::Time64(TimeUnit::Microsecond), true),
        Field::new("c13", DataType::Date32, true),
        Field::new("c14", list_of(DataType::Int32), true),
        Field::new("c15", list_of(DataType::Utf8), true),
    ]))
}

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", element, true)))
}

fn random_list(random: &mut StdRng, element: impl Fn(&mut StdRng) -> Value) -> Value {
    let length = random.random_range(0..4);
    let one = |random: &mut StdRng| match random.random_range(0..4) {
        0 => Value::Null,
        _ => element(random),
    };
    Value::List((0..length).map(|_| one(random)).collect())
}

pub fn random_row(random: &mut StdRng) -> Row {
    let mut row: Row = vec![
        Value::Int(random.random_range(0..4)),
        Value::text(["a", "b", "", "é,", "7", "-12", "x y"][random.random_range(0..7)]),
        match random.random_range(0..12) {
            0 => Value::Int(i64::MAX),
            1 => Value::Int(i64::MIN),
            _ => Value::Int(random.random_range(-3..4)),
        },
        match random.random_range(0..16) {
            0 => Value::Float(f64::NAN),
            1 => Value::Float(f64::INFINITY),
            2 => Value::Float(f64::NEG_INFINITY),
            3 => Value::Float(-0.0),
            _ => Value::Float(f64::from(random.random_range(-40i32..40)) / 8.0),
        },
        Value::Decimal(random.random_range(-500..500), 2),
        Value::Bool(random.random()),
        Value::Int(random.random_range(0..3)),
        Value::Int(random.random_range(0..5) * 1_000_000),
        Value::Bool(random.random()),
        Value::Float(f64::from(random.random_range(-8i32..8)) / 4.0),
        Value::text([",", "; "][random.random_range(0..2)]),
        Value::Int(random.random_range(-2..2) * 1_000_000),
        Value::Int(random.random_range(0..3) * 1_000),
        Value::Int(random.random_range(-2..2)),
        random_list(random, |r| Value::Int(r.random_range(0..3))),
        random_list(random, |r| Value::text(["", "a"][r.random_range(0..2)])),
    ];
    for (index, value) in row.iter_mut().enumerate() {
        if index != 6 && index != 8 && random.random_range(0..7) == 0 {
            *value = Value::Null;
        }
    }
    row
}

/// A change to one input.
#[derive(Debug, Clone)]
pub struct Input {
    pub port: usize,
    pub row: Row,
    pub diff: i64,
}

/// Random changes, epoch by epoch; what is retracted is there. `states` ends as the accumulated inputs.
pub fn random_epochs(random: &mut StdRng, case: &Case, states: &mut Vec<ZSet>) -> Vec<Vec<Input>> {
    states.resize(case.inputs.len(), ZSet::new());
    let epochs = random.random_range(3..9);
    let mut all = Vec::new();
    for number in 1..=epochs {
        let mut epoch = Vec::new();
        let changes = if case.inputs.is_empty() {
            0
        } else {
            random.random_range(0..30)
        };
        for _ in 0..changes {
            let port = random.random_range(0..case.inputs.len());
            let retract =
                !case.append_only && random.random_range(0..5) < 2 && !states[port].is_empty();
            let (row, diff) = if retract {
                let (row, count) = states[port]
                    .iter()
                    .nth(random.random_range(0..states[port].len()))
                    .expect("in range");
                (row.clone(), -random.random_range(1..=*count))
            } else {
                (
                    random_row(random),
                    if random.random_range(0..6) == 0 { 2 } else { 1 },
                )
            };
            if is_late(&case.op, &row, number) {
                continue;
            }
            add(&mut states[port], row.clone(), diff);
            epoch.push(Input { port, row, diff });
        }
        all.push(epoch);
    }
    all
}

fn one_input(
    name: &'static str,
    op: Op,
    append_only: bool,
    oracle: impl Fn(&ZSet) -> Expected + 'static,
) -> Case {
    Case {
        name,
        op,
        inputs: vec![input_schema()],
        output: input_schema(),
        append_only,
        resident: false,
        oracle: Box::new(move |inputs, _| oracle(&inputs[0])),
    }
}

fn int(value: &Value) -> Option<i64> {
    if let Value::Int(v) = value {
        Some(*v)
    } else {
        None
    }
}

/// Predicates with what they mean, written out by hand.
fn predicates() -> Vec<(Expr, Meaning)> {
    let c = |index: usize| col(index.to_string());
    vec![
        (c(2).gt(lit(0i64)), |row| {
            Ok(int(&row[2]).map_or(Value::Null, |v| Value::Bool(v > 0)))
        }),
        (c(1).is_null(), |row| Ok(Value::Bool(row[1].is_null()))),
        ((lit(6i64) / c(6)).gt(lit(2i64)), |row| match int(&row[6]) {
            Some(0) => Err("22012"),
            Some(v) => Ok(Value::Bool(6 / v > 2)),
            None => Ok(Value::Null),
        }),
        // Guarded: the division is not reached where it would fail.
        (
            c(6).gt(lit(0i64)).and((lit(6i64) / c(6)).gt(lit(2i64))),
            |row| match int(&row[6]) {
                Some(0) => Ok(Value::Bool(false)),
                Some(v) => Ok(Value::Bool(6 / v > 2)),
                None => Ok(Value::Null),
            },
        ),
        (
            cast(c(1), DataType::Int64).lt(lit(0i64)),
            |row| match &row[1] {
                Value::Text(text) => text
                    .parse::<i64>()
                    .map(|v| Value::Bool(v < 0))
                    .map_err(|_| "22P02"),
                _ => Ok(Value::Null),
            },
        ),
    ]
}

fn filter_case(random: &mut StdRng) -> Case {
    let (predicate, meaning) = predicates().swap_remove(random.random_range(0..predicates().len()));
    let op = Op::Filter {
        predicate: ScalarExpr::new(predicate),
    };
    one_input("filter", op, random.random(), move |input| {
        filter(meaning, input)
    })
}

/// Expressions with their type and what they mean.
fn expressions() -> Vec<(Expr, DataType, Meaning)> {
    let c = |index: usize| col(index.to_string());
    fn checked(value: Option<i64>, both: bool) -> Result<Value, &'static str> {
        match (value, both) {
            (Some(v), _) => Ok(Value::Int(v)),
            (None, true) => Err("22003"),
            (None, false) => Ok(Value::Null),
        }
    }
    vec![
        (c(0), DataType::Int32, |row| Ok(row[0].clone())),
        (c(3), DataType::Float64, |row| Ok(row[3].clone())),
        (c(2) + c(6), DataType::Int64, |row| {
            match (int(&row[2]), int(&row[6])) {
                (Some(a), Some(b)) => checked(a.checked_add(b), true),
                _ => Ok(Value::Null),
            }
        }),
        (c(2) - c(6), DataType::Int64, |row| {
            match (int(&row[2]), int(&row[6])) {
                (Some(a), Some(b)) => checked(a.checked_sub(b), true),
                _ => Ok(Value::Null),
            }
        }),
        (
            c(2) * lit(3i64),
            DataType::Int64,
            |row| match int(&row[2]) {
                Some(a) => checked(a.checked_mul(3), true),
                None => Ok(Value::Null),
            },
        ),
        (-c(2), DataType::Int64, |row| match int(&row[2]) {
            Some(a) => checked(a.checked_neg(), true),
            None => Ok(Value::Null),
        }),
        (c(2) / c(6), DataType::Int64, |row| {
            match (int(&row[2]), int(&row[6])) {
                (None, _) => Ok(Value::Null),
                (Some(_), Some(0)) => Err("22012"),
                (Some(a), Some(b)) => checked(a.checked_div(b), true),
                _ => Ok(Value::Null),
            }
        }),
        (
            cast(c(1), DataType::Int32),
            DataType::Int32,
            |row| match &row[1] {
                Value::Text(text) => text.parse::<i64>().map(Value::Int).map_err(|_| "22P02"),
                _ => Ok(Value::Null),
            },
        ),
        (
            cast(c(2), DataType::Int16),
            DataType::Int16,
            |row| match int(&row[2]) {
                Some(v) => i16::try_from(v)
                    .map(|v| Value::Int(v.into()))
                    .map_err(|_| "22003"),
                None => Ok(Value::Null),
            },
        ),
    ]
}

fn project_case(random: &mut StdRng) -> Case {
    let mut chosen = expressions();
    chosen.shuffle(random);
    // One that may fail at most: which of two errors a row has is not laid down.
    let failing = |e: &Expr| !matches!(e, Expr::Column(_));
    let mut failures = 0;
    chosen.retain(|(e, ..)| {
        failures += usize::from(failing(e));
        !failing(e) || failures == 1
    });
    let fields: Vec<Field> = chosen
        .iter()
        .enumerate()
        .map(|(i, (_, t, _))| Field::new(format!("o{i}"), t.clone(), true))
        .collect();
    let meanings: Vec<Meaning> = chosen.iter().map(|(.., meaning)| *meaning).collect();
    let op = Op::Project {
        expressions: chosen
            .into_iter()
            .map(|(e, ..)| ScalarExpr::new(e))
            .collect(),
    };
    let case = one_input("project", op, random.random(), move |input| {
        project(&meanings, input)
    });
    Case {
        output: Arc::new(Schema::new(fields)),
        ..case
    }
}

fn union_case(random: &mut StdRng) -> Case {
    let ports = random.random_range(1..4);
    Case {
        name: "union",
        op: Op::Union,
        inputs: vec![input_schema(); ports],
        output: input_schema(),
        append_only: random.random(),
        resident: false,
        oracle: Box::new(|inputs, _| union(inputs)),
    }
}

fn values_case(random: &mut StdRng) -> Case {
    let rows: Vec<(i64, Option<&str>)> = (0..random.random_range(0..4))
        .map(|i| (i % 2, [None, Some("x")][random.random_range(0..2)]))
        .collect();
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
    ]));
    let literal = |(n, s): &(i64, Option<&str>)| {
        let text = datafusion::common::ScalarValue::Utf8(s.map(str::to_owned));
        vec![ScalarExpr::new(lit(*n)), ScalarExpr::new(lit(text))]
    };
    let mut expected = Expected::default();
    for (n, s) in &rows {
        add(
            &mut expected.rows,
            vec![Value::Int(*n), s.map_or(Value::Null, Value::text)],
            1,
        );
    }
    Case {
        name: "values",
        op: Op::Values {
            rows: rows.iter().map(literal).collect(),
        },
        inputs: Vec::new(),
        output: schema,
        append_only: true,
        resident: true,
        oracle: Box::new(move |_, _| expected.clone()),
    }
}

fn random_keys(random: &mut StdRng) -> Vec<usize> {
    const KEYS: &[&[usize]] = &[
        &[],
        &[0],
        &[1],
        &[2],
        &[6],
        &[7],
        &[3],
        &[0, 1],
        &[1, 6, 5],
        &[4],
        &[11],
        &[12],
        &[13, 11],
    ];
    KEYS[random.random_range(0..KEYS.len())].to_vec()
}

fn random_order(random: &mut StdRng, columns: &[usize]) -> Vec<SortKey> {
    let mut columns = columns.to_vec();
    columns.shuffle(random);
    columns.truncate(random.random_range(0..3));
    let key = |column| SortKey {
        column,
        descending: random.random(),
        nulls_first: random.random(),
    };
    columns.into_iter().map(key).collect()
}

/// The type that the planner gives a call.
fn output_type(function: F, argument: Option<&DataType>, random: &mut StdRng) -> DataType {
    match (function, argument) {
        (F::Count, _) => DataType::Int64,
        (F::Sum, Some(DataType::Float32 | DataType::Float64)) => DataType::Float64,
        (F::Sum, Some(DataType::Decimal128(_, scale))) => DataType::Decimal128(38, *scale),
        (F::Sum, _) => {
            [DataType::Int64, DataType::Decimal128(38, 0)][random.random_range(0..2)].clone()
        }
        (F::Avg, Some(DataType::Decimal128(_, scale))) => DataType::Decimal128(38, scale + 4),
        (F::Avg, Some(t)) if t.is_integer() => {
            [DataType::Float64, DataType::Decimal128(38, 6)][random.random_range(0..2)].clone()
        }
        (F::Avg | F::VarPop | F::VarSamp | F::StddevPop | F::StddevSamp, _) => DataType::Float64,
        (F::Min | F::Max, Some(t)) => t.clone(),
        (F::BoolAnd | F::BoolOr, _) => DataType::Boolean,
        (F::StringAgg, _) => DataType::Utf8,
        (F::ArrayAgg | F::Library, Some(t)) => {
            DataType::List(Arc::new(Field::new("item", t.clone(), true)))
        }
        (F::BitAnd | F::BitOr | F::BitXor, Some(t)) => t.clone(),
        (F::FirstValue | F::LastValue | F::PercentileDisc | F::Mode, Some(t)) => t.clone(),
        (F::Pair(PairFunction::RegrCount), _) => DataType::Int64,
        (F::Pair(_) | F::PercentileCont, _) => DataType::Float64,
        (F::LinearRegression, _) => list_of(DataType::Float64),
        (other, None) => panic!("{other:?} needs an argument"),
    }
}

fn random_call(random: &mut StdRng) -> (AggregateCall, DataType) {
    use PairFunction as P;
    const FUNCTIONS: [F; 35] = [
        F::Count,
        F::Sum,
        F::Avg,
        F::Min,
        F::Max,
        F::BoolAnd,
        F::BoolOr,
        F::StringAgg,
        F::ArrayAgg,
        F::VarPop,
        F::VarSamp,
        F::StddevPop,
        F::StddevSamp,
        F::BitAnd,
        F::BitOr,
        F::BitXor,
        F::FirstValue,
        F::LastValue,
        F::PercentileCont,
        F::PercentileDisc,
        F::Mode,
        F::LinearRegression,
        F::Library,
        F::Pair(P::Corr),
        F::Pair(P::CovarPop),
        F::Pair(P::CovarSamp),
        F::Pair(P::RegrAvgX),
        F::Pair(P::RegrAvgY),
        F::Pair(P::RegrCount),
        F::Pair(P::RegrIntercept),
        F::Pair(P::RegrR2),
        F::Pair(P::RegrSlope),
        F::Pair(P::RegrSxx),
        F::Pair(P::RegrSxy),
        F::Pair(P::RegrSyy),
    ];
    let function = FUNCTIONS[random.random_range(0..FUNCTIONS.len())];
    let arguments = match function {
        F::Count if random.random() => Vec::new(),
        F::Count
        | F::Min
        | F::Max
        | F::ArrayAgg
        | F::Library
        | F::FirstValue
        | F::LastValue
        | F::PercentileDisc
        | F::Mode => vec![random.random_range(0..SCALARS)],
        F::BitAnd | F::BitOr | F::BitXor => vec![[0, 2, 6][random.random_range(0..3)]],
        F::PercentileCont => vec![[0, 4, 6, 9][random.random_range(0..4)]],
        F::Pair(_) => {
            let number = |r: &mut StdRng| [0, 4, 6, 9, 3][r.random_range(0..5)];
            vec![number(random), number(random)]
        }
        F::LinearRegression => vec![[0, 6][random.random_range(0..2)], 14],
        F::BoolAnd | F::BoolOr => vec![[5, 8][random.random_range(0..2)]],
        F::StringAgg => vec![1, 10],
        _ => vec![NUMBERS[random.random_range(0..NUMBERS.len())]],
    };
    let distinct = !arguments.is_empty() && random.random_range(0..3) == 0;
    let order_by = match function {
        // As in Postgres, DISTINCT may only be ordered by its arguments.
        F::ArrayAgg | F::StringAgg | F::FirstValue | F::LastValue | F::Library if distinct => {
            random_order(random, &arguments)
        }
        F::ArrayAgg | F::StringAgg | F::FirstValue | F::LastValue | F::Library => {
            random_order(random, &[0, 2, 3, 4, arguments[0]])
        }
        F::PercentileCont | F::PercentileDisc | F::Mode => random_order(random, &arguments),
        _ => Vec::new(),
    };
    let filter = (random.random_range(0..3) == 0).then(|| [5, 8][random.random_range(0..2)]);
    let schema = input_schema();
    let argument = arguments.first().map(|a| schema.field(*a).data_type());
    let output = output_type(function, argument, random);
    let parameter = match function {
        F::PercentileCont | F::PercentileDisc => {
            Some(lit([0.0, 0.25, 0.5, 0.9, 1.0][random.random_range(0..5)]))
        }
        F::Library => Some(array_agg(col("0"))),
        _ => None,
    };
    (
        AggregateCall {
            function,
            arguments,
            distinct,
            filter,
            order_by,
            parameter: parameter.map(ScalarExpr::new),
        },
        output,
    )
}

fn aggregate_of(
    random: &mut StdRng,
    name: &'static str,
    calls: Vec<(AggregateCall, DataType)>,
    keys: Vec<usize>,
) -> Case {
    let (calls, outputs): (Vec<AggregateCall>, Vec<DataType>) = calls.into_iter().unzip();
    let schema = input_schema();
    let mut fields: Vec<Field> = keys.iter().map(|k| schema.field(*k).clone()).collect();
    fields.extend(
        outputs
            .iter()
            .enumerate()
            .map(|(i, t)| Field::new(format!("a{i}"), t.clone(), true)),
    );
    let op = Op::Aggregate {
        keys: keys.clone(),
        calls: calls.clone(),
    };
    let resident = keys.is_empty();
    let case = one_input(name, op, random.random_range(0..3) == 0, move |input| {
        aggregate(&keys, &calls, &outputs, input)
    });
    Case {
        output: Arc::new(Schema::new(fields)),
        resident,
        ..case
    }
}

fn aggregate_case(random: &mut StdRng) -> Case {
    let calls = (0..random.random_range(1..5))
        .map(|_| random_call(random))
        .collect();
    let keys = random_keys(random);
    aggregate_of(random, "aggregate", calls, keys)
}

fn distinct_case(random: &mut StdRng) -> Case {
    let keys = match random_keys(random) {
        keys if keys.is_empty() => vec![0, 5],
        keys => keys,
    };
    aggregate_of(random, "distinct", Vec::new(), keys)
}

fn top_n_case(random: &mut StdRng) -> Case {
    let partition = random_keys(random);
    let order = random_order(random, &[0, 1, 2, 3, 4, 5, 7, 10]);
    let ranking = [
        Ranking::RowNumber,
        Ranking::RowNumber,
        Ranking::Rank,
        Ranking::DenseRank,
    ][random.random_range(0..4)];
    let offset = [0, 0, 1, 3][random.random_range(0..4)];
    let limit =
        [None, Some(0), Some(1), Some(1), Some(2), Some(5), Some(30)][random.random_range(0..7)];
    let numbered = random.random();
    let op = Op::TopN {
        partition: partition.clone(),
        order: order.clone(),
        ranking,
        offset,
        limit,
        numbered,
    };
    let case = one_input("top_n", op, random.random(), move |input| {
        let window = TopNWindow {
            partition: &partition,
            order: &order,
            ranking,
            offset,
            limit,
            numbered,
        };
        top_n(&window, input)
    });
    let mut fields = case.output.fields().to_vec();
    if numbered {
        fields.push(Arc::new(Field::new("number", DataType::Int64, false)));
    }
    Case {
        output: Arc::new(Schema::new(fields)),
        ..case
    }
}

fn window_case(random: &mut StdRng) -> Case {
    let partition = match random.random_range(0..3) {
        0 => Vec::new(),
        _ => random_keys(random),
    };
    let order = match random.random_range(0..3) {
        0 => random_order(random, &[0, 6]).into_iter().take(1).collect(),
        _ => random_order(random, &[0, 1, 2, 4, 7, 10]),
    };
    let calls: Vec<WindowCall> = (0..random.random_range(1..4))
        .map(|_| WindowCall::random(random, &order))
        .collect();
    let schema = input_schema();
    let mut fields = schema.fields().to_vec();
    for (index, call) in calls.iter().enumerate() {
        let name = format!("w{index}");
        fields.push(Arc::new(Field::new(name, call.output(&schema), true)));
    }
    let op = Op::Window {
        partition: partition.clone(),
        order: order.clone(),
        calls: calls
            .iter()
            .map(|call| call.expression(&partition, &order, &schema))
            .collect(),
    };
    let case = one_input("window", op, random.random(), move |input| {
        window(&partition, &order, &calls, input)
    });
    Case {
        output: Arc::new(Schema::new(fields)),
        ..case
    }
}

/// Times lie whole seconds apart, so that gaps of these lengths part some of them.
fn session_case(random: &mut StdRng) -> Case {
    let partition = random_keys(random);
    let time = [7, 11][usize::from(partition.contains(&7))];
    let gap_us = [1, 1_000_000, 1_999_999, 2_000_000][random.random_range(0..4)];
    let mut fields = input_schema().fields().to_vec();
    for name in ["start", "end"] {
        let time = input_schema().field(time).data_type().clone();
        fields.push(Arc::new(Field::new(name, time, true)));
    }
    let op = Op::Session {
        partition: partition.clone(),
        time,
        gap_us,
    };
    let case = one_input("session", op, random.random(), move |input| {
        session(&partition, time, gap_us, input)
    });
    Case {
        output: Arc::new(Schema::new(fields)),
        ..case
    }
}

/// How far the event time of inputs has come at the barrier of an epoch.
pub fn watermark_us(epoch: u64) -> i64 {
    (epoch as i64 - 2) * 1_000_000
}

/// Whether a row comes behind the watermark of the last barrier.
fn is_late(op: &Op, row: &Row, epoch: u64) -> bool {
    match op {
        Op::OnClose { time, .. } => {
            int(&row[*time]).is_some_and(|time| time < watermark_us(epoch - 1))
        }
        _ => false,
    }
}

/// Nothing is ever retracted here, since it could be retracted late; [`tidegate_dataflow`] tests that by itself.
fn on_close_case(random: &mut StdRng) -> Case {
    let time = 7;
    let keys: [&[usize]; 3] = [&[7], &[7, 0], &[1, 6, 7]];
    let op = Op::OnClose {
        key: keys[random.random_range(0..3)].to_vec(),
        time,
    };
    let case = one_input("on_close", op, true, |_| Expected::default());
    let oracle = move |inputs: &[ZSet], epoch: u64| {
        let mut expected = Expected::default();
        for (row, count) in &inputs[0] {
            if int(&row[time]).is_some_and(|time| time < watermark_us(epoch)) {
                add(&mut expected.rows, row.clone(), *count);
            }
        }
        expected
    };
    Case {
        oracle: Box::new(oracle),
        ..case
    }
}

/// The time of a barrier is its epoch in milliseconds, so that few of the rows' times are near.
fn time_filter_case(random: &mut StdRng) -> Case {
    let mut bound = || {
        let (seconds, millis) = (random.random_range(0..5), random.random_range(0..10));
        TimeBound {
            column: [7, 11][random.random_range(0..2)],
            shift_us: millis * 1000 - seconds * 1_000_000 + random.random_range(-1..2),
        }
    };
    let bounds = (bound(), bound());
    let (from, until) = match random.random_range(0..3) {
        0 => (Some(bounds.0), None),
        1 => (None, Some(bounds.1)),
        _ => (Some(bounds.0), Some(bounds.1)),
    };
    let op = Op::TimeFilter { from, until };
    let case = one_input("time_filter", op, random.random(), |_| Expected::default());
    let oracle = move |inputs: &[ZSet], epoch: u64| {
        let now = epoch as i64 * 1000;
        let time =
            |row: &Row, bound: TimeBound| int(&row[bound.column]).map(|t| t + bound.shift_us);
        let mut expected = Expected::default();
        for (row, count) in &inputs[0] {
            let entered = from.is_none_or(|from| time(row, from).is_some_and(|t| t <= now));
            let left = until.is_some_and(|until| time(row, until).is_none_or(|t| t <= now));
            if entered && !left {
                add(&mut expected.rows, row.clone(), *count);
            }
        }
        expected
    };
    Case {
        oracle: Box::new(oracle),
        ..case
    }
}

fn unnest_case(random: &mut StdRng) -> Case {
    let lists = [vec![14], vec![15], vec![14, 15]][random.random_range(0..3)].clone();
    let mut fields = input_schema().fields().to_vec();
    fields[14] = Arc::new(Field::new("c14", DataType::Int32, true));
    fields[15] = Arc::new(Field::new("c15", DataType::Utf8, true));
    for list in [14, 15].into_iter().filter(|l| !lists.contains(l)) {
        fields[list] = input_schema().fields()[list].clone();
    }
    let op = Op::Unnest {
        lists: lists.clone(),
    };
    let case = one_input("unnest", op, random.random(), move |input| {
        unnest(&lists, input)
    });
    Case {
        output: Arc::new(Schema::new(fields)),
        ..case
    }
}

fn at_most_one_case(random: &mut StdRng) -> Case {
    let keys = [vec![], vec![2], vec![3, 4], vec![1, 2, 3]][random.random_range(0..4)].clone();
    let op = Op::AtMostOne { keys: keys.clone() };
    one_input("at_most_one", op, random.random(), move |input| {
        at_most_one(&keys, input)
    })
}

fn join_case(random: &mut StdRng) -> Case {
    use JoinKind::*;
    let kind = [Inner, Left, Right, Full, LeftSemi, LeftAnti, LeftMark][random.random_range(0..7)];
    let keys = [vec![0], vec![1], vec![0, 6], vec![3], vec![]][random.random_range(0..5)].clone();
    let null_equals_null = random.random();
    let residual = random.random::<bool>();
    let expression = || ScalarExpr::new(col("2").lt(col((COLUMNS + 2).to_string())));
    let op = Op::Join {
        kind,
        left_keys: keys.clone(),
        right_keys: keys.clone(),
        null_equals_null,
        null_aware: false,
        residual: residual.then(expression),
    };
    let schema = input_schema();
    let nullable = || {
        schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
    };
    let fields: Vec<Field> = match kind {
        LeftSemi | LeftAnti => nullable().collect(),
        LeftMark => nullable()
            .chain([Field::new("mark", DataType::Boolean, true)])
            .collect(),
        _ => nullable().chain(nullable()).collect(),
    };
    let oracle = move |inputs: &[ZSet], _: u64| {
        let less = |l: &Row, r: &Row| match (residual, int(&l[2]), int(&r[2])) {
            (false, ..) => Some(true),
            (true, Some(l), Some(r)) => Some(l < r),
            _ => None,
        };
        let on = JoinOn {
            left_keys: &keys,
            right_keys: &keys,
            null_equals_null,
            residual: &less,
        };
        join(kind, &on, &inputs[0], &inputs[1], (COLUMNS, COLUMNS))
    };
    Case {
        name: "join",
        op,
        inputs: vec![input_schema(), input_schema()],
        output: Arc::new(Schema::new(fields)),
        append_only: random.random(),
        resident: false,
        oracle: Box::new(oracle),
    }
}

//! Against a naive oracle: nested loops over the accumulated inputs, written from what SQL says.
#![allow(clippy::unwrap_used)]

use super::{Join, Limits};
use crate::{Cx, Operator, Progress};
use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::{Expr, col, lit};
use rand::prelude::*;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidegate_plan::JoinKind::{self, *};
use tidegate_plan::{ScalarExpr, StateTable};
use tidegate_plan::join_state::join_state_tables;
use tidegate_state::memory::MemoryAccount;
use tidegate_state::memory::map::MapTable;
use tidegate_state::memory::value::ValueTable;
use tidegate_state::{Run, Table};
use tidegate_types::{Barrier, Batch, CheckpointId, Epoch, KeyGroup, LogPosition, TableId};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
}
use Value::{Bool, Int, Null, Text};

type Row = Vec<Value>;
type ZSet = BTreeMap<Row, i64>;

fn add(set: &mut ZSet, row: Row, diff: i64) {
    let count = set.entry(row.clone()).or_default();
    *count += diff;
    if *count == 0 {
        set.remove(&row);
    }
}

/// What the random joins are over. Columns left: a int, b text, v int; right: w int, x int, y text.
#[derive(Debug, Clone, Copy)]
struct Case {
    kind: JoinKind,
    left_keys: &'static [usize],
    right_keys: &'static [usize],
    null_equals_null: bool,
    null_aware: bool,
    residual: Residual,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Residual {
    None,
    /// `v < w`
    Less,
    /// `4 / w > v`, which fails when w is zero.
    Fails,
}

impl Residual {
    fn expression(self) -> Option<ScalarExpr> {
        let expression: Expr = match self {
            Residual::None => return None,
            Residual::Less => col("2").lt(col("3")),
            Residual::Fails => (lit(4i64) / col("3")).gt(col("2")),
        };
        Some(ScalarExpr::new(expression))
    }

    /// `Err` when the pair fails.
    fn truth(self, left: &Row, right: &Row) -> Result<Option<bool>, ()> {
        Ok(match (self, &left[2], &right[0]) {
            (Residual::None, ..) => Some(true),
            (Residual::Less, Int(v), Int(w)) => Some(v < w),
            (Residual::Fails, _, Int(0)) => return Err(()),
            (Residual::Fails, Int(v), Int(w)) => Some(4 / w > *v),
            _ => None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Yes,
    No,
    Unknown,
    Fails,
}

impl Case {
    fn aware(&self) -> bool {
        self.null_aware && matches!(self.kind, LeftAnti | LeftMark)
    }

    fn answer(&self, left: &Row, right: &Row) -> Answer {
        let equal = |pair: usize| {
            let (l, r) = (&left[self.left_keys[pair]], &right[self.right_keys[pair]]);
            if *l == Null || *r == Null { None } else { Some(l == r) }
        };
        let in_first = usize::from(self.aware() && !self.left_keys.is_empty());
        for pair in in_first..self.left_keys.len() {
            let (l, r) = (&left[self.left_keys[pair]], &right[self.right_keys[pair]]);
            let same = if self.null_equals_null { l == r } else { equal(pair) == Some(true) };
            if !same {
                return Answer::No;
            }
        }
        let residual = match self.residual.truth(left, right) {
            Ok(truth) => truth,
            Err(()) => return Answer::Fails,
        };
        let truth = if in_first == 1 {
            if residual == Some(true) { equal(0) } else { Some(false) }
        } else if self.aware() {
            residual
        } else {
            Some(residual == Some(true))
        };
        match truth {
            Some(true) => Answer::Yes,
            Some(false) => Answer::No,
            None => Answer::Unknown,
        }
    }

    /// The output over all of both inputs, and the pairs that fail.
    fn oracle(&self, left: &ZSet, right: &ZSet) -> (ZSet, BTreeMap<String, i64>) {
        let (mut out, mut failed) = (ZSet::new(), BTreeMap::new());
        let nulls = |n| vec![Null; n];
        for (l, n) in left {
            let (mut yes, mut unknown) = (false, false);
            for (r, m) in right {
                match self.answer(l, r) {
                    Answer::Yes => {
                        yes = true;
                        if matches!(self.kind, Inner | Left | Right | Full) {
                            add(&mut out, [l.clone(), r.clone()].concat(), n * m);
                        }
                    }
                    Answer::Unknown => unknown = true,
                    Answer::Fails => *failed.entry(text(&[l.clone(), r.clone()].concat())).or_default() += n * m,
                    Answer::No => {}
                }
            }
            match self.kind {
                Left | Full if !yes => add(&mut out, [l.clone(), nulls(3)].concat(), *n),
                LeftSemi if yes => add(&mut out, l.clone(), *n),
                LeftAnti if !yes && !unknown => add(&mut out, l.clone(), *n),
                LeftMark => {
                    let mark = if yes { Bool(true) } else if unknown { Null } else { Bool(false) };
                    add(&mut out, [l.clone(), vec![mark]].concat(), *n);
                }
                _ => {}
            }
        }
        if matches!(self.kind, Right | Full) {
            for (r, m) in right {
                if !left.keys().any(|l| self.answer(l, r) == Answer::Yes) {
                    add(&mut out, [nulls(3), r.clone()].concat(), *m);
                }
            }
        }
        (out, failed)
    }

    fn schemas(&self) -> [SchemaRef; 3] {
        let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
        let left = vec![field("a", DataType::Int64), field("b", DataType::Utf8), field("v", DataType::Int64)];
        let right = vec![field("w", DataType::Int64), field("x", DataType::Int64), field("y", DataType::Utf8)];
        let output = match self.kind {
            LeftSemi | LeftAnti => left.clone(),
            LeftMark => [left.clone(), vec![field("mark", DataType::Boolean)]].concat(),
            _ => [left.clone(), right.clone()].concat(),
        };
        [left, right, output].map(|fields| Arc::new(Schema::new(fields)))
    }

    fn join(&self, limits: Limits) -> Join {
        let [left, right, output] = self.schemas();
        let residual = self.residual.expression();
        let (nulls, aware) = (self.null_equals_null, self.null_aware);
        let (left_keys, right_keys) = (self.left_keys, self.right_keys);
        let mut join = Join::new(
            self.kind, left_keys, right_keys, nulls, aware, residual.as_ref(), left, right, output, false, false,
        )
        .unwrap();
        join.set_limits(limits);
        join
    }

    fn tables(&self) -> Vec<Box<dyn Table>> {
        let [left, right, _] = self.schemas();
        let residual = self.residual != Residual::None;
        let tables =
            join_state_tables(self.kind, self.left_keys, self.right_keys, self.null_aware, residual, &left, &right);
        open_tables(&tables)
    }
}

fn open_tables(tables: &[StateTable]) -> Vec<Box<dyn Table>> {
    let open = |(index, table): (usize, &StateTable)| -> Box<dyn Table> {
        let (id, memory) = (TableId(index as u64), MemoryAccount::default().share());
        if table.map { Box::new(MapTable::new(id, memory)) } else { Box::new(ValueTable::new(id, memory)) }
    };
    tables.iter().enumerate().map(open).collect()
}

fn text(row: &Row) -> String {
    let values: Vec<String> = row
        .iter()
        .map(|v| match v {
            Null => String::new(),
            Bool(b) => b.to_string(),
            Int(i) => i.to_string(),
            Text(t) => t.clone(),
        })
        .collect();
    format!("({})", values.join(","))
}

fn batch(schema: &SchemaRef, changes: &[(Row, i64)]) -> Batch {
    let column = |index: usize| -> ArrayRef {
        let values = changes.iter().map(|(row, _)| &row[index]);
        match schema.field(index).data_type() {
            DataType::Int64 => Arc::new(Int64Array::from_iter(values.map(|v| match v {
                Int(i) => Some(*i),
                _ => None,
            }))),
            _ => Arc::new(StringArray::from_iter(values.map(|v| match v {
                Text(t) => Some(t),
                _ => None,
            }))),
        }
    };
    let columns = (0..schema.fields().len()).map(column).collect();
    let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
    Batch::new(rows, changes.iter().map(|(_, diff)| *diff).collect())
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Null;
    }
    match column.data_type() {
        DataType::Int64 => Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::Boolean => Bool(column.as_boolean().value(row)),
        _ => Text(column.as_string::<i32>().value(row).to_owned()),
    }
}

/// Plays the driver.
struct Harness {
    case: Case,
    limits: Limits,
    join: Join,
    tables: Vec<Box<dyn Table>>,
    /// What was sealed, in order.
    runs: Vec<(usize, Run)>,
    output: ZSet,
    errors: BTreeMap<String, i64>,
    epoch: u64,
    budget: usize,
}

impl Harness {
    fn new(case: Case, limits: Limits, budget: usize) -> Self {
        Self {
            case,
            limits,
            join: case.join(limits),
            tables: case.tables(),
            runs: Vec::new(),
            output: ZSet::new(),
            errors: BTreeMap::new(),
            epoch: 0,
            budget,
        }
    }

    fn run(&mut self, first: impl FnOnce(&mut Join, &mut Cx<'_>) -> Progress) {
        let mut first = Some(first);
        loop {
            let (mut output, mut errors) = (Vec::new(), Vec::new());
            let mut cx = Cx::new(&mut self.tables, &mut output, &mut errors, self.budget);
            let progress = match first.take() {
                Some(first) => first(&mut self.join, &mut cx),
                None => self.join.resume(&mut cx).unwrap(),
            };
            let rows: usize = output.iter().map(Batch::num_rows).sum();
            assert!(rows < self.budget + 2 * self.limits.chunk_rows + 64, "{rows} rows at once");
            for batch in output {
                for row in 0..batch.num_rows() {
                    let values = batch.columns().iter().map(|c| value(c, row)).collect();
                    add(&mut self.output, values, batch.diff(row));
                }
            }
            for error in errors {
                assert_eq!(error.state.code(), "22012");
                *self.errors.entry(error.row).or_default() += error.diff;
            }
            self.errors.retain(|_, n| *n != 0);
            if progress == Progress::Done {
                break;
            }
        }
    }

    fn batch(&mut self, port: usize, changes: &[(Row, i64)]) {
        let batch = batch(&self.case.schemas()[port], changes);
        self.run(|join, cx| join.on_batch(port, batch, cx).unwrap());
    }

    fn barrier(&mut self) {
        self.epoch += 1;
        let (epoch, log_position) = (Epoch(self.epoch), LogPosition(0));
        let barrier = Barrier { epoch, time_ms: 0, checkpoint: None, log_position };
        self.run(|join, cx| join.on_barrier(&barrier, cx).unwrap());
    }

    /// A checkpoint, and a recovery from all checkpoints so far.
    fn rebuild(&mut self) {
        for (index, table) in self.tables.iter_mut().enumerate() {
            let checkpoint = CheckpointId(self.epoch);
            self.runs.extend(table.seal(checkpoint).unwrap().map(|run| (index, run)));
            table.completed(checkpoint).unwrap();
        }
        self.tables = self.case.tables();
        for (index, run) in &self.runs {
            self.tables[*index].restore(run).unwrap();
        }
        self.join = self.case.join(self.limits);
    }
}

const TINY: Limits = Limits { chunk_rows: 3, page_rows: 2, pairs_per_turn: 7, keys_per_step: 2 };

fn random_row(port: usize, rng: &mut StdRng) -> Row {
    let int = |rng: &mut StdRng| if rng.random_bool(0.15) { Null } else { Int(rng.random_range(0..3)) };
    let (first, second) = (int(rng), int(rng));
    let word = ["", "p", "a word that is longer than a block of the encoding"].choose(rng).unwrap();
    let word = if rng.random_bool(0.15) { Null } else { Text((*word).to_owned()) };
    if port == 0 { vec![first, word, second] } else { vec![first, second, word] }
}

/// The changes of one epoch to one input: inserts, retractions, updates, and rows that come and go in any order.
fn random_changes(port: usize, mut input: ZSet, rng: &mut StdRng) -> Vec<(Row, i64)> {
    let mut changes = Vec::new();
    for _ in 0..rng.random_range(0..6) {
        match rng.random_range(0..10) {
            0..5 => changes.push((random_row(port, rng), rng.random_range(1..3))),
            5 => {
                let row = random_row(port, rng);
                changes.push((row.clone(), 1));
                changes.push((row, -1));
            }
            _ => {
                let live: Vec<(Row, i64)> = input.iter().map(|(r, n)| (r.clone(), *n)).collect();
                if let Some((row, count)) = live.choose(rng) {
                    let gone = rng.random_range(1..=*count);
                    add(&mut input, row.clone(), -gone);
                    changes.push((row.clone(), -gone));
                    if rng.random_bool(0.4) {
                        changes.push((random_row(port, rng), 1));
                    }
                }
                continue;
            }
        }
    }
    changes
}

fn check_case(case: Case, seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let limits = if rng.random_bool(0.5) { TINY } else { super::LIMITS };
    let budget = *[1, 5, usize::MAX / 2].choose(&mut rng).unwrap();
    let mut harness = Harness::new(case, limits, budget);
    let mut inputs = [ZSet::new(), ZSet::new()];
    let mut checks = 0;
    for epoch in 0..10 {
        let mut changes: Vec<(usize, Row, i64)> = Vec::new();
        for (port, input) in inputs.iter().enumerate() {
            let of_port = if epoch == 9 {
                input.iter().map(|(row, count)| (row.clone(), -count)).collect()
            } else {
                random_changes(port, input.clone(), &mut rng)
            };
            changes.extend(of_port.into_iter().map(|(row, diff)| (port, row, diff)));
        }
        for (port, row, diff) in &changes {
            add(&mut inputs[*port], row.clone(), *diff);
        }
        assert!(inputs.iter().all(|i| i.values().all(|n| *n > 0)), "the test makes valid inputs");
        changes.shuffle(&mut rng);
        while !changes.is_empty() {
            let some = changes.split_off(changes.len() - rng.random_range(1..=changes.len()));
            for port in 0..2 {
                let of_port: Vec<(Row, i64)> =
                    some.iter().filter(|c| c.0 == port).map(|c| (c.1.clone(), c.2)).collect();
                harness.batch(port, &of_port);
            }
        }
        harness.barrier();
        let (output, errors) = case.oracle(&inputs[0], &inputs[1]);
        assert_eq!(harness.output, output, "output of {case:?} seed {seed} epoch {epoch} over {inputs:?}");
        assert_eq!(harness.errors, errors, "errors of {case:?} seed {seed} epoch {epoch}");
        checks += 1;
        if rng.random_bool(0.3) {
            harness.rebuild();
        }
    }
    assert!(harness.output.is_empty());
    for (index, table) in harness.tables.iter().enumerate() {
        let mut cells = 0;
        let mut visit = |_: KeyGroup, _: &[u8], _: &[u8], _: &[u8]| {
            cells += 1;
            ControlFlow::Continue(())
        };
        table.scan_all(&mut visit).unwrap();
        assert_eq!(cells, 0, "table {index} of {case:?} seed {seed} after all is retracted");
    }
    checks
}

#[test]
fn joins_agree_with_nested_loops() {
    let keys: [(&[usize], &[usize]); 4] = [(&[], &[]), (&[0], &[1]), (&[0, 1], &[1, 2]), (&[1, 0], &[2, 0])];
    let mut checks = 0;
    for kind in [Inner, Left, Right, Full, LeftSemi, LeftAnti, LeftMark] {
        for (left_keys, right_keys) in keys {
            for residual in [Residual::None, Residual::Less, Residual::Fails] {
                for flags in 0..4 {
                    let (null_equals_null, null_aware) = (flags & 1 > 0, flags & 2 > 0);
                    let case = Case { kind, left_keys, right_keys, null_equals_null, null_aware, residual };
                    for seed in 0..6 {
                        checks += check_case(case, seed);
                    }
                }
            }
        }
    }
    assert_eq!(checks, 7 * 4 * 3 * 4 * 6 * 10);
}

#[test]
fn a_hot_key_comes_in_bounded_pieces() {
    let case = Case {
        kind: Inner,
        left_keys: &[0],
        right_keys: &[1],
        null_equals_null: false,
        null_aware: false,
        residual: Residual::None,
    };
    let mut harness = Harness::new(case, super::LIMITS, 1000);
    let left: Vec<(Row, i64)> = (0..3).map(|v| (vec![Int(1), Null, Int(v)], 1)).collect();
    // More rows of one key than are read at once.
    let right: Vec<(Row, i64)> = (0..70_000).map(|w| (vec![Int(w), Int(1), Null], 1)).collect();
    harness.batch(1, &right);
    harness.batch(0, &left);
    harness.barrier();
    assert_eq!(harness.output.len(), 210_000);
    let gone: Vec<(Row, i64)> = right.into_iter().map(|(row, _)| (row, -1)).collect();
    harness.batch(1, &gone);
    harness.barrier();
    assert!(harness.output.is_empty());
}

/// Rows written as `a,b,v`, where nothing at all is NULL.
fn rows(port: usize, text: &[&str]) -> Vec<(Row, i64)> {
    let value = |column: usize, text: &str| match text {
        "" => Null,
        "''" => Text(String::new()),
        _ if column == 1 + port => Text(text.to_owned()),
        _ => Int(text.parse().unwrap()),
    };
    text.iter().map(|row| (row.split(',').enumerate().map(|(i, v)| value(i, v)).collect(), 1)).collect()
}

/// The answers are Postgres 15's for the queries beside them.
#[test]
fn joins_answer_like_postgres() {
    let left = rows(0, &["1,p,1", "1,p,1", ",p,2", "2,,0", "0,'',", "2,p,2", "3,q,0"]);
    let right = rows(1, &["0,1,p", "2,1,p", "3,1,''", "1,,p", ",2,p", "4,5,''", "4,5,''"]);
    let case = |kind, keys, null_aware, residual| {
        let (left_keys, right_keys): (&[usize], &[usize]) = [(&[][..], &[][..]), (&[0], &[1]), (&[0, 1], &[1, 2])][keys];
        Case { kind, left_keys, right_keys, null_equals_null: false, null_aware, residual }
    };
    let (none, less) = (Residual::None, Residual::Less);
    let not_distinct = Case { null_equals_null: true, ..case(Left, 1, false, none) };
    let matches = "(1,p,1,2,1,p) (1,p,1,2,1,p)";
    let expected: [(&str, Case, &str); 12] = [
        ("l JOIN r ON a = x AND b = y AND v < w", case(Inner, 2, false, less), matches),
        (
            "l LEFT JOIN r ON a = x AND v < w",
            case(Left, 1, false, less),
            "(,p,2,,,) (0,,,,,) (1,p,1,2,1,p) (1,p,1,2,1,p) (1,p,1,3,1,) (1,p,1,3,1,) (2,,0,,,) (2,p,2,,,) (3,q,0,,,)",
        ),
        (
            "l RIGHT JOIN r ON a = x",
            case(Right, 1, false, none),
            "(,,,1,,p) (,,,4,5,) (,,,4,5,) (1,p,1,0,1,p) (1,p,1,0,1,p) (1,p,1,2,1,p) (1,p,1,2,1,p) (1,p,1,3,1,) (1,p,1,3,1,) \
             (2,,0,,2,p) (2,p,2,,2,p)",
        ),
        (
            "l FULL JOIN r ON a = x AND v < w",
            case(Full, 1, false, less),
            "(,,,,2,p) (,,,0,1,p) (,,,1,,p) (,,,4,5,) (,,,4,5,) (,p,2,,,) (0,,,,,) (1,p,1,2,1,p) (1,p,1,2,1,p) (1,p,1,3,1,) \
             (1,p,1,3,1,) (2,,0,,,) (2,p,2,,,) (3,q,0,,,)",
        ),
        (
            "l LEFT JOIN r ON a IS NOT DISTINCT FROM x",
            not_distinct,
            "(,p,2,1,,p) (0,,,,,) (1,p,1,0,1,p) (1,p,1,0,1,p) (1,p,1,2,1,p) (1,p,1,2,1,p) (1,p,1,3,1,) (1,p,1,3,1,) \
             (2,,0,,2,p) (2,p,2,,2,p) (3,q,0,,,)",
        ),
        ("l WHERE EXISTS (SELECT FROM r WHERE a = x AND v < w)", case(LeftSemi, 1, false, less), "(1,p,1) (1,p,1)"),
        ("l WHERE NOT EXISTS (SELECT FROM r WHERE a = x)", case(LeftAnti, 1, false, none), "(,p,2) (0,,) (3,q,0)"),
        ("l WHERE a NOT IN (SELECT x FROM r)", case(LeftAnti, 1, true, none), ""),
        ("l WHERE a NOT IN (SELECT x FROM r WHERE y = b)", case(LeftAnti, 2, true, none), "(0,,) (2,,0) (3,q,0)"),
        ("l WHERE a NOT IN (SELECT x FROM r WHERE v < w)", case(LeftAnti, 1, true, less), "(0,,) (2,p,2)"),
        (
            "SELECT *, a IN (SELECT x FROM r) FROM l",
            case(LeftMark, 1, true, none),
            "(,p,2,) (0,,,) (1,p,1,true) (1,p,1,true) (2,,0,true) (2,p,2,true) (3,q,0,)",
        ),
        (
            "SELECT *, a IN (SELECT x FROM r WHERE y = b AND v < w) FROM l",
            case(LeftMark, 2, true, less),
            "(,p,2,false) (0,,,false) (1,p,1,true) (1,p,1,true) (2,,0,false) (2,p,2,false) (3,q,0,false)",
        ),
    ];
    for (query, case, expected) in expected {
        let mut harness = Harness::new(case, super::LIMITS, 1000);
        harness.batch(0, &left);
        harness.barrier();
        harness.batch(1, &right);
        harness.barrier();
        let all = harness.output.iter().flat_map(|(row, n)| std::iter::repeat_n(text(row), *n as usize));
        let mut all: Vec<String> = all.collect();
        all.sort();
        assert_eq!(all.join(" "), expected, "{query}");
    }
}

/// Runs a join of any columns over these batches with a barrier at the end.
fn run_join(
    kind: JoinKind,
    keys: &[usize],
    residual: Option<&ScalarExpr>,
    schemas: [&SchemaRef; 3],
    batches: Vec<(usize, RecordBatch)>,
) -> Vec<Batch> {
    let [left, right, output] = schemas;
    let tables = join_state_tables(kind, keys, keys, false, residual.is_some(), left, right);
    let mut tables = open_tables(&tables);
    let schemas = (left.clone(), right.clone(), output.clone());
    let mut join =
        Join::new(kind, keys, keys, false, false, residual, schemas.0, schemas.1, schemas.2, true, true).unwrap();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let mut cx = Cx::new(&mut tables, &mut output, &mut errors, usize::MAX);
    for (port, rows) in batches {
        assert_eq!(join.on_batch(port, Batch::insert(rows), &mut cx).unwrap(), Progress::Done);
    }
    let barrier = Barrier { epoch: Epoch(1), time_ms: 0, checkpoint: None, log_position: LogPosition(0) };
    assert_eq!(join.on_barrier(&barrier, &mut cx).unwrap(), Progress::Done);
    assert!(errors.is_empty());
    output
}

#[test]
fn rows_without_columns_are_counted() {
    let none: SchemaRef = Arc::new(Schema::empty());
    let rows = |count| {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(none.clone(), Vec::new(), &options).unwrap()
    };
    let batches = vec![(0, rows(3)), (1, rows(2)), (0, rows(1))];
    let output = run_join(Inner, &[], None, [&none, &none, &none], batches);
    let pairs: i64 = output.iter().flat_map(Batch::diff_values).sum();
    assert_eq!(pairs, 8);
}

#[test]
fn floats_are_equal_as_sql_has_it() {
    let field = |name: &str| Field::new(name, DataType::Float64, true);
    let one: SchemaRef = Arc::new(Schema::new(vec![field("a")]));
    let two: SchemaRef = Arc::new(Schema::new(vec![field("a"), field("b")]));
    let rows = |values: Vec<Option<f64>>| {
        RecordBatch::try_new(one.clone(), vec![Arc::new(Float64Array::from(values)) as ArrayRef]).unwrap()
    };
    let odd_nan = f64::from_bits(0xfff8_0000_0000_0001);
    let batches = vec![
        (0, rows(vec![Some(-0.0), Some(odd_nan), None, Some(1.0)])),
        (1, rows(vec![Some(0.0), Some(f64::NAN), None, Some(2.0)])),
    ];
    let output = run_join(Inner, &[0], None, [&one, &one, &two], batches);
    let values = |column: usize| -> Vec<f64> {
        output.iter().flat_map(|b| b.column(column).as_primitive::<Float64Type>().values().to_vec()).collect()
    };
    // Zero and NaN, each in one form on both sides.
    for column in 0..2 {
        let values = values(column);
        assert_eq!(values.len(), 2);
        assert!(values.iter().any(|v| v.to_bits() == 0.0f64.to_bits()));
        assert!(values.iter().any(|v| v.to_bits() == f64::NAN.to_bits()));
    }
}

#[test]
fn an_idle_barrier_emits_nothing() {
    let case = Case {
        kind: Full,
        left_keys: &[0],
        right_keys: &[1],
        null_equals_null: false,
        null_aware: false,
        residual: Residual::None,
    };
    let mut harness = Harness::new(case, super::LIMITS, 10);
    harness.batch(0, &rows(0, &["1,p,1", ",p,2"]));
    harness.barrier();
    let before = harness.output.clone();
    harness.batch(1, &[]);
    harness.barrier();
    assert_eq!(harness.output, before);
    assert_eq!(harness.output.len(), 2);
}

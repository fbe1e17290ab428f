//! Random changes against a naive oracle, fixed ones against Postgres, and the edges.
#![allow(clippy::unwrap_used)]

mod harness;
mod oracle;

use super::{Join, LIMITS, Limits};
use crate::{Cx, Operator, Progress};
use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use harness::{Harness, open_tables};
use oracle::Value::{Int, Null, Text};
use oracle::{Case, Residual, Row, ZSet, add, text};
use rand::prelude::*;
use rand::rngs::StdRng;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidegate_plan::JoinKind::{self, *};
use tidegate_plan::ScalarExpr;
use tidegate_plan::join_state::join_state_tables;
use tidegate_types::{Barrier, Batch, Epoch, KeyGroup, LogPosition};

const TINY: Limits = Limits {
    chunk_rows: 3,
    page_rows: 2,
    pairs_per_turn: 7,
    keys_per_step: 2,
};

fn random_row(port: usize, rng: &mut StdRng) -> Row {
    let int = |rng: &mut StdRng| {
        if rng.random_bool(0.15) {
            Null
        } else {
            Int(rng.random_range(0..3))
        }
    };
    let (first, second) = (int(rng), int(rng));
    let word = [
        "",
        "p",
        "a word that is longer than a block of the encoding",
    ]
    .choose(rng)
    .unwrap();
    let word = if rng.random_bool(0.15) {
        Null
    } else {
        Text((*word).to_owned())
    };
    if port == 0 {
        vec![first, word, second]
    } else {
        vec![first, second, word]
    }
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
    let limits = if rng.random_bool(0.5) { TINY } else { LIMITS };
    let budget = *[1, 5, usize::MAX / 2].choose(&mut rng).unwrap();
    let mut harness = Harness::new(case, limits, budget);
    let mut inputs = [ZSet::new(), ZSet::new()];
    let mut checks = 0;
    for epoch in 0..10 {
        let mut changes: Vec<(usize, Row, i64)> = Vec::new();
        for (port, input) in inputs.iter().enumerate() {
            let of_port = if epoch == 9 {
                input
                    .iter()
                    .map(|(row, count)| (row.clone(), -count))
                    .collect()
            } else {
                random_changes(port, input.clone(), &mut rng)
            };
            changes.extend(of_port.into_iter().map(|(row, diff)| (port, row, diff)));
        }
        for (port, row, diff) in &changes {
            add(&mut inputs[*port], row.clone(), *diff);
        }
        assert!(
            inputs.iter().all(|i| i.values().all(|n| *n > 0)),
            "the test makes valid inputs"
        );
        changes.shuffle(&mut rng);
        while !changes.is_empty() {
            let some = changes.split_off(changes.len() - rng.random_range(1..=changes.len()));
            for port in 0..2 {
                let of_port: Vec<(Row, i64)> = some
                    .iter()
                    .filter(|c| c.0 == port)
                    .map(|c| (c.1.clone(), c.2))
                    .collect();
                harness.batch(port, &of_port);
            }
        }
        harness.barrier();
        let (output, errors) = case.oracle(&inputs[0], &inputs[1]);
        assert_eq!(
            harness.output, output,
            "output of {case:?} seed {seed} epoch {epoch} over {inputs:?}"
        );
        assert_eq!(
            harness.errors, errors,
            "errors of {case:?} seed {seed} epoch {epoch}"
        );
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
        assert_eq!(
            cells, 0,
            "table {index} of {case:?} seed {seed} after all is retracted"
        );
    }
    checks
}

#[test]
fn joins_agree_with_nested_loops() {
    let keys: [(&[usize], &[usize]); 4] = [
        (&[], &[]),
        (&[0], &[1]),
        (&[0, 1], &[1, 2]),
        (&[1, 0], &[2, 0]),
    ];
    let mut checks = 0;
    for kind in [Inner, Left, Right, Full, LeftSemi, LeftAnti, LeftMark] {
        for (left_keys, right_keys) in keys {
            for residual in [Residual::None, Residual::Less, Residual::Fails] {
                for flags in 0..4 {
                    let (null_equals_null, null_aware) = (flags & 1 > 0, flags & 2 > 0);
                    let case = Case {
                        kind,
                        left_keys,
                        right_keys,
                        null_equals_null,
                        null_aware,
                        residual,
                    };
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
    let mut harness = Harness::new(case, LIMITS, 1000);
    let left: Vec<(Row, i64)> = (0..3).map(|v| (vec![Int(1), Null, Int(v)], 1)).collect();
    // More rows of one key than are read at once.
    let right: Vec<(Row, i64)> = (0..70_000)
        .map(|w| (vec![Int(w), Int(1), Null], 1))
        .collect();
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
    text.iter()
        .map(|row| {
            (
                row.split(',')
                    .enumerate()
                    .map(|(i, v)| value(i, v))
                    .collect(),
                1,
            )
        })
        .collect()
}

/// The answers are Postgres 15's for the queries beside them.
#[test]
fn joins_answer_like_postgres() {
    let left = rows(
        0,
        &["1,p,1", "1,p,1", ",p,2", "2,,0", "0,'',", "2,p,2", "3,q,0"],
    );
    let right = rows(
        1,
        &[
            "0,1,p", "2,1,p", "3,1,''", "1,,p", ",2,p", "4,5,''", "4,5,''",
        ],
    );
    let case = |kind, keys, null_aware, residual| {
        let (left_keys, right_keys): (&[usize], &[usize]) =
            [(&[][..], &[][..]), (&[0], &[1]), (&[0, 1], &[1, 2])][keys];
        Case {
            kind,
            left_keys,
            right_keys,
            null_equals_null: false,
            null_aware,
            residual,
        }
    };
    let (none, less) = (Residual::None, Residual::Less);
    let not_distinct = Case {
        null_equals_null: true,
        ..case(Left, 1, false, none)
    };
    let matches = "(1,p,1,2,1,p) (1,p,1,2,1,p)";
    let expected: [(&str, Case, &str); 12] = [
        (
            "l JOIN r ON a = x AND b = y AND v < w",
            case(Inner, 2, false, less),
            matches,
        ),
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
        (
            "l WHERE EXISTS (SELECT FROM r WHERE a = x AND v < w)",
            case(LeftSemi, 1, false, less),
            "(1,p,1) (1,p,1)",
        ),
        (
            "l WHERE NOT EXISTS (SELECT FROM r WHERE a = x)",
            case(LeftAnti, 1, false, none),
            "(,p,2) (0,,) (3,q,0)",
        ),
        (
            "l WHERE a NOT IN (SELECT x FROM r)",
            case(LeftAnti, 1, true, none),
            "",
        ),
        (
            "l WHERE a NOT IN (SELECT x FROM r WHERE y = b)",
            case(LeftAnti, 2, true, none),
            "(0,,) (2,,0) (3,q,0)",
        ),
        (
            "l WHERE a NOT IN (SELECT x FROM r WHERE v < w)",
            case(LeftAnti, 1, true, less),
            "(0,,) (2,p,2)",
        ),
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
        let mut harness = Harness::new(case, LIMITS, 1000);
        harness.batch(0, &left);
        harness.barrier();
        harness.batch(1, &right);
        harness.barrier();
        let all = harness
            .output
            .iter()
            .flat_map(|(row, n)| std::iter::repeat_n(text(row), *n as usize));
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
    let mut join = Join::new(
        kind, keys, keys, false, false, residual, schemas.0, schemas.1, schemas.2, true, true,
    )
    .unwrap();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let mut cx = Cx::new(&mut tables, &mut output, &mut errors, usize::MAX);
    for (port, rows) in batches {
        assert_eq!(
            join.on_batch(port, Batch::insert(rows), &mut cx).unwrap(),
            Progress::Done
        );
    }
    let barrier = Barrier {
        epoch: Epoch(1),
        time_ms: 0,
        checkpoint: None,
        log_position: LogPosition(0),
        watermarks: Default::default(),
    };
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
        RecordBatch::try_new(
            one.clone(),
            vec![Arc::new(Float64Array::from(values)) as ArrayRef],
        )
        .unwrap()
    };
    let odd_nan = f64::from_bits(0xfff8_0000_0000_0001);
    let batches = vec![
        (0, rows(vec![Some(-0.0), Some(odd_nan), None, Some(1.0)])),
        (1, rows(vec![Some(0.0), Some(f64::NAN), None, Some(2.0)])),
    ];
    let output = run_join(Inner, &[0], None, [&one, &one, &two], batches);
    let values = |column: usize| -> Vec<f64> {
        output
            .iter()
            .flat_map(|b| {
                b.column(column)
                    .as_primitive::<Float64Type>()
                    .values()
                    .to_vec()
            })
            .collect()
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
    let mut harness = Harness::new(case, LIMITS, 10);
    harness.batch(0, &rows(0, &["1,p,1", ",p,2"]));
    harness.barrier();
    let before = harness.output.clone();
    harness.batch(1, &[]);
    harness.barrier();
    assert_eq!(harness.output, before);
    assert_eq!(harness.output.len(), 2);
}

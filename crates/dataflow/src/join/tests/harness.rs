//! Plays the driver: tables, output budget, checkpoints and recoveries.

use super::oracle::Value::{self, Bool, Int, Null, Text};
use super::oracle::{Case, Residual, Row, ZSet, add};
use crate::join::{Join, Limits};
use crate::{Cx, Operator, Progress};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_plan::JoinKind::*;
use tidegate_plan::StateTable;
use tidegate_plan::join_state::join_state_tables;
use tidegate_state::memory::MemoryAccount;
use tidegate_state::memory::map::MapTable;
use tidegate_state::memory::value::ValueTable;
use tidegate_state::{Run, Table};
use tidegate_types::{Barrier, Batch, CheckpointId, Epoch, LogPosition, TableId};

impl Case {
    pub(super) fn schemas(&self) -> [SchemaRef; 3] {
        let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
        let left = vec![
            field("a", DataType::Int64),
            field("b", DataType::Utf8),
            field("v", DataType::Int64),
        ];
        let right = vec![
            field("w", DataType::Int64),
            field("x", DataType::Int64),
            field("y", DataType::Utf8),
        ];
        let output = match self.kind {
            LeftSemi | LeftAnti => left.clone(),
            LeftMark => [left.clone(), vec![field("mark", DataType::Boolean)]].concat(),
            _ => [left.clone(), right.clone()].concat(),
        };
        [left, right, output].map(|fields| Arc::new(Schema::new(fields)))
    }

    pub(super) fn join(&self, limits: Limits) -> Join {
        let [left, right, output] = self.schemas();
        let residual = self.residual.expression();
        let (nulls, aware) = (self.null_equals_null, self.null_aware);
        let (left_keys, right_keys) = (self.left_keys, self.right_keys);
        let mut join = Join::new(
            self.kind,
            left_keys,
            right_keys,
            nulls,
            aware,
            residual.as_ref(),
            left,
            right,
            output,
            false,
            false,
        )
        .unwrap();
        join.set_limits(limits);
        join
    }

    pub(super) fn tables(&self) -> Vec<Box<dyn Table>> {
        let [left, right, _] = self.schemas();
        let residual = self.residual != Residual::None;
        let tables = join_state_tables(
            self.kind,
            self.left_keys,
            self.right_keys,
            self.null_aware,
            residual,
            &left,
            &right,
        );
        open_tables(&tables)
    }
}

pub(super) fn open_tables(tables: &[StateTable]) -> Vec<Box<dyn Table>> {
    let open = |(index, table): (usize, &StateTable)| -> Box<dyn Table> {
        let (id, memory) = (TableId(index as u64), MemoryAccount::default().share());
        if table.map {
            Box::new(MapTable::new(id, memory))
        } else {
            Box::new(ValueTable::new(id, memory))
        }
    };
    tables.iter().enumerate().map(open).collect()
}

pub(super) fn batch(schema: &SchemaRef, changes: &[(Row, i64)]) -> Batch {
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

pub(super) fn value(column: &ArrayRef, row: usize) -> Value {
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
pub(super) struct Harness {
    pub(super) case: Case,
    pub(super) limits: Limits,
    pub(super) join: Join,
    pub(super) tables: Vec<Box<dyn Table>>,
    /// What was sealed, in order.
    pub(super) runs: Vec<(usize, Run)>,
    pub(super) output: ZSet,
    pub(super) errors: BTreeMap<String, i64>,
    pub(super) epoch: u64,
    pub(super) budget: usize,
}

impl Harness {
    pub(super) fn new(case: Case, limits: Limits, budget: usize) -> Self {
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

    pub(super) fn run(&mut self, first: impl FnOnce(&mut Join, &mut Cx<'_>) -> Progress) {
        let mut first = Some(first);
        loop {
            let (mut output, mut errors) = (Vec::new(), Vec::new());
            let mut cx = Cx::new(&mut self.tables, &mut output, &mut errors, self.budget);
            let progress = match first.take() {
                Some(first) => first(&mut self.join, &mut cx),
                None => self.join.resume(&mut cx).unwrap(),
            };
            let rows: usize = output.iter().map(Batch::num_rows).sum();
            assert!(
                rows < self.budget + 2 * self.limits.chunk_rows + 64,
                "{rows} rows at once"
            );
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

    pub(super) fn batch(&mut self, port: usize, changes: &[(Row, i64)]) {
        let batch = batch(&self.case.schemas()[port], changes);
        self.run(|join, cx| join.on_batch(port, batch, cx).unwrap());
    }

    pub(super) fn barrier(&mut self) {
        self.epoch += 1;
        let (epoch, log_position) = (Epoch(self.epoch), LogPosition(0));
        let barrier = Barrier {
            epoch,
            time_ms: 0,
            checkpoint: None,
            log_position,
            watermarks: Default::default(),
        };
        self.run(|join, cx| join.on_barrier(&barrier, cx).unwrap());
    }

    /// A checkpoint, and a recovery from all checkpoints so far.
    pub(super) fn rebuild(&mut self) {
        for (index, table) in self.tables.iter_mut().enumerate() {
            let checkpoint = CheckpointId(self.epoch);
            self.runs
                .extend(table.seal(checkpoint).unwrap().map(|run| (index, run)));
            table.completed(checkpoint).unwrap();
        }
        self.tables = self.case.tables();
        for (index, run) in &self.runs {
            self.tables[*index].restore(run).unwrap();
        }
        self.join = self.case.join(self.limits);
    }
}

//! State under keys that are final is freed: what a watermark does for operators that keep their state by key.
//!
//! The operator inside does the work and knows nothing of it. All its tables have the same key, a time among its columns; what
//! comes and goes is never about a time that a watermark has passed ([`tidegate_plan::watermark`]), so that nothing asks for the
//! state under such a key again. Its results stay as they are: nothing is retracted.

use crate::closing::Closing;
use crate::groups::Groups;
use crate::{Cx, Operator, OperatorError, Port, Progress};
use std::ops::{Bound, ControlFlow};
use tidegate_plan::Dataflow;
use tidegate_state::{Cell, Change, Table};
use tidegate_types::{Barrier, Batch, ByteRows};

/// Keys that are looked at, or freed, at a time.
const CHUNK_KEYS: usize = 1024;

pub struct Forgetting {
    inner: Box<dyn Operator>,
    closing: Closing,
    /// The epoch's keys, for each input.
    keys: Vec<Groups>,
    numbers: Vec<u32>,
    /// Which tables have sub-keys.
    maps: Vec<bool>,
    /// The barrier whose work is going on inside.
    barrier: Option<Barrier>,
}

impl Forgetting {
    /// `keys` are the columns of each input that are the key of all tables.
    pub fn new(
        inner: Box<dyn Operator>,
        closing: Closing,
        keys: &[&[usize]],
        dataflow: &Dataflow,
        node: usize,
    ) -> Result<Self, OperatorError> {
        let keys = keys
            .iter()
            .enumerate()
            .map(|(input, keys)| Groups::new(keys, dataflow.input_schema(node, input)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            inner,
            closing,
            keys,
            numbers: Vec::new(),
            maps: dataflow.nodes[node].state.iter().map(|t| t.map).collect(),
            barrier: None,
        })
    }

    /// The operator has done its work for the barrier.
    fn free(&mut self, barrier: &Barrier, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        for keys in &mut self.keys {
            for start in (0..keys.len()).step_by(CHUNK_KEYS) {
                let end = (start + CHUNK_KEYS).min(keys.len());
                self.closing.touch(&keys.chunk(start..end)?);
            }
            keys.clear();
        }
        let closed = self.closing.take_closed(barrier, cx.tables)?;
        for start in (0..closed.len()).step_by(CHUNK_KEYS) {
            let end = (start + CHUNK_KEYS).min(closed.len());
            let keys: Vec<&[u8]> = (start..end).map(|index| closed.get(index)).collect();
            for (table, map) in cx.tables.iter_mut().zip(&self.maps) {
                match map {
                    true => free_maps(table.as_mut(), &keys)?,
                    false => free_values(table.as_mut(), &keys)?,
                }
            }
        }
        Ok(())
    }

    fn after(&mut self, progress: Progress, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        if progress == Progress::Done
            && let Some(barrier) = self.barrier.take()
        {
            self.free(&barrier, cx)?;
        }
        Ok(progress)
    }
}

fn free_values(table: &mut dyn Table, keys: &[&[u8]]) -> Result<(), OperatorError> {
    let cells: Vec<Cell<'_>> = keys.iter().map(|key| Cell::key(key)).collect();
    let mut there = Vec::new();
    table.get_many(&cells, &mut |index, value| {
        if value.is_some() {
            there.push(index);
        }
    })?;
    let gone = |index: &usize| Change {
        cell: cells[*index],
        value: None,
    };
    table.write_many(&there.iter().map(gone).collect::<Vec<_>>())?;
    Ok(())
}

fn free_maps(table: &mut dyn Table, keys: &[&[u8]]) -> Result<(), OperatorError> {
    for key in keys {
        let mut subs = ByteRows::new();
        let all = (Bound::Unbounded, Bound::Unbounded);
        table.scan(key, all, false, &mut |sub, _| {
            subs.push(sub);
            ControlFlow::Continue(())
        })?;
        let changes: Vec<Change<'_>> = subs
            .iter()
            .map(|sub| Change {
                cell: Cell { key, sub },
                value: None,
            })
            .collect();
        table.write_many(&changes)?;
    }
    Ok(())
}

impl Operator for Forgetting {
    fn on_batch(
        &mut self,
        port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.keys[port].assign(&batch, &mut self.numbers)?;
        self.inner.on_batch(port, batch, cx)
    }

    fn on_barrier(
        &mut self,
        barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.barrier = Some(barrier.clone());
        let progress = self.inner.on_barrier(barrier, cx)?;
        self.after(progress, cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        let progress = self.inner.resume(cx)?;
        self.after(progress, cx)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::SchemaRef;
    use tidegate_plan::{
        AggregateCall, AggregateFunction, Dataflow, JoinKind, Op, Ranking, SortKey, Watermark,
    };
    use tidegate_testkit::check::{columns, single_node};
    use tidegate_testkit::runner::{NodeRunner, Output, model_tables};
    use tidegate_testkit::value::{ZSet, add_batch, batch_of};
    use tidegate_testkit::{Row, Value};
    use tidegate_types::{RelationId, SqlType, Watermarks};

    const SECOND: i64 = 1_000_000;

    /// A time, a key, a number.
    fn schema() -> SchemaRef {
        columns(&[SqlType::Timestamp, SqlType::Integer, SqlType::BigInt])
    }

    fn counted() -> (Op, Vec<SchemaRef>, SchemaRef) {
        let call = |function, distinct| AggregateCall {
            function,
            arguments: vec![2],
            distinct,
            filter: None,
            order_by: Vec::new(),
            parameter: None,
        };
        let op = Op::Aggregate {
            keys: vec![1, 0],
            calls: vec![
                call(AggregateFunction::Max, false),
                call(AggregateFunction::Count, true),
            ],
        };
        let output = columns(&[
            SqlType::Integer,
            SqlType::Timestamp,
            SqlType::BigInt,
            SqlType::BigInt,
        ]);
        (op, vec![schema()], output)
    }

    fn ranked() -> (Op, Vec<SchemaRef>, SchemaRef) {
        let op = Op::TopN {
            partition: vec![0],
            order: vec![SortKey {
                column: 2,
                descending: true,
                nulls_first: false,
            }],
            ranking: Ranking::RowNumber,
            offset: 0,
            limit: Some(2),
            numbered: false,
        };
        (op, vec![schema()], schema())
    }

    fn joined() -> (Op, Vec<SchemaRef>, SchemaRef) {
        let op = Op::Join {
            kind: JoinKind::Full,
            left_keys: vec![1, 0],
            right_keys: vec![1, 0],
            null_equals_null: false,
            null_aware: false,
            residual: None,
        };
        let both = [SqlType::Timestamp, SqlType::Integer, SqlType::BigInt];
        (
            op,
            vec![schema(); 2],
            columns(&[both.clone(), both].concat()),
        )
    }

    fn session() -> (Op, Vec<SchemaRef>, SchemaRef) {
        let op = Op::Session {
            partition: vec![1],
            time: 0,
            // There are rows each second: a longer gap would make one session of them all.
            gap_us: SECOND - 1,
        };
        let mut types = vec![SqlType::Timestamp, SqlType::Integer, SqlType::BigInt];
        types.extend([SqlType::Timestamp, SqlType::Timestamp]);
        (op, vec![schema()], columns(&types))
    }

    fn runner(of: &(Op, Vec<SchemaRef>, SchemaRef), watermarks: bool) -> NodeRunner {
        let (op, inputs, output) = of.clone();
        let mut dataflow: Dataflow = single_node(op, &inputs, output, false);
        if watermarks {
            for node in 0..inputs.len() {
                let source = RelationId(node as u64 + 1);
                dataflow.nodes[node].watermarks = vec![(0, Watermark::of_source(source))];
            }
        }
        let last = dataflow.nodes.len() - 1;
        NodeRunner::new(&dataflow, last, &model_tables).expect("the operator can be built")
    }

    /// The rows of an epoch are within some seconds of it; some of the last epochs' go again.
    fn changes(epoch: i64) -> Vec<(Row, i64)> {
        let row = |epoch: i64, i: i64| {
            let time = (epoch + i % 3) * SECOND;
            vec![
                Value::Int(time),
                Value::Int(i % 4),
                Value::Int(i * epoch % 11),
            ]
        };
        let come = (0..20).map(|i| (row(epoch, i), 1));
        // Of the epoch before, only what is not behind the watermark yet.
        let gone = (0..20).filter(|i| i % 3 == 2 && i % 2 == 0);
        let gone = gone.map(|i| (row(epoch - 1, i), -1));
        come.chain(gone.filter(|_| epoch > 1)).collect()
    }

    fn step(runner: &mut NodeRunner, ports: usize, epoch: i64, seen: &mut ZSet) {
        let reached = (0..ports).map(|p| (RelationId(p as u64 + 1), epoch * SECOND));
        let watermarks = Watermarks {
            reached: std::sync::Arc::new(reached.collect()),
            ..Watermarks::default()
        };
        let mut note = |output: Output| {
            output
                .batches
                .iter()
                .for_each(|batch| add_batch(seen, batch));
        };
        for port in 0..ports {
            // One side of a join has other keys too.
            let mut rows = changes(epoch);
            rows.retain(|(row, _)| port == 0 || row[1] != Value::Int(3));
            let batch = batch_of(&rows, &schema());
            note(runner.batch(port, batch).expect("the batch goes through"));
        }
        let barrier = runner.barrier_with(epoch as u64, watermarks);
        note(barrier.expect("the barrier goes through"));
    }

    /// With watermarks the results are the same, and state stays within what a few epochs have, however many there are.
    #[test]
    fn state_stays_flat_and_results_the_same() {
        for of in [counted(), ranked(), joined(), session()] {
            let ports = of.1.len();
            let (mut plain, mut freed) = (runner(&of, false), runner(&of, true));
            let (mut of_plain, mut of_freed) = (ZSet::new(), ZSet::new());
            let mut most = 0;
            for epoch in 1..=400 {
                step(&mut plain, ports, epoch, &mut of_plain);
                step(&mut freed, ports, epoch, &mut of_freed);
                assert_eq!(of_plain, of_freed, "{} at epoch {epoch}", of.0);
                if epoch <= 10 {
                    most = most.max(freed.cells());
                } else {
                    assert!(freed.cells() <= 2 * most, "{} at epoch {epoch}", of.0);
                }
            }
            assert!(plain.cells() > 10 * most, "{} keeps all without", of.0);
        }
    }

    /// What is cached of the times is found again in the tables.
    #[test]
    fn state_is_freed_after_a_restart_too() {
        for of in [counted(), ranked(), joined(), session()] {
            let ports = of.1.len();
            let mut first = runner(&of, true);
            let mut seen = ZSet::new();
            for epoch in 1..=5 {
                step(&mut first, ports, epoch, &mut seen);
            }
            let runs = first.seal(1).expect("tables can be sealed");
            let mut second = runner(&of, true);
            second.restore(&runs).expect("tables can be restored");
            assert!(second.cells() > 0, "{}", of.0);
            let ended = (0..ports).map(|p| (RelationId(p as u64 + 1), i64::MAX));
            let watermarks = Watermarks {
                reached: std::sync::Arc::new(ended.collect()),
                ..Watermarks::default()
            };
            let barrier = second.barrier_with(6, watermarks);
            assert!(
                barrier
                    .expect("the barrier goes through")
                    .batches
                    .is_empty()
            );
            assert_eq!(second.cells(), 0, "{}", of.0);
        }
    }
}

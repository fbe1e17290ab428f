//! Operators driven on one thread, without the runtime.
//!
//! [`NodeRunner`] has one operator and its tables; [`DataflowRunner`] a whole plan, whose imports the caller feeds. Both resume
//! operators until they are done, with a small output budget if asked to.

use crate::model_table::ModelTable;
use crate::value::{ZSet, add_batch};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidegate_dataflow::{Cx, Operator, OperatorError, Progress, RowError, build};
use tidegate_plan::{Dataflow, Op, StateTable};
use tidegate_state::{Form, Merge, Run, Table, TableSpec};
use tidegate_types::{
    Barrier, Batch, CheckpointId, Epoch, KeyGroupRange, LogPosition, OperatorId, RelationId,
    TableId, Watermarks,
};

/// Opens the state tables of a run.
pub type TableOpener<'a> = &'a dyn Fn(&TableSpec) -> Box<dyn Table>;

/// Tables that are obviously right.
pub fn model_tables(spec: &TableSpec) -> Box<dyn Table> {
    Box::new(ModelTable::new(spec.clone()))
}

/// What an operator gave for one call.
#[derive(Debug, Default)]
pub struct Output {
    pub batches: Vec<Batch>,
    pub errors: Vec<RowError>,
}

/// One operator with its tables.
pub struct NodeRunner {
    operator: Box<dyn Operator>,
    tables: Vec<Box<dyn Table>>,
    specs: Vec<TableSpec>,
    /// Rows that the operator may emit before it is interrupted.
    pub budget_rows: usize,
}

impl NodeRunner {
    pub fn new(
        dataflow: &Dataflow,
        index: usize,
        open: TableOpener<'_>,
    ) -> Result<Self, OperatorError> {
        let node = &dataflow.nodes[index];
        let specs = table_specs(dataflow.relation, node.id, &node.state);
        Ok(Self {
            operator: build(dataflow, index, KeyGroupRange::ALL)?,
            tables: specs.iter().map(open).collect(),
            specs,
            budget_rows: usize::MAX,
        })
    }

    pub fn batch(&mut self, port: usize, batch: Batch) -> Result<Output, OperatorError> {
        self.run(|operator, cx| operator.on_batch(port, batch, cx))
    }

    /// Operators whose inputs have no watermarks ignore how far time has come.
    pub fn barrier(&mut self, epoch: u64) -> Result<Output, OperatorError> {
        let reached = BTreeMap::from([(RelationId(1), crate::cases::watermark_us(epoch))]);
        let watermarks = Watermarks {
            reached: Arc::new(reached),
            ..Watermarks::default()
        };
        self.barrier_with(epoch, watermarks)
    }

    /// A barrier at which event time has come this far.
    pub fn barrier_with(
        &mut self,
        epoch: u64,
        watermarks: Watermarks,
    ) -> Result<Output, OperatorError> {
        let barrier = Barrier {
            epoch: Epoch(epoch),
            time_ms: epoch as i64,
            checkpoint: None,
            log_position: LogPosition(0),
            watermarks,
        };
        self.run(|operator, cx| operator.on_barrier(&barrier, cx))
    }

    /// What the operator says its output is at present.
    pub fn replay(&mut self) -> Result<Output, OperatorError> {
        let mut output = Output::default();
        loop {
            let mut cx = Cx::new(
                &mut self.tables,
                &mut output.batches,
                &mut output.errors,
                self.budget_rows,
            );
            if self.operator.replay(&mut cx)? == Progress::Done {
                return Ok(output);
            }
        }
    }

    fn run(
        &mut self,
        start: impl FnOnce(&mut dyn Operator, &mut Cx<'_>) -> Result<Progress, OperatorError>,
    ) -> Result<Output, OperatorError> {
        let mut output = Output::default();
        let (tables, operator) = (&mut self.tables, self.operator.as_mut());
        let mut cx = Cx::new(
            tables,
            &mut output.batches,
            &mut output.errors,
            self.budget_rows,
        );
        let mut progress = start(operator, &mut cx)?;
        while progress == Progress::More {
            let mut cx = Cx::new(
                tables,
                &mut output.batches,
                &mut output.errors,
                self.budget_rows,
            );
            progress = operator.resume(&mut cx)?;
        }
        Ok(output)
    }

    /// Everything that changed since the last seal, one run per table that changed.
    pub fn seal(&mut self, checkpoint: u64) -> Result<Vec<(usize, Run)>, OperatorError> {
        let mut runs = Vec::new();
        for (index, table) in self.tables.iter_mut().enumerate() {
            if let Some(run) = table.seal(CheckpointId(checkpoint))? {
                runs.push((index, run));
            }
            table.completed(CheckpointId(checkpoint))?;
        }
        Ok(runs)
    }

    /// Loads sealed runs, oldest first, also of a runner whose tables have other ids.
    pub fn restore(&mut self, runs: &[(usize, Run)]) -> Result<(), OperatorError> {
        for (index, run) in runs {
            let mut run = run.clone();
            run.table = self.specs[*index].id;
            self.tables[*index].restore(&run)?;
        }
        Ok(())
    }

    /// The number of cells in all tables.
    pub fn cells(&self) -> usize {
        let mut cells = 0;
        for table in &self.tables {
            let count = table.scan_all(&mut |_, _, _, _| {
                cells += 1;
                ControlFlow::Continue(())
            });
            count.expect("a table in memory can be read");
        }
        cells
    }

    pub fn specs(&self) -> &[TableSpec] {
        &self.specs
    }
}

fn table_specs(
    relation: RelationId,
    operator: OperatorId,
    tables: &[StateTable],
) -> Vec<TableSpec> {
    let spec = |(index, table): (usize, &StateTable)| TableSpec {
        id: TableId::of(relation, operator, index),
        form: if table.map { Form::Map } else { Form::Value },
        merge: Merge::Replace,
    };
    tables.iter().enumerate().map(spec).collect()
}

/// A whole dataflow. Imports, sources and table inputs are fed by the caller; the root's output is collected.
pub struct DataflowRunner {
    nodes: Vec<Option<NodeRunner>>,
    /// For each node who reads it: node and port.
    readers: Vec<Vec<(usize, usize)>>,
    root: usize,
    epoch: u64,
    pub errors: Vec<RowError>,
    pub output: Vec<Batch>,
}

impl DataflowRunner {
    pub fn new(dataflow: &Dataflow, open: TableOpener<'_>) -> Result<Self, OperatorError> {
        let mut readers = vec![Vec::new(); dataflow.nodes.len()];
        let mut nodes = Vec::new();
        for (index, node) in dataflow.nodes.iter().enumerate() {
            for (port, edge) in node.inputs.iter().enumerate() {
                readers[edge.from].push((index, port));
            }
            let outside = matches!(
                node.op,
                Op::Import { .. }
                    | Op::Source { .. }
                    | Op::TableInput { .. }
                    | Op::Materialize { .. }
                    | Op::Sink { .. }
            );
            nodes.push(if outside {
                None
            } else {
                Some(NodeRunner::new(dataflow, index, open)?)
            });
        }
        let root = dataflow.nodes.len() - 1;
        Ok(Self {
            nodes,
            readers,
            root,
            epoch: 0,
            errors: Vec::new(),
            output: Vec::new(),
        })
    }

    /// Hands rows to an import, a source or a table input, as if it had read them.
    pub fn feed(&mut self, node: usize, batch: Batch) -> Result<(), OperatorError> {
        assert!(
            self.nodes[node].is_none(),
            "only what reads from outside is fed"
        );
        self.deliver(node, batch)
    }

    fn deliver(&mut self, from: usize, batch: Batch) -> Result<(), OperatorError> {
        if batch.is_empty() {
            return Ok(());
        }
        if from == self.root {
            self.output.push(batch);
            return Ok(());
        }
        for (reader, port) in self.readers[from].clone() {
            match &mut self.nodes[reader] {
                Some(runner) => {
                    let output = runner.batch(port, batch.clone())?;
                    self.spread(reader, output)?;
                }
                None => self.deliver(reader, batch.clone())?,
            }
        }
        Ok(())
    }

    fn spread(&mut self, from: usize, output: Output) -> Result<(), OperatorError> {
        self.errors.extend(output.errors);
        output
            .batches
            .into_iter()
            .try_for_each(|batch| self.deliver(from, batch))
    }

    /// Closes the epoch, nodes in order, so that each sees all of its inputs before its barrier. Returns the root's rows.
    pub fn barrier(&mut self) -> Result<Vec<Batch>, OperatorError> {
        self.epoch += 1;
        for index in 0..self.nodes.len() {
            if let Some(runner) = &mut self.nodes[index] {
                let output = runner.barrier(self.epoch)?;
                self.spread(index, output)?;
            }
        }
        Ok(std::mem::take(&mut self.output))
    }

    /// As `barrier`, added to a Z-set.
    pub fn barrier_into(&mut self, rows: &mut ZSet) -> Result<(), OperatorError> {
        self.barrier()?
            .iter()
            .for_each(|batch| add_batch(rows, batch));
        Ok(())
    }
}

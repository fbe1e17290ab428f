//! The contract between an operator and its driver.
//!
//! Guarantees of the driver: batches of epoch n come before barrier n and after barrier n-1; barriers come in order,
//! though not every epoch has one for itself when nothing happened; `resume` is called, and nothing else, until the
//! operator answers [`Progress::Done`]. The state tables are in the order in which the plan declares them.

use tidegate_state::{StateError, Table};
use tidegate_types::{Barrier, Batch, Diff, SqlState};

/// Which input a batch came through: its index among the node's inputs.
pub type Port = usize;

/// `More`: the output budget is used up; the driver lets others run and then calls `resume`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    Done,
    More,
}

/// Why an operator cannot go on. A row that fails is no such error: it goes to [`Cx::fail_row`].
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("expression: {0}")]
    Expression(#[from] datafusion::error::DataFusionError),
}

/// A row that failed, with the diff it had. Retracting the row retracts the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    pub state: SqlState,
    pub message: String,
    /// The offending row, as text.
    pub row: String,
    pub diff: Diff,
}

/// What an operator may touch while it runs.
pub struct Cx<'a> {
    pub tables: &'a mut [Box<dyn Table>],
    output: &'a mut Vec<Batch>,
    errors: &'a mut Vec<RowError>,
    budget_rows: usize,
    wanted_at_ms: Option<i64>,
}

impl<'a> Cx<'a> {
    pub fn new(
        tables: &'a mut [Box<dyn Table>],
        output: &'a mut Vec<Batch>,
        errors: &'a mut Vec<RowError>,
        budget_rows: usize,
    ) -> Self {
        Self {
            tables,
            output,
            errors,
            budget_rows,
            wanted_at_ms: None,
        }
    }

    /// Asks for a barrier at this time, in milliseconds since 1970, though no row may have come by then. An operator asks
    /// again at each barrier, for the next time alone.
    pub fn want_barrier_at(&mut self, time_ms: i64) {
        self.wanted_at_ms = Some(self.wanted_at_ms.map_or(time_ms, |at| at.min(time_ms)));
    }

    /// What was asked for.
    pub fn wanted_at(&self) -> Option<i64> {
        self.wanted_at_ms
    }

    /// Sends a batch downstream. Empty batches are dropped.
    pub fn emit(&mut self, batch: Batch) {
        if !batch.is_empty() {
            self.budget_rows = self.budget_rows.saturating_sub(batch.num_rows());
            self.output.push(batch);
        }
    }

    /// Whether the operator should stop and answer [`Progress::More`] if it has more to emit.
    pub fn exhausted(&self) -> bool {
        self.budget_rows == 0
    }

    pub fn fail_row(&mut self, error: RowError) {
        self.errors.push(error);
    }
}

/// A deterministic function of (input changes, declared state).
pub trait Operator: Send {
    /// Work that needs no old state: filter, project, pre-aggregate, probe.
    fn on_batch(
        &mut self,
        port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError>;

    /// Every input is complete up to and including this barrier's epoch: touch state, emit the epoch's delta.
    fn on_barrier(&mut self, barrier: &Barrier, cx: &mut Cx<'_>)
    -> Result<Progress, OperatorError>;

    /// Emits every row of the output as it is at present, from the state tables alone, and changes nothing. Called, again
    /// after each [`Progress::More`], before everything else or not at all, and only where the plan says that it can be
    /// ([`can_replay`](tidegate_plan::succession::can_replay)). Rows that fail are not told again.
    fn replay(&mut self, _cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        unreachable!("this operator's state does not say what its output is")
    }

    /// Goes on with what answered [`Progress::More`].
    fn resume(&mut self, _cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }
}

//! What a node does.

use crate::ScalarExpr;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use tidegate_types::RelationId;

/// How the rows of an input must lie over the workers before the node sees them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Distribution {
    /// Wherever they are.
    Any,
    /// Rows with equal values in these columns on the worker that owns their key group. No columns: all on one worker.
    Key(Vec<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    LeftSemi,
    LeftAnti,
    /// All left rows, with a boolean column at the end: whether a match exists.
    LeftMark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SortKey {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

/// How the rows of a partition are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ranking {
    /// 1, 2, 3, …; rows that are equal in the order are told apart by their encoding.
    RowNumber,
    /// One more than the number of rows that come before in the order: equal rows share a number.
    Rank,
    /// One more than the number of different orders that come before.
    DenseRank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AggregateFunction {
    /// Of rows when there is no argument, of non-NULL values otherwise.
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    /// Arguments: the text, the delimiter.
    StringAgg,
    ArrayAgg,
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    BitAnd,
    BitOr,
    BitXor,
    /// Arguments: y, x.
    Pair(PairFunction),
    /// The first value in the order of the call.
    FirstValue,
    LastValue,
    /// Of the values in the order of the call; the fraction is the call's parameter.
    PercentileCont,
    PercentileDisc,
    Mode,
    /// Arguments: y, an array of x. Gives the intercept and a coefficient for each x.
    LinearRegression,
    /// What DataFusion has besides, computed from all rows of a group. The call's parameter is the call in its words.
    Library,
}

/// What is computed from two numbers of each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PairFunction {
    Corr,
    CovarPop,
    CovarSamp,
    RegrAvgX,
    RegrAvgY,
    RegrCount,
    RegrIntercept,
    RegrR2,
    RegrSlope,
    RegrSxx,
    RegrSxy,
    RegrSyy,
}

/// One aggregate of an [`Op::Aggregate`]. Arguments, filter and order are input columns: the planner puts a projection
/// in front that computes them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AggregateCall {
    pub function: AggregateFunction,
    pub arguments: Vec<usize>,
    pub distinct: bool,
    /// A boolean column; only rows in which it is true count.
    pub filter: Option<usize>,
    pub order_by: Vec<SortKey>,
    /// What the function is told once: an expression whose columns are places among the arguments.
    pub parameter: Option<ScalarExpr>,
}

/// A time that a row has of its own: that of a column and so much more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeBound {
    pub column: usize,
    pub shift_us: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Reads the changes of a table or materialized view, on the worker that keeps them.
    Import {
        relation: RelationId,
        columns: Vec<usize>,
    },
    /// Reads a source through its connector.
    Source {
        relation: RelationId,
        columns: Vec<usize>,
    },
    /// Table changes from the command log; the first node of a table's own dataflow.
    TableInput {
        relation: RelationId,
    },
    /// Constant rows, present from the first epoch. Text form of a literal per cell, evaluated at build.
    Values {
        rows: Vec<Vec<ScalarExpr>>,
    },
    Filter {
        predicate: ScalarExpr,
    },
    Project {
        expressions: Vec<ScalarExpr>,
    },
    /// Groups by the first columns of its output. Without keys there is exactly one group, also over no rows.
    /// Without calls it is DISTINCT. Output: keys, then one column per call.
    Aggregate {
        keys: Vec<usize>,
        calls: Vec<AggregateCall>,
    },
    /// Output: left columns, then right columns (left alone for semi and anti; plus the mark for mark).
    Join {
        kind: JoinKind,
        left_keys: Vec<usize>,
        right_keys: Vec<usize>,
        /// NULL keys match each other (`IS NOT DISTINCT FROM`).
        null_equals_null: bool,
        /// `NOT IN`: a NULL on the right side, or on the left, makes the answer unknown.
        null_aware: bool,
        /// Over left columns followed by right columns.
        residual: Option<ScalarExpr>,
    },
    Union,
    /// A row for each element of these lists, taken side by side; shorter ones are filled up with NULL. Output: the input's
    /// columns with the lists' elements in their places.
    Unnest {
        lists: Vec<usize>,
    },
    /// Keeps the rows of each partition whose number in this order is above `offset` and at most `offset + limit`; ties
    /// follow the row's encoding. Output: the input's columns, then the number (bigint) if it is `numbered`.
    TopN {
        partition: Vec<usize>,
        order: Vec<SortKey>,
        ranking: Ranking,
        offset: u64,
        limit: Option<u64>,
        numbered: bool,
    },
    /// Window functions over the partitions of one order. Output: the input's columns, then one per call. A call is a
    /// DataFusion window expression over positions, which repeats partition and order.
    Window {
        partition: Vec<usize>,
        order: Vec<SortKey>,
        calls: Vec<ScalarExpr>,
    },
    /// Rows of a partition of which none is more than the gap behind the one before it in time are one session. Output: the
    /// input's columns, then the time of the session's first row and that of its last plus the gap, NULL where the time is.
    Session {
        partition: Vec<usize>,
        time: usize,
        gap_us: i64,
    },
    /// Rows that are there from a time on, and until one, as barriers tell the time.
    TimeFilter {
        from: Option<TimeBound>,
        until: Option<TimeBound>,
    },
    /// Holds rows back until the watermark of their time has passed it, and gives them once. Rows that are equal in the key
    /// are kept together; the time is one of its columns.
    OnClose {
        key: Vec<usize>,
        time: usize,
    },
    /// Fails the view's rows (21000) when a key has more than one row: what a scalar sub-query must not have.
    AtMostOne {
        keys: Vec<usize>,
    },
    /// The root of a view: keeps the rows in a view store, keyed by these columns first.
    Materialize {
        relation: RelationId,
        key: Vec<usize>,
    },
    /// The root of a sink.
    Sink {
        relation: RelationId,
    },
}

/// A state table that a node declares, with what is needed to decode it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateTable {
    pub name: &'static str,
    pub map: bool,
    #[serde(skip)]
    pub key: SchemaRef,
    #[serde(skip)]
    pub sub_key: SchemaRef,
    #[serde(skip)]
    pub value: SchemaRef,
}

/// The columns of the bounds of an [`Op::TimeFilter`], each once: by which it keeps its rows.
pub fn bound_columns(from: Option<&TimeBound>, until: Option<&TimeBound>) -> Vec<usize> {
    let mut columns: Vec<usize> = from.into_iter().chain(until).map(|b| b.column).collect();
    columns.dedup();
    columns
}

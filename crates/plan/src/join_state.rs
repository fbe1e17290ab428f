//! The state tables of a join, and which columns they are keyed by.
//!
//! | table | form | key | sub-key | value |
//! |---|---|---|---|---|
//! | `left`, `right` | map | partition key columns | the side's other columns | count, then for rows whose matches are counted: matches, unknowns |
//! | `right` of a semi, anti or mark join without residual | value | partition key columns | | count |
//! | `right` of a `NOT IN` without residual | map | partition key columns | the compared column | count |
//! | `right_counts`, `left_counts` | value | partition key columns | | count |
//!
//! In a `NOT IN` without residual the compared column is the first of the sub-key on both sides, and the sub-key is encoded
//! so that it compares; in all others it is packed.
//!
//! Values are varints, one per counter. The counts exist for outer joins without a residual: whether a row has a match depends on its key alone. With a
//! residual it depends on the row, so that the number of matches is kept with the row instead.

use crate::state_tables::{ENCODING_KEY, ORDER_KEY, PACKED};
use crate::{JoinKind, StateTable};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::Arc;

/// What a join keeps of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinRows {
    /// Rows with their counts.
    Counted,
    /// Rows with their counts and the number of rows of the other side that match.
    Matched,
    /// As `Matched`, and the number of those for which the answer of `NOT IN` is unknown.
    MatchedOrUnknown,
    /// No rows: how many there are for each key.
    KeyCounts,
    /// No rows: how many there are for each key and value of the compared column.
    ComparedCounts,
}

impl JoinRows {
    /// How many counters a value consists of.
    pub fn counters(self) -> usize {
        match self {
            JoinRows::Counted | JoinRows::KeyCounts | JoinRows::ComparedCounts => 1,
            JoinRows::Matched => 2,
            JoinRows::MatchedOrUnknown => 3,
        }
    }
}

/// Which state tables a join has. `left` is table 0 and `right` is table 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinLayout {
    pub left: JoinRows,
    pub right: JoinRows,
    /// Index of the table with the number of left rows per key.
    pub left_counts: Option<usize>,
    /// Index of the table with the number of right rows per key.
    pub right_counts: Option<usize>,
    /// The first key pair is the comparison of a `NOT IN`, not a key that partitions.
    pub compares: bool,
}

impl JoinLayout {
    pub fn new(kind: JoinKind, keys: usize, null_aware: bool, residual: bool) -> Self {
        let aware = is_null_aware(kind, null_aware);
        if aware && keys > 0 && !residual {
            return Self {
                left: JoinRows::Counted,
                right: JoinRows::ComparedCounts,
                left_counts: None,
                right_counts: Some(2),
                compares: true,
            };
        }
        let by_row = residual || aware;
        let preserves_left = kind != JoinKind::Inner && kind != JoinKind::Right;
        let preserves_right = matches!(kind, JoinKind::Right | JoinKind::Full);
        let keeps_right_rows =
            by_row || matches!(kind, JoinKind::Inner | JoinKind::Left) || preserves_right;
        let rows = |preserved: bool| match preserved && by_row {
            true if aware => JoinRows::MatchedOrUnknown,
            true => JoinRows::Matched,
            false => JoinRows::Counted,
        };
        let right_counts = (preserves_left && keeps_right_rows && !by_row).then_some(2);
        let left_counts =
            (preserves_right && !by_row).then(|| 2 + usize::from(right_counts.is_some()));
        Self {
            left: rows(preserves_left),
            right: if keeps_right_rows {
                rows(preserves_right)
            } else {
                JoinRows::KeyCounts
            },
            left_counts,
            right_counts,
            compares: aware && keys > 0,
        }
    }
}

impl JoinLayout {
    /// The compared column leads the sub-keys: all that is known about a `NOT IN` follows from its values.
    pub fn first_compared(&self) -> bool {
        self.right == JoinRows::ComparedCounts
    }
}

/// Only the answers of anti and mark joins depend on what is unknown.
fn is_null_aware(kind: JoinKind, null_aware: bool) -> bool {
    null_aware && matches!(kind, JoinKind::LeftAnti | JoinKind::LeftMark)
}

/// The columns of one side by which a join's rows are brought together, out of the side's join keys: what its input
/// must be distributed by. A `NOT IN` has to see all right rows with a NULL, so its first key does not partition.
pub fn join_partition_keys(kind: JoinKind, null_aware: bool, keys: &[usize]) -> &[usize] {
    match is_null_aware(kind, null_aware) && !keys.is_empty() {
        true => &keys[1..],
        false => keys,
    }
}

/// The state tables that an [`Op::Join`](crate::Op::Join) declares, in the order in which its operator expects them.
pub fn join_state_tables(
    kind: JoinKind,
    left_keys: &[usize],
    right_keys: &[usize],
    null_aware: bool,
    residual: bool,
    left: &Schema,
    right: &Schema,
) -> Vec<StateTable> {
    let layout = JoinLayout::new(kind, left_keys.len(), null_aware, residual);
    let first = |keys: &[usize]| layout.first_compared().then(|| keys[0]);
    let (left_first, right_first) = (first(left_keys), first(right_keys));
    let left_keys = join_partition_keys(kind, null_aware, left_keys);
    let right_keys = join_partition_keys(kind, null_aware, right_keys);
    let mut tables = vec![
        side_table("left", layout.left, left_keys, left_first, left),
        side_table("right", layout.right, right_keys, right_first, right),
    ];
    if layout.right_counts.is_some() {
        tables.push(side_table(
            "right_counts",
            JoinRows::KeyCounts,
            right_keys,
            None,
            right,
        ));
    }
    if layout.left_counts.is_some() {
        tables.push(side_table(
            "left_counts",
            JoinRows::KeyCounts,
            left_keys,
            None,
            left,
        ));
    }
    tables
}

fn side_table(
    name: &'static str,
    rows: JoinRows,
    keys: &[usize],
    first: Option<usize>,
    schema: &Schema,
) -> StateTable {
    let map = rows != JoinRows::KeyCounts;
    let rest = join_rest_columns(rows, keys, first, schema.fields().len());
    let counters = ["count", "matches", "unknowns"];
    let value = counters[..rows.counters()]
        .iter()
        .map(|c| Field::new(*c, DataType::Int64, false));
    StateTable {
        name,
        map,
        key: project(schema, keys),
        sub_key: match first {
            Some(_) => project(schema, &rest),
            None => packed(project(schema, &rest)),
        },
        value: Arc::new(Schema::new_with_metadata(
            value.collect::<Vec<_>>(),
            HashMap::from([(ENCODING_KEY.to_owned(), "varint".to_owned())]),
        )),
    }
}

/// The columns of a side that its sub-keys consist of: those that are not among its partition keys, after the compared
/// column where that leads; none where only counts are kept.
pub fn join_rest_columns(
    rows: JoinRows,
    keys: &[usize],
    first: Option<usize>,
    columns: usize,
) -> Vec<usize> {
    match rows {
        JoinRows::KeyCounts => Vec::new(),
        JoinRows::ComparedCounts => first.into_iter().collect(),
        _ => {
            let others = (0..columns).filter(|c| !keys.contains(c) && first != Some(*c));
            first.into_iter().chain(others).collect()
        }
    }
}

/// Nothing looks rows up by columns that are not keys, except by the compared column of a `NOT IN`.
fn packed(schema: SchemaRef) -> SchemaRef {
    let pack = |field: &Arc<Field>| {
        let mut metadata = field.metadata().clone();
        metadata.insert(ORDER_KEY.to_owned(), PACKED.to_owned());
        field.as_ref().clone().with_metadata(metadata)
    };
    Arc::new(Schema::new(
        schema.fields().iter().map(pack).collect::<Vec<_>>(),
    ))
}

fn project(schema: &Schema, columns: &[usize]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|c| schema.field(*c).clone()).collect();
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: JoinKind, null_aware: bool, residual: bool) -> Vec<(&'static str, bool, usize)> {
        let schema = Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            Field::new("v", DataType::Utf8, true),
        ]);
        let tables = join_state_tables(kind, &[0], &[0], null_aware, residual, &schema, &schema);
        tables
            .iter()
            .map(|t| (t.name, t.map, t.value.fields().len()))
            .collect()
    }

    #[test]
    fn a_join_keeps_what_its_answer_depends_on() {
        assert_eq!(
            names(JoinKind::Inner, false, true),
            [("left", true, 1), ("right", true, 1)]
        );
        assert_eq!(
            names(JoinKind::LeftSemi, false, false),
            [("left", true, 1), ("right", false, 1)]
        );
        assert_eq!(
            names(JoinKind::LeftMark, false, true),
            [("left", true, 2), ("right", true, 1)]
        );
        let full = [
            ("left", true, 1),
            ("right", true, 1),
            ("right_counts", false, 1),
            ("left_counts", false, 1),
        ];
        assert_eq!(names(JoinKind::Full, false, false), full);
        assert_eq!(
            names(JoinKind::Full, false, true),
            [("left", true, 2), ("right", true, 2)]
        );
        assert_eq!(
            names(JoinKind::LeftAnti, true, true),
            [("left", true, 3), ("right", true, 1)]
        );
        let not_in = [
            ("left", true, 1),
            ("right", true, 1),
            ("right_counts", false, 1),
        ];
        assert_eq!(names(JoinKind::LeftAnti, true, false), not_in);
    }

    #[test]
    fn the_comparison_of_not_in_does_not_partition() {
        assert_eq!(join_partition_keys(JoinKind::LeftAnti, true, &[3, 1]), [1]);
        assert_eq!(
            join_partition_keys(JoinKind::LeftAnti, false, &[3, 1]),
            [3, 1]
        );
        assert_eq!(join_partition_keys(JoinKind::LeftSemi, true, &[3]), [3]);
    }
}

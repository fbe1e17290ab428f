//! ORDER BY … LIMIT … OFFSET, per partition: `Δout = −window(old rows) + window(new rows)` over the touched partitions.
//!
//! State: `rows`, map form: partition → order columns ‖ other columns → count ([`crate::ordered_rows`]). Over rows that are
//! never retracted only the first `offset + limit` of each partition are kept, and if these are few, as one value.
//!
//! A row that is there several times takes several places. Ties follow the encoding of the remaining columns, so that the
//! choice repeats. Cost: one scan of the first `offset + limit` rows per touched partition, a second one if rows went.

use crate::ordered_rows::{CHUNK_GROUPS, FirstRows, Kept, OrderedRows, differences};
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::datatypes::{Schema, SchemaRef};
use tidegate_plan::SortKey;
use tidegate_plan::state_tables::top_n_keeps_list;
use tidegate_types::{Barrier, Batch, ByteRows};

pub struct TopN {
    rows: OrderedRows,
    offset: u64,
    limit: u64,
    /// The next partition to bring up to date, and how many there are in the epoch.
    next: usize,
    groups: usize,
}

/// Which rows of which partition, in which order.
pub struct Window<'a> {
    pub partition: &'a [usize],
    pub order: &'a [SortKey],
    pub offset: u64,
    pub limit: Option<u64>,
}

impl TopN {
    pub fn new(
        window: &Window<'_>,
        input: &Schema,
        schema: SchemaRef,
        input_append_only: bool,
    ) -> Result<Self, OperatorError> {
        let limit = window.limit.unwrap_or(u64::MAX);
        let wanted = if limit == 0 {
            0
        } else {
            window.offset.saturating_add(limit)
        };
        let kept = if top_n_keeps_list(window.offset, window.limit, input_append_only) {
            Kept::List
        } else if input_append_only && window.limit.is_some() {
            Kept::First
        } else {
            Kept::All
        };
        let rows = OrderedRows::new(window.partition, window.order, input, schema, wanted, kept)?;
        Ok(Self {
            rows,
            offset: window.offset,
            limit,
            next: 0,
            groups: 0,
        })
    }

    fn merge(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        while self.next < self.groups {
            if cx.exhausted() {
                return Ok(Progress::More);
            }
            let range = self.next..(self.next + CHUNK_GROUPS).min(self.groups);
            self.next = range.end;
            let first = self.rows.apply(range, cx)?;
            self.emit(&first, cx)?;
        }
        self.rows.clear();
        (self.next, self.groups) = (0, 0);
        Ok(Progress::Done)
    }

    fn emit(&self, first: &FirstRows, cx: &mut Cx<'_>) -> Result<(), OperatorError> {
        let (mut of_key, mut subs, mut diffs) = (Vec::new(), ByteRows::new(), Vec::new());
        for index in 0..first.keys.keys.len() {
            let before = window(first.before.group(index), self.offset, self.limit);
            let after = window(first.after.group(index), self.offset, self.limit);
            differences(before, after, &mut |sub, old, new| {
                of_key.push(index as u32);
                subs.push(sub);
                diffs.push(new - old);
            });
        }
        if !diffs.is_empty() {
            cx.emit(self.rows.rows(&first.keys, of_key, &subs, diffs)?);
        }
        Ok(())
    }
}

/// The part of an ordered multiset that begins after `offset` copies and has at most `limit`.
fn window<'a>(
    rows: impl Iterator<Item = (&'a [u8], i64)>,
    offset: u64,
    limit: u64,
) -> impl Iterator<Item = (&'a [u8], i64)> {
    let (mut skip, mut left) = (offset, limit);
    rows.filter_map(move |(value, count)| {
        let count = count as u64;
        let skipped = skip.min(count);
        skip -= skipped;
        let taken = (count - skipped).min(left);
        left -= taken;
        (taken > 0).then_some((value, taken as i64))
    })
}

impl Operator for TopN {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        _cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.rows.collect(&batch)?;
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        _barrier: &Barrier,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        self.groups = self.rows.sort();
        self.merge(cx)
    }

    fn resume(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        self.merge(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use tidegate_plan::Op;
    use tidegate_testkit::check::columns;
    use tidegate_testkit::{Check, check};
    use tidegate_types::SqlType;

    #[test]
    fn copies_take_places_of_their_own() {
        let rows: [(&[u8], i64); 3] = [(b"a", 2), (b"b", 3), (b"c", 1)];
        let part = |offset, limit| window(rows.into_iter(), offset, limit).collect::<Vec<_>>();
        assert_eq!(part(1, 3), [(&b"a"[..], 1), (&b"b"[..], 2)]);
        assert_eq!(part(5, 3), [(&b"c"[..], 1)]);
        assert_eq!(part(0, 0), []);
        assert_eq!(part(2, u64::MAX), [(&b"b"[..], 3), (&b"c"[..], 1)]);
    }

    /// `select * from t order by c1 desc nulls last limit 2 offset 1`, per c0.
    #[test]
    fn only_the_difference_between_windows_comes_out() {
        let schema = columns(&[SqlType::Text, SqlType::Integer]);
        let order = vec![SortKey {
            column: 1,
            descending: true,
            nulls_first: false,
        }];
        for append_only in [false, true] {
            let operator = Check {
                op: Op::TopN {
                    partition: vec![0],
                    order: order.clone(),
                    offset: 1,
                    limit: Some(2),
                },
                inputs: vec![schema.clone()],
                output: schema.clone(),
                append_only,
            };
            check(
                operator,
                "+1 (a,1)
                 +1 (a,)
                 +1 (b,1)
                 --
                 +1 (a,3)
                 +1 (b,0)
                 --
                 +1 (a,2)
                 +2 (a,2)
                 --",
                expect![[r#"
                    +1 (a,)
                    --
                    +1 (a,1)
                    +1 (b,0)
                    --
                    +2 (a,2)
                    -1 (a,)
                    -1 (a,1)
                    --
                "#]],
            );
        }
    }

    #[test]
    fn what_leaves_makes_room() {
        let schema = columns(&[SqlType::Integer]);
        let order = vec![SortKey {
            column: 0,
            descending: false,
            nulls_first: true,
        }];
        let operator = Check {
            op: Op::TopN {
                partition: vec![],
                order,
                offset: 0,
                limit: Some(2),
            },
            inputs: vec![schema.clone()],
            output: schema,
            append_only: false,
        };
        check(
            operator,
            "+1 (1)
             +1 (2)
             +1 (3)
             +1 ()
             --
             -1 ()
             -1 (1)
             --
             -1 (3)
             --",
            expect![[r#"
                +1 ()
                +1 (1)
                --
                +1 (2)
                +1 (3)
                -1 ()
                -1 (1)
                --
                -1 (3)
                --
            "#]],
        );
    }
}

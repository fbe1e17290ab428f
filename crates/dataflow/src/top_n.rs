//! Rows by their number in the order of their partition: `Δout = −window(old rows) + window(new rows)` over the touched
//! partitions. ORDER BY … LIMIT … OFFSET, DISTINCT ON, and filters over `row_number`, `rank` and `dense_rank`.
//!
//! State: `rows`, map form: partition → order columns ‖ other columns → count ([`crate::ordered_rows`]). Over rows that are
//! never retracted only those that can be seen are kept; if these are few, [`crate::append_top_n`] does it.
//!
//! A row that is there several times takes several places. Ties follow the encoding of the remaining columns, so that the
//! choice repeats. Cost: one scan of the rows up to the last wanted number per touched partition, a second one if rows went.
//! Where numbers are shown every row behind a change within the window changes; where they are not, rows that come and go do.

use crate::numbering::{Numbered, Place};
use crate::order_prefix::OrderPrefix;
use crate::ordered_rows::{CHUNK_GROUPS, FirstRows, Kept, OrderedRows, differences, sort_columns};
use crate::replay::ReplayKeys;
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use tidegate_plan::state_tables::top_n_columns;
use tidegate_plan::{Ranking, SortKey};
use tidegate_types::{Barrier, Batch, ByteRows};

pub struct TopN {
    rows: OrderedRows,
    schema: SchemaRef,
    window: Numbered,
    /// The numbers are the last column.
    numbered: bool,
    /// The next partition to bring up to date, and how many there are in the epoch.
    next: usize,
    groups: usize,
    /// Under way while the present output is being told: what there is, is told as if there had been nothing.
    replay: Option<ReplayKeys>,
}

/// Which rows of which partition, in which order.
pub struct Window<'a> {
    pub partition: &'a [usize],
    pub order: &'a [SortKey],
    pub ranking: Ranking,
    pub offset: u64,
    pub limit: Option<u64>,
    pub numbered: bool,
}

impl Window<'_> {
    /// The wanted numbers. Without a limit there is no last one, with a limit of zero none is wanted.
    pub fn numbers(&self, input: &Schema) -> Result<Numbered, OperatorError> {
        let last = match self.limit {
            None => u64::MAX,
            Some(0) => 0,
            Some(limit) => self.offset.saturating_add(limit),
        };
        let prefix = match self.ranking {
            Ranking::RowNumber => OrderPrefix::default(),
            Ranking::Rank | Ranking::DenseRank => {
                let sub = top_n_columns(self.partition, self.order, input.fields().len());
                let ordered = sub
                    .iter()
                    .take_while(|key| self.order.iter().any(|k| k.column == key.column));
                OrderPrefix::new(&sort_columns(&ordered.copied().collect::<Vec<_>>(), input))?
            }
        };
        Ok(Numbered {
            ranking: self.ranking,
            offset: self.offset,
            last,
            prefix,
        })
    }
}

impl TopN {
    pub fn new(
        window: &Window<'_>,
        input: &Schema,
        schema: SchemaRef,
        input_append_only: bool,
    ) -> Result<Self, OperatorError> {
        let kept = match input_append_only && window.limit.is_some() {
            true => Kept::First,
            false => Kept::All,
        };
        let stored: Vec<usize> = (0..input.fields().len()).collect();
        let rows = OrderedRows::new(
            window.partition,
            window.order,
            input,
            Arc::new(schema.project(&stored)?),
            window.numbers(input)?,
            kept,
        )?;
        Ok(Self {
            rows,
            schema,
            window: window.numbers(input)?,
            numbered: window.numbered,
            next: 0,
            groups: 0,
            replay: None,
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
        let mut numbers: Vec<i64> = Vec::new();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for index in 0..first.keys.keys.len() {
            before.clear();
            after.clear();
            let (old, new) = (first.before.group(index), first.after.group(index));
            if self.replay.is_none() {
                self.window.places(old.clone(), self.numbered, &mut before);
            }
            self.window.places(new.clone(), self.numbered, &mut after);
            differences(
                placed(&before, old),
                placed(&after, new),
                &mut |(sub, number), old, new| {
                    of_key.push(index as u32);
                    subs.push(sub);
                    diffs.push(new - old);
                    numbers.push(number as i64);
                },
            );
        }
        if diffs.is_empty() {
            return Ok(());
        }
        let rows = self.rows.rows(&first.keys, of_key, &subs, diffs)?;
        cx.emit(match self.numbered {
            true => with_numbers(&rows, numbers, &self.schema)?,
            false => rows,
        });
        Ok(())
    }
}

/// The rows at these places with their numbers.
fn placed<'a>(
    places: &[Place],
    rows: impl Iterator<Item = (&'a [u8], i64)>,
) -> impl Iterator<Item = ((&'a [u8], u64), i64)> {
    let mut rows = rows.enumerate();
    let mut current: Option<(usize, &'a [u8])> = None;
    places.iter().map(move |place| {
        while current.is_none_or(|(entry, _)| entry < place.entry) {
            let (entry, (row, _)) = rows.next().expect("a place is one of these rows");
            current = Some((entry, row));
        }
        let (_, row) = current.expect("just found");
        ((row, place.number), place.count)
    })
}

/// The rows with their numbers as the last column.
pub fn with_numbers(
    rows: &Batch,
    numbers: Vec<i64>,
    schema: &SchemaRef,
) -> Result<Batch, OperatorError> {
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(numbers)));
    Ok(rows.with_rows(RecordBatch::try_new(schema.clone(), columns)?))
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

    fn replay(&mut self, cx: &mut Cx<'_>) -> Result<Progress, OperatorError> {
        let mut replay = match self.replay.take() {
            Some(replay) => replay,
            None => ReplayKeys::of(cx.tables[0].as_ref())?,
        };
        while !cx.exhausted() {
            let Some(range) = replay.next(CHUNK_GROUPS) else {
                return Ok(Progress::Done);
            };
            let groups = self.rows.touch(replay.range(range))?;
            let first = self.rows.apply(0..groups, cx)?;
            self.replay = Some(replay);
            self.emit(&first, cx)?;
            self.rows.clear();
            replay = self.replay.take().expect("it was put there before");
        }
        self.replay = Some(replay);
        Ok(Progress::More)
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
                    ranking: Ranking::RowNumber,
                    offset: 1,
                    limit: Some(2),
                    numbered: false,
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
                ranking: Ranking::RowNumber,
                offset: 0,
                limit: Some(2),
                numbered: false,
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

    /// `rank() over (partition by c0 order by c1) <= 2`, with the rank.
    #[test]
    fn ranks_are_shared_and_shift() {
        let input = columns(&[SqlType::Text, SqlType::Integer, SqlType::Integer]);
        let mut fields = input.fields().to_vec();
        fields.push(Arc::new(SqlType::BigInt.field("rank", false)));
        for append_only in [false, true] {
            let operator = Check {
                op: Op::TopN {
                    partition: vec![0],
                    order: vec![SortKey {
                        column: 1,
                        descending: false,
                        nulls_first: false,
                    }],
                    ranking: Ranking::Rank,
                    offset: 0,
                    limit: Some(2),
                    numbered: true,
                },
                inputs: vec![input.clone()],
                output: Arc::new(Schema::new(fields.clone())),
                append_only,
            };
            check(
                operator,
                "+1 (a,5,1)
                 +1 (a,7,2)
                 +1 (a,7,3)
                 +1 (b,1,1)
                 --
                 +1 (a,5,0)
                 --
                 +1 (a,3,9)
                 --",
                expect![[r#"
                    +1 (a,5,1,1)
                    +1 (a,7,2,2)
                    +1 (a,7,3,2)
                    +1 (b,1,1,1)
                    --
                    +1 (a,5,0,1)
                    -1 (a,7,2,2)
                    -1 (a,7,3,2)
                    --
                    +1 (a,3,9,1)
                    +1 (a,5,0,2)
                    +1 (a,5,1,2)
                    -1 (a,5,0,1)
                    -1 (a,5,1,1)
                    --
                "#]],
            );
        }
    }
}

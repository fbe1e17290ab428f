//! A scalar sub-query's promise: per key the row while there is exactly one, an error (21000) while there are more.
//!
//! State: `rows`, map form: key → other columns → count ([`crate::ordered_rows`]). Two rows are all that is ever looked at.
//! The error is a row's error: it goes when all rows but one go.

use crate::numbering::Numbered;
use crate::ordered_rows::{CHUNK_GROUPS, FirstRows, Kept, OrderedRows};
use crate::row_failure::row_text;
use crate::{Cx, Operator, OperatorError, Port, Progress, RowError};
use arrow::datatypes::{Schema, SchemaRef};
use tidegate_types::{Barrier, Batch, ByteRows, SqlState};

pub struct AtMostOne {
    rows: OrderedRows,
    next: usize,
    groups: usize,
}

/// What a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found<'a> {
    None,
    One(&'a [u8]),
    Many,
}

impl<'a> Found<'a> {
    fn of(mut rows: impl Iterator<Item = (&'a [u8], i64)>) -> Self {
        match (rows.next(), rows.next()) {
            (None, _) => Found::None,
            (Some((row, 1)), None) => Found::One(row),
            _ => Found::Many,
        }
    }
}

impl AtMostOne {
    pub fn new(keys: &[usize], input: &Schema, schema: SchemaRef) -> Result<Self, OperatorError> {
        Ok(Self {
            rows: OrderedRows::new(keys, &[], input, schema, Numbered::first(2), Kept::All)?,
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
        let mut failed = Vec::new();
        for index in 0..first.keys.keys.len() {
            let before = Found::of(first.before.group(index));
            let after = Found::of(first.after.group(index));
            if before == after {
                continue;
            }
            for (found, diff) in [(before, -1), (after, 1)] {
                match found {
                    Found::None => {}
                    Found::One(row) => {
                        of_key.push(index as u32);
                        subs.push(row);
                        diffs.push(diff);
                    }
                    Found::Many => failed.push((index, diff)),
                }
            }
        }
        if !failed.is_empty() {
            let keys = self.rows.key_rows(&first.keys)?;
            for (index, diff) in failed {
                cx.fail_row(RowError {
                    state: SqlState::CARDINALITY_VIOLATION,
                    message: "more than one row returned by a subquery used as an expression"
                        .into(),
                    row: row_text(&keys, index),
                    diff,
                });
            }
        }
        if !diffs.is_empty() {
            cx.emit(self.rows.rows(&first.keys, of_key, &subs, diffs)?);
        }
        Ok(())
    }
}

impl Operator for AtMostOne {
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
    use expect_test::expect;
    use tidegate_plan::Op;
    use tidegate_testkit::check::columns;
    use tidegate_testkit::{Check, check};
    use tidegate_types::SqlType;

    #[test]
    fn a_second_row_is_an_error_until_it_goes() {
        let schema = columns(&[SqlType::Integer, SqlType::Text]);
        let operator = Check {
            op: Op::AtMostOne { keys: vec![0] },
            inputs: vec![schema.clone()],
            output: schema,
            append_only: false,
        };
        check(
            operator,
            "+1 (1,a)
             +1 (2,a)
             +1 (2,b)
             --
             +1 (1,a)
             +1 (2,c)
             --
             -1 (1,a)
             -1 (2,a)
             -1 (2,b)
             --",
            expect![[r#"
                ! +1 21000 (2) more than one row returned by a subquery used as an expression
                +1 (1,a)
                --
                ! +1 21000 (1) more than one row returned by a subquery used as an expression
                -1 (1,a)
                --
                ! -1 21000 (1) more than one row returned by a subquery used as an expression
                ! -1 21000 (2) more than one row returned by a subquery used as an expression
                +1 (1,a)
                +1 (2,c)
                --
            "#]],
        );
    }
}

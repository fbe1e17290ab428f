//! Computes columns: `Δout = π(Δin)`, row by row, diffs unchanged.
//!
//! No state. A row for which an expression fails is set aside and gives no output; since expressions are deterministic its
//! retraction fails alike, and so retracts the error.

use crate::expression::Expressions;
use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::datatypes::{Schema, SchemaRef};
use tidegate_plan::ScalarExpr;
use tidegate_types::{Barrier, Batch};

pub struct Project {
    expressions: Expressions,
}

impl Project {
    pub fn new(
        expressions: &[ScalarExpr],
        input: &Schema,
        schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        Ok(Self {
            expressions: Expressions::compile(expressions, input, schema)?,
        })
    }
}

impl Operator for Project {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        let projected = self
            .expressions
            .evaluate(&batch, &mut |error| cx.fail_row(error))?;
        cx.emit(projected);
        Ok(Progress::Done)
    }

    fn on_barrier(
        &mut self,
        _barrier: &Barrier,
        _cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::DataType;
    use datafusion::logical_expr::{Expr, cast, col, lit};
    use expect_test::expect;
    use tidegate_plan::{Op, ScalarExpr};
    use tidegate_testkit::check::columns;
    use tidegate_testkit::{Check, check};
    use tidegate_types::SqlType;

    fn project(expressions: Vec<Expr>, input: &[SqlType], output: &[SqlType]) -> Check {
        Check {
            op: Op::Project {
                expressions: expressions.into_iter().map(ScalarExpr::new).collect(),
            },
            inputs: vec![columns(input)],
            output: columns(output),
            append_only: false,
        }
    }

    /// SQLSTATEs as Postgres 15 reports them for the same expressions.
    #[test]
    fn rows_that_fail_are_set_aside_and_come_back_as_retractions() {
        let c = |index: usize| col(index.to_string());
        let operator = project(
            vec![c(0) / c(1), cast(c(2), DataType::Int32)],
            &[SqlType::Integer, SqlType::Integer, SqlType::Text],
            &[SqlType::Integer, SqlType::Integer],
        );
        check(
            operator,
            "+1 (6,2,1)
             +1 (6,0,1)
             +2 (6,3,abc)
             +1 (-2147483648,-1,1)
             +1 (,0,7)
             --
             -1 (6,0,1)
             -2 (6,3,abc)
             --",
            expect![[r#"
                ! +1 22003 (-2147483648,-1,1) value out of range: Overflow happened on: -2147483648 / -1
                ! +1 22012 (6,0,1) division by zero
                ! +2 22P02 (6,3,abc) Cannot cast string 'abc' to value of Int32 type
                +1 (,7)
                +1 (3,1)
                --
                ! -1 22012 (6,0,1) division by zero
                ! -2 22P02 (6,3,abc) Cannot cast string 'abc' to value of Int32 type
                --
            "#]],
        );
    }

    /// In Postgres too NaN divided by zero is NaN, and infinity halved is infinity.
    #[test]
    fn arithmetic_is_checked_as_in_postgres() {
        let c = |index: usize| col(index.to_string());
        let operator = project(
            vec![c(0) / c(1)],
            &[SqlType::Double, SqlType::Double],
            &[SqlType::Double],
        );
        check(
            operator,
            "+1 (1,0)
             +1 (NaN,0)
             +1 (1e308,1e-10)
             +1 (Infinity,2)
             --",
            expect![[r#"
                ! +1 22003 (1e+308,1e-10) value out of range: overflow
                ! +1 22012 (1,0) division by zero
                +1 (Infinity)
                +1 (NaN)
                --
            "#]],
        );
        let operator = project(
            vec![-c(0), c(1) * lit(2i64)],
            &[SqlType::SmallInt, SqlType::BigInt],
            &[SqlType::SmallInt, SqlType::BigInt],
        );
        check(
            operator,
            "+1 (5,4611686018427387903)
             +1 (-32768,1)
             +1 (1,4611686018427387904)
             --",
            expect![[r#"
                ! +1 22003 (-32768,1) value out of range: Overflow happened on: 0 - -32768
                ! +1 22003 (1,4611686018427387904) value out of range: Overflow happened on: 4611686018427387904 * 2
                +1 (-5,9223372036854775806)
                --
            "#]],
        );
    }
}

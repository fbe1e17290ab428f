//! Which pairs of rows with equal keys match.
//!
//! A pair matches when the residual is true of it. For `NOT IN` there is a third answer: a pair whose comparison is
//! unknown, because a value is NULL, while the rest of the condition is true.

use crate::OperatorError;
use crate::expression::compile;
use crate::row_failure::is_data_error;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, make_comparator,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{SortOptions, prep_null_mask_filter};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use std::cmp::Ordering;
use std::sync::Arc;
use tidegate_plan::ScalarExpr;

pub(super) struct Predicate {
    /// The two columns of a `NOT IN`, as positions among left columns followed by right columns.
    compared: Option<(usize, usize)>,
    residual: Option<Residual>,
    /// A residual that is NULL makes the pair unknown: the comparison of a `NOT IN` is part of it.
    null_is_unknown: bool,
}

struct Residual {
    /// The columns that it reads, in the order of `schema`.
    columns: Vec<usize>,
    schema: SchemaRef,
    expression: Arc<dyn PhysicalExpr>,
}

/// The answers for some pairs.
pub(super) struct Answers {
    pub matched: BooleanBuffer,
    /// Pairs that may match. Only for `NOT IN`.
    pub unknown: Option<BooleanBuffer>,
    /// Pairs for which the residual fails, which do not match.
    pub failed: Vec<(usize, DataFusionError)>,
}

impl Predicate {
    pub fn new(
        compared: Option<(usize, usize)>,
        residual: Option<&ScalarExpr>,
        null_aware: bool,
        pair: &Schema,
    ) -> Result<Option<Self>, OperatorError> {
        let residual = residual.map(|r| Residual::new(r, pair)).transpose()?;
        if compared.is_none() && residual.is_none() && !null_aware {
            return Ok(None);
        }
        let null_is_unknown = null_aware && compared.is_none();
        Ok(Some(Self {
            compared,
            residual,
            null_is_unknown,
        }))
    }

    /// The answers for pairs whose columns `column` gathers.
    pub fn evaluate(
        &self,
        pairs: usize,
        column: &mut dyn FnMut(usize) -> Result<ArrayRef, OperatorError>,
    ) -> Result<Answers, OperatorError> {
        let mut answers = Answers {
            matched: BooleanBuffer::new_set(pairs),
            unknown: None,
            failed: Vec::new(),
        };
        if let Some(residual) = &self.residual {
            let columns = residual
                .columns
                .iter()
                .map(|c| column(*c))
                .collect::<Result<Vec<_>, _>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(pairs));
            let rows =
                RecordBatch::try_new_with_options(residual.schema.clone(), columns, &options)?;
            let truth = residual.truth(&rows, &mut answers.failed)?;
            if self.null_is_unknown {
                let nulls = truth
                    .nulls()
                    .map_or(BooleanBuffer::new_unset(pairs), |n| !n.inner());
                answers.unknown = Some(nulls);
            }
            answers.matched = truth_bits(&truth);
        }
        if let Some((left, right)) = self.compared {
            let (equal, unknown) = compare(&column(left)?, &column(right)?)?;
            answers.unknown = Some(&answers.matched & &unknown);
            answers.matched = &answers.matched & &equal;
        }
        Ok(answers)
    }
}

impl Residual {
    fn new(residual: &ScalarExpr, pair: &Schema) -> Result<Self, OperatorError> {
        let mut columns: Vec<usize> = residual
            .expr()
            .column_refs()
            .iter()
            .filter_map(|c| c.name.parse().ok())
            .collect();
        columns.sort_unstable();
        columns.dedup();
        let compact = residual.expr().clone().transform(|node| match &node {
            Expr::Column(column) => {
                let position = column
                    .name
                    .parse()
                    .ok()
                    .and_then(|p: usize| columns.iter().position(|c| *c == p));
                Ok(match position {
                    Some(position) => Transformed::yes(ScalarExpr::column(position).expr().clone()),
                    None => Transformed::no(node),
                })
            }
            _ => Ok(Transformed::no(node)),
        })?;
        let fields: Vec<_> = columns
            .iter()
            .map(|c| pair.field(*c).clone().with_nullable(true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let positional = ScalarExpr::positional_schema(&schema);
        let expression = compile(&ScalarExpr::new(compact.data), &positional)?;
        Ok(Self {
            columns,
            schema,
            expression,
        })
    }

    /// Three-valued answers; a row that fails is false and noted. The failing rows are found by halving.
    fn truth(
        &self,
        rows: &RecordBatch,
        failed: &mut Vec<(usize, DataFusionError)>,
    ) -> Result<BooleanArray, OperatorError> {
        match self.evaluate(rows) {
            Ok(truth) => return Ok(truth),
            Err(error) if !is_data_error(&error) => return Err(error.into()),
            Err(_) => {}
        }
        let mut answers: Vec<Option<bool>> = vec![Some(false); rows.num_rows()];
        let mut todo = vec![(0, rows.num_rows())];
        while let Some((start, length)) = todo.pop() {
            match self.evaluate(&rows.slice(start, length)) {
                Ok(truth) => {
                    for (answer, truth) in answers[start..].iter_mut().zip(truth.iter()) {
                        *answer = truth;
                    }
                }
                Err(error) if !is_data_error(&error) => return Err(error.into()),
                Err(error) if length <= 1 => failed.push((start, error)),
                Err(_) => {
                    let half = length / 2;
                    todo.push((start + half, length - half));
                    todo.push((start, half));
                }
            }
        }
        Ok(BooleanArray::from(answers))
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<BooleanArray, DataFusionError> {
        let array = self
            .expression
            .evaluate(rows)?
            .into_array(rows.num_rows())?;
        match array.as_boolean_opt() {
            Some(truth) => Ok(truth.clone()),
            // `ON NULL` has no type of its own.
            None => Ok(
                arrow::compute::cast(&array, &arrow::datatypes::DataType::Boolean)?
                    .as_boolean()
                    .clone(),
            ),
        }
    }
}

fn truth_bits(truth: &BooleanArray) -> BooleanBuffer {
    match truth.null_count() {
        0 => truth.values().clone(),
        _ => prep_null_mask_filter(truth).values().clone(),
    }
}

/// Where the values are equal, and where one of them is NULL. Floats compare like keys: NaN equals itself.
fn compare(
    left: &ArrayRef,
    right: &ArrayRef,
) -> Result<(BooleanBuffer, BooleanBuffer), OperatorError> {
    let pairs = left.len();
    let mut known = BooleanBuffer::new_set(pairs);
    for nulls in [left.logical_nulls(), right.logical_nulls()]
        .into_iter()
        .flatten()
    {
        known = &known & nulls.inner();
    }
    let order = make_comparator(left.as_ref(), right.as_ref(), SortOptions::default())?;
    let equal =
        BooleanBuffer::collect_bool(pairs, |i| known.value(i) && order(i, i) == Ordering::Equal);
    Ok((equal, !&known))
}

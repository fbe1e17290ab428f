//! A row for each element of its lists: `Δout = unnest(Δin)`. Stateless.
//!
//! Several lists are taken side by side; where one is shorter than the longest its place is NULL. A row whose lists are all
//! empty or NULL gives nothing.

use crate::{Cx, Operator, OperatorError, Port, Progress};
use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use tidegate_types::{Barrier, Batch};

pub struct Unnest {
    lists: Vec<usize>,
    schema: SchemaRef,
}

impl Unnest {
    pub fn new(lists: &[usize], input: &Schema, schema: SchemaRef) -> Result<Self, OperatorError> {
        for list in lists {
            let found = input.field(*list).data_type();
            if !matches!(found, DataType::List(_)) {
                let message = format!("unnest of a column of type {found}");
                return Err(DataFusionError::NotImplemented(message).into());
            }
        }
        Ok(Self {
            lists: lists.to_vec(),
            schema,
        })
    }

    fn expand(&self, batch: &Batch) -> Result<Batch, OperatorError> {
        let lists: Vec<&ListArray> = self
            .lists
            .iter()
            .map(|list| batch.column(*list).as_list::<i32>())
            .collect();
        let length = |list: &ListArray, row: usize| match list.is_null(row) {
            true => 0,
            false => list.value_length(row) as usize,
        };
        let mut of_row: Vec<u32> = Vec::new();
        let mut elements: Vec<Vec<Option<u32>>> = vec![Vec::new(); lists.len()];
        for row in 0..batch.num_rows() {
            let longest = lists.iter().map(|list| length(list, row)).max();
            let longest = longest.unwrap_or(0);
            of_row.extend(std::iter::repeat_n(row as u32, longest));
            for (list, elements) in lists.iter().zip(&mut elements) {
                let (start, own) = (list.value_offsets()[row] as u32, length(list, row));
                elements.extend((start..start + own as u32).map(Some));
                elements.resize(of_row.len(), None);
            }
        }
        let count = of_row.len();
        let of_row = UInt32Array::from(of_row);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (index, column) in batch.columns().iter().enumerate() {
            columns.push(match self.lists.iter().position(|list| *list == index) {
                Some(list) => {
                    let elements = UInt32Array::from(std::mem::take(&mut elements[list]));
                    take(lists[list].values(), &elements, None)?
                }
                None => take(column, &of_row, None)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(match batch.diffs() {
            None => Batch::insert(rows),
            Some(diffs) => {
                let diffs = take(diffs, &of_row, None)?;
                let diffs: &Int64Array = diffs.as_primitive();
                Batch::new(rows, diffs.clone())
            }
        })
    }
}

impl Operator for Unnest {
    fn on_batch(
        &mut self,
        _port: Port,
        batch: Batch,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, OperatorError> {
        cx.emit(self.expand(&batch)?);
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
    use expect_test::expect;
    use tidegate_plan::Op;
    use tidegate_testkit::check::columns;
    use tidegate_testkit::{Check, check};
    use tidegate_types::SqlType;

    /// `select c0, unnest(c1), unnest(c2) from t`
    #[test]
    fn lists_are_taken_side_by_side() {
        let list = |of| SqlType::Array(Box::new(of));
        let input = columns(&[
            SqlType::Integer,
            list(SqlType::Integer),
            list(SqlType::Text),
        ]);
        let operator = Check {
            op: Op::Unnest { lists: vec![1, 2] },
            inputs: vec![input],
            output: columns(&[SqlType::Integer, SqlType::Integer, SqlType::Text]),
            append_only: false,
        };
        check(
            operator,
            "+1 (1,\"{1,2,3}\",{a})
             +2 (2,{},)
             +1 (3,,\"{b,NULL}\")
             +2 (4,{NULL},{})
             --
             -1 (1,\"{1,2,3}\",{a})
             --",
            expect![[r#"
                +1 (1,1,a)
                +1 (1,2,)
                +1 (1,3,)
                +1 (3,,)
                +1 (3,,b)
                +2 (4,,)
                --
                -1 (1,1,a)
                -1 (1,2,)
                -1 (1,3,)
                --
            "#]],
        );
    }
}

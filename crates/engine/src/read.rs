//! Views as DataFusion reads them: rows of one epoch, and over them what a transaction has changed and not committed.
//!
//! A scan is one partition per worker. An equality with a literal on every key column becomes a lookup. Changes on top
//! (a transaction's own, or committed ones that no epoch holds yet) are a small Z-set: retracted rows are taken out of the
//! scan by their encoding, inserted ones follow at the end; such a scan has one partition.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use hashbrown::HashMap;
use std::sync::Arc;
use tidegate_state::ViewSnapshot;
use tidegate_types::{Batch, Diff, RowCodec};

const BATCH_ROWS: usize = 8192;

/// A relation's rows at one epoch, with changes on top.
#[derive(Clone)]
pub(crate) struct ViewTable {
    schema: SchemaRef,
    parts: Vec<ViewSnapshot>,
    /// Columns that the rows are keyed by.
    key: Vec<usize>,
    /// Where each visible column is among the stored ones.
    columns: Vec<usize>,
    overlay: Arc<Overlay>,
}

impl ViewTable {
    /// `schema` holds the visible columns, `columns` where they are stored.
    pub fn new(
        schema: SchemaRef,
        columns: Vec<usize>,
        parts: Vec<ViewSnapshot>,
        key: Vec<usize>,
        overlay: Overlay,
    ) -> Self {
        Self {
            schema,
            parts,
            key,
            columns,
            overlay: Arc::new(overlay),
        }
    }

    /// The value that every key column must equal, in the order of the key, if the filters say so.
    fn key_values(&self, filters: &[Expr]) -> Option<Vec<ScalarValue>> {
        if self.key.is_empty() {
            return None;
        }
        let mut values = Vec::with_capacity(self.key.len());
        for stored in &self.key {
            let visible = self.columns.iter().position(|c| c == stored)?;
            let field = self.schema.field(visible);
            let value = filters.iter().find_map(|f| equality(f, field.name()))?;
            if value.is_null() {
                return None;
            }
            let value = if value.data_type() == *field.data_type() {
                value
            } else {
                value.cast_to(field.data_type()).ok()?
            };
            values.push(value);
        }
        Some(values)
    }
}

/// The literal that a filter compares this column with.
fn equality(filter: &Expr, name: &str) -> Option<ScalarValue> {
    let Expr::BinaryExpr(binary) = filter else {
        return None;
    };
    if binary.op != Operator::Eq {
        return None;
    }
    match (binary.left.as_ref(), binary.right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _))
        | (Expr::Literal(value, _), Expr::Column(column))
            if column.name == name =>
        {
            Some(value.clone())
        }
        _ => None,
    }
}

impl std::fmt::Debug for ViewTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ViewTable")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // What a lookup does not decide is filtered above it.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let visible: Vec<usize> = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let schema = Arc::new(self.schema.project(&visible)?);
        let stored: Vec<usize> = visible.iter().map(|v| self.columns[*v]).collect();
        let key = match self.key_values(filters) {
            Some(values) => Some(self.encoded_key(&values)?),
            None => None,
        };
        let partitions = self.partitions(&schema, stored, key);
        Ok(Arc::new(StreamingTableExec::try_new(
            schema,
            partitions,
            None,
            [],
            false,
            limit,
        )?))
    }
}

impl ViewTable {
    fn encoded_key(&self, values: &[ScalarValue]) -> Result<Vec<u8>> {
        let columns: Vec<ArrayRef> = values
            .iter()
            .map(|v| v.to_array_of_size(1))
            .collect::<Result<_>>()?;
        let types: Vec<_> = columns.iter().map(|c| c.data_type().clone()).collect();
        let rows = RowCodec::new(&types)?.encode(&columns)?;
        Ok(rows.row(0).data().to_vec())
    }

    fn partitions(
        &self,
        schema: &SchemaRef,
        stored: Vec<usize>,
        key: Option<Vec<u8>>,
    ) -> Vec<Arc<dyn PartitionStream>> {
        let partition = |parts: Vec<ViewSnapshot>| -> Arc<dyn PartitionStream> {
            Arc::new(ViewPartition {
                schema: schema.clone(),
                stored: stored.clone(),
                parts,
                key: key.clone(),
                overlay: self.overlay.clone(),
            })
        };
        if self.overlay.is_empty() {
            self.parts
                .iter()
                .map(|p| partition(vec![p.clone()]))
                .collect()
        } else {
            vec![partition(self.parts.clone())]
        }
    }
}

struct ViewPartition {
    schema: SchemaRef,
    stored: Vec<usize>,
    parts: Vec<ViewSnapshot>,
    key: Option<Vec<u8>>,
    overlay: Arc<Overlay>,
}

impl std::fmt::Debug for ViewPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ViewPartition")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for ViewPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.batches();
        let schema = self.schema.clone();
        // Only names and metadata differ between stored and visible columns.
        let renamed = batches.map({
            let schema = schema.clone();
            move |batch| {
                let batch = batch?;
                let options =
                    arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                Ok(RecordBatch::try_new_with_options(
                    schema.clone(),
                    batch.columns().to_vec(),
                    &options,
                )?)
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(
            schema,
            futures::stream::iter(renamed),
        ))
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

impl ViewPartition {
    fn batches(&self) -> Batches {
        // Retracted rows are recognised by all their columns.
        let columns = self.overlay.is_empty().then(|| self.stored.clone());
        let key = self.key.clone();
        let stored = self.parts.clone().into_iter().flat_map(move |part| {
            let scan = match &key {
                Some(key) => part.lookup(key, columns.as_deref(), BATCH_ROWS),
                None => part.scan(columns.as_deref(), BATCH_ROWS),
            };
            let batches: Batches = match scan {
                Ok(scan) => {
                    Box::new(scan.map(|b| b.map_err(|e| DataFusionError::External(Box::new(e)))))
                }
                Err(error) => Box::new(std::iter::once(Err(DataFusionError::External(Box::new(
                    error,
                ))))),
            };
            batches
        });
        if self.overlay.is_empty() {
            return Box::new(stored);
        }
        let projection = self.stored.clone();
        let overlay = self.overlay.clone();
        let mut removals = overlay.removed.clone();
        let kept = stored.map(move |batch| overlay.without(&batch?, &mut removals));
        let inserted = self.overlay.inserted.clone().into_iter().map(Ok);
        Box::new(
            kept.chain(inserted)
                .map(move |batch| Ok(batch?.project(&projection)?)),
        )
    }
}

/// Changes that are not part of any epoch yet, consolidated.
#[derive(Default)]
pub(crate) struct Overlay {
    codec: Option<RowCodec>,
    /// How many copies of each row are gone.
    removed: HashMap<Vec<u8>, Diff>,
    inserted: Vec<RecordBatch>,
}

impl Overlay {
    /// Consolidates changes over all stored columns.
    pub fn new(schema: &Schema, changes: &[Batch]) -> Result<Self> {
        if changes.iter().all(Batch::is_empty) {
            return Ok(Self::default());
        }
        let types: Vec<_> = schema
            .fields()
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        let codec = RowCodec::new(&types)?;
        let mut counts: HashMap<Vec<u8>, (Diff, usize, usize)> = HashMap::new();
        for (number, batch) in changes.iter().enumerate() {
            let rows = codec.encode(batch.columns())?;
            for (index, row) in rows.iter().enumerate() {
                let count = counts
                    .entry(row.data().to_vec())
                    .or_insert((0, number, index));
                count.0 += batch.diff(index);
            }
        }
        let mut removed = HashMap::new();
        let mut taken: Vec<Vec<u32>> = vec![Vec::new(); changes.len()];
        for (row, (diff, number, index)) in counts {
            if diff < 0 {
                removed.insert(row, -diff);
            }
            for _ in 0..diff.max(0) {
                taken[number].push(index as u32);
            }
        }
        let mut inserted = Vec::new();
        for (mut indices, batch) in taken.into_iter().zip(changes) {
            indices.sort_unstable();
            if !indices.is_empty() {
                inserted.push(take_record_batch(
                    batch.rows(),
                    &UInt32Array::from(indices),
                )?);
            }
        }
        Ok(Self {
            codec: Some(codec),
            removed,
            inserted,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.inserted.is_empty()
    }

    fn without(
        &self,
        batch: &RecordBatch,
        removals: &mut HashMap<Vec<u8>, Diff>,
    ) -> Result<RecordBatch> {
        let Some(codec) = self
            .codec
            .as_ref()
            .filter(|_| !removals.is_empty() && batch.num_rows() > 0)
        else {
            return Ok(batch.clone());
        };
        let rows = codec.encode(batch.columns())?;
        let mut keep = Vec::with_capacity(batch.num_rows());
        for (index, row) in rows.iter().enumerate() {
            match removals.get_mut(row.data()) {
                Some(left) if *left > 0 => *left -= 1,
                _ => keep.push(index as u32),
            }
        }
        if keep.len() == batch.num_rows() {
            return Ok(batch.clone());
        }
        Ok(take_record_batch(batch, &UInt32Array::from(keep))?)
    }
}

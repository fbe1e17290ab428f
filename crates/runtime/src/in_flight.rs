//! Rows that a barrier has overtaken, as part of its checkpoint.
//!
//! Each driver that lets a barrier overtake hands over the batches that were waiting in front of it, in order. They are
//! stored like a state table of their own, which only that checkpoint has: one entry per batch, its key the worker and
//! the batch's place in line, its value the port and the rows as an Arrow IPC stream. Nothing is encoded on the worker.
//!
//! On restoring every worker reads all of it and keeps what is its own: where the plan distributes the rows of an input
//! by key, the rows whose key groups it owns; elsewhere (in front of operators without state, for which the place does not
//! matter) whole batches, dealt out by the worker that had them.

use crate::packet::ByKeyGroup;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use std::sync::Arc;
use tidegate_dataflow::Port;
use tidegate_plan::{Distribution, Edge};
use tidegate_state::{Run, RunBuilder, StateError};
use tidegate_types::{Batch, CheckpointId, OperatorId, RelationId, TableId, WorkerId};

/// The index of these tables among an operator's: behind that of its errors.
const FIRST_INDEX: usize = 1001;

/// The table that holds what waited in front of an operator when this checkpoint's barrier overtook it.
pub(crate) fn table(
    relation: RelationId,
    operator: OperatorId,
    checkpoint: CheckpointId,
) -> TableId {
    TableId::of(relation, operator, FIRST_INDEX + checkpoint.0 as usize)
}

/// The id under which an operator's builder finds what is restored, whichever checkpoint it came from.
pub(crate) fn restored_table(relation: RelationId, operator: OperatorId) -> TableId {
    table(relation, operator, CheckpointId(0))
}

/// The batches as a run, which is encoded when it is uploaded. `None`: nothing was waiting.
pub(crate) fn pack(table: TableId, worker: WorkerId, batches: Vec<(Port, Batch)>) -> Option<Run> {
    if batches.is_empty() {
        return None;
    }
    Some(Run::lazily(table, move || {
        let mut run = RunBuilder::new(table, false, batches.len());
        for (place, (port, batch)) in batches.iter().enumerate() {
            let mut key = (worker as u32).to_be_bytes().to_vec();
            key.extend_from_slice(&(place as u64).to_be_bytes());
            let value = encode(*port, batch).expect("rows of a dataflow can be written as Arrow");
            // One group for all: only then they stay in order.
            run.push_in_group(0, &key, &[], Some(&value));
        }
        run
    }))
}

fn encode(port: Port, batch: &Batch) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let mut bytes = vec![port as u8, u8::from(batch.diffs().is_some())];
    let rows = match batch.diffs() {
        None => batch.rows().clone(),
        Some(diffs) => {
            let mut fields = batch.schema().fields().to_vec();
            fields.push(Arc::new(Field::new("diff", DataType::Int64, false)));
            let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
            columns.push(Arc::new(diffs.clone()));
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?
        }
    };
    let mut writer = StreamWriter::try_new(&mut bytes, &rows.schema())?;
    writer.write(&rows)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

fn decode(value: &[u8]) -> Result<(Port, Batch), StateError> {
    let damaged = || StateError::Damaged("a batch in flight is cut short".into());
    let ([port, has_diffs], stream) = value.split_first_chunk().ok_or_else(damaged)?;
    let mut reader = StreamReader::try_new(stream, None)?;
    let rows = reader.next().ok_or_else(damaged)??;
    let port = Port::from(*port);
    if *has_diffs == 0 {
        return Ok((port, Batch::insert(rows)));
    }
    let diffs = rows
        .columns()
        .last()
        .and_then(|c| c.as_any().downcast_ref::<Int64Array>())
        .filter(|d| d.null_count() == 0)
        .ok_or_else(damaged)?
        .clone();
    let columns: Vec<usize> = (0..rows.num_columns() - 1).collect();
    Ok((port, Batch::new(rows.project(&columns)?, diffs)))
}

/// What this worker takes of the batches that a checkpoint holds, in order.
pub(crate) fn unpack(
    runs: &[Run],
    inputs: &[Edge],
    worker: WorkerId,
    workers: usize,
) -> Result<Vec<(Port, Batch)>, StateError> {
    let mut routes: Vec<Option<ByKeyGroup>> = inputs
        .iter()
        .map(|edge| match &edge.distribution {
            Distribution::Key(columns) => Some(ByKeyGroup::new(columns.clone(), workers)),
            Distribution::Any => None,
        })
        .collect();
    let mut batches = Vec::new();
    for entry in runs.iter().flat_map(Run::iter) {
        let had_it = entry.key.first_chunk().map(|w| u32::from_be_bytes(*w));
        let (Some(had_it), Some(value)) = (had_it, entry.value) else {
            return Err(StateError::Damaged("a batch in flight has no place".into()));
        };
        let (port, batch) = decode(value)?;
        let route = routes.get_mut(port).ok_or_else(|| {
            StateError::Damaged(format!(
                "a batch in flight came through input {port}, which there is not"
            ))
        })?;
        let own = match route {
            Some(route) => route.part(&batch, worker),
            None => (had_it as usize % workers == worker).then_some(batch),
        };
        batches.extend(own.map(|batch| (port, batch)));
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn batch(values: &[i64], diffs: &[i64]) -> Batch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let rows = RecordBatch::try_new(schema, vec![column]).unwrap();
        Batch::new(rows, Int64Array::from(diffs.to_vec()))
    }

    fn rows(batches: &[(Port, Batch)]) -> Vec<(Port, i64, i64)> {
        let mut rows = Vec::new();
        for (port, batch) in batches {
            let numbers = batch
                .column(0)
                .as_any()
                .downcast_ref::<Int64Array>()
                .unwrap();
            rows.extend((0..batch.num_rows()).map(|i| (*port, numbers.value(i), batch.diff(i))));
        }
        rows
    }

    #[test]
    fn what_was_in_flight_comes_back_once_and_in_order_on_any_number_of_workers() {
        let key = |from| Edge {
            from,
            distribution: Distribution::Key(vec![0]),
        };
        let any = Edge {
            from: 1,
            distribution: Distribution::Any,
        };
        let edges = [key(0), any];
        let numbers: Vec<i64> = (0..500).collect();
        let first = vec![
            (0, batch(&numbers, &[1; 500])),
            (1, batch(&[7, 8], &[1, -1])),
            (0, batch(&[3, 3, 4], &[-1, 2, -1]).slice(1, 2)),
        ];
        let second = vec![(1, batch(&[9], &[1]))];
        let table = table(RelationId(1), OperatorId(2), CheckpointId(9));
        let mut expected = rows(&first);
        expected.extend(rows(&second));
        expected.sort();
        let runs = [
            pack(table, 0, first).unwrap(),
            pack(table, 1, second).unwrap(),
        ];
        for workers in [1, 2, 3, 4] {
            let mut all = Vec::new();
            for worker in 0..workers {
                let own = unpack(&runs, &edges, worker, workers).unwrap();
                let own = rows(&own);
                let of_three: Vec<_> = own.iter().filter(|r| r.0 == 0 && r.1 == 3).collect();
                assert!(of_three.is_empty() || of_three == [&(0, 3, 1), &(0, 3, 2)]);
                all.extend(own);
            }
            all.sort();
            assert_eq!(all, expected, "{workers} workers");
        }
    }
}

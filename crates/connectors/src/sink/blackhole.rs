//! Counts and drops. For measuring what everything before a sink costs.

use crate::ConnectorError;
use crate::options::Options;
use crate::sink::{Sink, SinkCounters, SinkWriter, Token};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_types::{Batch, CheckpointId, Epoch};

pub struct BlackholeSink {
    counters: Arc<SinkCounters>,
}

impl BlackholeSink {
    pub fn new(options: &BTreeMap<String, String>) -> Result<Self, ConnectorError> {
        const NONE: &[&str] = &[];
        Options::new("connector \"blackhole\"", options, NONE)?;
        Ok(Self {
            counters: Arc::default(),
        })
    }
}

impl Sink for BlackholeSink {
    fn recover(&self, _committed: &[Token]) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn open(&self, _worker: usize) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(BlackholeWriter {
            counters: self.counters.clone(),
        }))
    }

    fn commit(&self, _token: &Token) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn abort(&self, _token: &Token) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// Nothing is in the output more than once, and all of it may be said to be there.
    fn exactly_once(&self) -> bool {
        true
    }

    fn runs_on_worker(&self) -> bool {
        true
    }

    fn counters(&self) -> &SinkCounters {
        &self.counters
    }
}

struct BlackholeWriter {
    counters: Arc<SinkCounters>,
}

impl SinkWriter for BlackholeWriter {
    fn write(&mut self, _epoch: Epoch, batch: &Batch) -> Result<(), ConnectorError> {
        self.counters.count(batch);
        Ok(())
    }

    fn prepare(&mut self, _checkpoint: CheckpointId) -> Result<Option<Token>, ConnectorError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn counts_what_all_writers_receive() {
        let sink = BlackholeSink::new(&BTreeMap::new()).unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let column = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let rows = RecordBatch::try_new(schema, vec![column]).unwrap();
        for worker in 0..2 {
            let mut writer = sink.open(worker).unwrap();
            writer
                .write(Epoch(1), &Batch::insert(rows.clone()))
                .unwrap();
            let changes = Batch::new(rows.clone(), Int64Array::from(vec![1, -2, 1]));
            writer.write(Epoch(2), &changes).unwrap();
            assert_eq!(writer.prepare(CheckpointId(1)).unwrap(), None);
        }
        let counters = sink.counters();
        assert_eq!((counters.inserted(), counters.retracted()), (10, 4));
        assert_eq!((counters.rows(), counters.batches()), (14, 4));
    }
}

//! Keys whose state is final because a watermark has passed a time in them.
//!
//! What keys there are for each time is a cache, filled as keys are touched and, after a restart, from the state table. It knows
//! a key as long as there is state for it.

use crate::OperatorError;
use crate::groups::{KeyChunk, widen};
use arrow::array::Array;
use arrow::datatypes::{DataType, Schema, TimeUnit};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use tidegate_plan::watermark::of_column;
use tidegate_plan::{ColumnWatermarks, Dataflow, Watermark};
use tidegate_state::Table;
use tidegate_types::{Barrier, ByteRows, RowCodec};

pub struct Closing {
    watermark: Watermark,
    /// Which of the key's columns is the time.
    place: usize,
    codec: RowCodec,
    open: BTreeMap<i64, HashSet<Box<[u8]>>>,
    is_filled: bool,
}

impl Closing {
    /// For the state of a node, all of which lies under the keys of these columns (a list for each input), if one of them
    /// is a time that has a watermark in every input.
    pub fn of_node(
        dataflow: &Dataflow,
        node: usize,
        keys: &[&[usize]],
    ) -> Result<Option<Self>, OperatorError> {
        let inputs = |input: usize| dataflow.input_watermarks(node, input);
        let mut lowest: ColumnWatermarks = Vec::new();
        for (place, column) in keys[0].iter().enumerate() {
            let watermarks = keys
                .iter()
                .enumerate()
                .map(|(input, keys)| of_column(inputs(input), keys[place]).cloned());
            let watermarks: Option<Vec<Watermark>> = watermarks.collect();
            let all = watermarks.into_iter().flatten();
            lowest.extend(all.reduce(Watermark::lowest).map(|w| (*column, w)));
        }
        Self::of(keys[0], dataflow.input_schema(node, 0), &lowest)
    }

    /// For keys of these columns, if one of them is a time with a watermark.
    pub fn of(
        keys: &[usize],
        input: &Schema,
        watermarks: &ColumnWatermarks,
    ) -> Result<Option<Self>, OperatorError> {
        let is_time = |column: usize| {
            let found = input.field(column).data_type();
            matches!(found, DataType::Timestamp(TimeUnit::Microsecond, _))
        };
        let found = keys.iter().enumerate().find_map(|(place, column)| {
            let (_, watermark) = watermarks.iter().find(|(c, _)| c == column)?;
            is_time(*column).then(|| (place, watermark.clone()))
        });
        let Some((place, watermark)) = found else {
            return Ok(None);
        };
        let types: Vec<DataType> = keys
            .iter()
            .map(|c| input.field(*c).data_type().clone())
            .collect();
        Ok(Some(Self {
            watermark,
            place,
            codec: RowCodec::new(&types)?,
            open: BTreeMap::new(),
            is_filled: false,
        }))
    }

    /// These keys have state.
    pub fn touch(&mut self, keys: &KeyChunk) {
        let times = &keys.columns[self.place];
        let values = widen(times).expect("a time is a number");
        for (row, key) in keys.keys.iter().enumerate() {
            if times.is_valid(row) {
                let keys = self.open.entry(values[row]).or_default();
                if !keys.contains(key) {
                    keys.insert(key.into());
                }
            }
        }
    }

    /// The keys that no change can be about any more; they are forgotten. The tables have all keys between them.
    pub fn take_closed(
        &mut self,
        barrier: &Barrier,
        tables: &[Box<dyn Table>],
    ) -> Result<ByteRows, OperatorError> {
        let mut closed = ByteRows::new();
        let Some(watermark) = self.watermark.at(&barrier.watermarks) else {
            return Ok(closed);
        };
        if !self.is_filled {
            for table in tables {
                self.fill(table.as_ref())?;
            }
            self.is_filled = true;
        }
        while let Some(entry) = self.open.first_entry() {
            if *entry.key() >= watermark {
                break;
            }
            let mut keys: Vec<Box<[u8]>> = entry.remove().into_iter().collect();
            // So that results repeat.
            keys.sort_unstable();
            keys.iter().for_each(|key| closed.push(key));
        }
        Ok(closed)
    }

    /// Keys from before a restart.
    fn fill(&mut self, table: &dyn Table) -> Result<(), OperatorError> {
        let mut keys = ByteRows::new();
        table.scan_all(&mut |_, key, _, _| {
            if keys.is_empty() || keys.get(keys.len() - 1) != key {
                keys.push(key);
            }
            ControlFlow::Continue(())
        })?;
        let columns = self.codec.decode(keys.iter())?;
        self.touch(&KeyChunk { keys, columns });
        Ok(())
    }
}

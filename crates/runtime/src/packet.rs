//! A batch as a timely container, and its way to the worker that owns its keys.

use arrow::array::Array;
use std::io::Write;
use tidegate_types::{Batch, KEY_GROUPS, KeyGroupRange, RowCodec, hash_key, key_group};
use timely::Accountable;
use timely::communication::Push;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::channels::{ContainerBytes, Message};

/// One batch, or nothing. Never sent empty: a message without records is invisible to progress tracking.
#[derive(Clone, Default)]
pub(crate) struct Packet(pub Option<Batch>);

impl Packet {
    pub fn take(&mut self) -> Option<Batch> {
        self.0.take()
    }
}

impl Accountable for Packet {
    fn record_count(&self) -> i64 {
        self.0.as_ref().map_or(0, |b| b.num_rows() as i64)
    }
}

/// Threads of one process hand batches over as they are; timely asks for these methods all the same.
impl ContainerBytes for Packet {
    fn from_bytes(_: timely::bytes::arc::Bytes) -> Self {
        panic!("batches travel as bytes between processes only, and there is one process")
    }

    fn length_in_bytes(&self) -> usize {
        panic!("batches travel as bytes between processes only, and there is one process")
    }

    fn into_bytes<W: Write>(&self, _: &mut W) {
        panic!("batches travel as bytes between processes only, and there is one process")
    }
}

/// Sends each row to the worker that owns the key group of these columns.
pub(crate) struct ByKeyGroup {
    columns: Vec<usize>,
    /// Made with the first batch, whose types it needs.
    codec: Option<RowCodec>,
    owners: [u16; KEY_GROUPS],
    targets: Vec<Vec<u32>>,
}

impl ByKeyGroup {
    pub fn new(columns: Vec<usize>, workers: usize) -> Self {
        Self {
            columns,
            codec: None,
            owners: KeyGroupRange::owners(workers),
            targets: vec![Vec::new(); workers],
        }
    }

    /// Fills `targets` with the row numbers for each worker.
    fn assign(&mut self, batch: &Batch) {
        self.targets.iter_mut().for_each(Vec::clear);
        if self.columns.is_empty() {
            let owner = self.owners[key_group(hash_key(&[])) as usize] as usize;
            self.targets[owner].extend(0..batch.num_rows() as u32);
            return;
        }
        let keys: Vec<_> = self
            .columns
            .iter()
            .map(|c| batch.column(*c).clone())
            .collect();
        let codec = self.codec.get_or_insert_with(|| {
            let types: Vec<_> = keys.iter().map(|k| k.data_type().clone()).collect();
            RowCodec::new(&types).expect("the planner chose keys that can be encoded")
        });
        let rows = codec
            .encode(&keys)
            .expect("every batch of an edge has the same types");
        for (index, row) in rows.iter().enumerate() {
            let group = key_group(hash_key(row.data()));
            self.targets[self.owners[group as usize] as usize].push(index as u32);
        }
    }
}

impl ByKeyGroup {
    /// The rows of a batch that one worker owns.
    pub fn part(&mut self, batch: &Batch, worker: usize) -> Option<Batch> {
        self.assign(batch);
        let indices = arrow::array::UInt32Array::from(self.targets[worker].clone());
        (!indices.is_empty()).then(|| {
            batch
                .take(&indices)
                .expect("row numbers are within the batch")
        })
    }
}

impl Distributor<Packet> for ByKeyGroup {
    fn partition<T: Clone, P: Push<Message<T, Packet>>>(
        &mut self,
        container: &mut Packet,
        time: &T,
        pushers: &mut [P],
    ) {
        let Some(batch) = container.take() else {
            return;
        };
        self.assign(&batch);
        for (target, pusher) in self.targets.iter().zip(pushers) {
            let part = if target.is_empty() {
                continue;
            } else if target.len() == batch.num_rows() {
                batch.clone()
            } else {
                let indices = arrow::array::UInt32Array::from(target.clone());
                batch
                    .take(&indices)
                    .expect("row numbers are within the batch")
            };
            Message::push_at(&mut Packet(Some(part)), time.clone(), pusher);
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Packet>>>(&mut self, _: &T, _: &mut [P]) {}
}

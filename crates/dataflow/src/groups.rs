//! The keys of an epoch: each distinct one gets a dense number.
//!
//! One integer key is hashed as a number; anything else is encoded once per batch and hashed as bytes. The bytes under which
//! a group's state is kept are the same either way.

use crate::OperatorError;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int16Type, Int32Type, Schema};
use hashbrown::HashTable;
use std::ops::Range;
use tidegate_types::{Batch, ByteRows, RowCodec, hash_key};

pub struct Groups {
    columns: Vec<usize>,
    types: Vec<DataType>,
    /// None when there are no key columns.
    codec: Option<RowCodec>,
    form: Form,
}

enum Form {
    /// No key columns: at most one group.
    Single { present: bool },
    Integer {
        table: HashTable<(i64, u32)>,
        keys: Vec<i64>,
        null: Option<u32>,
    },
    Bytes {
        table: HashTable<(u64, u32)>,
        keys: ByteRows,
    },
}

/// The encoded keys of some groups, and their columns.
pub struct KeyChunk {
    pub keys: ByteRows,
    pub columns: Vec<ArrayRef>,
}

impl Groups {
    pub fn new(columns: &[usize], input: &Schema) -> Result<Self, OperatorError> {
        let types: Vec<DataType> = columns
            .iter()
            .map(|c| input.field(*c).data_type().clone())
            .collect();
        let codec = if types.is_empty() {
            None
        } else {
            Some(RowCodec::new(&types)?)
        };
        let form = match types.as_slice() {
            [] => Form::Single { present: false },
            [one] if is_integer(one) => Form::Integer {
                table: HashTable::new(),
                keys: Vec::new(),
                null: None,
            },
            _ => Form::Bytes {
                table: HashTable::new(),
                keys: ByteRows::new(),
            },
        };
        Ok(Self {
            columns: columns.to_vec(),
            types,
            codec,
            form,
        })
    }

    pub fn len(&self) -> usize {
        match &self.form {
            Form::Single { present } => usize::from(*present),
            Form::Integer { keys, .. } => keys.len(),
            Form::Bytes { keys, .. } => keys.len(),
        }
    }

    /// Makes the one group of an operator without keys, as if a row had come.
    pub fn add_single(&mut self) {
        if let Form::Single { present } = &mut self.form {
            *present = true;
        }
    }

    /// The group number of every row.
    pub fn assign(&mut self, batch: &Batch, numbers: &mut Vec<u32>) -> Result<(), OperatorError> {
        numbers.clear();
        numbers.reserve(batch.num_rows());
        match &mut self.form {
            Form::Single { present } => {
                *present |= batch.num_rows() > 0;
                numbers.resize(batch.num_rows(), 0);
            }
            Form::Integer { table, keys, null } => {
                assign_integers(batch.column(self.columns[0]), table, keys, null, numbers);
            }
            Form::Bytes { table, keys } => {
                let columns: Vec<ArrayRef> = self
                    .columns
                    .iter()
                    .map(|c| batch.column(*c).clone())
                    .collect();
                let rows = self
                    .codec
                    .as_ref()
                    .expect("keys have a codec")
                    .encode(&columns)?;
                for row in rows.iter() {
                    let bytes = row.data();
                    let hash = hash_key(bytes);
                    let same = |&(h, i): &(u64, u32)| h == hash && keys.get(i as usize) == bytes;
                    let number = match table.find(hash, same) {
                        Some(&(_, number)) => number,
                        None => {
                            let number = next_number(keys.len());
                            table.insert_unique(hash, (hash, number), |&(h, _)| h);
                            keys.push(bytes);
                            number
                        }
                    };
                    numbers.push(number);
                }
            }
        }
        Ok(())
    }

    /// Makes a group of each of these keys, which are distinct and of no group yet, in order.
    pub fn add_keys<'a>(
        &mut self,
        encoded: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), OperatorError> {
        match &mut self.form {
            Form::Single { present } => *present |= encoded.count() > 0,
            Form::Integer { table, keys, null } => {
                let codec = self.codec.as_ref().expect("keys have a codec");
                let columns = codec.decode(encoded)?;
                assign_integers(&columns[0], table, keys, null, &mut Vec::new());
            }
            Form::Bytes { table, keys } => {
                for key in encoded {
                    let (hash, number) = (hash_key(key), next_number(keys.len()));
                    table.insert_unique(hash, (hash, number), |&(h, _)| h);
                    keys.push(key);
                }
            }
        }
        Ok(())
    }

    /// Encoded keys and key columns of the groups with these numbers.
    pub fn chunk(&self, range: Range<usize>) -> Result<KeyChunk, OperatorError> {
        let mut encoded = ByteRows::with_capacity(range.len(), range.len() * 9);
        let columns = match &self.form {
            Form::Single { .. } => {
                range.for_each(|_| encoded.push(&[]));
                Vec::new()
            }
            Form::Integer { keys, null, .. } => {
                let nulls = |i: usize| null.is_some_and(|n| n as usize == range.start + i);
                let values = keys[range.clone()]
                    .iter()
                    .enumerate()
                    .map(|(i, k)| (!nulls(i)).then_some(*k));
                let array: ArrayRef = std::sync::Arc::new(values.collect::<Int64Array>());
                let columns = vec![cast(&array, &self.types[0])?];
                let rows = self
                    .codec
                    .as_ref()
                    .expect("keys have a codec")
                    .encode(&columns)?;
                rows.iter().for_each(|row| encoded.push(row.data()));
                columns
            }
            Form::Bytes { keys, .. } => {
                range.for_each(|number| encoded.push(keys.get(number)));
                self.codec
                    .as_ref()
                    .expect("keys have a codec")
                    .decode(encoded.iter())?
            }
        };
        Ok(KeyChunk {
            keys: encoded,
            columns,
        })
    }

    /// Forgets the epoch's keys. Memory beyond what a usual epoch needs is given back.
    pub fn clear(&mut self) {
        const KEEP: usize = 1 << 16;
        match &mut self.form {
            Form::Single { present } => *present = false,
            Form::Integer { table, keys, null } => {
                if keys.len() > KEEP {
                    (*table, *keys) = (HashTable::new(), Vec::new());
                }
                table.clear();
                keys.clear();
                *null = None;
            }
            Form::Bytes { table, keys } => {
                if keys.len() > KEEP {
                    (*table, *keys) = (HashTable::new(), ByteRows::new());
                }
                table.clear();
                keys.clear();
            }
        }
    }
}

fn next_number(groups: usize) -> u32 {
    u32::try_from(groups).expect("an epoch has fewer than 2^32 keys")
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Timestamp(..)
    )
}

/// The values of an integer-like array as i64; what NULL slots hold means nothing.
pub fn widen(array: &ArrayRef) -> Option<ScalarBuffer<i64>> {
    use arrow::datatypes::{Date32Type, Int8Type, UInt8Type, UInt16Type, UInt32Type};
    Some(match array.data_type() {
        DataType::Int8 => array
            .as_primitive::<Int8Type>()
            .values()
            .iter()
            .map(|v| i64::from(*v))
            .collect(),
        DataType::Int16 => array
            .as_primitive::<Int16Type>()
            .values()
            .iter()
            .map(|v| i64::from(*v))
            .collect(),
        DataType::Int32 => array
            .as_primitive::<Int32Type>()
            .values()
            .iter()
            .map(|v| i64::from(*v))
            .collect(),
        DataType::UInt8 => array
            .as_primitive::<UInt8Type>()
            .values()
            .iter()
            .map(|v| i64::from(*v))
            .collect(),
        DataType::UInt16 => array
            .as_primitive::<UInt16Type>()
            .values()
            .iter()
            .map(|v| i64::from(*v))
            .collect(),
        DataType::UInt32 => array
            .as_primitive::<UInt32Type>()
            .values()
            .iter()
            .map(|v| i64::from(*v))
            .collect(),
        DataType::Date32 => array
            .as_primitive::<Date32Type>()
            .values()
            .iter()
            .map(|v| i64::from(*v))
            .collect(),
        DataType::Int64 | DataType::Timestamp(..) | DataType::Time64(_) | DataType::Date64 => {
            let data = array.to_data();
            ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
        }
        _ => return None,
    })
}

fn assign_integers(
    column: &ArrayRef,
    table: &mut HashTable<(i64, u32)>,
    keys: &mut Vec<i64>,
    null: &mut Option<u32>,
    numbers: &mut Vec<u32>,
) {
    let values = widen(column).expect("this form is chosen for integers");
    let nulls = column.nulls().filter(|n| n.null_count() > 0);
    for (row, value) in values.iter().enumerate() {
        if nulls.is_some_and(|n| n.is_null(row)) {
            let number = *null.get_or_insert_with(|| {
                keys.push(0);
                next_number(keys.len() - 1)
            });
            numbers.push(number);
            continue;
        }
        let hash = hash_integer(*value);
        let number = match table.find(hash, |(key, _)| key == value) {
            Some(&(_, number)) => number,
            None => {
                let number = next_number(keys.len());
                table.insert_unique(hash, (*value, number), |&(key, _)| hash_integer(key));
                keys.push(*value);
                number
            }
        };
        numbers.push(number);
    }
}

/// Only ever compared within one process, so any well-mixed function will do.
fn hash_integer(value: i64) -> u64 {
    let product = u128::from(value as u64 ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
    (product >> 64) as u64 ^ product as u64
}

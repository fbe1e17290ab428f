//! One side of a join: how its rows become keys and rests, and a batch of them grouped and consolidated.

use crate::OperatorError;
use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::Rows;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tidegate_plan::join_state::{JoinRows, join_rest_columns};
use tidegate_types::key::canonical_floats;
use tidegate_types::{Batch, PackedCodec, PackedRows, RowCodec, hash_key};

/// Where a column of a side is found in its state.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Key(usize),
    Rest(usize),
}

/// How the columns that are not keys are written: small, unless the compared column of a `NOT IN` leads them, whose
/// values are looked up by range.
enum RestCodec {
    Packed(PackedCodec),
    Ordered(RowCodec),
}

/// The rests of a batch.
enum Rests {
    Packed(PackedRows),
    Ordered(Rows),
}

impl RestCodec {
    fn new(types: &[DataType], ordered: bool) -> Result<Self, ArrowError> {
        match ordered {
            true => RowCodec::new(types).map(Self::Ordered),
            false => PackedCodec::new(types).map(Self::Packed),
        }
    }

    fn encode(&self, columns: &[ArrayRef]) -> Result<Rests, ArrowError> {
        match self {
            Self::Packed(codec) => codec.encode(columns).map(Rests::Packed),
            Self::Ordered(codec) => codec.encode(columns).map(Rests::Ordered),
        }
    }
}

impl Rests {
    fn get(&self, row: usize) -> &[u8] {
        match self {
            Self::Packed(rows) => rows.row(row),
            Self::Ordered(rows) => rows.row(row).data(),
        }
    }
}

pub(super) struct Side {
    /// The columns that bring rows together with the other side's.
    pub keys: Vec<usize>,
    /// The other columns that are kept.
    rest: Vec<usize>,
    /// Of every column; not all of them when only counts are kept.
    pub places: Vec<Place>,
    key_codec: Option<RowCodec>,
    rest_codec: Option<RestCodec>,
    /// Rows with a NULL among their keys take part like others.
    match_nulls: bool,
}

impl Side {
    /// `first` is the column that leads the rests, if one has to.
    pub fn new(
        schema: &SchemaRef,
        keys: &[usize],
        rows: JoinRows,
        first: Option<usize>,
        match_nulls: bool,
    ) -> Result<Self, ArrowError> {
        let rest = join_rest_columns(rows, keys, first, schema.fields().len());
        let place = |column: usize| match keys.iter().position(|k| *k == column) {
            Some(key) => Some(Place::Key(key)),
            None => rest.iter().position(|r| *r == column).map(Place::Rest),
        };
        let places = (0..schema.fields().len()).map_while(place).collect();
        let types = |columns: &[usize]| -> Option<Vec<DataType>> {
            let type_of = |c: &usize| schema.field(*c).data_type().clone();
            (!columns.is_empty()).then(|| columns.iter().map(type_of).collect())
        };
        Ok(Self {
            key_codec: types(keys).map(|t| RowCodec::new(&t)).transpose()?,
            rest_codec: types(&rest)
                .map(|t| RestCodec::new(&t, first.is_some()))
                .transpose()?,
            keys: keys.to_vec(),
            rest,
            places,
            match_nulls,
        })
    }

    /// Rows that can match, and rows that cannot because a key is NULL.
    pub fn split_nulls(&self, batch: Batch) -> Result<(Batch, Option<Batch>), ArrowError> {
        if self.match_nulls
            || self
                .keys
                .iter()
                .all(|k| batch.column(*k).logical_null_count() == 0)
        {
            return Ok((batch, None));
        }
        let mut valid = BooleanBuffer::new_set(batch.num_rows());
        for key in &self.keys {
            if let Some(nulls) = batch.column(*key).logical_nulls() {
                valid = &valid & nulls.inner();
            }
        }
        let lone = batch.filter(&BooleanArray::new(!&valid, None))?;
        Ok((batch.filter(&BooleanArray::new(valid, None))?, Some(lone)))
    }

    /// The batch with one row per distinct row, grouped by key. Rows whose diffs cancel are gone.
    pub fn group(&self, batch: Batch) -> Result<Grouped, ArrowError> {
        let (rows, diffs) = batch.into_parts();
        let count = rows.num_rows();
        let columns: Vec<ArrayRef> = rows.columns().iter().map(canonical_floats).collect();
        let picked =
            |of: &[usize]| -> Vec<ArrayRef> { of.iter().map(|c| columns[*c].clone()).collect() };
        let keys = self.key_codec.as_ref();
        let rests = self.rest_codec.as_ref();
        let mut grouped = Grouped {
            keys: keys.map(|c| c.encode(&picked(&self.keys))).transpose()?,
            rests: rests.map(|c| c.encode(&picked(&self.rest))).transpose()?,
            diffs: diffs.map_or_else(|| vec![1; count], |d| d.values().to_vec()),
            key_of: Vec::with_capacity(count),
            first_of_key: Vec::new(),
            key_hashes: Vec::new(),
            source: None,
            columns,
        };
        grouped.group_keys(count);
        grouped.consolidate()?;
        Ok(grouped)
    }

    /// The kept columns that are not keys, from their bytes.
    pub fn decode_rests<'a>(
        &self,
        rests: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        match &self.rest_codec {
            Some(RestCodec::Packed(codec)) => codec.decode(rests),
            Some(RestCodec::Ordered(codec)) => codec.decode(rests),
            None => Ok(Vec::new()),
        }
    }

    /// All columns of the side in their order, from state.
    pub fn decode<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
        rests: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let keys = match &self.key_codec {
            Some(codec) => codec.decode(keys)?,
            None => Vec::new(),
        };
        let rests = self.decode_rests(rests)?;
        let column = |place: &Place| match place {
            Place::Key(index) => keys[*index].clone(),
            Place::Rest(index) => rests[*index].clone(),
        };
        Ok(self.places.iter().map(column).collect())
    }
}

/// A consolidated batch of one side: distinct rows with non-zero diffs, each with the index of its key.
pub(super) struct Grouped {
    pub columns: Vec<ArrayRef>,
    pub diffs: Vec<i64>,
    /// For each row its key.
    pub key_of: Vec<u32>,
    /// For each key a row (of the encoding) that has it.
    first_of_key: Vec<u32>,
    pub key_hashes: Vec<u64>,
    keys: Option<Rows>,
    rests: Option<Rests>,
    /// For each row its index in the encoding, where consolidation removed some.
    source: Option<Vec<u32>>,
}

impl Grouped {
    pub fn num_rows(&self) -> usize {
        self.diffs.len()
    }

    pub fn num_keys(&self) -> usize {
        self.first_of_key.len()
    }

    pub fn key(&self, key: u32) -> &[u8] {
        let row = self.first_of_key[key as usize] as usize;
        self.keys.as_ref().map_or(&[], |keys| keys.row(row).data())
    }

    pub fn rest(&self, row: usize) -> &[u8] {
        let source = self.source.as_ref().map_or(row, |s| s[row] as usize);
        encoded(&self.rests, source)
    }

    pub fn row_key(&self, row: usize) -> &[u8] {
        self.key(self.key_of[row])
    }

    fn group_keys(&mut self, count: usize) {
        let Some(keys) = &self.keys else {
            self.key_of = vec![0; count];
            if count > 0 {
                self.first_of_key.push(0);
                self.key_hashes.push(hash_key(&[]));
            }
            return;
        };
        let mut table: HashTable<u32> = HashTable::with_capacity(count);
        for row in 0..count {
            let key = keys.row(row).data();
            let hash = hash_key(key);
            let (firsts, hashes) = (&self.first_of_key, &self.key_hashes);
            let same = |other: &u32| {
                hashes[*other as usize] == hash
                    && keys.row(firsts[*other as usize] as usize).data() == key
            };
            let index = match table.entry(hash, same, |other| hashes[*other as usize]) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    let index = firsts.len() as u32;
                    entry.insert(index);
                    self.first_of_key.push(row as u32);
                    self.key_hashes.push(hash);
                    index
                }
            };
            self.key_of.push(index);
        }
    }

    /// Merges equal rows and drops those whose diffs cancel.
    fn consolidate(&mut self) -> Result<(), ArrowError> {
        let count = self.diffs.len();
        let mut table: HashTable<u32> = HashTable::with_capacity(count);
        let mut hashes = Vec::with_capacity(count);
        let mut kept: Vec<u32> = Vec::with_capacity(count);
        let mut sums: Vec<i64> = Vec::with_capacity(count);
        for row in 0..count {
            let (key, rest) = (self.key_of[row], encoded(&self.rests, row));
            let hash = hash_row(self.key_hashes[key as usize], rest);
            let same = |other: &u32| {
                let source = kept[*other as usize] as usize;
                hashes[*other as usize] == hash
                    && self.key_of[source] == key
                    && encoded(&self.rests, source) == rest
            };
            match table.entry(hash, same, |other| hashes[*other as usize]) {
                Entry::Occupied(entry) => sums[*entry.get() as usize] += self.diffs[row],
                Entry::Vacant(entry) => {
                    entry.insert(kept.len() as u32);
                    hashes.push(hash);
                    kept.push(row as u32);
                    sums.push(self.diffs[row]);
                }
            }
        }
        if kept.len() == count && sums.iter().all(|s| *s != 0) {
            return Ok(());
        }
        let live: Vec<usize> = (0..kept.len()).filter(|i| sums[*i] != 0).collect();
        let source: Vec<u32> = live.iter().map(|i| kept[*i]).collect();
        self.diffs = live.iter().map(|i| sums[*i]).collect();
        self.key_of = source.iter().map(|s| self.key_of[*s as usize]).collect();
        let indices = UInt32Array::from(source.clone());
        for column in &mut self.columns {
            *column = take(column, &indices, None)?;
        }
        self.source = Some(source);
        Ok(())
    }

    /// The diffs of the rows of each key, added up.
    pub fn key_diffs(&self) -> Vec<i64> {
        let mut sums = vec![0; self.num_keys()];
        for (key, diff) in self.key_of.iter().zip(&self.diffs) {
            sums[*key as usize] += diff;
        }
        sums
    }
}

/// The hash of a row from that of its key and its other bytes.
pub(super) fn hash_row(key_hash: u64, rest: &[u8]) -> u64 {
    key_hash.rotate_left(29).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ hash_key(rest)
}

fn encoded(rests: &Option<Rests>, row: usize) -> &[u8] {
    rests.as_ref().map_or(&[], |rests| rests.get(row))
}

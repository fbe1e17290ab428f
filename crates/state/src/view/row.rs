//! How a view's rows become bytes: the key columns first, then the others in order.

use crate::StateError;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::Rows;
use std::sync::Arc;
use tidegate_types::{KeyGroup, RowCodec, hash_key, key_group};

pub struct RowLayout {
    schema: SchemaRef,
    /// For each encoded column, which column of the schema it is.
    encoded: Vec<usize>,
    /// For each column of the schema, where it is among the encoded ones.
    places: Vec<usize>,
    key_columns: usize,
    codec: RowCodec,
    /// Of the key columns alone, when they are some but not all.
    key_codec: Option<RowCodec>,
}

/// Rows with their key groups.
pub struct EncodedRows {
    pub rows: Rows,
    pub groups: Vec<KeyGroup>,
}

impl RowLayout {
    pub fn new(schema: SchemaRef, key: &[usize]) -> Result<Self, StateError> {
        let columns = schema.fields().len();
        if columns == 0 {
            return Err(StateError::Backend("a view needs a column".into()));
        }
        let mut encoded = key.to_vec();
        encoded.extend((0..columns).filter(|c| !key.contains(c)));
        let mut places = vec![0; columns];
        for (place, column) in encoded.iter().enumerate() {
            places[*column] = place;
        }
        let types: Vec<DataType> = encoded
            .iter()
            .map(|c| schema.field(*c).data_type().clone())
            .collect();
        let some_but_not_all = !key.is_empty() && key.len() < columns;
        let key_codec = match some_but_not_all {
            true => Some(RowCodec::new(&types[..key.len()])?),
            false => None,
        };
        Ok(Self {
            codec: RowCodec::new(&types)?,
            key_columns: key.len(),
            schema,
            encoded,
            places,
            key_codec,
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows encoded, each with the key group of its key (of the whole row when there is no key).
    pub fn encode(&self, rows: &RecordBatch) -> Result<EncodedRows, StateError> {
        let columns: Vec<ArrayRef> = self
            .encoded
            .iter()
            .map(|c| rows.column(*c).clone())
            .collect();
        let encoded = self.codec.encode(&columns)?;
        let group = |row: &[u8]| key_group(hash_key(row));
        let groups = match &self.key_codec {
            Some(codec) => {
                let keys = codec.encode(&columns[..self.key_columns])?;
                keys.iter().map(|k| group(k.data())).collect()
            }
            None => encoded.iter().map(|r| group(r.data())).collect(),
        };
        Ok(EncodedRows {
            rows: encoded,
            groups,
        })
    }

    /// The bytes of keys given as columns, in the order of the view's key.
    pub fn encode_keys(&self, columns: &[ArrayRef]) -> Result<Rows, StateError> {
        match &self.key_codec {
            Some(codec) => Ok(codec.encode(columns)?),
            None => Ok(self.codec.encode(columns)?),
        }
    }

    /// The columns asked for (all when `None`) of encoded rows.
    pub fn decode<'a>(
        &self,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
        columns: Option<&[usize]>,
    ) -> Result<RecordBatch, StateError> {
        let count = rows.len();
        let schema = self.projected(columns)?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        if schema.fields().is_empty() {
            return Ok(RecordBatch::try_new_with_options(schema, vec![], &options)?);
        }
        let decoded = self.codec.decode(rows)?;
        let place = |column: &usize| decoded[self.places[*column]].clone();
        let arrays = match columns {
            Some(columns) => columns.iter().map(place).collect(),
            None => (0..self.places.len()).map(|c| place(&c)).collect(),
        };
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }

    pub fn projected(&self, columns: Option<&[usize]>) -> Result<SchemaRef, StateError> {
        match columns {
            Some(columns) => Ok(Arc::new(self.schema.project(columns)?)),
            None => Ok(self.schema.clone()),
        }
    }
}

//! Rows as bytes that compare like the rows, and key groups.
//!
//! The encoding is Arrow's row format (ascending, NULLs first unless asked otherwise) over canonical values: `-0.0`
//! becomes `0.0` and every NaN the same NaN, so that equal rows have equal bytes. For fixed types it is prefix-free:
//! the bytes of key columns followed by those of other columns can be told apart and compare column by column.
//! `CODEC_VERSION` is written into manifests; the tests pin the bytes.

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray, PrimitiveArray,
    downcast_primitive_array,
};
use arrow::compute::SortOptions;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, RowParser, Rows, SortField};
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The number of key groups, fixed for the life of a database and recorded in its manifests.
pub const KEY_GROUPS: usize = 256;

/// The version of the row encoding.
pub const CODEC_VERSION: u32 = 1;

/// Which of the [`KEY_GROUPS`] a key belongs to.
pub type KeyGroup = u8;

/// The hash from which routing and hash tables start.
pub fn hash_key(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The key group of a hashed key: its low byte, so that hash tables may use the high bits.
pub fn key_group(hash: u64) -> KeyGroup {
    hash as u8
}

/// The contiguous key groups that one worker owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyGroupRange {
    pub start: usize,
    pub end: usize,
}

impl KeyGroupRange {
    pub const ALL: Self = Self {
        start: 0,
        end: KEY_GROUPS,
    };

    pub fn of_worker(worker: usize, workers: usize) -> Self {
        Self {
            start: worker * KEY_GROUPS / workers,
            end: (worker + 1) * KEY_GROUPS / workers,
        }
    }

    pub fn contains(&self, group: KeyGroup) -> bool {
        (self.start..self.end).contains(&(group as usize))
    }

    pub fn iter(&self) -> impl Iterator<Item = KeyGroup> + use<> {
        let Range { start, end } = self.start..self.end;
        (start..end).map(|g| g as KeyGroup)
    }

    /// For each key group the worker that owns it.
    pub fn owners(workers: usize) -> [u16; KEY_GROUPS] {
        let mut owners = [0u16; KEY_GROUPS];
        for worker in 0..workers {
            for group in Self::of_worker(worker, workers).iter() {
                owners[group as usize] = worker as u16;
            }
        }
        owners
    }
}

/// Encodes columns of fixed types into comparable bytes and back.
pub struct RowCodec {
    converter: RowConverter,
    parser: RowParser,
    types: Vec<DataType>,
    floats: bool,
}

impl RowCodec {
    /// All columns ascending, NULLs first.
    pub fn new(types: &[DataType]) -> Result<Self, ArrowError> {
        Self::with_order(
            types
                .iter()
                .map(|t| (t.clone(), SortOptions::default()))
                .collect(),
        )
    }

    /// Each column with its own direction and place of NULLs.
    pub fn with_order(columns: Vec<(DataType, SortOptions)>) -> Result<Self, ArrowError> {
        let types: Vec<DataType> = columns.iter().map(|(t, _)| t.clone()).collect();
        let fields = columns
            .into_iter()
            .map(|(t, o)| SortField::new_with_options(t, o))
            .collect();
        let converter = RowConverter::new(fields)?;
        let parser = converter.parser();
        let floats = types.iter().any(has_floats);
        Ok(Self {
            converter,
            parser,
            types,
            floats,
        })
    }

    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows, ArrowError> {
        // Without columns a converter cannot know how many rows there are: see `encode_counted`.
        assert!(
            !columns.is_empty(),
            "a row without columns has no encoding of its own"
        );
        if self.floats {
            let canonical: Vec<ArrayRef> = columns.iter().map(canonical_floats).collect();
            self.converter.convert_columns(&canonical)
        } else {
            self.converter.convert_columns(columns)
        }
    }

    /// Columns from bytes that this codec (or one of the same types and order) made.
    pub fn decode<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let columns = self
            .converter
            .convert_rows(rows.into_iter().map(|r| self.parser.parse(r)))?;
        Ok(columns.into_iter().map(zero_null_slots).collect())
    }
}

/// The same array with zero in the slots of its NULLs, where Arrow's row format leaves the smallest number of the type.
/// Functions that compute on all slots and mask afterwards would overflow there.
fn zero_null_slots(array: ArrayRef) -> ArrayRef {
    if let DataType::List(field) = array.data_type() {
        let list = array.as_list::<i32>();
        let values = zero_null_slots(list.values().clone());
        let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
        return Arc::new(ListArray::new(field.clone(), offsets, values, nulls));
    }
    if array.null_count() == 0 {
        return array;
    }
    let primitive = array.as_ref();
    downcast_primitive_array!(
        primitive => Arc::new(zeroed(primitive)),
        _ => array
    )
}

fn zeroed<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> PrimitiveArray<T> {
    let mut values = array.values().to_vec();
    for (row, value) in values.iter_mut().enumerate() {
        if array.is_null(row) {
            *value = T::default_value();
        }
    }
    PrimitiveArray::new(values.into(), array.nulls().cloned())
        .with_data_type(array.data_type().clone())
}

fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
            has_floats(f.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|f| has_floats(f.data_type())),
        _ => false,
    }
}

/// The same array with `-0.0` and the many NaNs each in one form. Values inside lists and structs too.
pub fn canonical_floats(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            if values
                .values()
                .iter()
                .all(|v| v.to_bits() == canonical64(*v).to_bits())
            {
                return array.clone();
            }
            let canonical: Float64Array = values.unary(canonical64);
            Arc::new(canonical)
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            let canonical: Float32Array =
                values.unary(|v| if v.is_nan() { f32::NAN } else { v + 0.0 });
            Arc::new(canonical)
        }
        DataType::List(field) if has_floats(field.data_type()) => {
            let list = array.as_list::<i32>();
            Arc::new(arrow::array::ListArray::new(
                field.clone(),
                list.offsets().clone(),
                canonical_floats(list.values()),
                list.nulls().cloned(),
            ))
        }
        DataType::Struct(fields) if fields.iter().any(|f| has_floats(f.data_type())) => {
            let columns = array
                .as_struct()
                .columns()
                .iter()
                .map(canonical_floats)
                .collect();
            Arc::new(arrow::array::StructArray::new(
                fields.clone(),
                columns,
                array.nulls().cloned(),
            ))
        }
        _ => array.clone(),
    }
}

fn canonical64(value: f64) -> f64 {
    // Adding zero turns -0.0 into 0.0 and leaves every other number as it is.
    if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    fn encode(columns: &[ArrayRef]) -> Vec<Vec<u8>> {
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        let codec = RowCodec::new(&types).expect("supported types");
        let rows = codec.encode(columns).expect("same types");
        rows.iter().map(|r| r.as_ref().to_vec()).collect()
    }

    #[test]
    fn equal_floats_have_equal_bytes() {
        let odd_nan = f64::from_bits(0xfff8_0000_0000_0001);
        let column: ArrayRef =
            Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, odd_nan, -1.0]));
        let rows = encode(&[column]);
        assert_eq!(rows[0], rows[1]);
        assert_eq!(rows[2], rows[3]);
        assert!(rows[4] < rows[0] && rows[0] < rows[2]);
    }

    #[test]
    fn bytes_are_pinned() {
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let s: ArrayRef = Arc::new(StringArray::from(vec![Some("ab"), Some("")]));
        let rows = encode(&[n, s]);
        assert_eq!(
            rows[0],
            [
                1, 0x80, 0, 0, 0, 0, 0, 0, 1, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 2
            ]
        );
        assert_eq!(rows[1], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn rows_survive_the_round_trip() {
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(-3)]));
        let s: ArrayRef = Arc::new(StringArray::from(vec![
            Some("x"),
            Some("long enough to need blocks"),
            None,
        ]));
        let codec = RowCodec::new(&[DataType::Int64, DataType::Utf8]).expect("supported");
        let rows = codec.encode(&[n.clone(), s.clone()]).expect("same types");
        let back = codec
            .decode(rows.iter().map(|r| r.data()))
            .expect("own bytes");
        assert_eq!(&back[0], &n);
        assert_eq!(&back[1], &s);
    }

    #[test]
    fn slots_of_nulls_are_zero() {
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(7), None]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![None, Some(3)]),
            None,
        ]));
        let types = [column.data_type().clone(), lists.data_type().clone()];
        let codec = RowCodec::new(&types).expect("supported");
        let rows = codec.encode(&[column, lists]).expect("same types");
        let back = codec
            .decode(rows.iter().map(|r| r.data()))
            .expect("own bytes");
        let times = back[0].as_primitive::<TimestampMicrosecondType>();
        assert_eq!(
            (times.values().as_ref(), times.is_null(1)),
            (&[7, 0][..], true)
        );
        let inside = back[1]
            .as_list::<i32>()
            .values()
            .as_primitive::<Int64Type>();
        assert_eq!(
            (inside.values().as_ref(), inside.is_null(0)),
            (&[0, 3][..], true)
        );
    }

    #[test]
    fn every_group_has_one_owner() {
        for workers in 1..9 {
            let owners = KeyGroupRange::owners(workers);
            for worker in 0..workers {
                let range = KeyGroupRange::of_worker(worker, workers);
                assert!(range.iter().all(|g| owners[g as usize] == worker as u16));
            }
            assert!(owners.windows(2).all(|w| w[0] <= w[1]));
        }
    }
}

//! Rows as bytes that are small and quick to make, and do not compare.
//!
//! Equal rows have equal bytes, and that is all: for what is only kept and given back, like the columns of a join's rows
//! that are not keys. Where order or prefixes count there is [`RowCodec`].
//!
//! A row is a bitmap of the columns that are not NULL, one bit each, then the values of those in order: integers as zigzag
//! LEB128, texts and binaries after their length, other types of fixed width as they lie in memory (little endian), and
//! anything else as its `RowCodec` bytes after their length. It is written and read a column at a time.

use crate::RowCodec;
use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BinaryArray, BooleanArray, GenericByteArray, Int16Array,
    Int32Array, Int64Array, StringArray, make_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, BinaryType, ByteArrayType, DataType, Int16Type, Int32Type, Int64Type,
    Utf8Type,
};
use arrow::error::ArrowError;
use std::sync::Arc;

/// Encodes columns of fixed types into packed rows and back.
pub struct PackedCodec {
    columns: Vec<Column>,
}

struct Column {
    data_type: DataType,
    form: Form,
}

enum Form {
    Integer,
    Boolean,
    Bytes,
    Fixed(usize),
    Other(Box<RowCodec>),
}

/// The packed rows of a batch.
pub struct PackedRows {
    bytes: Vec<u8>,
    /// Where each row starts, and where the last one ends.
    starts: Vec<usize>,
}

impl PackedRows {
    pub fn row(&self, index: usize) -> &[u8] {
        &self.bytes[self.starts[index]..self.starts[index + 1]]
    }

    pub fn num_rows(&self) -> usize {
        self.starts.len() - 1
    }
}

impl PackedCodec {
    pub fn new(types: &[DataType]) -> Result<Self, ArrowError> {
        let column = |data_type: &DataType| -> Result<Column, ArrowError> {
            let form = match data_type {
                DataType::Int16 | DataType::Int32 | DataType::Int64 => Form::Integer,
                DataType::Boolean => Form::Boolean,
                DataType::Utf8 | DataType::Binary => Form::Bytes,
                DataType::FixedSizeBinary(width) => Form::Fixed(*width as usize),
                other => match other.primitive_width() {
                    Some(width @ (1 | 2 | 4 | 8 | 16 | 32)) => Form::Fixed(width),
                    _ => Form::Other(Box::new(RowCodec::new(std::slice::from_ref(other))?)),
                },
            };
            Ok(Column {
                data_type: data_type.clone(),
                form,
            })
        };
        Ok(Self {
            columns: types.iter().map(column).collect::<Result<_, _>>()?,
        })
    }

    fn bitmap_bytes(&self) -> usize {
        self.columns.len().div_ceil(8)
    }

    /// All columns have the codec's types and the same length. Floats should be canonical (see `canonical_floats`).
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<PackedRows, ArrowError> {
        let rows = columns.first().map_or(0, |c| c.len());
        let others = self
            .columns
            .iter()
            .zip(columns)
            .map(|(column, array)| match &column.form {
                Form::Other(codec) => codec.encode(std::slice::from_ref(array)).map(Some),
                _ => Ok(None),
            })
            .collect::<Result<Vec<_>, ArrowError>>()?;
        let mut starts = vec![self.bitmap_bytes(); rows + 1];
        for ((column, array), other) in self.columns.iter().zip(columns).zip(&others) {
            let lengths = &mut starts[..rows];
            match &column.form {
                Form::Integer => each_integer(array, |row, value| {
                    lengths[row] += varint_length(zigzag(value));
                }),
                Form::Boolean => each_valid(array, |row| lengths[row] += 1),
                Form::Fixed(width) => each_valid(array, |row| lengths[row] += width),
                Form::Bytes => each_bytes(array, |row, value| {
                    lengths[row] += varint_length(value.len() as u64) + value.len();
                }),
                Form::Other(_) => {
                    let encoded = other.as_ref().expect("encoded above");
                    each_valid(array, |row| {
                        let length = encoded.row(row).data().len();
                        lengths[row] += varint_length(length as u64) + length;
                    });
                }
            }
        }
        let mut end = 0;
        for start in &mut starts {
            end += std::mem::replace(start, end);
        }
        let mut bytes = vec![0u8; starts[rows]];
        let mut cursors: Vec<usize> = starts[..rows]
            .iter()
            .map(|start| start + self.bitmap_bytes())
            .collect();
        for (index, ((column, array), other)) in
            self.columns.iter().zip(columns).zip(&others).enumerate()
        {
            let (byte, bit) = (index / 8, 1u8 << (index % 8));
            each_valid(array, |row| bytes[starts[row] + byte] |= bit);
            match &column.form {
                Form::Integer => each_integer(array, |row, value| {
                    write_varint(&mut bytes, &mut cursors[row], zigzag(value));
                }),
                Form::Boolean => {
                    let values = array.as_boolean();
                    each_valid(array, |row| {
                        bytes[cursors[row]] = u8::from(values.value(row));
                        cursors[row] += 1;
                    });
                }
                Form::Fixed(width) => write_fixed(array, *width, &mut bytes, &mut cursors),
                Form::Bytes => each_bytes(array, |row, value| {
                    write_bytes(&mut bytes, &mut cursors[row], value);
                }),
                Form::Other(_) => {
                    let encoded = other.as_ref().expect("encoded above");
                    each_valid(array, |row| {
                        write_bytes(&mut bytes, &mut cursors[row], encoded.row(row).data());
                    });
                }
            }
        }
        Ok(PackedRows { bytes, starts })
    }

    /// Columns from rows that a codec of the same types made.
    pub fn decode<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let rows: Vec<&[u8]> = rows.into_iter().collect();
        let mut cursors = vec![self.bitmap_bytes(); rows.len()];
        if rows.iter().any(|row| row.len() < self.bitmap_bytes()) {
            return Err(damaged());
        }
        let mut columns = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter().enumerate() {
            let present = |row: &&[u8]| row[index / 8] & (1 << (index % 8)) != 0;
            let nulls: NullBuffer = rows.iter().map(present).collect::<Vec<bool>>().into();
            let nulls = (nulls.null_count() > 0).then_some(nulls);
            columns.push(column.decode(&rows, &mut cursors, nulls)?);
        }
        let whole = rows.iter().zip(&cursors).all(|(row, at)| row.len() == *at);
        if whole { Ok(columns) } else { Err(damaged()) }
    }
}

impl Column {
    fn decode(
        &self,
        rows: &[&[u8]],
        cursors: &mut [usize],
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        Ok(match (&self.form, &self.data_type) {
            (Form::Integer, DataType::Int16) => Arc::new(Int16Array::new(
                read_integers::<Int16Type>(rows, cursors, nulls.as_ref())?,
                nulls,
            )),
            (Form::Integer, DataType::Int32) => Arc::new(Int32Array::new(
                read_integers::<Int32Type>(rows, cursors, nulls.as_ref())?,
                nulls,
            )),
            (Form::Integer, _) => Arc::new(Int64Array::new(
                read_integers::<Int64Type>(rows, cursors, nulls.as_ref())?,
                nulls,
            )),
            (Form::Boolean, _) => {
                let mut values = Vec::with_capacity(rows.len());
                read_each(rows, cursors, nulls.as_ref(), |row, at| {
                    values.push(match row {
                        Some(row) => take(row, at, 1)?[0] != 0,
                        None => false,
                    });
                    Ok(())
                })?;
                Arc::new(BooleanArray::new(values.into(), nulls))
            }
            (Form::Bytes, DataType::Utf8) => {
                let (offsets, data) = read_strings(rows, cursors, nulls.as_ref())?;
                Arc::new(StringArray::try_new(offsets, data, nulls)?)
            }
            (Form::Bytes, _) => {
                let (offsets, data) = read_strings(rows, cursors, nulls.as_ref())?;
                Arc::new(BinaryArray::try_new(offsets, data, nulls)?)
            }
            (Form::Fixed(width), data_type) => {
                let mut values = Vec::with_capacity(rows.len() * width);
                read_each(rows, cursors, nulls.as_ref(), |row, at| {
                    match row {
                        Some(row) => values.extend_from_slice(take(row, at, *width)?),
                        None => values.resize(values.len() + width, 0),
                    }
                    Ok(())
                })?;
                let data = ArrayData::builder(data_type.clone())
                    .len(rows.len())
                    .nulls(nulls)
                    .add_buffer(Buffer::from_vec(values))
                    .align_buffers(true)
                    .build()?;
                make_array(data)
            }
            (Form::Other(codec), _) => {
                let null = codec.encode(&[arrow::array::new_null_array(&self.data_type, 1)])?;
                let mut encoded: Vec<&[u8]> = Vec::with_capacity(rows.len());
                read_each(rows, cursors, nulls.as_ref(), |row, at| {
                    encoded.push(match row {
                        Some(row) => {
                            let length = read_varint(row, at)? as usize;
                            take(row, at, length)?
                        }
                        None => null.row(0).data(),
                    });
                    Ok(())
                })?;
                codec.decode(encoded)?.swap_remove(0)
            }
        })
    }
}

fn damaged() -> ArrowError {
    ArrowError::ParseError("a packed row is damaged".into())
}

/// Calls with the rows that are not NULL.
fn each_valid(array: &ArrayRef, mut visit: impl FnMut(usize)) {
    match array.nulls().filter(|n| n.null_count() > 0) {
        None => (0..array.len()).for_each(visit),
        Some(nulls) => nulls.valid_indices().for_each(&mut visit),
    }
}

fn each_integer(array: &ArrayRef, mut visit: impl FnMut(usize, i64)) {
    match array.data_type() {
        DataType::Int16 => {
            let values = array.as_primitive::<Int16Type>().values();
            each_valid(array, |row| visit(row, values[row].into()));
        }
        DataType::Int32 => {
            let values = array.as_primitive::<Int32Type>().values();
            each_valid(array, |row| visit(row, values[row].into()));
        }
        _ => {
            let values = array.as_primitive::<Int64Type>().values();
            each_valid(array, |row| visit(row, values[row]));
        }
    }
}

fn each_bytes(array: &ArrayRef, visit: impl FnMut(usize, &[u8])) {
    fn each<T: ByteArrayType>(
        array: &ArrayRef,
        values: &GenericByteArray<T>,
        mut visit: impl FnMut(usize, &[u8]),
    ) {
        each_valid(array, |row| visit(row, values.value(row).as_ref()));
    }
    match array.data_type() {
        DataType::Utf8 => each(array, array.as_bytes::<Utf8Type>(), visit),
        _ => each(array, array.as_bytes::<BinaryType>(), visit),
    }
}

fn write_fixed(array: &ArrayRef, width: usize, bytes: &mut [u8], cursors: &mut [usize]) {
    let data = array.to_data();
    let values = &data.buffers()[0].as_slice()[data.offset() * width..];
    // A width that the compiler knows makes a move instead of a call.
    match width {
        4 => write_wide::<4>(array, values, bytes, cursors),
        8 => write_wide::<8>(array, values, bytes, cursors),
        16 => write_wide::<16>(array, values, bytes, cursors),
        _ => each_valid(array, |row| {
            let at = cursors[row];
            bytes[at..at + width].copy_from_slice(&values[row * width..(row + 1) * width]);
            cursors[row] += width;
        }),
    }
}

fn write_wide<const WIDTH: usize>(
    array: &ArrayRef,
    values: &[u8],
    bytes: &mut [u8],
    cursors: &mut [usize],
) {
    let (values, _) = values.as_chunks::<WIDTH>();
    each_valid(array, |row| {
        let at = cursors[row];
        bytes[at..at + WIDTH].copy_from_slice(&values[row]);
        cursors[row] += WIDTH;
    });
}

fn write_bytes(bytes: &mut [u8], at: &mut usize, value: &[u8]) {
    write_varint(bytes, at, value.len() as u64);
    bytes[*at..*at + value.len()].copy_from_slice(value);
    *at += value.len();
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn write_varint(bytes: &mut [u8], at: &mut usize, mut value: u64) {
    while value >= 0x80 {
        bytes[*at] = value as u8 | 0x80;
        *at += 1;
        value >>= 7;
    }
    bytes[*at] = value as u8;
    *at += 1;
}

fn read_varint(row: &[u8], at: &mut usize) -> Result<u64, ArrowError> {
    let mut value = 0u64;
    let mut shift = 0;
    loop {
        let byte = *row.get(*at).ok_or_else(damaged)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
        shift += 7;
        if shift > 63 {
            return Err(damaged());
        }
    }
}

fn take<'a>(row: &'a [u8], at: &mut usize, length: usize) -> Result<&'a [u8], ArrowError> {
    let end = at.checked_add(length).ok_or_else(damaged)?;
    let taken = row.get(*at..end).ok_or_else(damaged)?;
    *at = end;
    Ok(taken)
}

/// Calls with each row and its cursor; with `None` where the column is NULL.
fn read_each<'a>(
    rows: &[&'a [u8]],
    cursors: &mut [usize],
    nulls: Option<&NullBuffer>,
    mut read: impl FnMut(Option<&'a [u8]>, &mut usize) -> Result<(), ArrowError>,
) -> Result<(), ArrowError> {
    for (index, (row, at)) in rows.iter().zip(cursors).enumerate() {
        let present = nulls.is_none_or(|n| n.is_valid(index));
        read(present.then_some(*row), at)?;
    }
    Ok(())
}

fn read_integers<T: ArrowPrimitiveType>(
    rows: &[&[u8]],
    cursors: &mut [usize],
    nulls: Option<&NullBuffer>,
) -> Result<ScalarBuffer<T::Native>, ArrowError>
where
    T::Native: TryFrom<i64>,
{
    let mut values: Vec<T::Native> = Vec::with_capacity(rows.len());
    read_each(rows, cursors, nulls, |row, at| {
        let value = match row {
            Some(row) => {
                let value = read_varint(row, at)?;
                let value = (value >> 1) as i64 ^ -((value & 1) as i64);
                T::Native::try_from(value).map_err(|_| damaged())?
            }
            None => T::Native::default(),
        };
        values.push(value);
        Ok(())
    })?;
    Ok(values.into())
}

fn read_strings(
    rows: &[&[u8]],
    cursors: &mut [usize],
    nulls: Option<&NullBuffer>,
) -> Result<(OffsetBuffer<i32>, Buffer), ArrowError> {
    let mut data = Vec::new();
    let mut offsets: Vec<i32> = Vec::with_capacity(rows.len() + 1);
    offsets.push(0);
    read_each(rows, cursors, nulls, |row, at| {
        if let Some(row) = row {
            let length = read_varint(row, at)? as usize;
            data.extend_from_slice(take(row, at, length)?);
        }
        offsets.push(i32::try_from(data.len()).map_err(|_| damaged())?);
        Ok(())
    })?;
    Ok((OffsetBuffer::new(offsets.into()), Buffer::from_vec(data)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        Decimal128Array, FixedSizeBinaryArray, Float64Array, ListArray, TimestampMicrosecondArray,
    };

    fn columns() -> Vec<ArrayRef> {
        let uuid = [7u8; 16];
        vec![
            Arc::new(Int16Array::from(vec![Some(-3), None, Some(i16::MAX)])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(300), None])),
            Arc::new(StringArray::from(vec![Some(""), None, Some("ä long text")])),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            Arc::new(Float64Array::from(vec![Some(-1.5), None, Some(f64::NAN)])),
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(1), None, Some(-5)]).with_timezone("UTC"),
            ),
            Arc::new(
                Decimal128Array::from(vec![Some(i128::MAX / 3), None, Some(-1)])
                    .with_precision_and_scale(38, 10)
                    .expect("valid"),
            ),
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    [Some(uuid), None, Some([0; 16])].into_iter(),
                    16,
                )
                .expect("valid"),
            ),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
                Some(vec![Some(1), None]),
                None,
                Some(vec![]),
            ])),
            Arc::new(BinaryArray::from(vec![
                Some(&b"\0\xff"[..]),
                Some(b""),
                None,
            ])),
        ]
    }

    #[test]
    fn every_type_comes_back() {
        let columns = columns();
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        let codec = PackedCodec::new(&types).expect("supported types");
        for slice in [0..3, 1..3, 2..2] {
            let part: Vec<ArrayRef> = columns
                .iter()
                .map(|c| c.slice(slice.start, slice.len()))
                .collect();
            let rows = codec.encode(&part).expect("same types");
            assert_eq!(rows.num_rows(), slice.len());
            let back = codec
                .decode((0..slice.len()).map(|i| rows.row(i)))
                .expect("own bytes");
            assert_eq!(back, part);
        }
    }

    #[test]
    fn bytes_are_pinned() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(-1), None])),
            Arc::new(StringArray::from(vec![Some("ab"), Some("")])),
        ];
        let codec = PackedCodec::new(&[DataType::Int64, DataType::Utf8]).expect("supported");
        let rows = codec.encode(&columns).expect("same types");
        assert_eq!(rows.row(0), [3, 1, 2, b'a', b'b']);
        assert_eq!(rows.row(1), [2, 0]);
    }

    #[test]
    fn damage_is_an_error() {
        let codec = PackedCodec::new(&[DataType::Int64, DataType::Utf8]).expect("supported");
        for bytes in [
            &[][..],
            &[3, 1],
            &[3, 1, 5, b'a'],
            &[3, 1, 0, 0],
            &[1, 0x80],
        ] {
            assert!(codec.decode([bytes]).is_err(), "{bytes:?}");
        }
    }
}

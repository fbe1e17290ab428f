//! The forms in which values of state tables are written, as columns.
//!
//! They repeat what operators write (`varint`, `groups`, `rows`) and what the runtime writes beside them: whoever changes
//! one of those changes its name too, so that bytes are never misread.

use crate::rows::{LiveCell, ended};
use arrow::array::{ArrayRef, BinaryArray, Int64Array, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use std::sync::Arc;

/// A count of eight bytes.
pub(crate) fn count(value: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(value.try_into().ok()?))
}

/// Zigzag LEB128 integers and byte strings with their length in front.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn unsigned(&mut self) -> Result<u128, ArrowError> {
        let mut value = 0u128;
        for (index, byte) in self.rest.iter().enumerate().take(19) {
            value |= u128::from(byte & 0x7f) << (index * 7);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(ended("a number"))
    }

    pub fn i64(&mut self) -> Result<i64, ArrowError> {
        let raw = self.unsigned()?;
        let signed = (raw >> 1) as i128 ^ -((raw & 1) as i128);
        i64::try_from(signed).map_err(|_| ended("a number"))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], ArrowError> {
        let length = usize::try_from(self.unsigned()?).map_err(|_| ended("a length"))?;
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| ended("a row"))?;
        self.rest = rest;
        Ok(taken)
    }
}

fn value<'a>(cell: &LiveCell<'a>) -> &'a [u8] {
    cell.entry.value.unwrap_or(&[])
}

/// So many integers per cell; what a value does not have is zero.
pub(crate) fn varints(cells: &[LiveCell<'_>], fields: usize) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut columns = vec![Vec::with_capacity(cells.len()); fields];
    for cell in cells {
        let mut reader = Reader::new(value(cell));
        for column in &mut columns {
            column.push(if reader.is_empty() { 0 } else { reader.i64()? });
        }
    }
    Ok(columns
        .into_iter()
        .map(|c| Arc::new(Int64Array::from(c)) as ArrayRef)
        .collect())
}

pub(crate) fn groups_schema() -> Schema {
    Schema::new(vec![
        Field::new("rows", DataType::Int64, false),
        Field::new("accumulators", DataType::Binary, true),
    ])
}

pub(crate) fn groups(cells: &[LiveCell<'_>]) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut rows = Vec::with_capacity(cells.len());
    let mut accumulators = Vec::with_capacity(cells.len());
    for cell in cells {
        let mut reader = Reader::new(value(cell));
        rows.push(reader.i64()?);
        accumulators.push(reader.rest());
    }
    Ok(vec![
        Arc::new(Int64Array::from(rows)),
        Arc::new(BinaryArray::from(accumulators)),
    ])
}

pub(crate) fn bytes_schema() -> Schema {
    Schema::new(vec![Field::new("value", DataType::Binary, true)])
}

pub(crate) fn bytes(cells: &[LiveCell<'_>]) -> Vec<ArrayRef> {
    let values: Vec<&[u8]> = cells.iter().map(value).collect();
    vec![Arc::new(BinaryArray::from(values))]
}

pub(crate) fn errors_schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Schema::new(vec![
        text("sqlstate"),
        text("message"),
        text("row"),
        Field::new("count", DataType::Int64, false),
    ])
}

pub(crate) fn errors(cells: &[LiveCell<'_>]) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut columns: [Vec<String>; 3] = Default::default();
    let mut counts = Vec::with_capacity(cells.len());
    for cell in cells {
        // Behind these three are who wrote it, or where a source read it.
        let mut texts: Vec<String> = serde_json::from_slice(cell.entry.key)
            .map_err(|e| ArrowError::ComputeError(format!("an error's key: {e}")))?;
        texts.resize(3, String::new());
        for (column, text) in columns.iter_mut().zip(texts) {
            column.push(text);
        }
        counts.push(count(value(cell)).ok_or_else(|| ended("a count"))?);
    }
    let mut arrays: Vec<ArrayRef> = columns
        .into_iter()
        .map(|c| Arc::new(StringArray::from(c)) as ArrayRef)
        .collect();
    arrays.push(Arc::new(Int64Array::from(counts)));
    Ok(arrays)
}

pub(crate) fn offset_schema() -> Schema {
    Schema::new(vec![
        Field::new("split", DataType::Utf8, true),
        Field::new("offset", DataType::Utf8, true),
    ])
}

/// An offset is a tag and LEB128 numbers: of rows, or of bytes and lines.
pub(crate) fn offsets(cells: &[LiveCell<'_>]) -> Vec<ArrayRef> {
    let split = |cell: &LiveCell<'_>| Some(String::from_utf8_lossy(cell.entry.key).into_owned());
    let offset = |cell: &LiveCell<'_>| {
        let (tag, numbers) = value(cell).split_first()?;
        let mut reader = Reader::new(numbers);
        match tag {
            0 => Some(reader.unsigned().ok()?.to_string()),
            1 => Some(format!(
                "byte {}, line {}",
                reader.unsigned().ok()?,
                reader.unsigned().ok()?
            )),
            _ => Some(hex(value(cell))),
        }
    };
    vec![
        Arc::new(cells.iter().map(split).collect::<StringArray>()),
        Arc::new(cells.iter().map(offset).collect::<StringArray>()),
    ]
}

pub(crate) fn slice_schema() -> Schema {
    Schema::new(vec![
        Field::new("key_group", DataType::UInt8, true),
        Field::new("read_up_to", DataType::Utf8, true),
    ])
}

pub(crate) fn slices(cells: &[LiveCell<'_>]) -> Vec<ArrayRef> {
    let group = |cell: &LiveCell<'_>| cell.entry.key.first().copied();
    let reached = |cell: &LiveCell<'_>| {
        Some(match value(cell) {
            [] => "all".to_owned(),
            [_, row @ ..] => hex(row),
        })
    };
    vec![
        Arc::new(cells.iter().map(group).collect::<UInt8Array>()),
        Arc::new(cells.iter().map(reached).collect::<StringArray>()),
    ]
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

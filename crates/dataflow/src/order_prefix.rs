//! Where the order columns end in an encoded row: rows whose prefixes are equal share a rank.
//!
//! The row encoding lays columns end to end. Fixed ones have one width whether NULL or not; text and bytes come in blocks,
//! each followed by a byte that says whether another one comes.

use crate::OperatorError;
use arrow::array::new_null_array;
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use tidegate_types::RowCodec;

#[derive(Default)]
pub struct OrderPrefix {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// So many bytes.
    Fixed(usize),
    /// A string in blocks; descending inverts all bytes.
    Blocks { descending: bool },
}

/// The first blocks of a string are short, so that short strings stay short.
const SHORT_BLOCKS: usize = 4;
const SHORT_BLOCK: usize = 8;
const BLOCK: usize = 32;

impl OrderPrefix {
    pub fn new(columns: &[(DataType, SortOptions)]) -> Result<Self, OperatorError> {
        let parts = columns.iter().map(|(data_type, options)| match data_type {
            DataType::Utf8 | DataType::Binary => Ok(Part::Blocks {
                descending: options.descending,
            }),
            fixed if fixed.is_primitive() || is_fixed(fixed) => {
                let codec = RowCodec::with_order(vec![(fixed.clone(), *options)])?;
                let null = codec.encode(&[new_null_array(fixed, 1)])?;
                Ok(Part::Fixed(null.row(0).data().len()))
            }
            other => {
                let message = format!("a rank or a window over an order by {other}");
                Err(DataFusionError::NotImplemented(message).into())
            }
        });
        Ok(Self {
            parts: parts.collect::<Result<_, OperatorError>>()?,
        })
    }

    pub fn of<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        let mut end = 0;
        for part in &self.parts {
            end += match part {
                Part::Fixed(width) => *width,
                Part::Blocks { descending } => blocks(&row[end..], *descending),
            };
        }
        &row[..end]
    }
}

fn is_fixed(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean | DataType::FixedSizeBinary(_) | DataType::Null
    )
}

/// The length of an encoded string.
fn blocks(row: &[u8], descending: bool) -> usize {
    let flip = if descending { 0xff } else { 0 };
    // NULL and the empty string are one byte, any other begins with a two.
    if row[0] ^ flip != 2 {
        return 1;
    }
    let mut end = 1;
    for block in 0.. {
        end += if block < SHORT_BLOCKS {
            SHORT_BLOCK
        } else {
            BLOCK
        } + 1;
        if row[end - 1] ^ flip != 0xff {
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Int32Array, StringArray};
    use std::sync::Arc;

    /// What the codec makes of the prefix columns alone has to be the prefix of what it makes of all.
    #[test]
    fn prefixes_are_what_the_columns_alone_encode_to() {
        let texts: Vec<Option<String>> = [0, 1, 7, 8, 9, 31, 32, 33, 40, 64, 65, 200]
            .iter()
            .map(|length| Some("é".repeat(length / 2) + &"x".repeat(length % 2)))
            .chain([None])
            .collect();
        let rows = texts.len() as i32;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(texts.clone())),
            Arc::new(
                (0..rows)
                    .map(|i| (i % 3 > 0).then_some(i))
                    .collect::<Int32Array>(),
            ),
            Arc::new((0..rows).map(|i| Some(i % 2 > 0)).collect::<BooleanArray>()),
            Arc::new(StringArray::from_iter(texts.iter().rev().cloned())),
            Arc::new(Decimal128Array::from_iter(
                (0..rows).map(|i| Some(i128::from(i))),
            )),
        ];
        for options in 0..4 {
            let options = SortOptions {
                descending: options & 1 > 0,
                nulls_first: options & 2 > 0,
            };
            let typed: Vec<_> = columns
                .iter()
                .map(|c| (c.data_type().clone(), options))
                .collect();
            let whole = RowCodec::with_order(typed.clone()).unwrap();
            let whole = whole.encode(&columns).unwrap();
            for width in 1..=columns.len() {
                let part = RowCodec::with_order(typed[..width].to_vec()).unwrap();
                let part = part.encode(&columns[..width]).unwrap();
                let prefix = OrderPrefix::new(&typed[..width]).unwrap();
                for row in 0..rows as usize {
                    assert_eq!(prefix.of(whole.row(row).data()), part.row(row).data());
                }
            }
        }
        assert!(OrderPrefix::new(&[]).unwrap().of(b"abc").is_empty());
    }
}

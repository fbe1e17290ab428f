//! Names of splits and positions within them. Both outlive a process: they are kept in state tables and manifests.

use crate::ConnectorError;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// One independently replayable part of a source: a number for generators, a path for files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SplitId(Arc<str>);

impl SplitId {
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of a generator's split.
    pub(crate) fn number(&self, splits: u32) -> Result<u32, ConnectorError> {
        match self.0.parse::<u32>() {
            Ok(number) if number < splits => Ok(number),
            _ => Err(ConnectorError::lost(format!(
                "the source has no split \"{self}\", its splits are 0 to {}",
                splits - 1
            ))),
        }
    }
}

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where to resume a split. Comparable with other offsets of the same split only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Offset {
    /// How many positions of the split have been consumed.
    Number(u64),
    /// How many bytes and how many lines of the file have been consumed.
    File { bytes: u64, lines: u64 },
}

impl Offset {
    /// What orders the offsets of one split.
    pub fn position(&self) -> u64 {
        match self {
            Offset::Number(n) => *n,
            Offset::File { bytes, .. } => *bytes,
        }
    }

    /// One tag byte, then LEB128 numbers.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12);
        match self {
            Offset::Number(n) => {
                bytes.push(0);
                push_varint(&mut bytes, *n);
            }
            Offset::File { bytes: at, lines } => {
                bytes.push(1);
                push_varint(&mut bytes, *at);
                push_varint(&mut bytes, *lines);
            }
        }
        bytes
    }

    /// `None` when the bytes are not an offset that [`Offset::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, mut rest) = bytes.split_first()?;
        let offset = match tag {
            0 => Offset::Number(take_varint(&mut rest)?),
            1 => Offset::File {
                bytes: take_varint(&mut rest)?,
                lines: take_varint(&mut rest)?,
            },
            _ => return None,
        };
        rest.is_empty().then_some(offset)
    }
}

impl PartialOrd for Offset {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Offset::Number(a), Offset::Number(b)) => Some(a.cmp(b)),
            (Offset::File { bytes: a, lines: x }, Offset::File { bytes: b, lines: y }) => {
                Some((a, x).cmp(&(b, y)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Offset::Number(n) => n.fmt(f),
            Offset::File { bytes, lines } => write!(f, "byte {bytes} (line {})", lines + 1),
        }
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_survive_encoding() {
        for offset in [
            Offset::Number(0),
            Offset::Number(127),
            Offset::Number(128),
            Offset::Number(u64::MAX),
            Offset::File {
                bytes: 1 << 40,
                lines: 3,
            },
        ] {
            let bytes = offset.encode();
            assert_eq!(Offset::decode(&bytes), Some(offset));
            assert_eq!(Offset::decode(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(Offset::decode(&[7, 0]), None);
    }

    #[test]
    fn offsets_of_different_kinds_do_not_compare() {
        assert!(Offset::Number(1) < Offset::Number(2));
        let file = Offset::File { bytes: 5, lines: 1 };
        assert_eq!(Offset::Number(1).partial_cmp(&file), None);
    }
}

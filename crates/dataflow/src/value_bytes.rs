//! The compact forms in which operators write the values of their state tables.
//!
//! Integers are zigzag LEB128 varints, byte strings carry their length. What one version wrote every later one reads: the
//! tests pin the bytes.

use tidegate_state::StateError;

pub fn write_i64(value: i64, out: &mut Vec<u8>) {
    write_i128(i128::from(value), out);
}

pub fn write_i128(value: i128, out: &mut Vec<u8>) {
    write_u128(((value << 1) ^ (value >> 127)) as u128, out);
}

pub fn write_u128(mut value: u128, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_u128(bytes.len() as u128, out);
    out.extend_from_slice(bytes);
}

/// Reads what the writers above wrote, in the same order.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn i64(&mut self) -> Result<i64, StateError> {
        i64::try_from(self.i128()?).map_err(|_| damaged())
    }

    pub fn i128(&mut self) -> Result<i128, StateError> {
        let raw = self.u128()?;
        Ok((raw >> 1) as i128 ^ -((raw & 1) as i128))
    }

    pub fn u128(&mut self) -> Result<u128, StateError> {
        let mut value = 0u128;
        for (index, byte) in self.rest.iter().enumerate().take(19) {
            value |= u128::from(byte & 0x7f) << (index * 7);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(damaged())
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], StateError> {
        let length = usize::try_from(self.u128()?).map_err(|_| damaged())?;
        self.take(length)
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// The count that a map table keeps per sub-key.
pub fn count_of(value: &[u8]) -> Result<i64, StateError> {
    Reader::new(value).i64()
}

fn damaged() -> StateError {
    StateError::Damaged("a value ends early".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn integers_survive_and_are_pinned() {
        let mut out = Vec::new();
        write_i64(-1, &mut out);
        write_i64(300, &mut out);
        assert_eq!(out, [1, 0xd8, 0x04]);
        for value in [
            0,
            1,
            -1,
            i128::from(i64::MAX),
            i128::from(i64::MIN),
            i128::MAX,
            i128::MIN,
        ] {
            let mut out = Vec::new();
            write_i128(value, &mut out);
            write_bytes(b"xy", &mut out);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.i128().unwrap(), value);
            assert_eq!(reader.bytes().unwrap(), b"xy");
            assert!(reader.bytes().is_err());
        }
    }
}

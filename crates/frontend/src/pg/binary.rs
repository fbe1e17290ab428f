//! Values in Postgres's binary formats: out of Arrow columns, and into parameters.

mod decode;
mod encode;

#[cfg(test)]
mod tests;

pub(super) use decode::decode_binary;
pub(super) use encode::BinaryWriter;

/// Days and microseconds from 1970 to 2000, where Postgres's formats begin.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
/// A `numeric` is sent in digits of this base.
const NUMERIC_BASE: u32 = 10_000;

//! RocksDB keys.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `value` | table (8) · key group (1) · key | the value |
//! | `map` | table · key group · length of key · key · sub-key | the value |
//! | `view` | table · key group · encoded row | a count, summed by the merge operator |
//! | `log` | table · key group · row number (8) | the encoded row of an append-only view |
//! | `changes` | table · generation (8) · key group · length of key · key · sub-key | empty: the cell changed; of a view: a count |
//! | `view`, `log` | table | the last epoch that is in it, and the number of rows |
//!
//! The length of a key (one byte below 255, else 255 and four bytes) comes before the key and not after it: so a cell of
//! one key can never be taken for one of another, whatever their bytes, and all cells of a key are neighbours in the
//! order of their sub-keys. Big endian throughout.

use crate::StateError;
use crate::run::RunEntry;
use tidegate_types::{KeyGroup, TableId};

pub const TABLE_BYTES: usize = 8;

/// Starts a key.
pub fn table(out: &mut Vec<u8>, table: TableId) {
    out.clear();
    out.extend_from_slice(&table.0.to_be_bytes());
}

/// The prefix of everything of a table, its marker included.
pub fn table_prefix(id: TableId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

pub fn group_and_key(out: &mut Vec<u8>, id: TableId, group: KeyGroup, key: &[u8]) {
    table(out, id);
    out.push(group);
    out.extend_from_slice(key);
}

/// The prefix of all cells of a key of map form.
pub fn map_key(out: &mut Vec<u8>, id: TableId, group: KeyGroup, key: &[u8]) {
    table(out, id);
    out.push(group);
    sized_key(out, key);
}

fn sized_key(out: &mut Vec<u8>, key: &[u8]) {
    if key.len() < 255 {
        out.push(key.len() as u8);
    } else {
        out.push(255);
        out.extend_from_slice(&(key.len() as u32).to_be_bytes());
    }
    out.extend_from_slice(key);
}

/// The part of a key of map form that all cells of its key share; nothing when it is not one.
pub fn map_prefix(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.get(TABLE_BYTES..)?;
    let (_, _, sub) = split_map_key(rest).ok()?;
    Some(&bytes[..bytes.len() - sub.len()])
}

/// Key group, key and sub-key from what follows the table in a key of map form.
pub fn split_map_key(bytes: &[u8]) -> Result<(KeyGroup, &[u8], &[u8]), StateError> {
    let damaged = || StateError::Damaged("a key of a map table is cut short".into());
    let (group, rest) = bytes.split_first().ok_or_else(damaged)?;
    let (length, rest) = rest.split_first().ok_or_else(damaged)?;
    let (length, rest) = match length {
        255 => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
            (u32::from_be_bytes(*length) as usize, rest)
        }
        length => (usize::from(*length), rest),
    };
    let (key, sub) = rest.split_at_checked(length).ok_or_else(damaged)?;
    Ok((*group, key, sub))
}

/// The key of a change of some generation.
pub fn change(out: &mut Vec<u8>, id: TableId, generation: u64, entry: &RunEntry<'_>) {
    table(out, id);
    out.extend_from_slice(&generation.to_be_bytes());
    out.push(entry.group);
    sized_key(out, entry.key);
    out.extend_from_slice(entry.sub);
}

pub fn generation_prefix(id: TableId, generation: u64) -> Vec<u8> {
    let mut out = table_prefix(id);
    out.extend_from_slice(&generation.to_be_bytes());
    out
}

/// The prefix of all changes of some generation in some key group.
pub fn generation_group(id: TableId, generation: u64, group: KeyGroup) -> Vec<u8> {
    let mut out = generation_prefix(id, generation);
    out.push(group);
    out
}

/// The least key that is greater than all keys with this prefix; `None` when there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_length_come_back() {
        for length in [0, 1, 254, 255, 256, 70_000] {
            let (key, sub) = (vec![7u8; length], b"sub".to_vec());
            let mut bytes = Vec::new();
            map_key(&mut bytes, TableId(3), 9, &key);
            bytes.extend_from_slice(&sub);
            let split = split_map_key(&bytes[TABLE_BYTES..]).expect("whole");
            assert_eq!(split, (9, key.as_slice(), sub.as_slice()));
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_one() {
        assert_eq!(after_prefix(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after_prefix(&[1, 0xff]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xff, 0xff]), None);
    }
}

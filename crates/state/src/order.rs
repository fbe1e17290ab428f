//! Sorting many byte strings that start alike.
//!
//! Encoded keys share their first bytes (a type's marker, the high bytes of small integers). Comparing the eight bytes
//! after what all of them share decides nearly every comparison without touching the strings themselves.

use std::cmp::Ordering;
use tidegate_types::KeyGroup;

/// The indices `0..count` in order of `compare`, equal ones in order of index. `leading` gives for each the key group and
/// the bytes that `compare` looks at first.
pub fn sorted_indices<'a>(
    count: usize,
    leading: impl Fn(usize) -> (KeyGroup, &'a [u8]),
    compare: impl Fn(usize, usize) -> Ordering,
) -> Vec<u32> {
    assert!(count <= u32::MAX as usize, "indices have 32 bits");
    if count == 0 {
        return Vec::new();
    }
    let first = leading(0).1;
    let mut shared = first.len();
    for i in 1..count {
        let key = leading(i).1;
        shared = shared.min(key.len());
        if key[..shared] != first[..shared] {
            shared = key.iter().zip(first).take_while(|(a, b)| a == b).count();
        }
    }
    let mut order: Vec<(u64, u32)> = (0..count)
        .map(|i| {
            let (group, key) = leading(i);
            let mut bytes = [0u8; 8];
            bytes[0] = group;
            let rest = &key[shared..];
            let length = rest.len().min(7);
            bytes[1..=length].copy_from_slice(&rest[..length]);
            (u64::from_be_bytes(bytes), i as u32)
        })
        .collect();
    order.sort_unstable_by(|a, b| {
        let by_prefix = a.0.cmp(&b.0);
        by_prefix
            .then_with(|| compare(a.1 as usize, b.1 as usize))
            .then(a.1.cmp(&b.1))
    });
    order.into_iter().map(|(_, i)| i).collect()
}

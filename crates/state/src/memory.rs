//! State tables in memory.
//!
//! - [`arena`]: where the bytes are; [`changes`]: what is to be sealed; [`sweep`]: what an overlay gives away.
//! - [`value`]: value form; [`map`]: map form, whose sub-keys lie in [`block`]s.
//!
//! No cell has an allocation of its own, and nothing is done per cell that a checkpoint has to wait for.

pub mod arena;
pub mod block;
pub mod changes;
pub mod map;
pub mod sweep;
pub mod value;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes in use by all tables and views of one worker.
#[derive(Debug, Clone, Default)]
pub struct MemoryAccount(Arc<AtomicUsize>);

impl MemoryAccount {
    pub fn bytes_used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn share(&self) -> MemoryShare {
        MemoryShare {
            account: self.clone(),
            bytes: 0,
        }
    }
}

/// What one table has reported to its account; taken back when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryShare {
    account: MemoryAccount,
    bytes: usize,
}

impl MemoryShare {
    /// Bytes of all that share the account.
    pub fn account_bytes(&self) -> usize {
        self.account.bytes_used()
    }

    pub fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.account
                .0
                .fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.account
                .0
                .fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The half of a key's hash that tables keep. The other half holds the key group, which all keys of a worker share in part.
fn short_hash(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// A short hash for `hashbrown`, which takes the bucket from the low bits and a tag from the highest seven.
fn spread(short: u32) -> u64 {
    u64::from(short).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether a sub-key lies within the bounds.
pub(crate) fn within(sub: &[u8], (low, high): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    let above = match low {
        Bound::Included(low) => sub >= low,
        Bound::Excluded(low) => sub > low,
        Bound::Unbounded => true,
    };
    above
        && match high {
            Bound::Included(high) => sub <= high,
            Bound::Excluded(high) => sub < high,
            Bound::Unbounded => true,
        }
}

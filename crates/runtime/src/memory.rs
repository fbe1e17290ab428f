//! How much memory state takes that cannot go anywhere else, and what follows when it is too much.
//!
//! State on the memory backend is all in memory; of state on RocksDB what has no room goes to disk. So it is the former
//! that the limit has to hold back: first the sources, by reading no further, then statements that would add to it. What
//! is left of the limit is for what is on its way and for queries. Removing rows and dropping relations is always possible.

use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_state::memory::MemoryAccount;
use tidegate_types::{SqlError, SqlState};

/// Rows on their way, and rows of one epoch, are limited to one for so many bytes of the limit: a view keeps the rows of
/// several epochs apart for its readers, and rows may be wide.
const BYTES_PER_ROW: usize = 16 << 10;

#[derive(Debug, Default)]
pub(crate) struct StateMemory {
    account: MemoryAccount,
    limit_bytes: usize,
    is_short: AtomicBool,
}

impl StateMemory {
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            ..Self::default()
        }
    }

    pub fn account(&self) -> &MemoryAccount {
        &self.account
    }

    /// Whether sources are to hold back.
    pub fn is_short(&self) -> bool {
        let is_short = self.account.bytes_used() >= self.limit_bytes / 4 * 3;
        if is_short != self.is_short.load(Ordering::Relaxed)
            && is_short != self.is_short.swap(is_short, Ordering::Relaxed)
        {
            let (bytes, limit) = (self.account.bytes_used(), self.limit_bytes);
            match is_short {
                true => tracing::warn!(
                    bytes,
                    limit,
                    "state has come near memory_limit: sources are not read any further"
                ),
                false => tracing::info!(bytes, limit, "sources are read again"),
            }
        }
        is_short
    }

    /// Whether a statement may add to state.
    pub fn check(&self) -> Result<(), SqlError> {
        let used = self.account.bytes_used();
        if used < self.limit_bytes / 8 * 7 {
            return Ok(());
        }
        let (used_mb, limit_mb) = (used >> 20, self.limit_bytes >> 20);
        let error = SqlError::new(
            SqlState::OUT_OF_MEMORY,
            format!("state in memory takes {used_mb} MB of the {limit_mb} MB of memory_limit"),
        );
        Err(error.with_hint(
            "Keep state on disk (state_backend = 'rocksdb', for the server or WITH a view), raise memory_limit, or delete rows or drop views.",
        ))
    }
}

/// What a setting of rows on their way, or of rows per epoch, comes to under a memory limit.
pub(crate) fn limit_rows(wanted: usize, limit_bytes: usize) -> usize {
    wanted.min((limit_bytes / BYTES_PER_ROW).max(1024))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sources_hold_back_before_statements_fail() {
        let memory = StateMemory::new(1 << 20);
        let mut share = memory.account().share();
        share.set(700 << 10);
        assert!(!memory.is_short() && memory.check().is_ok());
        share.set(800 << 10);
        assert!(memory.is_short() && memory.check().is_ok());
        share.set(900 << 10);
        let error = memory.check().unwrap_err();
        assert_eq!(error.state, SqlState::OUT_OF_MEMORY);
        drop(share);
        assert!(!memory.is_short() && memory.check().is_ok());
    }
}

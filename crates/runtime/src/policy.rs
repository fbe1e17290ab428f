//! How checkpoints are taken: what a server chooses, and what a relation may choose for itself.
//!
//! A [`CheckpointPolicy`] can be changed while the server runs. What a checkpoint was begun with it is finished with.
//! Combinations that cannot hold are refused by [`CheckpointPolicy::check`] with the reason, never ignored.

use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;
use tidegate_types::{SqlError, SqlState};

/// What a checkpoint's manifest refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckpointMode {
    /// Runs of earlier checkpoints, and one with what changed.
    #[default]
    Incremental,
    /// Runs of its own alone.
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckpointExecution {
    /// Processing goes on while a checkpoint is written.
    #[default]
    Async,
    /// The barrier is held until the checkpoint is durable: nothing of a later epoch is processed, and readers do not see
    /// the barrier's epoch before.
    Sync,
}

/// What a barrier of a checkpoint does with the rows in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckpointAlignment {
    /// It waits behind them.
    #[default]
    Aligned,
    /// It waits so long, then it overtakes them.
    AlignedFor(Duration),
    /// It overtakes them, and they become part of the checkpoint.
    Unaligned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckpointGuarantee {
    /// Rows behind a barrier wait until the barrier has come from everywhere.
    #[default]
    ExactlyOnce,
    /// They are processed at once, and again after a crash.
    AtLeastOnce,
}

impl CheckpointGuarantee {
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
        }
    }
}

impl CheckpointMode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Incremental => "incremental",
            Self::Full => "full",
        }
    }
}

impl CheckpointExecution {
    pub fn name(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Sync => "sync",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// `None`: checkpoints only when asked for.
    pub interval: Option<Duration>,
    /// From the end of one checkpoint to the beginning of the next.
    pub min_pause: Duration,
    /// From the trigger; a checkpoint that is not durable by then is aborted.
    pub timeout: Duration,
    pub max_concurrent: usize,
    /// How many in a row may fail before the workers are restarted; `None`: any number.
    pub tolerable_failed: Option<u64>,
    pub mode: CheckpointMode,
    pub execution: CheckpointExecution,
    pub alignment: CheckpointAlignment,
    pub guarantee: CheckpointGuarantee,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(1)),
            min_pause: Duration::ZERO,
            timeout: Duration::from_secs(600),
            max_concurrent: 1,
            tolerable_failed: None,
            mode: CheckpointMode::default(),
            execution: CheckpointExecution::default(),
            alignment: CheckpointAlignment::default(),
            guarantee: CheckpointGuarantee::default(),
        }
    }
}

/// A combination that cannot hold.
pub fn refused(what: &str, reason: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("{what} cannot be combined"),
    )
    .with_detail(reason)
}

impl CheckpointPolicy {
    pub fn check(&self) -> Result<(), SqlError> {
        use CheckpointAlignment as A;
        let overtakes = self.alignment != A::Aligned;
        let name = match self.alignment {
            A::AlignedFor(_) => "aligned_checkpoint_timeout",
            _ => "checkpoint_alignment = unaligned",
        };
        if overtakes && self.guarantee == CheckpointGuarantee::AtLeastOnce {
            return Err(refused(
                &format!("{name} and checkpoint_guarantee = at_least_once"),
                "At-least-once processes rows as they come: there are none that wait for a barrier, and none to overtake.",
            ));
        }
        if overtakes && self.execution == CheckpointExecution::Sync {
            return Err(refused(
                &format!("{name} and checkpoint_execution = sync"),
                "Sync holds the barrier that ends an epoch until its checkpoint is durable; a barrier that overtakes ends no epoch.",
            ));
        }
        if overtakes && self.max_concurrent > 1 {
            return Err(refused(
                &format!("{name} and max_concurrent_checkpoints above 1"),
                "An aligned barrier has to complete before another checkpoint may overtake, or no epoch would ever end.",
            ));
        }
        if self.execution == CheckpointExecution::Sync && self.max_concurrent > 1 {
            return Err(refused(
                "checkpoint_execution = sync and max_concurrent_checkpoints above 1",
                "Sync lets nothing pass while a checkpoint is written, so that a second one has nothing to begin with.",
            ));
        }
        if !self.min_pause.is_zero() && self.max_concurrent > 1 {
            return Err(refused(
                "checkpoint_min_pause and max_concurrent_checkpoints above 1",
                "A pause after each checkpoint means that there is only one at a time.",
            ));
        }
        match self.alignment {
            A::AlignedFor(after) if after >= self.timeout => Err(refused(
                "aligned_checkpoint_timeout and a checkpoint_timeout that is not longer",
                "The checkpoint would be aborted before its barrier could overtake.",
            )),
            _ => Ok(()),
        }
    }
}

/// The policy as it is now, shared by whoever acts on it.
#[derive(Debug, Default)]
pub(crate) struct LivePolicy {
    current: RwLock<Arc<CheckpointPolicy>>,
    /// As in `current`, for the drivers, who look at each batch.
    at_least_once: AtomicBool,
}

impl LivePolicy {
    pub fn new(policy: CheckpointPolicy) -> Self {
        let live = Self::default();
        live.set(policy);
        live
    }

    pub fn set(&self, policy: CheckpointPolicy) {
        let at_least_once = policy.guarantee == CheckpointGuarantee::AtLeastOnce;
        self.at_least_once.store(at_least_once, Ordering::Relaxed);
        *self.current.write() = Arc::new(policy);
    }

    pub fn get(&self) -> Arc<CheckpointPolicy> {
        self.current.read().clone()
    }
}

/// What a relation chooses for itself; the server's choice where it does not. Can be changed while it runs.
#[derive(Debug, Default)]
pub struct RelationChoices {
    guarantee: AtomicU8,
    mode: AtomicU8,
}

const AS_SERVER: u8 = 0;
const FIRST: u8 = 1;
const SECOND: u8 = 2;

impl RelationChoices {
    pub fn set_guarantee(&self, guarantee: Option<CheckpointGuarantee>) {
        let value = match guarantee {
            None => AS_SERVER,
            Some(CheckpointGuarantee::ExactlyOnce) => FIRST,
            Some(CheckpointGuarantee::AtLeastOnce) => SECOND,
        };
        self.guarantee.store(value, Ordering::Relaxed);
    }

    pub fn set_mode(&self, mode: Option<CheckpointMode>) {
        let value = match mode {
            None => AS_SERVER,
            Some(CheckpointMode::Incremental) => FIRST,
            Some(CheckpointMode::Full) => SECOND,
        };
        self.mode.store(value, Ordering::Relaxed);
    }

    pub(crate) fn is_at_least_once(&self, server: &LivePolicy) -> bool {
        match self.guarantee.load(Ordering::Relaxed) {
            AS_SERVER => server.at_least_once.load(Ordering::Relaxed),
            choice => choice == SECOND,
        }
    }

    pub(crate) fn is_full(&self, server: &CheckpointPolicy) -> bool {
        match self.mode.load(Ordering::Relaxed) {
            AS_SERVER => server.mode == CheckpointMode::Full,
            choice => choice == SECOND,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_that_cannot_hold_are_refused_with_the_reason() {
        let unaligned = CheckpointPolicy {
            alignment: CheckpointAlignment::Unaligned,
            ..CheckpointPolicy::default()
        };
        assert!(unaligned.check().is_ok());
        let late = CheckpointAlignment::AlignedFor(Duration::from_secs(600));
        let refused = [
            CheckpointPolicy {
                guarantee: CheckpointGuarantee::AtLeastOnce,
                ..unaligned.clone()
            },
            CheckpointPolicy {
                execution: CheckpointExecution::Sync,
                ..unaligned.clone()
            },
            CheckpointPolicy {
                max_concurrent: 2,
                ..unaligned.clone()
            },
            CheckpointPolicy {
                alignment: late,
                ..unaligned
            },
            CheckpointPolicy {
                execution: CheckpointExecution::Sync,
                max_concurrent: 2,
                ..CheckpointPolicy::default()
            },
            CheckpointPolicy {
                min_pause: Duration::from_secs(1),
                max_concurrent: 2,
                ..CheckpointPolicy::default()
            },
        ];
        for policy in refused {
            let error = policy.check().expect_err("these cannot be combined");
            assert_eq!(error.state, SqlState::INVALID_PARAMETER_VALUE);
            assert!(error.detail.is_some(), "{error}");
        }
    }

    #[test]
    fn a_relation_follows_the_server_until_it_chooses() {
        let server = LivePolicy::default();
        let choices = RelationChoices::default();
        assert!(!choices.is_at_least_once(&server));
        server.set(CheckpointPolicy {
            guarantee: CheckpointGuarantee::AtLeastOnce,
            mode: CheckpointMode::Full,
            ..CheckpointPolicy::default()
        });
        assert!(choices.is_at_least_once(&server) && choices.is_full(&server.get()));
        choices.set_guarantee(Some(CheckpointGuarantee::ExactlyOnce));
        choices.set_mode(Some(CheckpointMode::Incremental));
        assert!(!choices.is_at_least_once(&server) && !choices.is_full(&server.get()));
    }
}

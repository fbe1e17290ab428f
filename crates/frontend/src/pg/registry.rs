//! Who is connected: so that a cancel request, which comes on a connection of its own, finds its session.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_engine::api::{CancelReason, CancelToken};

/// All sessions by their process id, which is only a number here.
#[derive(Default)]
pub(super) struct Registry {
    next_pid: AtomicI32,
    sessions: Mutex<HashMap<i32, Entry>>,
}

struct Entry {
    secret: i32,
    token: CancelToken,
}

/// A session's place in the registry; it leaves when this is dropped.
pub(super) struct Registered {
    pub pid: i32,
    pub secret: i32,
    registry: Arc<Registry>,
}

impl Registry {
    pub(super) fn register(self: &Arc<Self>, token: CancelToken) -> Registered {
        let secret = rand::random();
        let mut sessions = self.sessions();
        let pid = loop {
            // Wraps around after two billion connections; zero and numbers still in use are passed over.
            let pid = self.next_pid.fetch_add(1, Ordering::Relaxed) & i32::MAX;
            if pid != 0 && !sessions.contains_key(&pid) {
                break pid;
            }
        };
        sessions.insert(pid, Entry { secret, token });
        Registered {
            pid,
            secret,
            registry: self.clone(),
        }
    }

    /// Cancels the session's statement if the secret is right; says nothing in either case.
    pub(super) fn cancel(&self, pid: i32, secret: i32) {
        if let Some(entry) = self.sessions().get(&pid)
            && entry.secret == secret
        {
            entry.token.cancel(CancelReason::UserRequest);
        }
    }

    pub(super) fn cancel_all(&self, reason: CancelReason) {
        self.sessions()
            .values()
            .for_each(|entry| entry.token.cancel(reason));
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// Whose statements a cancel request is about.
    pub(super) fn set_token(&self, token: CancelToken) {
        if let Some(entry) = self.registry.sessions().get_mut(&self.pid) {
            entry.token = token;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.sessions().remove(&self.pid);
    }
}

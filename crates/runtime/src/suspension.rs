//! Views and sinks that are left out: suspended by hand, because they kept failing, or because they read one that is.
//!
//! Nothing of a suspended relation runs and no checkpoint holds it, so it has no contents until it is resumed, which is
//! building it anew. The engine keeps suspensions in the catalog; what is here is what holds in this process.

use crate::spec::RelationSpec;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use tidegate_types::{RelationId, SqlError, SqlState};
use tokio::sync::mpsc;

/// What has to happen until a relation that does not run does again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Somebody has to resume it.
    Suspended,
    /// It was too slow, and comes back by itself ([`crate::lag`]).
    Behind,
}

/// Why a relation does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    pub relation: RelationId,
    pub name: String,
    pub reason: Reason,
    /// For people: the error, or who asked.
    pub cause: String,
    /// The suspended relation that this one reads and was suspended with.
    pub with: Option<RelationId>,
}

pub(crate) struct Suspensions {
    current: Mutex<BTreeMap<RelationId, Suspension>>,
    /// Tells of those that nobody asked for.
    sender: mpsc::UnboundedSender<Vec<Suspension>>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Vec<Suspension>>>>,
}

impl Default for Suspensions {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            current: Mutex::default(),
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl Suspensions {
    pub fn insert(&self, suspensions: impl IntoIterator<Item = Suspension>) {
        let mut current = self.current.lock();
        current.extend(suspensions.into_iter().map(|s| (s.relation, s)));
    }

    pub fn remove(&self, relation: RelationId) {
        self.current.lock().remove(&relation);
    }

    pub fn get(&self, relation: RelationId) -> Option<Suspension> {
        self.current.lock().get(&relation).cloned()
    }

    pub fn all(&self) -> Vec<Suspension> {
        self.current.lock().values().cloned().collect()
    }

    /// Suspends what nobody asked to suspend, and says so.
    pub fn impose(&self, suspensions: Vec<Suspension>) {
        for suspension in &suspensions {
            tracing::error!(
                relation = suspension.relation.0,
                view = suspension.name,
                "suspended: {}",
                suspension.cause
            );
        }
        self.insert(suspensions.iter().cloned());
        // Without a listener it holds until the process ends, and would come about again after that.
        let _ = self.sender.send(suspensions);
    }

    pub fn listen(&self) -> Option<mpsc::UnboundedReceiver<Vec<Suspension>>> {
        self.receiver.lock().take()
    }
}

impl Suspension {
    /// What whoever reads the relation is told.
    pub fn error(&self) -> SqlError {
        let name = &self.name;
        let (is, hint) = match self.reason {
            Reason::Suspended => (
                "is suspended",
                format!("RESUME MATERIALIZED VIEW \"{name}\" builds it anew from what it reads."),
            ),
            Reason::Behind => (
                "has fallen behind and is left out",
                "It is built anew by itself; max_barrier_lag says when a view is left out."
                    .to_owned(),
            ),
        };
        SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("materialized view \"{name}\" {is}"),
        )
        .with_detail(self.cause.clone())
        .with_hint(hint)
    }
}

/// The culprit and all that cannot run without it, and those that are left. A reader of a source is no culprit of its own:
/// whoever reads the source is.
pub(crate) fn take_out(
    culprit: RelationId,
    cause: &str,
    relations: Vec<RelationSpec>,
) -> (Vec<Suspension>, Vec<RelationSpec>) {
    let is_reader = relations
        .iter()
        .any(|s| s.relation() == culprit && s.is_reader());
    let mut out: HashSet<RelationId> = HashSet::from([culprit]);
    let mut names: BTreeMap<RelationId, String> = BTreeMap::new();
    let mut suspensions = Vec::new();
    // In order of dependency: whoever is read has been looked at before.
    for spec in relations.iter().filter(|s| !s.is_reader()) {
        let (relation, name) = (spec.relation(), spec.dataflow.name.clone());
        let below = spec.dataflow.reads().into_iter().find(|r| out.contains(r));
        let (cause, with) = match below {
            _ if relation == culprit => (cause.to_owned(), None),
            Some(below) if below == culprit && is_reader => (cause.to_owned(), None),
            Some(below) => {
                let read = names.get(&below).cloned().unwrap_or_default();
                (
                    format!("it reads \"{read}\", which is suspended"),
                    Some(below),
                )
            }
            None => continue,
        };
        out.insert(relation);
        names.insert(relation, name.clone());
        suspensions.push(Suspension {
            relation,
            name,
            reason: Reason::Suspended,
            cause,
            with,
        });
    }
    let suspended: HashSet<RelationId> = suspensions.iter().map(|s| s.relation).collect();
    let left = relations
        .into_iter()
        .filter(|s| !suspended.contains(&s.relation()))
        .collect();
    (suspensions, left)
}

//! Views that hold everybody up: after `max_barrier_lag` one of them leaves, and comes back later.
//!
//! A barrier has passed when all dataflows have, and sources hold back while too many rows are in flight, so one slow view
//! sets the pace of all. When the oldest barrier under way is older than the limit, the view that has kept the workers
//! busiest since the barrier before is dropped with the views that read it. Its queued rows go with it, the
//! barrier passes, and the others go on at once. It is *behind* from then on: it has no contents, reading it is an error
//! that says so, and it rejoins by a backfill, as if it had been created anew. If it falls behind again it is left out for
//! twice as long.
//!
//! What cannot leave, and so still sets the pace: tables and readers of sources, because all others wait for them too, and
//! whatever is being altered with what its new query reads, and whatever has a sink behind it, because a view built anew would make the sink write all its rows again. A worker that is
//! inside of one activation of an operator cannot be interrupted; it answers when that has ended.

use crate::command::Install;
use crate::coordinator::Coordinator;
use crate::runtime::Shared;
use crate::spec::RelationSpec;
use crate::suspension::{Reason, take_out};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tidegate_plan::Op;
use tidegate_types::RelationId;

const FIRST_ABSENCE: Duration = Duration::from_secs(2);
const LONGEST_ABSENCE: Duration = Duration::from_secs(600);

/// How long each dataflow of a worker has been running since the worker passed a barrier.
pub(crate) type Busy = HashMap<RelationId, Duration>;

/// Views that have left and want to come back.
#[derive(Default)]
pub(crate) struct Behind {
    groups: Mutex<Vec<Group>>,
    /// How long each was left out the last time.
    absences: Mutex<BTreeMap<RelationId, Duration>>,
}

/// A view and those that left with it, in order of dependency.
struct Group {
    specs: Vec<RelationSpec>,
    rejoins_at: Instant,
}

impl Behind {
    /// For an incarnation that starts with everybody.
    pub fn take_all(&self) -> Vec<RelationSpec> {
        let groups = std::mem::take(&mut *self.groups.lock());
        groups.into_iter().flat_map(|g| g.specs).collect()
    }

    /// They are not to come back.
    pub fn forget(&self, relations: &[RelationId]) {
        for group in self.groups.lock().iter_mut() {
            group.specs.retain(|s| !relations.contains(&s.relation()));
        }
    }

    fn left(&self, culprit: RelationId, specs: Vec<RelationSpec>) -> Duration {
        let mut absences = self.absences.lock();
        let absence = absences
            .get(&culprit)
            .map_or(FIRST_ABSENCE, |last| (*last * 2).min(LONGEST_ABSENCE));
        absences.insert(culprit, absence);
        self.groups.lock().push(Group {
            specs,
            rejoins_at: Instant::now() + absence,
        });
        absence
    }
}

/// Watches one incarnation. Holds on to nothing between two looks.
pub(crate) async fn watch(shared: Weak<Shared>, coordinator: Weak<Coordinator>, limit: Duration) {
    let pause = (limit / 4).clamp(Duration::from_millis(5), Duration::from_secs(1));
    loop {
        tokio::time::sleep(pause).await;
        let (Some(shared), Some(coordinator)) = (shared.upgrade(), coordinator.upgrade()) else {
            return;
        };
        if coordinator.has_stopped() {
            return;
        }
        rejoin(&shared, &coordinator);
        if coordinator
            .oldest_barrier_age()
            .is_some_and(|age| age > limit)
        {
            look(&shared, &coordinator, limit).await;
        }
    }
}

async fn look(shared: &Arc<Shared>, coordinator: &Arc<Coordinator>, limit: Duration) {
    let mut answers = coordinator.who_is_busy();
    let mut busy = Busy::new();
    for _ in 0..coordinator.workers() {
        // One that does not answer is inside of an operator; there will be another look.
        let Ok(Some(answer)) = tokio::time::timeout(limit * 4, answers.recv()).await else {
            return;
        };
        for (relation, time) in answer {
            *busy.entry(relation).or_default() += time;
        }
    }
    let installs = coordinator.all_installed();
    if let Some(culprit) = culprit(&installs, &busy, limit) {
        let cause = format!("a barrier waited for it for more than {limit:?}");
        leave(shared, coordinator, &installs, culprit, &cause);
    }
}

/// The one that has kept workers busiest, if it alone accounts for half of the delay and may leave. It may have passed the
/// barrier by the time it is asked for, since a worker answers when its operator has ended; the next one would wait for it
/// again. Others only wait for their turn behind it.
fn culprit(installs: &[Arc<Install>], busy: &Busy, limit: Duration) -> Option<RelationId> {
    let mut feeds_sink: HashSet<RelationId> = HashSet::new();
    for install in installs.iter().rev() {
        let spec = &install.spec;
        if spec.sink.is_some() || feeds_sink.contains(&spec.relation()) {
            feeds_sink.insert(spec.relation());
            feeds_sink.extend(spec.dataflow.reads());
        }
    }
    // A plan that is being built would wait for ever for what it reads.
    let altered = installs.iter().filter_map(|i| i.arriving.as_ref());
    let altered: HashSet<RelationId> = altered
        .flat_map(|a| {
            let mut involved = a.spec.dataflow.reads();
            involved.push(a.spec.relation());
            involved
        })
        .collect();
    let may_leave = |spec: &RelationSpec| {
        let nodes = &spec.dataflow.nodes;
        let is_table = nodes.iter().any(|n| matches!(n.op, Op::TableInput { .. }));
        let (relation, is_reader) = (spec.relation(), spec.is_reader());
        !is_reader && !is_table && !feeds_sink.contains(&relation) && !altered.contains(&relation)
    };
    let time = |spec: &RelationSpec| busy.get(&spec.relation()).copied().unwrap_or_default();
    let busiest = installs.iter().map(|i| &i.spec).max_by_key(|s| time(s))?;
    (time(busiest) >= limit / 2 && may_leave(busiest)).then(|| busiest.relation())
}

fn leave(
    shared: &Shared,
    coordinator: &Coordinator,
    installs: &[Arc<Install>],
    culprit: RelationId,
    cause: &str,
) {
    let specs: Vec<RelationSpec> = installs.iter().map(|i| i.spec.clone()).collect();
    let (mut gone, _) = take_out(culprit, cause, specs.clone());
    let relations: Vec<RelationId> = gone.iter().map(|s| s.relation).collect();
    let absence = shared.behind.left(
        culprit,
        specs
            .into_iter()
            .filter(|s| relations.contains(&s.relation()))
            .collect(),
    );
    for suspension in &mut gone {
        suspension.reason = Reason::Behind;
        let cause = &suspension.cause;
        suspension.cause = format!("{cause}; it rejoins {} s later", absence.as_secs());
        tracing::warn!(
            relation = suspension.relation.0,
            view = suspension.name,
            "fell behind and is left out: {}",
            suspension.cause
        );
    }
    shared.suspensions.insert(gone);
    coordinator.drop_relations(&relations);
}

/// Builds again what has been out for long enough.
fn rejoin(shared: &Shared, coordinator: &Coordinator) {
    // Held until they are installed, so that nobody drops them in between.
    let mut groups = shared.behind.groups.lock();
    let now = Instant::now();
    let mut due = Vec::new();
    groups.retain_mut(|group| {
        let is_due = group.rejoins_at <= now;
        if is_due {
            due.append(&mut group.specs);
        }
        !is_due
    });
    if due.is_empty() {
        return;
    }
    let relations: Vec<RelationId> = due.iter().map(|s| s.relation()).collect();
    let workers = coordinator.workers();
    let again = due.clone();
    let installed = coordinator.install(|epoch| {
        again
            .into_iter()
            .map(|spec| Arc::new(Install::fresh(spec, epoch, workers)))
            .collect()
    });
    if installed.is_err() {
        // The next incarnation takes them along.
        groups.push(Group {
            specs: due,
            rejoins_at: now,
        });
        return;
    }
    for relation in relations {
        tracing::info!(relation = relation.0, "rejoins by a backfill");
        shared.suspensions.remove(relation);
    }
}

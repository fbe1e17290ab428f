//! Another plan for a view that runs.
//!
//! 1. Everything stands still (`coordinator/pause.rs`) at a barrier, and the view's dataflow is built again with the
//!    operators of the new plan beside those of the old one. Operators that both have are there once, with their state;
//!    they tell their present output to what is new above them. What is new all the way down reads its inputs from the
//!    beginning, as a new view would. The view is maintained as before meanwhile.
//! 2. When the new plan holds all it should, the engine makes the new definition durable.
//! 3. Everything stands still again, and the dataflow is built with the new plan alone. What its contents differ in from
//!    the old ones becomes part of the next epoch ([`crate::taking_over`]).
//!
//! Until the second step an alteration leaves nothing behind: a failure of the workers, or giving it up, leaves the old
//! plan running. From then on it is carried out, by whichever incarnation gets to it: when workers start from a checkpoint
//! that holds the state of the old plan, that one is restored and altered again ([`finish`]), and the view cannot be read
//! until it has been.

use crate::command::{Arriving, Install, TakesOver};
use crate::coordinator::{Coordinator, Published};
use crate::runtime::{Runtime, Shared, missing_readers, shut_down};
use crate::spec::RelationSpec;
use crate::work::WorkDone;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tidegate_plan::{Dataflow, Op};
use tidegate_types::{Epoch, OperatorId, RelationId, SqlError, SqlState, TableId};

/// A plan that is being built beside the one that runs. Dropped before it [takes over](Self::take_over) it is given up.
pub struct Alteration {
    shared: Arc<Shared>,
    coordinator: Arc<Coordinator>,
    arriving: Arc<Arriving>,
    is_over: bool,
    held: Held,
}

/// Whatever its owner wants to be dropped when nothing of an alteration runs any more.
type Held = Option<Box<dyn Any + Send + Sync>>;

/// What an operator of a view keeps and has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperatorState {
    /// Cells of its state tables; for the root, rows of the view.
    pub rows: u64,
    pub bytes: u64,
    pub work: WorkDone,
}

impl std::ops::AddAssign for OperatorState {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.work += other.work;
    }
}

impl Runtime {
    /// Begins to build another plan for a view. Its operators carry the ids of those of the present plan that go on.
    pub async fn alter(&self, new: RelationSpec) -> Result<Alteration, SqlError> {
        tidegate_dataflow::check(&new.dataflow)?;
        let coordinator = self.coordinator().await?;
        begin(&self.shared, &coordinator, new).await
    }

    /// The definition is durable: from now on this plan is to run, whatever happens to the workers.
    pub fn decided(&self, new: RelationSpec) {
        self.shared.successors.lock().insert(new.relation(), new);
    }

    /// Waits until what was [decided](Self::decided) runs, and sees to it: workers that were being started when it was
    /// decided may not have heard of it.
    pub async fn carried_out(&self, relation: RelationId) -> Result<(), SqlError> {
        loop {
            let coordinator = self.coordinator().await?;
            let successor = self.shared.successors.lock().get(&relation).cloned();
            let Some(successor) = successor else {
                return Ok(());
            };
            if let Some(suspension) = self.shared.suspensions.get(relation) {
                return Err(suspension.error());
            }
            let runs = coordinator.installed(relation).is_some_and(|i| {
                !i.is_superseded && i.spec.dataflow.has_ids_of(&successor.dataflow)
            });
            if runs {
                self.shared.successors.lock().remove(&relation);
                return Ok(());
            }
            if let Err(error) = attempt(&self.shared, &coordinator, successor).await {
                tracing::debug!("altering again has to wait: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// The plans that run of relations which read this one, also of those that only a subscription knows of.
    pub fn readers_of(&self, relation: RelationId) -> Vec<Dataflow> {
        let current = self.shared.current.lock().clone();
        let installs = current.map(|c| c.all_installed()).unwrap_or_default();
        let reads =
            |i: &&Arc<Install>| i.spec.relation() != relation && i.all_reads().contains(&relation);
        let readers = installs.iter().filter(reads);
        readers.map(|i| i.spec.dataflow.clone()).collect()
    }

    /// What each operator of a view keeps at the moment, over all workers.
    pub async fn operator_states(
        &self,
        relation: RelationId,
    ) -> Result<HashMap<OperatorId, OperatorState>, SqlError> {
        let mut sums: HashMap<OperatorId, OperatorState> = HashMap::new();
        for (operator, states) in self.operator_states_by_worker(relation).await? {
            let sum = sums.entry(operator).or_default();
            states.into_iter().for_each(|state| *sum += state);
        }
        Ok(sums)
    }

    /// What each operator of a view keeps at the moment, and what it has done since its worker was started: for each worker.
    pub async fn operator_states_by_worker(
        &self,
        relation: RelationId,
    ) -> Result<HashMap<OperatorId, Vec<OperatorState>>, SqlError> {
        let coordinator = self.coordinator().await?;
        let Some(install) = coordinator.installed(relation) else {
            return Ok(HashMap::new());
        };
        let workers = coordinator.workers();
        let mut answers = coordinator.inspect(relation);
        let mut states: HashMap<OperatorId, Vec<OperatorState>> = HashMap::new();
        let root = install.spec.dataflow.root();
        for _ in 0..workers {
            // Without an answer the workers have stopped, and there is nothing to tell.
            let Some(inspection) = answers.recv().await else {
                return Ok(HashMap::new());
            };
            let worker = inspection.worker;
            let mut sizes = inspection.tables;
            if let Op::Materialize { .. } = root.op
                && let Some(store) = &install.stores.lock()[worker]
            {
                sizes.insert(TableId::of(relation, root.id, 0), store.stats());
            }
            for node in &install.spec.dataflow.nodes {
                let of_workers = states.entry(node.id).or_default();
                of_workers.resize(workers, OperatorState::default());
                let state = &mut of_workers[worker];
                state.work = inspection.work.get(&node.id).copied().unwrap_or_default();
                let tables = if node.id == root.id {
                    1
                } else {
                    node.state.len()
                };
                for index in 0..tables {
                    let table = TableId::of(relation, node.id, index);
                    if let Some(stats) = sizes.get(&table) {
                        state.rows += stats.cells;
                        state.bytes += stats.bytes;
                    }
                }
            }
        }
        Ok(states)
    }
}

async fn begin(
    shared: &Arc<Shared>,
    coordinator: &Arc<Coordinator>,
    new: RelationSpec,
) -> Result<Alteration, SqlError> {
    let relation = new.relation();
    expect_complete(shared, coordinator, relation)?;
    let missing = missing_readers(coordinator, &new);
    let workers = coordinator.workers();
    if !missing.is_empty() {
        let installed = coordinator.install(|epoch| {
            let install = |spec| Arc::new(Install::fresh(spec, epoch, workers));
            missing.into_iter().map(install).collect()
        });
        installed.map_err(|failure| given_up(&failure.message))?;
    }
    let _turn = shared.pausing.lock().await;
    let paused = coordinator
        .pause()
        .await
        .ok_or_else(|| failed(coordinator))?;
    // Others have come and gone meanwhile.
    expect_complete(shared, coordinator, relation)?;
    let old = paused.installed(relation).ok_or_else(not_running)?;
    let arriving = Arc::new(Arriving::new(new, workers));
    let beside = arriving.clone();
    paused.replace(|start| {
        Arc::new(Install {
            arriving: Some(beside),
            ..old.in_its_place(old.spec.clone(), start)
        })
    });
    Ok(Alteration {
        shared: shared.clone(),
        coordinator: coordinator.clone(),
        arriving,
        is_over: false,
        held: None,
    })
}

/// A view that is being built has to be let alone.
fn expect_complete(
    shared: &Shared,
    coordinator: &Coordinator,
    relation: RelationId,
) -> Result<(), SqlError> {
    if let Some(suspension) = shared.suspensions.get(relation) {
        return Err(suspension.error());
    }
    let unfinished =
        coordinator.at_published(|published, installs| match installs.get(&relation) {
            None => Some(not_running()),
            Some(i) if i.arriving.is_some() => Some(in_use(&i.spec.dataflow.name)),
            Some(i) if !i.status.is_complete_at(published.epoch) => {
                Some(still_being_built(&i.spec.dataflow.name))
            }
            Some(_) => None,
        });
    unfinished.map_or(Ok(()), Err)
}

impl Alteration {
    /// Keeps this until the new plan runs alone, or nothing of it does.
    pub fn holding(mut self, held: Box<dyn Any + Send + Sync>) -> Self {
        self.held = Some(held);
        self
    }

    fn relation(&self) -> RelationId {
        self.arriving.spec.relation()
    }

    /// Waits until the new plan holds all it should.
    pub async fn caught_up(&self) -> Result<(), SqlError> {
        let mut published = self.shared.published.subscribe();
        loop {
            let seen: Published = *published.borrow_and_update();
            self.expect_running()?;
            if self.arriving.status.is_complete_at(seen.epoch) {
                return Ok(());
            }
            published.changed().await.map_err(|_| shut_down())?;
        }
    }

    /// An error once the workers that build it are no more.
    fn expect_running(&self) -> Result<(), SqlError> {
        let is_there = self
            .coordinator
            .installed(self.relation())
            .is_some_and(|i| {
                let ours = |a: &Arc<Arriving>| Arc::ptr_eq(a, &self.arriving);
                i.arriving.as_ref().is_some_and(ours)
            });
        match is_there && !self.coordinator.has_stopped() {
            true => Ok(()),
            false => Err(failed(&self.coordinator)),
        }
    }

    /// Whether somebody still reads what was in the view before, and goes by the order of rows in a store that would go.
    fn is_being_read_in(&self) -> bool {
        let relation = self.relation();
        self.coordinator.at_published(|published, installs| {
            let contents = installs.get(&relation).map(|i| i.spec.dataflow.contents);
            contents != Some(self.arriving.spec.dataflow.contents)
                && installs.values().any(|i| {
                    i.spec.relation() != relation
                        && i.spec.dataflow.reads().contains(&relation)
                        && !i.status.is_complete_at(published.epoch)
                })
        })
    }

    /// From the next epoch on the new plan runs, and nothing else. Returns when readers see it.
    pub async fn take_over(mut self) -> Result<(), SqlError> {
        let relation = self.relation();
        while self.is_being_read_in() {
            self.expect_running()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _turn = self.shared.pausing.lock().await;
        let paused = self.coordinator.pause().await;
        let paused = paused.ok_or_else(|| failed(&self.coordinator))?;
        self.expect_running()?;
        let old = paused.installed(relation).ok_or_else(not_running)?;
        let mut first = Epoch::default();
        let arriving = self.arriving.clone();
        paused.replace(|start| {
            first = start;
            let from = old.spec.dataflow.clone();
            Arc::new(Install {
                is_superseded: false,
                takes_over: Some(TakesOver {
                    arriving: arriving.clone(),
                    from,
                }),
                ..old.in_its_place(arriving.spec.clone(), start)
            })
        });
        self.is_over = true;
        let mut published = self.shared.published.subscribe();
        loop {
            let seen: Published = *published.borrow_and_update();
            if self.coordinator.has_stopped() {
                return Err(failed(&self.coordinator));
            }
            if seen.epoch >= first {
                break;
            }
            published.changed().await.map_err(|_| shut_down())?;
        }
        self.shared.successors.lock().remove(&relation);
        Ok(())
    }
}

impl Drop for Alteration {
    fn drop(&mut self) {
        if self.is_over || self.coordinator.has_stopped() {
            return;
        }
        let (shared, coordinator) = (self.shared.clone(), self.coordinator.clone());
        let (arriving, held) = (self.arriving.clone(), self.held.take());
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            handle.spawn(async move {
                give_up(&shared, &coordinator, &arriving).await;
                drop(held);
            });
        }
    }
}

/// Leaves the old plan alone again.
async fn give_up(shared: &Shared, coordinator: &Arc<Coordinator>, arriving: &Arc<Arriving>) {
    let _turn = shared.pausing.lock().await;
    let Some(paused) = coordinator.pause().await else {
        return;
    };
    let relation = arriving.spec.relation();
    let ours = |i: &Arc<Install>| {
        let present = i.arriving.as_ref();
        present.is_some_and(|a| Arc::ptr_eq(a, arriving))
    };
    if let Some(old) = paused.installed(relation).filter(ours) {
        paused.replace(|start| Arc::new(old.in_its_place(old.spec.clone(), start)));
    }
}

/// Carries out what was decided before the workers started. Ends with them.
pub(crate) async fn finish(
    shared: Weak<Shared>,
    coordinator: Weak<Coordinator>,
    successor: RelationSpec,
) {
    loop {
        {
            let (Some(shared), Some(coordinator)) = (shared.upgrade(), coordinator.upgrade())
            else {
                return;
            };
            if coordinator.has_stopped() {
                return;
            }
            match attempt(&shared, &coordinator, successor.clone()).await {
                Ok(()) => {
                    let view = &successor.dataflow.name;
                    tracing::info!(relation = successor.relation().0, view, "altered again");
                    return;
                }
                Err(error) => tracing::debug!("altering again has to wait: {error}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn attempt(
    shared: &Arc<Shared>,
    coordinator: &Arc<Coordinator>,
    successor: RelationSpec,
) -> Result<(), SqlError> {
    let alteration = begin(shared, coordinator, successor).await?;
    alteration.caught_up().await?;
    alteration.take_over().await
}

fn not_running() -> SqlError {
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the materialized view is not running",
    )
}

fn in_use(name: &str) -> SqlError {
    SqlError::new(
        SqlState::OBJECT_IN_USE,
        format!("materialized view \"{name}\" is being altered already"),
    )
}

fn still_being_built(name: &str) -> SqlError {
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("materialized view \"{name}\" is still being built"),
    )
    .with_hint("SHOW JOBS tells how far it is.")
}

fn failed(coordinator: &Coordinator) -> SqlError {
    match coordinator.failure() {
        Some(cause) => given_up(&cause),
        None => given_up("the workers were stopped"),
    }
}

fn given_up(cause: &str) -> SqlError {
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the alteration was given up, and the view is as it was",
    )
    .with_detail(cause.to_owned())
    .with_hint("Try again.")
}

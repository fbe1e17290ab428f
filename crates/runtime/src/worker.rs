//! One worker: a thread, pinned to a core, that takes commands in order and steps timely in between.

use crate::build;
use crate::command::{Command, Inbox, Install};
use crate::coordinator::Coordinator;
use crate::credits::Credits;
use crate::driver::WorkerFailure;
use crate::error_board::ErrorBoard;
use crate::hub::{Hub, TableItem};
use crate::lag::Busy;
use crate::memory::StateMemory;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tidegate_state::{BackendConfig, Backends};
use tidegate_types::{Batch, KeyGroupRange, RelationId};
use timely::worker::Worker;

/// What the workers of one incarnation share.
pub(crate) struct WorkerShared {
    pub inboxes: Vec<Arc<Inbox>>,
    pub coordinator: Arc<Coordinator>,
    /// Where RocksDB keeps working state, and how much memory one worker's share is.
    pub working_directory: PathBuf,
    pub memory_per_worker: usize,
    pub memory: Arc<StateMemory>,
    pub credits: Arc<Credits>,
    pub errors: Arc<ErrorBoard>,
    pub pin: bool,
}

/// The life of a worker. Never panics: a failure is reported to the coordinator, which ends the incarnation.
pub(crate) fn run(worker: &mut Worker, shared: &Arc<WorkerShared>) {
    let index = worker.index();
    if shared.pin {
        pin(index);
    }
    let result = catch_unwind(AssertUnwindSafe(|| serve(worker, shared)));
    if let Err(panic) = result {
        shared.coordinator.worker_failed(index, failure_of(panic));
    }
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    }));
    if dropped.is_err() {
        tracing::error!(
            worker = index,
            "a dataflow could not be dropped after a failure"
        );
    }
}

fn pin(index: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.get(index % cores.len().max(1)) {
        core_affinity::set_for_current(*core);
    }
}

thread_local! {
    /// Whose dataflow this worker is running at the moment.
    static RUNNING: Cell<Option<RelationId>> = const { Cell::new(None) };
    /// How long each dataflow has been running since a barrier was passed.
    static BUSY: RefCell<Busy> = RefCell::default();
}

/// Runs a piece of a relation's dataflow, so that a panic in it is known to be that relation's.
pub(crate) fn on_behalf_of<T>(relation: RelationId, work: impl FnOnce() -> T) -> T {
    RUNNING.set(Some(relation));
    let started = Instant::now();
    let result = work();
    RUNNING.set(None);
    BUSY.with_borrow_mut(|busy| *busy.entry(relation).or_default() += started.elapsed());
    result
}

fn failure_of(panic: Box<dyn Any + Send>) -> WorkerFailure {
    match panic.downcast::<WorkerFailure>() {
        Ok(failure) => *failure,
        Err(panic) => WorkerFailure {
            relation: RUNNING.take(),
            message: panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a worker panicked".to_owned()),
        },
    }
}

fn serve(worker: &mut Worker, shared: &Arc<WorkerShared>) {
    let index = worker.index();
    let inbox = &shared.inboxes[index];
    inbox.attach();
    let backends = Backends::open(BackendConfig {
        directory: shared.working_directory.clone(),
        worker: index,
        groups: KeyGroupRange::of_worker(index, worker.peers()),
        cache_limit_bytes: shared.memory_per_worker / 5,
        overlay_limit_bytes: shared.memory_per_worker / 8,
        memory: shared.memory.account().clone(),
    });
    let backends = match backends {
        Ok(backends) => backends,
        Err(error) => std::panic::panic_any(WorkerFailure {
            relation: None,
            message: error.to_string(),
        }),
    };
    let hub = Rc::new(Hub::new(
        index,
        worker.peers(),
        backends,
        shared.credits.clone(),
        shared.coordinator.clone(),
        shared.errors.clone(),
    ));
    let mut loop_ = Loop {
        worker,
        hub,
        inbox: inbox.clone(),
        dataflows: HashMap::new(),
    };
    while loop_.turn() {}
}

struct Loop<'a> {
    worker: &'a mut Worker,
    hub: Rc<Hub>,
    inbox: Arc<Inbox>,
    dataflows: HashMap<RelationId, usize>,
}

impl Loop<'_> {
    /// Commands, then what they and the last step led to, then a step. `false`: told to stop.
    fn turn(&mut self) -> bool {
        while let Some(command) = self.inbox.take() {
            if !self.obey(command) {
                return false;
            }
        }
        loop {
            let passed = self.hub.board.borrow_mut().take_passed();
            let Some((epoch, passed)) = passed else { break };
            BUSY.with_borrow_mut(HashMap::clear);
            self.hub.forget_barriers(epoch);
            self.hub
                .coordinator
                .barrier_passed(self.hub.worker, epoch, passed);
        }
        // A command that came meanwhile has left a wake-up behind, so parking here cannot miss it.
        self.worker.step_or_park(None);
        true
    }

    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Install(installs) => {
                for install in installs.iter() {
                    let built = on_behalf_of(install.spec.relation(), || {
                        build::install(self.worker, &self.hub, &self.inbox, install)
                    });
                    match built {
                        Ok(index) => {
                            self.dataflows.insert(install.spec.relation(), index);
                        }
                        Err(error) => std::panic::panic_any(WorkerFailure {
                            relation: Some(install.spec.relation()),
                            message: error.to_string(),
                        }),
                    }
                }
                self.hub.coordinator.built();
            }
            Command::Drop(relations) => {
                for relation in relations.iter() {
                    if let Some(index) = self.dataflows.remove(relation) {
                        self.worker.drop_dataflow(index);
                    }
                    self.hub.forget(*relation);
                }
            }
            Command::Replace(install) => self.replace(&install),
            Command::GoOn => self.hub.go_on(),
            Command::Inspect(relation, answer) => {
                let _ = answer.send(self.hub.inspect(relation));
            }
            Command::Append(changes) => self.append(&changes),
            Command::Barrier(barrier, way) => {
                #[cfg(debug_assertions)]
                crate::failpoint::worker_barrier(self.hub.worker);
                self.hub.announce(barrier, way);
            }
            Command::WhoIsBusy(answer) => {
                // Whoever asked may have stopped waiting for an answer.
                let _ = answer.send(BUSY.with_borrow(Clone::clone));
            }
            Command::Overtake(epoch) => self.hub.overtake(epoch),
            Command::Completed(checkpoint) => {
                if let Err(error) = self.hub.checkpoint_completed(checkpoint) {
                    std::panic::panic_any(WorkerFailure {
                        relation: None,
                        message: error.to_string(),
                    });
                }
            }
            Command::Aborted(checkpoints) => self.hub.checkpoints_aborted(checkpoints),
            Command::Stop => return false,
        }
        true
    }

    /// Everything stands still, so that nothing is under way in the dataflow that goes.
    fn replace(&mut self, install: &Arc<Install>) {
        let relation = install.spec.relation();
        if let Some(index) = self.dataflows.remove(&relation) {
            self.worker.drop_dataflow(index);
        }
        let tables = self.hub.hand_over(relation);
        let built = on_behalf_of(relation, || {
            build::replace(self.worker, &self.hub, &self.inbox, install, tables)
        });
        match built {
            Ok(index) => {
                self.dataflows.insert(relation, index);
            }
            Err(error) => std::panic::panic_any(WorkerFailure {
                relation: Some(relation),
                message: error.to_string(),
            }),
        }
    }

    fn append(&mut self, changes: &[(RelationId, Batch)]) {
        let queues = self.hub.table_queues.borrow();
        for (relation, batch) in changes {
            // A table that was dropped meanwhile has no queue, and its changes no meaning.
            if let Some(queue) = queues.get(relation) {
                let mut queue = queue.borrow_mut();
                queue.items.push_back(TableItem::Rows(batch.clone()));
                queue.activator.activate();
            }
        }
    }
}

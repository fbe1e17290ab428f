//! Cuts barriers, learns when they have passed, publishes epochs to readers.
//!
//! One lock guards it. Under the lock commands are put into the workers' inboxes, which is what gives all workers the
//! same order; nothing under the lock waits. It is called by workers (a barrier has passed, a source has rows), by the
//! engine (append, create, drop), by the checkpoint task and by a timer.
//!
//! **When a barrier is cut.** Never while two are in flight. At once when table changes have been appended, when a source
//! has run dry after giving rows, or when somebody asked; otherwise when `rows_per_epoch` rows have come or
//! `barrier_interval` has gone by since the first of them. So an idle system cuts none, a quiet one answers in
//! milliseconds, and a busy one works in large epochs.

use crate::board::Passed;
use crate::checkpointing::{self, CheckpointWork, Sealed};
use crate::command::{Command, Inbox, Install};
use crate::driver::WorkerFailure;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_checkpoint::CheckpointStore;
use tidegate_connectors::sink::Token;
use tidegate_types::{Barrier, Batch, CheckpointId, Epoch, LogPosition, RelationId};
use tokio::sync::{Notify, mpsc, watch};

/// Barriers that may be under way at the same time.
const MAX_IN_FLIGHT: usize = 2;
/// When so few reserved epochs are left, more are reserved.
const EPOCHS_AHEAD: u64 = 100;

#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub barrier_interval: Duration,
    pub rows_per_epoch: usize,
    /// `None`: only when asked.
    pub checkpoint_interval: Option<Duration>,
}

/// What readers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Published {
    pub epoch: Epoch,
    pub log_position: LogPosition,
    /// Counts incarnations; odd steps never mix.
    pub incarnation: u64,
    /// Workers are running. While they are not, nothing can be read.
    pub running: bool,
}

struct InFlight {
    barrier: Barrier,
    cut_at: Instant,
    waiting: usize,
    /// What each worker sealed.
    sealed: Vec<Sealed>,
}

struct State {
    inboxes: Vec<Arc<Inbox>>,
    next_epoch: u64,
    last_time_ms: i64,
    in_flight: VecDeque<InFlight>,
    log_position: LogPosition,
    /// Somebody waits for the next barrier.
    wanted: bool,
    first_row_at: Option<Instant>,
    installs: BTreeMap<RelationId, Arc<Install>>,
    /// In the order of creation, which is the order of dependency.
    order: Vec<RelationId>,
    next_checkpoint: CheckpointId,
    checkpoint_wanted: bool,
    active_checkpoint: Option<CheckpointId>,
    last_checkpoint_at: Instant,
    /// Barriers have been cut since the last one that was a checkpoint's.
    uncheckpointed: bool,
    /// Prepared by sinks, to be in the next manifest.
    tokens: Vec<(RelationId, Token)>,
    /// Sources of which a worker has nothing more to read.
    finished: BTreeSet<(RelationId, usize)>,
    failure: Option<WorkerFailure>,
    stopped: bool,
}

pub(crate) struct Coordinator {
    state: Mutex<State>,
    pace: Pace,
    rows_since_barrier: AtomicUsize,
    rows_in: AtomicU64,
    published: Arc<watch::Sender<Published>>,
    timer: Notify,
    store: Arc<CheckpointStore>,
    /// Epochs up to here are reserved.
    epoch_limit: AtomicU64,
    /// Gone once the incarnation is over.
    checkpoints: Mutex<Option<mpsc::UnboundedSender<CheckpointWork>>>,
    failures: mpsc::UnboundedSender<WorkerFailure>,
}

/// Where an incarnation begins.
pub(crate) struct Beginning {
    pub epoch: Epoch,
    pub time_ms: i64,
    pub log_position: LogPosition,
    pub checkpoint: CheckpointId,
}

impl Coordinator {
    pub fn new(
        pace: Pace,
        inboxes: Vec<Arc<Inbox>>,
        beginning: &Beginning,
        published: Arc<watch::Sender<Published>>,
        store: Arc<CheckpointStore>,
        checkpoints: mpsc::UnboundedSender<CheckpointWork>,
        failures: mpsc::UnboundedSender<WorkerFailure>,
    ) -> Self {
        let state = State {
            inboxes,
            next_epoch: beginning.epoch.0,
            last_time_ms: beginning.time_ms,
            in_flight: VecDeque::new(),
            log_position: beginning.log_position,
            wanted: false,
            first_row_at: None,
            installs: BTreeMap::new(),
            order: Vec::new(),
            next_checkpoint: beginning.checkpoint,
            checkpoint_wanted: false,
            active_checkpoint: None,
            last_checkpoint_at: Instant::now(),
            uncheckpointed: false,
            tokens: Vec::new(),
            finished: BTreeSet::new(),
            failure: None,
            stopped: false,
        };
        Self {
            state: Mutex::new(state),
            pace,
            rows_since_barrier: AtomicUsize::new(0),
            rows_in: AtomicU64::new(0),
            published,
            timer: Notify::new(),
            epoch_limit: AtomicU64::new(store.reserved_epoch().0),
            store,
            checkpoints: Mutex::new(Some(checkpoints)),
            failures,
        }
    }

    // ---- what workers say -------------------------------------------------------------------------------------------

    /// A source has given rows of the current epoch.
    pub fn rows_arrived(&self, rows: usize) {
        self.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
        let before = self.rows_since_barrier.fetch_add(rows, Ordering::Relaxed);
        if before == 0 {
            self.state.lock().first_row_at = Some(Instant::now());
            self.timer.notify_one();
        }
        let limit = self.pace.rows_per_epoch;
        if before < limit && before + rows >= limit {
            self.cut_if_due(&mut self.state.lock());
        }
    }

    /// A source has nothing more at the moment; with rows given since the last barrier there is reason to cut one.
    pub fn source_idle(&self, has_given_rows: bool) {
        if has_given_rows {
            self.barrier_wanted();
        }
    }

    /// A worker's splits of a source are at their end.
    pub fn source_finished(&self, relation: RelationId, worker: usize) {
        self.state.lock().finished.insert((relation, worker));
    }

    /// Sources that are at their end on all workers.
    pub fn finished_sources(&self) -> Vec<RelationId> {
        let state = self.state.lock();
        let workers = state.inboxes.len();
        let ended = |r: &RelationId| (0..workers).all(|w| state.finished.contains(&(*r, w)));
        state.order.iter().copied().filter(ended).collect()
    }

    pub fn barrier_wanted(&self) {
        let mut state = self.state.lock();
        state.wanted = true;
        self.cut_if_due(&mut state);
    }

    pub fn sink_prepared(&self, relation: RelationId, _checkpoint: CheckpointId, token: Token) {
        self.state.lock().tokens.push((relation, token));
    }

    /// All drivers of this worker have passed the barrier.
    pub fn barrier_passed(&self, worker: usize, epoch: Epoch, passed: Passed) {
        let mut state = self.state.lock();
        let Some(flight) = state
            .in_flight
            .iter_mut()
            .find(|f| f.barrier.epoch == epoch)
        else {
            return;
        };
        flight.waiting -= 1;
        flight.sealed.push(Sealed {
            worker,
            runs: passed.runs,
            micros: passed.seal_micros,
        });
        while state.in_flight.front().is_some_and(|f| f.waiting == 0) {
            let flight = state.in_flight.pop_front().expect("the front is there");
            self.complete(&mut state, flight);
        }
        self.cut_if_due(&mut state);
    }

    fn complete(&self, state: &mut State, flight: InFlight) {
        let barrier = flight.barrier;
        for install in state.installs.values() {
            for store in install.stores.lock().iter().flatten() {
                store.publish(barrier.epoch);
            }
        }
        if barrier.checkpoint.is_some() {
            let work = CheckpointWork {
                barrier,
                triggered_at: flight.cut_at,
                aligned_at: Instant::now(),
                sealed: flight.sealed,
                tokens: std::mem::take(&mut state.tokens),
                relations: state
                    .order
                    .iter()
                    .map(|r| state.installs[r].clone())
                    .collect(),
            };
            // Without a checkpoint task the incarnation is over, and the checkpoint moot.
            if let Some(checkpoints) = &*self.checkpoints.lock() {
                let _ = checkpoints.send(work);
            }
        }
        self.published.send_modify(|p| {
            p.epoch = barrier.epoch;
            p.log_position = barrier.log_position;
        });
    }

    pub fn worker_failed(&self, worker: usize, failure: WorkerFailure) {
        let mut state = self.state.lock();
        if state.failure.is_some() || state.stopped {
            return;
        }
        tracing::error!(
            worker,
            relation = failure.relation.map(|r| r.0),
            "worker failed: {}",
            failure.message
        );
        state.failure = Some(failure.clone());
        self.stop_workers(&mut state);
        let _ = self.failures.send(failure);
    }

    // ---- what the engine says ---------------------------------------------------------------------------------------

    /// Table changes that the log holds up to this position.
    pub fn append(&self, position: LogPosition, changes: Vec<(RelationId, Batch)>) {
        let mut state = self.state.lock();
        // A replay of the log may have brought it already.
        if position <= state.log_position {
            return;
        }
        let rows: usize = changes.iter().map(|(_, b)| b.num_rows()).sum();
        self.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
        state.log_position = position;
        // While workers are down there is nobody to tell: the next incarnation reads the log.
        if state.stopped {
            return;
        }
        state.inboxes[0].send(Command::Append(Arc::new(changes)));
        state.wanted = true;
        self.cut_if_due(&mut state);
    }

    /// Tells workers to build these relations from the next epoch on.
    pub fn install(
        &self,
        make: impl FnOnce(Epoch) -> Vec<Arc<Install>>,
    ) -> Result<(), WorkerFailure> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let installs = make(Epoch(state.next_epoch));
        for install in &installs {
            install.status.starts_at(install.start);
            state.order.push(install.spec.relation());
            state
                .installs
                .insert(install.spec.relation(), install.clone());
        }
        let installs = Arc::new(installs);
        self.broadcast(&state, &Command::Install(installs));
        state.wanted = true;
        self.cut_if_due(&mut state);
        Ok(())
    }

    pub fn drop_relations(&self, relations: &[RelationId]) {
        let mut state = self.state.lock();
        for relation in relations {
            state.installs.remove(relation);
        }
        state.finished.retain(|(r, _)| !relations.contains(r));
        state.order.retain(|r| !relations.contains(r));
        state.tokens.retain(|(r, _)| !relations.contains(r));
        self.broadcast(&state, &Command::Drop(Arc::new(relations.to_vec())));
        state.wanted = true;
        self.cut_if_due(&mut state);
    }

    pub fn installed(&self, relation: RelationId) -> Option<Arc<Install>> {
        self.state.lock().installs.get(&relation).cloned()
    }

    /// All relations in order of dependency.
    pub fn all_installed(&self) -> Vec<Arc<Install>> {
        let state = self.state.lock();
        state
            .order
            .iter()
            .map(|r| state.installs[r].clone())
            .collect()
    }

    /// Runs `read` with what is published, while nothing newer can be published.
    pub fn at_published<T>(
        &self,
        read: impl FnOnce(Published, &BTreeMap<RelationId, Arc<Install>>) -> T,
    ) -> T {
        let state = self.state.lock();
        let published = *self.published.borrow();
        read(published, &state.installs)
    }

    /// Cuts a barrier for whoever wants everything received so far to be visible; answers its epoch.
    pub fn flush(&self) -> Epoch {
        let mut state = self.state.lock();
        state.wanted = true;
        self.cut_if_due(&mut state);
        // Either it was just cut, or the next one will be: whatever is cut last or next covers what came before.
        Epoch(if state.wanted {
            state.next_epoch
        } else {
            state.next_epoch - 1
        })
    }

    /// Asks that the next barrier be a checkpoint's.
    pub fn checkpoint_wanted(&self) {
        let mut state = self.state.lock();
        state.checkpoint_wanted = true;
        state.wanted = true;
        self.cut_if_due(&mut state);
    }

    pub fn stop(&self) {
        self.stop_workers(&mut self.state.lock());
    }

    /// No further checkpoint will come: the task that completes them ends after those under way.
    pub fn close(&self) {
        self.checkpoints.lock().take();
    }

    pub fn rows_in(&self) -> u64 {
        self.rows_in.load(Ordering::Relaxed)
    }

    pub fn barriers_in_flight(&self) -> usize {
        self.state.lock().in_flight.len()
    }

    /// Everything has passed a barrier, so views can be read; unless a worker has failed meanwhile.
    pub fn open_for_readers(&self) {
        let state = self.state.lock();
        if !state.stopped {
            self.published.send_modify(|p| p.running = true);
        }
    }

    /// The epoch of the newest barrier.
    pub fn last_cut(&self) -> Epoch {
        Epoch(self.state.lock().next_epoch - 1)
    }

    // ---- what the checkpoint task says ------------------------------------------------------------------------------

    /// The manifest exists.
    pub fn checkpoint_completed(&self, checkpoint: CheckpointId, reserved: Epoch) {
        self.epoch_limit.fetch_max(reserved.0, Ordering::SeqCst);
        let mut state = self.state.lock();
        state.active_checkpoint = None;
        self.broadcast(&state, &Command::Completed(checkpoint));
        self.cut_if_due(&mut state);
    }

    /// It never will. Tokens stand for rows that will not come again: the next manifest has to hold them.
    pub fn checkpoint_aborted(
        &self,
        checkpoint: CheckpointId,
        mut tokens: Vec<(RelationId, Token)>,
    ) {
        let mut state = self.state.lock();
        state.active_checkpoint = None;
        state.uncheckpointed = true;
        tokens.append(&mut state.tokens);
        state.tokens = tokens;
        self.broadcast(&state, &Command::Aborted(checkpoint));
        self.timer.notify_one();
        self.cut_if_due(&mut state);
    }

    /// Another server owns the storage now, or nobody knows: what this one computes can never be durable again.
    pub fn lost_storage(&self, cause: String) {
        tracing::error!("checkpoint storage is lost: {cause}");
        self.stop();
    }

    // ---- time -------------------------------------------------------------------------------------------------------

    /// Looks at the clock whenever there may be reason to. Ends with the incarnation.
    pub async fn keep_time(self: Arc<Self>) {
        loop {
            self.reserve_epochs().await;
            let deadline = {
                let mut state = self.state.lock();
                if state.stopped {
                    return;
                }
                self.cut_if_due(&mut state);
                self.next_deadline(&state)
            };
            let woken = self.timer.notified();
            match deadline {
                Some(deadline) => {
                    let _ = tokio::time::timeout_at(deadline.into(), woken).await;
                }
                None => woken.await,
            }
        }
    }

    /// Keeps reserved epochs ahead of those in use. Commits do the same, so this seldom has anything to do.
    async fn reserve_epochs(&self) {
        let next = self.state.lock().next_epoch;
        let limit = self.epoch_limit.load(Ordering::SeqCst);
        if next + EPOCHS_AHEAD < limit {
            return;
        }
        match self.store.reserve_epochs(Epoch(limit + 1)).await {
            Ok(()) => {
                self.epoch_limit
                    .fetch_max(self.store.reserved_epoch().0, Ordering::SeqCst);
            }
            Err(error) => tracing::warn!("epochs could not be reserved: {error}"),
        }
    }

    fn next_deadline(&self, state: &State) -> Option<Instant> {
        let now = Instant::now();
        // While two are in flight the next passing barrier looks again, and a deadline in the past would spin.
        if state.in_flight.len() >= MAX_IN_FLIGHT {
            return Some(now + Duration::from_millis(50));
        }
        let rows = state
            .first_row_at
            .filter(|_| self.rows_since_barrier.load(Ordering::Relaxed) > 0);
        let barrier = rows.map(|at| at + self.pace.barrier_interval);
        let checkpoint = match self.pace.checkpoint_interval {
            Some(interval) if state.uncheckpointed && state.active_checkpoint.is_none() => {
                Some(state.last_checkpoint_at + interval)
            }
            _ => None,
        };
        let deadline = barrier.into_iter().chain(checkpoint).min()?;
        Some(deadline.max(now + Duration::from_micros(200)))
    }

    // ---- barriers ---------------------------------------------------------------------------------------------------

    fn cut_if_due(&self, state: &mut State) {
        if state.stopped || state.in_flight.len() >= MAX_IN_FLIGHT {
            return;
        }
        let limit = self.epoch_limit.load(Ordering::Relaxed);
        if state.next_epoch + EPOCHS_AHEAD >= limit {
            self.timer.notify_one();
            if state.next_epoch > limit {
                return;
            }
        }
        let now = Instant::now();
        let rows = self.rows_since_barrier.load(Ordering::Relaxed);
        let waited = state
            .first_row_at
            .is_some_and(|at| now - at >= self.pace.barrier_interval);
        let checkpoint = state.active_checkpoint.is_none()
            && (state.checkpoint_wanted
                || self.pace.checkpoint_interval.is_some_and(|interval| {
                    now - state.last_checkpoint_at >= interval
                        && (state.uncheckpointed || state.wanted || rows > 0)
                }));
        let due =
            checkpoint || state.wanted || rows >= self.pace.rows_per_epoch || (rows > 0 && waited);
        if due {
            self.cut(state, now, checkpoint);
        }
    }

    fn cut(&self, state: &mut State, now: Instant, checkpoint: bool) {
        let clock_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as i64);
        state.last_time_ms = state.last_time_ms.max(clock_ms);
        let checkpoint = checkpoint.then(|| {
            let id = state.next_checkpoint;
            state.next_checkpoint = CheckpointId(id.0 + 1);
            state.active_checkpoint = Some(id);
            state.checkpoint_wanted = false;
            state.last_checkpoint_at = now;
            checkpointing::enter("sealing", id);
            id
        });
        let barrier = Barrier {
            epoch: Epoch(state.next_epoch),
            time_ms: state.last_time_ms,
            checkpoint,
            log_position: state.log_position,
        };
        if state.uncheckpointed == checkpoint.is_some() {
            state.uncheckpointed = checkpoint.is_none();
            self.timer.notify_one();
        }
        state.next_epoch += 1;
        state.wanted = false;
        state.first_row_at = None;
        self.rows_since_barrier.store(0, Ordering::Relaxed);
        state.in_flight.push_back(InFlight {
            barrier,
            cut_at: now,
            waiting: state.inboxes.len(),
            sealed: Vec::new(),
        });
        self.broadcast(state, &Command::Barrier(barrier));
    }

    fn broadcast(&self, state: &State, command: &Command) {
        for inbox in &state.inboxes {
            inbox.send(command.clone());
        }
    }

    fn stop_workers(&self, state: &mut State) {
        state.stopped = true;
        self.published.send_modify(|p| p.running = false);
        self.broadcast(state, &Command::Stop);
        self.timer.notify_one();
    }
}

//! Cuts barriers, learns when they have passed, publishes epochs to readers.
//!
//! One lock guards it. Under the lock commands are put into the workers' inboxes, which is what gives all workers the
//! same order; nothing under the lock waits. It is called by workers (a barrier has passed, a source has rows), by the
//! engine (append, create, drop), by the checkpoint task and by a timer.
//!
//! **When a barrier is cut.** Never while two are in flight. At once when table changes have been appended, when a source
//! has run dry after giving rows, or when somebody asked; otherwise when `rows_per_epoch` rows have come or
//! `barrier_interval` has gone by since the first of them. So an idle system cuts none, a quiet one answers in
//! milliseconds, and a busy one works in large epochs. Without rows one is cut when an operator has asked for that time, and
//! when event time has come further. A checkpoint's barrier that is to overtake does not wait for those
//! in flight: it overtakes them too.
//!
//! **When an epoch is published.** When every worker has passed its barrier and nobody merged rows of it into a later one.
//! With synchronous checkpoints also not before the checkpoint is durable.

mod arrivals;
mod conclude;
mod pause;

use crate::board::Passed;
use crate::checkpointing::{self, CheckpointWork, Sealed};
use crate::command::{Command, Inbox, Inspection, Install, Way};
use crate::driver::WorkerFailure;
use crate::event_clock::{EventClock, Told};
use crate::lag::Busy;
use crate::policy::{CheckpointAlignment, CheckpointExecution, CheckpointPolicy, LivePolicy};
use crate::schedule::{Schedule, shown};
use arrivals::Arrivals;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_checkpoint::CheckpointStore;
use tidegate_connectors::sink::Token;
use tidegate_types::watermark::{EventTimes, Watermarks};
use tidegate_types::{Barrier, Batch, CheckpointId, Epoch, LogPosition, RelationId};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use pause::Pause;

/// Barriers that may be under way at the same time.
const MAX_IN_FLIGHT: usize = 2;
/// When so few reserved epochs are left, more are reserved.
const EPOCHS_AHEAD: u64 = 100;

#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub barrier_interval: Duration,
    pub rows_per_epoch: usize,
    pub policy: Arc<LivePolicy>,
    /// A split that has given nothing for so long holds no watermark back.
    pub watermark_idle_timeout: Duration,
}

/// What readers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Published {
    pub epoch: Epoch,
    pub log_position: LogPosition,
    /// What `now()` means in the epoch, in milliseconds since 1970.
    pub time_ms: i64,
    /// Counts incarnations; odd steps never mix.
    pub incarnation: u64,
    /// Workers are running. While they are not, nothing can be read.
    pub running: bool,
    /// They never will again in this process.
    pub given_up: bool,
    /// The incarnation since which nothing that was shown has been taken back.
    pub unbroken: u64,
    /// This incarnation has published no epoch of its own yet.
    pub nothing_yet: bool,
}

struct InFlight {
    barrier: Barrier,
    cut_at: Instant,
    waiting: usize,
    /// What each worker sealed.
    sealed: Vec<Sealed>,
    /// As it was when the barrier was cut.
    policy: Arc<CheckpointPolicy>,
    /// Workers have been told to let it overtake.
    overtaking: bool,
    /// It was asked not to.
    keeps_aligned: bool,
    /// Rows of its epoch have become part of a later one: nobody may be shown this one.
    overtaken: bool,
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
    checkpoints: Schedule,
    pause: Pause,
    /// Waits for the end of another pause.
    next_pause: Option<oneshot::Sender<()>>,
    /// Everybody has passed it, and it is published when its synchronous checkpoint has ended.
    held: Option<(CheckpointId, Barrier)>,
    /// Prepared by sinks, to be in the manifest of this checkpoint or a later one.
    tokens: Vec<(CheckpointId, RelationId, Token)>,
    clock: EventClock,
    /// When a reader has to look at the clock again, though no row may come by then.
    looks: BTreeMap<(RelationId, usize), Instant>,
    /// Times, in milliseconds since 1970, at which operators have something to do.
    alarms: BTreeSet<i64>,
    /// Sources of which a worker has nothing more to read.
    finished: BTreeSet<(RelationId, usize)>,
    failure: Option<WorkerFailure>,
    stopped: bool,
    /// Set when the incarnation is to end with a checkpoint.
    concluding: Option<conclude::Conclusion>,
    arrivals: Arrivals,
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

impl InFlight {
    /// When its checkpoint may have waited too long for something.
    fn next_look(&self, now: Instant) -> Instant {
        let timeout = self.cut_at + self.policy.timeout;
        match self.policy.alignment {
            CheckpointAlignment::AlignedFor(limit) if !self.overtaking && !self.keeps_aligned => {
                let switch = self.cut_at + limit;
                // Once it is over, the switch waits for the end of an epoch.
                if switch > now {
                    switch
                } else {
                    now + Duration::from_millis(10)
                }
            }
            _ => timeout,
        }
    }
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
            clock: EventClock::new(inboxes.len()),
            looks: BTreeMap::new(),
            alarms: BTreeSet::new(),
            inboxes,
            next_epoch: beginning.epoch.0,
            last_time_ms: beginning.time_ms,
            in_flight: VecDeque::new(),
            log_position: beginning.log_position,
            wanted: false,
            first_row_at: None,
            installs: BTreeMap::new(),
            order: Vec::new(),
            checkpoints: Schedule::new(beginning.checkpoint),
            pause: Pause::None,
            next_pause: None,
            held: None,
            tokens: Vec::new(),
            finished: BTreeSet::new(),
            failure: None,
            stopped: false,
            concluding: None,
            arrivals: Arrivals::default(),
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

    /// How far the rows of a source have come on a worker.
    pub fn event_time(&self, source: RelationId, worker: usize, told: Told) {
        let mut state = self.state.lock();
        if state.clock.tell(source, worker, told) {
            self.timer.notify_one();
        }
    }

    /// A reader wants a barrier then, if none comes before: what it has to tell may be something else.
    pub fn look_again(&self, source: RelationId, worker: usize, at: Instant) {
        if self
            .state
            .lock()
            .looks
            .insert((source, worker), at)
            .is_none()
        {
            self.timer.notify_one();
        }
    }

    pub fn idle_after(&self) -> Duration {
        self.pace.watermark_idle_timeout
    }

    /// What event time has reached, and how far it is on its way there, for whoever looks.
    pub fn watermarks(&self) -> (EventTimes, EventTimes) {
        self.state.lock().clock.seen()
    }

    /// An operator has something to do when time has come this far, though no row may come by then.
    pub fn act_at(&self, time_ms: i64) {
        if self.state.lock().alarms.insert(time_ms) {
            self.timer.notify_one();
        }
    }

    pub fn barrier_wanted(&self) {
        let mut state = self.state.lock();
        state.wanted = true;
        self.cut_if_due(&mut state);
    }

    pub fn sink_prepared(&self, relation: RelationId, checkpoint: CheckpointId, token: Token) {
        self.state.lock().tokens.push((checkpoint, relation, token));
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
        flight.overtaken |= passed.overtaken;
        flight.sealed.push(Sealed {
            worker,
            runs: passed.runs,
            micros: passed.seal_micros,
            times: passed.seal_times,
        });
        while state.in_flight.front().is_some_and(|f| f.waiting == 0) {
            let flight = state.in_flight.pop_front().expect("the front is there");
            self.complete(&mut state, flight);
        }
        self.cut_if_due(&mut state);
    }

    fn complete(&self, state: &mut State, flight: InFlight) {
        let barrier = flight.barrier.clone();
        let is_sync = flight.policy.execution == CheckpointExecution::Sync;
        let overtaken = flight.overtaken;
        if let Some(checkpoint) = barrier.checkpoint {
            let mut work = CheckpointWork::new(&barrier, flight.cut_at, flight.policy);
            work.overtaken = overtaken;
            work.sealed = flight.sealed;
            let (now, later) = std::mem::take(&mut state.tokens)
                .into_iter()
                .partition(|(c, ..)| *c <= checkpoint);
            (work.tokens, state.tokens) = (now, later);
            let installs = state.order.iter().map(|r| state.installs[r].clone());
            work.relations = installs.collect();
            self.hand_over(work);
        }
        match barrier.checkpoint {
            // Its rows wait for the end of the next epoch.
            _ if overtaken => state.wanted = true,
            Some(checkpoint) if is_sync => state.held = Some((checkpoint, barrier)),
            _ => self.publish(state, &barrier),
        }
    }

    fn publish(&self, state: &mut State, barrier: &Barrier) {
        for install in state.installs.values() {
            for store in install.stores.lock().iter().flatten() {
                store.publish(barrier.epoch);
            }
            if let Some(arriving) = &install.arriving {
                for store in arriving.stores.lock().iter().flatten() {
                    store.publish(barrier.epoch);
                }
            }
        }
        state.checkpoints.epoch_ended();
        state.clock.settle(&barrier.watermarks.floors);
        self.published.send_modify(|p| {
            p.epoch = barrier.epoch;
            p.log_position = barrier.log_position;
            p.nothing_yet = false;
            p.time_ms = barrier.time_ms;
        });
        self.pause_reached(state, barrier);
    }

    fn hand_over(&self, work: CheckpointWork) {
        // Without a checkpoint task the incarnation is over, and the checkpoint moot.
        if let Some(checkpoints) = &*self.checkpoints.lock() {
            let _ = checkpoints.send(work);
        }
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
        self.fail(&mut state, failure);
    }

    /// Ends the incarnation; what comes next is the supervisor's to decide.
    fn fail(&self, state: &mut State, failure: WorkerFailure) {
        if state.failure.is_none() && !state.stopped {
            state.failure = Some(failure.clone());
            self.stop_workers(state);
            let _ = self.failures.send(failure);
        }
    }

    /// The policy has changed.
    pub fn policy_changed(&self) {
        self.cut_if_due(&mut self.state.lock());
        self.timer.notify_one();
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
        state.arrivals.appended(rows);
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
        if let Some(failure) = state.end_of_workers() {
            return Err(failure);
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
        state.clock.forget(relations);
        state.looks.retain(|(r, _), _| !relations.contains(r));
        state.order.retain(|r| !relations.contains(r));
        // They may come again before these barriers have passed, and with another state.
        for sealed in state.in_flight.iter_mut().flat_map(|f| &mut f.sealed) {
            sealed.runs.retain(|(r, _)| !relations.contains(r));
            sealed.times.retain(|(r, ..)| !relations.contains(r));
        }
        state.tokens.retain(|(_, r, _)| !relations.contains(r));
        self.broadcast(&state, &Command::Drop(Arc::new(relations.to_vec())));
        state.wanted = true;
        self.cut_if_due(&mut state);
    }

    pub fn installed(&self, relation: RelationId) -> Option<Arc<Install>> {
        self.state.lock().installs.get(&relation).cloned()
    }

    /// Those that cannot be read yet.
    pub fn building(&self) -> HashSet<RelationId> {
        self.at_published(|published, installs| {
            let unfinished = |r: &RelationId| unfinished(installs, *r, published.epoch).is_some();
            installs.keys().copied().filter(unfinished).collect()
        })
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

    /// Asks that the next barrier be a checkpoint's, which overtakes nothing if it is to be `aligned`.
    pub fn checkpoint_wanted(&self, aligned: bool) {
        let mut state = self.state.lock();
        state.checkpoints.want(aligned);
        state.wanted = true;
        self.cut_if_due(&mut state);
    }

    /// Why the workers have stopped, if one of them failed.
    pub fn failure(&self) -> Option<String> {
        self.state
            .lock()
            .failure
            .as_ref()
            .map(|f| f.message.clone())
    }

    pub fn has_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// How long the oldest barrier has been under way.
    pub fn oldest_barrier_age(&self) -> Option<Duration> {
        let state = self.state.lock();
        Some(state.in_flight.front()?.cut_at.elapsed())
    }

    /// Asks all workers what the operators of a relation hold and have done.
    pub fn inspect(&self, relation: RelationId) -> mpsc::UnboundedReceiver<Inspection> {
        let (sender, answers) = mpsc::unbounded_channel();
        self.broadcast(&self.state.lock(), &Command::Inspect(relation, sender));
        answers
    }

    /// Asks all workers what they spend their time on.
    pub fn who_is_busy(&self) -> mpsc::UnboundedReceiver<Busy> {
        let (sender, answers) = mpsc::unbounded_channel();
        self.broadcast(&self.state.lock(), &Command::WhoIsBusy(sender));
        answers
    }

    pub fn stop(&self) {
        self.stop_workers(&mut self.state.lock());
    }

    /// No further checkpoint will come: the task that completes them ends after those under way.
    pub fn close(&self) {
        self.checkpoints.lock().take();
    }

    pub fn policy(&self) -> &LivePolicy {
        &self.pace.policy
    }

    pub fn rows_in(&self) -> u64 {
        self.rows_in.load(Ordering::Relaxed)
    }

    /// How many.
    pub fn workers(&self) -> usize {
        self.state.lock().inboxes.len()
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
        state.checkpoints.completed(checkpoint);
        state.arrivals.checkpoint_completed(checkpoint);
        self.broadcast(&state, &Command::Completed(checkpoint));
        self.let_go(&mut state, checkpoint);
        self.end_if_concluded(&mut state, checkpoint);
        self.timer.notify_one();
        self.cut_if_due(&mut state);
    }

    /// It never will. Tokens stand for rows that will not come again: a later manifest has to hold them.
    pub fn checkpoint_aborted(
        &self,
        checkpoint: CheckpointId,
        mut tokens: Vec<(CheckpointId, RelationId, Token)>,
        cause: &str,
    ) {
        let mut state = self.state.lock();
        tokens.append(&mut state.tokens);
        state.tokens = tokens;
        self.abort(&mut state, checkpoint, cause);
        self.cut_if_due(&mut state);
    }

    /// Gives up this checkpoint and those that build upon it; what they would have held is carried over to the next.
    fn abort(&self, state: &mut State, checkpoint: CheckpointId, cause: &str) {
        let (range, failed) = state.checkpoints.aborted(checkpoint);
        state.arrivals.checkpoint_aborted(checkpoint);
        state.not_concluded(&range, cause);
        for flight in &mut state.in_flight {
            if let Some(id) = flight.barrier.checkpoint.filter(|c| range.contains(c)) {
                let mut work =
                    CheckpointWork::new(&flight.barrier, flight.cut_at, flight.policy.clone());
                work.given_up = Some(match id == checkpoint {
                    true => cause.to_owned(),
                    false => format!("it builds upon checkpoint {checkpoint}, which was aborted"),
                });
                self.hand_over(work);
                flight.barrier.checkpoint = None;
            }
        }
        self.broadcast(state, &Command::Aborted(range));
        self.let_go(state, CheckpointId(u64::MAX));
        self.timer.notify_one();
        let tolerable = self.pace.policy.get().tolerable_failed;
        if tolerable.is_some_and(|tolerable| failed > tolerable) {
            let message = format!(
                "{failed} checkpoints in a row failed, which is more than tolerable_failed_checkpoints; the last because {cause}"
            );
            tracing::error!("{message}");
            let relation = None;
            self.fail(state, WorkerFailure { relation, message });
        }
    }

    /// Publishes the epoch that waited for the end of its synchronous checkpoint.
    fn let_go(&self, state: &mut State, ended: CheckpointId) {
        if let Some((_, barrier)) = state.held.take_if(|(checkpoint, _)| *checkpoint <= ended) {
            self.publish(state, &barrier);
        }
    }

    /// Gives up checkpoints whose barrier has not passed in time, and lets those overtake that have waited long enough.
    fn look_at_flights(&self, state: &mut State, now: Instant) {
        let late = state.in_flight.iter().find_map(|f| {
            let checkpoint = f.barrier.checkpoint?;
            (now >= f.cut_at + f.policy.timeout).then(|| (checkpoint, f.policy.timeout))
        });
        if let Some((checkpoint, timeout)) = late {
            let cause = format!(
                "its barrier did not pass within checkpoint_timeout, {}",
                shown(timeout)
            );
            self.abort(state, checkpoint, &cause);
        }
        if !state.checkpoints.may_overtake() {
            return;
        }
        let switches = |f: &&mut InFlight| match f.policy.alignment {
            CheckpointAlignment::AlignedFor(limit) => {
                f.barrier.checkpoint.is_some()
                    && !f.keeps_aligned
                    && !f.overtaking
                    && now >= f.cut_at + limit
            }
            _ => false,
        };
        if let Some(flight) = state.in_flight.iter_mut().find(switches) {
            flight.overtaking = true;
            let epoch = flight.barrier.epoch;
            state.checkpoints.overtook();
            self.broadcast(state, &Command::Overtake(epoch));
        }
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
                self.look_at_flights(&mut state, Instant::now());
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
        let looks = state.looks.values().min().copied();
        let alarms = state.alarms.first().map(|at_ms| {
            let left = at_ms.saturating_sub(clock_ms()).clamp(0, 3_600_000);
            now + Duration::from_millis(left as u64)
        });
        let checkpoint = state.checkpoints.deadline(&self.pace.policy.get());
        let flights = state.in_flight.iter();
        let flights = flights.filter_map(|f| f.barrier.checkpoint.map(|_| f.next_look(now)));
        let waits = barrier.into_iter().chain(checkpoint).chain(flights);
        let deadline = waits.chain(looks).chain(alarms).min()?;
        Some(deadline.max(now + Duration::from_micros(200)))
    }

    // ---- barriers ---------------------------------------------------------------------------------------------------

    fn cut_if_due(&self, state: &mut State) {
        // A synchronous checkpoint lets nothing pass until it has ended.
        let is_sync = |f: &InFlight| {
            f.barrier.checkpoint.is_some() && f.policy.execution == CheckpointExecution::Sync
        };
        if state.stopped || state.held.is_some() || state.in_flight.iter().any(is_sync) {
            return;
        }
        if self.pauses(state) {
            return;
        }
        let now = Instant::now();
        let policy = self.pace.policy.get();
        let rows = self.rows_since_barrier.load(Ordering::Relaxed);
        let arrived = state.wanted || rows > 0;
        let checkpoint = state.checkpoints.is_due(&policy, now, arrived);
        // It overtakes the others too, so that it need not wait for them.
        let overtakes = checkpoint && state.checkpoints.overtakes(&policy);
        if state.in_flight.len() >= MAX_IN_FLIGHT + usize::from(overtakes) {
            return;
        }
        let limit = self.epoch_limit.load(Ordering::Relaxed);
        if state.next_epoch + EPOCHS_AHEAD >= limit {
            self.timer.notify_one();
            if state.next_epoch > limit {
                return;
            }
        }
        let waited = state
            .first_row_at
            .is_some_and(|at| now - at >= self.pace.barrier_interval);
        let called = state.looks.values().any(|at| *at <= now)
            || state.alarms.first().is_some_and(|at| *at <= clock_ms());
        // Where rows flow the next barrier is near, and takes the news along.
        let news = rows == 0 && state.clock.has_news(&|| together(&state.installs));
        let due = checkpoint
            || state.wanted
            || rows >= self.pace.rows_per_epoch
            || (rows > 0 && waited)
            || called
            || news;
        if due {
            self.cut(state, now, checkpoint.then_some(policy));
        }
    }

    /// `checkpoint`: how, if the barrier is one's.
    fn cut(&self, state: &mut State, now: Instant, checkpoint: Option<Arc<CheckpointPolicy>>) {
        self.cut_as(state, now, checkpoint, Way::Passing);
    }

    fn cut_as(
        &self,
        state: &mut State,
        now: Instant,
        checkpoint: Option<Arc<CheckpointPolicy>>,
        mut way: Way,
    ) {
        state.last_time_ms = state.last_time_ms.max(clock_ms());
        let checkpoint = checkpoint.map(|policy| state.policy_of_next(policy));
        let (mut id, mut keeps_aligned) = (None, false);
        if let Some(policy) = &checkpoint {
            if state.checkpoints.overtakes(policy) {
                way = Way::Overtaking;
                state.checkpoints.overtook();
            } else if policy.execution == CheckpointExecution::Sync {
                way = Way::Holding;
            }
            let (begun, aligned) = state.checkpoints.begin(now);
            (id, keeps_aligned) = (Some(begun), aligned);
            state.checkpoint_begun(begun);
            state.arrivals.checkpoint_begun(begun, self.rows_in());
            checkpointing::enter("sealing", begun);
        }
        let barrier = Barrier {
            epoch: Epoch(state.next_epoch),
            time_ms: state.last_time_ms,
            checkpoint: id,
            log_position: state.log_position,
            watermarks: self.watermarks_of_next(state),
        };
        state.looks.retain(|_, at| *at > now);
        state.alarms = state.alarms.split_off(&(state.last_time_ms + 1));
        // Also because of its timeouts.
        if state.checkpoints.barrier_cut(id.is_some()) || id.is_some() {
            self.timer.notify_one();
        }
        state.next_epoch += 1;
        state.wanted = false;
        state.first_row_at = None;
        self.rows_since_barrier.store(0, Ordering::Relaxed);
        state.in_flight.push_back(InFlight {
            barrier: barrier.clone(),
            cut_at: now,
            waiting: state.inboxes.len(),
            sealed: Vec::new(),
            policy: checkpoint.unwrap_or_default(),
            overtaking: way == Way::Overtaking,
            keeps_aligned,
            overtaken: false,
        });
        self.broadcast(state, &Command::Barrier(barrier, way));
    }

    fn watermarks_of_next(&self, state: &mut State) -> Watermarks {
        if !state.clock.is_used() {
            return Watermarks::default();
        }
        let (floors, reached) = state.clock.advance(&|| together(&state.installs));
        let published = self.published.borrow().epoch;
        let catching_up = |r: &RelationId| unfinished(&state.installs, *r, published).is_some();
        Watermarks {
            reached,
            floors,
            catching_up: Arc::new(state.installs.keys().copied().filter(catching_up).collect()),
        }
    }

    fn broadcast(&self, state: &State, command: &Command) {
        for inbox in &state.inboxes {
            inbox.send(command.clone());
        }
    }

    fn stop_workers(&self, state: &mut State) {
        state.stopped = true;
        state.concluding = None;
        // Whoever waits is told so by the end of the channel.
        (state.pause, state.next_pause) = (Pause::None, None);
        self.published.send_modify(|p| p.running = false);
        self.broadcast(state, &Command::Stop);
        self.timer.notify_one();
    }
}

/// The wall clock, which may jump; barrier time follows it and never goes back.
fn clock_ms() -> i64 {
    let clock_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64);
    #[cfg(debug_assertions)]
    let clock_ms = clock_ms + crate::failpoint::clock_ahead_ms();
    clock_ms
}

/// For each relation that runs all that it reads, down to tables and sources.
fn together(installs: &BTreeMap<RelationId, Arc<Install>>) -> Vec<BTreeSet<RelationId>> {
    let below = |relation: &RelationId| {
        let (mut found, mut open) = (BTreeSet::new(), vec![*relation]);
        while let Some(relation) = open.pop() {
            let reads = installs.get(&relation).map(|i| i.spec.dataflow.reads());
            let reads = reads.into_iter().flatten();
            open.extend(reads.filter(|read| found.insert(*read)));
        }
        found.retain(|r| {
            let spec = installs.get(r).map(|i| &i.spec);
            spec.is_some_and(|spec| spec.event_time.is_some())
        });
        found
    };
    installs.keys().map(below).collect()
}

/// One of a relation and all that it reads, down to tables and sources, that does not hold all it should at this epoch.
pub(crate) fn unfinished(
    installs: &BTreeMap<RelationId, Arc<Install>>,
    relation: RelationId,
    epoch: Epoch,
) -> Option<Arc<Install>> {
    let install = installs.get(&relation)?;
    if install.is_superseded {
        return Some(install.clone());
    }
    if install.is_settled.load(Ordering::Relaxed) {
        return None;
    }
    if !install.status.is_complete_at(epoch) {
        return Some(install.clone());
    }
    let reads = install.spec.dataflow.reads();
    // The dataflow of a source names the source itself.
    let mut below = reads.into_iter().filter(|r| *r != relation);
    let below = below.find_map(|r| unfinished(installs, r, epoch));
    if below.is_none() {
        install.is_settled.store(true, Ordering::Relaxed);
    }
    below
}

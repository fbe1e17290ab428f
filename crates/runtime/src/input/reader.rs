//! The splits of a source that belong to one worker.
//!
//! A source whose `next` is pure computation is read inline. One that does I/O is read by a pump thread that holds the
//! readers; the worker asks it for one chunk per split at a time and is woken when an answer is there. Either way a
//! split never gives anything behind its limit.

use super::event_time::Discovery;
use crate::command::Inbox;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_connectors::{Chunk, ConnectorError, Next, Offset, Source, SplitId, SplitReader};
use tidegate_types::hash_key;
use timely::scheduling::SyncActivator;

/// Rows that are asked for at a time.
const CHUNK_ROWS: usize = 8192;
/// How long a split that had nothing is left alone.
const IDLE_PAUSE: Duration = Duration::from_millis(20);
/// How often a source that grows is asked for new splits.
const DISCOVERY_PAUSE: Duration = Duration::from_millis(500);

/// Which worker reads a split: by its number when it has one, so that generators are spread evenly.
pub(crate) fn owner(split: &SplitId, workers: usize) -> usize {
    let number = split
        .as_str()
        .parse::<u64>()
        .unwrap_or_else(|_| hash_key(split.as_str().as_bytes()));
    (number % workers as u64) as usize
}

struct Split {
    /// Behind everything that was delivered.
    offset: Option<Offset>,
    reader: Reader,
    not_before: Option<Instant>,
    finished: bool,
}

enum Reader {
    Inline(Box<dyn SplitReader>),
    /// Whether an answer of the pump is outstanding.
    Pumped {
        asked: bool,
    },
}

struct Request {
    split: SplitId,
    until: Option<Offset>,
}

enum Answer {
    Next {
        split: SplitId,
        next: Result<Next, ConnectorError>,
        offset: Offset,
    },
    Opened {
        split: SplitId,
        offset: Offset,
    },
    /// All splits that there are have been opened.
    Discovered,
    Failed(ConnectorError),
}

struct Pump {
    requests: Sender<Request>,
    answers: Receiver<Answer>,
}

/// What a worker's splits have to give at the moment.
pub(crate) enum Polled {
    Chunk {
        split: SplitId,
        chunk: Chunk,
    },
    /// Nothing until then, or until woken. `None`: until woken.
    Wait(Option<Duration>),
    /// Nothing ever again from these splits, up to their limits.
    Done,
}

pub(crate) struct SplitSet {
    source: Arc<dyn Source>,
    worker: usize,
    workers: usize,
    projection: Option<Vec<usize>>,
    splits: BTreeMap<SplitId, Split>,
    /// Offsets to resume from, for splits that are not open yet.
    resume: BTreeMap<SplitId, Offset>,
    pump: Option<Pump>,
    /// The splits that there were at the start are known.
    is_discovered: bool,
    next_discovery: Option<Instant>,
    last_polled: Option<SplitId>,
}

/// How a pump wakes the worker it reads for.
pub(crate) struct Waker {
    pub activator: SyncActivator,
    pub inbox: Arc<Inbox>,
}

impl Waker {
    fn wake(&self) {
        // Fails only when the worker is gone, and then nobody waits.
        let _ = self.activator.activate();
        self.inbox.wake();
    }
}

impl SplitSet {
    pub fn open(
        source: Arc<dyn Source>,
        resume: BTreeMap<SplitId, Offset>,
        projection: Option<Vec<usize>>,
        worker: usize,
        workers: usize,
        waker: Waker,
    ) -> Result<Self, ConnectorError> {
        let mut set = Self {
            pump: None,
            is_discovered: false,
            next_discovery: Some(Instant::now()),
            last_polled: None,
            splits: BTreeMap::new(),
            source,
            worker,
            workers,
            projection,
            resume,
        };
        if set.source.runs_on_worker() {
            set.discover_inline()?;
        } else {
            set.pump = Some(set.start_pump(waker));
        }
        Ok(set)
    }

    fn discover_inline(&mut self) -> Result<(), ConnectorError> {
        for split in self.source.splits()? {
            if owner(&split, self.workers) != self.worker || self.splits.contains_key(&split) {
                continue;
            }
            let resume = self.resume.get(&split);
            let reader = self
                .source
                .open(&split, resume, self.projection.as_deref())?;
            let offset = Some(reader.offset());
            let opened = Split {
                offset,
                reader: Reader::Inline(reader),
                not_before: None,
                finished: false,
            };
            self.splits.insert(split, opened);
        }
        self.next_discovery = None;
        self.is_discovered = true;
        Ok(())
    }

    fn start_pump(&self, waker: Waker) -> Pump {
        let (requests, asked) = unbounded();
        let (answer, answers) = unbounded();
        let pump = PumpThread {
            source: self.source.clone(),
            resume: self.resume.clone(),
            projection: self.projection.clone(),
            worker: self.worker,
            workers: self.workers,
            asked,
            answer,
            waker,
        };
        std::thread::Builder::new()
            .name(format!("pump-{}", self.worker))
            .spawn(move || pump.run())
            .expect("the system can start a thread");
        Pump { requests, answers }
    }

    /// Where each split stands: behind everything that was delivered.
    pub fn offsets(&self) -> impl Iterator<Item = (&SplitId, Offset)> {
        self.splits
            .iter()
            .filter_map(|(id, split)| Some((id, split.offset?)))
    }

    pub fn offset(&self, split: &SplitId) -> Option<Offset> {
        self.splits
            .get(split)
            .and_then(|s| s.offset)
            .or_else(|| self.resume.get(split).copied())
    }

    /// Splits that are at their end.
    pub fn finished(&self) -> impl Iterator<Item = &SplitId> {
        self.splits
            .iter()
            .filter(|(_, s)| s.finished)
            .map(|(id, _)| id)
    }

    /// Whether all splits are known.
    pub fn discovery(&self) -> Discovery {
        match (self.is_discovered, self.source.bounded()) {
            (false, _) => Discovery::Pending,
            (true, true) => Discovery::Complete,
            (true, false) => Discovery::Open,
        }
    }

    pub fn owns(&self, split: &SplitId) -> bool {
        owner(split, self.workers) == self.worker
    }

    /// The next chunk of any split, turn by turn. `limit` gives the offset that a split must not go behind; a split that
    /// it answers `None` for gives nothing, `Some(None)` lets it go on without a limit.
    pub fn poll(
        &mut self,
        limit: &dyn Fn(&SplitId) -> Option<Option<Offset>>,
    ) -> Result<Polled, ConnectorError> {
        if let Some(chunk) = self.receive()? {
            return Ok(chunk);
        }
        let now = Instant::now();
        let mut wait: Option<Duration> = None;
        let mut asked_pump = false;
        let mut waits =
            |duration: Duration| wait = Some(wait.map_or(duration, |w| w.min(duration)));
        let order: Vec<SplitId> = self.turn();
        for id in order {
            let split = self.splits.get_mut(&id).expect("ids come from the map");
            let Some(until) = limit(&id) else { continue };
            let at_limit = matches!((until, split.offset), (Some(until), Some(at)) if at >= until);
            if split.finished || at_limit {
                continue;
            }
            if let Some(at) = split.not_before.filter(|at| *at > now) {
                waits(at - now);
                continue;
            }
            match &mut split.reader {
                Reader::Pumped { asked: true } => asked_pump = true,
                Reader::Pumped { asked } => {
                    *asked = true;
                    asked_pump = true;
                    let pump = self.pump.as_ref().expect("pumped splits have a pump");
                    // Fails only when the pump has failed, and that is told by its last answer.
                    let _ = pump.requests.send(Request { split: id, until });
                }
                Reader::Inline(reader) => {
                    let next = reader.next(CHUNK_ROWS, until.as_ref())?;
                    let offset = reader.offset();
                    if let Some(polled) = split.took(&id, next, offset) {
                        self.last_polled = Some(id);
                        return Ok(polled);
                    }
                    if let Some(at) = split.not_before {
                        waits(at.saturating_duration_since(now));
                    }
                }
            }
        }
        // The pump wakes the worker with an answer, and when it has found a split.
        let is_open = !self.is_discovered || !self.source.bounded();
        let may_come = asked_pump || (self.pump.is_some() && is_open);
        Ok(if wait.is_some() || may_come {
            Polled::Wait(wait)
        } else {
            Polled::Done
        })
    }

    /// The ids, starting behind the one that gave the last chunk.
    fn turn(&self) -> Vec<SplitId> {
        let Some(last) = &self.last_polled else {
            return self.splits.keys().cloned().collect();
        };
        let after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        self.splits
            .range::<SplitId, _>(after)
            .chain(self.splits.range(..=last))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// What the pump has answered since.
    fn receive(&mut self) -> Result<Option<Polled>, ConnectorError> {
        let Some(pump) = &self.pump else {
            return Ok(None);
        };
        while let Ok(answer) = pump.answers.try_recv() {
            match answer {
                Answer::Failed(error) => return Err(error),
                Answer::Discovered => self.is_discovered = true,
                Answer::Opened { split, offset } => {
                    let opened = Split {
                        offset: Some(offset),
                        reader: Reader::Pumped { asked: false },
                        not_before: None,
                        finished: false,
                    };
                    self.splits.insert(split, opened);
                }
                Answer::Next {
                    split: id,
                    next,
                    offset,
                } => {
                    let split = self
                        .splits
                        .get_mut(&id)
                        .expect("the pump answers for open splits");
                    split.reader = Reader::Pumped { asked: false };
                    if let Some(polled) = split.took(&id, next?, offset) {
                        self.last_polled = Some(id);
                        return Ok(Some(polled));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Split {
    fn took(&mut self, id: &SplitId, next: Next, offset: Offset) -> Option<Polled> {
        match next {
            Next::Chunk(chunk) => {
                self.offset = Some(offset);
                return Some(Polled::Chunk {
                    split: id.clone(),
                    chunk,
                });
            }
            Next::Idle => self.not_before = Some(Instant::now() + IDLE_PAUSE),
            Next::WaitUntil(at) => self.not_before = Some(at),
            Next::Finished => {
                self.offset = Some(offset);
                self.finished = true;
            }
        }
        None
    }
}

/// Holds the readers of a source that does I/O. Ends when the worker's end is dropped.
struct PumpThread {
    source: Arc<dyn Source>,
    resume: BTreeMap<SplitId, Offset>,
    projection: Option<Vec<usize>>,
    worker: usize,
    workers: usize,
    asked: Receiver<Request>,
    answer: Sender<Answer>,
    waker: Waker,
}

impl PumpThread {
    fn run(self) {
        let mut readers: BTreeMap<SplitId, Box<dyn SplitReader>> = BTreeMap::new();
        if let Err(error) = self.serve(&mut readers) {
            let _ = self.answer.send(Answer::Failed(error));
            self.waker.wake();
        }
    }

    fn serve(
        &self,
        readers: &mut BTreeMap<SplitId, Box<dyn SplitReader>>,
    ) -> Result<(), ConnectorError> {
        self.discover(readers)?;
        if self.answer.send(Answer::Discovered).is_err() {
            return Ok(());
        }
        self.waker.wake();
        let mut discovered = Instant::now();
        loop {
            let request = if self.source.bounded() {
                self.asked
                    .recv()
                    .map_err(|_| crossbeam_channel::RecvTimeoutError::Disconnected)
            } else {
                self.asked.recv_timeout(DISCOVERY_PAUSE)
            };
            match request {
                Ok(Request { split, until }) => {
                    let reader = readers
                        .get_mut(&split)
                        .expect("the worker asks for open splits");
                    let next = reader.next(CHUNK_ROWS, until.as_ref());
                    let offset = reader.offset();
                    if self
                        .answer
                        .send(Answer::Next {
                            split,
                            next,
                            offset,
                        })
                        .is_err()
                    {
                        return Ok(());
                    }
                    self.waker.wake();
                }
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Ok(()),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
            }
            if !self.source.bounded() && discovered.elapsed() >= DISCOVERY_PAUSE {
                self.discover(readers)?;
                discovered = Instant::now();
            }
        }
    }

    fn discover(
        &self,
        readers: &mut BTreeMap<SplitId, Box<dyn SplitReader>>,
    ) -> Result<(), ConnectorError> {
        let known: BTreeSet<SplitId> = readers.keys().cloned().collect();
        let mut found = false;
        for split in self.source.splits()? {
            if owner(&split, self.workers) != self.worker || known.contains(&split) {
                continue;
            }
            let reader =
                self.source
                    .open(&split, self.resume.get(&split), self.projection.as_deref())?;
            let offset = reader.offset();
            readers.insert(split.clone(), reader);
            found = true;
            if self.answer.send(Answer::Opened { split, offset }).is_err() {
                return Ok(());
            }
        }
        if found {
            self.waker.wake();
        }
        Ok(())
    }
}

//! An object store that fails on purpose.
//!
//! [`Faults`] wraps any store. Every mutation (a put, the completion of a large put, the removal of one object) is one
//! numbered step. A *crash* at a step stops the world there: that step happens not at all, completely but without
//! an answer, or half, and everything afterwards fails until the test goes on with the store underneath, as a new
//! process would. *Rules* make single operations fail or take long, by kind and by object; [`chance`] does so by chance.
//!
//! Used by this crate's tests. Debug builds of the server put [`from_environment`] in front of their storage, where a crash
//! is the end of the process.

mod chance;

use crate::storage::Storage;
use crate::store::wall_clock_ms;
use async_trait::async_trait;
use chance::{Chances, Description};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What the step at which the crash happens does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    Before,
    /// All of it, but nobody is told.
    After,
    /// Half of the bytes arrive under the object's name (a store that does not promise atomic writes).
    Torn,
    /// From this step on the first run is acknowledged and not there, and the crash comes with the next manifest, which
    /// refers to it.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    Put,
    Get,
    List,
    Delete,
}

/// What an operation suffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A failure that may pass, before the operation does anything.
    Unavailable,
    /// The operation takes effect, and then its answer is lost.
    AnswerLost,
    /// Half of the bytes arrive, and the answer is an error. A conditional creation fails without.
    Torn,
    DiskFull,
    Denied,
    Delay(Duration),
}

/// Applies to the next `times` operations that match.
#[derive(Debug, Clone)]
pub struct Rule {
    pub kind: OperationKind,
    /// Part of the object's name; empty matches all.
    pub object: String,
    pub times: usize,
    pub effect: Effect,
}

/// A mutation that was attempted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub kind: OperationKind,
    pub object: String,
}

/// The controls; clones control the same store.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    crash: Option<(usize, Crash)>,
    crashed: bool,
    /// A run was acknowledged that is not there.
    has_lost: bool,
    /// A crash ends the process.
    ends_process: bool,
    rules: Vec<Rule>,
    chances: Chances,
}

/// What becomes of an operation that is to happen.
#[derive(PartialEq, Eq)]
enum Fate {
    Done,
    AnswerLost,
    Torn,
}

/// The variable that holds a description, as [`chance`] reads it.
pub const VARIABLE: &str = "TIDEGATE_STORAGE_FAULTS";

/// Puts the faults that the environment describes in front of a storage.
pub fn from_environment(storage: Storage) -> std::result::Result<Storage, String> {
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(storage);
    };
    let Description { chances, crash } =
        chance::parse(&text).map_err(|e| format!("{VARIABLE}: {e}"))?;
    let faults = Faults::new();
    {
        let mut plan = faults.plan.lock();
        plan.chances = chances;
        plan.crash = crash;
        plan.ends_process = true;
    }
    tracing::warn!("storage fails on purpose: {text}");
    Ok(storage.wrapped(|store| faults.wrap(store)))
}

impl Faults {
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the faults in front of a store.
    pub fn wrap(&self, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(FaultyStore {
            inner,
            faults: self.clone(),
        })
    }

    /// Crashes at the given step, counted from zero from now on.
    pub fn crash_at(&self, step: usize, crash: Crash) {
        let mut plan = self.plan.lock();
        plan.steps.clear();
        plan.crashed = false;
        plan.has_lost = false;
        plan.crash = Some((step, crash));
    }

    pub fn add(&self, rule: Rule) {
        self.plan.lock().rules.push(rule);
    }

    /// Listings do not know of objects that are younger.
    pub fn list_lag(&self, lag: Duration) {
        self.plan.lock().chances.list_lag = lag;
    }

    pub fn has_crashed(&self) -> bool {
        self.plan.lock().crashed
    }

    /// Mutations attempted since the beginning, or since `crash_at`.
    pub fn steps(&self) -> Vec<Step> {
        self.plan.lock().steps.clone()
    }

    fn crashed() -> Error {
        generic("the process has crashed")
    }

    /// At the end of the step at which the crash happens.
    fn crash(&self) -> Error {
        let plan = self.plan.lock();
        if plan.ends_process {
            tracing::error!(steps = plan.steps.len(), "the process ends on purpose");
            std::process::abort();
        }
        Self::crashed()
    }

    /// Before a mutation: whether it is where the crash happens.
    fn mutation(&self, kind: OperationKind, object: &Path) -> Result<Option<Crash>> {
        let mut plan = self.plan.lock();
        if plan.crashed {
            return Err(Self::crashed());
        }
        let step = plan.steps.len();
        plan.steps.push(Step {
            kind,
            object: object.to_string(),
        });
        match plan.crash {
            Some((at, Crash::Lost)) => {
                let is_next =
                    |folder| kind == OperationKind::Put && object.as_ref().contains(folder);
                if plan.has_lost && is_next("manifests/") {
                    plan.crashed = true;
                    return Ok(Some(Crash::After));
                }
                let loses = !plan.has_lost && step >= at && is_next("runs/");
                plan.has_lost |= loses;
                Ok(loses.then_some(Crash::Lost))
            }
            Some((at, crash)) if at == step => {
                plan.crashed = true;
                Ok(Some(crash))
            }
            _ => Ok(None),
        }
    }

    fn reading(&self) -> Result<()> {
        if self.plan.lock().crashed {
            Err(Self::crashed())
        } else {
            Ok(())
        }
    }

    fn rule(&self, kind: OperationKind, object: &str) -> Option<Effect> {
        let mut plan = self.plan.lock();
        let rule = plan
            .rules
            .iter_mut()
            .find(|r| r.kind == kind && r.times > 0 && object.contains(&r.object));
        match rule {
            Some(rule) => {
                rule.times -= 1;
                Some(rule.effect.clone())
            }
            None => plan.chances.draw(kind),
        }
    }

    /// Waits or fails as a rule or chance says.
    async fn suffer(&self, kind: OperationKind, object: &str) -> Result<Fate> {
        match self.rule(kind, object) {
            None => Ok(Fate::Done),
            Some(Effect::AnswerLost) => Ok(Fate::AnswerLost),
            Some(Effect::Torn) => Ok(Fate::Torn),
            Some(Effect::Unavailable) => Err(generic("injected: service unavailable")),
            Some(Effect::DiskFull) => {
                let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
                Err(Error::Generic {
                    store: "faulty",
                    source: full.into(),
                })
            }
            Some(Effect::Denied) => Err(Error::PermissionDenied {
                path: object.to_owned(),
                source: "injected".into(),
            }),
            Some(Effect::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(Fate::Done)
            }
        }
    }
}

fn generic(cause: &'static str) -> Error {
    Error::Generic {
        store: "faulty",
        source: cause.into(),
    }
}

fn half(payload: &PutPayload) -> PutPayload {
    let all: Vec<u8> = payload.iter().flat_map(|b| b.iter().copied()).collect();
    PutPayload::from(all[..all.len() / 2].to_vec())
}

#[derive(Debug)]
struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Faults,
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let crash = self.faults.mutation(OperationKind::Put, location)?;
        let fate = self
            .faults
            .suffer(OperationKind::Put, location.as_ref())
            .await?;
        let is_conditional = options.mode != PutMode::Overwrite;
        match crash {
            None if fate == Fate::AnswerLost => {
                self.inner.put_opts(location, payload, options).await?;
                Err(generic("injected: the answer was lost"))
            }
            None if fate == Fate::Torn => {
                if !is_conditional {
                    self.inner
                        .put_opts(location, half(&payload), options)
                        .await?;
                }
                Err(generic("injected: cut off"))
            }
            None => self.inner.put_opts(location, payload, options).await,
            Some(Crash::Lost) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Some(Crash::Before) => Err(self.faults.crash()),
            Some(Crash::After) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(self.faults.crash())
            }
            Some(Crash::Torn) => {
                self.inner
                    .put_opts(location, half(&payload), options)
                    .await?;
                Err(self.faults.crash())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.faults.reading()?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultyUpload {
            inner,
            location: location.clone(),
            faults: self.faults.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.faults.reading()?;
        let fate = self
            .faults
            .suffer(OperationKind::Get, location.as_ref())
            .await?;
        let result = self.inner.get_opts(location, options).await?;
        match fate {
            Fate::Done => Ok(result),
            Fate::AnswerLost | Fate::Torn => Err(generic("injected: the answer was lost")),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, faults) = (self.inner.clone(), self.faults.clone());
        locations
            .then(move |location| {
                let (inner, faults) = (inner.clone(), faults.clone());
                async move {
                    let location = location?;
                    let crash = faults.mutation(OperationKind::Delete, &location)?;
                    let fate = faults
                        .suffer(OperationKind::Delete, location.as_ref())
                        .await?;
                    if crash == Some(Crash::Before) || crash == Some(Crash::Torn) {
                        return Err(faults.crash());
                    }
                    inner.delete(&location).await?;
                    match fate {
                        _ if crash.is_some() => Err(faults.crash()),
                        Fate::Done => Ok(location),
                        Fate::AnswerLost | Fate::Torn => {
                            Err(generic("injected: the answer was lost"))
                        }
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (faults, folder) = (
            self.faults.clone(),
            prefix.map(ToString::to_string).unwrap_or_default(),
        );
        let listed = self.inner.list(prefix);
        let checked = async move {
            faults.reading()?;
            faults.suffer(OperationKind::List, &folder).await?;
            let lag = faults.plan.lock().chances.list_lag.as_millis() as i64;
            let newest = wall_clock_ms() - lag;
            let is_known = move |meta: &ObjectMeta| {
                lag == 0 || meta.last_modified.timestamp_millis() <= newest
            };
            let known = listed.try_filter(move |meta| futures::future::ready(is_known(meta)));
            Ok::<_, Error>(known)
        };
        futures::stream::once(checked).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.faults.reading()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.faults.reading()?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    location: Path,
    faults: Faults,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.faults.reading() {
            Ok(()) => self.inner.put_part(data),
            Err(e) => Box::pin(futures::future::ready(Err(e))),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let crash = self.faults.mutation(OperationKind::Put, &self.location)?;
        let fate = self
            .faults
            .suffer(OperationKind::Put, self.location.as_ref())
            .await?;
        if crash == Some(Crash::Before) || crash == Some(Crash::Torn) {
            return Err(self.faults.crash());
        }
        // Parts appear together or not at all.
        if fate == Fate::Torn {
            return Err(generic("injected: cut off"));
        }
        let done = self.inner.complete().await?;
        match crash {
            None if fate == Fate::AnswerLost => Err(generic("injected: the answer was lost")),
            None | Some(Crash::Lost) => Ok(done),
            Some(_) => Err(self.faults.crash()),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

//! An object store that fails on purpose.
//!
//! [`Faults`] wraps any store. Every mutation (a put, the completion of a large put, the removal of one object) is one
//! numbered step. A *crash* at a step stops the world there: that step happens not at all, completely but without
//! an answer, or half, and everything afterwards fails until the test goes on with the store underneath, as a new
//! process would. *Rules* make single operations fail or take long, by kind and by object.
//!
//! Used by this crate's tests and by the system's.

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
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
    rules: Vec<Rule>,
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
        plan.crash = Some((step, crash));
    }

    pub fn add(&self, rule: Rule) {
        self.plan.lock().rules.push(rule);
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
            .find(|r| r.kind == kind && r.times > 0 && object.contains(&r.object))?;
        rule.times -= 1;
        Some(rule.effect.clone())
    }

    /// Waits or fails as a rule says. True: the operation is to happen and its answer to be lost.
    async fn suffer(&self, kind: OperationKind, object: &str) -> Result<bool> {
        match self.rule(kind, object) {
            None => Ok(false),
            Some(Effect::AnswerLost) => Ok(true),
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
                Ok(false)
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
        let lost = self
            .faults
            .suffer(OperationKind::Put, location.as_ref())
            .await?;
        match crash {
            None if lost => {
                self.inner.put_opts(location, payload, options).await?;
                Err(generic("injected: the answer was lost"))
            }
            None => self.inner.put_opts(location, payload, options).await,
            Some(Crash::Before) => Err(Faults::crashed()),
            Some(Crash::After) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(Faults::crashed())
            }
            Some(Crash::Torn) => {
                self.inner
                    .put_opts(location, half(&payload), options)
                    .await?;
                Err(Faults::crashed())
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
        let lost = self
            .faults
            .suffer(OperationKind::Get, location.as_ref())
            .await?;
        let result = self.inner.get_opts(location, options).await?;
        if lost {
            Err(generic("injected: the answer was lost"))
        } else {
            Ok(result)
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
                    let lost = faults
                        .suffer(OperationKind::Delete, location.as_ref())
                        .await?;
                    if crash == Some(Crash::Before) || crash == Some(Crash::Torn) {
                        return Err(Faults::crashed());
                    }
                    inner.delete(&location).await?;
                    if lost || crash.is_some() {
                        Err(Faults::crashed())
                    } else {
                        Ok(location)
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
            Ok::<_, Error>(listed)
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
        let lost = self
            .faults
            .suffer(OperationKind::Put, self.location.as_ref())
            .await?;
        if crash == Some(Crash::Before) || crash == Some(Crash::Torn) {
            return Err(Faults::crashed());
        }
        let done = self.inner.complete().await?;
        if lost || crash.is_some() {
            Err(Faults::crashed())
        } else {
            Ok(done)
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

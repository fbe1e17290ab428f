//! Where checkpoints live: a directory, memory, or a bucket, behind one small set of operations.
//!
//! Promises: an acknowledged write is durable; conditional creation has one winner, and its outcome is known even when
//! an answer was lost ([`Storage::create`]); transient failures are retried with backoff before they are reported; every
//! error names the object. Nothing here knows what the objects mean.

use crate::bucket::open_bucket;
use crate::buffers::Buffers;
use crate::error::StorageError;
use crate::local::{LocalFiles, SyncProbe};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const PARTS_IN_FLIGHT: usize = 2;

/// How often and how patiently a transient failure is retried.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    pub attempts: u32,
    pub first_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay: Duration::from_millis(50),
        }
    }
}

/// An opened location. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    pub(crate) prefix: ObjectPath,
    /// For people: without secrets.
    location: Arc<str>,
    directory: Option<PathBuf>,
    retry: RetryPolicy,
    buffers: Buffers,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub object: String,
    pub bytes: u64,
}

impl Storage {
    /// Opens a directory path, `file://`, `memory://[name]`, `s3://`, `gs://` or `az://` location. Options of buckets come
    /// from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`) and then from the location's query
    /// (`s3://bucket/prefix?endpoint=http://host:9000`). A named memory location is shared within the process.
    pub fn open(url: &str) -> Result<Self, StorageError> {
        Self::open_probed(url, None)
    }

    /// As `open`; the probe sees each step of making local files durable.
    pub fn open_probed(url: &str, probe: Option<Arc<dyn SyncProbe>>) -> Result<Self, StorageError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Self::open_directory(url, Path::new(url), probe);
        };
        match scheme {
            "file" => Self::open_directory(url, Path::new(rest), probe),
            "memory" => Ok(Self::open_memory(rest)),
            "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" => open_bucket(scheme, rest),
            _ => Err(StorageError::Location {
                url: redacted(url),
                cause: format!(
                    "unknown scheme \"{scheme}\"; known are file, memory, s3, gs, az, or a directory"
                ),
            }),
        }
    }

    /// Opens a location beside whoever may be using it: nothing is created, and nothing that is being written is removed.
    /// A directory has to exist.
    pub fn attach(url: &str) -> Result<Self, StorageError> {
        let path = match url.split_once("://") {
            None => url,
            Some(("file", rest)) => rest,
            Some(_) => return Self::open(url),
        };
        let path = Path::new(path);
        if !path.is_dir() {
            return Err(StorageError::Location {
                url: url.to_owned(),
                cause: "there is no such directory".to_owned(),
            });
        }
        let files = LocalFiles::attach(path).map_err(|e| io_error(url, &e))?;
        let directory = path.canonicalize().map_err(|e| io_error(url, &e))?;
        let mut storage = Self::from_store(Arc::new(files), url);
        storage.directory = Some(directory);
        Ok(storage)
    }

    /// As `attach`, for writing: a directory that is not there is made.
    pub fn attach_or_create(url: &str) -> Result<Self, StorageError> {
        let path = match url.split_once("://") {
            None => url,
            Some(("file", rest)) => rest,
            Some(_) => return Self::open(url),
        };
        if path.is_empty() || !Path::new(path).is_dir() {
            return Self::open(url);
        }
        Self::attach(url)
    }

    fn open_directory(
        url: &str,
        path: &Path,
        probe: Option<Arc<dyn SyncProbe>>,
    ) -> Result<Self, StorageError> {
        if path.as_os_str().is_empty() {
            return Err(StorageError::Location {
                url: url.to_owned(),
                cause: "the path is empty".to_owned(),
            });
        }
        let files = LocalFiles::open(path, probe).map_err(|e| io_error(url, &e))?;
        let directory = path.canonicalize().map_err(|e| io_error(url, &e))?;
        let mut storage = Self::from_store(Arc::new(files), url);
        storage.directory = Some(directory);
        Ok(storage)
    }

    fn open_memory(name: &str) -> Self {
        static SHARED: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> =
            LazyLock::new(Mutex::default);
        let store = if name.is_empty() {
            Arc::new(InMemory::new())
        } else {
            SHARED.lock().entry(name.to_owned()).or_default().clone()
        };
        Self::from_store(store, &format!("memory://{name}"))
    }

    /// Any object store, for tests and for embedding.
    pub fn from_store(store: Arc<dyn ObjectStore>, location: &str) -> Self {
        Self {
            store,
            prefix: ObjectPath::default(),
            location: location.into(),
            directory: None,
            retry: RetryPolicy::default(),
            buffers: Buffers::default(),
        }
    }

    /// The same location with its object store wrapped, as for injecting faults.
    pub fn wrapped(
        mut self,
        wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
    ) -> Self {
        self.store = wrap(self.store);
        self
    }

    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The same location, read and written in pieces of these sizes.
    pub fn with_buffers(mut self, buffers: Buffers) -> Self {
        self.buffers = buffers;
        self
    }

    pub(crate) fn buffers(&self) -> Buffers {
        self.buffers
    }

    fn part_bytes(&self) -> usize {
        self.buffers.part_bytes(self.directory.is_none())
    }

    /// The location without secrets, for messages.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Set when objects are local files.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Holds the directory for one process; `None` for storage that has no such lock. Dropping the file lets go.
    pub fn try_lock(&self) -> Result<LockOutcome, StorageError> {
        let Some(directory) = &self.directory else {
            return Ok(LockOutcome::NotLockable);
        };
        let path = directory.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| io_error(&path.to_string_lossy(), &e))?;
        match file.try_lock() {
            Ok(()) => Ok(LockOutcome::Locked(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(LockOutcome::HeldByAnother),
            Err(std::fs::TryLockError::Error(e)) => Err(io_error(&path.to_string_lossy(), &e)),
        }
    }

    fn path(&self, object: &str) -> ObjectPath {
        let mut path = self.prefix.clone();
        for part in object.split('/') {
            path = path.join(part);
        }
        path
    }

    /// Writes an object whose name nobody else uses.
    pub async fn put(&self, object: &str, chunks: &[Bytes]) -> Result<(), StorageError> {
        if chunks.iter().map(Bytes::len).sum::<usize>() > self.part_bytes() {
            let mut writer = self.writer(object);
            for chunk in chunks {
                writer.write(chunk.clone()).await?;
            }
            return writer.finish().await;
        }
        self.put_whole(object, chunks).await
    }

    async fn put_whole(&self, object: &str, chunks: &[Bytes]) -> Result<(), StorageError> {
        let path = self.path(object);
        self.retried(object, || async {
            let payload: PutPayload = chunks.iter().cloned().collect();
            self.store.put(&path, payload).await.map(|_| ())
        })
        .await
    }

    /// Writes an object piece by piece; it exists only once finished.
    pub fn writer(&self, object: &str) -> ObjectWriter {
        ObjectWriter {
            storage: self.clone(),
            object: object.to_owned(),
            chunks: Vec::new(),
            buffered: 0,
            parts: None,
        }
    }

    /// Creates the object if it does not exist: the only operation that decides anything between two servers.
    ///
    /// `Ok`: it exists with these bytes, written by this call (also when the answer was lost on the way).
    /// `Conflict`: another one is there. `Uncertain`: nobody can tell now. Every other error: it is not there.
    pub async fn create(&self, object: &str, bytes: Bytes) -> Result<(), StorageError> {
        let path = self.path(object);
        let mut delay = self.retry.first_delay;
        let mut attempt = 1;
        loop {
            let options = PutOptions::from(PutMode::Create);
            let error = match self
                .store
                .put_opts(&path, bytes.clone().into(), options)
                .await
            {
                Ok(_) => return Ok(()),
                Err(e) => classify(object, &e),
            };
            match self.read_once(&path).await {
                Ok(found) if found == bytes => return Ok(()),
                Ok(_) => {
                    return Err(StorageError::Conflict {
                        object: object.to_owned(),
                    });
                }
                Err(Error::NotFound { .. }) if !error.is_transient() => {
                    return Err(match error {
                        // The other one was there a moment ago and is gone.
                        StorageError::Conflict { object } => StorageError::Unavailable {
                            object,
                            cause: "it was created and removed meanwhile".into(),
                        },
                        other => other,
                    });
                }
                Err(Error::NotFound { .. }) if attempt >= self.retry.attempts => return Err(error),
                Err(read) if attempt >= self.retry.attempts => {
                    let cause =
                        format!("{error}; then reading it back: {}", classify(object, &read));
                    return Err(StorageError::Uncertain {
                        object: object.to_owned(),
                        cause,
                    });
                }
                Err(_) => {}
            }
            tokio::time::sleep(delay).await;
            delay *= 3;
            attempt += 1;
        }
    }

    async fn read_once(&self, path: &ObjectPath) -> object_store::Result<Bytes> {
        self.store.get(path).await?.bytes().await
    }

    pub async fn get(&self, object: &str) -> Result<Bytes, StorageError> {
        let path = self.path(object);
        self.retried(object, || self.read_once(&path)).await
    }

    /// A range of bytes; shorter than asked where the object ends early.
    pub async fn get_range(
        &self,
        object: &str,
        offset: u64,
        bytes: u64,
    ) -> Result<Bytes, StorageError> {
        let path = self.path(object);
        self.retried(object, || {
            self.store.get_range(&path, offset..offset + bytes)
        })
        .await
    }

    pub async fn exists(&self, object: &str) -> Result<bool, StorageError> {
        let path = self.path(object);
        match self.retried(object, || self.store.head(&path)).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// All objects under a folder, by name.
    pub async fn list(&self, folder: &str) -> Result<Vec<Listed>, StorageError> {
        let path = self.path(folder);
        let prefix_parts = self.prefix.parts().count();
        let mut listed = self
            .retried(folder, || async {
                self.store
                    .list(Some(&path))
                    .map_ok(|meta| {
                        let parts: Vec<_> = meta.location.parts().skip(prefix_parts).collect();
                        let object = parts
                            .iter()
                            .map(AsRef::as_ref)
                            .collect::<Vec<&str>>()
                            .join("/");
                        Listed {
                            object,
                            bytes: meta.size,
                        }
                    })
                    .try_collect::<Vec<_>>()
                    .await
            })
            .await?;
        listed.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(listed)
    }

    /// Removes objects; one that is not there counts as removed.
    pub async fn delete(&self, objects: &[String]) -> Result<(), StorageError> {
        if objects.is_empty() {
            return Ok(());
        }
        let paths: Vec<ObjectPath> = objects.iter().map(|o| self.path(o)).collect();
        self.retried(&objects[0], || async {
            let stream = futures::stream::iter(paths.clone().into_iter().map(Ok)).boxed();
            let mut answers = self.store.delete_stream(stream);
            let mut failed = None;
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(_) | Err(Error::NotFound { .. }) => {}
                    Err(e) => failed = Some(e),
                }
            }
            failed.map_or(Ok(()), Err)
        })
        .await
    }

    async fn retried<T, F>(
        &self,
        object: &str,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut delay = self.retry.first_delay;
        let mut attempt = 1;
        loop {
            let error = match operation().await {
                Ok(value) => return Ok(value),
                Err(e) => classify(object, &e),
            };
            if !error.is_transient() || attempt >= self.retry.attempts {
                return Err(error);
            }
            tracing::debug!(object, attempt, %error, "storage operation is retried");
            tokio::time::sleep(delay).await;
            delay *= 3;
            attempt += 1;
        }
    }
}

/// A location without the options that let one in. Whoever opens it again has them from the environment.
pub fn without_secrets(url: &str) -> String {
    let Some((base, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    const SECRETS: [&str; 5] = ["secret", "token", "key", "sas", "password"];
    let harmless = |option: &&str| {
        let name = option.split('=').next().unwrap_or("").to_ascii_lowercase();
        !SECRETS.iter().any(|s| name.contains(s))
    };
    let options: Vec<&str> = query.split('&').filter(harmless).collect();
    match options.is_empty() {
        true => base.to_owned(),
        false => format!("{base}?{}", options.join("&")),
    }
}

#[derive(Debug)]
pub enum LockOutcome {
    Locked(File),
    HeldByAnother,
    NotLockable,
}

/// An object being written, in parts once it is large. Dropped unfinished, it never exists.
#[derive(Debug)]
pub struct ObjectWriter {
    storage: Storage,
    object: String,
    chunks: Vec<Bytes>,
    buffered: usize,
    parts: Option<WriteMultipart>,
}

impl ObjectWriter {
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.buffered += bytes.len();
        self.chunks.push(bytes);
        if self.buffered > self.storage.part_bytes() || self.parts.is_some() {
            self.write_parts().await?;
        }
        Ok(())
    }

    async fn write_parts(&mut self) -> Result<(), StorageError> {
        if self.parts.is_none() {
            let path = self.storage.path(&self.object);
            let upload = self
                .storage
                .retried(&self.object, || self.storage.store.put_multipart(&path))
                .await?;
            let part_bytes = self.storage.part_bytes();
            self.parts = Some(WriteMultipart::new_with_chunk_size(upload, part_bytes));
        }
        let parts = self.parts.as_mut().expect("set just before");
        for chunk in self.chunks.drain(..) {
            parts
                .wait_for_capacity(PARTS_IN_FLIGHT)
                .await
                .map_err(|e| classify(&self.object, &e))?;
            parts.put(chunk);
        }
        Ok(())
    }

    pub async fn finish(self) -> Result<(), StorageError> {
        match self.parts {
            None => self.storage.put_whole(&self.object, &self.chunks).await,
            Some(parts) => parts
                .finish()
                .await
                .map(|_| ())
                .map_err(|e| classify(&self.object, &e)),
        }
    }
}

/// What an error of the object store means for the caller.
pub(crate) fn classify(object: &str, error: &Error) -> StorageError {
    let object = object.to_owned();
    let cause = chain(error);
    if let Some(io) = find_io(error) {
        return io_error(&object, io);
    }
    match error {
        Error::NotFound { .. } => StorageError::NotFound { object },
        Error::AlreadyExists { .. } | Error::Precondition { .. } => {
            StorageError::Conflict { object }
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            StorageError::Permission { object, cause }
        }
        Error::Generic { .. } => StorageError::Unavailable { object, cause },
        _ => StorageError::Io { object, cause },
    }
}

fn io_error(object: &str, error: &std::io::Error) -> StorageError {
    use std::io::ErrorKind;
    let object = object.to_owned();
    let cause = error.to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            StorageError::DiskFull { object, cause }
        }
        ErrorKind::NotFound => StorageError::NotFound { object },
        ErrorKind::AlreadyExists => StorageError::Conflict { object },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StorageError::Permission { object, cause }
        }
        ErrorKind::TimedOut
        | ErrorKind::Interrupted
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => StorageError::Unavailable { object, cause },
        _ => StorageError::Io { object, cause },
    }
}

fn find_io<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    let mut current = Some(error);
    while let Some(e) = current {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        current = e.source();
    }
    None
}

/// The innermost cause is what helps; the outer ones say little more than "generic error".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut current = error.source();
    while let Some(e) = current {
        let inner = e.to_string();
        if !message.contains(&inner) {
            message.push_str(": ");
            message.push_str(&inner);
        }
        current = e.source();
    }
    message
}

fn redacted(url: &str) -> String {
    url.split_once('?').map_or(url, |(base, _)| base).to_owned()
}

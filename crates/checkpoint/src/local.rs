//! Local files as an object store whose acknowledgement means durable.
//!
//! `object_store`'s own local store never calls fsync. Here a write goes to a staging file beside its target, is synced,
//! is put in place by rename (or by hard link when the target must not exist), and then the directory is synced; a
//! directory that had to be made is synced into its parent first. Only then does the write return. Removal syncs the
//! directory too, once for all files of one call. Staging files are called `name#number`, which listings leave out;
//! what a crash leaves of them is removed at the next opening.
//!
//! A [`SyncProbe`] sees every step, so that a test can prove the order (kill -9 cannot reveal a missing fsync).

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One step of making a file durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncEvent {
    /// All bytes of a staging file were written.
    Written(PathBuf),
    FileSynced(PathBuf),
    /// The file now has its name.
    Placed(PathBuf),
    Removed(PathBuf),
    DirectorySynced(PathBuf),
}

/// Told of each step after it happened.
pub trait SyncProbe: Send + Sync + fmt::Debug {
    fn event(&self, event: SyncEvent);
}

#[derive(Debug, Clone)]
pub struct LocalFiles {
    inner: LocalFileSystem,
    disk: Disk,
}

/// The durable steps, each blocking.
#[derive(Debug, Clone)]
struct Disk {
    probe: Option<Arc<dyn SyncProbe>>,
}

impl LocalFiles {
    /// Makes the directory if it does not exist and removes what a crash left half-written.
    pub fn open(root: &Path, probe: Option<Arc<dyn SyncProbe>>) -> io::Result<Self> {
        let disk = Disk { probe };
        disk.make_directories(root)?;
        remove_staging_files(root)?;
        let inner = LocalFileSystem::new_with_prefix(root).map_err(io::Error::other)?;
        Ok(Self { inner, disk })
    }

    /// A directory that somebody else may be writing to: what is being written there stays.
    pub fn attach(root: &Path) -> io::Result<Self> {
        let inner = LocalFileSystem::new_with_prefix(root).map_err(io::Error::other)?;
        Ok(Self {
            inner,
            disk: Disk { probe: None },
        })
    }
}

impl Disk {
    fn event(&self, event: impl FnOnce() -> SyncEvent) {
        if let Some(probe) = &self.probe {
            probe.event(event());
        }
    }

    fn make_directories(&self, directory: &Path) -> io::Result<()> {
        if directory.as_os_str().is_empty() || directory.is_dir() {
            return Ok(());
        }
        if let Some(parent) = directory.parent() {
            self.make_directories(parent)?;
        }
        match std::fs::create_dir(directory) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        self.sync_directory(parent_of(directory))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()?;
        self.event(|| SyncEvent::DirectorySynced(directory.to_owned()));
        Ok(())
    }

    /// A new staging file beside the target.
    fn stage(&self, target: &Path) -> io::Result<(File, PathBuf)> {
        self.make_directories(parent_of(target))?;
        for number in 1u64.. {
            let mut name = target.as_os_str().to_owned();
            name.push(format!("#{number}"));
            let staging = PathBuf::from(name);
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&staging)
            {
                Ok(file) => return Ok((file, staging)),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::other("no free staging name"))
    }

    /// Syncs a fully written staging file and gives it its name, durably. Undoes what it did when it fails.
    fn place(&self, file: File, staging: &Path, target: &Path, create: bool) -> io::Result<()> {
        let result = self.try_place(file, staging, target, create);
        if result.is_err() {
            let _ = std::fs::remove_file(staging);
        }
        result
    }

    fn try_place(&self, file: File, staging: &Path, target: &Path, create: bool) -> io::Result<()> {
        file.sync_all()?;
        drop(file);
        self.event(|| SyncEvent::FileSynced(staging.to_owned()));
        if create {
            std::fs::hard_link(staging, target)?;
        } else {
            std::fs::rename(staging, target)?;
        }
        self.event(|| SyncEvent::Placed(target.to_owned()));
        if let Err(e) = self.sync_directory(parent_of(target)) {
            if create {
                // Whether the name survives a power loss is unknown: it must not be there, since this call fails.
                let _ = std::fs::remove_file(target);
            }
            return Err(e);
        }
        if create {
            let _ = std::fs::remove_file(staging);
        }
        Ok(())
    }

    fn write(&self, target: &Path, payload: &PutPayload, create: bool) -> io::Result<()> {
        let (mut file, staging) = self.stage(target)?;
        if let Err(e) = payload.iter().try_for_each(|part| file.write_all(part)) {
            let _ = std::fs::remove_file(&staging);
            return Err(e);
        }
        self.event(|| SyncEvent::Written(staging.clone()));
        self.place(file, &staging, target, create)
    }

    fn remove(&self, files: &[PathBuf]) -> Vec<io::Result<()>> {
        let mut directories = BTreeSet::new();
        let mut results = Vec::with_capacity(files.len());
        for file in files {
            let result = std::fs::remove_file(file);
            if result.is_ok() {
                self.event(|| SyncEvent::Removed(file.clone()));
                directories.insert(parent_of(file).to_owned());
            }
            results.push(result);
        }
        for directory in directories {
            if let Err(e) = self.sync_directory(&directory) {
                results
                    .iter_mut()
                    .filter(|r| r.is_ok())
                    .for_each(|r| *r = Err(copy_of(&e)));
            }
        }
        results
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// `name#digits`: the names that `LocalFileSystem` leaves out of its listings.
fn is_staging_name(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn remove_staging_files(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            remove_staging_files(&entry.path())?;
        } else if kind.is_file() && is_staging_name(&entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn store_error(object: &str, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists => Error::AlreadyExists {
            path: object.to_owned(),
            source: error.into(),
        },
        ErrorKind::NotFound => Error::NotFound {
            path: object.to_owned(),
            source: error.into(),
        },
        ErrorKind::PermissionDenied => Error::PermissionDenied {
            path: object.to_owned(),
            source: error.into(),
        },
        _ => Error::Generic {
            store: "local files",
            source: error.into(),
        },
    }
}

async fn blocking<T: Send + 'static>(
    object: String,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| store_error(&object, e)),
        Err(join) => Err(Error::JoinError { source: join }),
    }
}

impl fmt::Display for LocalFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "synced {}", self.inner)
    }
}

const WRITTEN: PutResult = PutResult {
    e_tag: None,
    version: None,
};

#[async_trait]
impl ObjectStore for LocalFiles {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "put with PutMode::Update".into(),
                    implementer: self.to_string(),
                });
            }
        };
        let target = self.inner.path_to_filesystem(location)?;
        let disk = self.disk.clone();
        blocking(location.to_string(), move || {
            disk.write(&target, &payload, create)
        })
        .await?;
        Ok(WRITTEN)
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        _options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        let (disk, staged) = (self.disk.clone(), target.clone());
        let (file, staging) = blocking(location.to_string(), move || disk.stage(&staged)).await?;
        Ok(Box::new(StagedUpload {
            disk: self.disk.clone(),
            object: location.to_string(),
            target,
            staging,
            file: Arc::new(file),
            offset: 0,
            finished: false,
        }))
    }

    async fn get_opts(
        &self,
        location: &ObjectPath,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        let this = self.clone();
        let removed = async move {
            let locations: Vec<ObjectPath> = locations.try_collect().await?;
            let files = locations
                .iter()
                .map(|l| this.inner.path_to_filesystem(l))
                .collect::<object_store::Result<Vec<_>>>()?;
            let disk = this.disk.clone();
            let results =
                blocking("deleted files".to_owned(), move || Ok(disk.remove(&files))).await?;
            let answers =
                locations
                    .into_iter()
                    .zip(results)
                    .map(|(location, result)| match result {
                        Ok(()) => Ok(location),
                        Err(e) => Err(store_error(location.as_ref(), e)),
                    });
            Ok::<_, Error>(futures::stream::iter(answers.collect::<Vec<_>>()))
        };
        futures::stream::once(removed).try_flatten().boxed()
    }

    fn list(
        &self,
        prefix: Option<&ObjectPath>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&ObjectPath>,
    ) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        _from: &ObjectPath,
        _to: &ObjectPath,
        _options: CopyOptions,
    ) -> object_store::Result<()> {
        Err(Error::NotImplemented {
            operation: "copy".into(),
            implementer: self.to_string(),
        })
    }
}

/// A large object written piece by piece into its staging file.
#[derive(Debug)]
struct StagedUpload {
    disk: Disk,
    object: String,
    target: PathBuf,
    staging: PathBuf,
    file: Arc<File>,
    offset: u64,
    finished: bool,
}

#[async_trait]
impl MultipartUpload for StagedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, mut offset, object) = (self.file.clone(), self.offset, self.object.clone());
        self.offset += data.content_length() as u64;
        Box::pin(blocking(object, move || {
            use std::os::unix::fs::FileExt;
            for part in data.iter() {
                file.write_all_at(part, offset)?;
                offset += part.len() as u64;
            }
            Ok(())
        }))
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        self.finished = true;
        let (disk, staging, target) =
            (self.disk.clone(), self.staging.clone(), self.target.clone());
        let file = self.file.clone();
        blocking(self.object.clone(), move || {
            disk.event(|| SyncEvent::Written(staging.clone()));
            let file = file.try_clone()?;
            disk.place(file, &staging, &target, false)
        })
        .await?;
        Ok(WRITTEN)
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.finished = true;
        let staging = self.staging.clone();
        blocking(self.object.clone(), move || std::fs::remove_file(staging)).await
    }
}

impl Drop for StagedUpload {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.staging);
        }
    }
}

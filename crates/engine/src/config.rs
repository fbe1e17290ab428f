//! What a database is opened with.

use crate::begin::FromSavepoint;
use crate::settings::{Scope, Settings, setting, unknown_setting};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tidegate_state::BackendKind;
use tidegate_types::{SqlError, SqlState};

/// Settings that `ALTER SYSTEM SET` wrote, within the data directory.
const PERSISTED: &str = "settings.json";

#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// From the command line, file and environment.
    pub settings: Settings,
    /// Begin with this, in a data directory that is empty.
    pub from_savepoint: Option<FromSavepoint>,
    /// Settings of the process around the database, shown with the others: name, value, description.
    pub process: Vec<(&'static str, String, &'static str)>,
    /// Those of `settings` that `ALTER SYSTEM SET` had no part in.
    given: BTreeMap<&'static str, String>,
}

impl Config {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            settings: Settings::default(),
            from_savepoint: None,
            process: Vec::new(),
            given: BTreeMap::new(),
        }
    }

    /// The value that the database was opened with, which wins over what was written by `ALTER SYSTEM SET`.
    pub(crate) fn given_at_start(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// With a setting, by name and value; an error names it and what it takes.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, SqlError> {
        self.settings.set(name, value)?;
        Ok(self)
    }

    /// As many as asked for, or one per core.
    pub fn workers(&self) -> usize {
        self.settings.workers()
    }

    pub(crate) fn default_backend(&self) -> BackendKind {
        match self.settings.text("state_backend") {
            "rocksdb" => BackendKind::RocksDb,
            _ => BackendKind::Memory,
        }
    }

    pub fn checkpoint_storage(&self) -> String {
        match self.settings.text("checkpoint_storage") {
            "" => self.data_dir.join("checkpoints").display().to_string(),
            url => url.to_owned(),
        }
    }

    /// Adds what `ALTER SYSTEM SET` has written; what was given at the start wins.
    pub fn with_persisted(mut self) -> Result<Self, SqlError> {
        let given = self.settings.given();
        self.given = given.map(|(n, v)| (n, v.to_owned())).collect();
        for (name, value) in persisted(&self.data_dir)? {
            if self.settings.given().all(|(n, _)| n != name) {
                self.settings.set(&name, &value)?;
            }
        }
        Ok(self)
    }
}

fn persisted(data_dir: &Path) -> Result<Vec<(String, String)>, SqlError> {
    let path = data_dir.join(PERSISTED);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(&path, &error)),
    };
    serde_json::from_str::<BTreeMap<String, String>>(&text)
        .map(|map| map.into_iter().collect())
        .map_err(|e| {
            SqlError::new(
                SqlState::DATA_CORRUPTED,
                format!(
                    "the settings file \"{}\" cannot be read: {e}",
                    path.display()
                ),
            )
        })
}

/// What `ALTER SYSTEM SET` wrote for one setting.
pub(crate) fn persisted_value(data_dir: &Path, name: &str) -> Result<Option<String>, SqlError> {
    let all = persisted(data_dir)?;
    Ok(all.into_iter().find(|(n, _)| n == name).map(|(_, v)| v))
}

/// Writes one setting (or removes it) for the next start.
pub(crate) fn persist(data_dir: &Path, name: &str, value: Option<&str>) -> Result<(), SqlError> {
    let known = setting(name).ok_or_else(|| unknown_setting(name))?;
    if let Some(value) = value {
        known.check(value)?;
    }
    if known.scope == Scope::Session && value.is_some() && known.name == "application_name" {
        return Err(SqlError::new(
            SqlState::CANT_CHANGE_RUNTIME_PARAM,
            format!("parameter \"{name}\" cannot be set for the whole server"),
        ));
    }
    let mut all: BTreeMap<String, String> = persisted(data_dir)?.into_iter().collect();
    match value {
        Some(value) => all.insert(name.to_owned(), value.to_owned()),
        None => all.remove(name),
    };
    let path = data_dir.join(PERSISTED);
    let temporary = path.with_extension("new");
    let text = serde_json::to_string_pretty(&all).map_err(SqlError::internal)?;
    let written = std::fs::write(&temporary, text)
        .and_then(|()| std::fs::File::open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, &path))
        .and_then(|()| std::fs::File::open(data_dir)?.sync_all());
    written.map_err(|e| io(&path, &e))
}

fn io(path: &Path, error: &std::io::Error) -> SqlError {
    SqlError::new(
        SqlState::IO_ERROR,
        format!("\"{}\": {error}", path.display()),
    )
}

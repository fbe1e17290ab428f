//! What the server is started with: command line over environment over configuration file over defaults.
//!
//! The engine knows its own settings; those that only the server process has ([`OWN`]) are beside them under the same
//! rules. A setting has one name everywhere: `--set name=value`, `TIDEGATE_NAME`, `name = value` in the file.

use crate::cli::ServerArgs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tidegate_engine::settings::{Kind, SETTINGS, Scope, Setting, unknown_setting};
use tidegate_engine::{Config, FromSavepoint};
use tidegate_types::{SqlError, SqlState};

const ENVIRONMENT_PREFIX: &str = "TIDEGATE_";

const fn own(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    description: &'static str,
) -> Setting {
    Setting {
        name,
        default,
        kind,
        scope: Scope::Server,
        description,
    }
}

/// Settings of the process rather than of the database.
pub const OWN: &[Setting] = &[
    own(
        "data_dir",
        "./tidegate-data",
        Kind::Text,
        "Where everything is kept.",
    ),
    own(
        "http_listen",
        "127.0.0.1:7480",
        Kind::Text,
        "Address of health and metrics; loopback only, off for none.",
    ),
    own(
        "listen",
        "127.0.0.1:7432",
        Kind::Text,
        "Address of the Postgres wire protocol; loopback only.",
    ),
    own(
        "log_format",
        "text",
        Kind::OneOf(&["text", "json"]),
        "Form of the log on stderr.",
    ),
    own(
        "log_level",
        "info",
        Kind::Text,
        "Least severe events that are logged: error, warn, info, debug, trace, or a filter such as info,tidegate_frontend=debug.",
    ),
    own(
        "max_connections",
        "1000",
        Kind::Integer {
            min: 1,
            max: 100_000,
        },
        "Sessions at a time.",
    ),
];

/// The process's and the engine's settings, by name.
pub fn all_settings() -> Vec<&'static Setting> {
    let mut all: Vec<_> = OWN
        .iter()
        .chain(SETTINGS.iter().filter(|s| s.scope == Scope::Server))
        .collect();
    all.sort_by_key(|s| s.name);
    all.extend(SETTINGS.iter().filter(|s| s.scope == Scope::Session));
    all
}

/// Where a value came from, for errors.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    CommandLine,
    Environment(String),
    File(PathBuf),
}

#[derive(Debug)]
pub struct Options {
    pub config: Config,
    pub listen: String,
    /// `None` when switched off.
    pub http_listen: Option<String>,
    pub max_connections: usize,
    pub log_format: String,
    pub log_level: String,
    /// `TIDEGATE_…` variables that are no settings. A container platform makes such names up, so they are no error.
    pub ignored_environment: Vec<String>,
}

impl Options {
    pub fn gather(
        args: &ServerArgs,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, SqlError> {
        if args.hosts.is_some() || args.process.is_some() {
            return Err(SqlError::not_supported(
                "a cluster of several processes (--hosts, --process)",
            )
            .with_hint("One process uses as many cores as --workers says."));
        }
        let mut values = Values::default();
        let mut ignored_environment = Vec::new();
        let mut file = args.config.clone();
        for (variable, value) in environment {
            let Some(name) = variable.strip_prefix(ENVIRONMENT_PREFIX) else {
                continue;
            };
            let name = name.to_ascii_lowercase();
            match (name.as_str(), find(&name)) {
                ("config", _) => file = file.or(Some(value.into())),
                (_, Some(_)) => values.set(&name, &value, Origin::Environment(variable))?,
                // Debug builds read these elsewhere.
                ("failpoint" | "storage_faults", None) if cfg!(debug_assertions) => {}
                (_, None) => ignored_environment.push(variable),
            }
        }
        if let Some(path) = &file {
            values.read_file(path)?;
        }
        values.read_arguments(args)?;
        let mut options = values.into_options(ignored_environment)?;
        if let Some(savepoint) = &args.from_savepoint {
            let from = FromSavepoint::parse(savepoint, args.allow_non_restored_state)?;
            options.config.from_savepoint = Some(from);
        }
        Ok(options)
    }
}

fn find(name: &str) -> Option<&'static Setting> {
    OWN.iter().chain(SETTINGS).find(|s| s.name == name)
}

/// Checked values by name, with their origins.
#[derive(Default)]
struct Values {
    given: BTreeMap<&'static str, (String, Origin)>,
}

impl Values {
    /// The command line wins over the environment, which wins over the file, in whichever order they are read.
    fn set(&mut self, name: &str, value: &str, origin: Origin) -> Result<(), SqlError> {
        let setting = find(name).ok_or_else(|| explain(unknown(name), &origin))?;
        let checked = setting.check(value).map_err(|e| explain(e, &origin))?;
        let rank = |origin: &Origin| match origin {
            Origin::CommandLine => 2,
            Origin::Environment(_) => 1,
            Origin::File(_) => 0,
        };
        let stronger = self
            .given
            .get(setting.name)
            .is_some_and(|(_, present)| rank(present) > rank(&origin));
        if !stronger {
            self.given.insert(setting.name, (checked, origin));
        }
        Ok(())
    }

    fn read_arguments(&mut self, args: &ServerArgs) -> Result<(), SqlError> {
        for pair in &args.set {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("\"--set {pair}\" has no \"=\": a setting is given as name=value"),
                ));
            };
            self.set(name.trim(), value.trim(), Origin::CommandLine)?;
        }
        let data_dir = args.data_dir.as_ref().map(|d| d.display().to_string());
        let flags = [
            ("data_dir", &data_dir),
            ("listen", &args.listen),
            ("http_listen", &args.http_listen),
            ("workers", &args.workers),
        ];
        for (name, value) in flags {
            if let Some(value) = value {
                self.set(name, value, Origin::CommandLine)?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Result<(), SqlError> {
        let refused = |what: String| {
            let message = format!("configuration file \"{}\": {what}", path.display());
            SqlError::new(SqlState::from_code("F0000"), message)
        };
        let text = std::fs::read_to_string(path).map_err(|e| refused(e.to_string()))?;
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| refused(e.to_string()))?;
        for (name, value) in &table {
            let value = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Boolean(flag) => if *flag { "on" } else { "off" }.to_owned(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                _ => return Err(refused(format!("\"{name}\" takes a single value"))),
            };
            self.set(name, &value, Origin::File(path.to_owned()))?;
        }
        Ok(())
    }

    fn text(&self, name: &str) -> String {
        match self.given.get(name) {
            Some((value, _)) => value.clone(),
            None => find(name)
                .expect("asked for settings that exist")
                .default
                .to_owned(),
        }
    }

    fn into_options(self, ignored_environment: Vec<String>) -> Result<Options, SqlError> {
        let mut config = Config::new(self.text("data_dir"));
        for (name, (value, origin)) in &self.given {
            if OWN.iter().all(|own| own.name != *name) {
                config = config.with(name, value).map_err(|e| explain(e, origin))?;
            }
        }
        let http_listen = self.text("http_listen");
        let shown = OWN
            .iter()
            .map(|s| (s.name, self.text(s.name), s.description));
        config.process = shown.collect();
        Ok(Options {
            config,
            listen: self.text("listen"),
            http_listen: (!http_listen.eq_ignore_ascii_case("off")).then_some(http_listen),
            max_connections: self
                .text("max_connections")
                .parse()
                .expect("checked to be a number"),
            log_format: self.text("log_format"),
            log_level: self.text("log_level"),
            ignored_environment,
        })
    }
}

fn unknown(name: &str) -> SqlError {
    unknown_setting(name).with_hint("\"tidegate server --help\" lists all settings.")
}

fn explain(error: SqlError, origin: &Origin) -> SqlError {
    match origin {
        Origin::CommandLine => error,
        Origin::Environment(variable) => error.with_detail(format!(
            "It comes from the environment variable {variable}."
        )),
        Origin::File(path) => error.with_detail(format!(
            "It comes from the configuration file \"{}\".",
            path.display()
        )),
    }
}

//! Every setting: its name, default, meaning, and who may change it when.
//!
//! A setting has one name everywhere: `--set`, the configuration file, the environment, `ALTER SYSTEM SET` and `SET`.
//! Values are kept as the text that was given, after it was checked; typed readers are on [`Settings`].

use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_runtime::RestartStrategy;
use tidegate_types::{SqlError, SqlState};

/// Where a setting can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// When the server starts: command line, file, environment; `ALTER SYSTEM SET` takes effect at the next start.
    Server,
    /// By `SET` for one session; what the server was started with is the default of new ones.
    Session,
}

/// What values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Boolean,
    /// A whole number within bounds.
    Integer {
        min: i64,
        max: i64,
    },
    /// A whole number, or `unlimited`.
    Count,
    /// `100ms`, `1s`, `5min`; a bare number is milliseconds. With `off` also switched off.
    Duration {
        may_be_off: bool,
    },
    /// `512MB`, `2GB`; a bare number is bytes.
    Bytes,
    OneOf(&'static [&'static str]),
}

#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: Kind,
    pub scope: Scope,
    pub description: &'static str,
}

const fn server(
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

const fn session(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    description: &'static str,
) -> Setting {
    Setting {
        name,
        default,
        kind,
        scope: Scope::Session,
        description,
    }
}

const POSITIVE: Kind = Kind::Integer {
    min: 1,
    max: i64::MAX,
};

/// All of them, in order of names.
pub const SETTINGS: &[Setting] = &[
    server(
        "aligned_checkpoint_timeout",
        "off",
        Kind::Duration { may_be_off: true },
        "How long the barrier of an aligned checkpoint waits behind rows before it overtakes them.",
    ),
    session(
        "application_name",
        "",
        Kind::Text,
        "Name of the client, shown in lists of sessions.",
    ),
    session(
        "background_ddl",
        "off",
        Kind::Boolean,
        "CREATE MATERIALIZED VIEW returns before its backfill is over.",
    ),
    server(
        "barrier_interval",
        "100ms",
        Kind::Duration { may_be_off: false },
        "Longest time that rows of a busy source wait for a barrier.",
    ),
    session(
        "bytea_output",
        "hex",
        Kind::OneOf(&["hex"]),
        "Text form of bytea.",
    ),
    server(
        "checkpoint_alignment",
        "aligned",
        Kind::OneOf(&["aligned", "unaligned"]),
        "Whether a checkpoint's barrier waits behind rows, or overtakes them and makes them part of the checkpoint.",
    ),
    server(
        "checkpoint_execution",
        "async",
        Kind::OneOf(&["async", "sync"]),
        "Whether processing goes on while a checkpoint is written, or the barrier is held until it is durable.",
    ),
    server(
        "checkpoint_guarantee",
        "exactly_once",
        Kind::OneOf(&["exactly_once", "at_least_once"]),
        "Whether rows behind a barrier wait for it, or are processed at once and again after a crash.",
    ),
    server(
        "checkpoint_interval",
        "1s",
        Kind::Duration { may_be_off: true },
        "Time between automatic checkpoints.",
    ),
    server(
        "checkpoint_min_pause",
        "0",
        Kind::Duration { may_be_off: false },
        "Least time from the end of an automatic checkpoint to the beginning of the next.",
    ),
    server(
        "checkpoint_mode",
        "incremental",
        Kind::OneOf(&["incremental", "full"]),
        "Whether a checkpoint writes what changed, or all state.",
    ),
    server(
        "checkpoint_on_drop",
        "delete",
        Kind::OneOf(&["delete", "retain"]),
        "Whether a dropped view and a stopped server leave a savepoint of their last state behind.",
    ),
    server(
        "checkpoint_retained",
        "3",
        Kind::Integer {
            min: 1,
            max: 10_000,
        },
        "How many completed checkpoints stay.",
    ),
    server(
        "checkpoint_storage",
        "",
        Kind::Text,
        "Where checkpoints go: a directory or URL; empty means DATA_DIR/checkpoints.",
    ),
    server(
        "checkpoint_timeout",
        "10min",
        Kind::Duration { may_be_off: false },
        "A checkpoint that is not durable within this time is aborted.",
    ),
    session(
        "client_encoding",
        "UTF8",
        Kind::OneOf(&[
            "UTF8", "UTF-8", "utf8", "utf-8", "unicode", "UNICODE", "'utf-8'",
        ]),
        "Encoding of text on the wire.",
    ),
    session(
        "client_min_messages",
        "notice",
        Kind::OneOf(&[
            "debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error",
        ]),
        "Least severe message that is sent to the client.",
    ),
    session(
        "datestyle",
        "ISO, MDY",
        Kind::Text,
        "Form of dates; only ISO is written.",
    ),
    session(
        "default_transaction_isolation",
        "repeatable read",
        Kind::OneOf(&[
            "read uncommitted",
            "read committed",
            "repeatable read",
            "serializable",
        ]),
        "Accepted for clients; transactions see a snapshot.",
    ),
    session(
        "default_transaction_read_only",
        "off",
        Kind::Boolean,
        "Accepted for clients.",
    ),
    session(
        "extra_float_digits",
        "1",
        Kind::Integer { min: -15, max: 3 },
        "Accepted for clients; floats are always written exactly.",
    ),
    server(
        "history_retention",
        "off",
        Kind::Duration { may_be_off: true },
        "For how long FOR SYSTEM_TIME AS OF can read the past: checkpoints stay so long, and at least checkpoint_retained of them.",
    ),
    session(
        "idle_in_transaction_session_timeout",
        "0",
        Kind::Duration { may_be_off: false },
        "Accepted for clients.",
    ),
    session(
        "intervalstyle",
        "postgres",
        Kind::OneOf(&["postgres"]),
        "Form of intervals.",
    ),
    session(
        "lock_timeout",
        "0",
        Kind::Duration { may_be_off: false },
        "Accepted for clients; statements do not wait for locks.",
    ),
    server(
        "max_barrier_lag",
        "off",
        Kind::Duration { may_be_off: true },
        "A view for which a barrier waits longer is left out and rejoins by a backfill; off: everybody waits for it.",
    ),
    server(
        "max_concurrent_checkpoints",
        "1",
        Kind::Integer { min: 1, max: 4 },
        "How many checkpoints may be under way at the same time.",
    ),
    server(
        "memory_limit",
        "4GB",
        Kind::Bytes,
        "Memory for state, queues and queries together. State on rocksdb goes to disk beyond its part of it; state in memory holds sources back near it, then fails statements.",
    ),
    server(
        "pin_workers",
        "on",
        Kind::Boolean,
        "Each worker keeps to a core of its own.",
    ),
    server(
        "restart_attempts",
        "6",
        Kind::Integer {
            min: 0,
            max: 10_000,
        },
        "Restarts in a row because of one view before it is suspended (restart_strategy exponential, fixed).",
    ),
    server(
        "restart_delay",
        "50ms",
        Kind::Duration { may_be_off: false },
        "Time before a restart of the workers; with restart_strategy exponential before the first.",
    ),
    server(
        "restart_failure_interval",
        "1min",
        Kind::Duration { may_be_off: false },
        "Time in which restart_max_failures are counted (restart_strategy failure_rate).",
    ),
    server(
        "restart_max_delay",
        "30s",
        Kind::Duration { may_be_off: false },
        "Longest time before a restart (restart_strategy exponential).",
    ),
    server(
        "restart_max_failures",
        "3",
        Kind::Integer {
            min: 0,
            max: 10_000,
        },
        "Restarts because of one view within the interval before it is suspended (restart_strategy failure_rate).",
    ),
    server(
        "restart_reset_after",
        "1min",
        Kind::Duration { may_be_off: false },
        "Time without a failure after which restarts are counted anew (restart_strategy exponential, fixed).",
    ),
    server(
        "restart_strategy",
        "exponential",
        Kind::OneOf(&["exponential", "fixed", "failure_rate", "none"]),
        "When workers that failed are started again, and when a view that keeps failing is suspended.",
    ),
    server(
        "restore_without_log",
        "off",
        Kind::Boolean,
        "Start although the command log is missing or shorter than the newest checkpoint.",
    ),
    server(
        "rows_in_flight",
        "262144",
        POSITIVE,
        "Rows on their way at which sources hold back.",
    ),
    server(
        "rows_per_epoch",
        "262144",
        POSITIVE,
        "Rows of sources after which a barrier is cut.",
    ),
    session("row_security", "on", Kind::Boolean, "Accepted for clients."),
    session(
        "search_path",
        "public",
        Kind::Text,
        "Schemas in which unqualified names are looked for.",
    ),
    session(
        "standard_conforming_strings",
        "on",
        Kind::OneOf(&["on"]),
        "Backslashes in strings are ordinary characters.",
    ),
    server(
        "state_backend",
        "memory",
        Kind::OneOf(&["memory", "rocksdb"]),
        "Where working state lives unless a view says otherwise.",
    ),
    session(
        "statement_timeout",
        "0",
        Kind::Duration { may_be_off: false },
        "Longest time that a statement may take; 0 for no limit.",
    ),
    session(
        "strict_reads",
        "on",
        Kind::Boolean,
        "A read sees every write that was acknowledged to anybody before it began; off: to this session.",
    ),
    session(
        "synchronous_commit",
        "on",
        Kind::OneOf(&["on"]),
        "Accepted for clients; commits are always durable.",
    ),
    session(
        "timezone",
        "UTC",
        Kind::OneOf(&["UTC", "utc", "Etc/UTC", "GMT"]),
        "Time zone of timestamps with time zone.",
    ),
    server(
        "tolerable_failed_checkpoints",
        "unlimited",
        Kind::Count,
        "How many checkpoints in a row may fail before the workers start again from the newest one.",
    ),
    session(
        "transaction_isolation",
        "repeatable read",
        Kind::OneOf(&[
            "read uncommitted",
            "read committed",
            "repeatable read",
            "serializable",
        ]),
        "Accepted for clients; transactions see a snapshot.",
    ),
    session(
        "transaction_read_only",
        "off",
        Kind::Boolean,
        "Accepted for clients.",
    ),
    server(
        "watermark_idle_timeout",
        "1min",
        Kind::Duration { may_be_off: true },
        "A part of a source that has given nothing for so long does not hold its watermark back; off: it always does.",
    ),
    server(
        "workers",
        "0",
        Kind::Integer { min: 0, max: 256 },
        "Worker threads; 0 means one per core. ALTER SYSTEM SET changes it at once.",
    ),
];

/// Values that clients ask for and nobody can change.
pub const PRESETS: &[(&str, &str)] = &[
    ("integer_datetimes", "on"),
    ("is_superuser", "on"),
    ("max_identifier_length", "63"),
    ("server_encoding", "UTF8"),
    ("server_version", "15.0"),
    ("server_version_num", "150000"),
];

pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

/// 42704, with what exists.
pub fn unknown_setting(name: &str) -> SqlError {
    let close = SETTINGS
        .iter()
        .map(|s| s.name)
        .find(|known| known.contains(name) || name.contains(known));
    let error = SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    );
    match close {
        Some(close) => error.with_hint(format!(
            "Perhaps you mean \"{close}\". SHOW ALL lists all settings."
        )),
        None => error.with_hint("SHOW ALL lists all settings."),
    }
}

impl Setting {
    /// The value as it is kept, or 22023.
    pub fn check(&self, value: &str) -> Result<String, SqlError> {
        let refused = |what: &str| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"{}\": \"{value}\"", self.name),
            )
            .with_hint(what)
        };
        match self.kind {
            Kind::Text => Ok(value.to_owned()),
            Kind::Boolean => match value.to_ascii_lowercase().as_str() {
                "on" | "true" | "yes" | "1" | "t" => Ok("on".into()),
                "off" | "false" | "no" | "0" | "f" => Ok("off".into()),
                _ => Err(refused("It takes on or off.")),
            },
            Kind::Integer { min, max } => match value.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
                Ok(_) => Err(refused(&format!("It takes numbers from {min} to {max}."))),
                Err(_) => Err(refused("It takes a whole number.")),
            },
            Kind::Count if value.eq_ignore_ascii_case("unlimited") => Ok("unlimited".into()),
            Kind::Count => match value.parse::<u64>() {
                Ok(number) => Ok(number.to_string()),
                Err(_) => Err(refused("It takes a whole number, or unlimited.")),
            },
            Kind::Duration { may_be_off } => match parse_duration(value) {
                Some(_) => Ok(value.to_owned()),
                None if may_be_off && value.eq_ignore_ascii_case("off") => Ok("off".into()),
                None => Err(refused("It takes a time such as 100ms, 1s or 5min.")),
            },
            Kind::Bytes => parse_bytes(value)
                .map(|_| value.to_owned())
                .ok_or_else(|| refused("It takes a size such as 512MB or 2GB.")),
            Kind::OneOf(known) => known
                .iter()
                .find(|k| k.eq_ignore_ascii_case(value))
                .map(|k| (*k).to_owned())
                .ok_or_else(|| refused(&format!("Available values: {}.", known.join(", ")))),
        }
    }
}

pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let millis = match unit {
        "us" => number / 1000.0,
        "" | "ms" => number,
        "s" => number * 1e3,
        "min" => number * 60e3,
        "h" => number * 3600e3,
        "d" => number * 86_400e3,
        _ => return None,
    };
    Duration::try_from_secs_f64(millis / 1e3).ok()
}

pub fn parse_bytes(text: &str) -> Option<usize> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        "TB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some((number * factor) as usize)
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

/// Checked values by name; what is not set has its default.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
}

impl Settings {
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let name = canonical(name);
        let setting = setting(&name).ok_or_else(|| unknown_setting(&name))?;
        self.values.insert(setting.name, setting.check(value)?);
        Ok(())
    }

    pub fn reset(&mut self, name: &str) -> Result<(), SqlError> {
        let name = canonical(name);
        let setting = setting(&name).ok_or_else(|| unknown_setting(&name))?;
        self.values.remove(setting.name);
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let name = canonical(name);
        let setting = setting(&name)?;
        Some(
            self.values
                .get(setting.name)
                .map_or(setting.default, String::as_str),
        )
    }

    fn known(&self, name: &'static str) -> &str {
        self.get(name).expect("readers ask for settings that exist")
    }

    pub fn text(&self, name: &'static str) -> &str {
        self.known(name)
    }

    pub fn boolean(&self, name: &'static str) -> bool {
        self.known(name) == "on"
    }

    pub fn integer(&self, name: &'static str) -> i64 {
        self.known(name)
            .parse()
            .expect("values are checked when they are set")
    }

    /// `None` when switched off.
    pub fn duration(&self, name: &'static str) -> Option<Duration> {
        parse_duration(self.known(name))
    }

    pub fn bytes(&self, name: &'static str) -> usize {
        parse_bytes(self.known(name)).expect("values are checked when they are set")
    }

    /// As many as asked for, or one per core.
    pub fn workers(&self) -> usize {
        match self.integer("workers") {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers as usize,
        }
    }

    pub fn restart_strategy(&self) -> RestartStrategy {
        let time = |name| self.duration(name).unwrap_or_default();
        let count = |name| u32::try_from(self.integer(name)).unwrap_or(u32::MAX);
        let (delay, reset_after) = (time("restart_delay"), time("restart_reset_after"));
        let attempts = count("restart_attempts");
        match self.text("restart_strategy") {
            "fixed" => RestartStrategy::Fixed {
                delay,
                attempts,
                reset_after,
            },
            "failure_rate" => RestartStrategy::FailureRate {
                delay,
                failures: count("restart_max_failures"),
                interval: time("restart_failure_interval"),
            },
            "none" => RestartStrategy::None,
            _ => RestartStrategy::Exponential {
                first: delay,
                longest: time("restart_max_delay"),
                attempts,
                reset_after,
            },
        }
    }

    /// Names and values that were set.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().map(|(n, v)| (*n, v.as_str()))
    }
}

/// `SET TIME ZONE` and mixed case mean the same setting.
fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "time zone" | "time.zone" => "timezone".into(),
        "transaction isolation level" => "transaction_isolation".into(),
        "session_authorization" => "application_name".into(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_sorted_and_their_defaults_are_valid() {
        assert!(
            SETTINGS
                .windows(2)
                .all(|w| w[0].name < w[1].name || w[0].name == "rows_per_epoch")
        );
        for setting in SETTINGS {
            setting.check(setting.default).expect(setting.name);
        }
    }

    #[test]
    fn values_are_checked_and_named() {
        let mut settings = Settings::default();
        settings.set("checkpoint_interval", "250ms").expect("valid");
        assert_eq!(
            settings.duration("checkpoint_interval"),
            Some(Duration::from_millis(250))
        );
        settings.set("checkpoint_interval", "off").expect("valid");
        assert_eq!(settings.duration("checkpoint_interval"), None);
        let error = settings
            .set("state_backend", "disk")
            .expect_err("no such backend");
        assert_eq!(error.state, SqlState::INVALID_PARAMETER_VALUE);
        let error = settings
            .set("stat_backend", "memory")
            .expect_err("no such setting");
        assert_eq!(error.state, SqlState::UNDEFINED_OBJECT);
    }
}

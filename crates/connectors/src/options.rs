//! Reading the options of `WITH (…)` and `ENCODE … (…)`: every one is known, typed and within its range, or the
//! statement is refused with a message that names it.

use crate::ConnectorError;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use tidegate_types::{SqlError, SqlState};

/// The options that were given to one connector or format.
pub struct Options<'a> {
    /// For messages: `connector "file"`.
    owner: String,
    given: &'a BTreeMap<String, String>,
    /// An option that is to look as if it had not been given.
    hidden: Option<String>,
}

impl<'a> Options<'a> {
    /// Refuses any option that is not among `known`. The option `connector` itself is skipped.
    pub fn new<K: AsRef<str>>(
        owner: impl Into<String>,
        given: &'a BTreeMap<String, String>,
        known: &[K],
    ) -> Result<Self, ConnectorError> {
        let owner = owner.into();
        let is_known = |name: &str| known.iter().any(|k| k.as_ref() == name);
        match given
            .keys()
            .find(|name| *name != "connector" && !is_known(name))
        {
            Some(name) => Err(unknown("option", name, &format!(" of {owner}"), known)),
            None => Ok(Self {
                owner,
                given,
                hidden: None,
            }),
        }
    }

    /// The same options but one.
    pub(crate) fn without(&self, name: &str) -> Options<'a> {
        Self {
            owner: self.owner.clone(),
            given: self.given,
            hidden: Some(name.to_owned()),
        }
    }

    pub fn text(&self, name: &str) -> Option<&'a str> {
        if self.hidden.as_deref() == Some(name) {
            return None;
        }
        self.given.get(name).map(String::as_str)
    }

    pub fn required(&self, name: &str) -> Result<&'a str, ConnectorError> {
        self.text(name).ok_or_else(|| {
            ConnectorError::invalid(format!("{} needs the option \"{name}\"", self.owner))
        })
    }

    pub fn number<T>(
        &self,
        name: &str,
        allowed: RangeInclusive<T>,
    ) -> Result<Option<T>, ConnectorError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match text.trim().parse::<T>() {
            Ok(value) if allowed.contains(&value) => Ok(Some(value)),
            _ => Err(self.wrong(
                name,
                &format!("a number from {} to {}", allowed.start(), allowed.end()),
            )),
        }
    }

    pub fn boolean(&self, name: &str, default: bool) -> Result<bool, ConnectorError> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "t" | "on" | "yes" | "1") => Ok(true),
            Some("false" | "f" | "off" | "no" | "0") => Ok(false),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// A single byte, such as a delimiter; `\t` may be written out.
    pub fn byte(&self, name: &str, default: u8) -> Result<u8, ConnectorError> {
        match self.text(name).map(str::as_bytes) {
            None => Ok(default),
            Some(b"\\t") => Ok(b'\t'),
            Some([byte]) if byte.is_ascii() && !matches!(byte, b'\r' | b'\n') => Ok(*byte),
            Some(_) => Err(self.wrong(name, "a single one-byte character")),
        }
    }

    /// The error for a value that the option does not take.
    pub fn wrong(&self, name: &str, allowed: &str) -> ConnectorError {
        let value = self.text(name).unwrap_or_default();
        ConnectorError::invalid(format!(
            "invalid value \"{value}\" for option \"{name}\" of {}: expected {allowed}",
            self.owner
        ))
    }
}

/// The error for a name that is not known, with those that are.
pub fn unknown<K: AsRef<str>>(kind: &str, name: &str, of: &str, known: &[K]) -> ConnectorError {
    let list = known.iter().map(AsRef::as_ref).collect::<Vec<_>>();
    let hint = match list.is_empty() {
        true => format!("no {kind} is known here"),
        false => format!("known {kind}s: {}", list.join(", ")),
    };
    ConnectorError::Statement(
        SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("unknown {kind} \"{name}\"{of}"),
        )
        .with_hint(hint),
    )
}

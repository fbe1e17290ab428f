//! The first messages of a connection, which have no type byte: requests for encryption, a cancel request, or the
//! startup message with user, database and settings.

use super::ConnectionError;
use super::inbox::Inbox;
use super::message::{utf8, violation};
use super::outbox::Outbox;
use bytes::{Buf, BytesMut};
use std::net::SocketAddr;
use tidegate_engine::api::SessionOptions;
use tidegate_types::{SqlError, SqlState};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
/// As in Postgres.
const MAX_BYTES: usize = 10_000;

pub(super) enum Opening {
    Cancel { pid: i32, secret: i32 },
    Session(Box<(Inbox, Startup)>),
}

pub(super) struct Startup {
    pub options: SessionOptions,
    /// The client asked for a newer minor version, or for these options of it.
    pub negotiate: Option<Vec<String>>,
}

/// Reads up to and including the message that says what the connection is for.
pub(super) async fn begin(
    mut reader: OwnedReadHalf,
    outbox: &mut Outbox,
) -> Result<Opening, ConnectionError> {
    let mut buffer = BytesMut::new();
    loop {
        let mut body = packet(&mut reader, &mut buffer).await?;
        match body.get_u32() {
            SSL_REQUEST | GSS_REQUEST => {
                // Anything sent before our answer would have been meant to be encrypted.
                if !buffer.is_empty() {
                    return Err(ConnectionError::Fatal(violation(
                        "received unencrypted data after SSL request",
                    )));
                }
                outbox.byte(b'N');
                outbox.flush().await?;
            }
            CANCEL_REQUEST if body.len() >= 8 => {
                return Ok(Opening::Cancel {
                    pid: body.get_i32(),
                    secret: body.get_i32(),
                });
            }
            version if version >> 16 == 3 => {
                let startup = read_startup(version, &body).map_err(ConnectionError::Fatal)?;
                return Ok(Opening::Session(Box::new((
                    Inbox::new(reader, buffer),
                    startup,
                ))));
            }
            version => {
                return Err(ConnectionError::Fatal(SqlError::not_supported(format!(
                    "frontend protocol {}.{}",
                    version >> 16,
                    version & 0xffff
                ))));
            }
        }
    }
}

/// A packet without its length.
async fn packet(
    reader: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
) -> Result<BytesMut, ConnectionError> {
    loop {
        if let Some(mut length) = buffer.get(..4) {
            let length = length.get_i32() as usize;
            if !(8..=MAX_BYTES).contains(&length) {
                return Err(ConnectionError::Fatal(violation(
                    "invalid length of startup packet",
                )));
            }
            if buffer.len() >= length {
                let mut packet = buffer.split_to(length);
                packet.advance(4);
                return Ok(packet);
            }
        }
        match reader.read_buf(buffer).await {
            Ok(0) => return Err(ConnectionError::Closed),
            Ok(_) => {}
            Err(error) => return Err(ConnectionError::Io(error)),
        }
    }
}

fn read_startup(version: u32, body: &[u8]) -> Result<Startup, SqlError> {
    let mut options = SessionOptions::default();
    let mut unknown = Vec::new();
    let mut cells = body.split(|b| *b == 0);
    while let Some(name) = cells.next().filter(|name| !name.is_empty()) {
        let value = cells.next().ok_or_else(|| {
            violation("invalid startup packet layout: expected terminator as last byte")
        })?;
        let (name, value) = (utf8(name)?, utf8(value)?.to_owned());
        match name {
            "user" => options.user = value,
            "database" => options.database = value,
            "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
            "replication" => return Err(SqlError::not_supported("the replication protocol")),
            "options" => options.params.extend(command_line(&value)?),
            name if name.starts_with("_pq_.") => unknown.push(name.to_owned()),
            name => options.params.push((name.to_owned(), value)),
        }
    }
    if options.user.is_empty() {
        return Err(SqlError::new(
            SqlState::from_code("28000"),
            "no PostgreSQL user name specified in startup packet",
        ));
    }
    if options.database.is_empty() {
        options.database = options.user.clone();
    }
    if let Some((_, name)) = options
        .params
        .iter()
        .find(|(name, _)| name == "application_name")
    {
        options.application_name = name.clone();
    }
    let newer = version & 0xffff > 0;
    Ok(Startup {
        options,
        negotiate: (newer || !unknown.is_empty()).then_some(unknown),
    })
}

/// Settings from `-c name=value` and `--name=value`; a backslash keeps a space.
fn command_line(text: &str) -> Result<Vec<(String, String)>, SqlError> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let word = words.last_mut().expect("never empty");
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_ascii_whitespace() => {
                if !word.is_empty() {
                    words.push(String::new());
                }
            }
            c => word.push(c),
        }
    }
    let mut settings = Vec::new();
    let mut words = words.into_iter().filter(|w| !w.is_empty());
    while let Some(word) = words.next() {
        let refused = |word: &str| {
            SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("invalid command-line argument for server process: {word}"),
            )
        };
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => setting.to_owned(),
            (_, Some("")) => words.next().ok_or_else(|| refused(&word))?,
            (_, Some(setting)) => setting.to_owned(),
            _ => return Err(refused(&word)),
        };
        let (name, value) = setting.split_once('=').ok_or_else(|| refused(&setting))?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

impl Startup {
    pub(super) fn with_peer(mut self, peer: SocketAddr) -> Self {
        self.options.peer = Some(peer);
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn user_database_and_settings_are_found() {
        let body = b"user\0ann\0options\0-c a=1 --b-c=x\\ y -cd=2\0application_name\0psql\0_pq_.new\x001\0\0";
        let startup = read_startup(3 << 16 | 2, body).unwrap();
        assert_eq!(startup.options.database, "ann");
        assert_eq!(startup.options.application_name, "psql");
        let settings: Vec<_> = startup
            .options
            .params
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        assert_eq!(settings, ["a=1", "b_c=x y", "d=2", "application_name=psql"]);
        assert_eq!(startup.negotiate, Some(vec!["_pq_.new".to_owned()]));
    }

    #[test]
    fn a_user_is_asked_for() {
        assert_eq!(
            read_startup(3 << 16, b"\0").err().unwrap().state.code(),
            "28000"
        );
        assert_eq!(
            read_startup(3 << 16, b"user").err().unwrap().state.code(),
            "08P01"
        );
    }
}

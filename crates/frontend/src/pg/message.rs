//! What a client says, read from bytes.
//!
//! `pgwire` has decoders too, but they index without looking at the length of what is left, so a malformed message would
//! panic, and they replace invalid UTF-8 silently. Here a message with a bad body becomes [`Message::Malformed`]: its
//! length is known, so the connection goes on behind it, as in Postgres. Only a bad type or length ends the connection.

use bytes::{Buf, Bytes, BytesMut};
use tidegate_types::{SqlError, SqlState};

/// The longest message that carries text or data, as in Postgres.
const MAX_LARGE_BYTES: usize = 0x3fff_ffff;
/// The longest of all others.
const MAX_SMALL_BYTES: usize = 30_000;

#[derive(Debug)]
pub(super) enum Message {
    Query(String),
    Parse(Parse),
    Bind(Bind),
    Describe(Target),
    Execute {
        portal: String,
        max_rows: usize,
    },
    Close(Target),
    Flush,
    Sync,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    Terminate,
    /// Its body could not be read. `extended` messages are skipped up to the next `Sync` after that.
    Malformed {
        error: SqlError,
        extended: bool,
    },
}

#[derive(Debug)]
pub(super) struct Parse {
    pub name: String,
    pub sql: String,
    /// Zero where the client leaves the type to us.
    pub parameter_oids: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Bind {
    pub portal: String,
    pub statement: String,
    pub parameter_formats: Vec<Format>,
    pub parameters: Vec<Option<Bytes>>,
    pub result_formats: Vec<Format>,
}

#[derive(Debug)]
pub(super) enum Target {
    Statement(String),
    Portal(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Binary,
}

/// Takes one whole message from the front of the buffer, or nothing until more bytes have come.
pub(super) fn decode(buffer: &mut BytesMut) -> Result<Option<Message>, SqlError> {
    if buffer.len() < 5 {
        return Ok(None);
    }
    let kind = buffer[0];
    let length = (&buffer[1..5]).get_i32() as usize;
    let limit = match kind {
        b'Q' | b'P' | b'B' | b'd' => MAX_LARGE_BYTES,
        b'D' | b'E' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' | b'p' | b'F' => MAX_SMALL_BYTES,
        other => return Err(violation(format!("invalid frontend message type {other}"))),
    };
    if !(4..=limit).contains(&length) {
        return Err(violation("invalid message length"));
    }
    if buffer.len() < 1 + length {
        return Ok(None);
    }
    buffer.advance(5);
    let body = buffer.split_to(length - 4).freeze();
    let extended = matches!(kind, b'P' | b'B' | b'D' | b'E' | b'C');
    Ok(Some(read(kind, body).unwrap_or_else(|error| {
        Message::Malformed { error, extended }
    })))
}

/// How many bytes the message at the front still lacks, as far as that is known.
pub(super) fn missing(buffer: &BytesMut) -> usize {
    match buffer.get(1..5) {
        Some(mut length) => (1 + length.get_i32().max(4) as usize).saturating_sub(buffer.len()),
        None => 5 - buffer.len(),
    }
}

fn read(kind: u8, body: Bytes) -> Result<Message, SqlError> {
    let mut body = Body(body);
    let message = match kind {
        b'Q' => Message::Query(body.string()?),
        b'P' => Message::Parse(Parse {
            name: body.string()?,
            sql: body.string()?,
            parameter_oids: (0..body.u16()?)
                .map(|_| body.u32())
                .collect::<Result<_, _>>()?,
        }),
        b'B' => Message::Bind(read_bind(&mut body)?),
        b'D' => Message::Describe(body.target()?),
        b'C' => Message::Close(body.target()?),
        b'E' => Message::Execute {
            portal: body.string()?,
            // Zero and negative numbers mean all rows.
            max_rows: match body.u32()? as i32 {
                rows if rows > 0 => rows as usize,
                _ => usize::MAX,
            },
        },
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'd' => return Ok(Message::CopyData(body.0)),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(body.string()?),
        b'F' => return Err(SqlError::not_supported("the function call protocol")),
        _ => return Err(violation("a password was not asked for")),
    };
    if body.0.has_remaining() {
        return Err(violation("invalid message format"));
    }
    Ok(message)
}

fn read_bind(body: &mut Body) -> Result<Bind, SqlError> {
    let (portal, statement) = (body.string()?, body.string()?);
    let parameter_formats = body.formats()?;
    let count = body.u16()?;
    let mut parameters = Vec::with_capacity(count as usize);
    for _ in 0..count {
        parameters.push(match body.u32()? as i32 {
            -1 => None,
            length => Some(body.bytes(
                usize::try_from(length).map_err(|_| violation("invalid message format"))?,
            )?),
        });
    }
    Ok(Bind {
        portal,
        statement,
        parameter_formats,
        parameters,
        result_formats: body.formats()?,
    })
}

struct Body(Bytes);

impl Body {
    fn bytes(&mut self, length: usize) -> Result<Bytes, SqlError> {
        if self.0.len() < length {
            return Err(violation("insufficient data left in message"));
        }
        Ok(self.0.split_to(length))
    }

    fn u16(&mut self) -> Result<u16, SqlError> {
        Ok(self.bytes(2)?.get_u16())
    }

    fn u32(&mut self) -> Result<u32, SqlError> {
        Ok(self.bytes(4)?.get_u32())
    }

    fn string(&mut self) -> Result<String, SqlError> {
        let end = self.0.iter().position(|b| *b == 0);
        let text = self.bytes(end.ok_or_else(|| violation("invalid string in message"))?)?;
        self.0.advance(1);
        utf8(&text).map(str::to_owned)
    }

    fn formats(&mut self) -> Result<Vec<Format>, SqlError> {
        (0..self.u16()?)
            .map(|_| match self.u16()? {
                0 => Ok(Format::Text),
                1 => Ok(Format::Binary),
                other => Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unsupported format code: {other}"),
                )),
            })
            .collect()
    }

    fn target(&mut self) -> Result<Target, SqlError> {
        match self.bytes(1)?[0] {
            b'S' => Ok(Target::Statement(self.string()?)),
            b'P' => Ok(Target::Portal(self.string()?)),
            other => Err(violation(format!("invalid message subtype {other}"))),
        }
    }
}

/// Text from a client; 22021 with the offending bytes, as Postgres words it.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, SqlError> {
    let invalid = |at: usize, length: usize| {
        let shown: Vec<String> = bytes[at..]
            .iter()
            .take(length)
            .map(|b| format!("0x{b:02x}"))
            .collect();
        SqlError::new(
            SqlState::from_code("22021"),
            format!(
                "invalid byte sequence for encoding \"UTF8\": {}",
                shown.join(" ")
            ),
        )
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|e| invalid(e.valid_up_to(), e.error_len().unwrap_or(4)))?;
    match bytes.iter().position(|b| *b == 0) {
        Some(at) => Err(invalid(at, 1)),
        None => Ok(text),
    }
}

pub(super) fn violation(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::PROTOCOL_VIOLATION, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::BufMut;

    fn framed(kind: u8, body: &[u8]) -> BytesMut {
        let mut buffer = BytesMut::new();
        buffer.put_u8(kind);
        buffer.put_i32(body.len() as i32 + 4);
        buffer.put_slice(body);
        buffer
    }

    #[test]
    fn a_message_is_read_once_it_is_whole() {
        let whole = framed(b'Q', b"select 1\0");
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert!(decode(&mut part).unwrap().is_none());
            assert!(missing(&part) > 0);
        }
        let mut buffer = whole;
        assert!(
            matches!(decode(&mut buffer).unwrap(), Some(Message::Query(sql)) if sql == "select 1")
        );
        assert!(buffer.is_empty());
    }

    #[test]
    fn no_body_can_make_it_panic() {
        for kind in b"QPBDECHSXdcfpF" {
            for length in 0..24 {
                for fill in [0u8, 1, 0x7f, 0xff] {
                    let mut buffer = framed(*kind, &vec![fill; length]);
                    decode(&mut buffer).unwrap().unwrap();
                    assert!(buffer.is_empty(), "the whole message is taken");
                }
            }
        }
    }

    #[test]
    fn an_unknown_type_or_length_ends_the_connection() {
        assert_eq!(
            decode(&mut framed(b'?', b"")).unwrap_err().state.code(),
            "08P01"
        );
        let mut long = BytesMut::from(&[b'S', 0x7f, 0, 0, 0][..]);
        assert_eq!(decode(&mut long).unwrap_err().state.code(), "08P01");
        let mut negative = BytesMut::from(&[b'Q', 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(decode(&mut negative).unwrap_err().state.code(), "08P01");
    }

    #[test]
    fn invalid_text_is_named() {
        let Some(Message::Malformed { error, .. }) =
            decode(&mut framed(b'Q', b"a\xffb\0")).unwrap()
        else {
            panic!("refused");
        };
        assert_eq!(error.state.code(), "22021");
        assert_eq!(
            error.message,
            "invalid byte sequence for encoding \"UTF8\": 0xff"
        );
    }
}

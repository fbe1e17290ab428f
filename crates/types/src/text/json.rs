//! `jsonb` in its one text form: keys by length and then bytes, the last of equal keys, `: ` and `, ` between parts, and
//! numbers written out without an exponent but with the decimals they came with.

use super::number::Decimal;
use crate::{SqlError, SqlState};
use std::fmt::Write;

/// Deeper nesting is refused, so that reading cannot exhaust the stack.
const MAX_DEPTH: usize = 1_000;
/// What a `numeric` may have before and after its point in Postgres.
const MAX_WHOLE_DIGITS: i64 = 131_072;
const MAX_FRACTION_DIGITS: i64 = 16_383;

/// Checks a JSON text and writes it as Postgres prints `jsonb`.
pub fn canonical_jsonb(text: &str) -> Result<String, SqlError> {
    let value = read(text)?;
    let mut out = String::with_capacity(text.len() + 8);
    write_json(&value, &mut out);
    Ok(out)
}

fn read(text: &str) -> Result<Json, SqlError> {
    let mut reader = Reader {
        text,
        at: 0,
        token: Token::End,
        start: 0,
    };
    reader.advance()?;
    let value = reader.value(0, "JSON value")?;
    if !matches!(reader.token, Token::End) {
        return Err(reader.expected("end of input"));
    }
    Ok(value)
}

/// A JSON value, taken apart. It prints in the canonical form if its objects are in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// A number or a literal, as it is printed.
    Plain(String),
    Text(String),
    Array(Vec<Json>),
    /// In canonical order, each key once.
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn parse(text: &str) -> Result<Self, SqlError> {
        read(text)
    }

    pub fn null() -> Self {
        Json::Plain("null".to_owned())
    }

    /// Members in any order; the last of equal keys counts.
    pub fn object(members: Vec<(String, Json)>) -> Self {
        Json::Object(in_order(members))
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        write_json(self, &mut out);
        f.write_str(&out)
    }
}

fn write_json(value: &Json, out: &mut String) {
    match value {
        Json::Plain(text) => out.push_str(text),
        Json::Text(text) => write_string(text, out),
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_json(item, out);
            }
            out.push(']');
        }
        Json::Object(members) => {
            out.push('{');
            for (index, (key, value)) in members.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_string(key, out);
                out.push_str(": ");
                write_json(value, out);
            }
            out.push('}');
        }
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => {
                write!(out, "\\u{:04x}", c as u32).expect("writing to a string")
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

enum Token {
    End,
    /// One of `{ } [ ] , :`.
    Mark(u8),
    Text(String),
    Plain(String),
}

struct Reader<'a> {
    text: &'a str,
    /// Where the next token begins.
    at: usize,
    token: Token,
    /// Where `token` began.
    start: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize, wanted: &str) -> Result<Json, SqlError> {
        if depth > MAX_DEPTH {
            return Err(
                SqlError::new(SqlState::from_code("54001"), "stack depth limit exceeded")
                    .with_detail(format!("JSON may be nested {MAX_DEPTH} levels deep.")),
            );
        }
        match std::mem::replace(&mut self.token, Token::End) {
            Token::Mark(b'{') => self.object(depth),
            Token::Mark(b'[') => self.array(depth),
            Token::Text(text) => {
                self.advance()?;
                Ok(Json::Text(text))
            }
            Token::Plain(text) => {
                self.advance()?;
                Ok(Json::Plain(text))
            }
            other => {
                self.token = other;
                Err(self.expected(wanted))
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, SqlError> {
        let mut items = Vec::new();
        self.advance()?;
        if self.skip(b']')? {
            return Ok(Json::Array(items));
        }
        let mut wanted = "array element or \"]\"";
        loop {
            items.push(self.value(depth + 1, wanted)?);
            wanted = "JSON value";
            if self.skip(b']')? {
                return Ok(Json::Array(items));
            }
            if !self.skip(b',')? {
                return Err(self.expected("\",\" or \"]\""));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, SqlError> {
        let mut members: Vec<(String, Json)> = Vec::new();
        self.advance()?;
        if self.skip(b'}')? {
            return Ok(Json::Object(members));
        }
        let mut wanted = "string or \"}\"";
        loop {
            let key = match std::mem::replace(&mut self.token, Token::End) {
                Token::Text(key) => key,
                other => {
                    self.token = other;
                    return Err(self.expected(wanted));
                }
            };
            wanted = "string";
            self.advance()?;
            if !self.skip(b':')? {
                return Err(self.expected("\":\""));
            }
            members.push((key, self.value(depth + 1, "JSON value")?));
            if self.skip(b'}')? {
                return Ok(Json::Object(in_order(members)));
            }
            if !self.skip(b',')? {
                return Err(self.expected("\",\" or \"}\""));
            }
        }
    }

    fn skip(&mut self, mark: u8) -> Result<bool, SqlError> {
        if matches!(self.token, Token::Mark(m) if m == mark) {
            self.advance()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads the next token.
    fn advance(&mut self) -> Result<(), SqlError> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.start = self.at;
        self.token = match bytes.get(self.at) {
            None => Token::End,
            Some(mark @ (b'{' | b'}' | b'[' | b']' | b',' | b':')) => {
                self.at += 1;
                Token::Mark(*mark)
            }
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => {
                self.at += self.run(self.at).max(1);
                while !self.text.is_char_boundary(self.at) {
                    self.at += 1;
                }
                match &self.text[self.start..self.at] {
                    word @ ("true" | "false" | "null") => Token::Plain(word.to_owned()),
                    _ => return Err(self.bad_token()),
                }
            }
        };
        Ok(())
    }

    /// How many bytes from `at` on belong to one word, as Postgres sees it.
    fn run(&self, at: usize) -> usize {
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        self.text.as_bytes()[at..]
            .iter()
            .take_while(|b| word(b))
            .count()
    }

    fn number(&mut self) -> Result<Token, SqlError> {
        let bytes = self.text.as_bytes();
        let digits = |from: usize| {
            bytes[from..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count()
        };
        let mut at = self.start + usize::from(bytes[self.start] == b'-');
        let mut good = true;
        match bytes.get(at) {
            Some(b'0') => at += 1,
            _ => {
                let whole = digits(at);
                good &= whole > 0;
                at += whole;
            }
        }
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            good &= fraction > 0;
            at += 1 + fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at);
            good &= exponent > 0;
            at += exponent;
        }
        let junk = self.run(at);
        self.at = at + junk;
        if !good || junk > 0 {
            return Err(self.bad_token());
        }
        Ok(Token::Plain(plain_number(&self.text[self.start..at])?))
    }

    fn string(&mut self) -> Result<Token, SqlError> {
        let mut out = String::new();
        let mut chars = self.text[self.start + 1..].char_indices();
        while let Some((offset, c)) = chars.next() {
            self.at = self.start + 1 + offset + c.len_utf8();
            match c {
                '"' => return Ok(Token::Text(out)),
                '\\' => match chars.next() {
                    Some((_, 'u')) => {
                        let escape = &self.text[self.at + 1..];
                        let (c, length) = unicode_escape(escape)?;
                        out.push(c);
                        for _ in 0..length {
                            chars.next();
                        }
                    }
                    Some((_, escape)) => out.push(simple_escape(escape)?),
                    None => {
                        self.at = self.text.len();
                        return Err(self.bad_token());
                    }
                },
                c if (c as u32) < 0x20 => {
                    return Err(invalid_json(format!(
                        "Character with value 0x{:02x} must be escaped.",
                        c as u32
                    )));
                }
                c => out.push(c),
            }
        }
        self.at = self.text.len();
        Err(self.bad_token())
    }

    fn bad_token(&self) -> SqlError {
        invalid_json(format!(
            "Token \"{}\" is invalid.",
            &self.text[self.start..self.at]
        ))
    }

    fn expected(&self, what: &str) -> SqlError {
        match self.token {
            Token::End => invalid_json("The input string ended unexpectedly."),
            _ => invalid_json(format!(
                "Expected {what}, but found \"{}\".",
                &self.text[self.start..self.at]
            )),
        }
    }
}

fn invalid_json(detail: impl Into<String>) -> SqlError {
    SqlError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        "invalid input syntax for type json",
    )
    .with_detail(detail)
}

fn simple_escape(escape: char) -> Result<char, SqlError> {
    Ok(match escape {
        '"' | '\\' | '/' => escape,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => {
            return Err(invalid_json(format!(
                "Escape sequence \"\\{other}\" is invalid."
            )));
        }
    })
}

/// The character of what follows `\u`, and how many characters that is. Surrogates come in pairs.
fn unicode_escape(text: &str) -> Result<(char, usize), SqlError> {
    let unit = |from: usize| -> Result<u32, SqlError> {
        text.get(from..from + 4)
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|d| u32::from_str_radix(d, 16).ok())
            .ok_or_else(|| invalid_json("\"\\u\" must be followed by four hexadecimal digits."))
    };
    let lonely = || invalid_json("Unicode low surrogate must follow a high surrogate.");
    match unit(0)? {
        0 => Err(SqlError::new(
            SqlState::from_code("22P05"),
            "unsupported Unicode escape sequence",
        )
        .with_detail("\\u0000 cannot be converted to text.")),
        high @ 0xd800..=0xdbff => {
            if text.get(4..6) != Some("\\u") {
                return Err(lonely());
            }
            match unit(6)? {
                low @ 0xdc00..=0xdfff => {
                    let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    Ok((char::from_u32(code).ok_or_else(lonely)?, 10))
                }
                0xd800..=0xdbff => Err(invalid_json(
                    "Unicode high surrogate must not follow a high surrogate.",
                )),
                _ => Err(lonely()),
            }
        }
        0xdc00..=0xdfff => Err(lonely()),
        code => Ok((char::from_u32(code).ok_or_else(lonely)?, 4)),
    }
}

/// A JSON number as `numeric` prints it: without exponent, with its own number of decimals.
fn plain_number(text: &str) -> Result<String, SqlError> {
    let decimal = Decimal::read(text).expect("the reader checked its form");
    let digits: String = format!("{}{}", decimal.whole, decimal.fraction);
    let point = decimal.whole.len() as i64 + decimal.exponent;
    let decimals = (decimal.fraction.len() as i64 - decimal.exponent).max(0);
    let significant = digits.bytes().position(|b| b != b'0');
    let whole_digits = significant.map_or(0, |first| point - first as i64);
    if whole_digits > MAX_WHOLE_DIGITS || decimals > MAX_FRACTION_DIGITS {
        return Err(SqlError::new(
            SqlState::NUMERIC_OUT_OF_RANGE,
            "value overflows numeric format",
        ));
    }
    let digit_at = |place: i64| match usize::try_from(place) {
        Ok(place) => digits.as_bytes().get(place).copied().unwrap_or(b'0') as char,
        Err(_) => '0',
    };
    let mut out = String::new();
    if decimal.negative && significant.is_some() {
        out.push('-');
    }
    match significant {
        Some(first) if whole_digits > 0 => out.extend((first as i64..point).map(digit_at)),
        _ => out.push('0'),
    }
    if decimals > 0 {
        out.push('.');
        out.extend((point..point + decimals).map(digit_at));
    }
    Ok(out)
}

fn in_order(mut members: Vec<(String, Json)>) -> Vec<(String, Json)> {
    // Stable, so that among equal keys the last one written stays last; keeping that one is Postgres's rule.
    members.sort_by(|(a, _), (b, _)| {
        a.len()
            .cmp(&b.len())
            .then_with(|| a.as_bytes().cmp(b.as_bytes()))
    });
    let mut kept: Vec<(String, Json)> = Vec::with_capacity(members.len());
    for member in members {
        match kept.last_mut() {
            Some(last) if last.0 == member.0 => *last = member,
            _ => kept.push(member),
        }
    }
    kept
}

//! A position in JSON text, and the parts of its grammar.

use tidegate_types::{SqlError, SqlState};

/// Nesting beyond this is refused instead of exhausting the stack.
pub(crate) const MAX_DEPTH: usize = 256;

/// The most zeros that the exponents of one row may stand for.
const MAX_ZEROS: usize = 1 << 20;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

pub(crate) struct Cursor<'a> {
    input: &'a [u8],
    pub at: usize,
    /// Zeros that the exponents of numbers passed so far stand for.
    pub zeros: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            at: 0,
            zeros: 0,
        }
    }

    /// The byte at the cursor; a line break at the end of input, which no value contains.
    #[inline(always)]
    pub fn peek(&self) -> u8 {
        self.input.get(self.at).copied().unwrap_or(b'\n')
    }

    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.input[start..self.at]
    }

    /// White space within a line.
    #[inline(always)]
    pub fn skip_spaces(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r') {
            self.at += 1;
        }
    }

    #[inline(always)]
    pub fn skip_token(&mut self, token: &[u8]) -> bool {
        let found = self.input[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    pub fn at_line_end(&self) -> bool {
        self.peek() == b'\n'
    }

    pub fn skip_line_end(&mut self) {
        self.at = (self.at + 1).min(self.input.len());
    }

    /// To the start of the next line.
    pub fn skip_line(&mut self) {
        let rest = &self.input[self.at..];
        self.at += rest
            .iter()
            .position(|b| *b == b'\n')
            .map_or(rest.len(), |end| end + 1);
    }

    pub fn line_is_utf8(&self, start: usize) -> bool {
        let line = self.input[start..]
            .split(|b| *b == b'\n')
            .next()
            .unwrap_or_default();
        std::str::from_utf8(line).is_ok()
    }

    #[cold]
    pub fn unexpected(&self, expected: &str) -> SqlError {
        let message = if self.at_line_end() {
            format!("invalid JSON: expected {expected}, found the end of the line")
        } else {
            let rest = &self.input[self.at..(self.at + 16).min(self.input.len())];
            let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
            let found = String::from_utf8_lossy(line);
            format!("invalid JSON: expected {expected}, found \"{found}\"")
        };
        SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, message)
    }

    #[inline(always)]
    pub fn literal(&mut self, literal: &str) -> Result<(), SqlError> {
        match self.skip_token(literal.as_bytes()) {
            true => Ok(()),
            false => Err(self.unexpected(literal)),
        }
    }

    /// A string at its opening quote: what is between the quotes, and whether it holds escapes.
    #[inline(always)]
    pub fn string(&mut self) -> Result<(&'a [u8], bool), SqlError> {
        let start = self.at + 1;
        let (mut at, mut escaped) = (start, false);
        loop {
            at = self.special_from(at);
            match self.input.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok((&self.input[start..at], escaped));
                }
                // The character behind it is checked when the escape is resolved; a line break ends the row.
                Some(b'\\') if self.input.get(at + 1).is_some_and(|b| *b >= 0x20) => {
                    escaped = true;
                    at += 2;
                }
                _ => {
                    self.at = at.min(self.input.len());
                    return Err(self.unexpected("the end of a string"));
                }
            }
        }
    }

    /// The next quote, backslash or control character, eight bytes at a time.
    #[inline(always)]
    fn special_from(&self, mut at: usize) -> usize {
        while let Some(chunk) = self
            .input
            .get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
        {
            let word = u64::from_le_bytes(*chunk);
            let quote = word ^ (ONES * b'"' as u64);
            let backslash = word ^ (ONES * b'\\' as u64);
            // The lowest marked byte of each term is exact: borrows only disturb those above it.
            let marks = (quote.wrapping_sub(ONES) & !quote)
                | (backslash.wrapping_sub(ONES) & !backslash)
                | (word.wrapping_sub(ONES * 0x20) & !word);
            let marks = marks & HIGHS;
            if marks != 0 {
                return at + marks.trailing_zeros() as usize / 8;
            }
            at += 8;
        }
        while self
            .input
            .get(at)
            .is_some_and(|b| !matches!(b, b'"' | b'\\' | 0..0x20))
        {
            at += 1;
        }
        at
    }

    /// A whole number of at most eighteen digits that is not followed by a fraction or an exponent. Otherwise the cursor
    /// stays and the general grammar decides.
    #[inline(always)]
    pub fn small_integer(&mut self) -> Option<i64> {
        let negative = self.peek() == b'-';
        let start = self.at + usize::from(negative);
        let (mut at, mut value) = (start, 0i64);
        while let Some(digit @ b'0'..=b'9') = self.input.get(at) {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            at += 1;
        }
        let digits = at - start;
        let leading_zero = digits > 1 && self.input[start] == b'0';
        let more = matches!(self.input.get(at), Some(b'.' | b'e' | b'E'));
        if digits == 0 || digits > 18 || leading_zero || more {
            return None;
        }
        self.at = at;
        Some(if negative { -value } else { value })
    }

    /// The text of a number.
    pub fn number(&mut self) -> Result<&'a str, SqlError> {
        let start = self.at;
        if self.peek() == b'-' {
            self.at += 1;
        }
        let whole = self.digits();
        if whole == 0 || (whole > 1 && self.input[self.at - whole] == b'0') {
            self.at = start;
            return Err(self.unexpected("a number"));
        }
        if self.peek() == b'.' {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.unexpected("a digit"));
            }
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            let digits = self.digits();
            if digits == 0 {
                return Err(self.unexpected("a digit"));
            }
            self.count_zeros(digits)?;
        }
        Ok(std::str::from_utf8(self.since(start)).expect("a number is ASCII"))
    }

    /// Refuses numbers which, written out, would make an enormous text of a short one.
    fn count_zeros(&mut self, digits: usize) -> Result<(), SqlError> {
        let exponent = &self.input[self.at - digits..self.at];
        let value = exponent.iter().fold(0usize, |value, digit| {
            value
                .saturating_mul(10)
                .saturating_add(usize::from(digit - b'0'))
        });
        self.zeros = self.zeros.saturating_add(value);
        match self.zeros <= MAX_ZEROS {
            true => Ok(()),
            false => Err(SqlError::new(
                SqlState::NUMERIC_OUT_OF_RANGE,
                "the exponents of the numbers in a JSON document are too large",
            )),
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.at - start
    }

    /// Checks a value and passes over it.
    pub fn skip_value(&mut self, depth: usize) -> Result<(), SqlError> {
        check_depth(depth)?;
        match self.peek() {
            b'"' => {
                let (raw, escaped) = self.string()?;
                if escaped {
                    unescape(raw, &mut Vec::new())?;
                }
                Ok(())
            }
            b'{' => self.skip_members(b'}', depth),
            b'[' => self.skip_members(b']', depth),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => self.number().map(|_| ()),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn skip_members(&mut self, close: u8, depth: usize) -> Result<(), SqlError> {
        self.at += 1;
        self.skip_spaces();
        if self.peek() == close {
            self.at += 1;
            return Ok(());
        }
        loop {
            if close == b'}' {
                self.skip_key()?;
            }
            self.skip_value(depth + 1)?;
            self.skip_spaces();
            let byte = self.peek();
            if byte != b',' && byte != close {
                let expected = format!("\",\" or \"{}\"", char::from(close));
                return Err(self.unexpected(&expected));
            }
            self.at += 1;
            if byte == close {
                return Ok(());
            }
            self.skip_spaces();
        }
    }

    /// Passes over a key and the colon.
    fn skip_key(&mut self) -> Result<(), SqlError> {
        if self.peek() != b'"' {
            return Err(self.unexpected("a key in quotes"));
        }
        let (raw, escaped) = self.string()?;
        if escaped {
            unescape(raw, &mut Vec::new())?;
        }
        self.skip_spaces();
        if self.peek() != b':' {
            return Err(self.unexpected("\":\""));
        }
        self.at += 1;
        self.skip_spaces();
        Ok(())
    }
}

fn check_depth(depth: usize) -> Result<(), SqlError> {
    if depth < MAX_DEPTH {
        return Ok(());
    }
    Err(SqlError::new(
        SqlState::from_code("54001"),
        format!("JSON is nested more than {MAX_DEPTH} levels deep"),
    ))
}

/// Appends what a string with escapes means.
pub(crate) fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), SqlError> {
    let invalid = |what: &str| {
        SqlError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid JSON: {what} in a string"),
        )
    };
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let escape = *rest
            .get(at + 1)
            .ok_or_else(|| invalid("an unfinished escape"))?;
        rest = &rest[at + 2..];
        match escape {
            b'"' | b'\\' | b'/' => out.push(escape),
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut code =
                    hex4(&mut rest).ok_or_else(|| invalid("an unfinished \\u escape"))?;
                if (0xd800..0xdc00).contains(&code) {
                    let low = match rest.strip_prefix(b"\\u") {
                        Some(after) => {
                            rest = after;
                            hex4(&mut rest).filter(|low| (0xdc00..0xe000).contains(low))
                        }
                        None => None,
                    };
                    let low = low.ok_or_else(|| invalid("half a surrogate pair"))?;
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                let c = char::from_u32(code).ok_or_else(|| invalid("half a surrogate pair"))?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err(invalid("an unknown escape")),
        }
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn hex4(rest: &mut &[u8]) -> Option<u32> {
    let (digits, after) = rest.split_at_checked(4)?;
    let code = digits.iter().try_fold(0, |code, digit| {
        Some(code << 4 | char::from(*digit).to_digit(16)?)
    })?;
    *rest = after;
    Some(code)
}

//! Reading one statement: `sqlparser`'s parser with words instead of keywords, positions, and our errors.
//!
//! Most of our words (`SUBSCRIBE`, `WATERMARK`, `SINK`, …) are no keywords of the library, so everything here compares the
//! text of unquoted words. A quoted identifier never matches a word.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use crate::ast::QueryText;
use crate::dialect::{Reached, TidegateDialect, is_word};
use crate::error::ParseError;
use crate::names::is_reserved;
use crate::refuse;
use crate::script::with_cursor;
use crate::source::Source;

pub(crate) type Parsed<T> = Result<T, ParseError>;

/// How deep parentheses, sub-queries and operators may nest. Far above what people write, far below what stacks hold.
const NESTING_LIMIT: usize = 128;

/// A reader over the tokens of one statement (or a part of one).
pub(crate) struct Cursor<'a> {
    parser: Parser<'a>,
    source: &'a Source<'a>,
    dialect: &'a TidegateDialect,
    /// The token at which the tokens were cut off: a semicolon, or the clause that another cursor reads.
    /// `None` is the end of the text.
    terminator: Option<TokenWithSpan>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(
        source: &'a Source<'a>,
        dialect: &'a TidegateDialect,
        tokens: Vec<TokenWithSpan>,
        terminator: Option<TokenWithSpan>,
    ) -> Self {
        let parser = Parser::new(dialect)
            .with_recursion_limit(NESTING_LIMIT)
            .with_tokens_with_locations(tokens);
        Self {
            parser,
            source,
            dialect,
            terminator,
        }
    }

    /// The `n`th next token, if it is an unquoted word.
    pub(crate) fn word(&self, n: usize) -> Option<&str> {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(w) if w.quote_style.is_none() => Some(&w.value),
            _ => None,
        }
    }

    pub(crate) fn at_nth(&self, n: usize, word: &str) -> bool {
        self.word(n).is_some_and(|w| w.eq_ignore_ascii_case(word))
    }

    /// Whether these words come next.
    pub(crate) fn at(&self, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(n, word)| self.at_nth(n, word))
    }

    /// Consumes these words if they come next.
    pub(crate) fn take(&mut self, words: &[&str]) -> bool {
        let found = self.at(words);
        if found {
            self.advance(words.len());
        }
        found
    }

    pub(crate) fn expect(&mut self, words: &[&str]) -> Parsed<()> {
        for word in words {
            if !self.take(&[word]) {
                return Err(self.unexpected().with_hint(format!("expected {word}")));
            }
        }
        Ok(())
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        for _ in 0..tokens {
            self.parser.advance_token();
        }
    }

    pub(crate) fn token(&self, n: usize) -> &Token {
        &self.parser.peek_nth_token_ref(n).token
    }

    pub(crate) fn at_token(&self, token: &Token) -> bool {
        self.token(0) == token
    }

    pub(crate) fn take_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub(crate) fn expect_token(&mut self, token: &Token) -> Parsed<()> {
        if self.take_token(token) {
            Ok(())
        } else {
            Err(self.unexpected().with_hint(format!("expected \"{token}\"")))
        }
    }

    /// A parenthesised, comma-separated list with at least one element.
    pub(crate) fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        self.expect_token(&Token::LParen)?;
        let elements = self.commas(&mut element)?;
        self.expect_token(&Token::RParen)?;
        Ok(elements)
    }

    pub(crate) fn commas<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut elements = vec![element(self)?];
        while self.take_token(&Token::Comma) {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// A name in one part. Reserved words need quotes, as in Postgres.
    pub(crate) fn ident(&mut self) -> Parsed<Ident> {
        self.refuse_reserved()?;
        self.label()
    }

    /// A name in one part where any word will do.
    pub(crate) fn label(&mut self) -> Parsed<Ident> {
        let next = self.parser.peek_token_ref();
        let Token::Word(word) = &next.token else {
            return Err(self.unexpected());
        };
        let ident = word.to_ident(next.span);
        self.advance(1);
        Ok(ident)
    }

    pub(crate) fn refuse_reserved(&self) -> Parsed<()> {
        match self.word(0) {
            Some(word) if is_reserved(word) => Err(self.unexpected()),
            _ => Ok(()),
        }
    }

    /// A possibly dotted name. As in Postgres, only its first part must not be a reserved word.
    pub(crate) fn name(&mut self) -> Parsed<ObjectName> {
        let mut parts = vec![ObjectNamePart::Identifier(self.ident()?)];
        while self.take_token(&Token::Period) {
            parts.push(ObjectNamePart::Identifier(self.label()?));
        }
        Ok(ObjectName(parts))
    }

    /// A string literal's content.
    pub(crate) fn string(&mut self) -> Parsed<String> {
        match self.take_string() {
            Some(text) => Ok(text),
            None => Err(self.unexpected().with_hint("expected a string literal")),
        }
    }

    pub(crate) fn take_string(&mut self) -> Option<String> {
        let text = match self.token(0) {
            Token::SingleQuotedString(s)
            | Token::EscapedStringLiteral(s)
            | Token::UnicodeStringLiteral(s) => s.clone(),
            Token::DollarQuotedString(s) => s.value.clone(),
            _ => return None,
        };
        self.advance(1);
        Some(text)
    }

    pub(crate) fn unsigned(&mut self) -> Parsed<u64> {
        let number = match self.token(0) {
            Token::Number(digits, _) => digits.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return Err(self.unexpected().with_hint("expected a whole number"));
        };
        self.advance(1);
        Ok(number)
    }

    /// A query with its text.
    pub(crate) fn query(&mut self) -> Parsed<QueryText> {
        let start = self.location();
        if ["INSERT", "UPDATE", "DELETE", "MERGE"]
            .iter()
            .any(|word| self.at(&[word]))
        {
            return Err(self.unexpected());
        }
        let query = self.sql(|p| p.parse_query())?;
        refuse::check(&query, |at| self.position_at(at))?;
        let text = self.text_from(start).to_string();
        Ok(QueryText { query, text })
    }

    /// A query that ends where `cut` says, as an index into the tokens from here, even if the library would read on.
    pub(crate) fn query_before(
        &mut self,
        cut: impl FnOnce(&[TokenWithSpan]) -> Option<usize>,
    ) -> Parsed<QueryText> {
        let mut tokens: Vec<TokenWithSpan> = (self.parser.index()..)
            .map(|index| self.parser.token_at(index))
            .take_while(|token| token.token != Token::EOF)
            .cloned()
            .collect();
        let Some(cut) = cut(&tokens) else {
            return self.query();
        };
        let terminator = tokens.drain(cut..).next();
        let query = with_cursor(self.source, tokens, terminator, |c| c.query())?;
        for _ in 0..cut {
            let _ = self.parser.next_token_no_skip();
        }
        Ok(query)
    }

    /// Lets `sqlparser` read something.
    pub(crate) fn sql<T>(
        &mut self,
        read: impl FnOnce(&mut Parser<'a>) -> Result<T, ParserError>,
    ) -> Parsed<T> {
        read(&mut self.parser).map_err(|error| self.convert(error))
    }

    /// Fails unless all tokens have been read.
    pub(crate) fn finish(&self) -> Parsed<()> {
        if self.at_token(&Token::EOF) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    pub(crate) fn skip_rest(&mut self) {
        while !self.at_token(&Token::EOF) {
            self.advance(1);
        }
    }

    /// Where the next token starts; the empty location at the end.
    pub(crate) fn location(&self) -> Location {
        self.parser.peek_token_ref().span.start
    }

    /// Where the next token starts, as clients count.
    pub(crate) fn position(&self) -> usize {
        self.position_at(self.location())
    }

    pub(crate) fn position_at(&self, at: Location) -> usize {
        match (&self.terminator, at.line) {
            (Some(token), 0) => self.source.position(token.span.start),
            _ => self.source.position(at),
        }
    }

    /// The text from `start` to the end of the last token read.
    pub(crate) fn text_from(&self, start: Location) -> &'a str {
        let mut index = self.parser.index();
        while index > 0 {
            index -= 1;
            let token = self.parser.token_at(index);
            if !matches!(token.token, Token::Whitespace(_) | Token::EOF) {
                return self.source.slice(start, token.span.end);
            }
        }
        ""
    }

    /// The error for a next token that cannot stand where it stands, or for a later one that the library had reached
    /// when it gave up and read something shorter.
    pub(crate) fn unexpected(&self) -> ParseError {
        self.error_at_furthest(self.location())
    }

    /// The error for the `n`th next token.
    pub(crate) fn unexpected_at(&self, n: usize) -> ParseError {
        self.syntax_error_at(self.parser.peek_nth_token_ref(n).span.start)
    }

    fn error_at_furthest(&self, at: Location) -> ParseError {
        match self.dialect.furthest() {
            Some(Reached::Token(line, column))
                if Reached::Token(line, column) > Reached::from(at) =>
            {
                self.syntax_error_at(Location::new(line, column))
            }
            Some(Reached::End) => self.syntax_error_at(Location::empty()),
            _ => self.syntax_error_at(at),
        }
    }

    pub(crate) fn not_built<T>(&self, feature: &str) -> Parsed<T> {
        Err(ParseError::not_built(feature, self.position()))
    }

    /// The error for the token at a location. `GROUP`, `ORDER` and `PARTITION` are seldom wrong themselves: if `BY` is
    /// missing, what stands in its place is.
    fn syntax_error_at(&self, at: Location) -> ParseError {
        let mut tokens = (0..)
            .map(|index| self.parser.token_at(index))
            .take_while(|token| token.token != Token::EOF)
            .filter(|token| !matches!(token.token, Token::Whitespace(_)))
            .skip_while(|token| at.line == 0 || token.span.start != at);
        let mut token = tokens.next();
        let wants_by = ["GROUP", "ORDER", "PARTITION"]
            .iter()
            .any(|word| token.is_some_and(|t| is_word(&t.token, word)));
        if wants_by {
            let next = tokens.next();
            if !next.is_some_and(|t| is_word(&t.token, "BY")) {
                token = next;
            }
        }
        let token = token.or(self.terminator.as_ref());
        match token {
            Some(token) => {
                let text = self.source.slice(token.span.start, token.span.end);
                ParseError::syntax(
                    format!("syntax error at or near \"{text}\""),
                    self.source.position(token.span.start),
                )
            }
            None => ParseError::syntax("syntax error at end of input", self.source.end_position()),
        }
    }

    /// Our form of the library's error: its message is only used for what was expected, its location (which it writes
    /// into the message) is replaced by the furthest token any attempt came to.
    fn convert(&self, error: ParserError) -> ParseError {
        let text = match error {
            _ if self.dialect.exhausted() => {
                return ParseError::too_complex(self.position())
                    .with_hint("the statement nests expressions too deeply");
            }
            ParserError::RecursionLimitExceeded => {
                return ParseError::too_complex(self.position())
                    .with_hint("the statement nests expressions or sub-queries too deeply");
            }
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        };
        let (message, at) = split_location(&text);
        let at = match at {
            Some(at) => at,
            None if message.ends_with("found: EOF") => Location::empty(),
            None => self.parser.get_current_token().span.start,
        };
        let hint = match self.dialect.furthest() {
            Some(furthest) if furthest > Reached::from(at) => None,
            _ => expectation(message),
        };
        let error = self.error_at_furthest(at);
        match hint {
            Some(expected) => error.with_hint(expected),
            None => error,
        }
    }
}

/// Cuts ` at Line: 1, Column: 2` off a message of the library.
fn split_location(text: &str) -> (&str, Option<Location>) {
    let parsed = text.rsplit_once(" at Line: ").and_then(|(message, rest)| {
        let (line, column) = rest.split_once(", Column: ")?;
        Some((
            message,
            Location::new(line.parse().ok()?, column.parse().ok()?),
        ))
    });
    match parsed {
        Some((message, at)) => (message, Some(at)),
        None => (text, None),
    }
}

/// What `Expected: x, found: y` expected, where it helps a person.
fn expectation(message: &str) -> Option<String> {
    let (expected, _) = message.strip_prefix("Expected: ")?.split_once(", found:")?;
    let helps = expected.len() < 60
        && !expected.contains("Token::")
        && !expected.starts_with("end of statement")
        && !expected.starts_with("an SQL statement");
    helps.then(|| format!("expected {expected}"))
}

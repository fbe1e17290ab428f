//! A text with any number of statements: tokenized once, cut at semicolons, read one by one.

use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, TokenizerError};

use crate::ast::ParsedStatement;
use crate::cursor::{Cursor, Parsed};
use crate::dialect::TidegateDialect;
use crate::error::ParseError;
use crate::refuse;
use crate::source::Source;
use crate::statement;

/// Reads all statements of a text. Empty statements are skipped. The first error ends it: as in Postgres, a text with a
/// syntax error anywhere does nothing at all.
pub fn parse(sql: &str) -> Result<Vec<ParsedStatement>, ParseError> {
    let source = Source::new(sql);
    let mut statements = Vec::new();
    let mut current: Vec<TokenWithSpan> = Vec::new();
    for token in tokenize(&source)? {
        if token.token == Token::SemiColon {
            let tokens = std::mem::take(&mut current);
            statements.extend(read(&source, tokens, Some(token))?);
        } else {
            current.push(token);
        }
    }
    statements.extend(read(&source, current, None)?);
    Ok(statements)
}

fn read(
    source: &Source<'_>,
    tokens: Vec<TokenWithSpan>,
    terminator: Option<TokenWithSpan>,
) -> Parsed<Option<ParsedStatement>> {
    let mut solid = tokens
        .iter()
        .filter(|t| !matches!(t.token, Token::Whitespace(_)));
    let Some(first) = solid.next() else {
        return Ok(None);
    };
    let start = first.span.start;
    let end = solid.next_back().unwrap_or(first).span.end;
    if let Some(token) = refuse::too_complex(&tokens) {
        return Err(ParseError::too_complex(source.position(token.span.start))
            .with_hint("the statement chains too many operators or nests too many sub-queries"));
    }
    // In this order, because offsets of one long line are only cheap to find going forward.
    let offset = source.byte(start);
    let text = source.slice(start, end).to_string();
    Ok(Some(ParsedStatement {
        statement: statement::read(source, tokens, terminator)?,
        text,
        offset,
    }))
}

fn tokenize(source: &Source<'_>) -> Parsed<Vec<TokenWithSpan>> {
    let dialect = TidegateDialect::default();
    let mut tokens = Vec::new();
    Tokenizer::new(&dialect, source.sql())
        .tokenize_with_location_into_buf(&mut tokens)
        .map_err(|error| unreadable(source, tokens.last(), &error))?;
    let nameless = tokens.iter().find(
        |t| matches!(&t.token, Token::Word(w) if w.quote_style.is_some() && w.value.is_empty()),
    );
    match nameless {
        None => Ok(tokens),
        Some(token) => Err(ParseError::syntax(
            "zero-length delimited identifier at or near \"\"\"\"",
            source.position(token.span.start),
        )),
    }
}

/// A token that never ends, or a character that starts none. As in Postgres, the position is where the token starts
/// and the text quoted is the rest of the input.
fn unreadable(
    source: &Source<'_>,
    last: Option<&TokenWithSpan>,
    error: &TokenizerError,
) -> ParseError {
    let start = last.map_or(sqlparser::tokenizer::Location::new(1, 1), |t| t.span.end);
    let rest = &source.sql()[source.byte(start)..];
    let what = if rest.starts_with("/*") {
        "unterminated /* comment"
    } else if rest.starts_with('"') {
        "unterminated quoted identifier"
    } else if rest.starts_with('$') {
        "unterminated dollar-quoted string"
    } else if error.message.starts_with("Unterminated") {
        "unterminated quoted string"
    } else {
        "syntax error"
    };
    ParseError::syntax(
        format!("{what} at or near \"{rest}\""),
        source.position(start),
    )
}

/// A cursor over the tokens of a part of a statement, with a dialect of its own.
pub(crate) fn with_cursor<T>(
    source: &Source<'_>,
    tokens: Vec<TokenWithSpan>,
    terminator: Option<TokenWithSpan>,
    read: impl FnOnce(&mut Cursor<'_>) -> Parsed<T>,
) -> Parsed<T> {
    let dialect = TidegateDialect::reading(&tokens);
    let mut cursor = Cursor::new(source, &dialect, tokens, terminator);
    let value = read(&mut cursor)?;
    cursor.finish()?;
    Ok(value)
}

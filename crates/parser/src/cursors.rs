//! Cursors over subscriptions, `FETCH` that waits, and `COPY (SUBSCRIBE …) TO STDOUT`.
//!
//! Cursors over queries are the library's. `COPY` of a subscription is cut in two: the subscription is read here, and the
//! library reads the rest with `SELECT 1` in its place.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::ast::{Statement, Subscribe};
use crate::cursor::{Cursor, Parsed};
use crate::dialect::is_word;
use crate::error::ParseError;
use crate::options::with_options;
use crate::script::with_cursor;
use crate::source::Source;
use crate::statement::{not_built, sql};
use crate::subscribe::subscribe;

/// `DECLARE name [BINARY] [INSENSITIVE | ASENSITIVE] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR SUBSCRIBE …`.
pub(crate) fn declare(c: &mut Cursor<'_>) -> Parsed<Statement> {
    if c.at_nth(2, "SUBSCRIPTION") {
        return Ok(not_built(c, "DECLARE SUBSCRIPTION CURSOR"));
    }
    let subscribes = (2..10).find(|n| c.at_nth(*n, "FOR")).map(|n| n + 1);
    if !subscribes.is_some_and(|n| c.at_nth(n, "SUBSCRIBE")) {
        return sql(c);
    }
    c.advance(1);
    let name = c.ident()?;
    let _ = c.take(&["BINARY"]);
    let _ = c.take(&["INSENSITIVE"]) || c.take(&["ASENSITIVE"]);
    if c.at(&["SCROLL"]) {
        return c.not_built("SCROLL cursor over a subscription");
    }
    let _ = c.take(&["NO", "SCROLL"]);
    c.expect(&["CURSOR"])?;
    let hold = c.take(&["WITH", "HOLD"]);
    let _ = c.take(&["WITHOUT", "HOLD"]);
    c.expect(&["FOR"])?;
    let subscribe = subscription(c)?;
    Ok(Statement::DeclareSubscription {
        name,
        hold,
        subscribe,
    })
}

/// `FETCH [direction] {FROM | IN} name [WITH (timeout = '…')]`.
pub(crate) fn fetch(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let fetch = c.sql(Parser::parse_statement)?;
    let options = with_options(c)?;
    let mut timeout = None;
    for option in options {
        if option.name != "timeout" {
            return Err(ParseError::syntax(
                format!("unrecognized FETCH option \"{}\"", option.name),
                option.position,
            )
            .with_hint("known options: timeout"));
        }
        timeout = Some((option.value, option.value_position));
    }
    Ok(match timeout {
        None => Statement::Sql(Box::new(fetch)),
        Some((timeout, position)) => Statement::FetchWithin {
            fetch: Box::new(fetch),
            timeout,
            position,
        },
    })
}

fn subscription(c: &mut Cursor<'_>) -> Parsed<Box<Subscribe>> {
    if !c.at(&["SUBSCRIBE"]) {
        return Err(c.unexpected());
    }
    match subscribe(c)? {
        Statement::Subscribe(subscribe) => Ok(subscribe),
        _ => Err(c.unexpected()),
    }
}

/// The tokens of the subscription in `COPY (SUBSCRIBE …) TO …`, in whose place a query is left.
pub(crate) fn copied_subscription(tokens: &mut Vec<TokenWithSpan>) -> Option<Vec<TokenWithSpan>> {
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_)))
        .collect();
    let [copy, open, first, ..] = solid[..] else {
        return None;
    };
    if !is_word(&tokens[copy].token, "COPY")
        || tokens[open].token != Token::LParen
        || !is_word(&tokens[first].token, "SUBSCRIBE")
    {
        return None;
    }
    let mut depth = 0_usize;
    let close = (open..tokens.len()).find(|i| {
        match tokens[*i].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        depth == 0
    })?;
    let span = tokens[first].span;
    let query = [
        Token::make_keyword("SELECT"),
        Token::Number("1".to_owned(), false),
    ]
    .map(|token| TokenWithSpan::new(token, span));
    Some(tokens.splice(first..close, query).collect())
}

pub(crate) fn copy_of_subscription(
    source: &Source<'_>,
    inner: Vec<TokenWithSpan>,
    outer: Vec<TokenWithSpan>,
    terminator: Option<TokenWithSpan>,
) -> Parsed<Statement> {
    let subscribe = with_cursor(source, inner, None, subscription)?;
    let copy = with_cursor(source, outer, terminator, |c| {
        c.sql(Parser::parse_statement)
    })?;
    Ok(Statement::CopySubscription {
        subscribe,
        copy: Box::new(copy),
    })
}

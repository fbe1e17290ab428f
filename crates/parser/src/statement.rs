//! Which statement it is: ours by its first words, else `sqlparser`'s.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::ast::Statement;
use crate::cursor::{Cursor, Parsed};
use crate::script::with_cursor;
use crate::source::Source;
use crate::{alter, create, drop, explain, savepoint, show, subscribe};

/// Reads the tokens of one statement.
pub(crate) fn read(
    source: &Source<'_>,
    mut tokens: Vec<TokenWithSpan>,
    terminator: Option<TokenWithSpan>,
) -> Parsed<Statement> {
    if let Some(cut) = create::sink_options_start(&tokens) {
        let tail = tokens.split_off(cut);
        return create::sink_with_query(source, tokens, tail, terminator);
    }
    drop_deferrable(&mut tokens);
    with_cursor(source, tokens, terminator, statement)
}

/// Reads a statement from where the cursor stands.
pub(crate) fn statement(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let Some(word) = c.word(0) else {
        return sql(c);
    };
    match word.to_ascii_uppercase().as_str() {
        "CREATE" => create::create(c),
        "DROP" => drop::drop(c),
        "ALTER" => alter::alter(c),
        "SHOW" => show::show(c),
        "DESCRIBE" | "DESC" => show::describe(c),
        "EXPLAIN" => explain::explain(c),
        "SUBSCRIBE" => subscribe::subscribe(c),
        "SAVEPOINT" => savepoint::savepoint(c),
        "ROLLBACK" | "ABORT" => savepoint::rollback(c),
        "RELEASE" => savepoint::release(c),
        "VERIFY" => savepoint::verify(c),
        "SHUTDOWN" => savepoint::shutdown(c),
        "FLUSH" => Ok(bare(c, Statement::Flush)),
        "WAIT" => Ok(bare(c, Statement::Wait)),
        "CHECKPOINT" => Ok(bare(c, Statement::Checkpoint)),
        "RECOVER" => Ok(bare(c, Statement::Recover)),
        "SUSPEND" => suspend(c, true),
        "RESUME" => suspend(c, false),
        "CANCEL" => cancel_job(c),
        "DECLARE" => declare(c),
        // `TABLE t` is short for `SELECT * FROM t`; the library knows it only inside queries.
        "TABLE" => c
            .sql(Parser::parse_query)
            .map(|query| Statement::Sql(Box::new(sqlparser::ast::Statement::Query(query)))),
        _ => sql(c),
    }
}

/// Leaves a statement to `sqlparser`.
pub(crate) fn sql(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.sql(Parser::parse_statement)
        .map(|statement| Statement::Sql(Box::new(statement)))
}

/// A statement known by name and refused as a whole.
pub(crate) fn not_built(c: &mut Cursor<'_>, feature: impl Into<String>) -> Statement {
    c.skip_rest();
    Statement::NotBuilt {
        feature: feature.into(),
    }
}

fn bare(c: &mut Cursor<'_>, statement: Statement) -> Statement {
    c.advance(1);
    statement
}

fn suspend(c: &mut Cursor<'_>, suspend: bool) -> Parsed<Statement> {
    c.advance(1);
    let kind = drop::relation_kind(c)?;
    let name = c.name()?;
    Ok(if suspend {
        Statement::Suspend { kind, name }
    } else {
        Statement::Resume { kind, name }
    })
}

fn cancel_job(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    if !c.take(&["JOBS"]) {
        c.expect(&["JOB"])?;
    }
    let ids = c.commas(Cursor::unsigned)?;
    Ok(Statement::CancelJob { ids })
}

fn declare(c: &mut Cursor<'_>) -> Parsed<Statement> {
    if c.at_nth(2, "SUBSCRIPTION") {
        return Ok(not_built(c, "DECLARE SUBSCRIPTION CURSOR"));
    }
    sql(c)
}

/// `[NOT] DEFERRABLE` among transaction modes means nothing without serializable read-only snapshots that wait, and the
/// library does not read it; drivers send it.
fn drop_deferrable(tokens: &mut Vec<TokenWithSpan>) {
    let is = |t: &TokenWithSpan, text: &str| matches!(&t.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(text));
    let solid = |t: &TokenWithSpan| !matches!(t.token, Token::Whitespace(_));
    let first = tokens.iter().find(|t| solid(t));
    if !first.is_some_and(|t| is(t, "BEGIN") || is(t, "START") || is(t, "SET")) {
        return;
    }
    while let Some(at) = tokens.iter().position(|t| is(t, "DEFERRABLE")) {
        let mut from = at;
        for wanted in [Token::make_keyword("NOT"), Token::Comma] {
            let before = tokens[..from].iter().rposition(|t| solid(t));
            if let Some(before) = before
                && (tokens[before].token == wanted
                    || (wanted != Token::Comma && is(&tokens[before], "NOT")))
            {
                from = before;
            }
        }
        tokens.drain(from..=at);
    }
}

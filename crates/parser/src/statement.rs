//! Which statement it is: ours by its first words, else `sqlparser`'s.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::ast::Statement;
use crate::cursor::{Cursor, Parsed};
use crate::script::with_cursor;
use crate::source::Source;
use crate::{alter, create, cursors, drop, explain, refuse, rewrite, savepoint, show, subscribe};

/// Reads the tokens of one statement.
pub(crate) fn read(
    source: &Source<'_>,
    mut tokens: Vec<TokenWithSpan>,
    terminator: Option<TokenWithSpan>,
) -> Parsed<Statement> {
    rewrite::rewrite(&mut tokens);
    if let Some(inner) = cursors::copied_subscription(&mut tokens) {
        return cursors::copy_of_subscription(source, inner, tokens, terminator);
    }
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
        "DECLARE" => cursors::declare(c),
        "FETCH" => cursors::fetch(c),
        "REFRESH" if c.at_nth(1, "MATERIALIZED") => Ok(not_built(c, "REFRESH MATERIALIZED VIEW")),
        word if NOT_BUILT.contains(&word) => Ok(not_built(c, word)),
        "INSERT" => insert(c),
        "DELETE" if !c.at_nth(1, "FROM") => Err(c.unexpected_at(1).with_hint("expected FROM")),
        // `TABLE t` is short for `SELECT * FROM t`; the library knows it only inside queries.
        "TABLE" => c
            .query()
            .map(|q| Statement::Sql(Box::new(sqlparser::ast::Statement::Query(q.query)))),
        _ => sql(c),
    }
}

/// Statements of Postgres that neither the library reads nor the engine will have soon.
const NOT_BUILT: &[&str] = &[
    "MOVE", "CLUSTER", "REINDEX", "DO", "IMPORT", "SECURITY", "REASSIGN",
];

/// Leaves a statement to `sqlparser`.
pub(crate) fn sql(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let statement = c.sql(Parser::parse_statement)?;
    refuse::check(&statement, |at| c.position_at(at))?;
    Ok(Statement::Sql(Box::new(statement)))
}

/// The library makes `INTO` optional and takes any word behind the table for an alias.
fn insert(c: &mut Cursor<'_>) -> Parsed<Statement> {
    if !c.at_nth(1, "INTO") {
        return Err(c.unexpected_at(1).with_hint("expected INTO"));
    }
    let mut behind_name = 3;
    while c.token(behind_name) == &Token::Period {
        behind_name += 2;
    }
    let follows = ["AS", "VALUES", "SELECT", "WITH", "DEFAULT", "TABLE"];
    if c.at_nth(behind_name, "OVERRIDING") {
        c.advance(behind_name);
        return c.not_built("INSERT … OVERRIDING");
    }
    match c.token(behind_name) {
        Token::Word(_) if !follows.iter().any(|word| c.at_nth(behind_name, word)) => {
            Err(c.unexpected_at(behind_name))
        }
        _ => sql(c),
    }
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

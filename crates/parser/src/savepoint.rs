//! `SAVEPOINT` and its family.
//!
//! The same words mean a savepoint of the database outside a transaction block and a savepoint of the transaction inside
//! one. The parser cannot know which, so it reads the larger form; the engine refuses `FOR`, `TO` and `WITH` inside a block.

use sqlparser::ast::Ident;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::ast::{Savepoint, Statement};
use crate::cursor::{Cursor, Parsed};
use crate::options::with_options;

/// `SAVEPOINT name [FOR MATERIALIZED VIEW v, …] [TO 'url'] [WITH (…)]`.
pub(crate) fn savepoint(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    let name = c.ident()?;
    let views = if c.take(&["FOR"]) {
        c.expect(&["MATERIALIZED"])?;
        if !c.take(&["VIEWS"]) {
            c.expect(&["VIEW"])?;
        }
        c.commas(Cursor::name)?
    } else {
        Vec::new()
    };
    let to = if c.take(&["TO"]) {
        Some(c.string()?)
    } else {
        None
    };
    let options = with_options(c)?;
    Ok(Statement::Savepoint(Savepoint {
        name,
        views,
        to,
        options,
    }))
}

/// `ROLLBACK [WORK | TRANSACTION] TO [SAVEPOINT] name [WITH (…)]`; any other rollback is the library's.
pub(crate) fn rollback(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    let to = usize::from(c.at(&["WORK"]) || c.at(&["TRANSACTION"]));
    if !c.at_nth(to, "TO") {
        return c
            .sql(Parser::parse_rollback)
            .map(|statement| Statement::Sql(Box::new(statement)));
    }
    c.advance(to + 1);
    let name = savepoint_name(c)?;
    let options = with_options(c)?;
    Ok(Statement::RollbackToSavepoint { name, options })
}

/// `RELEASE [SAVEPOINT] name`.
pub(crate) fn release(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    let name = savepoint_name(c)?;
    Ok(Statement::ReleaseSavepoint { name })
}

/// `VERIFY SAVEPOINT name` or `VERIFY MATERIALIZED VIEW v`.
pub(crate) fn verify(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    if c.take(&["SAVEPOINT"]) {
        return Ok(Statement::VerifySavepoint { name: c.ident()? });
    }
    if c.take(&["MATERIALIZED"]) {
        c.expect(&["VIEW"])?;
        return Ok(Statement::VerifyMaterializedView { name: c.name()? });
    }
    Err(c
        .unexpected()
        .with_hint("expected SAVEPOINT or MATERIALIZED VIEW"))
}

/// `SHUTDOWN [WITH SAVEPOINT name [TO 'url'] [DRAIN]]`.
pub(crate) fn shutdown(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    if !c.take(&["WITH"]) {
        return Ok(Statement::Shutdown {
            savepoint: None,
            drain: false,
        });
    }
    c.expect(&["SAVEPOINT"])?;
    let savepoint = Savepoint {
        name: c.ident()?,
        views: Vec::new(),
        to: match c.take(&["TO"]) {
            true => Some(c.string()?),
            false => None,
        },
        options: Vec::new(),
    };
    Ok(Statement::Shutdown {
        savepoint: Some(savepoint),
        drain: c.take(&["DRAIN"]),
    })
}

/// `[SAVEPOINT] name`, where a savepoint may itself be called "savepoint".
fn savepoint_name(c: &mut Cursor<'_>) -> Parsed<Ident> {
    if matches!(c.token(1), Token::Word(_)) && !c.at_nth(1, "WITH") {
        let _ = c.take(&["SAVEPOINT"]);
    }
    c.ident()
}

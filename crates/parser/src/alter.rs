//! `ALTER MATERIALIZED VIEW` and `ALTER SYSTEM`; other forms are the library's or not built.

use sqlparser::tokenizer::Token;

use crate::ast::{AlterMaterializedView, AlterOperation, AlterSystem, ObjectKind, Statement};
use crate::cursor::{Cursor, Parsed};
use crate::options::{dotted_label, option, option_value, with_list};
use crate::statement::{not_built, sql};

pub(crate) fn alter(c: &mut Cursor<'_>) -> Parsed<Statement> {
    if c.take(&["ALTER", "MATERIALIZED", "VIEW"]) {
        return materialized_view(c);
    }
    if c.take(&["ALTER", "SYSTEM"]) {
        return system(c);
    }
    for kind in [
        ObjectKind::Table,
        ObjectKind::View,
        ObjectKind::Source,
        ObjectKind::Sink,
    ] {
        if c.at(&["ALTER", kind.sql()])
            && let Some(statement) = relation(c, kind)?
        {
            return Ok(statement);
        }
    }
    if c.at(&["ALTER", "VIEW"]) {
        return Ok(not_built(c, "ALTER VIEW"));
    }
    for kind in [
        "SOURCE",
        "SINK",
        "SECRET",
        "CONNECTION",
        "SUBSCRIPTION",
        "DATABASE",
        "FUNCTION",
        "USER",
        "ROLE",
    ] {
        if c.at(&["ALTER", kind]) {
            return Ok(not_built(c, format!("ALTER {kind}")));
        }
    }
    sql(c)
}

/// `ALTER kind [IF EXISTS] name {RENAME TO new | SET SCHEMA schema}`; any other change is not read here.
fn relation(c: &mut Cursor<'_>, kind: ObjectKind) -> Parsed<Option<Statement>> {
    let mut behind = 2 + if c.at_nth(2, "IF") { 2 } else { 0 };
    while c.token(behind + 1) == &Token::Period {
        behind += 2;
    }
    let follows = |words: [&str; 2]| {
        let at = behind + 1;
        c.at_nth(at, words[0]) && c.at_nth(at + 1, words[1])
    };
    if !follows(["RENAME", "TO"]) && !follows(["SET", "SCHEMA"]) {
        return Ok(None);
    }
    c.advance(2);
    let if_exists = c.take(&["IF", "EXISTS"]);
    let name = c.name()?;
    let operation = if c.take(&["RENAME", "TO"]) {
        AlterOperation::RenameTo(c.ident()?)
    } else {
        c.expect(&["SET", "SCHEMA"])?;
        AlterOperation::SetSchema(c.ident()?)
    };
    Ok(Some(Statement::AlterRelation {
        kind,
        if_exists,
        name,
        operation,
    }))
}

fn materialized_view(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let if_exists = c.take(&["IF", "EXISTS"]);
    let name = c.name()?;
    let operation = if c.take(&["RENAME"]) {
        c.expect(&["TO"])?;
        AlterOperation::RenameTo(c.ident()?)
    } else if c.take(&["SET", "SCHEMA"]) {
        AlterOperation::SetSchema(c.ident()?)
    } else if c.take(&["SET"]) {
        AlterOperation::Set(if c.at_token(&Token::LParen) {
            with_list(c)?
        } else {
            vec![option(c)?]
        })
    } else if c.take(&["AS"]) {
        AlterOperation::Query(c.query()?)
    } else if c.at(&["OWNER"]) {
        return c.not_built("ALTER MATERIALIZED VIEW … OWNER TO");
    } else {
        return Err(c
            .unexpected()
            .with_hint("expected RENAME TO, SET SCHEMA, SET or AS"));
    };
    Ok(Statement::AlterMaterializedView(Box::new(
        AlterMaterializedView {
            if_exists,
            name,
            operation,
        },
    )))
}

fn system(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let alter = if c.take(&["SET"]) {
        let position = c.position();
        let name = dotted_label(c)?;
        if !c.take_token(&Token::Eq) {
            c.expect(&["TO"])?;
        }
        let value = if c.take(&["DEFAULT"]) {
            None
        } else {
            Some(c.commas(option_value)?.join(", "))
        };
        AlterSystem::Set {
            name,
            value,
            position,
        }
    } else {
        c.expect(&["RESET"])?;
        if c.take(&["ALL"]) {
            AlterSystem::ResetAll
        } else {
            let position = c.position();
            AlterSystem::Reset {
                name: dotted_label(c)?,
                position,
            }
        }
    };
    Ok(Statement::AlterSystem(alter))
}

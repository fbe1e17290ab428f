//! `ALTER MATERIALIZED VIEW` and `ALTER SYSTEM`; other forms are the library's or not built.

use sqlparser::tokenizer::Token;

use crate::ast::{AlterMaterializedView, AlterOperation, AlterSystem, Statement};
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

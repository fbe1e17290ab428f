//! `SUBSCRIBE [TO] v | (query) [WITH (SNAPSHOT, PROGRESS)] [AS OF …] [UP TO …] [LIMIT n]`.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::ast::{Statement, Subscribe, SubscribeTarget};
use crate::cursor::{Cursor, Parsed};
use crate::error::ParseError;
use crate::options::{at_with_options, flag_list};

pub(crate) fn subscribe(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    let _ = c.take(&["TO"]);
    let target = if c.take_token(&Token::LParen) {
        let query = c.query()?;
        c.expect_token(&Token::RParen)?;
        SubscribeTarget::Query(query)
    } else if ["SELECT", "VALUES", "WITH"]
        .iter()
        .any(|word| c.at(&[word]))
    {
        return Err(c
            .unexpected()
            .with_hint("put the query in parentheses: SUBSCRIBE TO (SELECT …)"));
    } else {
        SubscribeTarget::Relation(c.name()?)
    };
    let mut subscribe = Subscribe {
        target,
        snapshot: true,
        progress: false,
        as_of: None,
        up_to: None,
        limit: None,
    };
    if at_with_options(c) {
        c.advance(1);
        options(c, &mut subscribe)?;
    }
    if c.take(&["AS"]) {
        c.expect(&["OF"])?;
        subscribe.as_of = Some(c.sql(Parser::parse_expr)?);
    }
    if c.take(&["UNTIL"]) || c.take(&["UP", "TO"]) {
        subscribe.up_to = Some(c.sql(Parser::parse_expr)?);
    }
    if c.take(&["LIMIT"]) {
        subscribe.limit = Some(c.unsigned()?);
    }
    Ok(Statement::Subscribe(Box::new(subscribe)))
}

fn options(c: &mut Cursor<'_>, subscribe: &mut Subscribe) -> Parsed<()> {
    for option in flag_list(c)? {
        let field = match option.name.as_str() {
            "snapshot" => &mut subscribe.snapshot,
            "progress" => &mut subscribe.progress,
            name => {
                return Err(ParseError::syntax(
                    format!("unrecognized SUBSCRIBE option \"{name}\""),
                    option.position,
                )
                .with_hint("known options: snapshot, progress"));
            }
        };
        *field = match option.value.as_str() {
            "true" | "on" | "1" => true,
            "false" | "off" | "0" => false,
            _ => {
                return Err(ParseError::syntax(
                    format!("{} requires a Boolean value", option.name),
                    option.value_position,
                ));
            }
        };
    }
    Ok(())
}

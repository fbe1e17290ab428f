//! `WITH (name = value, …)` and `FORMAT … ENCODE …`. Names and values are read here; what they mean is known where they
//! are used, so each keeps its position for errors there.

use sqlparser::tokenizer::Token;

use crate::ast::{FormatEncode, WithOption};
use crate::cursor::{Cursor, Parsed};
use crate::error::ParseError;
use crate::names::fold;

/// `[WITH (…)]`; empty without it.
pub(crate) fn with_options(c: &mut Cursor<'_>) -> Parsed<Vec<WithOption>> {
    if at_with_options(c) {
        c.advance(1);
        with_list(c)
    } else {
        Ok(Vec::new())
    }
}

pub(crate) fn at_with_options(c: &Cursor<'_>) -> bool {
    c.at(&["WITH"]) && c.token(1) == &Token::LParen
}

/// `(name = value, …)`; no name twice.
pub(crate) fn with_list(c: &mut Cursor<'_>) -> Parsed<Vec<WithOption>> {
    let options = c.list(option)?;
    refuse_repeated(&options)?;
    Ok(options)
}

/// `(name [= value], …)`: a name alone is `true`.
pub(crate) fn flag_list(c: &mut Cursor<'_>) -> Parsed<Vec<WithOption>> {
    let options = c.list(|c| {
        let flag = matches!(c.token(1), Token::Comma | Token::RParen);
        if !flag {
            return option(c);
        }
        let position = c.position();
        Ok(WithOption {
            name: dotted_label(c)?,
            value: "true".to_string(),
            position,
            value_position: position,
        })
    })?;
    refuse_repeated(&options)?;
    Ok(options)
}

fn refuse_repeated(options: &[WithOption]) -> Parsed<()> {
    for (n, option) in options.iter().enumerate() {
        if options[..n]
            .iter()
            .any(|earlier| earlier.name == option.name)
        {
            return Err(ParseError::syntax(
                format!("option \"{}\" is given more than once", option.name),
                option.position,
            ));
        }
    }
    Ok(())
}

/// `name = value`.
pub(crate) fn option(c: &mut Cursor<'_>) -> Parsed<WithOption> {
    let position = c.position();
    let name = dotted_label(c)?;
    c.expect_token(&Token::Eq)?;
    let value_position = c.position();
    let value = option_value(c)?;
    Ok(WithOption {
        name,
        value,
        position,
        value_position,
    })
}

/// A possibly dotted name: `fields.id.kind`. Any word will do, as will a string.
pub(crate) fn dotted_label(c: &mut Cursor<'_>) -> Parsed<String> {
    if let Some(name) = c.take_string() {
        return Ok(name);
    }
    let mut name = fold(&c.label()?);
    while c.take_token(&Token::Period) {
        name.push('.');
        name.push_str(&fold(&c.label()?));
    }
    Ok(name)
}

/// A value as text: a string, a number, a word, or an interval's string.
pub(crate) fn option_value(c: &mut Cursor<'_>) -> Parsed<String> {
    if c.at(&["SECRET"]) && matches!(c.token(1), Token::Word(_)) {
        return c.not_built("SECRET in options");
    }
    if c.at(&["INTERVAL"]) {
        c.advance(1);
        return c.string();
    }
    if let Some(text) = c.take_string() {
        return Ok(text);
    }
    let negative = match c.token(0) {
        Token::Minus => true,
        Token::Plus => false,
        Token::Word(_) => return dotted_label(c),
        Token::Number(..) => return number(c),
        _ => return Err(c.unexpected().with_hint("expected a value")),
    };
    c.advance(1);
    let digits = number(c)?;
    Ok(if negative {
        format!("-{digits}")
    } else {
        digits
    })
}

fn number(c: &mut Cursor<'_>) -> Parsed<String> {
    let Token::Number(digits, _) = c.token(0) else {
        return Err(c.unexpected().with_hint("expected a number"));
    };
    let digits = digits.clone();
    c.advance(1);
    Ok(digits)
}

/// `FORMAT f ENCODE e [(…)] [KEY ENCODE k]`, standing at `FORMAT`.
pub(crate) fn format_encode(c: &mut Cursor<'_>) -> Parsed<FormatEncode> {
    c.expect(&["FORMAT"])?;
    let position = c.position();
    let format = fold(&c.label()?);
    c.expect(&["ENCODE"])?;
    let encode_position = c.position();
    let encode = fold(&c.label()?);
    let options = if c.at_token(&Token::LParen) {
        with_list(c)?
    } else {
        Vec::new()
    };
    let key_encode = if c.take(&["KEY", "ENCODE"]) {
        Some(fold(&c.label()?))
    } else {
        None
    };
    Ok(FormatEncode {
        format,
        encode,
        options,
        key_encode,
        position,
        encode_position,
    })
}

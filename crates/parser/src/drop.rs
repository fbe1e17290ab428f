//! `DROP`.

use crate::ast::{Drop, ObjectKind, Statement};
use crate::create::NOT_BUILT_KINDS;
use crate::cursor::{Cursor, Parsed};
use crate::statement::{not_built, sql};

pub(crate) fn drop(c: &mut Cursor<'_>) -> Parsed<Statement> {
    for words in NOT_BUILT_KINDS {
        if c.word(1).is_some_and(|w| w.eq_ignore_ascii_case(words)) {
            return Ok(not_built(c, format!("DROP {words}")));
        }
    }
    if !KINDS.iter().any(|(words, _)| c.at_nth(1, words[0])) {
        return sql(c);
    }
    c.advance(1);
    let kind = object_kind(c)?;
    let if_exists = c.take(&["IF", "EXISTS"]);
    let names = c.commas(Cursor::name)?;
    let cascade = c.take(&["CASCADE"]);
    if !cascade {
        let _ = c.take(&["RESTRICT"]);
    }
    Ok(Statement::Drop(Drop {
        kind,
        if_exists,
        names,
        cascade,
    }))
}

const KINDS: &[(&[&str], ObjectKind)] = &[
    (&["TABLE"], ObjectKind::Table),
    (&["SOURCE"], ObjectKind::Source),
    (&["VIEW"], ObjectKind::View),
    (&["MATERIALIZED", "VIEW"], ObjectKind::MaterializedView),
    (&["SINK"], ObjectKind::Sink),
    (&["INDEX"], ObjectKind::Index),
    (&["SCHEMA"], ObjectKind::Schema),
];

/// Reads the words of a kind.
pub(crate) fn object_kind(c: &mut Cursor<'_>) -> Parsed<ObjectKind> {
    for (words, kind) in KINDS {
        if c.take(words) {
            return Ok(*kind);
        }
    }
    if c.at(&["MATERIALIZED"]) {
        c.advance(1);
    }
    Err(c.unexpected())
}

/// Reads the words of a kind that has rows.
pub(crate) fn relation_kind(c: &mut Cursor<'_>) -> Parsed<ObjectKind> {
    let unexpected = c.unexpected();
    match object_kind(c)? {
        ObjectKind::Schema | ObjectKind::Index => Err(unexpected),
        kind => Ok(kind),
    }
}

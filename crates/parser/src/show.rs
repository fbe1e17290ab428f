//! `SHOW` and `DESCRIBE`.

use sqlparser::tokenizer::Token;

use crate::ast::{LikePattern, Show, ShowWhat, Statement};
use crate::cursor::{Cursor, Parsed};
use crate::drop::object_kind;
use crate::options::dotted_label;
use crate::statement::not_built;

/// `SHOW what [FROM name] [LIKE 'pattern']`, `SHOW CREATE kind name`, `SHOW setting`.
pub(crate) fn show(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    if c.take(&["CREATE"]) {
        let kind = object_kind(c)?;
        let name = c.name()?;
        return Ok(plain(ShowWhat::Create { kind, name }));
    }
    for words in NOT_BUILT {
        if c.at(words) {
            return Ok(not_built(c, format!("SHOW {}", words.join(" "))));
        }
    }
    let Some((_, what)) = LISTS.iter().find(|(words, _)| c.take(words)) else {
        return setting(c);
    };
    let takes_from = matches!(
        what,
        ShowWhat::Tables
            | ShowWhat::Views
            | ShowWhat::MaterializedViews
            | ShowWhat::Sources
            | ShowWhat::Sinks
            | ShowWhat::Indexes
            | ShowWhat::Columns
    );
    let from = if takes_from && (c.take(&["FROM"]) || c.take(&["IN"])) {
        Some(c.name()?)
    } else if matches!(what, ShowWhat::Columns) {
        return Err(c.unexpected().with_hint("expected FROM"));
    } else {
        None
    };
    let like = like(c)?;
    Ok(Statement::Show(Show {
        what: what.clone(),
        from,
        like,
    }))
}

const LISTS: &[(&[&str], ShowWhat)] = &[
    (&["TABLES"], ShowWhat::Tables),
    (&["VIEWS"], ShowWhat::Views),
    (&["MATERIALIZED", "VIEWS"], ShowWhat::MaterializedViews),
    (&["SOURCES"], ShowWhat::Sources),
    (&["SINKS"], ShowWhat::Sinks),
    (&["INDEXES"], ShowWhat::Indexes),
    (&["INDICES"], ShowWhat::Indexes),
    (&["SCHEMAS"], ShowWhat::Schemas),
    (&["DATABASES"], ShowWhat::Databases),
    (&["COLUMNS"], ShowWhat::Columns),
    (&["JOBS"], ShowWhat::Jobs),
    (&["CHECKPOINTS"], ShowWhat::Checkpoints),
    (&["SAVEPOINTS"], ShowWhat::Savepoints),
    (&["RECOVERY"], ShowWhat::Recovery),
    (&["ALL"], ShowWhat::All),
    (&["PARAMETERS"], ShowWhat::All),
];

const NOT_BUILT: &[&[&str]] = &[
    &["CONNECTIONS"],
    &["FUNCTIONS"],
    &["SECRETS"],
    &["SUBSCRIPTIONS"],
    &["CURSORS"],
    &["CLUSTER"],
    &["PROCESSLIST"],
    &["USERS"],
    &["ROLES"],
    &["INTERNAL", "TABLES"],
    &["FRAGMENTS"],
];

fn plain(what: ShowWhat) -> Statement {
    Statement::Show(Show {
        what,
        from: None,
        like: None,
    })
}

/// Postgres spells some settings in several words.
fn setting(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let position = c.position();
    let spelled: &[(&[&str], &str)] = &[
        (
            &["TRANSACTION", "ISOLATION", "LEVEL"],
            "transaction_isolation",
        ),
        (&["TIME", "ZONE"], "timezone"),
        (&["SESSION", "AUTHORIZATION"], "session_authorization"),
    ];
    for (words, name) in spelled {
        if c.take(words) {
            return Ok(plain(ShowWhat::Setting {
                name: name.to_string(),
                position,
            }));
        }
    }
    c.refuse_reserved()?;
    let name = match c.token(0) {
        Token::Word(_) => dotted_label(c)?,
        _ => return Err(c.unexpected()),
    };
    Ok(plain(ShowWhat::Setting { name, position }))
}

fn like(c: &mut Cursor<'_>) -> Parsed<Option<LikePattern>> {
    let case_insensitive = c.at(&["ILIKE"]);
    if !case_insensitive && !c.at(&["LIKE"]) {
        return Ok(None);
    }
    c.advance(1);
    let pattern = c.string()?;
    Ok(Some(LikePattern {
        pattern,
        case_insensitive,
    }))
}

/// `DESCRIBE SAVEPOINT name`, `DESCRIBE [kind] name`.
pub(crate) fn describe(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    let two_words = matches!(c.token(1), Token::Word(_));
    if two_words && c.take(&["SAVEPOINT"]) {
        return Ok(Statement::DescribeSavepoint { name: c.ident()? });
    }
    if two_words {
        object_kind(c)?;
    }
    Ok(Statement::Describe { name: c.name()? })
}
